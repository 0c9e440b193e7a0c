"""Fig. S2: with a larger gain learning changes less, while W keeps the bulk of its random eigenvalues."""

from __future__ import annotations

from collections.abc import Callable

import jax
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from tauflow.analysis import eigenvalues
from tauflow.papers._drawing import panel_letters
from tauflow.papers.base import Claim, Reproduction
from tauflow.papers.schuessler2020._tasks import TITLES, Evaluation, Training, measure
from tauflow.plots import house_style, new_figure, sequential
from tauflow.plots.style import BLUE, GREY, ORANGE, PAGE
from tauflow.run import Run

GAINS = (0.0, 0.9, 1.8)
MARGIN = 1.1
"""Eigenvalues within this multiple of the radius g count as inside."""
FULL = (
    Training("flip-flop", 1000, gains=GAINS, seeds=1),
    Training("mante", 2000, gains=GAINS, seeds=1),
    Training("romo", 6000, gains=GAINS, seeds=1),
)
QUICK = (Training("flip-flop", 250, gains=(0.0, 1.8), seeds=1, neurons=64, learning_rate=0.1, trials=128),)


def reproduce(*, quick: bool = False, seed: int = 0, progress: Callable[..., None] | None = None) -> Reproduction:
    """Reproduce Fig. S2: singular values and eigenvalues of ΔW and W at three gains.

    Args:
        quick: A small version of seconds: the flip-flop task with 64 neurons at two gains, a larger learning rate.
        seed: The number from which all randomness comes.
        progress: Called now and then with a `tauflow.learning.Progress`.

    Returns:
        The reproduction, with data along `task` and `run` (one network a gain).
    """
    parts = []
    for i, training in enumerate(QUICK if quick else FULL):
        key_train, key_test = jax.random.split(jax.random.fold_in(jax.random.key(seed), i))
        run = training.train(key=key_train, progress=progress)
        evaluation = Evaluation(training.make_task(), training.trials, key=key_test)
        parts.append(describe(run, evaluation, seed=seed).assign_coords(task=training.task))
    data = xr.concat(parts, dim="task").transpose("task", "run", ...)
    return Reproduction("schuessler2020", "s2", data, draw(data), claims(data))


def describe(run: Run, evaluation: Evaluation, *, seed: int) -> xr.Dataset:
    """Spectra of every network.

    Args:
        run: Trained networks, one at each gain.
        evaluation: Fresh trials.
        seed: From which the shuffling comes.

    Returns:
        `delta_W_singular_values` and `W_singular_values (run, index)`; `delta_W_eigenvalues` and `W_eigenvalues`;
        `initial_loss` and `final_loss (run)`.
    """
    measured = measure(run, evaluation, ranks=(0,), seed=seed)
    names = ["delta_W_singular_values", "W_singular_values", "initial_loss", "final_loss"]
    data = measured[names].assign_coords(run=np.arange(run.n_runs)).reset_coords(["seed", "gain"], drop=False)
    W0, W = (np.asarray(run.data["W"][:, at], np.float64) for at in (0, -1))  # (run, n, n)
    data["delta_W_eigenvalues"] = (("run", "index"), eigenvalues(W - W0))
    data["W_eigenvalues"] = (("run", "index"), eigenvalues(W))
    return data


def claims(data: xr.Dataset) -> tuple[Claim, ...]:
    """Decide how the spectra depend on the gain, for every task.

    Args:
        data: As `describe` gives it, along `task`.
    """
    shrink: dict[str, float | str] = {}
    grow: dict[str, float | str] = {}
    inside: dict[str, float | str] = {}
    holds = {"shrink": True, "grow": True, "inside": True}
    for i, task in enumerate(data["task"].values):
        one = data.isel(task=i).sortby("gain")
        gain = one["gain"].values
        change, whole = (one[f"{name}_singular_values"].values for name in ("delta_W", "W"))  # (run, index)
        shrink |= {f"{task}, s₁(ΔW), g = {g:g}": float(s[0]) for g, s in zip(gain, change, strict=True)}
        bulk = np.median(whole, axis=1)
        grow |= {f"{task}, median s(W), g = {g:g}": float(s) for g, s in zip(gain, bulk, strict=True)}
        holds["shrink"] &= bool(change[0, 0] > change[-1, 0])
        same = bool(np.allclose(change[gain == 0], whole[gain == 0]))
        holds["grow"] &= bool((np.diff(bulk) > 0).all()) and same
        for g, values in zip(gain, one["W_eigenvalues"].values, strict=True):
            if g > 0:
                share = float((np.abs(values) <= MARGIN * g).mean())
                inside[f"{task}, share inside, g = {g:g}"] = share
                holds["inside"] &= share >= 0.9
    return (
        Claim(
            "change_shrinks",
            holds["shrink"],
            shrink,
            "The first singular value of ΔW is smaller at the largest gain than at none.",
        ),
        Claim(
            "weights_grow",
            holds["grow"],
            grow,
            "The bulk of the singular values of W grows with the gain; at g = 0 they are those of ΔW.",
        ),
        Claim(
            "bulk_stays_inside",
            holds["inside"],
            inside,
            f"At least 90 % of the eigenvalues of W stay in the circle of radius g (within {MARGIN:g} g).",
        ),
    )


def draw(data: xr.Dataset) -> Figure:
    """Draw the figure: a block of columns for each task: singular values above, eigenvalues for each gain below."""
    with house_style():
        tasks = [str(task) for task in data["task"].values]
        gains = np.unique(data["gain"].values)
        width = PAGE if len(tasks) > 1 else 0.55 * PAGE
        figure = new_figure(width, (1.5 if len(tasks) > 1 else 1.7) * (1 + len(gains)))
        panels = figure.subplots(1 + len(gains), 2 * len(tasks), squeeze=False)
        for block, task in enumerate(tasks):
            one = data.sel(task=task)
            left, right = panels[:, 2 * block], panels[:, 2 * block + 1]
            _draw_singular(left[0], one, "delta_W_singular_values", f"{TITLES.get(task, task)}: ΔW")
            _draw_singular(right[0], one, "W_singular_values", "W = $W_0$ + ΔW")
            for row, gain in enumerate(gains, start=1):
                member = one.isel(run=int(np.flatnonzero(one["gain"].values == gain)[0]))
                _draw_eigenvalues(left[row], member["delta_W_eigenvalues"].values, gain, BLUE)
                _draw_eigenvalues(right[row], member["W_eigenvalues"].values, gain, ORANGE)
                left[row].set_ylabel(f"g = {gain:g}\nIm λ" if block == 0 else "")
        for axes in panels[-1]:
            axes.set_xlabel("Re λ")
        panels[0, 0].set_ylabel("singular values")
        panels[0, 0].legend()
        panel_letters(panels.ravel())
    return figure


def _draw_singular(axes: Axes, one: xr.Dataset, name: str, title: str, count: int = 40) -> None:
    gains = one["gain"].values
    for member, colour in zip(np.argsort(gains), sequential(len(gains)), strict=True):
        values = one[name].values[member, :count]
        label = f"g = {gains[member]:g}"
        axes.plot(
            np.arange(1, len(values) + 1), values, color=colour, marker="o", markersize=1.6, linewidth=0.8, label=label
        )
    axes.set(title=title, xlabel="index", ylim=(0, None))


def _draw_eigenvalues(axes: Axes, values: np.ndarray, gain: float, colour: str) -> None:
    axes.plot(values.real, values.imag, "o", color=colour, markersize=1.4)
    if gain > 0:
        axes.add_patch(Circle((0, 0), gain, fill=False, edgecolor=GREY, linewidth=0.8))
    reach = 1.12 * max(gain, np.abs(values).max(), 0.1)
    axes.set_xlim(-reach, reach)
    axes.set_ylim(-reach, reach)
    axes.set_aspect("equal")
