"""What a theory is: a name, assumptions that it checks on a run, and predictions in the run's own terms."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import inf, isnan
from typing import NamedTuple, Protocol, runtime_checkable

import xarray as xr

from tauflow.run import Run


@dataclass(frozen=True)
class Assumption:
    """One assumption of a theory, measured on a run.

    Attributes:
        name: What is assumed, in a word or two.
        measured: The size of what was found, the worst over the run's members; NaN where it cannot be measured.
        limit: The size up to which the assumption counts as holding.
        holds: Whether it does.
        sentence: What was found and what is wanted, for a reader.

    Example:
        >>> Assumption("linear network", 0.0, 0.0, True, "phi is the identity.").holds
        True
    """

    name: str
    measured: float
    limit: float
    holds: bool
    sentence: str


class Found(NamedTuple):
    """One assumption measured on one member: `measured` must not exceed (or must stay below) `limit`."""

    name: str
    measured: float
    limit: float
    sentence: str
    strict: bool = False

    @property
    def holds(self) -> bool:
        """Whether the assumption holds; never where it could not be measured."""
        return self.measured < self.limit if self.strict else self.measured <= self.limit


def worst(found: Iterable[Found]) -> Assumption:
    """The member on which an assumption fails most, or comes closest to failing."""

    def excess(one: Found) -> float:
        if isnan(one.measured):
            return inf
        return one.measured / one.limit if one.limit > 0 else one.measured

    worst = max(found, key=lambda one: (not one.holds, excess(one)))
    return Assumption(worst.name, float(worst.measured), float(worst.limit), bool(worst.holds), worst.sentence)


@runtime_checkable
class Theory(Protocol):
    """A published result that can be laid over a run.

    Attributes:
        name: Its name, as a legend shows it.
        paper: Short name of the paper it is from.
    """

    name: str
    paper: str

    def check(self, run: Run) -> tuple[Assumption, ...]:
        """Measure every assumption on the run; never raises for a run that the theory is not about."""
        ...

    def predict(self, run: Run) -> xr.Dataset:
        """Predict quantities under the run's own variable names, dimensions and learning times.

        Beside a variable may stand `<variable>_band`, the half-width of the error that the theory states for itself;
        what the theory does not reach is NaN.

        Raises:
            ValueError: If the run lacks what the prediction needs.
        """
        ...


@dataclass(frozen=True)
class Overlay:
    """What one theory says about one run.

    Attributes:
        theory_name: The theory's name.
        paper: Short name of its paper.
        assumptions: All that were measured; those that fail say why there is no prediction.
        prediction: The prediction, or None where an assumption fails.
    """

    theory_name: str
    paper: str
    assumptions: tuple[Assumption, ...]
    prediction: xr.Dataset | None

    @property
    def applies(self) -> bool:
        """Whether all assumptions hold."""
        return self.prediction is not None


def overlay(theory: Theory, run: Run) -> Overlay:
    """Check a theory on a run and, if all its assumptions hold, predict.

    Args:
        theory: For example `FixedPointTheory()`.
        run: Any run.

    Returns:
        `Overlay`; its prediction is None if an assumption fails.

    Example:
        >>> class LossFalls:
        ...     name, paper = "LossFalls", "none"
        ...     def check(self, run):
        ...         rises = float(run.data.loss.diff("update").max())
        ...         return (Assumption("falling loss", rises, 0.0, rises <= 0, f"The loss rises by {rises}."),)
        ...     def predict(self, run):
        ...         return run.data[["loss"]]
        >>> from types import SimpleNamespace
        >>> run = SimpleNamespace(data=xr.Dataset({"loss": (("run", "update"), [[1.0, 3.0]])}))
        >>> overlay(LossFalls(), run).assumptions[0].sentence
        'The loss rises by 2.0.'
    """
    assumptions = theory.check(run)
    holds = all(assumption.holds for assumption in assumptions)
    return Overlay(theory.name, theory.paper, assumptions, theory.predict(run) if holds else None)
