"""Equations of pellegrino2023 that docs/equations.md gives in a corrected form: that form is right, the print is not.

Done here apart from what the library computes, on networks of a few units: derivatives by central differences, paths by
an adaptive solver. The convention: L is a squared error without a half.
"""

from itertools import combinations

import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.linalg import expm
from scipy.special import gamma

N, D_OUT, T = 5, 2, 1.5
RNG = np.random.default_rng(0)
W = 1.5 * RNG.standard_normal((N, N)) / np.sqrt(N)
D, Y, X0, DRIVE = RNG.standard_normal((D_OUT, N)), RNG.standard_normal(D_OUT), RNG.standard_normal(N), np.ones(N) / 2
TIGHT = {"rtol": 1e-11, "atol": 1e-13, "method": "DOP853"}


def off(found, wanted) -> float:
    """Norm of the deviation as a share of the norm of what is wanted."""
    return float(np.linalg.norm(np.subtract(found, wanted)) / np.linalg.norm(wanted))


def field(x, W=W):
    return W @ np.tanh(x) - x + DRIVE


def slope(x):
    return 1 - np.tanh(x) ** 2


def jacobian(x):
    return W * slope(x) - np.eye(N)


def path(x0=X0, start=0.0, end=T, W=W):
    """The state as a function of time."""
    return solve_ivp(lambda _, x: field(x, W), (start, end), x0, dense_output=True, **TIGHT).sol


def loss(x):
    return float(((D @ np.tanh(x) - Y) ** 2).sum())


def direct(x, factor=2.0):
    return factor * slope(x) * (D.T @ (D @ np.tanh(x) - Y))


def derivative(function, x, step=1e-5):
    """By central differences, shape of x."""
    moves = np.eye(x.size).reshape(x.size, *x.shape) * step
    return np.array([(function(x + h) - function(x - h)) / (2 * step) for h in moves]).reshape(x.shape)


def state_adjoint(t):
    """a(t) = dL/dx(t) by differences of the state at t."""
    return derivative(lambda x: loss(path(x, t, T)(T)), path()(t))


def weight_gradient(integrated=False):
    nodes, weights = np.polynomial.legendre.leggauss(20)
    nodes, weights = T / 2 * (nodes + 1), T / 2 * weights

    def value(W):
        x = path(W=W)
        return weights @ [loss(x(t)) for t in nodes] if integrated else loss(x(T))

    return derivative(value, W)


def swept(sign=1.0, factor=2.0, integrated=False, last=None):
    """Integral of a(t) phi(x(t))ᵀ with the adjoint swept backwards from the end; sign -1 turns its equation round."""
    x = path()

    def back(t, z):
        a = z[:N]
        da = sign * (a - slope(x(t)) * (W.T @ a)) - (direct(x(t), factor) if integrated else 0)
        return np.concatenate([da, -np.outer(a, np.tanh(x(t))).ravel()])

    a = direct(x(T), factor) if last is None else last
    return solve_ivp(back, (T, 0), np.concatenate([a, np.zeros(N * N)]), **TIGHT).y[N:, -1].reshape(N, N)


def test_the_kernel_is_a_mixture_of_gaussian_kernels():
    """A.1: s²(1 + d²/(2l²))⁻¹ mixes exp(-d² q / 2) over q ~ Gamma with mean 1/l²; the print has (2l)⁻¹ d²."""
    length, alpha = 15.0, 1.0
    q, dq = np.linspace(0, 60 / length**2, 200001, retstep=True)
    density = (alpha * length**2) ** alpha * q ** (alpha - 1) * np.exp(-alpha * length**2 * q) / gamma(alpha)
    for d in (1.0, 10.0, 40.0):
        mixed = np.trapezoid(density * np.exp(-(d**2) * q / 2), dx=dq)
        assert 1 / (1 + d**2 / (2 * length**2)) == pytest.approx(mixed, rel=1e-6)
    assert 1 / (1 + 10.0**2 / (2 * length)) < 0.3 * (1 / (1 + 10.0**2 / (2 * length**2))), "as printed"


def test_the_covariance_of_trial_factors():
    """A.1: (L + sigma I) cbar has covariance A + sigma (L + Lᵀ) + sigma² I, and not A + sigma² I."""
    d = np.subtract.outer(np.arange(6), np.arange(6))
    A, sigma = 0.01 / (1 + d**2 / (2 * 15.0**2)), 0.1
    L = np.linalg.cholesky(A + 1e-12 * np.eye(6))
    draws = (L + sigma * np.eye(6)) @ np.random.default_rng(1).standard_normal((6, 200_000))
    wanted = A + sigma * (L + L.T) + sigma**2 * np.eye(6)
    assert off(np.cov(draws), wanted) < 0.01 and off(A + sigma**2 * np.eye(6), wanted) > 0.1


def kruskal(A):
    """Largest k such that every k columns are independent."""
    return max(
        (k for k in range(1, A.shape[1] + 1)
         if all(np.linalg.matrix_rank(A[:, list(pick)]) == k for pick in combinations(range(A.shape[1]), k))),
        default=0,
    )  # fmt: skip


def test_the_condition_of_uniqueness_counts_the_kruskal_rank():
    """A.2: r_a + r_b + r_c <= R - 2 is Kruskal's condition for r = R - k; not for the number of dependent columns."""
    rng, differ = np.random.default_rng(2), 0
    for _ in range(60):
        R = int(rng.integers(2, 5))
        made = [rng.integers(-1, 2, (int(rng.integers(2, 5)), R)).astype(float) for _ in range(3)]
        k = [kruskal(A) for A in made]
        unique = sum(k) >= 2 * R + 2
        assert (sum(R - each for each in k) <= R - 2) == unique
        dependent = [R if np.linalg.matrix_rank(A) < R else 0 for A in made]  # columns in a dependent set, at most
        differ += (sum(dependent) <= R - 2) != unique
    assert differ > 0, "as printed"
    a = np.array([[1.0, 1, 0], [0, 0, 1]])  # two equal columns: the decomposition is not unique
    assert kruskal(a) == 1 and np.linalg.matrix_rank(a) == 2


def test_fixed_points_of_tensor_rank_one():
    """A.2: for tanh and c > 1 three, not two; for the identity at c = 1 one rate is 0, not negative."""
    x = np.linspace(-4, 4, 100_000)
    for c, count in ((1.5, 3), (0.8, 1), (-2.0, 1)):
        g = x - c * np.tanh(x)
        assert (np.sign(g[1:]) != np.sign(g[:-1])).sum() == count
    for c in (0.5, 1.0, 1.5):
        rates = np.linalg.eigvalsh(c / 2 * np.array([[1.0, -1], [-1, 1]]) - np.eye(2))
        np.testing.assert_allclose(rates, sorted([-1.0, c - 1]), atol=1e-15)
    assert not (np.linalg.eigvalsh(0.5 * np.array([[1.0, -1], [-1, 1]]) - np.eye(2)) < -1e-12).all(), "as printed"


def test_scaling_divides_by_the_standard_deviation():
    """B.0.1 divides by the variance."""
    y = np.random.default_rng(3).normal(5, 2.8, 100_000)
    centred = y - y.mean()
    assert (centred / np.sqrt((centred**2).mean())).std() == pytest.approx(1.0)
    assert (centred / (centred**2).mean()).std() == pytest.approx(1 / 2.8, rel=0.01), "as printed"


def test_the_state_adjoint_runs_backwards():
    """D.1.3 lacks dt; D.1.4, D.1.5 and D.1.8 to D.1.11 have the sign of a time that runs backwards."""
    t, h = 0.6, 1e-3
    a, later, x = state_adjoint(t), state_adjoint(t + h), path()(t)
    assert off(later @ (np.eye(N) + h * jacobian(x)), a) < 1e-5
    assert off(later @ (np.eye(N) + jacobian(x)), a) > 0.3, "as printed"
    moved = (later - state_adjoint(t - h)) / (2 * h)
    assert off(-a @ jacobian(x), moved) < 1e-4 and off(a @ jacobian(x), moved) > 1.9


def test_derivatives_of_the_right_side():
    """D.1.14: df_i/dW_jk = delta_ij phi(x)_k; D.1.16: D_ji and the 2 of the square."""
    i, found = 2, np.zeros((N, N))
    for j in range(N):
        for k in range(N):
            h = np.zeros((N, N))
            h[j, k] = 1e-6
            found[j, k] = (field(X0, W + h)[i] - field(X0, W - h)[i]) / 2e-6
    delta = (np.arange(N) == i).astype(float)
    assert off(np.outer(delta, np.tanh(X0)), found) < 1e-8
    assert off(np.outer(np.tanh(X0) * delta, np.ones(N)), found) > 0.5, "phi(x)_j, as printed"
    exact = derivative(loss, X0)
    assert off(direct(X0), exact) < 1e-8 and off(direct(X0, 1.0), exact) == pytest.approx(0.5, abs=1e-6)


def test_the_adjoint_gives_the_gradient():
    """D.1.18: with da/dt = a - phi' (Wᵀa) and the 2."""
    exact = weight_gradient()
    assert off(swept(), exact) < 1e-6
    assert off(swept(sign=-1.0), exact) > 0.3, "the printed sign, read in forward time"
    assert off(swept(factor=1.0), exact) == pytest.approx(0.5, abs=1e-5)


def test_the_adjoint_of_an_integrated_loss():
    """D.3.3 to D.3.5: minus the direct derivative, with the 2, from a(T) = 0."""
    exact = weight_gradient(integrated=True)
    assert off(swept(integrated=True, last=np.zeros(N)), exact) < 1e-6
    assert off(swept(integrated=True, factor=-2.0, last=np.zeros(N)), exact) == pytest.approx(2, abs=1e-5)
    assert off(swept(integrated=True, factor=1.0, last=np.zeros(N)), exact) == pytest.approx(0.5, abs=1e-5)
    x_T = path()(T)
    at_rest = np.linalg.solve(np.eye(N) - W.T * slope(x_T)[:, None], direct(x_T))  # where da/dt(T) = 0, as printed
    assert off(swept(integrated=True, last=at_rest), exact) > 0.3


def test_the_nested_integral_is_the_adjoint():
    """D.3.2, D.3.3 for a linear system: the integral runs from 0 to T; from T to 0 it has the other sign."""
    A = W - np.eye(N)
    t, dt = np.linspace(0, T, 2001, retstep=True)
    weights = np.full(len(t), dt)
    weights[[0, -1]] /= 2
    x = np.stack([expm(A * s) @ X0 for s in t])
    inner = np.stack([expm(A.T * s) @ (2 * D.T @ (D @ each - Y)) for s, each in zip(t, x, strict=True)])
    value = lambda x0: weights @ ((np.stack([expm(A * s) for s in t]) @ x0 @ D.T - Y) ** 2).sum(1)  # noqa: E731
    assert off(weights @ inner, derivative(value, X0)) < 1e-5


def test_courant_fischer_takes_subspaces_of_dimension_n_minus_i_plus_1():
    """D.2.2: with dim U = n - i - 1 the minimum is another singular value."""
    A = np.random.default_rng(4).standard_normal((6, 6))
    _, s, V = np.linalg.svd(A)
    n, i = 6, 2
    least = [np.linalg.svd(A @ V[n - k :].T, compute_uv=False)[0] for k in (n - i + 1, n - i - 1)]
    assert least[0] == pytest.approx(s[i - 1]) and least[1] == pytest.approx(s[i + 1]) and least[1] < 0.9 * s[i - 1]


def test_the_lower_bound_needs_an_injective_adjoint():
    """Theorem 1: a(t) = e₁ sin t, phi(t) = e₁ cos t have the gradient 0, the bound says pi."""
    t, dt = np.linspace(0, 2 * np.pi, 10_000, endpoint=False, retstep=True)
    a, rates = np.sin(t)[:, None], np.cos(t)[:, None]
    smallest, other = (np.sqrt(dt) * np.linalg.norm(each) for each in (a, rates))
    assert abs(dt * (a * rates).sum()) < 1e-10 and smallest * other == pytest.approx(np.pi)
    rng = np.random.default_rng(5)
    A, B = rng.standard_normal((6, 4)), rng.standard_normal((6, 4))  # n x q with q <= n: sigma_q(A) is right
    s, r, g = (np.linalg.svd(each, compute_uv=False) for each in (A, B, A @ B.T))
    assert (g[:4] >= s[-1] * r - 1e-12).all()


def test_the_limit_of_the_singular_values_has_the_step_in_it():
    """D.2.13: sigma(dt A Bᵀ) tends to sigma of the gradient, sigma(A Bᵀ) diverges as 1/dt."""
    exact = np.linalg.svd(swept(), compute_uv=False)[0]
    x, times = path(), [(np.arange(q) + 0.5) * T / q for q in (20, 40)]
    raw = []
    for t in times:
        A = np.stack([adjoint_by_flow(s) for s in t], 1)
        raw.append(np.linalg.svd(A @ np.tanh(x(t)).T, compute_uv=False)[0])
    assert raw[1] * T / 40 == pytest.approx(exact, rel=1e-3)
    assert raw[1] / raw[0] == pytest.approx(2, rel=1e-2) and raw[0] > 5 * exact


def adjoint_by_flow(t):
    x = path()
    return solve_ivp(lambda s, a: a - slope(x(s)) * (W.T @ a), (T, t), direct(x(T)), **TIGHT).y[:, -1]


def test_weights_of_past_gradients_under_momentum():
    """D.3: alpha (1 - beta) beta^(k-j), not (1 - beta)^j."""
    G, beta, M = np.random.default_rng(6).standard_normal((7, 3)), 0.9, np.zeros(3)
    for each in G:
        M = beta * M + (1 - beta) * each
    j = np.arange(7)
    assert off((1 - beta) * beta ** (6 - j) @ G, M) < 1e-14
    assert off((1 - beta) ** j @ G, M) > 0.5, "as printed"


def test_the_bound_under_momentum():
    """D.3: with the right weights and k + 1 terms sigma_(sum i - k) is bounded; the print is violated."""
    beta, k = 0.9, 3
    G = np.stack([np.zeros((3, 3))] * k + [np.diag([1.0, 1.0, 0.0])])
    s = np.linalg.svd(G, compute_uv=False)
    j = np.arange(k + 1)
    weights = (1 - beta) * beta ** (k - j)
    change = np.linalg.svd(np.tensordot(weights, G, 1), compute_uv=False)
    for last in (1, 2, 3):  # i_j = 1 but for the last gradient
        i = np.append(np.ones(k, int), last)
        right = weights @ s[j, i - 1]
        assert change[i.sum() - k - 1] == pytest.approx(right)
    ones = np.ones(k + 1, int)
    assert change[ones.sum() - k + 1 - 1] > 50 * ((1 - beta) ** j @ s[j, 0]), "as printed"
    rng = np.random.default_rng(7)
    for _ in range(100):
        G = rng.standard_normal((k + 1, 6, 6)) * np.exp(rng.normal(0, 2, (k + 1, 1, 6)))
        s, i = np.linalg.svd(G, compute_uv=False), rng.integers(1, 3, k + 1)
        if i.sum() - k <= 6:
            assert (
                np.linalg.svd(np.tensordot(weights, G, 1), compute_uv=False)[i.sum() - k - 1] <= weights @ s[j, i - 1]
            )
