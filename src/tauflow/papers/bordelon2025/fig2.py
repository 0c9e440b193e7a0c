r"""Fig. 2: lazy learning to integrate: still eigenvalues, the autocorrelation, losses with theory, and where it ends.

Panels a, c and d are in tangent-kernel scaling, γ = 1 (see `_lazy`). For panel d the paper does not say the scaling. It
is drawn in this one: with γ₀ = 1 a network aligns and moves much on either side of the threshold, since its filter
begins near 0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import jax
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy import stats
from scipy.optimize import brentq
from scipy.sparse.linalg import expm_multiply
from scipy.special import ive

from tauflow.learning import Record
from tauflow.papers._drawing import panel_letters
from tauflow.papers.base import Claim, Reproduction
from tauflow.papers.bordelon2025 import _flows as flows
from tauflow.papers.bordelon2025 import _lazy as lazy
from tauflow.plots import house_style, new_figure, sequential
from tauflow.plots.style import BLUE, GREY, INK, ORANGE, PAGE
from tauflow.tasks import LeakyIntegrator
from tauflow.theory.mean_field import autocorrelation, learnable_range

SPECTRUM_SIGMA, SPECTRUM_TARGET = 0.98, LeakyIntegrator(0.3)
TARGET = LeakyIntegrator(0.5)
CORRELATION_TIMES = np.linspace(0, 8, 33)
CHANGE_SIGMA = 0.7
CHANGE_DURATION = 30.0


@dataclass(frozen=True)
class Settings:
    """Networks of each panel.

    Attributes:
        small: Number of units in the panels of eigenvalues and of the change of W.
        large: Number of units in the panels of autocorrelation and loss.
        networks: (sigma, number of networks) of the losses.
        correlation_sigmas: Sigmas of the autocorrelation.
        correlation_networks: Networks at each of them.
        targets: Decay rates c* to learn in the panel of the change of W.
        change_networks: Networks for each of them, the same for all.
    """

    small: int
    large: int
    networks: tuple[tuple[float, int], ...]
    correlation_sigmas: tuple[float, ...]
    correlation_networks: int
    targets: tuple[float, ...]
    change_networks: int


FULL = Settings(
    250, 4000, ((0.6, 1), (0.7, 1), (0.8, 4), (0.9, 1)), (0.5, 0.7, 0.9), 5,
    (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9), 3,
)  # fmt: skip
QUICK = Settings(64, 64, ((0.5, 4), (0.6, 4), (0.7, 2)), (0.5, 0.7), 20, (0.1, 0.15, 0.3, 0.5, 0.7), 1)


def reproduce(*, quick: bool = False, seed: int = 0, progress: Callable[..., None] | None = None) -> Reproduction:
    """Reproduce Fig. 2: eigenvalues, autocorrelation, losses with the lazy theory, and the change of W against c*.

    Args:
        quick: A small version of seconds, with 64 neurons throughout.
        seed: The number from which all randomness comes.
        progress: Called now and then with a `tauflow.learning.Progress`.

    Returns:
        The reproduction, with data along `measurement`, `drawn`, `network` and `target`.
    """
    settings = QUICK if quick else FULL
    keys = jax.random.split(jax.random.key(seed), 4)
    training = lazy.LazyTraining(settings.large, TARGET, settings.networks)
    parts = (
        lazy.spectra(settings.small, SPECTRUM_SIGMA, SPECTRUM_TARGET, key=keys[0], progress=progress),
        correlations(settings, key=keys[1]),
        training.train(key=keys[2], progress=progress),
        changes(settings, key=keys[3], progress=progress),
    )
    data = xr.merge(parts, compat="equals", join="exact")
    return Reproduction("bordelon2025", "fig2", data, draw(data), claims(data))


def correlations(settings: Settings, *, key: jax.Array) -> xr.Dataset:
    r"""What random networks answer to an impulse, $\frac1N|e^{At}u|^2$, which estimates C(t, t).

    Args:
        settings: Sizes and numbers of networks.
        key: JAX random key.

    Returns:
        `autocorrelation (correlation_sigma, drawn, t)`.
    """
    n, count = settings.large, settings.correlation_networks
    keys = jax.random.split(key, (len(settings.correlation_sigmas), count))
    values = np.empty((len(settings.correlation_sigmas), count, len(CORRELATION_TIMES)))
    for i, sigma in enumerate(settings.correlation_sigmas):
        for j in range(count):
            network = flows.draw_network(n, sigma, key=keys[i, j])
            A = np.asarray(network.W, np.float64) / np.sqrt(n) - np.eye(n)
            end, number = CORRELATION_TIMES[-1], len(CORRELATION_TIMES)
            states = expm_multiply(A, np.asarray(network.u), start=0, stop=end, num=number, endpoint=True)  # (t, n)
            values[i, j] = (states**2).sum(axis=1) / n
    dims = ("correlation_sigma", "drawn", "t")
    labels = {"correlation_sigma": list(settings.correlation_sigmas), "t": CORRELATION_TIMES, "correlation_neurons": n}
    return xr.Dataset({"autocorrelation": (dims, values)}, labels)


def changes(settings: Settings, *, key: jax.Array, progress: Callable[..., None] | None) -> xr.Dataset:
    """Relative change of W and the largest real part of its eigenvalues, for targets of several decay rates.

    Args:
        settings: Sizes and targets.
        key: JAX random key.
        progress: Called at every saved time.

    Returns:
        Along `target` and `member`: `change`, the norm of ΔW over that of W0; `edge_start`, `edge_end`, the largest
        real part of the eigenvalues of W/√N; `change_loss`, the final loss over the initial.
    """
    names = ("change", "edge_start", "edge_end", "change_loss")
    shape = (len(settings.targets), settings.change_networks)
    found = {name: np.full(shape, np.nan) for name in names}
    keys = jax.random.split(key, settings.change_networks)
    for j in range(shape[1]):
        network = lazy.draw_stable(settings.small, CHANGE_SIGMA, key=keys[j])
        for i, c in enumerate(settings.targets):
            times, record = [0.0, CHANGE_DURATION], Record(measurements=[0, 1])
            run = flows.follow(network, LeakyIntegrator(c), times, record=record, rtol=lazy.RTOL, progress=progress)
            W0, W = np.asarray(run.data["W"][0], np.float64)
            edges = (float(each.real.max()) for each in run.data["W_eigenvalues"].values[0])
            loss = run.data["loss"].values[0]
            row = (np.linalg.norm(W - W0) / np.linalg.norm(W0), *edges, loss[-1] / loss[0])
            for name, value in zip(names, row, strict=True):
                found[name][i, j] = value
    return xr.Dataset(
        {name: (("target", "member"), values) for name, values in found.items()},
        {"target": list(settings.targets), "change_sigma": CHANGE_SIGMA, "change_neurons": settings.small},
    )


def effective_sigma(t: NDArray[np.float64], values: NDArray[np.float64]) -> float:
    r"""The σ at which $e^{-2t}I_0(2\sigma t)$ has, on average over times, the logarithm of $C(t, t)/C(0, 0)$.

    Args:
        t: Times, the first of which is 0, shape (t,).
        values: C(t, t), shape (t,).
    """
    wanted = np.mean(np.log(values[1:] / values[0]))

    def miss(sigma: float) -> float:
        x = 2 * sigma * t[1:]
        return float(np.mean(np.log(ive(0, x)) + x - 2 * t[1:]) - wanted)

    return 0.0 if miss(0.0) > 0 else float(brentq(miss, 0.0, 3.0))


def claims(data: xr.Dataset) -> tuple[Claim, ...]:
    """Decide whether lazy learning is as the theory has it, and ends where the paper says.

    Args:
        data: As `reproduce` gives it.
    """
    return (lazy.still_spectrum(data), _correlation(data), *lazy.lazy_claims(data), *_change(data))


def _correlation(data: xr.Dataset) -> Claim:
    sigmas, t = data["correlation_sigma"].values, data["t"].values
    values, n = data["autocorrelation"].values, int(data["correlation_neurons"])
    ratios = np.array([[effective_sigma(t, one) / s for one in rows] for s, rows in zip(sigmas, values, strict=True)])
    error = float(ratios.std(axis=1, ddof=1).mean() / np.sqrt(ratios.size))
    off = abs(float(ratios.mean()) - 1)
    theory = autocorrelation(t, t, sigmas[:, None])
    return Claim(
        "autocorrelation_as_predicted",
        off <= float(stats.t.ppf(lazy.SURE, ratios.size - len(sigmas))) * error + 1 / n,
        {
            "σ that fits / σ": f"{ratios.mean():.5f} ± {error:.5f}",
            "largest deviation of the mean / C(t, t)": float(np.abs(values.mean(axis=1) / theory - 1).max()),
            "networks": float(ratios.size),
            "N": float(n),
        },
        "|h(t)|²/N after an impulse is σ²exp(-2t)I0(2σt): the σ that fits its shape is that of the weights (to 3 "
        "standard errors and 1/N).",
    )


def _change(data: xr.Dataset) -> tuple[Claim, Claim]:
    sigma = float(data["change_sigma"])
    threshold = float(learnable_range(sigma)[0])
    c, change = data["target"].values, data["change"].values
    outside, inside = c <= 0.5 * threshold + 1e-9, c >= threshold + 0.2 - 1e-9
    ratio = float(change[outside].min() / change[inside].max())
    missed = np.abs(data["edge_end"].values / (1 - c[:, None]) - 1)[outside]
    moved = np.abs((data["edge_end"] - data["edge_start"]).values)[inside]
    spacing = 2 * sigma / np.sqrt(int(data["change_neurons"]))
    return (
        Claim(
            "weights_move_beyond_the_threshold",
            ratio > 2,
            {
                "smallest change for c* ≤ (1 - σ)/2": float(change[outside].min()),
                "largest change for c* ≥ 1 - σ + 0.2": float(change[inside].max()),
                "ratio": ratio,
            },
            "W changes more than twice as much for a target well outside the learnable range as for one well inside.",
        ),
        Claim(
            "outlier_beyond_the_threshold",
            bool(missed.max() < 0.05 and moved.max() < spacing),
            {
                "largest |λ/(1 - c*) - 1| outside": float(missed.max()),
                "largest shift of the edge inside": float(moved.max()),
                "distance of neighbours": float(spacing),
            },
            "Outside, the largest eigenvalue goes to 1 - c*, to 5 %; inside it stays, to the distance of neighbours.",
        ),
    )


def draw(data: xr.Dataset) -> Figure:
    """Draw the figure: eigenvalues, autocorrelation; losses, change of W."""
    with house_style():
        figure = new_figure(PAGE, 5.4)
        panels = figure.subplots(2, 2)
        lazy.draw_spectra(panels[0, 0], data, [1 - SPECTRUM_TARGET.c])
        _draw_correlations(panels[0, 1], data)
        lazy.draw_losses(panels[1, 0], data)
        panels[1, 0].set_title(f"N = {int(data['neurons'][0])}, c* = {TARGET.c:g}", fontsize=8)
        panels[1, 0].legend(loc="lower left", labelspacing=0.3)
        _draw_change(panels[1, 1], data)
        panel_letters(panels.ravel())
    return figure


def _draw_correlations(axes: Axes, data: xr.Dataset) -> None:
    t, sigmas, values = data["t"].values, data["correlation_sigma"].values, data["autocorrelation"].values
    for sigma, rows, colour in zip(sigmas, values, sequential(len(sigmas)), strict=True):
        axes.plot(t, rows.T, color=colour, linewidth=0.8, alpha=0.6)
        axes.plot([], [], color=colour, label=f"σ = {sigma:g}")
        axes.plot(t, autocorrelation(t, t, sigma), "--", color=INK, linewidth=0.9, zorder=3)
    axes.plot([], [], "--", color=INK, linewidth=0.9, label="theory")
    axes.set(yscale="log", xlabel="t (membrane times)", ylabel="C(t, t)")
    axes.set_title(f"N = {int(data['correlation_neurons'])}, {values.shape[1]} networks each", fontsize=8)
    axes.legend(loc="lower left", labelspacing=0.3)


def _draw_change(axes: Axes, data: xr.Dataset) -> None:
    sigma, c, change = float(data["change_sigma"]), data["target"].values, data["change"].values
    low, _ = learnable_range(sigma)
    axes.axvline(float(low), color=ORANGE, linestyle="--", linewidth=1.0, label="1 - c* = σ")
    axes.plot(c, change.mean(axis=1), color=BLUE)
    axes.plot(c, change, "o", color=BLUE, markersize=3, markerfacecolor="white")
    axes.set(xlabel="c*", ylabel="|ΔW| / |W0|", xlim=(0, None), ylim=(0, None))
    axes.text(float(low) / 2, 0.03, "not learnable\nlazily", transform=axes.get_xaxis_transform(), ha="center",
              va="bottom", fontsize=6.5, color=GREY)  # fmt: skip
    axes.set_title(f"N = {int(data['change_neurons'])}, σ = {sigma:g}", fontsize=8)
    axes.legend(loc="upper right")
