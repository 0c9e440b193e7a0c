"""Equations of bordelon2025 that docs/equations.md gives in a corrected form: that form is right, the print is not.

Everything is done here by quadrature on networks of a few units, apart from what the library computes. The convention:
L is the integral of (f - f*)^2 without a half, and d theta/ds = -eta dL/d theta.
"""

import numpy as np
import pytest
from scipy import special
from scipy.integrate import solve_ivp

from tauflow.theory.mean_field import autocorrelation, tangent_kernel
from tauflow.theory.outlier import alignment, escape_time, flow_field, reduced_flow

NODES, WEIGHTS = np.polynomial.legendre.leggauss(120)
TIMES, WEIGHTS = 25 * (1 + NODES), 25 * WEIGHTS  # on [0, 50]
RATE = 0.3  # c* of the target exp(-c* t)
N = 5


def network():
    rng = np.random.default_rng(0)
    return 0.5 * rng.standard_normal((N, N)), rng.standard_normal(N), rng.standard_normal(N)


def exponentials(A: np.ndarray, t: np.ndarray) -> np.ndarray:
    """exp(At) at all times, (time, n, n)."""
    values, vectors = np.linalg.eig(A)
    made = np.einsum("ij,tj,jk->tik", vectors, np.exp(np.multiply.outer(t, values)), np.linalg.inv(vectors))
    return made.real


def response(W, u, v, kappa, t=TIMES) -> np.ndarray:
    n = len(u)
    return kappa * np.einsum("i,tij,j->t", v, exponentials(W / np.sqrt(n) - np.eye(n), t), u)


def target(t=TIMES) -> np.ndarray:
    return np.exp(-RATE * t)


def loss(W, u, v, kappa) -> float:
    return float(WEIGHTS @ (response(W, u, v, kappa) - target()) ** 2)


def slopes(function, *arguments) -> list[np.ndarray]:
    """Derivatives of a function for each of its array arguments, by central differences."""
    found = []
    for k, x in enumerate(arguments):
        flat = []
        for step in np.eye(x.size).reshape(x.size, *x.shape) * 1e-5:
            up, down = (
                function(*(y + sign * step if i == k else y for i, y in enumerate(arguments))) for sign in (1, -1)
            )
            flat.append((up - down) / 2e-5)
        found.append(np.array(flat).reshape(*x.shape, *np.shape(flat[0])))
    return found


def off(found, wanted) -> float:
    """Norm of the deviation as a share of the norm of what is wanted."""
    return float(np.linalg.norm(np.subtract(found, wanted)) / np.linalg.norm(wanted))


def adjoints(W, u, v, t=TIMES) -> tuple[np.ndarray, np.ndarray]:
    """u(t) and v(t) of Eqs. B8 and B9, (time, n) each."""
    flow = exponentials(W / np.sqrt(len(u)) - np.eye(len(u)), t)
    return flow @ u, np.einsum("tji,j->ti", flow, v)


def test_population_loss():
    """B2: the expected squared error up to T is the integral of (T - t) g^2, which grows with T; L is its rate."""
    rng = np.random.default_rng(0)
    dt, steps, trials = 0.05, 400, 2000
    t = dt * (np.arange(steps) + 0.5)
    g = 0.7 * np.exp(-t) - np.exp(-RATE * t)
    x = rng.standard_normal((trials, steps)) / np.sqrt(dt)
    length = 2 * steps
    error = dt * np.fft.irfft(np.fft.rfft(g, length) * np.fft.rfft(x, length), length)[:, :steps]
    for end in (steps // 2, steps):
        seen = dt * (error[:, :end] ** 2).sum(1)
        exact = dt * np.sum((t[end - 1] - t[:end] + dt) * g[:end] ** 2)
        assert abs(seen.mean() - exact) < 4 * seen.std() / np.sqrt(trials) < 0.1 * exact
        assert seen.mean() > 5 * dt * np.sum(g[:end] ** 2), "as printed"


def test_gradients_carry_a_factor_two():
    """B3, B15, F13 to F15 (and 2, E2): without it they are the gradient of L/2; B12 to B14 are as printed."""
    (W, u, v), kappa = network(), 0.4
    g = response(W, u, v, kappa) - target()
    u_t, v_t = adjoints(W, u, v)
    printed_u, printed_v = kappa * (WEIGHTS * g) @ v_t, kappa * (WEIGHTS * g) @ u_t
    late = response(W, u, v, kappa, np.add.outer(TIMES, TIMES).ravel()) - target(np.add.outer(TIMES, TIMES).ravel())
    both = WEIGHTS[:, None] * WEIGHTS * late.reshape(len(TIMES), -1)
    printed_W = kappa / np.sqrt(N) * np.einsum("st,si,tj->ij", both, v_t, u_t)
    for printed, exact in zip(
        (printed_W, printed_u, printed_v), slopes(lambda *p: loss(*p, kappa), W, u, v), strict=True
    ):
        assert off(2 * printed, exact) < 1e-6
        assert off(printed, exact) == pytest.approx(0.5, abs=1e-6)


def test_derivative_by_the_weights_decays():
    """B7 lacks exp(-t), which B14 has in its adjoints."""
    (W, u, v), kappa, t = network(), 0.4, np.array([0.7, 2.0])
    exact = slopes(lambda W: response(W, u, v, kappa, t), W)[0]
    for k, end in enumerate(t):
        nodes, weights = end / 2 * (1 + NODES), end / 50 * WEIGHTS
        u_t, v_t = adjoints(W, u, v, nodes)
        decaying = kappa / np.sqrt(N) * np.einsum("t,ti,tj->ij", weights, v_t, u_t[::-1])
        assert off(decaying, exact[..., k]) < 1e-6
        assert off(np.exp(end) * decaying, exact[..., k]) > 0.9, "as printed"


def test_filter_under_gradient_flow():
    """C2: df/ds = -2 int (f - f*) K, with the kernel of C3, which C4 gives as printed."""
    (W, u, v), gamma, etas = network(), 1.7, (0.3, 1.1, 0.6)  # of W, u and v
    kappa = 1 / (gamma * np.sqrt(N))
    jacobians = slopes(lambda *p: response(*p, kappa), W, u, v)
    kernel = sum(
        eta * np.tensordot(J.reshape(-1, len(TIMES)), J.reshape(-1, len(TIMES)), (0, 0))
        for eta, J in zip(etas, jacobians, strict=True)
    )
    moved = sum(
        -eta * np.tensordot(G.ravel(), J.reshape(-1, len(TIMES)), 1)
        for eta, G, J in zip(etas, slopes(lambda *p: loss(*p, kappa), W, u, v), jacobians, strict=True)
    )
    printed = -kernel @ (WEIGHTS * (response(W, u, v, kappa) - target()))
    assert off(2 * printed, moved) < 1e-5 and off(printed, moved) > 0.49
    pick = np.array([3, 20])
    t1, t2 = TIMES[pick]
    u_t, v_t = adjoints(W, u, v, TIMES[pick])
    nodes, weights = [t / 2 * (1 + NODES) for t in (t1, t2)], [t / 50 * WEIGHTS for t in (t1, t2)]
    inside = [adjoints(W, u, v, each) for each in nodes]
    overlap_v, overlap_u = inside[0][1] @ inside[1][1].T / N, inside[0][0][::-1] @ inside[1][0][::-1].T / N
    c4 = (etas[1] * v_t[0] @ v_t[1] + etas[2] * u_t[0] @ u_t[1]) / N
    c4 += etas[0] * weights[0] @ (overlap_v * overlap_u) @ weights[1]
    assert c4 / gamma**2 == pytest.approx(kernel[pick[0], pick[1]], rel=1e-6)


def test_correlation_under_white_noise():
    """A10: A12 is the answer to an impulse; white noise from rest gives its integral along the diagonal."""
    n, sigma, end, dt, trials = 100, 0.6, 4.0, 0.05, 300
    rng = np.random.default_rng(4)
    W, u = sigma * rng.standard_normal((n, n)) / np.sqrt(n), sigma * rng.standard_normal(n)
    u *= sigma * np.sqrt(n) / np.linalg.norm(u)
    impulse, h = u.copy(), np.zeros((trials, n))
    for _ in range(round(end / dt)):
        impulse = impulse + dt * (W @ impulse - impulse)
        h = h + dt * (h @ W.T - h) + np.sqrt(dt) * rng.standard_normal((trials, 1)) * u
    nodes, weights = end / 2 * (1 + NODES), end / 50 * WEIGHTS
    white = float(weights @ autocorrelation(nodes, nodes, sigma))
    size, error = (h**2).sum(1) / n, 0.1  # of the step and of one network
    assert abs(size.mean() / white - 1) < error + 3 * size.std() / size.mean() / np.sqrt(trials) < 0.4
    alone = float(autocorrelation(end, end, sigma))
    assert impulse @ impulse / n == pytest.approx(alone, rel=0.4) and size.mean() > 10 * alone, "as printed"


def test_variance_is_counted_once():
    """C5 and C6 at t = t' = 0, where the kernel of any network is (|u|^2 + |v|^2)/N: 2 sigma^2, and not 2 sigma^4."""
    sigma = 0.6
    rng = np.random.default_rng(0)
    u, v = sigma * rng.standard_normal((2, 100_000))
    assert (u @ u + v @ v) / len(u) == pytest.approx(2 * sigma**2, rel=0.02)
    assert float(tangent_kernel(0.0, 0.0, sigma)) == pytest.approx(2 * sigma**2)
    assert float(autocorrelation(0.0, 0.0, sigma)) == pytest.approx(sigma**2)


def test_conserved_matrix():
    """Equal rates keep uu' - vv' + WW' - W'W, because its slope vanishes term by term."""
    (W, u, v), kappa = network(), 0.4
    in_W, in_u, in_v = slopes(lambda *p: loss(*p, kappa), W, u, v)
    change = np.outer(in_u, u) - np.outer(in_v, v) + in_W @ W.T - in_W.T @ W
    assert np.abs(change + change.T).max() < 1e-6 * np.abs(in_W).max()
    assert np.abs((np.outer(in_u, u) - np.outer(in_v, v)) * 2).max() > 0.1 * np.abs(in_W).max(), "not without W"


def test_alignment_rates():
    """2, E2, E3 with eta = N: 2a, and (2/sqrt N) a^2 for W; the print has a and a^2."""
    W, a = 1e-3 * np.diag(np.arange(N)), 1 / (1 + RATE)  # small, with separate eigenvalues
    _, u, v = network()
    slope_W, slope_u, slope_v = (-N * slope for slope in slopes(lambda *p: loss(*p, 1 / N), W, 0.01 * u, 0.01 * v))
    found = 100 * slope_u, 100 * slope_v, 10_000 * slope_W
    right = 2 * a * v, 2 * a * u, 2 / np.sqrt(N) * a**2 * np.outer(v, u)
    printed = a * v, a * u, a**2 * np.outer(v, u)
    for each, wanted, other in zip(found, right, printed, strict=True):
        assert off(wanted, each) < 0.005 and off(other, each) > 0.1


def test_solution_of_the_alignment():
    """E4 to E6: rates 2a, and 4a for W; by integration of the equations that the test before this one checks."""
    (W, u, v), a, end = network(), 1 / (1 + RATE), 0.8

    def slope(_, y):
        return np.concatenate([2 * a * y[N : 2 * N], 2 * a * y[:N], (2 * a**2 * np.outer(y[N : 2 * N], y[:N])).ravel()])

    y = solve_ivp(slope, (0, end), np.concatenate([u, v, np.zeros(N * N)]), "DOP853", rtol=1e-11, atol=1e-13).y[:, -1]
    found = alignment(u, v, W, RATE, end)
    np.testing.assert_allclose(np.concatenate([found.u, found.v]), y[: 2 * N], rtol=1e-8)
    np.testing.assert_allclose(np.sqrt(N) * (found.W - W), y[2 * N :].reshape(N, N), rtol=1e-8)
    plus, minus = (u + v) / 2, (u - v) / 2
    assert off(plus * np.exp(2 * a * end) + minus * np.exp(-2 * a * end), found.u) < 1e-10
    assert off(plus * np.exp(a * end) + minus * np.exp(-a * end), found.u) > 0.2, "as printed"
    both = alignment(plus, plus, W, RATE, end).W
    grown = np.outer(plus, plus) / np.sqrt(N)
    assert off(a / 2 * np.expm1(4 * a * end) * grown, both - W) < 1e-10
    assert off(a / 2 * np.expm1(2 * a * end) * np.sqrt(N) * grown, both - W) > 0.2, "as printed"


def test_start_and_escape():
    """E7 and E8 on one large random network: u_+ has the length sigma sqrt(N/2), and W0 no part along it."""
    n, sigma, a = 1000, 0.3, 1 / (1 + RATE)
    rng = np.random.default_rng(5)
    W, u, v = sigma * rng.standard_normal((n, n)), *(sigma * rng.standard_normal((2, n)))
    plus = (u + v) / 2
    length = np.linalg.norm(plus) / np.sqrt(n)
    start = reduced_flow(0.0, sigma, RATE)
    assert float(start.u) == pytest.approx(length, rel=0.1) and abs(sigma / length - 1) > 0.3
    along = plus @ W @ plus / np.sqrt(n) / (plus @ plus)
    assert float(start.c) == pytest.approx(1 - along, abs=5 * sigma / np.sqrt(n)) and along < sigma / 3

    def outlier(time):
        return a / 2 * np.expm1(4 * a * time) * length**2

    assert outlier(float(escape_time(RATE, sigma))) == pytest.approx(sigma, rel=0.1)
    assert outlier(np.log1p(2 / (a * sigma)) / (2 * a)) > 2 * sigma, "as printed"


def test_fixed_point_is_stable_and_stiff():
    """The Jacobian of 4 at u = 1, c = c*, and the way to it: c falls from 1, where the text lets it grow."""

    def field(u, c):
        return np.array(flow_field(u, c, RATE))

    h = 1e-6
    jacobian = np.stack([field(1 + h, RATE) - field(1 - h, RATE), field(1.0, RATE + h) - field(1.0, RATE - h)], 1)
    wanted = [[-2 / RATE, 1 / (2 * RATE**2)], [1 / RATE**2, -1 / (2 * RATE**3)]]
    np.testing.assert_allclose(jacobian / (2 * h), wanted, rtol=1e-6)
    assert np.linalg.det(wanted) == pytest.approx(1 / (2 * RATE**4)) and np.trace(wanted) < 0
    path = reduced_flow(np.linspace(0, 40, 200), 0.1, RATE)
    assert (np.diff(path.c) < 1e-9).all() and path.c[0] == 1 and path.c[-1] == pytest.approx(RATE)


def aligned(u, v, c, direction):
    """E8: the network in which all weights lie along one direction."""
    return np.sqrt(N) * (1 - c) * np.outer(direction, direction), np.sqrt(N) * u * direction, np.sqrt(N) * v * direction


@pytest.mark.parametrize("gamma0", [0.5, 2.0])
def test_flow_of_the_aligned_network(gamma0):
    """E9 to E19 from the gradient of the full network: E11, E13 and E15 as corrected; E12 and E10 as printed."""
    u, v, c, direction = 1.3, 0.8, 0.6, np.array([0.5, 0.5, -0.5, 0.5, 0.0])
    W, full_u, full_v = aligned(u, v, c, direction)
    kappa, eta = 1 / (gamma0 * N), gamma0**2 * N
    e10 = u**2 * v**2 / (2 * c * gamma0**2) - 2 * u * v / ((c + RATE) * gamma0) + 1 / (2 * RATE)
    assert loss(W, full_u, full_v, kappa) == pytest.approx(e10, rel=1e-5)
    in_W, in_u, in_v = (-eta * slope for slope in slopes(lambda *p: loss(*p, kappa), W, full_u, full_v))
    found = [in_u @ direction / np.sqrt(N), in_v @ direction / np.sqrt(N), -direction @ in_W @ direction / np.sqrt(N)]
    right = [
        2 * gamma0 * v / (c + RATE) - u * v**2 / c,
        2 * gamma0 * u / (c + RATE) - u**2 * v / c,
        u**2 * v**2 / (2 * c**2) - 2 * gamma0 * u * v / (c + RATE) ** 2,
    ]
    np.testing.assert_allclose(found, right, rtol=1e-5)
    assert off(in_u, found[0] * np.sqrt(N) * direction) < 1e-5, "nothing leaves the direction"
    printed_v = 2 * gamma0 * u / (c + RATE) - u**2 * v / (gamma0 * c)
    printed_c = u**2 * v**2 / (2 * c**2) - 2 * gamma0 * u * v / (c + RATE)
    assert off(printed_v, found[1]) > 0.1 and off(printed_c, found[2]) > 0.1
    e11 = [2 * eta / (np.sqrt(N) * gamma0) * (v / (c + RATE) - v**2 * u / (2 * c * g)) for g in (gamma0, 1.0)]
    assert e11[0] == pytest.approx(in_u @ direction, rel=1e-5) and abs(e11[1] - e11[0]) > 0.2 * abs(e11[0])
    assert u * found[0] == pytest.approx(v * found[1], rel=1e-5), (
        "u^2 - v^2 is conserved; with the printed E15 it is not"
    )
    assert abs(u * found[0] - v * printed_v) > 0.2 * abs(u * found[0])


def test_outlier_is_divided_by_the_root_of_n():
    """Caption of Fig. 1b: v'Wu/(|v||u|) is sqrt(N) times the outlier of W/sqrt(N)."""
    direction = np.array([0.5, 0.5, -0.5, 0.5, 0.0])
    W, u, v = aligned(1.0, 1.0, 0.2, direction)
    outlier = np.abs(np.linalg.eigvals(W / np.sqrt(N))).max()
    printed = v @ W @ u / np.linalg.norm(u) / np.linalg.norm(v)
    assert printed / np.sqrt(N) == pytest.approx(outlier) and printed > 2 * outlier


def test_edges_of_the_reservoir():
    """D23 with r below 0, and D31, D32: at c* = 1 -+ sigma the ratio r^2/q is 1, so the norm of D29 diverges there."""
    sigma = 0.6
    c = np.sqrt(1 - sigma**2)
    q = (1 - c) / (1 + c)
    for edge in (1 - sigma, 1 + sigma):
        assert ((edge - c) / (edge + c)) ** 2 / q == pytest.approx(1, rel=1e-12)
    x, slow = np.linspace(0, 6, 7), 0.5
    r = (slow - c) / (slow + c)
    assert r < 0  # outside the range that the print gives
    series = sum(r**n * special.eval_laguerre(n, x) for n in range(200))
    np.testing.assert_allclose(series, np.exp(-r * x / (1 - r)) / (1 - r), rtol=1e-10)
    assert off(sum(q**n * special.eval_laguerre(n, x) for n in range(200)), series) > 0.2, "as printed"


# ---------------------------------------------------------------------------------- the oscillator


def test_warm_start_needs_the_identity():
    """F2: -I + W/sqrt N has the bulk around -1, not around 0; W/sqrt N then has the eigenvalues 1 + lambda."""
    n, sigma, outlier = 200, 0.3, -0.1 + 1.0j
    rng = np.random.default_rng(1)
    pair = np.linalg.qr(rng.standard_normal((n, 2)))[0]
    z = (pair[:, 0] + 1j * pair[:, 1]) / np.sqrt(2)
    np.testing.assert_allclose([z.conj() @ z, z @ z], [1, 0], atol=1e-12)  # F3
    bulk = sigma * rng.standard_normal((n, n)) / np.sqrt(n)
    plane = np.outer(z, z.conj())
    printed = bulk + 2 * (outlier * plane).real
    right = bulk - np.eye(n) + 2 * ((1 + outlier) * plane).real
    np.testing.assert_allclose(right, printed - np.eye(n) + 2 * plane.real, atol=1e-12)
    with_print, with_right = (np.linalg.eigvals(A) for A in (printed, right))
    assert with_print.real.max() > 0.1, "unstable"
    pairs = with_right[np.argsort(with_right.real)[-2:]]
    assert abs(pairs[pairs.imag > 0][0] - outlier) < 4 * sigma / np.sqrt(n) + 0.1
    assert np.sort(with_right.real)[-3] < -1 + 1.2 * sigma
    clean = np.linalg.eigvals(2 * ((1 + outlier) * plane).real)
    assert np.abs(clean - (1 + outlier)).min() < 1e-12 and np.abs(clean - outlier).min() > 0.9


def test_filter_of_the_planted_pair():
    """F3 to F7: without a bulk f = |u||v| exp(-ct) cos(wt + phi_u - phi_v)."""
    rng = np.random.default_rng(6)
    pair = np.linalg.qr(rng.standard_normal((N, 2)))[0]
    z, c, omega, u, v = (pair[:, 0] + 1j * pair[:, 1]) / np.sqrt(2), 0.2, 0.9, 0.7 - 0.4j, -0.3 + 0.8j
    W = np.sqrt(N) * 2 * ((1 - c + 1j * omega) * np.outer(z, z.conj())).real
    full_u, full_v = (np.sqrt(N) * np.sqrt(2) * (x * z).real for x in (u, v))
    wanted = np.abs(u * v) * np.exp(-c * TIMES) * np.cos(omega * TIMES + np.angle(u) - np.angle(v))
    np.testing.assert_allclose(response(W, full_u, full_v, 1 / N), wanted, atol=1e-10)
    assert np.abs(response(W, full_v, full_u, 1 / N) - wanted).max() > 0.1, "the sign of the phase matters"


def test_adjoints_in_the_plane():
    """F16: both carry sqrt N, and the second starts from v."""
    rng = np.random.default_rng(2)
    plane = np.linalg.qr(rng.standard_normal((N, 2)))[0].T  # (2, n), the paper's Pi
    M, u, v = np.array([[-0.4, 0.8], [-0.5, -0.2]]), np.array([0.7, -0.3]), np.array([0.2, 0.9])
    W = np.sqrt(N) * plane.T @ (M + np.eye(2)) @ plane
    u_t, v_t = adjoints(W, np.sqrt(N) * plane.T @ u, np.sqrt(N) * plane.T @ v, TIMES[:40])
    small = exponentials(M, TIMES[:40])
    assert off(np.sqrt(N) * small @ u @ plane, u_t) < 1e-12 and off(small @ u @ plane, u_t) > 0.5
    back = np.einsum("tji,j->ti", small, v)
    assert off(np.sqrt(N) * back @ plane, v_t) < 1e-12
    assert off(np.sqrt(N) * np.einsum("tji,j->ti", small, u) @ plane, v_t) > 0.5, "as printed, from u"


def test_read_in_and_readout_of_the_small_network_part():
    """5 takes one vector for both; F17 keeps eight numbers, whose plain flow is that of the full network."""

    def small_loss(u, v, M):
        return float(WEIGHTS @ (np.einsum("i,tij,j->t", v, exponentials(M, TIMES), u) - target()) ** 2)

    M, u, v = np.array([[-0.4, 0.8], [-0.5, -0.2]]), np.array([0.7, -0.3]), np.array([0.2, 0.9])
    in_u, in_v, in_M = (-slope for slope in slopes(small_loss, u, v, M))
    plane = np.linalg.qr(np.random.default_rng(2).standard_normal((N, 2)))[0].T
    W = np.sqrt(N) * plane.T @ (M + np.eye(2)) @ plane
    full = slopes(lambda *p: loss(*p, 1 / N), W, np.sqrt(N) * plane.T @ u, np.sqrt(N) * plane.T @ v)
    full_W, full_u, full_v = (-N * slope / np.sqrt(N) for slope in full)
    np.testing.assert_allclose(plane @ full_W @ plane.T, in_M, rtol=1e-4)
    np.testing.assert_allclose([plane @ full_u, plane @ full_v], [in_u, in_v], rtol=1e-4)
    assert off(plane.T @ plane @ full_W @ plane.T @ plane, full_W) < 1e-6, "the plane is closed"
    same_u, same_v, _ = slopes(small_loss, u, u, M)
    assert off(same_u, same_v) > 0.2, "equal vectors part at once"
