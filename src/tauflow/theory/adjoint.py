r"""Adjoint states of a rate network, and its gradients as single products of them with what drove each step.

For $\dot x = W\varphi(x) - x + Bu$ and $L = |D\varphi(x(T)) - y|^2$ the adjoint $a(t) = dL/dx(t)$ runs backwards,

$$ \dot a = a - \varphi'(x) \odot (W^Ta), \qquad a(T) = 2\varphi'(x(T)) \odot D^T(D\varphi(x(T)) - y), $$

and $\nabla_WL = \int_0^T a(t)\,\varphi(x(t))^T dt$, $\nabla_BL = \int_0^T a(t)\,u(t)^T dt$. For a loss integrated over
time, $\dot a$ gains $-2\varphi'(x) \odot D^T(D\varphi(x) - y)$ and $a(T) = 0$.

All functions here are exact for the network in Euler steps, $x_k = x_{k-1} + dt(W\varphi(x_{k-1}) - x_{k-1} + Bu_k)$,
where $\nabla_WL = dt\sum_{k=1}^q a_k\varphi(x_{k-1})^T$, and first order in dt for the differential equation. The print
pairs $a_k$ with $\varphi(x_k)$, which is off by $O(dt)$ from both.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from tauflow.analysis.arguments import FloatArray
from tauflow.precision import float64
from tauflow.simulate import Phi, nonlinearity, simulate_adjoint
from tauflow.theory._arguments import factor_pair, one_positive, with_axes

LOSSES = ("terminal", "integrated")


def adjoint_states(
    W: ArrayLike, states: ArrayLike, D: ArrayLike, y: ArrayLike, *, phi: Phi, dt: float, loss: str = "terminal"
) -> FloatArray:
    r"""Adjoint states $a_k = dL/dx_k$ of a rate network in Euler steps.

    Args:
        W: Recurrent weights, shape (..., n, n).
        states: x after each step, shape (..., time, n), as `tauflow.simulate.simulate` gives them for one trial.
        D: Decoder, shape (..., d, n).
        y: Targets, shape (..., d) for the terminal loss, (..., time, d) for the integrated one.
        phi: Nonlinearity, a name or an elementwise function.
        dt: Step in units of the time constant, in (0, 1].
        loss: "terminal" for $|D\varphi(x_q) - y|^2$, "integrated" for $dt\sum_{k=1}^q|D\varphi(x_k) - y_k|^2$.

    Returns:
        Shape (..., time, n); entry k belongs to the state after step k. Leading axes broadcast, so that one W goes
        with many trials.

    Raises:
        ValueError: If an argument is not finite or out of range, or the shapes do not fit.

    Assumes: nothing beyond the Euler network, for which it is exact; for the differential equation it is right to
        first order in dt.
    Source: pellegrino2023, supplement D.1.18, D.3.5. Deviation from print: the sign of da/dt, the factor 2 of the
        loss, D transposed in (D.1.16), and a(T) = 0 where (D.3.5) has its derivative.

    Example:
        >>> adjoint_states([[0.0]], [[1.0], [0.5]], [[1.0]], [0.0], phi="identity", dt=0.5)
        array([[0.5],
               [1. ]])
    """
    if loss not in LOSSES:
        raise ValueError(f"loss is {loss!r}; it must be 'terminal' or 'integrated'.")
    kernel = {"W": ("n", "n"), "states": ("time", "n"), "D": ("d", "n")}
    goal = ("d",) if loss == "terminal" else ("time", "d")
    arrays, leading = with_axes(kernel | {"y": goal}, W=W, states=states, D=D, y=y)
    if arrays[1].shape[-2] == 0:
        raise ValueError(f"states has shape {arrays[1].shape}; it must hold one step or more, (..., time, n).")
    nonlinearity(phi)
    step = one_positive("dt", dt)
    if step > 1:
        raise ValueError(f"dt is {step}; it must lie in (0, 1], in units of the time constant.")
    flat = [array.reshape(-1, *array.shape[len(leading) :]) for array in arrays]
    with float64():
        lam = _adjoints(*flat, phi=phi, dt=step, loss=loss)
    return np.asarray(lam, np.float64).reshape(*leading, *arrays[1].shape[-2:])


@partial(jax.jit, static_argnames=("phi", "dt", "loss"))
def _adjoints(
    W: jax.Array, states: jax.Array, D: jax.Array, y: jax.Array, *, phi: Phi, dt: float, loss: str
) -> jax.Array:
    """Adjoint states of networks along the first axis."""

    def one(W: jax.Array, x: jax.Array, D: jax.Array, y: jax.Array) -> jax.Array:
        rates, times_slope = jax.vjp(nonlinearity(phi), x)  # (time, n)
        direct = times_slope(2 * (rates @ D.T - y.reshape(-1, D.shape[0])) @ D)[0]  # (time, n)
        last = jnp.arange(x.shape[0])[:, None] == x.shape[0] - 1
        cotangent = jnp.where(last, direct, 0.0) if loss == "terminal" else dt * direct
        return simulate_adjoint(W, x, cotangent, phi=phi, alpha=dt)

    return jax.vmap(one)(W, states, D, y)


def discrete_gradient(adjoint: ArrayLike, driving: ArrayLike, dt: ArrayLike) -> FloatArray:
    r"""Gradient as one product, $dt\sum_k a_k d_k^T$.

    Args:
        adjoint: Adjoint states after each step, shape (..., time, n).
        driving: What entered each step, shape (..., time, p): the rates before it, $\varphi(x_{k-1})$, for the gradient
            for W, the inputs $u_k$ for that for B. For a sum over trials, put them one after the other along time.
        dt: Step, > 0, a number.

    Returns:
        Shape (..., n, p).

    Raises:
        ValueError: If an argument is not finite or the shapes do not fit.

    Assumes: nothing beyond the Euler network, for which it is exact.
    Source: pellegrino2023, supplement D.2.1, section D.2.2. Deviation from print: the print pairs adjoint states and
        rates of the same time, which is O(dt) away.

    Example:
        >>> discrete_gradient([[0.5], [1.0]], [[2.0], [1.0]], 0.5)
        array([[1.]])
    """
    a, d = factor_pair(adjoint, driving)
    return one_positive("dt", dt) * np.einsum("...ti,...tj->...ij", a, d)


def decoder_gradient(
    states: ArrayLike, D: ArrayLike, y: ArrayLike, *, phi: Phi, dt: float, loss: str = "terminal"
) -> FloatArray:
    r"""Gradient of the loss for the decoder, which no recurrence carries: $2(D\varphi - y)\varphi^T$ at T or over time.

    Args:
        states: x after each step, shape (..., time, n).
        D: Decoder, shape (..., d, n).
        y: Targets, shape (..., d) for the terminal loss, (..., time, d) for the integrated one.
        phi: Nonlinearity, a name or an elementwise function.
        dt: Step in units of the time constant, > 0.
        loss: "terminal" or "integrated", as for `adjoint_states`.

    Returns:
        Shape (..., d, n).

    Raises:
        ValueError: If an argument is not finite or the shapes do not fit.

    Assumes: nothing.
    Source: pellegrino2023, supplement D.3.7. Deviation from print: for the integrated loss it is an integral, and not
        the derivative at T.

    Example:
        >>> decoder_gradient([[1.0], [0.5]], [[1.0]], [0.0], phi="identity", dt=0.5)
        array([[0.5]])
    """
    if loss not in LOSSES:
        raise ValueError(f"loss is {loss!r}; it must be 'terminal' or 'integrated'.")
    goal = ("d",) if loss == "terminal" else ("time", "d")
    kinds = {"states": ("time", "n"), "D": ("d", "n"), "y": goal}
    (x, D_, y_), _ = with_axes(kinds, states=states, D=D, y=y)
    with float64():
        rates = np.asarray(nonlinearity(phi)(jnp.asarray(x)), np.float64)  # (..., time, n)
    weight = 2 * one_positive("dt", dt)
    if loss == "terminal":
        rates, y_, weight = rates[..., -1:, :], y_[..., None, :], 2.0
    error = rates @ np.swapaxes(D_, -1, -2) - y_  # (..., time, d)
    return weight * np.einsum("...td,...tn->...dn", error, rates)
