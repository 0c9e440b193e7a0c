"""How well a prediction matches a recording, and how well any prediction could."""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]


def variance_explained(
    activity: ArrayLike, predicted: ArrayLike, mask: ArrayLike | None = None, *, train: ArrayLike | None = None
) -> float:
    r"""Share of the variance that a prediction explains, $1 - \sum(y - \hat y)^2 / \sum(y - \bar y)^2$ over a mask.

    Args:
        activity: Recorded activity y, shape (time, trial, neuron), any unit.
        predicted: Predicted activity, same shape and unit.
        mask: Entries to count, same shape; all by default.
        train: Entries whose mean per neuron is $\bar y$, so that what is held out tells nothing; `mask` by default.

    Returns:
        At most 1; below 0 for a prediction worse than each neuron's mean. NaN where nothing varies.

    Raises:
        ValueError: If shapes differ or a mask counts nothing.

    Example:
        >>> y = np.arange(6.0).reshape(3, 2, 1)
        >>> variance_explained(y, y), variance_explained(y, np.full_like(y, 2.5))
        (1.0, 0.0)
    """
    y, guess = np.asarray(activity, np.float64), np.asarray(predicted, np.float64)
    if y.ndim != 3 or y.shape != guess.shape:
        raise ValueError(f"predicted has shape {guess.shape}; it must be that of activity, (time, trial, neuron).")
    where = _mask("mask", mask, y.shape)
    return float(share_explained((y - guess) ** 2, y, where, where if train is None else train))


def share_explained(
    left: ArrayLike, activity: ArrayLike, mask: ArrayLike, train: ArrayLike, *, by_neuron: bool = False
) -> FloatArray:
    r"""What `variance_explained` is of any squares that are left, $1 - \sum r / \sum(y - \bar y)^2$ over a mask.

    Args:
        left: The squares r, shape (time, trial, neuron).
        activity: Recorded activity y, same shape.
        mask: Entries to count, same shape.
        train: Entries whose mean per neuron is $\bar y$, same shape.
        by_neuron: Whether each neuron is told apart.

    Returns:
        At most 1, shape () or (neuron,); NaN where nothing varies.

    Raises:
        ValueError: If a mask has another shape or counts nothing.

    Example:
        >>> y = np.array([[[1.0, 5.0]], [[2.0, 7.0]]])
        >>> everywhere = np.ones(y.shape, bool)
        >>> share_explained(np.full(y.shape, 0.25), y, everywhere, everywhere, by_neuron=True)
        array([0.  , 0.75])
    """
    y, squares = np.asarray(activity, np.float64), np.asarray(left, np.float64)
    where, axes = _mask("mask", mask, y.shape), (0, 1) if by_neuron else None
    whole = np.sum((y - neuron_means(y, _mask("train", train, y.shape))) ** 2, axis=axes, where=where)
    return np.asarray(1 - np.sum(squares, axis=axes, where=where) / np.where(whole > 0, whole, np.nan))


def neuron_means(activity: ArrayLike, mask: NDArray[np.bool_]) -> FloatArray:
    """The mean of each neuron over the entries of a mask; over all of its entries where the mask has none.

    Args:
        activity: Shape (time, trial, neuron).
        mask: Entries to average over, same shape.

    Returns:
        Shape (neuron,), in the activity's unit.

    Example:
        >>> neuron_means([[[1.0, 5.0]], [[2.0, 7.0]]], np.array([[[True, False]], [[False, False]]]))
        array([1., 6.])
    """
    y = np.asarray(activity, np.float64)
    count = mask.sum(axis=(0, 1))
    total = np.sum(y, axis=(0, 1), where=mask)
    return np.where(count > 0, total / np.maximum(count, 1), y.mean(axis=(0, 1)))


def condition_means(activity: ArrayLike, conditions: ArrayLike, mask: ArrayLike | None = None) -> FloatArray:
    """The mean over the trials of each condition, in the place of its trials: what is left without any learning.

    Args:
        activity: Shape (time, trial, neuron).
        conditions: Label of each trial, shape (trial,).
        mask: Entries to average over, shape (time, trial, neuron); all by default.

    Returns:
        Shape (time, trial, neuron), in the activity's unit. Where a condition has no entry to average over, the mean of
        the neuron over the entries of the mask.

    Raises:
        ValueError: If the mask has another shape or counts nothing, or there is not one label for each trial.

    Example:
        >>> condition_means([[[1.0], [4.0], [3.0]]], ["left", "right", "left"]).ravel()
        array([2., 4., 2.])
    """
    y, names = np.asarray(activity, np.float64), np.asarray(conditions)
    where = _mask("mask", mask, y.shape)
    if names.shape != y.shape[1:2]:
        raise ValueError(f"conditions have shape {names.shape}; there must be one for each of {y.shape[1]} trials.")
    alone = neuron_means(y, where)
    means = np.empty_like(y)
    for name in np.unique(names):
        here = names == name
        count = where[:, here].sum(axis=1, keepdims=True)
        total = np.sum(y[:, here], axis=1, keepdims=True, where=where[:, here])
        means[:, here] = np.where(count > 0, total / np.maximum(count, 1), alone)
    return means


def repeated_trials(recording: xr.Dataset) -> NDArray[np.bool_]:
    """Which trials tell about noise, shape (trial,): those whose condition has three or more.

    Args:
        recording: A recording, see `tauflow.neural.recording`.

    Example:
        >>> from tauflow.neural.recording import recording
        >>> names = ["left", "left", "right", "left"]
        >>> repeated_trials(recording(np.ones((2, 4, 1)), kind="rates", time=[0.0, 0.1], condition=names)).tolist()
        [True, True, False, True]
    """
    _, which, counts = np.unique(recording["condition"].values, return_inverse=True, return_counts=True)
    return np.asarray(counts[which] >= 3)


def noise_variance(recording: xr.Dataset) -> FloatArray:
    r"""Variance of single trials around what is smooth over trials, by time and neuron, for each condition.

    Three trials of one condition that follow each other give an estimate that a steady drift over trials does not
    touch: the middle one is compared with the line through its neighbours at its trial id,
    $e = y_2 - w y_1 - (1 - w) y_3$, and $e^2 / (1 + w^2 + (1 - w)^2)$ has the variance of the noise as its mean. What
    is curved in learning adds to it, so that the noise is rather too large than too small.

    Args:
        recording: A recording, see `tauflow.neural.recording`.

    Returns:
        Shape (time, trial, neuron): for every trial that of its condition; NaN where a condition has less than three
        trials. In the square of the activity's unit.

    Source: Gasser, Sroka and Jennen-Steinmetz, Biometrika 73 (1986), 625: residual variance from second differences.

    Example:
        >>> from tauflow.neural.recording import recording
        >>> counts = np.random.default_rng(0).poisson(4.0, (20, 200, 5))
        >>> noise = noise_variance(recording(counts, kind="spikes", time=0.01 * np.arange(20)))
        >>> bool(abs(noise.mean() - 4) < 0.15)
        True
    """
    y = np.asarray(recording["activity"].values, np.float64)  # (time, trial, neuron)
    ids = recording["trial_id"].values.astype(np.float64)
    conditions, noise = recording["condition"].values, np.full(y.shape, np.nan)
    for condition in np.unique(conditions[repeated_trials(recording)]):
        here = np.flatnonzero(conditions == condition)
        before, at, after = here[:-2], here[1:-1], here[2:]
        w = ((ids[after] - ids[at]) / (ids[after] - ids[before]))[:, None]  # (triple, 1)
        off = y[:, at] - w * y[:, before] - (1 - w) * y[:, after]  # (time, triple, neuron)
        noise[:, here] = (off**2 / (1 + w**2 + (1 - w) ** 2)).mean(axis=1, keepdims=True)
    return noise


def noise_of_trials(recording: xr.Dataset) -> FloatArray:
    """`noise_variance`, where trials of conditions with fewer than three have the mean over the other trials.

    Args:
        recording: A recording.

    Returns:
        Shape (time, trial, neuron); NaN only where no condition is repeated.
    """
    noise, repeated = noise_variance(recording), repeated_trials(recording)
    if repeated.any():
        noise[:, ~repeated] = noise[:, repeated].mean(axis=1, keepdims=True)
    return noise


def noise_ceiling(recording: xr.Dataset, mask: ArrayLike | None = None, *, train: ArrayLike | None = None) -> float:
    """The largest `variance_explained` that a prediction without noise can have, from trials of one condition.

    Args:
        recording: A recording. Conditions with fewer than three trials tell nothing about noise, and are taken to be as
            noisy as the other trials on average, see `noise_of_trials`.
        mask: As for `variance_explained`.
        train: As for `variance_explained`.

    Returns:
        Ceiling, at most 1; rather too low than too high (see `noise_variance`). NaN where no condition is repeated.

    Example:
        >>> from tauflow.neural.recording import recording
        >>> rng, wave = np.random.default_rng(0), 3 + 2 * np.sin(np.arange(40))[:, None, None]
        >>> made = recording(wave + rng.standard_normal((40, 300, 4)), kind="rates", time=0.01 * np.arange(40))
        >>> round(noise_ceiling(made), 2)  # a signal of variance 2 under noise of variance 1
        0.66
    """
    y = np.asarray(recording["activity"].values, np.float64)
    where = _mask("mask", mask, y.shape)
    return float(share_explained(noise_of_trials(recording), y, where, where if train is None else train))


def ceiling_note(recording: xr.Dataset) -> str:
    """What a reader of a ceiling must know: that some trials, or all, tell nothing about noise; empty if all do.

    Args:
        recording: A recording.
    """
    counted = repeated_trials(recording)
    if not counted.any():
        return "There is no ceiling: it takes three trials or more of a condition."
    if counted.all():
        return ""
    return (
        f"The ceiling takes its noise from {counted.sum()} of {counted.size} trials; conditions of the others have "
        "fewer than three, and are taken to be as noisy on average."
    )


def _mask(name: str, mask: ArrayLike | None, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    array = np.ones(shape, bool) if mask is None else np.asarray(mask)
    if array.shape != shape or array.dtype != bool or not array.any():
        raise ValueError(
            f"{name} is an array of {array.dtype} of shape {array.shape} with {np.count_nonzero(array)} entries to "
            f"count; it must be true or false, of shape {shape}, with one or more."
        )
    return array
