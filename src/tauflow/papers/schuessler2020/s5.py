"""Fig. S5: a linear network with one direction for input and output learns a cosine only with initial connectivity."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from jax.typing import ArrayLike
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from tauflow.learning import Record, ensemble
from tauflow.networks import RateRNN
from tauflow.objectives import MeanSquaredError
from tauflow.papers._drawing import panel_letters
from tauflow.papers.base import Claim, Reproduction
from tauflow.plots import house_style, new_figure, sequential
from tauflow.plots.style import GREY, INK, PAGE
from tauflow.run import Run
from tauflow.tasks import Cosine

THRESHOLD = 0.05
TASK = Cosine()


@dataclass(frozen=True)
class Settings:
    """How the networks are trained; the defaults are the authors' settings.

    Attributes:
        neurons: Number of units N.
        epochs: Number of updates.
        gains: Initial connectivity strengths g.
        rates: Learning rate of plain gradient descent at each gain.
        seeds: Networks at each gain.
    """

    neurons: int = 256
    epochs: int = 1000
    gains: tuple[float, ...] = (0.0, 0.4, 0.8)
    rates: tuple[float, ...] = (0.2, 0.15, 0.05)
    seeds: int = 3

    def make_network(self, *, key: jax.Array, gain: float) -> RateRNN:
        """Draw a linear network that reads out along its input vector."""
        network = RateRNN.random(self.neurons, 1, 1, gain=gain, key=key, phi="identity", dt=TASK.dt)
        return dataclasses.replace(network, W_out=network.W_in.T / self.neurons)

    def make_optimizer(self, gain: ArrayLike) -> optax.GradientTransformation:
        """Plain gradient descent with the rate of this gain."""
        gain = jnp.asarray(gain)
        return optax.sgd(jnp.interp(gain, *(jnp.asarray(x, gain.dtype) for x in (self.gains, self.rates))))


FULL = Settings()
QUICK = Settings(neurons=64, epochs=600, seeds=1)


def reproduce(*, quick: bool = False, seed: int = 0, progress: Callable[..., None] | None = None) -> Reproduction:
    """Reproduce Fig. S5: outputs after training, loss, and the leading eigenvalue over training.

    Args:
        quick: A small version of seconds: 64 neurons, 600 epochs, one network at each gain.
        seed: The number from which all randomness comes.
        progress: Called now and then with a `tauflow.learning.Progress`.

    Returns:
        The reproduction, with data along `run`, `epoch`, `measurement` and `time`.
    """
    settings = QUICK if quick else FULL
    run = ensemble(
        settings.make_network,
        lambda gain: MeanSquaredError(TASK, trials=1),
        settings.make_optimizer,
        keys=jax.random.split(jax.random.key(seed), settings.seeds),
        grid={"gain": list(settings.gains)},
        steps=settings.epochs,
        train=("W",),
        record=Record(measurements=41),
        progress=progress,
    )
    data = describe(run)
    return Reproduction("schuessler2020", "s5", data, draw(data), claims(data))


def describe(run: Run) -> xr.Dataset:
    """What the figure shows of every network.

    Args:
        run: The trained networks, with the eigenvalues of W along `measurement`.

    Returns:
        `relative_loss (run, epoch)`, over that of epoch 0; `output (run, time)` after training and `target (time)`;
        `leading (run, measurement)`, the eigenvalue of largest imaginary part, and `largest_real_part`.
    """
    loss = np.asarray(run.data["loss"], np.float64)
    every = run.data["W_eigenvalues"].values  # (run, measurement, index)
    which = np.argmax(every.imag, axis=-1)[..., None]
    trial = TASK.example()
    outputs = [np.asarray(run.network(run=i, snapshot=-1)(trial.inputs).outputs[:, 0, 0]) for i in range(run.n_runs)]
    return xr.Dataset(
        {
            "relative_loss": (("run", "epoch"), loss / loss[:, :1]),
            "output": (("run", "time"), np.stack(outputs)),
            "target": ("time", np.cos(2 * np.pi * TASK.times / TASK.period)),
            "leading": (("run", "measurement"), np.take_along_axis(every, which, axis=-1)[..., 0]),
            "largest_real_part": (("run", "measurement"), every.real.max(axis=-1)),
        },
        {
            "gain": run.data["gain"],
            "seed": run.data["seed"],
            "status": run.data["status"],
            "time": TASK.times,
            "measurement_update": run.data["measurement_update"],
        },
        {"counted": TASK.counted, "frequency": 1 / TASK.period},
    )


def claims(data: xr.Dataset) -> tuple[Claim, ...]:
    """Decide whether learning fails at zero gain only, and which eigenvalues it makes.

    Args:
        data: As `describe` gives it.
    """
    none = data["gain"].values == 0
    end = data["relative_loss"].values[:, -1]
    last = data["leading"].values[:, -1]
    speed = 2 * np.pi * data.frequency
    return (
        Claim(
            "fails_only_without_initial_connectivity",
            bool((end[none] > 0.5).all() and (end[~none] < THRESHOLD).all() and none.any() and not none.all()),
            {
                "smallest final / initial loss, g = 0": float(end[none].min()),
                "largest final / initial loss, g > 0": float(end[~none].max()),
            },
            "The cosine is learned (loss below 5 %) at every gain but 0, where more than half of the loss stays.",
        ),
        Claim(
            "oscillation_needs_a_complex_pair",
            bool((np.abs(last[none].imag) < 1e-3).all() and (np.abs(last[~none].imag / speed - 1) < 0.1).all()),
            {
                "largest Im λ, g = 0": float(np.abs(last[none].imag).max()),
                "Im λ / 2πf, g > 0, smallest": float((last[~none].imag / speed).min()),
                "Im λ / 2πf, g > 0, largest": float((last[~none].imag / speed).max()),
            },
            "Where it is learned, W has eigenvalues with imaginary parts within 10 % of ±2πf; at g = 0 all are real.",
        ),
    )


def draw(data: xr.Dataset) -> Figure:
    """Draw the figure: outputs, loss, imaginary and real part of the leading eigenvalue."""
    with house_style():
        figure = new_figure(PAGE, 4.3)
        panels = figure.subplots(2, 2)
        gains = np.unique(data["gain"].values)
        for gain, colour in zip(gains, sequential(len(gains)), strict=True):
            first = data.isel(run=int(np.flatnonzero(data["gain"].values == gain)[0]))
            _draw_gain(panels, first, colour, f"g = {gain:g}")
        time = data["time"].values
        panels[0, 0].axvspan(0, data.counted, color=GREY, alpha=0.1, linewidth=0)
        panels[0, 0].plot(
            time, data["target"].values, "--", color=INK, linewidth=1.0, label="target (counted where grey)"
        )
        panels[0, 0].set(xlabel="time (membrane times)", ylabel="output", xlim=(0, time[-1]))
        panels[0, 1].set(xlabel="epoch", ylabel="loss / initial loss", yscale="log")
        speed = 2 * np.pi * data.frequency
        panels[1, 0].axhline(speed, color=INK, linestyle="--", linewidth=1.0, label="2πf")
        panels[1, 0].text(0, 0.97 * speed, "2πf", va="top", fontsize=7)
        panels[1, 0].set(xlabel="epoch", ylabel="Im λ$^{(1)}$ of W", ylim=(-0.05, None))
        panels[1, 1].axhline(1.0, color=GREY, linestyle=":", linewidth=1.0)
        panels[1, 1].set(xlabel="epoch", ylabel="Re λ of W")
        handles, _ = panels[0, 0].get_legend_handles_labels()
        handles.append(Line2D([], [], color=GREY, label="λ$^{(1)}$: largest imaginary part"))
        handles.append(Line2D([], [], color=GREY, linestyle=(0, (2, 1)), linewidth=1.0, label="largest real part"))
        figure.legend(handles=handles, loc="outside lower center", ncols=3)
        panel_letters(panels.ravel())
    return figure


def _draw_gain(panels: np.ndarray, one: xr.Dataset, colour: str, label: str) -> None:
    epochs = one["measurement_update"].values
    panels[0, 0].plot(one["time"].values, one["output"].values, color=colour, label=label)
    panels[0, 1].plot(one["relative_loss"].values, color=colour)
    _draw_eigenvalue(panels[1, 0], epochs, one["leading"].values.imag, colour)
    _draw_eigenvalue(panels[1, 1], epochs, one["leading"].values.real, colour)
    panels[1, 1].plot(epochs, one["largest_real_part"].values, linestyle=(0, (2, 1)), color=colour, linewidth=1.0)


def _draw_eigenvalue(axes: Axes, epochs: np.ndarray, values: np.ndarray, colour: str) -> None:
    axes.plot(epochs, values, color=colour)
