"""NWB files of any kind, written through pynwb, and how the shipped one is read."""

import datetime
import warnings

import numpy as np
from pynwb import NWBHDF5IO, NWBFile
from pynwb.epoch import TimeIntervals

from tauflow.neural import load_recording

LEARNING = {"align": "go_cue_time", "window": (-0.3, 1.0), "bin_s": 0.01, "condition": "target", "good": "good"}


def quietly(path, **asked):
    """The recording, and what was warned of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        data = load_recording(path, **asked)
    return data, [str(warning.message) for warning in caught]


def write_nwb(path, *, trials=4, units=2, columns=None, spikes=None, observed=None, invalid=None, indexed=False):
    """An NWB file: trials of 1 s every 2 s with a cue at 0.5 s, units that fire every 0.1 s from 0.05 s on."""
    file = NWBFile("made", "id", datetime.datetime(2023, 1, 1, tzinfo=datetime.UTC))
    columns = {"cue": [2 * k + 0.5 for k in range(trials)]} | (columns or {})
    for name in columns if trials else ():
        file.add_trial_column(name, name, index=indexed and name == "lists")
    for k in range(trials):
        file.add_trial(
            start_time=2.0 * k, stop_time=2.0 * k + 1, **{name: values[k] for name, values in columns.items()}
        )
    for i in range(units):
        times = np.arange(2 * trials * 10) / 10 + 0.05 if spikes is None else np.asarray(spikes[i], float)
        file.add_unit(spike_times=times, **({"obs_intervals": np.array(observed[i], float)} if observed else {}))
    if invalid:
        file.invalid_times = TimeIntervals(name="invalid_times", description="bad")
        for start, stop in invalid:
            file.invalid_times.add_interval(start_time=start, stop_time=stop)
    with NWBHDF5IO(path, "w") as io:
        io.write(file, cache_spec=False)
    return path


CUE = {"align": "cue", "window": (-0.5, 0.5), "bin_s": 0.1}
