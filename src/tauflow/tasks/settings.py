"""Settings of a task: how they are declared, and the checks that turn a wrong one into one clear sentence."""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Real
from typing import Any

import equinox as eqx
import numpy as np

_ROUNDING = 1e-6  # so that 0.3 / 0.1 = 2.9999999999999996 counts as 3 steps


def plain(value: Any) -> Any:
    """Turn array scalars into Python numbers and sequences into tuples, which can be hashed and saved.

    Example:
        >>> plain([np.float32(0.5), range(2)])
        (0.5, (0, 1))
    """
    if isinstance(value, list | tuple | range):
        return tuple(plain(item) for item in value)
    if getattr(value, "ndim", 0) > 0:
        return plain(np.asarray(value).tolist())
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        return value.item()
    return value


def setting(default: Any, *, positional: bool = False, converter: Callable[[Any], Any] = plain) -> Any:
    """Declare a setting of a task: a constant of the configuration, never differentiated.

    Args:
        default: The value used when none is given. Lists become tuples, array scalars Python numbers.
        positional: Whether it can also be given by its place, before all that are given by keyword alone.
        converter: Brings what was given into the form that is kept, which can be hashed and written as JSON.

    Returns:
        The field to assign in the class body, as in `delay: float = setting(5.0)`.

    Example:
        >>> import equinox as eqx
        >>> class Pulse(eqx.Module):
        ...     amplitudes: tuple[float, float] = setting((0.5, 1.5))
        >>> Pulse(amplitudes=[1, 2]).amplitudes
        (1, 2)
    """
    return eqx.field(default=default, static=True, kw_only=not positional, converter=converter)


def whole_steps(duration: float, dt: float) -> int:
    """Count the whole steps of length `dt` in `duration`.

    Args:
        duration: A time, >= 0, in the unit of `dt`.
        dt: Length of a step, > 0.

    Returns:
        The number of steps; a remainder shorter than a step is dropped.

    Example:
        >>> whole_steps(0.3, 0.1), whole_steps(1.2, 0.5)
        (3, 2)
    """
    return math.floor(duration / dt + _ROUNDING)


def is_number(value: Any) -> bool:
    """Tell whether `value` is a finite real number (True and False are not).

    Example:
        >>> is_number(0.5), is_number(True), is_number(float("nan"))
        (True, False, False)
    """
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def check_dt(dt: Any) -> None:
    """Check a time step.

    Raises:
        ValueError: If `dt` is not a number in (0, 1].

    Example:
        >>> check_dt(1.5)
        Traceback (most recent call last):
        ValueError: dt is 1.5; it must be a number in (0, 1], in membrane times, for example dt=0.5.
    """
    if not is_number(dt) or not 0 < dt <= 1:
        raise ValueError(f"dt is {dt!r}; it must be a number in (0, 1], in membrane times, for example dt=0.5.")


def check_duration(name: str, value: Any, *, shortest: float = 0.0) -> None:
    """Check a duration, in units of the membrane time.

    Args:
        name: What the user calls it.
        value: What the user gave.
        shortest: The smallest value allowed; pass `dt` where at least one step is needed.

    Raises:
        ValueError: If `value` is not a finite number >= `shortest`.

    Example:
        >>> check_duration("fixation", -1.0)
        Traceback (most recent call last):
        ValueError: fixation is -1.0; it must be a finite duration >= 0 in membrane times.
    """
    if not is_number(value) or value < shortest * (1 - _ROUNDING):
        why = " (at least one step dt)" if shortest else ""
        raise ValueError(f"{name} is {value!r}; it must be a finite duration >= {shortest:g}{why} in membrane times.")


def check_range(name: str, value: Any, *, shortest: float = 0.0) -> None:
    """Check an interval (low, high) that a uniform draw is taken from.

    Raises:
        ValueError: If `value` is not a pair of finite numbers with `shortest` <= low <= high.

    Example:
        >>> check_range("stimulus_delay", (25.0, 5.0))
        Traceback (most recent call last):
        ValueError: stimulus_delay is (25.0, 5.0); it must be a pair of numbers with 0 <= low <= high.
    """
    pair = isinstance(value, tuple) and len(value) == 2 and all(is_number(end) for end in value)
    if not pair or not shortest * (1 - _ROUNDING) <= value[0] <= value[1]:
        raise ValueError(f"{name} is {value!r}; it must be a pair of numbers with {shortest:g} <= low <= high.")


def check_amplitude(name: str, value: Any) -> None:
    """Check an amplitude, which may have either sign.

    Raises:
        ValueError: If `value` is not a finite number.

    Example:
        >>> check_amplitude("target_amplitude", "big")
        Traceback (most recent call last):
        ValueError: target_amplitude is 'big'; it must be a finite number, for example target_amplitude=0.5.
    """
    if not is_number(value):
        raise ValueError(f"{name} is {value!r}; it must be a finite number, for example {name}=0.5.")


def check_numbers(name: str, values: Any, *, fewest: int = 1) -> None:
    """Check a sequence of numbers.

    Args:
        name: What the user calls it.
        values: What the user gave.
        fewest: The smallest number of them allowed.

    Raises:
        ValueError: If `values` is not a tuple of finite numbers, or is shorter.

    Example:
        >>> check_numbers("values", (1.0, float("nan")))
        Traceback (most recent call last):
        ValueError: values[1] is nan; values must be finite numbers, at least 1 of them.
    """
    wanted = f"finite numbers, at least {fewest} of them"
    if not isinstance(values, tuple) or len(values) < fewest:
        raise ValueError(f"{name} is {values!r}; it must be a sequence of {wanted}.")
    for index, value in enumerate(values):
        if not is_number(value):
            raise ValueError(f"{name}[{index}] is {value!r}; {name} must be {wanted}.")


def check_count(name: str, value: Any) -> None:
    """Check a count of things of which at least one is needed.

    Raises:
        ValueError: If `value` is not a whole number >= 1.

    Example:
        >>> check_count("trials", 0)
        Traceback (most recent call last):
        ValueError: trials is 0; it must be a whole number >= 1.
    """
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} is {value!r}; it must be a whole number >= 1.")


def check_fits(periods: dict[str, float], duration: float) -> None:
    """Check that the periods of a trial, one after the other, fit into it.

    Args:
        periods: The length of each period by its name, in membrane times.
        duration: The length of the trial.

    Raises:
        ValueError: If they do not fit.

    Example:
        >>> check_fits({"fixation": 1.0, "decision": 5.0}, 4.0)
        Traceback (most recent call last):
        ValueError: duration is 4, but fixation (1) and decision (5) take 6; give a longer duration or shorter
            periods.
    """
    total = sum(periods.values())
    if total > duration * (1 + _ROUNDING):
        listed = " and ".join(f"{name} ({length:g})" for name, length in periods.items())
        raise ValueError(
            f"duration is {duration:g}, but {listed} take {total:g}; give a longer duration or shorter periods."
        )
