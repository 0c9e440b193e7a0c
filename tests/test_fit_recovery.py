"""Recovery at full size: 100 trials × 100 neurons × 60 bins with noise, of a rank-3 truth whose learning is visible."""

import jax
import numpy as np
import pytest

import low_rank_truth
from tauflow.analysis.tensor import match_factors
from tauflow.neural import block_masks, condition_means, fit_low_tensor_rank, variance_explained
from tauflow.neural.cross_validation import choose_rank, cross_validate

pytestmark = pytest.mark.slow
DATA_SETS, RANK = 10, 3


@pytest.fixture(scope="module")
def made():
    return [low_rank_truth.truth(seed) for seed in range(DATA_SETS)]


def _held_out(clean, recording, masks):
    """Share of the held-out variance that an activity explains, every neuron divided by its standard deviation."""
    y = recording["activity"].values.astype(float)
    size = y.std(axis=(0, 1), where=masks.train)
    return variance_explained(y / size, clean / size, masks.test, train=masks.train)


@pytest.mark.parametrize("seed", range(DATA_SETS))
def test_a_fit_of_the_right_rank_recovers_activity_and_strengths(made, seed):
    recording, clean, strengths = made[seed]
    masks = block_masks(dict(recording.sizes), key=jax.random.key(seed))
    best = _held_out(clean, recording, masks)
    means = condition_means(clean, recording["condition"])
    assert _held_out(means, recording, masks) < 0.9 * best, "learning is visible"
    fit = fit_low_tensor_rank(recording, rank=RANK, units=100, masks=masks, key=jax.random.key(100 + seed))
    assert 0.95 * best < fit.score(recording) < best + 0.005
    assert fit.ceiling(recording) == pytest.approx(best, abs=0.03)
    found = fit.factors["trial_factors"].values
    similarity = match_factors([found], [strengths]).similarity[0]
    print(f"data set {seed}: {fit.score(recording):.4f} of {best:.4f}, correlations {similarity.round(3)}")
    assert (similarity > 0.9).all()
    mixed = np.random.default_rng(0).permutation(found)
    assert (match_factors([mixed], [strengths]).similarity < 0.6).all(), "no strengths at all would pass"


def test_the_rank_of_the_truth_is_chosen(made):
    """Among its neighbours, by the defaults; it takes three quarters of an hour."""
    chosen = []
    for seed, (recording, _, _) in enumerate(made):
        scores = cross_validate(recording, [2, 3, 4], 100, key=jax.random.key(seed))
        choice = choose_rank(scores)
        chosen.append(int(choice["chosen"][0]))
        print(f"data set {seed}: rank {chosen[-1]}, mean losses {choice['mean_test_loss'].values[0].round(5)}, "
              f"standard errors {choice['standard_error'].values[0].round(5)}")  # fmt: skip
    assert chosen.count(RANK) >= 0.9 * DATA_SETS
