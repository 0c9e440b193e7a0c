r"""Fig. 3: a linear network with a planted pair of eigenvalues learns to ring, as two neurons of its own do.

The paper does not say where its pair starts, nor how long read-in and readout are. Here it is $0.3 \pm 0.3i$, outside
the bulk of radius 0.1, with $|u| = |v| = 0.3\sqrt N$: from there the pair turns before it grows.

The two neurons have eight numbers: read-in, readout and weights in the plane of the pair (F17). What the bulk adds is
of order σ². The paper's model (5) has six, with one vector for read-in and readout; since learning drives the two
apart, it is another model, here in gradient flow with half the rate for the shared vector.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import jax
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from scipy.integrate import solve_ivp

from tauflow.analysis.arguments import FloatArray
from tauflow.learning import Record
from tauflow.networks import ContinuousLinearRNN
from tauflow.papers._drawing import panel_letters
from tauflow.papers.base import Claim, Reproduction
from tauflow.papers.bordelon2025 import _flows as flows
from tauflow.plots import house_style, new_figure, sequential
from tauflow.plots.style import BLUE, GREEN, GREY, INK, ORANGE, PAGE, PALE
from tauflow.precision import float64
from tauflow.tasks import DampedOscillator
from tauflow.theory import oscillator

TARGET = DampedOscillator(0.1, 1.0)
START = {"c": 0.7, "omega": 0.3, "amplitude": 0.3}
"""Of the planted pair 1 - c ± iω, and of u and v."""
DURATION = 4.5
MODELS = {
    "two_neurons": "two neurons, 8 numbers",
    "with_bulk": "with the bulk, σ²",
    "six_numbers": "model (5), 6 numbers",
}


@dataclass(frozen=True)
class Settings:
    """Networks and times.

    Attributes:
        neurons: Number of units N.
        sigmas: Radii of the bulk; the first is that of the pictures of one network.
        points: Learning times at which each network is looked at.
    """

    neurons: int
    sigmas: tuple[float, ...]
    points: int


FULL = Settings(250, (0.1, 0.07, 0.05, 0.035, 0.025), 61)
QUICK = Settings(32, (0.1, 0.05, 0.025), 31)


def warm_network(neurons: int, sigma: float, *, key: jax.Array) -> ContinuousLinearRNN:
    """Draw a network with the planted pair, in float64.

    Args:
        neurons: Number of units N.
        sigma: Radius of the bulk.
        key: JAX random key; networks of one key share the plane and, up to sigma, the bulk.
    """
    with float64():
        return ContinuousLinearRNN.warm_start(neurons, sigma=sigma, key=key, dtype="float64", **START)


def reproduce(*, quick: bool = False, seed: int = 0, progress: Callable[..., None] | None = None) -> Reproduction:
    """Reproduce Fig. 3: loss and eigenvalues of a network that learns to ring, and of its two neurons.

    Args:
        quick: A small version of seconds: 32 neurons, fewer values of sigma.
        seed: The number from which all randomness comes.
        progress: Called now and then with a `tauflow.learning.Progress`.

    Returns:
        The reproduction, with data along `sigma`, `time` and, for the first sigma, `measurement`.
    """
    settings = QUICK if quick else FULL
    parts: list[xr.Dataset] = []
    tau = np.linspace(0, DURATION, settings.points, dtype=np.float64)
    for sigma in settings.sigmas:
        network = warm_network(settings.neurons, sigma, key=jax.random.key(seed))
        run = flows.follow(network, TARGET, tau, record=Record(measurements=range(settings.points)), progress=progress)
        spectra = run.data["W_eigenvalues"].values[0]  # (time, index)
        part = models(network, tau).assign_coords(sigma=sigma)
        part["loss"] = ("time", run.data["loss"].values[0].astype(np.float64))
        part["pair"] = ("time", flows.leading(spectra))
        if not parts:
            shown = np.linspace(0, 0.7 * settings.points, 10).astype(int)
            first = xr.Dataset(
                {
                    "eigenvalues": (("measurement", "index"), spectra[[*shown, -1]]),
                    "tau_eigenvalues": ("measurement", tau[[*shown, -1]], {"unit": "flow"}),
                }
            )
        parts.append(part)
    data = xr.concat(parts, dim="sigma").merge(first)
    data = data.assign_attrs(neurons=settings.neurons, c=TARGET.c, omega=TARGET.omega)
    return Reproduction("bordelon2025", "fig3", data, draw(data), claims(data))


def models(network: ContinuousLinearRNN, tau: FloatArray) -> xr.Dataset:
    """Loss and pair of the effective networks along their own flows.

    Args:
        network: The initial network.
        tau: Learning times, shape (time,).

    Returns:
        Along `time`: `tau` and, for each of `MODELS`, `<model>_loss` and `<model>_pair`.
    """
    u, v, W = (np.asarray(x, np.float64) for x in (network.u, network.v, network.W))
    plane = oscillator.planted_plane(W)
    both = np.concatenate([plane, np.stack([u, v]) / np.linalg.norm(u)])
    starts = {
        "two_neurons": oscillator.project(u, v, W, plane),
        "with_bulk": oscillator.project(u, v, W, both, 1),
    }
    data = xr.Dataset({"tau": ("time", tau, {"unit": "flow"})})
    for name, start in starts.items():
        path = oscillator.effective_flow(tau, *start, TARGET)
        data[f"{name}_loss"], data[f"{name}_pair"] = (
            ("time", path.loss),
            ("time", flows.leading(np.linalg.eigvals(path.M))),
        )
    small = starts["two_neurons"]
    shared, M = six_numbers(tau, (small.u + small.v) / 2, small.M)
    data["six_numbers_loss"] = ("time", oscillator.effective_loss(shared, shared, M, TARGET))
    data["six_numbers_pair"] = ("time", flows.leading(np.linalg.eigvals(M)))
    return data


def six_numbers(tau: FloatArray, u: ArrayLike, M: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Gradient flow of the paper's model (5): one vector for read-in and readout, at half the rate of M.

    Args:
        tau: Learning times, shape (time,).
        u: The vector at the start, shape (2,).
        M: The weights at the start, shape (2, 2).

    Returns:
        The vector, shape (time, 2), and the weights, shape (time, 2, 2).
    """

    def slope(_: float, flat: FloatArray) -> FloatArray:
        slopes = oscillator.effective_gradient(flat[:2], flat[:2], flat[2:].reshape(2, 2), TARGET)
        return -np.concatenate([(slopes.u + slopes.v) / 2, slopes.M.ravel()])

    start = np.concatenate([np.ravel(u), np.ravel(M)])
    path = solve_ivp(slope, (0.0, tau[-1]), start, "LSODA", t_eval=tau, rtol=1e-8, atol=1e-10).y.T
    return path[:, :2], path[:, 2:].reshape(-1, 2, 2)


def farthest(data: xr.Dataset, model: str) -> FloatArray:
    """Largest distance of the pair from that of a model, for each sigma."""
    return abs(data["pair"] - data[f"{model}_pair"]).max("time").values


def claims(data: xr.Dataset) -> tuple[Claim, ...]:
    """Decide whether the network learns as its two neurons do.

    Args:
        data: As `reproduce` gives it.
    """
    sigma = data["sigma"].values
    small, bulk, six = (farthest(data, name) for name in MODELS)
    order, error = _power(sigma, small)
    changed = float(abs(data["two_neurons_pair"] - data["with_bulk_pair"]).isel(sigma=0).max())
    losses = abs(data["loss"] - data["two_neurons_loss"]).max("time").values / data["loss"].values[:, 0]
    goal = 1 - data.c + 1j * data.omega
    off = abs(complex(data["pair"][0, -1]) - goal)
    return (
        Claim(
            "two_neurons_as_sigma_falls",
            abs(order - 2) < 0.5 and bool(losses[0] < 0.1),
            {f"largest distance of the pair, σ = {s:g}": d for s, d in zip(sigma, small, strict=True)}
            | {"exponent of σ": f"{order:.2f} ± {error:.2f}", "loss, largest distance / initial": float(losses[0])},
            "The pair follows that of the two neurons, the better the smaller the bulk: the largest distance falls "
            "about as σ² (exponent between 1.5 and 2.5).",
        ),
        Claim(
            "pair_as_predicted",
            bool(bulk[0] < 0.1 * changed),
            {"largest distance": float(bulk[0]), "order σ² changes": changed, "σ": float(sigma[0])},
            "With what the bulk adds to order σ² the pair is predicted to a tenth of what that order changes.",
        ),
        Claim(
            "six_numbers_do_not_suffice",
            bool((six > 3 * small).all()),
            {f"(5), largest distance, σ = {s:g}": d for s, d in zip(sigma, six, strict=True)},
            "The model (5), with one vector for read-in and readout, is off by more than three times as much at every "
            "σ.",
        ),
        flows.bulk_stays(data, float(sigma[0]), 2),
        Claim(
            "ends_at_target",
            off < 0.01 * abs(goal),
            {"distance from 1 - c* + iω*": off, "pair": f"{complex(data['pair'][0, -1]):.4f}"},
            "The pair ends at 1 - c* ± iω*, to 1 %.",
        ),
    )


def _power(sigma: FloatArray, values: FloatArray) -> tuple[float, float]:
    """Exponent of values ∝ σⁿ and its standard error."""
    x, y = np.log(sigma) - np.log(sigma).mean(), np.log(values)
    slope = float(x @ y / (x @ x))
    residual = y - y.mean() - slope * x
    return slope, float(np.sqrt(residual @ residual / max(len(x) - 2, 1) / (x @ x)))


def draw(data: xr.Dataset) -> Figure:
    """Draw the figure: loss, eigenvalues and paths of the pair, and distances against sigma."""
    one = data.isel(sigma=0)
    with house_style():
        figure = new_figure(PAGE, 5.0)
        panels = figure.subplots(2, 2)
        _draw_loss(panels[0, 0], one)
        _draw_eigenvalues(panels[0, 1], data)
        _draw_paths(panels[1, 0], one)
        _draw_distances(panels[1, 1], data)
        panel_letters(panels.ravel())
    return figure


def _draw_models(axes: Axes, quantity: Callable[[str], tuple[ArrayLike, ArrayLike]]) -> None:
    for (name, label), style, colour in zip(MODELS.items(), ("--", "-", ":"), (INK, GREEN, BLUE), strict=True):
        if name != "with_bulk":
            axes.plot(*quantity(name), style, color=colour, linewidth=1.1, label=label)


def _draw_loss(axes: Axes, one: xr.Dataset) -> None:
    tau = one["tau"].values
    axes.plot(tau, one["loss"] / one["loss"][0], color=ORANGE, linewidth=2.4, label=f"network, N = {one.neurons}")
    _draw_models(axes, lambda name: (tau, one[f"{name}_loss"] / one["loss"][0]))
    axes.set(xlabel="learning time τ (flow units)", ylabel="loss / initial loss", ylim=(0, 1.05))
    axes.legend(loc="upper right")


def _draw_eigenvalues(axes: Axes, data: xr.Dataset) -> None:
    sigma, shades = float(data["sigma"][0]), sequential(data.sizes["measurement"])[::-1]
    angle = np.linspace(0, 2 * np.pi, 200)
    axes.plot(sigma * np.cos(angle), sigma * np.sin(angle), color=PALE, linewidth=1.0)
    for values, shade in zip(data["eigenvalues"].values, shades, strict=True):
        out = np.argsort(-np.abs(values))[:2]
        axes.plot(values.real, values.imag, ".", color=shade, markersize=2.5, markeredgewidth=0)
        axes.plot(values[out].real, values[out].imag, "o", color=shade, markersize=4.0)
    for sign in (1, -1):
        axes.plot(1 - data.c, sign * data.omega, "*", color=ORANGE, markersize=9, markerfacecolor="none")
    axes.set(xlabel="Re λ", ylabel="Im λ", aspect="equal", xlim=(-0.7, 1.7), ylim=(-1.2, 1.2))
    axes.set_title(f"W/√N, σ = {sigma:g}")
    late = float(data["tau_eigenvalues"][-1])
    axes.text(0.03, 0.03, f"dark: later, to τ = {late:.1f}", transform=axes.transAxes, fontsize=7, color=GREY)
    axes.text(1.0, data.omega, "1 - c* ± iω*", va="center", fontsize=7, color=ORANGE)


def _draw_paths(axes: Axes, one: xr.Dataset) -> None:
    axes.plot(one["pair"].real, one["pair"].imag, color=ORANGE, linewidth=2.4)
    axes.plot(one["pair"].real, one["pair"].imag, "o", color=ORANGE, markersize=3.0)
    _draw_models(axes, lambda name: (one[f"{name}_pair"].real, one[f"{name}_pair"].imag))
    axes.plot(1 - one.c, one.omega, "*", color=ORANGE, markersize=9, markerfacecolor="none")
    axes.set(xlabel="Re λ of the pair", ylabel="Im λ")


def _draw_distances(axes: Axes, data: xr.Dataset) -> None:
    sigma = data["sigma"].values
    for (name, label), colour in zip(MODELS.items(), (INK, GREEN, BLUE), strict=True):
        axes.plot(sigma, farthest(data, name), "o", color=colour, markersize=4.0, label=label)
    fine = np.array([sigma.min(), sigma.max()])
    level = farthest(data, "two_neurons")[0] / sigma[0] ** 2
    axes.plot(fine, level * fine**2, "--", color=PALE, linewidth=1.0, label="∝ σ²", zorder=0)
    axes.set(xscale="log", yscale="log", xlabel="σ", ylabel="largest distance of the pair")
    low, high = axes.get_ylim()
    axes.set(ylim=(low, high * (high / low) ** 0.45), xticks=sigma, xticklabels=[f"{s:g}" for s in sigma])
    axes.minorticks_off()
    axes.legend(loc="upper left", ncols=2, columnspacing=1.0)
