"""Descending an objective in steps: one network, or many side by side over seeds and a grid."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np
import optax

from tauflow.learning.assemble import Group, Member, finished, to_run
from tauflow.learning.checkpoint import Checkpoint, fingerprint
from tauflow.learning.member import Ensemble, Makers, Point, State, replace, trained
from tauflow.learning.progress import Progress, Reporter
from tauflow.learning.rates import plain_rates
from tauflow.learning.record import Record
from tauflow.learning.recorder import WEIGHT_FIELDS, Recorder, joined, spectral_abscissa_of
from tauflow.precision import cast, scope
from tauflow.run import Run, RunError, load

CAPACITY = 64  # most updates between two looks at the host
COMMIT_SECONDS = 5.0
_NETWORK_KEY = 2**32 - 1


def network_key(key: jax.Array) -> jax.Array:
    """The key with which `ensemble` makes the network of a member whose key is `key`.

    No update uses it, so weights and trials are independent.
    """
    return jax.random.fold_in(key, _NETWORK_KEY)


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
    keys = list(keys)
    steps = checked_steps(steps)
    if not keys:
        raise ValueError("0 keys came; an ensemble needs at least one, for example keys=jax.random.split(key, 4).")
    folder = None if out is None else Path(out)
    with scope(dtype):
        members = _members(make_network, keys, _points(grid or {}), tuple(train), dtype)
        groups = _groups(members, make_objective, make_optimizer, project, dtype, tuple(train))
        start = fingerprint(
            [[member.network, member.seed, member.point, jax.random.key_data(member.key)] for member in members],
            steps, dtype, list(train), list(record.measurement_times(steps)), list(record.snapshot_times(steps)),
            list(record.probes), configuration,
        )  # fmt: skip
        saved = _already_saved(folder, resume, start)
        if saved is not None:
            return saved
        reporter = Reporter(progress, len(members), steps)
        device = device_in_words()
        results = []
        for i, group in enumerate(groups):
            inside = folder if folder is None or len(groups) == 1 else folder / f"group-{i}"
            checkpoint = Checkpoint(inside, start=start, device=device, every=commit_seconds)
            results.append(_run_group(group, steps, tuple(train), record, checkpoint, reporter))
        details = {"steps": steps, "train": list(train), "dtype": dtype, "start": start, "grid": dict(grid or {})}
        run = to_run(results, details=details, extra=configuration or {}, device=device)
    if folder is not None:
        run.save(folder / "run.zarr")
        for i in range(len(groups)):
            Checkpoint.clear(folder if len(groups) == 1 else folder / f"group-{i}")
    return run


def checked_steps(steps: Any) -> int:
    """`steps` as an int, or a `ValueError` that says what it must be."""
    if isinstance(steps, bool) or not isinstance(steps, (int, np.integer)) or steps < 0:
        raise ValueError(f"steps is {steps!r}; it must be a whole number of updates, 0 or more.")
    return int(steps)


def device_in_words() -> str:
    """Kind and number of the devices that JAX computes on, for example "2 x cpu"."""
    devices = jax.local_devices()
    return f"{len(devices)} x {devices[0].device_kind}"


def _points(grid: Mapping[str, Sequence[Any]]) -> list[Point]:
    for name, values in grid.items():
        if len(values) == 0:
            raise ValueError(f"grid axis {name!r} is empty; give it one value or more.")
    return [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]


def _members(
    make_network: Callable[..., Any], keys: list[jax.Array], points: list[Point], train: tuple[str, ...], dtype: str
) -> list[Member]:
    members: list[Member] = []
    for point in points:
        for seed, key in enumerate(keys):
            network = cast(make_network(key=network_key(key), **point), dtype)
            lacking = [name for name in train if not hasattr(network, name)]
            if lacking or not train:
                raise ValueError(
                    f"train is {train}; it must name fields of the {type(network).__name__}, for example ('W',)."
                )
            members.append(Member(len(members), point, seed, key, network))
    return members


def _groups(
    members: list[Member],
    make_objective: Callable[..., Any],
    make_optimizer: Callable[..., optax.GradientTransformation],
    project: Callable[[Any], Any] | None,
    dtype: str,
    train: tuple[str, ...],
) -> list[Group]:
    """Members that can share one compiled program, and how each group gets its objective and optimizer."""
    by_structure: dict[Any, list[Member]] = {}
    for member in members:
        text = tuple((name, value) for name, value in member.point.items() if not _is_number(value))
        by_structure.setdefault((_structure(member.network), repr(text)), []).append(member)
    groups = []
    for alike in by_structure.values():
        shared = _traced_group(alike, make_objective, make_optimizer, project, dtype, train)
        if shared is not None:
            groups.append(shared)
            continue
        by_point: dict[str, list[Member]] = {}
        for member in alike:
            by_point.setdefault(repr(member.point), []).append(member)
        groups += [_fixed_group(same, make_objective, make_optimizer, project, dtype) for same in by_point.values()]
    return groups


def _fixed_group(
    members: list[Member], make_objective: Any, make_optimizer: Any, project: Any, dtype: str
) -> Group:  # fmt: skip
    """Members at one grid point: objective and optimizer are made once, of Python values."""
    point = members[0].point
    objective, optimizer = cast(make_objective(**point), dtype), make_optimizer(**point)
    makers = Makers(lambda: objective, lambda: optimizer, project)
    return Group(members, [{} for _ in members], makers, [optimizer] * len(members), [objective] * len(members))


def _traced_group(
    members: list[Member], make_objective: Any, make_optimizer: Any, project: Any, dtype: str, train: tuple[str, ...]
) -> Group | None:
    """Members at several grid points with the numbers traced; None where a maker needs them as Python numbers."""
    if all(member.point == members[0].point for member in members):
        return None
    constant = {name: value for name, value in members[0].point.items() if not _is_number(value)}
    numbers = [
        {name: _array(value, dtype) for name, value in member.point.items() if name not in constant}
        for member in members
    ]
    makers = Makers(
        lambda **point: cast(make_objective(**constant, **point), dtype),
        lambda **point: make_optimizer(**constant, **point),
        project,
    )

    def probe(point: Point) -> Any:
        params = trained(members[0].network, train)
        loss = makers.objective(**point)(replace(members[0].network, params), members[0].key)
        return makers.optimizer(**point).init(params), loss

    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="A JAX array is being set as static")
            jax.eval_shape(probe, numbers[0])
    except (TypeError, ValueError, UserWarning):  # a maker needs a number: run the points one by one, with real errors
        return None
    optimizers = [make_optimizer(**member.point) for member in members]
    objectives = [make_objective(**member.point) for member in members]
    return Group(members, numbers, makers, optimizers, objectives)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)


def _array(value: Any, dtype: str) -> np.ndarray:
    return np.asarray(value, dtype if isinstance(value, (float, np.floating)) else np.int32)


def _structure(network: Any) -> Any:
    leaves, structure = jax.tree.flatten(network)
    return structure, tuple((leaf.shape, str(leaf.dtype)) if eqx.is_array(leaf) else repr(leaf) for leaf in leaves)


def _already_saved(folder: Path | None, resume: bool, start: str) -> Run | None:
    """The finished run in `folder` when going on with it; refuses a folder that holds another run."""
    if folder is None:
        return None
    held = [name for name in ("run.zarr", "state.npz", "parts", "group-0") if (folder / name).exists()]
    if held and not resume:
        raise RunError(
            f"{folder} already holds {held[0]} of a run; pass resume=True to go on with it, or another out=."
        )
    if not (folder / "run.zarr").exists():
        return None
    run = load(folder / "run.zarr")
    if run.configuration.get("start") != start:
        raise RunError(
            f"{folder / 'run.zarr'} is a run with other initial weights, keys, settings or steps; "
            "resume with the same arguments, or choose another folder."
        )
    return run


def _run_group(
    group: Group, steps: int, train: tuple[str, ...], record: Record, checkpoint: Checkpoint, reporter: Reporter
) -> Group:
    """Do all updates of a group, recording and committing on the way; the group with its records."""
    networks = [member.network for member in group.members]
    keys = [member.key for member in group.members]
    points = list(group.points)
    ensemble = Ensemble(networks, keys, points, train=train, makers=group.makers, capacity=min(CAPACITY, steps))
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

    done, leaves = checkpoint.resume() or (0, None)
    first = done
    if leaves is None:
        observe(0)
    else:
        ensemble.set_state(leaves)
    reporter.start_group(len(networks), done)
    while done < steps:
        count = min(next(stop for stop in stops if stop > done) - done, CAPACITY)
        losses, norms = ensemble.advance(count)
        recorder.add_losses(done, losses, norms)
        done += count
        observe(done)
        reporter.chunk(done, ensemble.alive(), losses, count)
        if done < steps and checkpoint.due():
            checkpoint.commit(first, done, recorder.take(), jax.tree.leaves(ensemble.host_state()))
            first = done
    state = ensemble.host_state()
    checkpoint.commit(first, done, recorder.take(), jax.tree.leaves(state))
    reporter.end_group(np.asarray(state.alive))
    rates = [plain_rates(opt, trained(net, train), steps) for opt, net in zip(group.optimizers, networks, strict=True)]
    abscissae = [spectral_abscissa_of(network) for network in _networks_now(networks, state)]
    return finished(group, joined(checkpoint.parts()), state, rates, abscissae)


def _networks_now(networks: Sequence[Any], state: State) -> list[Any]:
    """Every member's network with the weights of a host state."""
    return [replace(net, jax.tree.map(lambda leaf, i=i: leaf[i], state.params)) for i, net in enumerate(networks)]
