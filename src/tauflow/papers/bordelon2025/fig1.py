r"""Fig. 1: a linear network of small weights learns to integrate: one outlier leaves the bulk and becomes the leak.

Two times are read from every network, and both grow in proportion to $-\ln\sigma$, at different rates. With
$a = 1/(1 + c_*)$ read-in and readout grow as $\sigma e^{2as}/\sqrt2$ until they are of order 1, so the **plateau** of
the loss lasts $\frac1{2a}(-\ln\sigma)$ plus a constant. The outlier is of second order in them and has to reach only
the edge of the bulk, σ, which is of first order: the **escape** takes $\frac1{4a}\ln(1 + \frac4{a\sigma})$ (E7).

The reduced flow leaves out the bulk. It starts here from the network's own $|u_+|/\sqrt N$, so that its distance from
the network is what the bulk does and not the luck of the draw.
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
from scipy.interpolate import CubicSpline

from tauflow.analysis import coupling
from tauflow.learning import Record
from tauflow.networks import ContinuousLinearRNN
from tauflow.papers._drawing import panel_letters
from tauflow.papers.base import Claim, Reproduction
from tauflow.papers.bordelon2025 import _flows as flows
from tauflow.plots import house_style, new_figure, sequential
from tauflow.plots.style import BLUE, GREEN, GREY, INK, ORANGE, PAGE, PALE
from tauflow.tasks import LeakyIntegrator
from tauflow.theory import outlier
from tauflow.theory.effective_network import dress, effective_flow, project

TARGET = LeakyIntegrator(0.2)
ALIGNED = 0.9
"""Cosine of read-in and readout from which on they count as aligned."""
SHADES = 9
THEORIES = {"reduced": "reduced flow", "large_N": "with bulk, N → ∞", "projected": "with its bulk, σ⁴"}
SLOPES = {"plateau": (1 + TARGET.c) / 2, "escape": (1 + TARGET.c) / 4}
"""1/2a and 1/4a."""


@dataclass(frozen=True)
class Settings:
    """Networks and times.

    Attributes:
        neurons: Number of units N.
        sigmas: Standard deviations of the initial weights; the first is that of the pictures of one network.
        points: Learning times at which each network is looked at.
        sizes: (N, number of networks) whose distance from the theories is taken at the first sigma.
    """

    neurons: int
    sigmas: tuple[float, ...]
    points: int = 121
    sizes: tuple[tuple[int, int], ...] = ()


FULL = Settings(
    250, (0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001), sizes=((100, 6), (250, 6), (1000, 2), (4000, 1))
)
QUICK = Settings(64, (0.2, 0.1, 0.05, 0.02, 0.005, 0.002), points=61)


def reproduce(*, quick: bool = False, seed: int = 0, progress: Callable[..., None] | None = None) -> Reproduction:
    """Reproduce Fig. 1: eigenvalues, outlier and loss of a network that learns to integrate, with the reduced flow.

    Args:
        quick: A small version of seconds: 64 neurons, six values of sigma, no other sizes.
        seed: The number from which all randomness comes.
        progress: Called now and then with a `tauflow.learning.Progress`.

    Returns:
        The reproduction, with data along `sigma`, `time` and, for the first sigma, `measurement`; in full, `network`.
    """
    settings = QUICK if quick else FULL
    keys = jax.random.split(jax.random.key(seed), max([1, *(count for _, count in settings.sizes)]))
    parts = [
        follow(flows.draw_network(settings.neurons, sigma, key=keys[0]), sigma, settings.points, i == 0, progress)
        for i, sigma in enumerate(settings.sigmas)
    ]
    spectra = parts[0][["eigenvalues", "tau_eigenvalues"]]
    data = xr.concat([part.drop_dims("measurement", errors="ignore") for part in parts], dim="sigma")
    data = data.merge(spectra).assign_attrs(neurons=settings.neurons, c=TARGET.c)
    if settings.sizes:
        data = data.merge(distances(settings, keys, progress))
    return Reproduction("bordelon2025", "fig1", data, draw(data), claims(data))


def follow(
    network: ContinuousLinearRNN, sigma: float, points: int, spectra: bool, progress: Callable[..., None] | None = None
) -> xr.Dataset:
    """Follow one network until well after the reduced flow has learned, and compute its theories.

    Args:
        network: Where to begin.
        sigma: Standard deviation of its weights.
        points: Number of times.
        spectra: Whether to keep eigenvalues.
        progress: Called at every time.

    Returns:
        Along `time`: `tau`, `loss`, `outlier`, `alignment` (cosine of u and v), `size` (the root of |u||v|/N); the
        outlier `reduced` (the paper's flow), `large_N` (with the bulk, for any network of this sigma), `projected`
        (from this network's initial weights) with its `error`; `reduced_loss` and `reduced_size`. With spectra
        `eigenvalues (measurement, index)`.
    """
    tau = np.linspace(0, 0.8 + 2 * float(outlier.escape_time(TARGET.c, sigma)), points, dtype=np.float64)
    theory = theories(network, sigma, tau)
    record = Record(weights=range(points), measurements=_shades(theory["projected"][1]) if spectra else 0)
    run = flows.follow(network, TARGET, tau, record=record, progress=progress)
    data = measured(run.data, network.neurons).assign(theory)
    if spectra:
        data["eigenvalues"] = (("measurement", "index"), run.data["W_eigenvalues"].values[0])
        data["tau_eigenvalues"] = ("measurement", run.data["tau_measurement"].values[0], {"unit": "flow"})
    return data.assign_coords(sigma=sigma)


def _shades(path: NDArray[np.float64]) -> list[int]:
    """Positions of about `SHADES` times between which the outlier goes equally far, with both ends."""
    levels = np.linspace(path[0], 0.97 * path.max(), SHADES - 1)
    return sorted({0, *(int(np.argmax(path >= level)) for level in levels), len(path) - 1})


def measured(data: xr.Dataset, neurons: int) -> xr.Dataset:
    """What is read from the weights kept of one network at every time.

    Args:
        data: A run's dataset, whose snapshots are at all its times.
        neurons: N.
    """
    W, u, v = data["W"].values[0], data["W_in"].values[0, :, :, 0], data["W_out"].values[0, :, 0]
    lengths = np.linalg.norm(u, axis=1) * np.linalg.norm(v, axis=1)  # (time,)
    return xr.Dataset(
        {
            "tau": ("time", data["tau"].values[0], {"unit": "flow"}),
            "loss": ("time", data["loss"].values[0].astype(np.float64)),
            "outlier": ("time", coupling(W, u, v) / np.sqrt(neurons)),
            "alignment": ("time", (u * v).sum(1) / lengths),
            "size": ("time", np.sqrt(lengths / neurons)),
        }
    )


def theories(network: ContinuousLinearRNN, sigma: float, tau: NDArray[np.float64]) -> dict[str, tuple]:
    """Every theory of the outlier at the times given, by the name of its variable.

    Args:
        network: The initial network.
        sigma: Standard deviation of its weights.
        tau: Learning times, shape (time,).
    """
    u, v, W = (np.asarray(x, np.float64) for x in (network.u, network.v, network.W))
    along = project(u, v, W, (u + v)[None])  # one neuron, in the direction of u₊
    reduced = outlier.reduced_flow(tau, sigma, TARGET.c, u=np.abs(along.u[0] + along.v[0]) / 2, c=1 - along.M[0, 0])
    r = sigma / np.sqrt(2)
    bulk = dress([r, r], [r, -r], np.zeros((2, 2)), sigma, 2)  # in the plane of u₊ and u₋
    starts = {"better": project(u, v, W, np.stack([u, v]), 2), "worse": project(u, v, W, np.stack([u, v]), 1)}
    flows_of = {name: effective_flow(tau, *start, TARGET) for name, start in ({"bulk": bulk} | starts).items()}
    found = {name: coupling(flow.M, flow.u, flow.v) for name, flow in flows_of.items()}
    values = {
        "reduced": 1 - reduced.c,
        "reduced_loss": reduced.loss,
        "reduced_size": np.sqrt(reduced.u * reduced.v),
        "large_N": found["bulk"],
        "projected": found["better"],
        "error": np.abs(found["better"] - found["worse"]),
    }
    return {name: ("time", value) for name, value in values.items()}


def distances(settings: Settings, keys: jax.Array, progress: Callable[..., None] | None) -> xr.Dataset:
    """Largest distance of the outlier from each theory after alignment, for networks of several sizes.

    Returns:
        Along `network`: `size_neurons` and `distance_from_<theory>`.
    """
    rows, sigma = [], settings.sigmas[0]
    for neurons, count in settings.sizes:
        for key in keys[:count]:
            points = settings.points if neurons <= 250 else 41
            one = follow(flows.draw_network(neurons, sigma, key=key), sigma, points, False, progress)
            rows.append([neurons, *(farthest(one, name) for name in THEORIES)])
    names = ("size_neurons", *(f"distance_from_{name}" for name in THEORIES))
    return xr.Dataset({name: ("network", np.array(column)) for name, *column in zip(names, *rows, strict=True)})


def farthest(one: xr.Dataset, theory: str) -> float:
    """Largest distance of the outlier from a theory once read-in and readout are aligned."""
    there = one["alignment"].values > ALIGNED
    return float(abs(one["outlier"] - one[theory]).values[there].max())


def crossing(tau: NDArray[np.float64], values: NDArray[np.float64], level: float) -> float:
    """First time at which values cross a level, by a cubic spline; NaN if they do not.

    Args:
        tau: Times, shape (k,).
        values: Shape (k,).
        level: The level.
    """
    side = np.sign(values - level)
    later = np.flatnonzero(side != side[0])
    if not later.size:
        return float("nan")
    near = slice(max(later[0] - 4, 0), later[0] + 4)
    return float(CubicSpline(tau[near], values[near] - level).roots(extrapolate=False)[0])


def logarithmic_slope(sigma: NDArray[np.float64], times: NDArray[np.float64]) -> tuple[float, float]:
    r"""Slope b of $T = T_0 - b\ln\sigma + b_1\sigma + b_2\sigma^2$ and its standard error, by least squares.

    Args:
        sigma: Standard deviations of the initial weights, shape (k,), k >= 5.
        times: Times T, shape (k,).
    """
    design = np.stack([np.ones_like(sigma), -np.log(sigma), sigma, sigma**2], axis=1)  # (k, 4)
    found, _, _, _ = np.linalg.lstsq(design, times, rcond=None)
    residual = times - design @ found
    variance = residual @ residual / (len(sigma) - 4)
    return float(found[1]), float(np.sqrt(variance * np.linalg.inv(design.T @ design)[1, 1]))


def times_of(data: xr.Dataset) -> dict[str, NDArray[np.float64]]:
    """When the loss is half the first one, and when the outlier reaches σ, for each sigma."""
    found: dict[str, list[float]] = {"plateau": [], "escape": []}
    for sigma in data["sigma"].values:
        one = data.sel(sigma=sigma)
        tau, loss = one["tau"].values, one["loss"].values
        found["plateau"].append(crossing(tau, loss, loss[0] / 2))
        found["escape"].append(crossing(tau, one["outlier"].values, float(sigma)))
    return {name: np.array(values) for name, values in found.items()}


def claims(data: xr.Dataset) -> tuple[Claim, ...]:
    """Decide whether learning runs as the theory has it.

    Args:
        data: As `reproduce` gives it.
    """
    made = [flows.bulk_stays(data, float(data["sigma"][0]), 1), *_outlier(data), *_slopes(data)]
    if "size_neurons" in data:
        made.append(_sizes(data))
    return tuple(made)


def _outlier(data: xr.Dataset) -> tuple[Claim, Claim, Claim]:
    first = data.isel(sigma=0)
    there = first["alignment"].values > ALIGNED
    off = abs(first["outlier"] - first["projected"]).values[there]
    error = float(first["error"].values[there].max())
    late = crossing(first["tau"].values, first["reduced"].values, 0.6)
    late -= crossing(first["tau"].values, first["outlier"].values, 0.6)
    distances = [farthest(data.isel(sigma=i), "reduced") for i in range(data.sizes["sigma"])]
    sigma, third = data["sigma"].values, data.sizes["sigma"] // 3
    end = float(data["eigenvalues"].values[-1].real.max())
    return (
        Claim(
            "outlier_as_predicted",
            bool(off.max() < error),
            {"largest distance": float(off.max()), "stated error": error, "N": data.neurons, "σ": float(sigma[0])},
            "Once u and v are aligned, v'Wu/(√N|v||u|) follows the theory with what the bulk adds to order σ⁴, within "
            "its stated error (what the last order changes).",
        ),
        Claim(
            "reduced_flow_as_sigma_falls",
            max(distances[-third:]) < 0.2 * distances[0],
            {f"largest distance at σ = {s:g}": d for s, d in zip(sigma, distances, strict=True)}
            | {"reduced flow late at the first σ by": late},
            "The reduced flow of two numbers is right for small σ: its distance from the outlier at the smallest σ is "
            "less than a fifth of that at the largest.",
        ),
        Claim(
            "ends_at_target",
            abs(end - (1 - data.c)) < 0.01 * (1 - data.c),
            {"outlier": end, "1 - c*": 1 - data.c},
            "The outlier ends at 1 - c*, to 1 %.",
        ),
    )


def _slopes(data: xr.Dataset) -> tuple[Claim, ...]:
    made = []
    words = {
        "plateau": "The loss is halved at a time",
        "escape": "The outlier reaches the edge σ at a time",
    }
    for name, times in times_of(data).items():
        slope, error = logarithmic_slope(data["sigma"].values, times)
        wanted = SLOPES[name]
        made.append(
            Claim(
                f"{name}_slope",
                abs(slope - wanted) < 3 * error + 0.005 * wanted,
                {"slope": f"{slope:.4f} ± {error:.4f}", "theory": wanted},
                f"{words[name]} that grows with -ln σ at the rate {'1/2a' if name == 'plateau' else '1/4a'}, "
                "a = 1/(1 + c*) (to 3 standard errors and 0.5 %).",
            )
        )
    return tuple(made)


def _sizes(data: xr.Dataset) -> Claim:
    neurons = data["size_neurons"].values
    rms = {}
    for name in THEORIES:
        squares = data[f"distance_from_{name}"].values ** 2
        rms[name] = [float(np.sqrt(squares[neurons == size].mean())) for size in np.unique(neurons)]
    told = {
        f"{name.replace('_', ' ')}, N = {size}": value
        for name, values in rms.items()
        for size, value in zip(np.unique(neurons), values, strict=True)
    }
    several = np.flatnonzero(np.unique(neurons, return_counts=True)[1] > 1)  # one network may be near by chance
    decides = [rms["large_N"][i] for i in several]
    return Claim(
        "closer_with_more_neurons",
        len(decides) > 1 and decides[-1] < 0.7 * decides[0],
        told,
        "The largest distance of the outlier from the theory for large N, bulk included, shrinks with N (root mean "
        "square over networks; sizes of which there is one network decide nothing).",
    )


def draw(data: xr.Dataset) -> Figure:
    """Draw the figure: eigenvalues, outlier and flow field of one network; loss, times and distances of all."""
    with house_style():
        figure = new_figure(PAGE, 4.7)
        panels = figure.subplots(2, 3)
        _draw_eigenvalues(panels[0, 0], data)
        _draw_outlier(panels[0, 1], data.isel(sigma=0))
        _draw_field(panels[0, 2], data.isel(sigma=0))
        _draw_loss(panels[1, 0], data)
        _draw_times(panels[1, 1], data)
        _draw_distances(panels[1, 2], data)
        panel_letters(panels.ravel())
    return figure


def _draw_eigenvalues(axes: Axes, data: xr.Dataset) -> None:
    sigma, shades = float(data["sigma"][0]), sequential(data.sizes["measurement"])[::-1]
    angle = np.linspace(0, 2 * np.pi, 200)
    axes.plot(sigma * np.cos(angle), sigma * np.sin(angle), color=PALE, linewidth=1.0)
    for values, shade in zip(data["eigenvalues"].values, shades, strict=True):
        axes.plot(values.real, values.imag, ".", color=shade, markersize=2.5, markeredgewidth=0)
        axes.plot(values.real.max(), 0, "o", color=shade, markersize=4.0)
    axes.plot(1 - data.c, 0, "*", color=ORANGE, markersize=8, markerfacecolor="none", label="1 - c*")
    axes.set(xlabel="Re λ", ylabel="Im λ", aspect="equal", xlim=(-0.3, 0.95), ylim=(-0.45, 0.45))
    axes.set_title(f"W/√N, N = {data.neurons}, σ = {sigma:g}")
    axes.legend(loc="upper right", handletextpad=0.2)
    late = float(data["tau_eigenvalues"][-1])
    axes.text(0.03, 0.03, f"dark: later, to τ = {late:.1f}", transform=axes.transAxes, fontsize=7, color=GREY)


def _draw_outlier(axes: Axes, one: xr.Dataset) -> None:
    tau = one["tau"].values
    axes.axhline(1 - one.c, color=PALE, linewidth=0.8, zorder=0)
    axes.plot(tau, one["outlier"], color=ORANGE, linewidth=2.4, label="network")
    axes.plot(tau, one["projected"], color=INK, linewidth=0.9, label="reduced, with bulk")
    axes.plot(tau, one["reduced"], "--", color=INK, linewidth=1.0, label="reduced, $1 - c(τ)$")
    axes.set(xlabel="learning time τ (flow units)", ylabel="$v^TWu\\,/\\,(\\sqrt{N}|v||u|)$", ylim=(-0.35, 0.9))
    axes.legend(loc="lower right", labelspacing=0.3)


def _draw_field(axes: Axes, one: xr.Dataset) -> None:
    u, c = np.meshgrid(np.linspace(0.01, 1.35, 40), np.linspace(0.06, 1.1, 40))
    du, dc = outlier.flow_field(u, c, TARGET.c)
    axes.streamplot(u[0], c[:, 0], du, dc, color=PALE, linewidth=0.6, arrowsize=0.6, density=1.1)
    axes.plot(one["size"], 1 - one["outlier"], color=ORANGE, linewidth=2.4)
    axes.plot(one["reduced_size"], 1 - one["reduced"], "--", color=INK, linewidth=1.0)
    axes.plot(1, TARGET.c, "*", color=ORANGE, markersize=8, markerfacecolor="none")
    axes.set(xlabel="u;  network: $(|u||v|/N)^{1/2}$", ylabel="c", xlim=(0, 1.35), ylim=(0.06, 1.1))


def _draw_loss(axes: Axes, data: xr.Dataset) -> None:
    for i, colour in enumerate(sequential(data.sizes["sigma"])[::-1]):
        one = data.isel(sigma=i)
        axes.plot(one["tau"], one["loss"] / one["loss"][0], color=colour, label=f"{float(one['sigma']):g}")
        axes.plot(one["tau"], one["reduced_loss"] / one["reduced_loss"][0], "--", color=INK, linewidth=0.7)
    axes.set(xlabel="learning time τ (flow units)", ylabel="loss / initial loss", ylim=(0, 1.05))
    axes.legend(title="σ", loc="upper right", fontsize=6, title_fontsize=7, labelspacing=0.2, handlelength=1.0)


def _draw_times(axes: Axes, data: xr.Dataset) -> None:
    sigma, labels = data["sigma"].values, {"plateau": "loss at a half", "escape": "outlier at σ"}
    fine = np.geomspace(sigma.min(), sigma.max(), 50)
    for (name, times), colour in zip(times_of(data).items(), (BLUE, GREEN), strict=True):
        slope, _ = logarithmic_slope(sigma, times)
        axes.plot(sigma, times, "o", color=colour, markersize=3.5, label=f"{labels[name]}: slope {slope:.3f}")
        theory = times[-1] + SLOPES[name] * np.log(sigma[-1] / fine)
        axes.plot(fine, theory, "--", color=INK, linewidth=0.8, label=f"slope {SLOPES[name]:g}")
        axes.set_ylim(0, 1.6 * max(times[-1], axes.get_ylim()[1] / 1.6))
    axes.set(xscale="log", xlabel="σ", ylabel="learning time τ (flow units)")
    axes.legend(loc="upper right", labelspacing=0.2, title="against $-\\ln\\,σ$", title_fontsize=7)


def _draw_distances(axes: Axes, data: xr.Dataset) -> None:
    for (name, label), colour in zip(THEORIES.items(), (INK, BLUE, GREEN), strict=True):
        if "size_neurons" in data:
            x, y = data["size_neurons"].values, data[f"distance_from_{name}"].values
        else:
            x = data["sigma"].values
            y = np.array([farthest(data.isel(sigma=i), name) for i in range(len(x))])
        axes.plot(x, y, "o", color=colour, markersize=3.5, markerfacecolor="none", label=label)
    axes.set(xscale="log", yscale="log", ylabel="largest distance of outlier")
    low, high = axes.get_ylim()
    axes.set(xlabel="N" if "size_neurons" in data else "σ", ylim=(low, high * (high / low) ** 0.6))
    axes.legend(loc="upper left", labelspacing=0.2, handletextpad=0.2)
