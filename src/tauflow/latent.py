r"""The recurrence of a low-rank network in the coordinates of its columns, with its adjoint by hand.

Where the initial state and the inputs lie in the span of the columns of $a$, so does every state: $x_t = a z_t$ with

$$z_t = (1-\alpha)\,z_{t-1} + \alpha\,(c \odot b^\top\varphi(a z_{t-1}) + d_t) ,$$

exactly. Columns of $a$ beyond those of $b$ carry inputs and have no recurrence. Write $\bar z_t$, $\bar r_t$ for the
direct derivatives of a loss by $z_t$ and by the rates $r_t = \varphi(a z_t)$, and $\zeta_t$ for its total derivative by
$z_t$, later steps included. With $u_t = \alpha\,c \odot \zeta_{t+1}$, the derivative by $b^\top r_t$, and $q_t$, that
by $a z_t$,

$$q_t = \varphi'(a z_t) \odot (\bar r_t + b\,u_t), \qquad
  \zeta_t = \bar z_t + (1-\alpha)\,\zeta_{t+1} + a^\top q_t, \qquad \zeta_{T+1} = 0 ,$$

$$\nabla_a = \sum_t q_t z_t^\top, \qquad \nabla_b = \sum_t r_t u_t^\top, \qquad
  \nabla_c = \alpha \sum_t \zeta_{t+1} \odot b^\top r_t, \qquad \nabla_{d_t} = \alpha\,\zeta_t .$$

Only the latents are kept for the way back, and rates are made again: memory, not arithmetic, is what takes the time.
For the same reason $\nabla_a$ and $\nabla_b$ are summed within the loop, where rates and $q_t$ are still in the cache.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.custom_derivatives import SymbolicZero
from jax.typing import ArrayLike

from tauflow.simulate import Phi, _check_elementwise, _checked_alpha, _dot, _rows, _slopes, nonlinearity

BLOCK = 131_072  # rates that are treated as one array: half a megabyte in float32, about a core's own cache

Measure = Callable[[Any, jax.Array, jax.Array, Any], tuple[jax.Array, Any]]


class _Recurrence(NamedTuple):
    """What a step needs, and in the same form the derivatives by it; drive None is no drive."""

    a: Any  # (n, R + m)
    c: Any  # (trial or 1, R)
    b: Any  # (n, R)
    z0: Any  # (trial, R + m)
    drive: Any  # (time, trial, R + m) or None


def simulate_latent(
    a: ArrayLike,
    c: ArrayLike,
    b: ArrayLike,
    z0: ArrayLike,
    drive: ArrayLike | None = None,
    *,
    steps: int | None = None,
    phi: Phi,
    alpha: ArrayLike,
) -> tuple[jax.Array, jax.Array]:
    r"""Run $z_t = (1-\alpha)z_{t-1} + \alpha(c \odot b^\top\varphi(a z_{t-1}) + d_t)$, the state being $x_t = a z_t$.

    Args:
        a: Columns, shape (n, R + m): R with recurrence, then m that carry inputs alone.
        c: Strengths, shape (R,), or (*trials, R) for one set per trial.
        b: Rows, shape (n, R).
        z0: Coordinates of the initial state, shape (*trials, R + m).
        drive: Coordinates of the drive $d_t$, shape (time, *trials, R + m), or None for none.
        steps: Number of steps; may be left out where there is a drive.
        phi: "tanh", "relu", "identity", "softplus", "sigmoid", or an elementwise function that closes over nothing
            traced.
        alpha: Step in units of the time constant, in (0, 1]. It may be traced, but not differentiated.

    Returns:
        Latents (time, *trials, R + m) and rates $\varphi(a z_t)$ (time, *trials, n), both after each step.

    Raises:
        ValueError: If shapes, dtypes, `steps`, `phi` or `alpha` are not as said above.
        TypeError: If the gradient for a traced `alpha` is asked for.

    Source: pellegrino2023, supplement A.1, in the coordinates of A.2.2; D.2.2 for the gradient.

    Example:
        >>> import jax.numpy as jnp
        >>> column = jnp.array([[1.0], [0.0]])
        >>> z, _ = simulate_latent(column, jnp.zeros(1), column, jnp.ones(1), steps=3, phi="tanh", alpha=0.5)
        >>> z[:, 0].tolist()
        [0.5, 0.25, 0.125]
    """
    case, steps, alpha, trials = _checked(a, c, b, z0, drive, steps, phi, alpha)
    latents, rates = _simulate(phi, steps, case, alpha)
    return latents.reshape(steps, *trials, case.a.shape[1]), rates.reshape(steps, *trials, case.a.shape[0])


def sum_latent(
    measure: Measure,
    parameters: Any,
    data: Any,
    a: ArrayLike,
    c: ArrayLike,
    b: ArrayLike,
    z0: ArrayLike,
    drive: ArrayLike | None = None,
    *,
    phi: Phi,
    alpha: ArrayLike,
) -> tuple[jax.Array, Any]:
    r"""Sum over time of a measure of latents and rates, which are kept at no time but their own.

    The value is that of a sum over what `simulate_latent` returns, and so are the gradients. But rates, whatever
    `measure` makes of them and all derivatives by them live for one step: less memory, and less time in consequence.
    The derivatives are made on the way back together with the value, so that nothing is computed twice but the rates.

    Args:
        measure: `measure(parameters, z_t, r_t, data_t)` gives (scalar, sums): z_t (*trials, R + m), r_t (*trials, n),
            and `sums` any tree of arrays, which have no derivative. It closes over nothing traced.
        parameters: A tree of floating-point arrays; the gradient reaches them.
        data: A tree of arrays with the leading axis time, which has at least one step; they have no gradient.
        a: As for `simulate_latent`, which see for the others too.
        c: Strengths.
        b: Rows.
        z0: Coordinates of the initial state.
        drive: Coordinates of the drive.
        phi: Nonlinearity.
        alpha: Step in units of the time constant.

    Returns:
        The sums over time of the scalar and of `sums`.

    Raises:
        ValueError: As for `simulate_latent`, or if there are no data.
        TypeError: If the gradient for `alpha` or `data` is asked for.

    Example:
        >>> import jax.numpy as jnp
        >>> column = jnp.array([[1.0], [0.0]])
        >>> square = lambda gain, z, r, target: (((gain * z - target) ** 2).sum(), ())
        >>> start = (column, jnp.zeros(1), column, jnp.ones(1))
        >>> float(sum_latent(square, 1.0, jnp.zeros(3), *start, phi="tanh", alpha=0.5)[0])  # 1/4 + 1/16 + 1/64
        0.328125
    """
    lengths = {len(leaf) for leaf in jax.tree.leaves(data)}
    if len(lengths) != 1 or 0 in lengths:
        raise ValueError(f"data have the lengths {sorted(lengths)} in time; all must have the same, of 1 or more.")
    case, steps, alpha, trials = _checked(a, c, b, z0, drive, lengths.pop(), phi, alpha)

    def of_flat(parameters: Any, z: jax.Array, r: jax.Array, data: Any) -> tuple[jax.Array, Any]:
        return measure(parameters, z.reshape(*trials, -1), r.reshape(*trials, -1), data)

    return _sum(phi, measure if len(trials) == 1 else of_flat, steps, parameters, data, case, alpha)


def _checked(
    a: Any, c: Any, b: Any, z0: Any, drive: Any, steps: Any, phi: Phi, alpha: Any
) -> tuple[_Recurrence, int, Any, tuple[int, ...]]:
    """Check everything at the boundary, once, and merge the trial axes into one."""
    nonlinearity(phi)
    a, c, b, z0 = (jnp.asarray(value) for value in (a, c, b, z0))
    if not jnp.issubdtype(a.dtype, jnp.floating) or {c.dtype, b.dtype, z0.dtype} != {a.dtype}:
        raise ValueError(f"a is {a.dtype}, c {c.dtype}, b {b.dtype}, z0 {z0.dtype}; all must be of one float type.")
    trials, rank = z0.shape[:-1], c.shape[-1] if c.ndim else 0
    fits = a.ndim == b.ndim == 2 and a.shape[0] == b.shape[0] and b.shape[1] == rank and a.shape[1] >= rank
    if not (fits and z0.ndim and z0.shape[-1] == a.shape[1] and c.shape in ((rank,), (*trials, rank))):
        raise ValueError(
            f"a is {a.shape}, c {c.shape}, b {b.shape}, z0 {z0.shape}; they must be (n, R + m), (R) or (*trials, R), "
            "(n, R) and (*trials, R + m)."
        )
    alpha, width = _checked_alpha(alpha, a.dtype), a.shape[1]
    if drive is not None:
        drive = jnp.asarray(drive, dtype=a.dtype)
        if drive.shape[1:] != z0.shape or drive.ndim != z0.ndim + 1:
            raise ValueError(f"drive has shape {drive.shape}; it must be (time, *trials, R + m), time and {z0.shape}.")
        steps = drive.shape[0] if steps is None else steps
    if isinstance(steps, bool) or not isinstance(steps, int | np.integer) or steps < 0:
        raise ValueError(f"steps is {steps!r}; without a drive it must be a whole number >= 0.")
    if drive is not None and len(drive) != steps:
        raise ValueError(f"steps is {steps} and the drive has {len(drive)}; leave steps out, or let them agree.")
    count = math.prod(trials)
    if callable(phi):
        _check_elementwise(phi, jax.ShapeDtypeStruct((count, a.shape[0]), a.dtype))
    c = c.reshape(count if c.ndim > 1 else 1, rank)
    flat = None if drive is None else drive.reshape(steps, count, width)
    return _Recurrence(a, c, b, z0.reshape(count, width), flat), int(steps), alpha, trials


def _run(phi: Phi, steps: int, case: _Recurrence, alpha: Any, *, keep: bool) -> tuple[jax.Array, jax.Array, Any]:
    """Latents (time, trial, R + m) after each step, bᵀr (time, trial, R) before it, and if kept rates after it."""
    f, rank = nonlinearity(phi), case.b.shape[1]
    a_T, c = case.a.T, _rows(case.c, case.z0)  # (R + m, n), (trial, R)

    def step(now: tuple[jax.Array, jax.Array], drive: jax.Array | None) -> tuple[Any, Any]:
        z, r = now
        read = _dot(r, case.b)  # (trial, R)
        push = _padded(c * read, z.shape[-1] - rank)  # (trial, R + m)
        z = (1 - alpha) * z + alpha * (push if drive is None else push + drive)
        r = f(_dot(z, a_T))  # (trial, n)
        return (z, r), (z, read, r if keep else None)

    start = (case.z0, f(_dot(case.z0, a_T)))
    return lax.scan(step, start, case.drive, length=steps)[1]


def _padded(recurrent: jax.Array, inputs: int) -> jax.Array:
    """(trial, R) with m columns of zeros after them."""
    return jnp.pad(recurrent, ((0, 0), (0, inputs))) if inputs else recurrent


Direct = Callable[[Any, jax.Array, jax.Array, Any], tuple[Any, Any, Any]]


def _run_back(
    phi: Phi, case: _Recurrence, alpha: Any, latents: jax.Array, read: jax.Array, direct: Direct, given: Any, sums: Any
) -> tuple[_Recurrence, Any]:
    """The reverse recurrence of the module's docstring: derivatives by all of `case`, and `sums`.

    Args:
        phi: Nonlinearity.
        case: The recurrence.
        alpha: Step.
        latents: Latents after each step, (time, trial, R + m).
        read: bᵀr before each step, (time, trial, R).
        direct: `direct(given, z, r, sums)` of a block of times makes the direct derivatives by z and r (None for 0),
            and the next `sums`.
        given: What it needs, a tree with leading axis time.
        sums: What it starts from.
    """
    f, rank = nonlinearity(phi), case.b.shape[1]
    a_T, b_T, c = case.a.T, case.b.T, _rows(case.c, case.z0)

    def back(later: jax.Array, now: tuple[Any, ...]) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        slopes, zbar, rbar = now  # of one time
        u = alpha * c * later[:, :rank]  # (trial, R)
        pulled = _dot(u, b_T)  # (trial, n)
        q = slopes * (pulled if rbar is None else pulled + rbar)
        zeta = (1 - alpha) * later + _dot(q, case.a)  # (trial, R + m)
        zeta = zeta if zbar is None else zeta + zbar
        return zeta, (zeta, q, u)

    def block(carry: tuple[Any, ...], now: tuple[Any, ...]) -> tuple[Any, jax.Array]:
        later, for_a, for_b, sums = carry
        z, given_t = now
        x = _dot(z, a_T)
        r = f(x)  # (block, trial, n)
        zbar, rbar, sums = direct(given_t, z, r, sums)
        later, (zeta, q, u) = lax.scan(back, later, (_slopes(phi, r, x), zbar, rbar), reverse=True)
        return (later, for_a + _summed(q, z), for_b + _summed(r, u), sums), zeta

    none = jnp.zeros_like
    start = (none(case.z0), none(case.a), none(case.b), sums)
    size = _block_size(len(latents), case)
    (first, for_a, for_b, sums), zeta = lax.scan(block, start, _cut((latents, given), size), reverse=True)
    zeta = zeta.reshape(latents.shape)
    x = _dot(case.z0, a_T)
    r = f(x)
    zeta0, (_, q, u) = back(first, (_slopes(phi, r, x), None, None))
    for_c = alpha * (zeta[..., :rank] * read).sum(axis=0)  # (trial, R)
    for_c = for_c if case.c.shape == for_c.shape else for_c.sum(axis=0, keepdims=True)
    for_drive = None if case.drive is None else alpha * zeta
    return _Recurrence(for_a + _summed(q, case.z0), for_c, for_b + _summed(r, u), zeta0, for_drive), sums


def _block_size(steps: int, case: _Recurrence) -> int:
    """Number of steps, a divisor of all, whose rates fit into a core's cache and are treated as one array."""
    most = max(1, BLOCK // max(case.z0.shape[0] * case.a.shape[0], 1))
    return next(size for size in range(min(most, max(steps, 1)), 0, -1) if steps % size == 0)


def _cut(tree: Any, size: int) -> Any:
    """Arrays (time, ...) as (block, time in it, ...)."""
    return jax.tree.map(lambda leaf: leaf.reshape(len(leaf) // size, size, *leaf.shape[1:]), tree)


def _summed(rows: jax.Array, columns: jax.Array) -> jax.Array:
    """Sum over times and trials of outer products, (n, R), of (..., n) and (..., R)."""
    return _dot(rows.reshape(-1, rows.shape[-1]).T, columns.reshape(-1, columns.shape[-1]))


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _simulate(phi: Phi, steps: int, case: _Recurrence, alpha: Any) -> tuple[jax.Array, jax.Array]:
    latents, _, rates = _run(phi, steps, case, alpha, keep=True)
    return latents, rates


def _primal(case: Any, alpha: Any) -> tuple[_Recurrence, Any]:
    """The values of what is differentiated; alpha must not be."""
    if alpha.perturbed:
        raise TypeError("the gradient for alpha was asked for, and there is none; keep alpha out of it.")
    return jax.tree.map(lambda leaf: leaf.value, case), alpha.value


def _simulate_forward(phi: Phi, steps: int, case: Any, alpha: Any) -> tuple[Any, Any]:
    case, alpha = _primal(case, alpha)
    latents, read, rates = _run(phi, steps, case, alpha, keep=True)
    return (latents, rates), (case, alpha, latents, read)


def _simulate_backward(phi: Phi, steps: int, residuals: Any, cotangents: Any) -> tuple[Any, None]:
    given = tuple(None if isinstance(bar, SymbolicZero) else bar for bar in cotangents)

    def direct(given_t: Any, z: jax.Array, r: jax.Array, sums: Any) -> tuple[Any, Any, Any]:
        return (*given_t, sums)

    case, alpha, latents, read = residuals
    gradient, _ = _run_back(phi, case, alpha, latents, read, direct, given, None)
    return gradient, None


_simulate.defvjp(_simulate_forward, _simulate_backward, symbolic_zeros=True)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _sum(phi: Phi, measure: Measure, steps: int, parameters: Any, data: Any, case: _Recurrence, alpha: Any) -> Any:
    latents, _, _ = _run(phi, steps, case, alpha, keep=False)
    f, a_T = nonlinearity(phi), case.a.T

    def at(z: jax.Array, data: Any) -> tuple[jax.Array, Any]:
        return _measured(measure, parameters, z, f(_dot(z, a_T)), data)

    def step(sums: Any, now: Any) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, sums, at(*now)), None

    blocks = _cut((latents, data), _block_size(steps, case))
    shapes = jax.eval_shape(at, *jax.tree.map(lambda leaf: leaf[0], blocks))
    return lax.scan(step, _zeros(shapes), blocks)[0]


def _measured(measure: Measure, parameters: Any, z: jax.Array, r: jax.Array, data: Any) -> tuple[jax.Array, Any]:
    """A measure summed over a block of times."""
    each = jax.vmap(measure, in_axes=(None, 0, 0, 0))(parameters, z, r, data)
    return jax.tree.map(lambda leaf: leaf.sum(axis=0), each)


def _zeros(shapes: Any) -> Any:
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)


def _sum_forward(
    phi: Phi, measure: Measure, steps: int, parameters: Any, data: Any, case: Any, alpha: Any
) -> tuple[Any, Any]:
    """The sums, and as residuals the gradient itself: the loss is one number, so that nothing is left to be known."""
    if any(leaf.perturbed for leaf in jax.tree.leaves(data)):
        raise TypeError("the gradient for data was asked for, and there is none; what learns belongs to parameters.")
    case, alpha = _primal(case, alpha)
    parameters, data = (jax.tree.map(lambda leaf: leaf.value, tree) for tree in (parameters, data))
    latents, read, _ = _run(phi, steps, case, alpha, keep=False)

    def direct(data_t: Any, z: jax.Array, r: jax.Array, sums: Any) -> tuple[Any, ...]:
        value, pull, aside = jax.vjp(
            lambda p, z, r: _measured(measure, p, z, r, data_t), parameters, z, r, has_aux=True
        )
        for_parameters, zbar, rbar = pull(jnp.ones_like(value))
        return zbar, rbar, jax.tree.map(jnp.add, sums, (value, aside, for_parameters))

    first = jax.tree.map(lambda leaf: leaf[0], data)
    rates = jax.ShapeDtypeStruct((case.z0.shape[0], case.a.shape[0]), case.a.dtype)
    start = (*_zeros(jax.eval_shape(measure, parameters, latents[0], rates, first)), _zeros(parameters))
    gradient, (total, aside, for_parameters) = _run_back(phi, case, alpha, latents, read, direct, data, start)
    return (total, aside), (for_parameters, gradient)


def _sum_backward(phi: Phi, measure: Measure, steps: int, residuals: Any, cotangents: Any) -> tuple[Any, ...]:
    scale = cotangents[0]
    for_parameters, gradient = jax.tree.map(
        lambda leaf: jnp.zeros_like(leaf) if isinstance(scale, SymbolicZero) else scale * leaf, residuals
    )
    return for_parameters, None, gradient, None


_sum.defvjp(_sum_forward, _sum_backward, symbolic_zeros=True)
