"""What the figures on the linear network share: training on the fixed-point task, and measures of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from tauflow.analysis import singular_values as matrix_singular_values
from tauflow.learning import Record, ensemble
from tauflow.networks import RateRNN
from tauflow.objectives import FixedPointLoss, mean_squared_error
from tauflow.run import Run
from tauflow.tasks import FixedPoint

#: Targets and the rates that go with them at g = 0; at other gains the rate has a factor (1 - g²)².
RATES = {0.5: 0.015, 1.0: 0.009, 2.0: 0.003}


@dataclass(frozen=True)
class LinearTraining:
    """How linear networks are trained on the fixed-point task; the defaults are the authors' settings.

    Attributes:
        gains: Initial connectivity strengths g.
        targets: Values ẑ to reach.
        seeds: Networks at each pair of these.
        neurons: Number of units N.
        epochs: Number of updates.
        rates: Learning rate at g = 0 for each target.
        duration: Length of a trial in membrane times, where trials are simulated.
    """

    gains: tuple[float, ...]
    targets: tuple[float, ...] = (0.5, 1.0, 2.0)
    seeds: int = 1
    neurons: int = 1024
    epochs: int = 200
    rates: tuple[float, ...] = tuple(RATES.values())
    duration: float = 101.0

    def make_network(self, *, key: jax.Array, gain: float, target: float) -> RateRNN:
        """Draw a linear network."""
        return RateRNN.random(self.neurons, 1, 1, gain=gain, key=key, phi="identity")

    def make_optimizer(self, gain: ArrayLike, target: ArrayLike) -> optax.GradientTransformation:
        """Plain gradient descent with rate η₀(ẑ)(1-g²)²."""
        gain, target = jnp.asarray(gain), jnp.asarray(target)
        targets, rates = (jnp.asarray(values, target.dtype) for values in (self.targets, self.rates))
        return optax.sgd(jnp.interp(target, targets, rates) * (1 - gain**2) ** 2)

    def train(
        self, *, key: jax.Array, record: Record, simulated: bool = False,
        progress: Callable[..., None] | None = None,
    ) -> Run:  # fmt: skip
        """Train W, on the exact loss of the fixed point or, if `simulated`, on that of simulated trials."""

        def make_exact(gain: ArrayLike, target: jax.Array | float) -> FixedPointLoss:
            return FixedPointLoss(target, stability="determinant")

        def make_simulated(gain: ArrayLike, target: ArrayLike) -> Callable[..., jax.Array]:
            return lambda network, key: simulated_loss(network, target, duration=self.duration)

        return ensemble(
            self.make_network,
            make_simulated if simulated else make_exact,
            self.make_optimizer,
            keys=jax.random.split(key, self.seeds),
            grid={"gain": list(self.gains), "target": list(self.targets)},
            steps=self.epochs,
            train=("W",),
            record=record,
            progress=progress,
        )


def simulated_loss(network: RateRNN, target: ArrayLike, *, duration: float = 101.0) -> jax.Array:
    """The loss of one simulated trial of the fixed-point task, in float32; the target may be traced.

    Args:
        network: A linear network.
        target: ẑ.
        duration: Length of the trial in membrane times.
    """
    trial = FixedPoint(target_amplitude=1.0, duration=duration).example()
    wanted = jnp.asarray(target, trial.targets.dtype) * trial.targets  # (time, trial, output)
    return mean_squared_error(network(trial.inputs).outputs, wanted, trial.mask)


def labels(run: Run) -> dict[str, xr.DataArray]:
    """Gain, target, seed and status of every member, to label a dataset with."""
    return {name: run.data[name] for name in ("gain", "target", "seed", "status")}


def snapshot_singular_values(run: Run, count: int) -> NDArray[np.float64]:
    """First singular values of ΔW at every snapshot, (run, snapshot, count); NaN once a member has stopped."""
    rows = []
    for member in range(run.n_runs):
        W0 = np.asarray(run.weights("W", member, 0), np.float64)
        for at in range(run.data.sizes["snapshot"]):
            W = np.asarray(run.weights("W", member, at), np.float64)
            known = np.isfinite(W).all()
            rows.append(matrix_singular_values(W - W0)[:count] if known else np.full(count, np.nan))
    return np.array(rows).reshape(run.n_runs, -1, count)


def with_W(network: RateRNN, W: NDArray[np.floating]) -> RateRNN:
    """The network with other recurrent weights, in its own precision."""
    return eqx.tree_at(lambda net: net.W, network, jnp.asarray(np.asarray(W, network.W.dtype)))


def initial_rate(run: Run) -> NDArray[np.float64]:
    r"""Rate at which a network begins to learn, $-d\ln|\hat z - z|/d\tau = \|\nabla L\|^2/(2L)$, shape (run)."""
    loss, norm = (np.asarray(run.data[name][:, 0], np.float64) for name in ("loss", "grad_norm"))
    return norm**2 / (2 * loss)


def crossing(tau: NDArray[np.float64], loss: NDArray[np.float64], level: ArrayLike) -> NDArray[np.float64]:
    """Learning time at which the loss first falls to a level, interpolated between updates; NaN where it never does.

    Args:
        tau: Learning time before each update, shape (run, update).
        loss: Loss before each update, shape (run, update).
        level: Level of each run, shape (run).
    """
    result = np.full(len(loss), np.nan)
    for i, (times, values, limit) in enumerate(zip(tau, loss, np.broadcast_to(level, len(loss)), strict=True)):
        below = np.flatnonzero(values < limit)
        if below.size and below[0] > 0:
            k = below[0]
            logs = np.log(values[k - 1 : k + 1])
            share = (logs[0] - np.log(limit)) / (logs[0] - logs[1])
            result[i] = times[k - 1] + share * (times[k] - times[k - 1])
    return result
