"""Sup. Fig. 5 on made data: counts of spikes of a known network, fitted by Poisson likelihood and by squared errors.

The network is one of low tensor rank, so that its strengths over trials can be compared with those found. Neurons fire
at very different rates, which squared errors make equal by scaling and a likelihood does not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tauflow.analysis import match_factors
from tauflow.analysis.arguments import FloatArray
from tauflow.networks import LowTensorRankRNN
from tauflow.neural import block_masks, fit_low_tensor_rank, recording, variance_explained
from tauflow.papers._drawing import panel_letters
from tauflow.papers.base import Claim, Reproduction
from tauflow.plots import house_style, new_figure
from tauflow.plots.style import BLUE, GREY, INK, ORANGE, PAGE

LOSSES = ("poisson", "mse")
BIN = 0.02  # s
_LEAST = 1e-3  # spikes per bin: squared errors know no positive rates


@dataclass(frozen=True)
class Settings:
    """Sizes.

    Attributes:
        trials: Number of trials.
        neurons: Number of neurons.
        bins: Bins of a trial.
        rank: Number of components, of the truth and of the fits.
        units: Units of the truth and of the fits.
        steps: Updates of the fits.
        rate: Typical number of spikes per bin.
        conditions: Number of conditions.
        starts: Starts that each fit tries, with a fifth of the updates each: some get stuck.
    """

    trials: int
    neurons: int
    bins: int
    rank: int
    units: int
    steps: int
    rate: float
    starts: int = 1
    conditions: int = 4


FULL = Settings(120, 80, 50, 3, 80, 1000, 0.4, starts=8)
QUICK = Settings(48, 30, 30, 2, 30, 300, 1.0)


def reproduce(*, quick: bool = False, seed: int = 0, progress: Callable[..., None] | None = None) -> Reproduction:
    """Reproduce Sup. Fig. 5: two fits to the same counts.

    Args:
        quick: A small recording of two components, fitted briefly.
        seed: The number from which all randomness comes.
        progress: Called now and then.

    Returns:
        The reproduction, with data along `loss`, `trial`, `time`, `neuron` and `factor`.
    """
    settings = QUICK if quick else FULL
    rng = np.random.default_rng(seed)
    network, which = known_network(settings, rng)
    rates = np.asarray(network(which, settings.bins).outputs, np.float64)
    counts = rng.poisson(rates)
    made = recording(
        counts, kind="spikes", time=BIN * (np.arange(settings.bins) + 0.5), condition=[f"{k}" for k in which],
        source="made",
    )  # fmt: skip
    sizes = {str(name): size for name, size in made.sizes.items()}
    masks = block_masks(sizes, {"time": 6, "trial": 8}, {"time": 2, "trial": 4}, key=jax.random.key(seed))
    truth = np.asarray(network.trial_factors, np.float64)
    found = []
    for loss in LOSSES:
        fit = fit_low_tensor_rank(
            made, rank=settings.rank, units=settings.units, loss=loss, masks=masks, starts=settings.starts,
            key=jax.random.key(seed + 1), steps=settings.steps, tolerance=1e-9, every=50, progress=progress,
        )  # fmt: skip
        found.append((fit.predict().values, fit.factors["trial_factors"].values.astype(np.float64)))
    values: dict[str, Any] = {
        "counts": (("time", "trial", "neuron"), counts),
        "rates": (("time", "trial", "neuron"), rates),
        "predicted": (("loss", "time", "trial", "neuron"), np.stack([each for each, _ in found])),
        "held_out": (("time", "trial", "neuron"), masks.test),
        "fitted": (("time", "trial", "neuron"), masks.train),
        "truth": (("trial", "factor"), truth),
        "strengths": (("loss", "trial", "factor"), np.stack([each for _, each in found])),
        "condition": ("trial", which),
    }
    data = xr.Dataset(values, {"loss": list(LOSSES)})
    return Reproduction("pellegrino2023", "s5", data, draw(data), claims(data))


def known_network(settings: Settings, rng: np.random.Generator) -> tuple[LowTensorRankRNN, np.ndarray]:
    """A network whose learning shows, with rates of spikes as outputs, and the condition of each trial.

    Args:
        settings: Sizes.
        rng: Random numbers.
    """
    n, rank, trials = settings.units, settings.rank, settings.trials
    k = np.arange(trials) / trials
    rises = np.stack([1 / (1 + np.exp(-12 * (k - 0.4))), np.exp(-3 * k), 0.5 + 0.5 * np.sin(2 * np.pi * k)], axis=1)
    a = rng.standard_normal((n, rank))
    turn = 0.7 * rng.standard_normal((rank, rank))  # overlaps of rows and columns: the network turns and grows
    b = a @ (np.eye(rank) + turn - turn.T) + 0.3 * rng.standard_normal((n, rank))
    neurons = settings.neurons
    typical = settings.rate * np.exp(0.7 * rng.standard_normal(neurons))  # spikes per bin
    arrays = {
        "a": a, "b": b, "c_latent": 2.0 * (0.2 + 1.6 * rises[:, :rank]), "c_offset": np.zeros(rank),
        "smoothing": np.eye(trials), "z0": 2 * np.sqrt(n / rank) * rng.uniform(-1, 1, (settings.conditions, rank)),
        "W_out": 2.5 * rng.standard_normal((neurons, n)) / np.sqrt(n), "bias": np.log(np.expm1(typical)),
    }  # fmt: skip
    given = {name: jnp.asarray(value, jnp.float32) for name, value in arrays.items()}
    network = LowTensorRankRNN(**given, alpha=BIN / 0.1, output="softplus")
    return network, np.arange(trials) % settings.conditions


def deviance_explained(counts: FloatArray, rates: FloatArray, held_out: np.ndarray, fitted: np.ndarray) -> float:
    """Share of the Poisson deviance of constant rates that predicted rates take away.

    Args:
        counts: Shape (time, trial, neuron).
        rates: Predicted, same shape; what is below 0.001 counts as that.
        held_out: Entries to count, same shape.
        fitted: Entries from which the constant rates are.
    """
    typical = np.maximum(counts.mean(axis=(0, 1), where=fitted), _LEAST)

    def deviance(guess: FloatArray) -> float:
        rate = np.maximum(np.broadcast_to(guess, counts.shape)[held_out], _LEAST)
        seen = counts[held_out]
        return float((rate - seen - seen * np.log(rate / np.where(seen > 0, seen, 1))).sum())

    return 1 - deviance(rates) / deviance(typical)


def claims(data: xr.Dataset) -> tuple[Claim, ...]:
    """Decide whether both fits find the network that fired.

    Args:
        data: As `reproduce` gives it.
    """
    return (_likelihood(data), _rates(data), _strengths(data))


def _likelihood(data: xr.Dataset) -> Claim:
    counts, test, train = data["counts"].values.astype(np.float64), data["held_out"].values, data["fitted"].values
    found = {
        str(loss): deviance_explained(counts, data["predicted"].sel(loss=loss).values, test, train)
        for loss in data["loss"].values
    }
    limit = deviance_explained(counts, data["rates"].values, test, train)
    return Claim(
        "likelihood_fit_explains_counts_best",
        bool(found["mse"] < found["poisson"] <= limit + 0.01 and found["poisson"] > 0.85 * limit),
        {**found, "true rates": limit},
        "Of the deviance of held-out counts the Poisson fit explains more than the fit of squared errors, and "
        "more than 85 % of what the true rates explain.",
    )


def rates_explained(data: xr.Dataset) -> dict[str, float]:
    """Share of the variance of the true rates, neurons alike, that each fit explains on held-out entries.

    Args:
        data: As `reproduce` gives it.
    """
    rates, test = data["rates"].values, data["held_out"].values
    size = rates.std(axis=(0, 1))
    return {
        str(loss): variance_explained(rates / size, data["predicted"].sel(loss=loss).values / size, test)
        for loss in data["loss"].values
    }


def _rates(data: xr.Dataset) -> Claim:
    found = rates_explained(data)
    return Claim(
        "both_find_the_rates",
        min(found.values()) > 0.75,
        found,
        "Both explain more than 75 % of the variance of the true rates on held-out entries.",
    )


def roughness(strengths: FloatArray) -> float:
    """Mean square of second differences over trials, relative to the variance, the mean over factors.

    Args:
        strengths: Shape (trial, factor).
    """
    return float(((np.diff(strengths, 2, axis=0) ** 2).mean(axis=0) / strengths.var(axis=0)).mean())


def in_span(found: FloatArray, truth: FloatArray) -> FloatArray:
    """Centred correlation of each true course over trials with the best combination of those found.

    Args:
        found: Shape (trial, rank found).
        truth: Shape (trial, rank).

    Returns:
        Shape (rank,), 0 to 1.
    """
    X, T = found - found.mean(axis=0), truth - truth.mean(axis=0)
    best = X @ np.linalg.lstsq(X, T, rcond=None)[0]
    return np.asarray(np.linalg.norm(best, axis=0) / np.linalg.norm(T, axis=0))


def _strengths(data: xr.Dataset) -> Claim:
    truth = data["truth"].values
    found, rough = {}, {}
    for loss in data["loss"].values:
        strengths = data["strengths"].sel(loss=loss).values
        found[str(loss)] = float(in_span(strengths, truth).min())
        rough[f"one by one, {loss}"] = float(match_factors([strengths], [truth]).similarity.min())
        rough[f"roughness, {loss}"] = roughness(strengths)
    return Claim(
        "both_find_the_strengths",
        min(found.values()) > 0.8,
        {**found, **rough},
        "Each true course of strengths over trials is a combination of those found, in both (centred correlation "
        "above 0.8); one by one they may be mixtures of each other.",
    )


def draw(data: xr.Dataset) -> Figure:
    """Draw the figure: strengths of both fits, and predicted against true rates, and one neuron."""
    with house_style():
        figure = new_figure(PAGE, 4.2)
        panels = figure.subplots(2, 3)
        for row, loss, colour in zip(panels, LOSSES, (BLUE, ORANGE), strict=True):
            one = data.sel(loss=loss)
            _draw_strengths(row[0], one, colour)
            _draw_rates(row[1], one, colour)
            _draw_neuron(row[2], one, colour)
            row[0].set_title({"poisson": "Poisson likelihood", "mse": "squared errors"}[loss])
        panel_letters(panels.ravel())
    return figure


def _draw_strengths(axes: Axes, data: xr.Dataset, colour: str) -> None:
    truth, found = data["truth"].values, data["strengths"].values
    match = match_factors([found], [truth])
    for k in range(truth.shape[1]):
        shown = match.signs[0, k] * found[:, match.order[k]]
        shown = (shown - shown.mean()) / shown.std()
        axes.plot((truth[:, k] - truth[:, k].mean()) / truth[:, k].std(), "--", color=INK, linewidth=0.8)
        axes.plot(shown, color=colour, linewidth=1.0, alpha=1 - 0.25 * k)
    axes.plot([], [], "--", color=INK, label="true")
    axes.plot([], [], color=colour, label="fit")
    axes.legend(loc="upper right", fontsize=6, labelspacing=0.1)
    axes.set(xlabel="trial", ylabel="strength (z-scored)")


def _draw_rates(axes: Axes, data: xr.Dataset, colour: str) -> None:
    test = data["held_out"].values
    true, found = data["rates"].values[test], data["predicted"].values[test]
    some = np.random.default_rng(0).permutation(true.size)[:1500]
    axes.plot(true[some], found[some], ".", color=colour, markersize=1.2)
    end = float(np.quantile(true, 0.999))
    axes.plot([0, end], [0, end], color=INK, linewidth=0.7)
    axes.set(xlabel="true rate (per bin)", ylabel="predicted", xlim=(0, end), ylim=(-0.15 * end, 1.1 * end))


def _draw_neuron(axes: Axes, data: xr.Dataset, colour: str) -> None:
    rates = data["rates"].values
    neuron = int(np.argmax(rates.std(axis=(0, 1))))
    time = 1000 * BIN * (np.arange(data.sizes["time"]) + 0.5)
    here = np.flatnonzero(data["condition"].values == 0)
    for trials, shade in ((here[:3], 1.0), (here[-3:], 0.5)):
        label = "first trials" if shade == 1 else "last trials"
        counts = data["counts"].values[:, trials, neuron].mean(axis=1)
        axes.plot(time, counts, ".", color=GREY, markersize=2.5, alpha=shade)
        axes.plot(time, rates[:, trials, neuron].mean(axis=1), "--", color=INK, linewidth=0.8, alpha=shade)
        found = data["predicted"].values[:, trials, neuron].mean(axis=1)
        axes.plot(time, found, color=colour, linewidth=1.1, alpha=shade, label=label)
    axes.set(xlabel="time (ms)", ylabel=f"neuron {neuron}, per bin")
    axes.legend(loc="best", fontsize=6, labelspacing=0.1)
