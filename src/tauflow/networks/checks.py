"""Checks of what networks are made of and what comes in."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def check_size(name: str, size: Any, *, least: int = 1) -> None:
    """Raise a `ValueError` unless `size` is a whole number from `least` on."""
    if isinstance(size, bool) or not isinstance(size, (int, np.integer)) or size < least:
        raise ValueError(f"{name} is {size!r}; it must be a whole number of at least {least}.")


def is_number(value: object) -> bool:
    """Whether it is a real number (True and False are not)."""
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)


def as_plain(value: Any) -> Any:
    """A NumPy number as a Python one, which can be hashed and saved; whatever else as it is."""
    return value.item() if isinstance(value, np.generic) else value


def as_weights(name: str, value: Any) -> Any:
    """Lists as an array of floats; whatever else as it is, since JAX puts more than arrays into its trees."""
    if not isinstance(value, list | tuple):
        return value
    try:
        return jnp.asarray(np.asarray(value, float))
    except (TypeError, ValueError):
        raise ValueError(f"{name} is {value!r}; it must be a matrix of numbers.") from None


def as_data(inputs: Any, dtype: Any, *, channels: int) -> jax.Array:
    """Inputs (time, *trials, channels) in the dtype of the weights, or a `ValueError` that says what they must be."""
    if not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(f"W is {dtype}; it must be float32 or float64.")
    try:
        data = inputs if hasattr(inputs, "dtype") else np.asarray(inputs)
    except ValueError:  # lists of unequal lengths
        data = np.asarray(None)
    if not any(jnp.issubdtype(data.dtype, kind) for kind in (jnp.floating, jnp.integer, jnp.bool_)):
        what = type(inputs).__name__ if data.dtype == object else data.dtype
        raise ValueError(f"inputs are {what}; they must be an array of real numbers, (time, *trials, n_in).")
    if data.ndim < 2 or data.shape[-1] != channels:
        raise ValueError(f"inputs have shape {data.shape}; they must be (time, *trials, {channels}).")
    return jnp.asarray(data, dtype)
