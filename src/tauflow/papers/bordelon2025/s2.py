"""Fig. S2: lazy learning of an oscillator: still eigenvalues, and losses with the lazy theory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import jax
import xarray as xr
from matplotlib.figure import Figure

from tauflow.papers._drawing import panel_letters
from tauflow.papers.base import Claim, Reproduction
from tauflow.papers.bordelon2025 import _lazy as lazy
from tauflow.plots import house_style, new_figure
from tauflow.plots.style import PAGE
from tauflow.tasks import DampedOscillator

TARGET = DampedOscillator(0.25, 0.5)
SPECTRUM_SIGMA = 0.95
"""Above |1 - c* + iω*| = 0.90, so that the target's pair lies in the disk."""


@dataclass(frozen=True)
class Settings:
    """Networks of each panel.

    Attributes:
        small: Number of units in the panel of eigenvalues.
        large: Number of units in the panel of losses.
        networks: (sigma, number of networks) of the losses.
    """

    small: int
    large: int
    networks: tuple[tuple[float, int], ...]


FULL = Settings(250, 4000, ((0.7, 1), (0.8, 3), (0.9, 1), (0.93, 1)))
QUICK = Settings(100, 100, ((0.5, 1), (0.6, 3), (0.7, 1)))


def reproduce(*, quick: bool = False, seed: int = 0, progress: Callable[..., None] | None = None) -> Reproduction:
    """Reproduce Fig. S2: eigenvalues and losses of networks that learn a damped oscillation lazily.

    Args:
        quick: A small version of seconds, with 100 neurons.
        seed: The number from which all randomness comes.
        progress: Called now and then with a `tauflow.learning.Progress`.

    Returns:
        The reproduction, with data along `measurement`, `network` and `time`.
    """
    settings = QUICK if quick else FULL
    keys = jax.random.split(jax.random.key(seed))
    spectra = lazy.spectra(settings.small, SPECTRUM_SIGMA, TARGET, key=keys[0], progress=progress)
    training = lazy.LazyTraining(settings.large, TARGET, settings.networks)
    data = xr.merge([spectra, training.train(key=keys[1], progress=progress)], compat="equals", join="exact")
    return Reproduction("bordelon2025", "s2", data, draw(data), claims(data))


def claims(data: xr.Dataset) -> tuple[Claim, ...]:
    """Decide whether eigenvalues stay and losses follow the theory.

    Args:
        data: As `reproduce` gives it.
    """
    return (lazy.still_spectrum(data), *lazy.lazy_claims(data))


def draw(data: xr.Dataset) -> Figure:
    """Draw the figure: eigenvalues and losses."""
    with house_style():
        figure = new_figure(PAGE, 2.8)
        panels = figure.subplots(1, 2)
        pair = [1 - TARGET.c + turn * 1j * TARGET.omega for turn in (1, -1)]
        lazy.draw_spectra(panels[0], data, pair)
        lazy.draw_losses(panels[1], data)
        title = f"N = {int(data['neurons'][0])}, c* = {TARGET.c:g}, ω* = {TARGET.omega:g}"
        panels[1].set_title(title, fontsize=8)
        panels[1].legend(loc="lower left", labelspacing=0.3)
        panel_letters(panels)
    return figure
