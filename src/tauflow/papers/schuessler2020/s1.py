"""Fig. S1: with the rate scaled as 1/N, learning time, change and its rank hardly depend on the number of neurons."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullFormatter, NullLocator, ScalarFormatter

from tauflow.papers._drawing import against, panel_letters
from tauflow.papers.base import Claim, Reproduction
from tauflow.papers.schuessler2020._tasks import TITLES, Evaluation, Training, measure
from tauflow.plots import house_style, new_figure, sequential
from tauflow.plots.style import PAGE

FULL = (
    Training("flip-flop", 1000, gains=(0.0, 0.9, 1.8)),
    Training("mante", 2000, gains=(0.0, 0.9, 1.8)),
    Training("romo", 6000, gains=(0.0, 0.9, 1.8)),
)
SIZES = (64, 128, 256, 512)
QUICK = (Training("flip-flop", 150, gains=(0.9,), seeds=2, learning_rate=0.1, trials=128),)
QUICK_SIZES = (32, 64, 128)
RANKS = tuple(range(26))
QUICK_RANKS = tuple(range(13))
QUANTITIES = {
    "learning_time": "learning time\n(epochs)",
    "delta_W_norm": "‖ΔW‖",
    "W_norm": "‖W‖",
    "functional_rank_delta_W": "functional rank\nof ΔW",
}


def reproduce(*, quick: bool = False, seed: int = 0, progress: Callable[..., None] | None = None) -> Reproduction:
    """Reproduce Fig. S1: learning time, norms of ΔW and W, and functional rank against the number of neurons.

    Args:
        quick: A small version of seconds: the flip-flop task at one gain, 32 to 128 neurons, a larger learning rate.
        seed: The number from which all randomness comes.
        progress: Called now and then with a `tauflow.learning.Progress`.

    Returns:
        The reproduction, with data along `task` and `run`, and `neurons` for every run.
    """
    parts = []
    for i, training in enumerate(QUICK if quick else FULL):
        key_train, key_test = jax.random.split(jax.random.fold_in(jax.random.key(seed), i))
        evaluation = Evaluation(training.make_task(), training.trials, key=key_test)
        sizes = []
        for size in QUICK_SIZES if quick else SIZES:
            run = dataclasses.replace(training, neurons=size).train(key=key_train, progress=progress)
            measured = measure(run, evaluation, ranks=QUICK_RANKS if quick else RANKS, seed=seed)
            measured = measured.drop_vars(["W_singular_values", "delta_W_singular_values"])
            sizes.append(measured.assign(neurons=("run", np.full(run.n_runs, size))))
        part = xr.concat(sizes, dim="run").reset_coords(["seed", "gain"])
        parts.append(part.assign_coords(task=training.task, run=np.arange(part.sizes["run"])))
    data = xr.concat(parts, dim="task").transpose("task", "run", ...)
    return Reproduction("schuessler2020", "s1", data, draw(data), claims(data))


def exponent(neurons: np.ndarray, values: np.ndarray) -> tuple[float, float]:
    """Exponent of a power law in N and its standard error, by least squares of logarithms."""
    (slope, _), covariance = np.polyfit(np.log(neurons), np.log(values), 1, cov=True)
    return float(slope), float(np.sqrt(covariance[0, 0]))


def claims(data: xr.Dataset) -> tuple[Claim, ...]:
    """Decide how quantities scale with N, for every task and gain; a random matrix of gain g has ‖W‖ = g √N.

    Args:
        data: As `reproduce` gives it.
    """
    wanted = {
        "functional_rank_delta_W": (-np.inf, 1.0, "The functional rank of ΔW grows more slowly than N"),
        "delta_W_norm": (-np.inf, 0.5, "The norm of ΔW grows more slowly than the root of N, that of W"),
        "learning_time": (
            -1.0,
            1.0,
            "With a learning rate of order 1/N, the learning time is far from proportional to N or 1/N",
        ),
        "W_norm": (0.25, 0.75, "The norm of W grows about as the root of N where g > 0"),
    }
    made = []
    for name, (low, high, sentence) in wanted.items():
        holds, measured = True, {}
        for i, task in enumerate(data["task"].values):
            one = data.isel(task=i)
            for gain in np.unique(one["gain"].values):
                here = (one["gain"].values == gain) & np.isfinite(one[name].values)
                if (name == "W_norm" and gain == 0) or len(np.unique(one["neurons"].values[here])) < 3:
                    continue
                slope, error = exponent(one["neurons"].values[here], one[name].values[here])
                measured[f"{task}, g = {gain:g}"] = f"{slope:.2f} ± {error:.2f}"
                holds &= low < slope - 2 * error and slope + 2 * error < high
        words = f"below {high:g}" if np.isinf(low) else f"between {low:g} and {high:g}"
        sentence = f"{sentence} (exponent {words} by two standard errors)."
        made.append(Claim(f"{name}_scaling", bool(holds and measured), measured, sentence))
    return tuple(made)


def draw(data: xr.Dataset) -> Figure:
    """Draw the figure: a column for each task, a row for each quantity, a colour for each gain."""
    with house_style():
        tasks = [str(task) for task in data["task"].values]
        figure = new_figure(PAGE if len(tasks) > 1 else PAGE / 2, 6.2)
        panels = figure.subplots(len(QUANTITIES), len(tasks), squeeze=False, sharex=True)
        for column, task in enumerate(tasks):
            one = data.sel(task=task)
            gains = np.unique(one["gain"].values)
            for row, (name, label) in enumerate(QUANTITIES.items()):
                axes = panels[row, column]
                for gain, colour in zip(gains, sequential(len(gains)), strict=True):
                    here = (one["gain"].values == gain) & np.isfinite(one[name].values)
                    sizes = np.unique(one["neurons"].values[here])
                    values = [one[name].values[here & (one["neurons"].values == size)] for size in sizes]
                    against(axes, sizes, values, colour, f"g = {gain:g}")
                axes.set(xscale="log", ylim=(0, None), ylabel=label if column == 0 else "")
                axes.xaxis.set_major_locator(FixedLocator(list(np.unique(one["neurons"].values))))
                axes.xaxis.set_major_formatter(ScalarFormatter())
                axes.xaxis.set_minor_locator(NullLocator())
                axes.xaxis.set_minor_formatter(NullFormatter())
            panels[0, column].set_title(TITLES.get(task, task))
            panels[-1, column].set_xlabel("number of neurons N")
        panels[0, -1].legend()
        figure.align_ylabels(panels[:, 0])
        panel_letters(panels.ravel())
    return figure
