"""Argument checks of the theory functions, and how their arguments broadcast against each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from tauflow.analysis.arguments import FloatArray, real_array

EVERYTHING = ("W", "W_in", "W_out")
GAIN = "a number in [0, 1), for example gain=0.6: at gain 1 the linear network loses its stability"
TAU = "a learning time >= 0, for example tau=0.1"
TARGET = "a finite number, for example target=0.5"
SIGMA = "a number in (0, 1), for example sigma=0.8: at sigma 1 the linear network loses its stability"


def as_gain(gain: ArrayLike) -> FloatArray:
    """Check a gain (or an array of them) and return it as float64.

    Example:
        >>> as_gain(0.5)
        array(0.5)
    """
    values = real_array("gain", gain, wanted=GAIN)
    _refuse("gain", values, (values < 0) | (values >= 1), GAIN)
    return values


def as_tau(tau: ArrayLike) -> FloatArray:
    """Check a learning time (or an array of them) and return it as float64.

    Example:
        >>> as_tau([0, 1])
        array([0., 1.])
    """
    values = real_array("tau", tau, wanted=TAU)
    _refuse("tau", values, values < 0, TAU)
    return values


def as_target(target: ArrayLike) -> FloatArray:
    """Check a target (or an array of them) and return it as float64.

    Example:
        >>> as_target(-2)
        array(-2.)
    """
    return real_array("target", target, wanted=TARGET)


def as_sigma(sigma: ArrayLike) -> FloatArray:
    """Check a standard deviation of weights (or an array of them) and return it as float64.

    Example:
        >>> as_sigma(0.8)
        array(0.8)
    """
    values = real_array("sigma", sigma, wanted=SIGMA)
    _refuse("sigma", values, (values <= 0) | (values >= 1), SIGMA)
    return values


def as_train(train: Sequence[str]) -> tuple[int, int]:
    """Check which weights are trained, and return how many vectors and how many matrices are among them.

    Example:
        >>> as_train(("W", "W_out"))
        (1, 1)
    """
    names = [train] if isinstance(train, str) else list(train) if isinstance(train, (list, tuple)) else []
    if not names or len(set(names)) < len(names) or not set(names) <= set(EVERYTHING):
        raise ValueError(f"train is {train!r}; it must name some of 'W', 'W_in' and 'W_out', each once.")
    return len(names) - names.count("W"), names.count("W")


def as_positive(name: str, value: ArrayLike, *, zero: bool = False) -> FloatArray:
    """Check a number > 0, or >= 0 where zero is allowed, (or an array of them) and return it as float64.

    Example:
        >>> as_positive("gamma0", 1)
        array(1.)
    """
    wanted = f"a number {'>=' if zero else '>'} 0, for example {name}=0.5"
    values = real_array(name, value, wanted=wanted)
    _refuse(name, values, (values < 0) if zero else (values <= 0), wanted)
    return values


def as_order(order: int, highest: int) -> int:
    """Check the order of a series.

    Example:
        >>> as_order(2, highest=3)
        2
    """
    if isinstance(order, bool) or order not in range(1, highest + 1):
        allowed = ", ".join(str(i) for i in range(1, highest)) + f" or {highest}"
        raise ValueError(f"order is {order!r}; it must be {allowed}, the orders in tau the series is known to.")
    return int(order)


def together(**arrays: FloatArray) -> list[FloatArray]:
    """Broadcast arrays to one shape, or name the two that do not fit.

    Example:
        >>> [a.shape for a in together(tau=np.zeros((3, 1)), gain=np.zeros(2))]
        [(3, 2), (3, 2)]
    """
    try:
        return list(np.broadcast_arrays(*arrays.values()))
    except ValueError:
        shapes = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
        raise ValueError(
            f"The shapes do not fit together: {shapes}; give one of them a new axis, for example tau[:, None]."
        ) from None


def one_positive(name: str, value: ArrayLike) -> float:
    """Check one number > 0.

    Example:
        >>> one_positive("dt", 1)
        1.0
    """
    number = as_positive(name, value)
    if number.ndim:
        raise ValueError(f"{name} has shape {number.shape}; it must be one number > 0.")
    return float(number)


def with_axes(kinds: Mapping[str, tuple[str, ...]], **values: ArrayLike) -> tuple[list[FloatArray], tuple[int, ...]]:
    """Check arrays whose last axes are named, and broadcast the axes before them.

    Args:
        kinds: The names of the last axes of each array; axes of one name have one size.
        values: The arrays.

    Returns:
        The arrays as float64, and the shape of their leading axes.

    Raises:
        ValueError: If an array is not one of finite real numbers, or the shapes do not fit.

    Example:
        >>> (W, x), leading = with_axes({"W": ("n", "n"), "x": ("n",)}, W=np.eye(2), x=np.ones((5, 2)))
        >>> W.shape, leading
        ((5, 2, 2), (5,))
    """
    made, sizes, leading = [], dict[str, int](), []
    for name, axes in kinds.items():
        wanted = f"finite real numbers, shape (..., {', '.join(axes)})"
        array = real_array(name, values[name], wanted=wanted, minimum_ndim=len(axes))
        for axis, size in zip(axes, array.shape[-len(axes) :], strict=True):
            if sizes.setdefault(axis, size) != size:
                raise ValueError(f"{name} has shape {array.shape} where {axis} is {sizes[axis]}; it must be {wanted}.")
        made.append(array)
        leading.append(array.shape[: -len(axes)])
    try:
        common = np.broadcast_shapes(*leading)
    except ValueError:
        shapes = ", ".join(f"{name} {array.shape}" for name, array in zip(kinds, made, strict=True))
        raise ValueError(f"The leading axes do not fit together: {shapes}; they must broadcast.") from None
    inner = [array.shape[-len(axes) :] for array, axes in zip(made, kinds.values(), strict=True)]
    return [np.broadcast_to(a, (*common, *shape)) for a, shape in zip(made, inner, strict=True)], common


def factor_pair(adjoint: ArrayLike, driving: ArrayLike) -> list[FloatArray]:
    """Check adjoint states and what drove the steps, which share their times.

    Example:
        >>> [each.shape for each in factor_pair(np.zeros((5, 3)), np.zeros((2, 5, 4)))]
        [(2, 5, 3), (2, 5, 4)]
    """
    return with_axes({"adjoint": ("time", "n"), "driving": ("time", "p")}, adjoint=adjoint, driving=driving)[0]


def _refuse(name: str, values: FloatArray, wrong: np.ndarray, wanted: str) -> None:
    if wrong.any():
        raise ValueError(f"{name} is {values[wrong].flat[0]}; it must be {wanted}.")
