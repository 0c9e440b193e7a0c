"""Fig. S4: learning with finite steps fails where the real part of an eigenvalue of W crosses 1."""

from __future__ import annotations

from collections.abc import Callable

import jax
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tauflow.learning import Record
from tauflow.papers._drawing import panel_letters
from tauflow.papers.base import Claim, Reproduction
from tauflow.papers.schuessler2020 import _linear as linear
from tauflow.papers.schuessler2020._linear import LinearTraining
from tauflow.plots import house_style, new_figure, sequential
from tauflow.plots.style import GREY, ORANGE, PAGE
from tauflow.run import Run

BLOWN_UP = 2.0
"""A loss above this multiple of the initial one counts as failure."""
COUNT = 5
FULL = LinearTraining(gains=(0.6, 0.8), targets=(2.0, 4.0), rates=(0.002, 0.001), seeds=5, neurons=256, duration=201.0)
QUICK = LinearTraining(
    gains=(0.6, 0.8), targets=(2.0, 4.0), rates=(0.002, 0.002), seeds=2, neurons=64, epochs=100, duration=201.0
)


def reproduce(*, quick: bool = False, seed: int = 0, progress: Callable[..., None] | None = None) -> Reproduction:
    """Reproduce Fig. S4: loss and leading eigenvalues of W over training on simulated trials of length 201.

    Args:
        quick: A small version of seconds: 64 neurons, 100 epochs, and twice the rate at the larger target.
        seed: The number from which all randomness comes.
        progress: Called now and then with a `tauflow.learning.Progress`.

    Returns:
        The reproduction, with data along `run`, `update` and `measurement`.
    """
    training = QUICK if quick else FULL
    record = Record(measurements=training.epochs + 1)
    run = training.train(key=jax.random.key(seed), record=record, simulated=True, progress=progress)
    data = describe(run, duration=training.duration)
    return Reproduction("schuessler2020", "s4", data, draw(data), claims(data))


def describe(run: Run, *, duration: float) -> xr.Dataset:
    r"""What the figure shows of every network.

    Args:
        run: The networks, with the eigenvalues of W along `measurement`.
        duration: Length T of a trial in membrane times. With an eigenvalue within 2/T of 1 either may
            happen: its mode, with a relaxation time beyond T/2, does not converge within the trial.

    Returns:
        `relative_loss (run, update)`, over $\hat z^2/2$; `eigenvalues (run, measurement, index)`, the five of largest
        real part; `largest_real_part (run)`, over all updates.
    """
    every = run.data["W_eigenvalues"].values  # (run, measurement, index)
    order = np.argsort(-np.nan_to_num(every.real, nan=-np.inf), axis=-1)
    leading = np.take_along_axis(every, order, axis=-1)[..., :COUNT]  # (run, measurement, index)
    target = run.data["target"].values[:, None]
    data = xr.Dataset(
        {
            "relative_loss": (("run", "update"), np.asarray(run.data["loss"], np.float64) / (target**2 / 2)),
            "eigenvalues": (("run", "measurement", "index"), leading),
            "stopped_at": run.data["stopped_at"],
        },
        {**linear.labels(run), "measurement_update": run.data["measurement_update"]},
    )
    before = leading[:, : run.data.sizes["update"], 0].real  # (run, update): when a loss was taken
    data["largest_real_part"] = ("run", np.nanmax(before, axis=1))
    return data.assign_attrs(neurons=run.data.sizes["unit"], critical=1 - 2 / duration)


def claims(data: xr.Dataset) -> tuple[Claim, ...]:
    """Decide whether learning fails exactly where an eigenvalue crosses 1.

    Args:
        data: As `describe` gives it.
    """
    known = np.nan_to_num(data["relative_loss"].values, nan=0.0)
    failed = (data["status"].values != "done") | (known.max(axis=1) > BLOWN_UP)
    top = data["largest_real_part"].values
    crossed, near = top >= 1, (top >= data.critical) & (top < 1)
    hardest, easiest = (
        ((data["target"] == getattr(data["target"], which)()) & (data["gain"] == getattr(data["gain"], which)())).values
        for which in ("max", "min")
    )
    return (
        Claim(
            "fails_where_an_eigenvalue_crosses_1",
            bool(failed[crossed].all() and not failed[~crossed & ~near].any() and failed.any() and not failed.all()),
            {
                "failed": float(failed.sum()),
                "Re λ₁ reached 1": float(crossed.sum()),
                "Re λ₁ within 2/T of 1": float(near.sum()),
                "networks": float(len(failed)),
                "largest Re λ₁ where it does not fail": float(np.max(top[~failed], initial=-np.inf)),
                "smallest largest Re λ₁ where it fails": float(np.min(top[failed], initial=np.inf)),
            },
            f"The loss blows up (beyond {BLOWN_UP:g} times the initial one) wherever the real part of an eigenvalue "
            f"reaches 1, and nowhere where it stays below {data.critical:.2f}.",
        ),
        Claim(
            "fails_for_large_target_and_gain",
            bool(failed[hardest].any() and not failed[easiest].any()),
            {
                "failed, largest target and gain": float(failed[hardest].mean()),
                "failed, smallest target and gain": float(failed[easiest].mean()),
            },
            "That happens for the larger target and gain, and not for the smaller ones.",
        ),
    )


def draw(data: xr.Dataset) -> Figure:
    """Draw the figure: loss for each target, and below it the leading eigenvalues for each gain."""
    with house_style():
        targets, gains = (np.unique(data[name].values) for name in ("target", "gain"))
        figure = new_figure(PAGE, 1.7 + 1.55 * len(gains))
        panels = figure.subplots(1 + len(gains), len(targets), squeeze=False, sharex=True)
        colours = sequential(len(gains) + 1)
        for column, target in enumerate(targets):
            for row, gain in enumerate(gains, start=1):
                here = np.flatnonzero((data["target"].values == target) & (data["gain"].values == gain))
                shown = data.isel(run=int(here[np.argmax(data["largest_real_part"].values[here])]))
                _draw_loss(panels[0, column], shown, colours[row - 1], f"g = {gain:g}")
                _draw_eigenvalues(panels[row, column], shown)
                panels[row, column].set_title(f"ẑ = {target:g}, g = {gain:g}", fontsize=8)
                panels[row, column].set_ylim(0.3, 1.35)
            panels[0, column].set(title=f"ẑ = {target:g}", yscale="log", ylim=(1e-6, 50))
            panels[0, column].legend()
            panels[-1, column].set_xlabel("epoch")
        panels[0, 0].set_ylabel("loss / initial loss")
        for row in range(1, 1 + len(gains)):
            panels[row, 0].set_ylabel("Re λ of W")
        handles, labels = panels[1, 0].get_legend_handles_labels()
        panels[1, 0].legend(
            handles[::-1], labels[::-1], loc="lower right", ncols=5, columnspacing=0.8, handlelength=1.0
        )
        panel_letters(panels.ravel())
    return figure


def _draw_loss(axes: Axes, one: xr.Dataset, colour: str, label: str) -> None:
    loss = np.maximum(one["relative_loss"].values, 1e-12)
    axes.plot(np.arange(len(loss)), loss, color=colour, label=label)
    _mark_stop(axes, np.arange(len(loss)), loss, one)


def _draw_eigenvalues(axes: Axes, one: xr.Dataset) -> None:
    epochs = one["measurement_update"].values
    for k, colour in reversed(list(enumerate(sequential(COUNT)))):
        axes.plot(epochs, one["eigenvalues"].values[:, k].real, color=colour, linewidth=1.0, label=f"$λ_{k + 1}$")
    axes.axhline(1.0, color=GREY, linestyle="--", linewidth=0.9)
    _mark_stop(axes, epochs, one["eigenvalues"].values[:, 0].real, one)


def _mark_stop(axes: Axes, x: np.ndarray, y: np.ndarray, one: xr.Dataset) -> None:
    known = np.flatnonzero(np.isfinite(y))
    if str(one["status"].values) != "done" and known.size:
        axes.plot(
            x[known[-1]],
            y[known[-1]],
            "x",
            color=ORANGE,
            markersize=6,
            zorder=5,
            label="diverged" if y.size > 150 else None,
        )
