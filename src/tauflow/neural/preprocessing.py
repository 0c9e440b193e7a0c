r"""What is done to a recording before a fit: select, smooth, subtract a baseline, scale. Each gives a new recording.

The order of pellegrino2023, Appendix B, with $t = 0$ at the go cue; $\langle\cdot\rangle$ are means over the times of a
window and over trials, for each neuron:

$$\bar y = \frac{y - \langle y\rangle_{before}}{\sqrt{\langle (y - \langle y\rangle_{after})^2\rangle_{after}}}.$$

    >>> import numpy as np
    >>> from tauflow.neural import crop, recording, scale, smooth, subtract_baseline
    >>> counts = np.random.default_rng(0).poisson(0.2, size=(120, 30, 5))  # (time, trial, neuron)
    >>> data = recording(counts, kind="spikes", time=-0.195 + 0.01 * np.arange(120))
    >>> data = subtract_baseline(smooth(data, 0.04), (-0.2, 0.0))
    >>> data = crop(scale(data, (0.1, 1.0)), (0.0, 1.0))
    >>> bool(np.isclose(data.activity.values[10:].std(), 1.0, atol=0.01)), data.sizes["time"]
    (True, 100)

Means and filters are computed in float64; activity stays float32.
"""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from tauflow.networks.checks import is_number
from tauflow.neural.recording import DIMS, check_recording, counted, listed
from tauflow.neural.selection import check_seconds, check_window

_ROUNDING = 1e-3  # of a bin: what rounding may do to a time that lies on the end of a window


def to_rates(data: xr.Dataset) -> xr.Dataset:
    """Turn counts of spikes per bin into rates in Hz; rates stay as they are.

    Args:
        data: A recording.

    Returns:
        A recording of kind "rates".

    Raises:
        ValueError: If `data` is no recording.

    Example:
        >>> from tauflow.neural import recording
        >>> counts = recording(np.ones((2, 1, 1), int), kind="spikes", time=[0.0, 0.02])
        >>> to_rates(counts).activity.values.ravel().tolist()
        [50.0, 50.0]
    """
    check_recording(data)
    if data["activity"].attrs["kind"] == "rates":
        return data
    return _stepped(data, data["activity"].values / data.attrs["bin_s"], "counts divided by the bin, in Hz", unit="Hz")


def smooth(data: xr.Dataset, sd_s: float) -> xr.Dataset:
    """Smooth each neuron in each trial over time with a Gaussian; counts of spikes become rates.

    Beyond its ends a trial is continued by its mirror image (SciPy's "reflect"), so a constant stays as it is and no
    spike is lost or counted twice: the mean over time is unchanged. Within about two standard deviations of the ends
    the result leans on the mirror image; where spikes before and after are at hand, read a wider window and `crop` it
    after.

    Args:
        data: A recording.
        sd_s: Standard deviation in seconds (0.04 in pellegrino2023), half a bin or more.

    Returns:
        A recording of kind "rates", whose attribute `smoothed_s` says how much it is smoothed in all.

    Raises:
        ValueError: If `data` is no recording, or `sd_s` is no such number.

    Example:
        >>> from tauflow.neural import recording
        >>> one = recording(np.eye(5, 1, k=-2)[:, None], kind="rates", time=np.arange(5) * 0.01)
        >>> [round(float(rate), 2) for rate in smooth(one, 0.01).activity.values.ravel()]
        [0.06, 0.24, 0.4, 0.24, 0.06]
    """
    check_seconds("sd_s", sd_s)
    data = to_rates(data)
    bins = sd_s / data.attrs["bin_s"]
    if bins < 0.5:
        raise ValueError(f"sd_s is {sd_s:g} s, under half a bin of {data.attrs['bin_s']:g} s; leave smoothing away.")
    values = gaussian_filter1d(data["activity"].values, bins, axis=0, output=np.float64, mode="reflect")
    done = _stepped(data, values, f"smoothed over time by a Gaussian, sd {sd_s:g} s, mirrored at the ends")
    return done.assign_attrs(smoothed_s=math.hypot(data.attrs["smoothed_s"], sd_s))


def subtract_baseline(data: xr.Dataset, window: tuple[float, float]) -> xr.Dataset:
    """Subtract from each neuron its mean over a window and all trials.

    Args:
        data: A recording of rates.
        window: Start and end in seconds; times from the start on and before the end count.

    Returns:
        A recording of kind "rates".

    Raises:
        ValueError: If `data` is no recording of rates, or no bin lies in the window.

    Example:
        >>> from tauflow.neural import recording
        >>> data = recording([[[1.0]], [[3.0]], [[9.0]]], kind="rates", time=[-0.2, -0.1, 0.0])
        >>> subtract_baseline(data, (-0.2, 0.0)).activity.values.ravel().tolist()
        [-1.0, 1.0, 7.0]
    """
    values = _of_rates(data, "subtract_baseline")  # (time, trial, neuron)
    mean = values[_within(data, window)].mean(axis=(0, 1))  # (neuron,)
    unit = data["activity"].attrs["unit"].removesuffix(" from baseline") + " from baseline"
    return _stepped(data, values - mean, f"mean over {_words(window)} subtracted, by neuron", unit=unit)


def scale(data: xr.Dataset, window: tuple[float, float]) -> xr.Dataset:
    """Divide each neuron by its standard deviation over a window and all trials.

    Neurons that never change anywhere (silent ones) stay as they are.

    Args:
        data: A recording of rates.
        window: Start and end in seconds; times from the start on and before the end count.

    Returns:
        A recording of kind "rates", in units of that deviation.

    Raises:
        ValueError: If `data` is no recording of rates, no bin lies in the window, or a neuron changes elsewhere only.

    Source: pellegrino2023, Eq. (B.0.1). Deviation from print: divided by the square root; the print has the variance,
        which would leave a unit, and a spread of 1/sd.

    Example:
        >>> from tauflow.neural import recording
        >>> data = recording([[[4.0]], [[8.0]]], kind="rates", time=[0.0, 0.1])
        >>> scale(data, (0.0, 0.2)).activity.values.ravel().tolist()
        [2.0, 4.0]
    """
    values = _of_rates(data, "scale")  # (time, trial, neuron)
    inside = values[_within(data, window)]
    deviation = inside.std(axis=(0, 1))  # (neuron,)
    still = deviation <= 1e-6 * np.abs(values).max(axis=(0, 1))  # (neuron,): constant but for rounding to float32
    changes = np.ptp(values, axis=(0, 1)) > 1e-6 * np.abs(values).max(axis=(0, 1))
    if (still & changes).any():
        names = listed(data["neuron_id"].values[still & changes])
        raise ValueError(
            f"Neurons {names} do not change in {_words(window)} but do elsewhere, so they cannot be scaled by it; "
            "choose another window, or leave them out with select_neurons."
        )
    step = f"divided by the standard deviation over {_words(window)}, by neuron"
    return _stepped(data, values / np.where(changes, deviation, 1.0), step, unit="sd")


def select_neurons(data: xr.Dataset, least_rate: float) -> xr.Dataset:
    """Keep the neurons whose mean rate over all times and trials is `least_rate` or more.

    Args:
        data: A recording of counts or of rates in Hz, before a baseline is subtracted.
        least_rate: In Hz, > 0; at any such rate silent neurons go.

    Returns:
        A recording of the same kind; those left out are named in its `steps`.

    Raises:
        ValueError: If `data` is no such recording, `least_rate` is not above 0, or no neuron is left.

    Example:
        >>> from tauflow.neural import recording
        >>> data = recording([[[1.0, 9.0]], [[3.0, 9.0]]], kind="rates", time=[0.0, 0.1], neuron_id=["a", "b"])
        >>> select_neurons(data, 5.0).neuron_id.values.tolist()
        ['b']
    """
    rates = to_rates(data)["activity"]
    if not is_number(least_rate) or not 0 < least_rate < np.inf:
        raise ValueError(f"least_rate is {least_rate!r}; it must be a positive number of Hz, for example 1.0.")
    if rates.attrs["unit"] != "Hz":
        raise ValueError(f"The activity is in {rates.attrs['unit']!r}, not in Hz; select neurons before anything else.")
    means = rates.values.mean(axis=(0, 1), dtype=np.float64)  # (neuron,)
    kept = means >= least_rate
    if not kept.any():
        raise ValueError(f"No neuron fires at {least_rate:g} Hz or more; the highest mean rate is {means.max():g} Hz.")
    gone = data["neuron_id"].values[~kept]
    step = f"{counted(gone.size, 'neuron')} under {least_rate:g} Hz left out" + (
        f" ({', '.join(gone)})" if gone.size else ""
    )
    chosen = _stepped(data.isel(neuron=kept), None, step)
    silent = [name for name in json.loads(data.attrs["silent"]) if name not in gone]
    return chosen.assign_attrs(silent=json.dumps(silent))


def crop(data: xr.Dataset, window: tuple[float, float]) -> xr.Dataset:
    """Keep the bins of a window.

    Args:
        data: A recording.
        window: Start and end in seconds; bins whose time is at the start or later and before the end stay.

    Returns:
        A recording of the same kind.

    Raises:
        ValueError: If `data` is no recording, or fewer than two bins lie in the window.

    Example:
        >>> from tauflow.neural import recording
        >>> data = recording(np.ones((5, 1, 1)), kind="rates", time=np.arange(5) * 0.1)
        >>> crop(data, (0.1, 0.3)).time.values.tolist()
        [0.1, 0.2]
    """
    check_recording(data)
    inside = _within(data, window)
    if inside.sum() < 2:
        raise ValueError(f"Only one bin lies in {_words(window)}; a recording has two or more.")
    return _stepped(data.isel(time=inside), None, f"cut to {_words(window)}")


def _of_rates(data: xr.Dataset, what: str) -> NDArray[np.float64]:
    check_recording(data)
    if data["activity"].attrs["kind"] != "rates":
        raise ValueError(f"{what} is for rates and this recording has counts of spikes; smooth it, or use to_rates.")
    return data["activity"].values.astype(np.float64)


def _within(data: xr.Dataset, window: tuple[float, float]) -> NDArray[np.bool_]:
    check_window(window)
    time, slack = data["time"].values, _ROUNDING * data.attrs["bin_s"]
    inside = (time >= window[0] - slack) & (time < window[1] - slack)
    if not inside.any():
        raise ValueError(f"No bin lies in {_words(window)}; the times go from {time[0]:g} to {time[-1]:g} s.")
    return np.asarray(inside)


def _words(window: tuple[float, float]) -> str:
    return f"{window[0]:g} to {window[1]:g} s"


def _stepped(data: xr.Dataset, rates: NDArray[Any] | None, step: str, unit: str | None = None) -> xr.Dataset:
    """The recording with other rates, unless None, and one more step."""
    if rates is not None:
        attributes = {"kind": "rates", "unit": unit or data["activity"].attrs["unit"]}
        data = data.assign(activity=(DIMS, rates.astype(np.float32), attributes))
    return data.assign_attrs(steps=json.dumps([*json.loads(data.attrs["steps"]), step]))
