"""How far a run has come, for whoever shows it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Progress:
    """State of an ensemble that is learning.

    Attributes:
        update: Updates done by the members that still run.
        steps: Updates to do.
        running: Members still learning.
        done: Members that have done all their updates.
        diverged: Members stopped by a non-finite loss or gradient.
        loss: Median training loss of the members that have not diverged; NaN before the first update.
        updates_per_second: Updates per second, summed over members, since compilation ended; NaN until then.
        seconds_left: Estimated time left, in seconds; NaN until the first update after compilation.
        unit: What is counted: "updates", or the saved "points" of a flow.
        note: What else is to be told, such as how much a fit explains.
    """

    update: int
    steps: int
    running: int
    done: int
    diverged: int
    loss: float
    updates_per_second: float
    seconds_left: float
    unit: str = "updates"
    note: str = ""


class Reporter:
    """Calls `listener(Progress)` after each chunk, over all groups of an ensemble.

    The first `compiled` chunks carry compilation: the clock starts after them.
    """

    def __init__(
        self,
        listener: Callable[[Progress], None] | None,
        members: int,
        steps: int,
        unit: str = "updates",
        compiled: int = 1,
    ):
        self._listener, self._members, self._steps, self._unit = listener, members, steps, unit
        self._compiled = compiled
        self._start = float("nan")
        self._updates_now = 0  # member-updates since the clock started
        self._behind = 0  # member-updates of finished groups and of what was resumed
        self._finished = 0
        self._diverged = 0

    def start_group(self, members: int, update: int) -> None:
        """Note that a group of members begins, some updates of which may be done already."""
        self._behind += members * update

    def end_group(self, alive: np.ndarray) -> None:
        """Note that a group has ended."""
        self._finished += int(alive.sum())
        self._diverged += int((~alive).sum())

    def chunk(
        self, update: int, alive: np.ndarray, losses: np.ndarray, updates: int, *, ended: bool | None = None
    ) -> None:
        """Report one chunk: `updates` more for the members `alive` (member,), whose losses are (member, update).

        A chunk is the last one of its group if `ended` says so; by default, if all steps are done.
        """
        now = time.perf_counter()
        if self._compiled > 0:
            self._compiled, self._start = self._compiled - 1, now
            self._behind += updates * alive.size
        else:
            self._updates_now += updates * alive.size
        if self._listener is None:
            return
        rate = self._updates_now / (now - self._start) if self._updates_now else float("nan")
        last = losses[alive, -1] if losses.shape[1] and alive.any() else np.array([np.nan])
        ended = update >= self._steps if ended is None else ended
        if ended:
            self._behind += (self._steps - update) * alive.size  # updates that need not be done
        left = self._members * self._steps - self._behind - self._updates_now
        running = 0 if ended else int(alive.sum())
        waiting = self._members - self._finished - self._diverged - alive.size
        self._listener(
            Progress(
                update=update,
                steps=self._steps,
                running=running + waiting,
                done=self._finished + (int(alive.sum()) if ended else 0),
                diverged=self._diverged + int((~alive).sum()),
                loss=float(np.median(last)),
                updates_per_second=rate,
                seconds_left=left / rate if rate > 0 else 0.0 if left == 0 else float("nan"),
                unit=self._unit,
            )
        )
