"""Sup. Fig. 3 on made data: held-out loss against rank, with single entries, blocks, and whole trials hidden.

The paper shows this for a recording of a monkey. Here the recording is that of the network that learns a rotation, so
that the noise is known and with it how much of a held-out loss nothing could have told.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tauflow.analysis.arguments import FloatArray
from tauflow.neural import condition_means, variance_explained
from tauflow.neural.cross_validation import choose_rank
from tauflow.papers._drawing import panel_letters
from tauflow.papers.base import Claim, Reproduction
from tauflow.papers.pellegrino2023._reaching import (
    FULL,
    PROCEDURES,
    QUICK,
    Settings,
    compared,
    learned,
)
from tauflow.plots import house_style, new_figure
from tauflow.plots.style import BLUE, GREEN, GREY, INK, ORANGE, PAGE, PALE

_MOST = 0.95  # of what the best rank explains
_COLOURS = dict(zip(PROCEDURES, (GREY, BLUE, ORANGE), strict=True))


def reproduce(*, quick: bool = False, seed: int = 0, progress: Callable[..., None] | None = None) -> Reproduction:
    """Reproduce Sup. Fig. 3: three procedures of cross-validation.

    Args:
        quick: A small recording, few ranks, one mask of each procedure.
        seed: The number from which all randomness comes.
        progress: Called now and then.

    Returns:
        The reproduction, with data along `procedure`, `rank` and `mask`.
    """
    data = scored(QUICK if quick else FULL, "rotation", PROCEDURES, seed, progress)
    return Reproduction("pellegrino2023", "s3", data, draw(data), claims(data))


def scored(
    settings: Settings, perturbation: str, procedures: tuple[str, ...], seed: int,
    progress: Callable[..., None] | None = None,
) -> xr.Dataset:  # fmt: skip
    """Held-out and fitted variance explained by fits, condition means, and the activity without noise.

    Args:
        settings: Sizes.
        perturbation: Which recording.
        procedures: Which procedures of cross-validation.
        seed: The number from which all randomness comes.
        progress: Called now and then.

    Returns:
        `explained_test`, `explained_train` and `test_loss (procedure, rank, mask)`, `ceiling` and `means
        (procedure, mask)`, and the rank `chosen (procedure)`.
    """
    made = learned(perturbation, settings, seed)
    found, masks = compared(perturbation, procedures, settings, seed, progress)
    activity, truth = (each.values.astype(np.float64) for each in (made.recording["activity"], made.noiseless))
    conditions = made.recording["condition"].values
    ceiling, means = np.zeros((2, len(masks)))
    for k, mask in enumerate(masks):
        scale = activity.std(axis=(0, 1), where=mask.train)
        at: dict[str, Any] = {"mask": mask.test, "train": mask.train}
        ceiling[k] = variance_explained(activity / scale, truth / scale, **at)
        means[k] = variance_explained(activity / scale, condition_means(truth, conditions) / scale, **at)
    choices = [choose_rank(found.sel(procedure=each)).isel(units=0, drop=True) for each in procedures]
    counted = xr.concat([each["counted"] for each in choices], found["procedure"])
    data = found[["explained_test", "explained_train", "test_loss"]].isel(units=0, drop=True).where(counted)
    shape = (len(procedures), settings.masks)
    data = data.transpose("procedure", "rank", "mask").assign(
        ceiling=(("procedure", "mask"), ceiling.reshape(shape)),
        means=(("procedure", "mask"), means.reshape(shape)),
        chosen=("procedure", np.array([each["chosen"] for each in choices], np.float64)),
    )
    return data.assign_coords(procedure=list(procedures))


def claims(data: xr.Dataset) -> tuple[Claim, ...]:
    """Decide whether single entries tell about each other, and what the procedures choose.

    Args:
        data: As `reproduce` gives it.
    """
    return (_leak(data), _fall_short(data), _more_than_one(data), _agree(data))


def _gap(data: xr.Dataset) -> FloatArray:
    """Variance explained of what was fitted less that of what was held out, at the largest rank, by procedure."""
    last = data.isel(rank=-1)
    return np.asarray((last["explained_train"] - last["explained_test"]).mean("mask").values)


def _by_procedure(data: xr.Dataset, values: Any, what: str = "") -> dict[str, float]:
    return {what + str(name): float(value) for name, value in zip(data["procedure"].values, values, strict=True)}


def _leak(data: xr.Dataset) -> Claim:
    gap = _gap(data)
    return Claim(
        "single_entries_test_what_was_fitted",
        bool(abs(gap[0]) < 0.02 and data["explained_train"].isel(rank=-1).min() > 0.5),
        _by_procedure(data, gap),
        "Single entries held out are predicted as well as those fitted, to 2 % of the variance (variance explained of "
        "fitted entries less that of held-out ones, largest rank).",
    )


def _fall_short(data: xr.Dataset) -> Claim:
    last = data.isel(rank=-1)
    gap = _gap(data)
    short = (last["ceiling"] - last["explained_test"]).mean("mask").values
    return Claim(
        "whole_trials_are_hardest",
        bool(gap[2] > gap[1] and gap[2] > 2 * abs(gap[0]) and short[2] > max(short[:2])),
        _by_procedure(data, short, "left, ") | _by_procedure(data, gap, "fitted less held out, "),
        "Whole trials held out are predicted worse than blocks and single entries (how much the noiseless activity "
        "would explain more, largest rank), also against what was fitted, where single entries are less than "
        "half as far off.",
    )


def _more_than_one(data: xr.Dataset) -> Claim:
    share = (data["explained_test"] / data["ceiling"]).mean("mask").values  # (procedure, rank)
    means = (data["means"] / data["ceiling"]).mean("mask").values
    best = np.nanmax(share, axis=1)
    return Claim(
        "few_components_suffice_and_one_does_not",
        bool((share[:, 0] < 0.8 * best).all() and best.min() > 0.85),
        _by_procedure(data, share[:, 0], "one, ")
        | _by_procedure(data, best, "best, ")
        | _by_procedure(data, means, "condition means, "),
        "The best rank explains more than 85 % of what can be explained of held-out entries by each procedure, one "
        "component less than 80 % of that.",
    )


def _agree(data: xr.Dataset) -> Claim:
    explained, rank = data["explained_test"].mean("mask").values, data["rank"].values  # (procedure, rank)
    enough = np.argmax(
        explained >= _MOST * np.nanmax(explained, axis=1, keepdims=True), axis=1
    )  # position, by procedure
    return Claim(
        "blocks_and_whole_trials_need_as_many_components",
        bool(abs(enough[1] - enough[2]) <= 1 and enough.min() >= 1),
        _by_procedure(data, rank[enough]) | _by_procedure(data, data["chosen"].values, "chosen, "),
        "Blocks and whole trials need the same number of components for 95 % of the held-out variance that their best "
        "rank explains, or neighbours among those tried; one is never enough.",
    )


def draw(data: xr.Dataset) -> Figure:
    """Draw the figure: held-out and fitted variance against rank."""
    with house_style():
        figure = new_figure(PAGE, 2.6)
        panels = figure.subplots(1, 3, sharey=True)
        for axes, name in zip(panels, data["procedure"].values, strict=True):
            draw_scores(axes, data.sel(procedure=name), _COLOURS[str(name)])
            axes.set_title(str(name))
        panels[0].legend(loc="lower right", labelspacing=0.2, fontsize=6)
        for axes in panels[1:]:
            axes.set_ylabel("")
        panel_letters(panels)
    return figure


def draw_scores(axes: Axes, data: xr.Dataset, colour: str) -> None:
    """Draw variance explained against rank, with the ceiling, what condition means explain, and the rank chosen.

    Args:
        axes: Where to draw.
        data: As `scored` gives it, of one procedure.
        colour: Colour of held-out variance.
    """
    rank = data["rank"].values
    axes.axhline(float(data["ceiling"].mean()), color=INK, linewidth=0.7, linestyle="--", label="without noise")
    axes.axhline(float(data["means"].mean()), color=GREEN, linewidth=0.7, linestyle=":", label="condition means")
    axes.plot(rank, data["explained_train"].mean("mask"), "o-", color=PALE, markersize=2.5, label="fitted")
    axes.plot(rank, data["explained_test"].mean("mask"), "o-", color=colour, markersize=2.5, label="held out")
    for k in range(data.sizes["mask"]):
        axes.plot(rank, data["explained_test"].isel(mask=k), ".", color=colour, markersize=2)
    axes.axvline(float(data["chosen"]), color=colour, linewidth=0.6, linestyle=":")
    axes.set(xlabel="rank", ylabel="variance explained", ylim=(0, 1.02))
