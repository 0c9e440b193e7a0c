"""The one switch between 32-bit and 64-bit arithmetic.

JAX turns 64-bit numbers into 32-bit ones in silence unless its 64-bit mode is on, and a library must not change that
mode for the whole process. So whatever needs float64 runs inside `float64()` and converts its NumPy arrays there.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np

DTYPES = ("float32", "float64")


@contextmanager
def float64() -> Iterator[None]:
    """Turn JAX's 64-bit mode on for a block, and back to what it was after it.

    Example:
        >>> import jax.numpy as jnp
        >>> with float64():
        ...     print(jnp.asarray([1.0]).dtype)
        float64
    """
    with jax.enable_x64(True):
        yield


@contextmanager
def scope(dtype: str) -> Iterator[None]:
    """Turn JAX's 64-bit mode on for a block if `dtype` is "float64"; otherwise leave it as it is.

    Raises:
        ValueError: If `dtype` is neither "float32" nor "float64".
    """
    if dtype not in DTYPES:
        raise ValueError(f"dtype is {dtype!r}; it must be 'float32' or 'float64'.")
    if dtype == "float64":
        with float64():
            yield
    else:
        yield


def usable(dtype: Any, action: str) -> str:
    """Name of a floating-point dtype that arrays can have now.

    Args:
        dtype: "float32" or "float64", or what NumPy takes for one.
        action: What was to be done with it, for the message.

    Raises:
        ValueError: If it is neither, or "float64" while JAX's 64-bit mode is off.

    Example:
        >>> usable("float32", "draw")
        'float32'
    """
    import jax.numpy as jnp

    try:
        name = np.dtype(dtype).name
    except TypeError:
        name = str(dtype)
    if name not in DTYPES:
        raise ValueError(f"dtype is {name!r}; it must be 'float32' or 'float64'.")
    if name == "float64" and jnp.result_type(float) != jnp.float64:
        raise ValueError(
            f"dtype is 'float64' but JAX's 64-bit mode is off; use dtype='float32', or {action} inside "
            "`with tauflow.precision.float64():`."
        )
    return name


def cast(tree: Any, dtype: str) -> Any:
    """Give every floating-point array of a pytree the dtype `dtype`, passing through NumPy; leave the rest alone.

    Call it inside `scope(dtype)`. Keys, integers and static fields are untouched.

    Example:
        >>> import numpy as np
        >>> cast({"W": np.ones(2)}, "float32")["W"].dtype
        dtype('float32')
    """
    import jax.numpy as jnp

    def convert(leaf: Any) -> Any:
        dtype_of = getattr(leaf, "dtype", None)
        if dtype_of is None or not jnp.issubdtype(dtype_of, jnp.floating):
            return leaf
        traced = isinstance(leaf, jax.core.Tracer)
        return leaf.astype(dtype) if traced else jnp.asarray(np.asarray(leaf), dtype=dtype)

    return jax.tree.map(convert, tree)
