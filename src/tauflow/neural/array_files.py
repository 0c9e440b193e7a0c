"""Recordings from files of arrays: .npz (no pickle), NetCDF and Zarr.

Such a file has `rates` in Hz, or counts per bin as `spikes`: in an .npz of shape (trial, time, neuron), in NetCDF and
Zarr with the dimensions trial, time and neuron in any order. Beside them it may have `times` (or `time`: the middle of
each bin, in seconds), and for each trial `trial_id`, `condition`, `epoch`, for each neuron `neuron_id`. A recording
that was saved with xarray or by tauflow is read as it was.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from tauflow.neural.recording import KINDS, listed, recording
from tauflow.neural.selection import as_flags, select_rows, tell_dropped
from tauflow.run import read_store

_ENGINES: dict[str, dict[str, Any]] = {
    "Zarr": {"engine": "zarr", "consolidated": False},
    "NetCDF": {"engine": "h5netcdf", "phony_dims": "sort"},  # HDF5 without names of dimensions: opened to say so
    "NetCDF 3": {"engine": "scipy"},
}
_SECONDS = (None, "", "s", "sec", "second", "seconds")


def read_npz_arrays(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Read the arrays of an .npz file, its activity as (time, trial, neuron).

    Returns:
        The arrays by name, and of attributes `smoothed_s`, if a single number of that name is there.

    Raises:
        ValueError: If it is damaged, or an array is ragged or made of Python objects.
    """
    arrays = {}
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            for name in archive.files:
                try:
                    arrays[name] = archive[name]
                except ValueError as error:
                    if "allow_pickle" not in str(error):
                        raise
                    raise ValueError(
                        f"{name} is made of Python objects (trials of unequal length, perhaps), which are not read; "
                        "save one array of numbers (trial, time, neuron), and labels as an array of text."
                    ) from None
    except (zipfile.BadZipFile, OSError, EOFError) as error:
        raise ValueError(f"The .npz file is damaged ({error}); save it again.") from error
    for name in KINDS:
        if name in arrays and arrays[name].ndim == 3:
            arrays[name] = np.ascontiguousarray(arrays[name].transpose(1, 0, 2))  # (time, trial, neuron)
        elif name in arrays:
            raise ValueError(f"{name} has shape {arrays[name].shape}; it must be (trial, time, neuron).")
    told = "smoothed_s" in arrays and arrays["smoothed_s"].ndim == 0
    return arrays, {"smoothed_s": arrays.pop("smoothed_s").item()} if told else {}


def read_xarray(path: Path, kind: str) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Read the variables of a NetCDF file or a Zarr store, the activity as (time, trial, neuron).

    Args:
        path: The file or folder.
        kind: "Zarr", "NetCDF" (format 4) or "NetCDF 3".

    Returns:
        The arrays by name, and the attributes of the dataset.

    Raises:
        ValueError: If it is damaged or has other dimensions.
    """
    data = _opened(path, kind)
    arrays = {str(name): variable.values for name, variable in data.variables.items()}
    for dim, name in (("time", "times"), ("trial", "trial_id"), ("neuron", "neuron_id")):
        if name not in arrays and dim in arrays:
            arrays[name] = arrays[dim]
    unit = data["time"].attrs.get("units", data["time"].attrs.get("unit")) if "time" in data.variables else None
    if unit not in _SECONDS:
        raise ValueError(f"Its time is in {unit!r}; it must be in seconds.")
    if data.attrs.get("kind") == "recording" and "activity" in data:
        data = data.rename(activity=data["activity"].attrs.get("kind", "rates"))
    attributes: dict[str, Any] = {}
    for name in KINDS:
        if name in data:
            if set(data[name].dims) != {"time", "trial", "neuron"}:
                raise ValueError(
                    f"{name} has dimensions {listed(data[name].dims)}; they must be trial, time and neuron."
                )
            arrays[name] = np.ascontiguousarray(data[name].transpose("time", "trial", "neuron").values)
            attributes["unit"] = data[name].attrs.get("unit")
    attributes |= {name: data.attrs[name] for name in ("source", "align", "smoothed_s") if name in data.attrs}
    attributes |= {name: json.loads(data.attrs[name]) for name in ("dropped", "steps") if name in data.attrs}
    return arrays, attributes


def assemble(
    arrays: Mapping[str, NDArray[Any]],
    attributes: Mapping[str, Any],
    *,
    bin_s: float | None,
    condition: str | None,
    epoch: str | None,
    good: str | None,
    neurons: Sequence[Any] | None,
    source: str,
) -> xr.Dataset:
    """Make a recording of the arrays of a file; the arguments are those of `load_recording`.

    Raises:
        ValueError: If there is no activity, an array is missing or of the wrong length, or no trial is left.
    """
    present = [name for name in KINDS if name in arrays]
    if len(present) != 1:
        there = listed(arrays) or "no arrays"
        raise ValueError(
            f"The file has {' and '.join(present) or 'neither rates nor spikes'} (there are {there}); it must have one "
            "of rates and spikes, (trial, time, neuron)."
        )
    activity = arrays[present[0]]
    bins, trials, units = activity.shape
    time = _times(arrays, bins, trials, bin_s)

    def column(name: str, length: int, of: str) -> NDArray[Any]:
        if name not in arrays:
            raise ValueError(f"There is no array {name!r}; there are {', '.join(arrays)}.")
        if arrays[name].shape != (length,):
            raise ValueError(f"{name} has shape {arrays[name].shape}; it must be ({length},), one for each {of}.")
        return arrays[name]

    trial_id = column("trial_id", trials, "trial") if "trial_id" in arrays else np.arange(trials)
    reasons = np.full(trials, "", object)
    if good is not None:
        reasons[~as_flags(good, column(good, trials, "trial"))] = f"not {good}"
    kept = reasons == ""
    neuron_id = column("neuron_id", units, "neuron") if "neuron_id" in arrays else np.arange(units)
    rows = select_rows([str(name) for name in neuron_id.tolist()], neurons)
    labels = {
        name: column(asked or name, trials, "trial")[kept]
        for name, asked in (("condition", condition), ("epoch", epoch))
        if asked is not None or name in arrays
    }
    dropped = [*attributes.get("dropped", ()), *tell_dropped(trial_id, reasons, source, asked=f"not {good}")]
    return recording(
        activity[:, kept][:, :, rows],
        kind=present[0],
        time=time,
        trial_id=trial_id[kept],
        neuron_id=neuron_id[rows],
        condition=labels.get("condition"),
        epoch=labels.get("epoch"),
        source=attributes.get("source", source),
        align=attributes.get("align", ""),
        dropped=dropped,
        steps=attributes.get("steps", ()),
        unit=attributes.get("unit"),
        smoothed_s=attributes.get("smoothed_s", 0.0),
    )


def _times(arrays: Mapping[str, NDArray[Any]], bins: int, trials: int, bin_s: float | None) -> NDArray[np.float64]:
    name = "times" if "times" in arrays else "time"
    if name not in arrays:
        if bin_s is None:
            raise ValueError("The file has no times; give the width of its bins in seconds, for example bin_s=0.01.")
        return np.asarray((np.arange(bins) + 0.5) * bin_s, dtype=np.float64)
    times = np.asarray(arrays[name])
    if times.shape != (bins,):
        swapped = " (it looks as if trials and times are swapped)" if times.shape == (trials,) else ""
        raise ValueError(f"{name} has shape {times.shape} and the activity has {bins} bins{swapped}; they must agree.")
    if times.dtype.kind not in "fiu":
        raise ValueError(f"{name} holds {times.dtype}; it must be numbers, the middle of each bin in seconds.")
    if bin_s is not None and bins > 1 and not np.isclose((times[-1] - times[0]) / (bins - 1), bin_s, rtol=1e-3):
        spacing = (times[-1] - times[0]) / (bins - 1)
        raise ValueError(f"bin_s is {bin_s:g} and {name} is {spacing:g} s apart; leave bin_s away, or correct {name}.")
    return times.astype(np.float64)


def _opened(path: Path, kind: str) -> xr.Dataset:
    """The dataset in memory; whatever xarray and its readers find wrong becomes one sentence."""
    if kind == "Zarr" and _is_ours(path):
        return read_store(path)
    if kind == "NetCDF":
        try:
            import h5netcdf  # noqa: F401
        except ImportError:
            raise ValueError("A NetCDF 4 file needs h5netcdf; install it with: pip install 'tauflow[data]'.") from None
    try:
        with xr.open_dataset(path, decode_times=False, **_ENGINES[kind]) as opened:
            return opened.load()
    except Exception as error:
        raise ValueError(f"xarray cannot read the {kind} file ({error}); save it again.") from error


def _is_ours(path: Path) -> bool:
    """Whether tauflow wrote the store: then text is there as codes, and every file is checked."""
    try:
        return "tauflow_store" in json.loads((path / "zarr.json").read_bytes())["attributes"]
    except (OSError, ValueError, KeyError):
        return False
