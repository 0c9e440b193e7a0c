"""Fig. 2: the stronger the initial connectivity, the faster learning and the smaller the change that it makes."""

from __future__ import annotations

from collections.abc import Callable

import jax
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tauflow.papers._drawing import against, panel_letters
from tauflow.papers.base import Claim, Reproduction
from tauflow.papers.schuessler2020._tasks import THRESHOLD, TITLES, Evaluation, Training, measure
from tauflow.plots import house_style, new_figure
from tauflow.plots.style import CYCLE, GREY, PAGE

REFERENCE = 0.9
"""The gain that is compared with none."""


def _gains(last: float) -> tuple[float, ...]:
    return tuple(round(0.3 * k, 1) for k in range(round(last / 0.3) + 1))


FULL = (
    Training("flip-flop", 1000, gains=_gains(2.1)),
    Training("mante", 2000, gains=_gains(2.7)),
    Training("romo", 6000, gains=_gains(3.0)),
)
QUICK = (Training("flip-flop", 250, gains=(0.0, 0.9, 1.5), neurons=64, seeds=4, learning_rate=0.1, trials=128),)
RANKS = tuple(range(26))


def reproduce(*, quick: bool = False, seed: int = 0, progress: Callable[..., None] | None = None) -> Reproduction:
    """Reproduce Fig. 2: learning time, functional rank, shuffled loss and norm of ΔW against the gain.

    Args:
        quick: A small version of seconds: the flip-flop task with 64 neurons at three gains, a larger learning rate.
        seed: The number from which all randomness comes.
        progress: Called now and then with a `tauflow.learning.Progress`.

    Returns:
        The reproduction, with data along `task` and `run`.
    """
    parts = []
    for i, training in enumerate(QUICK if quick else FULL):
        key_train, key_test = jax.random.split(jax.random.fold_in(jax.random.key(seed), i))
        run = training.train(key=key_train, progress=progress)
        evaluation = Evaluation(training.make_task(), training.trials, key=key_test)
        part = measure(run, evaluation, ranks=RANKS, seed=seed).drop_vars(["W_singular_values"])
        part = part.assign_coords(task=training.task, run=np.arange(run.n_runs)).reset_coords(["seed", "gain"])
        parts.append(part)
    data = xr.concat(parts, dim="task", join="outer").transpose("task", "run", ...)
    return Reproduction("schuessler2020", "fig2", data, draw(data), claims(data))


def claims(data: xr.Dataset) -> tuple[Claim, ...]:
    """Decide how learning depends on the gain, for every task.

    Differences of means count where they exceed two standard errors; slopes likewise.

    Args:
        data: The measures of `_tasks.measure`, along `task`.
    """
    faster, smaller, destroyed = {}, {}, {}
    holds = {"faster": True, "smaller": True, "destroyed": True}
    for i, task in enumerate(data["task"].values):
        one = data.isel(task=i)
        gain = one["gain"].values
        time = one["learning_time"].values
        slow, fast = time[gain == 0], time[np.isclose(gain, REFERENCE)]
        slow, fast = (values[np.isfinite(values)] for values in (slow, fast))
        faster[f"{task}, g = 0"], faster[f"{task}, g = 0.9"] = _mean(slow), _mean(fast)
        holds["faster"] &= _less(fast, slow)
        known = np.isfinite(one["delta_W_norm"].values)
        slope, error = _slope(gain[known], one["delta_W_norm"].values[known])
        smaller[f"{task}, slope of |ΔW| per g"] = f"{slope:.3f} ± {error:.3f}"
        holds["smaller"] &= slope < -2 * error
        strong = gain >= REFERENCE - 1e-9
        kept = (one["final_loss"] / one["initial_loss"]).values[strong]
        shuffled = (one["shuffled_loss"] / one["initial_loss"]).values[strong]
        solved = kept < THRESHOLD
        least = float(np.min(shuffled[solved], initial=np.inf))
        destroyed[f"{task}, smallest shuffled / initial loss"] = least
        destroyed[f"{task}, median"] = float(np.median(shuffled[solved])) if solved.any() else np.nan
        holds["destroyed"] &= bool(solved.any()) and least > THRESHOLD
    return (
        Claim(
            "faster_with_initial_connectivity",
            holds["faster"],
            faster,
            "Networks learn in fewer epochs at g = 0.9 than at g = 0.",
        ),
        Claim("change_shrinks_with_gain", holds["smaller"], smaller, "The norm of ΔW falls with the gain."),
        Claim(
            "shuffling_destroys",
            holds["destroyed"],
            destroyed,
            "At g ≥ 0.9, shuffling W0 under the same ΔW undoes learning: no network that had learned stays below 5 %.",
        ),
    )


def _mean(values: np.ndarray) -> str:
    if not values.size:
        return "none learned"
    return f"{values.mean():.0f} ± {values.std(ddof=1) / np.sqrt(values.size) if values.size > 1 else np.nan:.0f}"


def _less(a: np.ndarray, b: np.ndarray) -> bool:
    if not (a.size > 1 and b.size > 1):
        return a.size > 1 and not b.size  # those at the other gain never learn
    error = np.sqrt(a.var(ddof=1) / a.size + b.var(ddof=1) / b.size)
    return bool(b.mean() - a.mean() > 2 * error)


def _slope(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    (slope, _), covariance = np.polyfit(x, y, 1, cov=True)
    return float(slope), float(np.sqrt(covariance[0, 0]))


def draw(data: xr.Dataset) -> Figure:
    """Draw the figure: a panel for each quantity, a colour for each task; only gains at which every network learned."""
    with house_style():
        figure = new_figure(PAGE, 4.4)
        panels = figure.subplots(2, 2)
        for i, task in enumerate(data["task"].values):
            one = data.isel(task=i)
            _draw_task(panels.ravel(), one, CYCLE[i], TITLES.get(str(task), str(task)))
        panels[0, 0].set(ylabel="learning time (epochs)", yscale="log")
        panels[0, 1].set(ylabel="functional rank of ΔW", ylim=(0, None))
        panels[1, 0].set(ylabel="loss after shuffling / initial loss", yscale="log")
        panels[1, 0].axhline(THRESHOLD, color=GREY, linestyle=":", linewidth=1.0, label="5 %")
        panels[1, 1].set(ylabel="‖ΔW‖", ylim=(0, None))
        for axes in panels.ravel():
            axes.set(xlabel="gain g")
        panels[1, 0].legend()
        panels[0, 0].legend(loc="upper center")
        panel_letters(panels.ravel())
    return figure


def _draw_task(panels: np.ndarray, one: xr.Dataset, colour: str, label: str) -> None:
    relative = one["shuffled_loss"] / one["initial_loss"]
    quantities: tuple[xr.DataArray, ...] = (
        one["learning_time"],
        one["functional_rank_delta_W"],
        relative,
        one["delta_W_norm"],
    )
    for position, (axes, values) in enumerate(zip(panels, quantities, strict=True)):
        _draw_one(axes, one, values, colour, label if position == 0 else None)


def _draw_one(axes: Axes, one: xr.Dataset, values: xr.DataArray, colour: str, label: str | None) -> None:
    learned = np.isfinite(one["learning_time"].values)
    gain = one["gain"].values
    complete = [g for g in np.unique(gain[np.isfinite(gain)]) if learned[gain == g].all()]
    against(axes, np.array(complete), [values.values[gain == g] for g in complete], colour, label)
