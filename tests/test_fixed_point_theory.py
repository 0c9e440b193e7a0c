"""FixedPointTheory on runs: it applies where it should, says why it does not elsewhere, and draws on the run's axis."""

import json
from functools import cache

import jax
import numpy as np
import optax
import pytest
import xarray as xr

from tauflow.learning import Record, ensemble
from tauflow.networks import RateRNN
from tauflow.objectives import MeanSquaredError
from tauflow.run import Run, merge, run_attributes
from tauflow.tasks import FixedPoint
from tauflow.theory import FixedPointTheory, fixed_point, overlay

THEORY = FixedPointTheory()
SINGULAR = "delta_W_singular_values"
TASK = {"name": "fixed-point", "duration": 101.0, "fixation": 1.0, "decision": 1.0, "input_amplitude": 1.0}


def start(gain=0.4, n=120, seed=0):
    """Initial W0, w and m as the theory wants them."""
    rng = np.random.default_rng(seed)
    W0 = rng.standard_normal((n, n)) * gain / np.sqrt(n)
    w, m = rng.standard_normal((2, n))
    return W0, w / np.linalg.norm(w), m / np.linalg.norm(m)


def correlated():
    W0, w, _ = start()
    return W0, w, w


def symmetric():
    W0, w, m = start()
    return (W0 + W0.T) / np.sqrt(2), w, m


def aligned():
    """The readout vector is the direction that W0 amplifies most."""
    W0, _, m = start()
    B = np.linalg.inv(np.eye(len(m)) - W0)
    return W0, np.linalg.eigh(B @ B.T)[1][:, -1], m


@cache
def learn(make=start, target=1.0, lr=0.009, steps=100, **given):
    """Plain gradient descent on the exact loss in NumPy: W0, w, m, losses, singular values every 20 updates, last W."""
    W0, w, m = make(**given)
    W, losses, s = W0, [], []
    for k in range(steps + 1):
        A = np.linalg.inv(np.eye(len(w)) - W)
        error = target - w @ A @ m
        if k % 20 == 0:
            s.append(np.linalg.svd(W - W0, compute_uv=False))
        if k < steps:
            losses.append(error**2 / 2)
            W = W + lr * error * np.outer(A.T @ w, A @ m)
    return W0, w, m, np.array(losses), np.array(s), W


def descended(learned=None, *, target=1.0, lr=0.009, kind="descend", unit="flow", **changes):
    """A Run of what `learn` did; `changes` spoil its description."""
    W0, w, m, losses, s, W = learned or learn(target=target, lr=lr)
    n, steps = len(w), len(losses)
    at, ends, unit = np.arange(0, steps + 1, 20), np.array([0, steps]), {"unit": unit}
    configuration = {
        "task": {**TASK, "target_amplitude": target, **changes.get("task", {})},
        "objective": changes.get("objective", {"name": "mean-squared-error"}),
        "train": changes.get("train", ["W"]), "optimizer": "sgd", "rates": changes.get("rates", {}),
    }  # fmt: skip
    static = {"phi": changes.get("phi", "identity"), "dt": 0.5, "noise": changes.get("noise", 0.0)}
    data = xr.Dataset(
        {
            "loss": (("run", "update"), losses[None].copy()),
            "delta_W_singular_values": (("run", "measurement", "index"), s[None].copy()),
            "W": (("run", "snapshot", "unit", "unit_pre"), np.array([[W0, W]])),
            "W_in": (("run", "snapshot", "unit", "input"), np.array([[m[:, None] * np.sqrt(n)] * 2])),
            "W_out": (("run", "snapshot", "output", "unit"), np.array([[w[None] / np.sqrt(n)] * 2])),
        },
        coords={
            "status": ("run", np.array(["done"])), "stopped_at": ("run", [-1]), "seed": ("run", [0]),
            "update": np.arange(steps), "snapshot_update": ("snapshot", ends),
            "measurement_update": ("measurement", at),
            "tau": (("run", "update"), lr * np.arange(steps, dtype=float)[None], unit),
            "tau_snapshot": (("run", "snapshot"), lr * ends[None].astype(float), unit),
            "tau_measurement": (("run", "measurement"), lr * at[None].astype(float), unit),
        },
    )  # fmt: skip
    network = {"name": "RateRNN", "static": static}
    return Run(
        data.assign_attrs(run_attributes(kind, configuration=configuration, network=network, seed=0, device="cpu"))
    )


@pytest.fixture(scope="module")
def run():
    return descended()


def failing(run):
    return [assumption.name for assumption in THEORY.check(run) if not assumption.holds]


def test_all_assumptions_hold_on_the_run_that_the_theory_is_about(run):
    assumptions = THEORY.check(run)
    assert [a.name for a in assumptions] == [
        "linear network", "fixed-point task", "only W learns", "gain below 1", "gradient flow", "w and m of norm 1",
        "independent w, m, W0", "random W0", "large N", "small tau",
    ]  # fmt: skip
    for assumption in assumptions:
        assert assumption.holds and np.isfinite(assumption.measured), assumption
        assert assumption.sentence.endswith(".") and "\n" not in assumption.sentence
        assert isinstance(assumption.holds, bool) and isinstance(assumption.measured, float)
    assert overlay(THEORY, run).applies


def test_the_prediction_lies_on_the_runs_own_axis(run):
    prediction = THEORY.predict(run)
    assert prediction.loss.dims == run.data.loss.dims and prediction.loss.shape == run.data.loss.shape
    assert prediction.delta_W_singular_values.dims == ("run", "measurement", "index")
    assert prediction.delta_W_singular_values.shape == (1, 6, 2)
    for name in ("tau", "tau_measurement", "update", "measurement_update", "seed"):
        xr.testing.assert_equal(prediction[name], run.data[name])
    assert prediction.tau.attrs["unit"] == "flow"
    for name in ("loss", "delta_W_singular_values"):
        assert prediction[name].dtype == np.float64 and prediction[f"{name}_band"].shape == prediction[name].shape


def test_the_prediction_is_that_of_the_series_up_to_its_root(run):
    prediction = THEORY.predict(run)
    gain = float(np.sqrt((run.data.W.values[0, 0] ** 2).mean() * 120))
    end = float(fixed_point.learning_time(gain, 1.0))
    tau, at = run.data.tau.values[0], run.data.tau_measurement.values[0]
    assert (np.isnan(prediction.loss.values[0]) == (tau > end)).all() and (tau > end).any()
    inside = tau <= end
    z = fixed_point.readout(tau[inside], gain, 1.0)
    np.testing.assert_allclose(prediction.loss.values[0][inside], (1 - z) ** 2 / 2, rtol=1e-12)
    with pytest.raises(AssertionError):  # a rate that is 2 % off
        z = fixed_point.readout(1.02 * tau[inside], gain, 1.0)
        np.testing.assert_allclose(prediction.loss.values[0][inside], (1 - z) ** 2 / 2, rtol=1e-12)
    both = np.stack(fixed_point.singular_values(at[at <= end], gain, 1.0), -1)
    np.testing.assert_allclose(prediction.delta_W_singular_values.values[0][at <= end], both, rtol=1e-12)
    assert np.isnan(prediction.delta_W_singular_values.values[0][at > end]).all()


def test_the_prediction_meets_the_networks_within_its_band():
    """Over 16 networks the mean square of (run - theory)/band is about 1; nulls are far off."""
    off, nothing, sign, s_off, s_nothing = [], [], [], [], []
    for seed in range(16):
        run = descended(learn(steps=21, seed=seed))
        prediction = THEORY.predict(run)
        band, loss, seen = prediction.loss_band.values[0], prediction.loss.values[0], run.data.loss.values[0]
        off.append(((seen - loss) / band)[[5, 20]])
        nothing.append(((seen - 0.5) / band)[20])
        sign.append(((seen - (2 - np.sqrt(2 * loss)) ** 2 / 2) / band)[20])
        values, s_band = (prediction[name].values[0, 1] for name in (SINGULAR, f"{SINGULAR}_band"))
        s_off.append((run.data[SINGULAR].values[0, 1, :2] - values) / s_band)
        s_nothing.append(run.data[SINGULAR].values[0, 1, :2] / s_band)
    size = [np.sqrt(np.mean(np.square(x))) for x in (off, nothing, sign, s_off, s_nothing)]
    assert 0.5 < size[0] < 1.4 and 0.5 < size[3] < 1.4, size
    assert size[1] > 1.8 and size[2] > 4 and size[4] > 4, size


def spoil(run, **variables):
    """The run with some variables or coordinates replaced."""
    data = run.data.copy(deep=True)
    for name, value in variables.items():
        data[name].values[...] = value
    return Run(data)


def late():
    run = descended()
    return spoil(run, tau=run.data.tau.values + 50, tau_measurement=run.data.tau_measurement.values + 50)


def moved():
    run = descended()
    return spoil(run, W_in=run.data.W_in.values * np.array([1, 1.01])[:, None, None])


BROKEN = {
    "tanh": (lambda: descended(phi="tanh"), "linear network"),
    "noise": (lambda: descended(noise=0.1), "linear network"),
    "own phi": (lambda: descended(phi="something of mine"), "linear network"),
    "flip-flop": (lambda: descended(task={"name": "flip-flop"}), "fixed-point task"),
    "short trial": (lambda: descended(task={"duration": 8.0}), "fixed-point task"),
    "trained input": (lambda: descended(train=["W", "W_in"]), "only W learns"),
    "moved input": (moved, "only W learns"),
    "unstable": (lambda: descended(learn(gain=1.2, steps=2), lr=1e-4), "fixed-point task"),
    "gain above 1": (
        lambda: descended(learn(gain=1.2, steps=2), lr=1e-4, objective={"name": "fixed-point-loss", "target": 1.0}),
        "gain below 1",
    ),
    "adam": (lambda: descended(unit="update"), "gradient flow"),
    "long steps": (lambda: descended(lr=0.2), "gradient flow"),
    "another rate": (lambda: descended(kind="flow", rates={"W": 2.0}), "gradient flow"),
    "strong input": (lambda: descended(task={"input_amplitude": 2.0}), "w and m of norm 1"),
    "w = m": (lambda: descended(learn(correlated)), "independent w, m, W0"),
    "w aligned": (lambda: descended(learn(aligned)), "independent w, m, W0"),
    "symmetric W0": (lambda: descended(learn(symmetric)), "random W0"),
    "few neurons": (lambda: descended(learn(gain=0.85, n=60, seed=3, steps=21, lr=1e-4), lr=1e-4), "large N"),
    "tiny target": (lambda: descended(target=0.05), "large N"),
    "seen late": (late, "small tau"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_each_broken_assumption_is_the_one_that_fails(what):
    make, name = BROKEN[what]
    run = make()
    assert failing(run) == [name]
    told = overlay(THEORY, run)
    assert told.prediction is None
    assert all(a.sentence.endswith(".") and len(a.sentence) < 250 for a in told.assumptions)


def test_runs_that_cannot_be_read_say_what_is_missing(run):
    bare = Run(run.data.drop_vars(["W"]))
    assert failing(bare) == ["fixed-point task", "initial weights"]
    nonlinear = descended(phi="tanh", task={"name": "flip-flop"})
    assert failing(Run(nonlinear.data.drop_vars("W"))) == ["linear network", "fixed-point task", "initial weights"]
    with pytest.raises(ValueError, match="does not keep the dense initial weights"):
        THEORY.predict(bare)
    late = Run(run.data.isel(snapshot=[1]))
    assert failing(late) == ["initial weights"]
    settings = run.configuration
    del settings["task"]["target_amplitude"]
    unknown = Run(run.data.assign_attrs(configuration=json.dumps(settings)))
    assert failing(unknown) == ["known target"]
    with pytest.raises(ValueError, match="does not say its target; give it a label"):
        THEORY.predict(unknown)
    labelled = Run(unknown.data.assign_coords(target=("run", [1.0])))
    assert failing(labelled) == []


def test_merged_runs_keep_their_own_targets_and_the_worst_member_decides():
    two = [descended(target=1.0), descended(learn(target=2.0, lr=0.003, seed=1), target=2.0, lr=0.003)]
    whole = merge(two)
    prediction = THEORY.predict(whole)
    for i, alone in enumerate(two):
        np.testing.assert_array_equal(prediction.loss.values[i], THEORY.predict(alone).loss.values[0])
    assert failing(whole) == []
    worst = {a.name: a.measured for a in THEORY.check(whole)}
    each = [{a.name: a.measured for a in THEORY.check(alone)} for alone in two]
    assert worst["large N"] == max(one["large N"] for one in each)


def test_a_stopped_member_and_a_smaller_network_do_not_disturb(run):
    data = run.data.copy(deep=True)
    data.W.values[:, 1], data.W_in.values[:, 1], data.W_out.values[:, 1] = np.nan, np.nan, np.nan
    data.tau.values[0, -5:] = np.nan
    stopped = Run(data.assign_coords(status=("run", np.array(["diverged"]))))
    assert failing(stopped) == []
    assert np.isnan(THEORY.predict(stopped).loss.values[0, -5:]).all()
    padded = run.data.pad({"unit": (0, 3), "unit_pre": (0, 3)}, constant_values=np.nan)
    small = Run(padded.assign_coords(units=("run", [120])))
    assert failing(small) == []
    np.testing.assert_array_equal(THEORY.predict(small).loss.values, THEORY.predict(run).loss.values)


def test_a_real_ensemble_with_a_grid_of_gains_is_understood():
    learned = ensemble(
        lambda *, key, gain: RateRNN.random(100, 1, 1, gain=gain, key=key, phi="identity"),
        lambda gain: MeanSquaredError(FixedPoint(duration=40.0, target_amplitude=1.0), trials=1),
        lambda gain: optax.sgd(0.02 * (1 - gain**2) ** 2),
        keys=jax.random.split(jax.random.key(1), 1),
        grid={"gain": [0.0, 0.4]},
        steps=30,
        train=("W",),
        record=Record(measurements=4),
    )
    told = overlay(THEORY, learned)
    assert [a.name for a in told.assumptions if not a.holds] == []
    prediction = told.prediction
    assert prediction.loss.shape == learned.data.loss.shape and prediction.gain.values.tolist() == [0.0, 0.4]
    off = abs(prediction.loss - learned.data.loss) / prediction.loss_band
    assert float(off.max()) < 3
