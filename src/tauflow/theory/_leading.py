"""The largest singular values, and the leading pair of eigenvalues, of a matrix that may be large."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.linalg import ArpackNoConvergence, eigs, svds

from tauflow.analysis.arguments import FloatArray

DENSE = 500  # up to this size all values are computed; beyond, the largest by Lanczos' and Arnoldi's methods


def singular_values(M: FloatArray, k: int) -> FloatArray:
    """The k largest singular values, or all of a smaller matrix, in falling order; to 1e-4 beyond `DENSE` rows.

    Example:
        >>> singular_values(np.diag([1.0, 3.0, 2.0]), 2)
        array([3., 2.])
    """
    if len(M) <= DENSE:
        return np.asarray(np.linalg.svd(M, compute_uv=False)[:k])
    start = np.random.default_rng(0).standard_normal(len(M))
    return np.sort(svds(M, k=k, tol=1e-4, v0=start, return_singular_vectors=False))[::-1]


def leading_pair(M: FloatArray) -> tuple[complex, NDArray[np.complex128]]:
    """Eigenvalue of largest modulus, which must be complex, with its eigenvector; of the pair the one with Im > 0.

    Raises:
        ValueError: If the eigenvalue is real, or so many are of one size that none is the largest.

    Example:
        >>> complex(np.round(leading_pair(np.array([[0.5, -0.8], [0.8, 0.5]]))[0], 6))
        (0.5+0.8j)
    """
    if len(M) <= DENSE:
        values, vectors = np.linalg.eig(M)
    else:
        try:
            start = np.random.default_rng(0).standard_normal(len(M))
            values, vectors = eigs(M, k=2, tol=1e-10, maxiter=30, v0=start)
        except ArpackNoConvergence:
            raise ValueError(
                "No eigenvalue stands out; a conjugate pair must be planted, as warm_start does."
            ) from None
    largest = int(np.argmax(np.abs(values)))
    value, vector = complex(values[largest]), np.asarray(vectors[:, largest], np.complex128)
    if value.imag == 0:
        raise ValueError("The largest eigenvalue is real; a conjugate pair must be planted, as warm_start does.")
    return (value, vector) if value.imag > 0 else (value.conjugate(), vector.conj())
