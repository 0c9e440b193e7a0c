"""LazyTheory on runs: its bands mean what they say, and it says why it does not apply elsewhere."""

import json
from functools import cache

import numpy as np
import pytest
import xarray as xr

import moment_networks
from tauflow.run import Run, merge, run_attributes
from tauflow.theory import LazyTheory, overlay

THEORY, SIGMA = LazyTheory(), 0.6
TAUS = np.linspace(0, 2, 9)
ALL = ("W", "W_in", "W_out")


@cache
def learn(n=200, gamma0=0.1, seed=0, c=0.8, train=ALL, make=None):
    """What a network did: its losses at TAUS, first and last (W, u, v)."""
    reference = moment_networks.Reference(SIGMA, c, powers=30)
    theta = make() if make else reference.network(n, seed)
    losses, _, weights = reference.follow(theta, gamma0 * np.sqrt(len(theta[1])), TAUS, train)
    return losses, weights[0], weights[-1]


def flowed(learned=None, *, gamma0=0.1, c=0.8, train=ALL, kind="flow", unit="flow", **changes):
    """A Run of what `learn` did; `changes` spoil its description."""
    losses, first, last = learned or learn(gamma0=gamma0, c=c, train=train)
    n = len(first[1])
    ends, unit = np.array([0, len(TAUS) - 1]), {"unit": unit}
    rates = changes.get("rates", dict.fromkeys(train, gamma0**2 * n))
    configuration = {
        "objective": {"name": changes.get("objective", "filter-loss")},
        "task": changes.get("task", {"name": "leaky-integrator", "c": c}), "train": list(train), "rates": rates,
    }  # fmt: skip
    data = xr.Dataset(
        {
            "loss": (("run", "update"), losses[None].copy()),
            "W": (("run", "snapshot", "unit", "unit_pre"), np.sqrt(n) * np.array([[first[0], last[0]]])),
            "W_in": (("run", "snapshot", "unit", "input"), np.array([[first[1][:, None], last[1][:, None]]])),
            "W_out": (("run", "snapshot", "output", "unit"), np.array([[first[2][None], last[2][None]]])),
        },
        coords={
            "status": ("run", np.array(["done"])), "stopped_at": ("run", [-1]), "seed": ("run", [0]),
            "update": np.arange(len(TAUS)), "snapshot_update": ("snapshot", ends),
            "tau": (("run", "update"), TAUS[None].copy(), unit),
            "tau_snapshot": (("run", "snapshot"), TAUS[ends][None], unit),
        },
    )  # fmt: skip
    network = {"name": changes.get("network", "ContinuousLinearRNN"), "static": {"gamma0": gamma0, "dt": 0.1}}
    return Run(
        data.assign_attrs(run_attributes(kind, configuration=configuration, network=network, seed=0, device="cpu"))
    )


def failing(run):
    return [assumption.name for assumption in THEORY.check(run) if not assumption.holds]


def test_it_applies_to_a_lazy_run_and_predicts_on_its_axes():
    run = flowed()
    over = overlay(THEORY, run)
    assert over.applies, failing(run)
    assert [a.name for a in over.assumptions] == [
        "exact filter loss", "sigma below 1", "gradient flow", "random start", "independent u, v, W0", "large N",
        "lazy learning",
    ]  # fmt: skip
    predicted = over.prediction
    assert predicted.loss.dims == ("run", "update") and predicted.loss.dtype == np.float64
    assert set(predicted.data_vars) == {"loss", "loss_band"}
    xr.testing.assert_equal(predicted.tau, run.data.tau)
    np.testing.assert_allclose(predicted.loss[:, 0], run.data.loss[:, 0], rtol=1e-9)


@pytest.mark.parametrize("train", [ALL, ("W_out",)])
def test_the_band_is_one_standard_deviation_over_networks(train):
    """Deviations in units of the band have root mean square about 1; those of wrong kernels and clocks do not."""
    runs = [flowed(learn(100, 0.1, seed, train=train), train=train) for seed in range(24)]
    right = [THEORY.predict(run) for run in runs]

    def size(scale):
        """That of predictions whose clock runs at another speed."""
        off = []
        for run, own in zip(runs, right, strict=True):
            times = scale * run.data.tau.values
            other = THEORY.predict(Run(run.data.assign_coords(tau=(run.data.tau.dims, times, run.data.tau.attrs))))
            off.append((run.data.loss.values - other.loss.values)[0, 1:5] / own.loss_band.values[0, 1:5])
        return float(np.sqrt(np.mean(np.array(off) ** 2)))

    assert 0.6 < size(1.0) < 1.5
    for scale in (0.5, 2.0, SIGMA**2, 0.0):  # no factor 2, one too many, variances counted twice, nothing
        assert size(scale) > 2, scale


def test_what_the_kernels_motion_leaves_out_widens_the_band():
    """As gamma0 grows the prediction stays, its band widens, and the assumption of lazy learning gives way."""
    runs = [flowed(gamma0=gamma0) for gamma0 in (0.1, 0.3, 1.0)]
    change = [THEORY.check(run)[-1].measured for run in runs]
    assert change[0] < 0.1 < 0.2 < change[1] < change[2]
    assert [failing(run) for run in runs] == [[], ["lazy learning"], ["lazy learning"]]
    relative = [float((p.loss_band / p.loss)[0, 2]) for p in map(THEORY.predict, runs)]
    assert relative[0] < relative[1] < relative[2]
    rich = abs(runs[2].data.loss - THEORY.predict(runs[2]).loss)[0]
    assert float(rich[4]) > 3 * float(abs(runs[0].data.loss - THEORY.predict(runs[0]).loss)[0, 4])


def test_a_target_outside_the_range_sets_the_kernel_moving():
    inside, outside = (THEORY.check(flowed(gamma0=0.15, c=c))[-1] for c in (0.8, 0.2))
    assert inside.holds and not outside.holds and outside.measured > 3 * inside.measured
    assert "inside the learnable range" in outside.sentence


def spoilt(change):
    """A random start with one thing changed."""

    def make():
        J, u, v = moment_networks.Reference(SIGMA, 0.8, powers=30).network(200, 1)
        return change(J, u, v)

    return make


STARTS = {
    "one vector": (lambda J, u, v: (J, u, u), "independent u, v, W0"),
    "readout through W": (lambda J, u, v: (J, u, J @ u / SIGMA), "independent u, v, W0"),
    "large read-in": (lambda J, u, v: (J, 3 * u, v), "random start"),
    "symmetric W": (lambda J, u, v: ((J + J.T) / np.sqrt(2) / 1.6, u / 1.6, v / 1.6), "random start"),
    "planted direction": (
        lambda J, u, v: (J + 0.5 * np.outer(u, u) / (u @ u), u, v), "random start",
    ),
    "few units": (lambda J, u, v: (J[:8, :8] * 5, u[:8], v[:8]), "large N"),
}  # fmt: skip


@pytest.mark.parametrize("name", STARTS)
def test_other_starts_are_told_apart(name):
    change, assumption = STARTS[name]
    assert assumption in failing(flowed(learn(make=spoilt(change)))), name


def test_other_runs_are_told_apart():
    assert failing(flowed(network="RateRNN")) == ["exact filter loss"]
    assert failing(flowed(objective="mean-squared-error")) == ["exact filter loss"]
    assert failing(flowed(task={"name": "flip-flop"})) == ["known target"]
    assert failing(flowed(unit="update", kind="descend")) == ["gradient flow"]
    assert failing(flowed(kind="descend")) == ["gradient flow"]  # steps of 0.25, at rate 1 in place of gamma^2
    late = flowed().data.assign_coords(snapshot_update=("snapshot", [1, 8]))
    assert failing(Run(late)) == ["initial weights"]
    losses, first, last = learn()
    wide = learn()[0], (first[0] * 2, first[1], first[2]), last
    assert failing(flowed(wide)) == ["sigma below 1"]
    gone = losses, first, (np.nan * last[0], last[1], last[2])
    data = flowed(gone).data.assign_coords(status=("run", ["diverged"]), stopped_at=("run", [8]))
    assert failing(Run(data)) == ["lazy learning"]
    assert failing(Run(flowed().data.isel(snapshot=[0]))) == ["lazy learning"]
    with pytest.raises(ValueError, match="does not follow gradient flow"):
        THEORY.predict(flowed(unit="update"))


def test_rates_scale_the_kernel():
    """Rates twice as large and half the time are the same prediction; a part that does not learn adds nothing."""
    run = flowed()
    double = run.configuration | {"rates": dict.fromkeys(ALL, 2 * run.configuration["rates"]["W"])}
    data = run.data.assign_coords(tau=(run.data.tau.dims, run.data.tau.values / 2, run.data.tau.attrs))
    faster = Run(data.assign_attrs({**data.attrs, "configuration": json.dumps(double)}))
    np.testing.assert_allclose(THEORY.predict(faster).loss, THEORY.predict(run).loss, rtol=1e-9)
    still = run.configuration | {"rates": {**run.configuration["rates"], "W": 0.0, "W_in": 0.0}}
    held = Run(run.data.assign_attrs({**run.data.attrs, "configuration": json.dumps(still)}))
    readout = flowed(train=("W_out",), learned=learn())
    np.testing.assert_allclose(THEORY.predict(held).loss, THEORY.predict(readout).loss, rtol=1e-9)


def test_members_keep_their_own_settings():
    runs = [flowed(learn(seed=s, c=c), c=c) for s, c in ((0, 0.8), (1, 0.6))]
    together = merge(runs)
    assert overlay(THEORY, together).applies
    for i, run in enumerate(runs):
        np.testing.assert_allclose(THEORY.predict(together).loss[i], THEORY.predict(run).loss[0], rtol=1e-12)
    runs[0].data.tau.values[0, -2:] = np.nan
    predicted = THEORY.predict(Run(runs[0].data))
    assert np.isnan(predicted.loss[0, -2:]).all() and np.isfinite(predicted.loss[0, :-2]).all()
