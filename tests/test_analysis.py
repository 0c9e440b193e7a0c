"""Analysis of weights: algebraic laws as properties, known answers, and the sentences for wrong input."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tauflow import analysis

LAWS = settings(max_examples=25, deadline=None, derandomize=True)
entries = st.floats(-10, 10, allow_nan=False, width=32)
shapes = st.tuples(st.integers(1, 3), st.integers(1, 6), st.integers(1, 6))
stacks = shapes.flatmap(lambda shape: hnp.arrays(np.float64, shape, elements=entries))
squares = st.integers(1, 6).flatmap(lambda n: hnp.arrays(np.float64, (2, n, n), elements=entries))
seeds = st.integers(0, 2**16)


def rotation(n: int, seed: int) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((n, n)))[0]


@LAWS
@given(stacks, seeds)
def test_singular_values_do_not_change_under_rotation(A, seed):
    left, right = rotation(A.shape[-2], seed), rotation(A.shape[-1], seed + 1)
    s = analysis.singular_values(A)
    np.testing.assert_allclose(analysis.singular_values(left @ A @ right), s, atol=1e-12 * (1 + s.max()))
    assert (np.diff(s, axis=-1) <= 0).all() and (s >= 0).all()
    np.testing.assert_allclose((s**2).sum(-1), (A**2).sum((-1, -2)), rtol=1e-12, atol=1e-12)


@LAWS
@given(st.integers(1, 6), seeds)
def test_eigenvalues_do_not_change_under_similarity(n, seed):
    rng = np.random.default_rng(seed)
    W = rng.standard_normal((3, n, n))
    change = rotation(n, seed) @ np.diag(rng.uniform(0.5, 2, n)) @ rotation(n, seed + 1)
    before, after = analysis.eigenvalues(W), analysis.eigenvalues(np.linalg.inv(change) @ W @ change)
    for b, a in zip(before, after, strict=True):  # near-equal moduli may change places: match each to its nearest
        distance = np.abs(b[:, None] - a)
        assert distance.min(axis=0).max() < 1e-6 and distance.min(axis=1).max() < 1e-6
    assert (np.diff(np.abs(before), axis=-1) <= 0).all()


@LAWS
@given(squares)
def test_eigenvalues_agree_with_trace_and_determinant(W):
    values = analysis.eigenvalues(W)
    scale = 1 + np.abs(W).max()
    np.testing.assert_allclose(values.sum(-1), np.trace(W, axis1=-2, axis2=-1), atol=1e-10 * scale)
    np.testing.assert_allclose(values.prod(-1), np.linalg.det(W), atol=1e-9 * scale ** W.shape[-1])


@LAWS
@given(stacks, st.integers(0, 7))
def test_truncation_is_idempotent_and_the_nearest(A, rank):
    kept = analysis.truncate(A, rank)
    scale = 1 + np.abs(A).max()
    np.testing.assert_allclose(analysis.truncate(kept, rank), kept, atol=1e-12 * scale)
    assert (np.linalg.matrix_rank(kept, tol=1e-10 * scale) <= rank).all()
    rest = (analysis.singular_values(A)[..., rank:] ** 2).sum(-1)  # Eckart and Young
    np.testing.assert_allclose(((A - kept) ** 2).sum((-1, -2)), rest, atol=1e-11 * scale**2)


@LAWS
@given(stacks, seeds)
def test_shuffling_keeps_the_entries_and_follows_the_key(A, seed):
    shuffled = analysis.shuffle_entries(A, key=seed)
    flat = (A.shape[0], -1)
    np.testing.assert_array_equal(np.sort(shuffled.reshape(flat)), np.sort(A.reshape(flat)))
    np.testing.assert_array_equal(shuffled, analysis.shuffle_entries(A, key=seed))


@LAWS
@given(hnp.arrays(np.float64, st.tuples(st.integers(1, 3), st.integers(1, 6)), elements=st.floats(0.01, 10)))
def test_participation_and_variance_do_not_depend_on_the_unit(s):
    ratio = analysis.participation_ratio(s)
    assert (ratio >= 1 - 1e-12).all() and (ratio <= s.shape[-1] + 1e-12).all()
    np.testing.assert_allclose(analysis.participation_ratio(1e-200 * s), ratio)
    share = analysis.variance_explained(np.sort(s)[..., ::-1])
    np.testing.assert_allclose(share[..., -1], 1)
    assert (np.diff(share, axis=-1) > 0).all()


def test_shuffling_destroys_the_spectrum_it_should():
    W = np.outer(np.arange(1.0, 31), np.arange(1.0, 31))
    shuffled = analysis.shuffle_entries(W, key=jax.random.key(3))
    assert np.linalg.matrix_rank(W) == 1 and np.linalg.matrix_rank(shuffled) == 30
    same = analysis.shuffle_entries(W, key=jax.random.key(3))
    raw = analysis.shuffle_entries(W, key=jax.random.key_data(jax.random.key(3)))
    np.testing.assert_array_equal(shuffled, same)
    np.testing.assert_array_equal(shuffled, raw)
    assert (shuffled != analysis.shuffle_entries(W, key=jax.random.key(4))).any()


def test_each_matrix_of_a_stack_is_shuffled_on_its_own():
    stack = np.broadcast_to(np.arange(36.0).reshape(6, 6), (2, 6, 6))
    first, second = analysis.shuffle_entries(stack, key=0)
    assert (first != second).any()


def test_the_spectral_abscissa_of_one_matrix_is_one_number():
    W = np.array([[0.5, -2.0, 0.0], [2.0, 0.5, 0.0], [0.0, 0.0, -3.0]])  # a complex pair is the rightmost
    for one in (W, W.astype(np.float32), jax.numpy.asarray(W), W.tolist()):
        found = analysis.spectral_abscissa(one)
        assert np.shape(found) == () and float(found) == pytest.approx(0.5, abs=1e-12)
    assert float(analysis.spectral_abscissa(-W)) == pytest.approx(3.0)  # of real parts, not of moduli or their sign
    assert float(analysis.spectral_abscissa([[-0.25]])) == -0.25
    with pytest.raises(ValueError, match="W has 1 entries that are NaN or infinite"):
        analysis.spectral_abscissa([[np.nan]])


def test_eigenvalue_measures():
    W = np.diag([0.5, -3.0, 2.0])
    assert analysis.eigenvalues(W).tolist() == [-3, 2, 0.5]
    assert analysis.spectral_radius(W) == 3 and analysis.spectral_abscissa(W) == 2
    assert analysis.outliers(W, 1.0).tolist() == [-3, 2]
    assert analysis.outliers(W, 3.0).tolist() == []  # outside means beyond the circle
    pair = analysis.eigenvalues(np.array([[0.0, -1.0], [1.0, 0.0]]))
    assert pair.tolist() == [1j, -1j]


def test_outliers_of_a_stack_are_padded():
    found = analysis.outliers(np.stack([np.diag([2.0, 0.0]), np.diag([3.0, 4.0])]), radius=[1.0, 1.0])
    assert found.shape == (2, 2) and found[0, 0] == 2 and np.isnan(found[0, 1]) and found[1].tolist() == [4, 3]


def test_outliers_find_the_planted_direction_outside_the_disk():
    rng = np.random.default_rng(5)
    n, g = 200, 0.8
    W = rng.standard_normal((n, n)) * g / np.sqrt(n)
    u = rng.standard_normal(n) / np.sqrt(n)
    assert len(analysis.outliers(W, 1.2 * g)) == 0
    found = analysis.outliers(W + 2 * np.outer(u, u), 1.2 * g)
    assert len(found) == 1 and abs(found[0] - 2) < 0.3


def test_truncation_curve_and_functional_rank():
    u, v = rotation(6, 0), rotation(6, 1)
    dW = u[:, :3] * [4.0, 2.0, 1.0] @ v[:3]
    curve = analysis.truncation_curve(dW, lambda A: ((dW - A) ** 2).sum(), range(7))
    np.testing.assert_allclose(curve, [21, 5, 1, 0, 0, 0, 0], atol=1e-12)
    assert analysis.functional_rank(curve, curve[0]) == 2  # 1 < 0.05 * 21
    assert analysis.functional_rank(curve, curve[0], threshold=0.04) == 3
    assert analysis.functional_rank(curve[::2], 21, ranks=[0, 2, 4, 6]) == 2
    assert np.isnan(analysis.functional_rank([1.0, 0.5], 1.0))
    assert analysis.functional_rank([np.nan, np.inf, 0.01], 1.0) == 2
    both = analysis.functional_rank(np.stack([curve, np.ones(7)]), [21.0, 1.0])
    assert both[0] == 2 and np.isnan(both[1])


def test_truncation_curve_of_a_stack():
    stack = np.stack([np.diag([2.0, 1.0]), np.diag([3.0, 0.0])])
    curve = analysis.truncation_curve(stack, lambda A: np.trace(A, axis1=-2, axis2=-1), [0, 1, 2])
    assert curve.tolist() == [[0, 2, 3], [0, 3, 3]]
    assert analysis.truncation_curve(stack, lambda A: A.sum((-1, -2)), []).shape == (2, 0)


def test_float32_and_complex_come_out_in_double_precision():
    assert analysis.singular_values(np.ones((2, 2), np.float32)).dtype == np.float64
    assert analysis.singular_values(np.array([[3j]])).tolist() == [3.0]
    assert analysis.truncate(jax.numpy.ones((2, 2), jax.numpy.bfloat16), 1).dtype == np.float64


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: analysis.singular_values([1.0, 2.0]), r"A has shape \(2,\); it must be matrices"),
        (lambda: analysis.singular_values([[1.0, np.nan]]), "A has 1 entries that are NaN or infinite"),
        (lambda: analysis.singular_values([[1.0], [2.0, 3.0]]), "A cannot be read as an array"),
        (lambda: analysis.singular_values("weights"), "A is 'weights'; it must be matrices"),
        (lambda: analysis.singular_values(np.zeros((0, 3))), r"A has shape \(0, 3\)"),
        (lambda: analysis.eigenvalues(np.ones((2, 3))), "rows equal to columns"),
        (lambda: analysis.outliers(np.eye(2), -0.1), "radius is -0.1; it must be a number >= 0"),
        (lambda: analysis.outliers(np.eye(2), [1.0, 2.0]), r"radius has shape \(2,\) for W of shape \(2, 2\)"),
        (lambda: analysis.truncate(np.eye(2), -1), "rank is -1; it must be a whole number >= 0"),
        (lambda: analysis.truncate(np.eye(2), 1.5), "rank is 1.5"),
        (lambda: analysis.truncate(np.eye(2), True), "rank is True"),
        (lambda: analysis.truncation_curve(np.eye(2), np.trace, 3), "ranks is 3; it must be a sequence"),
        (lambda: analysis.truncation_curve(np.eye(2), lambda A: A, [0]), r"loss gave shape \(2, 2\)"),
        (lambda: analysis.functional_rank(0.3, 1.0), "curve is a single number"),
        (lambda: analysis.functional_rank([0.3], [1.0, 2.0]), r"reference has shape \(2,\)"),
        (lambda: analysis.functional_rank([0.3], 1.0, threshold=0.0), "threshold is 0.0"),
        (lambda: analysis.functional_rank([0.3, 0.2], 1.0, ranks=[1, 0]), "ascending rank"),
        (lambda: analysis.functional_rank([0.3, 0.2], 1.0, ranks=[1]), "ranks has 1 entries for a curve of 2"),
        (lambda: analysis.shuffle_entries(np.eye(2), key=-1), "key is -1; it must be a JAX key or a whole number"),
        (lambda: analysis.shuffle_entries(np.eye(2), key="a"), "key is 'a'"),
        (lambda: analysis.participation_ratio(3.0), r"s has shape \(\); it must be singular values"),
        (lambda: analysis.participation_ratio([0.0, 0.0]), "s is zero throughout"),
        (lambda: analysis.variance_explained([1.0, -1.0]), "s has the negative entry -1.0"),
        (lambda: analysis.variance_explained([1.0], rank=-1), "rank is -1"),
    ],
)
def test_wrong_input_is_answered_in_one_sentence(call, told):
    with pytest.raises(ValueError, match=told) as error:
        call()
    assert "\n" not in str(error.value) and str(error.value).endswith(".")
