"""What reproducing a figure gives: its data, its picture, and claims that say whether it came out as published."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure as Picture


@dataclass(frozen=True)
class Claim:
    """One statement of a paper, and whether the data bear it out.

    Attributes:
        name: Short name, unique within a figure, for example "loss_below_5_percent".
        holds: Whether it is so.
        measured: The numbers on which that was decided, by name.
        sentence: The claim in words, with what decides it.

    Example:
        >>> print(Claim("small", True, {"size": 0.25}, "The thing is smaller than 1."))
        holds: The thing is smaller than 1. (size 0.25)
    """

    name: str
    holds: bool
    measured: Mapping[str, float | str]
    sentence: str

    def __str__(self) -> str:
        numbers = ", ".join(
            f"{name} {value if isinstance(value, str) else format(value, '.3g')}"
            for name, value in self.measured.items()
        )
        return f"{'holds' if self.holds else 'DOES NOT HOLD'}: {self.sentence} ({numbers})"


@dataclass(frozen=True)
class Reproduction:
    """A reproduced figure.

    Attributes:
        paper: Short name of the paper.
        figure: Name of the figure, for example "fig1".
        data: Everything that is drawn, labelled.
        plot: The picture.
        claims: What the figure is to show, decided from `data`.
    """

    paper: str
    figure: str
    data: xr.Dataset
    plot: Picture
    claims: tuple[Claim, ...]

    @property
    def holds(self) -> bool:
        """Whether every claim holds."""
        return all(claim.holds for claim in self.claims)


@dataclass(frozen=True)
class Figure:
    """A figure that can be reproduced.

    Attributes:
        module: The module with its `reproduce` function; imported when it is asked for.
        description: What it shows, in one line.
    """

    module: str
    description: str

    @property
    def function(self) -> Callable[..., Reproduction]:
        """`reproduce(*, quick=False, seed=0, progress=None) -> Reproduction`."""
        found: Any = importlib.import_module(self.module)
        return found.reproduce


@dataclass(frozen=True)
class Paper:
    """A paper and its figures.

    Attributes:
        name: Short name.
        title: Title of the paper.
        citation: Authors, venue and year.
        figures: The figures by name.
    """

    name: str
    title: str
    citation: str
    figures: Mapping[str, Figure]
