"""From what the groups of an ensemble recorded to one Run."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
import xarray as xr

from tauflow.learning.member import Makers, Point, State
from tauflow.run import Run, describe_network, run_attributes


class Member(NamedTuple):
    """One network of an ensemble: its place, grid point, seed, random key and weights before learning."""

    position: int
    point: Point
    seed: int
    key: jax.Array
    network: Any


class Group(NamedTuple):
    """Members that share one compiled program; `data` holds their records once they have run.

    Attributes:
        members: The members.
        points: The traced numbers of each member's grid point.
        makers: How a member gets objective and optimizer from these numbers.
        optimizers: The optimizer of each member, made of Python values.
        objectives: The objective of each member, made of Python values.
        rates: The learning rates of each member where it learns by plain gradient descent, else None.
        data: The records, with members along `run`; None before the run.
    """

    members: Sequence[Member]
    points: Sequence[Point]
    makers: Makers
    optimizers: Sequence[optax.GradientTransformation]
    objectives: Sequence[Any]
    rates: Sequence[np.ndarray | None] = ()
    data: xr.Dataset | None = None


def finished(group: Group, data: xr.Dataset, state: State, abscissae: Sequence[float]) -> Group:
    """The group with its records, labelled: learning time, status, where and how a member stopped."""
    rates = group.rates
    steps = data.sizes.get("update", 0)
    flow = all(rate is not None for rate in rates)
    per_update = [np.ones(steps) if not flow or rate is None else rate for rate in rates]
    clock = np.concatenate([np.zeros((len(rates), 1)), np.cumsum(per_update, axis=1)], axis=1)  # (run, steps + 1)
    data = with_learning_time(data, clock, "flow" if flow else "update")
    stopped = ~np.asarray(state.alive)
    at = np.where(stopped, np.asarray(state.update), -1).astype(np.int64)
    norms = data["grad_norm"].values if "grad_norm" in data else np.zeros((len(rates), 0))
    norm_at = [float(norms[i, k]) if stopped[i] else np.nan for i, k in enumerate(at)]
    coordinates = {
        "seed": ("run", np.array([member.seed for member in group.members], np.int64)),
        **{
            name: ("run", np.array([member.point[name] for member in group.members])) for name in group.members[0].point
        },
    }
    labels = {
        "status": ("run", np.where(stopped, "diverged", "done")),
        "stopped_at": ("run", at),
        "diverged_grad_norm": ("run", np.array(norm_at, np.float64)),
        "diverged_spectral_abscissa": ("run", np.where(stopped, np.array(abscissae, np.float64), np.nan)),
    }
    return group._replace(data=data.assign(labels).assign_coords(coordinates))


def with_learning_time(data: xr.Dataset, clock: np.ndarray, unit: str) -> xr.Dataset:
    """Records with the learning time of each axis, looked up in `clock` (run, position) and given in `unit`."""
    if "loss" not in data:
        nothing = np.zeros((clock.shape[0], 0), np.float32)
        data = data.assign(loss=(("run", "update"), nothing), grad_norm=(("run", "update"), nothing))
        data = data.assign_coords(update=np.zeros(0, np.int64))
    axes = {"update": ("update", "tau")}
    axes |= {dim: (f"{dim}_update", f"tau_{dim}") for dim in ("snapshot", "measurement") if dim in data.dims}
    for dim, (position, tau) in axes.items():
        at = data[position].values.astype(np.int64)
        data = data.assign_coords(
            {position: (dim, at), tau: (("run", dim), clock[:, at].astype(np.float64), {"unit": unit})}
        )
    return data


def attributes_of(groups: Sequence[Group], *, details: Mapping[str, Any], extra: Mapping[str, Any], device: str) -> Any:
    """The attributes of the Run, and the settings in which members differ as coordinates along `run`.

    It needs no records, so it is asked for before learning: what cannot be stored is then found out in time.

    Raises:
        ValueError: If the members cannot share one Run, or `extra` holds what cannot be stored or is taken.
    """
    taken = sorted({*details, "objective", "task"} & set(extra))
    if taken:
        raise ValueError(f"configuration has {taken[0]!r}, which the Run fills in itself; give it another name.")
    seed = extra.get("seed", 0)
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)):
        raise ValueError(f"configuration has seed {seed!r}; it must be a whole number, or be left out.")
    pairs = [pair for group in groups for pair in zip(group.members, group.objectives, strict=True)]
    pairs.sort(key=lambda pair: pair[0].position)
    networks = [describe_network(member.network) for member, _ in pairs]
    objectives = [describe_objective(objective) for _, objective in pairs]
    if any(network["name"] != networks[0]["name"] for network in networks):
        raise ValueError("the members are of different network classes; run them as one ensemble per class.")
    if len({rate is None for group in groups for rate in group.rates}) > 1:
        raise ValueError(
            "some members learn by plain gradient descent and others do not, so their learning times have "
            "different units; run them as two ensembles."
        )
    differing = {"network_static": [network["static"] for network in networks], "objective_settings": objectives}
    coordinates = {
        name: ("run", [json.dumps(value) for value in values])
        for name, values in differing.items()
        if any(value != values[0] for value in values)
    }
    attributes = run_attributes(
        "descend",
        configuration={**objectives[0], **details, **extra},
        network=networks[0],
        seed=int(seed),
        device=device,
    )
    return attributes, coordinates


def to_run(groups: Sequence[Group], attributes: Mapping[str, Any], coordinates: Mapping[str, Any]) -> Run:
    """One Run of all members, in their order; smaller networks are padded with NaN."""
    positions = [member.position for group in groups for member in group.members]
    parts = _padded([group.data for group in groups if group.data is not None])
    data = xr.concat(parts, dim="run", coords="minimal", data_vars="minimal", compat="override", join="exact")
    data = data.isel(run=np.argsort(positions, kind="stable")).assign_coords(run=np.arange(len(positions)))
    return Run(data.assign_coords(coordinates).assign_attrs(attributes))


def label_of(value: Any) -> Any:
    """A grid value as a label along `run`: numbers and text as they are, anything else by its name."""
    if isinstance(value, (bool, int, float, str, np.generic)):
        return value
    return str(getattr(value, "name", None) or getattr(value, "__name__", None) or value)


def _padded(parts: Sequence[xr.Dataset]) -> list[xr.Dataset]:
    """Datasets with every network dimension brought to the largest size by NaN at its end."""
    fixed = ("run", "update", "snapshot", "measurement")
    sizes: dict[Any, int] = {}
    for part in parts:
        for dim, size in part.sizes.items():
            sizes[dim] = max(size, sizes.get(dim, 0))
    result = []
    for part in parts:
        widths = {d: (0, sizes[d] - n) for d, n in part.sizes.items() if d not in fixed and n < sizes[d]}
        units = part.sizes.get("unit")
        part = part.pad(widths, constant_values=np.nan) if widths else part
        result.append(part if units is None else part.assign_coords(units=("run", np.full(part.sizes["run"], units))))
    return result


def describe_objective(objective: Any) -> dict[str, Any]:
    """Names and plain fields of an objective and of its task, as a Run's configuration keeps them.

    Example:
        >>> describe_objective(print)
        {'objective': {'name': 'print'}, 'task': None}
    """
    task = getattr(objective, "task", None)
    described = _described(objective)
    described.pop("task", None)
    return {"objective": described, "task": None if task is None else _described(task)}


def _described(thing: Any) -> dict[str, Any]:
    name = getattr(thing, "name", None) or getattr(thing, "__name__", None) or type(thing).__name__
    result: dict[str, Any] = {"name": str(name)}
    if dataclasses.is_dataclass(thing):
        for field in dataclasses.fields(thing):
            value = getattr(thing, field.name)
            if value is None or _is_plain(value):
                result[field.name] = value
            elif isinstance(value, (np.ndarray, jax.Array)) and np.ndim(value) == 0:
                result[field.name] = float(value)
    return result


def _is_plain(value: Any) -> bool:
    """Whether a value is a number, text, or a sequence of such, nested or not."""
    if isinstance(value, (tuple, list)):
        return all(_is_plain(item) for item in value)
    return isinstance(value, (bool, int, float, str))
