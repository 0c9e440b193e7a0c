"""Spectra of weights: singular values, eigenvalues, and the measures read off them.

All functions take anything `np.asarray` takes, with any leading axes (run, snapshot, ...), and give
NumPy float64 (eigenvalues: complex128).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tauflow.analysis.arguments import FloatArray, matrix, real_array, whole_number

ComplexArray = NDArray[np.complex128]


def singular_values(A: ArrayLike) -> FloatArray:
    r"""Singular values $s_1 \ge s_2 \ge \dots \ge 0$ of matrices.

    Args:
        A: Matrices, shape (..., m, n), real or complex.

    Returns:
        Shape (..., min(m, n)), descending, in the unit of `A`.

    Raises:
        ValueError: If `A` is not a stack of finite numeric matrices.

    Example:
        >>> singular_values([[0.0, 3.0], [-4.0, 0.0]])
        array([4., 3.])
    """
    return np.linalg.svd(matrix("A", A), compute_uv=False)  # (..., min(m, n))


def eigenvalues(W: ArrayLike) -> ComplexArray:
    r"""Eigenvalues of square matrices, by descending modulus.

    Equal moduli (a complex pair) are ordered by descending real, then imaginary part, so that the order is
    the same every time.

    Args:
        W: Square matrices, shape (..., n, n).

    Returns:
        Shape (..., n), complex128, in the unit of `W`.

    Raises:
        ValueError: If `W` is not a stack of finite numeric square matrices.

    Example:
        >>> eigenvalues([[0.0, -2.0], [2.0, 0.0]])
        array([0.+2.j, 0.-2.j])
    """
    values = np.linalg.eigvals(matrix("W", W, square=True)).astype(np.complex128)  # (..., n)
    order = np.lexsort((-values.imag, -values.real, -np.abs(values)), axis=-1)
    return np.take_along_axis(values, order, axis=-1)


def eigenvalue_pair(W: ArrayLike) -> ComplexArray:
    r"""The two eigenvalues of largest modulus, for example the outlier pair of weights that oscillate.

    Args:
        W: Square matrices of two rows or more, shape (..., n, n).

    Returns:
        Shape (..., 2), complex128, in the unit of `W`: the larger imaginary part first, so a conjugate pair with
        Im > 0 first, and two real ones in falling order.

    Raises:
        ValueError: If `W` is not a stack of finite numeric square matrices, or has one row.

    Example:
        >>> eigenvalue_pair([[0.0, -2.0, 0.0], [2.0, 0.0, 0.0], [0.0, 0.0, 0.5]])
        array([0.+2.j, 0.-2.j])
    """
    largest = eigenvalues(W)[..., :2]  # (..., 2)
    if largest.shape[-1] < 2:
        raise ValueError(f"W has shape {np.shape(W)}; it must have two rows or more, so that there is a pair.")
    order = np.lexsort((-largest.real, -largest.imag), axis=-1)
    return np.take_along_axis(largest, order, axis=-1)


def coupling(W: ArrayLike, u: ArrayLike, v: ArrayLike) -> FloatArray:
    r"""Weight from one direction to another, $v^TWu/(|v||u|)$; where u = v spans an eigenspace, its eigenvalue.

    Args:
        W: Real matrices, shape (..., m, n), with the leading axes of `u` and `v`.
        u: Vectors from which the weight comes, shape (..., n), in any unit.
        v: Vectors to which it goes, shape (..., m), in any unit.

    Returns:
        Shape (...), in the unit of `W`; NaN where u or v is 0.

    Raises:
        ValueError: If an argument is not an array of finite real numbers, or the shapes do not fit.

    Example:
        >>> float(coupling([[0.0, 3.0], [0.0, 0.0]], u=[0.0, 2.0], v=[5.0, 0.0]))
        3.0
    """
    W = real_array("W", W, wanted="real matrices, shape (..., m, n)", minimum_ndim=2)
    sides = []
    for name, value, letter, size in (("u", u, "n", W.shape[-1]), ("v", v, "m", W.shape[-2])):
        wanted = f"real vectors, shape (..., {letter}), that fit W of shape {W.shape}"
        vector = real_array(name, value, wanted=wanted, minimum_ndim=1)
        if vector.shape != (*W.shape[:-2], size):
            raise ValueError(f"{name} has shape {vector.shape}; it must be {wanted}.")
        sides.append(vector)
    u, v = sides
    lengths = np.linalg.norm(u, axis=-1) * np.linalg.norm(v, axis=-1)  # (...)
    weights = np.einsum("...i,...ij,...j->...", v, W, u, optimize=True)
    return np.asarray(weights / np.where(lengths > 0, lengths, np.nan))


def spectral_radius(W: ArrayLike) -> FloatArray:
    r"""Largest modulus of an eigenvalue, $\max_i |\lambda_i|$.

    Args:
        W: Square matrices, shape (..., n, n).

    Returns:
        Shape (...), in the unit of `W`.

    Raises:
        ValueError: If `W` is not a stack of finite numeric square matrices.

    Example:
        >>> round(float(spectral_radius([[0.0, -2.0], [2.0, 0.0]])), 6)
        2.0
    """
    return np.abs(eigenvalues(W)[..., 0])


def spectral_abscissa(W: ArrayLike) -> FloatArray:
    r"""Largest real part of an eigenvalue, $\max_i \mathrm{Re}\, \lambda_i$.

    The linear rate network $\dot x = -x + Wx$ is stable where this is below 1.

    Args:
        W: Square matrices, shape (..., n, n).

    Returns:
        Shape (...), in the unit of `W`.

    Raises:
        ValueError: If `W` is not a stack of finite numeric square matrices.

    Example:
        >>> float(spectral_abscissa([[0.5, -2.0], [2.0, 0.5]]))
        0.5
    """
    return eigenvalues(W).real.max(axis=-1)


def outliers(W: ArrayLike, radius: ArrayLike) -> ComplexArray:
    r"""Eigenvalues outside a circle, $|\lambda| >$ `radius`, by descending modulus.

    A random matrix of gain g has its eigenvalues inside the circle of radius g; what learning adds of low
    rank shows up outside it.

    Args:
        W: Square matrices, shape (..., n, n).
        radius: Radius >= 0 in the unit of `W`, a number or shape (...) (one for each matrix).

    Returns:
        For one matrix its outliers, shape (k,), complex128. For a stack, shape (..., k) with the largest
        count as k and NaN where a matrix has fewer.

    Raises:
        ValueError: If `W` is not a stack of finite numeric square matrices, or `radius` is negative, not a
            number or of the wrong shape.

    Example:
        >>> outliers([[2.0, 0.0], [0.0, 0.1]], radius=0.5)
        array([2.+0.j])
    """
    values = eigenvalues(W)  # (..., n)
    wanted = "a number >= 0, or one for each matrix, for example radius=0.99"
    limits = real_array("radius", radius, wanted=wanted)
    if (limits < 0).any():
        raise ValueError(f"radius is {limits.min()}; it must be {wanted}.")
    if limits.shape not in ((), values.shape[:-1]):
        raise ValueError(f"radius has shape {limits.shape} for W of shape {np.shape(W)}; it must be {wanted}.")
    outside = np.abs(values) > limits[..., None]  # (..., n)
    count = int(outside.sum(axis=-1).max(initial=0))
    return np.where(outside, values, complex(np.nan, np.nan))[..., :count]  # (..., k): outliers come first


def participation_ratio(s: ArrayLike) -> FloatArray:
    r"""Effective number of singular directions, $(\sum_i s_i^2)^2 / \sum_i s_i^4$.

    Args:
        s: Singular values >= 0, shape (..., k), any common unit, not all zero.

    Returns:
        Shape (...), between 1 and k, dimensionless.

    Raises:
        ValueError: If `s` has no axis, is negative somewhere, not finite, or all zero.

    Example:
        >>> round(float(participation_ratio([1.0, 1.0, 0.0])), 6)
        2.0
    """
    power = _relative_power(s)  # (..., k)
    return power.sum(axis=-1) ** 2 / (power**2).sum(axis=-1)


def variance_explained(s: ArrayLike, rank: int | None = None) -> FloatArray:
    r"""Share of the squared Frobenius norm in the first singular values, $\sum_{i \le r} s_i^2 / \sum_i s_i^2$.

    Args:
        s: Singular values >= 0 in descending order, shape (..., k), any common unit, not all zero.
        rank: How many to count, >= 0; None for all ranks 1 ... k.

    Returns:
        Shape (..., k) for ranks 1 ... k, or shape (...) for the one `rank`; between 0 and 1.

    Raises:
        ValueError: If `s` has no axis, is negative somewhere, not finite, or all zero, or `rank` is not a
            whole number >= 0.

    Example:
        >>> variance_explained([3.0, 1.0])
        array([0.9, 1. ])
    """
    power = _relative_power(s)  # (..., k)
    total = power.sum(axis=-1, keepdims=True)
    if rank is None:
        return np.cumsum(power, axis=-1) / total
    kept = power[..., : whole_number("rank", rank, 0)]
    return kept.sum(axis=-1) / total[..., 0]


def _relative_power(s: ArrayLike) -> FloatArray:
    """Squared singular values over the squared largest one, so that tiny ones do not underflow."""
    wanted = "singular values >= 0, shape (..., k), for example singular_values(W)"
    values = real_array("s", s, wanted=wanted, minimum_ndim=1)
    if values.shape[-1] == 0:
        raise ValueError(f"s has shape {values.shape}; it must be {wanted}.")
    if (values < 0).any():
        raise ValueError(f"s has the negative entry {values.min()}; it must be {wanted}.")
    largest = values.max(axis=-1, keepdims=True)
    if (largest == 0).any():
        raise ValueError(f"s is zero throughout, so it has no share to report; it must be {wanted}, not all zero.")
    return (values / largest) ** 2
