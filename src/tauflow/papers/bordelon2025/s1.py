r"""Fig. S1: lazy learning in smaller networks, and the eigenvalues and eigenfunctions of the autocorrelation.

The paper's captions of panels a and b are the same; here they are networks of two sizes.

The kernel is diagonalised on a grid, with the weights of the trapezoidal rule. Its eigenvalues are then off by a
multiple of dt² and higher even powers, which the same on coarser grids takes away (Romberg): what is left is far below
what an error in the theory would be.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import jax
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from tauflow.papers._drawing import panel_letters
from tauflow.papers.base import Claim, Reproduction
from tauflow.papers.bordelon2025 import _lazy as lazy
from tauflow.plots import house_style, new_figure, sequential
from tauflow.plots.style import BLUE, GREY, INK, PAGE
from tauflow.tasks import LeakyIntegrator
from tauflow.theory.mean_field import autocorrelation, mercer_eigenfunctions, mercer_eigenvalues

TARGET = LeakyIntegrator(0.5)
KERNEL_SIGMA = 0.8
STEP, END = 0.1, 100.0
"""Of the grid, as in the paper."""
SHOWN = 40
FUNCTIONS = 8


@dataclass(frozen=True)
class Settings:
    """Networks.

    Attributes:
        sizes: Numbers of units.
        networks: (sigma, number of networks) at each size.
    """

    sizes: tuple[int, ...]
    networks: tuple[tuple[float, int], ...]


FULL = Settings((250, 1500), ((0.6, 2), (0.7, 2), (0.8, 2)))
QUICK = Settings((64,), ((0.5, 2), (0.6, 2), (0.7, 2)))


def reproduce(*, quick: bool = False, seed: int = 0, progress: Callable[..., None] | None = None) -> Reproduction:
    """Reproduce Fig. S1: losses of small networks with the lazy theory, and the Mercer decomposition of C.

    Args:
        quick: A small version of seconds: one size of 64 neurons; the decomposition as in full.
        seed: The number from which all randomness comes.
        progress: Called now and then with a `tauflow.learning.Progress`.

    Returns:
        The reproduction, with data along `network`, `time`, `index` and `t`.
    """
    settings = QUICK if quick else FULL
    keys = jax.random.split(jax.random.key(seed), len(settings.sizes))
    losses = [
        lazy.LazyTraining(size, TARGET, settings.networks).train(key=key, progress=progress)
        for size, key in zip(settings.sizes, keys, strict=True)
    ]
    data = xr.merge([xr.concat(losses, dim="network"), decomposition()], compat="equals", join="exact")
    return Reproduction("bordelon2025", "s1", data, draw(data), claims(data))


def diagonalised(step: float) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Eigenvalues of C on a grid, largest first, its eigenfunctions (t, index), and the grid.

    Args:
        step: Distance of grid points, in membrane times.
    """
    t = np.linspace(0, END, round(END / step) + 1, dtype=np.float64)
    root = np.sqrt(np.where((t == 0) | (t == END), step / 2, step))
    values, vectors = np.linalg.eigh(root[:, None] * autocorrelation(t[:, None], t, KERNEL_SIGMA) * root)
    functions = vectors[:, ::-1] / root[:, None]
    return values[::-1], functions * np.sign(functions[0]), t


def decomposition() -> xr.Dataset:
    """Eigenvalues and eigenfunctions of C: on a grid, and in closed form.

    Returns:
        `eigenvalue (index)`, on the paper's grid; `extrapolated (index)`, from that and coarser grids;
        `eigenvalue_theory`; `function (t, function_index)` and `function_theory`.
    """
    grids = [diagonalised(STEP * factor) for factor in (1, 2, 4)]
    a, b, c = (values[:SHOWN] for values, _, _ in grids)
    once, twice = (4 * a - b) / 3, (4 * b - c) / 3
    _, functions, t = grids[0]
    dims = ("t", "function_index")
    return xr.Dataset(
        {
            "eigenvalue": ("index", a),
            "extrapolated": ("index", (16 * once - twice) / 15),
            "eigenvalue_theory": ("index", mercer_eigenvalues(SHOWN, KERNEL_SIGMA)),
            "function": (dims, functions[:, :FUNCTIONS]),
            "function_theory": (dims, mercer_eigenfunctions(FUNCTIONS, t, KERNEL_SIGMA)),
        },
        {"index": np.arange(SHOWN), "t": t},
    )


def claims(data: xr.Dataset) -> tuple[Claim, ...]:
    """Decide whether networks learn, and the kernel decomposes, as the theory has it.

    Args:
        data: As `reproduce` gives it.
    """
    return (*lazy.lazy_claims(data), *_eigenvalues(data), _functions(data))


def _eigenvalues(data: xr.Dataset) -> tuple[Claim, Claim]:
    found, theory = data["eigenvalue"].values, data["eigenvalue_theory"].values
    off = np.abs(data["extrapolated"].values / theory - 1)[:4]
    floor = float(np.finfo(np.float64).eps) * theory[0]
    above = theory > 10 * floor
    raw = np.abs(found / theory - 1)[above]
    below = np.abs(found[theory < floor / 10])
    return (
        Claim(
            "eigenvalues_as_predicted",
            bool(off.max() < 1e-3 and raw.max() < 0.05),
            {
                "largest relative error of the first four": float(off.max()),
                "on the grid, of all above rounding": float(raw.max()),
                "number above rounding": float(above.sum()),
            },
            "The eigenvalues of C are (1 - c)q^n: the first four to 0.1 % (extrapolated to a fine grid), all above "
            "rounding to 5 % (on a grid of 0.1).",
        ),
        Claim(
            "eigenvalues_end_at_rounding",
            bool(below.max() < 10 * floor and below.min() > 10 * theory[-1]),
            {
                "largest beyond": float(below.max()),
                "rounding 2⁻⁵² λ_0": floor,
                "smallest of the theory": float(theory[-1]),
            },
            "On the grid they stop falling at rounding, where the theory goes on.",
        ),
    )


def _functions(data: xr.Dataset) -> Claim:
    found, theory = data["function"].values, data["function_theory"].values
    cosines = (found * theory).sum(axis=0) / np.linalg.norm(found, axis=0) / np.linalg.norm(theory, axis=0)
    return Claim(
        "eigenfunctions_as_predicted",
        bool(cosines.min() > 0.999),
        {"smallest cosine": float(cosines.min()), "functions": float(len(cosines))},
        "The first eight eigenfunctions are Laguerre functions (cosine above 0.999 on a grid of 0.1).",
    )


def draw(data: xr.Dataset) -> Figure:
    """Draw the figure: losses at each size, eigenvalues, eigenfunctions."""
    with house_style():
        sizes = np.unique(data["neurons"].values)
        rows, columns = (2, 2) if len(sizes) == 2 else (1, 3)
        figure = new_figure(PAGE, 2.6 * rows)
        flat = figure.subplots(rows, columns).ravel()
        for axes, size in zip(flat[: len(sizes)], sizes, strict=True):
            lazy.draw_losses(axes, data.isel(network=np.flatnonzero(data["neurons"].values == size)))
            axes.set_title(f"N = {size}, c* = {TARGET.c:g}", fontsize=8)
            axes.legend(loc="lower left", labelspacing=0.3)
        _draw_eigenvalues(flat[-2], data)
        _draw_functions(flat[-1], data)
        panel_letters(flat)
    return figure


def _draw_eigenvalues(axes: Axes, data: xr.Dataset) -> None:
    n, found, theory = data["index"].values, data["eigenvalue"].values, data["eigenvalue_theory"].values
    floor = np.finfo(np.float64).eps * theory[0]
    axes.axhline(floor, color=GREY, linewidth=0.8, label="rounding, $2^{-52}λ_0$")
    axes.plot(n, np.abs(found), color=BLUE, marker="o", markersize=2.5, label="on the grid")
    axes.plot(n, theory, "--", color=INK, linewidth=1.0, label="theory")
    axes.set(yscale="log", xlabel="n", ylabel="eigenvalues of C", ylim=(1e-20, 1))
    axes.set_title(f"σ = {KERNEL_SIGMA:g}", fontsize=8)
    axes.legend(loc="upper right")


def _draw_functions(axes: Axes, data: xr.Dataset) -> None:
    near = data.sel(t=slice(0, 25))
    for k, colour in enumerate(sequential(FUNCTIONS)):
        axes.plot(near["t"], near["function"][:, k], color=colour, label=f"$φ_{k}$")
        axes.plot(near["t"], near["function_theory"][:, k], "--", color=INK, linewidth=0.6, zorder=3)
    axes.set(xlabel="t (membrane times)", ylabel="eigenfunctions of C")
    axes.set_title(f"σ = {KERNEL_SIGMA:g}", fontsize=8)
    axes.legend(loc="upper right", ncols=2)
