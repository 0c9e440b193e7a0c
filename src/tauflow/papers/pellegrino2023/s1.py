r"""Sup. Fig. 1: the pitchfork of a network of tensor rank one, $\dot x = c\,ab^T\varphi(x) - x$.

Here $a = b = (-1, 1)/\sqrt2$, and the one strength c is what learning changes from trial to trial. For φ = tanh the
origin loses its stability at c = 1 to two fixed points; for the identity there is a line attractor at c = 1 and
everything along it grows beyond. At c = 1 itself tanh comes to the origin only as one over the root of time, so that
its ends are shown and not judged.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tauflow.analysis.arguments import FloatArray
from tauflow.low_rank import LowRank
from tauflow.papers._drawing import panel_letters
from tauflow.papers.base import Claim, Reproduction
from tauflow.plots import house_style, new_figure
from tauflow.plots.style import BLUE, GREY, INK, ORANGE, PAGE, PALE
from tauflow.precision import float64
from tauflow.simulate import nonlinearity, simulate
from tauflow.theory.low_tensor_rank import rank_one_fixed_points

PHIS = ("tanh", "identity")
SHOWN = (0.5, 1.0, 1.5)
COLUMN = np.array([[-1.0], [1.0]]) / np.sqrt(2)
DT = 0.1
EXTENT = 2.0


@dataclass(frozen=True)
class Settings:
    """Strengths and starts.

    Attributes:
        strengths: Number of strengths c of the bifurcation diagram.
        starts: Number of starts in each direction of the plane.
        duration: How long each network runs, in membrane times.
    """

    strengths: int
    starts: int
    duration: float


FULL = Settings(27, 8, 300.0)
QUICK = Settings(7, 4, 200.0)


def reproduce(*, quick: bool = False, seed: int = 0, progress: Callable[..., None] | None = None) -> Reproduction:
    """Reproduce Sup. Fig. 1: vector fields below, at and above c = 1, and fixed points against c.

    Args:
        quick: Fewer strengths and starts.
        seed: Not used: nothing here is random.
        progress: Not used: it takes seconds.

    Returns:
        The reproduction, with data along `phi`, `c` and `start`.
    """
    settings = QUICK if quick else FULL
    spread = np.linspace(0.1, 1.0, settings.strengths // 2, dtype=np.float64)
    c = np.unique(np.concatenate([1 - spread, [1.0], 1 + spread, SHOWN]).round(12))  # none close to 1: it slows down
    side = EXTENT * (np.arange(settings.starts) + 0.5) / settings.starts * 2 - EXTENT
    starts = np.stack(np.meshgrid(side, side * 0.95, indexing="ij"), -1).reshape(
        -1, 2
    )  # (start, unit), off the diagonal
    steps = round(settings.duration / DT)
    paths = np.stack([_paths(phi, c, starts, steps) for phi in PHIS])  # (phi, time, c, start, unit)
    theory = [rank_one_fixed_points(c, phi=phi) for phi in PHIS]
    data = xr.Dataset(
        {
            "path": (("phi", "time", "c", "start", "unit"), paths[:, : round(10 / DT) : 2]),
            "end": (("phi", "c", "start", "unit"), paths[:, -1]),
            "before": (("phi", "c", "start", "unit"), paths[:, round(1 / DT)]),
            "fixed": (("phi", "c", "branch"), np.stack([made.x for made in theory])),
            "growth": (("phi", "c", "branch"), np.stack([made.growth for made in theory])),
            "count": (("phi", "c"), np.array([[_count(phi, each) for each in c] for phi in PHIS], float)),
        },
        {"phi": list(PHIS), "c": c, "time": DT * (1 + np.arange(0, round(10 / DT), 2))},
        {"duration": settings.duration},
    )
    return Reproduction("pellegrino2023", "s1", data, draw(data), claims(data))


def _paths(phi: str, c: FloatArray, starts: FloatArray, steps: int) -> FloatArray:
    """States of all strengths and starts, (time, c, start, unit): each strength is a trial of one network."""
    strengths = np.broadcast_to(c[:, None, None], (len(c), len(starts), 1))
    x0 = np.broadcast_to(starts, (len(c), len(starts), 2))
    with float64():
        W = LowRank(*(jnp.asarray(each) for each in (COLUMN, strengths, COLUMN)))
        return np.asarray(simulate(W, jnp.zeros((steps, *x0.shape)), jnp.asarray(x0), phi=phi, alpha=DT))


def field(phi: str, c: float, x: Any) -> FloatArray:
    """Right side of the network's equation.

    Args:
        phi: Nonlinearity.
        c: Strength.
        x: States, shape (..., 2).

    Returns:
        Shape (..., 2).
    """
    with float64():
        rates = np.asarray(nonlinearity(phi)(jnp.asarray(x)))
    return c * (rates @ COLUMN) @ COLUMN.T - np.asarray(x)


def _count(phi: str, c: float) -> float:
    """Number of fixed points, by the changes of sign of the field along (x, -x); infinite for a line of them."""
    x = np.linspace(-4, 4, 4001) + 1e-3 / np.e
    along = field(phi, c, np.stack([x, -x], -1))[:, 0]
    if np.abs(along).max() < 1e-12:
        return np.inf
    return float((np.sign(along[1:]) != np.sign(along[:-1])).sum())


def claims(data: xr.Dataset) -> tuple[Claim, ...]:
    """Decide whether the networks settle where the theory says.

    Args:
        data: As `reproduce` gives it.
    """
    c = data["c"].values
    tanh, linear = (data.sel(phi=phi) for phi in PHIS)
    return (_settles(tanh, c), _counts(data, c), _opens(tanh, c), _line(linear), _rates(linear, c, float(data.time[0])))


def _settles(tanh: xr.Dataset, c: FloatArray) -> Claim:
    away = c != 1
    stable = np.where(tanh["growth"].values < 0, tanh["fixed"].values, np.nan)[away]  # (c, branch)
    points = np.stack([stable, -stable], -1)[:, None]  # (c, 1, branch, unit)
    distance = np.linalg.norm(tanh["end"].values[away][:, :, None] - points, axis=-1)  # (c, start, branch)
    worst = float(np.nan_to_num(distance, nan=np.inf).min(axis=-1).max())
    sides = [len(np.unique(np.sign(end[:, 0]))) for end in tanh["end"].values[c > 1]]
    return Claim(
        "tanh_settles_on_stable_points",
        worst < 1e-6 and min(sides) == 2,
        {"largest distance": worst, "strengths": float(away.sum()), "starts of each": float(distance.shape[1])},
        "With tanh and c ≠ 1 every start ends at a stable fixed point of the theory (to 1e-6), and above c = 1 both "
        "are reached.",
    )


def _counts(data: xr.Dataset, c: FloatArray) -> Claim:
    away = c != 1
    theory = (~np.isnan(data["fixed"].values)).sum(-1)[:, away]
    found = data["count"].values[:, away]
    at_one = float(data["count"].sel(phi="identity", c=1.0))
    return Claim(
        "three_fixed_points_above_one",
        bool((theory == found).all() and at_one == np.inf and found[0, c[away] > 1].min() == 3),
        {
            "tanh, c > 1": float(found[0, c[away] > 1].max()),
            "tanh, c < 1": float(found[0, c[away] < 1].max()),
            "identity, c = 1": at_one,
        },
        "A search for zeros of the field finds as many fixed points as the theory: three with tanh above c = 1 (the "
        "print counts two), one below, and a line of them for the identity at c = 1.",
    )


def _opens(tanh: xr.Dataset, c: FloatArray) -> Claim:
    above = c > 1
    x = np.abs(tanh["end"].values[above][..., 0]).mean(-1)
    ratio = x**2 / (3 * (c[above] - 1))
    near = float(np.polyval(np.polyfit(c[above][:4] - 1, ratio[:4], 2), 0.0))
    return Claim(
        "opens_as_square_root",
        abs(near - 1) < 0.02,
        {"x² / 3(c - 1) as c → 1": near, "at the largest c": float(ratio[-1])},
        "The two stable points leave the origin as √(3(c - 1)), to 2 %.",
    )


def _line(linear: xr.Dataset) -> Claim:
    one = linear.sel(c=1.0)
    starts = one["path"].values[0]
    wanted = (starts @ COLUMN) @ COLUMN.T
    distance = float(np.abs(one["end"].values - wanted).max())
    size = float(np.abs(one["end"].values).max())
    return Claim(
        "line_attractor_at_one",
        distance < 1e-9 and size > 0.5,
        {"largest distance from the projection": distance, "largest state": size},
        "With the identity and c = 1 every start ends at its projection on the line (x, -x).",
    )


def _rates(linear: xr.Dataset, c: FloatArray, dt: float) -> Claim:
    steps = round(1 / dt)
    times = dt * np.array([1, steps + 1])
    along = np.stack([linear["path"].values[0], linear["before"].values]) @ COLUMN[:, 0]  # (time, c, start)
    rate = np.log(np.abs(along[1] / along[0])).mean(-1) / (times[1] - times[0])
    exact = np.log(1 + dt * linear["growth"].values[:, 1]) / dt
    error = float(np.abs(rate - exact).max())
    return Claim(
        "identity_grows_at_its_rate",
        error < 1e-9,
        {"rate at the largest c": float(rate[-1]), "at the smallest": float(rate[0]), "largest error": error},
        "With the identity a state along (1, -1) grows at the rate c - 1 in continuous time, and in the steps "
        "taken here at ln(1 + dt(c - 1))/dt.",
    )


def draw(data: xr.Dataset) -> Figure:
    """Draw the figure: for each nonlinearity fields at three strengths, and its fixed points against the strength."""
    with house_style():
        figure = new_figure(PAGE, 4.2)
        panels = figure.subplots(2, 4)
        for row, phi in zip(panels, PHIS, strict=True):
            for axes, c in zip(row, SHOWN, strict=False):
                _draw_field(axes, data.sel(phi=phi, c=c), phi, c)
            _draw_branches(row[-1], data.sel(phi=phi), phi)
        panel_letters(panels.ravel())
    return figure


def _draw_field(axes: Axes, data: xr.Dataset, phi: str, c: float) -> None:
    side = np.linspace(-EXTENT, EXTENT, 41)
    grid = np.stack(np.meshgrid(side, side), -1)
    arrows = field(phi, c, grid)
    axes.streamplot(side, side, arrows[..., 0], arrows[..., 1], color=PALE, linewidth=0.5, density=0.7, arrowsize=0.5)
    for path in np.moveaxis(data["path"].values, 1, 0)[::3]:
        axes.plot(path[:, 0], path[:, 1], color=BLUE, linewidth=0.8)
    if np.isinf(float(data["count"])):
        axes.plot([-EXTENT, EXTENT], [EXTENT, -EXTENT], color=INK, linewidth=2.0)
    else:
        fill = {-1.0: INK, 0.0: GREY, 1.0: "white"}  # stable, between, unstable
        seen = ~np.isnan(data["fixed"].values)
        for x, growth in zip(data["fixed"].values[seen], data["growth"].values[seen], strict=True):
            axes.plot(x, -x, "o", color=INK, markersize=5, markerfacecolor=fill[np.sign(growth)])
    axes.set(xlim=(-EXTENT, EXTENT), ylim=(-EXTENT, EXTENT), aspect="equal", xlabel="$x_1$", ylabel="$x_2$")
    axes.set_title(f"{phi}, c = {c:g}")


def _draw_branches(axes: Axes, data: xr.Dataset, phi: str) -> None:
    fine = np.unique(np.concatenate([np.linspace(0, 2, 201), 1 + np.geomspace(1e-5, 1e-2, 20)]))
    made = rank_one_fixed_points(fine, phi=phi)
    for branch in range(3):
        for stable, style in ((True, "-"), (False, "--")):
            shown = np.where((made.growth[:, branch] < 0) == stable, made.x[:, branch], np.nan)
            axes.plot(fine, shown, style, color=INK, linewidth=1.2)
    if phi == "identity":
        axes.axvline(1.0, color=INK, linewidth=1.2)
    inside = np.abs(data["end"].values[..., 0]) < 1.2 * EXTENT
    c = np.broadcast_to(data["c"].values[:, None], inside.shape)
    axes.plot(c[inside], data["end"].values[..., 0][inside], "o", color=ORANGE, markersize=2.5, markerfacecolor="none")
    axes.plot([], [], "-", color=INK, label="stable")
    axes.plot([], [], "--", color=INK, label="unstable")
    axes.plot([], [], "o", color=ORANGE, markersize=2.5, markerfacecolor="none", label="simulated")
    axes.axvline(1.0, color=GREY, linewidth=0.4, zorder=0)
    axes.set(xlabel="strength c", ylabel="$x_1$ in the end", xlim=(0, 2.0), ylim=(-1.2 * EXTENT, 1.2 * EXTENT))
    axes.set_title(phi)
    if phi == "tanh":
        axes.legend(loc="lower left", labelspacing=0.2)
