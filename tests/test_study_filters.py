"""Studies of filters: continuous networks that learn by gradient flow, through the command line, against NumPy."""

import json
import re

import jax
import numpy as np
import pytest
from typer.testing import CliRunner

import tauflow
from tauflow.cli import app
from tauflow.learning import flow, network_key
from tauflow.study import StudyConfiguration, StudyInterrupted, analyse, resume_study, run_study

SMALL = {"neurons": 12, "seeds": 2, "points": 9}
SMALL_ON_THE_COMMAND_LINE = [f"--{name}={value}" for name, value in SMALL.items()]


def call(*arguments):
    arguments = [*map(str, arguments), *SMALL_ON_THE_COMMAND_LINE]
    return CliRunner(env={"COLUMNS": "160"}).invoke(app, arguments, catch_exceptions=False)


def finished(folder):
    """The study in a folder, without writing its page again."""
    configuration = StudyConfiguration.from_json((folder / "study.json").read_text())
    return analyse(tauflow.load(folder / "run.zarr"), configuration, folder)


@pytest.fixture(scope="module")
def integrator(tmp_path_factory):
    """A finished study of the leaky integrator, and what the command printed."""
    folder = tmp_path_factory.mktemp("integrator") / "study"
    result = call("study", "leaky-integrator", "--set", "c=0.3", "--duration", 3, "--seed", 5, "--out", folder)
    assert result.exit_code == 0, result.output
    return finished(folder), result


@pytest.fixture(scope="module")
def oscillator(tmp_path_factory):
    """A finished study of the oscillator, and what the command printed."""
    folder = tmp_path_factory.mktemp("oscillator") / "study"
    result = call("study", "oscillator", "--duration", 1.5, "--out", folder)
    assert result.exit_code == 0, result.output
    return finished(folder), result


def exact_loss(W, u, v, amplitudes, rates):
    """∫(f - f*)² of a sum of exponentials, from eigenvalues: the network's, less the target's Re Σ a exp(-p t)."""
    n = len(u)
    values, right = np.linalg.eig(W / np.sqrt(n) - np.eye(n))
    own = (v @ right) * np.linalg.solve(right, u.astype(complex)) / n
    a = np.concatenate([own, -np.asarray(amplitudes) / 2, -np.conj(amplitudes) / 2])
    p = np.concatenate([-values, rates, np.conj(rates)])
    return float((np.outer(a, a) / (p[:, None] + p)).sum().real)


def weights(run, member, at):
    W, W_in, W_out = (np.asarray(run.weights(name, member, at)) for name in ("W", "W_in", "W_out"))
    return W, W_in[:, 0], W_out[0]


@pytest.mark.parametrize("name, target", [("integrator", ([1.0], [0.3])), ("oscillator", ([1.0], [0.1 - 1.0j]))])
def test_losses_and_sizes_agree_with_numpy(name, target, request):
    study, _ = request.getfixturevalue(name)
    for member, row in enumerate(study.table()):
        (W0, *vectors0), (W, *vectors) = (weights(study.run, member, at) for at in (0, -1))
        np.testing.assert_allclose(row["initial_loss"], exact_loss(W0, *vectors0, *target), rtol=1e-8)
        np.testing.assert_allclose(row["final_loss"], exact_loss(W, *vectors, *target), rtol=1e-6)
        np.testing.assert_allclose(study.run.data["loss"][member, [0, -1]], [row["initial_loss"], row["final_loss"]])
        left, s, right = np.linalg.svd((W - W0) / np.sqrt(12))
        np.testing.assert_allclose(row["delta_W_norm"], np.sqrt((s**2).sum()))
        np.testing.assert_allclose(row["delta_W_singular_values"], s[:3], rtol=1e-6)
        rank_1 = W0 + np.sqrt(12) * s[0] * np.outer(left[:, 0], right[0])
        cut = study.measures["truncated_loss_delta_W"].sel(rank=1)[member]
        np.testing.assert_allclose(cut, exact_loss(rank_1, *vectors, *target), rtol=1e-6)
        assert row["final_loss"] < 0.05 * row["initial_loss"] and "updates_to_threshold" not in row
        below = study.run.data["loss"].values[member] < 0.05 * row["initial_loss"]
        assert row["tau_to_threshold"] == study.run.data["tau"].values[member, below.argmax()]


def test_a_member_is_a_flow_with_the_mean_field_rates(integrator):
    study, _ = integrator
    configuration = study.configuration
    key = configuration.keys()[1]
    network = configuration.make_network(key=network_key(key))
    single = flow(network, configuration.make_objective(), duration=3.0, save_at=np.linspace(0, 3, 9),
                  rates={"W": 12.0, "W_in": 12.0, "W_out": 12.0}, key=key, rtol=1e-6, atol=1e-8)  # fmt: skip
    np.testing.assert_array_equal(single.weights("W"), study.run.weights("W", 1))
    kept = study.run.configuration
    assert kept["rates"] == {"W": 12.0, "W_in": 12.0, "W_out": 12.0} and kept["optimizer"] == "gradient flow"
    assert kept["task"]["name"] == "leaky-integrator" and kept["task"]["c"] == 0.3 and kept["gain"] == 0.2
    assert study.run.tau_unit == "flow" and study.run.data.attrs["seed"] == 5


def test_probes_and_filters_are_those_of_the_weights(integrator, oscillator):
    study, _ = integrator
    for member in range(2):
        for at in (0, -1):
            W, u, v = weights(study.run, member, at)
            expected = v @ W @ u / (np.sqrt(12) * np.linalg.norm(u) * np.linalg.norm(v))
            np.testing.assert_allclose(study.run.data["probe_coupling"][member, at], expected, rtol=1e-9)
        shown = study.measures.isel(run=member)
        np.testing.assert_allclose(shown["filter_target"], np.exp(-0.3 * shown["time"]), rtol=1e-12)
        np.testing.assert_allclose(shown["filter_final"][0], v @ u / 12, rtol=1e-9)
        off = [float(abs(shown[f"filter_{name}"] - shown["filter_target"]).max()) for name in ("initial", "final")]
        assert off[1] < 0.1 < off[0]
    study, _ = oscillator
    pair = study.run.data["probe_outlier_pair"].values  # (run, measurement, 2)
    assert np.abs(pair[:, 0, 0] - (0.5 + 0.5j)).max() < 0.15, "it does not start at the planted pair"
    assert np.abs(pair[:, -1, 0] - (0.9 + 1.0j)).max() < 0.15, "it does not end at the target's"
    np.testing.assert_array_equal(pair[..., 1], pair[..., 0].conj())


def test_the_table_says_what_a_flow_has(integrator, oscillator):
    for study, result in (integrator, oscillator):
        text = result.stdout
        words = ("τ to 5 % of initial loss", "‖ΔW/√N‖", "singular values of ΔW/√N", "eigenvalue outliers of W/√N")
        assert [word for word in words if word not in text] == [] and "updates" not in text
        assert all(f"{row['final_loss']:.3g}" in text for row in study.table())
        assert "FixedPointTheory is not overlaid" in text and "points; " in result.stderr


APPLIES = {"integrator": "OutlierTheory", "oscillator": "OscillatorTheory"}


def says_which_theory_applies(study, wanted):
    """One theory predicts; each of the others gives sentences on what fails."""
    assert {o.theory_name for o in study.overlays} >= {"FixedPointTheory", "LazyTheory", *APPLIES.values()}
    assert [o.theory_name for o in study.overlays if o.applies] == [wanted]
    for each in study.overlays:
        failing = [assumption.sentence for assumption in each.assumptions if not assumption.holds]
        assert bool(failing) == (each.theory_name != wanted)
        assert all(sentence.endswith(".") for sentence in failing), failing


@pytest.mark.parametrize("name", APPLIES)
def test_the_theory_of_the_task_is_drawn_and_the_others_are_refused(name, request):
    study, result = request.getfixturevalue(name)
    says_which_theory_applies(study, APPLIES[name])
    said = {APPLIES[name]: "applies and is overlaid."}
    for each in study.overlays:
        assert f"{each.theory_name} {said.get(each.theory_name, 'is not overlaid: ')}" in result.stdout
    (prediction,) = (o.prediction for o in study.overlays if o.applies)
    for variable in ("loss", *(name for name in study.run.data if name.startswith("probe_"))):
        off, known = abs(prediction[variable] - study.run.data[variable]), study.run.data[variable]
        assert off.shape == known.shape and float(off.max()) < 0.1 * float(abs(known).max())


def test_the_lazy_theory_is_drawn_for_a_lazy_network(tmp_path, monkeypatch):
    monkeypatch.setattr("tauflow.study.study.write_study", lambda study: None)
    settings = {"settings": {"c": 0.8}, "gain": 0.6, "gamma0": 0.1, "duration": 1.0}
    study = run_study("leaky-integrator", **settings, neurons=12, seeds=1, points=3, out=tmp_path / "study")
    says_which_theory_applies(study, "LazyTheory")


def content(page):
    """The data of a page."""
    found = re.search(r'<script[^>]*id="data"[^>]*>(.*?)</script>', page, re.DOTALL)
    return json.loads(found[1])


def test_the_page_shows_probes_and_filters_with_their_theories(integrator, oscillator):
    for study, _ in (integrator, oscillator):
        page = study.report.read_text()
        data = content(page)
        assert data["matrix"] == "W/√N" and data["trials"] is None and data["loss"]["axis"]["unit"] == "flow"
        assert "Singular values of ΔW/√N over learning" in page and "Learning time τ to 5 %" in page
        assert "What the network learned" in page and "Updates to 5" not in page
        assert len(data["filter"]["final"]) == 2 and len(data["filter"]["time"]) == len(data["filter"]["target"])
        assert {member["gain"] for member in data["members"]} == {study.configuration.gain}
        predicted = [o for o in study.overlays if o.prediction is not None and "loss" in o.prediction]
        labels = [each["label"] for each in data["loss"]["overlays"]]
        assert labels == [o.theory_name for o in predicted] and len(labels) == 1
        assert [each["label"] for each in data["probes"]["panels"][0]["overlays"]] == labels
        assert {path.name for path in study.folder.iterdir()} >= {"probes.png", "filters.png", "eigenvalues.png"}
    panels = content(integrator[0].report.read_text())["probes"]["panels"]
    assert [panel["label"] for panel in panels] == ["coupling"] and np.shape(panels[0]["values"]) == (2, 1, 9)
    panels = content(oscillator[0].report.read_text())["probes"]["panels"]
    labels = ["real part of outlier pair", "imaginary part of outlier pair"]
    assert [panel["label"] for panel in panels] == labels and np.shape(panels[1]["values"]) == (2, 2, 9)


def test_an_interrupted_study_redoes_only_what_was_not_done(integrator, tmp_path, monkeypatch):
    monkeypatch.setattr("tauflow.study.study.write_study", lambda study: None)
    whole, _ = integrator

    def interrupt(news):
        if news.done == 1 and news.update == 4:
            raise KeyboardInterrupt

    settings = {**SMALL, "settings": {"c": 0.3}, "duration": 3.0, "seed": 5}
    with pytest.raises(StudyInterrupted):
        run_study("leaky-integrator", **settings, out=tmp_path / "study", progress=interrupt)
    assert [path.name for path in (tmp_path / "study" / "parts").iterdir()] == ["0.zarr"]
    heard = []
    study = resume_study(tmp_path / "study", progress=heard.append)
    assert [news.update for news in heard if not isinstance(news, str)] == list(range(1, 10))
    assert study.run.data.equals(whole.run.data) and study.measures.equals(whole.measures)
    assert study.run.configuration == whole.run.configuration


def test_networks_that_are_unstable_from_the_start_are_told(tmp_path):
    result = call("study", "leaky-integrator", "--gain", 3, "--duration", 0.1, "--out", tmp_path / "study")
    assert result.exit_code == 0, result.output
    assert "the initial networks are unstable (W/√N has a spectral abscissa of" in result.stdout
    run = tauflow.load(tmp_path / "study" / "run.zarr")
    assert run.data["status"].values.tolist() == ["diverged"] * 2 and np.isfinite(run.weights("W", snapshot=0)).all()
    assert "diverged at point 0" in (tmp_path / "study" / "report.html").read_text()


def test_the_initial_networks_of_a_study_are_random():
    made = StudyConfiguration.complete("leaky-integrator", neurons=300, gain=0.5, gamma0=0.3)
    network = made.make_network(key=jax.random.key(1))
    assert 0.4 < np.abs(network.eigenvalues()).max() < 0.6 and network.gamma0 == 0.3
