"""Fig. 4: a linear network on the fixed-point task: learning time, weight change and shuffled loss against the gain."""

from __future__ import annotations

from collections.abc import Callable

import jax
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from tauflow.analysis import shuffle_entries
from tauflow.learning import Record
from tauflow.objectives import FixedPointLoss
from tauflow.papers._drawing import panel_letters
from tauflow.papers.base import Claim, Reproduction
from tauflow.papers.schuessler2020 import _linear as linear
from tauflow.papers.schuessler2020 import _predictions as predictions
from tauflow.papers.schuessler2020._linear import LinearTraining
from tauflow.plots import house_style, new_figure
from tauflow.plots.style import CYCLE, GREY, INK, PAGE
from tauflow.run import Run
from tauflow.theory import fixed_point

THRESHOLD = 0.05
SMALL = 1.0
"""Targets up to which the theory of the shuffled loss is compared."""
FULL = LinearTraining(gains=tuple(round(0.1 * k, 1) for k in range(10)), seeds=2)
QUICK = LinearTraining(gains=(0.0, 0.3, 0.6), targets=(0.5, 2.0), rates=(0.015, 0.003), seeds=1, neurons=256)


def reproduce(*, quick: bool = False, seed: int = 0, progress: Callable[..., None] | None = None) -> Reproduction:
    """Reproduce Fig. 4: learning time, norm of ΔW and loss after shuffling W0, each with its theory.

    Args:
        quick: A small version of seconds: 256 neurons, fewer gains and targets.
        seed: The number from which all randomness comes.
        progress: Called now and then with a `tauflow.learning.Progress`.

    Returns:
        The reproduction, with data along `run`.
    """
    training = QUICK if quick else FULL
    run = training.train(key=jax.random.key(seed), record=Record(measurements=0), progress=progress)
    data = describe(run, seed=seed)
    return Reproduction("schuessler2020", "fig4", data, draw(data), claims(data))


def describe(run: Run, *, seed: int) -> xr.Dataset:
    r"""What the figure shows of every network, and the theory for it.

    The learning time is that at which the loss is 5 % of $\hat z^2/2$, in simulation and theory alike.

    Args:
        run: The trained networks, with their first and last weights.
        seed: From which the shuffling comes.

    Returns:
        Along `run`: `learning_time`, `delta_W_norm`, `shuffled_loss` (over $\hat z^2/2$) and `initial_rate`, each with
        its `_theory`, `_truncation` and `_spread`; `relative_loss (run, update)` and `final_loss`.
    """
    rows = [_measure(run, member, seed) for member in range(run.n_runs)]
    data = xr.Dataset({name: ("run", np.array([row[name] for row in rows])) for name in rows[0]}, linear.labels(run))
    gain, target, neurons = data["gain"].values, data["target"].values, run.data.sizes["unit"]
    loss = np.asarray(run.data["loss"], np.float64) / (target**2 / 2)[:, None]
    tau = np.asarray(run.data["tau"], np.float64)
    data["relative_loss"] = (("run", "update"), loss)
    data = data.assign_coords(tau=(("run", "update"), tau, {"unit": "flow"}))
    data["learning_time"] = ("run", linear.crossing(tau, loss, THRESHOLD))
    data["initial_rate"] = ("run", linear.initial_rate(run))
    predictions.add_theory(data, "learning_time", predictions.time_to(THRESHOLD, gain, target, neurons))
    predictions.add_theory(data, "delta_W_norm", predictions.final_norm(gain, target, neurons))
    predictions.add_theory(data, "shuffled_loss", predictions.final_shuffled_loss(gain, target, neurons))
    predictions.add_theory(data, "initial_rate", predictions.first_rate(gain, neurons))
    return data.assign_attrs(neurons=neurons, threshold=THRESHOLD)


def _measure(run: Run, member: int, seed: int) -> dict[str, float]:
    if str(run.data["status"].values[member]) != "done":
        return dict.fromkeys(("delta_W_norm", "final_loss", "shuffled_loss"), np.nan)
    target = float(run.data["target"][member])
    after = run.network(run=member, snapshot=-1)
    W0, W = (np.asarray(run.weights("W", member, at), np.float64) for at in (0, -1))  # (n, n)
    shuffled = linear.with_W(after, shuffle_entries(W0, key=1000 * seed + member) + (W - W0))
    loss = FixedPointLoss(target, stability="determinant")
    return {
        "delta_W_norm": float(np.linalg.norm(W - W0)),
        "final_loss": float(loss(after)) / (target**2 / 2),
        "shuffled_loss": float(loss(shuffled)) / (target**2 / 2),
    }


def claims(data: xr.Dataset) -> tuple[Claim, ...]:
    """Decide whether each quantity lies within its theory's stated error, in every network.

    Args:
        data: As `describe` gives it.
    """
    error = (
        f"truncation at third order + {predictions.DEVIATIONS:g} standard deviations over networks, N = {data.neurons}"
    )
    sentences = {
        "initial_rate": "Learning begins at the rate β² (error: 0.1 % + 3 standard deviations over networks).",
        "learning_time": f"The learning time is that of the theory, within its error ({error}).",
        "delta_W_norm": f"The norm of ΔW is that of the theory, within its error ({error}).",
        "shuffled_loss": "The loss after shuffling W0 is that of the theory for targets up to 1, within its error "
        f"(first to third order + {predictions.DEVIATIONS:g} standard deviations over networks, N = {data.neurons}).",
    }
    made = []
    for name, sentence in sentences.items():
        small = data["target"] <= SMALL if name == "shuffled_loss" else data["target"] > 0
        holds, measured = predictions.agreement(data.isel(run=np.flatnonzero(small)), name)
        if name == "shuffled_loss":
            _, beyond = predictions.agreement(data.isel(run=np.flatnonzero(~small)), name)
            measured["largest deviation / stated error, larger targets"] = beyond["largest deviation / stated error"]
        made.append(Claim(f"{name}_as_predicted", holds, measured, sentence))
    diverged = int((data["status"] != "done").sum())
    learned = data["final_loss"].where(data["status"] == "done")
    made.append(
        Claim(
            "all_learn",
            bool(
                (learned < data.threshold).sum() == data.sizes["run"] - diverged
                and diverged <= 0.05 * data.sizes["run"]
            ),
            {"largest final / initial loss": float(learned.max()), "diverged": float(diverged)},
            "Every network learns: its loss ends below 5 % (at most one in 20 may diverge, see Fig. S4).",
        )
    )
    return tuple(made)


def draw(data: xr.Dataset) -> Figure:
    """Draw the figure: a panel for each quantity against the gain, a colour for each target."""
    with house_style():
        figure = new_figure(PAGE, 2.95)
        panels = figure.subplots(1, 3)
        targets = np.unique(data["target"].values)
        gain = np.linspace(0, data["gain"].values.max(), 16)
        for colour, target in zip(CYCLE, targets, strict=False):
            one = data.isel(run=np.flatnonzero(data["target"].values == target))
            for axes, name in zip(panels, ("learning_time", "delta_W_norm", "shuffled_loss"), strict=True):
                _draw_measured(axes, one, name, colour)
            _draw_theory(panels[0], gain, predictions.time_to(THRESHOLD, gain, target, data.neurons), colour)
            _draw_theory(panels[1], gain, predictions.final_norm(gain, target, data.neurons), colour)
            _draw_theory(panels[2], gain, predictions.final_shuffled_loss(gain, target, data.neurons), colour)
        first = fixed_point.shuffled_loss(gain, 1.0) / 0.5
        panels[2].plot(gain, first, ":", color=GREY, linewidth=1.1)
        panels[0].set(ylabel="learning time τ* (flow units)", ylim=(0, None))
        panels[1].set(ylabel="‖ΔW‖", ylim=(0, None))
        panels[2].set(ylabel="loss after shuffling / initial loss", ylim=(-0.03, None))
        for axes in panels:
            axes.set(xlabel="gain g")
        panel_letters(panels)
        handles = [Line2D([], [], color=c, marker="o", linestyle="", markersize=3.5, label=f"ẑ = {z:g}") for c, z in
                   zip(CYCLE, targets, strict=False)]  # fmt: skip
        handles += [
            Line2D([], [], color=INK, linestyle="--", linewidth=1.1, label="theory, third order"),
            Line2D(
                [], [], color=INK, alpha=0.2, linewidth=5, label=f"its error: truncation + 1 sd, N = {data.neurons}"
            ),
            Line2D([], [], color=INK, linewidth=0.7, label="exact flow at g = 0, scaled"),
            Line2D([], [], color=GREY, linestyle=":", label="ẑ → 0 (Eq. 69)"),
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=-(-len(handles) // 2), columnspacing=1.4)
    return figure


def _draw_measured(axes: Axes, one: xr.Dataset, name: str, colour: str) -> None:
    gains = np.unique(one["gain"].values)
    values = [one[name].values[one["gain"].values == g] for g in gains]
    values = [v[np.isfinite(v)] for v in values]
    mean = [v.mean() if v.size else np.nan for v in values]
    sd = [v.std() if v.size else np.nan for v in values]
    axes.errorbar(gains, mean, sd, color=colour, fmt="o", markersize=3.0, elinewidth=0.8, zorder=4)


def _draw_theory(axes: Axes, gain: np.ndarray, theory: predictions.Theory, colour: str) -> None:
    axes.plot(gain, theory.value, "--", color=colour, linewidth=1.1, zorder=3)
    axes.plot(gain, theory.scaled, "-", color=colour, linewidth=0.7, zorder=3)
    half = theory.truncation + theory.spread
    low, high = np.maximum(theory.value - half, 0), theory.value + half
    axes.fill_between(gain, low, high, color=colour, alpha=0.13, linewidth=0)
