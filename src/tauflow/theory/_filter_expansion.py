"""A filter as a sum of Laguerre functions, wherever it comes from: a linear system, samples, or a function of time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from tauflow.analysis.arguments import FloatArray, numeric
from tauflow.theory import _laguerre


class Expansion(NamedTuple):
    """A filter in Laguerre functions.

    Attributes:
        coefficients: Of the first m functions, shape (m,).
        squared_norm: The integral of its square.
        filter: Its values at any times.
        error: How far the coefficients may be off, as a norm.
    """

    coefficients: FloatArray
    squared_norm: float
    filter: Callable[[FloatArray], FloatArray]
    error: float = 0.0

    def of_size(self, m: int) -> Expansion:
        """The same filter with m coefficients; those that are not known are taken for 0."""
        kept = self.coefficients[:m]
        return self._replace(coefficients=np.pad(kept, (0, m - len(kept))))


def expand(name: str, given: Any, m: int, c: float) -> Expansion:
    """Expand a filter target, a linear system (A, b, c), a function of time, or what is expanded already.

    Args:
        name: The argument's name, for errors.
        given: The filter: with `realisation()`, `filter(t)` and `squared_norm`, a triple of arrays, or a callable.
        m: Number of functions.
        c: Their decay.

    Raises:
        ValueError: If it is none of these, or gives no finite numbers.
    """
    if isinstance(given, Expansion):
        return given.of_size(m)
    if hasattr(given, "realisation") and hasattr(given, "squared_norm"):
        system = given.realisation()
        found = _of_samples(given, m, c) if system is None else _of_system(system, m, c)
        return Expansion(found, float(given.squared_norm), given.filter)
    if isinstance(given, tuple) and len(given) == 3:
        found = _of_system(given, m, c)
        return Expansion(found, float(found @ found), _sum_of(found, c))
    if not callable(given):
        raise ValueError(
            f"{name} is {type(given).__name__}; it must be a filter target such as tauflow.tasks.LeakyIntegrator(0.2)"
            + (", a function of time such as network.filter, or None." if name == "initial_filter" else ".")
        )
    t, weights = _laguerre.nodes(m, c)
    values = _values(name, given, t)
    found = _laguerre.project(values, t, weights, m, c)
    return Expansion(
        found,
        float(weights @ values**2),
        lambda at: _values(name, given, at),
        float(np.linalg.norm(found[m - m // 4 :])),
    )


def _of_system(system: tuple[Any, Any, Any], m: int, c: float) -> FloatArray:
    A, b, readout = (np.asarray(part, np.float64) for part in system)
    return _laguerre.of_system(A, b, readout, m, c)


def _of_samples(given: Any, m: int, c: float) -> FloatArray:
    """Coefficients of a filter that is linear between samples, by Gauss-Legendre rules that resolve every function."""
    edges = given.spacing * np.arange(len(given.values))
    t, weights = _laguerre.panels(edges, 12 + int(np.ceil(2 * np.sqrt(2 * m * c * given.spacing))))
    return _laguerre.project(np.asarray(given.filter(t), np.float64), t, weights, m, c)


def _sum_of(coefficients: FloatArray, c: float) -> Callable[[FloatArray], FloatArray]:
    return lambda t: _laguerre.functions(len(coefficients), t, c) @ coefficients


def _values(name: str, given: Callable[[FloatArray], Any], t: FloatArray) -> FloatArray:
    values = numeric(name, given(t), "a function of time with real values")
    if values.dtype.kind == "c" or values.shape != t.shape or not np.isfinite(values).all():
        raise ValueError(
            f"{name} takes times of shape {t.shape} to {values.dtype} values of shape {values.shape}; it must give one "
            "finite real number for each time."
        )
    return values.astype(np.float64)
