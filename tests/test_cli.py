"""The command line as a user meets it: what it prints, its exit codes, and one sentence for every mistake."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr
from rich.console import Console
from typer.testing import CliRunner

import tauflow
from tauflow.cli import app
from tauflow.cli.progress import ProgressLine
from tauflow.learning import Progress

pytestmark = pytest.mark.x64off("only")

TINY = ["--neurons", "12", "--seeds", "2", "--steps", "3"]


def call(*arguments):
    return CliRunner(env={"COLUMNS": "160"}).invoke(
        app, [str(argument) for argument in arguments], catch_exceptions=False
    )


def command(*arguments, **options):
    return subprocess.run(
        [sys.executable, "-m", "tauflow", *map(str, arguments)], capture_output=True, text=True, timeout=120, **options
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A small finished study: what the command printed, and its folder."""
    folder = tmp_path_factory.mktemp("cli") / "study"
    result = call("study", "flip-flop", *TINY, "--out", folder)
    assert result.exit_code == 0, result.output
    return result, folder


def files(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_study_prints_its_table_and_where_the_page_is(finished):
    result, folder = finished
    study = tauflow.resume_study(folder)
    words = (
        "final loss", "updates to 5 %", "functional rank of ΔW", "functional rank of W", "singular values of ΔW",
        "eigenvalue outliers", "‖ΔW‖", "loss after shuffling W₀", "seed 0", "seed 1", "is not overlaid",
    )  # fmt: skip
    text = result.stdout
    assert [word for word in words if word not in text] == []
    for row in study.table():
        assert f"{row['final_loss']:.3g}" in text and f"{row['delta_W_singular_values'][0]:.3g}" in text
    assert f"Report: {folder}/report.html" in result.stdout and (folder / "report.html").exists()
    assert "2 running, 0 done, 0 diverged" in result.stderr or "0 running, 2 done, 0 diverged" in result.stderr
    assert "updates/s" in result.stderr or "loss" in result.stderr


def test_many_seeds_are_summed_up(finished):
    from tauflow.cli.show import study_table

    _, folder = finished
    study = tauflow.resume_study(folder)
    many = SimpleNamespace(configuration=study.configuration, measures=study.measures, table=lambda: study.table() * 5)
    console = Console(width=100, record=True, file=open(os.devnull, "w"))
    console.print(study_table(many))
    text = console.export_text()
    losses = [row["final_loss"] for row in study.table()]
    assert "median" in text and f"{np.median(losses):.3g}" in text and f"{max(losses):.3g}" in text
    console.file.close()


def shown(study):
    """The table of a study as text."""
    from tauflow.cli.show import study_table

    console = Console(width=100, record=True, file=io.StringIO())
    console.print(study_table(study))
    return console.export_text()


@pytest.mark.parametrize("copies", [1, 5])
def test_diverged_members_have_no_outliers_and_are_left_out(finished, copies):
    study = tauflow.resume_study(finished[1])
    last, lost = study.table()
    last["outliers"] = (1.5 + 0j, 1.2 + 0j)
    lost.update(status="diverged", stopped_at=3, delta_W_norm=np.nan, final_loss=np.nan, outliers=())
    text = shown(
        SimpleNamespace(configuration=study.configuration, measures=study.measures, table=lambda: [last, lost] * copies)
    )
    row = next(line for line in text.splitlines() if "eigenvalue outliers" in line)
    assert row.split("of W")[1].split() == (["1.5", "-"] if copies == 1 else ["2", "2", "2"])


def test_when_all_diverge_the_advice_fits_the_cause(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small = ["study", "fixed-point", "--neurons", "40", "--seeds", "2", "--steps", "3"]
    unstable = call(*small, "--gain", "1.5")
    assert "the initial networks are unstable" in unstable.stdout and "try a lower --gain" in unstable.stdout
    assert "--learning-rate" not in unstable.stdout
    abscissae = tauflow.load("runs/fixed-point-1/run.zarr").data["diverged_spectral_abscissa"].values
    assert f"a spectral abscissa of {abscissae.min():.3g} or more" in unstable.stdout
    fast = call(*small, "--gain", "0.5", "--learning-rate", "1e30")
    assert "try a lower --learning-rate" in fast.stdout and "unstable" not in fast.stdout


def test_resume_of_a_finished_study_prints_the_same_table(finished):
    result, folder = finished
    before = {name: content for name, content in files(folder).items() if name.parts[0] in ("run.zarr", "study.json")}
    again = call("study", "--resume", folder)
    assert again.exit_code == 0, again.output
    assert again.stdout == result.stdout
    assert call("study", "flip-flop", "--resume", folder).exit_code == 0
    after = files(folder)
    assert before == {name: after[name] for name in before}


BAD = [
    (["study"], "No task came; name one of flip-flop, mante, romo"),
    (["study", "flipflop"], "There is no task 'flipflop'; did you mean 'flip-flop'?"),
    (["study", "juggling"], "There is no task 'juggling'"),
    (["study", "flip-flop", "--gain", "-1"], "gain is -1.0; it must be a number >= 0, for example gain=0.9."),
    (["study", "flip-flop", "--gain", "nan"], "gain is nan; it must be a number >= 0"),
    (["study", "flip-flop", "--gain", "high"], "gain is 'high'; it must be a number >= 0"),
    (["study", "flip-flop", "--gain"], "'--gain' requires an argument"),
    (["study", "flip-flop", "--neurons", "0"], "neurons is 0; it must be a whole number >= 1"),
    (["study", "flip-flop", "--neurons", "2.5"], "neurons is 2.5; it must be a whole number >= 1"),
    (["study", "flip-flop", "--neurons", "many"], "neurons is 'many'; it must be a whole number >= 1"),
    (["study", "flip-flop", "--steps", "-5"], "steps is -5; it must be a whole number >= 1"),
    (["study", "flip-flop", "--seeds", "0"], "seeds is 0; it must be a whole number >= 1"),
    (["study", "flip-flop", "--seed", "-1"], "seed is -1; it must be a whole number from 0"),
    (["study", "flip-flop", "--dt", "0"], "dt is 0.0; it must be a number in (0, 1]"),
    (["study", "flip-flop", "--dt", "1.5"], "dt is 1.5; it must be a number in (0, 1]"),
    (["study", "flip-flop", "--noise", "-1"], "noise is -1.0; it must be a number >= 0"),
    (["study", "flip-flop", "--batch", "0"], "batch is 0; it must be a whole number >= 1"),
    (["study", "flip-flop", "--learning-rate", "0"], "learning_rate is 0.0; it must be a number > 0"),
    (["study", "flip-flop", "--phi", "tahn"], "There is no phi 'tahn'; did you mean 'tanh'?"),
    (["study", "flip-flop", "--optimizer", "lbfgs"], "optimizer is 'lbfgs'; it must be 'adam' or 'sgd'"),
    (["study", "fixed-point", "--target", "inf"], "target is inf; it must be a finite number"),
    (
        ["study", "flip-flop", "--duration", "3"],
        "duration came for a study of flip-flop, where networks learn by updates",
    ),
    (["study", "oscillator", "--batch", "3"], "batch came for a study of oscillator, where networks learn by gradient"),
    (["study", "leaky-integrator", "--points", "1"], "points is 1; it must be a whole number >= 2"),
    (["study", "leaky-integrator", "--gamma0", "0"], "gamma0 is 0.0; it must be a number > 0"),
    (
        ["study", "leaky-integrator", "--set", "c"],
        "'c' came with --set; it must be NAME=VALUE, for example --set c=0.1.",
    ),
    (["study", "leaky-integrator", "--set", "c=-1"], "c is -1; it must be a number > 0"),
    (["study", "leaky-integrator", "--set", "c=1", "--set", "c=2"], "--set names c twice"),
    (["study", "leaky-integrator", "--set", "rate=1"], "There is no setting 'rate' of leaky-integrator; "),
    (["study", "leaky-integrator", "--set", "dt=1"], "--set has dt, which has an option of its own; give it as --dt."),
    (["study", "--resume", "nowhere", "--set", "c=1"], "--set came with --resume"),
    (["study", "flip-flop", "--gian", "1"], "No such option: --gian"),
    (["study", "flip-flop", "mante"], "unexpected extra argument"),
    (["studdy"], "No such command 'studdy'"),
    (["study", "--resume", "nowhere"], "nowhere holds no study.json"),
    (["study", "--resume", "nowhere", "--gain", "0.5"], "--gain came with --resume"),
    (["reproduce"], "Missing argument"),
    (["reproduce", "schuessler2021"], "There is no paper 'schuessler2021'; did you mean 'schuessler2020'?"),
    (["reproduce", "schuessler2020", "fig99"], "There is no figure 'fig99' of schuessler2020"),
    (["reproduce", "schuessler2020", "fig1", "--seed", "x"], "seed is 'x'; it must be a whole number"),
]


def assert_one_sentence(result, words, code=2):
    assert result.exit_code == code, result.output
    assert words in result.stderr, result.stderr
    assert result.stderr.count("\n") == 1 and result.stderr.rstrip().endswith((".", "flip-flop"))
    assert "Traceback" not in result.output and result.stdout == ""


@pytest.mark.parametrize("arguments, words", BAD, ids=lambda value: " ".join(value) if isinstance(value, list) else "")
def test_a_mistake_is_one_sentence_and_leaves_nothing(arguments, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert_one_sentence(call(*arguments), words)
    assert not list(tmp_path.iterdir())


def test_an_existing_folder_is_left_alone(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    for arguments in (["study", "fixed-point"], ["reproduce", "schuessler2020", "fig1", "--quick"]):
        assert_one_sentence(call(*arguments, "--out", tmp_path / "mine"), "mine exists; choose another folder (--out)")
    assert files(tmp_path / "mine") == {next(iter(files(tmp_path / "mine"))): b"years of work"}


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("mine")
    for place in (tmp_path / "file" / "study", "/proc/tauflow/study"):
        assert_one_sentence(call("study", "fixed-point", "--out", place), "cannot be made")
    assert files(tmp_path) == {next(iter(files(tmp_path))): b"mine"}


@pytest.mark.parametrize(
    "damage, words",
    [
        (lambda folder: (folder / "state.npz").write_bytes(b"PK nonsense"), "state.npz is damaged"),
        (
            lambda folder: np.savez(folder / "state.npz", mine=np.ones(3)),
            "state.npz is damaged or was not written by tauflow",
        ),
        (lambda folder: (folder / "study.json").write_text("{"), "study.json cannot be used"),
        (lambda folder: (folder / "study.json").unlink(), "holds no study.json"),
        (lambda folder: (folder / "run.zarr").mkdir(), "run.zarr"),
    ],
    ids=["corrupted", "foreign", "configuration", "missing", "run"],
)
def test_a_damaged_study_is_refused_and_kept(damage, words, finished, tmp_path):
    _, source = finished
    folder = tmp_path / "study"
    folder.mkdir()
    (folder / "study.json").write_text((source / "study.json").read_text())
    damage(folder)
    before = files(folder)
    assert_one_sentence(call("study", "--resume", folder), words)
    assert files(folder) == before


def test_help_version_and_list():
    for arguments in ((), ("--help",), ("study", "--help"), ("reproduce", "-h")):
        result = call(*arguments)
        assert result.exit_code == 0 and "Usage: " in result.stdout
    assert call("--version").stdout == f"tauflow {tauflow.__version__}\n"
    text = call("list").stdout
    for name in ("schuessler2020", "fig1", "flip-flop", "mante", "romo", "fixed-point", "cosine", "RateRNN"):
        assert re.search(rf"^ +{name} ", text, re.MULTILINE), name
    assert "FixedPointTheory" in text


def test_the_command_starts_without_loading_jax():
    code = "import sys, tauflow, tauflow.cli; sys.exit(any(m in sys.modules for m in ('jax', 'xarray', 'matplotlib')))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_process_gives_jax_every_core_it_may_use(tmp_path):
    code = "import tauflow.cli, tauflow.__main__ as m; tauflow.cli.app = lambda **_: None; m.main()"
    code += "; import jax; print(len(jax.devices('cpu')), m.usable_cores())"
    environment = {name: value for name, value in os.environ.items() if name != "JAX_NUM_CPU_DEVICES"}
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    devices, cores = child.stdout.split()
    assert devices == cores and int(cores) >= 1, child.stderr


def test_a_mistake_in_a_process_of_its_own(tmp_path):
    child = command("study", "flip-flop", "--gain", "-2", cwd=tmp_path)
    assert child.returncode == 2 and child.stdout == ""
    assert child.stderr == "gain is -2.0; it must be a number >= 0, for example gain=0.9.\n"
    assert not list(tmp_path.iterdir())


def test_ctrl_c_says_how_to_go_on(tmp_path):
    arguments = ["study", "fixed-point", "--neurons", "16", "--seeds", "1", "--steps", "2000000", "--out", "mine"]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background has it ignored
    child = subprocess.Popen(
        [sys.executable, "-m", "tauflow", *arguments], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    try:
        signal.signal(signal.SIGINT, before)
        deadline = time.monotonic() + 90
        while not (tmp_path / "mine" / "state.npz").exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        child.send_signal(signal.SIGINT)
        _, errors = child.communicate(timeout=60)
    finally:
        child.kill()
    assert child.returncode == 130, errors
    assert "Interrupted; what was committed is in mine, go on with: tauflow study --resume mine" in errors
    assert "Traceback" not in errors and (tmp_path / "mine" / "state.npz").exists()


def progress(update, running=2):
    return Progress(update, 100, running, 2 - running, 0, 0.5, 40.0, 61.0)


def test_progress_is_a_plain_line_now_and_then_where_there_is_no_terminal(capsys):
    with ProgressLine(Console(stderr=True), plain_seconds=3600) as line:
        for update in (1, 2, 3):
            line(progress(update))
        line(progress(100, running=0))
        line("writing the page")
    assert capsys.readouterr().err.splitlines() == [
        "1/100 updates; 2 running, 0 done, 0 diverged; loss 0.5; 40 updates/s; 1:01 left",
        "100/100 updates; 0 running, 2 done, 0 diverged; loss 0.5; 40 updates/s",
        "writing the page ...",
    ]


@pytest.mark.parametrize("width", [60, 80, 120])
def test_progress_is_one_line_on_a_terminal(width, tmp_path):
    with open(tmp_path / "terminal", "w+") as stream:
        console = Console(file=stream, force_terminal=True, width=width, legacy_windows=False)
        with ProgressLine(console) as line:
            for update in (1, 50):
                line(progress(update))
            line("writing the page")
        stream.seek(0)
        text = stream.read()
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text).replace("\r", "\n")
    assert "50/100 updates  2 running, 0 done, 0 diverged" in plain and "writing the page ..." in plain
    assert {row.split()[-1] for row in plain.splitlines() if row.strip() and "/100 updates" not in row} == {"..."}
    assert max(map(len, plain.splitlines())) <= width


def claim(name, holds):
    return SimpleNamespace(name=name, holds=np.bool_(holds), measured={"rank": np.float64(3.0), "at": "g = 0.9"},
                           sentence="The rank is low.")  # fmt: skip


@pytest.fixture
def one_paper(monkeypatch):
    """A paper of two figures, of which the claims of the second fail."""
    from tauflow import papers

    def figure(holds):
        def run(*, quick=False, seed=0, progress=None):
            figure, axes = plt.subplots()
            axes.plot([0, 1])
            progress("drawing")
            data = xr.Dataset({"rank": ("run", np.arange(2.0) + seed)})
            return SimpleNamespace(data=data, plot=figure, claims=(claim("low rank", holds), claim("quick", quick)))

        return run

    figures = {
        "fig1": SimpleNamespace(function=figure(True), description="Good."),
        "fig2": SimpleNamespace(function=figure(False), description="Bad."),
    }
    paper = SimpleNamespace(title="A paper", citation="Someone, 2020", figures=figures)
    monkeypatch.setattr(papers, "PAPERS", {"someone2020": paper})


def test_reproduce_keeps_picture_data_and_claims(one_paper, tmp_path):
    result = call("reproduce", "someone2020", "fig1", "--quick", "--seed", "7", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "low rank: The rank is low. [rank: 3; at: g = 0.9]" in result.stdout and "holds" in result.stdout
    folder = tmp_path / "out" / "fig1"
    assert sorted(path.name for path in folder.iterdir()) == ["claims.json", "data.zarr", "figure.png"]
    claims = json.loads((folder / "claims.json").read_text())
    assert claims[0]["holds"] is True and claims[0]["measured"] == {"rank": 3.0, "at": "g = 0.9"}
    assert tauflow.run.read_store(folder / "data.zarr")["rank"].values.tolist() == [7.0, 8.0]


def test_a_claim_that_fails_is_exit_code_1(one_paper, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = call("reproduce", "someone2020", "--quick")
    assert result.exit_code == 1 and "FAILS" in result.stdout and "fig1: Good." in result.stdout
    folder = tmp_path / "reproductions" / "someone2020-1"
    assert sorted(path.name for path in folder.iterdir()) == ["fig1", "fig2"]
    assert call("reproduce", "someone2020", "fig1", "--quick").exit_code == 0
    assert (tmp_path / "reproductions" / "someone2020-2" / "fig1" / "figure.png").exists()
