"""Which trials and neurons of a file are read: flags of good trials, what is dropped and why, neurons by name."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tauflow.names import check_name
from tauflow.networks.checks import is_number
from tauflow.neural.recording import as_labels, counted, listed


def as_flags(name: str, values: Any) -> NDArray[np.bool_]:
    """Turn a column of true and false, or of 1 and 0, into booleans.

    Raises:
        ValueError: If it holds anything else.

    Example:
        >>> as_flags("good", [1, 0]).tolist()
        [True, False]
    """
    array = np.asarray(values)
    if array.dtype == object and all(isinstance(value, (bool, np.bool_)) for value in array.ravel()):
        array = array.astype(bool)
    if array.dtype.kind not in "biuf" or not np.isin(array, (0, 1)).all():
        others = [value for value in np.unique(array.astype(str)).tolist() if value not in ("0", "1", "True", "False")]
        raise ValueError(
            f"{name} holds {listed(others, 3)}; a column that says which trials are good holds true or false."
        )
    return array.astype(bool)


def tell_dropped(trial_id: NDArray[Any], reasons: NDArray[Any], source: str, *, asked: str) -> list[dict[str, Any]]:
    """List the trials that are left out, and warn of those that nobody asked to leave out.

    Args:
        trial_id: Ids of all trials, shape (trial,).
        reasons: Why each is left out, "" if it is not, shape (trial,).
        source: Name of the file.
        asked: The reason that the user gave.

    Returns:
        `trial_id` and `reason` of each.

    Raises:
        ValueError: If no trial is left.

    Example:
        >>> tell_dropped(np.array([4, 5]), np.array(["", "not good"], object), "a.nwb", asked="not good")
        [{'trial_id': 5, 'reason': 'not good'}]
    """
    why = Counter(reason for reason in reasons if reason not in ("", asked))
    if (reasons != "").all():
        counts = Counter(reasons.tolist()).most_common(3)
        raise ValueError(
            f"None of {counted(len(reasons), 'trial')} is left: "
            + "; ".join(f"{count} {reason}" for reason, count in counts)
            + ". Check the window, the event and which neurons to read (neurons=[...])."
        )
    if why:
        ids = trial_id[[reason in why for reason in reasons]].tolist()
        warnings.warn(
            f"{source}: {len(ids)} of {counted(len(reasons), 'trial')} dropped (ids {listed(ids)}): "
            + "; ".join(f"{count} {reason}" for reason, count in why.most_common(3))
            + ". All ids and reasons are in attrs['dropped'].",
            stacklevel=2,
        )
    return [
        {"trial_id": int(number), "reason": reason} for number, reason in zip(trial_id, reasons, strict=True) if reason
    ]


def select_rows(ids: Sequence[str], neurons: Sequence[Any] | None) -> list[int]:
    """Rows of the neurons that were asked for, in the file's order; all of them by default.

    Raises:
        ValueError: If one of them is not there.

    Example:
        >>> select_rows(["3", "5", "8"], [8, 3])
        [0, 2]
    """
    if neurons is None:
        return list(range(len(ids)))
    wanted = as_labels("neurons", neurons).tolist()
    for name in wanted:
        check_name("neuron", name, ids)
    return [row for row, name in enumerate(ids) if name in wanted]


def check_seconds(name: str, value: Any) -> None:
    """Raise a `ValueError` unless `value` is a positive, finite number of seconds.

    Example:
        >>> check_seconds("bin_s", 0)
        Traceback (most recent call last):
        ValueError: bin_s is 0; it must be a positive number of seconds, for example bin_s=0.01.
    """
    if not is_number(value) or not 0 < value < np.inf:
        raise ValueError(f"{name} is {value!r}; it must be a positive number of seconds, for example {name}=0.01.")


def check_window(window: Any) -> None:
    """Raise a `ValueError` unless `window` is a start and a later end in seconds.

    Example:
        >>> check_window((1.0, 0.2))
        Traceback (most recent call last):
        ValueError: window is (1.0, 0.2); it must be a start and a later end in seconds, for example (-0.2, 1.0).
    """
    fits = isinstance(window, (tuple, list)) and len(window) == 2 and all(is_number(end) for end in window)
    if not fits or not -np.inf < window[0] < window[1] < np.inf:
        raise ValueError(
            f"window is {window!r}; it must be a start and a later end in seconds, for example (-0.2, 1.0)."
        )
