r"""How a large linear network learns a filter while its tangent kernel stands still.

With the kernel $K$ of `tauflow.theory.mean_field`, learning rates gamma² and the loss
$L = \int_0^\infty (f - f_*)^2dt$ the filter obeys a linear equation (C2),

$$ \frac{df_\tau}{d\tau} = -2K(f_\tau - f_*), \qquad f_\tau = f_* + e^{-2\tau K}(f_0 - f_*) . $$

In the eigenfunctions $\phi_n$ of $C$ the kernel is tridiagonal, so a few of them and one small diagonalisation
$K = V\kappa V^T$ solve it. What lies in the others hardly moves: with $g = f_0 - f_*$ and its first coefficients $g_n$,

$$ f_\tau = f_0 + \sum_n \phi_n\,[(e^{-2\tau K} - 1)\,g]_n , \qquad
   L = |e^{-2\tau K}g_n|^2 + (|g|^2 - |g_n|^2) . $$

**Cutting off at n functions.** Let $K'$ be $K$ without everything beyond the first n. Neither kernel is negative, so
Duhamel's formula $e^{-2\tau K} - e^{-2\tau K'} = -2\int_0^\tau e^{-2(\tau-s)K}(K - K')e^{-2sK'}ds$ bounds the change of
the propagator by $2\tau|K - K'|$ in operator norm. A symmetric matrix has no larger norm than its largest row sum of
absolute values, here at most $\rho_n$, that of $K$ from row n on: the row before has one entry left, which is in
$\rho_n$ by symmetry. Hence the filter is off by at most $2\tau\rho_n|g|$, and the covariance, with a propagator on
either side, by $4\tau\rho_n$ of its norm. $\rho_n$ falls as $nq^n$, and n is chosen so that $4\tau\rho_n$ is below a
tolerance.

**Where a network starts.** $f_0 = v^Te^{At}u/\gamma\sqrt N$ is over networks a Gaussian process of mean 0 with
covariance $\sigma^2C/\gamma^2$. Hence the mean filter, its spread, and, for the squared norm of a Gaussian vector with
mean $\mu = -e^{-2\tau K}f_*$ and covariance $S = e^{-2\tau K}\sigma^2C\,e^{-2\tau K}/\gamma^2$, the loss
$|\mu|^2 + \mathrm{Tr}\,S$ with variance $2\,\mathrm{Tr}\,S^2 + 4\mu^TS\mu$.

**How far the weights move.** $\sum_i|\Delta\theta_i|^2/\eta_i = g^T(1 - e^{-2\tau K})^2K^{-1}g$, which tends to the
squared norm of $f_* - f_0$ that belongs to the kernel. The theory wants this to be small against the weights:
$\gamma/\sqrt N = \gamma_0$ small, and a target that has such a norm.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.linalg import eigh_tridiagonal

from tauflow.analysis.arguments import FloatArray
from tauflow.theory import _filter_expansion, _laguerre
from tauflow.theory._arguments import EVERYTHING, as_positive, as_sigma, as_tau, as_train, together

MOST = 3000
"""Most eigenfunctions that are used; enough up to sigma = 0.9999."""


class FilterFlow(NamedTuple):
    """The filter of a network that learns with a fixed tangent kernel; `...` is the shape of tau.

    Attributes:
        filter: The filter, its mean over networks where no initial filter is given, shape (..., time).
        filter_spread: Its standard deviation over networks; 0 for a given initial filter, shape (..., time).
        loss: The loss, or its mean over networks, shape (...).
        loss_spread: Its standard deviation over networks; 0 for a given initial filter, shape (...).
        movement: Root of the sum over trained weights of (change)²/rate, or its root mean square over networks: with
            rates gamma² the weights have moved by gamma times this, shape (...).
        truncation_error: Bound on the norm of the filter's error from cutting the basis off, shape (...). For a filter
            that is given as a function of time it contains an estimate, the norm of the last quarter of its
            coefficients. Without an initial filter it is the error of the mean; the random part is not in it.
    """

    filter: FloatArray
    filter_spread: FloatArray
    loss: FloatArray
    loss_spread: FloatArray
    movement: FloatArray
    truncation_error: FloatArray


def filter_flow(
    target: Any,
    sigma: float,
    tau: ArrayLike,
    t: ArrayLike,
    *,
    gamma: float = 1.0,
    initial_filter: Callable[[FloatArray], ArrayLike] | Any | None = None,
    train: Sequence[str] = EVERYTHING,
    rates: Mapping[str, float] | None = None,
    tolerance: float = 1e-10,
) -> FilterFlow:
    r"""Filter and loss while learning with a fixed tangent kernel, $f_\tau = f_* + e^{-2\tau K}(f_0 - f_*)$.

    Args:
        target: The filter to be learnt, for example `tauflow.tasks.LeakyIntegrator(0.5)`.
        sigma: Standard deviation of all initial weights, in (0, 1).
        tau: Learning times >= 0, in flow units, shape (...).
        t: Times >= 0, in membrane times, at which to give the filter, shape (time,).
        gamma: Scale of the output, f = v'h/(gamma sqrt(N)).
        initial_filter: f_0 of one network: a function of time such as `network.filter`, a linear system (A, b, c)
            with f_0 = c'exp(At)b, or another target. By default, mean and spread over random networks.
        train: What learns; ("W_out",) is a reservoir, K = C.
        rates: Name -> learning rate of what learns; gamma² for those not named.
        tolerance: Largest `truncation_error` relative to the norm of f_0 - f_*.

    Returns:
        `FilterFlow`.

    Raises:
        ValueError: If an argument is out of range, or the tolerance needs more than 3000 eigenfunctions, as it does
            for sigma within about 1e-4 of 1.

    Assumes: large N with gamma of order 1 (or gamma_0 = gamma/sqrt(N) small), so that the kernel stays the initial one.
    Source: bordelon2025, Eqs. C2, C6. Deviation from print: C2 lacks a factor 2 for the loss (B2); C6 counts
        variances twice; initial filter, spread and movement are this library's.

    Example:
        >>> from tauflow.tasks import LeakyIntegrator
        >>> flow = filter_flow(LeakyIntegrator(0.5), 0.8, [0.0, 1.0, 10.0], [0.0, 1.0], gamma=5.0)
        >>> flow.loss.round(4), flow.filter[-1].round(3)
        (array([1.0137e+00, 2.6800e-02, 1.0000e-04]), array([0.995, 0.608]))
    """
    s, g, learning, times = _checked(sigma, gamma, tau, t)
    modes = _modes(s, float(learning.max(initial=0.0)), tolerance, *_strengths(g, train, rates))
    n = len(modes.values)
    end = _filter_expansion.expand("target", target, 2 * n, modes.c)
    nothing = _filter_expansion.Expansion(np.zeros(2 * n), 0.0, np.zeros_like)
    start = nothing
    if initial_filter is not None:
        start = _filter_expansion.expand("initial_filter", initial_filter, 2 * n, modes.c)
    way = start.coefficients - end.coefficients  # (2n,)
    norm2 = max(start.squared_norm + end.squared_norm - 2 * float(start.coefficients @ end.coefficients), 0.0)
    decay = np.exp(-2 * learning[..., None] * modes.values)  # (..., n)
    along = modes.vectors.T @ way[:n]
    functions = _laguerre.functions(n, times, modes.c) @ modes.vectors  # (time, n)
    filters = start.filter(times) + ((decay - 1) * along) @ functions.T  # (..., time)
    loss = np.sum((decay * along) ** 2, axis=-1) + _beyond(way, norm2, n)
    moved = (1 - decay) ** 2 / np.where(modes.values > 0, modes.values, np.inf)  # (..., n)
    movement2, spread, loss_spread = moved @ along**2, np.zeros_like(filters), np.zeros_like(loss)
    if initial_filter is None:
        G = modes.covariance(s, g)  # (n, n)
        spread, loss_spread = _spread(G, decay, along, functions)
        loss, movement2 = loss + decay**2 @ np.diag(G), movement2 + moved @ np.diag(G)
    error = 2 * learning * modes.beyond * np.sqrt(norm2) + start.error + end.error
    return FilterFlow(filters, spread, loss, loss_spread, np.sqrt(movement2), error)


def _spread(
    G: FloatArray, decay: FloatArray, along: FloatArray, functions: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Standard deviation of filter (..., time) and loss (...) over initial filters whose modes have covariance G."""
    filters = np.einsum("...i,ti,ij,...j,tj->...t", decay, functions, G, decay, functions, optimize=True)
    twice = decay**2
    losses = 2 * np.einsum("...i,ij,...j->...", twice, G**2, twice, optimize=True)
    losses += 4 * np.einsum("...i,ij,...j->...", twice * along, G, twice * along, optimize=True)
    return np.sqrt(np.maximum(filters, 0.0)), np.sqrt(np.maximum(losses, 0.0))


def filter_covariance(
    sigma: float,
    tau: ArrayLike,
    t: ArrayLike,
    *,
    gamma: float = 1.0,
    train: Sequence[str] = EVERYTHING,
    rates: Mapping[str, float] | None = None,
    tolerance: float = 1e-10,
) -> FloatArray:
    r"""Covariance over networks of the filter while learning, $e^{-2\tau K}\sigma^2C\,e^{-2\tau K}/\gamma^2$.

    It does not depend on the target.

    Args:
        sigma: Standard deviation of all initial weights, in (0, 1).
        tau: Learning times >= 0, in flow units, shape (...).
        t: Times >= 0, in membrane times, shape (time,).
        gamma: Scale of the output.
        train: What learns, as in `filter_flow`.
        rates: Learning rates, as in `filter_flow`.
        tolerance: Largest error from cutting the basis off, relative to the covariance.

    Returns:
        Covariances, shape (..., time, time).

    Raises:
        ValueError: As `filter_flow`.

    Assumes: as `filter_flow`.
    Source: bordelon2025, Eq. C2 on the Gaussian process of the initial filter. Deviation from print: as `filter_flow`.

    Example:
        >>> filter_covariance(0.8, [0.0, 10.0], [1.0])[:, 0, 0].round(6)
        array([0.097007, 0.00053 ])
    """
    s, g, learning, times = _checked(sigma, gamma, tau, t)
    modes = _modes(s, float(learning.max(initial=0.0)), tolerance, *_strengths(g, train, rates))
    functions = _laguerre.functions(len(modes.values), times, modes.c) @ modes.vectors  # (time, n)
    left = np.exp(-2 * learning[..., None] * modes.values)[..., None, :] * functions  # (..., time, n)
    return left @ modes.covariance(s, g) @ np.swapaxes(left, -1, -2)


def kernel_spread(sigma: ArrayLike, neurons: ArrayLike) -> FloatArray:
    r"""Relative standard deviation over networks of the kernel C at its first eigenfunction, $\sqrt{2/N}\,(1+c)/2c$.

    Given W, $\phi_0C_N\phi_0 = |Xu|^2/N$ with $X = \sqrt{2c}\,(1 + c - W/\sqrt N)^{-1}$ is quadratic in the Gaussian u;
    its relative variance is $2\,\mathrm{Tr}(X^TX)^2/(\mathrm{Tr}\,X^TX)^2 = 2\beta^2/N$ with $\beta = (1+c)/2c$.
    What W adds is of order 1/N.

    Args:
        sigma: Standard deviation of the weights, in (0, 1), any shape.
        neurons: N >= 1, any shape that fits.

    Returns:
        The relative standard deviation, of the common shape.

    Raises:
        ValueError: If an argument is out of range or the shapes do not broadcast.

    Assumes: leading order in N^-1/2.
    Source: this library, from the traces of schuessler2020, Eqs. 77-80.

    Example:
        >>> round(float(kernel_spread(0.6, 200)), 6)
        0.1125
    """
    s, n = together(sigma=as_sigma(sigma), neurons=as_positive("neurons", neurons))
    c = np.sqrt(1 - s**2)
    return np.sqrt(2 / n) * (1 + c) / (2 * c)


class _Modes(NamedTuple):
    """Eigenvalues (n,) and eigenvectors (n, n) of the kernel, the decay c of the basis, and the row sum beyond it."""

    values: FloatArray
    vectors: FloatArray
    c: float
    beyond: float

    def covariance(self, sigma: float, gamma: float) -> FloatArray:
        """That of the initial filter, between the kernel's eigenvectors, shape (n, n)."""
        eigenvalues = _laguerre.kernel(len(self.values), np.asarray(sigma), 1.0, 0.0)[0]
        return (sigma / gamma) ** 2 * (self.vectors.T * eigenvalues) @ self.vectors


def _modes(sigma: float, last: float, tolerance: float, vectors: float, matrix: float) -> _Modes:
    """The kernel on as many eigenfunctions of C as the tolerance needs up to the last learning time."""
    tolerance = float(as_positive("tolerance", tolerance))
    diagonal, off = _laguerre.kernel(MOST + 2, np.asarray(sigma), vectors, matrix)
    rows = diagonal[:-1] - off - np.concatenate([[0.0], off[:-1]])  # row sums; the off-diagonal is negative
    rows = np.maximum.accumulate(rows[::-1])[::-1]  # (MOST + 1,), the largest from here on
    c = float(np.sqrt(1 - sigma**2))
    powers = 2 * np.arange(MOST + 1) * np.log(sigma / (1 + c))  # log q^n, what is left of the initial filter
    fine = (4 * last * rows <= tolerance) & (powers <= np.log(min(tolerance, 1.0)))
    n = int(np.argmax(fine))
    if not fine.any():
        raise ValueError(
            f"tolerance {tolerance:g} needs more than {MOST} eigenfunctions at sigma = {sigma:.8g} and learning time "
            f"{last:.3g}; take a larger tolerance or a smaller sigma."
        )
    n = max(n, 16)
    values, basis = eigh_tridiagonal(diagonal[:n], off[: n - 1])
    return _Modes(np.maximum(values, 0.0), basis, c, float(rows[n]))


def _strengths(gamma: float, train: Sequence[str], rates: Mapping[str, float] | None) -> tuple[float, float]:
    """How much of C and of C*C is in the kernel: the learning rates of vectors and of W in units of gamma²."""
    as_train(train)
    trained, given = {train} if isinstance(train, str) else set(train), dict(rates or {})
    for name, rate in given.items():
        if name not in trained:
            raise ValueError(f"rates names {name!r}, which is not trained; train is {train!r}.")
        as_positive(f"rates[{name!r}]", rate, zero=True)
    each = {name: float(given.get(name, gamma**2)) / gamma**2 for name in trained}
    return sum(rate for name, rate in each.items() if name != "W"), each.get("W", 0.0)


def _beyond(way: FloatArray, norm2: float, n: int) -> float:
    """Squared norm of what the first n functions leave, without the rounding of a difference where that is all."""
    seen, known = float(way @ way), float(way[n:] @ way[n:])
    return known + (norm2 - seen if norm2 - seen > 1e-13 * norm2 else 0.0)


def _checked(sigma: Any, gamma: Any, tau: ArrayLike, t: ArrayLike) -> tuple[float, float, FloatArray, FloatArray]:
    s, g = as_sigma(sigma), as_positive("gamma", gamma)
    for name, value in (("sigma", s), ("gamma", g)):
        if value.ndim:
            raise ValueError(f"{name} has shape {value.shape}; it must be one number here, for example {name}=0.8.")
    times = as_positive("t", t, zero=True)
    if times.ndim != 1:
        raise ValueError(
            f"t has shape {times.shape}; it must be one-dimensional, for example numpy.linspace(0, 10, 101)."
        )
    return float(s), float(g), as_tau(tau), times
