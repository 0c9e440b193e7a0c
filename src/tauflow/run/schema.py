"""What a Run holds: its dimensions, variables, coordinates and attributes, and the check that it does.

A member is one network; all lie along `run`. Learning has three axes, because what is cheap is kept often and what is
large seldom: `update` (loss and gradient norm), `measurement` (spectra and probes), `snapshot` (weights). Each has its
own learning time `tau`. A member's records after it stopped are NaN. Where members differ in size, smaller ones are
padded with NaN at their end and `units` says how many units each has; where they differ in static fields,
`network_static` has the JSON text of each one's.
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from typing import Any

import numpy as np
import xarray as xr

SCHEMA = 1
KINDS = ("descend", "flow", "theory", "fit", "checkpoints")
STATUSES = ("done", "diverged", "interrupted")
TAU_UNITS = ("flow", "update", "trial", "session", "checkpoint")

#: The coordinates of each learning dimension: its position in learning, and its learning time.
LEARNING = {
    "update": ("update", "tau"),
    "snapshot": ("snapshot_update", "tau_snapshot"),
    "measurement": ("measurement_update", "tau_measurement"),
}
PER_RUN = ("status", "stopped_at", "seed")
ATTRIBUTES = ("kind", "configuration", "network", "seed", "versions", "device", "created", "schema")
JSON_ATTRIBUTES = ("configuration", "network", "versions")

_FLOAT, _INTEGER, _COMPLEX, _TEXT = "a float", "a whole-number", "a complex", "a text"
_KIND_OF_DTYPE = {"f": _FLOAT, "i": _INTEGER, "u": _INTEGER, "c": _COMPLEX, "U": _TEXT}

#: Name -> (dimensions in order, kind of number). Other variables are free, as long as learning follows `run`.
VARIABLES = {
    "loss": (("run", "update"), _FLOAT),
    "grad_norm": (("run", "update"), _FLOAT),
    "W": (("run", "snapshot", "unit", "unit_pre"), _FLOAT),
    "W_in": (("run", "snapshot", "unit", "input"), _FLOAT),
    "W_out": (("run", "snapshot", "output", "unit"), _FLOAT),
    "W_a": (("run", "snapshot", "unit", "rank"), _FLOAT),
    "W_c": (("run", "snapshot", "rank"), _FLOAT),
    "W_b": (("run", "snapshot", "unit", "rank"), _FLOAT),
    "delta_W_singular_values": (("run", "measurement", "index"), _FLOAT),
    "W_eigenvalues": (("run", "measurement", "index"), _COMPLEX),
    "status": (("run",), _TEXT),
    "stopped_at": (("run",), _INTEGER),
    "seed": (("run",), _INTEGER),
    "diverged_grad_norm": (("run",), _FLOAT),
    "diverged_spectral_abscissa": (("run",), _FLOAT),
    "units": (("run",), _INTEGER),
    "network_static": (("run",), _TEXT),
    "update": (("update",), _INTEGER),
    "snapshot_update": (("snapshot",), _INTEGER),
    "measurement_update": (("measurement",), _INTEGER),
    "trial_id": (("snapshot",), _INTEGER),  # of a fit, whose path is over the trials of a recording
    "condition": (("snapshot",), _TEXT),
    "epoch": (("snapshot",), _TEXT),
    "tau": (("run", "update"), _FLOAT),
    "tau_snapshot": (("run", "snapshot"), _FLOAT),
    "tau_measurement": (("run", "measurement"), _FLOAT),
}


class RunError(ValueError):
    """A dataset or a store that is no Run, or is damaged; the message says what is wrong and how to mend it."""


def check(data: xr.Dataset) -> None:
    """Check that a dataset is a Run.

    Args:
        data: The dataset, all of its arrays in NumPy.

    Raises:
        RunError: One sentence that names everything that is missing, or else the first thing that is wrong.
    """
    if not isinstance(data, xr.Dataset):
        raise RunError(f"A Run wraps an xarray.Dataset; a {type(data).__name__} came.")
    _check_schema_version(data)
    missing = [f"the variable {name!r}" for name in _required_variables(data) if name not in data.variables]
    missing += [f"the attribute {name!r}" for name in ATTRIBUTES if name not in data.attrs]
    if not any(dim in data.dims for dim in LEARNING):
        missing.insert(0, "a learning dimension ('update', 'snapshot' or 'measurement')")
    if "run" not in data.dims:
        missing.insert(0, "the dimension 'run'")
    if missing:
        raise RunError(f"The dataset is no Run, because it lacks {_listed(missing)}; add what is missing.")
    if data.sizes["run"] == 0:
        raise RunError("The dataset is no Run, because its dimension 'run' is empty; it needs one member or more.")
    for name in data.variables:
        _check_variable(data, str(name))
    _check_learning(data)
    _check_attributes(data)


def _check_schema_version(data: xr.Dataset) -> None:
    schema = data.attrs.get("schema", SCHEMA)
    if isinstance(schema, (int, np.integer)) and schema > SCHEMA:
        raise RunError(f"The Run has schema {schema} and this tauflow reads up to {SCHEMA}; upgrade tauflow.")
    if schema != SCHEMA:
        raise RunError(f"The Run has schema {schema!r}; it must be {SCHEMA}.")


def _required_variables(data: xr.Dataset) -> list[str]:
    required = list(PER_RUN)
    for dim, coordinates in LEARNING.items():
        if dim in data.dims:
            required += coordinates
    if data.attrs.get("kind") in ("descend", "flow"):
        required += [name for name in ("loss", "update", "tau") if name not in required]
    present = [name for name in ("W_a", "W_c", "W_b") if name in data.variables]
    return required + (["W_a", "W_c", "W_b"] if present else [])


def _check_variable(data: xr.Dataset, name: str) -> None:
    variable = data.variables[name]
    if not isinstance(variable.data, np.ndarray):
        found = type(variable.data).__module__.split(".")[0]
        raise RunError(f"{name} is an array of {found}; a Run holds NumPy arrays, so pass np.asarray of it.")
    dims = tuple(str(dim) for dim in variable.dims)
    if name in VARIABLES:
        wanted, kind = VARIABLES[name]
        if dims != wanted:
            raise RunError(f"{name} has dimensions {_dims(dims)}; they must be {_dims(wanted)}, in this order.")
        if _KIND_OF_DTYPE.get(variable.dtype.kind) != kind:
            raise RunError(f"{name} has dtype {variable.dtype}; it must be {kind} dtype.")
    elif "run" in dims and dims[0] != "run":
        raise RunError(f"{name} has dimensions {_dims(dims)}; 'run' must come first.")
    learning = [dim for dim in dims if dim in LEARNING]
    if learning and name not in VARIABLES and dims[:2] != ("run", learning[0]):
        raise RunError(f"{name} has dimensions {_dims(dims)}; they must begin with {_dims(('run', learning[0]))}.")
    if variable.dtype.kind not in "biufcU":
        raise RunError(f"{name} has dtype {variable.dtype}; a Run holds numbers, true or false, and text.")


def _check_learning(data: xr.Dataset) -> None:
    units = {}
    for dim in (dim for dim in LEARNING if dim in data.dims):
        position, tau = LEARNING[dim]
        values = data[position].values
        if (np.diff(values) < (1 if dim == "update" else 0)).any() or (values < 0).any():
            raise RunError(f"{position} is {_excerpt(values)}; it must count up from 0 or more.")
        if data[tau].dtype != np.float64:
            raise RunError(f"{tau} has dtype {data[tau].dtype}; learning time must be float64.")
        units[tau] = data[tau].attrs.get("unit")
        if units[tau] not in TAU_UNITS:
            raise RunError(f"{tau} has attrs['unit'] = {units[tau]!r}; it must be one of {_names(TAU_UNITS)}.")
    if len(set(units.values())) > 1:
        raise RunError(f"The learning times have different units, {units}; one Run has one unit of learning time.")
    if "W" in data.variables and "W_a" in data.variables:
        raise RunError("The dataset has both W and its factors W_a, W_c, W_b; a Run keeps one of them.")
    unknown = sorted(set(data["status"].values.tolist()) - set(STATUSES))
    if unknown:
        raise RunError(f"status is {unknown[0]!r}; it must be one of {_names(STATUSES)}.")


def _check_attributes(data: xr.Dataset) -> None:
    if data.attrs["kind"] not in KINDS:
        raise RunError(f"attrs['kind'] is {data.attrs['kind']!r}; it must be one of {_names(KINDS)}.")
    for name in JSON_ATTRIBUTES:
        try:
            value = json.loads(data.attrs[name])
        except (TypeError, ValueError):
            value = None
        if not isinstance(value, dict):
            raise RunError(f"attrs[{name!r}] is {data.attrs[name]!r}; it must be the JSON text of an object.")
        if name == "network" and not (value.keys() == {"name", "static"} and isinstance(value["static"], dict)):
            raise RunError(
                f"attrs['network'] is {data.attrs[name]}; it must have name and static only, for example "
                '{"name": "RateRNN", "static": {"phi": "tanh"}}; what differs between members goes into the coordinate '
                "network_static."
            )


def run_attributes(
    kind: str, *, configuration: Mapping[str, Any], network: Mapping[str, Any], seed: int, device: str
) -> dict[str, Any]:
    """The attributes of a Run made now: what was asked for, and with which versions.

    Args:
        kind: Where the path comes from, one of `KINDS`.
        configuration: What was run, as plain values (numbers, text, lists, mappings).
        network: Name and static fields of the network, as `describe_network` gives them.
        seed: The seed from which all randomness came.
        device: The device in words, for example "cpu".

    Returns:
        The attributes of schema `SCHEMA`, for `xr.Dataset(..., attrs=...)`.

    Raises:
        RunError: If `kind` is unknown or the configuration holds what JSON cannot.

    Example:
        >>> attributes = run_attributes("descend", configuration={"steps": 10}, seed=0, device="cpu",
        ...                             network={"name": "RateRNN", "static": {"dt": 0.5}})
        >>> attributes["configuration"]
        '{"steps": 10}'
    """
    if kind not in KINDS:
        raise RunError(f"kind is {kind!r}; it must be one of {_names(KINDS)}.")
    return {
        "kind": kind,
        "configuration": to_json(configuration, "configuration"),
        "network": to_json(network, "network"),
        "seed": int(seed),
        "versions": to_json(versions(), "versions"),
        "device": str(device),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "schema": SCHEMA,
    }


def to_json(value: Mapping[str, Any], name: str) -> str:
    """JSON text of plain values; NumPy numbers and arrays become numbers and lists.

    Raises:
        RunError: If something in it is no plain value.
    """

    def plain(item: Any) -> Any:
        if isinstance(item, (np.generic, np.ndarray)):
            return item.tolist()
        raise RunError(f"{name} holds {item!r}; it must be made of numbers, text, lists and mappings.")

    return json.dumps(dict(value), default=plain)


_PACKAGES = ("tauflow", "jax", "jaxlib", "equinox", "optax", "diffrax", "numpy", "scipy", "xarray", "zarr")


@cache
def _versions() -> tuple[tuple[str, str], ...]:
    found = [("python", platform.python_version())]
    for package in _PACKAGES:
        try:
            found.append((package, importlib.metadata.version(package)))
        except importlib.metadata.PackageNotFoundError:
            continue
    return tuple(found)


def versions() -> dict[str, str]:
    """Versions of Python, tauflow and what its results depend on; what is not installed is left out.

    Example:
        >>> "numpy" in versions()
        True
    """
    return dict(_versions())


def _names(options: tuple[str, ...]) -> str:
    return ", ".join(repr(option) for option in options)


def _dims(dims: tuple[str, ...]) -> str:
    return f"({', '.join(dims)})"


def _listed(items: list[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def _excerpt(values: np.ndarray) -> str:
    return np.array2string(values, threshold=8, edgeitems=3)
