"""What every theory reads of a run, member by member: configuration, task, sizes, and whether it can be read at all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from tauflow.run import Run
from tauflow.theory.base import Theory


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


def network_name(run: Run) -> str:
    """Name of the kind of network; "" if the run does not say it."""
    described = run.data.attrs.get("network")
    return str(json.loads(described).get("name", "")) if described else ""


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


def prediction(theory: Theory, run: Run, variables: Mapping[str, tuple[tuple[str, ...], np.ndarray]]) -> xr.Dataset:
    """What a theory predicts of a run, with the run's own coordinates along run, update and measurement."""
    shared = {k: c for k, c in run.data.coords.items() if set(c.dims) <= {"run", "update", "measurement"}}
    return xr.Dataset(variables, coords=shared, attrs={"kind": "theory", "theory": theory.name, "paper": theory.paper})
