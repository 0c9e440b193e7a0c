"""Run: the path of networks through learning, wherever it came from."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from tauflow.low_rank import LowRank
from tauflow.run import rebuild
from tauflow.run.schema import LEARNING, RunError, check
from tauflow.run.storage import read_store, write_atomic_store


@dataclass(frozen=True, eq=False, repr=False)
class Run:
    """The path of one network or several through learning: one labelled dataset, checked when made.

    Attributes:
        data: The dataset. `tauflow.run.schema` says what is in it; members lie along `run`, learning along
            `update` (loss), `measurement` (spectra) and `snapshot` (weights).

    Raises:
        RunError: If the dataset is no Run; the message names what is missing or wrong.
    """

    data: xr.Dataset

    def __post_init__(self) -> None:
        check(self.data)

    @property
    def n_runs(self) -> int:
        """Number of members."""
        return self.data.sizes["run"]

    @property
    def configuration(self) -> dict[str, Any]:
        """What was run, as plain values."""
        return json.loads(self.data.attrs["configuration"])

    def tau(self, which: str = "update") -> xr.DataArray:
        """Learning time of every member, shape (run, `which`), in the unit that its attribute `unit` names.

        Args:
            which: "update", "snapshot" or "measurement".

        Raises:
            ValueError: If `which` is none of these, or the Run has no such dimension.
        """
        if which not in LEARNING:
            raise ValueError(f"which is {which!r}; it must be one of {', '.join(map(repr, LEARNING))}.")
        if which not in self.data.dims:
            present = ", ".join(repr(dim) for dim in LEARNING if dim in self.data.dims)
            raise RunError(f"The Run has no dimension {which!r}; it has {present}.")
        return self.data[LEARNING[which][1]]

    @property
    def tau_unit(self) -> str:
        """Unit of learning time: "flow", "update", "trial", "session" or "checkpoint"."""
        return next(self.data[tau].attrs["unit"] for dim, (_, tau) in LEARNING.items() if dim in self.data.dims)

    def _weight_names(self) -> list[str]:
        names = [str(name) for name, array in self.data.data_vars.items() if array.dims[:2] == ("run", "snapshot")]
        if "W_a" in names:
            names = ["W", *(name for name in names if name not in ("W_a", "W_c", "W_b"))]
        return names

    def weights(self, name: str = "W", run: int = 0, snapshot: int = -1) -> np.ndarray | LowRank:
        """Weights of one member at one snapshot.

        Args:
            name: Field of the network: "W" (n, n), "W_in" (n, n_in), "W_out" (n_out, n), or another that was kept.
            run: Position of the member, from 0; negative counts from the end.
            snapshot: Position of the snapshot; -1 is the last.

        Returns:
            The array in the dtype that was kept, or `LowRank(a, c, b)` of W where the network keeps W so.

        Raises:
            ValueError: If there are no such weights, member or snapshot.
        """
        names = self._weight_names()
        if name not in names:
            raise ValueError(f"The Run keeps no weights {name!r}; it keeps {', '.join(map(repr, names)) or 'none'}.")
        for dim, position in (("run", run), ("snapshot", snapshot)):
            size = self.data.sizes[dim]
            if isinstance(position, bool) or not isinstance(position, (int, np.integer)):
                raise ValueError(f"{dim} is {position!r}; it must be a whole number, from {-size} to {size - 1}.")
            if not -size <= position < size:
                raise ValueError(f"{dim} is {position}; the Run has {size}, so it lies from {-size} to {size - 1}.")
        if name == "W" and "W_a" in self.data:
            return LowRank(*(self._kept(part, run, snapshot) for part in ("W_a", "W_c", "W_b")))
        return self._kept(name, run, snapshot)

    def _kept(self, name: str, run: int, snapshot: int) -> np.ndarray:
        """One array without the NaN that pads a member with fewer units."""
        array = self.data[name]
        size = int(self.data["units"].values[run]) if "units" in self.data else None
        own = tuple(slice(size if dim in ("unit", "unit_pre") else None) for dim in array.dims[2:])
        return array.values[(run, snapshot, *own)]

    def network(self, run: int = 0, snapshot: int = -1, like: Any = None) -> Any:
        """The network of one member at one snapshot.

        Arrays keep the dtype of the Run; for float64 call it inside `tauflow.precision.float64()`.

        Args:
            run: Position of the member, from 0; negative counts from the end.
            snapshot: Position of the snapshot; -1 is the last.
            like: A module of yours with the same fields, to be filled; its own dtypes and other leaves stay.
                Without it, one of tauflow's networks is rebuilt by its name.

        Returns:
            The network.

        Raises:
            ValueError: If the network cannot be rebuilt, shapes differ, or the member had stopped by then.
        """
        names = self._weight_names()
        if not names:
            raise RunError("The Run keeps no weights, so no network can be made of it.")
        weights = {name: self.weights(name, run, snapshot) for name in names}
        for name, value in weights.items():
            parts = value if isinstance(value, LowRank) else (value,)
            if any(np.isnan(part).all() and part.size for part in parts):
                status, stop = self.data["status"].values[run], self.data["stopped_at"].values[run]
                raise RunError(
                    f"Member {run} has no {name} at snapshot {snapshot} (it is {status}, stopped at update {stop}); "
                    "choose an earlier one, for example snapshot=0."
                )
        if like is not None:
            return rebuild.fill(like, weights)
        return rebuild.rebuild(json.loads(self.data.attrs["network"])["name"], self.static(run), weights)

    def static(self, run: int = 0) -> dict[str, Any]:
        """Static fields of one member's network, such as its nonlinearity and step.

        Args:
            run: Position of the member.
        """
        if "network_static" in self.data:
            return json.loads(str(self.data["network_static"].values[run]))
        return json.loads(self.data.attrs["network"])["static"]

    def select(self, **where: Any) -> Run:
        """The members at which labels along `run` have given values, for example `run.select(gain=0.9)`.

        Args:
            **where: Variable along `run` -> value; floats match to 1e-9 of their size.

        Raises:
            ValueError: If there is no such label, or no member matches.
        """
        keep = np.ones(self.n_runs, dtype=bool)
        for name, value in where.items():
            labels = [str(each) for each, variable in self.data.variables.items() if variable.dims == ("run",)]
            if name not in labels:
                raise ValueError(f"The Run has no label {name!r} along 'run'; it has {', '.join(map(repr, labels))}.")
            column = self.data[name].values
            match = np.isclose(column, value, rtol=1e-9, atol=1e-12) if column.dtype.kind == "f" else column == value
            if not np.any(match):
                found = ", ".join(map(str, np.unique(column)[:20].tolist()))
                raise ValueError(f"No member has {name} = {value!r}; there are {found}.")
            keep &= match
        if not keep.any():
            raise ValueError(f"No member has all of {where}.")
        return Run(self.data.isel(run=np.flatnonzero(keep)))

    def save(self, path: str | Path) -> Path:
        """Save as a Zarr store (format 3), in one step: after a crash the whole store is there, or nothing.

        Args:
            path: The store, for example "run.zarr", which must not exist yet.

        Returns:
            The path.

        Raises:
            RunError: If the path exists or cannot be written.
        """
        return write_atomic_store(self.data, path)

    def __repr__(self) -> str:
        sizes, attributes = self.data.sizes, self.data.attrs
        statuses, counts = np.unique(self.data["status"].values, return_counts=True)
        members = ", ".join(f"{count} {status}" for status, count in zip(statuses, counts, strict=True))
        learning = ", ".join(f"{sizes[dim]} {dim}s" for dim in LEARNING if dim in sizes)
        units = f" of {sizes['unit']} units" if "unit" in sizes else ""
        network = json.loads(attributes["network"])["name"]
        last = max(np.nanmax(self.data[tau].values, initial=0.0) for dim, (_, tau) in LEARNING.items() if dim in sizes)
        return (
            f"<Run {attributes['kind']}: {self.n_runs} x {network}{units} ({members}); {learning}; "
            f"tau up to {last:g} ({self.tau_unit}); {', '.join(map(str, self.data.data_vars))}>"
        )


def load(path: str | Path) -> Run:
    """Load a saved Run, after checking that the store is whole.

    Args:
        path: The store that `Run.save` wrote, for example "run.zarr".

    Returns:
        The Run, in NumPy.

    Raises:
        RunError: If there is nothing, the store is from elsewhere, damaged or newer, or holds no Run; one sentence
            that names what is wrong.
    """
    data = read_store(path)
    try:
        return Run(data)
    except RunError as error:
        raise RunError(f"{path}: {error}") from error
