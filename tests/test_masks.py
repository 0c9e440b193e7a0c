"""Block masks: what is tested is surrounded by what is hidden, and hiding single entries would leak."""

import math

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import binary_dilation

from tauflow.neural import cross_validate, fit_low_tensor_rank, recording, smooth
from tauflow.neural.masks import LeakWarning, Masks, block_masks, draw_masks, hidden_block, leak_note

SHAPE = {"time": 60, "trial": 100, "neuron": 20}


@settings(max_examples=25, deadline=None)
@given(
    sizes=st.tuples(st.integers(1, 15), st.integers(1, 15), st.integers(1, 5)),
    blocks=st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 3)),
    seed=st.integers(0, 100),
)
def test_what_is_tested_has_its_margin_hidden(sizes, blocks, seed):
    blocks = tuple(map(min, blocks, sizes))
    tested = tuple(max(1, block // 2) for block in blocks)
    named = [dict(zip(("time", "trial", "neuron"), each, strict=True)) for each in (sizes, blocks, tested)]
    masks = block_masks(*named, 0.3, key=jax.random.key(seed))
    assert masks.train.shape == masks.test.shape == sizes and not (masks.train & masks.test).any()
    assert 1 - masks.train.mean() >= 0.3 and masks.train.sum() >= 0.7 * masks.train.size - np.prod(blocks)
    margins = [(block - test) // 2 for block, test in zip(blocks, tested, strict=True)]
    around = np.ones([2 * margin + 1 for margin in margins], bool)
    assert not (binary_dilation(masks.test, around) & masks.train).any()


def test_defaults_are_those_of_the_paper():
    masks = block_masks({"time": 900, "trial": 900, "neuron": 3}, fraction=1e-9, key=jax.random.key(3))  # one block
    hidden, test = (np.argwhere(mask) for mask in (~masks.train, masks.test))
    widths = [np.ptp(hidden, axis=0) + 1, np.ptp(test, axis=0) + 1]
    np.testing.assert_array_equal(widths, [[10, 20, 1], [5, 10, 1]])


def test_every_entry_is_hidden_as_often():
    counts = sum(
        ~block_masks({**SHAPE, "neuron": 3}, key=jax.random.key(seed)).train.astype(bool) for seed in range(60)
    )
    for axis in ((1, 2), (0, 2), (0, 1)):
        shares = counts.mean(axis=axis)
        assert abs(shares / shares.mean() - 1).max() < 0.2  # blocks cut off at an edge still cover it


def leaked(sd, masks, rough=1e-6):
    """Share of Gaussian noise, smooth over sd bins, that the best prediction from all visible bins finds in the tested.

    There is nothing to find but what smoothness tells: the conditional mean, trial by trial and neuron by neuron.
    """
    bins, trials, neurons = masks.train.shape
    time = np.arange(bins)
    K = np.exp(-((time[:, None] - time) ** 2) / (4 * sd**2))  # of white noise under a Gaussian filter
    noise = np.linalg.cholesky(K + rough * np.eye(bins)) @ np.random.default_rng(0).standard_normal(
        (bins, trials * neurons)
    )
    off = whole = 0.0
    for y, seen, tested in zip(noise.T, *(mask.reshape(bins, -1).T for mask in masks), strict=True):
        if tested.any():
            guess = K[np.ix_(tested, seen)] @ np.linalg.solve(
                K[np.ix_(seen, seen)] + rough * np.eye(seen.sum()), y[seen]
            )
            off, whole = off + ((y[tested] - guess) ** 2).sum(), whole + (y[tested] ** 2).sum()
    return 1 - off / whole


def test_hiding_single_entries_leaks_and_blocks_do_not():
    small = {"time": 1, "trial": 1, "neuron": 1}
    single, blocks = (block_masks(SHAPE, *each, key=jax.random.key(0)) for each in ((small, small), (None, None)))
    assert leaked(1.0, single) > 0.8 and abs(leaked(1.0, blocks)) < 0.1
    wider = block_masks(SHAPE, {"time": 24}, key=jax.random.key(0))
    # the default's margin of two bins is for what is less smooth
    assert leaked(2.0, blocks) > 0.4 and abs(leaked(2.0, wider)) < 0.1


@pytest.fixture
def noise():
    made = np.random.default_rng(0).standard_normal((60, 40, 4))
    return recording(made, kind="rates", time=0.01 * np.arange(60))


def test_blocks_grow_with_the_smoothing(noise):
    key = jax.random.key(0)
    for sd, bins in ((0.0, 10), (0.011, 10), (0.013, 11), (0.02, 16), (0.04, 32)):
        data = smooth(noise, sd) if sd else noise
        assert hidden_block(data) == (bins, 20)
        masks = draw_masks(data, key=key)
        near = [np.abs(np.subtract.outer(np.flatnonzero(tested), np.flatnonzero(seen))).min()
                for seen, tested in zip(*(mask.reshape(60, -1).T for mask in masks), strict=True)
                if seen.any() and tested.any()]  # fmt: skip
        assert min(near) >= 2 * sd / 0.01, "what is tested lies two standard deviations away from what is fitted"
        assert leak_note([masks], data) == ""
        assert min(near) <= max(3, 2 * sd / 0.01 + 2), "and not much more"
    twice = smooth(smooth(noise, 0.03), 0.04)
    assert twice.attrs["smoothed_s"] == pytest.approx(0.05) and hidden_block(twice) == (40, 20)
    told = recording(noise.activity, kind="rates", time=noise.time, smoothed_s=0.02)
    assert hidden_block(told) == (16, 20)
    with pytest.raises(ValueError, match=r"smoothed_s is -1; it must be a number of seconds >= 0"):
        recording(noise.activity, kind="rates", time=noise.time, smoothed_s=-1)


def test_masks_that_smoothing_tells_of_are_warned_of(noise, monkeypatch):
    data = smooth(noise, 0.04)
    wide, narrow = (draw_masks(data, hide, key=jax.random.key(0)) for hide in (None, (10, 20)))
    whole = Masks(np.ones(noise.activity.shape, bool), np.zeros(noise.activity.shape, bool))
    assert leak_note([whole], data) == leak_note([wide], data) == leak_note([narrow], noise) == ""
    near = np.abs(np.arange(60)[:, None] - np.arange(60)) <= 7  # bins, where 8 are two standard deviations
    told = np.array([[(near[t] & narrow.train[:, k, i]).any() for k, i in np.ndindex(40, 4)] for t in range(60)])
    share = told.reshape(60, 40, 4)[narrow.test].mean()
    words = rf"smoothed by 0\.04 s, and up to {math.ceil(100 * share)} % of the entries tested .* blocks of 32 bins or"

    class Begun(Exception):
        """Training would begin."""

    def begin(*args, **options):
        raise Begun

    for module in ("fit", "cross_validation"):
        monkeypatch.setattr(f"tauflow.neural.{module}.train", begin)
    with pytest.raises(Begun), pytest.warns(LeakWarning, match=words) as told_of_one:
        fit_low_tensor_rank(data, rank=1, units=3, masks=narrow, key=jax.random.key(0))
    with pytest.raises(Begun), pytest.warns(LeakWarning, match=words) as told_of_many:
        cross_validate(data, [1, 2], 3, 1, [wide, narrow], key=jax.random.key(0))
    for told in (told_of_one, told_of_many):
        assert [each.filename for each in told] == [__file__], "once, and of where it was asked for"


@pytest.mark.parametrize(
    "sd, hide, sentence",
    [
        (0.1, None, "activity is smoothed by 0.1 s, so that a hidden block needs 80 bins, and the recording has "
                    "60 bins and 40 trials; smooth less, or fit a longer window."),
        (0.0, (70, 2), "a hidden block has 70 bins and 2 trials, and the recording has 60 bins and "
                       "40 trials; hide smaller blocks, for example (20, 2)."),
        (0.04, (32, 50), "a hidden block has 32 bins and 50 trials, and the recording has 60 bins and "
                         "40 trials; hide smaller blocks, for example (32, 13)."),
    ],
)  # fmt: skip
def test_a_block_larger_than_the_recording(noise, sd, hide, sentence):
    with pytest.raises(ValueError) as error:
        draw_masks(smooth(noise, sd) if sd else noise, hide, key=jax.random.key(0))
    assert str(error.value) == sentence


def test_too_few_trials_are_not_put_down_to_smoothing(noise):
    with pytest.raises(ValueError, match=r"has 32 bins and 20 trials, .* 60 bins and 15 trials; .* \(32, 5\)"):
        draw_masks(smooth(noise, 0.04).isel(trial=slice(0, 15)), key=jax.random.key(0))


@pytest.mark.parametrize("rough", [0.11, 0.01])  # of the smooth noise: a tenth or a hundredth of all
def test_the_default_block_leaves_little_of_smooth_noise_to_be_found(noise, rough):
    bins, _ = hidden_block(smooth(noise, 0.04))
    size = {"time": 60, "trial": 40, "neuron": 8}
    default, short = (block_masks(size, {"time": b}, {"time": b // 2}, key=jax.random.key(0)) for b in (bins, 10))
    assert leaked(4.0, default, rough) < 0.08 and 0.4 < leaked(4.0, short, rough) < 0.8


def test_keys_decide():
    one, two, again = (block_masks(SHAPE, key=jax.random.key(seed)) for seed in (0, 1, 0))
    assert (one.train != two.train).any() and (one.train == again.train).all() and (one.test == again.test).all()


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (({"time": 5, "trial": 5},), "shape lacks 'neuron'; its axes are 'time', 'trial' and 'neuron'."),
        ((SHAPE, {"bin": 3}), "train_block names 'bin'; its axes are 'time', 'trial' and 'neuron'."),
        ((SHAPE, {"time": 61}), "train_block has 61 along 'time'; it must be a whole number from 1 up to 60."),
        ((SHAPE, None, {"time": 11}), "test_block has 11 along 'time'; it must be a whole number from 1 up to 10."),
        ((SHAPE, None, None, 1.0), "fraction is 1.0; it must be a number between 0 and 1, for example 0.2."),
    ],
)
def test_bad_input_is_answered_in_one_sentence(arguments, sentence):
    with pytest.raises(ValueError) as error:
        block_masks(*arguments, key=jax.random.key(0))
    assert str(error.value) == sentence
