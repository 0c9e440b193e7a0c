"""Early, middle and late: the trials between which a page compares."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

MOST = 4  # epochs to be told apart; of more, thirds of the recording say more


class Stage(NamedTuple):
    """A stretch of learning.

    Attributes:
        name: What it is called.
        trials: Positions of its trials, rising, shape (trial,).
    """

    name: str
    trials: NDArray[Any]


def stages(epochs: ArrayLike, conditions: ArrayLike) -> list[Stage]:
    """Stretches of learning to compare: the second half of each epoch, or thirds of the trials without epochs.

    In the second half of an epoch learning has come to where the epoch leads it. It begins earlier where a condition
    would be missing. Where there is one epoch, where there are more than four stretches of trials of one epoch, or
    where one of them has less than four trials, it is thirds.

    Args:
        epochs: Epoch of each trial in order, shape (trial,).
        conditions: Condition of each trial, shape (trial,).

    Returns:
        Stages in order, each with trials: "late baseline", ..., or "early", "middle" and "late" thirds.

    Example:
        >>> found = stages(["before"] * 4 + ["after"] * 4, ["x", "y", "x", "x", "x", "y", "x", "y"])
        >>> [(stage.name, stage.trials.tolist()) for stage in found]
        [('late before', [1, 2, 3]), ('late after', [6, 7])]
        >>> [(stage.name, stage.trials.tolist()) for stage in stages(["all"] * 6, ["x"] * 6)]
        [('early', [0, 1]), ('middle', [2, 3]), ('late', [4, 5])]
    """
    labels, kinds = np.asarray(epochs), np.asarray(conditions)
    starts = np.flatnonzero(np.r_[True, labels[1:] != labels[:-1]])
    pieces = np.split(np.arange(len(labels)), starts[1:])
    if not 2 <= len(pieces) <= MOST or min(map(len, pieces)) < 4:
        thirds = np.array_split(np.arange(len(labels)), 3)
        return [Stage(n, part) for n, part in zip(("early", "middle", "late"), thirds, strict=True) if part.size]
    names = [str(labels[piece[0]]) for piece in pieces]
    told = [f"{name} {names[: i + 1].count(name)}" if names.count(name) > 1 else name for i, name in enumerate(names)]
    return [Stage(f"late {name}", _late(piece, kinds[piece])) for name, piece in zip(told, pieces, strict=True)]


def _late(piece: NDArray[Any], conditions: NDArray[Any]) -> NDArray[Any]:
    """The second half of some trials, or more of their end if it takes more for every condition to be there."""
    last = [np.flatnonzero(conditions == name)[-1] for name in np.unique(conditions)]
    return piece[min(len(piece) // 2, *last) :]
