"""Results as tables and lines for the terminal."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from rich import box
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from tauflow.study import RecordingStudy, Study

MOST_COLUMNS = 6


def number(value: float, digits: int = 3) -> str:
    """A number to a few digits, and a dash for NaN.

    Example:
        >>> number(0.01234), number(float("nan")), number(float("inf")), number(12.0)
        ('0.0123', '-', 'inf', '12')
    """
    return "-" if math.isnan(value) else f"{value:.{digits}g}"


def _whole(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.0f}"


def outlier_list(values: Sequence[complex], most: int = 4) -> str:
    """Outliers in words, a line each; a pair of conjugates counts once, as a ± b i.

    Example:
        >>> print(outlier_list([1.5 + 0.2j, 1.5 - 0.2j, -1.1 + 0j]))
        1.5±0.2i
        -1.1
    """
    shown = [value for value in values if value.imag >= 0]
    words = [number(v.real) + (f"±{number(v.imag, 2)}i" if v.imag > 0 else "") for v in shown]
    return "\n".join(words[:most] + ([f"and {len(words) - most} more"] if len(words) > most else [])) or "none"


def _with_relative(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row with the loss after shuffling as a fraction of the initial loss."""
    initial = row["initial_loss"]
    return {**row, "shuffled_loss_relative": row["shuffled_loss"] / initial if initial else math.nan}


#: Lines of the table: the measure, its name with the matrix that multiplies the state as {}, and how to write it.
_LINES: tuple[tuple[str, str, Callable[[Any], str]], ...] = (
    ("initial_loss", "initial loss", number),
    ("final_loss", "final loss", number),
    ("updates_to_threshold", "updates to 5 % of initial loss", _whole),
    ("tau_to_threshold", "τ to 5 % of initial loss", number),
    ("functional_rank_delta_W", "functional rank of ΔW", _whole),
    ("functional_rank_W", "functional rank of W", _whole),
    ("delta_W_norm", "‖Δ{}‖", number),
    ("shuffled_loss_relative", "loss after shuffling W₀ / initial", number),
)


def study_table(study: Study) -> Table:
    """The measures of a study: a column per network, or median and range where there are many."""
    rows, settings = [_with_relative(row) for row in study.table()], study.configuration
    matrix = study.measures.attrs["matrix"]
    few = len(rows) <= MOST_COLUMNS
    title = f"{settings.task}, g = {settings.gain:g}, N = {settings.neurons}"
    table = Table(title=title, box=box.SIMPLE_HEAD, title_style="bold", pad_edge=False)
    table.add_column("", no_wrap=True)
    for heading in [f"seed {row['seed']}" for row in rows] if few else ["median", "least", "most"]:
        table.add_column(heading, justify="right", overflow="fold")

    def add(label: str, values: Sequence[float], write: Callable[[float], str] = number) -> None:
        table.add_row(label, *([write(value) for value in values] if few else _spread(values, write)))

    for name, label, write in _LINES:
        if all(name in row for row in rows):
            add(label.format(matrix), [float(row[name]) for row in rows], write)
    singular = [row["delta_W_singular_values"] for row in rows]
    for i in range(max(len(values) for values in singular)):
        heading = f"singular values of Δ{matrix} "
        label = f"{heading if i == 0 else ' ' * len(heading)}{i + 1}"
        add(label, [values[i] if i < len(values) else math.nan for values in singular])
    ended = [not math.isnan(row["delta_W_norm"]) for row in rows]  # the others have no final weights
    if few:
        told = [outlier_list(row["outliers"]) if final else "-" for row, final in zip(rows, ended, strict=True)]
        table.add_row(f"eigenvalue outliers of {matrix}", *told)
    else:
        counts = [len(row["outliers"]) if final else math.nan for row, final in zip(rows, ended, strict=True)]
        add(f"eigenvalue outliers of {matrix}", counts, _whole)
    if any(row["status"] != "done" for row in rows):
        told = [row["status"] + (f" at {row['stopped_at']}" if row["stopped_at"] >= 0 else "") for row in rows]
        short = [f"{sum(row['status'] != 'done' for row in rows)} of {len(rows)} not done", "", ""]
        table.add_row("status", *(told if few else short))
    return table


def _spread(values: Sequence[float], write: Callable[[float], str]) -> list[str]:
    known = [value for value in values if not math.isnan(value)]
    return [write(float(f(known))) if known else "-" for f in (np.median, min, max)]


def study_sentences(study: Study) -> list[str]:
    """What a reader of the table should also know: divergence, theories that apply and that do not."""
    statuses = [str(status) for status in study.run.data["status"].values]
    sentences = []
    diverged = statuses.count("diverged")
    if diverged == len(statuses):
        sentences.append(f"All networks diverged, so there are no final weights to measure; {_advice(study)}")
    elif diverged:
        sentences.append(f"{diverged} of {len(statuses)} networks diverged and have no final weights to measure.")
    for overlay in study.overlays:
        failing = [assumption for assumption in overlay.assumptions if not assumption.holds]
        if failing:
            more = f" {len(failing) - 1} more of its assumptions fail; the page has them all." if failing[1:] else ""
            sentences.append(f"{overlay.theory_name} is not overlaid: {failing[0].sentence}{more}")
        else:
            sentences.append(f"{overlay.theory_name} applies and is overlaid.")
    return sentences


def _advice(study: Study) -> str:
    """What to try when every network diverged."""
    data, matrix = study.run.data, study.measures.attrs["matrix"]
    if (data["stopped_at"].values == 0).all() and "diverged_spectral_abscissa" in data:
        lowest = float(data["diverged_spectral_abscissa"].values.min())
        if lowest >= 1:
            return (
                f"the initial networks are unstable ({matrix} has a spectral abscissa of {number(lowest)} or more, and "
                "they are stable below 1), so try a lower --gain."
            )
    if data.attrs["kind"] == "flow":
        return "the flow ran into unstable networks, so try a lower --gain or a shorter --duration."
    return "try a lower --learning-rate."


def fit_tables(study: RecordingStudy) -> list[Table]:
    """How good the fit of a recording is, and the losses of all ranks that were tried."""
    sizes, source = study.recording.sizes, study.recording.attrs["source"]
    shape = f"{sizes['trial']} trials, {sizes['neuron']} neurons, {sizes['time']} bins"
    measure = "deviance" if study.fit.options.loss == "poisson" else "variance"
    own = Table(title=f"{source}: {shape}", box=box.SIMPLE_HEAD, title_style="bold", pad_edge=False)
    for heading in ("rank", "held-out variance explained", "ceiling", "share of the ceiling"):
        own.add_column(heading, justify="right")
    explained, ceiling = study.explained, study.ceiling
    share = explained / ceiling if ceiling > 0 else math.nan
    percent = "-" if math.isnan(share) else f"{100 * share:.0f} %"
    own.add_row(str(study.rank), number(explained), number(ceiling), percent)
    rows, chosen = study.table(), study.chosen
    if not rows:
        return [own]
    title = "Cross-validation: means over masks"
    tried = Table(title=title, box=box.SIMPLE_HEAD, title_style="bold", pad_edge=False)
    for heading in ("rank", "held-out loss", "standard error", f"held-out {measure} explained", ""):
        tried.add_column(heading, justify="right")
    for row in rows:
        values = [number(row[name], 4) for name in ("test_loss", "standard_error", "explained_test")]
        tried.add_row(str(row["rank"]), *values, "chosen" if row["rank"] == chosen else "")
    return [own, tried]


def fit_sentences(study: RecordingStudy) -> list[str]:
    """What a reader of the tables of a fit should also know."""
    sentences, chosen = [], study.chosen
    if chosen is not None and chosen != study.rank:
        sentences.append(
            f"Cross-validation chooses rank {chosen}, the smallest within one standard error of the best; the fit has "
            f"{study.rank}."
        )
    if chosen is not None and study.scores is not None and 1 < chosen == int(study.scores["rank"].max()):
        sentences.append("The rank chosen is the largest that was tried; try larger ones (--ranks).")
    return sentences + study.notes


def claim_line(name: str, holds: bool, measured: Mapping[str, Any], sentence: str) -> Text:
    """One claim of a figure with the numbers that were measured."""
    numbers = "; ".join(f"{key}: {number(v, 4) if isinstance(v, float) else v}" for key, v in measured.items())
    mark = Text("holds  ", style="green") if holds else Text("FAILS  ", style="bold red")
    return Text.assemble("  ", mark, (name, "bold"), f": {sentence}{f' [{numbers}]' if numbers else ''}")
