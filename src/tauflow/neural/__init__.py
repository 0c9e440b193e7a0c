"""Recordings of neurons over learning: read from files, checked, made ready for a fit."""

from tauflow.neural.cross_validation import choose_rank, cross_validate
from tauflow.neural.fit import Fit, fit_low_tensor_rank, load_fit
from tauflow.neural.loading import load_recording
from tauflow.neural.masks import Masks, block_masks, draw_masks, hidden_block
from tauflow.neural.nwb import bin_spikes
from tauflow.neural.preprocessing import crop, scale, select_neurons, smooth, subtract_baseline, to_rates
from tauflow.neural.recording import check_recording, recording
from tauflow.neural.scores import (
    condition_means,
    noise_ceiling,
    noise_variance,
    repeated_trials,
    variance_explained,
)

__all__ = [
    "Fit",
    "Masks",
    "bin_spikes",
    "block_masks",
    "check_recording",
    "choose_rank",
    "condition_means",
    "crop",
    "cross_validate",
    "draw_masks",
    "fit_low_tensor_rank",
    "hidden_block",
    "load_fit",
    "load_recording",
    "noise_ceiling",
    "noise_variance",
    "recording",
    "repeated_trials",
    "scale",
    "select_neurons",
    "smooth",
    "subtract_baseline",
    "to_rates",
    "variance_explained",
]
