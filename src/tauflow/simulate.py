r"""The one recurrence, $x_t = (1-\alpha)\,x_{t-1} + \alpha\,(W\varphi(x_{t-1}) + d_t)$, with its adjoint by hand.

Let $L$ depend on the states $x_1 \dots x_T$ and write $\bar x_t$ for the direct part $\partial L/\partial x_t$ and
$\lambda_t = dL/dx_t$ for the total derivative, all later steps included. State $x_t$ acts on $x_{t+1}$ alone, so

$$\lambda_t = \bar x_t + (1-\alpha)\,\lambda_{t+1} + \alpha\,\varphi'(x_t) \odot (W^\top \lambda_{t+1}),
  \qquad \lambda_{T+1} = 0 ,$$

one reverse recurrence. Everything else follows from it without another pass through time:

$$\nabla_W L = \alpha \sum_t \lambda_t\,\varphi(x_{t-1})^\top, \qquad \nabla_{d_t} L = \alpha\,\lambda_t, \qquad
  \nabla_{x_0} L = \lambda_0 \ \text{ with } \bar x_0 = 0 .$$

$\nabla_W$ is ONE product of all adjoint states with all rates (Pellegrino et al. 2023, supplement D.2.2), where
differentiating the loop step by step adds $T$ small ones. For $W = a\,\mathrm{diag}(c)\,b^\top$ the same holds with
thin products, and nothing of size $n \times n$ is ever formed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.custom_derivatives import SymbolicZero
from jax.typing import ArrayLike

from tauflow.low_rank import LowRank as LowRank

Phi = str | Callable[[jax.Array], jax.Array]

NONLINEARITIES: dict[str, Callable[[jax.Array], jax.Array]] = {
    "tanh": jnp.tanh,
    "relu": jax.nn.relu,
    "identity": lambda x: x,
    "softplus": jax.nn.softplus,
    "sigmoid": jax.nn.sigmoid,
}
# The slope of each as a function of its own value: no second evaluation of the nonlinearity on the way back.
_SLOPE_FROM_RATE: dict[str, Callable[[jax.Array], jax.Array]] = {
    "tanh": lambda r: 1 - r * r,
    "relu": lambda r: (r > 0).astype(r.dtype),
    "identity": jnp.ones_like,
    "softplus": lambda r: -jnp.expm1(-r),
    "sigmoid": lambda r: r * (1 - r),
}


def nonlinearity(phi: Phi) -> Callable[[jax.Array], jax.Array]:
    """The elementwise function that `phi` names; a callable is its own answer.

    Raises:
        ValueError: If `phi` is neither callable nor one of the known names.

    Example:
        >>> import jax.numpy as jnp
        >>> nonlinearity("relu")(jnp.array([-1.0, 2.0])).tolist()
        [0.0, 2.0]
    """
    if callable(phi):
        return phi
    if not isinstance(phi, str) or phi not in NONLINEARITIES:
        names = ", ".join(repr(name) for name in NONLINEARITIES)
        raise ValueError(f"phi is {phi!r}; it must be one of {names}, or an elementwise function.")
    return NONLINEARITIES[phi]


def simulate(
    W: ArrayLike | LowRank,
    drive: ArrayLike,
    x0: ArrayLike | None = None,
    *,
    phi: Phi,
    alpha: ArrayLike,
    adjoint: str = "fused",
) -> jax.Array:
    r"""Run $x_t = (1-\alpha)x_{t-1} + \alpha(W\varphi(x_{t-1}) + d_t)$ and return every state.

    Args:
        W: Recurrent weights (n, n), `W[post, pre]`, or `LowRank(a (n, R), c (R) or (*trials, R), b (n, R))`.
        drive: Everything but the recurrence, $d_t$, shape (time, *trials, n), in the units of x. Time 0 is allowed.
        x0: State before the first step, shape (*trials, n) or anything that broadcasts to it; zeros by default.
        phi: "tanh", "relu", "identity", "softplus", "sigmoid", or an elementwise function that closes over nothing
            traced (put thresholds into the drive).
        alpha: Step in units of the time constant, in (0, 1]. It may be traced, but not differentiated.
        adjoint: "fused" (reverse mode, the adjoint of this module) or "autodiff" (the plain loop, which also has
            forward-mode derivatives and a derivative for alpha).

    Returns:
        States after each step, shape (time, *trials, n).

    Raises:
        ValueError: If shapes, dtypes, `phi`, `alpha` or `adjoint` are not as said above.
        TypeError: If the gradient for a traced `alpha` is asked for with `adjoint="fused"`.

    Source: schuessler2020, supplement Eq. 2 with alpha = dt; pellegrino2023, supplement D.2.2, for the gradient.

    Example:
        >>> import jax.numpy as jnp
        >>> simulate(jnp.zeros((1, 1)), jnp.ones((3, 1)), phi="tanh", alpha=0.5)[:, 0].tolist()
        [0.5, 0.75, 0.875]
    """
    W, drive, x0, alpha, trials = _checked(W, drive, x0, phi, alpha)
    if adjoint not in ("fused", "autodiff"):
        raise ValueError(f"adjoint is {adjoint!r}; it must be 'fused' or 'autodiff'.")
    run = _fused if adjoint == "fused" else _scan
    states = run(phi, W, drive, x0, alpha)  # (time, trial, n)
    return states.reshape(drive.shape[0], *trials, drive.shape[-1])


def simulate_adjoint(
    W: ArrayLike | LowRank,
    states: ArrayLike,
    cotangent: ArrayLike,
    x0: ArrayLike | None = None,
    *,
    phi: Phi,
    alpha: ArrayLike,
) -> jax.Array:
    r"""Adjoint states $\lambda_t = dL/dx_t$ of a simulation, later steps included.

    Args:
        W: The weights of the simulation.
        states: What `simulate` returned, shape (time, *trials, n).
        cotangent: Direct derivatives $\partial L/\partial x_t$, shape of `states`.
        x0: Initial state of the simulation. The adjoint after the first step does not depend on it; it is checked.
        phi: Nonlinearity of the simulation.
        alpha: Step of the simulation.

    Returns:
        lam, shape (time, *trials, n), with lam[t] = dL/dx after step t, so that
        $\nabla_W L = \alpha \sum_t \mathrm{lam}[t]\,\varphi(x_{t-1})^\top$ summed over trials.

    Raises:
        ValueError: If shapes, dtypes, `phi` or `alpha` do not fit, as for `simulate`.

    Example:
        >>> import jax.numpy as jnp
        >>> lam = simulate_adjoint(jnp.zeros((1, 1)), jnp.zeros((3, 1)), jnp.ones((3, 1)), phi="tanh", alpha=0.5)
        >>> lam[:, 0].tolist()
        [1.75, 1.5, 1.0]
    """
    shape = np.shape(states)
    if np.shape(cotangent) != shape:
        raise ValueError(f"cotangent has shape {np.shape(cotangent)}; it must have that of states, {shape}.")
    W, states, x0, alpha, _ = _checked(W, states, x0, phi, alpha, name="states")
    cotangent = jnp.asarray(cotangent, dtype=states.dtype).reshape(states.shape)
    lam = _adjoint(phi, W, _rates(phi, states), states, cotangent, alpha)  # (time, trial, n)
    return lam.reshape(shape)


def _checked(
    W: Any, drive: Any, x0: Any, phi: Phi, alpha: Any, name: str = "drive"
) -> tuple[Any, jax.Array, jax.Array, Any, tuple[int, ...]]:
    """Check everything at the boundary, once, and merge the trial axes into one."""
    nonlinearity(phi)
    drive = jnp.asarray(drive)
    if drive.ndim < 2:
        raise ValueError(f"{name} has shape {drive.shape}; it must be (time, *trials, n).")
    if not jnp.issubdtype(drive.dtype, jnp.floating):
        raise ValueError(f"{name} is {drive.dtype}; it must be float32 or float64.")
    alpha = _checked_alpha(alpha, drive.dtype)
    n, trials = drive.shape[-1], drive.shape[1:-1]
    flat = (drive.shape[0], math.prod(trials), n)
    W = _checked_low_rank(W, n, trials, drive.dtype) if isinstance(W, LowRank) else _checked_dense(W, n, drive, name)
    if x0 is None:
        x0 = jnp.zeros((), drive.dtype)
    x0 = jnp.asarray(x0, dtype=drive.dtype)
    try:
        x0 = jnp.broadcast_to(x0, (*trials, n))  # (*trials, n)
    except ValueError:
        raise ValueError(f"x0 has shape {x0.shape}; it must broadcast to (*trials, n) = {(*trials, n)}.") from None
    if callable(phi):
        _check_elementwise(phi, jax.ShapeDtypeStruct(flat[1:], drive.dtype))
    return W, drive.reshape(flat), x0.reshape(flat[1:]), alpha, trials


def _check_elementwise(phi: Callable[[jax.Array], jax.Array], state: jax.ShapeDtypeStruct) -> None:
    """Check that a function as phi keeps shape and dtype; that it acts on each element alone cannot be seen."""
    rate = jax.eval_shape(phi, state)
    if not isinstance(rate, jax.ShapeDtypeStruct) or (rate.shape, rate.dtype) != (state.shape, state.dtype):
        shape, dtype = getattr(rate, "shape", None), getattr(rate, "dtype", None)
        came = type(rate).__name__ if shape is None else f"{dtype} of shape {shape}"
        raise ValueError(
            f"phi makes {came} of {state.dtype} of shape {state.shape}; it must act on each element alone and keep "
            "shape and dtype, for example jax.numpy.tanh."
        )


def _checked_alpha(alpha: Any, dtype: Any) -> float | jax.Array:
    kind = getattr(getattr(alpha, "dtype", None), "kind", None)
    if isinstance(alpha, str | bytes | bool) or kind == "b":
        raise ValueError(f"alpha is {alpha!r}; it must be a number in (0, 1].")
    if isinstance(alpha, jax.core.Tracer):
        if alpha.ndim:
            raise ValueError(f"alpha has shape {alpha.shape}; it must be one number in (0, 1].")
        return lax.convert_element_type(alpha, dtype)
    try:
        value = float(alpha)
    except (TypeError, ValueError):
        raise ValueError(f"alpha is {alpha!r}; it must be a number in (0, 1].") from None
    if not 0 < value <= 1:
        raise ValueError(f"alpha is {value}; it must lie in (0, 1], as the step divided by the time constant.")
    return value


def _checked_dense(W: Any, n: int, drive: jax.Array, name: str) -> jax.Array:
    W = jnp.asarray(W)
    if W.shape != (n, n):
        raise ValueError(f"W has shape {W.shape} and {name} has {n} units; W must be ({n}, {n}), W[post, pre].")
    if W.dtype != drive.dtype:
        raise ValueError(f"W is {W.dtype} and {name} is {drive.dtype}; give both the same dtype.")
    return W


def _checked_low_rank(W: LowRank, n: int, trials: tuple[int, ...], dtype: Any) -> LowRank:
    a, c, b = (jnp.asarray(factor) for factor in W)
    rank = c.shape[-1] if c.ndim else 0
    if a.shape != (n, rank) or b.shape != (n, rank) or c.shape not in ((rank,), (*trials, rank)):
        raise ValueError(
            f"LowRank has a {a.shape}, c {c.shape}, b {b.shape}; with {n} units and trials {trials} it needs "
            "a (n, R), c (R) or (*trials, R), b (n, R)."
        )
    if {a.dtype, b.dtype, c.dtype} != {dtype}:
        raise ValueError(f"LowRank has a {a.dtype}, c {c.dtype}, b {b.dtype}; all must be {dtype}, as the drive.")
    per_trial = c.ndim > 1
    return LowRank(a, c.reshape(math.prod(trials) if per_trial else 1, rank), b)  # c (trial or 1, R)


_dot = partial(jnp.matmul, precision=lax.Precision.HIGHEST)


def _times(rows: jax.Array, W: Any) -> jax.Array:
    """Rows @ W, (trial, n): with W it carries adjoints back, with its transpose it carries rates on."""
    if isinstance(W, LowRank):
        return _dot(_dot(rows, W.a) * _rows(W.c, rows), W.b.T)
    return _dot(rows, W)


def _transposed(W: Any) -> Any:
    return LowRank(a=W.b, c=W.c, b=W.a) if isinstance(W, LowRank) else W.T


def _rows(c: jax.Array, like: jax.Array) -> jax.Array:
    """Strengths broadcast over the trials of `like`, (trial, R)."""
    return jnp.broadcast_to(c, (like.shape[-2], c.shape[-1]))


def _scan(phi: Phi, W: Any, drive: jax.Array, x0: jax.Array, alpha: Any) -> jax.Array:
    f = nonlinearity(phi)
    W_T = _transposed(W)  # once, before the loop: a transposition in every step costs 10 to 25 % of it on a CPU

    def step(x: jax.Array, d: jax.Array) -> tuple[jax.Array, jax.Array]:
        x = (1 - alpha) * x + alpha * (_times(f(x), W_T) + d)  # (trial, n)
        return x, x

    return lax.scan(step, x0, drive)[1]


_fused = partial(jax.custom_vjp, nondiff_argnums=(0,))(_scan)


def _rates(phi: Phi, states: jax.Array) -> jax.Array:
    return nonlinearity(phi)(states)


def _slopes(phi: Phi, rates: jax.Array, states: jax.Array) -> jax.Array:
    if callable(phi):
        return jax.jvp(phi, (states,), (jnp.ones_like(states),))[1]
    return _SLOPE_FROM_RATE[phi](rates)


def _adjoint(phi: Phi, W: Any, rates: jax.Array, states: jax.Array, cotangent: jax.Array, alpha: Any) -> jax.Array:
    """The reverse recurrence of the module's docstring; all arrays (time, trial, n)."""

    def step(later: jax.Array, now: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
        direct, rate, state = now
        lam = direct + (1 - alpha) * later + alpha * _slopes(phi, rate, state) * _times(later, W)  # (trial, n)
        return lam, lam

    last = jnp.zeros(states.shape[1:], states.dtype)
    return lax.scan(step, last, (cotangent, rates, states), reverse=True)[1]


def _forward(phi: Phi, W: Any, drive: Any, x0: Any, alpha: Any) -> tuple[jax.Array, tuple[Any, ...]]:
    if alpha.perturbed:
        raise TypeError(
            "the gradient for alpha was asked for, and the fused adjoint has none; "
            "use adjoint='autodiff', or keep alpha out of what is differentiated."
        )
    W = jax.tree.map(lambda leaf: leaf.value, W)
    x0, alpha = x0.value, alpha.value
    states = _fused(phi, W, drive.value, x0, alpha)
    return states, (W, states, x0, alpha)


def _backward(phi: Phi, residuals: tuple[Any, ...], cotangent: Any) -> tuple[Any, ...]:
    W, states, x0, alpha = residuals
    if isinstance(cotangent, SymbolicZero):
        cotangent = jnp.zeros(states.shape, states.dtype)
    rates = _rates(phi, states)
    first_rate, first_slope = _rates(phi, x0), _slopes(phi, _rates(phi, x0), x0)
    lam = _adjoint(phi, W, rates, states, cotangent, alpha)  # (time, trial, n)
    before = jnp.concatenate([first_rate[None], rates])[:-1]  # (time, trial, n)
    first = lam[0] if lam.shape[0] else jnp.zeros_like(x0)
    grad_x0 = (1 - alpha) * first + alpha * first_slope * _times(first, W)
    grad_drive = alpha * lam
    return _weight_gradient(W, grad_drive, before), grad_drive, grad_x0, None


def _weight_gradient(W: Any, grad_drive: jax.Array, before: jax.Array) -> Any:
    """Σ αλ rᵀ over time and trials at once, or its thin counterparts for factors."""
    if not isinstance(W, LowRank):
        return _over_time_and_trials(grad_drive, before)
    read, wrote = _dot(before, W.b), _dot(grad_drive, W.a)  # (time, trial, R)
    c = _rows(W.c, before)[None]
    grad_c = (wrote * read).sum(axis=0)  # (trial, R)
    return LowRank(
        a=_over_time_and_trials(grad_drive, read * c),
        c=grad_c if W.c.shape[0] == grad_c.shape[0] else grad_c.sum(axis=0, keepdims=True),
        b=_over_time_and_trials(before, wrote * c),
    )


def _over_time_and_trials(left: jax.Array, right: jax.Array) -> jax.Array:
    """Σ left rightᵀ, (i, j), of (time, trial, i) and (time, trial, j), contracted in the order they lie in memory."""
    return jnp.tensordot(left, right, axes=((0, 1), (0, 1)), precision=lax.Precision.HIGHEST)


_fused.defvjp(_forward, _backward, symbolic_zeros=True)
