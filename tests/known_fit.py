"""A Fit that is the network which made its recording: nothing is trained, so that tests of what is shown are quick."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from tauflow.networks import LowTensorRankRNN
from tauflow.networks.trial_factors import rational_quadratic, smoothing_matrix
from tauflow.neural import Fit, block_masks, recording
from tauflow.neural.training import OUTPUTS, TRAINED, Options
from tauflow.run import describe_network, run_attributes

TRIALS, NEURONS, BINS, UNITS = 30, 12, 18, 20
IDS = np.delete(np.arange(TRIALS + 1), 11)
CONDITIONS = np.array(["0", "180", "90"])  # as a Fit has them, sorted as text


def network(rank, loss):
    """Strengths that rise, fall and wave over trials, rows that turn columns, three initial states."""
    rng = np.random.default_rng(4)
    k = np.arange(TRIALS)[:, None] / TRIALS
    courses = np.concatenate([-0.8 - 2 * k, 1.5 - 0.8 * k, 1.2 + 0.5 * np.sin(6 * k)], axis=1)  # (trial, 3)
    c = courses[:, :rank] + 0.1 * rng.standard_normal((TRIALS, rank))
    smoothing = smoothing_matrix(rational_quadratic(IDS, scale=1.0), 0.1)
    a = rng.standard_normal((UNITS, rank))
    turn = rng.standard_normal((rank, rank))
    arrays = {
        "a": a, "b": a @ (np.eye(rank) + turn - turn.T) + 0.3 * rng.standard_normal((UNITS, rank)),
        "c_latent": np.linalg.solve(smoothing, c - 0.5), "c_offset": np.full(rank, 0.5),
        "smoothing": smoothing, "z0": 3 * rng.uniform(-1, 1, (3, rank)),
        "W_out": rng.standard_normal((NEURONS, UNITS)), "bias": np.ones(NEURONS),
    }  # fmt: skip
    arrays = {name: jnp.asarray(value, jnp.float32) for name, value in arrays.items()}
    return LowTensorRankRNN(**arrays, alpha=0.1, output=OUTPUTS[loss])


def known(rank=3, loss="mse"):
    """The recording, of 3 conditions and 2 epochs from 0.055 s before the cue, trial 11 left out; and the Fit."""
    rng, made = np.random.default_rng(1), network(rank, loss)
    where, time = np.arange(TRIALS) % 3, -0.055 + 0.01 * np.arange(BINS)
    clean = np.asarray(made(where, BINS).outputs, float)
    epoch = np.repeat(["before", "after"], TRIALS // 2)
    data = recording(
        rng.poisson(clean) if loss == "poisson" else clean + 0.5 * rng.standard_normal(clean.shape),
        kind="spikes" if loss == "poisson" else "rates",
        time=time,
        trial_id=IDS,
        condition=CONDITIONS[where],
        epoch=epoch,
        source="made <b>here</b>",
        align="go_cue_time",
        dropped=[{"trial_id": 11, "reason": "not good"}],
        steps=["made up"],
    )
    return data, Fit(_dataset(made, data, loss))


def _dataset(made, data, loss):
    masks = block_masks(dict(data.sizes), {"time": 6, "trial": 8}, {"time": 2, "trial": 4}, key=jax.random.key(0))
    a, c, b = (np.asarray(each) for each in made.W)
    size = data["activity"].values.std(axis=(0, 1)) if loss == "mse" else np.ones(NEURONS)
    # The network makes activity itself, and a Fit what is left of it after centring and scaling.
    scaled = {"W_out": np.asarray(made.W_out) / size[:, None], "bias": np.asarray(made.bias) / size}
    variables = {
        "W_a": (("run", "snapshot", "unit", "rank"), np.tile(a, (1, TRIALS, 1, 1))),
        "W_c": (("run", "snapshot", "rank"), c[None]),
        "W_b": (("run", "snapshot", "unit", "rank"), np.tile(b, (1, TRIALS, 1, 1))),
        "fit_loss": (("run", "fit_update"), np.ones((1, 1))),
        "explained_test": (("run", "fit_look"), np.full((1, 1), 0.321)),
        "explained_train": (("run", "fit_look"), np.full((1, 1), 0.4)),
        "chosen_look": ("run", [0]),
        "centre": ("neuron", np.zeros(NEURONS)),
        "size": ("neuron", size),
        **{f"{kind}_mask": (("time", "trial", "neuron"), mask) for kind, mask in masks._asdict().items()},
    }
    for name in (*TRAINED, "smoothing"):
        value = np.asarray(scaled.get(name, getattr(made, name)), np.float32)
        variables[f"parameter_{name}"] = (("run", *(f"{name}_{axis}" for axis in range(value.ndim))), value[None])
    coordinates = {
        "snapshot_update": ("snapshot", np.arange(TRIALS)),
        "tau_snapshot": (("run", "snapshot"), IDS[None].astype(float), {"unit": "trial"}),
        "trial_id": ("snapshot", IDS),
        "condition": ("snapshot", data["condition"].values),
        "epoch": ("snapshot", data["epoch"].values),
        "conditions": CONDITIONS,
        "neuron_id": ("neuron", data["neuron_id"].values),
        "time": ("time", data["time"].values),
        "status": ("run", ["done"]), "stopped_at": ("run", [-1]), "seed": ("run", [0]),
    }  # fmt: skip
    fit = dataclasses.asdict(Options(loss=loss))
    configuration = {"rank": a.shape[1], "units": UNITS, "fit": fit}
    about = {"configuration": configuration, "network": describe_network(made), "seed": 0, "device": "cpu"}
    return xr.Dataset(variables, coordinates, run_attributes("fit", **about))
