"""What to keep of a run while it learns, and how often."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Record:
    """What `descend`, `flow` and `ensemble` keep besides the loss and the gradient norm of every update.

    Attributes:
        weights: When to keep the weights: "ends" (before the first and after the last update), "all" (whenever
            something is measured), or a sequence of updates.
        measurements: When to measure the singular values of ΔW, the eigenvalues of W and the probes: how many times,
            evenly spaced with both ends, or a sequence of updates. 0 for never.
        probes: Name to `probe(network) -> array`, called on the host with every member at every measurement.

    An update u means "after u updates", from 0 to the number of steps.

    Example:
        >>> Record(measurements=5).measurement_times(100).tolist()
        [0, 25, 50, 75, 100]
    """

    weights: str | Sequence[int] = "ends"
    measurements: int | Sequence[int] = 100
    probes: Mapping[str, Callable[[Any], Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if isinstance(self.weights, str) and self.weights not in ("ends", "all"):
            raise ValueError(f"weights is {self.weights!r}; it must be 'ends', 'all' or a sequence of updates.")
        if isinstance(self.measurements, (int, np.integer)) and self.measurements < 0:
            raise ValueError(f"measurements is {self.measurements}; it must be a number >= 0 or a sequence of updates.")

    def measurement_times(self, steps: int) -> np.ndarray:
        """Updates after which to measure, shape (measurement,)."""
        if isinstance(self.measurements, (int, np.integer)):
            count = min(int(self.measurements), steps + 1)
            return np.unique(np.linspace(0, steps, count).round().astype(np.int64)) if count else np.zeros(0, np.int64)
        return _checked_times("measurements", self.measurements, steps)

    def snapshot_times(self, steps: int) -> np.ndarray:
        """Updates after which to keep the weights, shape (snapshot,)."""
        if isinstance(self.weights, str):
            ends = np.array([0, steps], np.int64)
            return np.unique(np.concatenate([ends, self.measurement_times(steps)]) if self.weights == "all" else ends)
        return _checked_times("weights", self.weights, steps)


def _checked_times(name: str, times: Sequence[int], steps: int) -> np.ndarray:
    array = np.unique(np.asarray(times))
    if array.size and (array.ndim != 1 or not np.issubdtype(array.dtype, np.integer)):
        raise ValueError(f"{name} is {times!r}; it must hold whole numbers of updates.")
    if array.size and (array[0] < 0 or array[-1] > steps):
        raise ValueError(f"{name} holds updates {array[0]} to {array[-1]}; the run has 0 to {steps}.")
    return array.astype(np.int64)
