r"""How a linear network learns to reach a fixed point: the expansion of schuessler2020 in learning time.

The readout at the fixed point is $z = w^T A m$ with $A = (I - W)^{-1}$ (5), the loss
$L = \frac12(\hat z - z)^2$. Only $W$ learns, from $W_0$ with entries $N(0, g^2/N)$, $g < 1$. Write
$e = \hat z - z$ and

$$ p = A^T w, \quad q = A m, \quad P = p^Tp, \quad Q = q^Tq, \quad R = q^T A p, \quad S = |Ap|^2,
   \quad T = |A^T q|^2 . $$

Gradient flow (6) is $W' = e\,p\,q^T$, and with $A' = A W' A$ everything needed closes up to third order:

$$ z' = e P Q, \quad P' = 2ePR, \quad Q' = 2eQR, \quad R' = e(QS + R^2 + PT),
   \quad p' = eP\,A^Tq, \quad q' = eQ\,Ap . $$

At $\tau = 0$ a large network has $z = R = 0$ (14), $P = Q = \beta = 1/(1-g^2)$ (16) and
$S = T = \gamma = \beta^4$ (80), because $w$, $m$ and $W_0$ are independent: these are traces
(`tauflow.theory.resolvent_traces`), and single networks lie of order $N^{-1/2}$ away
(`tauflow.theory.fixed_point_spread`). With $t = \beta^2 \tau$, order by order:

* $R = 2\hat z\beta\gamma\tau$, so $P = Q = \beta + 2\hat z^2\beta^2\gamma\tau^2$, and
  $z' = \hat z(1 - t + \frac{t^2}2)PQ$ gives
  $$ z = \hat z\,[\,t - \tfrac{t^2}{2} + (1 + 8\hat z^2\beta)\tfrac{t^3}{6}\,] \qquad (48). $$
* $W'$ and its derivatives at 0, with $B = (I - W_0)^{-1}$, give $\Delta W = B^T[\dots]B^T$ (28): rank one to
  order $\tau^2$, rank two at $\tau^3$. Its singular values are
  $s_+ = \frac{\hat z}{\beta}[t - \frac{t^2}2 + (1 + \frac72\hat z^2\beta)\frac{t^3}6]$ (65), and
  $s_- = \hat z^3 t^3/12$ (66), the second direction that learning opens.
* Shuffling $W_0$ leaves $B_s$ with $\frac1N\mathrm{Tr}\,B_sB^T = 1$ where $\frac1N\mathrm{Tr}\,BB^T = \beta$
  was: the readout loses $\beta^2$ (67).

Where it ends. The first two orders need $t = 1$ and never ($t - t^2/2 \le 1/2$); the third reaches the target
at the one root of its cubic, $t \le 1.5961$. The exact flow converges to $\hat z$ and never crosses it, so
**the series means nothing beyond that root**, `learning_time(gain, target)`. The functions here are the plain
polynomials; `FixedPointTheory` gives NaN beyond the root.

Conventions: $m$ and $w$ have norm 1; a `RateRNN` has $m = W_{in}[:, 0]/\sqrt N$ and
$w = \sqrt N\,W_{out}[0]$. Times are $\tau$, not $\beta^2\tau$. All arguments broadcast against each other;
all results are float64.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from tauflow.analysis.arguments import FloatArray, real_array
from tauflow.theory._arguments import as_gain, as_order, as_target, as_tau, together
from tauflow.theory.fixed_point_spread import readout_spread, singular_value_spread
from tauflow.theory.fixed_point_weights import weight_change
from tauflow.theory.fixed_point_zero_gain import ZeroGainFlow, zero_gain_coefficients, zero_gain_flow
from tauflow.theory.resolvent_traces import Traces, beta, traces

__all__ = [
    "Coefficients",
    "Traces",
    "ZeroGainFlow",
    "beta",
    "coefficients",
    "eigenvalue",
    "learning_time",
    "readout",
    "readout_spread",
    "shuffled_loss",
    "shuffled_readout",
    "singular_value_spread",
    "singular_values",
    "traces",
    "weight_change",
    "weight_change_norm",
    "zero_gain_coefficients",
    "zero_gain_flow",
]


class Coefficients(NamedTuple):
    r"""Products of the coefficients in $u_3 = B^T(aw + bBm + cBB^Tw)$, $\hat u_3 = \hat b B^TBm$ (29-32).

    Attributes:
        aa: a².
        ab: ab.
        ac: ac.
        bb: b².
        bhat: b̂².
    """

    aa: FloatArray
    ab: FloatArray
    ac: FloatArray
    bb: FloatArray
    bhat: FloatArray


def coefficients(tau: ArrayLike, gain: ArrayLike, target: ArrayLike) -> Coefficients:
    r"""Coefficients of the weight change to third order, $a^2, ab, ac, b^2, \hat b^2$.

    Args:
        tau: Learning time >= 0, in flow units, any shape.
        gain: g, in [0, 1), any shape.
        target: ẑ, in units of the readout, any shape.

    Returns:
        `Coefficients`, each of the common shape. Products, so that the target may be negative.

    Raises:
        ValueError: If an argument is out of range or the shapes do not broadcast.

    Assumes: gradient flow on W, large N, small tau.
    Source: schuessler2020, supplement Eqs. 33-37 (11, 23 to lower order). Deviation from print: none (squares
        lost in the extracted text).

    Example:
        >>> round(float(coefficients(0.1, 0.0, 2.0).bb), 9)
        0.002
    """
    tau_, b, z = _common(tau, gain, target)
    aa = tau_ * z - tau_**2 / 2 * z * b**2 + tau_**3 / 6 * z * b**4
    ab = tau_**2 / 2 * z**2 * b - tau_**3 / 2 * z**2 * b**3
    ac = tau_**3 / 6 * z**3 * b**2
    bb = tau_**3 / 4 * z**3 * b**2
    return Coefficients(aa, ab, ac, bb, tau_**3 / 3 * z**3 * b**2 - bb)


def readout(tau: ArrayLike, gain: ArrayLike, target: ArrayLike, order: int = 3) -> FloatArray:
    r"""Readout during learning, $z = \hat z[t - t^2/2 + (1 + 8\hat z^2\beta)t^3/6]$ with $t = \beta^2\tau$.

    Args:
        tau: Learning time >= 0, in flow units, any shape.
        gain: g, in [0, 1), any shape.
        target: ẑ, in units of the readout, any shape.
        order: How many orders in tau to keep, 1, 2 or 3.

    Returns:
        z, of the common shape, in units of the readout. The plain polynomial, also beyond `learning_time`.

    Raises:
        ValueError: If an argument is out of range or the shapes do not broadcast.

    Assumes: gradient flow on W, large N, t small enough (no later than the learning time).
    Source: schuessler2020, supplement Eqs. 15, 24, 48. Deviation from print: none in the results (on the way,
        44 should read [[1-x, -y], [-y, 1]], and 26 wᵀB where it has wᵀBᵀ).

    Example:
        >>> round(float(readout(0.1, gain=0.6, target=0.5)), 6)
        0.112171
    """
    highest = as_order(order, 3)
    tau_, b, z = _common(tau, gain, target)
    return z * _series(b**2 * tau_, 1 + 8 * z**2 * b, highest)


def singular_values(tau: ArrayLike, gain: ArrayLike, target: ArrayLike) -> tuple[FloatArray, FloatArray]:
    r"""The two singular values of the weight change, to order $\tau^3$.

    $s_+ = \frac{|\hat z|}{\beta}[t - t^2/2 + (1 + \frac72\hat z^2\beta)t^3/6]$, $s_- = |\hat z|^3t^3/12$,
    $t = \beta^2\tau$.

    Args:
        tau: Learning time >= 0, in flow units, any shape.
        gain: g, in [0, 1), any shape.
        target: ẑ, in units of the readout, any shape.

    Returns:
        (s₊, s₋), each of the common shape, in units of the weights. The plain polynomials, also beyond
        `learning_time`.

    Raises:
        ValueError: If an argument is out of range or the shapes do not broadcast.

    Assumes: gradient flow on W, large N, t small enough (no later than the learning time).
    Source: schuessler2020, supplement Eqs. 18, 56-66. Deviation from print: 56 has a square too many on its
        right side.

    Example:
        >>> s_plus, s_minus = singular_values(0.3, gain=0.0, target=1.0)
        >>> round(float(s_plus), 5), round(float(s_minus), 5)
        (0.27525, 0.00225)
    """
    tau_, b, z = _common(tau, gain, target)
    t = b**2 * tau_
    return np.abs(z) / b * _series(t, 1 + 3.5 * z**2 * b, 3), np.abs(z) ** 3 * t**3 / 12


def eigenvalue(tau: ArrayLike, gain: ArrayLike, target: ArrayLike) -> FloatArray:
    r"""The nonzero eigenvalue of the weight change, $\mathrm{Tr}\,\Delta W = \tau^2\hat z^2\beta^3$, to order $\tau^2$.

    At first order the weight change has no nonzero eigenvalue: $\mathrm{Tr}\,W_1 = \hat z\,m^TB^TB^Tw = 0$.

    Args:
        tau: Learning time >= 0, in flow units, any shape.
        gain: g, in [0, 1), any shape.
        target: ẑ, in units of the readout, any shape.

    Returns:
        Real, of the common shape, in units of the weights.

    Raises:
        ValueError: If an argument is out of range or the shapes do not broadcast.

    Assumes: gradient flow on W, large N, t small.
    Source: this library, from schuessler2020, supplement Eqs. 22, 23 and 79: the trace is 2ab (1/N)Tr BBBᵀ.
        Not printed there.

    Example:
        >>> round(float(eigenvalue(0.1, gain=0.6, target=2.0)), 6)
        0.152588
    """
    tau_, b, z = _common(tau, gain, target)
    return tau_**2 * z**2 * b**3


def learning_time(gain: ArrayLike, target: ArrayLike, order: int = 3, threshold: ArrayLike = 0.0) -> FloatArray:
    r"""Learning time $\tau^*$ at which the readout reaches the target, $z(\tau^*) = \hat z$.

    First order: $\tau^* = 1/\beta^2$. Second order: none, since $t - t^2/2 \le 1/2 < 1$. Third order: the one
    root of
    $t - t^2/2 + (1 + 8\hat z^2\beta)t^3/6 = 1$, with $\tau^* = t/\beta^2$; it lies below $t = 1.5961$.

    Args:
        gain: g, in [0, 1), any shape.
        target: ẑ, in units of the readout, any shape.
        order: 1 or 3 (2 only for a threshold >= 1/4).
        threshold: Share of the initial loss at which learning counts as done, in [0, 1):
            $z = (1 - \sqrt{\text{threshold}})\hat z$.

    Returns:
        τ* (not β²τ*), of the common shape, in flow units.

    Raises:
        ValueError: If an argument is out of range, the shapes do not broadcast, or the order has no learning
            time.

    Assumes: gradient flow on W, large N.
    Source: schuessler2020, supplement, after Eq. 19 and Eq. 48. Deviation from print: none; the authors' code
        uses a threshold of 0.001 for the theory and 0.05 for the simulation.

    Example:
        >>> round(float(learning_time(0.0, 1e-9)), 6)
        1.596072
        >>> round(float(learning_time(0.6, 1.0, order=1)), 6)
        0.4096
    """
    highest = as_order(order, 3)
    wanted = "a share of the initial loss in [0, 1), for example threshold=0.05"
    share = real_array("threshold", threshold, wanted=wanted)
    if ((share < 0) | (share >= 1)).any():
        raise ValueError(f"threshold is {share[(share < 0) | (share >= 1)].flat[0]}; it must be {wanted}.")
    g, z, share = together(gain=as_gain(gain), target=as_target(target), threshold=share)
    reach, b = 1 - np.sqrt(share), beta(g)  # z / ẑ at the end
    if highest == 1:
        t = reach
    elif highest == 3:
        t = _cubic_root(reach, 1 + 8 * z**2 * b)
    elif (reach > 0.5).any():
        raise ValueError(
            "order is 2, which has no learning time: t - t^2/2 never exceeds 1/2 of the target; "
            "use order=1 or order=3, or a threshold >= 0.25."
        )
    else:
        t = 1 - np.sqrt(1 - 2 * reach)
    return t / b**2


def weight_change_norm(gain: ArrayLike, target: ArrayLike) -> FloatArray:
    r"""Norm of the weight change at the first-order learning time, $\|\Delta W\| = |\hat z|/\beta$.

    Also the converged value of the exact flow for a small target.

    Args:
        gain: g, in [0, 1), any shape.
        target: ẑ, in units of the readout, any shape.

    Returns:
        Frobenius norm, of the common shape, in units of the weights.

    Raises:
        ValueError: If an argument is out of range or the shapes do not broadcast.

    Assumes: gradient flow on W, large N, small target.
    Source: schuessler2020, supplement, after Eq. 19. Deviation from print: none.

    Example:
        >>> round(float(weight_change_norm(0.6, 0.5)), 6)
        0.32
    """
    g, z = together(gain=as_gain(gain), target=as_target(target))
    return np.abs(z) / beta(g)


def shuffled_readout(tau: ArrayLike, gain: ArrayLike, target: ArrayLike, order: int = 3) -> FloatArray:
    r"""Readout after the entries of $W_0$ are shuffled and $\Delta W$ is kept.

    $z_s = \frac{\hat z}{\beta^2}[t - t^2/2 + (1 + 2\hat z^2(1 + 3/\beta))t^3/6]$, $t = \beta^2\tau$.

    Args:
        tau: Learning time >= 0 at which learning ended, in flow units, any shape.
        gain: g, in [0, 1), any shape.
        target: ẑ, in units of the readout, any shape.
        order: How many orders in tau to keep, 1, 2 or 3.

    Returns:
        z_s, of the common shape, in units of the readout.

    Raises:
        ValueError: If an argument is out of range or the shapes do not broadcast.

    Assumes: gradient flow on W, large N, t small enough (no later than the learning time).
    Source: schuessler2020, supplement Eqs. 67, 71-76. Deviation from print: none in the result (in 68, E[B]
        is I(1 + g²β/N + ..), not I(1 + 1/N)).

    Example:
        >>> bool(shuffled_readout(0.1, 0.0, 2.0) == readout(0.1, 0.0, 2.0))
        True
    """
    highest = as_order(order, 3)
    tau_, b, z = _common(tau, gain, target)
    return z / b**2 * _series(b**2 * tau_, 1 + 2 * z**2 * (1 + 3 / b), highest)


def shuffled_loss(gain: ArrayLike, target: ArrayLike) -> FloatArray:
    r"""Loss after shuffling $W_0$ at the first-order learning time, $L_s = L_0\,g^4(2 - g^2)^2$, $L_0 = \hat z^2/2$.

    Args:
        gain: g, in [0, 1), any shape.
        target: ẑ, in units of the readout, any shape.

    Returns:
        L_s, of the common shape, in the unit of the loss.

    Raises:
        ValueError: If an argument is out of range or the shapes do not broadcast.

    Assumes: gradient flow on W, large N, small target.
    Source: schuessler2020, supplement Eq. 69. Deviation from print: none.

    Example:
        >>> round(float(shuffled_loss(0.6, 1.0)), 6)
        0.174286
    """
    g, z = together(gain=as_gain(gain), target=as_target(target))
    return z**2 / 2 * g**4 * (2 - g**2) ** 2


def _common(tau: ArrayLike, gain: ArrayLike, target: ArrayLike) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Check and broadcast tau, gain and target; return tau, beta and target."""
    tau_, g, z = together(tau=as_tau(tau), gain=as_gain(gain), target=as_target(target))
    return tau_, beta(g), z


def _series(t: FloatArray, cubic: FloatArray, order: int) -> FloatArray:
    """Sum t - t²/2 + cubic t³/6 up to the order wanted."""
    terms = (t, -(t**2) / 2, cubic * t**3 / 6)
    return sum(terms[1:order], start=terms[0])


def _cubic_root(reach: FloatArray, cubic: FloatArray) -> FloatArray:
    """The one real root of cubic t³/6 - t²/2 + t = reach, for cubic >= 1 (the left side then grows everywhere)."""
    p = (6 * cubic - 3) / cubic**2  # t = s + 1/cubic makes it s³ + p s + q = 0, with p > 0
    q = 6 / cubic**2 - 2 / cubic**3 - 6 * reach / cubic
    scale = np.sqrt(p / 3)
    t = 1 / cubic - 2 * scale * np.sinh(np.arcsinh(1.5 * q / (p * scale)) / 3)
    for _ in range(2):  # Newton's steps remove the cancellation between the two terms
        t = t - (_series(t, cubic, 3) - reach) / (1 - t + cubic * t**2 / 2)
    return t
