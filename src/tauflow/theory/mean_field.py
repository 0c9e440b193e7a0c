r"""The autocorrelation of large random linear networks, and the tangent kernel that it makes.

A network $\dot h = -h + \frac1{\sqrt N}Wh + u\,x(t)$ with independent entries $W, u, v \sim N(0, \sigma^2)$ answers an
impulse, $h(0) = u$, with the correlation

$$ C(t, t') = \tfrac1N\,h(t)\cdot h(t') = \sigma^2 e^{-t-t'} I_0(2\sigma\sqrt{tt'}) \qquad (A12), $$

which solves $(1 + \partial_t)(1 + \partial_{t'})C = \sigma^2C$ with $C(t, 0) = C(0, t) = \sigma^2e^{-t}$ (A11).
Its series has one term for each power of $W$. With $e_k(t) = e^{-t}t^k/k!$,

$$ C(t, t') = \sum_{k\ge0} \sigma^{2k+2}\,e_k(t)\,e_k(t') . $$

The filter $f(t) = v^Te^{(W/\sqrt N - 1)t}u/\gamma\sqrt N$ has the tangent kernel $C$ from the readout, $C$ from the
read-in, and $C*C$ from $W$ (C4). Since $e_j * e_k = e_{j+k+1}$, the convolution is closed as well:

$$ C*C = \sum_{k\ge1} k\,\sigma^{2k+2}\,e_k(t)\,e_k(t') = \sigma^3\sqrt{tt'}\,e^{-t-t'} I_1(2\sigma\sqrt{tt'}) ,
\qquad K = 2C + C*C = \sum_{k\ge0}(k + 2)\,\sigma^{2k+2}\,e_k(t)\,e_k(t') . $$

**In an orthonormal basis.** With $c = \sqrt{1-\sigma^2}$ and $q = (1-c)/(1+c)$ the Laguerre functions
$\phi_n(t) = \sqrt{2c}\,e^{-ct}L_n(2ct)$ are the eigenfunctions of $C$, with eigenvalues $\lambda_n = (1-c)q^n$
(D8-D21); $C*C$ is tridiagonal there (D38-D45).

**What can be learnt with a filter that moves little.** The norm that belongs to a kernel, of a filter
$\sum_k a_ke_k(t)$, is the root of $\sum_k a_k^2/[(k+2)\sigma^{2k+2}]$ for $K$, and the same without $k + 2$ for $C$. An
exponential is $e^{-pt} = \sum_k (1-p)^ke_k(t)$, for complex $p$ too, so that under $C$

$$ \langle e^{-pt}, e^{-p't}\rangle_C = \frac1{\sigma^2 - (1-p)(1-\bar p')}, \qquad
   \|e^{-c_*t}\|_C^2 = \frac1{\sigma^2 - (1 - c_*)^2} \qquad (D29), $$

finite if and only if $|1-p| < \sigma$: the rate must lie inside the disc that the eigenvalues of $1 - W/\sqrt N$ fill.
Under $K$ the series gains factors $1/(k+2)$, which do not change where it converges.

All functions are float64 and broadcast.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ive

from tauflow.analysis.arguments import FloatArray, real_array, whole_number
from tauflow.theory import _laguerre
from tauflow.theory._arguments import EVERYTHING, as_positive, as_sigma, as_train, together

READOUT = ("W_out",)


def autocorrelation(t1: ArrayLike, t2: ArrayLike, sigma: ArrayLike, *, sigma_u: ArrayLike | None = None) -> FloatArray:
    r"""Correlation of the impulse responses of a large random network, $\sigma_u^2e^{-t-t'}I_0(2\sigma\sqrt{tt'})$.

    Args:
        t1: Time t >= 0, in membrane times, any shape.
        t2: Time t' >= 0, any shape.
        sigma: Standard deviation of the entries of W, in (0, 1), any shape.
        sigma_u: That of the entries of u; `sigma` by default.

    Returns:
        C, of the common shape. With the standard deviation of v for `sigma_u` it is that of the adjoint.

    Raises:
        ValueError: If an argument is out of range or the shapes do not broadcast.

    Assumes: large N, independent entries, an impulse at time 0.
    Source: bordelon2025, Eq. A12. Deviation from print: the average of (A10) is over units at an impulse, not over
        white noise; u may have its own standard deviation.

    Example:
        >>> round(float(autocorrelation(1.0, 1.0, 0.8)), 6)
        0.151574
    """
    first, second, s = _times_and_sigma(t1, t2, sigma)
    if sigma_u is None:
        return s**2 * _scaled(0, first, second, s)
    first, second, s, u = together(t1=first, t2=second, sigma=s, sigma_u=as_positive("sigma_u", sigma_u, zero=True))
    return u**2 * _scaled(0, first, second, s)


def tangent_kernel(t1: ArrayLike, t2: ArrayLike, sigma: ArrayLike, *, train: Sequence[str] = EVERYTHING) -> FloatArray:
    r"""Tangent kernel of the filter of a large random network, $K = 2C + C*C$ if everything is trained.

    Args:
        t1: Time t >= 0, in membrane times, any shape.
        t2: Time t' >= 0, any shape.
        sigma: Standard deviation of all initial weights, in (0, 1), any shape.
        train: What learns: C for "W_in", C for "W_out", C*C for "W".

    Returns:
        K for rates gamma², of the common shape: the filter moves by df/dtau = -2 K (f - f*).

    Raises:
        ValueError: If an argument is out of range or the shapes do not broadcast.

    Assumes: large N, the initial weights, gamma of order 1 (or gamma_0 small).
    Source: bordelon2025, Eq. C6. Deviation from print: the printed prefactors sigma² and sigma⁴ count the variance
        of the weights twice; the convolution is in closed form.

    Example:
        >>> round(float(tangent_kernel(1.0, 1.0, 0.8)), 6)
        0.378316
    """
    vectors, matrix = as_train(train)
    first, second, s = _times_and_sigma(t1, t2, sigma)
    convolved = s**3 * np.sqrt(first) * np.sqrt(second) * _scaled(1, first, second, s)
    return vectors * s**2 * _scaled(0, first, second, s) + matrix * convolved


def mercer_eigenvalues(n: int, sigma: ArrayLike) -> FloatArray:
    r"""The n largest eigenvalues of C, $\lambda_k = (1-c)q^k$ with $c = \sqrt{1-\sigma^2}$, $q = (1-c)/(1+c)$.

    Args:
        n: How many, >= 1.
        sigma: Standard deviation of the weights, in (0, 1), shape (...).

    Returns:
        Eigenvalues in falling order, shape (..., n).

    Raises:
        ValueError: If an argument is out of range.

    Assumes: large N.
    Source: bordelon2025, Eq. D20. Deviation from print: none.

    Example:
        >>> mercer_eigenvalues(3, 0.6)
        array([0.2       , 0.02222222, 0.00246914])
    """
    n = whole_number("n", n, 1)
    return _laguerre.kernel(n, as_sigma(sigma), 1.0, 0.0)[0]


def mercer_eigenfunctions(n: int, t: ArrayLike, sigma: ArrayLike) -> FloatArray:
    r"""The first n eigenfunctions of C, $\phi_k(t) = \sqrt{2c}\,e^{-ct}L_k(2ct)$, orthonormal on t >= 0.

    Args:
        n: How many, >= 1.
        t: Times >= 0, in membrane times, any shape.
        sigma: Standard deviation of the weights, in (0, 1), any shape that fits.

    Returns:
        Eigenfunctions, shape (..., n).

    Raises:
        ValueError: If an argument is out of range or the shapes do not broadcast.

    Assumes: large N.
    Source: bordelon2025, Eq. D18. Deviation from print: none.

    Example:
        >>> mercer_eigenfunctions(2, [0.0, 1.0], 0.6).round(6)
        array([[ 1.264911,  1.264911],
               [ 0.568361, -0.341017]])
    """
    n = whole_number("n", n, 1)
    times, s = together(t=as_positive("t", t, zero=True), sigma=as_sigma(sigma))
    return _laguerre.functions(n, times, np.sqrt(1 - s**2))


def tangent_kernel_matrix(n: int, sigma: ArrayLike, *, train: Sequence[str] = EVERYTHING) -> FloatArray:
    r"""The tangent kernel between the first n eigenfunctions of C, $K_{nm} = 2\lambda_n\delta_{nm} + [C*C]_{nm}$.

    Args:
        n: Size, >= 1.
        sigma: Standard deviation of all initial weights, in (0, 1), shape (...).
        train: What learns, as in `tangent_kernel`.

    Returns:
        Symmetric tridiagonal matrices, shape (..., n, n), exact entries of the infinite one.

    Raises:
        ValueError: If an argument is out of range.

    Assumes: as `tangent_kernel`.
    Source: bordelon2025, Eqs. D45, D47. Deviation from print: no factors sigma² and sigma⁴.

    Example:
        >>> tangent_kernel_matrix(2, 0.6)
        array([[ 0.425, -0.025],
               [-0.025,  0.075]])
    """
    n = whole_number("n", n, 1)
    diagonal, off = _laguerre.kernel(n, as_sigma(sigma), *as_train(train))
    K = diagonal[..., None] * np.eye(n)  # (..., n, n)
    i = np.arange(n - 1)
    K[..., i, i + 1] = K[..., i + 1, i] = off
    return K


def kernel_trace(sigma: ArrayLike, *, train: Sequence[str] = READOUT) -> FloatArray:
    r"""Integral of the kernel along its diagonal: $\sigma^2/2c$ for C, and $\sigma^4/4c^3$ for C*C.

    Args:
        sigma: Standard deviation of all initial weights, in (0, 1), any shape.
        train: What learns, as in `tangent_kernel`; only the readout by default, so that the kernel is C.

    Returns:
        The sum of the kernel's eigenvalues, of sigma's shape.

    Raises:
        ValueError: If an argument is out of range.

    Assumes: large N.
    Source: bordelon2025, Eqs. D5-D6. Deviation from print: none; the trace of C*C is this library's.

    Example:
        >>> round(float(kernel_trace(0.6)), 9)
        0.225
    """
    vectors, matrix = as_train(train)
    s = as_sigma(sigma)
    c = np.sqrt(1 - s**2)
    return vectors * s**2 / (2 * c) + matrix * s**4 / (4 * c**3)


def learnable_range(sigma: ArrayLike) -> tuple[FloatArray, FloatArray]:
    r"""Decay rates that a readout can learn: $e^{-c_*t}$ has a finite norm if $1 - \sigma < c_* < 1 + \sigma$.

    Args:
        sigma: Standard deviation of the weights, in (0, 1), any shape.

    Returns:
        Both ends of the interval, which do not belong to it. The norm under the full tangent kernel is finite in the
        same interval, but a network that trains W may leave the kernel of its start, so there the interval is a rule
        of thumb for where it need not.

    Raises:
        ValueError: If sigma is out of range.

    Assumes: large N.
    Source: bordelon2025, Eq. D32. Deviation from print: the ends are excluded.

    Example:
        >>> low, high = learnable_range(0.75)
        >>> float(low), float(high)
        (0.25, 1.75)
    """
    s = as_sigma(sigma)
    return 1 - s, 1 + s


def rkhs_norm(
    c_target: ArrayLike, sigma: ArrayLike, *, omega: ArrayLike = 0.0, train: Sequence[str] = READOUT
) -> FloatArray:
    r"""Norm of $e^{-c_*t}\cos\omega t$ that belongs to the kernel: what learning it costs a network that moves little.

    With rates gamma² the weights move by $\gamma\,\|f_* - f_0\|$ in all until such a network has learnt.

    Args:
        c_target: Decay rate > 0, per membrane time, any shape.
        sigma: Standard deviation of all initial weights, in (0, 1), any shape.
        omega: Frequency of an oscillation, in radians per membrane time, any shape.
        train: What learns, as in `tangent_kernel`; only the readout by default.

    Returns:
        The norm (not its square), of the common shape; inf at the edges of the disc |1 - c + i omega| < sigma and
        outside, and where only W learns, which cannot move f(0).

    Raises:
        ValueError: If an argument is out of range or the shapes do not broadcast.

    Assumes: large N.
    Source: bordelon2025, Eqs. D29-D32. Deviation from print: infinite at the edges; in closed form,
        $1/\sqrt{\sigma^2 - (1 - c_*)^2}$; oscillations and other kernels are this library's.

    Example:
        >>> round(float(rkhs_norm(0.5, 0.75)), 6)
        1.788854
        >>> float(rkhs_norm(0.25, 0.75))
        inf
    """
    vectors, matrix = as_train(train)
    turn = real_array("omega", omega, wanted="a finite frequency, for example omega=1.0")
    rate, s, turn = together(c_target=as_positive("c_target", c_target), sigma=as_sigma(sigma), omega=turn)
    z = ((1 - rate) + 1j * turn) / s
    inside = (np.abs(z) < 1) & (vectors > 0)
    z = np.where(inside, z, 0.0)
    squared = (_series(np.abs(z) ** 2 + 0j, vectors, matrix) + _series(z**2, vectors, matrix)).real / (2 * s**2)
    return np.where(inside, np.sqrt(squared), np.inf)


def _times_and_sigma(t1: ArrayLike, t2: ArrayLike, sigma: ArrayLike) -> list[FloatArray]:
    first, second = as_positive("t1", t1, zero=True), as_positive("t2", t2, zero=True)
    return together(t1=first, t2=second, sigma=as_sigma(sigma))


def _scaled(order: int, t1: FloatArray, t2: FloatArray, sigma: FloatArray) -> FloatArray:
    r"""$e^{-t-t'}I_\nu(2\sigma\sqrt{tt'})$, the exponents taken together where they cancel."""
    root = np.sqrt(t1) * np.sqrt(t2)
    return np.exp(-((np.sqrt(t1) - np.sqrt(t2)) ** 2) - 2 * (1 - sigma) * root) * ive(order, 2 * sigma * root)


def _series(x: np.ndarray, vectors: int, matrix: int) -> np.ndarray:
    r"""$\sum_k x^k/(a + bk)$ for complex |x| < 1: the inverse of the kernel's strength at each power of W."""
    if matrix == 0:
        return 1 / (max(vectors, 1) * (1 - x))
    small = np.abs(x) < 0.2
    powers = np.where(small, x, 0.0)[..., None] ** np.arange(24)  # (..., power)
    summed = (powers / (max(vectors, 1) + np.arange(24))).sum(axis=-1)
    x = np.where(small, 0.5, x)
    logarithm = -np.log1p(-x)
    return np.where(small, summed, logarithm / x if vectors < 2 else (logarithm - x) / x**2)
