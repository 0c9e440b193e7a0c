"""The motor network: reaches under a perturbation, and of which rank the change of the weights is that learns them.

What the main text shows of it is known here from supplement C alone. Networks differ from the paper's as
`tauflow.neural.motor_learning` says: time to settle, a heavier weight on holding still, a rotation of 60 degrees.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tauflow.analysis import explained_by_rank, parafac, unfolding_explained, variance_explained
from tauflow.analysis.arguments import FloatArray
from tauflow.neural import condition_means
from tauflow.neural.motor_learning import EPOCHS, MotorLearning
from tauflow.papers._drawing import panel_letters
from tauflow.papers.base import Claim, Reproduction
from tauflow.papers.pellegrino2023._reaching import FULL, QUICK, TASKS, learned
from tauflow.plots import house_style, new_figure
from tauflow.plots.style import BLUE, GREEN, GREY, INK, ORANGE, PAGE, PURPLE, SKY

COMPONENTS = 8
"""Largest number of components, and the bound on the rank found."""
SHOWN = 3
"""Components whose course over trials is drawn."""
SOME = 8
"""Trials over which the beginnings of epochs are averaged."""


def reproduce(*, quick: bool = False, seed: int = 0, progress: Callable[..., None] | None = None) -> Reproduction:
    """Reproduce what supplement C says: behaviour over trials, and the rank of what the weights learn.

    Args:
        quick: A small network under a rotation alone.
        seed: The number from which all randomness comes.
        progress: Not used.

    Returns:
        The reproduction, with data along `perturbation`, `trial` and `components`.
    """
    settings = QUICK if quick else FULL
    parts = [_measured(learned(name, settings, seed), name, seed) for name in settings.perturbations]
    data = xr.concat(parts, dim="perturbation").assign_coords(perturbation=list(settings.perturbations))
    return Reproduction("pellegrino2023", "motor", data, draw(data), claims(data))


def _measured(found: MotorLearning, name: str, seed: int) -> xr.Dataset:
    """What is drawn and judged of one network."""
    task, behaviour = TASKS[name], found.behaviour
    epoch = behaviour["epoch"].values
    W = found.run.data["W"].values[0].astype(np.float64)  # (snapshot, n, n)
    W0 = found.pretraining.data["W"].values[0, 0].astype(np.float64)
    here = np.flatnonzero(epoch == "perturbation")
    change = W[here + 1] - W[here[0]]
    ranks = range(1, COMPONENTS + 1)
    every = parafac(W[1:] - W[0], SHOWN, key=seed, repeats=2)
    unfolded = np.stack([each[:COMPONENTS] for each in unfolding_explained(change)])
    quiet = found.noiseless.values.astype(np.float64)
    means = condition_means(quiet, behaviour["condition"].values)
    before = np.linalg.svd(W[0] - W0, compute_uv=False)
    values: dict[str, Any] = {
        "cursor": (("time", "trial", "axis"), behaviour["cursor"].values),
        "error": ("trial", behaviour["direction_error"].values),
        "held": ("trial", np.linalg.norm(behaviour["cursor"].values[task.go - 1], axis=1)),
        "end": ("trial", np.linalg.norm(behaviour["cursor"].values[-1], axis=1)),
        "push": ((), 1.0 if name == "force field" or task.angle > 0 else -1.0),
        "pretraining": ("components", variance_explained(before)[:COMPONENTS]),
        "parafac": ("components", explained_by_rank(change, ranks, key=seed, repeats=2)),
        "unfolded": (("unfolding", "components"), unfolded),
        "course": (("trial", "component"), every.factors[0] * every.weights),
        "size": (("stage",), np.array([np.linalg.norm(each) for each in (W[0] - W0, change[-1])])),
        "condition_share": (("period",), np.array([_share(quiet, means), _share(quiet[task.go :], means[task.go :])])),
    }
    coordinates = {
        "epoch": ("trial", epoch),
        "condition": ("trial", behaviour["condition"].values.astype(np.float64)),
        "components": np.arange(1, COMPONENTS + 1),
        "unfolding": ["trials", "columns", "rows"],
        "stage": ["pretraining", "perturbation"],
        "period": ["all", "after the go cue"],
    }
    return xr.Dataset(values, coordinates)


def _share(activity: FloatArray, means: FloatArray) -> float:
    """Share of the variance of activity over time and trials that its condition means explain."""
    return float(1 - ((activity - means) ** 2).sum() / ((activity - activity.mean(axis=(0, 1))) ** 2).sum())


def claims(data: xr.Dataset) -> tuple[Claim, ...]:
    """Decide whether the network learns as supplement C says, and by a change of low rank.

    Args:
        data: As `reproduce` gives it.
    """
    return (_reaches(data), _holds(data), _adapts(data), _after(data), _visible(data), _sizes(data), _low(data))


def _errors(data: xr.Dataset, epoch: str, part: slice) -> FloatArray:
    """Mean error in the direction of the perturbation's push, in degrees, over some trials of an epoch."""
    along = (data["push"] * data["error"]).transpose("perturbation", "trial").values
    return np.asarray(along[:, data["epoch"].values == epoch][:, part].mean(axis=1))


def _named(data: xr.Dataset, **values: FloatArray) -> dict[str, float]:
    names = data["perturbation"].values
    return {
        f"{what.replace('_', ' ')}, {name}": float(value)
        for what, each in values.items()
        for name, value in zip(names, np.atleast_1d(each), strict=True)
    }


def _reaches(data: xr.Dataset) -> Claim:
    base = data.isel(trial=data["epoch"].values == "baseline")
    error = np.sqrt((base["error"] ** 2).mean("trial").values)
    end = base["end"].mean("trial").values
    return Claim(
        "reaches_before_the_perturbation",
        bool(error.max() < 8 and (abs(end - 1) < 0.25).all()),
        _named(data, error=error, distance_reached=end),
        "Before the perturbation the network reaches: its root mean squared error is below 8 degrees, and the cursor "
        "ends within a quarter of the way from the target.",
    )


def _holds(data: xr.Dataset) -> Claim:
    held = data["held"].mean("trial").values
    return Claim(
        "holds_until_the_cue",
        bool(held.max() < 0.2 and data["end"].mean() > 0.7),
        _named(data, at_the_cue=held),
        "At the go cue the cursor has gone less than a fifth of the way, over all trials.",
    )


def _adapts(data: xr.Dataset) -> Claim:
    first, last = _errors(data, "perturbation", slice(SOME)), _errors(data, "perturbation", slice(-2 * SOME, None))
    return Claim(
        "adapts",
        bool(first.min() > 20 and (np.abs(last) < first / 3).all()),
        _named(data, first=first, last=last),
        "The perturbation turns reaches by more than 20 degrees at first (8 trials), in its own direction, and by less "
        "than a third of that in the end (16 trials).",
    )


def _after(data: xr.Dataset) -> Claim:
    first, after = _errors(data, "perturbation", slice(SOME)), _errors(data, "washout", slice(SOME // 2))
    end = _errors(data, "washout", slice(-SOME, None))
    return Claim(
        "after_effect_washes_out",
        bool((after < -first / 3).all() and (np.abs(end) < np.abs(after) / 2).all()),
        _named(data, after=after, end=end),
        "When the perturbation ends, reaches err to the other side (4 trials) by more than a third of what it did, "
        "and by less than half of that in the end (8 trials).",
    )


def _visible(data: xr.Dataset) -> Claim:
    share = data["condition_share"].transpose("perturbation", "period").values
    return Claim(
        "learning_shows_in_activity",
        bool(share[:, 1].max() < 0.95 and share.min() > 0.5),
        _named(data, all_bins=share[:, 0], after_the_cue=share[:, 1]),
        "Condition means explain less than 95 % of the activity after the go cue, without its noise: the rest is "
        "what learning changed.",
    )


def _sizes(data: xr.Dataset) -> Claim:
    size = data["size"].transpose("perturbation", "stage").values
    ratio = size[:, 0] / size[:, 1]
    return Claim(
        "pretraining_changes_more",
        bool(ratio.min() > 1),
        _named(data, ratio=ratio),
        "Weights change more in learning to reach than in learning the perturbation.",
    )


def needed(explained: FloatArray, share: float = 0.95) -> FloatArray:
    """The smallest number of components that explains a share, infinite where none does.

    Args:
        explained: Share explained by 1, 2, ... components, shape (..., components).
        share: The share.

    Returns:
        Shape (...).
    """
    above = explained > share
    return np.where(above.any(axis=-1), 1.0 + above.argmax(axis=-1), np.inf)


def _low(data: xr.Dataset) -> Claim:
    axes = ("perturbation", "components")
    components = data["parafac"].transpose(*axes).values
    worst = data["unfolded"].min("unfolding").transpose(*axes).values
    rank, before = needed(components), data["pretraining"].transpose(*axes).values[:, 2]
    return Claim(
        "change_has_low_tensor_rank",
        bool(rank.max() <= COMPONENTS and rank.min() >= 2 and (components <= worst + 1e-9).all()),
        _named(data, rank=rank, with_2=components[:, 1], with_5=components[:, 4], pretraining_with_3=before),
        "2 to 8 components hold 95 % of the change of the weights under the perturbation, and no decomposition "
        "exceeds the worst unfolding.",
    )


def draw(data: xr.Dataset) -> Figure:
    """Draw the figure: one row for each perturbation."""
    count = data.sizes["perturbation"]
    with house_style():
        figure = new_figure(PAGE, 0.3 + 1.75 * count)
        panels = figure.subplots(count, 4, squeeze=False)
        for k, row in enumerate(panels):
            one = data.isel(perturbation=k)
            for axes, column in zip(row, (_draw_reaches, _draw_error, _draw_ranks, _draw_courses), strict=True):
                column(axes, one)
                if k:
                    axes.set_title("")
            row[1].set_title(str(one["perturbation"].values))
        panel_letters(panels[0])
    return figure


def _draw_reaches(axes: Axes, data: xr.Dataset) -> None:
    epoch, conditions = data["epoch"].values, data["condition"].values
    shown = ((EPOCHS[0], slice(None), GREY), (EPOCHS[1], slice(SOME), ORANGE), (EPOCHS[2], slice(SOME), BLUE))
    for name, part, colour in shown:
        trials = np.flatnonzero(epoch == name)[part]
        _, first = np.unique(conditions[trials], return_index=True)
        for k, trial in enumerate(trials[first]):
            x, y = data["cursor"].values[:, trial].T
            axes.plot(x, y, color=colour, linewidth=0.8, label=name if k == 0 else None)
    angles = np.deg2rad(np.unique(conditions))
    axes.plot(np.cos(angles), np.sin(angles), "o", color=INK, markersize=3, markerfacecolor="none")
    axes.set(xlim=(-1.7, 1.7), ylim=(-1.7, 1.7), aspect="equal", xlabel="right", ylabel="up")
    axes.set_title("first reaches")


def _draw_error(axes: Axes, data: xr.Dataset) -> None:
    epoch = data["epoch"].values
    for name, colour in zip(EPOCHS, (GREY, ORANGE, BLUE), strict=True):
        here = np.flatnonzero(epoch == name)
        axes.plot(here, data["error"].values[here], "o", color=colour, markersize=1.6, label=name)
    axes.axhline(0.0, color=INK, linewidth=0.5)
    axes.set(xlabel="trial", ylabel="error (degrees)")
    axes.legend(loc="upper right", labelspacing=0.1, fontsize=5.5, handletextpad=0.1)


def _draw_ranks(axes: Axes, data: xr.Dataset) -> None:
    x = data["components"].values
    axes.plot(x, 1 - data["pretraining"], "s--", color=GREY, markersize=2, linewidth=0.8, label="pretraining, SVD")
    for name, colour in zip(data["unfolding"].values, (GREEN, SKY, PURPLE), strict=True):
        left = 1 - data["unfolded"].sel(unfolding=name)
        axes.plot(x, left, "o-", color=colour, markersize=2, linewidth=0.8, label=f"unfolding: {name}")
    axes.plot(x, 1 - data["parafac"], "o-", color=INK, markersize=2, linewidth=0.9, label="PARAFAC")
    axes.axhline(0.05, color=GREY, linewidth=0.5, linestyle=":")
    axes.set(yscale="log", xlabel="rank", ylabel="unexplained share", ylim=(3e-4, 8))
    axes.legend(loc="upper right", labelspacing=0.1, fontsize=5, handletextpad=0.2)
    axes.set_title("change of weights")


def _draw_courses(axes: Axes, data: xr.Dataset) -> None:
    for k, colour in enumerate((BLUE, ORANGE, GREEN)):
        axes.plot(data["course"].values[:, k], color=colour, linewidth=1.0)
    for edge in np.flatnonzero(np.diff(np.unique(data["epoch"].values, return_inverse=True)[1])):
        axes.axvline(edge + 0.5, color=GREY, linewidth=0.6, linestyle=":")
    axes.axhline(0.0, color=INK, linewidth=0.5)
    axes.set(xlabel="trial", ylabel="strength")
    axes.set_title("components")
