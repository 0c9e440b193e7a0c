"""Fig. 1: trained on three tasks, networks change by a matrix of low rank that solves the task on top of W0."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tauflow.papers._drawing import band, outside_legend, panel_letters
from tauflow.papers.base import Claim, Reproduction
from tauflow.papers.schuessler2020._tasks import (
    THRESHOLD,
    TITLES,
    Evaluation,
    Training,
    measure,
    ranks_to_try,
    truncate_weights,
)
from tauflow.plots import house_style, new_figure
from tauflow.plots.style import BLUE, CYCLE, GREY, INK, ORANGE, PAGE, PALE
from tauflow.run import Run
from tauflow.tasks import FlipFlop, make_task

HIGHEST_RANK = 10
FULL = (Training("flip-flop", 1000), Training("mante", 2000), Training("romo", 6000))
QUICK = (
    Training("flip-flop", 200, neurons=64, seeds=2, learning_rate=0.1, trials=128),
    Training("mante", 300, neurons=128, seeds=2, learning_rate=0.03, trials=128, settle=True),
    Training("romo", 650, neurons=128, seeds=2, learning_rate=0.1, trials=128, settle=True),
)


def reproduce(*, quick: bool = False, seed: int = 0, progress: Callable[..., None] | None = None) -> Reproduction:
    """Reproduce Fig. 1: example trials, loss over training, singular values, loss against the rank kept.

    Args:
        quick: A small version of seconds: 64 or 128 neurons, 2 networks a task, rates that fall to 0.
        seed: The number from which all randomness comes.
        progress: Called now and then with a `tauflow.learning.Progress`.

    Returns:
        The reproduction, with data along `task`.
    """
    parts = []
    for i, training in enumerate(QUICK if quick else FULL):
        key_train, key_test = jax.random.split(jax.random.fold_in(jax.random.key(seed), i))
        run = training.train(key=key_train, progress=progress)
        parts.append(describe(run, training, key=key_test, seed=seed))
    data = xr.concat(parts, dim="task", join="outer", coords="different", compat="equals").transpose("task", "run", ...)
    return Reproduction("schuessler2020", "fig1", data, draw(data), claims(data))


def describe(run: Run, training: Training, *, key: jax.Array, seed: int) -> xr.Dataset:
    """Everything the figure shows of the networks trained on one task.

    Args:
        run: The trained networks.
        training: How they were trained.
        key: JAX random key of the fresh trials.
        seed: From which the shuffling comes.

    Returns:
        The measures of `_tasks.measure` and `_tasks.truncate_weights`, the training loss (run, epoch), and the example
        trial of the first network along `time` (in membrane times).
    """
    evaluation = Evaluation(training.make_task(), training.trials, key=key)
    ranks = ranks_to_try(training.neurons)
    data = measure(run, evaluation, ranks=ranks[ranks <= 25], seed=seed)
    data = data.merge(truncate_weights(run, evaluation, ranks, data["initial_loss"]))
    data["training_loss"] = (("run", "epoch"), np.asarray(run.data["loss"], np.float64))
    task = FlipFlop(duration=100.0) if training.task == "flip-flop" else make_task(training.task)
    example = task.example()
    answer = run.network(run=0, snapshot=-1)(example.inputs).outputs  # (time, trial, output)
    data["example_inputs"] = (("time", "input"), np.asarray(example.inputs[:, 0]))
    data["example_outputs"] = (("time", "output"), np.asarray(answer[:, 0]))
    data["example_targets"] = (("time", "output"), np.asarray(example.targets[:, 0]))
    data["example_mask"] = (("time", "output"), np.asarray(example.mask[:, 0]))
    data = data.assign_coords(task=training.task, epoch=np.arange(training.epochs), time=task.times)
    sizes = {name: np.arange(data.sizes[name]) for name in ("run", "index", "input", "output")}
    data = data.assign_coords(sizes).reset_coords(["seed", "gain"])
    data["neurons"] = training.neurons
    data["time"].attrs["unit"] = "membrane times"
    return data


def claims(data: xr.Dataset) -> tuple[Claim, ...]:
    """Decide what the figure is to show, over all tasks and networks.

    Args:
        data: As `describe` gives it, along `task`.
    """
    loss = data["final_loss"] / data["initial_loss"]  # (task, run)
    change, whole = data["functional_rank_delta_W"], data["functional_rank_W"]  # (task, run)
    lower = np.asarray(change < whole)
    return (
        Claim(
            "loss_below_5_percent",
            bool((loss < THRESHOLD).all()),
            _by_task(loss, "largest final / initial loss"),
            "Training brings the loss on fresh trials below 5 % of its initial value, in every network.",
        ),
        Claim(
            "change_of_low_rank",
            bool((change <= HIGHEST_RANK).all()),
            _by_task(change, "largest functional rank of ΔW"),
            f"{HIGHEST_RANK} singular directions of ΔW or fewer solve the task (loss below 5 % of the initial).",
        ),
        Claim(
            "change_of_lower_rank_than_weights",
            bool(lower.all()),
            {
                **_by_task(change, "largest functional rank of ΔW"),
                **_by_task(whole, "smallest functional rank of W", "min"),
            },
            "ΔW needs fewer singular directions than W in every network.",
        ),
    )


def _by_task(values: xr.DataArray, name: str, reduce: str = "max") -> dict[str, float | str]:
    return {f"{name}, {task}": float(getattr(np, reduce)(values.sel(task=task).values)) for task in data_tasks(values)}


def data_tasks(data: xr.Dataset | xr.DataArray) -> list[str]:
    """The names along `task`."""
    return [str(task) for task in data["task"].values]


def draw(data: xr.Dataset) -> Figure:
    """Draw the figure: a column for each task, a row for each quantity."""
    with house_style():
        figure = new_figure(PAGE, 7.0)
        tasks = data_tasks(data)
        panels = figure.subplots(5, len(tasks), height_ratios=[0.55, 0.75, 1.1, 1.1, 1.2], squeeze=False)
        for column, task in enumerate(tasks):
            one = data.sel(task=task)
            _draw_trial(panels[0, column], panels[1, column], one, TITLES.get(task, task))
            _draw_loss(panels[2, column], one)
            _draw_singular_values(panels[3, column], one)
            _draw_truncation(panels[4, column], one)
        for row, label in enumerate(
            ("input", "output", "training loss\n/ initial loss", "singular values", "loss\n/ initial loss")
        ):
            panels[row, 0].set_ylabel(label)
        figure.align_ylabels(panels[:, 0])
        for row in (1, 2, 3, 4):
            outside_legend(panels[row, -1])
        panel_letters(panels[[0, 2, 3, 4]].ravel())
    return figure


def _draw_trial(above: Axes, below: Axes, one: xr.Dataset, title: str) -> None:
    counted = np.isfinite(one["example_inputs"].values[:, 0])
    time = one["time"].values[counted]
    for k, trace in enumerate(one["example_inputs"].values[counted].T):
        above.plot(time, trace, color=CYCLE[k], linewidth=0.9)
    for k in range(one.sizes["output"]):
        wanted, output = (one[f"example_{name}"].values[counted, k] for name in ("targets", "outputs"))
        mask = one["example_mask"].values[counted, k] > 0
        below.plot(time, output, color=CYCLE[k], linewidth=1.1, label=f"output {k + 1}")
        label = "target" if k == 0 else None
        below.plot(time, np.where(mask, wanted, np.nan), "--", color=INK, linewidth=1.0, zorder=3, label=label)
    above.set(title=title, xlim=(time[0], time[-1]))
    above.tick_params(labelbottom=False)
    below.set(xlabel="time (membrane times)", xlim=(time[0], time[-1]), ylim=(-0.75, 0.75))


def _draw_loss(axes: Axes, one: xr.Dataset) -> None:
    loss = one["training_loss"].values  # (run, epoch)
    loss = loss[:, np.isfinite(loss).all(axis=0)]
    relative = loss / loss[:, :1]
    epochs = np.arange(loss.shape[1])
    axes.plot(epochs, relative.T, color=PALE, linewidth=0.6)
    axes.plot(epochs, np.exp(np.log(relative).mean(axis=0)), color=BLUE, linewidth=1.1, label="mean of networks")
    axes.axhline(THRESHOLD, color=GREY, linestyle=":", linewidth=1.0, label="5 %")
    axes.set(yscale="log", xlabel="epoch", xlim=(0, epochs[-1]))


def _draw_singular_values(axes: Axes, one: xr.Dataset, count: int = 40) -> None:
    for name, colour, label in (("delta_W", BLUE, "ΔW"), ("W", ORANGE, "W = $W_0$ + ΔW")):
        values = one[f"{name}_singular_values"].values  # (run, index)
        values = values[:, np.isfinite(values).all(axis=0)][:, :count]
        index = np.arange(1, values.shape[1] + 1)
        band(axes, index, values, colour, marker="o", label=label)
    axes.set(xlabel="index", xlim=(0, count + 0.5), ylim=(0, None))


def _draw_truncation(axes: Axes, one: xr.Dataset) -> None:
    for name, dim, colour, label in (
        ("truncated_loss_delta_W", "rank", BLUE, "$W_0$ + truncated ΔW"),
        ("truncated_loss_W", "rank_W", ORANGE, "truncated W"),
    ):
        values = one[name].values / one["initial_loss"].values[:, None]  # (run, rank)
        known = np.isfinite(values).all(axis=0)
        band(axes, one[dim].values[known], values[:, known], colour, marker="o", label=label, log=True)
    axes.axhline(THRESHOLD, color=GREY, linestyle=":", linewidth=1.0, label="5 %")
    top = one["rank_W"].values.max()
    axes.set_xscale("symlog", linthresh=10, linscale=1.2)
    ticks: list[Any] = [tick for tick in (0, 5, 10, 50, 250) if tick <= top]
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.set(yscale="log", xlabel="rank kept", xlim=(-0.5, top))
