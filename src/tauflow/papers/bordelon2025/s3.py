r"""Fig. S3: without a warm start the pair that learns to ring leaves the bulk in a direction that depends on sigma.

Small weights first learn what one neuron can do, and its outlier moves to the left along the real axis: a faster decay
is a better first guess at $e^{-c_*t}\cos\omega_*t$. Only then does a pair form, and the bulk takes part in that. Where
the pair leaves the bulk is read at $|\lambda| = 1.5\sigma$, and where it passes later at $|\lambda| = 0.5$, as the
angle of λ; networks with the planted pair of Fig. 3, of the same sigma, are read at 0.5 as well.
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

from tauflow.analysis.arguments import FloatArray
from tauflow.learning import Record
from tauflow.papers._drawing import panel_letters
from tauflow.papers.base import Claim, Reproduction
from tauflow.papers.bordelon2025 import _flows as flows
from tauflow.papers.bordelon2025 import fig3
from tauflow.papers.bordelon2025.fig3 import TARGET
from tauflow.plots import house_style, new_figure, sequential
from tauflow.plots.style import INK, ORANGE, PAGE, PALE

ESCAPED = 1.5
"""|λ|/σ from which on an eigenvalue has left the bulk."""
PASSING = 0.5
"""|λ| at which paths are compared."""


@dataclass(frozen=True)
class Settings:
    """Networks and times.

    Attributes:
        neurons: Number of units N.
        sigmas: Standard deviations of the initial weights.
        networks: Networks for each.
        points: Learning times at which each is looked at.
    """

    neurons: int
    sigmas: tuple[float, ...]
    networks: int
    points: int


FULL = Settings(250, (0.2, 0.1, 0.05), 3, 51)
QUICK = Settings(32, (0.2, 0.1), 2, 31)


def reproduce(*, quick: bool = False, seed: int = 0, progress: Callable[..., None] | None = None) -> Reproduction:
    """Reproduce Fig. S3: paths of the leading eigenvalue of networks that learn to ring, cold and warm.

    Args:
        quick: A small version of seconds: 32 neurons, two values of sigma, two networks each.
        seed: The number from which all randomness comes.
        progress: Called now and then with a `tauflow.learning.Progress`.

    Returns:
        The reproduction, with data along `run` and `time`.
    """
    settings = QUICK if quick else FULL
    parts = []
    for key in jax.random.split(jax.random.key(seed), settings.networks):
        for sigma in settings.sigmas:
            cold = flows.draw_network(settings.neurons, sigma, key=key)
            warm = fig3.warm_network(settings.neurons, sigma, key=key)
            for network, start, duration in ((cold, "cold", 2 - 4 * np.log(sigma)), (warm, "warm", fig3.DURATION)):
                tau = np.linspace(0, duration, settings.points)
                record = Record(measurements=range(settings.points))
                run = flows.follow(network, TARGET, tau, record=record, rtol=1e-5, progress=progress)
                values = {
                    "tau": ("time", tau, {"unit": "flow"}),
                    "loss": ("time", run.data["loss"].values[0].astype(np.float64)),
                    "leading": ("time", flows.leading(run.data["W_eigenvalues"].values[0])),
                }
                parts.append(xr.Dataset(values, {"sigma": sigma, "start": start}))
    attributes = {"neurons": settings.neurons, "c": TARGET.c, "omega": TARGET.omega}
    data = xr.concat(parts, dim="run").assign_attrs(attributes)
    return Reproduction("bordelon2025", "s3", data, draw(data), claims(data))


def passage(path: NDArray[np.complex128], modulus: float) -> complex:
    """Where a path first reaches a modulus from below, linear between its points; NaN if it does not.

    Args:
        path: Shape (time,).
        modulus: |λ|.
    """
    beyond = np.abs(path) >= modulus
    below = np.flatnonzero(~beyond)
    if not below.size or beyond[below[0] :].sum() == 0:
        return complex("nan")
    at = below[0] + int(np.argmax(beyond[below[0] :]))
    near, far = np.abs(path[at - 1 : at + 1])
    return complex(path[at - 1] + (modulus - near) / (far - near) * (path[at] - path[at - 1]))


def angles(data: xr.Dataset, start: str, modulus: Callable[[float], float]) -> dict[float, FloatArray]:
    """Angle in degrees at which the paths of each sigma reach a modulus.

    Args:
        data: As `reproduce` gives it.
        start: "cold" or "warm".
        modulus: |λ| for a sigma.
    """
    found: dict[float, list[float]] = {}
    for run in np.flatnonzero(data["start"].values == start):
        one = data.isel(run=int(run))
        sigma = float(one["sigma"])
        found.setdefault(sigma, []).append(float(np.angle(passage(one["leading"].values, modulus(sigma)), deg=True)))
    return {sigma: np.array(values) for sigma, values in found.items()}


def within(groups: dict[float, FloatArray]) -> float:
    """Standard deviation over the networks of one sigma, pooled over sigma."""
    return float(np.sqrt(np.mean([values.var(ddof=1) for values in groups.values()])))


def claims(data: xr.Dataset) -> tuple[Claim, ...]:
    """Decide whether the way out of the bulk depends on where learning starts.

    Args:
        data: As `reproduce` gives it.
    """
    escape = angles(data, "cold", lambda sigma: ESCAPED * sigma)
    cold, warm = (angles(data, start, lambda _: PASSING) for start in ("cold", "warm"))
    there = f"at |λ| = {PASSING:g}"
    means = {sigma: float(values.mean()) for sigma, values in escape.items()}
    least = float(np.abs(escape[min(escape)] - escape[max(escape)]).min())
    total, planted = (float(np.concatenate([*groups.values()]).std()) for groups in (escape, warm))
    goal = 1 - data.c + 1j * data.omega
    off = float(np.abs(data["leading"].values[:, -1] - goal).max())
    half = {
        sigma: np.mean([_half(one) for one in _runs(data, "cold", sigma)]) for sigma in sorted(escape, reverse=True)
    }
    return (
        Claim(
            "escape_depends_on_sigma",
            least > 20.0,
            {f"mean angle at σ = {sigma:g}, degrees": mean for sigma, mean in means.items()}
            | {"standard deviation over networks of one σ": within(escape), "smallest change in a network": least},
            f"The direction in which the pair leaves the bulk, at |λ| = {ESCAPED:g} σ, changes in every network by "
            "more than 20 degrees when all its weights are scaled from the largest σ to the smallest.",
        ),
        Claim(
            "warm_start_takes_it_away",
            total > 5 * planted,
            {
                "leaving the bulk, degrees": total,
                f"planted pair {there}": planted,
                f"planted pair {there}, networks of one σ": within(warm),
                f"without it {there}, networks of one σ": within(cold),
            },
            "The directions in which pairs leave the bulk spread more than five times as much as the paths of planted "
            "pairs (standard deviation of the angle over all networks and σ).",
        ),
        Claim(
            "later_for_smaller_weights",
            bool((np.diff(list(half.values())) > 0).all()),
            {f"half the loss at σ = {sigma:g}, τ": float(time) for sigma, time in half.items()},
            "The smaller the weights, the later the loss falls.",
        ),
        Claim(
            "all_end_at_target",
            off < 0.03 * abs(goal),
            {"largest distance from 1 - c* + iω*": off},
            "Every pair ends at 1 - c* ± iω*, to 3 %.",
        ),
    )


def _runs(data: xr.Dataset, start: str, sigma: float) -> list[xr.Dataset]:
    chosen = (data["start"].values == start) & (data["sigma"].values == sigma)
    return [data.isel(run=int(run)) for run in np.flatnonzero(chosen)]


def _half(one: xr.Dataset) -> float:
    loss = one["loss"].values
    return float(np.interp(-loss[0] / 2, -loss, one["tau"].values))


def draw(data: xr.Dataset) -> Figure:
    """Draw the figure: paths of the leading eigenvalue from a cold and from a warm start, losses, and angles."""
    sigmas = np.unique(data["sigma"].values)[::-1]
    colours = dict(zip(sigmas, sequential(len(sigmas))[::-1], strict=True))
    with house_style():
        figure = new_figure(PAGE, 5.4)
        panels = figure.subplots(2, 2, height_ratios=[1.25, 1.0])
        for axes, start in zip(panels[0], ("cold", "warm"), strict=True):
            _draw_paths(axes, data, start, colours)
        _draw_losses(panels[1, 0], data, colours)
        _draw_angles(panels[1, 1], data, colours)
        panel_letters(panels.ravel())
    return figure


def _draw_paths(axes: Axes, data: xr.Dataset, start: str, colours: dict[float, str]) -> None:
    turn = np.exp(1j * np.linspace(0, np.pi, 100))
    axes.plot(PASSING * turn.real, PASSING * turn.imag, ":", color=PALE, linewidth=1.0)
    for sigma, colour in colours.items():
        axes.plot(sigma * turn.real, sigma * turn.imag, color=colour, linewidth=0.6)
        for one in _runs(data, start, sigma):
            path = one["leading"].values
            out = path[np.abs(path) > 1.2 * sigma]
            axes.plot(out.real, out.imag, color=colour, marker="o", markersize=1.5, linewidth=0.8)
    axes.plot(1 - data.c, data.omega, "*", color=ORANGE, markersize=9, markerfacecolor="none")
    axes.set(xlabel="Re λ", ylabel="Im λ", aspect="equal", xlim=(-0.6, 1.05), ylim=(-0.05, 1.1))
    axes.set_title("small random weights" if start == "cold" else "with a planted pair")


def _draw_losses(axes: Axes, data: xr.Dataset, colours: dict[float, str]) -> None:
    for sigma, colour in colours.items():
        for i, one in enumerate(_runs(data, "cold", sigma)):
            label = None if i else f"σ = {sigma:g}"
            axes.plot(one["tau"], one["loss"] / one["loss"][0], color=colour, linewidth=0.9, label=label)
    axes.set(xlabel="learning time τ (flow units)", ylabel="loss / initial loss", ylim=(0, 1.05))
    axes.legend(loc="lower left")


def _draw_angles(axes: Axes, data: xr.Dataset, colours: dict[float, str]) -> None:
    shown = (
        ("cold", lambda sigma: ESCAPED * sigma, "o", f"leaving, |λ| = {ESCAPED:g} σ"),
        ("cold", lambda _: PASSING, "s", f"at |λ| = {PASSING:g}"),
        ("warm", lambda _: PASSING, "^", f"at |λ| = {PASSING:g}, planted pair"),
    )
    for start, modulus, marker, label in shown:
        for sigma, values in angles(data, start, modulus).items():
            x = np.full(len(values), sigma)
            axes.plot(x, values, marker, color=colours[sigma], markersize=4.0, markerfacecolor="none")
        axes.plot([], [], marker, color=INK, markersize=4.0, markerfacecolor="none", label=label)
    axes.set(xscale="log", xlabel="σ", ylabel="angle of λ (degrees)", ylim=(0, 270), yticks=[0, 45, 90, 135, 180])
    axes.set(xticks=list(colours), xticklabels=[f"{sigma:g}" for sigma in colours])
    axes.minorticks_off()
    axes.legend(loc="upper right", labelspacing=0.2)
