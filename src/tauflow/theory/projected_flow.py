"""Predictions from an effective network: its loss and a probe at a run's own learning times, with bands."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import xarray as xr

from tauflow.analysis.arguments import FloatArray
from tauflow.run import Run
from tauflow.theory.base import Assumption, Found, Theory, worst
from tauflow.theory.effective_network import EffectiveFlow, EffectiveNetwork, effective_flow
from tauflow.theory.filter_reading import FilterMember, filter_loss, filter_member, need_rates
from tauflow.theory.reading import prediction
from tauflow.theory.rich_assumptions import speed

Networks = tuple[EffectiveNetwork, EffectiveNetwork]


def predict(
    theory: Theory,
    run: Run,
    networks: Callable[[FilterMember], Networks],
    probe: tuple[str, Callable[[EffectiveFlow], np.ndarray]],
) -> xr.Dataset:
    """Predict loss and a probe of every member.

    Args:
        theory: Whose prediction it is.
        run: The run whose times are meant.
        networks: An effective network for a member, and one of an order less, whose difference makes the band.
        probe: Name of the probe's variable, and its values along a flow.

    Returns:
        Dataset with `loss (run, update)` and, where the run has measurements, the probe (run, measurement, ...), each
        with `<name>_band`; NaN where a member has no learning time.

    Raises:
        ValueError: If a member cannot be read, or does not follow gradient flow, so that its learning rates are not
            known.
    """
    members = [filter_member(run, i) for i in range(run.n_runs)]
    need_rates(members)
    name, measured = probe
    quantities: dict[str, tuple[str, str, Callable[[EffectiveFlow], np.ndarray]]] = {}
    if "tau" in run.data:
        quantities["loss"] = ("tau", "update", lambda flow: flow.loss)
    if "tau_measurement" in run.data:
        quantities[name] = ("tau_measurement", "measurement", measured)
    found: dict[str, list[Any]] = {each: [] for every in quantities for each in (every, f"{every}_band")}
    for i, member in enumerate(members):
        flows = _flows(member, networks(member), [run.data[tau].values[i] for tau, _, _ in quantities.values()])
        for (quantity, (_, _, value)), (here, better, worse) in zip(quantities.items(), flows, strict=True):
            best = value(better)
            where = here.reshape(here.shape + (1,) * (best.ndim - 1))
            found[quantity].append(np.where(where, best, np.nan))
            found[f"{quantity}_band"].append(np.where(where, np.abs(best - value(worse)), np.nan))
    variables = {}
    for quantity, (_, dim, _) in quantities.items():
        for each in (quantity, f"{quantity}_band"):
            stack = np.stack(found[each])
            variables[each] = (("run", dim, *(f"{quantity}_{axis}" for axis in range(stack.ndim - 2))), stack)
    return prediction(theory, run, variables)


def checked(run: Run, tests: Sequence[Callable[[FilterMember], Found]]) -> tuple[Assumption, ...]:
    """Measure assumptions on every member, up to the first that fails: the later ones may rest on it.

    Args:
        run: Any run.
        tests: The assumptions on a member that learns a filter by its exact loss.

    Returns:
        The worst member of each assumption.
    """
    every = range(run.n_runs)
    found = [worst(filter_loss(run, i) for i in every)]
    if not found[0].holds:
        return tuple(found)
    try:
        members = [filter_member(run, i) for i in every]
    except ValueError as error:
        return (*found, Assumption("initial weights and target", float("nan"), 0.0, False, str(error)))
    for test in tests:
        found.append(worst(test(member) for member in members))
        if not found[-1].holds:
            break
    return tuple(found)


def _flows(
    member: FilterMember, networks: Networks, times: Sequence[FloatArray]
) -> list[tuple[np.ndarray, EffectiveFlow, EffectiveFlow]]:
    """For each array of the run's times: which are times at all, and both flows there (at time 0 elsewhere)."""
    here = [np.isfinite(each) for each in times]
    tau = np.concatenate([np.where(ok, each, 0.0) for ok, each in zip(here, times, strict=True)]) * speed(member)
    better, worse = (effective_flow(tau, *network, member.target, member.gamma0) for network in networks)
    ends = np.cumsum([0, *(len(each) for each in times)])
    pieces = [slice(first, last) for first, last in itertools.pairwise(ends)]
    return [
        (ok, EffectiveFlow(*(x[piece] for x in better)), EffectiveFlow(*(x[piece] for x in worse)))
        for ok, piece in zip(here, pieces, strict=True)
    ]
