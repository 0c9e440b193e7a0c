"""Weight change of a given large network on the fixed-point task (see `tauflow.theory.fixed_point`)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from tauflow.analysis.arguments import FloatArray, matrix, real_array
from tauflow.theory._arguments import as_order, as_target, as_tau, together


def weight_change(
    tau: ArrayLike, W0: ArrayLike, w: ArrayLike, m: ArrayLike, target: ArrayLike, order: int = 3
) -> FloatArray:
    r"""Weight change $\Delta W = \sum_k W_k \tau^k/k!$ of a given large network.

    With $p = B^Tw$, $q = Bm$, $B = (I-W_0)^{-1}$, $P = p^Tp$, $Q = q^Tq$:
    $W_1 = \hat z\,pq^T$,
    $W_2 = -\hat zPQ\,pq^T + \hat z^2(P\,B^Tq\,q^T + Q\,p\,(Bp)^T)$,
    $W_3 = \hat zP^2Q^2\,pq^T - 3\hat z^2PQ(P\,B^Tq\,q^T + Q\,p(Bp)^T)
    + \hat z^3PQ(B^TBp\,q^T + p\,(BB^Tq)^T + 2B^Tq\,(Bp)^T)$.

    The print sets $P = Q = \beta$, their common large-N value. Here both are measured on the network given,
    which removes part of the $N^{-1/2}$ error; the overlaps $w^TBm$ and $m^TB^TBB^Tw$ are neglected, as in
    the print.

    Args:
        tau: Learning time >= 0, in flow units, shape (...).
        W0: Initial weights, shape (..., n, n), with the spectral abscissa below 1.
        w: Readout vector of norm about 1, shape (..., n): `sqrt(n) * W_out[0]`.
        m: Input vector of norm about 1, shape (..., n): `W_in[:, 0] / sqrt(n)`.
        target: ẑ, in units of the readout, shape (...).
        order: How many orders in tau to keep, 1, 2 or 3.

    Returns:
        ΔW, shape (..., n, n), in units of the weights. The plain polynomial, also beyond `learning_time`.

    Raises:
        ValueError: If an argument is out of range, the shapes do not fit, or I - W0 is singular.

    Assumes: gradient flow on W; w, m and W0 independent; large N; small tau.
    Source: schuessler2020, supplement Eqs. 8, 20-22, 27-32. Deviation from print: wᵀB in the right factors of
        21, 22 and 28 (third line), where the print has wᵀBᵀ; W₃ in the cubic term of 28 (first line), where it
        has W₂ a second time.

    Example:
        >>> w, m = np.eye(4)[0], np.eye(4)[1]
        >>> dW = weight_change(0.1, np.zeros((4, 4)), w, m, target=2.0)
        >>> np.round(dW[:2, :2], 6).tolist()
        [[0.018, 0.193], [0.002667, 0.018]]
    """
    highest = as_order(order, 3)
    start, left, right = _network(W0, w, m)
    tau_, z = together(tau=as_tau(tau), target=as_target(target))
    tau_, z = tau_[..., None, None], z[..., None, None]  # (..., 1, 1)
    inverse = _resolvent(start)
    back = np.swapaxes(inverse, -1, -2)  # (..., n, n): Bᵀ
    p, q = back @ left, inverse @ right  # (..., n, 1)
    Bp, Bq = inverse @ p, back @ q  # (..., n, 1): BBᵀw and BᵀBm
    P, Q = _inner(p, p), _inner(q, q)  # (..., 1, 1)
    pq, mixed = _outer(p, q), P * _outer(Bq, q) + Q * _outer(p, Bp)
    try:
        change = tau_ * z * pq  # (..., n, n)
        if highest >= 2:
            change = change + tau_**2 / 2 * (-z * P * Q * pq + z**2 * mixed)
        if highest == 3:
            new = _outer(back @ Bp, q) + _outer(p, inverse @ Bq) + 2 * _outer(Bq, Bp)
            cubic = z * (P * Q) ** 2 * pq - 3 * z**2 * P * Q * mixed + z**3 * P * Q * new
            change = change + tau_**3 / 6 * cubic
    except ValueError:
        raise ValueError(
            f"tau and target have the common shape {tau_.shape[:-2]} and the networks {pq.shape[:-2]}; "
            "they must broadcast against each other."
        ) from None
    return change


def _network(W0: ArrayLike, w: ArrayLike, m: ArrayLike) -> tuple[Any, FloatArray, FloatArray]:
    start = matrix("W0", W0, square=True)
    if start.dtype.kind == "c":
        raise ValueError("W0 is complex; it must be real square matrices, shape (..., n, n).")
    columns = []
    for name, value in (("w", w), ("m", m)):
        vector = real_array(name, value, wanted="real vectors, shape (..., n)", minimum_ndim=1)
        if vector.shape[-1] != start.shape[-1]:
            raise ValueError(
                f"{name} has shape {vector.shape} and W0 {start.shape}; the last axis of {name} must be the number "
                f"of units, {start.shape[-1]}."
            )
        columns.append(vector[..., None])  # (..., n, 1)
    try:
        np.broadcast_shapes(start.shape[:-2], *(column.shape[:-2] for column in columns))
    except ValueError:
        raise ValueError(
            f"W0 {start.shape}, w {np.shape(w)} and m {np.shape(m)} have leading axes that do not fit; "
            "they must broadcast against each other."
        ) from None
    return start, columns[0], columns[1]


def _resolvent(W0: FloatArray) -> FloatArray:
    try:
        return np.asarray(np.linalg.inv(np.eye(W0.shape[-1]) - W0), dtype=np.float64)  # (..., n, n)
    except np.linalg.LinAlgError:
        raise ValueError(
            "W0 has an eigenvalue 1, where I - W0 is singular; its eigenvalues must lie below 1."
        ) from None


def _inner(a: FloatArray, b: FloatArray) -> FloatArray:
    return np.swapaxes(a, -1, -2) @ b  # (..., 1, 1)


def _outer(a: FloatArray, b: FloatArray) -> FloatArray:
    return a @ np.swapaxes(b, -1, -2)  # (..., n, n)
