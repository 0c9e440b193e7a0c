"""Matplotlib figures of a Run and of its measures: each takes datasets and draws, and computes no science.

Every function draws into `axes` when given, so that figures can be composed, and makes a figure of its own otherwise.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import Circle

from tauflow.plots import drawing, reading, style
from tauflow.plots.reading import THRESHOLD

_LOSS_LABEL = "loss"
_IN_LEGEND = 3  # of the singular values: the first ones, whose names tell the order


def _axes(axes: Axes | None, width: float = style.COLUMN, height: float = 3.0) -> Axes:
    return axes if axes is not None else style.new_figure(width, height).add_subplot()


def _figure(axes: Axes) -> Figure:
    figure = axes.figure
    return figure.figure if isinstance(figure, SubFigure) else figure


def loss(run: Any, *, overlays: Sequence[Any] = (), reference: float | None = None, axes: Axes | None = None) -> Figure:
    """Loss over learning on a log axis: single seeds, their median and middle half, and what theories predict.

    Diverged members keep their line up to a cross where they stopped, and do not count in the median.

    Args:
        run: A Run, or its dataset, with `loss (run, update)`.
        overlays: Theories' overlays; those with a prediction of `loss` are drawn dashed with their band.
        reference: Initial loss; a dotted line marks `THRESHOLD` of it.
        axes: Where to draw; a new figure by default.

    Returns:
        The figure.
    """
    with style.house_style():
        axes = _axes(axes)
        data = reading.dataset(run)
        axis = reading.learning_axis(data, "update")
        values = drawing.positive(data["loss"].values)  # (run, update)
        axes.set_yscale("log")
        several = len(values) > 1
        handles: list[Any] = []
        for i, member in enumerate(reading.members(run)):
            fade = {"color": style.PALE, "linewidth": 0.7} if several else {"color": style.BLUE}
            (line,) = axes.plot(axis.values[i], values[i], label="single seeds" if several else member.title, **fade)
            handles += [line] if i == 0 else []
        keep = reading.not_diverged(run)
        if several and axis.shared and keep.sum() > 1:
            whole = reading.spread(values, keep)
            handles = drawing.draw_spread(axes, reading.shared_values(axis), whole, "seeds") + handles
        handles += drawing.draw_predictions(axes, axis.values, overlays, "loss", range(len(values)))
        drawing.frame_log(axes, values[keep])
        if reference is not None and np.isfinite(reference):
            handles.append(drawing.draw_reference(axes, reference))
        axes.set(xlabel=axis.label, ylabel=_LOSS_LABEL)
        drawing.legend_below(axes, handles + drawing.mark_stops(axes, axis.values, values, run))
    return _figure(axes)


def singular_values(
    run: Any,
    *,
    count: int = 8,
    member: int | None = None,
    overlays: Sequence[Any] = (),
    axes: Axes | None = None,
) -> Figure:
    """The largest singular values of ΔW over learning, the first the darkest.

    Args:
        run: A Run, or its dataset, with `delta_W_singular_values (run, measurement, index)`.
        count: How many to draw.
        member: Position of the member to draw; by default the median over the members that did not diverge, with
            their middle half as a band, or the first member where their learning times differ.
        overlays: Theories' overlays; those with a prediction of the singular values are drawn dashed.
        axes: Where to draw; a new figure by default.

    Returns:
        The figure.
    """
    with style.house_style():
        axes = _axes(axes)
        data = reading.dataset(run)
        axis = reading.learning_axis(data, "measurement")
        values = np.asarray(data["delta_W_singular_values"].values[..., :count], dtype=float)  # (run, k, index)
        keep = reading.not_diverged(run)
        if member is None and not (axis.shared and keep.sum() > 1):
            member = reading.first_done(run)
        colours = style.sequential(values.shape[-1])
        if member is None:
            tau, whole = reading.shared_values(axis), reading.spread(values, keep)
            curves = whole.median
            for k in reversed(range(len(colours))):
                axes.fill_between(tau, whole.low[:, k], whole.high[:, k], color=colours[k], alpha=0.2, linewidth=0)
            title = f"median and middle half of {whole.members} seeds"
        else:
            tau, curves = axis.values[member], values[member]
            title = reading.members(run)[member].title
        for k in reversed(range(len(colours))):
            axes.plot(tau, curves[:, k], color=colours[k], label=f"$s_{{{k + 1}}}$")
        shown = range(len(values)) if member is None else [member]
        theory = drawing.draw_predictions(axes, axis.values, overlays, "delta_W_singular_values", shown, count)
        lines = sorted((x for x in axes.get_lines() if str(x.get_label()).startswith("$s_")), key=drawing.rank_of)
        axes.set(
            xlabel=axis.label, ylabel=f"singular values of Δ{reading.matrix_name(data)}", title=title, ylim=(0, None)
        )
        drawing.legend_below(axes, lines[:_IN_LEGEND] + theory)
    return _figure(axes)


def eigenvalues(
    run: Any,
    *,
    member: int | None = None,
    measurement: int = -1,
    radius: float | None = None,
    axes: Axes | None = None,
) -> Figure:
    """Eigenvalues of W (or W/√N) in the complex plane: first ones in grey, at one measurement in colour, circle of g.

    Args:
        run: A Run, or its dataset, with `W_eigenvalues (run, measurement, index)`.
        member: Position of the member; by default the first that is done.
        measurement: Position along `measurement`, -1 for the last.
        radius: Radius of the circle; the member's gain g by default, no circle where none is known.
        axes: Where to draw; a new figure by default.

    Returns:
        The figure.
    """
    with style.house_style():
        axes = _axes(axes, height=3.3)
        data = reading.dataset(run)
        member = reading.first_done(run) if member is None else member
        who = reading.members(run)[member]
        values = np.asarray(data["W_eigenvalues"].values[member])  # (measurement, index)
        times = data["measurement_update"].values
        before, now, word = values[0], values[measurement], reading.position_word(data)
        axes.plot(before.real, before.imag, "o", color=style.PALE, markersize=2.6, label=f"{word} {times[0]}")
        label = f"{word} {times[measurement]}"
        axes.plot(now.real, now.imag, "o", color=style.WEIGHTS, markersize=2.6, label=label)
        radius = who.gain if radius is None else radius
        if radius is not None and radius > 0:
            axes.add_patch(Circle((0, 0), radius, fill=False, edgecolor=style.INK, linewidth=0.9, linestyle="--"))
            axes.update_datalim([(-radius, -radius), (radius, radius)])
            axes.plot([], [], "--", color=style.INK, linewidth=0.9, label=f"radius g = {reading.number(radius)}")
        axes.set_aspect("equal", adjustable="datalim")
        axes.margins(0.08)
        axes.autoscale_view()
        name = reading.matrix_name(data)
        axes.set(xlabel=f"real part of λ({name})", ylabel=f"imaginary part of λ({name})", title=who.title)
        drawing.legend_below(axes, axes.get_legend_handles_labels()[0], columns=3)
    return _figure(axes)


def truncation(measures: xr.Dataset, *, run: Any = None, axes: Axes | None = None) -> Figure:
    """Loss against the rank to which ΔW, or the whole of W, is truncated; the median over seeds and single seeds.

    Args:
        measures: Dataset with `truncated_loss_delta_W (run, rank)`, `truncated_loss_W (run, rank)`, coordinate `rank`,
            and optionally `initial_loss (run)` for the dotted line.
        run: The Run, so that members that diverged do not count in the median.
        axes: Where to draw; a new figure by default.

    Returns:
        The figure.
    """
    with style.house_style():
        axes = _axes(axes)
        ranks = np.asarray(measures["rank"].values, dtype=float)
        axes.set_yscale("log")
        keep = None if run is None else reading.not_diverged(run)
        drawn, handles = [], []
        for name, label, colour in (
            ("truncated_loss_delta_W", "W₀ + ΔW truncated", style.WEIGHT_CHANGE),
            ("truncated_loss_W", "W truncated", style.WEIGHTS),
        ):
            values = drawing.positive(measures[name].values)  # (run, rank)
            axes.plot(ranks, values.T, color=colour, alpha=0.3, linewidth=0.7)
            median = reading.spread(values, keep).median
            handles += axes.plot(ranks, median, color=colour, marker="o", markersize=2.2, label=label)
            drawn.append(values)
        drawing.frame_log(axes, np.concatenate(drawn))
        if "initial_loss" in measures:
            initial = float(reading.spread(measures["initial_loss"].values).median)
            handles.append(drawing.draw_reference(axes, initial, measures.attrs.get("threshold", THRESHOLD)))
        drawing.rank_axis(axes, ranks)
        axes.set(xlabel="rank kept", ylabel=_LOSS_LABEL)
        drawing.legend_below(axes, handles)
    return _figure(axes)


def trials(measures: xr.Dataset, *, member: int = 0) -> Figure:
    """A sample trial: inputs above, below them each output with its target; shaded where the loss counts.

    Args:
        measures: Dataset with `example_inputs (time, input)`, `example_targets` and `example_mask (time, output)`,
            `example_outputs (run, time, output)` and coordinate `time` in membrane time constants.
        member: Position of the member whose outputs are drawn.

    Returns:
        The figure.
    """
    with style.house_style():
        time = np.asarray(measures["time"].values, dtype=float)
        targets, mask = measures["example_targets"].values, measures["example_mask"].values  # (time, output)
        outputs = measures["example_outputs"].values[member]  # (time, output)
        count = targets.shape[1]
        figure = style.new_figure(style.PAGE, 1.1 + 0.95 * count)
        panels = figure.subplots(1 + count, 1, sharex=True)
        for k, channel in enumerate(measures["example_inputs"].values.T):
            colour = style.CYCLE[k % len(style.CYCLE)]
            panels[0].plot(time, channel, color=colour, drawstyle="steps-pre", label=f"input {k + 1}")
        panels[0].set(ylabel="inputs")
        for k, panel in enumerate(panels[1:]):
            for start, end in drawing.stretches(time, mask[:, k]):
                panel.axvspan(start, end, color=style.PALE, alpha=0.3, linewidth=0)
            wanted = np.where(mask[:, k] > 0, targets[:, k], np.nan)
            dots = "." if np.isfinite(wanted).sum() < 10 else None  # a line of one point cannot be seen
            wish = {"color": style.TARGET, "marker": dots, "linewidth": 1.0, "zorder": 3, "label": "target"}
            panel.plot(time, wanted, "--", drawstyle="steps-pre", **wish)
            panel.plot(time, outputs[:, k], color=style.BLUE, label="output")
            panel.set(ylabel=f"output {k + 1}" if count > 1 else "output")
        for panel in panels[2:]:
            panel.sharey(panels[1])  # one scale, so that a small transient looks small
        for panel in (panels[0], panels[1]):
            panel.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
        panels[-1].set(xlabel=drawing.time_label(measures))
        panels[-1].set_xlim(time[0], time[-1] if len(time) > 1 else time[0] + 1)
        figure.align_ylabels()
    return figure


def probes(run: Any, *, overlays: Sequence[Any] = ()) -> Figure:
    """Every probe over learning, a panel each: all members, and what theories predict.

    Args:
        run: A Run, or its dataset, with variables `probe_<name>` of a few numbers, real or complex.
        overlays: Theories' overlays; those that predict a probe are drawn dashed over it.

    Returns:
        The figure.

    Raises:
        ValueError: If there is no such probe.
    """
    data = reading.dataset(run)
    found = reading.probes(data)
    if not found:
        raise ValueError("The Run has no probe that is a number or a few; give Record(probes={name: function}).")
    with style.house_style():
        axis, who = reading.learning_axis(data, "measurement"), reading.members(run)
        figure = style.new_figure(style.PAGE if len(found) > 1 else style.COLUMN, 2.6 * ((len(found) + 1) // 2) + 0.4)
        panels = figure.subplots((len(found) + 1) // 2, min(len(found), 2), squeeze=False).ravel()
        for panel, each in zip(panels, found, strict=False):
            handles: list[Any] = []
            for i, member in enumerate(who):
                broad = {"color": style.BLUE, "alpha": 0.5, "linewidth": 2.4}  # seen beside the dashes over it
                lines = panel.plot(axis.values[i], each.values[i], **broad)
                lines[0].set_label("single seeds" if len(who) > 1 else member.title)
                handles += lines[:1] if i == 0 else []
            theories = drawing.draw_predictions(
                panel, axis.values, overlays, each.name, range(len(who)), part=each.part
            )
            panel.set(xlabel=axis.label, ylabel=each.label)
            drawing.legend_below(panel, handles + theories, columns=1)
        for panel in panels[len(found) :]:
            panel.remove()
    return figure


def filters(measures: xr.Dataset, *, member: int = 0, axes: Axes | None = None) -> Figure:
    """Impulse responses of one network before and after learning, and the target's.

    Args:
        measures: Dataset with `filter_target (time)`, `filter_initial` and `filter_final (run, time)`, and coordinate
            `time` in membrane time constants.
        member: Position of the member.
        axes: Where to draw; a new figure by default.

    Returns:
        The figure.
    """
    with style.house_style():
        axes = _axes(axes)
        time = np.asarray(measures["time"].values, dtype=float)
        before, after = (measures[f"filter_{name}"].values[member] for name in ("initial", "final"))
        handles = axes.plot(time, before, color=style.GREY, linewidth=1.0, label="before learning")
        handles += axes.plot(time, after, color=style.BLUE, label="after learning")
        handles += axes.plot(time, measures["filter_target"].values, "--", color=style.TARGET, label="target")
        axes.set(xlabel=drawing.time_label(measures, "time since the impulse"), ylabel="impulse response")
        drawing.legend_below(axes, handles, columns=3)
    return _figure(axes)


def save_figures(
    folder: str | os.PathLike[str], *, run: Any, measures: xr.Dataset | None = None, overlays: Sequence[Any] = ()
) -> dict[str, Path]:
    """Write a study's figures as PNG files, each in one step; a figure whose data are not there is left out.

    Args:
        folder: Where to write loss.png, singular_values.png, eigenvalues.png, probes.png, truncation.png, trials.png
            and filters.png.
        run: A Run, or its dataset.
        measures: The study's measures, see `truncation` and `trials`.
        overlays: Theories' overlays.

    Returns:
        The paths by name, for example "loss".

    Raises:
        ValueError: If a file cannot be written.
    """
    data = reading.dataset(run)
    measures = xr.Dataset() if measures is None else measures
    initial = float(reading.spread(measures["initial_loss"].values).median) if "initial_loss" in measures else None
    figures: dict[str, Callable[[], Figure]] = {}
    if "loss" in data:
        figures["loss"] = lambda: loss(run, overlays=overlays, reference=initial)
    if "delta_W_singular_values" in data:
        figures["singular_values"] = lambda: singular_values(run, overlays=overlays)
    if "W_eigenvalues" in data:
        figures["eigenvalues"] = lambda: eigenvalues(run)
    if reading.probes(data):
        figures["probes"] = lambda: probes(run, overlays=overlays)
    if "truncated_loss_delta_W" in measures:
        figures["truncation"] = lambda: truncation(measures, run=run)
    if "example_outputs" in measures:
        figures["trials"] = lambda: trials(measures, member=reading.first_done(run))
    if "filter_final" in measures:
        figures["filters"] = lambda: filters(measures, member=reading.first_done(run))
    return {name: style.save_figure(draw(), Path(folder) / f"{name}.png") for name, draw in figures.items()}
