"""Datasets as Zarr stores that are whole or absent, and that show damage.

Zarr reads a missing chunk as its fill value, in silence. So the attributes of a store, written with the rest before
the one rename, list every other file with its size and CRC-32, and `read_store` compares before it reads.
Text becomes whole-number codes with the labels in an attribute, because Zarr format 3 has no settled type for text.
"""

from __future__ import annotations

import json
import os
import shutil
import zlib
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from zarr.storage import LocalStore, MemoryStore

from tauflow.run.files import as_path, cannot_write, sync, temporary, write_through
from tauflow.run.schema import RunError

FORMAT = 1
_MANIFEST = "tauflow_store"
_LABELS = "tauflow_labels"
_ROOT = "zarr.json"
_CHUNK_BYTES = 2**26
_FLAT = {"name": "default", "separator": "."}  # c.0.1 and not c/0/1: fewer folders to force to the disk


def write_atomic_store(dataset: xr.Dataset, path: str | Path) -> Path:
    """Write a dataset as a Zarr store (format 3) in one step: after a crash it is whole or absent.

    Args:
        dataset: Numbers, true or false, and text; attributes that JSON can hold. It is copied once in memory.
        path: The store, a folder that does not exist yet. Missing folders above it are made.

    Returns:
        The path.

    Raises:
        RunError: If the path exists, cannot be written, or the dataset holds what a store cannot.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     part = xr.Dataset({"loss": ("update", np.ones(3))})
        ...     path = write_atomic_store(part, Path(folder) / "0.zarr")
        ...     print(read_store(path).loss.values)
        [1. 1. 1.]
    """
    path = as_path(path)
    if os.path.lexists(path):
        raise RunError(f"{path} exists and is never overwritten; choose another path or move it away.")
    files = _as_files(dataset)
    beside = temporary(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            _remove(beside)
            _write_files(files, beside)
            os.rename(beside, path)
        except BaseException:
            _remove(beside)
            raise
        sync(path.parent)
    except OSError as error:
        raise cannot_write(path, error) from error
    return path


def replace_store(dataset: xr.Dataset, path: str | Path) -> Path:
    """Write a dataset as a Zarr store over an older one; after a crash at any moment one of both is whole.

    measures.zarr is written as measures.new.zarr, the older store renamed to measures.old.zarr, the new one renamed
    into its place, and only then the older one removed. What a crash left of these is cleared by the next call.

    Args:
        dataset: As for `write_atomic_store`.
        path: The store.

    Returns:
        The path.

    Raises:
        RunError: If it cannot be written, or the dataset holds what a store cannot; the older store is then there.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for loss in (1.0, 2.0):
        ...         path = replace_store(xr.Dataset({"loss": loss}), Path(folder) / "measures.zarr")
        ...     print(float(read_store(path).loss), len(list(Path(folder).iterdir())))
        2.0 1
    """
    path = as_path(path)
    new, old = (path.with_name(f"{path.stem}.{age}{path.suffix}") for age in ("new", "old"))
    try:
        _remove(new)
        write_atomic_store(dataset, new)
        if os.path.lexists(path):
            _remove(old)
            os.rename(path, old)
        os.rename(new, path)
        sync(path.parent)
        _remove(old)
    except OSError as error:
        if os.path.lexists(old) and not os.path.lexists(path):
            os.rename(old, path)
        raise cannot_write(path, error) from error
    return path


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif os.path.lexists(path):
        path.unlink()


def _as_files(dataset: xr.Dataset) -> dict[str, bytes]:
    """All files of the store in memory, name -> bytes, the manifest among the attributes of the root."""
    store: dict[str, Any] = {}
    encoded = _encode_labels(dataset)
    encoding = {
        name: {"compressors": None, "_FillValue": None, "chunks": _chunks(variable), "chunk_key_encoding": _FLAT}
        for name, variable in encoded.variables.items()
    }
    try:
        # Every chunk is written, also one that equals the fill value, so that what is absent was lost.
        encoded.to_zarr(
            MemoryStore(store), zarr_format=3, consolidated=False, write_empty_chunks=True, encoding=encoding
        )
    except (ValueError, TypeError, NotImplementedError) as error:
        raise RunError(f"The dataset cannot be stored: {error}") from error
    files = {name: buffer.to_bytes() for name, buffer in store.items()}
    document = json.loads(files[_ROOT])
    manifest = {name: [len(content), zlib.crc32(content)] for name, content in files.items() if name != _ROOT}
    document["attributes"][_MANIFEST] = {"format": FORMAT, "files": manifest}
    document["attributes"][_MANIFEST]["crc32"] = _checksum(document)
    files[_ROOT] = json.dumps(document).encode()
    return files


def _chunks(variable: xr.Variable) -> tuple[int, ...]:
    """One chunk if it is below 64 MiB, else as few leading axes cut to 1 as make it so: few files."""
    chunks = [max(size, 1) for size in variable.shape]
    for axis in range(len(chunks) - 1):
        if variable.dtype.itemsize * int(np.prod(chunks, dtype=np.int64)) <= _CHUNK_BYTES:
            break
        chunks[axis] = 1
    return tuple(chunks)


def _checksum(document: dict[str, Any]) -> int:
    """CRC-32 of the root document without its own checksum."""
    attributes = document["attributes"]
    manifest = {key: value for key, value in attributes[_MANIFEST].items() if key != "crc32"}
    bare = {**document, "attributes": {**attributes, _MANIFEST: manifest}}
    return zlib.crc32(json.dumps(bare, sort_keys=True).encode())


def _write_files(files: dict[str, bytes], folder: Path) -> None:
    folders = {folder}
    for name in sorted(files, key=lambda name: name == _ROOT):  # the root last: without it nothing opens
        content = files[name]
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        folders.update(parent for parent in file.parents if parent.is_relative_to(folder))
        write_through(file, content)
    for each in folders:
        sync(each)


def _encode_labels(dataset: xr.Dataset) -> xr.Dataset:
    """The dataset with text as codes, and without the storage settings of wherever it was read from."""
    encoded = dataset.drop_encoding()
    for name, variable in dataset.variables.items():
        if not isinstance(name, str) or not name or "/" in name or name.startswith((".", "__")):
            raise RunError(f"A variable is named {name!r}; a name is text without '/' and without '.' in front.")
        kind = variable.dtype.kind
        if kind in "OT" and all(isinstance(item, str) for item in variable.values.flat):
            kind = "U"
        if kind not in "biufcU":
            raise RunError(f"{name} has dtype {variable.dtype}; a store holds numbers, true or false, and text.")
        if kind == "U":
            labels, codes = np.unique(variable.values.astype(str), return_inverse=True)
            attributes = {**variable.attrs, _LABELS: labels.tolist()}
            codes = codes.reshape(variable.shape).astype(np.int32)
            encoded = _replace(encoded, name, xr.Variable(variable.dims, codes, attributes))
    return encoded


def _decode_labels(encoded: xr.Dataset) -> xr.Dataset:
    decoded = encoded
    for name, variable in encoded.variables.items():
        if _LABELS in variable.attrs:
            attributes = dict(variable.attrs)
            labels = np.asarray(attributes.pop(_LABELS), dtype=str)
            text = labels[variable.values] if labels.size else np.zeros(variable.shape, dtype=str)
            decoded = _replace(decoded, name, xr.Variable(variable.dims, text, attributes))
    return decoded


def _replace(dataset: xr.Dataset, name: Hashable, variable: xr.Variable) -> xr.Dataset:
    return (dataset.assign_coords if name in dataset.coords else dataset.assign)({name: variable})


def read_store(path: str | Path) -> xr.Dataset:
    """Read a store that `write_atomic_store` wrote into memory, after checking that all of it is there.

    Args:
        path: The store.

    Returns:
        The dataset as it was written, in NumPy.

    Raises:
        RunError: If there is no such folder, it is no Zarr store or one from elsewhere, or a file of it is
            missing, truncated or changed; the message names the file.
    """
    path = as_path(path)
    document = _read_root(path)
    _verify(path, document)
    try:
        store = LocalStore(path, read_only=True)
        with xr.open_zarr(
            store, consolidated=False, zarr_format=3, chunks=None, mask_and_scale=False, decode_times=False
        ) as opened:
            dataset = opened.load()
    except Exception as error:  # whatever Zarr finds wrong, the user sees one sentence
        raise RunError(f"{path} cannot be read ({error}); restore it from a copy.") from error
    del dataset.attrs[_MANIFEST]
    return _decode_labels(dataset.drop_encoding())


def _read_root(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise RunError(f"There is nothing at {path}; check the path.")
    if not path.is_dir():
        raise RunError(f"{path} is a file; a saved Run is a folder, for example run.zarr.")
    foreign = "pass a folder that tauflow saved, for example run.zarr"
    try:
        document = json.loads((path / _ROOT).read_bytes())
        manifest = document["attributes"].get(_MANIFEST)
    except FileNotFoundError:
        raise RunError(
            f"{path} has no {_ROOT}: it is no Zarr store of format 3, or it lost that file; {foreign}."
        ) from None
    except OSError as error:
        raise RunError(f"{path} cannot be read ({error.strerror}); check its permissions.") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(f"{path} is damaged: {_ROOT} is truncated or changed; restore it from a copy.") from error
    if manifest is None:
        raise RunError(f"{path} is a Zarr store, but not one that tauflow saved; {foreign}.")
    if not isinstance(manifest, dict) or not isinstance(manifest.get("files"), dict):
        raise RunError(f"{path} is damaged: its list of files in {_ROOT} is unreadable; restore it from a copy.")
    if isinstance(manifest.get("format"), int) and manifest["format"] > FORMAT:
        raise RunError(
            f"{path} has storage format {manifest['format']} and this tauflow reads up to {FORMAT}; upgrade tauflow."
        )
    return document


def _verify(path: Path, document: dict[str, Any]) -> None:
    manifest = document["attributes"][_MANIFEST]
    if manifest.get("crc32") != _checksum(document):
        raise RunError(f"{path} is damaged: {_ROOT} was changed; restore it from a copy.")
    for name, (size, checksum) in manifest["files"].items():
        file = path / name
        try:
            found = file.stat().st_size
            if found != size:
                raise RunError(
                    f"{path} is damaged: {name} has {found} bytes instead of {size}; restore it from a copy."
                )
            if _file_checksum(file) != checksum:
                raise RunError(f"{path} is damaged: the content of {name} was changed; restore it from a copy.")
        except OSError as error:
            missing = isinstance(error, (FileNotFoundError, NotADirectoryError))
            reason = "is missing" if missing else f"cannot be read ({error.strerror})"
            raise RunError(f"{path} is damaged: {name} {reason}; restore it from a copy.") from error


def _file_checksum(file: Path) -> int:
    checksum = 0
    with open(file, "rb") as content:
        while block := content.read(2**20):
            checksum = zlib.crc32(block, checksum)
    return checksum
