"""Effective networks and the planted pair: against quadrature, differences, whole networks, and the printed models."""

import numpy as np
import pytest
from scipy.integrate import quad, solve_ivp
from scipy.linalg import expm

import filter_flow
from tauflow.analysis import eigenvalue_pair
from tauflow.tasks import DampedOscillator, ExponentialSum, LeakyIntegrator, SampledFilter
from tauflow.theory._leading import DENSE, leading_pair, singular_values
from tauflow.theory.effective_network import (
    dress,
    effective_flow,
    effective_gradient,
    effective_loss,
    project,
)
from tauflow.theory.oscillator import planted_plane

TARGET = DampedOscillator(0.4, 1.0)
TARGETS = [LeakyIntegrator(0.3), TARGET, ExponentialSum([1.0, -0.5 + 0.3j], [0.5, 0.8 + 0.6j])]
TIMES = np.linspace(0.0, 4.0, 9)
named = pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)


def small_network(k=4, seed=0):
    rng = np.random.default_rng(seed)
    u, v = rng.standard_normal((2, k))
    return u, v, 0.3 * rng.standard_normal((k, k))


# ------------------------------------------------------------------------------------------ loss, gradient, invariants


@named
@pytest.mark.parametrize("gamma0", [1.0, 0.6])
def test_the_loss_is_the_distance_of_the_filters(target, gamma0):
    u, v, M = small_network()
    A = M - np.eye(4)
    exact = quad(lambda t: (v @ expm(A * t) @ u / gamma0 - target.filter(t)) ** 2, 0, 60, limit=200, epsabs=1e-9)[0]
    loss = effective_loss(u, v, M, target, gamma0)
    assert np.isclose(loss, exact, rtol=1e-6)
    assert abs(effective_loss(u, v, 1.02 * M, target, gamma0) / exact - 1) > 1e-4


@named
@pytest.mark.parametrize("gamma0", [1.0, 0.6])
def test_the_gradient_is_the_slope_of_the_loss(target, gamma0):
    """Central differences along random directions, one for each of u, v and M; print lacks the factor 2."""
    u, v, M = small_network(seed=1)
    gradient, h, rng = effective_gradient(u, v, M, target, gamma0), 1e-5, np.random.default_rng(2)
    for i in range(3):
        step = [np.zeros(4), np.zeros(4), np.zeros((4, 4))]
        step[i] = rng.standard_normal(step[i].shape)
        ends = [effective_loss(*(x + s * h * d for x, d in zip((u, v, M), step, strict=True)), target, gamma0)
                for s in (1, -1)]  # fmt: skip
        slope, found = (ends[0] - ends[1]) / (2 * h), np.sum(gradient[i] * step[i])
        assert np.isclose(found, slope, rtol=1e-6)
        assert not np.isclose(found / 2, slope, rtol=0.1)


def test_an_unstable_network_has_an_infinite_loss_and_does_not_start():
    u, v, _ = small_network(2)
    assert effective_loss(u, v, 1.5 * np.eye(2), TARGET) == np.inf
    with pytest.raises(ValueError, match="eigenvalue with real part >= 1"):
        effective_flow(1.0, u, v, 1.5 * np.eye(2), TARGET)


def test_a_target_without_a_realisation_is_refused():
    with pytest.raises(ValueError, match="it must be a filter that a small linear system has"):
        effective_loss([1.0], [1.0], [[0.0]], SampledFilter([1.0, 0.0], 5.0))
    with pytest.raises(ValueError, match="target is 'leaky'"):
        effective_loss([1.0], [1.0], [[0.0]], "leaky")


@pytest.mark.parametrize("gamma0", [1.0, 0.7])
def test_the_flow_conserves_a_matrix_and_lowers_the_loss(gamma0):
    u, v, M = small_network(3)
    flow = effective_flow(TIMES, 0.5 * u, 0.5 * v, M, TARGET, gamma0)

    def invariant(u, v, M):
        return np.outer(u, u) - np.outer(v, v) + M @ M.T - M.T @ M

    start = invariant(0.5 * u, 0.5 * v, M)
    for now in zip(flow.u, flow.v, flow.M, strict=True):
        np.testing.assert_allclose(invariant(*now), start, atol=1e-7)
    moved = np.outer(flow.u[-1], flow.u[-1]) - np.outer(flow.v[-1], flow.v[-1]) - start
    assert abs(moved).max() > 1e-3, "the vectors alone keep nothing"
    assert (np.diff(flow.loss) < 0).all()
    np.testing.assert_allclose(flow.loss, effective_loss(flow.u, flow.v, flow.M, TARGET, gamma0), rtol=1e-12)


def test_gamma0_is_a_scale_of_the_vectors():
    """In u/√γ₀ and v/√γ₀ the loss does not know γ₀."""
    u, v, M = small_network(2)
    for gamma0 in (0.5, 2.0):
        there = effective_gradient(np.sqrt(gamma0) * u, np.sqrt(gamma0) * v, M, TARGET, gamma0)
        here = effective_gradient(u, v, M, TARGET)
        np.testing.assert_allclose(there.u * np.sqrt(gamma0), here.u, rtol=1e-10)
        np.testing.assert_allclose(there.M, here.M, rtol=1e-10)


# --------------------------------------------------------------------------------------------------- the planted pair


@pytest.fixture(scope="module")
def exact():
    """A whole network of 20 neurons with a planted pair and no bulk."""
    u, v, M, plane = filter_flow.planted_network(20, 0.0, 0.6, 0.7)
    return plane, (u, v, M), filter_flow.full_flow(u, v, M, TARGET, TIMES)


def test_without_a_bulk_eight_numbers_are_the_whole_network(exact):
    plane, (u, v, M), (_, _, truth) = exact
    few = effective_flow(TIMES, plane @ u, plane @ v, plane @ M @ plane.T, TARGET)
    np.testing.assert_allclose(plane.T @ few.M @ plane, truth, atol=1e-6)
    pairs = eigenvalue_pair(few.M)
    np.testing.assert_allclose(pairs[-1], filter_flow.leading_pair(truth[-1]), atol=1e-6)
    assert abs(pairs[-1, 0] - pairs[0, 0]) > 0.1, "it moves"
    slow = effective_flow(1.02 * TIMES, plane @ u, plane @ v, plane @ M @ plane.T, TARGET)
    assert abs(slow.M - few.M).max() > 1e-3


def test_six_numbers_with_equal_vectors_are_not(exact):
    """The printed model (5): u = v, driven by the mean of what drives the two."""
    plane, (u, _, M), (_, _, truth) = exact

    def slope(_, y):
        g = effective_gradient(y[:2], y[:2], y[2:].reshape(2, 2), TARGET)
        return -np.concatenate([(g.u + g.v) / 2, g.M.ravel()])

    start = np.concatenate([plane @ u, (plane @ M @ plane.T).ravel()])
    printed = solve_ivp(slope, (0, TIMES[-1]), start, "LSODA", t_eval=TIMES, rtol=1e-9).y.T[:, 2:].reshape(-1, 2, 2)
    off = [abs(filter_flow.leading_pair(M)[0] - eigenvalue_pair(few)[0]) for M, few in zip(truth, printed, strict=True)]
    assert max(off) > 0.02


def test_the_bulk_costs_sigma_squared_and_a_factor_of_the_weights_takes_it_away():
    sigmas, off = np.array([0.05, 0.1]), []
    for sigma in sigmas:
        u, v, M, _ = filter_flow.planted_network(40, sigma, 0.6, 0.7, seed=3)
        truth = np.array([filter_flow.leading_pair(M) for M in filter_flow.full_flow(u, v, M, TARGET, TIMES)[2]])
        plane, root = planted_plane(M), np.sqrt(40)
        weights = (root * u, root * v, root * M)
        few = project(*weights, plane), project(*weights, np.concatenate([plane, u[None], v[None]]), 1)
        flows = [effective_flow(TIMES * pace, *few[k], TARGET) for k, pace in ((0, 1.0), (1, 1.0), (1, 1.02))]
        off.append([abs(eigenvalue_pair(flow.M) - truth).max() for flow in flows])
    slopes = np.log2(np.array(off[1]) / np.array(off[0]))
    assert abs(slopes[0] - 2) < 0.3 and slopes[1] > 3, (slopes, off)
    assert off[0][1] < off[0][0] / 10, off
    assert slopes[2] < 0.5, "a rate 2 % off does not get better with sigma"


def test_the_plane_between_both_eigenvectors_is_nearer_than_either():
    off = []
    for seed in range(5):
        _, _, M, plane = filter_flow.planted_network(60, 0.15, 0.6, 0.7, seed=seed)
        values, vectors = np.linalg.eig(M)
        z = vectors[:, np.argmax(abs(values))]
        right = np.linalg.qr(np.stack([z.real, z.imag], -1))[0].T
        off.append([np.linalg.norm(plane - plane @ P.T @ P) for P in (planted_plane(M), right)])
    mean = np.mean(off, axis=0)
    assert mean[0] < 0.85 * mean[1], mean


def test_pairs_come_in_order():
    stack = np.array([[[0.5, -0.8], [0.8, 0.5]], [[0.9, 0.0], [0.0, -0.3]]])
    np.testing.assert_allclose(eigenvalue_pair(stack), [[0.5 + 0.8j, 0.5 - 0.8j], [0.9, -0.3]], atol=1e-14)
    with pytest.raises(ValueError, match="two rows or more"):
        eigenvalue_pair([[0.5]])
    with pytest.raises(ValueError, match="largest eigenvalue is real"):
        planted_plane(np.diag([0.9, 0.1, 0.0]))


# ------------------------------------------------------------------------------------------ projecting, dressing


def test_projecting_on_everything_gives_the_network():
    u, v, M = filter_flow.random_network(5, 0.5)
    root = np.sqrt(5)
    few = project(root * u, root * v, root * M, np.stack([u, v]), 3)
    assert few.M.shape == (5, 5)
    assert np.isclose(effective_loss(*few, TARGET), effective_loss(u, v, M, TARGET), rtol=1e-12)
    none = dress(u, v, M, 0.3, letters=0)
    np.testing.assert_array_equal(none.M, M)


def test_the_letters_give_the_moments_of_a_random_matrix():
    """Means over large networks: |MMx|² -> sigma⁴, |MᵀMx|² -> 2 sigma⁴, x·MᵀMx -> sigma², x·MMx -> 0."""
    sigma, x = 0.3, np.zeros(15)
    x[0] = 1.0
    M = dress([1.0], [1.0], [[0.0]], sigma, letters=3).M
    found = [np.sum((M @ M @ x) ** 2), np.sum((M.T @ M @ x) ** 2), x @ M.T @ M @ x, x @ M @ M @ x]
    np.testing.assert_allclose(found, [sigma**4, 2 * sigma**4, sigma**2, 0], atol=1e-15)


def test_what_cannot_be_projected_is_answered_in_one_sentence():
    u, v, M = small_network(3)
    with pytest.raises(ValueError, match=r"W \(3, 3\), vectors \(2, 4\)"):
        project(u, v, M, np.ones((2, 4)))
    with pytest.raises(ValueError, match="vectors are all 0"):
        project(u, v, M, np.zeros((2, 3)))
    with pytest.raises(ValueError, match="factors is -1"):
        project(u, v, M, np.ones((2, 3)), -1)
    with pytest.raises(ValueError, match="those of one network"):
        effective_flow(1.0, np.ones((2, 3)), v, M, TARGET)


def test_a_large_network_gives_its_plane_without_all_its_eigenvalues():
    _, _, M, plane = filter_flow.planted_network(DENSE + 20, 0.05, 0.6, 0.7)
    found = planted_plane(M)
    assert np.linalg.norm(plane - plane @ found.T @ found) < 0.1
    assert np.isclose(leading_pair(M)[0], filter_flow.leading_pair(M)[0], rtol=1e-9)
    np.testing.assert_allclose(singular_values(M, 3), np.linalg.svd(M, compute_uv=False)[:3], rtol=1e-3)
