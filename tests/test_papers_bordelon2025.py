"""The figures of bordelon2025: every claim holds on its data, and fails on data in which it is not so."""

import functools
import importlib
from collections.abc import Callable

import jax
import numpy as np
import pytest
import xarray as xr
from scipy.optimize import linear_sum_assignment

from tauflow.papers import PAPERS, Claim, Reproduction

FIGURES = PAPERS["bordelon2025"].figures


@functools.cache
def quick(name: str) -> Reproduction:
    return FIGURES[name].function(quick=True)


def claim(name: str, which: str, data: xr.Dataset) -> Claim:
    return {made.name: made for made in importlib.import_module(FIGURES[name].module).claims(data)}[which]


def test_the_registry_names_every_figure() -> None:
    assert list(FIGURES) == ["fig1", "fig2", "fig3", "s1", "s2", "s3"]
    assert all(figure.description for figure in FIGURES.values())


@pytest.mark.parametrize("name", FIGURES)
def test_the_claims_of_the_quick_version_hold(name: str) -> None:
    made = quick(name)
    assert made.paper == "bordelon2025" and made.figure == name
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


def faster(name: str, rate: float) -> Callable[[xr.Dataset], xr.DataArray]:
    """A variable along `tau` as it would be if learning ran at another rate."""

    def changed(data: xr.Dataset) -> xr.DataArray:
        tau, values = np.broadcast_arrays(data["tau"].values, data[name].values)
        rows = [np.interp(rate * t, t, v) for t, v in zip(tau, values, strict=True)]
        return data[name].copy(data=np.stack(rows))

    return changed


def scaled(name: str, factor: float) -> Callable[[xr.Dataset], xr.DataArray]:
    return lambda data: factor * data[name]


def as_is(name: str) -> Callable[[xr.Dataset], xr.DataArray]:
    return lambda data: data[name]


def at_first(values: np.ndarray) -> np.ndarray:
    """What values along the last axis would be if nothing happened."""
    return np.repeat(values[..., :1], values.shape[-1], axis=-1)


def exchanged(eigenvalues: np.ndarray) -> np.ndarray:
    """Eigenvalues whose last ones are those of other random weights."""
    last, n = eigenvalues[-1], eigenvalues.shape[-1]
    other = np.linalg.eigvals(np.random.default_rng(0).standard_normal((n, n)) / np.sqrt(n))
    matched = linear_sum_assignment(np.abs(last[:, None] - other))[1]
    return np.concatenate([eigenvalues[:-1], other[matched][None]])


def stretched(data: xr.Dataset, rate: float) -> np.ndarray:
    t = data["t"].values
    return np.stack([np.interp(rate * t, t, column) for column in data["function_theory"].values.T], axis=1)


NULLS = [
    ("fig1", "bulk_stays", "eigenvalues", lambda data: data["eigenvalues"] * (1 + 0.5 * (data["tau_eigenvalues"] > 0))),
    ("fig1", "outlier_as_predicted", "projected", as_is("reduced")),
    ("fig1", "outlier_as_predicted", "projected", scaled("projected", -1)),
    ("fig1", "outlier_as_predicted", "projected", scaled("projected", 0)),
    ("fig1", "outlier_as_predicted", "projected", faster("projected", 1.02)),
    ("fig1", "outlier_as_predicted", "projected", faster("projected", 0.98)),
    ("fig1", "reduced_flow_as_sigma_falls", "reduced", lambda data: data["reduced"] - 0.1),
    ("fig1", "reduced_flow_as_sigma_falls", "reduced", scaled("reduced", 0)),
    ("fig1", "ends_at_target", "eigenvalues", scaled("eigenvalues", 1.02)),
    ("fig1", "ends_at_target", "eigenvalues", lambda data: data["eigenvalues"][0] + 0 * data["eigenvalues"]),
    ("fig1", "plateau_slope", "tau", scaled("tau", 1.02)),
    ("fig1", "plateau_slope", "tau", scaled("tau", 0.98)),
    ("fig1", "plateau_slope", "tau", lambda data: data["tau"] * data["sigma"] ** 0.1),
    ("fig1", "escape_slope", "tau", scaled("tau", 1.02)),
    ("fig1", "escape_slope", "tau", scaled("tau", 0.98)),
    ("fig3", "two_neurons_as_sigma_falls", "two_neurons_pair", as_is("six_numbers_pair")),
    ("fig3", "two_neurons_as_sigma_falls", "two_neurons_pair", lambda data: data["pair"][:, 0] + 0 * data["pair"]),
    ("fig3", "two_neurons_as_sigma_falls", "two_neurons_loss", lambda data: 0 * data["loss"] + data["loss"][0, 0]),
    ("fig3", "pair_as_predicted", "with_bulk_pair", as_is("two_neurons_pair")),
    ("fig3", "six_numbers_do_not_suffice", "six_numbers_pair", as_is("two_neurons_pair")),
    ("fig3", "bulk_stays", "eigenvalues", lambda data: data["eigenvalues"] * (1 + 0.5 * (data["tau_eigenvalues"] > 0))),
    ("fig3", "ends_at_target", "pair", scaled("pair", 1.02)),
    ("fig3", "ends_at_target", "pair", lambda data: data["pair"].conj()),
    ("s3", "escape_depends_on_sigma", "leading", lambda data: abs(data["leading"]) * np.exp(1j)),
    ("s3", "warm_start_takes_it_away", "leading", lambda data: abs(data["leading"]) * np.exp(1j + 0.02j * data["run"])),
    ("s3", "later_for_smaller_weights", "tau", lambda data: data["tau"] * data["sigma"]),
    ("s3", "all_end_at_target", "leading", scaled("leading", 0.95)),
]


def stays(name: str) -> Callable[[xr.Dataset], xr.DataArray]:
    """A variable as it would be if nothing happened along its last axis."""
    return lambda data: data[name].copy(data=at_first(data[name].values))


LAZY_NULLS = [
    (
        "eigenvalues_stay",
        "eigenvalues",
        lambda data: data["eigenvalues"].copy(data=exchanged(data["eigenvalues"].data)),
    ),
    ("eigenvalues_stay", "eigenvalues", lambda data: data["eigenvalues"] * (1 + 0.1 * (data["tau_eigenvalues"] > 0))),
    ("eigenvalues_stay", "eigenvalues_loss", lambda data: 0 * data["eigenvalues_loss"] + 1),
    ("loss_as_predicted", "theory", stays("theory")),
    ("loss_as_predicted", "theory", faster("theory", 0.25)),
    ("loss_as_predicted", "theory", faster("theory", 4.0)),
    ("loss_as_predicted", "theory", as_is("mean")),
    ("loss_as_predicted", "loss", stays("loss")),
    ("speed_as_predicted", "theory", faster("theory", 0.5)),
    ("speed_as_predicted", "theory", faster("theory", 2.0)),
    ("speed_as_predicted", "loss", scaled("loss", np.nan)),
    ("mean_as_predicted", "loss", stays("loss")),
    ("mean_as_predicted", "mean", scaled("mean", 3)),
]
NULLS += [(figure, *each) for figure in ("fig2", "s2") for each in LAZY_NULLS]
NULLS += [("s1", *each) for each in LAZY_NULLS if each[0] != "eigenvalues_stay"]


def after(name: str, rate: float) -> Callable[[xr.Dataset], xr.DataArray]:
    return lambda data: data[name] * np.exp(rate * data["t"])


def backwards(name: str, along: str) -> Callable[[xr.Dataset], xr.DataArray]:
    return lambda data: data[name].copy(data=data[name].isel({along: slice(None, None, -1)}).values)


NULLS += [
    ("fig2", "autocorrelation_as_predicted", "autocorrelation", after("autocorrelation", 0.12)),
    ("fig2", "autocorrelation_as_predicted", "autocorrelation", after("autocorrelation", -0.12)),
    (
        "fig2",
        "autocorrelation_as_predicted",
        "autocorrelation",
        lambda d: 0 * d["autocorrelation"] + np.exp(-2 * d["t"]),
    ),
    ("fig2", "weights_move_beyond_the_threshold", "change", backwards("change", "target")),
    ("fig2", "weights_move_beyond_the_threshold", "change", lambda data: 1 + 0 * data["change"]),
    ("fig2", "outlier_beyond_the_threshold", "edge_end", as_is("edge_start")),
    ("fig2", "outlier_beyond_the_threshold", "edge_end", lambda data: 1 - data["target"] + 0 * data["edge_end"]),
    ("s1", "eigenvalues_as_predicted", "eigenvalue_theory", scaled("eigenvalue_theory", 1.02)),
    ("s1", "eigenvalues_as_predicted", "eigenvalue_theory", lambda d: d["eigenvalue_theory"] * 0.98 ** d["index"]),
    ("s1", "eigenvalues_end_at_rounding", "eigenvalue", as_is("eigenvalue_theory")),
    ("s1", "eigenvalues_end_at_rounding", "eigenvalue", lambda data: data["eigenvalue"] + 1e-12),
    ("s1", "eigenfunctions_as_predicted", "function_theory", lambda d: d["function_theory"].roll(function_index=1)),
    (
        "s1",
        "eigenfunctions_as_predicted",
        "function_theory",
        lambda d: d["function_theory"].copy(data=stretched(d, 1.02)),
    ),
]


@pytest.mark.parametrize(("figure", "which", "variable", "null"), NULLS)
def test_a_claim_fails_on_a_null(figure: str, which: str, variable: str, null: Callable) -> None:
    good = quick(figure).data
    assert claim(figure, which, good).holds
    data = good.copy(deep=True)
    data[variable] = null(data)
    assert not claim(figure, which, data).holds


@pytest.mark.parametrize("rate", [0.98, 1.02])
def test_the_predicted_pair_rejects_a_rate_2_percent_off(rate: float) -> None:
    data = quick("fig3").data.copy(deep=True)
    real, imaginary = data["with_bulk_pair"].real, data["with_bulk_pair"].imag
    parts = data.assign(real=real, imaginary=imaginary)
    data["with_bulk_pair"] = faster("real", rate)(parts) + 1j * faster("imaginary", rate)(parts)
    assert not claim("fig3", "pair_as_predicted", data).holds


def test_more_neurons_must_bring_the_outlier_closer() -> None:
    neurons = np.array([100, 100, 400, 400])
    names = ("reduced", "large_N", "projected")
    for power, holds in ((-0.5, True), (0.0, False), (0.5, False)):
        distances = {f"distance_from_{name}": ("network", neurons**power) for name in names}
        data = quick("fig1").data.assign({"size_neurons": ("network", neurons)} | distances)
        assert claim("fig1", "closer_with_more_neurons", data).holds == holds


# The helpers.


def test_a_crossing_is_found_between_times() -> None:
    from tauflow.papers.bordelon2025.fig1 import crossing

    tau = np.linspace(0, 3, 31)
    np.testing.assert_allclose(crossing(tau, np.exp(-tau), 0.5), np.log(2), rtol=1e-5)
    np.testing.assert_allclose(crossing(tau, tau**2, 2.0), np.sqrt(2), rtol=1e-12)
    assert np.isnan(crossing(tau, tau, 4.0))


def test_a_logarithmic_slope_is_found_beneath_corrections() -> None:
    from tauflow.papers.bordelon2025.fig1 import logarithmic_slope

    sigma = np.geomspace(0.001, 0.2, 8)
    noise = 1e-3 * np.random.default_rng(0).standard_normal(8)
    slope, error = logarithmic_slope(sigma, 1.0 - 0.6 * np.log(sigma) + 2 * sigma - sigma**2 + noise)
    assert abs(slope - 0.6) < 3 * error < 0.02


def test_a_path_passes_a_modulus_between_its_points() -> None:
    from tauflow.papers.bordelon2025.s3 import passage

    path = np.array([0.9, 0.1, 0.1 + 0.1j, 0.1 + 0.9j, 2j])
    found = passage(path, 0.5)
    assert found.real == pytest.approx(0.1) and 0.1 < found.imag < 0.9
    assert np.isnan(passage(path[1:3], 0.5)) and np.isnan(passage(path[3:], 0.5))


def test_the_leading_eigenvalue_is_that_of_the_upper_half_plane() -> None:
    from tauflow.papers.bordelon2025._flows import leading

    spectra = np.array([[0.1, -0.3, 0.2], [0.1, 0.3 - 0.4j, 0.3 + 0.4j]])
    np.testing.assert_array_equal(leading(spectra), [-0.3, 0.3 + 0.4j])


@pytest.mark.parametrize("rate", [0.5, 0.98, 1.0, 1.02, 1.7])
def test_the_speed_of_learning_is_found(rate: float) -> None:
    from tauflow.papers.bordelon2025._lazy import speed
    from tauflow.tasks import LeakyIntegrator
    from tauflow.theory.lazy import filter_flow

    tau = np.concatenate([[0.0], np.geomspace(0.01, 10, 36)])
    theory, found = (filter_flow(LeakyIntegrator(0.5), 0.8, tau * r, [0.0], gamma=2.0).loss for r in (1.0, rate))
    assert abs(speed(tau, found, theory) / rate - 1) < 2e-3
    assert np.isnan(speed(tau, np.where(tau > 5, np.nan, found), theory))


@pytest.mark.parametrize("rate", [0.9, 0.98, 1.0, 1.02, 1.1])
def test_as_many_networks_as_needed_reject_a_speed_2_percent_off(rate: float) -> None:
    from tauflow.papers.bordelon2025._lazy import lazy_claims
    from tauflow.tasks import LeakyIntegrator
    from tauflow.theory.lazy import filter_flow

    tau, n, sigma = np.concatenate([[0.0], np.geomspace(0.01, 10, 36)]), 16, 0.8
    own = np.exp(0.015 * np.random.default_rng(1).standard_normal(n)) * rate
    mean = filter_flow(LeakyIntegrator(0.5), sigma, tau, [0.0])
    loss = np.stack([filter_flow(LeakyIntegrator(0.5), sigma, tau * r, [0.0]).loss for r in own])
    same = {name: (("network", "time"), np.tile(getattr(mean, of), (n, 1))) for name, of in
            (("theory", "loss"), ("mean", "loss"), ("spread", "loss_spread"))}  # fmt: skip
    labels = {"tau": ("time", tau), "sigma": ("network", n * [sigma]), "neurons": ("network", n * [4000])}
    claims = {made.name: made for made in lazy_claims(xr.Dataset(same | {"loss": (("network", "time"), loss)}, labels))}
    assert claims["speed_as_predicted"].holds == (rate == 1.0)


def test_the_sigma_that_fits_an_autocorrelation_is_its_own() -> None:
    from tauflow.papers.bordelon2025.fig2 import effective_sigma
    from tauflow.theory.mean_field import autocorrelation

    t = np.linspace(0, 8, 33)
    for sigma in (0.3, 0.9):
        np.testing.assert_allclose(effective_sigma(t, 1.3 * autocorrelation(t, t, sigma)), sigma, rtol=1e-9)


def test_a_network_near_the_edge_is_drawn_again_until_it_is_stable() -> None:
    from tauflow.papers.bordelon2025._lazy import draw_stable

    for seed in range(4):
        network = draw_stable(20, 0.98, key=jax.random.key(seed))
        assert network.eigenvalues().real.max() < 1 and network.gamma == pytest.approx(1.0)


def test_six_numbers_and_eight_agree_for_symmetric_weights() -> None:
    from tauflow.papers.bordelon2025 import fig3
    from tauflow.theory.oscillator import effective_flow

    tau, u, M = np.linspace(0, 2, 5), np.array([0.3, 0.1]), np.array([[0.2, 0.1], [0.1, -0.3]])
    shared, weights = fig3.six_numbers(tau, u, M)
    whole = effective_flow(tau, u, u, M, fig3.TARGET)
    np.testing.assert_allclose(shared, whole.u, atol=1e-6)
    np.testing.assert_allclose(weights, whole.M, atol=1e-6)
