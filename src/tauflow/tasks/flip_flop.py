"""The flip-flop task: remember which channel was pulsed last, and with which sign."""

from __future__ import annotations

from typing import ClassVar

import jax.numpy as jnp
from jax import Array

from tauflow.tasks.base import Task, Trials
from tauflow.tasks.drawing import as_index, as_sign, as_steps, draw_uniform, one_hot
from tauflow.tasks.settings import (
    check_amplitude,
    check_count,
    check_duration,
    check_fits,
    check_range,
    setting,
)


class FlipFlop(Task):
    r"""Hold the sign of the last pulse on the output of its channel, and 0 on the others, until the next
    pulse.

    After the fixation the first pulse begins; from the onset of one pulse to the onset of the next it takes
    the decision delay plus a drawn stimulus delay. The answer counts from one decision delay after a pulse's
    onset until the next onset (or the end of the trial), on all channels.

    Attributes:
        duration: Length of a trial in membrane times; the paper trains with 50 and shows 100.
        fixation: Time before the first pulse.
        stimulus: Length of a pulse.
        decision_delay: From the onset of a pulse to the moment from which the answer counts.
        stimulus_delay: Shortest and longest stimulus delay; uniform in between.
        channels: Number of input channels, which is also the number of outputs.
        input_amplitude: Size of a pulse.
        target_amplitude: Size of the answer.
        dt: Time step.

    Source: schuessler2020, supplement section 2 and Table S1. Deviation from print: the text lets the delay
        follow the pulse; as in the authors' simulations it counts from the pulse's onset.

    Example:
        >>> FlipFlop().steps, FlipFlop().inputs, FlipFlop().outputs
        (100, 2, 2)
        >>> FlipFlop(duration=100).example().targets.shape
        (200, 1, 2)
    """

    name: ClassVar[str] = "flip-flop"
    paper: ClassVar[str] = "schuessler2020"
    tags: ClassVar[tuple[str, ...]] = ("memory", "discrete")
    example_seed: ClassVar[int] = 0

    duration: float = setting(50.0)
    fixation: float = setting(1.0)
    stimulus: float = setting(1.0)
    decision_delay: float = setting(5.0)
    stimulus_delay: tuple[float, float] = setting((5.0, 25.0))
    channels: int = setting(2)
    input_amplitude: float = setting(1.0)
    target_amplitude: float = setting(0.5)
    dt: float = setting(0.5)

    def check(self) -> None:
        """Check all settings.

        Raises:
            ValueError: If one is out of its range, pulses could overlap, or the first answer does not fit in.
        """
        check_duration("duration", self.duration, shortest=self.dt)
        check_duration("fixation", self.fixation)
        check_duration("stimulus", self.stimulus, shortest=self.dt)
        check_duration("decision_delay", self.decision_delay)
        check_range("stimulus_delay", self.stimulus_delay, shortest=self.dt)
        check_count("channels", self.channels)
        check_amplitude("input_amplitude", self.input_amplitude)
        check_amplitude("target_amplitude", self.target_amplitude)
        shortest = self.decision_delay + self.stimulus_delay[0]
        if self.stimulus > shortest:
            raise ValueError(
                f"stimulus is {self.stimulus:g}, longer than the {shortest:g} from one pulse to the next "
                "(decision_delay plus the shortest stimulus_delay); give a shorter stimulus or longer delays."
            )
        first = {"fixation": self.fixation, "decision_delay": self.decision_delay, "one step dt": self.dt}
        check_fits(first, self.duration)

    @property
    def inputs(self) -> int:
        """Number of input channels."""
        return self.channels

    @property
    def outputs(self) -> int:
        """Number of output channels."""
        return self.channels

    @property
    def pulses(self) -> int:
        """Largest number of pulses that a trial can hold; later ones that are drawn fall behind its end."""
        shortest = self.steps_in(self.decision_delay) + self.steps_in(self.stimulus_delay[0])
        return -(-(self.steps - self.steps_in(self.fixation)) // shortest)

    def draw(self, trials: int, key: Array, dtype: str) -> Trials:
        """Draw all pulses that could fit, and compare the time grid with their onsets."""
        for_interval, for_channel, for_sign = draw_uniform(key, (3, trials, self.pulses))  # each (trial, pulse)
        delay = self.steps_in(self.decision_delay)
        interval = delay + as_steps(for_interval, self.stimulus_delay, self.dt)  # (trial, pulse)
        stop = self.steps_in(self.fixation) + jnp.cumsum(interval, axis=1, dtype=jnp.int32)  # (trial, pulse)
        onset = stop - interval  # (trial, pulse)

        sign = as_sign(for_sign).astype(dtype)  # (trial, pulse)
        channel = one_hot(as_index(for_channel, self.channels), self.channels, dtype)  # (trial, pulse, channel)
        message = sign[..., None] * channel  # (trial, pulse, channel)

        stimulus = self.steps_in(self.stimulus)
        pulse = self.between(onset, onset + stimulus).astype(dtype)  # (time, trial, pulse)
        decision = self.between(onset + delay, stop).astype(dtype)  # (time, trial, pulse)
        inputs = (pulse[..., None] * message[None]).sum(axis=2)  # (time, trial, channel)
        targets = (decision[..., None] * message[None]).sum(axis=2)  # (time, trial, channel)
        mask = jnp.broadcast_to(decision.sum(axis=2, keepdims=True), targets.shape)  # (time, trial, channel)
        return Trials(self.input_amplitude * inputs, self.target_amplitude * targets, mask)
