"""Options of commands: what is no number stays text, so that the library says what it must be."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import typer


def real(text: str) -> Any:
    """A number; what is none stays text.

    Example:
        >>> real("0.5"), real("high")
        (0.5, 'high')
    """
    try:
        return float(text)
    except ValueError:
        return text


def whole(text: str) -> Any:
    """A whole number; what is none stays as it is.

    Example:
        >>> whole("5"), whole("2.5"), whole("many")
        (5, 2.5, 'many')
    """
    try:
        return int(text)
    except ValueError:
        return real(text)


def several(text: str) -> Any:
    """Whole numbers from 1-6 or 1,2,4, and no number from none; anything else stays text.

    Example:
        >>> several("1-3"), several("1,2,4"), several("none"), several("few")
        ([1, 2, 3], [1, 2, 4], [], 'few')
    """
    first, dash, last = text.partition("-")
    if text == "none":
        return []
    if dash and first.isdecimal() and last.isdecimal() and int(first) <= int(last) < 10**4:
        return list(range(int(first), int(last) + 1))
    numbers = text.split(",")
    return [int(number) for number in numbers] if all(number.isdecimal() for number in numbers) else text


def number(help: str, *, integer: bool = False, metavar: str | None = None) -> Any:
    """An option that takes a number, or several if its type is a tuple."""
    kind = "INTEGER" if integer else "NUMBER"
    return typer.Option(help=help, parser=whole if integer else real, metavar=metavar or kind)


def settings(pairs: list[str], elsewhere: Mapping[str, str]) -> dict[str, Any]:
    """Settings from NAME=VALUE, where a value is a number, a list as in JSON, or text.

    Args:
        pairs: What came with --set.
        elsewhere: Settings that have an option of their own, and its name.

    Raises:
        ValueError: If a pair is none, or a setting comes twice or has an option of its own.

    Example:
        >>> settings(["c=0.1", "kind=fast"], {})
        {'c': 0.1, 'kind': 'fast'}
    """
    found: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not (name and equals):
            raise ValueError(f"{pair!r} came with --set; it must be NAME=VALUE, for example --set c=0.1.")
        if name in found:
            raise ValueError(f"--set names {name} twice; give it once.")
        if name in elsewhere:
            raise ValueError(f"--set has {name}, which has an option of its own; give it as --{elsewhere[name]}.")
        try:
            found[name] = json.loads(text)
        except ValueError:
            found[name] = text
    return found


def refuse_with_resume(given: Mapping[str, Any], what: str) -> None:
    """Raise a `ValueError` if options came beside --resume: `what`, a study or a fit, goes on with its own."""
    for name in given:
        option = "--" + name.replace("_", "-")
        raise ValueError(f"{option} came with --resume; a {what} goes on with its own settings, so leave {option} out.")
