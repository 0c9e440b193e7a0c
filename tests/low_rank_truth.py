"""Made recordings of a network of known tensor rank whose learning is visible."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from tauflow.networks import LowTensorRankRNN
from tauflow.neural import recording


def truth(seed, *, trials=100, neurons=100, bins=60, rank=3, conditions=4, noise=0.5, units=100, gain=2.0):
    """A recording, its activity without noise and the strengths (trial, rank) behind it."""
    rng = np.random.default_rng(seed)
    k = np.arange(trials) / trials
    rises = [1 / (1 + np.exp(-12 * (k - 0.4))), np.exp(-3 * k), 0.5 + 0.5 * np.sin(2 * np.pi * k), k]
    strengths = np.stack([gain * (0.2 + 1.6 * rises[j % 4]) for j in range(rank)], axis=1)
    a = rng.standard_normal((units, rank))
    turn = 0.7 * rng.standard_normal((rank, rank))  # overlaps of rows and columns: the network turns and grows
    b = a @ (np.eye(rank) + turn - turn.T) + 0.3 * rng.standard_normal((units, rank))
    arrays = {
        "a": a, "b": b, "c_latent": strengths, "c_offset": np.zeros(rank), "smoothing": np.eye(trials),
        "z0": 2 * np.sqrt(units / rank) * rng.uniform(-1, 1, (conditions, rank)),
        "W_out": rng.standard_normal((neurons, units)) / np.sqrt(units), "bias": np.zeros(neurons),
    }  # fmt: skip
    network = LowTensorRankRNN(**{name: jnp.asarray(value, jnp.float32) for name, value in arrays.items()})
    which = np.arange(trials) % conditions
    clean = np.asarray(network(which, bins).outputs, float)
    clean = clean / clean.std()
    activity = clean + noise * rng.standard_normal(clean.shape)
    names = np.array([f"c{each}" for each in which])
    made = recording(activity, kind="rates", time=0.01 * np.arange(bins), condition=names, unit="sd")
    return made, clean, strengths
