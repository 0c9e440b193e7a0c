r"""Of what rank learning can be in a linear network: the subspace that its weights never leave.

Let $\dot x = Wx - x + Bu$ with W of rank R, m inputs and d outputs. Adjoint states lie in the rows of W and of the
decoder D, states in the columns of W and of B and, if it is not among them, in x(0). A first-order update is a sum of
products of the two, so that

$$ V = \mathrm{span}\{\text{columns of } W_0, \text{rows of } W_0, \text{columns of } B, \text{rows of } D, x(0)\} $$

is never left: $W_k - W_0 \in V \otimes V$ for every k, whichever of W, B and D learn, with any batch and with momentum.
An elementwise rescaling of the gradient, as in Adam, does leave it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from tauflow.analysis.arguments import FloatArray, matrix, real_array, whole_number
from tauflow.theory._arguments import with_axes
from tauflow.theory.adjoint import LOSSES

OPTIMIZERS = ("sgd", "momentum")
UPDATES = ("one", "all", "tensor")


def rank_bound(
    rank: int,
    inputs: int,
    outputs: int,
    *,
    updates: str = "all",
    loss: str = "terminal",
    trials: int = 1,
    free_starts: int = 0,
    optimizer: str = "sgd",
) -> int:
    r"""Largest rank that learning can give to the weights of a linear network.

    Args:
        rank: Rank R of the weights before the update ("one") or before learning, >= 0.
        inputs: Number m of input channels, >= 0.
        outputs: Number d of output channels, >= 1.
        updates: "one" for the rank of one update, "all" for that of W and of its change after any number, "tensor" for
            the tensor rank of the path of weights (neuron, neuron, update).
        loss: "terminal" or "integrated".
        trials: How many trials make up an update, >= 1.
        free_starts: How many directions the initial states add to the span of the columns of W and B (for "all" and
            "tensor": to V), >= 0; 0 if the network starts at rest, 1 for one initial state that lies anywhere.
        optimizer: "sgd" or "momentum", the latter started from 0. One step with momentum is a sum of gradients of all
            updates before it, so that the bound of "all" is that of "one".

    Returns:
        The bound: for one update the smaller of the dimensions in which adjoint states and states move; for all of them
        the dimension of V; its square for the tensor.

    Raises:
        ValueError: If a number is out of range, a word unknown, or the optimizer has no bound: Adam, RMSprop and others
            divide the gradient elementwise, which takes it out of every such subspace.

    Assumes: phi = identity; first-order updates without noise.
    Source: pellegrino2023, Theorem 2 and supplement D.3. Deviation from print: the bounds 2R + m + d and R + min(d, m)
        need initial states in the span; otherwise `free_starts` is added to m. Higher moments have no bound.

    Example:
        >>> [rank_bound(3, 2, 2, updates=updates) for updates in ("one", "all", "tensor")]
        [4, 10, 100]
        >>> rank_bound(3, 1, 3, updates="one", loss="integrated"), rank_bound(3, 2, 2, free_starts=1)
        (4, 11)
    """
    R, m, d = whole_number("rank", rank, 0), whole_number("inputs", inputs, 0), whole_number("outputs", outputs, 1)
    starts, many = whole_number("free_starts", free_starts, 0), whole_number("trials", trials, 1)
    if updates not in UPDATES:
        raise ValueError(f"updates is {updates!r}; it must be 'one', 'all' or 'tensor'.")
    if loss not in LOSSES:
        raise ValueError(f"loss is {loss!r}; it must be 'terminal' or 'integrated'.")
    if optimizer not in OPTIMIZERS:
        raise ValueError(
            f"optimizer is {optimizer!r}; it must be 'sgd' or 'momentum': optimizers that rescale the gradient "
            "elementwise, such as Adam, leave the subspace of learning: only the number of units bounds the rank."
        )
    if updates == "one" and optimizer == "sgd":
        ends = min(d, many) if loss == "terminal" else d  # directions in which adjoint states start
        return R + min(ends, m + starts)
    whole = 2 * R + m + d + starts
    return whole**2 if updates == "tensor" else whole


def invariant_subspace(W0: ArrayLike, B: ArrayLike, D: ArrayLike, x0: ArrayLike | None = None) -> FloatArray:
    r"""Orthonormal basis of the subspace V in which a linear network learns.

    Args:
        W0: Initial recurrent weights, shape (n, n).
        B: Input weights, shape (n, m).
        D: Decoder, shape (d, n).
        x0: Initial states, shape (n,) or (k, n); none if the network starts at rest.

    Returns:
        Basis in columns, shape (n, v), v <= 2 rank(W0) + m + d + k. Directions below the rounding of each matrix are
        left out.

    Raises:
        ValueError: If an argument is not finite or the shapes do not fit.

    Assumes: phi = identity.
    Source: pellegrino2023, supplement D.2.3, claim 2. Deviation from print: x(0) belongs to the span.

    Example:
        >>> invariant_subspace(np.zeros((3, 3)), [[1.0], [0.0], [0.0]], [[0.0, 2.0, 0.0]]).shape
        (3, 2)
    """
    W = matrix("W0", real_array("W0", W0, wanted="a square matrix of finite real numbers"), square=True)
    n = W.shape[-1]
    starts = (
        np.zeros((0, n)) if x0 is None else np.atleast_2d(real_array("x0", x0, wanted="initial states, shape (k, n)"))
    )
    into = real_array("B", B, wanted="input weights, shape (n, m)", minimum_ndim=2)
    out = real_array("D", D, wanted="a decoder, shape (d, n)", minimum_ndim=2)
    shapes = f"W0 {W.shape}, B {into.shape}, D {out.shape}, x0 {starts.shape}"
    if any(array.ndim != 2 for array in (W, into, out, starts)) or {into.shape[0], out.shape[1], starts.shape[1]} != {
        n
    }:
        raise ValueError(f"The shapes do not fit together: {shapes}; they must be (n, n), (n, m), (d, n) and (k, n).")
    parts = [_range(part) for part in (W, W.T, into, out.T, starts.T)]
    return _range(np.concatenate(parts, axis=1))  # each of length 1, so that no part is lost beside a larger one


def share_outside(change: ArrayLike, basis: ArrayLike) -> FloatArray:
    r"""Share of a weight change that lies outside $V \otimes V$, $|\Delta W - P\Delta WP| / |\Delta W|$ with $P =
    QQ^T$.

    Args:
        change: Weight changes, shape (..., n, n).
        basis: Orthonormal basis Q of V in columns, shape (n, v), or (..., n, v).

    Returns:
        Shape (...), between 0 and 1; NaN where nothing changed.

    Raises:
        ValueError: If an argument is not finite, the shapes do not fit, or the basis is not orthonormal.

    Assumes: nothing.
    Source: pellegrino2023, supplement D.2.3, read as a measure by this library. Deviation from print: none.

    Example:
        >>> share_outside([[3.0, 0.0], [4.0, 0.0]], [[1.0], [0.0]]).round(6)
        np.float64(0.8)
    """
    (dW, Q), _ = with_axes({"change": ("n", "n"), "basis": ("n", "v")}, change=change, basis=basis)
    Qt = np.swapaxes(Q, -1, -2)
    if np.abs(Qt @ Q - np.eye(Q.shape[-1])).max(initial=0.0) > 1e-8:
        raise ValueError("basis has columns that are not orthonormal; it must come from invariant_subspace or a QR.")
    off = np.linalg.norm(dW - Q @ (Qt @ dW @ Q) @ Qt, axis=(-2, -1))
    whole = np.linalg.norm(dW, axis=(-2, -1))
    return np.asarray(off / np.where(whole > 0, whole, np.nan))[()]


def _range(A: FloatArray) -> FloatArray:
    """Orthonormal basis, in columns, of the range of a matrix, up to rounding."""
    if not A.size:
        return np.zeros((A.shape[0], 0))
    u, s, _ = np.linalg.svd(A, full_matrices=False)
    return np.asarray(u[:, s > max(A.shape) * np.finfo(np.float64).eps * s[0]])
