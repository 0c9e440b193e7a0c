"""The figures of pellegrino2023: every claim holds on its data, and fails on data in which it is not so."""

import functools
import importlib
from collections.abc import Callable

import jax
import numpy as np
import pytest
import xarray as xr

from tauflow.neural import condition_means
from tauflow.papers import PAPERS, Claim, Reproduction
from tauflow.papers.pellegrino2023 import _gradients, _reaching, motor, s4, s5, s6

FIGURES = PAPERS["pellegrino2023"].figures


@functools.cache
def quick(name: str) -> Reproduction:
    return FIGURES[name].function(quick=True)


def claim(name: str, which: str, data: xr.Dataset) -> Claim:
    return {made.name: made for made in importlib.import_module(FIGURES[name].module).claims(data)}[which]


@pytest.mark.parametrize("name", FIGURES)
def test_the_claims_of_the_quick_version_hold(name: str) -> None:
    made = quick(name)
    assert made.paper == "pellegrino2023" and made.figure == name
    assert made.claims and made.holds, "\n".join(map(str, made.claims))
    assert all(each.measured for each in made.claims)
    assert len(made.plot.axes) > 1 and all(axes.lines for axes in made.plot.axes)


@pytest.mark.slow
@pytest.mark.parametrize("name", FIGURES)
def test_the_claims_of_the_full_version_hold(name: str) -> None:
    made = FIGURES[name].function()
    assert made.holds, "\n".join(map(str, made.claims))


# Nulls: planted in the data of a figure, each must bring down its claim.


def scaled(name: str, factor: float) -> Callable[[xr.Dataset], xr.DataArray]:
    return lambda data: factor * data[name]


def as_is(name: str) -> Callable[[xr.Dataset], xr.DataArray]:
    return lambda data: data[name]


def starts(data: xr.Dataset) -> xr.DataArray:
    return data["end"].copy(data=data["path"].isel(time=0).transpose(*data["end"].dims).values)


def one_side(data: xr.Dataset) -> xr.DataArray:
    return data["end"].copy(data=np.abs(data["end"].values) * [1.0, -1.0])


def rank_as_nonlinear(data: xr.Dataset) -> xr.DataArray:
    return data["ranks"].copy(data=np.tile(data["ranks"].values[2], (data.sizes["architecture"], 1)))


def in_epoch(name: str, value: float) -> Callable[[xr.Dataset], xr.DataArray]:
    """The error of one epoch scaled."""
    return lambda data: data["error"] * xr.where(data["epoch"] == name, value, 1.0)


def rising(data: xr.Dataset) -> xr.DataArray:
    return 0.1 * data["components"] + 0 * data["parafac"]


def at_rank_one(name: str) -> Callable[[xr.Dataset], xr.DataArray]:
    """A variable that is as bad at every rank as at the smallest."""
    return lambda data: 0 * data[name] + data[name].isel(rank=0, drop=True)


def mixed(data: xr.Dataset) -> xr.DataArray:
    order = np.random.default_rng(0).permutation(data.sizes["trial"])
    return data["predicted"].copy(data=data["predicted"].values[:, order])


def means_of_conditions(data: xr.Dataset) -> xr.DataArray:
    return data["predicted"].copy(data=condition_means(data["predicted"].values, data["condition"].values))


def shifted(data: xr.Dataset) -> xr.DataArray:
    values = data["course"].values.copy()
    values[1] = np.roll(values[1], len(values[1]) // 3, axis=0)
    return data["course"].copy(data=values)


def random_strengths(data: xr.Dataset) -> xr.DataArray:
    rng = np.random.default_rng(0)
    return data["strengths"].copy(data=rng.permuted(data["strengths"].values, axis=1))


NULLS = [
    ("motor", "reaches_before_the_perturbation", "error", lambda data: 10 + data["error"]),
    ("motor", "reaches_before_the_perturbation", "end", scaled("end", 0)),
    ("motor", "holds_until_the_cue", "held", lambda data: 0.5 + data["held"]),
    ("motor", "holds_until_the_cue", "end", scaled("end", 0)),
    ("motor", "adapts", "error", scaled("error", -1)),
    ("motor", "adapts", "error", lambda data: 40 + 0 * data["error"]),
    ("motor", "after_effect_washes_out", "error", in_epoch("washout", -1)),
    ("motor", "after_effect_washes_out", "error", in_epoch("washout", 0)),
    ("motor", "after_effect_washes_out", "error", lambda data: -40 + 0 * data["error"]),
    ("motor", "learning_shows_in_activity", "condition_share", lambda data: 1 + 0 * data["condition_share"]),
    ("motor", "learning_shows_in_activity", "condition_share", scaled("condition_share", 0)),
    ("motor", "pretraining_changes_more", "size", lambda data: data["size"].roll(stage=1)),
    ("motor", "change_has_low_tensor_rank", "parafac", rising),
    ("motor", "change_has_low_tensor_rank", "parafac", lambda data: 1 + 0 * data["parafac"]),
    ("s3", "single_entries_test_what_was_fitted", "explained_test", scaled("explained_test", 0.9)),
    ("s3", "single_entries_test_what_was_fitted", "explained_train", scaled("explained_train", 0)),
    ("s3", "whole_trials_are_hardest", "explained_test", lambda data: data["explained_test"].roll(procedure=1)),
    ("s3", "whole_trials_are_hardest", "explained_test", lambda data: 0 * data["explained_test"] + 0.9),
    ("s3", "few_components_suffice_and_one_does_not", "explained_test", at_rank_one("explained_test")),
    ("s3", "few_components_suffice_and_one_does_not", "explained_test", scaled("explained_test", 0.5)),
    (
        "s3",
        "whole_trials_are_hardest",
        "explained_test",
        lambda data: data["explained_test"].isel(procedure=[0, 2, 1]).assign_coords(procedure=data["procedure"]),
    ),
    ("s3", "blocks_and_whole_trials_need_as_many_components", "explained_test", at_rank_one("explained_test")),
    (
        "s3",
        "blocks_and_whole_trials_need_as_many_components",
        "explained_test",
        lambda data: xr.where(
            data["procedure"] == "blocks", at_rank_one("explained_test")(data), data["explained_test"]
        ),
    ),
    ("s4", "explains_what_was_held_out", "score", scaled("score", 0.9)),
    ("s4", "explains_what_was_held_out", "score", lambda data: 1 + 0 * data["score"]),
    ("s4", "finds_what_learning_changed_in_activity", "predicted", mixed),
    ("s4", "finds_what_learning_changed_in_activity", "predicted", means_of_conditions),
    ("s4", "finds_when_weights_changed", "course", shifted),
    ("s5", "likelihood_fit_explains_counts_best", "predicted", lambda data: data["predicted"].roll(loss=1)),
    ("s5", "likelihood_fit_explains_counts_best", "predicted", lambda data: data["predicted"].roll(trial=7)),
    ("s5", "both_find_the_rates", "predicted", lambda data: data["predicted"].roll(trial=7)),
    ("s5", "both_find_the_rates", "predicted", lambda d: 0 * d["predicted"] + d["predicted"].mean(("time", "trial"))),
    ("s5", "both_find_the_strengths", "strengths", random_strengths),
    ("s1", "tanh_settles_on_stable_points", "end", starts),
    ("s1", "tanh_settles_on_stable_points", "growth", scaled("growth", -1)),
    ("s1", "tanh_settles_on_stable_points", "fixed", scaled("fixed", 1.02)),
    ("s1", "tanh_settles_on_stable_points", "end", one_side),
    ("s1", "three_fixed_points_above_one", "fixed", lambda data: data["fixed"].where(data["fixed"] != 0)),
    ("s1", "three_fixed_points_above_one", "count", lambda data: data["count"].clip(max=2)),
    ("s1", "opens_as_square_root", "end", starts),
    ("s1", "opens_as_square_root", "end", scaled("end", 1.02)),
    ("s1", "line_attractor_at_one", "end", starts),
    ("s1", "line_attractor_at_one", "end", scaled("end", 0)),
    ("s1", "identity_grows_at_its_rate", "before", lambda data: data["path"].isel(time=0)),
    ("s1", "identity_grows_at_its_rate", "growth", scaled("growth", -1)),
    ("s1", "identity_grows_at_its_rate", "growth", scaled("growth", 1.02)),
    ("s6", "all_learn", "loss", lambda data: 0 * data["loss"] + data["loss"][:, :1].values),
    ("s6", "gradient_is_one_product", "product_error", as_is("printed_error")),
    ("s6", "gradient_is_one_product", "product_error", lambda data: 2 + 0 * data["product_error"]),
    ("s6", "bounds_hold", "sharp", lambda data: data["sharp"].shift(index=-1, fill_value=0.0)),
    ("s6", "bounds_hold", "sharp", scaled("sharp", 0.9)),
    ("s6", "bounds_hold", "sharp", scaled("sharp", 100)),
    ("s6", "rough_nonlinearity_decays_slowest", "rates", lambda data: data["rates"].roll(architecture=1)),
    ("s6", "rough_nonlinearity_decays_slowest", "adjoint", lambda data: 1 + 0 * data["adjoint"]),
    ("s6", "smooth_nonlinearities_decay_exponentially", "rates", lambda data: data["rates"].roll(architecture=1)),
    ("s6", "smooth_nonlinearities_decay_exponentially", "gradient", lambda d: 0 * d["gradient"] + 1 / (1 + d["index"])),
    ("s6", "smooth_nonlinearities_decay_exponentially", "adjoint", lambda d: 0 * d["adjoint"] + 0.5 ** d["index"]),
    ("s6", "linear_network_keeps_its_subspace", "ranks", rank_as_nonlinear),
    ("s6", "linear_network_keeps_its_subspace", "outside", lambda data: 0.1 + 0 * data["outside"]),
    ("s6", "change_of_weights_has_low_tensor_rank", "parafac", lambda d: 0 * d["parafac"] + d["components"] / 200),
    ("s6", "change_of_weights_has_low_tensor_rank", "parafac", lambda d: 1 + 0 * d["parafac"]),
    ("s6", "chaos_does_not_prevent_it", "apart", lambda data: -abs(data["apart"])),
    ("s6", "chaos_does_not_prevent_it", "gradient", lambda data: 1 + 0 * data["gradient"]),
]


@pytest.mark.parametrize(("figure", "which", "variable", "null"), NULLS)
def test_a_claim_fails_on_a_null(figure: str, which: str, variable: str, null: Callable) -> None:
    good = quick(figure).data
    assert claim(figure, which, good).holds
    data = good.copy(deep=True)
    data[variable] = null(data)
    assert not claim(figure, which, data).holds


def test_every_claim_has_a_null() -> None:
    for name in FIGURES:
        named = {which for figure, which, *_ in NULLS if figure == name}
        assert named == {each.name for each in quick(name).claims}


def test_the_networks_of_s6_have_the_statistics_they_say() -> None:
    settings = _gradients.Settings(neurons=200, duration=4.0, dt=0.1, updates=1, every=1)
    full, low = s6.ARCHITECTURES[4], s6.ARCHITECTURES[3]
    nets = [_gradients.draw_network(full, settings, np.random.default_rng(k)) for k in range(20)]
    W = np.stack([net.W for net in nets])
    assert W.std() == pytest.approx(2.1 / np.sqrt(200), rel=4 / np.sqrt(2 * W.size))
    radius = [np.abs(np.linalg.eigvals(each)).max() for each in W[:5]]
    assert np.mean(radius) == pytest.approx(2.1, rel=0.06)
    u0 = np.stack([net.u[0] for net in nets]).ravel()
    assert u0.std() == pytest.approx(0.5, abs=4 * 0.5 / np.sqrt(2 * u0.size))
    D = np.stack([net.D for net in nets])
    assert D.std() == pytest.approx(200**-0.5, rel=4 / np.sqrt(2 * D.size)) and nets[0].u.shape == (40, 2)
    net = nets[0]
    steps = (net.u[1:] - net.u[:-1]) / 0.1 + net.u[:-1]  # M u
    M = np.linalg.lstsq(net.u[:-1], steps, rcond=None)[0].T
    np.testing.assert_allclose(net.u[:-1] @ M.T, steps, atol=1e-10)
    assert np.linalg.eigvals(M).real.max() < 1
    y = np.stack([net.y for net in nets])
    assert np.abs(y).max() <= 1 and abs(y.mean()) < 4 / np.sqrt(3 * y.size)
    made = _gradients.draw_network(low, settings, np.random.default_rng(0))
    s = np.linalg.svd(made.W, compute_uv=False)
    assert s[3] < 1e-12 * s[0] and 0.7 * 1.5 < s[:3].mean() < 1.3 * 1.5


def test_courses_of_factors_are_those_of_the_weights_they_make() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 12, 3))
    c = rng.standard_normal((20, 3)) * [3.0, 1.0, 0.2]
    full = np.einsum("ir,kr,jr->kij", a, c, b).reshape(20, -1)
    overlap = np.abs(_reaching.courses(full).T @ _reaching.factor_courses(a, c, b))
    np.testing.assert_allclose(overlap, np.eye(2), atol=1e-7)
    u = np.linalg.svd(full - full.mean(axis=0), full_matrices=False)[0][:, :2]
    np.testing.assert_allclose(np.abs(u.T @ _reaching.courses(full)), np.eye(2), atol=1e-7)


def test_each_procedure_hides_what_it_says() -> None:
    sizes = {"time": 20, "trial": 40, "neuron": 10}
    for procedure in _reaching.PROCEDURES:
        masks = _reaching.masks_of(procedure, sizes, _reaching.QUICK, jax.random.key(0))
        assert 0.15 < 1 - masks.train.mean() < 0.25 and not (masks.train & masks.test).any()
        if procedure == "whole trials":
            hidden = masks.test.any(axis=(0, 2))
            assert hidden.sum() == 8 and np.all(masks.test == hidden[None, :, None])
        if procedure == "single entries":
            assert np.all(masks.train ^ masks.test)
        if procedure == "blocks":
            assert masks.test.mean() < 0.5 * (1 - masks.train.mean())


def test_what_conditions_and_counts_explain() -> None:
    rng = np.random.default_rng(0)
    activity = rng.standard_normal((5, 6, 3))
    names = np.array(["a", "b"] * 3)
    means = condition_means(activity, names)
    np.testing.assert_allclose(means[:, 3], activity[:, 1::2].mean(axis=1))
    assert s4.learned_share(activity, activity, names) == pytest.approx(1)
    assert s4.learned_share(activity, means, names) == pytest.approx(0)
    counts = rng.poisson(2.0, (5, 6, 3)).astype(float)
    everywhere = np.ones(counts.shape, bool)
    constant = np.broadcast_to(counts.mean(axis=(0, 1)), counts.shape)
    assert s5.deviance_explained(counts, constant, everywhere, everywhere) == pytest.approx(0, abs=1e-12)
    assert s5.deviance_explained(counts, counts, everywhere, everywhere) == pytest.approx(1, abs=1e-2)
    line = np.arange(9.0)[:, None] ** [1, 2]
    assert s5.roughness(line[:, :1]) == pytest.approx(0, abs=1e-20)
    assert s5.roughness(line[:, 1:]) == pytest.approx(4 / line[:, 1].var())
    assert motor.needed(np.array([[0.5, 0.96], [0.5, 0.6]])).tolist() == [2.0, np.inf]


def test_reach_counts_what_lies_above_a_share_of_the_first() -> None:
    assert s6.reach(np.array([[4.0, 1.0, 1e-9], [2.0, 2.0, 2.0]])).tolist() == [2.0, 3.0]
    assert s6.reach(np.array([4.0, 1.0, 0.1]), share=0.2) == 2


def test_preference_tells_an_exponential_from_a_power() -> None:
    k = np.arange(1.0, 21.0)
    noise = np.exp(0.1 * np.random.default_rng(0).standard_normal(20))
    assert s6.preference(0.5**k * noise) < 0.2 and s6.preference(k**-3 * noise) > 3


def test_rectified_tanh() -> None:
    np.testing.assert_allclose(s6.rectified_tanh(np.array([-1.0, 0.0, 1.0])), [0, 0, np.tanh(1.0)])
