"""Matplotlib figures of what a fit to a recording says, one for each section of its page. Draws a portrait.

A portrait is the dataset that `tauflow.neural.portrait.portrait` makes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle
from matplotlib.ticker import MaxNLocator

from tauflow.plots import style

_BELOW: dict[str, Any] = {"loc": "outside lower center", "columnspacing": 1.2, "handletextpad": 0.5}


def save_fit_figures(portrait: xr.Dataset, folder: str | os.PathLike[str]) -> list[Path]:
    """Write one PNG for each section of a fit's page.

    Args:
        portrait: What `tauflow.neural.portrait.portrait` gives.
        folder: Where to write; made if it is missing.

    Returns:
        The files: ranks.png (after a cross-validation), factors.png, latents.png, field.png, eigenvalues.png, cue.png
        and neurons.png.

    Raises:
        ValueError: If a file cannot be written.
    """
    drawn: dict[str, Callable[[xr.Dataset], Figure]] = {
        "ranks": fit_ranks, "factors": fit_factors, "latents": fit_latents, "field": fit_field,
        "eigenvalues": fit_eigenvalues, "cue": fit_cue, "neurons": fit_neurons,
    }  # fmt: skip
    if "held_out_loss" not in portrait:
        del drawn["ranks"]
    return [style.save_figure(draw(portrait), Path(folder) / f"{name}.png") for name, draw in drawn.items()]


def condition_colours(count: int) -> list[str]:
    """Colours of conditions: the house's few, or as many as needed in an order.

    Example:
        >>> len(condition_colours(4)), len(condition_colours(12))
        (4, 12)
    """
    return list(style.CYCLE[:count]) if count <= len(style.CYCLE) else style.sequential(count)


def explained_word(portrait: xr.Dataset) -> str:
    """What a cross-validation calls explained: variance, or deviance for Poisson losses."""
    return "deviance" if portrait.attrs["loss"] == "poisson" else "variance"


def loss_label(portrait: xr.Dataset) -> str:
    """Held-out loss with its unit."""
    poisson = portrait.attrs["loss"] == "poisson"
    return "held-out loss (nats per bin)" if poisson else "held-out loss (share of variance)"


def epoch_spans(portrait: xr.Dataset) -> list[tuple[str, float, float]]:
    """Stretches of trials of one epoch: name, and the ids between which it lies; none where there is one epoch.

    Example:
        >>> labels = {"trial_id": ("trial", [0, 1, 4, 5]), "epoch": ("trial", ["a", "a", "b", "b"])}
        >>> epoch_spans(xr.Dataset(coords=labels))
        [('a', -0.5, 2.5), ('b', 2.5, 5.5)]
    """
    ids, epochs = portrait["trial_id"].values, portrait["epoch"].values
    cuts = np.flatnonzero(epochs[1:] != epochs[:-1]) + 1
    if not cuts.size:
        return []
    edges = [ids[0] - 0.5, *((ids[cuts - 1] + ids[cuts]) / 2), ids[-1] + 0.5]
    return [(str(epochs[i]), float(a), float(b)) for i, a, b in zip([0, *cuts], edges, edges[1:], strict=False)]


def stage_title(portrait: xr.Dataset, s: int) -> str:
    """Name of a stage with the ids of its first and last trial."""
    own = portrait["trial_id"].values[portrait["stage_of"].values == s]
    return f"{portrait['stage'].values[s]} (trials {own[0]}–{own[-1]})"


def cue_title(portrait: xr.Dataset) -> str:
    """What the state at the cue is the state at."""
    event = str(portrait.attrs["align"]).replace("_", " ").removesuffix(" time") or "time 0"
    time = portrait.attrs["cue_time"]
    near = abs(time) <= portrait.attrs["bin_s"]
    return f"State at {event} ({time:g} s)" if near else f"State in the first bin ({time:g} s from {event})"


def fit_ranks(portrait: xr.Dataset) -> Figure:
    """Held-out loss, and variance explained in fitted and held-out entries, against the number of components."""
    with style.house_style():
        figure = style.new_figure(style.PAGE, 2.6)
        left, right = figure.subplots(1, 2)
        ranks, several = portrait["rank"].values, portrait.sizes["units"] > 1
        for u, units in enumerate(portrait["units"].values):
            colour, name = style.CYCLE[u % len(style.CYCLE)], f"{units} units" if several else "mean ± standard error"
            part = portrait.isel(units=u)
            mean, error = part["held_out_loss"].values, part["held_out_loss_error"].values
            single = left.plot(ranks, part["held_out_loss_each"].values, ".", color=style.PALE, markersize=4, zorder=1)
            single[0].set_label("single fits" if u == 0 else "")
            left.errorbar(ranks, mean, error, color=colour, capsize=2, marker="o", markersize=3.5, label=name)
            chosen = int(part["chosen_rank"])
            best = int(np.nanargmin(mean))
            if not several and np.isfinite(error[best]):
                left.axhline(mean[best] + error[best], color=style.GREY, linestyle=":", linewidth=0.9, zorder=0,
                             label="best + one standard error")  # fmt: skip
            left.plot(chosen, mean[ranks == chosen], "o", color="none", markeredgecolor=style.INK, markersize=9,
                      label=f"chosen: rank {chosen}")  # fmt: skip
            for kind, dash, word in (("held_out", "-", "held out"), ("fitted", "--", "fitted")):
                values = part[f"{kind}_explained"].mean("mask").values
                label = f"{word}, {units} units" if several else word
                right.plot(ranks, values, dash, color=colour, marker="o", markersize=3, label=label)
        left.set(xlabel="rank (number of components)", ylabel=loss_label(portrait), title="Which rank predicts best")
        right.set(xlabel="rank (number of components)", ylabel=f"{explained_word(portrait)} explained",
                  title="Fitted and held-out entries")  # fmt: skip
        for axes in (left, right):
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.legend()
    return figure


def fit_factors(portrait: xr.Dataset) -> Figure:
    """Strengths over trials, dots, and what is smooth of them; epochs above, and below the stages that are compared."""
    with style.house_style():
        figure = style.new_figure(style.PAGE, 2.9)
        axes = figure.subplots()
        ids, count = portrait["trial_id"].values, portrait.sizes["component"]
        for j in range(count):
            colour = style.CYCLE[j % len(style.CYCLE)]
            axes.plot(ids, portrait["strength"].values[:, j], ".", color=colour, markersize=3.5, alpha=0.7)
            axes.plot(ids, portrait["smooth_strength"].values[:, j], color=colour, label=f"$c_{{{j + 1}}}$")
        _mark_epochs(axes, portrait)
        low, high = axes.get_ylim()
        place = low - 0.06 * (high - low)
        for s, name in enumerate(portrait["stage"].values):
            own = ids[portrait["stage_of"].values == s]
            axes.plot([own[0], own[-1]], [place, place], color=style.INK, linewidth=2.2, solid_capstyle="butt")
            axes.text((own[0] + own[-1]) / 2, place, str(name), ha="center", va="bottom", fontsize=6.5)
        axes.set(xlabel="trial", ylabel="strength $c_j$ (weights, $|a_j| = |b_j| = 1$)")
        axes.set_title("Trial factors: how strong each component is", pad=14 if epoch_spans(portrait) else None)
        figure.legend(**_BELOW, ncols=min(count, 8), handles=axes.get_lines()[1 : 2 * count : 2])
    return figure


def fit_latents(portrait: xr.Dataset) -> Figure:
    """Coordinates of the states on the columns by condition, a row for each component and a column for each stage."""
    with style.house_style():
        rows, columns = portrait.sizes["component"], portrait.sizes["stage"]
        figure = style.new_figure(style.PAGE, 0.8 + 1.25 * rows)
        grid = figure.subplots(rows, columns, sharex=True, sharey="row", squeeze=False)
        colours = condition_colours(portrait.sizes["condition"])
        for s in range(columns):
            for j in range(rows):
                axes = grid[j, s]
                axes.axhline(0, color=style.PALE, linewidth=0.6, zorder=0)
                _mark_cue(axes, portrait)
                for k, colour in enumerate(colours):
                    axes.plot(portrait["time"], portrait["latent"].values[s, k, :, j], color=colour, linewidth=1.1)
                axes.set_ylabel(f"$z_{{{j + 1}}}$" if s == 0 else "")
            grid[0, s].set_title(stage_title(portrait, s))
            grid[-1, s].set_xlabel(time_label(portrait))
        _legend_of_conditions(figure, portrait)
    return figure


def fit_field(portrait: xr.Dataset) -> Figure:
    """Flow in the plane whose arrows tell most of the motion, a panel for each stage; with one component its line."""
    with style.house_style():
        count = portrait.sizes["stage"]
        figure = style.new_figure(style.PAGE, 0.75 + style.PAGE / max(count, 2) * (0.95 if count > 1 else 0.7))
        panels = figure.subplots(1, count, sharex=True, sharey=True, squeeze=False)[0]
        for s, axes in enumerate(panels):
            if portrait.sizes["plane"] == 1:
                _draw_line(axes, portrait, s)
            else:
                _draw_plane(axes, portrait, s)
            axes.set_title(stage_title(portrait, s))
        flat = portrait.sizes["plane"] == 2
        panels[0].set_ylabel("state along plane axis 2" if flat else "velocity (state per second)")
        for axes in panels:
            axes.set_xlabel("state along plane axis 1" if flat else "state")
        dot: dict[str, Any] = {"linestyle": "none", "color": style.INK, "markersize": 5}
        more = [
            Line2D([], [], marker="o", label="stable fixed point", **dot),
            Line2D([], [], marker="o", markerfacecolor="white", label="unstable fixed point", **dot),
            *([Line2D([], [], marker=".", label="start", **(dot | {"color": style.GREY}))] if flat else []),
        ]
        _legend_of_conditions(figure, portrait, more)
    return figure


def arrow_scale(portrait: xr.Dataset) -> float:
    """Length of arrows per speed: a fast one (95 of 100 are slower) is as long as the grid is wide, in all stages."""
    points = portrait["point"].values
    sides = np.unique(np.round(points[:, 0], 9))
    fast = np.quantile(np.linalg.norm(portrait["stage_field"].values, axis=-1), 0.95)
    step = float(np.diff(sides).min()) if sides.size > 1 else 1.0
    return step / float(fast) if fast > 0 else 0.0


def _draw_plane(axes: Axes, portrait: xr.Dataset, s: int) -> None:
    points, field = portrait["point"].values, portrait["stage_field"].values[s] * arrow_scale(portrait)
    axes.quiver(*points.T, *field.T, color=style.GREY, angles="xy", scale_units="xy", scale=1.0, width=0.0035,
                headwidth=4.5, headlength=5, headaxislength=4.5, pivot="mid", alpha=0.75)  # fmt: skip
    for path, colour in zip(
        portrait["stage_path"].values[s], condition_colours(portrait.sizes["condition"]), strict=True
    ):
        axes.plot(*path.T, color=colour, linewidth=1.4)
        axes.plot(*path[0], ".", color=colour, markersize=6)
    _draw_fixed(axes, portrait["stage_fixed"].values[s], portrait["stage_unstable"].values[s])
    axes.set_aspect("equal")
    axes.set(xlim=(points[:, 0].min(), points[:, 0].max()), ylim=(points[:, 1].min(), points[:, 1].max()))


def _draw_line(axes: Axes, portrait: xr.Dataset, s: int) -> None:
    """The flow of one component over its line, where each condition starts and how far it goes."""
    axes.axhline(0, color=style.PALE, linewidth=0.8)
    axes.plot(portrait["point"].values[:, 0], portrait["stage_field"].values[s, :, 0], color=style.GREY)
    level = np.ptp(portrait["stage_field"].values) * 0.05
    for k, colour in enumerate(condition_colours(portrait.sizes["condition"])):
        path = portrait["stage_path"].values[s, k, :, 0]
        height = level * (k + 1)
        axes.plot(path, np.full(path.shape, height), color=colour)
        axes.plot(path[0], height, ".", color=colour, markersize=6)
    fixed = portrait["stage_fixed"].values[s]
    _draw_fixed(axes, np.concatenate([fixed, 0 * fixed], axis=-1), portrait["stage_unstable"].values[s])


def _draw_fixed(axes: Axes, fixed: np.ndarray, unstable: np.ndarray) -> None:
    for face, which, order in ((style.INK, unstable == 0, 5), ("white", unstable > 0, 6)):
        axes.plot(*fixed[which].T, "o", markersize=4, color=style.INK, markerfacecolor=face, zorder=order)


def fit_eigenvalues(portrait: xr.Dataset) -> Figure:
    """Eigenvalues of the weights over trials: real and imaginary parts, and their paths in the complex plane."""
    with style.house_style():
        figure = style.new_figure(style.PAGE, 3.2)
        parts = figure.subplot_mosaic([["real", "plane"], ["imag", "plane"]], width_ratios=[1.5, 1])
        ids, values = portrait["trial_id"].values, portrait["eigenvalue"].values
        edge = portrait.attrs["edge"]
        for i, line in enumerate(values.T):
            colour = style.CYCLE[i % len(style.CYCLE)]
            dash = (0, (3, 2)) if line.imag.mean() < 0 else "-"  # real parts of a pair lie upon each other
            for name, part in (("real", line.real), ("imag", line.imag)):
                parts[name].plot(ids, part, color=colour, linestyle=dash, label=f"$\\lambda_{{{i + 1}}}$")
            parts["plane"].plot(line.real, line.imag, color=colour, linewidth=1.0)
            parts["plane"].plot(line[0].real, line[0].imag, "o", color=colour, markersize=4, markerfacecolor="white")
            parts["plane"].plot(line[-1].real, line[-1].imag, "o", color=colour, markersize=4)
        parts["imag"].axhline(0, color=style.PALE, linewidth=0.6, zorder=0)
        if np.isfinite(edge):
            parts["real"].axhline(edge, color=style.INK, linestyle="--", linewidth=0.9, zorder=0)
            parts["plane"].axvline(edge, color=style.INK, linestyle="--", linewidth=0.9, zorder=0)
            low, high = parts["plane"].get_xlim()
            _step_circle(parts["plane"], portrait)
            parts["plane"].set_xlim(min(low, edge - 0.2), max(high, edge + 0.2))
        for name in ("real", "imag"):
            _mark_epochs(parts[name], portrait, named=name == "real")
        parts["real"].set(ylabel="Re λ", xticklabels=[])
        parts["real"].set_title("Eigenvalues of $W^{(k)}$ over trials", pad=14 if epoch_spans(portrait) else None)
        parts["imag"].set(ylabel="Im λ", xlabel="trial")
        parts["plane"].set(xlabel="Re λ", ylabel="Im λ", title="first (open) to last trial (filled)")
        edges = [
            Line2D([], [], color=style.INK, linestyle="--", linewidth=0.9, label=f"edge of stability, Re λ = {edge:g}"),
            Line2D([], [], color=style.INK, linestyle=":", linewidth=0.9, label="the same for steps of one bin"),
        ]
        lines = parts["real"].get_lines()[: values.shape[1]]
        figure.legend(**_BELOW, handles=[*lines, *(edges if np.isfinite(edge) else [])], ncols=min(len(lines) + 2, 7))
    return figure


def _step_circle(axes: Axes, portrait: xr.Dataset) -> None:
    """Where deviations from the origin neither grow nor decay in Euler steps: a circle around edge − 1/α."""
    edge, radius = portrait.attrs["edge"], portrait.attrs["edge"] / portrait.attrs["alpha"]
    low, high = axes.get_ylim()
    axes.add_patch(Circle((edge - radius, 0), radius, fill=False, color=style.INK, linestyle=":", linewidth=0.9))
    axes.set_ylim(low, high)


def fit_cue(portrait: xr.Dataset) -> Figure:
    """State at the cue over trials, a panel for each component, coloured by condition."""
    with style.house_style():
        rows = portrait.sizes["component"]
        figure = style.new_figure(style.PAGE, 0.9 + 1.15 * rows)
        panels = figure.subplots(rows, 1, sharex=True, squeeze=False)[:, 0]
        ids, names = portrait["trial_id"].values, portrait["condition"].values
        for j, axes in enumerate(panels):
            for name, colour in zip(names, condition_colours(len(names)), strict=True):
                here = portrait["condition_of"].values == name
                axes.plot(
                    ids[here], portrait["cue_state"].values[here, j], ".-", color=colour, linewidth=0.7, markersize=4
                )
            _mark_epochs(axes, portrait, named=j == 0)
            axes.set_ylabel(f"$z_{{{j + 1}}}$")
        panels[0].set_title(cue_title(portrait), pad=14 if epoch_spans(portrait) else None)
        panels[-1].set_xlabel("trial")
        _legend_of_conditions(figure, portrait)
    return figure


def fit_neurons(portrait: xr.Dataset) -> Figure:
    """How well neurons are told on held-out entries, and data against model of a few of them by condition and stage."""
    with style.house_style():
        rows, columns = portrait.sizes["example"], portrait.sizes["stage"]
        figure = style.new_figure(style.PAGE, 2.9 + 1.45 * rows)
        top, below = figure.subfigures(2, 1, height_ratios=[2.1, 0.8 + 1.45 * rows])
        left, right = top.subplots(1, 2)
        _draw_quality(left, right, portrait)
        grid = below.subplots(rows, columns, sharex=True, sharey="row", squeeze=False)
        time = portrait["time"].values
        for e, s in np.ndindex(rows, columns):
            axes = grid[e, s]
            _mark_cue(axes, portrait)
            for k, colour in enumerate(condition_colours(portrait.sizes["condition"])):
                data, error, model = (
                    portrait[f"rate_{each}"].values[s, k, :, e] for each in ("data", "error", "model")
                )
                axes.fill_between(time, data - error, data + error, color=colour, alpha=0.2, linewidth=0)
                axes.plot(time, data, color=colour, linewidth=0.8, alpha=0.8)
                axes.plot(time, model, color=colour, linewidth=1.3, linestyle=(0, (4, 1.5)))
            if e == 0:
                axes.set_title(stage_title(portrait, s))
        for e, row in enumerate(grid):
            row[0].set_ylabel(f"{example_name(portrait, e)}\n({portrait['rate_data'].attrs['unit']})")
        for axes in grid[-1]:
            axes.set_xlabel(time_label(portrait))
        kinds = [
            Line2D([], [], color=style.GREY, linewidth=0.8, label="data ± standard error"),
            Line2D([], [], color=style.GREY, linewidth=1.3, linestyle=(0, (4, 1.5)), label="model"),
        ]
        _legend_of_conditions(below, portrait, kinds)
    return figure


def example_name(portrait: xr.Dataset, e: int) -> str:
    """The role of an example among the neurons, and its label."""
    i = int(portrait["example_neuron"].values[e])
    return f"{portrait['role'].values[e]}: neuron {portrait['neuron_id'].values[i]}"


def neuron_scores(portrait: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Held-out variance explained and ceiling of each neuron, as drawn: what is below -1 at -1, or it hides the rest.

    Example:
        >>> scores = {f"{name}_by_neuron": ("neuron", [0.5, -8.0]) for name in ("explained", "ceiling")}
        >>> neuron_scores(xr.Dataset(scores))[0].tolist()
        [0.5, -1.0]
    """
    explained, ceiling = (np.maximum(portrait[f"{name}_by_neuron"].values, -1.0) for name in ("explained", "ceiling"))
    return explained, ceiling


def _draw_quality(left: Axes, right: Axes, portrait: xr.Dataset) -> None:
    explained, ceiling = neuron_scores(portrait)
    known = explained[np.isfinite(explained)]
    if known.size:
        left.hist(known, bins=min(24, max(6, known.size // 3)), color=style.BLUE, alpha=0.85)
        left.axvline(float(np.median(known)), color=style.INK, linestyle="--", linewidth=0.9, label="median")
        left.legend()
    left.set(xlabel="held-out variance explained", ylabel="neurons", title=f"All {len(explained)} neurons")
    both = np.isfinite(explained) & np.isfinite(ceiling)
    right.plot(ceiling[both], explained[both], "o", color=style.BLUE, markersize=3, alpha=0.8)
    for e, i in enumerate(portrait["example_neuron"].values):
        if both[i]:
            right.annotate(str(portrait["role"].values[e]), (ceiling[i], explained[i]), textcoords="offset points",
                           xytext=(5, -2), fontsize=6.5)  # fmt: skip
    both_known = np.concatenate([[0.0, 0.1], ceiling[both], explained[both]])
    ends = [both_known.min(), both_known.max()]
    right.plot(ends, ends, color=style.GREY, linewidth=0.8, linestyle=":", label="as much as noise allows")
    right.legend(loc="lower right")
    right.set(
        xlabel="noise ceiling of the neuron", ylabel="held-out variance explained", title="Each against its own ceiling"
    )


def _mark_epochs(axes: Axes, portrait: xr.Dataset, *, named: bool = True) -> None:
    """Grey behind every other epoch, and their names above."""
    spans = epoch_spans(portrait)
    for i, (name, low, high) in enumerate(spans):
        if i % 2:
            axes.axvspan(low, high, color=style.PALE, alpha=0.25, linewidth=0, zorder=0)
        if named:
            axes.text((low + high) / 2, 1.015, name, transform=axes.get_xaxis_transform(), ha="center", va="bottom",
                      fontsize=7, color=style.GREY)  # fmt: skip
    ids = portrait["trial_id"].values
    axes.set_xlim(ids[0] - 0.5, ids[-1] + 0.5)


def _mark_cue(axes: Axes, portrait: xr.Dataset) -> None:
    """A line at time 0 if it lies within the window."""
    time = portrait["time"].values
    if time[0] < 0 < time[-1]:
        axes.axvline(0, color=style.GREY, linewidth=0.7, linestyle=":", zorder=0)


def time_label(portrait: xr.Dataset) -> str:
    """Label of the time axis."""
    event = str(portrait.attrs["align"]).replace("_", " ").removesuffix(" time")
    return f"time from {event} (s)" if event else "time (s)"


def _legend_of_conditions(figure: Any, portrait: xr.Dataset, more: Sequence[Any] = ()) -> None:
    names = portrait["condition"].values
    handles = [
        Line2D([], [], color=colour, label=str(name))
        for name, colour in zip(names, condition_colours(len(names)), strict=True)
    ]
    figure.legend(
        **_BELOW, handles=[*(handles if len(handles) > 1 else []), *more], ncols=min(len(handles) + len(more), 8)
    )
