"""Gradient flow of several networks, one after the other, as one Run; each is kept as soon as it is done."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from tauflow.learning.checkpoint import Checkpoint, already_saved, check_same_run, fingerprint, held
from tauflow.learning.gradient_flow import Plan, follow, planned
from tauflow.learning.groups import checked_keys, network_key
from tauflow.learning.member import replace, trained
from tauflow.learning.progress import Progress, Reporter
from tauflow.learning.record import Record
from tauflow.precision import cast, scope
from tauflow.run import Run, load, merge


def flow_ensemble(
    make_network: Callable[..., Any],
    objective: Callable[[Any, jax.Array], jax.Array],
    *,
    keys: Sequence[jax.Array] | jax.Array,
    duration: float,
    save_at: Sequence[float] | np.ndarray | None = None,
    train: Sequence[str] = ("W", "W_in", "W_out"),
    rates: Mapping[str, float] | Callable[[Any], Mapping[str, float]] | None = None,
    rtol: float = 1e-8,
    atol: float = 1e-10,
    record: Record = Record(),
    max_steps: int = 100_000,
    out: str | Path | None = None,
    resume: bool = False,
    progress: Callable[[Progress], None] | None = None,
    configuration: Mapping[str, Any] | None = None,
) -> Run:
    """Follow the gradient flow of one loss from many networks of one size.

    A member equals its single run, `flow(make_network(key=network_key(key)), objective, …, key=key)`, bit for bit. One
    that diverges, be it at the start, is labelled; the others go on untouched. With `out`, each member is committed
    when it is done, and going on redoes only those that are not.

    Args:
        make_network: `(*, key) -> network`; the key is `network_key` of the member's.
        objective: As for `flow`.
        keys: Random keys, one per member.
        duration: As for `flow`.
        save_at: As for `flow`.
        train: As for `flow`.
        rates: As for `flow`, or a function of the member's network that gives them.
        rtol: As for `flow`.
        atol: As for `flow`.
        record: As for `flow`.
        max_steps: As for `flow`.
        out: Folder for the members and at last `run.zarr`; None keeps everything in memory.
        resume: Go on with the run in `out`, if there is one.
        progress: Called with a `Progress` at every saved point, over all members.
        configuration: As for `flow`.

    Returns:
        One Run with every member along `run`; the coordinate `seed` is the position of its key.

    Raises:
        ValueError: As for `flow`; also without keys, if members differ in size, or `out` holds another run.

    Example:
        >>> from tauflow.networks import RateRNN
        >>> run = flow_ensemble(
        ...     lambda *, key: RateRNN.random(10, 1, 1, gain=0.5, key=key), lambda net, key: (net.W**2).sum(),
        ...     keys=jax.random.split(jax.random.key(0), 3), duration=1.0, train=("W",))
        >>> run.data.loss.shape, run.data.seed.values.tolist()
        ((3, 101), [0, 1, 2])
    """
    keys, folder = checked_keys(keys), None if out is None else Path(out)
    with scope("float64"):
        objective = cast(objective, "float64")

        def begin(key: jax.Array) -> tuple[Any, Plan]:
            network = cast(make_network(key=network_key(key)), "float64")
            own = rates(network) if callable(rates) else rates
            return network, planned(
                network, duration=duration, save_at=save_at, train=train, rates=own, rtol=rtol, atol=atol,
                max_steps=max_steps, record=record,
            )  # fmt: skip

        starts = [_start_of(*begin(key), key, configuration) for key in keys]
        network, plan = begin(keys[0])
        program = _program_of(network, objective, plan, keys[0])
        points = len(plan.times)
        start = fingerprint(starts)
        with held(folder):
            run = already_saved(folder, resume, start, program)
            if run is None:
                reporter = Reporter(progress, len(keys), points, unit="points", compiled=2)
                members = []
                for seed, (key, own_start) in enumerate(zip(keys, starts, strict=True)):
                    path = None if folder is None else folder / "parts" / f"{seed}.zarr"
                    done = _committed(path, own_start, program)
                    if done is None:
                        network, plan = begin(key)
                        known = {**(configuration or {}), "start": own_start, "program": program}
                        done = follow(
                            network, objective, plan, key=key, reporter=reporter, configuration=known, must_start=False
                        )
                        if path is not None:
                            done.save(path)
                    else:
                        reporter.start_group(1, points)
                        reporter.end_group(done.data["status"].values != "diverged")
                    members.append(done)
                run = _joined(members, start)
                if folder is not None:
                    run.save(folder / "run.zarr")
            if folder is not None:
                Checkpoint.clear(folder)
    return run


def _start_of(network: Any, plan: Plan, key: jax.Array, configuration: Mapping[str, Any] | None) -> str:
    """Checksum of what a member starts from and how it goes on."""
    last = len(plan.times) - 1
    record = plan.record
    kept = [list(record.measurement_times(last)), list(record.snapshot_times(last)), list(record.probes)]
    return fingerprint(network, jax.random.key_data(key), plan.describe(), plan.times, kept, configuration)


def _program_of(network: Any, objective: Any, plan: Plan, key: jax.Array) -> str:
    """Checksum of what is descended, the same in another process."""
    loss = jax.make_jaxpr(lambda params: objective(replace(network, params), key))(trained(network, plan.train))
    return fingerprint(re.sub(r"0x[0-9a-f]+", "", str(loss)), loss.consts)


def _committed(path: Path | None, start: str, program: str) -> Run | None:
    """The member that is done already, after checking that it is of this run."""
    if path is None or not path.exists():
        return None
    run = load(path)
    check_same_run(path, {**run.configuration, "versions": json.loads(run.data.attrs["versions"])}, start, program)
    return run


def _joined(members: Sequence[Run], start: str) -> Run:
    """All members as one Run, whose configuration is theirs."""
    data = merge(members).data
    configuration = {**members[0].configuration, "start": start}
    seeds = ("run", np.arange(len(members)))
    return Run(data.assign(seed=seeds).assign_attrs(configuration=json.dumps(configuration)))
