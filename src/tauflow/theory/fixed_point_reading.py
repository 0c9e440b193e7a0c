"""What the fixed-point theory needs of a run, member by member: initial weights, target, sizes, learning times."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from tauflow.analysis.arguments import FloatArray
from tauflow.run import Run
from tauflow.theory.reading import name_of, neurons, settings, starts, task_setting

TASK = "fixed-point"
OBJECTIVE = "fixed-point-loss"


@dataclass(frozen=True)
class Member:
    """One network of a run on the fixed-point task, in the paper's letters.

    Attributes:
        W0: Initial weights, shape (n, n).
        w: Readout vector, sqrt(n) W_out[0], shape (n,).
        m: Input vector, W_in[:, 0]/sqrt(n) times the input's amplitude, shape (n,).
        target: ẑ.
        gain: g, measured as the root mean square of W0 times sqrt(n).
    """

    W0: FloatArray
    w: FloatArray
    m: FloatArray
    target: float
    gain: float

    @property
    def neurons(self) -> int:
        """Number of units."""
        return len(self.w)


def member(run: Run, i: int) -> Member:
    """Read one member.

    Raises:
        ValueError: If the run does not keep its initial weights, or its target is not known.
    """
    if not starts(run):
        raise ValueError(
            "The run does not keep the dense initial weights of networks with one input and one output; "
            "record the weights at update 0."
        )
    n = neurons(run, i)
    configuration = settings(run)[i]
    W0 = np.asarray(run.weights("W", i, 0), np.float64)[:n, :n]
    m = np.asarray(run.weights("W_in", i, 0), np.float64)[:n, 0] / math.sqrt(n)
    w = np.asarray(run.weights("W_out", i, 0), np.float64)[0, :n] * math.sqrt(n)
    amplitude = (
        1.0 if name_of(configuration, "objective") == OBJECTIVE else task_setting(configuration, "input_amplitude", 1.0)
    )
    gain = float(np.sqrt(np.mean(W0**2) * n))
    return Member(W0, w, amplitude * m, target(run, i), gain)


def target(run: Run, i: int) -> float:
    """The value that a member should reach: what its objective or task says, else a label of the run.

    Raises:
        ValueError: If neither says.
    """
    configuration = settings(run)[i]
    for kind, key in (("objective", "target"), ("task", "target_amplitude")):
        entry = configuration.get(kind)
        if isinstance(entry, dict) and isinstance(entry.get(key), (int, float)):
            return float(entry[key])
    for label in ("target", "target_amplitude"):
        if label in run.data.coords and run.data[label].dims == ("run",):
            return float(run.data[label].values[i])
    raise ValueError(
        "The run does not say its target; give it a label, run.data.assign_coords(target=('run', [0.5])), "
        "or the task's target_amplitude in its configuration."
    )
