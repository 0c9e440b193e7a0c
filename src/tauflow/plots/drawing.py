"""Parts that several figures draw: the seeds' spread, theories with their bands, stops, axes over ranks."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from tauflow.plots import reading, style
from tauflow.plots.reading import THRESHOLD

LINEAR_RANKS = 40  # above it, ranks are spaced as log(1 + rank)


def time_label(measures: xr.Dataset, what: str = "time") -> str:
    """Label of the trial's time axis, with its unit."""
    return f"{what} ({measures['time'].attrs.get('unit', 'membrane time constants')})"


def stretches(time: np.ndarray, mask: np.ndarray) -> list[tuple[float, float]]:
    """Stretches of time in which the mask is on, each step as wide as the one before it.

    Args:
        time: Times, shape (k,), increasing.
        mask: 0 or 1, shape (k,).

    Returns:
        Pairs of start and end.

    Example:
        >>> stretches(np.arange(5.0), np.array([0, 1, 1, 0, 1]))
        [(0.0, 2.0), (3.0, 4.0)]
    """
    on = np.concatenate([[False], np.asarray(mask) > 0, [False]])
    starts, ends = np.flatnonzero(on[1:] & ~on[:-1]), np.flatnonzero(~on[1:] & on[:-1])
    width = time[1] - time[0] if len(time) > 1 else 1.0
    edges = np.concatenate([[time[0] - width], time])  # step k lasts from edge k to edge k + 1
    return list(zip(edges[starts].tolist(), edges[ends].tolist(), strict=True))


def rank_axis(axes: Axes, ranks: np.ndarray) -> None:
    """Let the x axis run over ranks, linear for few, as log(1 + rank) for many."""
    top = float(np.max(ranks, initial=1.0))
    if top > LINEAR_RANKS:
        axes.set_xscale("function", functions=(lambda r: np.log1p(np.maximum(r, -0.99)), np.expm1))
        axes.set_xticks([r for r in (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000) if r <= top])
    axes.set_xlim(-0.02 * top if top <= LINEAR_RANKS else -0.08, top * 1.02)


def positive(values: Any) -> np.ndarray:
    """What a log axis can show; the rest is NaN."""
    values = np.asarray(values, dtype=float)
    return np.where(np.isfinite(values) & (values > 0), values, np.nan)


def rank_of(line: Line2D) -> int:
    """The rank in a label such as s₃."""
    return int("".join(c for c in str(line.get_label()) if c.isdigit()))


def draw_spread(axes: Axes, x: np.ndarray, whole: reading.Spread, what: str) -> list[Any]:
    """The median as a line and the middle half as a band; gives the handles for a legend."""
    band = axes.fill_between(
        x, whole.low, whole.high, color=style.BLUE, alpha=0.22, linewidth=0, zorder=2.5, label=f"middle half of {what}"
    )
    (line,) = axes.plot(x, whole.median, color=style.BLUE, zorder=3, label=f"median of {whole.members} {what}")
    return [line, band]


def mark_stops(axes: Axes, tau: np.ndarray, values: np.ndarray, run: Any) -> list[Line2D]:
    """A cross where each diverged member stopped, at the edge if that lies outside; gives the legend's entry."""
    low, high = axes.get_ylim()
    lines = []
    for x, y, member in zip(tau, values, reading.members(run), strict=True):
        known = np.flatnonzero(np.isfinite(x) & np.isfinite(y))
        if member.status == "diverged" and known.size:
            at = float(np.clip(y[known[-1]], low, high))
            cross = axes.plot(x[known[-1]], at, "x", color=style.ORANGE, markersize=5, markeredgewidth=1.4)
            cross[0].set(clip_on=False, zorder=5)
            lines += cross
    if lines:
        lines[0].set_label(f"diverged ({len(lines)})")
    return lines[:1]


def legend_below(axes: Axes, handles: Sequence[Any], *, columns: int = 2) -> None:
    """The legend below the x axis, where it hides no data."""
    for handle in handles:
        handle.set_label(textwrap.fill(str(handle.get_label()), 48))
    if max((len(re.sub(r"[${}^_\\]", "", str(handle.get_label()))) for handle in handles), default=0) > 30:
        columns = 1  # a legend wider than its axes would squeeze them
    spacing = {"columnspacing": 1.2, "handletextpad": 0.5, "borderaxespad": 0.0}
    axes.legend(handles=list(handles), loc="upper left", bbox_to_anchor=(-0.02, -0.2), ncols=columns, **spacing)


def draw_predictions(
    axes: Axes,
    tau: np.ndarray,
    overlays: Sequence[Any],
    variable: str,
    members: Sequence[int],
    most: int | None = None,
    part: Callable[..., Any] = np.real,
) -> list[Line2D]:
    """Each theory dashed over its band; a member only where no drawn band of the same theory holds its prediction.

    Args:
        axes: Where to draw.
        tau: Learning time of every member, shape (run, k).
        overlays: Theories' overlays.
        variable: What is predicted.
        members: Positions of the members.
        most: How many curves of a prediction with an index to draw; all by default.
        part: What to draw of a complex prediction, `numpy.real` or `numpy.imag`.

    Returns:
        One handle for each theory.
    """
    drawn: dict[str, list[reading.Curve]] = {}
    handles: dict[str, Line2D] = {}
    for i in members:
        for curve in reading.predictions(overlays, variable, i):
            if any(_told(curve, earlier) for earlier in drawn.setdefault(curve.label, [])):
                continue
            drawn[curve.label].append(curve)
            columns = part(curve.values).reshape(len(curve.values), -1)[:, :most]  # (k, index)
            if curve.band is not None:
                half = curve.band.reshape(len(curve.band), -1)[:, :most]
                for low, high in zip((columns - half).T, (columns + half).T, strict=True):
                    axes.fill_between(tau[i], low, high, color=style.THEORY, alpha=0.14, linewidth=0, zorder=3.5)
            lines = axes.plot(tau[i], columns, color=style.THEORY, linestyle="--", linewidth=1.0, zorder=4)
            note = " ± its stated error" if curve.band is not None else ""
            handles.setdefault(curve.label, lines[0]).set_label(f"{curve.label}{note}")
    return list(handles.values())


def _told(curve: reading.Curve, earlier: reading.Curve) -> bool:
    """Whether an earlier curve already says this one: equal, or within its band wherever both are known."""
    if curve.values.shape != earlier.values.shape:
        return False
    tolerance = 1e-8 * np.abs(earlier.values) + (0.0 if earlier.band is None else earlier.band)
    off = np.abs(curve.values - earlier.values)
    return not bool((off > tolerance).any())  # NaN is not above


def frame_log(axes: Axes, values: np.ndarray) -> None:
    """Limit a log y axis to the data, so that a theory's band or a blow-up does not squeeze them."""
    known = values[np.isfinite(values)]
    if known.size:
        axes.set_ylim(known.min() / 1.6, known.max() * 1.6)


def draw_reference(axes: Axes, reference: float, threshold: float = THRESHOLD) -> Line2D:
    """A dotted line at a fraction of the initial loss."""
    label = f"{100 * threshold:g} % of the initial loss"
    return axes.axhline(threshold * reference, color=style.GREY, linestyle=":", linewidth=1.0, label=label)
