"""Several Runs on one axis, or in one Run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import xarray as xr

from tauflow.run.path import Run
from tauflow.run.schema import RunError


def common_tau_unit(runs: Sequence[Run]) -> str:
    """The unit of learning time that all Runs share; call it before putting them on one axis.

    Args:
        runs: One Run or more.

    Raises:
        ValueError: If there is none, or their units differ.
    """
    units = list(dict.fromkeys(run.tau_unit for run in runs))
    if not units:
        raise ValueError("No Run came; pass one or more.")
    if len(units) > 1:
        raise ValueError(f"The Runs have learning times in {' and '.join(units)}; only one unit fits on one axis.")
    return units[0]


def merge(runs: Sequence[Run]) -> Run:
    """Put Runs of the same network, axes and unit of learning time together along `run`.

    Args:
        runs: One Run or more.

    Returns:
        One Run with all members in order. Its `configuration` has what all share, and under "merged" the number
        of members, configuration, seed, versions, device and time of each.

    Raises:
        ValueError: If their kinds, networks, variables, sizes, learning times' units or coordinates differ.
    """
    runs = list(runs)
    common_tau_unit(runs)
    first = runs[0].data
    for position, run in enumerate(runs[1:], start=1):
        _check_mergeable(first, run.data, position)
    data = xr.concat(
        [run.data for run in runs],
        dim="run",
        data_vars="minimal",
        coords="minimal",
        compat="override",
        join="override",
        combine_attrs="override",
    )
    if "run" in data.variables and data["run"].dtype.kind in "iu":
        data = data.assign_coords(run=np.arange(data.sizes["run"]))
    return Run(data.assign_attrs(_merged_attributes(runs)))


def _check_mergeable(first: xr.Dataset, other: xr.Dataset, position: int) -> None:
    where = f"Run {position} cannot be merged with Run 0, because"
    for name in ("kind", "network"):
        ours, theirs = first.attrs[name], other.attrs[name]
        if ours != theirs and (name == "kind" or json.loads(ours) != json.loads(theirs)):
            raise RunError(f"{where} its {name} is {theirs} and not {ours}.")
    for lacking, having, has in ((other, first, "lacks"), (first, other, "alone has")):
        missing = sorted(str(name) for name in having.variables.keys() - lacking.variables.keys())
        if missing:
            raise RunError(f"{where} it {has} {', '.join(missing)}.")
    for dim, size in first.sizes.items():
        if dim != "run" and other.sizes[dim] != size:
            raise RunError(f"{where} its {dim} has size {other.sizes[dim]} and not {size}.")
    for variable, ours in first.variables.items():
        theirs = other.variables[variable]
        if ours.dims != theirs.dims or (variable in first.coords) != (variable in other.coords):
            raise RunError(f"{where} its {variable} has other dimensions or is no longer a coordinate.")
        if ours.dtype != theirs.dtype and ours.dtype.kind != "U":
            raise RunError(f"{where} its {variable} has dtype {theirs.dtype} and not {ours.dtype}.")
        if "run" not in ours.dims and not ours.equals(theirs):
            raise RunError(f"{where} its {variable} has other values.")


def _merged_attributes(runs: Sequence[Run]) -> dict[str, Any]:
    entries: list[dict[str, Any]] = []
    for run in runs:
        attributes, configuration = run.data.attrs, run.configuration
        entries += configuration.pop("merged", None) or [
            {
                "runs": run.n_runs,
                "configuration": configuration,
                "seed": attributes["seed"],
                "versions": json.loads(attributes["versions"]),
                "device": attributes["device"],
                "created": attributes["created"],
            }
        ]
    first = entries[0]["configuration"]
    shared = {
        key: value
        for key, value in first.items()
        if all(key in entry["configuration"] and entry["configuration"][key] == value for entry in entries)
    }
    merged: dict[str, Any] = {"configuration": json.dumps({**shared, "merged": entries})}
    merged["device"] = " and ".join(dict.fromkeys(entry["device"] for entry in entries))
    merged["created"] = datetime.now(UTC).isoformat(timespec="seconds")
    return merged
