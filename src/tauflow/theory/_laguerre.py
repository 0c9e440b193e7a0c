r"""Laguerre functions $\phi_k(t) = \sqrt{2c}\,e^{-ct}L_k(2ct)$: values, coefficients of a filter, and the kernel there.

They are orthonormal on $t \ge 0$ and, with $c = \sqrt{1 - \sigma^2}$, diagonalise the autocorrelation of a random
linear network (`tauflow.theory.mean_field`).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.linalg import eigvalsh_tridiagonal, lu_factor, lu_solve
from scipy.signal import convolve2d

from tauflow.analysis.arguments import FloatArray

_LARGE = 1e150


def walk(n: int, x: FloatArray) -> Iterator[FloatArray]:
    """Yield e^(-x/2) L_k(x) for k = 0 to n - 1, without overflow for any x >= 0, each of x's shape."""
    logarithm, before, now = -x / 2, np.zeros_like(x), np.ones_like(x)
    for k in range(n):
        yield now * np.exp(logarithm)
        before, now = now, ((2 * k + 1 - x) * now - k * before) / (k + 1)
        large = np.abs(now) > _LARGE
        if large.any():  # beyond its last zero a polynomial grows where e^(-x/2) falls
            scale = np.where(large, _LARGE, 1.0)
            before, now, logarithm = before / scale, now / scale, logarithm + np.log(scale)


def functions(n: int, t: FloatArray, c: FloatArray | float) -> FloatArray:
    """The first n Laguerre functions of decay c at times t, shape (..., n)."""
    t, c_ = np.broadcast_arrays(t, c)
    return np.sqrt(2 * c_)[..., None] * np.stack(list(walk(n, 2 * c_ * t)), axis=-1)


def nodes(m: int, c: float) -> tuple[FloatArray, FloatArray]:
    """Gauss-Laguerre nodes t and weights, shape (m,): exact for the product of two of the first m functions."""
    x = eigvalsh_tridiagonal(2.0 * np.arange(m) + 1, np.arange(1.0, m))
    x = np.maximum(x, 0.0)
    weights = 1 / np.sum([values**2 for values in walk(m, x)], axis=0)
    return x / (2 * c), weights / (2 * c)


def panels(edges: FloatArray, points: int) -> tuple[FloatArray, FloatArray]:
    """Gauss-Legendre nodes t and weights of the panels between edges, shape (panels * points,)."""
    x, w = np.polynomial.legendre.leggauss(points)
    half = np.diff(edges)[:, None] / 2  # (panel, 1)
    return (edges[:-1, None] + half * (1 + x)).ravel(), (half * w).ravel()


def project(values: FloatArray, t: FloatArray, weights: FloatArray, n: int, c: float) -> FloatArray:
    """Coefficients of a function from its values at quadrature nodes t, shape (n,)."""
    weighted = np.sqrt(2 * c) * weights * values  # (node,)
    return np.array([weighted @ each for each in walk(n, 2 * c * t)])


def states(A: FloatArray, b: FloatArray, n: int, c: float) -> Iterator[FloatArray]:
    r"""Yield the first n coefficients of the state $e^{At}b$, $\sqrt{2c}\,[(A + c)(A - c)^{-1}]^k(c - A)^{-1}b$."""
    factors = lu_factor(A - c * np.eye(len(A)))
    state = -np.sqrt(2 * c) * lu_solve(factors, b)
    for _ in range(n):
        yield state
        state = state + 2 * c * lu_solve(factors, state)


def of_system(A: FloatArray, b: FloatArray, readout: FloatArray, n: int, c: float) -> FloatArray:
    """Coefficients of the filter readout' e^(At) b, shape (n,)."""
    return np.array([readout @ state for state in states(A, b, n, c)])


def convolve(first: FloatArray, second: FloatArray, c: float) -> FloatArray:
    r"""Coefficients of the convolution in both times of two kernels, (m, m) and (n, n), shape (m + n, m + n).

    It follows from $\phi_j * \phi_k = (\phi_{j+k} - \phi_{j+k+1})/\sqrt{2c}$.
    """
    product = np.pad(convolve2d(first, second), 1)  # of index sums
    down = product[1:] - product[:-1]
    return (down[:, 1:] - down[:, :-1]) / (2 * c)


def kernel(n: int, sigma: FloatArray, vectors: float, matrix: float) -> tuple[FloatArray, FloatArray]:
    r"""Diagonal (..., n) and off-diagonal (..., n - 1) of `vectors` C + `matrix` C*C in the basis of $c(\sigma)$."""
    c = np.sqrt(1 - sigma**2)[..., None]
    q, k = (sigma[..., None] / (1 + c)) ** 2, np.arange(n)
    eigenvalue = sigma[..., None] ** 2 / (1 + c)  # 1 - c, the largest
    power = q**k
    below = np.where(k > 0, k * q ** np.maximum(k - 1.0, 0.0), 0.0)
    strength = matrix * eigenvalue**2 / (2 * c)
    return vectors * eigenvalue * power + strength * (below + (k + 1) * power), (-strength * (k + 1) * power)[..., :-1]
