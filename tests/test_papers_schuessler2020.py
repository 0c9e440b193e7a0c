"""The figures of schuessler2020: every claim holds on its data, and fails on data in which it is not so."""

import dataclasses
import functools
import subprocess
import sys

import jax
import numpy as np
import pytest
import xarray as xr

from tauflow.papers import PAPERS, Claim, Reproduction
from tauflow.papers.schuessler2020 import _linear, _predictions, _tasks, fig1, fig2, fig3, fig4, s1, s2, s3, s4, s5
from tauflow.run import Run

FIGURES = PAPERS["schuessler2020"].figures
MODULES = {"fig1": fig1, "fig2": fig2, "fig3": fig3, "fig4": fig4, "s1": s1, "s2": s2, "s3": s3, "s4": s4, "s5": s5}


@functools.cache
def quick(name: str) -> Reproduction:
    return FIGURES[name].function(quick=True)


def claim(name: str, which: str, data: xr.Dataset) -> Claim:
    return {made.name: made for made in MODULES[name].claims(data)}[which]


def test_the_registry_names_every_figure() -> None:
    assert set(FIGURES) == set(MODULES)
    for name, figure in FIGURES.items():
        assert figure.function is MODULES[name].reproduce and figure.description


def test_listing_the_papers_imports_neither_jax_nor_matplotlib() -> None:
    heavy = ("jax", "matplotlib", "xarray")
    code = f"import sys; from tauflow.papers import PAPERS; print([m for m in {heavy} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize("name", FIGURES)
def test_the_claims_of_the_quick_version_hold(name: str) -> None:
    made = quick(name)
    assert made.paper == "schuessler2020" and made.figure == name
    assert made.claims and made.holds, "\n".join(map(str, made.claims))
    assert all(each.measured for each in made.claims)
    assert len(made.plot.axes) > 1 and all(
        axes.get_xlabel() or axes.get_ylabel() or axes.lines for axes in made.plot.axes
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", FIGURES)
def test_the_claims_of_the_full_version_hold(name: str) -> None:
    made = FIGURES[name].function()
    assert made.holds, "\n".join(map(str, made.claims))


# Nulls: planted in the data of a figure, each must bring down its claim.


@functools.cache
def trained() -> tuple[Run, _tasks.Training]:
    training = dataclasses.replace(fig1.QUICK[0], seeds=1, epochs=200)
    return training.train(key=jax.random.key(3)), training


def describe(run: Run, training: _tasks.Training) -> xr.Dataset:
    return fig1.describe(run, training, key=jax.random.key(4), seed=0).expand_dims("task")


def with_last(run: Run, name: str, values: np.ndarray) -> Run:
    data = run.data.copy(deep=True)
    data[name][:, -1] = values
    return Run(data)


def test_low_rank_fails_for_noise_of_the_same_norm() -> None:
    run, training = trained()
    good = describe(run, training)
    assert all(claim("fig1", name, good).holds for name in ("change_of_low_rank", "change_of_lower_rank_than_weights"))
    W0, W = run.data["W"].values[:, 0], run.data["W"].values[:, -1]
    noise = np.random.default_rng(0).standard_normal(W.shape).astype(W.dtype)
    noisy = describe(with_last(run, "W", W0 + noise * (np.linalg.norm(W - W0) / np.linalg.norm(noise))), training)
    assert not any(claim("fig1", name, noisy).holds for name in MODULES_FIG1)


MODULES_FIG1 = ("loss_below_5_percent", "change_of_low_rank", "change_of_lower_rank_than_weights")


def test_low_loss_fails_for_a_network_that_has_not_learned() -> None:
    run, training = trained()
    for name in ("W", "W_in", "W_out"):
        run = with_last(run, name, run.data[name].values[:, 0])
    data = describe(run, training)
    assert not any(claim("fig1", name, data).holds for name in MODULES_FIG1)


def test_dependence_on_the_gain_fails_when_gains_are_exchanged() -> None:
    data = quick("fig2").data.copy(deep=True)
    data["gain"] = data["gain"].copy(data=0.9 * (data["gain"].values == 0))
    for name in ("faster_with_initial_connectivity", "change_shrinks_with_gain"):
        assert not claim("fig2", name, data).holds
    harmless = quick("fig2").data.assign(shuffled_loss=quick("fig2").data["final_loss"])
    assert not claim("fig2", "shuffling_destroys", harmless).holds


def planted(name: str, **changes: object) -> xr.Dataset:
    data = quick(name).data.copy(deep=True)
    for variable, change in changes.items():
        data[variable] = change(data)  # type: ignore[operator]
    return data


@pytest.mark.parametrize("name", ["fig3", "fig4"])
def test_the_initial_rate_rejects_a_theory_2_percent_off(name: str) -> None:
    for factor in (1.02, 0.98):
        data = planted(name, initial_rate_theory=lambda data, factor=factor: factor * data["initial_rate_theory"])
        assert not claim(name, "initial_rate_as_predicted", data).holds


@pytest.mark.parametrize(
    ("figure", "which", "variable", "null"),
    [
        ("fig3", "loss_as_predicted", "distance", lambda data: xr.ones_like(data["distance"])),
        ("fig3", "loss_as_predicted", "distance_theory", lambda data: 2 - data["distance_theory"]),
        ("fig3", "s1_as_predicted", "s1", lambda data: 0 * data["s1"]),
        ("fig3", "s1_as_predicted", "s1_theory", lambda data: 1.5 * data["s1_theory"]),
        ("fig3", "s2_as_predicted", "s2", lambda data: data["s1"]),
        ("fig3", "simulation_agrees", "simulated_loss", lambda data: 1.02 * data["simulated_loss"]),
        ("fig4", "learning_time_as_predicted", "learning_time", lambda data: 1.5 * data["learning_time"]),
        ("fig4", "learning_time_as_predicted", "learning_time", lambda data: np.nan * data["learning_time"]),
        ("fig4", "delta_W_norm_as_predicted", "delta_W_norm", lambda data: 0 * data["delta_W_norm"]),
        ("fig4", "shuffled_loss_as_predicted", "shuffled_loss", lambda data: 1 - data["shuffled_loss"]),
        ("fig4", "all_learn", "final_loss", lambda data: xr.ones_like(data["final_loss"])),
        ("s1", "functional_rank_delta_W_scaling", "functional_rank_delta_W", lambda data: 0.3 * data["neurons"]),
        ("s1", "delta_W_norm_scaling", "delta_W_norm", lambda data: data["neurons"] ** 0.5),
        ("s1", "learning_time_scaling", "learning_time", lambda data: data["neurons"].astype(float)),
        ("s1", "W_norm_scaling", "W_norm", lambda data: data["delta_W_norm"]),
        ("s2", "change_shrinks", "gain", lambda data: data["gain"].max() - data["gain"]),
        ("s2", "weights_grow", "gain", lambda data: data["gain"].max() - data["gain"]),
        ("s2", "bulk_stays_inside", "W_eigenvalues", lambda data: 1.5 * data["W_eigenvalues"]),
        ("s4", "fails_where_an_eigenvalue_crosses_1", "largest_real_part", lambda data: 0 * data["largest_real_part"]),
        ("s4", "fails_for_large_target_and_gain", "gain", lambda data: 1 - data["gain"]),
        ("s5", "fails_only_without_initial_connectivity", "gain", lambda data: 0.8 - data["gain"]),
        ("s5", "oscillation_needs_a_complex_pair", "leading", lambda data: data["leading"].real + 0j),
    ],
)
def test_a_claim_fails_on_a_null(figure: str, which: str, variable: str, null: object) -> None:
    assert claim(figure, which, quick(figure).data).holds
    assert not claim(figure, which, planted(figure, **{variable: null})).holds


@pytest.mark.parametrize(("which", "index"), [("first_is_linear", 0), ("second_is_cubic", 1)])
def test_a_slope_rejects_other_powers(which: str, index: int) -> None:
    for power in (-0.06, 0.06, 1.0):
        data = quick("s3").data.copy(deep=True)
        data["singular_values"][..., index] *= data["t"].values ** power
        assert not claim("s3", which, data).holds
    level = quick("s3").data.copy(deep=True)
    level["singular_values"][..., 2] = level["singular_values"].values[..., 1]
    assert not claim("s3", "others_are_of_higher_order", level).holds


# The helpers.


def test_learning_time_is_the_first_epoch_below_5_percent() -> None:
    loss = np.array([[2.0, 1.0, 0.11, 0.09, 0.5], [2.0, 2.0, 1.0, 1.0, 1.0]])
    np.testing.assert_array_equal(_tasks.learning_time(loss), [3.0, np.nan])


def test_crossing_interpolates_between_updates() -> None:
    tau = np.linspace(0, 5, 26)[None]
    found = _linear.crossing(tau, np.exp(-2 * tau), 0.05)
    np.testing.assert_allclose(found, np.log(20) / 2, rtol=1e-12)


def test_the_theory_of_small_targets_at_zero_gain_is_the_exponential() -> None:
    neurons = 10**12
    tau = np.linspace(0, 1, 11)
    made = _predictions.distance(tau, 0.0, 1e-4, neurons)
    np.testing.assert_allclose(made.scaled, np.exp(-tau), atol=2e-5)
    np.testing.assert_allclose(made.truncation, np.abs(1 - tau + tau**2 / 2 - tau**3 / 6 - np.exp(-tau)), atol=2e-5)
    time = _predictions.time_to(0.05, np.array([0.0]), np.array([1e-4]), neurons)
    np.testing.assert_allclose(time.scaled, np.log(20) / 2, rtol=1e-4)
    np.testing.assert_allclose(
        _predictions.final_norm(np.array([0.6]), np.array([1e-4]), neurons).scaled, 0.64e-4, rtol=1e-6
    )
    np.testing.assert_allclose(
        _predictions.change(np.array(0.5), 0.0, 1e-4, neurons)[0].scaled, 1e-4 * (1 - np.exp(-0.5)), rtol=1e-4
    )


def test_spreads_shrink_as_the_root_of_the_number_of_neurons() -> None:
    sizes = np.array([10**6, 4 * 10**6])
    gain, target = np.array([0.5]), np.array([1.0])
    for function in (
        lambda n: _predictions.time_to(0.05, gain, target, n),
        lambda n: _predictions.final_norm(gain, target, n),
        lambda n: _predictions.final_shuffled_loss(gain, target, n),
        lambda n: _predictions.first_rate(gain, n),
        lambda n: _predictions.distance(0.3, gain, target, n),
    ):
        large, small = (function(int(n)).spread for n in sizes)
        np.testing.assert_allclose(large / small, 2, rtol=0.02)
