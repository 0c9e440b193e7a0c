"""How many directions a weight matrix, or its change, needs: truncation, functional rank, shuffling.

All functions take anything `np.asarray` takes, with any leading axes (run, snapshot, ...), and give
NumPy float64.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from numpy.typing import ArrayLike, NDArray

from tauflow.analysis.arguments import FloatArray, generator, matrix, numeric, real_array, whole_number


def truncate(A: ArrayLike, rank: int) -> NDArray[Any]:
    r"""Nearest matrix of the given rank, $\sum_{i \le r} s_i\, u_i v_i^T$.

    Args:
        A: Matrices, shape (..., m, n).
        rank: How many singular directions to keep, >= 0. 0 gives zeros; min(m, n) and above give `A`.

    Returns:
        Same shape and unit as `A`.

    Raises:
        ValueError: If `A` is not a stack of finite numeric matrices or `rank` not a whole number >= 0.

    Example:
        >>> truncate([[3.0, 0.0], [0.0, 1.0]], rank=1).tolist()
        [[3.0, 0.0], [0.0, 0.0]]
    """
    full = matrix("A", A)
    return _rebuild(full, np.linalg.svd(full, full_matrices=False), whole_number("rank", rank, 0))


def truncation_curve(
    A: ArrayLike, loss: Callable[[NDArray[Any]], ArrayLike], ranks: Sequence[int] | NDArray[np.integer]
) -> FloatArray:
    r"""Loss as a function of the rank to which weights are truncated.

    Args:
        A: Matrices, shape (..., m, n): W itself, or its change $\Delta W$ (then `loss` adds W0 back).
        loss: Takes the truncated array, of the shape of `A`, and gives one loss for each matrix, shape (...).
        ranks: The ranks to try, whole numbers >= 0, shape (k,).

    Returns:
        Shape (..., k): the loss at each rank, in the unit of `loss`. One decomposition serves all ranks.

    Raises:
        ValueError: If `A` is not a stack of finite numeric matrices, a rank is not a whole number >= 0, or
            `loss` gives a wrong shape.

    Source: schuessler2020, Fig. 1 (loss after rank truncation).

    Example:
        >>> truncation_curve(np.diag([2.0, 1.0]), lambda B: 3.0 - np.trace(B), ranks=[0, 1, 2])
        array([3., 1., 0.])
    """
    full = matrix("A", A)
    tried = _ranks(ranks)
    parts = np.linalg.svd(full, full_matrices=False)
    losses = [_one_loss(loss(_rebuild(full, parts, rank)), full) for rank in tried]
    return np.stack(losses, axis=-1) if losses else np.empty((*full.shape[:-2], 0))


def functional_rank(
    curve: ArrayLike,
    reference: ArrayLike,
    threshold: float = 0.05,
    ranks: Sequence[int] | NDArray[np.integer] | None = None,
) -> FloatArray:
    r"""First rank at which the truncated loss falls below a fraction of a reference loss.

    Args:
        curve: Loss at each rank, shape (..., k), as `truncation_curve` gives it; NaN counts as not below.
        reference: Reference loss, a number or shape (...), in the unit of `curve`: the initial loss (the
            paper's text) or the loss at rank 0 (the authors' code).
        threshold: The fraction, > 0.
        ranks: The rank of each entry of the curve, ascending, shape (k,); 0 ... k-1 by default.

    Returns:
        Shape (...), dimensionless; NaN where no rank does it.

    Raises:
        ValueError: If `curve` has no axis, `reference` or `ranks` do not fit it, or `threshold` is not > 0.

    Source: schuessler2020, Fig. 1 and Fig. S1 (j-l).

    Example:
        >>> float(functional_rank([1.0, 0.3, 0.04, 0.01], reference=1.0))
        2.0
    """
    losses = _float_array("curve", curve)
    if losses.ndim == 0:
        raise ValueError("curve is a single number; it must hold the loss at each rank, shape (..., k).")
    limit = real_array("reference", reference, wanted="the reference loss, a number or one for each curve")
    if limit.shape not in ((), losses.shape[:-1]):
        raise ValueError(
            f"reference has shape {limit.shape} for a curve of shape {losses.shape}; it must be a number or have "
            f"shape {losses.shape[:-1]}."
        )
    share = real_array("threshold", threshold, wanted="a number > 0, for example threshold=0.05")
    if share.ndim or share <= 0:
        raise ValueError(f"threshold is {threshold!r}; it must be a number > 0, for example threshold=0.05.")
    of_rank = np.asarray(_ranks(range(losses.shape[-1]) if ranks is None else ranks), dtype=np.float64)  # (k,)
    if of_rank.shape != losses.shape[-1:] or (np.diff(of_rank) <= 0).any():
        raise ValueError(
            f"ranks has {of_rank.size} entries for a curve of {losses.shape[-1]}; it must hold the ascending rank "
            "of each entry of the curve."
        )
    below = losses < share * limit[..., None]  # (..., k)
    first = of_rank[np.argmax(below, axis=-1)] if of_rank.size else np.nan  # (...)
    return np.where(below.any(axis=-1), first, np.nan)


def shuffle_entries(W: ArrayLike, *, key: jax.Array | int) -> NDArray[Any]:
    """Permute all entries of a matrix: the same numbers, none of the structure.

    Args:
        W: Matrices, shape (..., m, n); each is permuted on its own.
        key: A JAX key, or a whole number >= 0 as seed.

    Returns:
        Same shape and unit as `W`.

    Raises:
        ValueError: If `W` is not a stack of finite numeric matrices or `key` neither a JAX key nor a seed.

    Source: schuessler2020, section 4.5.

    Example:
        >>> shuffled = shuffle_entries([[1.0, 2.0], [3.0, 4.0]], key=0)
        >>> sorted(shuffled.ravel().tolist())
        [1.0, 2.0, 3.0, 4.0]
    """
    full = matrix("W", W)
    flat = full.reshape(*full.shape[:-2], -1)  # (..., m * n)
    return generator(key).permuted(flat, axis=-1).reshape(full.shape)


def _rebuild(full: NDArray[Any], parts: tuple[NDArray[Any], ...], rank: int) -> NDArray[Any]:
    left, s, right = parts
    if rank >= s.shape[-1]:
        return full.copy()
    return (left[..., :rank] * s[..., None, :rank]) @ right[..., :rank, :]  # (..., m, n)


def _one_loss(value: ArrayLike, full: NDArray[Any]) -> FloatArray:
    losses = _float_array("the value of loss", value)
    if losses.shape != full.shape[:-2]:
        raise ValueError(
            f"loss gave shape {losses.shape} for matrices of shape {full.shape}; it must give one number for each "
            f"matrix, shape {full.shape[:-2]}."
        )
    return losses


def _float_array(name: str, value: ArrayLike) -> FloatArray:
    """Like `real_array`, but NaN and infinity, which a truncated network may well give, are let through."""
    wanted = "a loss or an array of losses, real numbers"
    array = numeric(name, value, wanted)
    if array.dtype.kind == "c":
        raise ValueError(f"{name} is complex; it must be {wanted}.")
    return array.astype(np.float64)


def _ranks(ranks: Sequence[int] | NDArray[np.integer] | range) -> list[int]:
    if not np.iterable(ranks):
        raise ValueError(f"ranks is {ranks!r}; it must be a sequence of whole numbers >= 0, for example range(26).")
    return [whole_number("each of ranks", rank, 0) for rank in ranks]
