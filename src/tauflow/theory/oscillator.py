r"""How a linear network with a planted pair of eigenvalues learns a damped oscillation, in eight numbers.

The target filter is $e^{-c_*t}\cos\omega_*t$. The network starts with a pair of outliers outside the bulk,

$$ \tfrac1{\sqrt N}W = \tfrac{\sigma}{\sqrt N}G + (1 + \lambda_+)\,zz^\dagger + (1 + \lambda_-)\,z^*z^T,
   \qquad \lambda_\pm = -c \pm i\omega \qquad (F2), $$

and with $u$ and $v$ in the plane of $\mathrm{Re}\,z$ and $\mathrm{Im}\,z$. Let the rows of $\Pi$ be an orthonormal
basis of that plane. With $u/\sqrt N = \Pi^T(u_1, u_2)$, $v/\sqrt N = \Pi^T(v_1, v_2)$ and $W/\sqrt N = \Pi^TM\Pi$ plus
the bulk (F8-F12), the filter is that of a network of two neurons. Its gradient lies in the plane as well: mean-field
learning is the flow of the eight numbers $u_1, u_2, v_1, v_2, M$ (F17), which `effective_flow` integrates for any
target that a linear system realises. There is no smaller closed model with $u = v$, six numbers (5): unless M is
symmetric, $u' \neq v'$ at once, because $u$ is driven by $e^{(M-1)^Tt}v$ and $v$ by $e^{(M-1)t}u$.

The bulk makes errors of order $\sigma^2$: of 0.02 in the pair at $\sigma = 0.2$, $N = 200$, and of 0.0015 at 0.05.
`project` onto the words of the plane, of u and of v takes them away order by order.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from tauflow.analysis.arguments import FloatArray, matrix, real_array
from tauflow.theory import _leading
from tauflow.theory.effective_network import (
    EffectiveFlow,
    EffectiveNetwork,
    effective_flow,
    effective_gradient,
    effective_loss,
    project,
)

__all__ = [
    "EffectiveFlow",
    "EffectiveNetwork",
    "effective_flow",
    "effective_gradient",
    "effective_loss",
    "planted_plane",
    "project",
]


def planted_plane(W: ArrayLike) -> FloatArray:
    r"""Plane of the outlier pair of a matrix, midway between those of its right and its left eigenvectors.

    A bulk of radius $\sigma$ turns the first by $\sigma G$ and the second by $\sigma G^T$, in different directions, so
    that their mean is nearer to the planted plane than either.

    Args:
        W: Square matrix, shape (..., n, n), n >= 2, whose eigenvalue of largest modulus is complex.

    Returns:
        Orthonormal basis, in rows, shape (..., 2, n); rows may be turned within the plane.

    Raises:
        ValueError: If `W` is not real, finite and square, or its eigenvalue of largest modulus is real.

    Assumes: one conjugate pair outside the bulk.
    Source: bordelon2025, after Eq. F7. Deviation from print: none; the choice of the plane is this library's.

    Example:
        >>> plane = planted_plane([[0.5, -0.8, 0.0], [0.8, 0.5, 0.0], [0.0, 0.0, 0.1]])
        >>> (plane.T @ plane).round(6).tolist()
        [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]
    """
    weights = matrix("W", real_array("W", W, wanted="square matrices of finite real numbers"), square=True)
    if weights.shape[-1] < 2:
        raise ValueError(f"W has shape {weights.shape}; it must have two rows or more, so that there is a pair.")
    flat = [_midway(each) for each in weights.reshape(-1, *weights.shape[-2:])]
    return np.stack(flat).reshape(*weights.shape[:-2], 2, weights.shape[-1])


def _midway(W: FloatArray) -> FloatArray:
    """The plane midway between those of right and left eigenvectors, shape (2, n)."""
    vectors = [_leading.leading_pair(each)[1] for each in (W, W.T)]
    planes = [np.linalg.qr(np.stack([z.real, z.imag], -1))[0] for z in vectors]
    return np.asarray(np.linalg.svd(np.concatenate(planes, -1), full_matrices=False)[0][:, :2].T)
