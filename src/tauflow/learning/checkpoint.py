"""Committing a run while it learns, and going on after an interruption.

`DIR/parts/<first update>.zarr` holds what was recorded from that update on; `DIR/state.npz` holds the members' states
and the next update, is replaced last, and is the commit: parts that it does not know of are ignored when loading and
deleted when going on. A process killed at any moment leaves the last commit whole.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import xarray as xr

from tauflow.run import RunError, read_npz, read_store, versions, write_atomic_npz, write_atomic_store

FORMAT = 1


def fingerprint(*parts: Any) -> str:
    """A short checksum of what a run starts from: arrays by their bytes, everything else by its `repr`."""
    digest = hashlib.sha256()
    for part in parts:
        for leaf in jax.tree.leaves(part):
            if isinstance(leaf, (np.ndarray, jax.Array)):
                array = np.asarray(leaf)
                digest.update(f"{array.shape}{array.dtype}".encode() + array.tobytes())
            else:
                digest.update(repr(leaf).encode())
    return digest.hexdigest()[:32]


class Checkpoint:
    """The folder of one run; a `folder` of None keeps everything in memory.

    Args:
        folder: Where `parts/` and `state.npz` go, or None.
        start: `fingerprint` of what the run starts from; going on from another start is refused.
        device: Kind and number of the devices, in words.
        every: Seconds between commits, at least.
    """

    def __init__(self, folder: Path | None, *, start: str, device: str, every: float):
        self.folder, self._start, self._device, self._every = folder, start, device, every
        self._parts: list[xr.Dataset] = []
        self._firsts: list[int] = []
        self._last = time.monotonic()

    def resume(self) -> tuple[int, list[np.ndarray]] | None:
        """The next update and the leaves of the states at the last commit; None where nothing was committed.

        Raises:
            RunError: If the state is damaged, newer, or of a run that started otherwise.
        """
        if self.folder is None or not (self.folder / "state.npz").exists():
            if self.folder is not None:
                shutil.rmtree(self.folder / "parts", ignore_errors=True)
            return None
        path = self.folder / "state.npz"
        arrays = read_npz(path)
        header = self._header(path, arrays)
        if header["start"] != self._start:
            raise RunError(
                f"{path} belongs to a run with other initial weights, keys, settings or steps; "
                "resume with the same arguments, or choose another folder."
            )
        now = {"versions": versions(), "device": self._device}
        for name, value in now.items():
            if header[name] != value:
                warnings.warn(
                    f"{path} was written with {name} {header[name]} and goes on with {value}; "
                    "the result may differ in its last digits from one that was never interrupted.",
                    stacklevel=2,
                )
        committed = [self._part(first) for first in header["parts"]]
        self._parts = [read_store(part) for part in committed]
        for stray in (self.folder / "parts").glob("*"):
            if stray not in committed:
                shutil.rmtree(stray)
        leaves = [arrays[f"leaf_{i}"] for i in range(header["leaves"])]
        self._firsts = list(header["parts"])
        return int(header["next_update"]), leaves

    def _header(self, path: Path, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
        try:
            header = json.loads(str(arrays["header"]))
            newer = header["format"] > FORMAT
        except (KeyError, ValueError, TypeError) as error:
            raise RunError(f"{path} is no checkpoint of tauflow; choose the folder of an interrupted run.") from error
        if newer:
            raise RunError(f"{path} has format {header['format']}, this tauflow reads up to {FORMAT}; upgrade tauflow.")
        return header

    def _part(self, first: int) -> Path:
        assert self.folder is not None
        return self.folder / "parts" / f"{first}.zarr"

    def due(self) -> bool:
        """Whether it is time for the next commit."""
        return self.folder is not None and time.monotonic() - self._last >= self._every

    def commit(self, first: int, next_update: int, part: xr.Dataset, leaves: Sequence[np.ndarray]) -> None:
        """Keep what was recorded from update `first` on, and the states with which update `next_update` begins."""
        self._parts.append(part)
        if self.folder is None:
            return
        self._firsts.append(first)
        target = self._part(first)
        shutil.rmtree(target, ignore_errors=True)  # left by a process killed before its commit
        write_atomic_store(part, target)
        header = {
            "format": FORMAT,
            "start": self._start,
            "versions": versions(),
            "device": self._device,
            "next_update": next_update,
            "parts": self._firsts,
            "leaves": len(leaves),
        }
        named = {f"leaf_{i}": leaf for i, leaf in enumerate(leaves)}
        write_atomic_npz(self.folder / "state.npz", header=np.array(json.dumps(header)), **named)
        self._last = time.monotonic()

    def parts(self) -> list[xr.Dataset]:
        """All that was committed, in order."""
        return self._parts

    @staticmethod
    def clear(folder: Path) -> None:
        """Delete parts and state, once the whole run is saved."""
        (folder / "state.npz").unlink(missing_ok=True)
        shutil.rmtree(folder / "parts", ignore_errors=True)
        if folder.name.startswith("group-"):
            shutil.rmtree(folder, ignore_errors=True)
