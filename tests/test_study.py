"""The main job: its recipes and settings, its numbers against NumPy, resuming, divergence."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from tauflow import study as studies
from tauflow.analysis import shuffle_entries
from tauflow.learning import Record, network_key
from tauflow.run import RunError, load
from tauflow.study import (
    RECIPES,
    Flow,
    StudyConfiguration,
    StudyInterrupted,
    TrialEvaluation,
    recipe,
    resume_study,
    run_study,
)
from tauflow.study.evaluation import evaluation_keys
from tauflow.study.folders import first_free, make_new
from tauflow.study.measures import measure, ranks_to_try, updates_to_threshold
from tauflow.tasks import TASKS, make_task

SMALL = {"task": "flip-flop", "neurons": 24, "seeds": 2, "steps": 6, "seed": 3, "record": Record(measurements=3)}
RESULTS = {"study.json", "run.zarr", "measures.zarr", "report.html", "loss.png", "singular_values.png"}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return run_study(**SMALL, out=tmp_path_factory.mktemp("small") / "study")


@pytest.fixture
def no_pictures(monkeypatch):
    """Leave out page and figures where a test is about numbers alone."""
    monkeypatch.setattr("tauflow.study.study.write_study", lambda study: None)


@pytest.fixture(scope="module")
def by_hand(small):
    """The measures of each member, recomputed in float64 NumPy with nothing but the weights and the trials."""
    key = evaluation_keys(SMALL["seed"])[0]
    batch = [np.asarray(part, np.float64) for part in make_task("flip-flop").sample(512, key=key)]
    return [_by_hand(small.run, member, *batch) for member in range(2)]


def _loss(W, W_in, W_out, inputs, targets, mask):
    x, error = np.zeros((inputs.shape[1], len(W))), 0.0
    for u, target, counts in zip(inputs, targets, mask, strict=True):
        x = 0.5 * x + 0.5 * (np.tanh(x) @ W.T + u @ W_in.T)
        error += (counts * (np.tanh(x) @ W_out.T - target) ** 2).sum()
    return 0.5 * error / mask.sum()


def _by_hand(run, member, *batch):
    first, last = [
        [np.asarray(run.weights(name, member, at), np.float64) for name in ("W", "W_in", "W_out")] for at in (0, -1)
    ]
    W0, (W, *vectors) = first[0], last
    delta = W - W0
    left, s, right = np.linalg.svd(delta)
    shuffled = shuffle_entries(W0, key=SMALL["seed"] * 1_000_003 + member)
    assert np.array_equal(np.sort(shuffled, axis=None), np.sort(W0, axis=None)) and not np.allclose(shuffled, W0)
    modulus = np.abs(np.linalg.eigvals(W))
    return {
        "initial_loss": _loss(*first, *batch),
        "final_loss": _loss(*last, *batch),
        "shuffled_loss": _loss(shuffled + delta, *vectors, *batch),
        "rank 1": _loss(W0 + s[0] * np.outer(left[:, 0], right[0]), *vectors, *batch),
        "rank 0 of W": _loss(0 * W, *vectors, *batch),
        "delta_W_norm": np.sqrt((delta**2).sum()),
        "delta_W_singular_values": s[:3],
        "outliers": np.sort(modulus[modulus > 1.1 * 0.9])[::-1],
    }


def test_a_study_leaves_everything_in_its_folder(small):
    assert {path.name for path in small.folder.iterdir()} >= RESULTS
    assert not [path.name for path in small.folder.iterdir() if ".tmp" in path.name]
    assert load(small.folder / "run.zarr").data.identical(small.run.data)
    page = small.report.read_text()
    assert "flip-flop" in page and len(page) > 10_000


def test_the_configuration_is_kept_with_the_run(small):
    kept = small.run.configuration
    assert kept["task"]["name"] == "flip-flop" and kept["task"]["duration"] == 50.0
    assert kept["optimizer"] == "adam" and kept["learning_rate"] == 0.05 / 24
    assert kept["train"] == ["W", "W_in", "W_out"] and kept["gain"] == 0.9 and kept["steps"] == 6
    assert kept["objective"]["trials"] == 32
    text = (small.folder / "study.json").read_text()
    assert StudyConfiguration.from_json(text) == small.configuration


@pytest.mark.parametrize("name", ["initial_loss", "final_loss", "shuffled_loss", "delta_W_norm"])
def test_the_table_agrees_with_numpy(small, by_hand, name):
    for row, expected in zip(small.table(), by_hand, strict=True):
        np.testing.assert_allclose(row[name], expected[name], rtol=2e-5)


def test_spectra_of_the_table_agree_with_numpy(small, by_hand):
    for row, expected in zip(small.table(), by_hand, strict=True):
        np.testing.assert_allclose(row["delta_W_singular_values"], expected["delta_W_singular_values"], rtol=1e-6)
        np.testing.assert_allclose(np.abs(row["outliers"]), expected["outliers"], rtol=1e-6)


def test_truncated_losses_agree_with_numpy(small, by_hand):
    for member, expected in enumerate(by_hand):
        own = small.measures.isel(run=member)
        np.testing.assert_allclose(own.truncated_loss_delta_W.sel(rank=1), expected["rank 1"], rtol=2e-5)
        np.testing.assert_allclose(own.truncated_loss_W.sel(rank=0), expected["rank 0 of W"], rtol=2e-5)
        for curve in (own.truncated_loss_delta_W, own.truncated_loss_W):
            np.testing.assert_allclose(curve.sel(rank=24), expected["final_loss"], rtol=2e-5)


def test_functional_rank_is_the_first_rank_below_the_threshold(small):
    task, ranks = make_task("flip-flop"), small.measures["rank"].values
    lenient = measure(small.run, TrialEvaluation(task, 512, 3), gain=0.9, seed=3, threshold=0.95)
    for name in ("delta_W", "W"):
        curve, found = lenient[f"truncated_loss_{name}"].values, lenient[f"functional_rank_{name}"].values
        for losses, rank, initial in zip(curve, found, lenient["initial_loss"].values, strict=True):
            below = [r for r, value in zip(ranks, losses, strict=True) if value < 0.95 * initial]
            assert rank == below[0] if below else np.isnan(rank)
    assert np.isfinite(lenient["functional_rank_delta_W"]).all()


def test_ranks_and_threshold():
    for neurons in (1, 5, 20, 21, 24, 256, 1024):
        ranks = ranks_to_try(neurons)
        assert ranks[0] == 0 and ranks[-1] == neurons and (np.diff(ranks) > 0).all()
        assert (np.diff(ranks)[: min(20, neurons)] == 1).all()
    loss = np.array([[2.0, 0.2, 0.09, 0.01], [2.0, 1.0, 0.1, 0.1]])
    np.testing.assert_array_equal(updates_to_threshold(loss), [2, np.nan])


def test_every_task_has_its_recipe():
    assert RECIPES.keys() == TASKS.keys()
    for name in TASKS:
        configuration = StudyConfiguration.complete(name, neurons=20)
        flows = isinstance(recipe(name).way, Flow)
        assert (configuration.steps is None) == flows == (configuration.duration is not None)
        assert configuration.seeds == (2 if flows else 4)
        network = configuration.make_network(key=jax.random.key(0))
        loss = jax.eval_shape(configuration.make_objective(), network, jax.random.key(1))
        assert loss.shape == () and loss.dtype == np.float32


@pytest.mark.parametrize("target, base", [(0.5, 0.015), (1.0, 0.009), (2.0, 0.003)])
@pytest.mark.parametrize("gain", [0.0, 0.6, 0.9])
def test_the_rates_of_the_fixed_point_task_are_the_authors(target, base, gain):
    configuration = StudyConfiguration.complete("fixed-point", gain=gain, target=target)
    np.testing.assert_allclose(configuration.learning_rate, base * (1 - gain**2) ** 2, rtol=1e-12)
    assert configuration.phi == "identity" and configuration.train == ("W",) and configuration.steps == 200
    assert configuration.make_task().settings["target_amplitude"] == target


def test_the_cosine_readout_starts_along_the_input():
    network = StudyConfiguration.complete("cosine", neurons=30).make_network(key=jax.random.key(2))
    m, w = np.asarray(network.W_in[:, 0]) / np.sqrt(30), np.asarray(network.W_out[0]) * np.sqrt(30)
    np.testing.assert_allclose(m, w, rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(w), 1.0, rtol=1e-5)


def test_more_seeds_leave_the_first_networks_as_they_are():
    few, many = (StudyConfiguration.complete("mante", seeds=n).keys() for n in (2, 5))
    for one, other in zip(few, many, strict=False):
        assert (jax.random.key_data(one) == jax.random.key_data(other)).all()


@pytest.mark.parametrize(
    "given, words",
    [
        ({"gain": -1.0}, "gain is -1.0; it must be a number >= 0, for example gain=0.9."),
        ({"gain": float("nan")}, "gain is nan; it must be a number"),
        ({"gain": "high"}, "gain is 'high'; it must be a number"),
        ({"gain": True}, "gain is True"),
        ({"neurons": 0}, "neurons is 0; it must be a whole number >= 1"),
        ({"neurons": 2.5}, "neurons is 2.5"),
        ({"seeds": 0}, "seeds is 0"),
        ({"steps": -5}, "steps is -5"),
        ({"seed": -1}, "seed is -1"),
        ({"dt": 0.0}, "dt is 0.0; it must be a number in"),
        ({"dt": 1.5}, "dt is 1.5"),
        ({"noise": -0.1}, "noise is -0.1"),
        ({"batch": 0}, "batch is 0"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0; it must be a number > 0"),
        ({"target": float("inf")}, "target is inf; it must be a finite number"),
        ({"phi": "tahn"}, "There is no phi 'tahn'; did you mean 'tanh'? There are tanh, relu"),
        ({"phi": ["tanh"]}, "There is no phi"),
        ({"optimizer": "lbfgs"}, "optimizer is 'lbfgs'; it must be 'adam' or 'sgd'"),
        ({"train": ("W_rec",)}, "There is no field to train 'W_rec'; there are W, W_in, W_out."),
        ({"task": "flipflop"}, "did you mean 'flip-flop'?"),
        ({"task": ["flip-flop"]}, "There is no task ['flip-flop']"),
        ({"out": 3}, "The path is 3"),
        ({"record": Record(probes={"norm": lambda network: 0.0})}, "keeps no probes"),
        ({"record": Record(measurements=[0, 99]), "steps": 9}, "the run has 0 to 9"),
        ({"record": Record(measurements=[0, 99]), "points": 9, "task": "oscillator"}, "the run has 0 to 8"),
        ({"task": "oscillator", "steps": 9}, "steps came for a study of oscillator, where networks learn by gradient"),
        ({"task": "oscillator", "learning_rate": 0.1}, "learning_rate came for a study of oscillator"),
        ({"task": "oscillator", "duration": -1.0}, "duration is -1.0; it must be a learning time > 0"),
        ({"gamma0": 0.5}, "gamma0 came for a study of flip-flop, where networks learn by updates of an optimizer"),
        ({"settings": {"length": 3.0}}, "There is no setting 'length' of flip-flop"),
        ({"settings": {"target_amplitude": 3.0}}, "settings has target_amplitude, which a study has by itself"),
        ({"settings": 3}, "settings is 3; it must be the task's settings by name"),
    ],
)
def test_a_wrong_setting_is_one_sentence_and_leaves_nothing(given, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError) as caught:
        run_study(**given)
    assert words in str(caught.value) and "\n" not in str(caught.value) and "pydantic" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_numpy_numbers_are_numbers():
    configuration = StudyConfiguration.complete("mante", gain=np.float32(0.5), neurons=np.int64(8), train=["W"])
    assert configuration.gain == 0.5 and configuration.neurons == 8 and configuration.train == ("W",)
    with pytest.raises(ValueError, match="did you mean 'gain'"):
        StudyConfiguration.complete("mante", gian=0.5)


def test_no_key_of_the_evaluation_is_a_members():
    for seed in (0, 3):
        configuration = StudyConfiguration.complete("mante", seeds=3, seed=seed)
        root, members = jax.random.key(seed), configuration.keys()
        used = [root, *members, *map(network_key, members)]
        used += [jax.random.fold_in(member, update) for member in members for update in range(5)]
        trials, noise = evaluation_keys(seed)
        own = [trials, noise, *(jax.random.fold_in(noise, member) for member in range(3))]
        used, own = ({tuple(jax.random.key_data(key).tolist()) for key in keys} for keys in (used, own))
        assert len(own) == 5 and not used & own


def test_folders_are_new(tmp_path):
    assert [first_free(tmp_path, "a").name for _ in range(3)] == ["a-1", "a-2", "a-3"]
    with pytest.raises(RunError, match=r"a-1 exists; .*--resume"):
        make_new(tmp_path / "a-1")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(RunError, match="cannot be made"):
        make_new(tmp_path / "file" / "study")
    assert (tmp_path / "file").read_text() == "mine"


def test_the_default_folder_is_the_first_free_one(tmp_path, monkeypatch, no_pictures):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "fixed-point-1").mkdir(parents=True)
    study = run_study("fixed-point", neurons=8, seeds=1, steps=1)
    assert study.folder == Path("runs/fixed-point-2") and not list((tmp_path / "runs" / "fixed-point-1").iterdir())


KILLED = """
import functools, os, signal, sys
import jax
jax.config.update("jax_num_cpu_devices", 2)
from tauflow.learning import Record
from tauflow.study import run_study, ways as module
module.ensemble = functools.partial(module.ensemble, commit_seconds=0.0)
def kill(news):
    if not isinstance(news, str) and news.update >= 5:
        os.kill(os.getpid(), signal.SIGKILL)
settings = {"neurons": 24, "seeds": 2, "steps": 6, "seed": 3, "record": Record(measurements=3)}
run_study("flip-flop", **settings, out=sys.argv[1], progress=kill)
"""


@pytest.mark.slow
def test_a_killed_study_goes_on_as_if_it_had_not_been(small, tmp_path):
    folder = tmp_path / "killed"
    environment = {**os.environ, "JAX_ENABLE_X64": str(jax.config.jax_enable_x64)}
    child = subprocess.run([sys.executable, "-c", KILLED, str(folder)], env=environment, capture_output=True)
    assert child.returncode == -signal.SIGKILL, child.stderr.decode()
    assert (folder / "state.npz").exists() and not (folder / "run.zarr").exists()
    heard = []
    study = resume_study(folder, progress=heard.append)
    assert study.configuration == small.configuration
    first = next(news for news in heard if not isinstance(news, str))
    assert first.update > 3, "it began anew instead of going on"
    for name in ("loss", "grad_norm", "W", "W_in", "W_out", "delta_W_singular_values", "W_eigenvalues"):
        np.testing.assert_array_equal(study.run.data[name].values, small.run.data[name].values, err_msg=name)
    assert study.measures.equals(small.measures)
    assert {path.name for path in folder.iterdir()} >= RESULTS


def test_a_keyboard_interrupt_names_the_folder(tmp_path, no_pictures):
    def interrupt(news):
        raise KeyboardInterrupt

    with pytest.raises(StudyInterrupted) as caught:
        run_study("fixed-point", neurons=8, seeds=1, steps=4, out=tmp_path / "study", progress=interrupt)
    assert caught.value.folder == tmp_path / "study"
    study = resume_study(tmp_path / "study")
    assert study.run.data.sizes["update"] == 4


def test_a_finished_study_only_redoes_its_analysis(small, monkeypatch):
    import shutil

    folder = small.folder.parent / "copy"
    shutil.copytree(small.folder, folder)
    before = (folder / "run.zarr" / "zarr.json").stat().st_mtime_ns
    (folder / "report.html").unlink()
    shutil.rmtree(folder / "measures.zarr")
    heard = []
    again = resume_study(folder, task="flip-flop", progress=heard.append)
    assert all(isinstance(news, str) for news in heard)
    assert (folder / "run.zarr" / "zarr.json").stat().st_mtime_ns == before
    assert again.measures.equals(small.measures) and again.report.exists()


def test_a_setting_that_a_way_of_learning_lacks_is_missing():
    document = json.loads(StudyConfiguration.complete("oscillator", settings={"c": 0.2}).to_json())
    assert document["configuration"]["settings"] == {"c": 0.2} and "steps" not in document["configuration"]
    del document["configuration"]["duration"]
    with pytest.raises(ValueError, match="duration is missing; restore it"):
        StudyConfiguration.from_json(json.dumps(document))


def edited(**settings):
    """The JSON text of a study with some settings changed by hand."""
    document = json.loads(StudyConfiguration.complete("flip-flop").to_json())
    document["configuration"] |= settings
    return json.dumps(document)


@pytest.mark.parametrize(
    "content, words",
    [
        (None, "holds no study.json"),
        ("not json", "damaged or no configuration"),
        ("[1, 2]", "damaged or no configuration"),
        ('{"schema": 9, "configuration": {}}', "schema 9"),
        ('{"schema": 1, "configuration": {"task": "mante"}}', "neurons is missing"),
        ('{"schema": 1, "configuration": {"task": "mante", "size": 3}}', "no setting 'size' of the study"),
        (edited(steps=None), "steps is None; it must be a whole number >= 1"),
        (edited(duration=3.0), "study.json cannot be used: duration came for a study of flip-flop"),
        (edited(phi="foo"), "study.json cannot be used: There is no phi 'foo'"),
        (edited(train=["W", "W_rec"]), "study.json cannot be used: There is no field to train 'W_rec'"),
        (edited(task="juggling"), "study.json cannot be used: There is no task 'juggling'"),
        (edited(measurements=[0, 5000]), "study.json cannot be used: .*the run has 0 to 1000"),
    ],
)
def test_a_folder_without_a_study_is_refused(content, words, tmp_path):
    if content is not None:
        (tmp_path / "study.json").write_text(content)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ValueError, match=words):
        resume_study(tmp_path)
    assert sorted(tmp_path.iterdir()) == before


def test_a_study_of_another_task_is_refused(small):
    with pytest.raises(ValueError, match="holds a study of flip-flop, not of mante"):
        resume_study(small.folder, task="mante")


def test_when_all_diverge_there_is_still_a_page(tmp_path):
    study = run_study("fixed-point", neurons=12, seeds=2, steps=40, learning_rate=1e4, gain=0.5, out=tmp_path / "study")
    for row in study.table():
        assert row["status"] == "diverged" and row["stopped_at"] >= 0
        assert np.isfinite(row["initial_loss"]) and np.isnan(row["final_loss"]) and row["outliers"] == ()
    assert "diverged" in study.report.read_text()
    assert {path.name for path in study.folder.iterdir()} >= {"run.zarr", "measures.zarr", "report.html"}


def test_one_that_diverges_leaves_the_others(tmp_path, monkeypatch):
    settings = {"task": "fixed-point", "neurons": 12, "seeds": 3, "steps": 5, "gain": 0.5}
    with monkeypatch.context() as quiet:
        quiet.setattr("tauflow.study.study.write_study", lambda study: None)
        calm = run_study(**settings, out=tmp_path / "calm")
    sick = jax.random.key_data(network_key(calm.configuration.keys()[1]))
    make_network = StudyConfiguration.make_network

    def plant(self, *, key):
        network = make_network(self, key=key)
        factor = 1e9 if (jax.random.key_data(key) == sick).all() else 1.0
        return type(network)(factor * network.W, network.W_in, network.W_out, phi="identity", dt=network.dt)

    monkeypatch.setattr(StudyConfiguration, "make_network", plant)
    study = run_study(**settings, out=tmp_path / "sick")
    assert [row["status"] for row in study.table()] == ["done", "diverged", "done"]
    for member in (0, 2):
        assert (
            study.measures.isel(run=member)
            .drop_vars("outliers")
            .equals(calm.measures.isel(run=member).drop_vars("outliers"))
        )
    assert "diverged" in study.report.read_text()


def test_theories_say_whether_they_apply(small, tmp_path, no_pictures):
    linear = run_study("fixed-point", neurons=100, seeds=1, steps=10, gain=0.2, out=tmp_path / "linear")
    names = [overlay.theory_name for overlay in linear.overlays]
    assert names and names == [overlay.theory_name for overlay in small.overlays]
    assert all(overlay.prediction is None for overlay in small.overlays)
    assert any(not assumption.holds for assumption in small.overlays[0].assumptions)
    assert linear.overlays[0].prediction is not None
    assert "loss" in linear.overlays[0].prediction


def test_noise_is_the_same_for_every_rank(tmp_path, no_pictures):
    study = run_study("fixed-point", neurons=4, seeds=1, steps=1, noise=0.5, out=tmp_path / "study")
    own = study.measures.isel(run=0)
    assert study.measures.attrs["trials"] == 512
    np.testing.assert_allclose(own.truncated_loss_W.sel(rank=4), own.final_loss, rtol=1e-5)


def test_the_names_of_the_package():
    import tauflow

    for name in tauflow.__all__:
        assert callable(getattr(tauflow, name)), name
    assert studies.run_study is tauflow.run_study
    with pytest.raises(AttributeError, match="no attribute 'RateRNM'"):
        _ = tauflow.RateRNM
    assert set(tauflow.__all__) <= set(dir(tauflow))
