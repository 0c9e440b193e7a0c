"""The frame that all pages share: one HTML file that opens offline, with everything in it and nothing loaded."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from importlib import resources
from typing import Any, NamedTuple

from tauflow.plots import report_data


class Section(NamedTuple):
    """A part of a page.

    Attributes:
        id: Its anchor.
        name: In the navigation.
        heading: Above it.
        text: Paragraphs, as HTML.
        body: What it shows, as HTML.
    """

    id: str
    name: str
    heading: str
    text: str
    body: str


def fill_page(
    sections: Sequence[Section],
    content: Any,
    script: str,
    *,
    title: str,
    lead: str,
    notice: str = "",
    tiles: str = "",
    chooser: str = "",
) -> str:
    """The page as text.

    Args:
        sections: Its parts, in order.
        content: What the script draws, as plain values for JSON.
        script: Name of the script that draws, which finds what common.js offers in `tauflow`.
        title: Heading, plain text.
        lead: A sentence below it, plain text.
        notice: HTML of a warning, if any.
        tiles: HTML of the key numbers, see `tiles`.
        chooser: HTML beside the navigation.
    """
    from plotly.offline import get_plotlyjs  # half a second that only a page needs

    return _fill(
        _part("page.html"),
        title=escape(title),
        style=_part("style.css"),
        lead=escape(lead),
        notice=notice,
        tiles=tiles,
        chooser=chooser,
        first=sections[0].id,
        navigation="".join(f'<a href="#{each.id}">{each.name}</a>' for each in sections),
        sections="".join(
            f'<section id="{each.id}" aria-labelledby="{each.id}-title"><h2 id="{each.id}-title">{each.heading}</h2>'
            f"{each.text}{each.body}</section>"
            for each in sections
        ),
        data=report_data.to_script(content),
        plotly=get_plotlyjs(),
        common=_part("common.js"),
        script=_part(script),
    )


def _part(name: str) -> str:
    return (resources.files("tauflow.plots") / "report_template" / name).read_text(encoding="utf-8")


def _fill(template: str, **parts: str) -> str:
    """Put each part in its place, once: nothing inside a part is taken for a place."""
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], template)


def tiles(cells: Sequence[tuple[str, str, str]], caption: str) -> str:
    """Key numbers: name, value and note of each, as HTML.

    Example:
        >>> tiles([("Rank", "3", "chosen")], "Key numbers")
        '<dl class="tiles" aria-label="Key numbers"><div><dt>Rank</dt><dd>3<small>chosen</small></dd></div></dl>'
    """
    inside = "".join(f"<div><dt>{n}</dt><dd>{value}<small>{note}</small></dd></div>" for n, value, note in cells)
    return f'<dl class="tiles" aria-label="{caption}">{inside}</dl>' if cells else ""


def plot(name: str, label: str, size: str = "") -> str:
    """The place of a plot, which the script finds as `plot-<name>`; `label` is what a screen reader says."""
    return f'<div id="plot-{name}" class="plot {size}" role="img" aria-label="{escape(label)}"></div>'


def figure(name: str, heading: str, caption: str, *, size: str = "", wide: bool = False) -> str:
    """A plot with its heading and caption."""
    kind = ' class="wide"' if wide else ""
    head = f"<figcaption><h3>{heading}</h3>{caption}</figcaption>"
    return f"<figure{kind}>{head}{plot(name, heading, size)}</figure>"


def slider(label: str, count: int, readouts: str) -> str:
    """The control of a position in learning, at its end, with what it says below."""
    return (
        f'<div class="control"><label for="slider">{label}</label>'
        f'<input type="range" id="slider" min="0" max="{count - 1}" value="{count - 1}" step="1">'
        '<button type="button" id="play">Play</button>'
        f'<p class="readout"><b id="slider-value"></b>{readouts}'
        '<span id="slider-note" class="bad" aria-live="polite"></span></p></div>'
    )
