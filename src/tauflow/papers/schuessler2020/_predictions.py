r"""The theory of the linear network for the figures, with its errors.

**Truncation.** The series stops at $\tau^3$. To that order $z/\hat z$ and $\beta s_\pm/\hat z$ depend on
$t = \beta^2\tau$ and $\hat z^2\beta$ alone, so what is left out is read off at g = 0, where the flow is known
exactly, for the target $\hat z\sqrt\beta$ at the same t. That scaled flow is a description of its own, drawn beside
the series.

**Networks.** Single networks lie about $N^{-1/2}$ from the large-N mean: to first order `readout_spread` and
`singular_value_spread`. But the rate $\beta^2$ at which a network learns varies by the factor $e^{\pm\delta}$,
$\delta = 2\sqrt{(\beta^2-1)/N}$, and the scaled flow at the times $\tau e^{\pm 3\delta}$ may reach further than three
first-order standard deviations. The larger of the two counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from tauflow.theory import fixed_point

DEVIATIONS = 3.0
"""How many standard deviations over networks a single network may lie from the large-N mean."""


class Theory(NamedTuple):
    """A prediction for networks of N neurons, with its two errors; arrays of one shape.

    Attributes:
        value: The series at large N.
        truncation: Size of what the series leaves out.
        spread: Standard deviation over networks: a third of how far `DEVIATIONS` of them reach.
        scaled: The exact flow at g = 0, scaled; NaN where there is none.
    """

    value: NDArray[np.float64]
    truncation: NDArray[np.float64]
    spread: NDArray[np.float64]
    scaled: NDArray[np.float64]

    @classmethod
    def against(cls, value: NDArray[np.float64], scaled: NDArray[np.float64], spread: NDArray[np.float64]) -> Theory:
        """A series whose truncation is its difference from the scaled exact flow."""
        return cls(value, np.abs(value - scaled), np.asarray(spread, np.float64), scaled)


def distance(tau: ArrayLike, gain: ArrayLike, target: ArrayLike, neurons: int) -> Theory:
    r"""Distance of the readout from the target, relative to it, $1 - z/\hat z$.

    Args:
        tau: Learning time in flow units, any shape.
        gain: g, any shape.
        target: ẑ > 0, any shape.
        neurons: N.
    """
    tau, g, z = _together(tau, gain, target)
    b = fixed_point.beta(g)
    value = 1 - fixed_point.readout(tau, g, z) / z
    early, exact, late = (np.empty_like(value) for _ in range(3))
    for scaled, here in _each(z * np.sqrt(b)):
        for result, factor in zip((early, exact, late), _factors(g, neurons), strict=True):
            result[here] = np.interp((b**2 * tau * factor)[here], *_exact(scaled)[:2])
    spread = _so_far(lambda tau: fixed_point.readout_spread(tau, g, z, neurons) / z, tau)
    return Theory.against(value, exact, _larger(spread, early, exact, late))


def change(tau: ArrayLike, gain: ArrayLike, target: ArrayLike, neurons: int) -> tuple[Theory, Theory]:
    """The two singular values of ΔW; arguments as for `distance`."""
    tau, g, z = _together(tau, gain, target)
    b = fixed_point.beta(g)
    values = fixed_point.singular_values(tau, g, z)
    made = []
    for i, value in enumerate(values):
        early, exact, late = (np.empty_like(value) for _ in range(3))
        for scaled, here in _each(z * np.sqrt(b)):
            t, _, s = _exact(scaled)
            for result, factor in zip((early, exact, late), _factors(g, neurons), strict=True):
                result[here] = np.interp((b**2 * tau * factor)[here], t, s[:, i]) * (z / b)[here]
        spread = _so_far(lambda tau, i=i: fixed_point.singular_value_spread(tau, g, z, neurons)[i], tau)
        share = np.divide(spread, value, out=np.zeros_like(value), where=value > 0)
        spread = value * np.expm1(DEVIATIONS * share) / DEVIATIONS  # a product of overlaps varies by factors
        made.append(Theory.against(value, exact, _larger(spread, early, exact, late)))
    return made[0], made[1]


def time_to(share: float, gain: ArrayLike, target: ArrayLike, neurons: int) -> Theory:
    r"""Learning time in flow units at which the loss has fallen to a share of $\hat z^2/2$.

    Args:
        share: The share, > 0.
        gain: g, shape (k,).
        target: ẑ > 0, shape (k,).
        neurons: N.
    """
    _, g, z = _together(0.0, gain, target)
    b = fixed_point.beta(g)
    value = fixed_point.learning_time(g, z, threshold=share)
    exact, slope = np.empty_like(value), np.empty_like(value)
    for scaled, here in _each(z * np.sqrt(b)):
        t, left, _ = _exact(scaled)
        crossed = np.interp(-np.sqrt(share), -left, t)
        exact[here] = crossed / b[here] ** 2
        slope[here] = -np.interp(crossed, t, np.gradient(left, t)) * (b**2 * z)[here]
    spread = _so_far(lambda tau: fixed_point.readout_spread(tau, g, z, neurons) / slope, value)
    early, _, late = _factors(g, neurons)
    return Theory.against(value, exact, _larger(spread, early * exact, exact, late * exact))


def final_norm(gain: ArrayLike, target: ArrayLike, neurons: int) -> Theory:
    """Frobenius norm of ΔW when the target is reached; arguments as for `time_to`."""
    _, g, z = _together(0.0, gain, target)
    b = fixed_point.beta(g)
    end = fixed_point.learning_time(g, z)
    value = np.hypot(*fixed_point.singular_values(end, g, z))
    exact = np.empty_like(value)
    for scaled, here in _each(z * np.sqrt(b)):
        exact[here] = np.linalg.norm(_exact(scaled)[2][-1]) * (z / b)[here]
    spread = _so_far(lambda tau: fixed_point.singular_value_spread(tau, g, z, neurons)[0], end)
    early, _, late = np.sqrt(_factors(g, neurons))  # |ΔW| is inverse to the root of the rate
    return Theory.against(value, exact, _larger(spread, early * exact, exact, late * exact))


def final_shuffled_loss(gain: ArrayLike, target: ArrayLike, neurons: int) -> Theory:
    r"""Loss after shuffling W0 when the target is reached, over $\hat z^2/2$; arguments as for `time_to`.

    It is for small targets, ẑ ≤ 1: beyond, it falls short. No exact result is at hand here; the truncation is by
    how much the orders above the first change the loss. Over networks, two overlaps (with logarithms of variance
    $(\beta^2-1)/N$ each) and the readout of the shuffled $W_0$ (variance $\beta/N$) vary.
    """
    _, g, z = _together(0.0, gain, target)
    b = fixed_point.beta(g)
    left = 1 - fixed_point.shuffled_readout(fixed_point.learning_time(g, z), g, z) / z
    first = fixed_point.shuffled_loss(g, z) / (z**2 / 2)
    sd = np.sqrt((b / z**2 + 2 * (b**2 - 1) / b**4) / neurons)  # of z_s / ẑ
    reach = (left + DEVIATIONS * sd) ** 2 - left**2
    return Theory(left**2, np.abs(left**2 - first), reach / DEVIATIONS, np.full_like(left, np.nan))


def first_rate(gain: ArrayLike, neurons: int) -> Theory:
    r"""Rate at which the distance from the target begins to shrink, $\beta^2$; exact but for the spread."""
    g = np.asarray(gain, np.float64)
    value = fixed_point.beta(g) ** 2
    return Theory(value, 1e-3 * value, 2 * value * np.sqrt((value - 1) / neurons), value)


def add_theory(data: xr.Dataset, name: str, theory: Theory) -> None:
    """Put a prediction of the variable `name` beside it, as `<name>_theory`, `_truncation`, `_spread` and `_scaled`."""
    for part, values in zip(("theory", "truncation", "spread", "scaled"), theory, strict=True):
        data[f"{name}_{part}"] = (data[name].dims, np.asarray(values, np.float64))


def agreement(data: xr.Dataset, name: str) -> tuple[bool, dict[str, float | str]]:
    """Whether a variable lies within its theory's error everywhere, and by how much.

    The error is the truncation plus `DEVIATIONS` standard deviations over networks. Where the variable is NaN there is
    nothing to compare.

    Returns:
        Whether it does, and: the largest deviation in units of that error; the mean deviation and the mean error over
        the mean prediction; the number of comparisons.
    """
    value, theory, truncation, spread = (
        np.asarray(data[f"{name}{part}"].values, np.float64) for part in ("", "_theory", "_truncation", "_spread")
    )
    known = np.isfinite(value) & np.isfinite(theory)
    off = np.abs(value - theory)[known]
    allowed = (truncation + DEVIATIONS * spread)[known]
    worst = float(np.max(off / np.maximum(allowed, 1e-300), initial=0.0))
    scale = float(np.abs(theory[known]).mean()) if known.any() else np.nan
    return bool(known.any() and worst <= 1), {
        "largest deviation / stated error": worst,
        "mean deviation / mean theory": float(off.mean()) / scale if known.any() else np.nan,
        "mean stated error / mean theory": float(allowed.mean()) / scale if known.any() else np.nan,
        "comparisons": float(known.sum()),
    }


def _factors(gain: NDArray[np.float64], neurons: int) -> NDArray[np.float64]:
    """Factors on the rate of a slow, a typical and a fast network, `DEVIATIONS` standard deviations apart, (3, ...)."""
    delta = 2 * np.sqrt((fixed_point.beta(gain) ** 2 - 1) / neurons)
    return np.stack([np.exp(sign * DEVIATIONS * delta) for sign in (-1, 0, 1)])


def _so_far(spread: Callable[..., NDArray[np.float64]], tau: NDArray[np.float64]) -> NDArray[np.float64]:
    """The largest spread up to tau: that of a truncated series may cross 0 on the way."""
    return np.max([spread(share * tau) for share in np.linspace(0, 1, 9)], axis=0)


def _larger(
    spread: NDArray[np.float64], early: NDArray[np.float64], exact: NDArray[np.float64], late: NDArray[np.float64]
) -> NDArray[np.float64]:
    reach = np.maximum(np.abs(early - exact), np.abs(late - exact))
    return np.maximum(spread, reach / DEVIATIONS)


@lru_cache(maxsize=256)
def _exact(target: float) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    r"""The exact flow at g = 0: t, $1 - z/\hat z$ and $s_\pm/\hat z$ with shapes (k), (k) and (k, 2)."""
    t = np.concatenate([np.linspace(0.0, 6.0, 1201), [50.0]])
    flow = fixed_point.zero_gain_flow(t, target)
    singular = np.asarray(np.linalg.svd(flow.A, compute_uv=False) / target, np.float64)
    return np.asarray(t, np.float64), 1 - flow.readout / target, singular


def _each(values: NDArray[np.float64]) -> Iterator[tuple[float, NDArray[np.bool_]]]:
    """Every value that occurs, to 12 digits, and where."""
    rounded = np.round(values, 12)
    for value in np.unique(rounded):
        yield float(value), rounded == value


def _together(*values: ArrayLike) -> list[NDArray[np.float64]]:
    return [np.array(x) for x in np.broadcast_arrays(*(np.asarray(value, np.float64) for value in values))]
