"""Eigenvalues from factors against those of the dense weights, and the pitchfork against root search and simulation."""

import numpy as np
import pytest
from scipy.optimize import brentq

from tauflow import analysis
from tauflow.low_rank import LowRank
from tauflow.simulate import simulate
from tauflow.theory.low_tensor_rank import eigenvalue_contributions, factor_eigenvalues, rank_one_fixed_points

N, R, TRIALS = 12, 4, 7
RNG = np.random.default_rng(0)


def factors(rank=R):
    a, b = RNG.standard_normal((2, N, rank))
    return a / np.linalg.norm(a, axis=0), RNG.standard_normal((TRIALS, rank)), b / np.linalg.norm(b, axis=0)


def test_eigenvalues_are_those_of_the_dense_weights():
    a, c, b = factors()
    dense = analysis.eigenvalues(LowRank(a, c, b).dense())
    found = factor_eigenvalues(a, c, b)
    assert found.shape == (TRIALS, R) and np.abs(found.imag).max() > 0.01, "some of them are complex"
    np.testing.assert_allclose(found, dense[:, :R], atol=1e-12)
    assert np.abs(dense[:, R:]).max() < 1e-3, "the others are 0, to the root of rounding"
    assert np.abs(factor_eigenvalues(a, -c, b) - found).max() > 0.1
    np.testing.assert_allclose(factor_eigenvalues(b, c, a), found, atol=1e-12)  # the transpose has the same


def test_contributions_by_left_and_right_eigenvectors_of_the_dense_weights():
    """A.3.2 as it stands, from N x N eigenvectors; and for real eigenvalues by angles, A.3.4."""
    a, c, b = factors()
    made = eigenvalue_contributions(a, c, b)
    np.testing.assert_allclose(made.contributions.sum(-1), made.eigenvalues, atol=1e-12)
    for k in range(TRIALS):
        values, right = np.linalg.eig((a * c[k]) @ b.T)
        order = np.argsort(-np.abs(values))[:R]
        left_values, left = np.linalg.eig(((a * c[k]) @ b.T).T)
        for value in values[order]:
            i = int(np.argmin(np.abs(made.eigenvalues[k] - value)))
            v = right[:, int(np.argmin(np.abs(values - value)))]
            z = left[:, int(np.argmin(np.abs(left_values - value)))]
            z = z / (z @ v)  # bi-orthonormal, not conjugated
            np.testing.assert_allclose(made.contributions[k, i], c[k] * (z @ a) * (v @ b), atol=1e-10)
            if abs(value.imag) < 1e-12:
                v, z = v.real, z.real
                angle = v @ z / np.linalg.norm(v) / np.linalg.norm(z)
                by_angles = c[k] * (z @ a / np.linalg.norm(z)) * (v @ b / np.linalg.norm(v)) / angle
                np.testing.assert_allclose(made.contributions[k, i], by_angles, atol=1e-10)


def test_contributions_in_known_cases():
    """Orthogonal columns: each eigenvalue is one strength. Oblique ones: components share it."""
    Q = np.linalg.qr(RNG.standard_normal((N, 3)))[0]
    made = eigenvalue_contributions(Q, [3.0, -2.0, 1.0], Q)
    np.testing.assert_allclose(made.contributions, np.diag([3.0, -2.0, 1.0]), atol=1e-12)
    t = np.stack([Q[:, 0], 0.6 * Q[:, 0] + 0.8 * Q[:, 1]], 1)
    made = eigenvalue_contributions(t, [1.0, 1.0], t)
    np.testing.assert_allclose(made.eigenvalues, [1.6, 0.4], atol=1e-12)
    np.testing.assert_allclose(made.contributions, [[0.8, 0.8], [0.2, 0.2]], atol=1e-12)
    still = eigenvalue_contributions(t, np.zeros((2, 2)), t)
    assert not still.eigenvalues.any() and not still.contributions.any()
    with pytest.raises(ValueError, match="depend on each other"):
        eigenvalue_contributions(Q[:, :2], [1.0, 1.0], np.stack([Q[:, 1], Q[:, 2]], 1))
    with pytest.raises(ValueError, match="R is 3"):
        factor_eigenvalues(Q, [1.0, 2.0], Q)


def test_a_small_change_of_a_strength_moves_an_eigenvalue_as_its_contribution_says():
    """dlambda_i / d ln c_j is contribution (i, j)."""
    a, c, b = factors()
    made = eigenvalue_contributions(a, c, b)
    for j in range(R):
        up, down = (factor_eigenvalues(a, c * np.exp(h * (np.arange(R) == j)), b) for h in (1e-5, -1e-5))
        np.testing.assert_allclose((up - down) / 2e-5, made.contributions[..., j], atol=1e-6)


def phi_of(name):
    return np.tanh if name == "tanh" else lambda x: x


def test_the_pitchfork_by_root_search():
    c = np.array([-2.0, 0.0, 0.8, 1.0, 1.0001, 1.5, 4.0])
    made = rank_one_fixed_points(c)
    for k, strength in enumerate(c):
        grid = np.linspace(-5, 5, 20001) + 1e-4 / 3
        g = grid - strength * np.tanh(grid)
        crossings = np.flatnonzero(np.sign(g[1:]) != np.sign(g[:-1]))
        roots = [brentq(lambda x, s=strength: x - s * np.tanh(x), grid[i], grid[i + 1], xtol=1e-14) for i in crossings]
        found = made.x[k][~np.isnan(made.x[k])]
        assert len(found) == len(roots) == (3 if strength > 1 else 1)
        np.testing.assert_allclose(found, roots, atol=1e-7)  # at c = 1 the root is threefold
    near = rank_one_fixed_points(1 + 10.0 ** -np.arange(2, 7)).x[:, 2]
    slope = np.diff(np.log(near)) / np.diff(np.log(10.0 ** -np.arange(2, 7)))
    assert np.abs(slope - 0.5).max() < 2e-3, "it opens as a square root"


@pytest.mark.parametrize("phi", ["tanh", "identity"])
@pytest.mark.parametrize("c", [-2.0, 0.5, 0.99, 1.01, 1.5])
def test_growth_is_what_the_network_does(phi, c):
    """A small deviation along (1, -1) grows or decays at the rate said, one along (1, 1) at -1."""
    made = rank_one_fixed_points(c, phi=phi)
    W = c / 2 * np.array([[1.0, -1.0], [-1.0, 1.0]])
    for x, growth in zip(made.x, made.growth, strict=True):
        if np.isnan(x):
            assert np.isnan(growth)
            continue
        point = np.array([x, -x])
        np.testing.assert_allclose(W @ phi_of(phi)(point), point, atol=1e-12)
        for way, rate in (([1, -1], growth), ([1, 1], -1.0)):
            path = simulate(W, np.zeros((20, 2)), point + 1e-6 * np.array(way), phi=phi, alpha=0.01)
            moved = np.linalg.norm(np.asarray(path)[-1] - point) / (1e-6 * np.sqrt(2))
            assert np.log(moved) / 20 == pytest.approx(np.log(1 + 0.01 * rate), rel=1e-4)
    assert (made.growth[1] > 0) == (c > 1)


def test_where_the_network_settles():
    starts = np.array([[0.3, 0.1], [-0.2, 0.4]])
    W = 0.75 * np.array([[1.0, -1.0], [-1.0, 1.0]])
    end = np.asarray(simulate(W, np.zeros((2000, 2, 2)), starts, phi="tanh", alpha=0.1))[-1]
    x = rank_one_fixed_points(1.5).x[2]
    np.testing.assert_allclose(end, [[x, -x], [-x, x]], atol=1e-9)
    line = rank_one_fixed_points(1.0, phi="identity")
    assert line.growth[1] == 0 and np.isnan(line.x[0])
    W = 0.5 * np.array([[1.0, -1.0], [-1.0, 1.0]])
    end = np.asarray(simulate(W, np.zeros((2000, 2, 2)), starts, phi="identity", alpha=0.1))[-1]
    np.testing.assert_allclose(end, [[0.1, -0.1], [-0.3, 0.3]], atol=1e-12)  # any point of the line
    with pytest.raises(ValueError, match="phi"):
        rank_one_fixed_points(1.0, phi="relu")
