"""A Run, its measures and overlays made of plain NumPy: nothing is trained, but every number belongs to the others.

W₀ is a real random matrix, ΔW grows along two planted directions, and spectra are computed from their sum.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from tauflow.run import Run, run_attributes
from tauflow.theory.base import Assumption, Overlay

GAIN = 0.9


def make_run(
    seeds=4, neurons=24, steps=200, measurements=21, diverged=None, interrupted_at=None, unit="update", gains=None
) -> Run:
    """A Run of `seeds` members; member `diverged` stops halfway."""
    update = np.arange(steps)
    times = np.unique(np.linspace(0, steps, measurements).round().astype(int))
    rate = 1.0 if unit == "update" else 1e-3
    loss = np.empty((seeds, steps))
    singular = np.empty((seeds, len(times), neurons))
    eigenvalues = np.empty((seeds, len(times), neurons), complex)
    for i in range(seeds):
        rng = np.random.default_rng(100 + i)
        gain = GAIN if gains is None else gains[i]
        W0 = gain * rng.normal(size=(neurons, neurons)) / np.sqrt(neurons)
        u, v = np.linalg.qr(rng.normal(size=(neurons, 2)))[0], np.linalg.qr(rng.normal(size=(neurons, 2)))[0]
        noise = 0.02 * rng.normal(size=(neurons, neurons)) / np.sqrt(neurons)
        pace = (0.022 + 0.004 * i) * 200 / steps
        loss[i] = (0.5 + 0.05 * i) * np.exp(-pace * update) * np.exp(0.12 * rng.normal(size=steps)) + 2e-3
        for k, time in enumerate(times):
            grown = 1 - np.exp(-pace * time)
            delta = u @ np.diag([1.8 * grown, 0.9 * grown**3]) @ (0.6 * u + 0.8 * v).T + grown * noise
            singular[i, k] = np.linalg.svd(delta, compute_uv=False)
            lam = np.linalg.eigvals(W0 + delta)
            eigenvalues[i, k] = lam[np.argsort(-np.abs(lam), kind="stable")]
    status, stopped = np.full(seeds, "done", "U16"), np.full(seeds, -1)
    extra = {}
    if diverged is not None:
        stop = steps // 2
        status[diverged], stopped[diverged] = "diverged", stop
        loss[diverged, stop - 5 : stop] *= 10.0 ** np.arange(1, 6)
        _blank(loss[diverged], update >= stop)
        _blank(singular[diverged], times > stop)
        _blank(eigenvalues[diverged], times > stop)
        for name, value in (("diverged_grad_norm", 3.2e7), ("diverged_spectral_abscissa", 1.31)):
            extra[name] = ("run", np.where(np.arange(seeds) == diverged, value, np.nan))
    if interrupted_at is not None:
        status[:], stopped[:] = "interrupted", interrupted_at
        _blank(loss.T, update >= interrupted_at)
        _blank(singular.swapaxes(0, 1), times > interrupted_at)
        _blank(eigenvalues.swapaxes(0, 1), times > interrupted_at)
    flow = {"unit": unit}
    coords = {
        "update": ("update", update),
        "measurement_update": ("measurement", times),
        "tau": (("run", "update"), np.tile(rate * update.astype(float), (seeds, 1)), flow),
        "tau_measurement": (("run", "measurement"), np.tile(rate * times.astype(float), (seeds, 1)), flow),
        "seed": ("run", np.arange(seeds)),
    }
    if gains is not None:
        coords["gain"] = ("run", np.asarray(gains, float))
    data = xr.Dataset(
        {
            "loss": (("run", "update"), loss),
            "grad_norm": (("run", "update"), 0.1 * loss),
            "delta_W_singular_values": (("run", "measurement", "index"), singular),
            "W_eigenvalues": (("run", "measurement", "index"), eigenvalues),
            "status": ("run", status),
            "stopped_at": ("run", stopped),
            **extra,
        },
        coords=coords,
        attrs=run_attributes(
            "descend",
            configuration=make_configuration(seeds, neurons, steps),
            network={"name": "RateRNN", "static": {"phi": "tanh", "dt": 0.5, "noise": 0.0}},
            seed=0,
            device="cpu (2 cores)",
        ),
    )
    return Run(data)


def _blank(array, where):
    array[where] = np.nan


def make_configuration(seeds=4, neurons=24, steps=200):
    return {
        "task": {"name": "flip-flop", "duration": 25.0, "amplitude": 1.0},
        "objective": "MeanSquaredError",
        "optimizer": {"name": "adam", "learning_rate": 0.05 / neurons},
        "train": ["W", "W_in", "W_out"],
        "gain": GAIN,
        "neurons": neurons,
        "seeds": seeds,
        "steps": steps,
    }


def make_measures(run: Run, inputs=2, outputs=2) -> xr.Dataset:
    """Measures that fit a run: truncated losses fall with rank, trials look like a flip-flop."""
    data = run.data
    seeds, neurons = data.sizes["run"], data.sizes["index"]
    rng = np.random.default_rng(5)
    initial = data["loss"].values[:, 0]
    failed = data["status"].values == "diverged"
    final = np.where(failed, np.nan, np.nanmin(data["loss"].values, axis=1))
    rank = np.unique(np.r_[np.arange(0, min(neurons, 10)), np.linspace(10, neurons, 8).astype(int)])
    rank = rank[rank <= neurons]
    decay_delta = final[:, None] + initial[:, None] * np.exp(-1.8 * rank[None, :])
    decay_W = final[:, None] + initial[:, None] * np.exp(-5.0 * rank[None, :] / neurons)
    time = 0.5 * np.arange(1, 51)
    pulses = np.zeros((50, inputs))
    for k in range(inputs):
        pulses[rng.choice(50, 3, replace=False), k] = rng.choice([-1.0, 1.0], 3)
    held = np.zeros((50, outputs))
    for t in range(1, 50):
        pulse = pulses[t, :outputs] if outputs <= inputs else 0.0
        held[t] = np.where(pulse != 0, pulse, held[t - 1])
    mask = np.ones((50, outputs))
    mask[:4] = 0.0
    mask[20:26, 0] = 0.0
    out = 0.93 * held[None] + 0.04 * rng.normal(size=(seeds, 50, outputs))
    out[failed] = np.nan
    reached = np.array([np.flatnonzero(np.r_[row, 0.0] < 0.05 * row[0])[0] for row in data["loss"].values], float)
    last = data["W_eigenvalues"].values[:, -1]
    limit = max(1.1 * GAIN, 0.05)
    outliers = np.where(np.abs(last) > limit, last, np.nan + 0j)[:, :8]

    def per_run(values):
        return "run", np.where(failed, np.nan, values)

    return xr.Dataset(
        {
            "initial_loss": ("run", initial),
            "final_loss": per_run(final),
            "updates_to_threshold": per_run(reached),
            "functional_rank_delta_W": per_run(np.full(seeds, 2.0)),
            "functional_rank_W": per_run(np.full(seeds, 17.0)),
            "delta_W_norm": per_run(np.sqrt((data["delta_W_singular_values"].values[:, -1] ** 2).sum(-1))),
            "shuffled_loss": per_run(2.1 * initial),
            "truncated_loss_delta_W": (("run", "rank"), decay_delta),
            "truncated_loss_W": (("run", "rank"), decay_W),
            "outliers": (("run", "outlier"), outliers),
            "example_inputs": (("time", "input"), pulses),
            "example_targets": (("time", "output"), held),
            "example_mask": (("time", "output"), mask),
            "example_outputs": (("run", "time", "output"), out),
        },
        coords={"rank": rank, "time": time},
    )


def make_overlay(run: Run):
    """A theory that applies and predicts the loss and two singular values, with bands."""
    data = run.data
    loss = np.tile(0.55 * np.exp(-0.026 * data["update"].values * 200 / data.sizes["update"]), (data.sizes["run"], 1))
    first = data["delta_W_singular_values"].values[:1, :, :2] * 1.04 + 0.01
    values = np.tile(first, (data.sizes["run"], 1, 1))
    prediction = xr.Dataset(
        {
            "loss": (("run", "update"), loss),
            "loss_band": (("run", "update"), 0.2 * loss),
            "delta_W_singular_values": (("run", "measurement", "index"), values),
            "delta_W_singular_values_band": (("run", "measurement", "index"), 0.2 * np.ones_like(values)),
        }
    )
    holds = Assumption("linear network", 0.0, 0.0, True, "φ is the identity.")
    return Overlay(
        theory_name="fixed-point series", paper="schuessler2020", assumptions=(holds,), prediction=prediction
    )


def make_failing_overlay():
    """A theory of which one assumption fails, with text that HTML must escape."""
    return Overlay(
        theory_name="mean-field <kernel> theory",
        paper="bordelon2025",
        assumptions=(
            Assumption("linear network", 1.0, 0.0, False, "φ is tanh & not the identity, so <b>this</b> fails."),
            Assumption("spectral radius", 0.9, 1.0, True, "W₀ is stable: g = 0.9 < 1."),
        ),
        prediction=None,
    )
