r"""What a weight path, or any array of three axes, is made of: PARAFAC, its unfoldings, and factors compared.

A PARAFAC (canonical polyadic) decomposition of rank R is $X_{kij} = \sum_{r \le R} \lambda_r\, a_{kr} b_{ir} c_{jr}$.
Of a path of weights `X = W - W[0]`, shape (trial, n, n), the first factor says when a component of the change was
learned, the second and third are its columns and rows. R is a tensor rank; it is at least the matrix rank of each of
the three unfoldings (trial by n², n by trial times n, twice).

Alternating least squares (TensorLy) does the work, on the tensor in orthonormal bases of what its unfoldings span: the
same problem, and of a few numbers only where the path has few directions.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any, NamedTuple

import jax
import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linear_sum_assignment

from tauflow.analysis.arguments import FloatArray, generator, matrix, real_array, whole_number
from tauflow.analysis.spectra import variance_explained

_LEFT_OUT = 1e-12  # share of the squared norm outside the bases, of each axis; rounding in float32 weights is below it
_COARSE = 1e-5  # likewise, while several starts are compared
_RIDGE = 1e-12  # keeps the least squares solvable where the rank asked for exceeds the tensor's


class Parafac(NamedTuple):
    """A PARAFAC decomposition, by falling weight.

    Attributes:
        weights: Sizes of the components, shape (rank,), >= 0, in the unit of the tensor.
        factors: One matrix for each axis, shape (size, rank), with columns of norm 1. In all but the first the entry
            of largest modulus is positive; the first carries the sign.
        explained: Share of the tensor's squared norm.
        settled: Whether the start that explained most had converged.
    """

    weights: FloatArray
    factors: list[FloatArray]
    explained: float
    settled: bool

    def tensor(self) -> FloatArray:
        """The tensor that the components add up to, shape of the sizes of the axes."""
        return np.asarray(np.einsum("r,ir,jr,kr->ijk", self.weights, *self.factors, optimize=True))


class Match(NamedTuple):
    """Columns of factors, found against true ones.

    Attributes:
        order: Which found column belongs to each true one, shape (rank,), different whole numbers.
        signs: Signs of their correlations, shape (axis, rank), 1 or -1.
        similarity: Moduli of their centred correlations, shape (axis, rank), 0 to 1; 0 where a column is constant.
    """

    order: NDArray[np.int64]
    signs: FloatArray
    similarity: FloatArray


def parafac(
    X: ArrayLike,
    rank: int,
    *,
    key: jax.Array | int,
    repeats: int = 4,
    iterations: int = 1000,
    tolerance: float = 1e-6,
) -> Parafac:
    r"""Decompose a tensor into `rank` components, $X \approx \sum_r \lambda_r\, a_r \otimes b_r \otimes c_r$.

    The best of several starts of alternating least squares: the leading singular vectors of the unfoldings, then random
    ones. Unlike singular vectors, the components of rank R are not among those of rank R + 1.

    Args:
        X: Tensor of three axes, not all zero, for example a path of weights minus its beginning, (trial, n, n).
        rank: Number of components, >= 1.
        key: A JAX key, or a whole number >= 0 as seed, for the random starts.
        repeats: Number of starts, >= 1.
        iterations: Most sweeps over the three factors from one start, >= 1.
        tolerance: A start has converged when a sweep changes the relative error by less than this, > 0.

    Returns:
        The decomposition. Directions that hold less than 1e-12 of the squared norm are left out of it.

    Raises:
        ValueError: If `X` is no tensor of finite real numbers or all zero, or another argument is out of range.

    Example:
        >>> X = 2 * np.einsum("i,j,k->ijk", [0.6, 0.8], [1.0, 0.0], [0.0, -1.0])
        >>> found = parafac(X, rank=1, key=0)
        >>> found.weights.round(6), found.factors[0][:, 0].round(6), round(found.explained, 6)
        (array([2.]), array([-0.6, -0.8]), 1.0)
    """
    X, norm = _tensor(X)
    return _best_of(norm, *_compressed(X / norm), rank, key, repeats, iterations, tolerance)


def explained_by_rank(
    X: ArrayLike,
    ranks: Sequence[int] | NDArray[np.integer],
    *,
    key: jax.Array | int,
    repeats: int = 4,
    iterations: int = 1000,
    tolerance: float = 1e-6,
) -> FloatArray:
    """Share of a tensor's squared norm that the best PARAFAC found explains, for several ranks.

    Args:
        X: As for `parafac`.
        ranks: Ranks to try, whole numbers >= 1, shape (k,).
        key: As for `parafac`.
        repeats: As for `parafac`.
        iterations: As for `parafac`.
        tolerance: As for `parafac`.

    Returns:
        Shape (k,), between 0 and 1.

    Raises:
        ValueError: As for `parafac`; also if a rank is no whole number >= 1.

    Example:
        >>> explained_by_rank(np.eye(2)[:, :, None] * np.eye(2)[:, None, :], ranks=[1, 2], key=0).round(6)
        array([0.5, 1. ])
    """
    X, norm = _tensor(X)
    if not np.iterable(ranks):
        raise ValueError(f"ranks is {ranks!r}; it must be a sequence of whole numbers >= 1, for example range(1, 8).")
    core, bases = _compressed(X / norm)
    found = [_best_of(norm, core, bases, rank, key, repeats, iterations, tolerance) for rank in ranks]
    return np.array([one.explained for one in found], dtype=np.float64)


def unfolding_explained(X: ArrayLike) -> tuple[FloatArray, FloatArray, FloatArray]:
    r"""Share of a tensor's squared norm in the first 1, 2, ... singular directions of each of its unfoldings.

    The unfolding of an axis is the matrix with that axis as rows and the other two as columns. At one rank a tensor
    decomposition never explains more than the worst of the three.

    Args:
        X: Tensor of three axes, not all zero.

    Returns:
        One array for each axis, shape (min(size, product of the other sizes),), between 0 and 1, rising.

    Raises:
        ValueError: If `X` is no tensor of finite real numbers, or all zero.

    Example:
        >>> trial, first, second = unfolding_explained([[[3.0, 0.0], [0.0, 1.0]]])
        >>> trial, first.round(6)
        (array([1.]), array([0.9, 1. ]))
    """
    X, norm = _tensor(X)
    unfoldings = (_unfolded(X / norm, axis) for axis in range(3))
    narrow = (rows if rows.shape[0] <= rows.shape[1] else rows.T for rows in unfoldings)
    trial, first, second = (variance_explained(np.sqrt(np.maximum(_powers(rows)[0], 0.0))) for rows in narrow)
    return trial, first, second


def match_factors(found: Sequence[ArrayLike], truth: Sequence[ArrayLike]) -> Match:
    """Match the columns of factors, which have no order and no signs, with those of true ones.

    Columns are compared by their centred correlation. An uncentred cosine would not do: factors over trials are mostly
    of one sign, so any two of them have a cosine near 1. The assignment is the one with the largest mean modulus, over
    columns and axes.

    Args:
        found: One matrix for each axis compared, shape (size, rank found): all `factors` of a `Parafac`, or a list with
            one of them.
        truth: Likewise, (size, rank), with at most as many columns as `found`.

    Returns:
        Order, signs and similarity of the columns found, for each true one.

    Raises:
        ValueError: If a factor is no matrix of finite real numbers, or their sizes and ranks do not fit.

    Example:
        >>> truth = np.array([[0.0, 1.0], [1.0, 0.5], [2.0, 1.0]])
        >>> match = match_factors([-truth[:, ::-1]], [truth])
        >>> match.order, match.signs, match.similarity.round(6)
        (array([1, 0]), array([[-1., -1.]]), array([[1., 1.]]))
    """
    columns, true_columns = _factors("found", found), _factors("truth", truth)
    shapes = [[factor.shape for factor in factors] for factors in (columns, true_columns)]
    if [shape[0] for shape in shapes[0]] != [shape[0] for shape in shapes[1]]:
        raise ValueError(f"found has shapes {shapes[0]} and truth {shapes[1]}; they must have the same rows.")
    if shapes[0][0][1] < shapes[1][0][1]:
        raise ValueError(
            f"found has {shapes[0][0][1]} columns for {shapes[1][0][1]} of truth; it must have at least as many."
        )
    pairs = zip(true_columns, columns, strict=True)
    correlation = np.stack([_centred(true).T @ _centred(factor) for true, factor in pairs])  # (axis, rank, rank found)
    _, order = linear_sum_assignment(np.abs(correlation).mean(axis=0), maximize=True)
    matched = correlation[:, np.arange(order.size), order]  # (axis, rank)
    return Match(order.astype(np.int64), np.where(matched < 0, -1.0, 1.0), np.minimum(np.abs(matched), 1.0))


def kruskal_rank(A: ArrayLike, tolerance: float = 1e-8) -> int:
    """The largest k for which any k columns of a matrix are linearly independent.

    Args:
        A: Matrix, shape (size, rank); all sets of columns are tried, so of some 20 columns at most.
        tolerance: Smallest singular value of columns of norm 1 up to which they count as dependent.

    Returns:
        Between 0 and min(size, rank).

    Raises:
        ValueError: If `A` is not one matrix of finite real numbers.

    Example:
        >>> kruskal_rank([[1.0, 0.0, 1.0, 2.0], [0.0, 1.0, 1.0, 0.0]])  # columns 1 and 4 are parallel
        1
    """
    (A,) = _factors("A", [A])
    norms = np.linalg.norm(A, axis=0)
    unit = A / np.where(norms > 0, norms, 1.0)
    for k in range(1, min(A.shape) + 1):
        if any(
            np.linalg.matrix_rank(unit[:, list(some)], tol=tolerance) < k for some in combinations(range(A.shape[1]), k)
        ):
            return k - 1
    return min(A.shape)


def is_unique(factors: Sequence[ArrayLike], tolerance: float = 1e-8) -> bool:
    r"""Whether Kruskal's condition makes a decomposition the only one, $k_a + k_b + k_c \ge 2R + 2$.

    It suffices, up to the order, scale and signs of the components, and is not needed. k are the Kruskal ranks, R >= 2
    the number of components; one component alone is always unique.

    Args:
        factors: Three matrices, shape (size, rank) each.
        tolerance: As for `kruskal_rank`; factors that were estimated need one as large as their errors.

    Returns:
        Whether the condition holds.

    Raises:
        ValueError: If there are not three matrices of finite real numbers with the same number of columns.

    Source: pellegrino2023, supplement A.2. Deviation from print: there it is $r_a + r_b + r_c \le R - 2$ with r the
        largest number of linearly dependent columns; it holds with r = R - k.

    Example:
        >>> is_unique([np.eye(2)] * 3), is_unique([np.eye(2), np.eye(2), np.ones((2, 2))])
        (True, False)
    """
    matrices = _factors("factors", factors)
    if len(matrices) != 3:
        raise ValueError(f"factors has {len(matrices)} matrices; there must be three, one for each axis.")
    rank = matrices[0].shape[1]
    return sum(kruskal_rank(factor, tolerance) for factor in matrices) >= (3 if rank == 1 else 2 * rank + 2)


def _best_of(
    norm: float,
    core: FloatArray,
    bases: list[FloatArray],
    rank: int,
    key: Any,
    repeats: int,
    iterations: int,
    tolerance: float,
) -> Parafac:
    """The best of several starts on the leading part of the core, finished on all of it, in the tensor's own axes."""
    from tensorly.decomposition import parafac as least_squares  # takes a second to import

    rank, repeats = whole_number("rank", rank, 1), whole_number("repeats", repeats, 1)
    iterations = whole_number("iterations", iterations, 1)
    limit = real_array("tolerance", tolerance, wanted="a number > 0, for example tolerance=1e-6")
    if limit.ndim or limit <= 0:
        raise ValueError(f"tolerance is {tolerance!r}; it must be a number > 0, for example tolerance=1e-6.")
    random = generator(key)
    coarse = core[tuple(slice(_needed((_unfolded(core, axis) ** 2).sum(axis=1), _COARSE)) for axis in range(3))]

    def descend(X: FloatArray, factors: list[FloatArray]) -> tuple[float, list[FloatArray], bool]:
        (_, factors), errors = least_squares(
            X, rank, n_iter_max=iterations, init=(None, factors), tol=float(limit), l2_reg=_RIDGE, return_errors=True
        )
        left = X - np.einsum("ir,jr,kr->ijk", *factors, optimize=True)
        return float((left**2).sum()), factors, len(errors) < iterations

    tried = [descend(coarse, _start(coarse.shape, rank, random, leading=repeat == 0)) for repeat in range(repeats)]
    _, factors, _ = min(tried, key=lambda one: one[0])
    factors = [
        np.pad(factor, ((0, size - len(factor)), (0, 0))) for factor, size in zip(factors, core.shape, strict=True)
    ]
    error, factors, settled = descend(core, factors)
    return _in_order([basis @ factor for basis, factor in zip(bases, factors, strict=True)], norm, 1 - error, settled)


def _start(shape: tuple[int, ...], rank: int, random: np.random.Generator, *, leading: bool) -> list[FloatArray]:
    """Factors to begin with: random ones, or the leading singular vectors, which in the core are the unit vectors."""
    factors = [random.standard_normal((size, rank)) for size in shape]
    if leading:
        factors = [np.where(np.arange(rank) < len(one), np.eye(len(one), rank), one) for one in factors]
    return factors


def _in_order(factors: list[FloatArray], norm: float, explained: float, settled: bool) -> Parafac:
    """Normalise the columns, order them by weight, and put the signs into the first factor."""
    sizes = [np.linalg.norm(factor, axis=0) for factor in factors]
    weights = norm * np.prod(sizes, axis=0)  # (rank,)
    order = np.argsort(-weights, kind="stable")
    unit = [(factor / np.where(size > 0, size, 1.0))[:, order] for factor, size in zip(factors, sizes, strict=True)]
    for axis in (1, 2):
        largest = np.take_along_axis(unit[axis], np.abs(unit[axis]).argmax(axis=0)[None], axis=0)[0]  # (rank,)
        signs = np.where(largest < 0, -1.0, 1.0)
        unit[axis], unit[0] = unit[axis] * signs, unit[0] * signs
    return Parafac(weights[order], unit, float(np.clip(explained, 0.0, 1.0)), settled)


def _tensor(X: ArrayLike) -> tuple[FloatArray, float]:
    """A finite real tensor of three axes and its norm."""
    wanted = "a tensor of finite real numbers with three axes, not all zero, for example (trial, n, n)"
    array = real_array("X", X, wanted=wanted)
    norm = float(np.linalg.norm(array))
    if array.ndim != 3 or norm == 0:
        raise ValueError(f"X has shape {array.shape} and norm {norm:g}; it must be {wanted}.")
    return array, norm


def _compressed(X: FloatArray) -> tuple[FloatArray, list[FloatArray]]:
    """The tensor in orthonormal bases of what its unfoldings span, the leading directions first, and the bases."""
    core, bases = X, []
    for axis in range(3):
        powers, vectors = _powers(_unfolded(core, axis))
        basis = vectors[:, : _needed(powers, _LEFT_OUT)]  # (size, kept)
        core = np.asarray(np.moveaxis(np.tensordot(basis.T, core, axes=(1, axis)), 0, axis))
        bases.append(basis)
    return core, bases


def _powers(rows: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Squared singular values of a matrix (size, rest), falling, and its left singular vectors in columns.

    From the Gram matrix, many times faster where the rest is long, and exact to rounding in the sum of the squares.
    """
    powers, vectors = np.linalg.eigh(rows @ rows.T)
    return powers[::-1], vectors[:, ::-1]


def _needed(powers: FloatArray, left_out: float) -> int:
    """How many of these falling numbers are needed for all of their sum but the share left out."""
    return int((np.cumsum(powers[::-1]) > left_out * powers.sum()).sum())


def _unfolded(X: FloatArray, axis: int) -> FloatArray:
    return np.asarray(np.moveaxis(X, axis, 0).reshape(X.shape[axis], -1), dtype=np.float64)


def _factors(name: str, factors: Sequence[ArrayLike]) -> list[FloatArray]:
    """Matrices of finite real numbers, one at least, with as many columns each."""
    matrices = [matrix(name, factor) for factor in factors]
    shapes = [factor.shape for factor in matrices]
    flat = all(factor.ndim == 2 and factor.dtype.kind == "f" for factor in matrices)
    if not matrices or not flat or len({shape[-1] for shape in shapes}) > 1:
        raise ValueError(f"{name} has shapes {shapes}; it must be real matrices (size, rank) of one rank.")
    return matrices


def _centred(A: FloatArray) -> FloatArray:
    """Columns without their means and of norm 1; a constant column gives zeros."""
    centred = A - A.mean(axis=0)
    norms = np.linalg.norm(centred, axis=0)
    constant = norms <= 1e-12 * np.linalg.norm(A, axis=0)
    return np.asarray(np.where(constant, 0.0, centred / np.where(constant, 1.0, norms)))
