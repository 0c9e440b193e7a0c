"""The simple task: bring the output to a given value and keep it there under a constant input."""

from __future__ import annotations

from typing import ClassVar

import jax.numpy as jnp
from jax import Array

from tauflow.tasks.base import Task, Trials
from tauflow.tasks.settings import check_amplitude, check_duration, check_fits, setting


class FixedPoint(Task):
    r"""Reach the target by the end of a trial, from a constant input that is on from the end of the fixation.

    Nothing is drawn: all trials are equal. Only the last moments count, when a stable network has converged,
    so for a linear network and a long trial the loss is that of the fixed point,
    `tauflow.objectives.FixedPointLoss`.

    Attributes:
        duration: Length of a trial in membrane times.
        fixation: Time before the input comes on.
        decision: Length of the decision period, at the end of the trial.
        input_amplitude: Size of the input.
        target_amplitude: The value to reach; the paper uses 0.5 and 2.
        dt: Time step.

    Source: schuessler2020, supplement section 2 and Table S1.

    Example:
        >>> FixedPoint().steps
        202
        >>> trial = FixedPoint(target_amplitude=2.0).example()
        >>> float(trial.inputs[1, 0, 0]), float(trial.inputs[2, 0, 0]), float(trial.mask.sum())
        (0.0, 1.0, 2.0)
    """

    name: ClassVar[str] = "fixed-point"
    paper: ClassVar[str] = "schuessler2020"
    tags: ClassVar[tuple[str, ...]] = ("linear", "deterministic")
    inputs: ClassVar[int] = 1
    outputs: ClassVar[int] = 1

    duration: float = setting(101.0)
    fixation: float = setting(1.0)
    decision: float = setting(1.0)
    input_amplitude: float = setting(1.0)
    target_amplitude: float = setting(0.5)
    dt: float = setting(0.5)

    def check(self) -> None:
        """Check all settings.

        Raises:
            ValueError: If one is out of its range, or fixation and decision do not fit into a trial.
        """
        check_duration("duration", self.duration, shortest=self.dt)
        check_duration("fixation", self.fixation)
        check_duration("decision", self.decision, shortest=self.dt)
        check_amplitude("input_amplitude", self.input_amplitude)
        check_amplitude("target_amplitude", self.target_amplitude)
        check_fits({"fixation": self.fixation, "decision": self.decision}, self.duration)

    def draw(self, trials: int, key: Array, dtype: str) -> Trials:
        """Repeat the one trial there is; the key is not used."""
        shape = (self.steps, trials, 1)
        begin, answer = self.steps_in(self.fixation), self.steps - self.steps_in(self.decision)
        on = self.between(begin, self.steps).astype(dtype)[:, None, None]  # (time, 1, 1)
        end = self.between(answer, self.steps).astype(dtype)[:, None, None]  # (time, 1, 1)
        return Trials(
            jnp.broadcast_to(self.input_amplitude * on, shape),
            jnp.broadcast_to(self.target_amplitude * end, shape),
            jnp.broadcast_to(end, shape),
        )
