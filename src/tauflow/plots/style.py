"""The one house style: colours told apart by everyone, sizes for print, applied only inside a `with`.

Colours follow Okabe and Ito's set for colour-blind readers, darkened where needed to be legible as lines on white.
The report takes its colours from here too, so that a curve looks the same on paper and on the page.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib import colormaps
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.rcsetup import cycler

from tauflow.run import write_atomic_bytes

COLUMN = 3.5
"""Width of one journal column, in inches (89 mm)."""

PAGE = 7.2
"""Width of a full journal page, in inches (183 mm)."""

INK = "#1f2430"
GREY = "#6b7280"
PALE = "#c3c8d0"
BLUE = "#0072b2"
ORANGE = "#d55e00"
GREEN = "#00805e"
PURPLE = "#9b4f86"
SKY = "#3f9fd0"
OCHRE = "#b07a00"
CYCLE = (BLUE, ORANGE, GREEN, PURPLE, SKY, OCHRE)
"""Colours of channels, tasks and other things without an order."""

WEIGHT_CHANGE = BLUE
WEIGHTS = ORANGE
THEORY = INK
TARGET = INK

STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 8.0,
    "mathtext.fontset": "dejavusans",
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": GREY,
    "axes.titlesize": 8.5,
    "axes.titleweight": "normal",
    "axes.titlelocation": "left",
    "axes.labelsize": 8.0,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": cycler("color", list(CYCLE)),
    "axes.formatter.useoffset": False,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 7.0,
    "ytick.labelsize": 7.0,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "xtick.minor.width": 0.5,
    "ytick.minor.width": 0.5,
    "xtick.major.size": 3.0,
    "ytick.major.size": 3.0,
    "xtick.minor.size": 1.6,
    "ytick.minor.size": 1.6,
    "lines.linewidth": 1.3,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
    "legend.fontsize": 7.0,
    "legend.handlelength": 1.8,
    "figure.facecolor": "white",
    "figure.dpi": 120.0,
    "savefig.facecolor": "white",
    "figure.constrained_layout.use": True,
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
}


@contextmanager
def house_style() -> Iterator[None]:
    """Draw in the house style inside the `with`, and leave matplotlib's settings as they were after it.

    Example:
        >>> import matplotlib
        >>> before = matplotlib.rcParams["font.size"]
        >>> with house_style():
        ...     inside = matplotlib.rcParams["font.size"]
        >>> inside, matplotlib.rcParams["font.size"] == before
        (8.0, True)
    """
    with matplotlib.rc_context(rc=STYLE):
        yield


def new_figure(width: float = COLUMN, height: float | None = None) -> Figure:
    """An empty figure for print; it belongs to no window and no global state.

    Call it, and draw, inside `house_style()`.

    Args:
        width: Width in inches, usually `COLUMN` or `PAGE`.
        height: Height in inches; 0.72 of the width when not given.

    Returns:
        The figure, with constrained layout.

    Example:
        >>> with house_style():
        ...     figure = new_figure(PAGE, 2.0)
        >>> [float(round(inches, 2)) for inches in figure.get_size_inches()]
        [7.2, 2.0]
    """
    return Figure(figsize=(width, 0.72 * width if height is None else height), layout="constrained")


def sequential(count: int) -> list[str]:
    """Colours for things in an order (ranks, gains), dark to light, each still legible on white.

    Args:
        count: How many, at least 0.

    Returns:
        Hex colours, first the darkest.

    Example:
        >>> len(sequential(4)), sequential(0)
        (4, [])
    """
    return [to_hex(colormaps["viridis"](x)) for x in np.linspace(0.05, 0.78, count)]


def save_figure(figure: Figure, path: str | os.PathLike[str], *, dpi: int = 200) -> Path:
    """Write a figure to a file in one step: after a crash it is the old file or the new one.

    Args:
        figure: The figure.
        path: File to write; its ending says the format (.png, .pdf, .svg). Missing folders above it are made.
        dpi: Dots per inch, for a raster format.

    Returns:
        The path.

    Raises:
        ValueError: If the file cannot be written or its ending is none that matplotlib knows.
    """
    path = Path(path)
    form = path.suffix.removeprefix(".").lower()
    if form not in figure.canvas.get_supported_filetypes():
        raise ValueError(f"{path.name} ends in {path.suffix!r}; a figure's file must end in .png, .pdf or .svg.")
    buffer = io.BytesIO()
    with house_style():
        figure.savefig(buffer, format=form, dpi=dpi)
    return write_atomic_bytes(path, buffer.getvalue())
