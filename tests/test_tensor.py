"""PARAFAC of weight paths: known tensors, noise, ranks too low and too high, uniqueness, and what is refused."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from tauflow.analysis import (
    explained_by_rank,
    is_unique,
    kruskal_rank,
    match_factors,
    parafac,
    singular_values,
    unfolding_explained,
    variance_explained,
)

SHAPE = (30, 16, 12)


def factors_of(rank, seed=0, shape=SHAPE):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((size, rank)) for size in shape]


def tensor_of(factors, weights=None):
    weights = np.ones(factors[0].shape[1]) if weights is None else weights
    return np.einsum("r,ir,jr,kr->ijk", weights, *factors)


def noise_of(X, ratio, seed=1):
    noise = np.random.default_rng(seed).standard_normal(X.shape)
    return ratio * noise * np.linalg.norm(X) / np.linalg.norm(noise)


@pytest.mark.parametrize("rank", [1, 3, 5])
def test_a_known_tensor_is_recovered_up_to_order_and_signs(rank):
    truth = [factor / np.linalg.norm(factor, axis=0) for factor in factors_of(rank)]
    weights = np.arange(1.0, rank + 1)
    X = tensor_of(truth, weights)
    found = parafac(X, rank, key=0, tolerance=1e-10)
    assert found.settled and found.explained == pytest.approx(1, abs=1e-9)
    np.testing.assert_allclose(found.tensor(), X, atol=1e-4 * np.abs(X).max())
    match = match_factors(found.factors, truth)
    np.testing.assert_array_equal(match.order, np.arange(rank)[::-1])  # by falling weight
    np.testing.assert_allclose(found.weights, weights[::-1], rtol=1e-4)
    for factor, true, signs in zip(found.factors, truth, match.signs, strict=True):
        np.testing.assert_allclose(np.linalg.norm(factor, axis=0), 1, rtol=1e-12)
        np.testing.assert_allclose(signs * factor[:, match.order], true, atol=1e-4)
    assert np.all(match.signs.prod(axis=0) == 1), "a component keeps its sign as a whole"
    assert all(np.all(factor[np.abs(factor).argmax(axis=0), np.arange(rank)] > 0) for factor in found.factors[1:])


def test_the_error_of_the_factors_is_in_proportion_to_the_noise():
    """Log-log slope 1 of the distance from the true factors against the noise."""
    truth = factors_of(3)
    X, ratios = tensor_of(truth), np.array([1e-3, 1e-2, 1e-1])
    errors, shares = [], []
    for ratio in ratios:
        found = parafac(X + noise_of(X, ratio), 3, key=1)
        similarity = match_factors(found.factors, truth).similarity
        errors.append(np.sqrt(2 * (1 - similarity)).mean())
        shares.append(1 - found.explained)
    assert np.polyfit(np.log(ratios), np.log(errors), 1)[0] == pytest.approx(1, abs=0.05)
    left = 1 - (3 * (sum(SHAPE) - 2)) / np.prod(SHAPE)  # share of the noise that the free numbers do not take
    np.testing.assert_allclose(shares, left * ratios**2 / (1 + ratios**2), rtol=0.05)


def test_a_rank_too_low_explains_less_and_one_too_high_no_more():
    X = tensor_of(factors_of(4))
    explained = explained_by_rank(X, range(1, 6), key=2)
    assert np.all(np.diff(explained[:4]) > 0.02) and explained[2] < 0.95
    np.testing.assert_allclose(explained[3:], 1, atol=1e-6)
    worst = np.min([share[:5] for share in unfolding_explained(X)], axis=0)
    assert np.all(explained <= worst + 1e-9) and np.any(explained[:3] < worst[:3] - 0.01)
    noise = explained_by_rank(noise_of(X, 1.0), range(1, 6), key=2)
    assert noise[-1] < 0.15, "the null: of noise, no few components explain much"


def test_explained_is_what_the_components_explain():
    X = tensor_of(factors_of(3)) + noise_of(tensor_of(factors_of(3)), 0.5)
    found = parafac(X, 2, key=0)
    assert found.explained == pytest.approx(1 - ((X - found.tensor()) ** 2).sum() / (X**2).sum(), abs=1e-9)
    assert parafac(7 * X, 2, key=0).explained == pytest.approx(found.explained, abs=1e-9)
    assert explained_by_rank(X, [2], key=0)[0] == found.explained


def test_the_key_decides_and_more_starts_are_never_worse():
    X = noise_of(tensor_of(factors_of(3)), 1.0)
    one, again = parafac(X, 4, key=jax.random.key(5)), parafac(X, 4, key=jax.random.key(5))
    np.testing.assert_array_equal(one.weights, again.weights)
    explained = [parafac(X, 4, key=3, repeats=repeats).explained for repeats in (1, 2, 5)]
    assert explained == sorted(explained)
    assert not parafac(X, 4, key=3, iterations=3).settled


def test_unfoldings_against_singular_values():
    X = tensor_of(factors_of(3, shape=(3, 4, 20))) + noise_of(tensor_of(factors_of(3, shape=(3, 4, 20))), 0.1)
    for axis, share in enumerate(unfolding_explained(X)):
        unfolding = np.moveaxis(X, axis, 0).reshape(X.shape[axis], -1)
        np.testing.assert_allclose(share, variance_explained(singular_values(unfolding)), atol=1e-13)


def test_a_float32_path_is_compressed_without_harm():
    """Weights that were kept in float32 have full rank by rounding alone; their change has the rank it has."""
    truth = factors_of(2)
    W0 = 10 * np.random.default_rng(3).standard_normal(SHAPE[1:])
    W = (W0 + 0.5 * tensor_of(truth)).astype(np.float32)
    found = parafac(W - W0.astype(np.float32), 2, key=0)
    assert found.explained > 1 - 1e-9 and match_factors(found.factors, truth).similarity.min() > 1 - 1e-9


# ---------------------------------------------------------------------------------- uniqueness


def test_kruskal_ranks_of_known_matrices():
    generic = np.random.default_rng(0).standard_normal((4, 6))
    assert kruskal_rank(generic) == 4
    assert kruskal_rank(np.c_[generic[:, :3], generic[:, 0] + generic[:, 1]]) == 2
    assert kruskal_rank(np.c_[generic[:, :2], -2 * generic[:, 0]]) == 1
    assert kruskal_rank(np.c_[generic[:, :2], np.zeros(4)]) == 0


def test_kruskals_condition_as_printed_needs_another_count_of_columns():
    """With r = R - k, r_a + r_b + r_c <= R - 2 is k_a + k_b + k_c >= 2R + 2; as printed it would say otherwise."""
    rng = np.random.default_rng(1)
    differs = 0
    for _ in range(60):
        rank = int(rng.integers(2, 6))
        factors = [rng.standard_normal((int(rng.integers(1, 6)), rank)) for _ in range(3)]
        for factor in factors:
            if rng.random() < 0.3:
                factor[:, -1] = factor[:, 0]
        k = np.array([kruskal_rank(factor) for factor in factors])
        assert is_unique(factors) == ((rank - k).sum() <= rank - 2)
        dependent = [rank if np.linalg.matrix_rank(factor) < rank else 0 for factor in factors]  # the printed r
        differs += is_unique(factors) != (sum(dependent) <= rank - 2)
    assert differs > 0


def test_unique_factors_are_found_again_and_others_are_not():
    """Where Kruskal's condition holds every start ends at the truth; with two parallel rows, at others as good."""
    unique = factors_of(2)
    parallel = [*unique[:2], unique[2][:, [0, 0]]]
    assert is_unique(unique) and not is_unique(parallel)
    for truth, least, most in ((unique, 0.9999, 1.0), (parallel, 0.0, 0.99)):
        X = tensor_of(truth)
        found = [parafac(X, 2, key=seed, repeats=2) for seed in range(4)]
        assert min(one.explained for one in found) > 1 - 1e-6
        similarity = [match_factors(one.factors[:2], truth[:2]).similarity.min() for one in found]
        assert least <= min(similarity) <= most + 1e-12


# ---------------------------------------------------------------------------------- comparing factors


def test_an_uncentred_cosine_calls_a_poor_fit_good():
    """Trial factors of one sign that have nothing to do with one another: cosines above 0.9, no correlation."""
    trial = np.linspace(0, 1, 100)
    truth = np.stack([1 + 0.6 * trial, 1.6 - 0.6 * trial, 1 + 0.4 * np.sin(7 * trial)], axis=1)
    poor = 1 + 0.3 * np.random.default_rng(0).standard_normal((100, 3))
    cosine = (poor / np.linalg.norm(poor, axis=0)).T @ (truth / np.linalg.norm(truth, axis=0))
    assert np.all(cosine > 0.9)
    assert match_factors([poor], [truth]).similarity.max() < 0.5
    near = truth + 0.01 * np.random.default_rng(1).standard_normal((100, 3))
    assert match_factors([near], [truth]).similarity.min() > 0.9


def test_matching_finds_order_and_signs_among_more_columns():
    truth = factors_of(3)
    order, signs = np.array([2, 0, 3]), np.array([1.0, -1.0, 1.0])
    found = factors_of(4, seed=9)
    for one, true in zip(found, truth, strict=True):
        one[:, order] = 3 * signs * true + 5  # neither scale nor offset matters
    match = match_factors(found, truth)
    np.testing.assert_array_equal(match.order, order)
    np.testing.assert_array_equal(match.signs, np.tile(signs, (3, 1)))
    np.testing.assert_allclose(match.similarity, 1, rtol=1e-12)


def test_a_constant_column_is_like_nothing():
    truth = factors_of(2)[:1]
    match = match_factors([np.c_[truth[0][:, 1], np.full(SHAPE[0], 0.3)]], truth)
    np.testing.assert_allclose(match.similarity, [[0, 1]], atol=1e-12)


# ---------------------------------------------------------------------------------- what is refused

GOOD = tensor_of(factors_of(2))
SPOILED = np.where(np.arange(GOOD.size).reshape(GOOD.shape) == 7, np.nan, GOOD)
WRONG = [
    (lambda: parafac(SPOILED, 2, key=0), "X has 1 entries that are NaN or infinite"),
    (lambda: unfolding_explained(SPOILED), "X has 1 entries that are NaN"),
    (lambda: explained_by_rank(SPOILED, [1], key=0), "X has 1 entries that are NaN"),
    (lambda: parafac(GOOD[0], 2, key=0), r"X has shape \(16, 12\)"),
    (lambda: parafac(0 * GOOD, 2, key=0), "norm 0; it must be a tensor"),
    (lambda: parafac(GOOD + 1j, 2, key=0), "X is complex"),
    (lambda: parafac(np.zeros((0, 2, 2)), 2, key=0), r"X has shape \(0, 2, 2\)"),
    (lambda: parafac("weights", 2, key=0), "X is 'weights'"),
    (lambda: parafac(GOOD, 0, key=0), "rank is 0; it must be a whole number >= 1"),
    (lambda: explained_by_rank(GOOD, [1, 2.5], key=0), "rank is 2.5"),
    (lambda: explained_by_rank(GOOD, 3, key=0), "ranks is 3; it must be a sequence"),
    (lambda: parafac(GOOD, 2, key=None), "key is None; it must be a JAX key"),
    (lambda: parafac(GOOD, 2, key=0, repeats=0), "repeats is 0"),
    (lambda: parafac(GOOD, 2, key=0, iterations=0), "iterations is 0"),
    (lambda: parafac(GOOD, 2, key=0, tolerance=0.0), "tolerance is 0.0; it must be a number > 0"),
    (lambda: match_factors([], []), "found has shapes"),
    (lambda: match_factors(factors_of(2), factors_of(2)[:1]), "they must have the same rows"),
    (lambda: match_factors(factors_of(2), factors_of(3)), "found has 2 columns for 3 of truth"),
    (lambda: match_factors([GOOD], [GOOD]), "it must be real matrices"),
    (lambda: match_factors([np.full((3, 2), np.nan)], [np.eye(3)]), "found has 6 entries that are NaN"),
    (lambda: kruskal_rank(GOOD), "A has shapes"),
    (lambda: is_unique(factors_of(2)[:2]), "factors has 2 matrices; there must be three"),
]


@pytest.mark.parametrize(("call", "sentence"), WRONG, ids=range(len(WRONG)))
def test_bad_input_is_answered_in_one_sentence(call, sentence):
    with pytest.raises(ValueError, match=sentence) as raised:
        call()
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 300
