r"""The fixed-point task from zero weights: gradient flow of an N×N matrix that is one of a 2×2 matrix.

With $W_0 = 0$ and orthonormal $w$, $m$ all weight changes stay in the span of the two,
$W = [w\; m]\,A\,[w\; m]^T$, and

$$ \frac{dA}{d\tau} = (\hat z - z)\,(I + C^T)\begin{pmatrix}1\\0\end{pmatrix}\begin{pmatrix}0 & 1\end{pmatrix}(I + C^T),
   \qquad C = A(I-A)^{-1}, \qquad z = C_{12} \qquad (53\text{-}55). $$

Since $I + C = (I - A)^{-1} =: M$, the right side is $(\hat z - z)$ times the outer product of the first row
and the second column of $M$. Three degrees of freedom remain ($A_{11} = A_{22}$), and no closed form is
known, so it is integrated.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.integrate import solve_ivp

from tauflow.analysis.arguments import FloatArray
from tauflow.theory._arguments import as_target, as_tau, together

DONE = 1e-13  # the distance from the target, relative to it, at which the flow counts as converged


class ZeroGainFlow(NamedTuple):
    """The exact flow at zero gain.

    Attributes:
        A: Weight change in the basis (w, m), shape (..., 2, 2), in units of the weights.
        readout: z, shape (...), in units of the readout.
    """

    A: FloatArray
    readout: FloatArray


def zero_gain_coefficients(tau: ArrayLike, target: ArrayLike) -> FloatArray:
    r"""Series of the weight change at zero gain, $\Delta W = [w\; m]\,A\,[w\; m]^T$, to order $\tau^3$.

    $A_{11} = A_{22} = \frac{\hat z^2}{2}(\tau^2 - \tau^3)$,
    $A_{12} = \hat z(\tau - \frac{\tau^2}2 + \frac{\tau^3}6(1 + 2\hat z^2))$,
    $A_{21} = \hat z^3\tau^3/3$.

    Args:
        tau: Learning time >= 0, in flow units, any shape.
        target: ẑ, in units of the readout, any shape.

    Returns:
        A, shape (..., 2, 2), in units of the weights.

    Raises:
        ValueError: If an argument is out of range or the shapes do not broadcast.

    Assumes: W0 = 0; w and m orthonormal; gradient flow on W; small tau.
    Source: schuessler2020, supplement Eqs. 49-52. Deviation from print: in the first line of 49 the cubic
        coefficient of wmᵀ is τ³/6 ẑ(1 + 2ẑ²), as 51 has it, not τ³/2 ẑ.

    Example:
        >>> np.round(zero_gain_coefficients(0.1, 2.0), 6).tolist()
        [[0.018, 0.193], [0.002667, 0.018]]
    """
    tau_, z = together(tau=as_tau(tau), target=as_target(target))
    diagonal = z**2 / 2 * (tau_**2 - tau_**3)
    upper = z * (tau_ - tau_**2 / 2 + tau_**3 / 6 * (1 + 2 * z**2))
    lower = z**3 * tau_**3 / 3
    return np.stack([np.stack([diagonal, upper], -1), np.stack([lower, diagonal], -1)], -2)  # (..., 2, 2)


def zero_gain_flow(tau: ArrayLike, target: ArrayLike) -> ZeroGainFlow:
    r"""Exact gradient flow at zero gain, integrated in its two dimensions (relative error about 1e-11).

    Args:
        tau: Learning time >= 0, in flow units, any shape and order.
        target: ẑ, in units of the readout, any shape.

    Returns:
        `ZeroGainFlow(A, readout)` at these times. Not a series: it holds at all times and converges to the
        target.

    Raises:
        ValueError: If an argument is out of range or the shapes do not broadcast.

    Assumes: W0 = 0; w and m orthonormal; gradient flow on W.
    Source: schuessler2020, supplement Eqs. 53-55. Deviation from print: none.

    Example:
        >>> flow = zero_gain_flow([0.0, 1.0, 100.0], target=1e-4)
        >>> np.round(flow.readout / 1e-4, 6)
        array([0.      , 0.632121, 1.      ])
    """
    tau_, z = together(tau=as_tau(tau), target=as_target(target))
    A = np.zeros((*tau_.shape, 2, 2))
    for value in np.unique(z):
        here = z == value
        times, back = np.unique(tau_[here], return_inverse=True)
        A[here] = _integrate(times, float(value))[back]
    return ZeroGainFlow(A, _inverse(A.reshape(*A.shape[:-2], 4))[..., 0, 1])


def _integrate(times: FloatArray, target: float) -> FloatArray:
    """A at ascending times, shape (len(times), 2, 2); held once the readout has converged."""
    if target == 0 or times[-1] == 0:
        return np.zeros((len(times), 2, 2))

    def slope(_: float, flat: FloatArray) -> FloatArray:
        M = _inverse(flat)
        return ((target - M[0, 1]) * np.outer(M[0], M[:, 1])).ravel()

    def distance(_: float, flat: FloatArray) -> float:
        return abs(target - _inverse(flat)[0, 1]) - DONE * abs(target)

    distance.terminal = True  # type: ignore[attr-defined]
    atol = 1e-15 * min(1.0, abs(target))
    path = solve_ivp(slope, (0, times[-1]), np.zeros(4), "DOP853", t_eval=times, events=distance, rtol=3e-14, atol=atol)
    if path.status < 0:
        raise RuntimeError(f"The flow for target {target} could not be integrated: {path.message}")
    A = np.asarray(path.y).reshape(4, -1).T.reshape(-1, 2, 2)  # (time, 2, 2)
    if len(A) < len(times):
        end = path.y_events[0][-1].reshape(1, 2, 2)
        A = np.concatenate([A, np.repeat(end, len(times) - len(A), axis=0)])
    return A


def _inverse(flat: FloatArray) -> FloatArray:
    a, b, c, d = np.moveaxis(flat, -1, 0)  # M = (I - A)^-1
    adjugate = np.stack([np.stack([1 - d, b], -1), np.stack([c, 1 - a], -1)], -2)  # (..., 2, 2)
    return adjugate / ((1 - a) * (1 - d) - b * c)[..., None, None]
