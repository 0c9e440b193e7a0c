"""The main job: let networks learn a task, measure what learning did, ask the theories, write the page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from tauflow.learning import Progress, Record
from tauflow.run import Run, replace_store, write_atomic_bytes
from tauflow.run.files import as_path
from tauflow.study.configuration import StudyConfiguration
from tauflow.study.folders import first_free, make_new
from tauflow.study.measures import measure
from tauflow.theory import THEORIES
from tauflow.theory.base import Overlay, overlay

REPORT_FILE = "report.html"
RUNS = Path("runs")
Listener = Callable[[Progress | str], None]


class StudyInterrupted(KeyboardInterrupt):
    """A study that was interrupted from the keyboard.

    Attributes:
        folder: The folder from which `resume` goes on.
    """

    def __init__(self, folder: Path, resume: str = "resume_study"):
        super().__init__(f"interrupted; go on with {resume}({str(folder)!r})")
        self.folder = folder


@dataclass(frozen=True)
class Study:
    """A finished study.

    Attributes:
        run: The path of every network through learning.
        measures: What learning did, member by member, as `tauflow.study.measure` gives it.
        overlays: What every theory says about the run, or which of its assumptions fails.
        configuration: All settings.
        folder: Where `run.zarr`, `measures.zarr`, `report.html` and the figures are.
    """

    run: Run
    measures: xr.Dataset
    overlays: tuple[Overlay, ...]
    configuration: StudyConfiguration
    folder: Path

    @property
    def report(self) -> Path:
        """The page, one HTML file that opens offline."""
        return self.folder / REPORT_FILE

    def table(self) -> list[dict[str, Any]]:
        """The measures in rows, one per network; what a diverged network lacks is NaN or empty.

        Returns:
            Dicts with `seed`, `status`, `stopped_at`, `initial_loss`, `final_loss`, `updates_to_threshold` (of a flow:
            `tau_to_threshold`), `functional_rank_delta_W`, `functional_rank_W`, `delta_W_norm`, `shuffled_loss`, all
            numbers; `delta_W_singular_values` (the first three) and `outliers` (complex), tuples.
        """
        scalars = [str(name) for name, array in self.measures.data_vars.items() if array.dims == ("run",)]
        rows = []
        for member in range(self.run.n_runs):
            own = self.measures.isel(run=member)
            away = own["outliers"].values
            rows.append(
                {
                    "seed": int(self.run.data["seed"].values[member]),
                    "status": str(self.run.data["status"].values[member]),
                    "stopped_at": int(self.run.data["stopped_at"].values[member]),
                    **{name: float(own[name]) for name in scalars},
                    "delta_W_singular_values": tuple(own["final_delta_W_singular_values"].values[:3].tolist()),
                    "outliers": tuple(away[~np.isnan(away)].tolist()),
                }
            )
        return rows


def run_study(
    task: str = "flip-flop",
    *,
    settings: Mapping[str, Any] | None = None,
    neurons: int | None = None,
    gain: float | None = None,
    seeds: int | None = None,
    steps: int | None = None,
    seed: int = 0,
    phi: str | None = None,
    learning_rate: float | None = None,
    optimizer: str | None = None,
    batch: int | None = None,
    dt: float | None = None,
    noise: float | None = None,
    target: float | None = None,
    duration: float | None = None,
    points: int | None = None,
    gamma0: float | None = None,
    train: Sequence[str] | None = None,
    record: Record = Record(),
    out: str | Path | None = None,
    progress: Listener | None = None,
) -> Study:
    """Let networks learn a task, measure them, and write a folder with the page.

    What is None is taken from the task's recipe, the settings of the paper that the task comes from
    (`tauflow.study.RECIPES`), which also says how networks learn: rate networks in updates of an optimizer, or, where
    the task is a filter, continuous linear networks by gradient flow of the exact loss, with the mean-field rates.
    Everything is committed on the way: a study that was killed goes on with `resume_study`.

    Args:
        task: Name of the task: "flip-flop", "mante", "romo", "fixed-point" or "cosine"; by gradient flow
            "leaky-integrator", "oscillator", "exponential-sum" or "sampled-filter".
        settings: Settings of the task by name, for example `{"c": 0.1}`; its `dt` and size are `dt` and `target`.
        neurons: Number of units N.
        gain: g, the radius of the disk that the eigenvalues of the initial W (W/√N in continuous networks) fill.
        seeds: Number of networks.
        steps: Number of updates.
        seed: The number from which all randomness comes.
        phi: Nonlinearity of the network.
        learning_rate: Rate of the optimizer.
        optimizer: "adam" or "sgd".
        batch: Trials per update.
        dt: Time step in membrane times.
        noise: Standard deviation of the noise on the state per square root of time.
        target: Size of the task's target.
        duration: Learning time τ of a gradient flow.
        points: Number of learning times at which a flow is recorded.
        gamma0: Richness γ₀ of a continuous network; small is lazy.
        train: Fields of the network that learning moves, of "W", "W_in" and "W_out".
        record: What to keep of the path; without probes.
        out: The folder, which must not exist yet; by default the first free `runs/<task>-<n>`.
        progress: Called with a `Progress` now and then while networks learn, and with a text at every later stage.

    Returns:
        The Study. Networks that diverge are labelled; the others go on untouched.

    Raises:
        ValueError: If a setting is out of range, or the folder exists or cannot be written. Nothing is written then.
        StudyInterrupted: At a keyboard interrupt.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     study = run_study("fixed-point", neurons=20, seeds=1, steps=2, out=f"{folder}/first")
        >>> study.run.data.loss.shape, study.report.name
        ((1, 2), 'report.html')
    """
    configuration = StudyConfiguration.complete(
        task, settings=settings, neurons=neurons, gain=gain, seeds=seeds, steps=steps, seed=seed, phi=phi,
        learning_rate=learning_rate, optimizer=optimizer, batch=batch, dt=dt, noise=noise, target=target,
        duration=duration, points=points, gamma0=gamma0, train=train, record=record,
    )  # fmt: skip
    folder = first_free(RUNS, configuration.task) if out is None else make_new(out)
    write_atomic_bytes(folder / StudyConfiguration.FILE, configuration.to_json().encode())
    return _carry_out(configuration, folder, progress)


def resume_study(folder: str | Path, *, task: str | None = None, progress: Listener | None = None) -> Study:
    """Go on with a study where it was last committed; of one that is finished, redo measures and page.

    Args:
        folder: The folder of the study.
        task: Name of the task that the study must have; None for any.
        progress: As for `run_study`.

    Returns:
        The Study, the same as if it had never been interrupted.

    Raises:
        ValueError: If there is no study in the folder or one of another task, or what is there is damaged.
        StudyInterrupted: At a keyboard interrupt.
    """
    folder = as_path(folder)
    configuration = StudyConfiguration.read(folder)
    if task not in (None, configuration.task):
        raise ValueError(f"{folder} holds a study of {configuration.task}, not of {task}; leave the task out.")
    return _carry_out(configuration, folder, progress)


def _carry_out(configuration: StudyConfiguration, folder: Path, progress: Listener | None) -> Study:
    """Let learn (or go on, or find the finished run), measure, overlay, and write everything into the folder."""
    say = progress or (lambda _: None)
    try:
        run = configuration.way.learn(configuration, folder, progress)
        say("measuring ranks, spectra and shuffled networks")
        study = analyse(run, configuration, folder)
        say("writing the page and the figures")
        write_study(study)
    except KeyboardInterrupt:
        raise StudyInterrupted(folder) from None
    return study


def analyse(run: Run, configuration: StudyConfiguration, folder: str | Path) -> Study:
    """Measure a trained ensemble and ask every theory about it; nothing is written.

    Args:
        run: The Run of the study.
        configuration: Its settings.
        folder: Its folder.
    """
    evaluation = configuration.way.evaluation(configuration)
    measures = measure(run, evaluation, gain=configuration.gain, seed=configuration.seed)
    overlays = tuple(overlay(theory, run) for theory in THEORIES)
    return Study(run, measures, overlays, configuration, Path(folder))


def write_study(study: Study) -> None:
    """Write measures, figures and page of a study into its folder, over older ones, each in one step."""
    from tauflow import plots  # Matplotlib and Plotly, only when there is something to draw
    from tauflow.plots.report import write_report

    replace_store(study.measures, study.folder / "measures.zarr")
    plots.save_figures(study.folder, run=study.run, measures=study.measures, overlays=study.overlays)
    write_report(
        study.report,
        run=study.run,
        measures=study.measures,
        overlays=study.overlays,
        title=f"tauflow study: {study.configuration.task}",
        configuration={k: v for k, v in study.run.configuration.items() if k not in ("start", "program")},
    )
