r"""Why learning changes weights in few directions: the gradient as a product of adjoint states and rates.

The gradient $\nabla_WL = \int_0^T a(t)\,\varphi(x(t))^T dt$ (`tauflow.theory.adjoint`), read as an operator, is
$A\Phi^*$: what is small in the adjoint states or in the rates is small in the gradient,

$$ \sigma_{i+j-1}(\nabla_WL) \le \sigma_i(A)\,\sigma_j(\Phi) \qquad (\text{Theorem 1 has } i = 1 \text{ or } j = 1), $$

and sums of gradients, over a batch or with momentum, are bounded by Weyl's inequality. In a linear network the
directions are confined for good (`tauflow.theory.learning_subspace`).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from tauflow.analysis.arguments import FloatArray, real_array, whole_number
from tauflow.theory._arguments import factor_pair, one_positive, with_axes
from tauflow.theory.adjoint import adjoint_states, decoder_gradient, discrete_gradient
from tauflow.theory.learning_subspace import invariant_subspace, rank_bound, share_outside

__all__ = [
    "GradientExpansion",
    "adjoint_states",
    "decoder_gradient",
    "discrete_gradient",
    "gradient_expansion",
    "invariant_subspace",
    "momentum_weights",
    "operator_singular_values",
    "rank_bound",
    "share_outside",
    "singular_value_bounds",
    "sum_bounds",
]


class GradientExpansion(NamedTuple):
    """A gradient in the singular vectors of its two factors: left diag(s) overlap diag(r) rightᵀ.

    Attributes:
        left: Directions of the adjoint states in space, shape (..., n, k).
        adjoint_values: Singular values of the adjoint states, shape (..., k).
        overlap: Inner products over time of the two sets of right singular vectors, in [-1, 1], shape (..., k, l).
        driving_values: Singular values of what drove the steps, shape (..., l).
        right: Its directions in space, shape (..., p, l).
    """

    left: FloatArray
    adjoint_values: FloatArray
    overlap: FloatArray
    driving_values: FloatArray
    right: FloatArray


def operator_singular_values(path: ArrayLike, dt: ArrayLike) -> FloatArray:
    r"""Singular values of a path $z(t)$ as an operator $f \mapsto \int z(t)f(t)dt$: those of $\sqrt{dt}\,z$.

    Args:
        path: Values at equal steps, shape (..., time, n).
        dt: Step, > 0, a number.

    Returns:
        Shape (..., min(time, n)), falling.

    Raises:
        ValueError: If an argument is not finite or out of range.

    Assumes: equal steps.
    Source: pellegrino2023, supplement D.2.13. Deviation from print: the product of two paths needs one factor dt, so
        each has its root; without it the limit diverges.

    Example:
        >>> operator_singular_values([[3.0], [4.0]], 0.25)
        array([2.5])
    """
    (values,), _ = with_axes({"path": ("time", "n")}, path=path)
    return np.asarray(np.sqrt(one_positive("dt", dt)) * np.linalg.svd(values, compute_uv=False))


def singular_value_bounds(adjoint: ArrayLike, driving: ArrayLike, dt: ArrayLike, *, sharp: bool = True) -> FloatArray:
    r"""Upper bounds on the singular values of a gradient, from those of its two factors.

    Args:
        adjoint: Adjoint states after each step, shape (..., time, n).
        driving: What entered each step, shape (..., time, p): rates for W, inputs for B.
        dt: Step, > 0, a number.
        sharp: The smallest of $\sigma_i(A)\sigma_j(\Phi)$ over $i + j - 1 = k$; if False, only i = 1 and j = 1, as in
            Theorem 1.

    Returns:
        Shape (..., min(n, p)), one bound for each singular value, falling.

    Raises:
        ValueError: If an argument is not finite, out of range, or the shapes do not fit.

    Assumes: nothing.
    Source: pellegrino2023, Theorem 1 (supplement D.2.11) and D.3.6 for B; the form with i + j - 1 is this library's
        addition. Deviation from print: the subspaces of (D.2.2) have dimension n - i + 1, not n - i - 1. The lower
        bound is left out: it holds only where the adjoint is injective on the range of the rates.

    Example:
        >>> singular_value_bounds([[2.0, 0.0], [0.0, 1.0]], [[3.0, 0.0], [0.0, 1.0]], 1.0, sharp=False)
        array([6., 2.])
    """
    a, d = factor_pair(adjoint, driving)
    size = min(a.shape[-1], d.shape[-1])
    s, r = (_padded(operator_singular_values(path, dt), size) for path in (a, d))  # (..., size)
    bounds = np.minimum(s[..., :1] * r, r[..., :1] * s)
    if sharp:
        for i in range(1, size):
            bounds[..., i:] = np.minimum(bounds[..., i:], s[..., i : i + 1] * r[..., : size - i])
    return bounds


def gradient_expansion(adjoint: ArrayLike, driving: ArrayLike, dt: ArrayLike) -> GradientExpansion:
    r"""Take a gradient apart: which directions it has, and how far the two factors vary together in time.

    Args:
        adjoint: Adjoint states after each step, shape (..., time, n).
        driving: What entered each step, shape (..., time, p).
        dt: Step, > 0, a number.

    Returns:
        `GradientExpansion`; `left @ diag(adjoint_values) @ overlap @ diag(driving_values) @ right.T` is the gradient.

    Raises:
        ValueError: If an argument is not finite, out of range, or the shapes do not fit.

    Assumes: equal steps.
    Source: pellegrino2023, supplement D.2.12. Deviation from print: none in the equation; in the sentence before it U
        is temporal and V spatial.

    Example:
        >>> made = gradient_expansion([[2.0], [0.0]], [[3.0], [4.0]], 1.0)
        >>> round(float(abs(made.overlap[0, 0])), 6)
        0.6
    """
    a, d = factor_pair(adjoint, driving)
    root = np.sqrt(one_positive("dt", dt))
    (ua, s, va), (ud, r, vd) = (np.linalg.svd(root * path, full_matrices=False) for path in (a, d))
    overlap = np.swapaxes(ua, -1, -2) @ ud  # (..., k, l)
    return GradientExpansion(np.swapaxes(va, -1, -2), s, overlap, r, np.swapaxes(vd, -1, -2))


def sum_bounds(values: ArrayLike, weights: ArrayLike | None = None) -> FloatArray:
    r"""Upper bounds on the singular values of a weighted sum of gradients: a batch, or momentum.

    $\sigma_{\sum_q i_q - Q + 1}(\sum_q w_qG_q) \le \sum_q|w_q|\sigma_{i_q}(G_q)$, and the smallest over all choices of
    the $i_q$ for each index.

    Args:
        values: Singular values of each gradient, falling, or bounds on them, shape (..., Q, k).
        weights: Weight of each, shape (Q,); 1/Q by default, the mean of a batch. See `momentum_weights`.

    Returns:
        Shape (..., k).

    Raises:
        ValueError: If an argument is not finite, `values` is negative or rises, or the shapes do not fit.

    Assumes: nothing.
    Source: pellegrino2023, supplement D.3 (batched updates, momentum). Deviation from print: with momentum there are k
        + 1 terms, so the index is sum_j i_j - k; the print has sum i - k + 1, and weights that do not fit.

    Example:
        >>> sum_bounds([[2.0, 0.0, 0.0], [4.0, 0.0, 0.0]])
        array([3., 1., 0.])
    """
    wanted = "singular values >= 0, falling, shape (..., Q, k) for Q gradients"
    s = real_array("values", values, wanted=wanted, minimum_ndim=2)
    if 0 in s.shape[-2:] or (s < 0).any() or (np.diff(s, axis=-1) > 0).any():
        raise ValueError(f"values, of shape {s.shape}, are empty, negative or not falling; they must be {wanted}.")
    shape = "one number for each gradient, shape (Q,)"
    w = np.full(s.shape[-2], 1 / s.shape[-2]) if weights is None else real_array("weights", weights, wanted=shape)
    if w.shape != (s.shape[-2],):
        raise ValueError(f"weights has shape {w.shape} and values {s.shape}; weights must be {shape}.")
    terms = np.abs(w)[:, None] * s  # (..., Q, k)
    bound, k = terms[..., 0, :], s.shape[-1]
    for q in range(1, s.shape[-2]):
        pairs = bound[..., :, None] + terms[..., q, None, :]  # (..., i, j)
        merged = [pairs[..., np.arange(m + 1), m - np.arange(m + 1)].min(axis=-1) for m in range(k)]
        bound = np.stack(merged, axis=-1)
    return bound


def momentum_weights(beta: float, updates: int, *, learning_rate: float = 1.0) -> FloatArray:
    r"""Weights of past gradients in an update with momentum, $\alpha(1-\beta)\beta^{k-j}$ for j = 0 ... k.

    Args:
        beta: Decay of momentum, in [0, 1).
        updates: How many gradients have come, k + 1 >= 1, the last included.
        learning_rate: $\alpha$, > 0.

    Returns:
        Shape (updates,); $\Delta W^{(k)}$ is minus the sum of gradients with these weights.

    Raises:
        ValueError: If an argument is out of range.

    Assumes: momentum that starts from 0: $M_{k+1} = \beta M_k + (1-\beta)G_k$, $W_{k+1} = W_k - \alpha M_{k+1}$.
    Source: pellegrino2023, supplement D.3 (momentum). Deviation from print: the print has the weights $(1-\beta)^j$.

    Example:
        >>> momentum_weights(0.5, 3)
        array([0.125, 0.25 , 0.5  ])
    """
    count = whole_number("updates", updates, 1)
    decay = real_array("beta", beta, wanted="a number in [0, 1), for example beta=0.9")
    if decay.ndim or not 0 <= decay < 1:
        raise ValueError(f"beta is {beta!r}; it must be a number in [0, 1), for example beta=0.9.")
    rate = one_positive("learning_rate", learning_rate)
    return rate * (1 - float(decay)) * float(decay) ** np.arange(count - 1, -1, -1, dtype=np.float64)


def _padded(values: FloatArray, size: int) -> FloatArray:
    """The first `size` values, with zeros for those that are not there."""
    kept = values[..., :size]
    return np.concatenate([kept, np.zeros((*kept.shape[:-1], size - kept.shape[-1]))], axis=-1)
