"""Recordings from NWB files: spikes of the units table, counted in bins around an event of the trials table.

Read through pynwb, which comes with the extra `data`. A trial is dropped, with its id and the reason kept, if it is
marked bad, has no event, or if its window is not wholly within what was recorded: the `obs_intervals` of every unit
(or, without them, from the first to the last trial or spike), and outside `invalid_times`.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from tauflow.analysis.arguments import real_array
from tauflow.names import check_name
from tauflow.neural.recording import as_labels, listed, recording
from tauflow.neural.selection import as_flags, select_rows, tell_dropped

_SLACK = 1e-9  # seconds: rounding of times of day-long sessions


def read_nwb(
    path: Path,
    *,
    align: str | None,
    window: tuple[float, float] | None,
    bin_s: float | None,
    condition: str | None,
    epoch: str | None,
    good: str | None,
    neurons: Sequence[Any] | None,
) -> xr.Dataset:
    """Read a recording from an NWB file; the arguments are those of `load_recording`.

    Raises:
        ValueError: If the file has no units, spike times or trials, a column is missing or unfit, an argument that
            spike times need is not given, or no trial is left.
    """
    with _opened(path) as file:
        for name, table in (("units", file.units), ("trials", file.trials)):
            if table is None or len(table) == 0:
                raise ValueError(f"The file has no {name} table with rows; spike times and trials are needed.")
        columns = file.trials.colnames
        if align is None or window is None or bin_s is None:
            raise ValueError(
                "NWB holds times of spikes, so align, window and bin_s are needed, such as align='go_cue_time', "
                f"window=(-0.2, 1.0), bin_s=0.01; the trials columns are {', '.join(columns)}."
            )
        bins = _count_bins(window, bin_s)
        trial_id = np.asarray(file.trials.id[:])
        events = _times(file.trials, align)
        spikes, unit_ids, observed = _units(file, neurons, events + window[0], events + window[1])
        reasons = _why_not(file, events, align, window, unit_ids, observed)
        if good is not None:
            reasons[~as_flags(good, _column(file.trials, good))] = f"not {good}"
        kept = reasons == ""
        dropped = tell_dropped(trial_id, reasons, path.name, asked=f"not {good}")
        labels = {
            name: _column(file.trials, column or name)[kept]
            for name, column in (("condition", condition), ("epoch", epoch))
            if column is not None or name in columns
        }
    return recording(
        bin_spikes(spikes, events[kept] + window[0], bins=bins, bin_s=bin_s),
        kind="spikes",
        time=window[0] + (np.arange(bins) + 0.5) * bin_s,
        trial_id=trial_id[kept],
        neuron_id=unit_ids,
        source=path.name,
        align=align,
        dropped=dropped,
        condition=labels.get("condition"),
        epoch=labels.get("epoch"),
    )


def bin_spikes(spike_times: Sequence[ArrayLike], starts: ArrayLike, *, bins: int, bin_s: float) -> NDArray[np.int32]:
    """Count spikes in bins; a bin has its start and not its end.

    Args:
        spike_times: For each neuron the times of its spikes in seconds, in any order.
        starts: When the first bin of each trial begins, in seconds, shape (trial,).
        bins: How many bins a trial has.
        bin_s: Width of a bin in seconds.

    Returns:
        Counts, shape (time, trial, neuron).

    Raises:
        ValueError: If a time is NaN or no number.

    Example:
        >>> bin_spikes([[0.31, 0.1, 0.3], []], [0.0, 0.3], bins=2, bin_s=0.1)[:, :, 0].tolist()
        [[0, 2], [1, 0]]
    """
    starts = real_array("starts", starts, wanted="times in seconds, one for each trial")
    edges = starts[:, None] + np.arange(bins + 1) * bin_s  # (trial, bins + 1)
    counts = np.empty((bins, len(starts), len(spike_times)), np.int32)
    for neuron, times in enumerate(spike_times):
        fired = np.sort(real_array(f"spike_times of neuron {neuron}", times, wanted="finite times in seconds"))
        counts[:, :, neuron] = np.diff(np.searchsorted(fired, edges), axis=1).T
    return counts


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The NWB file, read lazily; whatever pynwb finds wrong with it becomes one sentence."""
    try:
        from pynwb import NWBHDF5IO
    except ImportError:
        raise ValueError("An NWB file is read with pynwb; install it with: pip install pynwb.") from None
    with ExitStack() as stack:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Ignoring the following cached namespace")  # of older versions
            try:
                file = stack.enter_context(NWBHDF5IO(str(path), "r")).read()
            except Exception as error:
                raise ValueError(f"pynwb cannot read the file ({error}); check it with nwbinspector.") from error
        yield file


def _column(table: Any, name: str) -> NDArray[Any]:
    check_name("trials column", name, table.colnames)
    column = table[name]
    if hasattr(column, "target"):  # an index into another column: a list in each row
        raise ValueError(f"The trials column {name!r} holds a list for each trial; one value for each trial is needed.")
    return np.asarray(column[:])


def _times(table: Any, name: str) -> NDArray[np.float64]:
    """Event times of a column, NaN where there was no event, shape (trial,)."""
    values = _column(table, name)
    if values.dtype.kind not in "fiu" or values.ndim != 1:
        what = f"values such as {values.ravel()[0]!r}"
        raise ValueError(f"The trials column {name!r} holds {what}; align needs one of times in seconds.")
    return values.astype(np.float64)


def _count_bins(window: tuple[float, float], bin_s: float) -> int:
    bins = (window[1] - window[0]) / bin_s
    if abs(bins - round(bins)) > 1e-6 or round(bins) < 2:
        end = window[0] + max(2, round(bins)) * bin_s
        raise ValueError(
            f"The window of {window[1] - window[0]:g} s holds {bins:g} bins of {bin_s:g} s; it must hold a whole "
            f"number, two or more, for example window=({window[0]:g}, {end:g})."
        )
    return round(bins)


def _units(
    file: Any, neurons: Sequence[Any] | None, starts: NDArray[np.float64], ends: NDArray[np.float64]
) -> tuple[list[NDArray[np.float64]], list[str], NDArray[np.bool_]]:
    """Spike times and ids of the units to read, and whether each was recorded in each window (trial, neuron)."""
    units = file.units
    if "spike_times" not in units.colnames:
        raise ValueError("The units table has no spike_times; sorted spikes are needed.")
    ids = as_labels("units id", np.asarray(units.id[:])).tolist()
    rows = select_rows(ids, neurons)
    spikes = [np.asarray(units.get_unit_spike_times(row), np.float64) for row in range(len(ids))]
    ends_of = [np.asarray(file.trials[name][:], np.float64) for name in ("start_time", "stop_time")]
    every = np.concatenate([*ends_of, *spikes])
    whole = np.array([[np.nanmin(every), np.nanmax(every)]])  # what is known to be recorded, without obs_intervals
    observed = np.empty((len(starts), len(rows)), bool)
    for column, row in enumerate(rows):
        given = units.get_unit_obs_intervals(row) if "obs_intervals" in units.colnames else ()
        intervals = joined(np.asarray(given, np.float64).reshape(-1, 2)) if len(given) else whole
        after = starts[:, None] >= intervals[:, 0] - _SLACK  # (trial, interval)
        observed[:, column] = (after & (ends[:, None] <= intervals[:, 1] + _SLACK)).any(axis=1)
    return [spikes[row] for row in rows], [ids[row] for row in rows], observed


def joined(intervals: NDArray[np.float64]) -> NDArray[np.float64]:
    """Intervals (interval, 2) sorted, those that touch or overlap made one.

    Example:
        >>> joined(np.array([[3.0, 4.0], [0.0, 1.0], [1.0, 2.0]])).tolist()
        [[0.0, 2.0], [3.0, 4.0]]
    """
    whole: list[list[float]] = []
    for start, end in sorted(intervals.tolist()):
        if whole and start <= whole[-1][1] + _SLACK:
            whole[-1][1] = max(whole[-1][1], end)
        else:
            whole.append([start, end])
    return np.array(whole)


def _why_not(
    file: Any,
    events: NDArray[np.float64],
    align: str,
    window: tuple[float, float],
    unit_ids: list[str],
    observed: NDArray[np.bool_],
) -> NDArray[Any]:
    """Why each trial cannot be used, "" where it can."""
    reasons = np.full(len(events), "", object)
    for trial in np.flatnonzero(~observed.all(axis=1)):
        unseen = [name for name, seen in zip(unit_ids, observed[trial], strict=True) if not seen]
        who = "" if len(unseen) == len(unit_ids) else f" for neurons {listed(unseen)}"
        reasons[trial] = f"window not wholly recorded{who}"
    if file.invalid_times is not None:
        for start, stop in zip(file.invalid_times["start_time"][:], file.invalid_times["stop_time"][:], strict=True):
            reasons[(events + window[0] < stop) & (events + window[1] > start)] = "window overlaps invalid_times"
    reasons[~np.isfinite(events)] = f"no time in {align}"
    return reasons
