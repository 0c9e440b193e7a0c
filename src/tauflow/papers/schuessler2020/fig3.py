"""Fig. 3: a linear network on the fixed-point task: loss and singular values of ΔW over learning, with the theory."""

from __future__ import annotations

from collections.abc import Callable

import jax
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from tauflow.learning import Record
from tauflow.objectives import FixedPointLoss
from tauflow.papers._drawing import panel_letters
from tauflow.papers.base import Claim, Reproduction
from tauflow.papers.schuessler2020 import _linear as linear
from tauflow.papers.schuessler2020 import _predictions as predictions
from tauflow.papers.schuessler2020._linear import LinearTraining
from tauflow.plots import house_style, new_figure, sequential
from tauflow.plots.style import INK, PAGE
from tauflow.run import Run
from tauflow.theory import fixed_point

FULL = LinearTraining(gains=(0.0, 0.3, 0.6, 0.9))
QUICK = LinearTraining(gains=(0.0, 0.6), targets=(0.5, 2.0), rates=(0.015, 0.003), seeds=1, neurons=320)
SNAPSHOTS = (0, 5, 10, 20, 30, 45, 60, 80, 100, 130, 160, 200)


def reproduce(*, quick: bool = False, seed: int = 0, progress: Callable[..., None] | None = None) -> Reproduction:
    """Reproduce Fig. 3: loss and the two singular values of ΔW over learning time, each with its theory.

    Args:
        quick: A small version of seconds: 320 neurons, fewer gains and targets.
        seed: The number from which all randomness comes.
        progress: Called now and then with a `tauflow.learning.Progress`.

    Returns:
        The reproduction, with data along `run`, `update` and `snapshot`.
    """
    training = QUICK if quick else FULL
    record = Record(weights=SNAPSHOTS, measurements=0)
    data = describe(training.train(key=jax.random.key(seed), record=record, progress=progress))
    return Reproduction("schuessler2020", "fig3", data, draw(data), claims(data))


def describe(run: Run) -> xr.Dataset:
    r"""What the figure shows of every network, and the theory for it up to its learning time.

    Args:
        run: The networks, with their weights at several updates.

    Returns:
        `distance (run, update)`, $|1 - z/\hat z|$, the square root of the loss over $\hat z^2/2$; `s1` and
        `s2 (run, snapshot)`, the singular values of ΔW; `initial_rate (run)`; each with its `_theory`, `_truncation`
        and `_spread`, NaN beyond the learning time; and for one network `exact_loss` and
        `simulated_loss (snapshot)`, both over $\hat z^2/2$.
    """
    neurons = run.data.sizes["unit"]
    loss, tau, tau_snapshot = (np.asarray(run.data[name], np.float64) for name in ("loss", "tau", "tau_snapshot"))
    s = linear.snapshot_singular_values(run, 2)  # (run, snapshot, 2)
    data = xr.Dataset(coords=linear.labels(run))
    data = data.assign_coords(
        tau=(("run", "update"), tau, {"unit": "flow"}),
        tau_snapshot=(("run", "snapshot"), tau_snapshot, {"unit": "flow"}),
    )
    gain, target = (data[name].values[:, None] for name in ("gain", "target"))
    data["distance"] = (("run", "update"), np.sqrt(2 * loss) / target)
    data["s1"], data["s2"] = ((("run", "snapshot"), s[..., i]) for i in range(2))
    data["initial_rate"] = ("run", linear.initial_rate(run))
    end = fixed_point.learning_time(gain, target)  # (run, 1)
    predictions.add_theory(data, "distance", _until(end, tau, predictions.distance(tau, gain, target, neurons)))
    for name, theory in zip(("s1", "s2"), predictions.change(tau_snapshot, gain, target, neurons), strict=True):
        predictions.add_theory(data, name, _until(end, tau_snapshot, theory))
    predictions.add_theory(data, "initial_rate", predictions.first_rate(gain[:, 0], neurons))
    return data.merge(_simulated(run)).assign_attrs(neurons=neurons)


def _until(end: np.ndarray, tau: np.ndarray, theory: predictions.Theory) -> predictions.Theory:
    return predictions.Theory(*(np.where(tau <= end, part, np.nan) for part in theory))


def _simulated(run: Run) -> xr.Dataset:
    """Exact and simulated losses of one network, of middling gain and the largest target, along its snapshots."""
    gain, target = run.data["gain"].values, run.data["target"].values
    known = run.data["status"].values == "done"
    member = int(np.argmin(np.abs(gain - 0.6) - 1e-3 * target + 10 * ~known))
    losses = []
    for at in range(run.data.sizes["snapshot"]):
        network = run.network(run=member, snapshot=at)
        exact = FixedPointLoss(float(target[member]), stability="determinant")(network)
        losses.append((float(exact), float(linear.simulated_loss(network, target[member]))))
    values = np.array(losses) / (target[member] ** 2 / 2)  # (snapshot, 2)
    attributes = {"gain": float(gain[member]), "target": float(target[member])}
    return xr.Dataset(
        {name: ("snapshot", values[:, i], attributes) for i, name in enumerate(("exact_loss", "simulated_loss"))}
    )


def claims(data: xr.Dataset) -> tuple[Claim, ...]:
    """Decide whether loss and singular values lie within the theory's stated error, in every network.

    Args:
        data: As `describe` gives it.
    """
    error = (
        f"truncation at third order + {predictions.DEVIATIONS:g} standard deviations over networks, N = {data.neurons}"
    )
    sentences = {
        "initial_rate": "Learning begins at the rate β² (error: 0.1 % + 3 standard deviations over networks).",
        "distance": f"The loss follows the theory until the target is reached, within its error ({error}).",
        "s1": f"The first singular value of ΔW follows the theory, within its error ({error}).",
        "s2": f"The second singular value of ΔW follows the theory, within its error ({error}).",
    }
    names = {"distance": "loss"}
    made = []
    for name, sentence in sentences.items():
        holds, measured = predictions.agreement(data, name)
        made.append(Claim(f"{names.get(name, name)}_as_predicted", holds, measured, sentence))
    off = float(np.abs(data["simulated_loss"] - data["exact_loss"]).max())
    made.append(
        Claim(
            "simulation_agrees",
            off < 1e-3,
            {
                "largest difference / initial loss": off,
                "gain": data["exact_loss"].gain,
                "target": data["exact_loss"].target,
            },
            "Simulated trials give the loss of the fixed point, to 0.1 % of the initial loss, all along learning.",
        )
    )
    return tuple(made)


def draw(data: xr.Dataset) -> Figure:
    """Draw the figure: a column for each target, a colour for each gain."""
    with house_style():
        targets, gains = (np.unique(data[name].values) for name in ("target", "gain"))
        colours = dict(zip(gains, sequential(len(gains)), strict=True))
        figure = new_figure(PAGE, 4.6)
        panels = figure.subplots(2, len(targets), squeeze=False, sharex="col")
        for column, target in enumerate(targets):
            one = data.isel(run=np.flatnonzero(data["target"].values == target))
            for member in range(one.sizes["run"]):
                single = one.isel(run=member)
                colour = colours[float(single["gain"])]
                _draw_loss(panels[0, column], single, colour)
                _draw_singular_values(panels[1, column], single, colour)
            panels[0, column].set(title=f"ẑ = {target:g}", ylim=(0, 1.15))
            panels[1, column].set(xlabel="learning time τ (flow units)", xscale="log", ylim=(0, None))
            panels[1, column].set_xlim(_span(one))
        panels[0, 0].set_ylabel("loss / initial loss")
        panels[1, 0].set_ylabel("singular values of ΔW")
        panel_letters(panels.ravel())
        handles = [Line2D([], [], color=colour, label=f"g = {gain:g}") for gain, colour in colours.items()]
        handles += [
            Line2D([], [], color=INK, linestyle="--", linewidth=1.0, label="theory, third order"),
            Line2D([], [], color=INK, alpha=0.2, linewidth=5, label=f"± sd over networks, N = {data.neurons}"),
            Line2D([], [], color=INK, linewidth=1.3, label="$s_1$"),
            Line2D([], [], color=INK, linewidth=0.8, label="$s_2$"),
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), columnspacing=1.0)
    return figure


def _span(one: xr.Dataset) -> tuple[float, float]:
    """Limits of the axis of learning time: from a tenth of the shortest to twice the longest learning time."""
    ends = fixed_point.learning_time(one["gain"].values, one["target"].values)
    return 0.1 * float(ends.min()), 2 * float(ends.max())


def _fine(single: xr.Dataset) -> np.ndarray:
    """Times for smooth curves of the theory, up to its learning time."""
    return np.geomspace(0.005, 1, 100) * fixed_point.learning_time(float(single["gain"]), float(single["target"]))


def _draw_loss(axes: Axes, single: xr.Dataset, colour: str) -> None:
    axes.plot(single["tau"].values[1:], single["distance"].values[1:] ** 2, color=colour)
    fine = _fine(single)
    theory = predictions.distance(fine, float(single["gain"]), float(single["target"]), single.neurons)
    axes.plot(fine, theory.value**2, "--", color=INK, linewidth=1.0, zorder=3)
    low, high = np.maximum(theory.value - theory.spread, 0), theory.value + theory.spread
    axes.fill_between(fine, low**2, high**2, color=colour, alpha=0.13, linewidth=0)


def _draw_singular_values(axes: Axes, single: xr.Dataset, colour: str) -> None:
    tau, fine = single["tau_snapshot"].values[1:], _fine(single)
    theories = predictions.change(fine, float(single["gain"]), float(single["target"]), single.neurons)
    for name, width, theory in zip(("s1", "s2"), (1.3, 0.8), theories, strict=True):
        axes.plot(tau, single[name].values[1:], color=colour, linewidth=width, marker="o", markersize=2.0)
        axes.plot(fine, theory.value, "--", color=INK, linewidth=1.0, zorder=3)
        low, high = np.maximum(theory.value - theory.spread, 0), theory.value + theory.spread
        axes.fill_between(fine, low, high, color=colour, alpha=0.13, linewidth=0)
