"""The Romo task: of two pulses, one after the other, say which was larger."""

from __future__ import annotations

from typing import ClassVar

import jax.numpy as jnp
from jax import Array

from tauflow.tasks.base import Task, Trials
from tauflow.tasks.drawing import as_steps, draw_uniform, one_hot
from tauflow.tasks.settings import (
    check_amplitude,
    check_duration,
    check_range,
    is_number,
    setting,
)


class Romo(Task):
    r"""Remember the first of two pulses, compare the second with it, and raise the output of the larger one.

    The second pulse follows the first after a drawn delay. The outputs should be 0 until the second pulse
    ends; after the decision delay the output that belongs to the larger pulse should be on, the other 0, for
    the decision period. What comes later (where the drawn delay is not the longest one) does not count.

    Attributes:
        fixation: Time before the first pulse, in membrane times.
        stimulus: Length of each pulse.
        stimulus_delay: Shortest and longest time between the pulses; uniform in between.
        decision_delay: From the end of the second pulse to the decision.
        decision: Length of the decision period.
        amplitudes: Smallest and largest pulse; both are uniform in between, given that they differ enough.
        smallest_difference: Pulses that differ by less are not drawn.
        target_amplitude: Size of the answer.
        dt: Time step.

    Source: schuessler2020, supplement section 2 and Table S1. Deviation from print: a trial lasts 28 membrane
        times, the sum of its longest periods; the table says 30.

    Example:
        >>> Romo().duration, Romo().steps, Romo().inputs, Romo().outputs
        (28.0, 56, 1, 2)
    """

    name: ClassVar[str] = "romo"
    paper: ClassVar[str] = "schuessler2020"
    tags: ClassVar[tuple[str, ...]] = ("memory", "comparison", "decision")
    example_seed: ClassVar[int] = 0
    inputs: ClassVar[int] = 1
    outputs: ClassVar[int] = 2

    fixation: float = setting(3.0)
    stimulus: float = setting(1.0)
    stimulus_delay: tuple[float, float] = setting((2.0, 8.0))
    decision_delay: float = setting(5.0)
    decision: float = setting(10.0)
    amplitudes: tuple[float, float] = setting((0.5, 1.5))
    smallest_difference: float = setting(0.2)
    target_amplitude: float = setting(0.5)
    dt: float = setting(0.5)

    def check(self) -> None:
        """Check all settings.

        Raises:
            ValueError: If one is out of its range, or no two amplitudes can differ enough.
        """
        check_duration("fixation", self.fixation)
        check_duration("stimulus", self.stimulus, shortest=self.dt)
        check_range("stimulus_delay", self.stimulus_delay)
        check_duration("decision_delay", self.decision_delay)
        check_duration("decision", self.decision, shortest=self.dt)
        check_range("amplitudes", self.amplitudes, shortest=float("-inf"))
        check_amplitude("target_amplitude", self.target_amplitude)
        width = self.amplitudes[1] - self.amplitudes[0]
        if not is_number(self.smallest_difference) or not 0 <= self.smallest_difference < width:
            raise ValueError(
                f"smallest_difference is {self.smallest_difference!r}; it must be a number >= 0 and below "
                f"{width:g}, the width of amplitudes={self.amplitudes}."
            )

    @property
    def duration(self) -> float:
        """Length of a trial in membrane times, the sum of its periods with the longest delay."""
        delays = self.stimulus_delay[1] + self.decision_delay
        return self.fixation + 2 * self.stimulus + delays + self.decision

    def draw(self, trials: int, key: Array, dtype: str) -> Trials:
        """Draw the amplitudes and the delay between the pulses."""
        uniform = draw_uniform(key, (3, trials))  # (what, trial)
        first, second = as_amplitudes(uniform[:2], self.amplitudes, self.smallest_difference)  # each (trial,)
        delay = as_steps(uniform[2], self.stimulus_delay, self.dt)  # (trial,)
        pulse = self.steps_in(self.stimulus)
        first_end = self.steps_in(self.fixation) + pulse
        second_end = first_end + delay + pulse  # (trial,)
        answer = second_end + self.steps_in(self.decision_delay)  # (trial,)

        during_first = self.between(first_end - pulse, first_end).astype(dtype)[:, None]  # (time, 1)
        during_second = self.between(second_end - pulse, second_end).astype(dtype)  # (time, trial)
        inputs = during_first * first.astype(dtype)[None] + during_second * second.astype(dtype)[None]

        decision = self.between(answer, answer + self.steps_in(self.decision))  # (time, trial)
        larger = one_hot((second > first).astype(jnp.int32), self.outputs, dtype)  # (trial, output)
        targets = decision.astype(dtype)[..., None] * larger[None]  # (time, trial, output)
        counts = self.between(jnp.zeros_like(second_end), second_end) | decision  # (time, trial)
        mask = jnp.broadcast_to(counts.astype(dtype)[..., None], targets.shape)  # (time, trial, output)
        return Trials(inputs[..., None], self.target_amplitude * targets, mask)


def as_amplitudes(uniform: Array, amplitudes: tuple[float, float], smallest_difference: float) -> tuple[Array, Array]:
    r"""Turn uniform numbers into pairs, uniform in a square given that their members differ by at least some amount.

    The pairs wanted fill two triangles, one on either side of the diagonal of $[low, high]^2$. Both are a half of the
    smaller square $[low, high - d]^2$ whose larger coordinate was moved up by $d$, so this needs no redrawing.

    Args:
        uniform: Numbers in [0, 1), shape (2, trial).
        amplitudes: The ends of the interval, low < high.
        smallest_difference: d >= 0, below high - low.

    Returns:
        First and second members, each (trial,).

    Source: the distribution of schuessler2020, supplement section 2, which redraws; exact, by the argument above.

    Example:
        >>> first, second = as_amplitudes(jnp.array([[0.0, 0.5], [0.5, 0.0]]), (0.5, 1.5), 0.2)
        >>> [round(float(a), 3) for a in first], [round(float(b), 3) for b in second]
        ([0.5, 1.1], [1.1, 0.5])
    """
    low, high = amplitudes
    first, second = low + (high - smallest_difference - low) * uniform  # each (trial,)
    second_larger = second > first  # (trial,)
    return (
        jnp.where(second_larger, first, first + smallest_difference),
        jnp.where(second_larger, second + smallest_difference, second),
    )
