"""`tauflow fit`: from a file to tables and a folder, one sentence for every mistake, and nothing lost on the way."""

import io
import json
import math
import warnings
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from rich.console import Console
from typer.testing import CliRunner

import browsing
import tauflow.plots
from tauflow.cli import app
from tauflow.cli.progress import ProgressLine
from tauflow.cli.show import fit_sentences, fit_tables
from tauflow.learning import Progress
from tauflow.neural import load_fit, load_recording, recording, smooth
from tauflow.neural.training import Options
from tauflow.run import RunError, read_npz, read_store
from tauflow.study import RecordingConfiguration, RecordingStudy, StudyInterrupted, prepare, study_recording

pytestmark = pytest.mark.x64off("only")

browser, Visit = browsing.browser, browsing.Visit

NWB = Path(__file__).parent / "data" / "learning.nwb"
ALIGNED = ["--align", "go_cue_time", "--window", "-0.1", "0.5", "--bin", "0.02", "--condition", "target"]
SMALL = ["--units", "10", "--steps", "330", "--hide", "4", "6", "--bin", "0.02", "--masks", "1"]


def call(*arguments):
    with warnings.catch_warnings():
        warnings.simplefilter("default")  # the command shows them as notes
        return CliRunner(env={"COLUMNS": "160"}).invoke(
            app, ["fit", *(str(argument) for argument in arguments)], catch_exceptions=False
        )


def files(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def assert_one_sentence(result, words):
    assert result.exit_code == 2, result.output
    said = [line for line in result.stderr.splitlines() if not line.startswith(("Note: ", "reading "))]
    assert len(said) == 1 and words in said[0] and said[0].endswith("."), result.stderr
    assert "Traceback" not in result.output and result.stdout == ""


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    """Rates of 6 neurons that follow two waves, of which one grows over 24 trials of two conditions."""
    rng, path = np.random.default_rng(0), tmp_path_factory.mktemp("data") / "session.npz"
    time, trial = np.arange(12) * 0.02, np.arange(24)
    waves = np.stack([np.cos(8 * time), np.sin(8 * time)])  # (wave, time)
    sign = 1 - 2 * (trial % 2)
    sizes = np.stack([sign, sign * trial / 23])  # (wave, trial)
    rates = np.einsum("wt,wk,wi->kti", waves, sizes, rng.normal(size=(2, 6)))
    rates += 0.1 * rng.normal(size=rates.shape)
    np.savez(path, rates=rates, condition=np.where(sign > 0, "up", "down"), epoch=np.repeat(["early", "late"], 12))
    return path


@pytest.fixture
def no_page(monkeypatch):
    """Stand-ins for portrait, figures and page, which take longer than these fits."""
    from tauflow.neural import portrait

    def page(path, *, portrait, title, configuration):
        path.write_text(json.dumps({"title": title, **configuration}))
        return path

    monkeypatch.setattr(portrait, "portrait", lambda fit, data, scores=None: fit.factors)
    monkeypatch.setattr(tauflow.plots, "fit_page", page)
    monkeypatch.setattr(tauflow.plots, "save_fit_figures", lambda portrait, folder: [])


@pytest.fixture
def finished(session, no_page, tmp_path_factory):
    """A finished fit, made once: what the command printed, and its folder."""
    folder = session.parent / "finished"
    if not folder.exists():
        result = call(session, *SMALL, "--ranks", "2", "--seed", "3", "--out", folder)
        assert result.exit_code == 0, result.output
        (session.parent / "printed").write_text(result.stdout)
        (session.parent / "told").write_text(result.stderr)
    return folder


def test_the_tables_say_what_the_stores_hold(finished, session):
    text, told = ((session.parent / name).read_text() for name in ("printed", "told"))
    fit, scores = load_fit(finished / "fit.zarr"), read_store(finished / "scores.zarr")
    data = read_store(finished / "recording.zarr")
    assert scores["rank"].values.tolist() == [2] and fit.configuration["rank"] == 2
    for number in (fit.score(data), fit.ceiling(data)):
        assert f"{number:.3g}" in text
    for loss in scores["test_loss"].mean("mask").values.ravel():
        assert f"{loss:.4g}" in text
    (row,) = (line.split() for line in text.splitlines() if line.rstrip().endswith("chosen"))
    assert row[0] == "2" and row[-1] == "chosen"
    assert "The rank chosen is the largest that was tried" in text and f"Report: {finished}/report.html" in text
    stages = ["reading session.npz", "cross-validating rank 2 of 2", "fitting 2 components", "measuring what changed",
              "writing the page"]  # fmt: skip
    assert [told.find(stage) for stage in stages] == sorted(told.find(stage) for stage in stages)
    assert all(stage in told for stage in stages) and "/330 updates" in told


def test_the_tables_show_every_rank_and_the_one_chosen(finished, session):
    losses = np.array([0.9, 0.5, 0.3, 0.29])[None, :, None] + [0.0, 0.04]  # (units, rank, mask)
    scores = {name: (("units", "rank", "mask"), values) for name, values in
              (("test_loss", losses), ("train_loss", losses), ("explained_test", 1 - losses))}  # fmt: skip
    tried = xr.Dataset(scores, {"units": [10], "rank": [1, 2, 3, 4], "mask": [0, 1]})
    fit, data = load_fit(finished / "fit.zarr"), read_store(finished / "recording.zarr")
    study = RecordingStudy(finished, data, fit, tried, xr.Dataset(), finished / "report.html")
    console = Console(width=100, record=True, file=io.StringIO())
    for table in fit_tables(study):
        console.print(table)
    rows = [line.split() for line in console.export_text().splitlines() if line.strip()]
    assert [row for row in rows if row[0] in "1234"][1:] == [
        ["1", "0.92", "0.02", "0.08"], ["2", "0.52", "0.02", "0.48"], ["3", "0.32", "0.02", "0.68", "chosen"],
        ["4", "0.31", "0.02", "0.69"],
    ]  # fmt: skip
    (told,) = fit_sentences(study)
    assert told.startswith("Cross-validation chooses rank 3, the smallest") and told.endswith("the fit has 2.")
    tried["test_loss"][0, 1, 0] = np.nan
    assert fit_sentences(study)[-1] == "Some fits diverged; losses of rank 1, 2, 3, 4 are means over 1 of 2 masks."
    row = study.table()[1]
    assert (row["test_loss"], row["explained_test"]) == pytest.approx((0.54, 0.46)), "of the mask that counts alone"
    assert math.isnan(row["standard_error"])
    tried["test_loss"][0, 3] = np.nan
    assert fit_sentences(study)[-1].endswith("rank 1, 2, 3 are means over 1 of 2 masks and there are none of rank 4.")
    rare = data.assign_coords(condition=("trial", [f"c{k}" for k in range(3)] + ["up"] * (data.sizes["trial"] - 3)))
    few = RecordingStudy(finished, rare, fit, None, xr.Dataset(), finished / "report.html")
    assert fit_sentences(few) == [
        "The ceiling takes its noise from 21 of 24 trials; conditions of the others have fewer than three, and are "
        "taken to be as noisy on average."
    ]
    alone = RecordingStudy(finished, data, fit, None, xr.Dataset(), finished / "report.html")
    assert len(fit_tables(alone)) == 1 and fit_sentences(alone) == [] and alone.table() == []


def test_what_is_kept_can_be_read_again(finished, session):
    kept = load_recording(finished / "recording.zarr")
    made = load_recording(session, bin_s=0.02)
    xr.testing.assert_equal(kept.drop_attrs(), made.drop_attrs())
    assert kept.epoch.values.tolist() == ["early"] * 12 + ["late"] * 12
    document = json.loads((finished / "fit.json").read_text())
    assert document["configuration"]["seed"] == 3 and document["configuration"]["path"] == str(session)
    assert document["configuration"]["options"]["penalty"] == Options().penalty and "jax" in document["versions"]
    page = json.loads((finished / "report.html").read_text())
    assert page["title"] == "tauflow fit: session.npz" and page["file"] == "session.npz" and "path" not in page


class Interrupting(ProgressLine):
    """A progress line during which Ctrl-C is pressed, at some report after a stage."""

    stage, left, here = "", 0, False

    def __call__(self, news):
        if isinstance(news, str):
            type(self).here = news.startswith(self.stage)
        elif self.here:
            type(self).left -= 1
            if not self.left:
                raise KeyboardInterrupt
        super().__call__(news)


INTERRUPTED = [  # stage, report, folder and update of the last commit; starts report at 64 and 66, fits every 20
    ("fitting", 2, "training/starts", 64),
    ("fitting", 4, "training", 20),
    pytest.param("cross-validating rank 2", 2, "cross-validation/units-10-rank-2/starts", 64, marks=pytest.mark.slow),
    pytest.param("cross-validating rank 2", 4, "cross-validation/units-10-rank-2", 20, marks=pytest.mark.slow),
]


@pytest.mark.parametrize("stage, report, home, update", INTERRUPTED, ids=["starts", "fit", "tried", "validated"])
def test_ctrl_c_keeps_what_is_done_and_the_end_is_the_same(
    stage, report, home, update, finished, session, tmp_path, monkeypatch
):
    folder = tmp_path / "mine"
    with monkeypatch.context() as patch:
        interrupting = type("Interrupting", (Interrupting,), {"stage": stage, "left": report})
        patch.setattr("tauflow.cli.progress.ProgressLine", interrupting)
        stopped = call(session, *SMALL, "--ranks", "2", "--seed", "3", "--out", folder)
    assert stopped.exit_code == 130, stopped.output
    assert f"what was committed is in {folder}, go on with: tauflow fit --resume {folder}" in stopped.stderr
    state = json.loads(str(read_npz(folder / home / "state.npz")["header"]))
    assert state["next_update"] == update, "in the middle of what is gone on with"
    assert (folder / "recording.zarr").exists() and (folder / "fit.json").exists()
    assert (folder / "scores.zarr").exists() == (stage == "fitting")
    assert not (folder / "fit.zarr").exists() and not (folder / "report.html").exists()
    again = call("--resume", folder)
    assert again.exit_code == 0, again.output
    assert again.stdout.replace(str(folder), str(finished)) == (session.parent / "printed").read_text()
    for store in ("fit.zarr", "scores.zarr", "recording.zarr"):
        mine, theirs = (read_store(each / store) for each in (folder, finished))
        xr.testing.assert_identical(mine.drop_attrs(), theirs.drop_attrs())


def test_an_interrupted_study_says_in_python_how_to_go_on(session, no_page, tmp_path):
    def progress(news):
        if news.startswith("fitting"):
            raise KeyboardInterrupt

    with pytest.raises(StudyInterrupted, match=r"go on with resume_recording_study\('.*mine'\)") as caught:
        study_recording(session, rank=1, ranks=[], units=10, hide=(4, 6), steps=60, out=tmp_path / "mine",
                        loading={"bin_s": 0.02}, progress=progress)  # fmt: skip
    assert caught.value.folder == tmp_path / "mine"


def test_other_settings_do_not_go_on_in_a_folder(finished, session):
    before = files(finished)
    own = {"ranks": [2], "units": 10, "hide": (4, 6), "seed": 3, "masks": 1, "steps": 330, "loading": {"bin_s": 0.02}}
    for change, words in (
        ({"seed": 4}, "holds a fit with seed=3, and seed=4 came"),
        ({"penalty": 0.5}, "holds a fit with penalty=0.0001, and penalty=0.5 came"),
        ({"preprocessing": {"crop": (0, 0.1)}}, r"holds a fit with crop=None, and crop=\(0, 0.1\) came"),
    ):
        with pytest.raises(RunError, match=words):
            study_recording(session, out=finished, resume=True, **{**own, **change})
    assert files(finished) == before
    study = study_recording(session, out=finished, resume=True, **own)
    after = files(finished)
    assert all(after[name] == content for name, content in before.items() if name.parts[0] not in ("portrait.zarr",))
    assert study.chosen == study.rank == 2 and study.explained == study.fit.score(study.recording)


def test_a_folder_that_exists_is_left_alone(session, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    result = call(session, *SMALL, "--rank", "1", "--ranks", "none", "--out", tmp_path)
    assert_one_sentence(result, f"{tmp_path} exists; choose another folder (--out)")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


COLUMNS = "start_time, stop_time, target_time, go_cue_time, target, epoch, good"
BAD = [
    ([], "No file came; name a recording"),
    (["nowhere.nwb"], "There is no such file"),
    ([NWB], f"align, window and bin_s are needed, such as align='go_cue_time', window=(-0.2, 1.0), bin_s=0.01; the "
            f"trials columns are {COLUMNS}."),
    ([NWB, *ALIGNED, "--align", "go_cue"], "There is no trials column 'go_cue'; did you mean 'go_cue_time'?"),
    ([NWB, *ALIGNED, "--epoch", "epochs"], "There is no trials column 'epochs'; did you mean 'epoch'?"),
    ([NWB, *ALIGNED, "--window", "0.5", "-0.1"], "window is (0.5, -0.1); it must be a start and a later end"),
    ([NWB, *ALIGNED, "--window", "a", "1"], "window is ('a', 1.0); it must be a start and a later end in seconds"),
    ([NWB, *ALIGNED, "--window", "1"], "Option '--window' requires 2 arguments"),
    ([NWB, *ALIGNED, "--bin", "0.07"], "holds 8.57143 bins of 0.07 s; it must hold a whole number"),
    ([NWB, *ALIGNED, "--baseline", "2", "3"], "baseline: No bin lies in 2 to 3 s; the times go from -0.09 to 0.49 s"),
    ([NWB, *ALIGNED, "--smooth", "no"], "smooth: sd_s is 'no'; it must be a positive number of seconds"),
    ([NWB, *ALIGNED, "--hide", "40", "60"], "a hidden block has 40 bins and 60 trials, and the recording "
                                            "has 30 bins and 58 trials; hide smaller blocks, for example ("),
    (["x.npz", "--loss", "poisson", "--smooth", "0.04"], "smooth came with loss='poisson', which is for counts"),
    (["x.npz", "--loss", "possion"], "There is no loss 'possion'; did you mean 'poisson'?"),
    (["x.npz", "--rank", "0"], "rank is 0; it must be a whole number >= 1, for example rank=5."),
    (["x.npz", "--rank", "2.5"], "rank is 2.5; it must be a whole number >= 1"),
    (["x.npz", "--ranks", "few"], "ranks is 'few'; it must be whole numbers from 1, for example ranks=(1, 2, 3)."),
    (["x.npz", "--ranks", "6-1"], "ranks is '6-1'; it must be whole numbers from 1"),
    (["x.npz", "--ranks", "0-2"], "ranks is 0; it must be whole numbers from 1"),
    (["x.npz", "--ranks", "none"], "No rank came and no ranks to try; give one of both, for example rank=3."),
    (["x.npz", "--units", "2"], "units is 2 and the largest rank 6; units must be as many or more"),
    (["x.npz", "--steps", "1.5"], "steps is 1.5; it must be a whole number, for example steps="),
    (["x.npz", "--learning-rate", "-1"], "learning_rate is -1.0; it must be a number > 0."),
    (["x.npz", "--set", "length=far"], "length is 'far'; it must be a number, for example length=15.0."),
    (["x.npz", "--set", "lenght=3"], "There is no option 'lenght' of a fit; did you mean 'length'?"),
    (["x.npz", "--set", "progress=1"], "There is no option 'progress' of a fit"),
    (["x.npz", "--set", "form=round"], "There is no form 'round'"),
    (["x.npz", "--set", "every=100"], "window is 200 updates and the held-out loss is looked at every 100"),
    (["x.npz", "--set", "steps=3"], "--set has steps, which has an option of its own; give it as --steps."),
    (["x.npz", "--resume", "here"], "A file came with --resume"),
    (["--resume", "here", "--rank", "2"], "--rank came with --resume; a fit goes on with its own settings"),
    (["--resume", "here"], "here holds no fit.json; name the folder of a fit"),
]  # fmt: skip


@pytest.mark.parametrize("arguments, words", BAD, ids=range(len(BAD)))
def test_a_mistake_is_one_sentence_and_leaves_nothing(arguments, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert_one_sentence(call(*arguments), words)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_fit_that_diverges_says_so(session, no_page, tmp_path):
    result = call(session, *SMALL, "--rank", "1", "--ranks", "none", "--learning-rate", "1e30", "--out", tmp_path / "x")
    assert result.exit_code == 2 and "The fit diverged after" in result.stderr and "learning_rate=" in result.stderr


def test_what_comes_before_a_fit_is_done_in_order():
    rng = np.random.default_rng(0)
    counts = recording(rng.poisson([0.02, 1.0, 3.0], (40, 6, 3)), kind="spikes", time=np.arange(40) * 0.02 - 0.2)
    rates = prepare(counts, crop=(0.0, 0.4), baseline=(-0.2, 0.0), smooth=0.04, min_rate=10.0, scale=(0.0, 0.6))
    assert dict(rates.sizes) == {"time": 20, "trial": 6, "neuron": 2} and rates.activity.attrs["unit"] == "sd"
    steps = json.loads(rates.attrs["steps"])
    assert [word in step for word, step in zip(
        ("Hz", "under 10 Hz", "Gaussian", "subtracted", "standard deviation", "cut to 0 to 0.4 s"), steps, strict=True
    )] == [True] * 6  # fmt: skip
    wide = prepare(counts, baseline=(-0.2, 0.0), smooth=0.04, min_rate=10.0, scale=(0.0, 0.6))
    np.testing.assert_array_equal(rates.activity, wide.activity[10:30])
    inside = wide.activity.values[10:].astype(np.float64)
    np.testing.assert_allclose(inside.std(axis=(0, 1)), 1, rtol=1e-5)
    kept = prepare(counts, loss="poisson", min_rate=10.0)
    assert kept.activity.attrs["kind"] == "spikes" and kept.activity.dtype == np.int32
    assert prepare(counts).activity.attrs["kind"] == "rates"


def test_masks_of_the_fit_are_not_those_that_chose_its_rank():
    configuration = RecordingConfiguration.complete("x.npz", rank=2, hide=(4, 6))
    data = recording(np.random.default_rng(0).normal(size=(20, 30, 4)), kind="rates", time=np.arange(20) * 0.02)
    several, last = configuration.draw_masks(data)
    assert len(several) == 4 and all((each.test != last.test).any() for each in several)
    again = RecordingConfiguration.from_json(configuration.to_json())
    assert again == configuration and (again.draw_masks(data)[1].train == last.train).all()
    default = RecordingConfiguration.complete("x.npz", rank=2)
    assert default.hidden(smooth(data, 0.05)) == (20, 20) and default.hidden(data) == (10, 20)
    assert configuration.hidden(smooth(data, 0.05)) == (4, 6)
    hidden, tested = ~last.train, last.test
    assert tested.sum() < 0.5 * hidden.sum() and not (tested & last.train).any()


def test_the_name_of_a_stage_stays_above_its_progress(tmp_path):
    with open(tmp_path / "terminal", "w+") as stream:
        console = Console(file=stream, force_terminal=True, width=100, legacy_windows=False)
        with ProgressLine(console) as line:
            line("fitting 2 components")
            line(Progress(20, 60, 1, 0, 0, 0.5, 40.0, 1.0))
            line("writing the page")
        stream.seek(0)
        text = stream.read()
    assert 0 < text.rfind("fitting 2 components ...\n") < text.rfind("20/60 updates") < text.rfind("writing the page")


@pytest.fixture(scope="module")
def from_nwb(tmp_path_factory):
    folder = tmp_path_factory.mktemp("nwb") / "fit"
    result = call(NWB, *ALIGNED, "--good", "good", "--smooth", "0.04", "--min-rate", "0.5", "--rank", "3", "--ranks",
                  "none", "--units", "40", "--steps", "40", "--seeds", "1", "--out", folder)  # fmt: skip
    assert result.exit_code == 0, result.output
    return result, folder


def test_from_an_nwb_file_to_the_page(from_nwb):
    result, folder = from_nwb
    assert "Note: learning.nwb: 2 of 60 trials dropped (ids 33, 59)" in result.stderr
    assert "54 trials, 29 neurons, 30 bins" in result.stdout and "Cross-validation" not in result.stdout
    fit = load_fit(folder / "fit.zarr")
    assert fit.options.steps == 40 and sorted(set(fit.data.epoch.values)) == ["baseline", "perturbation", "washout"]
    assert len(list((folder / "figures").glob("*.png"))) == 6


@pytest.mark.browser
def test_the_page_of_the_nwb_file_opens_and_draws(browser, from_nwb):
    visit = Visit(browser, from_nwb[1] / "report.html")
    assert "learning.nwb" in visit.page.locator("h1").inner_text()
    strengths = load_fit(from_nwb[1] / "fit.zarr").factors["trial_factors"].values  # (trial, rank), any order and sign
    drawn = np.array(visit.drawn("plot-factors", "c<sub>1</sub> of single trials"), float)
    assert any(np.allclose(np.abs(drawn), np.abs(column), rtol=1e-3) for column in strengths.T)
    assert visit.requests == [visit.page.url] and visit.complaints == []
    visit.context.close()
