"""Files that are whole or absent: written beside their place, forced to the disk, then renamed into it."""

from __future__ import annotations

import io
import os
import zipfile
import zlib
from pathlib import Path

import numpy as np

from tauflow.run.schema import RunError


def as_path(path: str | os.PathLike[str]) -> Path:
    """A path as an object.

    Raises:
        RunError: If it is no path.

    Example:
        >>> as_path(None)
        Traceback (most recent call last):
        tauflow.run.schema.RunError: The path is None; it must be text or a pathlib.Path, for example 'run.zarr'.
    """
    try:
        return Path(path)
    except TypeError:
        raise RunError(f"The path is {path!r}; it must be text or a pathlib.Path, for example 'run.zarr'.") from None


def temporary(path: Path) -> Path:
    """Where `path` is written before it is whole: run.zarr is written as run.tmp.zarr.

    Example:
        >>> temporary(Path("parts/100.zarr")).name
        '100.tmp.zarr'
    """
    return path.with_name(f"{path.stem}.tmp{path.suffix}")


def sync(path: Path) -> None:
    """Force a file, or the list of names in a folder, to the disk."""
    if path.is_dir() and os.name != "posix":
        return  # elsewhere a folder cannot be opened, and a rename needs no sync
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_through(path: Path, content: bytes) -> None:
    """Write a file and force it to the disk. It may be partly there if the process dies meanwhile."""
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def cannot_write(path: Path, error: OSError) -> RunError:
    """The error that says why `path` could not be written."""
    reason = error.strerror or type(error).__name__
    return RunError(f"{path} cannot be written ({reason}); choose a folder that can be written and has space.")


def write_atomic_bytes(path: str | Path, content: bytes) -> Path:
    """Write a file in one step, over an older one if any: after a crash it is the old file or the new one.

    Args:
        path: The file. Missing folders above it are made.
        content: All of its bytes.

    Returns:
        The path.

    Raises:
        RunError: If it cannot be written; an older file is then as it was.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_atomic_bytes(Path(folder) / "notes.txt", b"whole").read_bytes()
        b'whole'
    """
    path = as_path(path)
    beside = temporary(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            write_through(beside, content)
            os.replace(beside, path)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise
        sync(path.parent)
    except OSError as error:
        raise cannot_write(path, error) from error
    return path


#: An .npz file of ours ends with its own CRC-32, as the comment of the zip file: NumPy opens it all the same.
_MARK = b"tauflow crc32 "
_DIGITS = 8


def write_atomic_npz(path: str | Path, /, **arrays: np.ndarray) -> Path:
    """Write named arrays as one .npz file in one step, over an older one if there is one. No pickle.

    Args:
        path: The file.
        **arrays: What `np.asarray` takes, except objects; any shape.

    Returns:
        The path.

    Raises:
        RunError: If an array is made of objects, or the file cannot be written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = write_atomic_npz(Path(folder) / "state.npz", next_update=np.int64(40))
        ...     print(read_npz(path)["next_update"])
        40
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        archive.comment = _MARK + b"0" * _DIGITS
        for name, value in arrays.items():
            array = np.asarray(value)
            if array.dtype.kind not in "biufcUSmM":
                raise RunError(f"{name} has dtype {array.dtype}; an .npz file here holds numbers and text only.")
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)
    content = buffer.getvalue()[:-_DIGITS]
    return write_atomic_bytes(path, content + _hexadecimal(content))


def read_npz(path: str | Path) -> dict[str, np.ndarray]:
    """Read all arrays of an .npz file that `write_atomic_npz` wrote, after checking that it is whole.

    Raises:
        RunError: If the file is missing, damaged, or from elsewhere. Nothing of such a file is opened.
    """
    path = as_path(path)
    if not path.is_file():
        raise RunError(f"There is no file {path}; check the path.")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise RunError(f"{path} cannot be read ({error.strerror}); check its permissions.") from error
    body, digits = content[:-_DIGITS], content[-_DIGITS:]
    if not body.endswith(_MARK) or digits != _hexadecimal(body):
        raise RunError(f"{path} is damaged or was not written by tauflow; restore it from a copy.")
    with np.load(io.BytesIO(content), allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def _hexadecimal(content: bytes) -> bytes:
    return b"%08x" % zlib.crc32(content)
