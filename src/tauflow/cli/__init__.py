"""The command line. No science in it: it reads options, calls the library, and shows what comes back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from tauflow import __version__
from tauflow.cli.errors import INTERRUPTED, PlainGroup, fail
from tauflow.cli.fit import fit
from tauflow.cli.options import number, refuse_with_resume, settings

app = typer.Typer(
    cls=PlainGroup,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Watch recurrent networks learn: the path of their weights, what it is made of, what theory predicts for it.",
)


_DURATION = "Learning time τ of a gradient flow (a trial's length is --set duration=...).  [default: the task's]"


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True)] = False,
) -> None:
    """Choose a command."""
    if version:
        typer.echo(f"tauflow {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command()
def study(
    task: Annotated[str | None, typer.Argument(help="The task; `tauflow list` names all.", show_default=False)] = None,
    gain: Annotated[Any, number("g, the radius of the disk of W's first eigenvalues.  [default: the task's]")] = None,
    neurons: Annotated[Any, number("Number of units.  [default: the task's]", integer=True)] = None,
    seeds: Annotated[Any, number("Number of networks.  [default: the task's]", integer=True)] = None,
    steps: Annotated[Any, number("Number of updates.  [default: the task's]", integer=True)] = None,
    seed: Annotated[Any, number("From which all randomness comes.  [default: 0]", integer=True)] = None,
    phi: Annotated[str | None, typer.Option(help="Nonlinearity.  [default: the task's]")] = None,
    learning_rate: Annotated[Any, number("Rate of the optimizer.  [default: the task's]")] = None,
    optimizer: Annotated[str | None, typer.Option(help="adam or sgd.  [default: the task's]")] = None,
    batch: Annotated[Any, number("Trials per update.  [default: the task's]", integer=True)] = None,
    dt: Annotated[Any, number("Time step in membrane times.  [default: the task's]")] = None,
    noise: Annotated[Any, number("Noise on the state.  [default: 0]")] = None,
    target: Annotated[Any, number("Size of the task's target.  [default: the task's]")] = None,
    duration: Annotated[Any, number(_DURATION)] = None,
    points: Annotated[Any, number("Points at which a flow is recorded.  [default: the task's]", integer=True)] = None,
    gamma0: Annotated[Any, number("Richness of continuous networks; small is lazy.  [default: 1]")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="A setting of the task, for example --set c=0.1; repeatable.", metavar="NAME=VALUE"),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="A folder that does not exist yet.  [default: runs/TASK-N]", show_default=False)
    ] = None,
    resume: Annotated[Path | None, typer.Option(help="Go on with the study in this folder.", metavar="DIR")] = None,
) -> None:
    """Let networks learn a task, measure what learning did, and write the page.

    Example: tauflow study flip-flop --gain 0.9 --seeds 4
    """
    options = {
        "neurons": neurons, "gain": gain, "seeds": seeds, "steps": steps, "seed": seed, "phi": phi,
        "learning_rate": learning_rate, "optimizer": optimizer, "batch": batch, "dt": dt, "noise": noise,
        "target": target, "duration": duration, "points": points, "gamma0": gamma0, "set": set_ or None, "out": out,
    }  # fmt: skip
    given = {name: value for name, value in options.items() if value is not None}
    if resume is not None:
        refuse_with_resume(given, "study")
    if resume is None and task is None:
        from tauflow.tasks import TASKS

        raise ValueError(f"No task came; name one of {', '.join(TASKS)}, for example: tauflow study flip-flop")
    if "set" in given:
        from tauflow.study.configuration import OF_THE_TASK

        given["settings"] = settings(given.pop("set"), OF_THE_TASK)
    _study(task, given, resume)


def _study(task: str | None, given: dict[str, Any], resume: Path | None) -> None:
    from rich.console import Console

    from tauflow.cli.progress import ProgressLine
    from tauflow.cli.show import study_sentences, study_table
    from tauflow.study import StudyInterrupted, resume_study, run_study

    try:
        with ProgressLine(Console(stderr=True)) as progress:
            if resume is not None:
                done = resume_study(resume, task=task, progress=progress)
            else:
                done = run_study(str(task), **given, progress=progress)
    except StudyInterrupted as stopped:
        folder = stopped.folder
        sentence = f"Interrupted; what was committed is in {folder}, go on with: tauflow study --resume {folder}"
        raise typer.Exit(fail(sentence, INTERRUPTED)) from None
    console = Console()
    console.print(study_table(done))
    for sentence in study_sentences(done):
        console.print(sentence, soft_wrap=True, highlight=False, markup=False)
    console.print(f"Report: {done.report}", soft_wrap=True, highlight=False, markup=False)


app.command()(fit)


@app.command()
def reproduce(
    paper: Annotated[str, typer.Argument(help="Short name of the paper; `tauflow list` names all.")],
    figures: Annotated[list[str] | None, typer.Argument(metavar="[FIGURE]...", help="Figures; all by default.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Smaller versions that still show every claim.")] = False,
    seed: Annotated[Any, number("From which all randomness comes.  [default: 0]", integer=True)] = None,
    out: Annotated[
        Path | None, typer.Option(help="A folder that does not exist yet.  [default: reproductions/PAPER-N]")
    ] = None,
) -> None:
    """Redo figures of a paper, and test what the paper claims of them; exit code 1 if a claim fails.

    Example: tauflow reproduce schuessler2020 fig1 --quick
    """
    from tauflow.cli.reproduce import reproduce_figures

    if not reproduce_figures(paper, figures or [], quick=quick, seed=0 if seed is None else seed, out=out):
        raise typer.Exit(1)


@app.command("list")
def list_() -> None:
    """List papers with their figures, tasks, networks and theories."""
    from tauflow.cli.listing import lines

    for line in lines():
        typer.echo(line)
