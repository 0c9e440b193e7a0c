"""Gradient flow of a linear network toward a filter, as all figures of the paper run it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from tauflow.learning import Record, flow
from tauflow.networks import ContinuousLinearRNN
from tauflow.objectives import FilterLoss
from tauflow.precision import float64
from tauflow.run import Run


def draw_network(neurons: int, sigma: float, *, key: jax.Array, gamma0: float = 1.0) -> ContinuousLinearRNN:
    """Draw a network in float64, in which all flows are run.

    Args:
        neurons: Number of units N.
        sigma: Standard deviation of all weights.
        key: JAX random key.
        gamma0: Richness.
    """
    with float64():
        return ContinuousLinearRNN.random(neurons, sigma=sigma, gamma0=gamma0, key=key, dtype="float64")


def follow(
    network: ContinuousLinearRNN,
    target: Any,
    times: Sequence[float] | np.ndarray,
    *,
    record: Record,
    train: tuple[str, ...] = ("W", "W_in", "W_out"),
    rtol: float = 1e-6,
    progress: Callable[..., None] | None = None,
) -> Run:
    r"""Follow gradient flow at the mean-field rates $\eta = \gamma_0^2N$.

    Args:
        network: Where to begin.
        target: The filter to learn, of `tauflow.tasks`.
        times: Learning times to save, rising from 0.
        record: What to keep; its updates count the times.
        train: Fields to train.
        rtol: Relative tolerance of a step; the absolute one is a hundredth of it.
        progress: Called at every saved time.

    Returns:
        The run, of one network.
    """
    rates = network.mean_field_rates()
    return flow(
        network,
        FilterLoss(target),
        duration=float(times[-1]),
        save_at=times,
        rates={name: rates[name] for name in train},
        train=train,
        rtol=rtol,
        atol=1e-2 * rtol,
        record=record,
        progress=progress,
    )
