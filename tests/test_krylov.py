"""Krylov bases and the small matrix equations: what defines them, invariant subspaces, and SciPy."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import solve_continuous_lyapunov, solve_sylvester

from tauflow import krylov

extend = jax.jit(krylov.extend, static_argnums=(1, 3))
gramians = jax.jit(krylov.gramians)
SCALE = 0.3


def problem(n=40):
    rng = np.random.default_rng(0)
    return rng.normal(size=(n, n)), *rng.normal(size=(2, n))


def bases_of(W, u, v, *sizes):
    bases, *lengths = krylov.begin(*map(jnp.asarray, (u, v)))
    for size in sizes:
        bases = extend(jnp.asarray(W), SCALE, bases, size)
    return [np.asarray(x) for x in bases], [float(x) for x in lengths]


@pytest.mark.parametrize("sizes", [(12,), (5, 12)], ids=["at once", "in two stages"])
def test_bases_are_orthonormal_and_project_the_matrix(sizes):
    W, u, v = problem()
    (Q_u, H_u, Q_v, H_v), lengths = bases_of(W, u, v, *sizes)
    for Q, H, M, start, length in ((Q_u, H_u, SCALE * W, u, lengths[0]), (Q_v, H_v, SCALE * W.T, v, lengths[1])):
        np.testing.assert_allclose(Q @ Q.T, np.eye(13), atol=1e-14)
        np.testing.assert_allclose(length * Q[0], start, atol=1e-14)
        np.testing.assert_allclose(M @ Q[:12].T, Q.T @ H[:12].T, atol=1e-12)  # Arnoldi's relation, residual and all
        assert not np.tril(H[:12].T, -2).any()


def test_bases_end_with_an_invariant_subspace():
    W, u, v = problem()
    p, q = np.linalg.qr(np.stack([u, v], 1))[0].T
    W = np.outer(p, q) - 2 * np.outer(q, p)
    (Q_u, H_u, *_), _ = bases_of(W, p + 0.3 * q, v, 12)
    np.testing.assert_allclose(Q_u @ Q_u.T, np.diag([1.0] * 2 + [0.0] * 11), atol=1e-14)
    assert not H_u[1, 2:].any() and not H_u[2:].any()


def test_bases_may_grow_to_all_of_space():
    W, u, v = problem(12)
    (Q_u, H_u, *_), _ = bases_of(W, u, v, 12)
    np.testing.assert_allclose(Q_u[:12].T @ H_u[:12, :12].T @ Q_u[:12], SCALE * W, atol=1e-13)
    assert not Q_u[12].any() and H_u[11, 12] == 0


def test_nothing_comes_of_nothing():
    W, u, _ = problem()
    (Q_u, _, Q_v, H_v), lengths = bases_of(W, u, 0 * u, 5)
    assert lengths[1] == 0 and not Q_v.any() and not H_v.any() and Q_u.any()


def systems(radius, k=30):
    rng = np.random.default_rng(1)
    F = rng.normal(size=(2, k, k))
    F *= radius / np.abs(np.linalg.eigvals(F)).max(axis=1)[:, None, None]
    b, c = rng.normal(size=(2, k)), rng.normal(size=k)
    return F - np.eye(k), b, c


@pytest.mark.parametrize("radius", [0.1, 0.8, 0.95])
def test_gramians_are_those_of_scipy(radius):
    F, b, c = systems(radius)
    found = gramians(*map(jnp.asarray, (F, b, c)))
    assert found.stable
    for i in range(2):
        wanted = solve_continuous_lyapunov(F[i], -np.outer(b[i], b[i]))
        np.testing.assert_allclose(found.X[i], wanted, atol=1e-11 * np.abs(wanted).max())
        assert found.sizes[i] == pytest.approx(np.linalg.norm(wanted))
    wanted = solve_sylvester(F[1], F[0], -np.outer(b[1], c))
    np.testing.assert_allclose(found.Y, wanted, atol=1e-11 * np.abs(wanted).max())


def test_gramians_tell_whether_all_decays():
    F, b, c = systems(0.5)
    for growth in (-1e-4, 0.0, 1e-4, 0.1, 3.0, np.nan):
        for which in range(2):
            planted = F.copy()
            planted[which, 0] = 0.0
            planted[which, 0, 0] = growth
            assert bool(gramians(*map(jnp.asarray, (planted, b, c))).stable) == (growth < 0)


def test_a_growing_mode_shows_in_what_has_grown():
    """Its Gramian is the mode itself, which is how a basis proves that the whole grows."""
    F, b, c = systems(0.5)
    F[0] += 1.5 * np.ones((30, 30)) / 30
    values, vectors = np.linalg.eig(F[0])
    mode = vectors[:, np.argmax(values.real)].real
    found = gramians(*map(jnp.asarray, (F, b, c)))
    assert not found.stable
    np.testing.assert_allclose(found.X[0] / found.sizes[0], np.outer(mode, mode), atol=1e-10)


@pytest.mark.parametrize("neurons", [1, 2, 64, 65, 250, 1000, 1001, 4000])
def test_stages_grow_by_a_bounded_factor_up_to_the_largest(neurons):
    sizes = krylov.stages(neurons)
    assert sizes[-1] == (neurons if neurons <= krylov.SMALL else krylov.LARGEST)
    assert sizes[0] <= 64 and all(a < b <= 2.5 * a for a, b in itertools.pairwise(sizes))
