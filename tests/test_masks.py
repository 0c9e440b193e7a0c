"""Block masks: what is tested is surrounded by what is hidden, and hiding single entries would leak."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import binary_dilation

from tauflow.neural.masks import block_masks

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


def test_hiding_single_entries_leaks_and_blocks_do_not():
    """Smooth noise, in which there is nothing to find: what two neighbours in time predict of a tested entry."""
    from scipy.ndimage import gaussian_filter1d

    noise = gaussian_filter1d(np.random.default_rng(0).standard_normal((60, 100, 20)), 2.0, axis=0)
    small = {"time": 1, "trial": 1, "neuron": 1}
    explained = {}
    for name, blocks in {"single": (small, small), "blocks": (None, None)}.items():
        masks = block_masks(SHAPE, *blocks, key=jax.random.key(0))
        seen = np.where(masks.train, noise, 0.0)
        total = seen[:-2] + seen[2:]
        count = masks.train[:-2].astype(float) + masks.train[2:]
        guess = np.divide(total, count, out=np.zeros_like(total), where=count > 0)
        tested, truth = masks.test[1:-1], noise[1:-1]
        explained[name] = 1 - ((truth - guess)[tested] ** 2).sum() / (truth[tested] ** 2).sum()
    assert explained["single"] > 0.8 and explained["blocks"] == 0.0


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
