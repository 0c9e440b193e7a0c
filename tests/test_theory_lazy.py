"""Lazy learning of filters: against the gradient flow of finite networks, a fine grid of times, and exact cases."""

from functools import cache

import numpy as np
import pytest
from scipy.linalg import solve_continuous_lyapunov

import moment_networks
from tauflow.tasks import DampedOscillator, LeakyIntegrator, SampledFilter
from tauflow.theory import _laguerre
from tauflow.theory.lazy import MOST, filter_covariance, filter_flow, kernel_spread
from tauflow.theory.mean_field import (
    autocorrelation,
    mercer_eigenfunctions,
    mercer_eigenvalues,
    rkhs_norm,
    tangent_kernel,
)

SIGMA, TARGET = 0.6, LeakyIntegrator(0.8)
TAUS = np.array([0.0, 0.5, 1.0, 1.5])
TIMES = np.linspace(0, 8, 41)
ALL = ("W", "W_in", "W_out")
REFERENCE = moment_networks.Reference(SIGMA, TARGET.c, powers=30)


def movement(weights, gamma):
    """Root of the sum of squared changes of W, u and v, over gamma, shape (tau,)."""
    n, start = len(weights[0][1]), weights[0]
    changes = [[np.sum((x - y) ** 2) for x, y in zip(now, start, strict=True)] for now in weights]
    return np.sqrt(np.array(changes) @ [n, 1, 1]) / gamma


@cache
def ensemble(n, networks, gamma=1.0, train=ALL):
    flows = [REFERENCE.follow(REFERENCE.network(n, seed), gamma, TAUS, train) for seed in range(networks)]
    return [np.array(part) for part in zip(*((f, m, movement(w, gamma)) for f, m, w in flows), strict=True)]


def test_the_reference_loss_is_that_of_the_lyapunov_equation():
    J, u, v = REFERENCE.network(20, 0)
    A, kappa = J - np.eye(20), 1 / (1.5 * np.sqrt(20))
    P = solve_continuous_lyapunov(A, -np.outer(u, u))
    cross = v @ np.linalg.solve(TARGET.c * np.eye(20) - A, u)
    exact = kappa**2 * v @ P @ v - 2 * kappa * cross + TARGET.squared_norm
    loss, _, gradients = REFERENCE.loss_and_gradient(J, u, v, 1.5)
    np.testing.assert_allclose(loss, exact, rtol=1e-6)
    np.testing.assert_allclose(
        gradients[2], 2 * kappa**2 * P @ v + 2 * kappa * np.linalg.solve(A - TARGET.c * np.eye(20), u), atol=1e-6
    )
    h, direction = 1e-6, np.random.default_rng(1).standard_normal((20, 20))
    ends = [REFERENCE.loss_and_gradient(J + s * h * direction, u, v, 1.5)[0] for s in (1, -1)]
    np.testing.assert_allclose(np.sum(gradients[0] * direction), (ends[0] - ends[1]) / (2 * h), rtol=1e-6)


def own(coefficients):
    """The theory's predictions for networks that start with filters of given coefficients: filters and movement."""

    def predict(**changes):
        options = {"gamma": 1.0, "tolerance": 1e-6, **changes}
        taus = options.pop("taus", TAUS)
        flows = [
            filter_flow(TARGET, SIGMA, taus, TIMES, initial_filter=lambda t, m=m: REFERENCE.monomials(t) @ m, **options)
            for m in coefficients[:, 0]
        ]
        return np.array([flow.filter for flow in flows]), np.array([flow.movement for flow in flows])

    return predict


DOUBLED = {"rates": {"W": SIGMA**4, "W_in": SIGMA**2, "W_out": SIGMA**2}}


@pytest.mark.parametrize("train", [ALL, ("W_out",), ("W", "W_in")])
def test_networks_come_closer_to_the_theory_as_they_grow(train):
    """The distance to the prediction from a network's own initial filter falls as N^-1/2; that to wrong ones stays."""
    sizes, networks = np.array([16, 32, 64, 128]), 24
    distance = {name: [] for name in ("theory", "no factor 2", "variance counted twice", "nothing", "wrong sign")}
    for n in sizes:
        _, coefficients, measured = ensemble(int(n), networks, 1.0, train)
        filters = coefficients @ REFERENCE.monomials(TIMES).T  # (network, tau, time)
        predict = own(coefficients)
        right, moved = predict(train=train)
        doubled = {"rates": {name: DOUBLED["rates"][name] for name in train}}
        others = {
            "theory": right, "no factor 2": predict(train=train, taus=TAUS / 2)[0],
            "variance counted twice": predict(train=train, **doubled)[0],
            "nothing": right[:, :1], "wrong sign": 2 * right[:, :1] - right,
        }  # fmt: skip
        for name, filtered in others.items():
            distance[name].append(np.sqrt(np.mean((filters - filtered)[:, 1:] ** 2)))
        share = np.abs(measured[:, 1:] / moved[:, 1:] - 1).mean()
    slopes = {name: np.polyfit(np.log(sizes), np.log(found), 1)[0] for name, found in distance.items()}
    assert abs(slopes.pop("theory") + 0.5) < 0.25  # the slope's standard error is 0.1
    assert min(slopes.values()) > -0.2 and share < 3 / np.sqrt(sizes[-1])


def test_mean_and_spread_over_networks():
    """Mean filter and loss of random networks within their standard errors, and their spread."""
    networks = 50
    losses, coefficients, moved = ensemble(100, networks)
    filters = coefficients @ REFERENCE.monomials(TIMES).T

    def check(flow):
        error = losses.std(axis=0, ddof=1) / np.sqrt(networks)
        assert (np.abs(losses.mean(axis=0) - flow.loss) < 3.5 * error).all()
        error = filters.std(axis=0, ddof=1) / np.sqrt(networks)
        assert (np.abs(filters.mean(axis=0) - flow.filter) < 4 * error)[1:].all()
        ratio = filters.std(axis=0, ddof=1)[:, :20] / flow.filter_spread[:, :20]
        assert (np.abs(ratio - 1) < 4 / np.sqrt(2 * networks)).all()
        assert (np.abs(losses.std(axis=0, ddof=1) / flow.loss_spread - 1) < 0.5).all()
        assert (np.abs(np.sqrt(np.mean(moved[:, 1:] ** 2, axis=0)) / flow.movement[1:] - 1) < 0.1).all()

    flow = filter_flow(TARGET, SIGMA, TAUS, TIMES)
    check(flow)
    wrong = {
        "no factor 2": filter_flow(TARGET, SIGMA, TAUS / 2, TIMES),
        "variance counted twice": filter_flow(TARGET, SIGMA, TAUS, TIMES, **DOUBLED),
        "nothing": filter_flow(TARGET, SIGMA, 0 * TAUS, TIMES),
        "wrong sign": flow._replace(filter=-flow.filter),
        "another scale": filter_flow(TARGET, SIGMA, TAUS, TIMES, gamma=2.0),
    }
    for name, other in wrong.items():
        with pytest.raises(AssertionError):
            check(other)
            pytest.fail(f"the check lets through: {name}")


def by_grid(target, sigma, taus, start, train, strengths=None, end=70.0, knots=()):
    """The lazy equation on a fine grid of times: filter, loss, movement and covariance there, by one exponential."""
    edges = np.unique(np.concatenate([np.linspace(0, end, 71), knots]))
    t, w = _laguerre.panels(edges, 6)
    root = np.sqrt(w)
    strengths = strengths or {name: 1.0 for name in train}
    kernel = sum(s * tangent_kernel(t[:, None], t, sigma, train=(name,)) for name, s in strengths.items())
    values, vectors = np.linalg.eigh(root[:, None] * kernel * root)
    values = np.maximum(values, 0)
    g = root * (start(t) - target.filter(t))
    covariance = root[:, None] * sigma**2 * autocorrelation(t[:, None], t, sigma) * root
    found = []
    for tau in taus:
        E = (vectors * np.exp(-2 * tau * values)) @ vectors.T
        move2 = np.where(values > 1e-15, (1 - np.exp(-2 * tau * values)) ** 2 / np.maximum(values, 1e-15), 0.0)
        S = E @ covariance @ E
        after = E @ g
        found.append(
            (
                target.filter(t) + after / root,
                after @ after,
                np.sqrt(move2 @ (vectors.T @ g) ** 2),
                S,
                after @ S @ after,
            )
        )
    return t, root, found


def starting(t):
    return 0.3 * np.exp(-1.3 * t) * np.cos(0.4 * t)


GRID = [(LeakyIntegrator(0.5), train) for train in (ALL, ("W_out",), ("W",), ("W", "W_in"))]


@pytest.mark.parametrize(("target", "train"), [*GRID, (DampedOscillator(0.6, 0.5), ALL), (LeakyIntegrator(0.2), ALL)])
def test_a_fine_grid_of_times_gives_the_same(target, train):
    taus, sigma = np.array([0.0, 0.7, 5.0, 40.0]), 0.7
    t, _, found = by_grid(target, sigma, taus, starting, train)

    def check(taus, sign=1):
        flow = filter_flow(target, sigma, taus, t, initial_filter=starting, train=train)
        for i, (values, loss, movement, _, _) in enumerate(found):
            np.testing.assert_allclose(sign * flow.filter[i], values, atol=1e-8)
            np.testing.assert_allclose(flow.loss[i], loss, rtol=1e-7)
            np.testing.assert_allclose(flow.movement[i], movement, rtol=1e-6)
        assert (flow.truncation_error < 1e-8).all()

    check(taus)
    for wrong in ((1.02 * taus,), (0.5 * taus,), (0 * taus,), (taus, -1)):
        with pytest.raises(AssertionError):
            check(*wrong)
            pytest.fail(f"the check lets through {wrong}")


def test_a_fine_grid_gives_the_same_spread():
    target, sigma, taus = LeakyIntegrator(0.5), 0.7, np.array([0.0, 0.7, 5.0])
    t, root, found = by_grid(target, sigma, taus, np.zeros_like, ALL)
    flow = filter_flow(target, sigma, taus, t, gamma=2.0)
    covariance = filter_covariance(sigma, taus, t, gamma=2.0)
    for i, (values, loss, _, S, cross) in enumerate(found):
        S = S / 4
        np.testing.assert_allclose(flow.filter[i], values, atol=1e-8)
        np.testing.assert_allclose(covariance[i], S / root[:, None] / root, atol=1e-8)
        np.testing.assert_allclose(flow.filter_spread[i] ** 2, np.diag(S) / root**2, atol=1e-8)
        np.testing.assert_allclose(flow.loss[i], loss + np.trace(S), rtol=1e-7)
        np.testing.assert_allclose(flow.loss_spread[i], np.sqrt(2 * np.sum(S**2) + cross), rtol=1e-6)


def test_unequal_rates_and_sampled_targets_on_the_grid():
    target, taus = SampledFilter([1.0, 0.4, 0.5, 0.1], 1.5), np.array([0.3, 4.0])
    rates = {"W": 2.0, "W_in": 12.0}
    strengths = {"W": 0.5, "W_in": 3.0, "W_out": 1.0}
    t, _, found = by_grid(target, 0.7, taus, starting, ALL, strengths, knots=[1.5, 3.0, 4.5])
    flow = filter_flow(target, 0.7, taus, t, gamma=2.0, initial_filter=starting, rates=rates)
    for i, (values, loss, movement, _, _) in enumerate(found):
        np.testing.assert_allclose(flow.filter[i], values, atol=1e-8)
        np.testing.assert_allclose(flow.loss[i], loss, rtol=1e-7)
        np.testing.assert_allclose(flow.movement[i], movement, rtol=1e-6)


def test_all_ways_to_give_an_initial_filter_agree():
    J, u, v = REFERENCE.network(30, 3)
    system = (J - np.eye(30), u, v / np.sqrt(30))
    m = REFERENCE.loss_and_gradient(J, u, v, 1.0)[1]
    by_system = filter_flow(TARGET, SIGMA, TAUS, TIMES, initial_filter=system)
    by_function = filter_flow(TARGET, SIGMA, TAUS, TIMES, initial_filter=lambda t: REFERENCE.monomials(t) @ m)
    for one, other in zip(by_system, by_function, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    np.testing.assert_allclose(by_system.loss[0], REFERENCE.loss_and_gradient(J, u, v, 1.0)[0], rtol=1e-6)
    target = DampedOscillator(0.7, 0.3)
    by_target = filter_flow(TARGET, SIGMA, TAUS, TIMES, initial_filter=target)
    by_function = filter_flow(TARGET, SIGMA, TAUS, TIMES, initial_filter=target.filter)
    for one, other in zip(by_target, by_function, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-10)
    already = filter_flow(target, SIGMA, TAUS, TIMES, initial_filter=target)
    np.testing.assert_allclose(already.loss, 0, atol=1e-15)
    np.testing.assert_allclose(already.filter, np.broadcast_to(target.filter(TIMES), already.filter.shape), atol=1e-12)


@pytest.mark.parametrize("sigma", [0.5, 0.98, 0.999])
def test_exact_cases(sigma):
    """An eigenfunction of C under C alone; the loss at the start; the slope of the loss; what is reached at last."""
    c, taus = float(np.sqrt(1 - sigma**2)), np.array([0.0, 0.3, 3.0])
    eigenfunction = LeakyIntegrator(c)
    flow = filter_flow(eigenfunction, sigma, taus, TIMES, initial_filter=np.zeros_like, train="W_out")
    left = np.exp(-2 * float(mercer_eigenvalues(1, sigma)[0]) * taus)
    np.testing.assert_allclose(flow.filter, (1 - left[:, None]) * eigenfunction.filter(TIMES), atol=1e-10)
    np.testing.assert_allclose(flow.loss, left**2 / (2 * c), rtol=1e-10)
    random = filter_flow(TARGET, sigma, 0.0, TIMES, gamma=3.0)
    np.testing.assert_allclose(random.loss, sigma**4 / (2 * c) / 9 + TARGET.squared_norm, rtol=1e-10)
    np.testing.assert_allclose(random.filter_spread**2, sigma**2 / 9 * autocorrelation(TIMES, TIMES, sigma), atol=1e-9)
    late = filter_flow(TARGET, sigma, 1e7, TIMES, initial_filter=np.zeros_like)
    assert late.loss < 1e-5
    np.testing.assert_allclose(late.movement, rkhs_norm(TARGET.c, sigma, train=ALL), rtol=1e-3)


def test_outside_the_learnable_range_the_weights_would_have_to_move_for_ever():
    taus = 10.0 ** np.arange(1, 8)
    inside = filter_flow(LeakyIntegrator(0.6), 0.6, taus, TIMES, initial_filter=np.zeros_like)
    outside = filter_flow(LeakyIntegrator(0.2), 0.6, taus, TIMES, initial_filter=np.zeros_like)
    assert inside.movement[-1] / inside.movement[-3] < 1.01 < 1.5 < outside.movement[-1] / outside.movement[-3]
    assert inside.loss[-1] < 1e-6 < 1e-4 < outside.loss[-1]


def test_the_stated_truncation_error_is_a_bound_and_means_something():
    taus = np.array([0.0, 1.0, 100.0])
    fine = filter_flow(LeakyIntegrator(0.2), 0.98, taus, TIMES)
    errors = []
    for tolerance in (1e4, 1e-3):
        coarse = filter_flow(LeakyIntegrator(0.2), 0.98, taus, TIMES, tolerance=tolerance)
        step = TIMES[1] - TIMES[0]
        error = np.sqrt(step * np.sum((coarse.filter - fine.filter) ** 2, axis=-1))
        assert (error <= coarse.truncation_error + 1e-12).all()
        assert coarse.truncation_error[-1] <= 2 * tolerance
        errors.append(error[-1])
    assert errors[0] > 1e-6 > errors[-1]


def test_what_cannot_be_done_is_said():
    with pytest.raises(ValueError, match=rf"needs more than {MOST} eigenfunctions at sigma = 0.9999999"):
        filter_flow(TARGET, 0.9999999, 1.0, TIMES)
    with pytest.raises(ValueError, match="target is float; it must be a filter target"):
        filter_flow(0.5, 0.8, 1.0, TIMES)
    with pytest.raises(ValueError, match=r"initial_filter is list; it must be a filter target .* or None"):
        filter_flow(TARGET, 0.8, 1.0, TIMES, initial_filter=[1.0, 2.0])
    with pytest.raises(ValueError, match=r"initial_filter takes times .* one finite real number for each time"):
        filter_flow(TARGET, 0.8, 1.0, TIMES, initial_filter=lambda t: 1.0)
    with pytest.raises(ValueError, match="rates names 'W', which is not trained"):
        filter_flow(TARGET, 0.8, 1.0, TIMES, train=("W_out",), rates={"W": 1.0})
    with pytest.raises(ValueError, match="sigma has shape"):
        filter_flow(TARGET, [0.8, 0.9], 1.0, TIMES)
    with pytest.raises(ValueError, match="t has shape"):
        filter_flow(TARGET, 0.8, 1.0, 0.5)
    for name, wrong in {"gamma": 0.0, "tau": -1.0, "t": [-1.0]}.items():
        with pytest.raises(ValueError, match=name):
            filter_flow(**{"target": TARGET, "sigma": 0.8, "tau": 1.0, "t": TIMES, name: wrong})


def test_the_filters_are_sums_of_eigenfunctions_of_the_autocorrelation():
    c = np.sqrt(1 - SIGMA**2)
    A, b, readout = TARGET.realisation()
    found = _laguerre.of_system(A, b, readout, 12, c)
    t, w = _laguerre.panels(np.linspace(0, 60, 121), 8)
    np.testing.assert_allclose(found, (w * TARGET.filter(t)) @ mercer_eigenfunctions(12, t, SIGMA), atol=1e-12)


@pytest.mark.parametrize("sigma", [0.3, 0.8])
def test_the_kernel_spreads_over_networks_as_said(sigma):
    """Its element at the first eigenfunction, in closed form for each network; sizes 60 and 240 give the 1/N."""
    c, rng, ratios = np.sqrt(1 - sigma**2), np.random.default_rng(2), []
    for n in (60, 240):
        found = []
        for _ in range(30):
            J = sigma * rng.standard_normal((n, n)) / np.sqrt(n)
            states = np.linalg.solve((1 + c) * np.eye(n) - J, sigma * rng.standard_normal((n, 60)))
            found.append(2 * c * (states**2).sum(axis=0) / n)  # the integral of phi_0 C phi_0 of each read-in
        assert abs(np.mean(found) / float(mercer_eigenvalues(1, sigma)[0]) - 1) < 0.1
        ratios.append(np.std(found) / np.mean(found) / float(kernel_spread(sigma, n)))
    assert np.abs(np.array(ratios) - 1).max() < 0.12, ratios
    assert abs(ratios[1] - 1) < 0.08, ratios
