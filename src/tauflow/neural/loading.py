"""One function that reads a recording from a file, whatever its format: NWB, NetCDF, Zarr or .npz."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import xarray as xr

from tauflow.neural.array_files import assemble, read_npz_arrays, read_xarray
from tauflow.neural.nwb import read_nwb
from tauflow.neural.preprocessing import crop
from tauflow.neural.selection import check_seconds, check_window
from tauflow.run.files import as_path

_FORMATS = {".nwb": "NWB", ".npz": "npz", ".nc": "NetCDF", ".nc4": "NetCDF", ".cdf": "NetCDF", ".zarr": "Zarr"}
_HDF5 = b"\x89HDF\r\n\x1a\n"
_WANTED = "NWB, NetCDF, Zarr or .npz"


def load_recording(
    path: str | os.PathLike[str],
    *,
    align: str | None = None,
    window: tuple[float, float] | None = None,
    bin_s: float | None = None,
    condition: str | None = None,
    epoch: str | None = None,
    good: str | None = None,
    neurons: Sequence[Any] | None = None,
) -> xr.Dataset:
    """Read a recording from an NWB, NetCDF, Zarr or .npz file; what it is, is told by its content.

    From NWB, spikes of the units are counted in bins around an event of each trial; `align`, `window` and `bin_s` are
    then needed. Files of arrays are aligned and binned already: `window` cuts them, and `bin_s` is needed if they have
    no times.

    Args:
        path: The file, or the folder of a Zarr store.
        align: NWB: the trials column with the time of the event, in seconds.
        window: Start and end in seconds from the event, for example (-0.2, 1.0); a bin has its start and not its end.
        bin_s: Width of a bin in seconds.
        condition: The trials column (in a file of arrays: the array) with the condition of each trial; the one called
            "condition" by default, and if there is none, all trials are of the condition "all".
        epoch: Likewise the epoch of learning, such as baseline, perturbation and washout.
        good: Likewise true or false (or 1 and 0); trials where it is false are dropped. None is, by default.
        neurons: Ids of the neurons to read; all by default.

    Returns:
        The recording (see `tauflow.neural.recording`). Trials that were dropped are in `attrs["dropped"]` with the
        reason; those dropped for another reason than `good` are named in one warning, and neurons that never fire in
        another.

    Raises:
        ValueError: One sentence that begins with the path, if the file or an argument is not as above.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "session.npz"
        ...     np.savez(path, spikes=np.ones((6, 50, 4), int), condition=["left", "right"] * 3)
        ...     data = load_recording(path, bin_s=0.02)
        >>> data.activity.dims, data.activity.shape, data.condition.values[:2].tolist()
        (('time', 'trial', 'neuron'), (50, 6, 4), ['left', 'right'])
    """
    path = as_path(path)
    try:
        if window is not None:
            check_window(window)
        if bin_s is not None:
            check_seconds("bin_s", bin_s)
        kind = _kind(path)
        if kind == "NWB":
            return read_nwb(
                path,
                align=align,
                window=window,
                bin_s=bin_s,
                condition=condition,
                epoch=epoch,
                good=good,
                neurons=neurons,
            )
        if align is not None:
            raise ValueError(
                f"align={align!r} is for times of spikes (NWB); this file is aligned already, so leave it away."
            )
        arrays, attributes = read_npz_arrays(path) if kind == "npz" else read_xarray(path, kind)
        data = assemble(
            arrays,
            attributes,
            bin_s=bin_s,
            condition=condition,
            epoch=epoch,
            good=good,
            neurons=neurons,
            source=path.name,
        )
        return data if window is None else crop(data, window)
    except ValueError as error:
        raise ValueError(str(error) if str(path) in str(error) else f"{path}: {error}") from error


def _kind(path: Path) -> str:
    """The format by content; an error if the name says another one."""
    if not path.exists():
        raise ValueError("There is no such file; check the path.")
    kind = _of_folder(path) if path.is_dir() else _of_file(path)
    said = _FORMATS.get(path.suffix.lower())
    if said not in (None, kind.removesuffix(" 3")):
        content = "HDF5 without the marks of NWB" if said == "NWB" and kind == "NetCDF" else kind
        raise ValueError(
            f"By its name this is {said}, but by its content {content}; rename it or choose the right file."
        )
    return kind


def _of_folder(path: Path) -> str:
    if not any((path / name).is_file() for name in ("zarr.json", ".zgroup", ".zattrs")):
        raise ValueError(f"The folder is no Zarr store; a recording is {_WANTED}.")
    if (path / ".zattrs").is_file() and b"nwb_version" in (path / ".zattrs").read_bytes():
        raise ValueError("This is NWB kept as Zarr, which is not read; export it to an HDF5 .nwb file with hdmf-zarr.")
    return "Zarr"


def _of_file(path: Path) -> str:
    with path.open("rb") as file:
        begin = file.read(520)
    if begin.startswith(_HDF5) or begin[512:].startswith(_HDF5):
        return _of_hdf5(path)
    if begin.startswith(b"CDF"):
        return "NetCDF 3"
    if begin.startswith(b"PK"):
        return "npz"
    what = "is empty" if not begin else "is neither, by its content"
    if begin.startswith(b"\x93NUMPY"):
        what = "is one NumPy array without names (save it with np.savez(..., rates=...))"
    elif begin.startswith(b"MATLAB"):
        what = "is a MATLAB file (save its arrays as .npz)"
    raise ValueError(f"A recording is {_WANTED}; this file {what}.")


def _of_hdf5(path: Path) -> str:
    try:
        import h5py
    except ImportError:
        raise ValueError(
            "NWB and NetCDF 4 files are read with pynwb and h5netcdf; install them with: pip install pynwb h5netcdf."
        ) from None
    try:
        with h5py.File(path, "r") as file:
            return "NWB" if "nwb_version" in file.attrs else "NetCDF"
    except OSError as error:
        raise ValueError(f"The HDF5 file is damaged ({error}); copy it again from its source.") from error
