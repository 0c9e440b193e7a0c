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
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tauflow.analysis import explained_by_rank, unfolding_explained
from tauflow.analysis.arguments import FloatArray
from tauflow.papers._drawing import panel_letters
from tauflow.papers.base import Claim, Reproduction
from tauflow.plots import house_style, new_figure
from tauflow.plots.style import BLUE, GREEN, GREY, INK, ORANGE, PAGE, PURPLE, SKY
from tauflow.precision import float64
from tauflow.simulate import Phi, nonlinearity, simulate
from tauflow.theory.gradient_rank import (
    adjoint_states,
    discrete_gradient,
    invariant_subspace,
    operator_singular_values,
    rank_bound,
    share_outside,
    singular_value_bounds,
)

INPUTS = OUTPUTS = 2
RANK = 3
SHOWN = 30
"""Singular values kept."""
COMPONENTS = 8
"""Largest number of components of the decompositions of the path of weights."""


def rectified_tanh(x: jax.Array) -> jax.Array:
    """max(tanh x, 0)."""
    return jnp.maximum(jnp.tanh(x), 0)


@dataclass(frozen=True)
class Architecture:
    """One of the five networks.

    Attributes:
        label: What it is called in the figure.
        phi: Nonlinearity.
        gain: Spectral radius g of the initial weights; of rank 3 about their singular values.
        rank: Rank of the initial weights; None for full rank.
    """

    label: str
    phi: Phi
    gain: float = 1.5
    rank: int | None = None


ARCHITECTURES = (
    Architecture("rectified tanh", rectified_tanh),
    Architecture("softplus", "softplus"),
    Architecture("tanh", "tanh"),
    Architecture("linear, R = 3", "identity", rank=RANK),
    Architecture("tanh, g = 2.1", "tanh", gain=2.1),
)


@dataclass(frozen=True)
class Settings:
    """Sizes.

    Attributes:
        neurons: Number of units.
        duration: Length of a trial in membrane times.
        dt: Step.
        updates: Updates of gradient descent.
        every: Updates from one measurement of singular values to the next.
    """

    neurons: int
    duration: float
    dt: float
    updates: int
    every: int


FULL = Settings(200, 6.0, 0.05, 200, 4)
QUICK = Settings(200, 4.0, 0.1, 30, 10)


@dataclass(frozen=True)
class Problem:
    """A network before learning, its inputs over time and its target.

    Attributes:
        W: Initial weights, shape (n, n).
        B: Input weights, shape (n, 2).
        D: Decoder, shape (2, n).
        u: Inputs, shape (time, 2).
        y: Target, shape (2,).
    """

    W: FloatArray
    B: FloatArray
    D: FloatArray
    u: FloatArray
    y: FloatArray


def draw_network(architecture: Architecture, settings: Settings, rng: np.random.Generator) -> Problem:
    """Draw initial weights, inputs and target.

    Args:
        architecture: Which network.
        settings: Sizes.
        rng: Random numbers.

    Returns:
        The problem. Inputs that would grow are drawn again.

    Source: pellegrino2023, supplement D.4.
    """
    n, m = settings.neurons, INPUTS
    if architecture.rank is None:
        W = architecture.gain * rng.standard_normal((n, n)) / np.sqrt(n)
    else:
        W = (
            architecture.gain
            * rng.standard_normal((n, architecture.rank))
            @ rng.standard_normal((architecture.rank, n))
            / n
        )
    while True:
        M = rng.standard_normal((m, m)) / np.sqrt(m)
        if np.linalg.eigvals(M).real.max() < 1:
            break
    u = [rng.standard_normal(m) / 2]
    for _ in range(1, round(settings.duration / settings.dt)):
        u.append(u[-1] + settings.dt * (M @ u[-1] - u[-1]))
    B, D = rng.standard_normal((n, m)), rng.standard_normal((OUTPUTS, n)) / np.sqrt(n)
    return Problem(W, B, D, np.stack(u), rng.uniform(-1, 1, OUTPUTS))


_run = jax.jit(simulate, static_argnames=("phi", "alpha"))


def _states(W: FloatArray, drive: FloatArray, phi: Phi, dt: float) -> tuple[FloatArray, FloatArray]:
    """States after each step and rates before it, (time, n) each."""
    with float64():
        x = _run(jnp.asarray(W), jnp.asarray(drive), None, phi=phi, alpha=dt)
        before = nonlinearity(phi)(jnp.concatenate([jnp.zeros_like(x[:1]), x[:-1]]))
        return np.asarray(x), np.asarray(before)


def learn(architecture: Architecture, settings: Settings, rng: np.random.Generator) -> xr.Dataset:
    """Train one network, and measure what the figure shows.

    Args:
        architecture: Which network.
        settings: Sizes.
        rng: Random numbers.

    Returns:
        Loss over updates, states of the last trial, singular values over updates, and parts of the change of W.
    """
    net, dt, phi = draw_network(architecture, settings, rng), settings.dt, architecture.phi
    drive, W, rate = net.u @ net.B.T, net.W.copy(), None
    losses: list[float] = []
    weights, spectra = [W], []
    for update in range(settings.updates):
        x, before = _states(W, drive, phi, dt)
        a = adjoint_states(W, x, net.D, net.y, phi=phi, dt=dt)
        G = discrete_gradient(a, before, dt)
        losses.append(_loss(net, x, phi))
        if rate is None:  # so that the first update would, to first order, lower the loss by a tenth
            rate, first = 0.1 * losses[0] / (G**2).sum(), G
            checks = _checks(architecture, net, x, a, before, G, dt)
        if update % settings.every == 0:
            spectra.append(_spectra(a, before, G, dt))
        W = W - rate * G
        weights.append(W)
    change = np.stack(weights[1:]) - net.W  # (update, n, n)
    values: dict[str, Any] = {
        name: (("measurement", "index"), np.stack([each[name] for each in spectra])) for name in spectra[0]
    }
    values |= {"weights": ("index", _first(np.linalg.svd(change[-1], compute_uv=False)))}
    unfolded = np.stack([_first(each) for each in unfolding_explained(change)])
    ranks = range(1, COMPONENTS + 1)
    values |= {
        "loss": ("update", np.array(losses)),
        "states": (("time", "unit"), x[:, :8]),
        "unfolded": (("unfolding", "index"), unfolded),
        "parafac": ("components", explained_by_rank(change, ranks, key=int(rng.integers(2**31)), repeats=2)),
        "ranks": (
            "stage",
            np.array([_rank(first), _rank(W), _rank(change.transpose(1, 0, 2).reshape(len(W), -1))], float),
        ),
    }
    V = invariant_subspace(net.W, net.B, net.D) if architecture.rank else np.zeros((len(W), 0))
    values |= {"outside": ((), float(share_outside(change[-1], V)))}
    return xr.Dataset(values | {name: ((), value) for name, value in checks.items()})


def _loss(net: Problem, x: FloatArray, phi: Phi) -> float:
    with float64():
        rates = np.asarray(nonlinearity(phi)(jnp.asarray(x[-1])))
    return float(((net.D @ rates - net.y) ** 2).sum())


def _checks(
    architecture: Architecture, net: Problem, x: FloatArray, a: FloatArray, before: FloatArray, G: FloatArray, dt: float
) -> dict[str, float]:
    """Deviation of the first gradient from autodiff, as one product and as printed; and how fast neighbours part."""
    phi = architecture.phi
    with float64():
        exact = np.asarray(_autodiff(net.W, net.u @ net.B.T, net.D, net.y, phi, dt))
        after = np.asarray(nonlinearity(phi)(jnp.asarray(x)))
    size = np.linalg.norm(exact)
    return {
        "product_error": float(np.linalg.norm(G - exact) / size),
        "printed_error": float(np.linalg.norm(discrete_gradient(a, after, dt) - exact) / size),
        "apart": _parting(net.W, phi),
    }


@partial(jax.jit, static_argnums=(4, 5))
@jax.grad
def _autodiff(W: jax.Array, drive: jax.Array, D: jax.Array, y: jax.Array, phi: Phi, dt: float) -> jax.Array:
    """Gradient of the loss for W; the function below the decorators is the loss."""
    end = simulate(W, drive, phi=phi, alpha=dt, adjoint="autodiff")[-1]
    return ((D @ nonlinearity(phi)(end) - y) ** 2).sum()


def _parting(W: FloatArray, phi: Phi) -> float:
    """Rate at which two neighbouring states part without input, from 50 to 100 membrane times."""
    start = np.random.default_rng(0).standard_normal(len(W))
    with float64():
        pair = jnp.asarray(np.stack([start, start + 1e-9]))  # two trials
        x = np.asarray(_run(jnp.asarray(W), jnp.zeros((1000, *pair.shape)), pair, phi=phi, alpha=0.1))
    apart = np.linalg.norm(x[:, 1] - x[:, 0], axis=-1)
    return float(np.log(max(apart[-1], 1e-300) / max(apart[499], 1e-300)) / 50)


def _spectra(a: FloatArray, before: FloatArray, G: FloatArray, dt: float) -> dict[str, FloatArray]:
    return {
        "adjoint": _first(operator_singular_values(a, dt)),
        "rates": _first(operator_singular_values(before, dt)),
        "gradient": _first(np.linalg.svd(G, compute_uv=False)),
        "bound": _first(singular_value_bounds(a, before, dt, sharp=False)),
        "sharp": _first(singular_value_bounds(a, before, dt)),
    }


def _first(values: np.ndarray) -> FloatArray:
    return np.asarray(values[..., :SHOWN], np.float64)


def _rank(A: FloatArray) -> int:
    s = np.linalg.svd(A, compute_uv=False)
    return int((s > 1e-10 * s[0]).sum())


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
