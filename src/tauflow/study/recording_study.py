"""The study of a recording: cross-validate, fit, say what changed over trials, write the page."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xarray as xr

from tauflow.neural.cross_validation import choose_rank, cross_validate
from tauflow.neural.fit import Fit, fit_low_tensor_rank
from tauflow.neural.masks import LeakWarning
from tauflow.run import RunError, read_store, replace_store, write_atomic_bytes, write_atomic_store
from tauflow.run.files import as_path
from tauflow.study.folders import first_free, make_new
from tauflow.study.recording_configuration import RecordingConfiguration, load
from tauflow.study.study import REPORT_FILE, RUNS, Listener, StudyInterrupted

RECORDING_STORE = "recording.zarr"


@dataclass(frozen=True)
class RecordingStudy:
    """A finished study of a recording.

    Attributes:
        folder: Where everything is: `fit.json` (all settings), `recording.zarr`, `scores.zarr`, `fit.zarr`,
            `portrait.zarr`, `figures/` and the page.
        recording: What was fitted, after preprocessing.
        fit: The network, see `tauflow.neural.Fit`.
        scores: Cross-validation, as `cross_validate` gives it; None where no ranks were tried.
        portrait: All that the page shows, see `tauflow.neural.portrait`.
        page: The page, one HTML file that opens offline.
    """

    folder: Path
    recording: xr.Dataset
    fit: Fit
    scores: xr.Dataset | None
    portrait: xr.Dataset
    page: Path

    @property
    def rank(self) -> int:
        """Number of components of the fit."""
        return int(self.fit.configuration["rank"])

    @property
    def explained(self) -> float:
        """Share of the held-out variance that the fit explains."""
        return self.fit.score(self.recording)

    @property
    def ceiling(self) -> float:
        """The largest share that the noise of single trials allows; NaN where no condition is repeated."""
        return self.fit.ceiling(self.recording)

    @property
    def notes(self) -> list[str]:
        """Sentences that a reader of these numbers must know, see `tauflow.neural.portrait.notes_of`."""
        from tauflow.neural.portrait import notes_of

        return notes_of(self.fit, self.recording, self.scores)

    @property
    def chosen(self) -> int | None:
        """The rank that cross-validation chooses: the smallest within one standard error of the best."""
        return None if self.scores is None else int(choose_rank(self.scores)["chosen"].values[0])

    def table(self) -> list[dict[str, float]]:
        """Cross-validation in rows, one for each rank that was tried.

        Returns:
            Dicts with `rank`, `test_loss` and `standard_error` (over masks), and `explained_test`, the share of the
            held-out variance (for Poisson losses: deviance) that is explained; all over the masks that count, see
            `tauflow.neural.choose_rank`.
        """
        if self.scores is None:
            return []
        means = choose_rank(self.scores)
        explained = self.scores["explained_test"].where(means["counted"]).mean("mask")
        return [
            {
                "rank": int(rank),
                "test_loss": float(means["mean_test_loss"].sel(rank=rank).values[0]),
                "standard_error": float(means["standard_error"].sel(rank=rank).values[0]),
                "explained_test": float(explained.sel(rank=rank).values[0]),
            }
            for rank in sorted(self.scores["rank"].values.tolist())
        ]


def study_recording(
    path: str | Path,
    *,
    rank: int | None = None,
    ranks: Sequence[int] | None = None,
    units: int = 200,
    seeds: int = 4,
    masks: int = 4,
    hide: tuple[int, int] | None = None,
    out: str | Path | None = None,
    seed: int = 0,
    resume: bool = False,
    progress: Listener | None = None,
    loading: Mapping[str, Any] | None = None,
    preprocessing: Mapping[str, Any] | None = None,
    **options: Any,
) -> RecordingStudy:
    """Fit a low-tensor-rank network to a recording over learning, and write a folder with the page.

    Everything is committed on the way: what was killed goes on with `resume_recording_study`, and ends bit for bit
    where it would have ended.

    Args:
        path: The file: NWB, NetCDF, Zarr or .npz, see `tauflow.neural.load_recording`.
        rank: Number of components; by default the one that cross-validation chooses.
        ranks: Numbers of components to cross-validate; 1 to one more than the rank by default, 1 to 6 without a rank.
            With an empty list there is no cross-validation.
        units: Number of units of the network; more than neurons are allowed.
        seeds: Number of starts to try, on every mask of the cross-validation and for the fit itself.
        masks: Number of masks in cross-validation; standard errors of fewer than four are themselves uncertain.
        hide: Bins and trials of a block that is hidden from a fit, of which the middle half along both is tested; see
            `tauflow.neural.hidden_block` for the default.
        out: The folder, which must not exist yet; by default the first free `runs/<name of the file>-<n>`.
        seed: The number from which all randomness comes.
        resume: Go on with what is in `out`, if there is something.
        progress: Called with a text at every stage, and with a `Progress` now and then while networks are fitted.
        loading: Arguments of `tauflow.neural.load_recording`.
        preprocessing: Steps of `tauflow.study.recording_configuration.prepare` by name.
        **options: Fields of `tauflow.neural.training.Options`.

    Returns:
        The RecordingStudy.

    Raises:
        ValueError: If the file or a setting is not as it must be, the folder exists (nothing is written then), or
            `out` holds a fit with other settings; if all fits diverge.
        StudyInterrupted: At a keyboard interrupt.

    Example:
        >>> study_recording("session.nwb", rank=0)
        Traceback (most recent call last):
        ValueError: rank is 0; it must be a whole number >= 1, for example rank=5.
    """
    configuration = RecordingConfiguration.complete(
        as_path(path), rank=rank, ranks=ranks, units=units, seeds=seeds, masks=masks, hide=hide, seed=seed,
        loading=loading, preprocessing=preprocessing, options=options,
    )  # fmt: skip
    say = progress or (lambda _: None)
    if resume:
        if out is None:
            raise ValueError("resume=True came without out; name the folder, for example out='runs/session-1'.")
        if (as_path(out) / configuration.FILE).exists():
            _refuse_others(as_path(out), configuration)
            return _carry_out(configuration, as_path(out), progress)
    say(f"reading {as_path(path).name}")
    data = load(configuration)
    folder = first_free(RUNS, as_path(path).stem) if out is None else make_new(out)
    write_atomic_bytes(folder / configuration.FILE, configuration.to_json().encode())
    return _carry_out(configuration, folder, progress, data)


def resume_recording_study(folder: str | Path, *, progress: Listener | None = None) -> RecordingStudy:
    """Go on with the study of a recording where it was last committed; of one that is finished, redo the page.

    Args:
        folder: Its folder. The recording in it is used; the file that it was read from is not needed any more.
        progress: As for `study_recording`.

    Returns:
        The RecordingStudy, the same as if it had never been interrupted.

    Raises:
        ValueError: If there is no such study in the folder, or what is there is damaged.
        StudyInterrupted: At a keyboard interrupt.
    """
    folder = as_path(folder)
    return _carry_out(RecordingConfiguration.read(folder), folder, progress)


def _refuse_others(folder: Path, configuration: RecordingConfiguration) -> None:
    """Raise a `RunError` if the folder holds a fit with other settings."""
    held, asked = (_flat(each.model_dump()) for each in (RecordingConfiguration.read(folder), configuration))
    for name in {**held, **asked}:
        mine, theirs = held.get(name), asked.get(name)
        if mine != theirs:
            raise RunError(
                f"{folder} holds a fit with {name}={mine!r}, and {name}={theirs!r} came; choose another folder, or "
                f"go on with the settings in it: resume_recording_study({str(folder)!r})."
            )


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    groups = [value for value in settings.values() if isinstance(value, Mapping)]
    flat = {name: value for name, value in settings.items() if not isinstance(value, Mapping)}
    return {**flat, **{name: value for group in groups for name, value in group.items()}}


def _carry_out(
    configuration: RecordingConfiguration, folder: Path, progress: Listener | None, data: xr.Dataset | None = None
) -> RecordingStudy:
    """Cross-validate and fit, or go on, or find what is finished, and write everything into the folder."""
    say = progress or (lambda _: None)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", LeakWarning)  # the study tells of leaks itself, once: see `notes`
            data = _recording(configuration, folder, data)
            scores = _cross_validated(configuration, data, folder, progress)
            rank = configuration.rank
            if rank is None and scores is not None:
                rank = int(choose_rank(scores)["chosen"].values[0])
            say(f"fitting {rank} component{'s' * (rank != 1)}")
            fit = fit_low_tensor_rank(
                data,
                rank=int(rank),  # type: ignore[arg-type]
                units=configuration.units,
                masks=configuration.draw_masks(data)[1],
                starts=configuration.seeds,
                key=configuration.keys()[2],
                out=folder,
                resume=True,
                progress=progress,
                **configuration.options,
            )
            _refuse_diverged(fit, configuration)
            say("measuring what changed over trials")
            return _write(configuration, folder, data, fit, scores, say)
    except KeyboardInterrupt:
        raise StudyInterrupted(folder, "resume_recording_study") from None


def _recording(configuration: RecordingConfiguration, folder: Path, data: xr.Dataset | None) -> xr.Dataset:
    """The prepared recording: that of the folder, or the one that came or is read, which is then written there."""
    path = folder / RECORDING_STORE
    if path.exists():
        return read_store(path)
    data = load(configuration) if data is None else data
    write_atomic_store(data, path)
    return data


def _cross_validated(
    configuration: RecordingConfiguration, data: xr.Dataset, folder: Path, progress: Listener | None
) -> xr.Dataset | None:
    """Scores of every rank to try, which are written; None if there are none."""
    tried = configuration.ranks
    if not tried:
        return None
    masks, blocks = configuration.draw_masks(data)[0], []
    for rank in tried:  # one by one, so that each can be named
        if progress is not None:
            progress(f"cross-validating rank {rank} of {', '.join(map(str, tried))}")
        blocks.append(
            cross_validate(
                data,
                [rank],
                configuration.units,
                configuration.seeds,
                masks,
                key=configuration.keys()[1],
                out=folder / "cross-validation",
                resume=True,
                progress=progress,
                **configuration.options,
            )
        )
    scores: xr.Dataset = xr.combine_by_coords(blocks)  # type: ignore[assignment]
    replace_store(scores, folder / "scores.zarr")
    return scores


def _refuse_diverged(fit: Fit, configuration: RecordingConfiguration) -> None:
    if str(fit.data["status"].values[0]) == "diverged":
        rate = configuration.options["learning_rate"]
        raise ValueError(
            f"The fit diverged after {int(fit.data['stopped_at'].values[0])} updates; begin another with a smaller "
            f"learning_rate, for example learning_rate={rate / 3:.2g}."
        )


def _write(
    configuration: RecordingConfiguration, folder: Path, data: xr.Dataset, fit: Fit, scores: xr.Dataset | None, say: Any
) -> RecordingStudy:
    """Write portrait, figures and page, over older ones, each in one step."""
    from tauflow import plots  # Matplotlib and Plotly, only when there is something to draw
    from tauflow.neural.portrait import portrait

    shown = portrait(fit, data, scores)
    replace_store(shown, folder / "portrait.zarr")
    say("writing the page and the figures")
    plots.save_fit_figures(shown, folder / "figures")
    source = Path(configuration.path).name
    settings = {"file": source, **configuration.describe("path"), "hide": configuration.hidden(data)}
    page = plots.fit_page(folder / REPORT_FILE, portrait=shown, title=f"tauflow fit: {source}", configuration=settings)
    return RecordingStudy(folder, data, fit, scores, shown, page)
