"""From uniform random numbers to what a task draws: durations, choices, signs."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from tauflow.tasks.settings import whole_steps


def draw_uniform(key: Array, shape: tuple[int, ...]) -> Array:
    """Draw numbers uniformly from [0, 1), always in float32.

    One call for all that a task draws compiles several times faster than one call for each.

    Example:
        >>> draw_uniform(jax.random.key(0), (2, 5)).dtype
        dtype('float32')
    """
    return jax.random.uniform(key, shape, jnp.float32)


def as_steps(uniform: Array, interval: tuple[float, float], dt: float) -> Array:
    """Turn uniform numbers into durations, uniform in `interval` and rounded down to whole steps.

    Args:
        uniform: Numbers in [0, 1), any shape.
        interval: Shortest and longest duration, in membrane times.
        dt: Length of a step.

    Returns:
        Numbers of steps, int32, same shape.

    Example:
        >>> as_steps(jnp.array([0.0, 0.5, 0.999]), (1.0, 3.0), 0.5)
        Array([2, 4, 5], dtype=int32)
    """
    low, high = interval
    fewest = whole_steps(low, dt)
    most = max(fewest, -whole_steps(-high, dt) - 1)  # the longest duration itself is never drawn
    drawn = jnp.floor((low + (high - low) * uniform) / dt)
    return jnp.clip(drawn.astype(jnp.int32), fewest, most)


def as_index(uniform: Array, count: int) -> Array:
    """Turn uniform numbers into one of 0, 1, ..., count - 1 with equal probability, int32.

    Example:
        >>> as_index(jnp.array([0.0, 0.5, 0.999]), 4)
        Array([0, 2, 3], dtype=int32)
    """
    return jnp.minimum((count * uniform).astype(jnp.int32), count - 1)


def as_sign(uniform: Array) -> Array:
    """Turn uniform numbers into -1 or 1 with equal probability, int32.

    Example:
        >>> as_sign(jnp.array([0.3, 0.7]))
        Array([-1,  1], dtype=int32)
    """
    return 2 * as_index(uniform, 2) - 1


def one_hot(index: Array, channels: int, dtype: str) -> Array:
    """Write channel numbers as vectors with a single 1, shape (*index.shape, channels).

    Example:
        >>> one_hot(jnp.array([1]), 3, "float32").tolist()
        [[0.0, 1.0, 0.0]]
    """
    return jax.nn.one_hot(index, channels, dtype=dtype)
