"""What is asked of a network: each task draws trials with inputs, targets and a mask of what counts."""

from __future__ import annotations

import dataclasses
from typing import Any

from tauflow.names import check_name
from tauflow.tasks.base import Task, Trials
from tauflow.tasks.cosine import Cosine
from tauflow.tasks.drawing import as_index, as_sign, as_steps, draw_uniform, one_hot
from tauflow.tasks.exponential_filters import DampedOscillator, ExponentialSum, LeakyIntegrator
from tauflow.tasks.filters import FilterTask, Realisation, SampledFilter
from tauflow.tasks.fixed_point import FixedPoint
from tauflow.tasks.flip_flop import FlipFlop
from tauflow.tasks.mante import COHERENCES, SIGNS, Mante
from tauflow.tasks.reaching import PERTURBATIONS, Hand, Reaching, direction_error
from tauflow.tasks.romo import Romo
from tauflow.tasks.settings import setting

#: The tasks by name.
TASKS: dict[str, type[Task]] = {
    task.name: task
    for task in (
        FlipFlop, Mante, Romo, FixedPoint, Cosine, LeakyIntegrator, DampedOscillator, ExponentialSum, SampledFilter,
        Reaching,
    )
}  # fmt: skip


def make_task(name: str, **parameters: Any) -> Task:
    """Make a task from its name and settings, as the command line and saved configurations do.

    Args:
        name: One of `TASKS`.
        **parameters: Settings that differ from their defaults.

    Returns:
        The task.

    Raises:
        ValueError: If there is no such task or setting, or a value is out of its range.

    Example:
        >>> make_task("flip-flop", duration=100.0).steps
        200
        >>> make_task("flipflop")
        Traceback (most recent call last):
        ValueError: There is no task 'flipflop'; did you mean 'flip-flop'? There are flip-flop, mante, ...
    """
    check_name("task", name, TASKS)
    known = [field.name for field in dataclasses.fields(TASKS[name])]
    for parameter in parameters:
        check_name("setting", parameter, known, of=name)
    return TASKS[name](**parameters)


__all__ = [
    "COHERENCES",
    "PERTURBATIONS",
    "SIGNS",
    "TASKS",
    "Cosine",
    "DampedOscillator",
    "ExponentialSum",
    "FilterTask",
    "FixedPoint",
    "FlipFlop",
    "Hand",
    "LeakyIntegrator",
    "Mante",
    "Reaching",
    "Realisation",
    "Romo",
    "SampledFilter",
    "Task",
    "Trials",
    "as_index",
    "as_sign",
    "as_steps",
    "direction_error",
    "draw_uniform",
    "make_task",
    "one_hot",
    "setting",
]
