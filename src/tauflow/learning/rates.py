"""Whether an optimizer is plain gradient descent, and with what rate: then learning time is flow time."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax


def plain_rates(optimizer: optax.GradientTransformation, params: Any, steps: int) -> np.ndarray | None:
    r"""Learning rates of every update if the optimizer is plain gradient descent with one rate, else None.

    An optimizer is opaque, so it is asked: for gradients of very different sizes, at two points, it must answer
    $-\eta_k g$ with one positive $\eta_k$ for every parameter, and remember nothing but how many updates it has done.

    Args:
        optimizer: An optax optimizer.
        params: The parameters that it moves.
        steps: Number of updates.

    Returns:
        $\eta_k$, shape (steps,), or None.

    Example:
        >>> import optax, jax.numpy as jnp
        >>> plain_rates(optax.sgd(0.5), {"W": jnp.ones((2, 2))}, 3).tolist()
        [0.5, 0.5, 0.5]
        >>> plain_rates(optax.adam(0.5), {"W": jnp.ones((2, 2))}, 3) is None
        True
    """
    state = optimizer.init(params)
    memory = jax.tree.leaves(state)
    if any(np.ndim(leaf) or not jnp.issubdtype(jnp.result_type(leaf), jnp.integer) for leaf in memory):
        return None
    shrunk = jax.tree.map(lambda leaf: 0.5 * leaf, params)
    with jax.numpy_dtype_promotion("standard"):
        answers = [
            _rate(optimizer, state, size, at) for size, at in ((1e-3, params), (1.0, shrunk), (1e4, params))
        ]  # fmt: skip
        first = answers[0]
        if first is None or any(answer is None or not np.isclose(answer, first, rtol=1e-5) for answer in answers):
            return None
        return _schedule(optimizer, state, params, steps)


def _rate(optimizer: Any, state: Any, size: float, params: Any) -> float | None:
    rng = np.random.default_rng(0)
    gradient = jax.tree.map(lambda leaf: jnp.asarray(size * rng.standard_normal(leaf.shape), leaf.dtype), params)
    change, _ = optimizer.update(gradient, state, params)
    pairs = zip(jax.tree.leaves(gradient), jax.tree.leaves(change), strict=True)
    ratios = np.concatenate([np.ravel(-np.asarray(d, np.float64) / np.asarray(g, np.float64)) for g, d in pairs])
    rate = float(np.median(ratios))
    return rate if rate > 0 and np.allclose(ratios, rate, rtol=1e-4) else None


def _schedule(optimizer: Any, state: Any, params: Any, steps: int) -> np.ndarray:
    tiny = jax.tree.map(lambda leaf: jnp.ones((1,) * leaf.ndim, leaf.dtype), params)

    def step(state: Any, _: None) -> tuple[Any, jax.Array]:
        change, state = optimizer.update(tiny, state, tiny)
        return state, -jax.tree.leaves(change)[0].ravel()[0]

    return np.asarray(jax.lax.scan(step, state, None, length=steps)[1], np.float64)
