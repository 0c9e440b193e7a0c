"""One line that says how far learning has come: live on a terminal, now and then a plain line elsewhere."""

from __future__ import annotations

import math
import time
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from tauflow.learning import Progress

PLAIN_SECONDS = 5.0
_BAR_WIDTH, _SHORTEST_BAR = 20, 4
_WORDS_WIDTH = 90  # so that the bar does not change its length while numbers do


class ProgressLine:
    """A listener for `Progress` and for texts that name a stage; used as a context.

    Args:
        console: Where the line goes.
        plain_seconds: Seconds between two lines where the console is no terminal, at least.
    """

    def __init__(self, console: Console, plain_seconds: float = PLAIN_SECONDS):
        self._console, self._every = console, plain_seconds
        self._live = Live(console=console, refresh_per_second=8) if console.is_terminal else None
        self._last = -math.inf
        self._shown: Progress | None = None
        self._named = ""  # the stage, until learning is shown in it

    def __enter__(self) -> ProgressLine:
        if self._live is not None:
            self._live.start()
            self._live.update(Text("compiling ...", style="dim"))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def __call__(self, news: Progress | str) -> None:
        """Show the state of learning, or the name of a stage."""
        if isinstance(news, str):
            self._stage(news)
            return
        self._shown = news
        ended = news.running == 0
        if self._live is not None:
            if self._named:
                self._console.print(self._named, soft_wrap=True, highlight=False)
                self._named = ""
            self._live.update(_row(news, self._console.width))
        elif ended or time.monotonic() - self._last >= self._every:
            self._last = time.monotonic()
            self._console.print(sentence(news), soft_wrap=True, highlight=False)

    def _stage(self, text: str) -> None:
        if self._live is None:
            self._console.print(f"{text} ...", soft_wrap=True, highlight=False)
            return
        if self._shown is not None:  # leave the last line of learning where it is
            self._console.print(_row(self._shown, self._console.width))
            self._shown = None
        self._named = f"{text} ..."
        self._live.update(Text(f"{text} ...", style="dim"))


def sentence(news: Progress) -> str:
    """The state of learning in words.

    Example:
        >>> from tauflow.learning import Progress
        >>> sentence(Progress(40, 1000, 3, 0, 1, 0.0123, 104.0, 37.0))
        '40/1000 updates; 3 running, 0 done, 1 diverged; loss 0.0123; 104 updates/s; 0:37 left'
    """
    parts = [f"{news.update}/{news.steps} {news.unit}", _members(news)]
    if math.isfinite(news.loss):
        parts.append(f"loss {news.loss:.3g}")
    if math.isfinite(news.updates_per_second):
        parts.append(f"{news.updates_per_second:.3g} {news.unit}/s")
    if news.note:
        parts.append(news.note)
    if news.running and math.isfinite(news.seconds_left):
        parts.append(f"{clock(news.seconds_left)} left")
    return "; ".join(parts)


def clock(seconds: float) -> str:
    """Seconds as minutes and seconds, or hours, minutes and seconds.

    Example:
        >>> clock(37.2), clock(3723)
        ('0:37', '1:02:03')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _members(news: Progress) -> str:
    return f"{news.running} running, {news.done} done, {news.diverged} diverged"


def _row(news: Progress, width: int) -> Table:
    """One line: the words, and a bar in what they leave of the width, if that is enough for one."""
    words = Text("  ".join(sentence(news).split("; ")), no_wrap=True, overflow="ellipsis")
    room = min(_BAR_WIDTH, width - _WORDS_WIDTH)
    row = Table.grid(padding=(0, 1))
    if room < _SHORTEST_BAR:
        row.add_row(words)
    else:
        row.add_row(ProgressBar(total=max(news.steps, 1), completed=news.update, width=room), words)
    return row
