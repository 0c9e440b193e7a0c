r"""How a linear network of small weights learns to integrate: an outlier leaves the bulk and becomes the leak.

The target filter is $e^{-c_*t}$, $W_{ij}, u_i, v_i \sim \mathcal N(0, \sigma^2)$ with $\sigma \ll 1$, and $W$, $u$ and
$v$ learn at the mean-field rate $\eta = \gamma_0^2N$ from $L = \int_0^\infty(f - f_*)^2\,dt$. Let $a = 1/(1 + c_*)$.

**Alignment.** While everything is small, $f \approx 0$ and $W$ hardly matters, so that

$$ u' = 2\gamma_0a\,v, \qquad v' = 2\gamma_0a\,u, \qquad W' = \tfrac{2\gamma_0}{\sqrt N}a^2\,vu^T \qquad (2, E3). $$

With $u_\pm = (u_0 \pm v_0)/2$ and $g = 2\gamma_0a$ this is $u, v = u_+e^{gs} \pm u_-e^{-gs}$: both turn to $u_+$,
and $W$ grows by $\frac{a}{2\sqrt N}(e^{2gs} - 1)\,u_+u_+^T$ (E6) plus terms in $u_-$ that do not grow as fast. Since
$|u_+|^2 = N\sigma^2/2$, the outlier of $W/\sqrt N$ reaches the bulk's edge $\sigma$ at
$s = \frac1{2g}\ln(1 + \frac4{a\sigma})$ (E7).

**After it,** all lies along one direction: $u/\sqrt N = u\hat u_+$, $v/\sqrt N = v\hat u_+$,
$W/\sqrt N = (1 - c)\hat u_+\hat u_+^T$. The filter is $\frac{uv}{\gamma_0}e^{-ct}$, the loss

$$ L = \frac{u^2v^2}{2c\gamma_0^2} - \frac{2uv}{(c + c_*)\gamma_0} + \frac1{2c_*} \qquad (E10), $$

and its flow, in which $u^2 - v^2$ is conserved,

$$ u' = \frac{2\gamma_0v}{c + c_*} - \frac{uv^2}c, \quad v' = \frac{2\gamma_0u}{c + c_*} - \frac{u^2v}c, \quad
   c' = \frac{u^2v^2}{2c^2} - \frac{2\gamma_0uv}{(c + c_*)^2} \qquad (E15). $$

Along $\hat u_+$ it starts from $u = v = \sigma/\sqrt2$ and $c = 1$, and it ends at $u = v = \sqrt{\gamma_0}$,
$c = c_*$, where it is stiff: c relaxes at the rate $1/2c_*^3$ ($\gamma_0 = 1$).

**What is left out.** The bulk and $u_-$ matter at any N: they speed up alignment by $O(\sigma^2\ln^2\sigma)$. At
$\sigma = 0.2$, $c_* = 0.2$ the reduced flow comes late by 0.11, and where c falls fastest it is off by 0.3.
`tauflow.theory.effective_network.dress` adds them, order by order in $\sigma^2$; `OutlierTheory` does.

All functions are float64, and their arguments broadcast.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.integrate import solve_ivp
from scipy.optimize import brentq

from tauflow.analysis.arguments import FloatArray, matrix, real_array
from tauflow.theory._arguments import as_positive, as_sigma, as_tau, together


class Alignment(NamedTuple):
    """Weights in the early phase, in the units of the network.

    Attributes:
        u: Read-in, shape (..., n).
        v: Readout, shape (..., n).
        W: Recurrent weights, shape (..., n, n).
    """

    u: FloatArray
    v: FloatArray
    W: FloatArray


class ReducedFlow(NamedTuple):
    """The three numbers that are left after alignment, and their loss.

    Attributes:
        u: Size of the read-in, shape (...).
        v: Size of the readout, shape (...).
        c: Leak; the outlier of W/√N is 1 - c, shape (...).
        loss: The loss (E10), shape (...).
    """

    u: FloatArray
    v: FloatArray
    c: FloatArray
    loss: FloatArray


def alignment(
    u0: ArrayLike, v0: ArrayLike, W0: ArrayLike, c_target: ArrayLike, tau: ArrayLike, gamma0: ArrayLike = 1.0
) -> Alignment:
    r"""Read-in, readout and recurrent weights in the early, linear phase.

    Args:
        u0: Initial read-in, shape (..., n).
        v0: Initial readout, shape (..., n).
        W0: Initial recurrent weights, shape (..., n, n).
        c_target: Leak of the target, c* > 0, shape (...).
        tau: Learning time >= 0, in flow units, shape (...).
        gamma0: Richness γ₀ > 0, shape (...).

    Returns:
        `Alignment`, in the units of u0, v0 and W0.

    Raises:
        ValueError: If an argument is out of range or the shapes do not fit.

    Assumes: small weights, times no later than `escape_time`, mean-field rates γ₀²N.
    Source: bordelon2025, Eqs. E2-E6. Deviation from print: rates e^{±2as}, not e^{±as}, for L without 1/2; W/√N grows
        by (a/2N)(e^{4as} - 1)u₊u₊ᵀ, and all that the linear phase has is kept, in u₋ too.

    Example:
        >>> late = alignment([0.1, 0.0], [0.0, 0.1], np.zeros((2, 2)), 1.0, 2.0)
        >>> np.round(late.u, 4), np.round(late.v, 4)
        (array([0.3762, 0.3627]), array([0.3627, 0.3762]))
    """
    wanted = "finite numbers, shape (..., n)"
    first, second = (real_array(name, x, wanted=wanted, minimum_ndim=1) for name, x in (("u0", u0), ("v0", v0)))
    W = matrix("W0", real_array("W0", W0, wanted="square matrices of finite numbers"), square=True)
    c, t, gain = as_positive("c_target", c_target), as_tau(tau), as_positive("gamma0", gamma0)
    try:
        shape = np.broadcast_shapes(first.shape, second.shape, W.shape[:-1], *((*x.shape, 1) for x in (c, t, gain)))
    except ValueError:
        shape = (0,)
    n = W.shape[-1]
    if shape[-1] != n:
        told = ", ".join(f"{k} {x.shape}" for k, x in (("u0", first), ("v0", second), ("W0", W), ("c_target", c)))
        raise ValueError(f"The shapes do not fit together: {told}, tau {t.shape}, gamma0 {gain.shape}.")
    a = 1 / (1 + c[..., None])
    g, s = 2 * gain[..., None] * a, t[..., None]
    plus, minus = (first + second) / 2, (first - second) / 2
    late_plus, late_minus = plus * np.exp(g * s), minus * np.exp(-g * s)  # (..., n)
    grown = _outer(plus, plus * np.expm1(2 * g * s) / (2 * g)) + _outer(minus, minus * np.expm1(-2 * g * s) / (2 * g))
    grown = grown + _outer(plus, minus * s) - _outer(minus, plus * s)  # the integral of v u', (..., n, n)
    change = (2 * gain[..., None] * a**2)[..., None] / np.sqrt(n) * grown
    u, v = (np.array(np.broadcast_to(x, shape)) for x in (late_plus + late_minus, late_plus - late_minus))
    return Alignment(u, v, np.array(np.broadcast_to(W + change, (*shape, n))))


def escape_time(c_target: ArrayLike, sigma: ArrayLike, gamma0: ArrayLike = 1.0) -> FloatArray:
    r"""Learning time at which the outlier leaves the bulk, $\frac1{4\gamma_0a}\ln(1 + \frac4{a\sigma})$.

    Args:
        c_target: Leak of the target, c* > 0, any shape.
        sigma: Standard deviation of the initial weights, in (0, 1), any shape.
        gamma0: Richness γ₀ > 0, any shape.

    Returns:
        Time, of the common shape, in flow units.

    Raises:
        ValueError: If an argument is out of range or the shapes do not broadcast.

    Assumes: small sigma, large N, mean-field rates γ₀²N, and a target well outside the bulk on its slow side, 1 - c*
        well above sigma: a faster one needs no outlier there.
    Source: bordelon2025, Eq. E7. Deviation from print: print has (1/2a) ln(1 + 2/aσ): the rate lacks the 2 of the
        gradient, and |u₊|² is Nσ²/2.

    Example:
        >>> round(float(escape_time(0.2, 0.1)), 4)
        1.1675
    """
    c, s, gain = together(
        c_target=as_positive("c_target", c_target), sigma=as_sigma(sigma), gamma0=as_positive("gamma0", gamma0)
    )
    return (1 + c) / (4 * gain) * np.log1p(4 * (1 + c) / s)


def reduced_loss(u: ArrayLike, v: ArrayLike, c: ArrayLike, c_target: ArrayLike, gamma0: ArrayLike = 1.0) -> FloatArray:
    r"""Loss of an aligned network, $\frac{u^2v^2}{2c\gamma_0^2} - \frac{2uv}{(c+c_*)\gamma_0} + \frac1{2c_*}$.

    Args:
        u: Size of the read-in, any shape.
        v: Size of the readout, any shape.
        c: Leak of the network, > 0, any shape.
        c_target: Leak of the target, c* > 0, any shape.
        gamma0: Richness γ₀ > 0, any shape.

    Returns:
        L, of the common shape, in squared units of the filter times membrane times.

    Raises:
        ValueError: If an argument is out of range or the shapes do not broadcast.

    Assumes: aligned weights of one direction.
    Source: bordelon2025, Eq. E10. Deviation from print: none.

    Example:
        >>> reduced_loss(1.0, 1.0, [0.2, 1.0], 0.2).round(6)
        array([0.      , 1.333333])
    """
    first, second, leak, wanted, gain = _common(u, v, c, c_target, gamma0)
    product = first * second / gain
    return product**2 / (2 * leak) - 2 * product / (leak + wanted) + 1 / (2 * wanted)


def reduced_flow(
    tau: ArrayLike,
    sigma: ArrayLike,
    c_target: ArrayLike,
    gamma0: ArrayLike = 1.0,
    *,
    u: ArrayLike | None = None,
    v: ArrayLike | None = None,
    c: ArrayLike = 1.0,
) -> ReducedFlow:
    r"""Gradient flow of an aligned network (E15), from $u = v = \sigma/\sqrt2$ and $c = 1$ or from what is given.

    Args:
        tau: Learning time >= 0, in flow units, any shape and order.
        sigma: Standard deviation of the initial weights, in (0, 1), any shape.
        c_target: Leak of the target, c* > 0, any shape.
        gamma0: Richness γ₀ > 0, any shape.
        u: Initial size of the read-in; for a given network |u₀ + v₀|/(2√N) is closer than σ/√2, the default.
        v: That of the readout; like u by default.
        c: Initial leak, > 0; 1 minus the outlier along u₊.

    Returns:
        `ReducedFlow` at these times, to a relative error of about 1e-9.

    Raises:
        ValueError: If an argument is out of range or the shapes do not broadcast.

    Assumes: small sigma, large N, mean-field rates γ₀²N, gradient flow.
    Source: bordelon2025, Eqs. 4 and E15. Deviation from print: E15 has u²v/(γ₀c) in v' for u²v/c, and 2γ₀uv/(c + c*)
        in c' for 2γ₀uv/(c + c*)²; it starts from u = v = σ/√2, c = 1, not from σ and 1 - σ.

    Example:
        >>> flow = reduced_flow([0.0, 100.0], 0.1, 0.2)
        >>> np.round(flow.c, 6), np.round(flow.u[-1], 6)
        (array([1. , 0.2]), np.float64(1.0))
    """
    times, spread, leak, wanted, gain = together(
        tau=as_tau(tau),
        sigma=as_sigma(sigma),
        c=as_positive("c", c),
        c_target=as_positive("c_target", c_target),
        gamma0=as_positive("gamma0", gamma0),
    )
    first = spread / np.sqrt(2) if u is None else u
    rest = _common(first, first if v is None else v, leak, wanted, gain)
    times = np.broadcast_to(times, rest[0].shape)
    cases, which = np.unique(np.stack(rest, -1).reshape(-1, 5), axis=0, return_inverse=True)
    path = np.zeros((times.size, 3))
    for i, case in enumerate(cases):
        here = which.ravel() == i
        ascending, back = np.unique(times.ravel()[here], return_inverse=True)
        path[here] = _integrated(ascending, case[:3], case[3], case[4])[back]
    first, second, leak = np.moveaxis(path.reshape(*times.shape, 3), -1, 0)
    return ReducedFlow(first, second, leak, reduced_loss(first, second, leak, *rest[3:]))


def clamped_rate(tau: ArrayLike, c0: ArrayLike, c_target: ArrayLike) -> FloatArray:
    r"""Leak while read-in and readout are held at 1, from $c' = \frac1{2c^2} - \frac2{(c + c_*)^2}$.

    With $x = c/c_*$ the solution is $\tau = c_*^3[F(x) - F(x_0)]$,
    $F = -\frac29x^3 - \frac89x^2 - \frac{56}{27}x - 2\ln|x - 1| + \frac2{81}\ln(3x + 1)$, inverted to about 1e-12;
    for $c_* = 0$ it is $c = (c_0^3 - \frac92\tau)^{1/3}$, which ends at 0 in finite time.

    Args:
        tau: Learning time >= 0, in flow units, any shape.
        c0: Initial leak, > 0, any shape.
        c_target: Leak of the target, c* >= 0, any shape.

    Returns:
        c, of the common shape, per membrane time.

    Raises:
        ValueError: If an argument is out of range or the shapes do not broadcast.

    Assumes: u = v = 1 held, γ₀ = 1, one direction.
    Source: bordelon2025, Eqs. E22 and E23. Deviation from print: none; the implicit solution by this library.

    Example:
        >>> clamped_rate([0.0, 0.1, 0.2], 1.0, 0.0).round(6)
        array([1.      , 0.819321, 0.464159])
    """
    t, start, wanted = together(
        tau=as_tau(tau), c0=as_positive("c0", c0), c_target=as_positive("c_target", c_target, zero=True)
    )
    limit = np.cbrt(np.maximum(start**3 - 4.5 * t, 0.0))
    solved = np.vectorize(_clamped, otypes=[np.float64])
    return np.asarray(np.where(wanted == 0, limit, solved(t, start, np.where(wanted == 0, 1.0, wanted))))


def flow_field(
    u: ArrayLike, c: ArrayLike, c_target: ArrayLike, gamma0: ArrayLike = 1.0
) -> tuple[FloatArray, FloatArray]:
    r"""Velocity of a balanced network, $u = v$: $u' = u(\frac{2\gamma_0}{c+c_*} - \frac{u^2}c)$,
    $c' = u^2(\frac{u^2}{2c^2} - \frac{2\gamma_0}{(c+c_*)^2})$.

    Args:
        u: Size of read-in and readout, any shape.
        c: Leak of the network, > 0, any shape.
        c_target: Leak of the target, c* > 0, any shape.
        gamma0: Richness γ₀ > 0, any shape.

    Returns:
        (u', c'), each of the common shape, per unit of learning time.

    Raises:
        ValueError: If an argument is out of range or the shapes do not broadcast.

    Assumes: aligned, balanced weights of one direction; mean-field rates γ₀²N.
    Source: bordelon2025, Eqs. 4, E16 and E17. Deviation from print: none.

    Example:
        >>> [float(x) for x in flow_field(1.0, 0.2, 0.2)]
        [0.0, 0.0]
    """
    first, second, leak, wanted, gain = _common(u, u, c, c_target, gamma0)
    du, _, dc = _slope(first, second, leak, wanted, gain)
    return du, dc


def _common(u: ArrayLike, v: ArrayLike, c: ArrayLike, c_target: ArrayLike, gamma0: ArrayLike) -> list[FloatArray]:
    size = "a finite number, for example"
    return together(
        u=real_array("u", u, wanted=f"{size} u=0.1"),
        v=real_array("v", v, wanted=f"{size} v=0.1"),
        c=as_positive("c", c),
        c_target=as_positive("c_target", c_target),
        gamma0=as_positive("gamma0", gamma0),
    )


def _outer(x: FloatArray, y: FloatArray) -> FloatArray:
    return x[..., :, None] * y[..., None, :]


def _slope(u: Any, v: Any, c: Any, wanted: Any, gain: Any) -> list[Any]:
    """The right side of (E15)."""
    drive = 2 * gain / (c + wanted)
    return [drive * v - u * v**2 / c, drive * u - u**2 * v / c, (u * v / c) ** 2 / 2 - drive * u * v / (c + wanted)]


def _jacobian(u: float, v: float, c: float, wanted: float, gain: float) -> FloatArray:
    """Its derivative, shape (3, 3)."""
    drive, product, sum_ = 2 * gain / (c + wanted), u * v, c + wanted
    cu, cv = (product * x / c**2 - drive * x / sum_ for x in (v, u))
    dc = -(product**2) / c**3 + 2 * drive * product / sum_**2
    mixed = drive - 2 * product / c
    return np.array([[-(v**2) / c, mixed, cu], [mixed, -(u**2) / c, cv], [cu, cv, dc]])


def _integrated(times: FloatArray, start: FloatArray, wanted: float, gain: float) -> FloatArray:
    """(u, v, c) at ascending times, shape (time, 3)."""
    if times[-1] == 0:
        return start[None]

    def slope(_: float, y: FloatArray) -> FloatArray:
        return np.array(_slope(y[0], y[1], y[2], wanted, gain))

    def jacobian(_: float, y: FloatArray) -> FloatArray:
        return _jacobian(y[0], y[1], y[2], wanted, gain)

    span = (0.0, times[-1])
    path = solve_ivp(slope, span, start, "LSODA", t_eval=times, rtol=1e-11, atol=1e-13, jac=jacobian)
    if path.status < 0:
        raise RuntimeError(f"The reduced flow to c_target {wanted} could not be integrated: {path.message}")
    return np.asarray(path.y).T


def _clamped(tau: float, c0: float, wanted: float) -> float:
    """The leak at one time, from the root of the implicit solution in ln|c/c* - 1|."""
    if tau == 0 or c0 == wanted:
        return c0
    side = np.sign(c0 - wanted)

    def time(z: float) -> float:
        x = 1 + side * np.exp(z)
        return float(wanted**3 * (np.log(3 * x + 1) / 40.5 - 2 * z - x * (56 / 27 + x * (8 / 9 + x * 2 / 9))))

    first = float(np.log(abs(c0 / wanted - 1)))
    due = time(first) + tau
    last = first - tau / (2 * wanted**3) - (c0 / wanted + 2) ** 3  # later than wanted: -2z grows by more than is due
    root = brentq(lambda z: time(z) - due, last, first, xtol=1e-14, rtol=1e-14, maxiter=1000)
    return float(wanted * (1 + side * np.exp(root)))
