"""What the fixed-point theory needs of a run, member by member: initial weights, target, sizes, learning times."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from tauflow.analysis.arguments import FloatArray
from tauflow.run import Run

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


def settings(run: Run) -> list[dict[str, Any]]:
    """The configuration of every member, also where Runs were merged or members differ in objective or task."""
    whole = run.configuration
    merged = whole.get("merged")
    found = [whole] * run.n_runs
    if merged:
        found = [entry["configuration"] for entry in merged for _ in range(entry["runs"])]
    if "objective_settings" not in run.data:
        return found
    own = [json.loads(str(text)) for text in run.data["objective_settings"].values]
    return [{**shared, **each} for shared, each in zip(found, own, strict=True)]


def name_of(configuration: dict[str, Any], kind: str) -> str:
    """Name of the task or the objective in a configuration; "" if there is none."""
    entry = configuration.get(kind)
    return str(entry.get("name", "")) if isinstance(entry, dict) else str(entry or "")


def task_setting(configuration: dict[str, Any], name: str, default: float) -> float:
    """A setting of the task in a configuration, or the default."""
    task = configuration.get("task")
    return float(task.get(name, default)) if isinstance(task, dict) else default


def neurons(run: Run, i: int) -> int:
    """Number of units of a member; the arrays of smaller members are padded."""
    return int(run.data["units"].values[i]) if "units" in run.data.coords else run.data.sizes["unit"]


def starts(run: Run) -> bool:
    """Whether the run keeps the dense initial weights of a network with one input and one output."""
    data = run.data
    kept = all(name in data for name in ("W", "W_in", "W_out"))
    first = kept and int(data["snapshot_update"].values[0]) == 0
    return bool(first and data.sizes["input"] == 1 and data.sizes["output"] == 1)


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
