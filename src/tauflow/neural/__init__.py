"""Recordings of neurons over learning: read from files, checked, made ready for a fit."""

from tauflow.neural.loading import load_recording
from tauflow.neural.nwb import bin_spikes
from tauflow.neural.preprocessing import crop, scale, select_neurons, smooth, subtract_baseline, to_rates
from tauflow.neural.recording import check_recording, recording

__all__ = [
    "bin_spikes",
    "check_recording",
    "crop",
    "load_recording",
    "recording",
    "scale",
    "select_neurons",
    "smooth",
    "subtract_baseline",
    "to_rates",
]
