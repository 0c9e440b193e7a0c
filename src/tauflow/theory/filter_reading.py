"""What the theories of filter learning need of a run, member by member: initial weights, target, scales and rates."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from tauflow.analysis.arguments import FloatArray
from tauflow.run import Run
from tauflow.tasks import FilterTask, make_task
from tauflow.theory._arguments import EVERYTHING
from tauflow.theory.base import Found
from tauflow.theory.reading import name_of, network_name, neurons, settings, starts

NETWORK = "ContinuousLinearRNN"
OBJECTIVE = "filter-loss"


@dataclass(frozen=True)
class FilterMember:
    """One network of a run that learns a filter, in the paper's letters.

    Attributes:
        u: Initial read-in, shape (n,).
        v: Initial readout, shape (n,).
        W0: Initial recurrent weights, before their factor 1/√N, shape (n, n).
        gamma0: Richness γ₀; γ is γ₀√N.
        target: The target filter.
        rates: Learning rate of each field that learns, per unit of the run's tau; empty if the run does not follow
            gradient flow.
    """

    u: FloatArray
    v: FloatArray
    W0: FloatArray
    gamma0: float
    target: FilterTask
    rates: dict[str, float]

    @property
    def neurons(self) -> int:
        """Number of units N."""
        return len(self.u)

    @property
    def sigma(self) -> float:
        """Root mean square of W0."""
        return float(np.sqrt(np.mean(self.W0**2)))

    @property
    def gamma(self) -> float:
        """γ = γ₀√N."""
        return self.gamma0 * math.sqrt(self.neurons)


def filter_loss(run: Run, i: int) -> Found:
    """Whether a member learns a filter by its exact loss, in continuous time: 0, or infinity."""
    configuration = settings(run)[i]
    network, objective = network_name(run), name_of(configuration, "objective")
    off = 0.0 if network == NETWORK and objective == OBJECTIVE else math.inf
    told = f"The network is a {network or 'network of no name'} and the objective {objective or 'unknown'}"
    return Found("exact filter loss", off, 0.0, f"{told}; the theory is for {NETWORK} and {OBJECTIVE}.")


def rates(run: Run, i: int) -> dict[str, float]:
    """Learning rate of each field that a member trains; empty where learning is no gradient flow."""
    configuration = settings(run)[i]
    if run.tau_unit != "flow" or run.data.attrs["kind"] not in ("descend", "flow"):
        return {}
    given = dict(configuration.get("rates") or {}) if run.data.attrs["kind"] == "flow" else {}
    return {name: float(given.get(name, 1.0)) for name in configuration.get("train", EVERYTHING)}


def target(run: Run, i: int) -> FilterTask:
    """The filter that a member should learn, made again from its name and settings.

    Raises:
        ValueError: If the run does not say it.
    """
    entry = settings(run)[i].get("task")
    if not isinstance(entry, dict) or "name" not in entry:
        raise ValueError("The run does not say its target filter; its configuration needs a task with its settings.")
    made = make_task(**entry)
    if not isinstance(made, FilterTask):
        raise ValueError(f"The run's task is {entry['name']}; it must be a target filter, such as 'leaky-integrator'.")
    return made


def filter_member(run: Run, i: int) -> FilterMember:
    """Read one member.

    Raises:
        ValueError: If the run does not keep its initial weights, or does not say its target or its gamma0.
    """
    if not starts(run):
        raise ValueError(
            "The run does not keep the dense initial weights of networks with one input and one output; "
            "record the weights at update 0."
        )
    if "gamma0" not in run.static(i):
        raise ValueError(f"The run's network has no gamma0; it must be a {NETWORK}.")
    n = neurons(run, i)
    return FilterMember(
        u=np.asarray(run.weights("W_in", i, 0), np.float64)[:n, 0],
        v=np.asarray(run.weights("W_out", i, 0), np.float64)[0, :n],
        W0=np.asarray(run.weights("W", i, 0), np.float64)[:n, :n],
        gamma0=float(run.static(i)["gamma0"]),
        target=target(run, i),
        rates=rates(run, i),
    )


def need_rates(members: Iterable[FilterMember]) -> None:
    """Refuse members whose learning rates are not known.

    Raises:
        ValueError: If there is one.
    """
    if not all(member.rates for member in members):
        raise ValueError(
            "The run does not follow gradient flow, so its learning rates are not known; "
            "learn with tauflow.learning.flow, or in plain descent, whose tau is a flow time."
        )
