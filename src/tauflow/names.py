"""Names that a user gives for things that there are: one check, and one sentence when there is no such thing."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any


def check_name(what: str, name: Any, known: Iterable[str], *, of: str = "") -> None:
    """Check that there is a thing of this name.

    Args:
        what: What is named, for example "task".
        name: What the user gave.
        known: The names there are.
        of: Where it was looked for, for example "romo", if a user may take it for somewhere else.

    Raises:
        ValueError: If `name` is none of `known`; the message has the closest one and all of them.

    Example:
        >>> check_name("task", "flipflop", ["flip-flop", "romo"])
        Traceback (most recent call last):
        ValueError: There is no task 'flipflop'; did you mean 'flip-flop'? There are flip-flop, romo.
        >>> check_name("setting", 3, ["dt"], of="romo")
        Traceback (most recent call last):
        ValueError: There is no setting 3 of romo; there are dt.
    """
    known = list(known)
    if isinstance(name, str) and name in known:
        return
    close = get_close_matches(str(name).lower(), known, n=1)
    hint = f"did you mean {close[0]!r}? There" if close else "there"
    raise ValueError(f"There is no {what} {name!r}{f' of {of}' if of else ''}; {hint} are {', '.join(known)}.")
