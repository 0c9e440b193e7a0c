"""Single neurons of a fit: how well each is told on held-out entries, and a few of them trial by trial averaged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from tauflow.neural.fit import Fit
from tauflow.neural.scores import noise_of_trials, share_explained
from tauflow.neural.stages import Stage

SMOOTHING_BINS = 2.0  # sd of the Gaussian that counts of spikes are smoothed with, to be seen


def neurons_of(fit: Fit, recording: xr.Dataset, kept: Sequence[Stage], names: NDArray[Any]) -> xr.Dataset:
    """Held-out variance explained of every neuron, and data and model of the best, a median and a poor one.

    The poor one is at the tenth percentile of the neurons. Data of examples are averaged over the trials of a condition
    in a stage, fitted entries and held-out ones alike; counts of spikes are turned into rates and smoothed before, and
    so is the model.

    Args:
        fit: The fit.
        recording: The recording that was fitted.
        kept: Stages.
        names: Conditions.

    Returns:
        `explained_by_neuron` and `ceiling_by_neuron (neuron)`, NaN where nothing of a neuron is held out or no
        condition is repeated; `example_neuron (example)` and its `role`; `rate_data`, `rate_error` (standard error over
        trials, NaN of one) and `rate_model (stage, condition, time, example)`, and their number of `trials`.
    """
    y, model = recording["activity"].values.astype(np.float64), fit.predict().values
    squares = (y - model) ** 2, noise_of_trials(recording)
    explained, ceiling = (share_explained(each, y, fit.masks.test, fit.masks.train, by_neuron=True) for each in squares)
    order = np.argsort(np.where(np.isfinite(explained), explained, -np.inf), kind="stable")
    order = order[np.isfinite(explained[order])] if np.isfinite(explained).any() else order
    roles = {"best": order[-1], "median": order[len(order) // 2], "poor": order[round(0.1 * (len(order) - 1))]}
    first = {int(i): role for role, i in reversed(roles.items())}
    chosen = sorted(first, key=lambda i: list(roles).index(first[i]))
    shown, guess, unit = _rates(recording.isel(neuron=chosen), model[..., chosen])
    conditions = recording["condition"].values
    rates = np.full((3, len(kept), len(names), len(y), len(chosen)), np.nan)
    trials = np.zeros((len(kept), len(names)), np.int64)
    for s, stage in enumerate(kept):
        for k, name in enumerate(names):
            here = stage.trials[conditions[stage.trials] == name]
            trials[s, k] = len(here)
            if here.size:
                own = shown[:, here]  # (time, trial, example)
                error = own.std(axis=1, ddof=1) / np.sqrt(len(here)) if len(here) > 1 else np.nan
                rates[:, s, k] = own.mean(axis=1), np.broadcast_to(error, rates.shape[3:]), guess[:, here].mean(axis=1)
    axes = ("stage", "condition", "time", "example")
    return xr.Dataset(
        {
            "explained_by_neuron": ("neuron", explained),
            "ceiling_by_neuron": ("neuron", ceiling),
            "example_neuron": ("example", np.array(chosen)),
            "role": ("example", [first[i] for i in chosen]),
            "rate_data": (axes, rates[0], {"unit": unit}),
            "rate_error": (axes, rates[1], {"unit": unit}),
            "rate_model": (axes, rates[2], {"unit": unit}),
            "trials": (("stage", "condition"), trials),
        }
    )


def _rates(recording: xr.Dataset, model: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64], str]:
    """Data and model (time, trial, example) as they are shown, and their unit."""
    activity, bin_s = recording["activity"], recording.attrs["bin_s"]
    if activity.attrs["kind"] == "rates":
        return activity.values.astype(np.float64), model, str(activity.attrs["unit"])
    shown, guess = (
        gaussian_filter1d(values / bin_s, SMOOTHING_BINS, axis=0, output=np.float64, mode="reflect")
        for values in (activity.values, model)
    )
    return shown, guess, "Hz"
