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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
import xarray as xr

from tauflow.run import (
    Run,
    RunError,
    load,
    read_npz,
    read_store,
    versions,
    write_atomic_npz,
    write_atomic_store,
)

try:
    import fcntl
except ImportError:  # not on this system: folders are not held
    fcntl = None  # type: ignore[assignment]

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


def check_same_run(path: Path, header: Mapping[str, Any], start: str, program: str) -> None:
    """Refuse to go on with a run that began or learns otherwise than the arguments say.

    Raises:
        RunError: If it does. Other versions may word the same program otherwise, so that only the start is held then.
    """
    if header.get("start") != start:
        raise RunError(
            f"{path} belongs to a run with other initial weights, keys, settings or steps; "
            "resume with the same arguments, or choose another folder."
        )
    if header.get("versions") == versions() and header.get("program") != program:
        raise RunError(
            f"{path} belongs to a run with another objective, optimizer or projection; "
            "resume with the same arguments, or choose another folder."
        )


def held_in(folder: Path) -> list[str]:
    """Names of what a folder holds of a run, finished or not."""
    return [name for name in ("run.zarr", "state.npz", "parts", "group-0") if (folder / name).exists()]


def already_saved(folder: Path | None, resume: bool, start: str, program: str) -> Run | None:
    """The finished run in `folder` when going on with it.

    Raises:
        RunError: If the folder holds another run, or one and `resume` is off.
    """
    if folder is None:
        return None
    held_there = held_in(folder)
    if held_there and not resume:
        raise RunError(
            f"{folder} already holds {held_there[0]} of a run; pass resume=True to go on with it, or another out=."
        )
    path = folder / "run.zarr"
    if not path.exists():
        return None
    run = load(path)
    check_same_run(path, {**run.configuration, "versions": json.loads(run.data.attrs["versions"])}, start, program)
    return run


@contextmanager
def held(folder: Path | None) -> Iterator[None]:
    """Hold a folder for this process while it writes there.

    Raises:
        RunError: If another process holds it, or it cannot be written.
    """
    if folder is None or fcntl is None:
        yield
        return
    path = folder / "lock"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = open(path, "w")
    except OSError as error:
        raise RunError(
            f"{folder} cannot be written ({error.strerror}); choose a folder that can be written."
        ) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunError(f"another process is working in {folder}; wait for it, or choose another folder.") from None
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


class Checkpoint:
    """The folder of one run; a `folder` of None keeps everything in memory.

    Args:
        folder: Where `parts/` and `state.npz` go, or None.
        start: `fingerprint` of what the run starts from; going on from another start is refused.
        program: `fingerprint` of what an update does; another one is refused as long as the versions are the same.
        device: Kind and number of the devices, in words.
        every: Seconds between commits, at least.
    """

    def __init__(self, folder: Path | None, *, start: str, program: str, device: str, every: float):
        self.folder, self._start, self._program = folder, start, program
        self._device, self._every = device, every
        self._parts: list[xr.Dataset] = []
        self._firsts: list[int] = []
        self._last = float("-inf")  # the first commit comes at once

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
        check_same_run(path, header, self._start, self._program)
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
        assert first not in self._firsts, "a committed part is never written again"
        self._parts.append(part)
        self._firsts.append(first)
        if self.folder is None:
            return
        target = self._part(first)
        shutil.rmtree(target, ignore_errors=True)  # left by a process killed before its commit
        write_atomic_store(part, target)
        header = {
            "format": FORMAT,
            "start": self._start,
            "program": self._program,
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
