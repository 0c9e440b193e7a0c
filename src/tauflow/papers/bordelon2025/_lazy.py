r"""Lazy learning: networks in tangent-kernel scaling, each beside the theory from its own initial filter.

The scaling is $\gamma = 1$, which is $\gamma_0 = 1/\sqrt N$ with learning rates $\gamma_0^2N = 1$.

**Speed.** A network whose tangent kernel is r times the one at large N learns r times as fast. Of every network r is
read off its loss: the factor on learning time that brings the theory nearest to it, in the root of the loss. Over
networks its logarithm has mean 0, so its standard error is the resolution with which the theory's rates are tested.

**Band.** The kernel of one network has two parts, from u and from v, whose relative spread s over networks is that of
`tauflow.theory.lazy.kernel_spread`, of order $N^{-1/2}$. A rate that is off by a small share δ moves $e^{-x}$ by at
most $\delta/e$, so the root of the loss has a spread of at most $\sqrt2\,s/e$ of its first value.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from numpy.typing import NDArray
from scipy import stats
from scipy.optimize import linear_sum_assignment, minimize_scalar

from tauflow.learning import Record
from tauflow.networks import ContinuousLinearRNN
from tauflow.papers.base import Claim
from tauflow.papers.bordelon2025 import _flows as flows
from tauflow.plots import sequential
from tauflow.plots.style import GREY, INK, ORANGE
from tauflow.theory import LazyTheory
from tauflow.theory.lazy import filter_flow, kernel_spread

RTOL = 1e-5
"""Of the integration: its error is far below the distance between a network and its theory."""
SURE = 0.9985
"""Quantile at 3 standard deviations, of Student's t for as many networks as there are."""
SHADES = 6
SPECTRA_DURATION = 5.0
"""Learning time of the networks whose eigenvalues are followed."""


@dataclass(frozen=True)
class LazyTraining:
    """Networks of one size that learn one target.

    Attributes:
        neurons: Number of units N.
        target: The filter, of `tauflow.tasks`.
        networks: (sigma, number of networks) in rising order of sigma.
        duration: Learning time.
        points: Learning times to save besides 0, evenly spaced in the logarithm over three decades.
    """

    neurons: int
    target: Any
    networks: tuple[tuple[float, int], ...]
    duration: float = 10.0
    points: int = 36

    @property
    def times(self) -> NDArray[np.float64]:
        """Learning times to save."""
        return np.concatenate([[0.0], self.duration * np.geomspace(1e-3, 1, self.points)])

    def train(self, *, key: jax.Array, progress: Callable[..., None] | None = None) -> xr.Dataset:
        """Train all networks.

        Args:
            key: JAX random key.
            progress: Called at every saved time.

        Returns:
            Along `network` and `time`: `loss`; `theory`, from the network's own initial filter; `mean` and `spread` of
            the theory over initial filters. Coordinates `sigma`, `neurons` and `tau`.
        """
        sigmas = [sigma for sigma, count in self.networks for _ in range(count)]
        keys = jax.random.split(key, len(sigmas))
        rows = [self._follow(sigma, each, progress) for sigma, each in zip(sigmas, keys, strict=True)]
        return xr.concat(rows, dim="network")

    def _follow(self, sigma: float, key: jax.Array, progress: Callable[..., None] | None) -> xr.Dataset:
        network = draw_stable(self.neurons, sigma, key=key)
        record = Record(weights=[0], measurements=0)
        run = flows.follow(network, self.target, self.times, record=record, rtol=RTOL, progress=progress)
        own = LazyTheory().predict(run)["loss"].values[0]
        mean = filter_flow(self.target, sigma, self.times, [0.0])
        loss = run.data["loss"].values[0]
        values = {"loss": loss, "theory": own, "mean": mean.loss, "spread": mean.loss_spread}
        labels = {"sigma": ("network", [sigma]), "neurons": ("network", [self.neurons])}
        return xr.Dataset(
            {name: (("network", "time"), np.asarray(value, np.float64)[None]) for name, value in values.items()},
            labels | {"tau": ("time", self.times, {"unit": "flow"})},
        )


def draw_stable(neurons: int, sigma: float, *, key: jax.Array) -> ContinuousLinearRNN:
    """Draw a network in tangent-kernel scaling; where chance makes one unstable, as it may near σ = 1, another one."""
    attempt = 0
    while True:
        here = jax.random.fold_in(key, attempt)
        network = flows.draw_network(neurons, sigma, key=here, gamma0=neurons**-0.5)
        if sigma < 0.95 or network.eigenvalues().real.max() < 1:
            return network
        attempt += 1


def spectra(
    neurons: int, sigma: float, target: Any, *, key: jax.Array, progress: Callable[..., None] | None
) -> xr.Dataset:
    r"""Eigenvalues of W/√N at a few times of learning, each in the place of the one that it was before.

    Args:
        neurons: Number of units N.
        sigma: Standard deviation of all weights.
        target: The filter to learn.
        key: JAX random key.
        progress: Called at every saved time.

    Returns:
        `eigenvalues (measurement, index)`, with `tau_eigenvalues` and `eigenvalues_loss`, the loss over the first one.
    """
    network = draw_stable(neurons, sigma, key=key)
    times = np.concatenate([[0.0], SPECTRA_DURATION * np.geomspace(1e-2, 1, SHADES - 1)])
    record = Record(weights=[0], measurements=range(SHADES))
    run = flows.follow(network, target, times, record=record, rtol=RTOL, progress=progress)
    values = list(run.data["W_eigenvalues"].values[0])
    for i in range(1, SHADES):
        values[i] = values[i][linear_sum_assignment(np.abs(values[i - 1][:, None] - values[i]))[1]]
    loss = np.asarray(run.data["loss"][0], np.float64)
    return xr.Dataset(
        {
            "eigenvalues": (("measurement", "index"), np.stack(values)),
            "eigenvalues_loss": ("measurement", loss / loss[0]),
        },
        {"tau_eigenvalues": ("measurement", times, {"unit": "flow"}), "bulk_sigma": sigma, "bulk_neurons": neurons},
    )


def speed(tau: NDArray[np.float64], loss: NDArray[np.float64], theory: NDArray[np.float64]) -> float:
    """Factor on learning time that brings the theory nearest to a loss; NaN if the loss is not known throughout.

    Args:
        tau: Learning times, the first of which is 0, shape (time,).
        loss: Shape (time,).
        theory: Shape (time,).
    """
    if not np.isfinite(loss).all():
        return float("nan")
    logarithm, roots, wanted = np.log(tau[1:]), np.sqrt(theory[1:]), np.sqrt(loss[1:])

    def miss(shift: float) -> float:
        inside = logarithm + shift <= logarithm[-1]
        off = np.interp(logarithm + shift, logarithm, roots, left=np.sqrt(theory[0])) - wanted
        return float(np.mean(off[inside] ** 2))

    shifts = np.linspace(-2, 2, 81)
    best = shifts[int(np.argmin([miss(shift) for shift in shifts]))]
    found = minimize_scalar(miss, bounds=(best - 0.05, best + 0.05), method="bounded", options={"xatol": 1e-6})
    return float(np.exp(found.x))


def lazy_claims(data: xr.Dataset) -> tuple[Claim, Claim, Claim]:
    """Decide whether networks learn as the lazy theory has it: each one, their speed, and their mean.

    Args:
        data: As `LazyTraining.train` gives it.
    """
    loss, theory, mean, spread = (data[name].values for name in ("loss", "theory", "mean", "spread"))
    n, first, neurons = len(loss), loss[:, :1], data["neurons"].values
    off = np.abs(np.sqrt(loss) - np.sqrt(theory)) / np.sqrt(first)  # (network, time)
    band = np.sqrt(2) / np.e * kernel_spread(data["sigma"].values, neurons)[:, None]  # (network, 1)
    speeds = np.log([speed(data["tau"].values, loss[i], theory[i]) for i in range(n)])
    sure = float(stats.t.ppf(SURE, n - 1))
    error = float(speeds.std(ddof=1) / np.sqrt(n))
    z = np.abs(((loss - mean) / spread).mean(axis=0)) * np.sqrt(n)  # (time,)
    return (
        Claim(
            "loss_as_predicted",
            bool((off <= 3 * band).all()),
            {
                "largest deviation / 3 spreads": float((off / (3 * band)).max()),
                "largest deviation / initial root": float(off.max()),
                "mean deviation / initial root": float(off.mean()),
                "N": float(neurons.max()),
            },
            "The root of every network's loss follows the theory from its own initial filter, within 3 spreads of what "
            "kernels vary over networks of its size. This sees a rate that is off by a factor; that of the speed tests "
            "the rate itself.",
        ),
        Claim(
            "speed_as_predicted",
            bool(abs(speeds.mean()) <= sure * error),
            {
                "speed / theory": f"{np.exp(speeds.mean()):.4f} ± {error:.4f}",
                "sd over networks × √N": float(np.mean((speeds - speeds.mean()) ** 2 * neurons) ** 0.5),
                "networks": float(n),
            },
            "Networks learn at the speed of the theory, on average (to 3 standard errors over networks).",
        ),
        Claim(
            "mean_as_predicted",
            bool(z.max() <= 4),
            {"largest distance of the mean / standard error": float(z.max()), "networks": float(n)},
            "Their mean loss is the theory's mean over initial filters, to 4 of its standard errors, at all times.",
        ),
    )


def still_spectrum(data: xr.Dataset) -> Claim:
    """Decide whether eigenvalues stay where they began although the network learns.

    Args:
        data: As `spectra` gives it.
    """
    values = data["eigenvalues"].values
    shifts = np.abs(values[-1] - values[0]) / float(data["bulk_sigma"])
    spacing = 2 / np.sqrt(float(data["bulk_neurons"]))
    learned = float(data["eigenvalues_loss"][-1])
    return Claim(
        "eigenvalues_stay",
        bool(shifts.mean() < spacing / 10 and shifts.max() < spacing and learned < 0.05),
        {
            "mean shift / σ": float(shifts.mean()),
            "largest shift / σ": float(shifts.max()),
            "distance of neighbours / σ": float(spacing),
            "final / initial loss": learned,
        },
        "While the loss falls below 5 % of the initial, eigenvalues of W/√N move on average by less than a tenth of "
        "the distance between neighbours, 2σ/√N, and none by the whole of it.",
    )


def draw_spectra(axes: Axes, data: xr.Dataset, targets: list[complex]) -> None:
    """Draw eigenvalues in the complex plane, dark for late times, with their disk and the target's eigenvalues."""
    values, sigma = data["eigenvalues"].values, float(data["bulk_sigma"])
    around = sigma * np.exp(2j * np.pi * np.linspace(0, 1, 200))
    axes.plot(around.real, around.imag, color=GREY, linewidth=0.8)
    colours = sequential(len(values))[::-1]
    for i, colour in enumerate(colours):
        size, ends = 7 - 5 * i / (len(values) - 1), (0, len(values) - 1)
        tau = float(data["tau_eigenvalues"][i])
        axes.scatter(
            values[i].real,
            values[i].imag,
            s=size,
            color=colour,
            linewidths=0,
            label=f"τ = {tau:g}" if i in ends else None,
        )
    stars = np.array(targets)
    axes.plot(stars.real, stars.imag, "*", color=ORANGE, markersize=9, markeredgecolor="white", markeredgewidth=0.5,
              label="target", linestyle="none")  # fmt: skip
    axes.set(xlabel="Re λ of $W/\\sqrt{N}$", ylabel="Im λ", aspect="equal", xlim=(-1.1, 1.1), ylim=(-1.1, 1.1))
    axes.set_title(f"N = {int(data['bulk_neurons'])}, σ = {sigma:g}", fontsize=8)
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), handletextpad=0.2, borderpad=0.2)


def draw_losses(axes: Axes, data: xr.Dataset) -> None:
    """Draw the losses of all networks with the theory of each, and its mean at the sigma with most networks."""
    sigmas, counts = np.unique(data["sigma"].values, return_counts=True)
    for sigma, count, colour in zip(sigmas, counts, sequential(len(sigmas)), strict=True):
        here = data.isel(network=np.flatnonzero(data["sigma"].values == sigma), time=slice(1, None))
        tau = here["tau"].values
        axes.plot(tau, here["loss"].values.T, color=colour, linewidth=1.4)
        axes.plot([], [], color=colour, label=f"σ = {sigma:g}")
        axes.plot(tau, here["theory"].values.T, "--", color=INK, linewidth=0.7, zorder=3)
        if count == counts.max() > 1 and sigma == sigmas[np.argmax(counts)]:
            mean, spread = here["mean"].values[0], here["spread"].values[0]
            low = np.maximum(mean - spread, mean / 10)
            axes.fill_between(tau, low, mean + spread, color=colour, alpha=0.15, linewidth=0)
            axes.plot(tau, mean, ":", color=colour, linewidth=1.0)
            word = f"mean theory ± sd, σ = {sigma:g}"
    axes.plot([], [], "--", color=INK, linewidth=0.7, label="theory, own start")
    if counts.max() > 1:
        axes.plot([], [], ":", color=GREY, linewidth=1.0, label=word)
    axes.set(xscale="log", yscale="log", xlabel="learning time τ (flow units)", ylabel="loss")
