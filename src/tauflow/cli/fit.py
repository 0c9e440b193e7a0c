"""The command `tauflow fit`: options, the one call of the library, and what comes back as a table."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tauflow.cli.errors import INTERRUPTED, fail
from tauflow.cli.options import number, real, refuse_with_resume, settings, several, whole

if TYPE_CHECKING:
    from tauflow.study import RecordingStudy

_LOADING = ("align", "window", "bin", "condition", "epoch", "good")
_PREPROCESSING = ("min_rate", "smooth", "baseline", "scale", "crop")
#: What --set does not take, because it has an option of its own.
_OWN = {
    "bin_s": "bin",
    "time_constant_s": "time-constant",
    **{
        name: name.replace("_", "-")
        for name in (*_LOADING, *_PREPROCESSING, "loss", "inputs", "by_epoch", "steps", "learning_rate", "units",
                     "seeds", "masks", "hide", "seed", "rank", "ranks", "out", "resume")
    },
}  # fmt: skip


def _window(help: str) -> Any:
    return typer.Option(help=help, parser=real, metavar="A B")


def _column(help: str) -> Any:
    return typer.Option(help=help, metavar="COLUMN")


_RANKS = "Ranks to cross-validate: 1-6, 1,2,4 or none.  [default: 1 to one more than the rank; without one 1-6]"
_HIDE = (
    "Bins and trials of a block that is hidden from a fit; its middle is tested.  [default: 10 20, more with --smooth]"
)
_SCALE = "Divide each neuron by its deviation from A to B, in seconds."


def fit(
    file: Annotated[
        Path | None, typer.Argument(help="The recording: NWB, NetCDF, Zarr or .npz.", show_default=False)
    ] = None,
    rank: Annotated[Any, number("Number of components.  [default: chosen by cross-validation]", integer=True)] = None,
    ranks: Annotated[Any, typer.Option(help=_RANKS, parser=several, metavar="LIST")] = None,
    align: Annotated[str | None, _column("NWB: trials column with the time of the event, in seconds.")] = None,
    window: Annotated[tuple[Any, Any] | None, _window("From A to B in seconds from the event, as -0.2 1.0.")] = None,
    bin: Annotated[Any, number("Width of a bin in seconds.")] = None,
    condition: Annotated[str | None, _column("Condition of each trial.  [default: condition, if there is one]")] = None,
    epoch: Annotated[str | None, _column("Epoch of learning of each trial.  [default: epoch, if there is one]")] = None,
    good: Annotated[str | None, _column("False for trials to leave out.  [default: none is left out]")] = None,
    min_rate: Annotated[Any, number("Leave out neurons under this mean rate, in Hz.")] = None,
    smooth: Annotated[Any, number("Smooth over time; standard deviation in seconds.")] = None,
    baseline: Annotated[tuple[Any, Any] | None, _window("Subtract each neuron's mean from A to B.")] = None,
    scale: Annotated[tuple[Any, Any] | None, _window(_SCALE)] = None,
    crop: Annotated[tuple[Any, Any] | None, _window("After all that, fit only what is from A to B.")] = None,
    loss: Annotated[
        str | None, typer.Option(help="mse for rates, poisson for counts of spikes.  [default: mse]")
    ] = None,
    inputs: Annotated[
        str | None, typer.Option(help="Input to the network before the event: none, free or ode.  [default: none]")
    ] = None,
    by_epoch: Annotated[bool, typer.Option("--by-epoch", help="Let learning jump where an epoch begins.")] = False,
    time_constant: Annotated[
        Any, number("Time constant of a unit in seconds; one bin is one step of it.  [default: 0.1]")
    ] = None,
    units: Annotated[Any, number("Number of units of the network.  [default: 200]", integer=True)] = None,
    steps: Annotated[Any, number("Updates at most.  [default: 1500]", integer=True)] = None,
    learning_rate: Annotated[
        Any, number("Rate of Adam, but for the decoder (--set matrix_rate).  [default: 0.1]")
    ] = None,
    seeds: Annotated[Any, number("Starts to try, on every mask and for the fit.  [default: 4]", integer=True)] = None,
    masks: Annotated[Any, number("Masks in cross-validation.  [default: 4]", integer=True)] = None,
    hide: Annotated[tuple[Any, Any] | None, typer.Option(help=_HIDE, parser=whole, metavar="BINS TRIALS")] = None,
    seed: Annotated[Any, number("From which all randomness comes.  [default: 0]", integer=True)] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="Any other option of a fit, as --set length=30; repeatable.", metavar="NAME=VALUE"),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="A folder that does not exist yet.  [default: runs/FILE-N]", show_default=False)
    ] = None,
    resume: Annotated[Path | None, typer.Option(help="Go on with the fit in this folder.", metavar="DIR")] = None,
) -> None:
    """Fit a recording over learning, cross-validate, and write the page: what changed in the connectivity.

    Example: tauflow fit session.nwb --align go_cue_time --window -0.1 1.0 --bin 0.01 --condition target --rank 3
    """
    given = {
        "file": file, "rank": rank, "ranks": ranks, "align": align, "window": window, "bin": bin,
        "condition": condition, "epoch": epoch, "good": good, "min_rate": min_rate, "smooth": smooth,
        "baseline": baseline, "scale": scale, "crop": crop, "loss": loss, "inputs": inputs,
        "by_epoch": by_epoch or None, "time_constant": time_constant, "units": units, "steps": steps,
        "learning_rate": learning_rate, "seeds": seeds, "masks": masks, "hide": hide, "seed": seed,
        "set": set_ or None, "out": out,
    }  # fmt: skip
    given = {name: value for name, value in given.items() if value is not None}
    if resume is None and file is None:
        raise ValueError("No file came; name a recording, such as session.nwb; `tauflow fit --help` has an example.")
    if resume is not None:
        if file is not None:
            raise ValueError("A file came with --resume; a fit goes on with its own recording, so leave the file out.")
        refuse_with_resume(given, "fit")
    _fit(_arguments(given), resume)


def _arguments(given: dict[str, Any]) -> dict[str, Any]:
    """Arguments of `study_recording` from the options that came."""
    from tauflow.names import check_name
    from tauflow.neural.training import Options

    loading = {name: given.pop(name) for name in _LOADING if name in given}
    if "bin" in loading:
        loading["bin_s"] = loading.pop("bin")
    preprocessing = {name: given.pop(name) for name in _PREPROCESSING if name in given}
    if "time_constant" in given:
        given["time_constant_s"] = given.pop("time_constant")
    others, known = settings(given.pop("set", []), _OWN), [field.name for field in dataclasses.fields(Options)]
    for name in others:
        check_name("option", name, known, of="a fit")
    return {**given, **others, "loading": loading, "preprocessing": preprocessing}


def _fit(given: dict[str, Any], resume: Path | None) -> None:
    from rich.console import Console

    from tauflow.cli.progress import ProgressLine
    from tauflow.study import StudyInterrupted, resume_recording_study, study_recording

    try:
        with ProgressLine(Console(stderr=True)) as progress:
            if resume is not None:
                done = resume_recording_study(resume, progress=progress)
            else:
                done = study_recording(given.pop("file"), **given, progress=progress)
    except StudyInterrupted as stopped:
        folder = stopped.folder
        sentence = f"Interrupted; what was committed is in {folder}, go on with: tauflow fit --resume {folder}"
        raise typer.Exit(fail(sentence, INTERRUPTED)) from None
    _show(done, Console())


def _show(study: RecordingStudy, console: Any) -> None:
    """The tables of a study of a recording, what a reader should also know, and where the page is."""
    from tauflow.cli.show import fit_sentences, fit_tables

    for table in fit_tables(study):
        console.print(table)
    for sentence in fit_sentences(study):
        console.print(sentence, soft_wrap=True, highlight=False, markup=False)
    console.print(f"Report: {study.page}", soft_wrap=True, highlight=False, markup=False)
