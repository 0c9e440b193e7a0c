"""The page of a study: one HTML file that opens offline, with everything in it and nothing loaded."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from tauflow.plots import reading, report_data, report_tables
from tauflow.plots.page import Section, figure, fill_page, plot, slider, tiles
from tauflow.plots.reading import fixed, number
from tauflow.run import write_atomic_bytes


def write_report(
    path: str | os.PathLike[str],
    *,
    run: Any,
    measures: xr.Dataset | None = None,
    overlays: Sequence[Any] = (),
    title: str = "tauflow study",
    configuration: Mapping[str, Any] | None = None,
) -> Path:
    """Write the page of a study, in one step, over an older one if there is one.

    It holds the loss with the seeds' spread; singular values of ΔW and eigenvalues of W with one slider over learning;
    what was probed; loss against truncation rank; sample trials, or the filters that were learned; the measures; every
    theory, drawn where it applies and with the assumptions that fail where not; settings, seeds, versions. What the
    run or the measures lack is left out.

    Args:
        path: The file, usually report.html. Missing folders above it are made.
        run: A Run, or its dataset.
        measures: The study's measures along `run`, see `tauflow.study`; none by default.
        overlays: What theories say, see `tauflow.theory.base.Overlay`.
        title: Heading of the page.
        configuration: Settings to show; the run's own by default.

    Returns:
        The path.

    Raises:
        ValueError: If the file cannot be written.
    """
    page = render(run, xr.Dataset() if measures is None else measures, overlays, title, configuration)
    return write_atomic_bytes(Path(path), page.encode("utf-8"))


def render(
    run: Any,
    measures: xr.Dataset,
    overlays: Sequence[Any],
    title: str,
    configuration: Mapping[str, Any] | None,
) -> str:
    """The page as text; see `write_report`."""
    data = reading.dataset(run)
    settings = reading.settings(data) if configuration is None else configuration
    members = reading.members(run, settings)
    content = report_data.payload(run, measures, overlays, members)
    options = "".join(f'<option value="{i}">{escape(m.name)}</option>' for i, m in enumerate(members))
    return fill_page(
        _sections(content, data, measures, overlays, members, settings),
        content,
        "app.js",
        title=title,
        lead=_lead(data, members),
        notice=_notice(members),
        tiles=_tiles(measures, data),
        chooser=f'<label class="choose" for="member">Network shown\n<select id="member">{options}</select></label>',
    )


def _sections(
    content: Mapping[str, Any],
    data: xr.Dataset,
    measures: xr.Dataset,
    overlays: Sequence[Any],
    members: Sequence[reading.Member],
    settings: Mapping[str, Any],
) -> list[Section]:
    sections: list[Section] = []
    if content["loss"]:
        heading = "Loss over learning"
        sections.append(Section("loss", "Loss", heading, _loss_text(content), plot("loss", heading)))
    if content["spectra"]:
        sections.append(_spectra_section(content["spectra"], content["matrix"]))
    if content["probes"]:
        sections.append(_probes_section(content["probes"]["panels"]))
    if content["truncation"]:
        text = (
            "<p>Here the trained weights are cut down to their strongest singular directions, and the task is tried "
            "again. Where a curve comes down to the dotted line, that many directions are enough: few for ΔW means "
            "that learning was low-dimensional, even though W itself needs many. Thick: the median; thin: single "
            "networks; dotted: the one shown.</p>"
        )
        drawn = plot("truncation", "Loss against the rank kept, for the weight change and for all weights", "low")
        sections.append(Section("rank", "Rank", "How many directions the solution needs", text, drawn))
    if content["trials"]:
        text = (
            "<p>One trial after learning. Inputs are above; below them the network’s output runs against the dashed "
            "target. Only the shaded times count in the loss.</p>"
        )
        sections.append(
            Section("trials", "Trial", "A sample trial", text, plot("trials", "Inputs, targets and outputs"))
        )
    if content["filter"]:
        text = (
            "<p>The answer of the network to one impulse, before and after learning. Its loss is the squared distance "
            "of this filter from the dashed target.</p>"
        )
        drawn = plot("filter", "Impulse response before and after learning, and the target", "low")
        sections.append(Section("filter", "Filter", "What the network learned", text, drawn))
    if measures.data_vars:
        text = (
            "<p>One column for each network; a dash means that there is nothing to measure. "
            "The median leaves out networks that diverged.</p>"
        )
        table = report_tables.measures_table(measures, data, members)
        sections.append(Section("measures", "Measures", "What was measured", text, table))
    sections.append(_theory_section(overlays))
    made = report_tables.provenance(data, settings)
    text = "<p>All that is needed to do this again: settings, seeds, machine and versions.</p>"
    sections.append(Section("made", "How it was made", "How it was made", text, made))
    return sections


def _loss_text(content: Mapping[str, Any]) -> str:
    several = len(content["members"]) > 1
    who = (
        "Each thin line is one network, the blue line their median, and the blue band holds the middle half of them. "
        if several
        else "The line is the loss of the one network trained. "
    )
    thinned = " Of many updates only an even selection is drawn." if content["loss"]["thinned"] else ""
    return f"<p>{who}The axis is logarithmic: a straight line is an exponential decay.{thinned}</p>"


def _probes_section(panels: Sequence[Mapping[str, Any]]) -> Section:
    text = (
        "<p>Quantities that this study follows besides the spectra. A pale line is one network; dashed is what a "
        "theory predicts.</p>"
    )
    figures = "".join(
        figure(f"probe-{i}", escape(panel["label"].capitalize()), "", size="low", wide=len(panels) == 1)
        for i, panel in enumerate(panels)
    )
    return Section("probes", "Probes", "What was probed over learning", text, f'<div class="pair">{figures}</div>')


def _spectra_section(spectra: Mapping[str, Any], matrix: str) -> Section:
    scaled = "" if matrix == "W" else f" Spectra are those of {matrix}, the matrix that multiplies the state."
    text = (
        f"<p>ΔW = W − W₀ is all that learning did to the recurrent weights.{scaled} Move the slider through learning: "
        "a few singular values growing far above the others mean that a few directions carry the change; "
        "eigenvalues that leave the circle of random weights are the dynamics that learning built.</p>"
    )
    singular, count = spectra["singular"], len(spectra["updates"])
    readout = '<span>first singular value s₁ = <b id="slider-s1"></b></span>' if singular else ""
    tau = '<span>τ = <b id="slider-tau"></b></span>'
    control = slider("Position in learning", count, tau + readout)
    figures = ""
    if singular:
        shown = len(singular[0][0])
        some = f"The first {shown} of {spectra['of']}. " if shown < spectra["of"] else ""
        figures += figure(
            "paths",
            f"Singular values of Δ{matrix} over learning",
            "The largest ones, darkest first; the green line is the slider’s position.",
            wide=not spectra["eigenvalues"],
        )
        switch = '<label class="switch"><input type="checkbox" id="logarithmic"> logarithmic axis</label>'
        at_end = f"{some}Filled: at the slider’s position. Open: at the end of learning. {switch}"
    if spectra["eigenvalues"]:
        said = (
            "Pale: before learning. Orange: at the slider’s position. "
            "Random weights of many neurons fill the dashed circle."
        )
        figures += figure("eigenvalues", f"Eigenvalues of {matrix} in the complex plane", said, size="square")
    if singular:
        figures += figure("spectrum", f"Spectrum of Δ{matrix}", at_end, size="low", wide=True)
    heading = "What learning changed in the weights"
    return Section("spectra", "Spectra", heading, text, control + f'<div class="pair">{figures}</div>')


def _theory_section(overlays: Sequence[Any]) -> Section:
    text = (
        "<p>A theory is drawn over this run only if all of its assumptions hold. Each was measured on the run itself: "
        "its size here, and the size up to which the theory may be trusted.</p>"
    )
    body = "".join(report_tables.theory_section(each) for each in overlays)
    if not overlays:
        text, body = "<p>No theory was compared with this run.</p>", ""
    return Section("theory", "Theory", "What theory says about this run", text, body)


def _lead(data: xr.Dataset, members: Sequence[reading.Member]) -> str:
    """One or two sentences about the run, from its own records."""
    count, network = len(members), reading.network_name(data)
    neurons = data.sizes.get("unit", data.sizes.get("index"))
    of = f" of {neurons} neurons" if neurons else ""
    steps = data.sizes.get("update", 0)
    unit = {"update": "updates", "point": "points in learning"}[reading.position_word(data)]
    long = f", {steps} {unit} each" if steps else ""
    who = f"{count} {network} networks{of}" if count > 1 else f"One {network} network{of}"
    return f"{who}{long}: what learning changed in their weights, and what theory says about it."


def _notice(members: Sequence[reading.Member]) -> str:
    stopped = [member for member in members if member.status != "done"]
    if not stopped:
        return ""
    items = "".join(f"<li>{escape(member.name)}</li>" for member in stopped)
    done = len(members) - len(stopped)
    text = f"{done} of {len(members)} networks finished. Not finished, and shown up to where they stopped:"
    return f'<div class="notice" role="note">{text}<ul>{items}</ul></div>'


def _tiles(measures: xr.Dataset, data: xr.Dataset) -> str:
    """The few numbers that a reader wants first."""
    keep = reading.not_diverged(data)

    def median(name: str) -> float:
        return float(reading.spread(measures[name].values, keep).median) if name in measures else np.nan

    threshold = f"{100 * measures.attrs.get('threshold', reading.THRESHOLD):g} %"
    share = 100 * median("final_loss") / median("initial_loss")
    cells = [
        ("Loss after learning", median("final_loss"), f"{number(share, 2)} % of the initial" if share == share else ""),
        (f"Updates to {threshold}", median("updates_to_threshold"), "of the initial loss"),
        (f"Learning time to {threshold}", median("tau_to_threshold"), "of the initial loss"),
        ("Functional rank of ΔW", median("functional_rank_delta_W"), f"of W: {number(median('functional_rank_W'))}"),
        (f"Size of the change ‖Δ{reading.matrix_name(data)}‖", median("delta_W_norm"), "Frobenius norm"),
        ("Loss with W₀ shuffled", median("shuffled_loss"), "ΔW kept"),
    ]
    shown = [(name, fixed(value), note) for name, value, note in cells if np.isfinite(value)]
    many = int(keep.sum()) > 1
    return tiles(shown, f"Medians over {int(keep.sum())} networks" if many else "Key numbers")
