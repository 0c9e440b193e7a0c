"""Sup. Fig. 4 on made data: one fit to a network that learns to reach, against the weights that made its activity.

The paper shows the fit to another recording of a monkey. Here it is the recording under the force field (quick: the
rotation). Units of the fit are not those of the network, so only what activity tells is compared: held-out activity,
how activity changed with learning, and when the weights did. Eigenvalues are those of the weights times the mean slope
of tanh after the go cue, for units saturate by different amounts in the network and in the fit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tauflow.analysis import match_factors
from tauflow.analysis.arguments import FloatArray
from tauflow.neural import Fit, condition_means, fit_low_tensor_rank
from tauflow.neural.motor_learning import EPOCHS, MEMBRANE_TIME
from tauflow.papers._drawing import panel_letters
from tauflow.papers.base import Claim, Reproduction
from tauflow.papers.pellegrino2023._reaching import (
    FULL,
    QUICK,
    TASKS,
    compared,
    courses,
    factor_courses,
    learned,
)
from tauflow.papers.pellegrino2023.s3 import draw_scores, scored
from tauflow.plots import house_style, new_figure, sequential
from tauflow.plots.style import BLUE, CYCLE, GREY, INK, ORANGE, PAGE

LEADING = 6
"""True eigenvalues kept of each trial, those of largest real part."""
AXES = 2
"""Principal axes of the activity that are drawn."""


def reproduce(*, quick: bool = False, seed: int = 0, progress: Callable[..., None] | None = None) -> Reproduction:
    """Reproduce Sup. Fig. 4: the rank that cross-validation chooses, and the fit of that rank.

    Args:
        quick: A small recording under a rotation, fitted briefly.
        seed: The number from which all randomness comes.
        progress: Called now and then.

    Returns:
        The reproduction, with data along `rank`, `trial`, `time` and `component`.
    """
    settings = QUICK if quick else FULL
    perturbation = settings.perturbations[-1]
    procedures = ("single entries", "blocks", "whole trials") if quick else ("blocks",)  # quick: those of Sup. Fig. 3
    scores = scored(settings, perturbation, procedures, seed, progress).sel(procedure="blocks", drop=True)
    masks = compared(perturbation, procedures, settings, seed, progress)[1]
    made, rank = learned(perturbation, settings, seed), int(scores["chosen"])
    fit = fit_low_tensor_rank(
        made.recording, rank=rank, units=settings.units, masks=masks[procedures.index("blocks") * settings.masks],
        starts=1, key=jax.random.key(seed + 3), progress=progress, **settings.fit,
    )  # fmt: skip
    W = made.run.data["W"].values[0, :-1].astype(np.float64)  # (trial, n, n)
    data = scores.merge(_against(fit, made.noiseless, W, TASKS[perturbation].go)).assign_attrs(
        perturbation=perturbation
    )
    data = data.assign(score=fit.score(made.recording), limit=float(scores["ceiling"][0]))
    return Reproduction("pellegrino2023", "s4", data, draw(data), claims(data))


def _against(fit: Fit, noiseless: xr.DataArray, W: FloatArray, go: int) -> xr.Dataset:
    """What a fit found, next to what it is of."""
    factors = fit.factors
    a, c, b = (factors[name].values.astype(np.float64) for name in ("columns", "trial_factors", "rows"))
    truth, predicted = noiseless.values.astype(np.float64), fit.predict().values
    true_course, found_course = courses(W.reshape(len(W), -1)), factor_courses(a, c, b)
    match = match_factors([found_course], [true_course])
    found_course = found_course[:, match.order] * match.signs[0]
    slopes = _slopes(fit, truth, go)
    eigenvalues = np.linalg.eigvals(c[:, :, None] * (b.T @ (slopes[1][:, None] * a))[None])  # (trial, R), without zeros
    all_true = np.linalg.eigvals(W * slopes[0])  # (trial, n)
    true = np.take_along_axis(all_true, np.argsort(-all_true.real, axis=1)[:, :LEADING], axis=1)
    centre = truth.mean(axis=(0, 1))
    flat = (truth - centre).reshape(-1, truth.shape[-1])
    basis = np.linalg.eigh(flat.T @ flat)[1][:, ::-1][:, :AXES]  # (neuron, axis)
    values: dict[str, Any] = {
        "truth": (("time", "trial", "neuron"), truth),
        "predicted": (("time", "trial", "neuron"), predicted),
        "seen": (("source", "time", "trial", "axis"), np.stack([(y - centre) @ basis for y in (truth, predicted)])),
        "course": (("source", "trial", "component"), np.stack([true_course, found_course])),
        "strengths": (("trial", "factor"), c),
        "eigenvalues": (("part", "trial", "factor"), np.stack([eigenvalues.real, eigenvalues.imag])),
        "true_eigenvalues": (("part", "trial", "leading"), np.stack([true.real, true.imag])),
        "go": ((), float(go)),
    }
    labels = {name: ("trial", factors[name].values) for name in ("condition", "epoch")}
    return xr.Dataset(values, {"source": ["network", "fit"], "part": ["real", "imaginary"], **labels})


def _slopes(fit: Fit, truth: FloatArray, go: int) -> tuple[FloatArray, FloatArray]:
    """Mean slope of tanh after the go cue of the units of the network, from its rates, and of those of the fit."""
    names = fit.data["conditions"].values.tolist()
    where = np.array([names.index(name) for name in fit.data["condition"].values], np.int32)
    states = np.asarray(fit.network()(where, len(truth)).states, np.float64)
    rates = truth, np.tanh(states)
    own, found = (1 - (each[go:] ** 2).mean(axis=(0, 1)) for each in rates)
    return own, found


def claims(data: xr.Dataset) -> tuple[Claim, ...]:
    """Decide whether the fit found what learning did to the activity and to the weights.

    Args:
        data: As `reproduce` gives it.
    """
    return (_held_out(data), _change(data), _when(data))


def _held_out(data: xr.Dataset) -> Claim:
    score, limit, means = float(data["score"]), float(data["limit"]), float(data["means"][0])
    return Claim(
        "explains_what_was_held_out",
        bool(score > 0.9 * limit and score < limit + 0.01),
        {"rank": float(data["chosen"]), "fit": score, "without noise": limit, "condition means": means},
        "At the rank chosen the fit explains more than 90 % of what can be explained of held-out blocks.",
    )


def learned_share(truth: FloatArray, predicted: FloatArray, conditions: np.ndarray) -> float:
    """Share that a prediction explains of how activity differs from its condition means, from trial to trial.

    Args:
        truth: Activity without noise, shape (time, trial, neuron).
        predicted: Prediction, same shape.
        conditions: Label of each trial.

    Returns:
        1 for the truth, 0 for condition means.
    """
    change, found = (each - condition_means(each, conditions) for each in (truth, predicted))
    return float(1 - ((change - found) ** 2).sum() / (change**2).sum())


def _change(data: xr.Dataset) -> Claim:
    truth, predicted, conditions = (data[name].values for name in ("truth", "predicted", "condition"))
    share = learned_share(truth, predicted, conditions)
    rng, order = np.random.default_rng(0), np.arange(truth.shape[1])
    for name in np.unique(conditions):
        order[conditions == name] = rng.permutation(order[conditions == name])
    mixed = predicted[:, order]
    return Claim(
        "finds_what_learning_changed_in_activity",
        bool(share > 0.5),
        {"fit": share, "its trials mixed within conditions": learned_share(truth, mixed, conditions)},
        "The fit explains more than half of how the noiseless activity differs from its condition means: this is "
        "learning alone, of which condition means explain nothing.",
    )


def _correlation(course: FloatArray) -> float:
    """Centred correlation of the two sources, shape (source, trial)."""
    return float(np.corrcoef(course)[0, 1])


def _when(data: xr.Dataset) -> Claim:
    leading = data["course"].isel(component=0).values
    found = _correlation(leading)
    trials = leading.shape[1]
    shifts = range(trials // 4, trials - trials // 4)
    null = max(abs(_correlation(np.stack([leading[0], np.roll(leading[1], shift)]))) for shift in shifts)
    second = _correlation(data["course"].isel(component=1).values)
    return Claim(
        "finds_when_weights_changed",
        bool(found > 0.9 and found > null),
        {"first course": found, "second": second, "shifted by a quarter or more, largest": null},
        "The leading course of the fitted weights over trials has a centred correlation above 0.9 with that of the "
        "true ones, and more than where it is shifted.",
    )


def draw(data: xr.Dataset) -> Figure:
    """Draw the figure: rank, strengths, courses; eigenvalues, activity over time, and at the go cue."""
    with house_style():
        figure = new_figure(PAGE, 4.4)
        panels = figure.subplots(2, 3)
        draw_scores(panels[0, 0], data, BLUE)
        panels[0, 0].legend(loc="lower right", labelspacing=0.2, fontsize=6)
        _draw_strengths(panels[0, 1], data)
        _draw_course(panels[0, 2], data)
        _draw_eigenvalues(panels[1, 0], data)
        _draw_activity(panels[1, 1], data)
        _draw_states(panels[1, 2], data)
        panel_letters(panels.ravel())
    return figure


def _edges(axes: Axes, data: xr.Dataset) -> None:
    epoch = data["epoch"].values
    for edge in np.flatnonzero(epoch[1:] != epoch[:-1]):
        axes.axvline(edge + 0.5, color=GREY, linewidth=0.6, linestyle=":")
    axes.set_xlabel("trial")


def _draw_strengths(axes: Axes, data: xr.Dataset) -> None:
    for k in range(data.sizes["factor"]):
        axes.plot(data["strengths"].values[:, k], color=CYCLE[k % len(CYCLE)], linewidth=0.9)
    axes.set(ylabel="$c_j$ of the fit")
    _edges(axes, data)


def _draw_course(axes: Axes, data: xr.Dataset) -> None:
    styles = (("network", INK, "-"), ("fit", ORANGE, "--"))
    for source, colour, style in styles:
        values = data["course"].sel(source=source).values
        axes.plot(values[:, 0], style, color=colour, linewidth=1.2, label=source)
    axes.set(ylabel="leading course of W")
    axes.legend(loc="best", labelspacing=0.2, fontsize=6)
    _edges(axes, data)


def _some(data: xr.Dataset, count: int = 12) -> dict[str, np.ndarray]:
    """The last trials of baseline and perturbation, and of washout."""
    return {name: np.flatnonzero(data["epoch"].values == name)[-count:] for name in EPOCHS}


def _draw_eigenvalues(axes: Axes, data: xr.Dataset) -> None:
    for name, colour in zip(EPOCHS, sequential(3), strict=True):
        trials = _some(data)[name]
        for source, variable, marker in (("network", "true_eigenvalues", "o"), ("fit", "eigenvalues", "+")):
            x, y = data[variable].values[:, trials[-1]]
            axes.plot(x, y, marker, color=colour, markersize=4, markerfacecolor="none", label=f"{source}, {name}")
    axes.axvline(1.0, color=GREY, linewidth=0.5)
    axes.set(xlabel="real part", ylabel="imaginary part")
    axes.legend(loc="upper left", fontsize=5, labelspacing=0.1, handletextpad=0.1)
    axes.set_title("eigenvalues at ends of epochs")


def _draw_activity(axes: Axes, data: xr.Dataset) -> None:
    time = 1000 * MEMBRANE_TIME * 0.1 * (np.arange(data.sizes["time"]) + 1 - float(data["go"]))
    condition = data["condition"].values[0]
    for name, colour in zip(EPOCHS[:2], (BLUE, ORANGE), strict=True):
        trials = np.flatnonzero((data["epoch"].values == name) & (data["condition"].values == condition))[-3:]
        for source, style in (("network", "-"), ("fit", "--")):
            values = data["seen"].sel(source=source).values[:, trials].mean(axis=1)  # (time, axis)
            for axis in range(AXES):
                label = f"{source}, {name}" if axis == 0 else None
                axes.plot(time, values[:, axis], style, color=colour, linewidth=1.0, label=label)
    axes.axvline(0.0, color=GREY, linewidth=0.6, linestyle=":")
    axes.set(xlabel="time from go cue (ms)", ylabel="activity on two axes")
    axes.legend(loc="upper left", fontsize=5, labelspacing=0.1)
    axes.set_title(f"target at {condition}°, last of epoch")


def _draw_states(axes: Axes, data: xr.Dataset) -> None:
    at = int(data["go"]) + 9
    for name, colour in zip(EPOCHS[:2], (BLUE, ORANGE), strict=True):
        for condition in np.unique(data["condition"].values):
            trials = np.flatnonzero((data["epoch"].values == name) & (data["condition"].values == condition))[-3:]
            if not trials.size:
                continue
            for source, marker in (("network", "o"), ("fit", "+")):
                x, y = data["seen"].sel(source=source).values[at, trials].mean(axis=0)
                axes.plot(x, y, marker, color=colour, markersize=5, markerfacecolor="none")
    for marker, source in (("o", "network"), ("+", "fit")):
        axes.plot([], [], marker, color=INK, markerfacecolor="none", label=source)
    axes.set(xlabel="axis 1", ylabel="axis 2")
    axes.legend(loc="center", fontsize=5, labelspacing=0.1)
    axes.set_title("100 ms after the go cue")
