"""Descending an objective in steps: one network, or many side by side over seeds and a grid."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
import xarray as xr

from tauflow.learning.assemble import Group, attributes_of, finished, label_of, to_run
from tauflow.learning.checkpoint import Checkpoint, already_saved, fingerprint, held
from tauflow.learning.groups import (
    checked_fields,
    checked_keys,
    checked_steps,
    device_in_words,
    groups_of,
    members_of,
    points_of,
    program_of,
    with_rates,
)
from tauflow.learning.member import Ensemble, State, replace
from tauflow.learning.progress import Progress, Reporter
from tauflow.learning.record import Record
from tauflow.learning.recorder import WEIGHT_FIELDS, Recorder, joined, spectral_abscissa_of
from tauflow.precision import scope
from tauflow.run import Run

Until = Callable[[xr.Dataset], bool]
CAPACITY = 64  # most updates between two looks at the host
COMMIT_SECONDS = 5.0


def descend(
    network: Any,
    objective: Callable[[Any, jax.Array], jax.Array],
    *,
    optimizer: optax.GradientTransformation,
    steps: int,
    key: jax.Array,
    train: Sequence[str] = ("W", "W_in", "W_out"),
    project: Callable[[Any], Any] | None = None,
    record: Record = Record(),
    until: Until | None = None,
    dtype: str = "float32",
    out: str | Path | None = None,
    resume: bool = False,
    progress: Callable[[Progress], None] | None = None,
    configuration: Mapping[str, Any] | None = None,
    commit_seconds: float = COMMIT_SECONDS,
) -> Run:
    """Descend an objective from a network, `steps` updates of an optax optimizer.

    A non-finite loss or gradient stops the run: its status is "diverged", and everything before is kept.

    Args:
        network: An `equinox.Module`; the fields named in `train` are moved.
        objective: `objective(network, key) -> scalar`; update k gets `fold_in(key, k)`.
        optimizer: An optax optimizer. Where it is plain gradient descent with one rate, learning time `tau` is the sum
            of the rates ("flow"), otherwise the number of updates ("update").
        steps: Number of updates, at least 0.
        key: JAX random key.
        train: Names of the fields to train.
        project: `project(network) -> network` after every update, for constraints; None for none.
        record: What to keep besides losses and gradient norms.
        until: Learning ends after a measurement at which `until(records)` is true, or after `steps` updates; `records`
            are a Run's variables as far as they are known, for example `records["probe_heldout"]`.
        dtype: "float32" or "float64", of the network's and the objective's arrays.
        out: Folder for the checkpoints and at last `run.zarr`; None keeps everything in memory.
        resume: Go on where the run in `out` was last committed, if it was.
        progress: Called with a `Progress` now and then.
        configuration: Plain values to store with the run, beside what `descend` knows itself.
        commit_seconds: Seconds between two checkpoints, at least.

    Returns:
        The Run, with one member.

    Raises:
        ValueError: If an argument is out of range, a trained field is missing, or `out` holds another run.

    Example:
        >>> import jax, optax
        >>> from tauflow.networks import RateRNN
        >>> network = RateRNN.random(20, 1, 1, gain=0.5, key=jax.random.key(0))
        >>> run = descend(network, lambda net, key: (net.W**2).sum(), optimizer=optax.sgd(0.1), steps=3,
        ...               key=jax.random.key(1))
        >>> run.data.loss.shape, run.tau_unit
        ((1, 3), 'flow')
    """
    return ensemble(
        lambda *, key: network,
        lambda: objective,
        lambda: optimizer,
        keys=[key],
        steps=steps,
        train=train,
        project=project,
        record=record,
        until=until,
        dtype=dtype,
        out=out,
        resume=resume,
        progress=progress,
        configuration=configuration,
        commit_seconds=commit_seconds,
    )


def ensemble(
    make_network: Callable[..., Any],
    make_objective: Callable[..., Callable[[Any, jax.Array], jax.Array]],
    make_optimizer: Callable[..., optax.GradientTransformation],
    *,
    keys: Sequence[jax.Array] | jax.Array,
    grid: Mapping[str, Sequence[Any]] | None = None,
    steps: int,
    train: Sequence[str] = ("W", "W_in", "W_out"),
    project: Callable[[Any], Any] | None = None,
    record: Record = Record(),
    until: Until | None = None,
    dtype: str = "float32",
    out: str | Path | None = None,
    resume: bool = False,
    progress: Callable[[Progress], None] | None = None,
    configuration: Mapping[str, Any] | None = None,
    commit_seconds: float = COMMIT_SECONDS,
) -> Run:
    """Descend from many networks: every key at every point of a grid.

    Members that differ in numbers alone share one compiled program; those that differ in shape, or whose makers need
    a grid value as a Python number, run group by group. A member that diverges is frozen and labelled; the others go
    on untouched. On CPUs a member equals its single run, `descend(make_network(key=network_key(key), **point), …,
    key=key)`, bit for bit.

    Args:
        make_network: `(*, key, **point) -> network`; the key is `network_key` of the member's.
        make_objective: `(**point) -> objective`.
        make_optimizer: `(**point) -> optax optimizer`.
        keys: Random keys, one per seed.
        grid: Name -> values; every combination is a point, in the order of `itertools.product`.
        steps: Number of updates, at least 0.
        train: As for `descend`.
        project: As for `descend`.
        record: As for `descend`.
        until: As for `descend`, with the records of members that share one compiled program.
        dtype: As for `descend`.
        out: As for `descend`.
        resume: As for `descend`.
        progress: As for `descend`, over all members.
        configuration: As for `descend`.
        commit_seconds: As for `descend`.

    Returns:
        One Run with every member along `run`; each grid axis and `seed` (the position of the key) are coordinates.
        Members with fewer units than the largest are padded with NaN.

    Raises:
        ValueError: As for `descend`; also without keys or with an empty grid axis.
    """
    keys, steps, fields = checked_keys(keys), checked_steps(steps), checked_fields(train)
    folder = None if out is None else Path(out)
    with scope(dtype):
        members = members_of(make_network, keys, points_of(grid or {}), fields, dtype)
        groups = groups_of(members, make_objective, make_optimizer, project, dtype, fields)
        groups = [with_rates(group, fields, steps) for group in groups]
        start = fingerprint(
            [[member.network, member.seed, member.point, jax.random.key_data(member.key)] for member in members],
            steps, dtype, list(fields), list(record.measurement_times(steps)), list(record.snapshot_times(steps)),
            list(record.probes), configuration,
        )  # fmt: skip
        program = fingerprint([program_of(group, fields) for group in groups])
        details = {
            "steps": steps, "train": list(fields), "dtype": dtype, "start": start, "program": program,
            "grid": {name: [label_of(value) for value in values] for name, values in (grid or {}).items()},
        }  # fmt: skip
        device = device_in_words()
        attributes, coordinates = attributes_of(groups, details=details, extra=configuration or {}, device=device)
        with held(folder):
            homes = [
                folder if folder is None or len(groups) == 1 else folder / f"group-{i}" for i in range(len(groups))
            ]
            run = already_saved(folder, resume, start, program)
            if run is None:
                reporter = Reporter(progress, len(members), steps)
                results = []
                for group, home in zip(groups, homes, strict=True):
                    checkpoint = Checkpoint(home, start=start, program=program, device=device, every=commit_seconds)
                    results.append(_run_group(group, steps, fields, record, until, checkpoint, reporter))
                run = to_run(results, attributes, coordinates)
                if folder is not None:
                    run.save(folder / "run.zarr")
            for home in homes:
                if home is not None:
                    Checkpoint.clear(home)
    return run


def _run_group(
    group: Group,
    steps: int,
    train: tuple[str, ...],
    record: Record,
    until: Until | None,
    checkpoint: Checkpoint,
    reporter: Reporter,
) -> Group:
    """Do all updates of a group, recording and committing on the way; the group with its records."""
    networks = [member.network for member in group.members]
    keys = [member.key for member in group.members]
    points = list(group.points)
    ensemble = Ensemble(networks, keys, points, train=train, makers=group.makers, capacity=CAPACITY)
    measurements, snapshots = set(record.measurement_times(steps)), set(record.snapshot_times(steps))
    stops = sorted({int(t) for t in measurements | snapshots if t > 0} | {steps})
    recorder = Recorder(networks, (*WEIGHT_FIELDS, *train), record.probes)

    def observe(update: int) -> None:
        if update in measurements or update in snapshots:
            state = ensemble.host_state()
            now, alive = _networks_now(networks, state), np.asarray(state.alive)
            if update in snapshots:
                recorder.keep_weights(update, now, alive)
            if update in measurements:
                recorder.measure(update, now, alive)

    def over(update: int) -> bool:
        if until is None or update in (0, steps) or update not in measurements:
            return update == steps
        return bool(until(joined([*checkpoint.parts(), recorder.seen()])))

    done, leaves = checkpoint.resume() or (0, None)
    first = done
    if leaves is None:
        observe(0)
    else:
        ensemble.set_state(leaves)
    reporter.start_group(len(networks), done)
    ended = over(done)
    while not ended:
        count = min(next(stop for stop in stops if stop > done) - done, CAPACITY)
        losses, norms = ensemble.advance(count)
        recorder.add_losses(done, losses, norms)
        done += count
        observe(done)
        ended = over(done)
        if ended and steps in snapshots and done not in snapshots:
            state = ensemble.host_state()
            recorder.keep_weights(done, _networks_now(networks, state), np.asarray(state.alive))
        reporter.chunk(done, ensemble.alive(), losses, count, ended=ended)
        if not ended and checkpoint.due():
            checkpoint.commit(first, done, recorder.take(), jax.tree.leaves(ensemble.host_state()))
            first = done
    state = ensemble.host_state()
    if leaves is None or first < done:
        checkpoint.commit(first, done, recorder.take(), jax.tree.leaves(state))
    reporter.end_group(np.asarray(state.alive))
    at_last = zip(_networks_now(networks, state), state.alive, strict=True)
    abscissae = [np.nan if alive else spectral_abscissa_of(network) for network, alive in at_last]
    return finished(group, joined(checkpoint.parts()), state, abscissae)


def _networks_now(networks: Sequence[Any], state: State) -> list[Any]:
    """Every member's network with the weights of a host state."""
    return [replace(net, jax.tree.map(lambda leaf, i=i: leaf[i], state.params)) for i, net in enumerate(networks)]
