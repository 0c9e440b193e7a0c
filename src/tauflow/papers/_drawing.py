"""Parts that figures of several papers draw."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray


def band(
    axes: Axes, x: NDArray, values: NDArray, colour: str, *, marker: str = "", label: str | None = None,
    log: bool = False,
) -> None:  # fmt: skip
    """Draw the mean over networks as a line and their standard deviation as a band.

    Args:
        axes: Where to draw.
        x: Positions, shape (k,).
        values: One row for each network, shape (run, k); positive for `log`.
        colour: Colour of both.
        marker: Marker of the mean.
        label: For the legend.
        log: Take mean and standard deviation of the logarithms.
    """
    logs = np.log(np.maximum(values, 1e-30)) if log else values
    with np.errstate(invalid="ignore"):
        mean, half = logs.mean(axis=0), logs.std(axis=0)
    low, high = mean - half, mean + half
    if log:
        mean, low, high = np.exp(mean), np.exp(low), np.exp(high)
    axes.fill_between(x, low, high, color=colour, alpha=0.22, linewidth=0)
    axes.plot(x, mean, color=colour, marker=marker, markersize=2.0, linewidth=1.0, label=label)


def outside_legend(axes: Axes, **options: Any) -> None:
    """A legend to the right of the panel."""
    axes.legend(loc="center left", bbox_to_anchor=(1.02, 0.5), **options)


def panel_letters(panels: Iterable[Axes]) -> None:
    """Letter the panels a, b, c, ... in bold at their upper left."""
    for letter, axes in zip("abcdefghijklmnopqrstuvwxyz", panels, strict=False):
        axes.text(-0.06, 1.03, letter, transform=axes.transAxes, fontsize=9, fontweight="bold", ha="right", va="bottom")


def against(axes: Axes, x: NDArray, values: Sequence[NDArray], colour: str, label: str | None) -> None:
    """Mean and standard deviation over networks at each position, as points with error bars joined by a line.

    Args:
        axes: Where to draw.
        x: Positions, shape (k,).
        values: The networks' values at each position.
        colour: Colour.
        label: For the legend.
    """
    mean = [float(np.mean(v)) for v in values]
    sd = [float(np.std(v)) for v in values]
    axes.errorbar(x, mean, sd, color=colour, marker="o", markersize=3.0, linewidth=1.0, elinewidth=0.8, label=label)
