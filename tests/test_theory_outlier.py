"""The outlier's dynamics: against flows of whole networks, exact cases, other routes, and the printed forms."""

import numpy as np
import pytest
from scipy.integrate import quad, solve_ivp

import filter_flow
from tauflow.tasks import LeakyIntegrator
from tauflow.theory import outlier
from tauflow.theory.effective_network import dress, effective_flow, project
from tauflow.theory.outlier import (
    alignment,
    clamped_rate,
    escape_time,
    flow_field,
    reduced_flow,
    reduced_loss,
)

SIGMAS = np.array([0.04, 0.02, 0.01])
TIMES = np.linspace(0.0, 3.0, 13)


# ----------------------------------------------------------------------------------------------- alignment and escape


@pytest.fixture(scope="module")
def early():
    """Whole networks of 30 neurons that differ in sigma alone, followed to tau = 0.8."""
    a, b, G = filter_flow.random_network(30)
    times = np.array([0.0, 0.8])
    flows = [filter_flow.full_flow(s * a, s * b, s * G, LeakyIntegrator(0.3), times) for s in SIGMAS]
    return a, b, G, [(u[-1] / s, v[-1] / s, (M[-1] - M[0]) / s**2) for s, (u, v, M) in zip(SIGMAS, flows, strict=True)]


def errors_of_alignment(early, predict):
    """How far u/sigma, v/sigma and the change of M over sigma² are off, shape (3, sigma)."""
    a, b, G, found = early
    root, off = np.sqrt(30), []
    for s, truth in zip(SIGMAS, found, strict=True):
        late = predict(s * root * a, s * root * b, s * root * G)
        given = (late.u / s / root, late.v / s / root, (late.W / root - s * G) / s**2)
        off.append([np.linalg.norm(x - y) / np.linalg.norm(y) for x, y in zip(given, truth, strict=True)])
    return np.array(off).T


def test_alignment_is_right_to_first_order_in_sigma(early):
    slopes = np.diff(np.log(errors_of_alignment(early, lambda *w: alignment(*w, 0.3, 0.8)))) / np.diff(np.log(SIGMAS))
    assert (abs(slopes - 1) < 0.1).all(), slopes


@pytest.mark.parametrize(
    "null",
    {
        "nothing happens": lambda u, v, W: outlier.Alignment(u, v, W),
        "no factor 2": lambda u, v, W: alignment(u, v, W, 0.3, 0.4),
        "2% too fast": lambda u, v, W: alignment(u, v, W, 0.3, 0.816),
        "wrong sign": lambda u, v, W: alignment(u, -v, W, 0.3, 0.8),
    }.items(),
    ids=lambda item: item[0],
)
def test_wrong_alignments_do_not_get_better_with_sigma(early, null):
    slopes = np.diff(np.log(errors_of_alignment(early, null[1]))) / np.diff(np.log(SIGMAS))
    assert (slopes[:, -1] < 0.7).all(), slopes


def test_what_grows_fastest_is_the_corrected_e6_and_not_the_printed_one():
    """Without u₋ the change is (a/2N)(e^{4as} - 1)u₊u₊ᵀ, in W/√N, exactly; also at gamma0 = 2, twice as fast."""
    u, c, s, n = np.random.default_rng(1).standard_normal(7), 0.3, 0.6, 7
    a = 1 / (1 + c)
    change = alignment(u, u, np.zeros((n, n)), c, s).W / np.sqrt(n)
    np.testing.assert_allclose(change, a / 2 / n * np.expm1(4 * a * s) * np.outer(u, u), rtol=1e-12)
    np.testing.assert_allclose(alignment(u, u, np.zeros((n, n)), c, s / 2, 2.0).W / np.sqrt(n), change, rtol=1e-12)
    printed = a / 2 * np.expm1(2 * a * s) * np.outer(u, u)
    assert abs(printed / change - 1).max() > 0.5


@pytest.mark.parametrize("gamma0", [1.0, 0.5])
def test_the_outlier_of_alignment_reaches_the_edge_at_the_escape_time(gamma0):
    sigma, c, n = 0.1, 0.4, 5
    u = np.random.default_rng(2).standard_normal(n)
    u *= sigma * np.sqrt(n / 2) / np.linalg.norm(u)  # |u₊|² = N sigma²/2
    time = escape_time(c, sigma, gamma0)
    W = alignment(u, u, np.zeros((n, n)), c, time, gamma0).W
    assert np.isclose(np.linalg.eigvalsh(W / np.sqrt(n)).max(), sigma, rtol=1e-12)
    a = 1 / (1 + c)
    printed = np.log1p(2 / (a * sigma)) / (2 * a)  # E7
    assert abs(printed / escape_time(c, sigma) - 1) > 0.5


def test_the_escape_of_a_whole_network_comes_at_the_escape_time_as_sigma_falls():
    """One direction and no bulk, so that the outlier is clean; what is left is of order sigma."""
    c, off = 0.3, []
    for sigma in SIGMAS:
        time = float(escape_time(c, sigma))
        flow = reduced_flow(time * np.linspace(0.9, 1.1, 401), sigma, c)
        off.append(abs(np.interp(sigma, 1 - flow.c, np.linspace(0.9, 1.1, 401)) - 1))
    assert (filter_flow.slope(SIGMAS, np.array(off)) > 0.8).all(), off


# ------------------------------------------------------------------------------------------------------ reduced flow


@pytest.mark.parametrize(("u", "v", "c", "wanted", "gamma0"), [(0.7, 1.2, 0.5, 0.2, 1.0), (1.0, 0.4, 0.3, 0.6, 0.5)])
def test_the_reduced_loss_is_the_distance_of_the_filters(u, v, c, wanted, gamma0):
    exact = quad(lambda t: (u * v / gamma0 * np.exp(-c * t) - np.exp(-wanted * t)) ** 2, 0, np.inf)[0]
    assert np.isclose(reduced_loss(u, v, c, wanted, gamma0), exact, rtol=1e-8)


@pytest.mark.parametrize("gamma0", [1.0, 0.5])
def test_the_reduced_flow_is_the_slope_of_its_loss(gamma0):
    """Central differences of the loss times gamma0²; the printed E15 and E13 are not."""
    u, v, c, wanted, h = 0.6, 0.9, 0.8, 0.3, 1e-6
    here = np.array([u, v, c])
    slope = -(gamma0**2) * np.array(
        [(reduced_loss(*(here + h * e), wanted, gamma0) - reduced_loss(*(here - h * e), wanted, gamma0)) / (2 * h)
         for e in np.eye(3)]
    )  # fmt: skip
    step = 1e-4
    flow = reduced_flow([0.0, step, 2 * step], 0.1, wanted, gamma0, u=u, v=v, c=c)
    path = np.stack(flow[:3])
    np.testing.assert_allclose((4 * path[:, 1] - path[:, 2] - 3 * path[:, 0]) / (2 * step), slope, rtol=1e-5)
    printed_v = 2 * gamma0 * u / (c + wanted) - u**2 * v / (gamma0 * c)
    printed_c = (u * v / c) ** 2 / 2 - 2 * gamma0 * u * v / (c + wanted)
    assert gamma0 == 1 or abs(printed_v / slope[1] - 1) > 0.1
    assert abs(printed_c / slope[2] - 1) > 0.1


def test_the_jacobian_is_that_of_the_slope():
    at, wanted, gain, h = np.array([0.6, 0.9, 0.7]), 0.3, 0.8, 1e-6
    columns = [
        (np.array(outlier._slope(*(at + h * e), wanted, gain)) - outlier._slope(*(at - h * e), wanted, gain)) / (2 * h)
        for e in np.eye(3)
    ]
    np.testing.assert_allclose(outlier._jacobian(*at, wanted, gain), np.stack(columns, -1), atol=1e-8)


def test_the_reduced_flow_keeps_u2_minus_v2_and_ends_at_the_target():
    flow = reduced_flow(TIMES * 20, 0.1, 0.2, u=0.3, v=0.5)
    np.testing.assert_allclose(flow.u**2 - flow.v**2, 0.3**2 - 0.5**2, atol=1e-9)
    assert (np.diff(flow.loss) <= 1e-12).all() and flow.loss[-1] < 1e-12
    end = reduced_flow(60.0, 0.1, 0.2, 0.5)
    np.testing.assert_allclose([end.u, end.v, end.c], [np.sqrt(0.5), np.sqrt(0.5), 0.2], rtol=1e-8)


def test_the_reduced_flow_is_that_of_one_neuron():
    """Another route: the exact gradient of a network of one neuron, by its Gramians."""
    for gamma0, c in ((1.0, 0.2), (0.6, 0.5)):
        one = effective_flow(TIMES, [0.1], [0.1], [[0.0]], LeakyIntegrator(c), gamma0)
        flow = reduced_flow(TIMES, 0.1 * np.sqrt(2), c, gamma0)
        np.testing.assert_allclose(flow.c, 1 - one.M[:, 0, 0], atol=1e-7)
        np.testing.assert_allclose(flow.loss, one.loss, atol=1e-7)


def test_the_stiff_end_is_reached_at_its_own_rate():
    """Near the fixed point c relaxes with the slowest eigenvalue of [[-2/c, 1/2c²], [1/c², -1/2c³]]."""
    c = 0.5
    slowest = np.linalg.eigvals([[-2 / c, 1 / (2 * c**2)], [1 / c**2, -1 / (2 * c**3)]]).real.max()
    tau = np.array([5.0, 6.0])
    off = reduced_flow(tau, 0.1, c, u=1.01, v=1.01, c=c).c - c
    assert np.isclose(np.log(off[1] / off[0]), slowest, rtol=1e-3)
    assert abs(reduced_flow(20.0, 0.1, 0.01).c - 0.01) < 1e-9  # where the fastest rate is 5e5


def test_the_flow_field_is_that_of_a_balanced_network():
    u, c, wanted, gamma0, h = 0.6, 0.8, 0.3, 0.7, 1e-5
    flow = reduced_flow([0.0, h, 2 * h], 0.1, wanted, gamma0, u=u, c=c)
    rates = [(4 * x[1] - x[2] - 3 * x[0]) / (2 * h) for x in (flow.u, flow.c)]
    np.testing.assert_allclose(flow_field(u, c, wanted, gamma0), rates, rtol=1e-5)


# ----------------------------------------------------------------------------- whole networks: what sigma and N leave


def test_words_of_the_weights_take_the_error_away_order_by_order():
    """Against whole networks whose bulk grows: error of order sigma² for the span of u and v, sigma⁴ with a factor."""
    n, target, sigmas = 40, LeakyIntegrator(0.5), np.array([0.05, 0.1])
    u, v, G = filter_flow.random_network(n, seed=1)
    off = []
    for sigma in sigmas:
        M, root = sigma * G, np.sqrt(n)
        truth = filter_flow.along(*filter_flow.full_flow(u, v, M, target, TIMES))
        few = [project(root * u, root * v, root * M, np.stack([u, v]), factors) for factors in (0, 1)]
        flows = [effective_flow(TIMES * pace, *few[k], target) for k, pace in ((0, 1.0), (1, 1.0), (1, 1.02))]
        off.append([abs(filter_flow.along(flow.u, flow.v, flow.M) - truth).max() for flow in flows])
    slopes = np.log2(np.array(off[1]) / np.array(off[0]))
    assert abs(slopes[0] - 2) < 0.2 and slopes[1] > 3.5, slopes
    assert slopes[2] < 0.5, "a rate 2 % off does not get better with sigma"


def test_the_bulk_of_a_large_network_acts_as_the_letters_say():
    """Networks projected on their own words approach the network of letters as N^-1/2; one that knows no bulk stays."""
    sigma, target, sizes = 0.2, LeakyIntegrator(0.4), np.array([100, 900])
    start = sigma / np.sqrt(2) * np.array([[1.0, 1.0], [1.0, -1.0]])
    times = np.linspace(0, 2.5, 6)
    dressed, bare = (effective_flow(times, *dress(*start, np.zeros((2, 2)), sigma, k), target).loss for k in (1, 0))
    off = {"dressed": [], "bare": []}
    for n in sizes:
        losses = []
        for seed in range(6):
            u, v, M = filter_flow.random_network(n, sigma, seed)
            root = np.sqrt(n)
            few = project(root * u, root * v, root * M, np.stack([u, v]), 1)
            losses.append(effective_flow(times, *few, target).loss)
        for name, theory in (("dressed", dressed), ("bare", bare)):
            off[name].append(np.sqrt(np.mean((np.array(losses) - theory) ** 2)))
    whole = np.log(off["dressed"][-1] / off["dressed"][0]) / np.log(sizes[-1] / sizes[0])
    assert abs(whole + 0.5) < 0.3, off  # six networks of each size: a standard error of about 0.15
    assert off["bare"][-1] > 3 * off["dressed"][-1], off


# ----------------------------------------------------------------------------------------- read-in and readout clamped


@pytest.mark.parametrize(("c0", "wanted"), [(1.0, 0.2), (0.1, 0.2), (3.0, 1.0)])
def test_the_clamped_leak_solves_its_equation(c0, wanted):
    tau = np.linspace(0, 0.4, 9)
    path = solve_ivp(
        lambda _, c: 1 / (2 * c**2) - 2 / (c + wanted) ** 2, (0, 0.4), [c0], "LSODA", t_eval=tau, rtol=1e-11, atol=1e-13
    ).y[0]
    np.testing.assert_allclose(clamped_rate(tau, c0, wanted), path, rtol=1e-8)
    for null in (clamped_rate(1.02 * tau, c0, wanted), np.full(9, c0)):
        assert abs(null[1:] / path[1:] - 1).max() > 1e-6


def test_the_clamped_leak_inverts_the_implicit_solution():
    c0, wanted, tau = 1.0, 0.2, np.linspace(0.01, 0.25, 7)
    x, x0 = clamped_rate(tau, c0, wanted) / wanted, c0 / wanted

    def F(x):
        return -2 / 9 * x**3 - 8 / 9 * x**2 - 56 / 27 * x - 2 * np.log(abs(x - 1)) + 2 / 81 * np.log(3 * x + 1)

    np.testing.assert_allclose(wanted**3 * (F(x) - F(x0)), tau, rtol=1e-11)


def test_the_clamped_leak_tends_to_a_cube_root_that_ends():
    tau = np.array([0.0, 0.1, 0.2, 0.23])
    limit = np.cbrt(np.maximum(1 - 4.5 * tau, 0))
    np.testing.assert_allclose(clamped_rate(tau, 1.0, 0.0), limit, atol=1e-15)
    off = [abs(clamped_rate(tau[1:3], 1.0, c) - limit[1:3]).max() for c in (1e-3, 1e-4, 1e-5)]
    assert (abs(filter_flow.slope(np.array([1e-3, 1e-4, 1e-5]), np.array(off)) - 1) < 0.05).all()
    assert clamped_rate(1e6, 1.0, 0.2) == 0.2 and clamped_rate(1.0, 0.2, 0.2) == 0.2
