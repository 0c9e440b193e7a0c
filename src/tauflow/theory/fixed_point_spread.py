r"""How far single networks lie from the theory of the fixed-point task: standard deviations of order $N^{-1/2}$.

The series of `tauflow.theory.fixed_point` follows from six scalar products at $\tau = 0$, here with their
large-N mean and variance over networks (all from $\mathrm{Var}(w^TMm) = \mathrm{Tr}(MM^T)/N^2$ and
$\mathrm{Var}(w^TMw) = 2\,\mathrm{Var}(\text{eigenvalues})/N$ for vectors of norm 1;
$\mu_k = \frac1N\mathrm{Tr}(BB^T)^k$, `power_trace`):

| product | mean | variance times N |
| --- | --- | --- |
| $z_0 = w^TBm$ | 0 | $\beta$ |
| $R = m^TB^TBB^Tw$ | 0 | $\mu_3$ |
| $\ln P$ ($P = w^TBB^Tw$), $\ln Q$ | $\ln\beta$ | $2(\beta^2 - 1)$ |
| $\ln S$ ($S = w^T(BB^T)^2w$), $\ln T$ | $4\ln\beta$ | $2(\mu_4/\beta^8 - 1)$ |

The covariance of $z_0$ and $R$ is $\beta^4/N$, that of $\ln P$ and $\ln S$ is $2(\mu_3/\beta^5 - 1)/N$.
With $\rho = PQ$ and $e_0 = \hat z - z_0$ the equations of that module give, for any values of these,

$$ z = z_0 + e_0\rho\tau + \tfrac{\tau^2}{2}(-e_0\rho^2 + 4e_0^2\rho R)
     + \tfrac{\tau^3}{6}\left(e_0\rho^3 - 16e_0^2\rho^2R + 20e_0^3\rho R^2 + 4e_0^3\rho(QS + PT)\right), $$

$s_+ = \tau e_0\sqrt\rho(1 - \frac{\rho\tau}2 + e_0R\tau + \dots)$ and
$s_- = \frac{\tau^3}{12}e_0^3\rho\sqrt{ST}$. The functions below propagate the variances through the first
derivatives of these at the mean. They are meant as bands: third-order derivatives by $z_0$ and $R$ and negative
covariances, which would let the truncated polynomials cancel where no spread vanishes, are left out, so that late in
learning the band is too wide rather than too narrow.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from tauflow.analysis.arguments import FloatArray, real_array
from tauflow.theory._arguments import as_gain, as_target, as_tau, together
from tauflow.theory.resolvent_traces import beta, power_trace

NEURONS = "a number of neurons >= 1, for example neurons=256"


def readout_spread(tau: ArrayLike, gain: ArrayLike, target: ArrayLike, neurons: ArrayLike) -> FloatArray:
    r"""Standard deviation over networks of the readout during learning, of order $N^{-1/2}$.

    Args:
        tau: Learning time >= 0, in flow units, any shape.
        gain: g, in [0, 1), any shape.
        target: ẑ, in units of the readout, any shape.
        neurons: N >= 1, any shape.

    Returns:
        Of the common shape, in units of the readout; $\sqrt{\beta/N}$ at tau = 0. Holds to second order
        in tau.

    Raises:
        ValueError: If an argument is out of range or the shapes do not broadcast.

    Assumes: gradient flow on W; w and m of norm 1, independent of each other and of Gaussian W0; N large.
    Source: this library; at tau = 0 schuessler2020, supplement, after Eq. 14.

    Example:
        >>> round(float(readout_spread(0.0, gain=0.6, target=1.0, neurons=256)), 6)
        0.078125
    """
    tau_, g, z, n = _common(tau, gain, target, neurons)
    b = beta(g)
    t, cubed = b**2 * tau_, 2 / 3 * z**3 * b * (b**2 * tau_) ** 3
    to_z0 = 1 - t + t**2 / 2
    to_R = 2 * z**2 * t**2 / b**2
    to_rate = z * (t - t**2 + t**3 / 2) + 3 * cubed
    return np.sqrt(_variance(g, to_z0, to_R, to_rate, cubed) / n)


def singular_value_spread(
    tau: ArrayLike, gain: ArrayLike, target: ArrayLike, neurons: ArrayLike
) -> tuple[FloatArray, FloatArray]:
    r"""Standard deviations over networks of the two singular values of the weight change, of order $N^{-1/2}$.

    Args:
        tau: Learning time >= 0, in flow units, any shape.
        gain: g, in [0, 1), any shape.
        target: ẑ, in units of the readout, any shape.
        neurons: N >= 1, any shape.

    Returns:
        For (s₊, s₋), each of the common shape, in units of the weights. Both hold to their leading
        order, tau and tau^3.

    Raises:
        ValueError: If an argument is out of range or the shapes do not broadcast.

    Assumes: gradient flow on W; w and m of norm 1, independent of each other and of Gaussian W0; N large.
    Source: this library.

    Example:
        >>> s_plus, s_minus = singular_value_spread(0.1, gain=0.0, target=1.0, neurons=100)
        >>> round(float(s_plus), 4), round(float(s_minus), 6)
        (0.0096, 2.5e-05)
    """
    tau_, g, z, n = _common(tau, gain, target, neurons)
    b = beta(g)
    t = b**2 * tau_
    small = (t - t**2 / 2 + t**3 / 6) / b  # d s₊ / d ẑ for a small target
    to_rate = z / b * (t / 2 - 3 * t**2 / 4 + 5 * t**3 / 12)
    plus = _variance(g, -small, z**2 * t**2 / b**3, to_rate, np.zeros_like(t))
    minus = _variance(g, -(z**2) * t**3 / 4, np.zeros_like(t), z**3 * t**3 / 12, z**3 * t**3 / 24)
    return np.sqrt(plus / n), np.sqrt(minus / n)


def _variance(
    gain: FloatArray, to_z0: FloatArray, to_R: FloatArray, to_rate: FloatArray, to_fourth: FloatArray
) -> FloatArray:
    """N times the variance of a quantity with these derivatives by z0, R, ln P (= ln Q) and ln S (= ln T)."""
    b, third, fourth = beta(gain), power_trace(gain, 3), power_trace(gain, 4)
    overlaps = to_z0**2 * b + to_R**2 * third + 2 * np.maximum(to_z0 * to_R, 0) * b**4
    rate = to_rate**2 * (b**2 - 1)
    both = 2 * to_rate * to_fourth * (third / b**5 - 1)
    return overlaps + 4 * (rate + both + to_fourth**2 * (fourth / b**8 - 1))  # twice 2: for w and for m


def _common(tau: ArrayLike, gain: ArrayLike, target: ArrayLike, neurons: ArrayLike) -> list[FloatArray]:
    n = real_array("neurons", neurons, wanted=NEURONS)
    if (n < 1).any():
        raise ValueError(f"neurons is {n[n < 1].flat[0]}; it must be {NEURONS}.")
    return together(tau=as_tau(tau), gain=as_gain(gain), target=as_target(target), neurons=n)
