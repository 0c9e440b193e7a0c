"""What there is: papers with their figures, tasks, networks, theories, a line each."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any


def lines() -> Iterator[str]:
    """The lines of `tauflow list`."""
    import equinox as eqx

    from tauflow import networks
    from tauflow.papers import PAPERS
    from tauflow.tasks import TASKS
    from tauflow.theory import THEORIES

    yield "Papers and figures (tauflow reproduce PAPER [FIGURE ...] [--quick])"
    for short, paper in PAPERS.items():
        yield f"  {short:<16} {paper.title} [{paper.citation}]"
        for name, figure in paper.figures.items():
            yield f"    {name:<14} {figure.description}"
    yield "Tasks (tauflow study TASK)"
    for name, task in TASKS.items():
        yield f"  {name:<16} {first_sentence(task)} [{task.paper}; {', '.join(task.tags)}]"
    yield "Networks (tauflow.networks)"
    for name, network in vars(networks).items():
        if inspect.isclass(network) and issubclass(network, eqx.Module) and network.__module__.startswith("tauflow."):
            yield f"  {name:<16} {first_sentence(network)}"
    yield "Theories (tauflow.theory), overlaid wherever their assumptions hold"
    for theory in THEORIES:
        yield f"  {theory.name:<16} {first_sentence(type(theory))} [{theory.paper}]"


def first_sentence(thing: Any) -> str:
    """The first sentence of a docstring, on one line.

    Example:
        >>> first_sentence(first_sentence)
        'The first sentence of a docstring, on one line.'
    """
    paragraph = " ".join((inspect.getdoc(thing) or "").split("\n\n")[0].split())
    return paragraph.split(". ")[0].rstrip(".") + "." if paragraph else ""
