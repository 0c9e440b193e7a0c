r"""Sup. Fig. 6: singular values of rates, adjoint states, gradients and weights in five networks that learn a target.

Every network runs from rest under two inputs that follow their own linear equation (D.4.1) and is to reach a random
target with two outputs at the end (D.4.2). It learns by gradient descent on W alone, with each gradient taken as one
product of adjoint states and rates. The paper gives neither sizes nor times, nor those of B and D: here B has standard
normal entries, D those of variance 1/n, and W those of variance g²/n, so that g is its spectral radius (of
rank 3: products of normal factors over n, with singular values of about g).
Singular values are drawn at the first update and judged at many; PARAFAC by alternating least squares stops improving
at an unexplained share of some 1e-6, where the unfoldings go on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tauflow.analysis.arguments import FloatArray
from tauflow.papers._drawing import panel_letters
from tauflow.papers.base import Claim, Reproduction
from tauflow.papers.pellegrino2023._gradients import (
    COMPONENTS,
    INPUTS,
    OUTPUTS,
    RANK,
    SHOWN,
    Architecture,
    Settings,
    learn,
)
from tauflow.plots import house_style, new_figure
from tauflow.plots.style import BLUE, GREEN, GREY, INK, ORANGE, PAGE, PURPLE, SKY
from tauflow.precision import float64
from tauflow.simulate import Phi, nonlinearity
from tauflow.theory.gradient_rank import rank_bound


def rectified_tanh(x: jax.Array) -> jax.Array:
    """max(tanh x, 0)."""
    return jnp.maximum(jnp.tanh(x), 0)


ARCHITECTURES = (
    Architecture("rectified tanh", rectified_tanh),
    Architecture("softplus", "softplus"),
    Architecture("tanh", "tanh"),
    Architecture("linear, R = 3", "identity", rank=RANK),
    Architecture("tanh, g = 2.1", "tanh", gain=2.1),
)


FULL = Settings(200, 6.0, 0.05, 200, 4)
QUICK = Settings(200, 4.0, 0.1, 30, 10)


def reproduce(*, quick: bool = False, seed: int = 0, progress: Callable[..., None] | None = None) -> Reproduction:
    """Reproduce Sup. Fig. 6: five networks that learn, and the singular values of all that makes up a gradient.

    Args:
        quick: A small version of seconds: shorter trials in longer steps, 30 updates.
        seed: The number from which all randomness comes.
        progress: Not used.

    Returns:
        The reproduction, with data along `architecture`, `update`, `measurement` and `index`.
    """
    settings = QUICK if quick else FULL
    seeds = np.random.SeedSequence(seed).spawn(len(ARCHITECTURES))
    parts = [learn(each, settings, np.random.default_rng(s)) for each, s in zip(ARCHITECTURES, seeds, strict=True)]
    attributes = {"neurons": settings.neurons, "dt": settings.dt, "duration": settings.duration}
    data = xr.concat(parts, dim="architecture").assign_attrs(attributes)
    data = data.assign_coords(architecture=[each.label for each in ARCHITECTURES], unfolding=["update", "post", "pre"])
    data = data.assign_coords(components=np.arange(1, COMPONENTS + 1))
    return Reproduction("pellegrino2023", "s6", data, draw(data), claims(data))


def claims(data: xr.Dataset) -> tuple[Claim, ...]:
    """Decide whether gradients are of low rank for the reason given.

    Args:
        data: As `reproduce` gives it.
    """
    decay = (_decays(data), _exponential(data))
    return (_learned(data), _product(data), _bounded(data), *decay, _linear(data), _tensor(data), _chaos(data))


def _by_name(values: Any, data: xr.Dataset) -> dict[str, float]:
    return {str(name): float(value) for name, value in zip(data["architecture"].values, values, strict=True)}


def _learned(data: xr.Dataset) -> Claim:
    ratio = (data["loss"][:, -1] / data["loss"][:, 0]).values
    return Claim(
        "all_learn", bool((ratio < 1 / 3).all()), _by_name(ratio, data), "The loss falls below a third in all networks."
    )


def _product(data: xr.Dataset) -> Claim:
    error, printed = (float(data[name].max()) for name in ("product_error", "printed_error"))
    least = float(data["printed_error"].min())
    return Claim(
        "gradient_is_one_product",
        error < 1e-10 and least > 1e-4,
        {"largest deviation": error, "as printed, smallest": least, "as printed, largest": printed},
        "One product of adjoint states and the rates before each step is the gradient by automatic differentiation; "
        "paired at equal times, as printed, it is not.",
    )


def _bounded(data: xr.Dataset) -> Claim:
    g, sharp, bound = (data[name].values for name in ("gradient", "sharp", "bound"))
    seen = g > 1e-12 * g[..., :1]
    ratio, low = (np.where(seen, g / np.maximum(each, 1e-300), 0.0) for each in (sharp, bound))
    return Claim(
        "bounds_hold",
        bool((ratio < 1 + 1e-9).all() and (sharp <= bound * (1 + 1e-9)).all() and ratio[..., 0].min() > 0.05),
        {
            "largest ratio": float(ratio.max()),
            "largest ratio to the bound of Theorem 1": float(low.max()),
            "median of the first": float(np.median(ratio[..., 0])),
            "median of the fifth": float(np.median(ratio[..., 4][seen[..., 4]])),
        },
        "At every update every singular value of the gradient lies below its bound, the first within a factor 20.",
    )


def reach(values: FloatArray, share: float = 1e-5) -> FloatArray:
    """How many singular values exceed a share of the first.

    Args:
        values: Singular values, shape (..., k), falling.
        share: The share.

    Returns:
        Shape (...).
    """
    return np.asarray((values > share * values[..., :1]).sum(-1), np.float64)


def _decays(data: xr.Dataset) -> Claim:
    counts = [reach(data[name].isel(measurement=0).values) for name in ("rates", "adjoint", "gradient")]
    smooth = [1, 2, 4]
    ahead = [float(count[0] - count[smooth].max()) for count in counts[:2]]
    return Claim(
        "rough_nonlinearity_decays_slowest",
        bool(min(ahead) > 0),
        _by_name(np.minimum(counts[0], counts[1]), data) | {"of them in the gradient, at most": float(counts[2].max())},
        "The singular values of the rates, and those of the adjoint states, fall slowest with the one "
        "nonlinearity that has a kink (number above 1e-5 of the first, the smaller of the two).",
    )


def preference(values: FloatArray) -> float:
    """How far singular values are from an exponential, against how far from a power law: below 1, nearer the former.

    Args:
        values: Singular values, shape (k,), falling.

    Returns:
        Ratio of the root mean squared deviations of their logarithms from two straight lines: against index, and
        against its logarithm, where they exceed 1e-13 of the first.
    """
    logs = np.log(values[values > 1e-13 * values[0]])
    index = np.arange(1, len(logs) + 1, dtype=np.float64)
    spread = [np.std(logs - np.polyval(np.polyfit(x, logs, 1), x)) for x in (index, np.log(index))]
    return float(spread[0] / max(spread[1], 1e-12))


def _exponential(data: xr.Dataset) -> Claim:
    first = data.isel(measurement=0)
    found = np.array(
        [[preference(first[name].values[k]) for k in (0, 1, 2, 4)] for name in ("rates", "adjoint", "gradient")]
    )
    return Claim(
        "smooth_nonlinearities_decay_exponentially",
        bool(found[:, 1:].max() < 0.5 and found[:, 0].min() > 2),
        {
            "softplus": float(found[:, 1].max()),
            "tanh": float(found[:, 2].max()),
            "tanh, g = 2.1": float(found[:, 3].max()),
            "rectified tanh, smallest": float(found[:, 0].min()),
        },
        "Singular values of rates, adjoint states and gradient fall exponentially with softplus and tanh and as a "
        "power law with the rectified tanh (deviation from the first over that from the second, the largest of three).",
    )


def _linear(data: xr.Dataset) -> Claim:
    linear = data.isel(architecture=3)
    first, weights, unfolded = linear["ranks"].values
    one, everything = rank_bound(RANK, INPUTS, OUTPUTS, updates="one"), rank_bound(RANK, INPUTS, OUTPUTS)
    outside = float(linear["outside"])
    return Claim(
        "linear_network_keeps_its_subspace",
        bool(first == one and weights <= everything and unfolded <= everything and outside < 1e-10),
        {
            "rank of the first update": first,
            "of the last weights": weights,
            "of the path": unfolded,
            "bound of one": float(one),
            "of all": float(everything),
            "share outside": outside,
        },
        "In the linear network of rank 3 the first update has rank R + 1 = 4, and weights and path never exceed "
        "2R + m + d = 10.",
    )


def _tensor(data: xr.Dataset) -> Claim:
    components = data["parafac"].values  # (architecture, components)
    worst = data["unfolded"].isel(index=slice(COMPONENTS)).min("unfolding").transpose("architecture", "index").values
    return Claim(
        "change_of_weights_has_low_tensor_rank",
        bool((components[:, RANK - 1] > 0.95).all() and (components <= worst + 1e-9).all()),
        _by_name(components[:, RANK - 1], data)
        | {"furthest below the worst unfolding": float((worst - components).max())},
        "Three components hold more than 95 % of the change of the weights over all updates; no decomposition "
        "exceeds what the worst of the three unfoldings explains at its rank.",
    )


def _chaos(data: xr.Dataset) -> Claim:
    apart = data["apart"].values
    g = data["gradient"].isel(measurement=0, architecture=4).values
    tenth = float(g[9] / g[0])
    return Claim(
        "chaos_does_not_prevent_it",
        bool(apart[4] > 0.01 and apart[3] < -0.5 and tenth < 1e-3),
        {"neighbours part at rate": float(apart[4]), "in the linear network": float(apart[3]), "tenth / first": tenth},
        "With g = 2.1 neighbouring states part for good (without input, from 50 to 100 membrane times), and the tenth "
        "singular value of the gradient is still below a thousandth of the first.",
    )


def draw(data: xr.Dataset) -> Figure:
    """Draw the figure: one row for each network."""
    columns = (_draw_loss, _draw_activity, _draw_factors, _draw_gradient, _draw_unfoldings)
    with house_style():
        figure = new_figure(PAGE, 8.2)
        panels = figure.subplots(len(ARCHITECTURES), len(columns), squeeze=False)
        for k, row in enumerate(panels):
            for axes, column in zip(row, columns, strict=True):
                column(axes, data.isel(architecture=k))
                axes.tick_params(labelsize=6)
                if k < len(panels) - 1:
                    axes.set_xlabel("")
                legend = axes.get_legend()
                if legend and k != 3:  # there is room in the panels of the linear network
                    legend.remove()
            _inset(row[0], ARCHITECTURES[k].phi)
        panel_letters(panels[0])
    return figure


def _inset(axes: Axes, phi: Phi) -> None:
    inset = axes.inset_axes((0.7, 0.74, 0.28, 0.28))
    x = np.linspace(-2.5, 2.5, 201)
    with float64():
        inset.plot(x, np.asarray(nonlinearity(phi)(jnp.asarray(x))), color=INK, linewidth=0.9)
    inset.set(xticks=[], yticks=[])


def _draw_loss(axes: Axes, data: xr.Dataset) -> None:
    axes.plot(data["loss"] / data["loss"][0], color=BLUE)
    axes.set(yscale="log", xlabel="update", ylabel="loss / initial loss", ylim=(None, 3))
    axes.set_title(str(data["architecture"].values))


def _draw_activity(axes: Axes, data: xr.Dataset) -> None:
    t = data.dt * (1 + np.arange(data.sizes["time"]))
    axes.plot(t, data["states"].values, color=INK, linewidth=0.6)
    axes.set(xlabel="time (membrane times)", ylabel="x of 8 units")


def _curves(axes: Axes, curves: Sequence[tuple[FloatArray, str, str, str]]) -> None:
    for values, colour, style, label in curves:
        shown = np.where(values > 1e-16 * values[0], values / values[0], np.nan)
        axes.plot(1 + np.arange(len(values)), shown, style, color=colour, markersize=2.0, linewidth=0.9, label=label)
    axes.set(yscale="log", xlabel="index", ylim=(1e-16, 10), xlim=(0, SHOWN + 1))
    axes.legend(loc="upper right", labelspacing=0.1, fontsize=6)


def _draw_factors(axes: Axes, data: xr.Dataset) -> None:
    at = {"measurement": 0}
    _curves(
        axes,
        [
            (data["rates"].isel(at).values, BLUE, "o-", "rates"),
            (data["adjoint"].isel(at).values, ORANGE, "o-", "adjoint"),
        ],
    )
    axes.set_ylabel("σ / first")


def _draw_gradient(axes: Axes, data: xr.Dataset) -> None:
    at = {"measurement": 0}
    first = data["gradient"].isel(at).values[0]
    for name, colour, style, label in (
        ("bound", GREY, "--", "bound"),
        ("sharp", INK, "-", "sharper"),
        ("gradient", GREEN, "o-", "gradient"),
    ):
        values = data[name].isel(at).values / first
        shown = np.where(values > 1e-16, values, np.nan)
        axes.plot(1 + np.arange(len(values)), shown, style, color=colour, markersize=2.0, linewidth=0.9, label=label)
    change = data["weights"].values / data["weights"].values[0]
    axes.plot(
        1 + np.arange(len(change)), np.where(change > 1e-16, change, np.nan), color=PURPLE, linewidth=0.9, label="ΔW"
    )
    axes.set(yscale="log", xlabel="index", ylim=(1e-16, 100), xlim=(0, SHOWN + 1), ylabel="σ / first of gradient")
    axes.legend(loc="upper right", labelspacing=0.1, fontsize=6)


def _draw_unfoldings(axes: Axes, data: xr.Dataset) -> None:
    shown = [(name, data["unfolded"].sel(unfolding=name).values[:COMPONENTS]) for name in ("post", "pre", "update")]
    colours = (GREEN, SKY, PURPLE, INK)
    for (name, values), colour in zip([*shown, ("PARAFAC", data["parafac"].values)], colours, strict=True):
        left = np.where(1 - values > 1e-15, 1 - values, np.nan)  # below is rounding
        axes.plot(1 + np.arange(len(values)), left, "o-", color=colour, markersize=2.0, linewidth=0.9, label=name)
    axes.set(yscale="log", xlabel="rank", ylabel="unexplained share", ylim=(1e-16, 10))
    axes.set_xticks(range(2, COMPONENTS + 1, 2))
    axes.legend(loc="upper right", labelspacing=0.1, fontsize=6)
