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
    with jax.numpy_dtype_promotion("standard"):
        rates, states = _schedule(optimizer, state, params, steps)
        if steps == 0 or (rates < 0).any() or not rates.any():
            return None if steps else rates
        state = jax.tree.map(lambda leaf: leaf[int(np.argmax(rates > 0))], states)  # a warm-up may begin at 0
        shrunk = jax.tree.map(lambda leaf: 0.5 * leaf, params)
        answers = [_rate(optimizer, state, size, at) for size, at in ((1e-3, params), (1.0, shrunk), (1e4, params))]
    expected = rates[int(np.argmax(rates > 0))]
    plain = all(answer is not None and np.isclose(answer, expected, rtol=1e-4) for answer in answers)
    return rates if plain else None


def _rate(optimizer: Any, state: Any, size: float, params: Any) -> float | None:
    rng = np.random.default_rng(0)
    gradient = jax.tree.map(lambda leaf: jnp.asarray(size * rng.standard_normal(leaf.shape), leaf.dtype), params)
    change, _ = optimizer.update(gradient, state, params)
    pairs = zip(jax.tree.leaves(gradient), jax.tree.leaves(change), strict=True)
    ratios = np.concatenate([np.ravel(-np.asarray(d, np.float64) / np.asarray(g, np.float64)) for g, d in pairs])
    rate = float(np.median(ratios))
    return rate if rate > 0 and np.allclose(ratios, rate, rtol=1e-4) else None


def _schedule(optimizer: Any, state: Any, params: Any, steps: int) -> tuple[np.ndarray, Any]:
    """The rate of every update by the answer to a gradient of ones, and the state before it, (steps, ...)."""
    ones = jax.tree.map(jnp.ones_like, params)

    def step(state: Any, _: None) -> tuple[Any, tuple[jax.Array, Any]]:
        change, later = optimizer.update(ones, state, params)
        return later, (-jax.tree.leaves(change)[0].ravel()[0], state)

    rates, states = jax.lax.scan(step, state, None, length=steps)[1]
    return np.asarray(rates, np.float64), states
