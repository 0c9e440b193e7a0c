"""Argument checks shared by `tauflow.analysis` and `tauflow.theory`: one sentence for every wrong input."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]


def real_array(name: str, value: ArrayLike, *, wanted: str, minimum_ndim: int = 0) -> FloatArray:
    """Turn `value` into a finite real float64 array or say what is wrong with it.

    Args:
        name: The argument's name, which begins the error.
        value: Anything `np.asarray` takes.
        wanted: What is wanted and how to mend it, put after "it must be".
        minimum_ndim: The smallest number of axes allowed.

    Returns:
        float64 array of the same shape.

    Raises:
        ValueError: If `value` is not numeric, complex, not finite or has too few axes.

    Example:
        >>> real_array("tau", [0, 1], wanted="a number >= 0")
        array([0., 1.])
    """
    array = numeric(name, value, wanted)
    if array.dtype.kind == "c":
        raise ValueError(f"{name} is complex; it must be {wanted}.")
    return _finite(name, array.astype(np.float64), wanted, minimum_ndim)


def matrix(name: str, value: ArrayLike, *, square: bool = False) -> NDArray[Any]:
    """Turn `value` into a finite float64 (or complex128) stack of matrices or say what is wrong with it.

    Args:
        name: The argument's name, which begins the error.
        value: Anything `np.asarray` takes, shape (..., rows, columns).
        square: Whether rows must equal columns.

    Returns:
        float64 or complex128 array, shape (..., rows, columns).

    Raises:
        ValueError: If `value` is not numeric, not finite, empty, not a matrix, or not square where it must be.

    Example:
        >>> matrix("W", [[1, 2], [3, 4]]).dtype
        dtype('float64')
    """
    wanted = ("square matrices" if square else "matrices") + " of finite numbers, shape (..., rows, columns)"
    array = numeric(name, value, wanted)
    array = array.astype(np.complex128 if array.dtype.kind == "c" else np.float64)
    array = _finite(name, array, wanted, 2)
    if 0 in array.shape[-2:]:
        raise ValueError(f"{name} has shape {array.shape}; it must be {wanted}, with at least one entry.")
    if square and array.shape[-1] != array.shape[-2]:
        raise ValueError(f"{name} has shape {array.shape}; it must be {wanted} with rows equal to columns.")
    return array


def whole_number(name: str, value: Any, minimum: int) -> int:
    """Return `value` as an int not below `minimum`, or say what is wrong with it.

    Args:
        name: The argument's name, which begins the error.
        value: A Python or NumPy integer; True and 2.0 are refused.
        minimum: The smallest value allowed.

    Returns:
        The same number as an int.

    Raises:
        ValueError: If `value` is not a whole number or below `minimum`.

    Example:
        >>> whole_number("rank", np.int64(3), 0)
        3
    """
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, (bool, np.bool_))
    if not whole or value < minimum:
        raise ValueError(f"{name} is {value!r}; it must be a whole number >= {minimum}, for example {name}=5.")
    return int(value)


def numeric(name: str, value: ArrayLike, wanted: str) -> NDArray[Any]:
    """Turn `value` into an array of real or complex numbers, NaN and infinity let through.

    Args:
        name: The argument's name, which begins the error.
        value: Anything `np.asarray` takes.
        wanted: What is wanted and how to mend it, put after "it must be".

    Returns:
        Array of the same shape; integers, floats or complex numbers.

    Raises:
        ValueError: If `value` is ragged, text, true or false, or nothing.

    Example:
        >>> numeric("loss", [0.5, np.nan], "losses")
        array([0.5, nan])
    """
    try:
        array = np.asarray(value)
    except (TypeError, ValueError):
        raise ValueError(f"{name} cannot be read as an array; it must be {wanted}.") from None
    if array.dtype.kind not in "iufc":
        try:  # such as bfloat16, which NumPy does not count among its own numbers
            if array.dtype.kind in "bOUSMm":
                raise TypeError
            array = array.astype(np.float64)
        except (TypeError, ValueError):
            raise ValueError(f"{name} is {_short(value)}; it must be {wanted}.") from None
    return array


def generator(key: jax.Array | int) -> np.random.Generator:
    """Make a NumPy generator from a JAX key, or from a whole number as seed.

    Args:
        key: A JAX key, typed or raw, or a whole number >= 0.

    Returns:
        The generator; the same key gives the same numbers.

    Raises:
        ValueError: If `key` is neither.

    Example:
        >>> bool(generator(jax.random.key(3)).random() == generator(jax.random.key(3)).random())
        True
    """
    if isinstance(key, jax.Array) and (
        jnp.issubdtype(key.dtype, jax.dtypes.prng_key) or (key.dtype == jnp.uint32 and key.ndim == 1)
    ):
        typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
        words = np.asarray(jax.random.key_data(key) if typed else key).ravel()
        return np.random.default_rng(words.tolist())
    try:
        return np.random.default_rng(whole_number("key", key, 0))
    except ValueError:
        raise ValueError(f"key is {key!r}; it must be a JAX key or a whole number >= 0, for example key=0.") from None


def _finite(name: str, array: NDArray[Any], wanted: str, minimum_ndim: int) -> NDArray[Any]:
    if array.ndim < minimum_ndim:
        raise ValueError(f"{name} has shape {array.shape}; it must be {wanted}.")
    if not np.isfinite(array).all():
        bad = int(array.size - np.isfinite(array).sum())
        raise ValueError(f"{name} has {bad} entries that are NaN or infinite; it must be {wanted}.")
    return array


def _short(value: object) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else text[:57] + "..."
