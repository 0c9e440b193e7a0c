"""Small fits to a made recording with epochs and a cue: three components, or one to counts of spikes."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import jax
import numpy as np

from tauflow.neural import block_masks, fit_low_tensor_rank, recording

_spec = importlib.util.spec_from_file_location("low_rank_truth", Path(__file__).with_name("low_rank_truth.py"))
_truth = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_truth)

TRIALS, NEURONS, BINS = 30, 12, 18
BLOCKS = ({"time": 6, "trial": 8}, {"time": 2, "trial": 4})


def made(kind="rates"):
    """A recording of 3 conditions and 2 epochs from 0.055 s before the cue; trial 11 was left out."""
    small = {
        "trials": TRIALS,
        "neurons": NEURONS,
        "bins": BINS,
        "conditions": 3,
        "units": 20,
        "gain": 1.5,
        "noise": 0.3,
    }
    noisy, clean, _ = _truth.truth(4, **small)
    counts = np.random.default_rng(1).poisson(np.exp(0.6 * clean))
    ids = np.delete(np.arange(TRIALS + 1), 11)
    return recording(
        counts if kind == "spikes" else noisy["activity"].values,
        kind=kind,
        time=-0.055 + 0.01 * np.arange(BINS),
        trial_id=ids,
        condition=np.array(["0", "90", "180"])[np.arange(TRIALS) % 3],
        epoch=np.repeat(["before", "after"], TRIALS // 2),
        source="made <b>here</b>",
        align="go_cue_time",
        dropped=[{"trial_id": 11, "reason": "not good"}],
        steps=["made up"],
    )


def fitted(data, rank=3, steps=120, **options):
    """A fit of few updates."""
    masks = block_masks(dict(data.sizes), *BLOCKS, key=jax.random.key(0))
    settings = {"rank": rank, "units": 20, "masks": masks, "steps": steps, "key": jax.random.key(1)}
    return fit_low_tensor_rank(data, **settings, **options)
