"""Autocorrelation and tangent kernel of random linear networks: against networks, other routes and exact cases."""

from decimal import Decimal, localcontext
from fractions import Fraction
from functools import cache
from math import comb

import numpy as np
import pytest
from scipy.integrate import dblquad, quad
from scipy.special import factorial

from tauflow.theory import _laguerre, mean_field
from tauflow.theory.mean_field import (
    autocorrelation,
    kernel_trace,
    learnable_range,
    mercer_eigenfunctions,
    mercer_eigenvalues,
    rkhs_norm,
    tangent_kernel,
    tangent_kernel_matrix,
)

SIGMAS = (0.5, 0.8, 0.98)
SUBSETS = (("W",), ("W_in",), ("W_out",), ("W_in", "W_out"), ("W", "W_in"), ("W", "W_in", "W_out"))
TIMES = np.array([0.0, 0.3, 1.0, 2.5, 4.0])
NULLS = {
    "nothing": lambda f: lambda t1, t2, s, **k: 0 * f(t1, t2, s, **k),
    "wrong sign": lambda f: lambda t1, t2, s, **k: -f(t1, t2, s, **k),
    "variance counted twice": lambda f: lambda t1, t2, s, **k: s**2 * f(t1, t2, s, **k),
    "rate 2% off": lambda f: lambda t1, t2, s, **k: f(1.02 * np.asarray(t1), t2, s, **k),
}


def rejects(check, function, nulls=tuple(NULLS)):
    """The check passes for the theory, and fails for each of the planted nulls."""
    check(function)
    for name in nulls:
        with pytest.raises(AssertionError):
            check(NULLS[name](function))
            pytest.fail(f"the check lets through: {name}")


def series(t1, t2, sigma, weight):
    """Sum over the powers k of W of weight(k) sigma^(2k+2) e_k(t1) e_k(t2), term by term."""
    k = np.arange(60)
    terms = weight(k) * sigma ** (2 * k + 2) * (t1 * t2) ** k.astype(float) / factorial(k) ** 2
    return np.exp(-t1 - t2) * terms.sum()


def goursat(sigma, end, steps):
    """(1 + d)(1 + d')C = sigma^2 C from C(t, 0) = C(0, t) = sigma^2 e^-t, by the box scheme, at (end, end)."""
    h = end / steps
    G = np.full((steps + 1, steps + 1), sigma**2)  # e^(t + t') C
    a = sigma**2 * h**2 / 4
    for i in range(steps):
        for j in range(steps):
            G[i + 1, j + 1] = ((1 + a) * (G[i + 1, j] + G[i, j + 1]) + (a - 1) * G[i, j]) / (1 - a)
    return np.exp(-2 * end) * G[-1, -1]


def test_autocorrelation_solves_its_equation_at_the_order_of_the_scheme():
    steps = np.array([20, 40, 80])
    found = np.array([goursat(0.8, 3.0, n) for n in steps])

    def check(C):
        error = np.abs(found - C(3.0, 3.0, 0.8))
        assert abs(np.polyfit(np.log(steps), np.log(error), 1)[0] + 2) < 0.1

    rejects(check, autocorrelation)


@pytest.mark.parametrize("sigma", SIGMAS)
def test_both_kernels_are_their_power_series(sigma):
    def check_C(C):
        for t1, t2 in ((0.0, 0.0), (0.0, 2.0), (1.0, 3.0), (5.0, 5.0)):
            np.testing.assert_allclose(C(t1, t2, sigma), series(t1, t2, sigma, lambda k: 1.0), rtol=1e-13)

    def check_K(K):
        for t1, t2 in ((0.5, 0.5), (1.0, 3.0), (5.0, 5.0)):
            for train in SUBSETS:
                a, b = len(set(train) - {"W"}), int("W" in train)
                wanted = series(t1, t2, sigma, lambda k, a=a, b=b: a + b * k)
                np.testing.assert_allclose(K(t1, t2, sigma, train=train), wanted, rtol=1e-13)

    rejects(check_C, autocorrelation)
    rejects(check_K, tangent_kernel)


def test_exact_cases_and_far_times():
    t = np.linspace(0, 5, 11)
    np.testing.assert_allclose(autocorrelation(t, 0.0, 0.7), 0.49 * np.exp(-t), rtol=1e-14)
    np.testing.assert_allclose(autocorrelation(0.0, t, 0.7, sigma_u=0.2), 0.04 * np.exp(-t), rtol=1e-14)
    np.testing.assert_allclose(tangent_kernel(t, 0.0, 0.7), 0.98 * np.exp(-t), rtol=1e-14)
    far = np.array([1e3, 1e5])
    leading = 0.99**2 * np.exp(-0.02 * far) / np.sqrt(4 * np.pi * 0.99 * far)
    np.testing.assert_allclose(autocorrelation(far[0], far[0], 0.99), leading[0], rtol=1e-4)
    assert autocorrelation(far[1], far[1], 0.99) == 0.0 and np.isfinite(tangent_kernel(far, far, 1 - 1e-9)).all()
    np.testing.assert_allclose(
        autocorrelation(t, 1.0, 0.7, sigma_u=0.2), autocorrelation(t, 1.0, 0.7) * (0.2 / 0.7) ** 2, rtol=1e-14
    )


def test_the_convolution_is_that_of_quadrature():
    def inner(y, x, C):
        return C(x, y, 0.8) * C(1.3 - x, 2.7 - y, 0.8)

    wanted = dblquad(inner, 0, 1.3, 0, 2.7, args=(autocorrelation,), epsabs=1e-11, epsrel=1e-11)[0]

    def check(K):
        np.testing.assert_allclose(K(1.3, 2.7, 0.8, train=("W",)), wanted, rtol=1e-9)

    rejects(check, tangent_kernel)


def states(W, start, powers):
    """W^k start for k below `powers`, shape (power, n)."""
    rows = [start]
    for _ in range(powers - 1):
        rows.append(W @ rows[-1])
    return np.array(rows)


def monomials(t, powers):
    """e^-t t^k / k!, shape (time, power)."""
    k = np.arange(powers)
    return np.exp(-t[:, None]) * t[:, None] ** k / factorial(k)


@cache
def sampled(n, networks, sigma=0.8, powers=45):
    """C from u, and K of all three parts, of random networks at TIMES, shape (network, time, time) each."""
    rng = np.random.default_rng(n)
    e, hankel = monomials(TIMES, powers), np.add.outer(np.arange(powers), np.arange(powers)) + 1
    C, K = [], []
    for _ in range(networks):
        W = sigma * rng.standard_normal((n, n)) / np.sqrt(n)
        u, v = sigma * rng.standard_normal((2, n))
        U, V = states(W, u, powers), states(W.T, v, powers)  # (power, n)
        GU, GV = U @ U.T / n, V @ V.T / n  # (power, power)
        C.append(e @ GU @ e.T)
        # df/dW is sum_jl e_(j+l+1) V_j U_l^T, and its product with itself a trace of small matrices
        D = np.where(hankel < powers, e[:, np.minimum(hankel, powers - 1)], 0.0)  # (time, power, power)
        part = np.einsum("sjl,jk,tkm,lm->st", D, GV, D, GU, optimize=True)
        K.append(e @ (GU + GV) @ e.T + part)
    return np.array(C), np.array(K)


def test_the_sampled_kernel_is_that_of_the_jacobian():
    n, powers, rng = 12, 45, np.random.default_rng(0)
    W, u, v = 0.8 * rng.standard_normal((n, n)) / np.sqrt(n), *(0.8 * rng.standard_normal((2, n)))
    e = monomials(TIMES, powers)

    def f(theta):  # gamma = 1; J is W/sqrt(n)
        J, a, b = theta[: n * n].reshape(n, n), theta[n * n : n * n + n], theta[n * n + n :]
        return e @ (states(J, a, powers) @ b) / np.sqrt(n)

    theta, h = np.concatenate([W.ravel(), u, v]), 1e-5
    jacobian = np.array([(f(theta + h * d) - f(theta - h * d)) / (2 * h) for d in np.eye(theta.size)]).T
    jacobian[:, : n * n] /= np.sqrt(n)  # per entry of W
    U, V = states(W, u, powers), states(W.T, v, powers)
    hankel = np.add.outer(np.arange(powers), np.arange(powers)) + 1
    D = np.where(hankel < powers, e[:, np.minimum(hankel, powers - 1)], 0.0)
    part = np.einsum("sjl,jk,tkm,lm->st", D, V @ V.T / n, D, U @ U.T / n, optimize=True)
    np.testing.assert_allclose(jacobian @ jacobian.T, e @ (U @ U.T + V @ V.T) @ e.T / n + part, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("which", (0, 1))
def test_large_networks_have_these_kernels(which):
    """Means within their standard error, and a variance over networks that falls as 1/N."""
    sizes, networks = np.array([40, 80, 160, 320]), 60
    found = [sampled(int(n), networks)[which] for n in sizes]
    variance = [x.var(axis=0, ddof=1)[1:, 1:].mean() for x in found]
    assert abs(np.polyfit(np.log(sizes), np.log(variance), 1)[0] + 1) < 0.3

    def check(kernel):
        predicted = kernel(TIMES[:, None], TIMES, 0.8)
        error = found[-1].std(axis=0, ddof=1) / np.sqrt(networks)
        assert (np.abs(found[-1].mean(axis=0) - predicted) < 3.5 * error).all()

    rejects(check, (autocorrelation, tangent_kernel)[which], ("nothing", "wrong sign", "variance counted twice"))


@pytest.mark.parametrize("sigma", SIGMAS)
def test_eigenvalues_are_those_of_a_quadrature_rule(sigma):
    x, w = np.polynomial.laguerre.laggauss(150)
    decay = 1.25 * np.sqrt(1 - sigma**2)  # not that of the eigenfunctions
    t, root = x / (2 * decay), np.sqrt(w * np.exp(x) / (2 * decay))
    found = np.linalg.eigvalsh(root[:, None] * autocorrelation(t[:, None], t, sigma) * root)[::-1]

    def check(eigenvalues):
        wanted = eigenvalues(40, sigma)
        large = wanted > 1e-6 * wanted[0]
        np.testing.assert_allclose(wanted, found[:40], atol=1e-6 * wanted[0])
        np.testing.assert_allclose(wanted[large], found[:40][large], rtol=1e-6)

    check(mercer_eigenvalues)
    for wrong in (lambda n, s: s**2 * mercer_eigenvalues(n, s), lambda n, s: mercer_eigenvalues(n, 1.001 * s)):
        with pytest.raises(AssertionError):
            check(wrong)


@pytest.mark.parametrize("sigma", SIGMAS)
def test_eigenfunctions_are_orthonormal_and_diagonalise(sigma):
    n, c = 8, np.sqrt(1 - sigma**2)
    t, w = _laguerre.panels(np.linspace(0, 60 / c, 121), 16)
    phi = mercer_eigenfunctions(n, t, sigma)  # (node, n)
    np.testing.assert_allclose(phi.T @ (w[:, None] * phi), np.eye(n), atol=1e-12)
    image = autocorrelation(TIMES[:, None], t, sigma) @ (w[:, None] * phi)
    np.testing.assert_allclose(image, mercer_eigenvalues(n, sigma) * mercer_eigenfunctions(n, TIMES, sigma), atol=1e-12)


@pytest.mark.parametrize("train", [("W",), ("W_out",), ("W", "W_in", "W_out")])
def test_the_matrix_holds_the_kernel_between_eigenfunctions(train):
    n, sigma = 6, 0.7
    t, w = _laguerre.panels(np.linspace(0, 48, 33), 8)
    phi = w[:, None] * mercer_eigenfunctions(n, t, sigma)

    def check(K):
        wanted = tangent_kernel_matrix(n, sigma, train=train)
        np.testing.assert_allclose(phi.T @ K(t[:, None], t, sigma, train=train) @ phi, wanted, atol=1e-11)

    rejects(check, tangent_kernel)


@pytest.mark.parametrize("sigma", SIGMAS)
@pytest.mark.parametrize("train", SUBSETS)
def test_the_trace_is_the_integral_along_the_diagonal(sigma, train):
    whole = quad(lambda t: float(tangent_kernel(t, t, sigma, train=train)), 0, np.inf, epsabs=1e-11, limit=400)[0]
    np.testing.assert_allclose(kernel_trace(sigma, train=train), whole, rtol=1e-7)
    np.testing.assert_allclose(kernel_trace(0.8, train=train), np.trace(tangent_kernel_matrix(200, 0.8, train=train)))


def test_laguerre_functions_far_beyond_the_range_of_exp():
    """At x = 4000 the exponential underflows and the polynomial overflows, but not their product."""

    def exact(k, x):
        polynomial = sum(Fraction((-1) ** j * comb(k, j) * x**j, factorial(j, exact=True)) for j in range(k + 1))
        with localcontext() as context:
            context.prec = 60
            return float(Decimal(polynomial.numerator) / Decimal(polynomial.denominator) * (Decimal(-x) / 2).exp())

    x, degrees = (1, 30, 4000), (3, 100, 1100)
    found = np.array(list(_laguerre.walk(1101, np.array(x, float))))[list(degrees)]
    wanted = [[exact(k, y) for y in x] for k in degrees]
    np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-13)


def test_norm_is_that_of_the_printed_series_and_of_the_kernel_matrix():
    """D29 as printed, and a^T K^-1 a with coefficients in the eigenfunctions, which must converge to it."""
    sigma, c_target, n = 0.8, 0.5, 60
    c = np.sqrt(1 - sigma**2)
    q, r = (1 - c) / (1 + c), (c_target - c) / (c_target + c)
    printed = (1 - r) ** 2 / (sigma**2 * (1 - q) * (1 - r**2 / q))
    np.testing.assert_allclose(rkhs_norm(c_target, sigma) ** 2, printed, rtol=1e-13)
    a = (1 - r) / np.sqrt(2 * c) * r ** np.arange(n)

    def check(norm, train):
        by_matrix = a @ np.linalg.solve(tangent_kernel_matrix(n, sigma, train=train), a)
        np.testing.assert_allclose(norm(c_target, sigma, train=train) ** 2, by_matrix, rtol=1e-9)

    for train in SUBSETS[1:]:
        check(rkhs_norm, train)
        with pytest.raises(AssertionError):
            check(lambda c, s, **kwargs: rkhs_norm(1.02 * c, s, **kwargs), train)


@pytest.mark.parametrize("train", SUBSETS[1:])
@pytest.mark.parametrize(("c_target", "omega", "sigma"), [(1.0, 0.0, 0.5), (0.6, 0.5, 0.9), (1.05, 0.2, 0.7)])
def test_norm_is_its_sum_over_powers(c_target, omega, sigma, train):
    a, b = len(set(train) - {"W"}), int("W" in train)
    k = np.arange(4000)
    with np.errstate(under="ignore"):
        z = (((1 - c_target) + 1j * omega) / sigma) ** k
    wanted = np.sqrt(np.sum(z.real**2 / (a + b * k))) / sigma
    np.testing.assert_allclose(rkhs_norm(c_target, sigma, omega=omega, train=train), wanted, rtol=1e-12)


@pytest.mark.parametrize("train", [("W_out",), ("W", "W_in", "W_out")])
def test_the_norm_is_finite_only_inside_the_open_range(train):
    low, high = learnable_range(0.75)
    assert (low, high) == (0.25, 1.75)
    edges = np.array([low, high, 0.1, 2.0])
    assert np.isinf(rkhs_norm(edges, 0.75, train=train)).all()
    inside = rkhs_norm(np.array([low + 1e-9, 1.0, high - 1e-9]), 0.75, train=train)
    assert np.isfinite(inside).all() and inside[0] > 2 * inside[1] and inside[2] > 2 * inside[1]
    assert np.isinf(rkhs_norm(1.0, 0.75, omega=0.75)) and np.isfinite(rkhs_norm(1.0, 0.75, omega=0.74))
    assert np.isinf(rkhs_norm(1.0, 0.75, train=("W",)))


@pytest.mark.parametrize("train", ["W_rec", (), ("W", "W"), None])
def test_what_is_trained_must_be_known(train):
    for call in (mean_field.tangent_kernel_matrix, mean_field.kernel_trace):
        arguments = (3, 0.5) if call is mean_field.tangent_kernel_matrix else (0.5,)
        with pytest.raises(ValueError, match=r"train is .*'W', 'W_in' and 'W_out', each once"):
            call(*arguments, train=train)


def test_a_second_standard_deviation_is_checked():
    with pytest.raises(ValueError, match=r"sigma_u is -1.0; it must be"):
        autocorrelation(1.0, 1.0, 0.5, sigma_u=-1.0)
    with pytest.raises(ValueError, match=r"sigma_u \(3,\)"):
        autocorrelation([1.0, 2.0], 1.0, 0.5, sigma_u=[0.1, 0.2, 0.3])
