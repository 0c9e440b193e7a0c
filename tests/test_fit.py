"""Fits of low-tensor-rank networks: what they recover of a made truth, and that they can be kept and gone on with."""

import equinox as eqx
import jax
import numpy as np
import pytest
import xarray as xr

import low_rank_truth
from tauflow.learning import ensemble
from tauflow.networks import LowTensorRankRNN
from tauflow.neural import Masks, block_masks, condition_means, fit_low_tensor_rank, load_fit, recording, training
from tauflow.neural.cross_validation import choose_rank, cross_validate, fits_note
from tauflow.neural.training import INPUT_FIELDS, Options, Problem, Watch, best, ended, leader
from tauflow.run import RunError, load

truth = low_rank_truth.truth

SMALL = {"trials": 48, "neurons": 30, "bins": 30, "rank": 2, "units": 40, "noise": 0.4}
BLOCKS = ({"time": 6, "trial": 8}, {"time": 2, "trial": 4})
SETTINGS = {"units": 40, "steps": 400, "starts": 1}


@pytest.fixture(scope="module")
def small():
    made, clean, strengths = truth(2, **SMALL)
    masks = block_masks(dict(made.sizes), *BLOCKS, key=jax.random.key(0))
    return made, clean, strengths, masks


@pytest.fixture(scope="module")
def fitted(small, tmp_path_factory):
    made, _, _, masks = small
    out = tmp_path_factory.mktemp("fit") / "out"
    return fit_low_tensor_rank(made, rank=2, masks=masks, key=jax.random.key(1), out=out, **SETTINGS), out


def explained_by(truth_of, made, masks):
    """Share of the held-out variance, neurons counting alike, that a prediction explains."""
    y, train, test = made["activity"].values.astype(float), *masks
    centre = np.array([y[..., i][train[..., i]].mean() for i in range(y.shape[2])])
    size = np.array([y[..., i][train[..., i]].std() for i in range(y.shape[2])])
    off, whole = ((y - truth_of) / size)[test], ((y - centre) / size)[test]
    return 1 - (off**2).sum() / (whole**2).sum()


def test_the_truth_is_recovered_up_to_its_noise(small, fitted):
    made, clean, _, masks = small
    fit, _ = fitted
    best = explained_by(clean, made, masks)
    assert fit.score(made) == pytest.approx(explained_by(fit.predict().values, made, masks), rel=1e-9)
    assert fit.score(made) > 0.95 * best and fit.score(made) < best + 0.01
    assert fit.ceiling(made) == pytest.approx(best, abs=0.03)
    assert explained_by(condition_means(clean, made["condition"]), made, masks) < 0.9 * best, "learning is visible"


def test_progress_says_what_is_explained(small):
    made, _, _, masks = small
    heard = []
    fit = fit_low_tensor_rank(made, rank=2, masks=masks, key=jax.random.key(1), **SETTINGS | {"steps": 40},
                              progress=heard.append)  # fmt: skip
    share = fit.data["explained_test"].values[0]
    last = f"held out {share[-2]:.3f}"  # of the last look before the end
    assert heard[-1].note.endswith(last) and heard[-1].note.startswith("explained 0")


def test_strengths_follow_those_of_the_truth(small, fitted):
    _, _, strengths, _ = small
    found = fitted[0].factors["trial_factors"].values
    together = np.abs(np.corrcoef(found.T, strengths.T)[:2, 2:])
    assert max(together[0, 0] * together[1, 1], together[0, 1] * together[1, 0]) > 0.8
    mixed = np.abs(np.corrcoef(np.random.default_rng(0).permutation(found).T, strengths.T)[:2, 2:])
    assert mixed.max() < 0.6


@pytest.mark.slow
def test_one_component_is_not_enough(small, fitted):
    made, _, _, masks = small
    poor = fit_low_tensor_rank(made, rank=1, masks=masks, key=jax.random.key(1), **SETTINGS)
    assert poor.score(made) < 0.95 * fitted[0].score(made)


def test_a_fit_is_a_run_over_trials(small, fitted):
    made, _, _, masks = small
    fit, _ = fitted
    assert fit.tau_unit == "trial" and fit.data.attrs["kind"] == "fit"
    np.testing.assert_array_equal(fit.tau("snapshot").values[0], made["trial_id"])
    weights = fit.weights("W", snapshot=5)
    factors = fit.factors
    np.testing.assert_array_equal(weights.c, factors["trial_factors"][5])
    np.testing.assert_allclose(np.linalg.norm(factors["columns"], axis=0), 1, rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(factors["rows"], axis=0), 1, rtol=1e-5)
    for mine, theirs in zip(fit.masks, masks, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert fit.explained["test"] == pytest.approx(fit.score(made), abs=1e-4)
    with pytest.raises(RunError, match="leave like= out"):
        fit.network(like=fit.network())
    with pytest.raises(RunError, match=r'so leave it out, or take .*fit.weights\("W", snapshot=0\)'):
        fit.network(snapshot=0)
    with pytest.raises(ValueError, match=r"trial_ids is \[10.5\]; it must be whole numbers"):
        fit.predict([10.5])


def test_a_fit_is_kept_and_gone_on_with(small, fitted):
    made, _, _, masks = small
    fit, out = fitted
    again = load_fit(out / "fit.zarr")
    np.testing.assert_array_equal(again.predict(), fit.predict())
    settings = {"rank": 2, "masks": masks, "key": jax.random.key(1), "out": out, **SETTINGS}
    with pytest.raises(RunError, match=r"already holds fit\.zarr"):
        fit_low_tensor_rank(made, **settings)
    np.testing.assert_array_equal(fit_low_tensor_rank(made, resume=True, **settings).predict(), fit.predict())
    with pytest.raises(RunError, match="is no fit"):
        load_fit(out / "training" / "run.zarr")


@pytest.mark.slow
def test_trials_that_were_not_recorded_are_predicted(small):
    made, clean, _, _ = small
    missing = np.arange(21, 25)
    seen = made.isel(trial=np.setdiff1d(np.arange(48), missing))
    masks = block_masks(dict(seen.sizes), *BLOCKS, key=jax.random.key(0))
    fit = fit_low_tensor_rank(seen, rank=2, masks=masks, key=jax.random.key(1), **SETTINGS)
    predicted = fit.predict(missing, made["condition"].values[missing]).values
    wrong = fit.predict(missing + 20, made["condition"].values[missing]).values
    size = (clean[:, missing] - clean.mean(axis=(0, 1))).std()
    off = [np.sqrt(((each - clean[:, missing]) ** 2).mean()) / size for each in (predicted, wrong)]
    assert off[0] < 0.25 and off[1] > 1.5 * off[0]
    np.testing.assert_allclose(fit.predict([3, 30]).values, fit.predict().values[:, [3, 26]], rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="there must be one for each, of those recorded"):
        fit.predict([22])


@pytest.mark.slow
def test_counts_of_spikes_are_fitted_by_their_likelihood(small):
    _, clean, _, _ = small
    rates = np.exp(0.5 * clean)
    counts = np.random.default_rng(3).poisson(rates)
    names = [f"c{i % 4}" for i in range(48)]
    made = recording(counts, kind="spikes", time=0.01 * np.arange(30), condition=names)
    masks = block_masks(dict(made.sizes), *BLOCKS, key=jax.random.key(0))
    fit = fit_low_tensor_rank(made, rank=2, loss="poisson", masks=masks, key=jax.random.key(1), **SETTINGS)
    predicted = fit.predict().values
    assert (predicted > 0).all()
    assert np.corrcoef(predicted[masks.test], rates[masks.test])[0, 1] > 0.85
    null = -(counts * np.log(counts.mean((0, 1))) - counts.mean((0, 1)))[masks.test].mean()
    assert fit.data["fit_test"].values[0, fit.data["chosen_look"].values[0]] < null
    with pytest.raises(ValueError, match="the recording holds rates"):
        fit_low_tensor_rank(small[0], rank=2, loss="poisson", key=jax.random.key(1))


def test_a_fit_ends_when_its_held_out_loss_stands_still_and_keeps_the_best():
    options = Options(every=10, window=100)
    rests = np.r_[np.linspace(1, 0.2, 30), np.full(30, 0.2)]
    assert ended(rests, options) == 39 and ended(rests[:39], options) is None
    rises = np.r_[np.linspace(1, 0.2, 30), np.linspace(0.21, 1, 30)]
    assert ended(rises, options) is None and best(rises, options) == 29
    assert 29 <= best(np.r_[rests, 0.0], options) <= 39  # what comes after the end does not count
    falls = np.linspace(1, 0, 50)
    assert ended(falls, options) is None and best(falls, options) == 49
    with pytest.raises(ValueError, match="steps is 0; it must be a whole number > 0"):
        Options(steps=0)
    with pytest.raises(ValueError, match="loss"):
        Options(loss="mae")
    with pytest.raises(
        ValueError, match=r"window is 200 updates and .* every 60; .* so choose window=240 or a smaller"
    ):
        Options(every=60)
    assert Options(every=50).window == 200


@pytest.mark.slow
def test_cross_validation_finds_the_rank(small):
    made, _, _, masks = small
    both = [masks, block_masks(dict(made.sizes), *BLOCKS, key=jax.random.key(7))]
    scores = cross_validate(made, [1, 2, 3], 40, 1, both, key=jax.random.key(2), steps=SETTINGS["steps"])
    assert dict(scores["test_loss"].sizes) == {"units": 1, "rank": 3, "mask": 2}
    assert choose_rank(scores)["chosen"].values.tolist() == [2]
    losses = scores["test_loss"].values[0]
    assert (losses[0] > 1.1 * losses[1]).all()
    flat = scores.assign(test_loss=scores["test_loss"] * 0 + 1)
    assert choose_rank(flat)["chosen"].values.tolist() == [1]


def test_masks_on_which_a_fit_diverged_are_left_out_for_all_ranks():
    losses = np.array([[[1.0, 1.2, 1.1], [0.5, 0.7, 0.6], [np.nan] * 3, [0.5, np.nan, 0.61]]])  # (units, rank, mask)
    scores = xr.Dataset({"test_loss": (("units", "rank", "mask"), losses)}, {"units": [9], "rank": [1, 2, 3, 4]})
    choice = choose_rank(scores)
    np.testing.assert_allclose(choice["mean_test_loss"][0], [1.05, 0.55, np.nan, 0.555])
    np.testing.assert_allclose(choice["standard_error"][0], [0.05, 0.05, np.nan, 0.055])
    assert choice["fits"].values.tolist() == [[2, 2, 0, 2]] and choice["chosen"].values.tolist() == [2]
    assert fits_note(scores) == ("Some fits diverged; losses of rank 1, 2, 4 are means over 2 of 3 masks and there are "
                                 "none of rank 3.")  # fmt: skip
    scores["test_loss"][0, 0, 0] = scores["test_loss"][0, 1, 2] = np.nan
    alone = choose_rank(scores)
    assert alone["fits"].values.tolist() == [[2, 2, 0, 2]], "where none is shared each has its own"
    np.testing.assert_allclose(alone["mean_test_loss"][0], [1.15, 0.6, np.nan, 0.555])
    seldom = np.array([[[1.0, 1.2, 1.1, 1.0], [0.5, 0.7, 0.6, 0.5], [0.1, np.nan, np.nan, np.nan]]])
    few = choose_rank(xr.Dataset({"test_loss": (("units", "rank", "mask"), seldom)}, {"units": [9], "rank": [1, 2, 3]}))
    assert few["fits"].values.tolist() == [[4, 4, 0]] and few["chosen"].values.tolist() == [2], "luck is no rank"
    assert fits_note(scores.isel(rank=[0], mask=[1])) == ""
    with pytest.raises(ValueError, match="no fit has a finite held-out loss"):
        choose_rank(scores.isel(rank=[2]))


def test_on_every_mask_the_start_that_leads_goes_on(small, tmp_path, monkeypatch):
    made, _, _, masks = small
    keys = []
    spied = lambda *args, **options: keys.extend(options["keys"]) or ensemble(*args, **options)  # noqa: E731
    monkeypatch.setattr(training, "ensemble", spied)
    both = [masks, block_masks(dict(made.sizes), *BLOCKS, key=jax.random.key(7))]
    heard = []
    settings = {"key": jax.random.key(5), "steps": 60}
    cross_validate(made, [2], 40, 3, both, out=tmp_path, progress=heard.append, **settings)
    home = tmp_path / "units-40-rank-2"
    tried, gone_on = [load(folder / "run.zarr") for folder in (home / "starts", home)]
    assert tried.data["update"].size == 12 and heard[0].note == "3 starts" and heard[-1].note.startswith("explained 0")
    own = [tried.data["probe_train"].values[:, -1, k][tried.data["mask"].values == k] for k in range(2)]
    for k, losses in enumerate(own):
        assert losses.shape == (3,) and gone_on.data["probe_train"].values[k, 0, k] == losses.min() < losses.max()
    assert gone_on.configuration["starts"] == 3
    assert gone_on.configuration["leaders"] == [int(losses.argmin()) for losses in own]
    assert len({np.asarray(jax.random.key_data(key)).tobytes() for key in keys}) == 4, (
        "trials left out by chance are drawn anew"
    )


def lost(losses, status=("done",) * 6):
    """Three starts on each of two masks, with losses (start, mask) at the end, as `train` tries them."""
    tested = np.full((6, 1, 2), 9.0)  # (run, measurement, mask); a start's loss on the other mask does not count
    tested[[0, 2, 4], 0, 0], tested[[1, 3, 5], 0, 1] = np.transpose(losses)
    return xr.Dataset(
        {"probe_train": (("run", "measurement", "mask_of"), tested), "status": ("run", list(status))},
        {"mask": ("run", [0, 1] * 3)},
    )


def test_the_start_that_fits_its_own_entries_best_leads():
    losses = [[0.5, 0.2], [0.3, 0.4], [0.4, 0.3]]
    assert [leader(lost(losses), mask) for mask in (0, 1)] == [2, 1]
    diverged = ["done", "diverged", "diverged", "done", "done", "done"]
    assert [leader(lost(losses, diverged), mask) for mask in (0, 1)] == [4, 5]
    losses[2] = [np.nan, np.inf]
    assert [leader(lost(losses, diverged), mask) for mask in (0, 1)] == [0, 3]
    assert leader(lost(losses, ["diverged"] * 6), 1) in (1, 3, 5)


def test_starts_that_all_diverge_are_told_and_stop_nothing(small):
    made, _, _, masks = small
    gone = cross_validate(made, [2], 40, 2, [masks], key=jax.random.key(5), steps=60, learning_rate=1e30)
    assert np.isnan(gone["test_loss"].values).all()
    with pytest.raises(ValueError, match="starts is 0"):
        fit_low_tensor_rank(made, rank=2, starts=0, key=jax.random.key(3))


@pytest.mark.slow
def test_four_starts_are_tried_unless_said_otherwise_also_where_nothing_is_tested(small, tmp_path):
    made, _, _, masks = small
    whole = Masks(masks.train, np.zeros_like(masks.test))
    settings = {"rank": 2, "units": 40, "masks": whole, "key": jax.random.key(3), "steps": 20}
    fit = fit_low_tensor_rank(made, out=tmp_path / "four", **settings)
    tried = load(tmp_path / "four" / "training" / "starts" / "run.zarr").data
    assert fit.configuration["starts"] == tried.sizes["run"] == 4 and tried["update"].size == 4
    assert fit.configuration["leaders"] == [int(tried["probe_train"].values[:, -1, 0].argmin())]
    assert np.isnan(fit.explained["test"]) and int(fit.data["chosen_look"][0]) == fit.data.sizes["fit_look"] - 1
    alone = fit_low_tensor_rank(made, starts=1, out=tmp_path / "one", **settings)
    assert "leaders" not in alone.configuration and alone.configuration["starts"] == 1
    for folder, starts, words in (("one", 4, "holds a run without a folder 'starts'"),
                                  ("four", 1, "holds a run with a folder 'starts'")):  # fmt: skip
        home = tmp_path / folder
        before = sorted(home.rglob("*"))
        with pytest.raises(RunError, match=words):
            fit_low_tensor_rank(made, starts=starts, out=home, resume=True, **settings)
        (home / "fit.zarr").rename(tmp_path / "away")
        with pytest.raises(RunError, match=r"training already holds run\.zarr of a run; pass resume=True"):
            fit_low_tensor_rank(made, starts=starts, out=home, **settings)
        (tmp_path / "away").rename(home / "fit.zarr")
        assert sorted(home.rglob("*")) == before, "nothing is left by what was refused"


def test_learning_goes_on_until_the_fits_of_all_masks_have_ended(small):
    made, _, _, masks = small
    both = [masks, block_masks(dict(made.sizes), *BLOCKS, key=jax.random.key(7))]
    watch = Watch(Problem(made, both, Options(every=10, window=100)))
    still, falling = np.full(20, 0.3), np.linspace(0.9, 0.1, 20)

    def records(first, second):
        tested = np.empty((2, 20, 2))  # (run, measurement, mask): a member's loss on the other mask does not count
        tested[0], tested[1] = np.stack([first, second], 1), np.stack([first, second], 1)
        tested[0, :, 1], tested[1, :, 0] = falling[::-1], still
        values = (("run", "measurement", "mask_of"), tested)
        return xr.Dataset({"probe_test": values, "probe_train": values})

    assert watch(records(still, still)) and not watch(records(still, falling)) and not watch(records(falling, still))
    assert watch(records(still, np.full(20, np.nan))), "one that diverged keeps no other waiting"
    watch(records(falling, still))
    share = np.median([watch.problem.explained(losses[-1], "test", k) for k, losses in enumerate((falling, still))])
    assert watch.in_words().endswith(f"held out {share:.3f}")


def test_strengths_jump_between_epochs_and_decoders_stay_orthonormal_where_that_is_asked(small):
    made, _, _, masks = small
    names = np.repeat(["before", "after"], 24)
    told = made.assign_coords(epoch=("trial", names))
    settings = {"rank": 2, "units": 40, "masks": masks, "key": jax.random.key(1), "starts": 1, "steps": 20}
    fit = fit_low_tensor_rank(told, by_epoch=True, decoder="orthonormal", form="sum", **settings)
    S = fit.data["parameter_smoothing"].values[0]
    assert np.abs(S[24:, :24]).max() == 0 < np.abs(S[1:24, 0]).min(), "nothing is shared between epochs"
    readout = np.asarray(fit.network().readout)
    np.testing.assert_allclose(readout @ readout.T, np.eye(30), atol=1e-5)
    np.testing.assert_allclose(fit.predict([3, 30]).values, fit.predict().values[:, [3, 30]], rtol=1e-4, atol=1e-4)
    either = [fit.predict([60], ["c0"], [epoch]).values for epoch in ("before", "after")]
    np.testing.assert_array_equal(fit.predict([60], ["c0"]).values, either[1])
    assert np.abs(either[0] - either[1]).max() > 1e-3
    with pytest.raises(
        ValueError, match=r"epochs are \['then'\] for 1 trials; .* of those recorded: \['after', 'before'\]"
    ):
        fit.predict([60], ["c0"], ["then"])


def test_a_neuron_that_is_hidden_counts_by_its_own_mean_and_size(small):
    made, _, _, masks = small
    hidden = Masks(masks.train.copy(), masks.test)
    hidden.train[:, :, 3] = False
    activity = made["activity"].copy(data=made["activity"].values * 10 + 50)
    problem = Problem(made.assign(activity=activity), [hidden], Options())
    own = activity.values[..., 3].astype(float)
    assert problem.centre[3] == pytest.approx(own.mean()) and problem.size[3] == pytest.approx(own.std(), rel=1e-6)


@pytest.mark.slow
def test_inputs_before_the_cue_are_found_where_there_are_some(tmp_path):
    key, bins, cue = jax.random.key(4), 30, 10
    network = LowTensorRankRNN.random(
        40, 30, rank=2, conditions=4, trial_ids=range(48), key=key, inputs="free", input_steps=cue, alpha=0.1
    )
    network = eqx.tree_at(lambda net: net.u, network, 30 * network.u)  # anew in every bin
    which = np.arange(48) % 4
    clean = np.asarray(network(which, bins).outputs, float)
    noisy = clean / clean.std() + 0.3 * np.random.default_rng(0).standard_normal(clean.shape)
    names = [f"c{i}" for i in which]
    made = recording(noisy, kind="rates", time=0.01 * (np.arange(bins) - cue + 1), condition=names, unit="sd")
    masks = block_masks(dict(made.sizes), *BLOCKS, key=jax.random.key(0))
    settings = {"rank": 2, "masks": masks, "key": jax.random.key(1), "inputs_until_s": 0.0, **SETTINGS}
    driven = fit_low_tensor_rank(made, inputs="free", out=tmp_path / "driven", **settings)
    alone = fit_low_tensor_rank(made, **settings)
    best_of_all = explained_by(clean / clean.std(), made, masks)
    assert driven.score(made) > 0.9 * best_of_all > 1.05 * alone.score(made)
    assert driven.network().u.shape == (cue, 4, 2) and alone.network().u is None
    np.testing.assert_array_equal(load_fit(tmp_path / "driven" / "fit.zarr").predict(), driven.predict())


@pytest.mark.parametrize("inputs", ["free", pytest.param("ode", marks=pytest.mark.slow)])
def test_inputs_learn_with_the_rest(small, inputs, tmp_path):
    made, _, _, masks = small
    settings = {"rank": 2, "units": 40, "masks": masks, "key": jax.random.key(1), "inputs": inputs, "starts": 1}
    fit_low_tensor_rank(made, steps=20, out=tmp_path, **settings)
    course = load(tmp_path / "training" / "run.zarr")
    for name in INPUT_FIELDS[inputs]:
        first, last = (np.asarray(course.weights(name, snapshot=k)) for k in (0, -1))
        assert np.abs(last - first).max() > 1e-3, name
    with pytest.raises(ValueError, match=r"no bin lies before -1 s; read the recording from an earlier time on"):
        fit_low_tensor_rank(made, inputs_until_s=-1.0, **settings)
    with pytest.raises(ValueError, match="inputs"):
        fit_low_tensor_rank(made, **settings | {"inputs": "some"})
