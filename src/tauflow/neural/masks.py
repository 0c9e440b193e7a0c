"""Which entries of a recording are fitted and which are held out, in blocks that leak nothing through their edges.

Activity is smooth in time and over trials, so an entry hidden alone is told by its neighbours. Whole blocks are hidden
instead, and only their interiors are tested: around every tested entry a margin is hidden as well.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter1d

from tauflow.analysis.arguments import generator
from tauflow.neural.recording import check_recording

AXES = ("time", "trial", "neuron")
HIDDEN = {"time": 10, "trial": 20, "neuron": 1}
TESTED = {"time": 5, "trial": 10, "neuron": 1}
REACH = 2.0  # standard deviations of a Gaussian by which activity was smoothed; there its noise correlates by 0.37


class LeakWarning(UserWarning):
    """Smoothing tells of what is tested, see `leak_note`."""


class Masks(NamedTuple):
    """Entries of a recording, each array (time, trial, neuron).

    Attributes:
        train: What is fitted.
        test: What is held out and tested; apart from `train`, and not all of the rest.
    """

    train: NDArray[np.bool_]
    test: NDArray[np.bool_]


def block_masks(
    shape: Mapping[str, int],
    train_block: Mapping[str, int] | None = None,
    test_block: Mapping[str, int] | None = None,
    fraction: float = 0.2,
    *,
    key: jax.Array,
) -> Masks:
    """Hide blocks at random places and keep their interiors for testing.

    Blocks may overlap and are cut off at the edges of the recording, beyond which there is nothing to leak from.

    Args:
        shape: Size of each axis, for example `recording.sizes`; needs "time", "trial" and "neuron".
        train_block: Size of the blocks hidden from the fit, by axis; what is not named is as by default, 10 bins of 20
            trials of 1 neuron.
        test_block: Size of the part of a block that is tested, in its middle; by default 5 bins of 10 trials of 1
            neuron.
        fraction: Share of all entries to hide, in (0, 1); the last block may exceed it.
        key: JAX random key.

    Returns:
        The masks.

    Raises:
        ValueError: If an axis is missing, a block does not fit into the recording or its tested part not into it, or
            the fraction is out of range.

    Source: pellegrino2023, supplement B, cross-validation procedure, and table 1. Deviation from print: none; the
        authors' code draws blocks of other sizes.

    Example:
        >>> masks = block_masks({"time": 60, "trial": 100, "neuron": 30}, key=jax.random.key(0))
        >>> masks.train.shape, bool((masks.train & masks.test).any()), round(1 - float(masks.train.mean()), 2)
        ((60, 100, 30), False, 0.2)
    """
    sizes = _sizes("shape", shape, None)
    hidden_sizes = _sizes("train_block", {**HIDDEN, **(train_block or {})}, sizes)
    tested_sizes = _sizes("test_block", {**TESTED, **(test_block or {})}, hidden_sizes)
    if not (isinstance(fraction, (int, float)) and 0 < fraction < 1):
        raise ValueError(f"fraction is {fraction!r}; it must be a number between 0 and 1, for example 0.2.")
    rng = generator(key)
    hidden, test = np.zeros((2, *sizes), bool)
    margins = [(outer - inner) // 2 for outer, inner in zip(hidden_sizes, tested_sizes, strict=True)]
    left = fraction * hidden.size
    while left > 0:
        # A corner may lie before the first entry, so that those at the edges are hidden as often as the others.
        corner = [int(rng.integers(1 - block, size)) for size, block in zip(sizes, hidden_sizes, strict=True)]
        whole = _slices(corner, hidden_sizes)
        left -= hidden[whole].size - np.count_nonzero(hidden[whole])
        hidden[whole] = True
        test[_slices([c + m for c, m in zip(corner, margins, strict=True)], tested_sizes)] = True
    return Masks(~hidden, test)


def hidden_block(data: xr.Dataset) -> tuple[int, int]:
    """Bins and trials of a block that is hidden by default: 10 and 20, and more bins where smoothing reaches further.

    Args:
        data: A recording.

    Returns:
        As many bins that those tested, the middle half, lie two standard deviations of the smoothing away from what is
        fitted; and trials.

    Example:
        >>> from tauflow.neural import recording, smooth
        >>> made = recording(np.random.default_rng(0).normal(size=(60, 40, 5)), kind="rates", time=0.01 * np.arange(60))
        >>> hidden_block(made), hidden_block(smooth(made, 0.04))
        ((10, 20), (32, 20))
    """
    share = (HIDDEN["time"] - TESTED["time"]) / (2 * HIDDEN["time"])  # margin of a block, on either side
    reach = REACH * data.attrs["smoothed_s"] / data.attrs["bin_s"] / share
    return max(HIDDEN["time"], math.ceil(round(reach, 6))), HIDDEN["trial"]


def draw_masks(data: xr.Dataset, hide: tuple[int, int] | None = None, *, key: jax.Array) -> Masks:
    """Hide blocks of a recording, of which the middle half along time and trials is tested.

    Args:
        data: A recording.
        hide: Bins and trials of a block of one neuron; `hidden_block` by default.
        key: JAX random key.

    Returns:
        The masks, see `block_masks`.

    Raises:
        ValueError: If `data` is no recording, or a block is larger than it.

    Example:
        >>> from tauflow.neural import recording
        >>> made = recording(np.random.default_rng(0).normal(size=(60, 40, 5)), kind="rates", time=0.01 * np.arange(60))
        >>> masks = draw_masks(made, (6, 8), key=jax.random.key(0))
        >>> round(1 - float(masks.train.mean()), 1)
        0.2
    """
    check_recording(data)
    sizes, block = {axis: data.sizes[axis] for axis in AXES}, hidden_block(data) if hide is None else hide
    hidden = dict(zip(("time", "trial"), block, strict=True))
    if any(hidden[axis] > sizes[axis] for axis in hidden):
        of = f"the recording has {sizes['time']} bins and {sizes['trial']} trials"
        bins, trials = (size if size <= sizes[axis] else max(1, sizes[axis] // 3) for axis, size in hidden.items())
        if hide is None and hidden["time"] > max(sizes["time"], HIDDEN["time"]):
            raise ValueError(
                f"activity is smoothed by {data.attrs['smoothed_s']:g} s, so that a hidden block needs {block[0]} "
                f"bins, and {of}; smooth less, or fit a longer window."
            )
        raise ValueError(
            f"a hidden block has {block[0]} bins and {block[1]} trials, and {of}; hide smaller blocks, for example "
            f"({bins}, {trials})."
        )
    tested = {axis: max(1, size * TESTED[axis] // HIDDEN[axis]) for axis, size in hidden.items()}
    return block_masks(sizes, hidden, tested, key=key)


def leak_note(masks: Sequence[Masks], data: xr.Dataset) -> str:
    """What to know where smoothing tells of what is tested: where fitted entries lie within two standard deviations.

    Args:
        masks: The masks.
        data: The recording.

    Returns:
        A sentence, empty if nothing leaks.

    Example:
        >>> from tauflow.neural import recording
        >>> made = recording(np.random.default_rng(0).normal(size=(60, 40, 5)), kind="rates",
        ...                  time=0.01 * np.arange(60), smoothed_s=0.04)
        >>> [leak_note([draw_masks(made, hide, key=jax.random.key(0))], made)[:57] for hide in (None, (10, 20))]
        ['', 'Activity is smoothed by 0.04 s, and up to 98 % of the ent']
    """
    reach = math.ceil(round(REACH * data.attrs["smoothed_s"] / data.attrs["bin_s"], 6)) - 1  # bins
    if reach < 1:
        return ""
    told = [maximum_filter1d(each.train.view(np.uint8), 2 * reach + 1, axis=0, mode="constant") for each in masks]
    share = max((near & each.test).sum() / max(each.test.sum(), 1) for near, each in zip(told, masks, strict=True))
    return (
        f"Activity is smoothed by {data.attrs['smoothed_s']:g} s, and up to {math.ceil(100 * share)} % of the entries "
        "tested lie so near to fitted ones that their noise leaks into the fit and scores come out too high; hide "
        f"blocks of {hidden_block(data)[0]} bins or more, or smooth less."
        if share > 0
        else ""
    )


def warn_of_leaks(masks: Sequence[Masks], data: xr.Dataset) -> None:
    """Give a `LeakWarning` to whoever called the caller, where there is a `leak_note`.

    Args:
        masks: The masks.
        data: The recording.
    """
    if note := leak_note(masks, data):
        warnings.warn(note, LeakWarning, stacklevel=3)


def _slices(corner: list[int], sizes: tuple[int, ...]) -> tuple[slice, ...]:
    return tuple(slice(max(c, 0), max(c + size, 0)) for c, size in zip(corner, sizes, strict=True))


def _sizes(name: str, given: Mapping[str, int], largest: tuple[int, ...] | None) -> tuple[int, ...]:
    """Sizes along the three axes, at least 1 and at most `largest`."""
    unknown = sorted(set(map(str, given)) - set(AXES)) if name != "shape" else []
    missing = [axis for axis in AXES if axis not in given]
    if unknown or missing:
        wrong = f"names {unknown[0]!r}" if unknown else f"lacks {missing[0]!r}"
        raise ValueError(f"{name} {wrong}; its axes are 'time', 'trial' and 'neuron'.")
    sizes = tuple(given[axis] for axis in AXES)
    for axis, size, most in zip(AXES, sizes, largest or (None,) * 3, strict=True):
        whole = isinstance(size, (int, np.integer)) and not isinstance(size, bool) and size >= 1
        if not whole or (most is not None and size > most):
            within = "" if most is None else f" up to {most}"
            raise ValueError(f"{name} has {size!r} along {axis!r}; it must be a whole number from 1{within}.")
    return sizes
