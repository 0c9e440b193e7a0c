"""Gradient flow of a linear network toward a filter, as all figures of the paper run it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from tauflow.learning import Record, flow
from tauflow.networks import ContinuousLinearRNN
from tauflow.objectives import FilterLoss
from tauflow.papers.base import Claim
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
    return flow(
        network,
        FilterLoss(target),
        duration=float(times[-1]),
        save_at=times,
        rates=network.mean_field_rates(train),
        train=train,
        rtol=rtol,
        atol=1e-2 * rtol,
        record=record,
        progress=progress,
    )


def leading(spectra: NDArray[Any]) -> NDArray[np.complex128]:
    """The eigenvalue of largest modulus, of a conjugate pair the one with the positive imaginary part.

    Args:
        spectra: Shape (..., n).

    Returns:
        Shape (...).
    """
    largest = np.take_along_axis(spectra, np.argmax(np.abs(spectra), axis=-1)[..., None], -1)[..., 0]
    return np.asarray(largest.real + 1j * np.abs(largest.imag))


def bulk_stays(data: xr.Dataset, sigma: float, outliers: int) -> Claim:
    """Decide whether all eigenvalues but the outliers end about where they began.

    Args:
        data: Holds `eigenvalues (measurement, index)` of one network and the attribute `neurons`.
        sigma: Radius of the bulk.
        outliers: How many eigenvalues of largest modulus are outliers in the end; as many may be at the start.
    """
    first, last = (values[np.argsort(-np.abs(values))] for values in data["eigenvalues"].values[[0, -1]])
    moved = np.abs(first[:, None] - last[outliers:])  # (index, index - outliers)
    shifts = moved[linear_sum_assignment(moved)] / sigma
    radii = [float(np.abs(values[outliers:]).max() / sigma) for values in (first, last)]
    spacing = 2 / np.sqrt(data.neurons)
    return Claim(
        "bulk_stays",
        radii[1] < max(1.0, radii[0]) + spacing and float(shifts.mean()) < spacing / 2,
        {
            "radius / σ at first": radii[0],
            "at last": radii[1],
            "mean shift / σ": float(shifts.mean()),
            "largest shift / σ": float(shifts.max()),
            "distance of neighbours / σ": spacing,
        },
        "All eigenvalues but the outliers stay in their disk and move, on average, by less than half the distance "
        "between neighbours, 2σ/√N.",
    )
