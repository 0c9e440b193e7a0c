"""Networks of Sup. Fig. 6, how they learn, and what is measured of their gradients."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from tauflow.analysis import explained_by_rank, unfolding_explained
from tauflow.analysis.arguments import FloatArray
from tauflow.precision import float64
from tauflow.simulate import Phi, nonlinearity, simulate
from tauflow.theory.gradient_rank import (
    adjoint_states,
    discrete_gradient,
    invariant_subspace,
    operator_singular_values,
    share_outside,
    singular_value_bounds,
)

INPUTS = OUTPUTS = 2
RANK = 3
SHOWN = 30
"""Singular values kept."""
COMPONENTS = 8
"""Largest number of components of the decompositions of the path of weights."""


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
