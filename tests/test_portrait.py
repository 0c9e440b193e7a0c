"""What a fit shows, each quantity against a route of its own: dense weights, the network's own steps, plain loops."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

import known_fit
from tauflow.neural import Fit, noise_ceiling, variance_explained
from tauflow.neural.portrait import notes_of, portrait
from tauflow.neural.stages import stages
from tauflow.neural.state_space import StateSpace, fixed_points, plane_that_tells, telling, tracked
from tauflow.theory.low_tensor_rank import rank_one_fixed_points


@pytest.fixture(scope="module")
def data():
    return known_fit.known()[0]


@pytest.fixture(scope="module")
def fit():
    return known_fit.known()[1]


@pytest.fixture(scope="module")
def shown(fit, data):
    return portrait(fit, data)


def dense(fit, k):
    """W of a trial, in float64."""
    a, c, b = (np.asarray(each, float) for each in fit.weights("W", snapshot=k))
    return (a * c) @ b.T


def own_states(fit, data):
    """States (time, trial, n) by the network's own simulation."""
    kinds = fit.data["conditions"].values.tolist()
    where = np.array([kinds.index(name) for name in data["condition"].values])
    return np.asarray(fit.network()(where, data.sizes["time"]).states, float)


def same_set(found, wanted, tolerance):
    """Whether numbers are the same in any order."""
    left = list(wanted)
    for value in found:
        near = int(np.argmin(np.abs(np.array(left) - value)))
        if abs(left.pop(near) - value) > tolerance:
            return False
    return True


def test_components_are_those_of_the_fit_in_order_and_with_their_signs(shown, fit):
    a, c, b = (shown[name].values for name in ("columns", "strength", "rows"))
    for k in (0, 17):
        np.testing.assert_allclose((a * c[k]) @ b.T, dense(fit, k), atol=1e-6)
    spread = c.std(axis=0)
    assert (np.diff(spread) <= 0).all() and (c.mean(axis=0) > 0).all()
    weights = np.asarray(fit.network().readout, float) @ a
    assert (weights[np.abs(weights).argmax(axis=0), range(3)] > 0).all()


def test_what_is_smooth_of_strengths_is_what_a_regression_over_trials_keeps(shown):
    c, ids = shown["strength"].values, shown["trial_id"].values
    A = 1 / (1 + (ids[:, None] - ids) ** 2 / (2 * 15**2))
    offset = np.array([-0.5, 0.5, 0.5])  # the first component has come with its sign turned
    wanted = A @ np.linalg.solve(A + 0.1**2 * np.eye(len(c)), c - offset) + offset
    found = shown["smooth_strength"].values
    np.testing.assert_allclose(found, wanted, atol=1e-4)
    rough = [np.diff(each, 2, axis=0).std(axis=0) for each in (found, c)]
    assert (rough[0] < 0.3 * rough[1]).all() and np.abs(found - c).max() < 0.4


def test_order_and_signs_of_the_fit_do_not_matter(shown, fit, data):
    order, signs, ups = np.array([2, 0, 1]), np.array([-1.0, 1.0, -1.0]), np.array([1.0, -1.0, -1.0])
    turned = fit.data.copy(deep=True)
    flips = {"a": signs, "b": signs * ups, "c_latent": ups, "c_offset": ups, "z0": signs}
    for name, sign in flips.items():
        values = fit.data[f"parameter_{name}"]
        turned[f"parameter_{name}"] = (values.dims, (values.values[..., order] * sign).astype(np.float32))
    again = portrait(Fit(turned), data)
    for name in ("strength", "columns", "latent", "eigenvalue", "stage_field", "cue_state"):
        np.testing.assert_allclose(again[name], shown[name], atol=2e-4, err_msg=name)


def test_eigenvalues_are_those_of_the_dense_weights(shown, fit):
    for k in range(0, 30, 6):
        whole = np.linalg.eigvals(dense(fit, k))
        wanted = whole[np.argsort(-np.abs(whole))[:3]]
        assert same_set(shown["eigenvalue"].values[k], wanted, 1e-5)
        assert not same_set(shown["eigenvalue"].values[k], -wanted, 1e-2)
        assert not same_set(shown["eigenvalue"].values[k], np.linalg.eigvals(dense(fit, k - 1))[:3], 1e-5)


def test_lines_of_eigenvalues_go_on_where_they_were():
    t = np.linspace(0, 1, 41)
    paths = np.stack([1 + t * 0.5, 1.3 - t * 0.2 + 0.4j, 1.3 - t * 0.2 - 0.4j], axis=1)
    mixed = np.random.default_rng(0).permuted(paths, axis=1)
    found = tracked(mixed)
    assert np.abs(np.diff(found, axis=0)).max() < 0.02 < np.abs(np.diff(mixed, axis=0)).max()
    assert all(same_set(now, then, 1e-12) for now, then in zip(found, paths, strict=True))


def test_flow_is_a_step_of_the_network_itself(shown, fit, data):
    network, alpha, bin_s = fit.network(), fit.network().alpha, data.attrs["bin_s"]
    Q, mean = shown["plane_axes"].values, shown["mean_state"].values
    np.testing.assert_allclose(Q.T @ Q, np.eye(2), atol=1e-12)
    points = shown["point"].values[::23]
    x = points @ Q.T + (mean - Q @ (Q.T @ mean))  # the other coordinates at the mean
    z = np.linalg.lstsq(np.asarray(network.columns, float), x.T, rcond=None)[0].T
    np.testing.assert_allclose(z @ np.asarray(network.columns, float).T, x, atol=1e-5)  # states lie in the span
    for s in range(2):
        here = shown["stage_of"].values == s
        c = np.asarray(network.trial_factors, float)[here].mean(axis=0)
        there = driven(network, c, z)
        after = np.asarray(there(np.arange(len(z)), 1).states[0], float)
        wanted = (after - x) @ Q / bin_s
        found = shown["stage_field"].values[s, ::23]
        error = np.abs(found - wanted).max() / np.abs(wanted).max()
        assert error < 1e-4
        for wrong in (-wanted, -points * alpha / bin_s, shown["stage_field"].values[1 - s, ::23]):
            assert np.abs(wrong - wanted).max() / np.abs(wanted).max() > 100 * error
        pieces = (c_of(shown, s) * shown["field_read"].values[::23]) @ shown["plane_columns"].values - points
        np.testing.assert_allclose(pieces * alpha / bin_s, found, atol=1e-9)


def driven(network, c, z):
    """The network started from states of coordinates z (trial, R), at the same strengths c in all trials."""
    new = {"c_latent": np.tile(c, (len(z), 1)), "c_offset": 0 * c, "smoothing": np.eye(len(z)), "z0": z}
    values = [jnp.asarray(value, jnp.float32) for value in new.values()]
    return eqx.tree_at(lambda net: [getattr(net, name) for name in new], network, values)


def c_of(shown, s):
    return shown["strength"].values[shown["stage_of"].values == s].mean(axis=0)


def test_paths_are_those_of_the_network_and_fixed_points_rest(shown, fit, data):
    states = own_states(fit, data)
    Q, order = shown["plane_axes"].values, shown["condition"].values.tolist()
    assert order == ["0", "90", "180"]
    for i, k in enumerate(shown["shown"].values[:8]):
        condition = order.index(data["condition"].values[k])
        steps = shown["path_step"].values
        found = shown["shown_path"].values[i, condition]
        np.testing.assert_allclose(found[1:], states[steps[1:] - 1, k] @ Q, atol=1e-4)
    assert np.abs(found[1:] - states[steps[1:] - 1, 20] @ Q).max() > 1e-3
    assert (shown["stage_unstable"].values >= 0).any(axis=1).all()  # the origin rests always
    assert np.abs(np.nan_to_num(shown["stage_fixed"].values, nan=9)).sum(axis=-1).min() < 1e-9


def test_a_network_with_inputs_is_shown_in_the_span_of_both(fit, data):
    rng, extra = np.random.default_rng(0), {}
    for name, shape in (("W_in", (20, 2)), ("u", (5, 3, 2))):
        dims = ("run", *(f"{name}_{axis}" for axis in range(len(shape))))
        extra[f"parameter_{name}"] = (dims, rng.normal(size=(1, *shape)).astype(np.float32))
    driven_fit = Fit(fit.data.assign(extra))
    found, states = portrait(driven_fit, data), own_states(driven_fit, data)
    Q, steps = found["plane_axes"].values, found["path_step"].values
    assert found.attrs["inputs"] == 1
    a = np.linalg.qr(found["columns"].values)[0]
    np.testing.assert_allclose(a @ (a.T @ Q), Q, atol=1e-9)  # where the recurrence is, and not where inputs decay
    k, condition = 4, found["condition"].values.tolist().index(data["condition"].values[4])
    path = found["shown_path"].values[list(found["shown"].values).index(k), condition]
    np.testing.assert_allclose(path[1:], states[steps[1:] - 1, k] @ Q, atol=1e-4)
    assert np.abs(path[1:] - own_states(fit, data)[steps[1:] - 1, k] @ Q).max() > 1e-2
    x = found["point"].values @ Q.T + found["mean_state"].values @ (np.eye(20) - Q @ Q.T)
    W = np.mean([dense(fit, i) for i in np.flatnonzero(found["stage_of"].values == 1)], axis=0)
    wanted = (np.tanh(x) @ W.T - x) @ Q * 0.1 / data.attrs["bin_s"]  # without input
    np.testing.assert_allclose(found["stage_field"].values[1], wanted, atol=1e-4 * np.abs(wanted).max())


def test_fixed_points_are_all_found_with_their_stability():
    eye, c = np.eye(2), np.array([1.5, 0.6])
    space = StateSpace(eye, np.zeros(2), eye, eye, eye, "tanh", 0.1, 0.01)
    starts = np.random.default_rng(0).uniform(-2, 2, (2, 60, 2))
    found = fixed_points(space, np.stack([c, [1.5, 2.0]]), starts)
    outer, more = rank_one_fixed_points(1.5).x[2], rank_one_fixed_points(2.0).x[2]
    assert same_set(found.y[0, :3, 0], [-outer, 0, outer], 1e-9) and np.isnan(found.y[0, 3:]).all()
    grid = [complex(x, y) for x in (-outer, 0, outer) for y in (-more, 0, more)]
    assert same_set(found.y[1, :, 0] + 1j * found.y[1, :, 1], grid, 1e-9) and found.y.shape[1] == 9
    assert found.unstable[1].tolist() == (np.abs(found.y[1]) < 1e-9).sum(axis=1).tolist()
    assert sorted(found.unstable[0].tolist()) == [-1] * 6 + [0, 0, 1]


def test_stability_is_that_of_steps_and_not_of_their_limit():
    turn = np.array([[0.97, -1.5], [1.5, 0.97]])  # eigenvalues 0.97 +- 1.5 i: decays, but grows in steps of 0.1
    starts = np.zeros((1, 1, 2)) + 0.1
    for alpha, unstable in ((0.1, 2), (0.001, 0)):
        space = StateSpace(np.eye(2), np.zeros(2), np.eye(2), np.eye(2), turn.T, "identity", alpha, 0.01)
        assert fixed_points(space, np.ones((1, 2)), starts).unstable[0].tolist() == [unstable]


def test_the_plane_is_the_one_in_which_arrows_tell_the_motion():
    W = np.array([[1.0, -2.0, 0.0], [2.0, 1.0, 0.0], [0.0, 0.0, 0.9]])
    mix = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    W = mix @ W @ mix.T
    x = np.random.default_rng(1).normal(size=(1, 6, 1, 3)) * [1, 1, 3] @ mix.T
    paths = [x]
    for _ in range(60):
        paths.append(paths[-1] + 0.02 * (paths[-1] @ W.T - paths[-1]))
    paths = np.concatenate(paths, axis=2)
    flat = paths.reshape(-1, 3)
    scatter = np.cov(flat.T, bias=True)
    plain = StateSpace(np.eye(3), flat.mean(axis=0), scatter, np.eye(3), W.T, "identity", 0.1, 0.01)
    principal = plain.turned(np.linalg.eigh(scatter)[1][:, ::-1])
    found = plane_that_tells(principal, paths @ principal.frame, np.ones((1, 3)))
    np.testing.assert_allclose(np.abs(found.frame[:, :2].T @ mix[:, 2]), 0, atol=1e-9)  # the plane that turns
    told, poor = (telling(each, paths @ each.frame, np.ones((1, 3))) for each in (found, principal))
    assert told.within == pytest.approx(1, abs=1e-12) and poor.within < 0.9 and told.all > poor.all
    np.testing.assert_allclose(found.frame.T @ found.frame, np.eye(3), atol=1e-12)
    velocity, inside = paths @ (W - np.eye(3)).T, mix[:, :2]
    assert told.all == pytest.approx(((velocity @ inside) ** 2).sum() / (velocity**2).sum(), rel=1e-9)


def test_state_at_the_cue_and_latents_are_the_networks(shown, fit, data):
    states = own_states(fit, data)
    assert shown.attrs["cue_bin"] == 6 and shown.attrs["cue_time"] == pytest.approx(0.005)
    found = shown["cue_state"].values @ shown["columns"].values.T
    np.testing.assert_allclose(found, states[6], atol=1e-4)
    assert min(np.abs(found - states[5]).max(), np.abs(found + states[6]).max()) > 1e-2
    late = shown["latent"].sel(stage="late after", condition="90").values @ shown["columns"].values.T
    here = (data["condition"].values == "90") & (shown["stage_of"].values == 1)
    assert here.sum() >= 2
    np.testing.assert_allclose(late, states[:, here].mean(axis=1), atol=1e-4)


def test_neurons_are_judged_by_what_was_held_out(shown, fit, data):
    y, masks, model = data["activity"].values.astype(float), fit.masks, fit.predict().values
    found = shown["explained_by_neuron"].values
    known = np.flatnonzero(masks.test.any(axis=(0, 1)))
    assert known.size > 3 and np.isnan(np.delete(found, known)).all()
    for i in known[:5]:
        one = slice(i, i + 1)
        parts = {"mask": masks.test[..., one], "train": masks.train[..., one]}
        assert found[i] == pytest.approx(variance_explained(y[..., one], model[..., one], **parts), rel=1e-9)
        ceiling = noise_ceiling(data.isel(neuron=[i]), **parts)
        assert shown["ceiling_by_neuron"].values[i] == pytest.approx(ceiling, rel=1e-9)
        assert abs(found[i] - variance_explained(y[..., one], model[..., one])) > 1e-6
    best, median, poor = (found[i] for i in shown["example_neuron"].values)
    assert best == np.nanmax(found) and best > median > poor
    assert shown["role"].values.tolist() == ["best", "median", "poor"]


def test_examples_are_averaged_by_condition_and_stage(shown, fit, data):
    here = np.flatnonzero((data["condition"].values == "180") & (shown["stage_of"].values == 0))
    i = int(shown["example_neuron"].values[0])
    rows = data["activity"].values[:, here, i].astype(float)
    part = shown.sel(stage="late before", condition="180").isel(example=0)
    np.testing.assert_allclose(part["rate_data"], rows.mean(axis=1), rtol=1e-9)
    np.testing.assert_allclose(part["rate_error"], rows.std(axis=1, ddof=1) / np.sqrt(len(here)), rtol=1e-9)
    np.testing.assert_allclose(part["rate_model"], fit.predict().values[:, here, i].mean(axis=1), rtol=1e-6)
    assert int(part["trials"]) == len(here) and np.abs(part["rate_data"] - part["rate_model"]).max() > 1e-3


def test_scores_and_what_condition_means_explain(shown, fit, data):
    assert shown.attrs["explained"] == fit.score(data) and shown.attrs["ceiling"] == fit.ceiling(data)
    y, (train, test) = data["activity"].values.astype(float), fit.masks
    size, guess = fit.data["size"].values, np.zeros(y.shape)
    for t, k, i in np.ndindex(*y.shape):
        same = (data["condition"].values == data["condition"].values[k]) & train[t, :, i]
        guess[t, k, i] = y[t, same, i].mean() if same.any() else y[..., i][train[..., i]].mean()
    wanted = variance_explained(y / size, guess / size, test, train=train)
    assert shown.attrs["condition_means"] == pytest.approx(wanted, rel=1e-9)
    assert wanted < shown.attrs["explained"], "learning is visible, and the fit has seen it"
    assert np.isnan(shown.attrs["deviance_explained"]) and shown.attrs["edge"] == 1 and shown.attrs["unique"] == 1


def test_a_cross_validation_comes_along(fit, data):
    losses = np.array([[0.9, 0.8], [0.5, 0.52], [0.51, 0.5]])[::-1]  # (rank, mask), ranks falling
    dims = ("units", "rank", "mask")
    names = ("test_loss", "train_loss", "explained_test", "explained_train")
    scores = xr.Dataset({name: (dims, losses[None]) for name in names}, {"units": [20], "rank": [3, 2, 1]})
    found = portrait(fit, data, scores)
    assert found["rank"].values.tolist() == [1, 2, 3] and found["chosen_rank"].values.tolist() == [2]
    np.testing.assert_allclose(found["held_out_loss"].values[0], [0.85, 0.51, 0.505])
    np.testing.assert_allclose(found["held_out_loss_each"].values[0, 0], [0.9, 0.8])
    assert "held_out_loss" not in portrait(fit, data)


def test_another_recording_is_refused(fit, data):
    for other in (data.isel(trial=slice(1, None)), data.isel(neuron=slice(None, None, -1))):
        with pytest.raises(ValueError, match="pass the recording that was fitted"):
            portrait(fit, other)


def test_stages_follow_epochs_only_where_these_are_stretches_of_trials():
    trials = ["x", "y"] * 6
    assert [stage.name for stage in stages(["a"] * 6 + ["b"] * 6, trials)] == ["late a", "late b"]
    back = stages(["a"] * 4 + ["b"] * 4 + ["a"] * 4, trials)
    assert [stage.name for stage in back] == ["late a 1", "late b", "late a 2"]
    for others in (["a", "b"] * 6, ["a"] * 12, ["a"] * 9 + ["b"] * 3):
        assert [stage.name for stage in stages(others, trials)] == ["early", "middle", "late"]


def test_what_a_reader_of_scores_must_know_comes_along(fit, data, shown):
    assert shown.attrs["notes"] == "[]" and notes_of(fit, data) == []
    (leaks,) = notes_of(fit, data.assign_attrs(smoothed_s=3 * data.attrs["bin_s"]))
    assert leaks.startswith("Activity is smoothed by") and leaks.endswith(
        "hide blocks of 24 bins or more, or smooth less."
    )
    alone = [f"c{k}" for k in range(data.sizes["trial"])]
    assert notes_of(fit, data.assign_coords(condition=("trial", alone)))[0].startswith("There is no ceiling")
