"""Fig. S3: the singular values of ΔW on a logarithmic axis: the first grows as τ, the second as its cube."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import jax
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from tauflow.learning import Record, flow, network_key
from tauflow.networks import RateRNN
from tauflow.objectives import FixedPointLoss
from tauflow.papers._drawing import panel_letters
from tauflow.papers.base import Claim, Reproduction
from tauflow.papers.schuessler2020._linear import snapshot_singular_values
from tauflow.plots import house_style, new_figure, sequential
from tauflow.plots.style import BLUE, INK, PAGE
from tauflow.precision import float64
from tauflow.theory import fixed_point

COUNT = 5
FITTED = (0.01, 0.1)
"""Range of t = β²τ over which slopes are fitted."""
STYLES: tuple[Literal["-", ":"], ...] = ("-", ":")
"""Of the loss at each gain."""
FLOOR = 1e-10
"""Singular values below this are errors of the integration."""


@dataclass(frozen=True)
class Settings:
    """Networks and times.

    Attributes:
        neurons: Number of units N.
        points: Learning times at which the weights are kept.
        gains: Initial connectivity strengths g.
        targets: Values ẑ to reach.
    """

    neurons: int
    points: int
    gains: tuple[float, ...] = (0.0, 0.6)
    targets: tuple[float, ...] = (0.5, 2.0)


FULL = Settings(neurons=1024, points=28)
QUICK = Settings(neurons=64, points=20)


def reproduce(*, quick: bool = False, seed: int = 0, progress: Callable[..., None] | None = None) -> Reproduction:
    """Reproduce Fig. S3: loss and five singular values of ΔW along the exact gradient flow, on logarithmic axes.

    Args:
        quick: A small version of seconds, with 64 neurons.
        seed: The number from which all randomness comes.
        progress: Not called: a flow has no updates to count.

    Returns:
        The reproduction, with data along `run` and `snapshot`.
    """
    settings = QUICK if quick else FULL
    key = network_key(jax.random.key(seed))
    parts = [follow(settings, gain, target, key=key) for target in settings.targets for gain in settings.gains]
    data = xr.concat(parts, dim="run").assign_attrs(neurons=settings.neurons)
    return Reproduction("schuessler2020", "s3", data, draw(data), claims(data))


def follow(settings: Settings, gain: float, target: float, *, key: jax.Array) -> xr.Dataset:
    """Follow one network along gradient flow, at times spaced by equal factors and then evenly.

    Args:
        settings: Size and number of times.
        gain: g.
        target: ẑ.
        key: JAX random key of the network.

    Returns:
        `relative_loss (snapshot)`, `singular_values (snapshot, index)`, with coordinates `tau` and `t`, which is β²τ.
    """
    b = float(fixed_point.beta(gain))
    end = 1.5 * float(fixed_point.learning_time(gain, target)) * b**2
    early = settings.points * 3 // 5
    late = np.linspace(FITTED[1], end, settings.points - early + 1)[1:]
    t = np.concatenate([np.geomspace(*FITTED, early), late])
    with float64():
        network = RateRNN.random(settings.neurons, 1, 1, gain=gain, key=key, phi="identity", dtype="float64")
    run = flow(
        network,
        FixedPointLoss(target, stability="determinant"),
        duration=t[-1] / b**2,
        save_at=np.concatenate([[0.0], t / b**2]),
        train=("W",),
        rtol=1e-9,
        atol=1e-12,
        record=Record(weights=range(len(t) + 1), measurements=0),
    )
    s = snapshot_singular_values(run, COUNT)[0, 1:]  # (snapshot, index)
    loss = np.asarray(run.data["loss"][0, 1:], np.float64) / (target**2 / 2)
    return xr.Dataset(
        {"relative_loss": ("snapshot", loss), "singular_values": (("snapshot", "index"), s)},
        {"tau": ("snapshot", t / b**2, {"unit": "flow"}), "t": ("snapshot", t), "gain": gain, "target": target},
    )


def power(t: NDArray[np.float64], s: NDArray[np.float64]) -> tuple[float, float]:
    r"""Exponent n of $s = c\,t^n(1 + b_1t + b_2t^2)$ and its standard error, by least squares on the logarithm.

    Args:
        t: Times, shape (k,), k >= 5.
        s: Values > 0, shape (k,).
    """
    design = np.stack([np.ones_like(t), np.log(t), t, t**2], axis=1)  # (k, 4)
    found, _, _, _ = np.linalg.lstsq(design, np.log(s), rcond=None)
    residual = np.log(s) - design @ found
    variance = residual @ residual / max(len(t) - 4, 1)
    return float(found[1]), float(np.sqrt(variance * np.linalg.inv(design.T @ design)[1, 1]))


def claims(data: xr.Dataset) -> tuple[Claim, ...]:
    """Decide whether the first two singular values grow as τ and τ³, and the others later.

    Args:
        data: As `reproduce` gives it.
    """
    slopes: dict[str, dict[str, float | str]] = {"first": {}, "second": {}}
    good = {"first": True, "second": True}
    higher, reference = 0.0, 0.0
    for run in range(data.sizes["run"]):
        one = data.isel(run=run)
        name = f"g = {float(one['gain']):g}, ẑ = {float(one['target']):g}"
        early = (one["t"].values >= FITTED[0] * 0.999) & (one["t"].values <= FITTED[1] * 1.001)
        t, s = one["t"].values[early], one["singular_values"].values[early]
        for index, (which, wanted) in enumerate((("first", 1.0), ("second", 3.0))):
            slope, error = power(t, s[:, index])
            slopes[which][name] = f"{slope:.4f} ± {error:.4f}"
            good[which] &= abs(slope - wanted) <= 3 * error + 0.01
        last = s[-1]
        higher, reference = max(higher, float(last[2] / last[1])), max(reference, float(last[1] / last[0]))
    return (
        Claim(
            "first_is_linear",
            good["first"],
            slopes["first"],
            "The first singular value begins as τ (slope on log axes).",
        ),
        Claim(
            "second_is_cubic",
            good["second"],
            slopes["second"],
            "The second singular value begins as τ³ (slope on log axes).",
        ),
        Claim(
            "others_are_of_higher_order",
            higher < reference,
            {"largest third / second": higher, "largest second / first": reference, "at t": FITTED[1]},
            "The third singular value is as much smaller than the second as that is than the first, or more.",
        ),
    )


def draw(data: xr.Dataset) -> Figure:
    """Draw the figure: a column for each target, loss above and a row of singular values for each gain."""
    with house_style():
        targets, gains = (np.unique(data[name].values) for name in ("target", "gain"))
        figure = new_figure(PAGE, 1.5 + 1.8 * len(gains))
        panels = figure.subplots(1 + len(gains), len(targets), squeeze=False, height_ratios=[0.8] + [1.0] * len(gains))
        colours = sequential(COUNT)
        for column, target in enumerate(targets):
            for row, gain in enumerate(gains, start=1):
                here = np.flatnonzero((data["target"].values == target) & (data["gain"].values == gain))
                one = data.isel(run=int(here[0]))
                _draw_loss(panels[0, column], one, STYLES[row - 1])
                _draw_values(panels[row, column], one, colours)
                panels[row, column].set_title(f"g = {gain:g}", fontsize=8)
            panels[0, column].set(title=f"ẑ = {target:g}", ylim=(-0.03, 1.05))
            panels[-1, column].set_xlabel("learning time τ (flow units)")
        panels[0, 0].set_ylabel("loss / initial loss")
        for row in range(1, 1 + len(gains)):
            panels[row, 0].set_ylabel("singular values\nof ΔW")
        panel_letters(panels.ravel())
        handles = [Line2D([], [], color=colour, label=f"$s_{{{k + 1}}}$") for k, colour in enumerate(colours)]
        handles.append(Line2D([], [], color=INK, linestyle="--", linewidth=1.0, label="theory, third order"))
        for gain, style in zip(gains, STYLES, strict=False):
            handles.append(Line2D([], [], color=BLUE, linestyle=style, label=f"loss, g = {gain:g}"))
        figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), columnspacing=1.2)
    return figure


def _draw_loss(axes: Axes, one: xr.Dataset, style: str) -> None:
    tau = np.concatenate([[0.0], one["tau"].values])
    axes.plot(tau, np.concatenate([[np.nan], one["relative_loss"].values]), style, color=BLUE)


def _draw_values(axes: Axes, one: xr.Dataset, colours: list[str]) -> None:
    tau, gain, target = one["tau"].values, float(one["gain"]), float(one["target"])
    values = one["singular_values"].values  # (snapshot, index)
    shown = np.where(values > FLOOR, values, np.nan)
    for k, colour in reversed(list(enumerate(colours))):
        axes.plot(tau, shown[:, k], color=colour, marker="o", markersize=2.0, linewidth=1.0)
    until = tau[tau <= fixed_point.learning_time(gain, target)]
    for theory in fixed_point.singular_values(until, gain, target):
        axes.plot(until, theory, "--", color=INK, linewidth=1.0, zorder=4)
    axes.set(xscale="log", yscale="log", ylim=(FLOOR, 3))
