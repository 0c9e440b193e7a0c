"""OutlierTheory and OscillatorTheory on runs: right where they apply, and a sentence where they do not."""

from dataclasses import fields
from functools import cache

import numpy as np
import pytest
import xarray as xr

import filter_flow
from tauflow.run import Run, merge, run_attributes
from tauflow.tasks import DampedOscillator, FixedPoint, LeakyIntegrator, SampledFilter
from tauflow.theory import OscillatorTheory, OutlierTheory, overlay
from tauflow.theory.effective_network import effective_loss
from tauflow.theory.outlier import reduced_flow

TIMES = np.linspace(0.0, 2.5, 11)
LEAK, RINGING = LeakyIntegrator(0.4), DampedOscillator(0.4, 1.0)
ALL = ("W", "W_in", "W_out")


@cache
def followed(kind, n=40, sigma=0.1, gamma0=1.0):
    """A whole network along its flow: u, v, M, losses and probe at TIMES."""
    if kind == "outlier":
        target, (u, v, M) = LEAK, filter_flow.random_network(n, sigma, seed=4)
    else:
        target, (u, v, M, _) = RINGING, filter_flow.planted_network(n, sigma, 0.6, 0.7, seed=4)
    us, vs, Ms = filter_flow.full_flow(u, v, M, target, TIMES, gamma0)
    probe = filter_flow.along(us, vs, Ms) if kind == "outlier" else np.array([filter_flow.leading_pair(M) for M in Ms])
    return us, vs, Ms, effective_loss(us, vs, Ms, target, gamma0), probe


def run_of(kind, *, start=None, pace=1.0, run_kind="flow", unit="flow", objective="filter-loss", gamma0=1.0, **changes):
    """A Run of what `followed` gives; the changes spoil its description, `start` its first weights (u, v, M)."""
    us, vs, Ms, losses, probe = followed(kind, gamma0=gamma0)
    n, about = us.shape[1], {"unit": unit}
    u, v, M = start or (us[0], vs[0], Ms[0])
    root, target = np.sqrt(n), changes.get("target", LEAK if kind == "outlier" else RINGING)
    name = "probe_coupling" if kind == "outlier" else "probe_outlier_pair"
    dims = ("run", "measurement") if kind == "outlier" else ("run", "measurement", f"{name}_0")
    rates = changes.get("rates", dict.fromkeys(ALL, pace * gamma0**2 * n))
    configuration = {
        "objective": {"name": objective}, "train": changes.get("train", list(ALL)), "rates": rates,
        "task": {"name": target.name, **{f.name: getattr(target, f.name) for f in fields(target)}},
    }  # fmt: skip
    tau, steps = TIMES / pace, np.arange(len(TIMES))
    data = xr.Dataset(
        {
            "loss": (("run", "update"), losses[None]), name: (dims, probe[None]),
            "W": (("run", "snapshot", "unit", "unit_pre"), np.array([[root * M, root * Ms[-1]]])),
            "W_in": (("run", "snapshot", "unit", "input"), np.array([[root * u[:, None], root * us[-1][:, None]]])),
            "W_out": (("run", "snapshot", "output", "unit"), np.array([[root * v[None], root * vs[-1][None]]])),
        },
        coords={
            "status": ("run", np.array(["done"])), "stopped_at": ("run", [-1]), "seed": ("run", [0]),
            "update": steps, "measurement_update": ("measurement", steps),
            "snapshot_update": ("snapshot", [0, steps[-1]]),
            "tau": (("run", "update"), tau[None], about), "tau_measurement": (("run", "measurement"), tau[None], about),
            "tau_snapshot": (("run", "snapshot"), tau[None, [0, -1]], about),
        },
    )  # fmt: skip
    network = {"name": "ContinuousLinearRNN", "static": changes.get("static", {"gamma0": gamma0, "dt": 0.1})}
    attributes = run_attributes(run_kind, configuration=configuration, network=network, seed=0, device="cpu")
    return Run(data.assign_attrs(attributes))


THEORIES = {"outlier": OutlierTheory(), "oscillator": OscillatorTheory()}
both = pytest.mark.parametrize("kind", THEORIES)


def inside(prediction, data):
    """Largest deviation from a run in units of the band, over both quantities."""
    names = [name for name in prediction if not name.endswith("_band")]
    assert len(names) == 2
    floor = 1e-6  # of the flow that stands for the run
    ratios = [abs(prediction[n] - data[n]) / (prediction[f"{n}_band"] + floor) for n in names]
    return max(float(ratio.max()) for ratio in ratios)


# ----------------------------------------------------------------------------------------------- where they apply


@both
@pytest.mark.parametrize("change", [{}, {"gamma0": 0.6}, {"pace": 3.0}], ids=["plain", "gamma0", "other unit of time"])
def test_predictions_lie_within_their_bands(kind, change):
    run = run_of(kind, **change)
    found = overlay(THEORIES[kind], run)
    assert found.applies, [a.sentence for a in found.assumptions if not a.holds]
    assert inside(found.prediction, run.data) < 1
    assert found.prediction.attrs["theory"] == THEORIES[kind].name
    np.testing.assert_array_equal(found.prediction["tau"], run.data["tau"])


@both
def test_bands_are_narrow_and_reject_nulls(kind):
    """Nothing happens, no factor 2, a rate 2 % off, the wrong sign: none lies within the band."""
    run = run_of(kind)
    prediction = THEORIES[kind].predict(run)
    change = float(np.ptp(run.data["loss"].values))
    assert float(prediction["loss_band"].max()) < 0.01 * change
    values = {name: prediction[name] for name in prediction if "band" not in name}
    nulls = {
        "nothing": prediction.assign({n: x.copy(data=0 * x.values + x.values[:, :1]) for n, x in values.items()}),
        "sign": prediction.assign({n: x.copy(data=2 * x.values[:, :1] - x.values) for n, x in values.items()}),
    }
    for name, pace in (("no factor 2", 0.5), ("2% slow", 0.98)):
        nulls[name] = THEORIES[kind].predict(run_of(kind, rates=dict.fromkeys(ALL, pace * 40)))
    for name, null in nulls.items():
        assert inside(null.assign({n: prediction[n] for n in prediction if "band" in n}), run.data) > 2, name


def test_the_reduced_flow_alone_is_outside_the_band():
    run = run_of("outlier")
    us, vs, *_ = followed("outlier")
    start = np.linalg.norm(us[0] + vs[0]) / 2
    alone = 1 - reduced_flow(TIMES, 0.1, 0.4, u=start).c
    prediction = OutlierTheory().predict(run)
    off = abs(alone - run.data["probe_coupling"].values[0])
    assert off.max() > 5 * float(prediction["probe_coupling_band"].max())
    assert off.max() < 0.1, "yet it has the shape"


def test_members_of_merged_runs_are_read_one_by_one():
    runs = [run_of("outlier"), run_of("outlier", pace=2.0)]
    merged = merge(runs)
    together = OutlierTheory().predict(merged)
    for i, run in enumerate(runs):
        np.testing.assert_allclose(together["loss"][i], OutlierTheory().predict(run)["loss"][0], rtol=1e-12)
    assert overlay(OutlierTheory(), merged).applies


# ------------------------------------------------------------------------------------------------- where they do not


def spoiled_start(kind, how):
    us, vs, Ms, *_ = followed(kind)
    return how(us[0], vs[0], Ms[0])


SPOILED = {
    ("outlier", "exact filter loss"): {"objective": "mean-squared-error"},
    ("outlier", "initial weights and target"): {"static": {}},
    ("outlier", "everything learns"): {"train": ["W_out"], "rates": {"W_out": 40.0}},
    ("outlier", "mean-field rates"): {"rates": {"W": 40.0, "W_in": 40.0, "W_out": 41.0}},
    ("outlier", "leaky-integrator target"): {"target": RINGING},
    ("outlier", "small weights"): {"start": lambda u, v, M: (u, v, M + 0.9 * np.eye(40, k=1) * (np.arange(40) == 5))},
    ("outlier", "target outside the bulk"): {"target": LeakyIntegrator(0.95)},
    ("outlier", "common direction"): {"start": lambda u, v, M: (u, 0.1 * v - u, M)},
    ("oscillator", "initial weights and target"): {"target": FixedPoint()},
    ("oscillator", "everything learns"): {"train": ["W", "W_in"], "rates": {"W": 40.0, "W_in": 40.0}},
    ("oscillator", "target with a realisation"): {"target": SampledFilter([1.0, 0.5, 0.0], 1.0)},
    ("oscillator", "planted pair"): {"start": lambda u, v, M: (u, v, (M + M.T) / 2)},
    ("oscillator", "small bulk"): {
        "start": lambda u, v, M: (u, v, M + 0.9 * np.eye(40)[[5, 7]].T @ np.eye(40)[[6, 8]])
    },
    ("oscillator", "u and v in the plane"): {"start": lambda u, v, M: (u + 0.5 * np.eye(40)[0], v, M)},
}


@pytest.mark.parametrize(("kind", "name"), SPOILED)
def test_a_broken_assumption_is_named(kind, name):
    change = dict(SPOILED[kind, name])
    if "start" in change:
        change["start"] = spoiled_start(kind, change["start"])
    found = overlay(THEORIES[kind], run_of(kind, **change))
    assert not found.applies
    (broken,) = [a for a in found.assumptions if not a.holds]
    assert broken.name == name
    assert broken.sentence.endswith(".") and "\n" not in broken.sentence


@both
def test_learning_that_is_no_gradient_flow_is_refused(kind):
    run = run_of(kind, run_kind="descend", unit="update")
    names = [a.name for a in THEORIES[kind].check(run) if not a.holds]
    assert names == ["everything learns"]
    with pytest.raises(ValueError, match="does not follow gradient flow, so its learning rates are not known"):
        THEORIES[kind].predict(run)


@both
def test_plain_descent_counts_as_flow_in_its_own_time(kind):
    """The rate is then 1 in units of tau, so a run at the mean-field rate has N gamma0² times the tau."""
    run = run_of(kind, pace=1 / 40, run_kind="descend")
    found = overlay(THEORIES[kind], run)
    assert found.applies and inside(found.prediction, run.data) < 1


@both
def test_a_run_of_another_kind_is_refused_without_an_error(kind):
    data = run_of(kind).data.drop_dims("snapshot")
    run = Run(data.assign_attrs(configuration="{}", network='{"name": "RateRNN", "static": {}}'))
    assert [a.holds for a in THEORIES[kind].check(run)] == [False]
    with pytest.raises(ValueError, match="record the weights at update 0"):
        THEORIES[kind].predict(run)


@both
def test_a_member_without_a_learning_time_has_no_prediction_there(kind):
    run = run_of(kind)
    tau = run.data["tau"].values.copy()
    tau[0, 5:] = np.nan
    cut = Run(run.data.assign_coords(tau=(("run", "update"), tau, {"unit": "flow"})))
    loss = THEORIES[kind].predict(cut)["loss"].values[0]
    assert np.isfinite(loss[:5]).all() and np.isnan(loss[5:]).all()
