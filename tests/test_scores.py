"""Variance explained and what noise leaves to explain, against known signals and noise."""

import numpy as np
import pytest

from tauflow.neural import noise_ceiling, noise_variance, recording, repeated_trials, variance_explained
from tauflow.neural.scores import ceiling_note, neuron_means

RNG = np.random.default_rng(0)


def made(signal, noise, *, trial_id=None, condition=None, seed=0):
    """A recording of a signal (time, trial, neuron) under white noise of a standard deviation."""
    activity = signal + noise * np.random.default_rng(seed).standard_normal(signal.shape)
    return recording(activity, kind="rates", time=0.01 * np.arange(len(signal)), trial_id=trial_id, condition=condition)


def test_variance_explained_by_hand():
    y = RNG.standard_normal((5, 6, 2)) + np.array([3.0, -8.0])
    mask, train = RNG.random((2, *y.shape)) < 0.5
    guess = y + RNG.standard_normal(y.shape)
    centre = np.array([y[..., i][train[..., i]].mean() for i in range(2)])
    wanted = 1 - ((y - guess)[mask] ** 2).sum() / ((y - centre)[mask] ** 2).sum()
    assert variance_explained(y, guess, mask, train=train) == pytest.approx(wanted, rel=1e-12)
    assert abs(variance_explained(y, guess, mask, train=mask) - wanted) > 1e-6
    assert np.isnan(variance_explained(np.ones((2, 2, 1)), np.ones((2, 2, 1))))


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        ((np.ones((2, 2, 1)), np.ones((2, 1, 1))), "predicted has shape"),
        ((np.ones((2, 2)), np.ones((2, 2))), "predicted has shape"),
        ((np.ones((2, 2, 1)), np.ones((2, 2, 1)), np.zeros((2, 2, 1), bool)), "mask is an array of bool"),
        ((np.ones((2, 2, 1)), np.ones((2, 2, 1)), np.ones((2, 2, 1))), "mask is an array of float64"),
    ],
)
def test_bad_input_is_answered_in_one_sentence(arguments, sentence):
    with pytest.raises(ValueError, match=sentence) as error:
        variance_explained(*arguments)
    assert str(error.value).endswith(".")


def drifting(trials=240, conditions=3):
    """A signal that drifts over trials at unevenly spaced ids, each condition with another wave."""
    ids = np.cumsum(RNG.integers(1, 4, trials))
    which = np.arange(trials) % conditions
    time = np.arange(15)[:, None, None]
    return np.sin(0.4 * time + which[:, None]) + 0.02 * ids[:, None] * np.ones((1, 1, 4)), ids, which


def test_noise_is_found_beneath_a_drift():
    signal, ids, which = drifting()
    estimates = [
        noise_variance(made(signal, 0.6, trial_id=ids, condition=which.astype(str), seed=seed)).mean()
        for seed in range(20)
    ]
    error = np.std(estimates, ddof=1) / np.sqrt(20)
    assert abs(np.mean(estimates) - 0.36) < 3 * error < 0.01
    assert noise_variance(made(signal, 0.0, trial_id=ids, condition=which.astype(str))).max() < 1e-10
    even = noise_variance(made(signal, 0.0, condition=which.astype(str)))  # ids that hide the uneven spacing
    assert even.mean() > 1e-4
    mixed = noise_variance(made(signal, 0.0, trial_id=ids))  # conditions that are not told apart
    assert mixed.mean() > 0.1


def test_the_ceiling_is_what_the_signal_itself_explains():
    signal, ids, which = drifting()
    off = []
    for seed in range(10):
        data = made(signal, 1.0, trial_id=ids, condition=which.astype(str), seed=seed)
        off.append(noise_ceiling(data) - variance_explained(data["activity"], signal))
    assert abs(np.mean(off)) < 3 * np.std(off, ddof=1) / np.sqrt(10) + 1e-4 and np.std(off) < 0.02


def test_conditions_that_are_not_repeated_have_no_ceiling():
    data = made(np.ones((4, 2, 1)) * np.arange(4)[:, None, None], 0.1, condition=["a", "b"])
    assert np.isnan(noise_variance(data)).all() and np.isnan(noise_ceiling(data))
    assert ceiling_note(data) == "There is no ceiling: it takes three trials or more of a condition."


def test_a_condition_that_is_rare_takes_no_ceiling_from_the_others():
    signal, ids, which = drifting()
    names = which.astype(str).astype(object)
    names[[4, 9]] = "rare"
    data = made(signal, 1.0, trial_id=ids, condition=names)
    counted = np.setdiff1d(np.arange(240), [4, 9])
    assert repeated_trials(data).sum() == 238 and not repeated_trials(data)[[4, 9]].any()
    assert np.isnan(noise_variance(data)[:, [4, 9]]).all() and np.isfinite(noise_variance(data)[:, counted]).all()
    assert noise_ceiling(data) == pytest.approx(variance_explained(data["activity"], signal), abs=0.03)
    assert (
        ceiling_note(data).startswith("The ceiling takes its noise from 238 of 240 trials")
        and ceiling_note(made(signal, 1)) == ""
    )


def test_the_mean_of_a_neuron_that_is_hidden_is_that_of_all_its_entries():
    y, mask = RNG.standard_normal((4, 5, 3)) + 7, np.ones((4, 5, 3), bool)
    mask[:, :, 1] = mask[0, 0, 2] = False
    wanted = [y[..., 0].mean(), y[..., 1].mean(), (y[..., 2].sum() - y[0, 0, 2]) / 19]
    np.testing.assert_allclose(neuron_means(y, mask), wanted, rtol=1e-12)


def test_rare_conditions_of_another_variance_have_the_ceiling_that_the_truth_has():
    tuned = np.sin(np.arange(20))[:, None, None] * np.r_[0.3 * np.ones(60), 4 * RNG.standard_normal(60)][None, :, None]
    names = np.r_[["often"] * 60, np.repeat([f"rare {k}" for k in range(30)], 2)]
    signal = tuned * np.ones(6)
    data = made(signal, 1.0, condition=names)
    best = variance_explained(data["activity"], signal)
    assert best > 0.7 and noise_ceiling(data) == pytest.approx(best, abs=0.02)
