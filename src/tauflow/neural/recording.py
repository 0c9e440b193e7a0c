"""What a recording is: activity of neurons over time and trials, with its labels, in one dataset that is checked.

| | dimensions | what |
| --- | --- | --- |
| `activity` | (time, trial, neuron) | rates (float32, Hz) or spikes per bin (int32); attributes `kind` and `unit` |
| `time` | (time,) | the middle of each bin in seconds from the event that trials are aligned to, evenly spaced |
| `trial_id` | (trial,) | the trials' own numbers, rising, with gaps where trials were dropped |
| `condition`, `epoch` | (trial,) | labels |
| `neuron_id` | (neuron,) | labels |

Attributes: `kind` ("recording"), `source` (name of the file), `bin_s`, `smoothed_s` (standard deviation of the Gaussian
by which activity was smoothed over time, 0 if it was not), `align` (the event), and as JSON text `dropped` (trials left
out: `trial_id` and `reason` of each), `silent` (neurons that never fire) and `steps` (what was done to the activity, in
words).
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from tauflow.analysis.arguments import numeric, real_array
from tauflow.names import check_name
from tauflow.networks.checks import is_number

DIMS = ("time", "trial", "neuron")
KINDS = ("rates", "spikes")
_UNITS = {"rates": "Hz", "spikes": "spikes per bin"}
_COORDINATES = {"time": "time", "trial_id": "trial", "condition": "trial", "epoch": "trial", "neuron_id": "neuron"}
_ATTRIBUTES = ("kind", "source", "bin_s", "smoothed_s", "align", "dropped", "silent", "steps")
_UNEVEN = 0.01  # of a bin: what rounding to float32 may have done to times


def recording(
    activity: ArrayLike,
    *,
    kind: str,
    time: ArrayLike,
    trial_id: ArrayLike | None = None,
    condition: ArrayLike | None = None,
    epoch: ArrayLike | None = None,
    neuron_id: ArrayLike | None = None,
    source: str = "",
    align: str = "",
    dropped: Iterable[Mapping[str, Any]] = (),
    steps: Iterable[str] = (),
    unit: str | None = None,
    smoothed_s: float = 0.0,
) -> xr.Dataset:
    """Make a recording of arrays.

    Args:
        activity: Rates in Hz, or counts of spikes per bin, shape (time, trial, neuron).
        kind: "rates" or "spikes".
        time: The middle of each bin in seconds, evenly spaced, shape (time,), two bins or more.
        trial_id: Whole numbers, rising, shape (trial,); 0, 1, ... by default.
        condition: Label of each trial, shape (trial,); all are "all" by default.
        epoch: Label of each trial, likewise.
        neuron_id: Label of each neuron, no two equal, shape (neuron,); "0", "1", ... by default.
        source: Name of the file.
        align: The event at time 0.
        dropped: Trials left out, each with `trial_id` and `reason`.
        steps: What was done to the activity before, in words.
        unit: Unit of rates if not Hz.
        smoothed_s: Standard deviation in seconds of a Gaussian by which the activity was smoothed over time before;
            blocks that are held out of a fit grow with it.

    Returns:
        The recording. Neurons that never fire stay in it; one warning names them.

    Raises:
        ValueError: If an array has the wrong shape or kind of number, the activity is NaN or infinite somewhere, counts
            are negative or not whole, times are uneven, ids repeat, a label is missing, or `smoothed_s` is negative.

    Example:
        >>> spikes = [[[0, 1]], [[2, 0]], [[1, 1]]]  # 3 bins, 1 trial, 2 neurons
        >>> data = recording(spikes, kind="spikes", time=[0.005, 0.015, 0.025], condition=["left"])
        >>> dict(data.sizes), data.attrs["bin_s"]
        ({'time': 3, 'trial': 1, 'neuron': 2}, 0.01)
    """
    check_name("kind of activity", kind, KINDS)
    if not (is_number(smoothed_s) and 0 <= smoothed_s < np.inf):
        raise ValueError(f"smoothed_s is {smoothed_s!r}; it must be a number of seconds >= 0, such as 0.04.")
    values = _as_activity(activity, kind)
    _, trials, neurons = values.shape
    seconds, bin_s = _as_time(time)
    ids = real_array("trial_id", np.arange(trials) if trial_id is None else trial_id, wanted="a whole number each")
    if (ids % 1).any():
        raise ValueError(f"trial_id is {ids[ids % 1 != 0][0]:g} for a trial; it must be a whole number.")
    data = xr.Dataset(
        {"activity": (DIMS, values, {"kind": kind, "unit": unit or _UNITS[kind]})}, attrs={"kind": "recording"}
    )
    labels = {
        "time": seconds,
        "trial_id": ids.astype(np.int64),
        "condition": as_labels("condition", ["all"] * trials if condition is None else condition),
        "epoch": as_labels("epoch", ["all"] * trials if epoch is None else epoch),
        "neuron_id": as_labels("neuron_id", range(neurons) if neuron_id is None else neuron_id),
    }
    for name, values_of in labels.items():
        dim = _COORDINATES[name]
        if values_of.shape != (data.sizes[dim],):
            raise ValueError(
                f"{name} has shape {values_of.shape}; it must be ({data.sizes[dim]},), one for each {dim}."
            )
        data = data.assign_coords({name: (dim, values_of, {"unit": "s"} if name == "time" else {})})
    data.attrs |= {
        "source": source,
        "bin_s": bin_s,
        "smoothed_s": float(smoothed_s),
        "align": align,
        "dropped": json.dumps(list(dropped)),
    }
    silent = data["neuron_id"].values[~data["activity"].values.any(axis=(0, 1))].tolist()
    data.attrs |= {"silent": json.dumps(silent), "steps": json.dumps(list(steps))}
    check_recording(data)
    if silent:
        warnings.warn(
            f"{source + ': ' if source else ''}{counted(len(silent), 'neuron')} never fire{'s' * (len(silent) == 1)} "
            f"({listed(silent)}); kept, and select_neurons leaves silent ones out.",
            stacklevel=2,
        )
    return data


def check_recording(data: xr.Dataset) -> None:
    """Check that a dataset is a recording.

    Args:
        data: The dataset, its arrays in NumPy.

    Raises:
        ValueError: One sentence that says what is wrong first.

    Example:
        >>> check_recording(xr.Dataset())
        Traceback (most recent call last):
        ValueError: The dataset is no recording, because it lacks activity, time, ...; build it with recording(...).
    """
    if not isinstance(data, xr.Dataset):
        raise ValueError(f"A recording is an xarray.Dataset; a {type(data).__name__} came, so use recording(...).")
    missing = [name for name in ("activity", *_COORDINATES) if name not in data.variables]
    missing += [f"attrs[{name!r}]" for name in _ATTRIBUTES if name not in data.attrs]
    if missing:
        raise ValueError(
            f"The dataset is no recording, because it lacks {', '.join(missing)}; build it with recording(...)."
        )
    activity = data["activity"]
    if activity.dims != DIMS or 0 in activity.shape:
        raise ValueError(f"activity has {dict(activity.sizes)}; it must have {', '.join(DIMS)}, none of them empty.")
    for name, dim in _COORDINATES.items():
        if data[name].dims != (dim,):
            raise ValueError(f"{name} has dimensions {data[name].dims}; it must have ({dim!r},).")
    check_name("kind of activity", activity.attrs.get("kind"), KINDS)
    _check_values(data)
    bin_s = _as_time(data["time"].values)[1]
    if not np.isclose(bin_s, data.attrs["bin_s"], rtol=1e-6):
        raise ValueError(f"bin_s is {data.attrs['bin_s']} and times are {bin_s} s apart; they must agree.")
    _check_ids(data)


def _check_values(data: xr.Dataset) -> None:
    values, kind = data["activity"].values, data["activity"].attrs["kind"]
    wanted = np.float32 if kind == "rates" else np.int32
    if values.dtype != wanted:
        raise ValueError(f"activity of kind {kind!r} is {values.dtype}; it must be {np.dtype(wanted)}.")
    wrong = ~np.isfinite(values) if kind == "rates" else values < 0
    if not wrong.any():
        return
    t, k, i = np.unravel_index(np.argmax(wrong), values.shape)
    where = (
        f"at {int(wrong.sum())} of {values.size} entries, first at {data['time'].values[t]:g} s of trial "
        f"{data['trial_id'].values[k]}, neuron {data['neuron_id'].values[i]}"
    )
    if kind == "spikes":
        raise ValueError(f"Counts of spikes are negative {where}; they must be >= 0, or pass them as rates.")
    raise ValueError(
        f"Activity is NaN or infinite {where}; cut trials of unequal length to one window, and leave out trials or "
        "neurons that were not recorded."
    )


def _check_ids(data: xr.Dataset) -> None:
    ids = data["trial_id"].values
    if ids.dtype != np.int64:
        raise ValueError(f"trial_id is {ids.dtype}; it must be int64.")
    for name in ("trial_id", "neuron_id"):
        values, counts = np.unique(data[name].values, return_counts=True)
        if (counts > 1).any():
            raise ValueError(f"{name} repeats {listed(values[counts > 1].tolist())}; each must be there once.")
    falls = np.flatnonzero(np.diff(ids) < 0)
    if falls.size:
        raise ValueError(f"trial_id falls from {ids[falls[0]]} to {ids[falls[0] + 1]}; sort the trials by their ids.")


def _as_activity(activity: ArrayLike, kind: str) -> NDArray[Any]:
    """float32 rates or int32 counts (time, trial, neuron), or what is wrong with them."""
    array = np.asarray(activity) if isinstance(activity, np.ndarray) else activity
    if isinstance(array, np.ndarray) and array.dtype == bool and kind == "spikes":
        array = array.astype(np.int32)
    wanted = "numbers (time, trial, neuron), every trial of the same length"
    values = numeric(kind, array, wanted)
    if values.dtype.kind == "c" or values.ndim != 3 or 0 in values.shape:
        raise ValueError(f"{kind} have shape {values.shape} and dtype {values.dtype}; they must be {wanted}.")
    if kind == "rates":
        with np.errstate(over="ignore"):  # becomes infinite, which is refused
            return values.astype(np.float32)
    uneven = values != np.round(values) if values.dtype.kind == "f" else np.zeros(1, bool)
    if uneven.any():
        raise ValueError(
            f"spikes have {int(uneven.sum())} entries that are no whole numbers, such as {values[uneven][0]:g}; counts "
            "per bin are whole, so pass anything else as rates."
        )
    if values.max() > np.iinfo(np.int32).max or values.min() < np.iinfo(np.int32).min:
        raise ValueError(f"spikes reach {values.max():g} in a bin; that is no count of spikes, so pass rates.")
    return values.astype(np.int32)


def _as_time(time: ArrayLike) -> tuple[NDArray[np.float64], float]:
    """Even times and their spacing, in seconds."""
    wanted = "finite times in seconds, one for each bin, two or more, rising in even steps"
    times = real_array("time", time, wanted=wanted)
    if times.ndim != 1 or times.size < 2:
        raise ValueError(f"time has shape {times.shape}; it must be {wanted}.")
    gaps = np.diff(times)
    mean = (times[-1] - times[0]) / (times.size - 1)
    if mean <= 0 or np.abs(gaps - mean).max() > _UNEVEN * mean:
        raise ValueError(f"time goes in steps from {gaps.min():g} to {gaps.max():g} s; it must be {wanted}.")
    return np.linspace(times[0], times[-1], times.size, dtype=np.float64), float(f"{mean:.9g}")


def as_labels(name: str, values: Any) -> NDArray[np.str_]:
    """Turn labels of any kind (text, bytes, numbers, true or false) into text.

    Args:
        name: What they are, which begins the error.
        values: One label each, shape (label,).

    Returns:
        Text, shape (label,).

    Raises:
        ValueError: If they are not one-dimensional, or a label is missing (NaN, nothing, or empty).

    Example:
        >>> as_labels("condition", [0.0, 90.0]).tolist()
        ['0', '90']
    """
    array = np.asarray(values if isinstance(values, np.ndarray) else list(values))
    if array.ndim != 1:
        raise ValueError(f"{name} has shape {array.shape}; it must be one label for each.")
    labels = [_label(value) for value in array.tolist()]
    missing = [position for position, label in enumerate(labels) if not label]
    if missing:
        raise ValueError(f"{name} has no value at positions {listed(missing)}; fill them in or leave those trials out.")
    return np.array(labels, dtype=np.str_)


def _label(value: Any) -> str:
    if value is None or value != value:
        return ""
    if isinstance(value, bytes):
        return value.decode(errors="replace").strip()
    return f"{value:g}" if isinstance(value, float) else str(value).strip()


def listed(values: Iterable[Any], most: int = 8) -> str:
    """The first few of some values, for a sentence.

    Example:
        >>> listed(range(20), most=3)
        '0, 1, 2 and 17 more'
    """
    values = [str(value) for value in values]
    more = f" and {len(values) - most} more" if len(values) > most else ""
    return ", ".join(values[:most]) + more


def counted(count: int, what: str) -> str:
    """A number of things, for a sentence.

    Example:
        >>> counted(1, "neuron"), counted(3, "neuron")
        ('1 neuron', '3 neurons')
    """
    return f"{count} {what}{'' if count == 1 else 's'}"
