"""The Mante task: of several noisy signals, report the sign of the one that the context names."""

from __future__ import annotations

from typing import ClassVar

import jax
import jax.numpy as jnp
from jax import Array

from tauflow.tasks.base import Task, Trials
from tauflow.tasks.drawing import as_index, draw_uniform, one_hot
from tauflow.tasks.settings import check_amplitude, check_count, check_duration, is_number, setting

#: Coherences that the authors drew from.
COHERENCES = (-1.0, -0.5, -0.25, -0.125, 0.125, 0.25, 0.5, 1.0)
#: The paper's text: only the sign of a signal is drawn.
SIGNS = (-1.0, 1.0)


class Mante(Task):
    r"""Integrate the signal that the context selects, ignore the others, and report its sign.

    Input channels are the contexts first, then the signals. During the stimulus one context channel is on and
    every signal has a mean of its own; white noise is on the signals during the whole trial. The output
    should be 0 until the stimulus ends, and the sign of the selected signal during the decision; the delay
    between does not count.

    The noise of a signal at one step is $a_{noise}\,n/\sqrt{\Delta t}$ with a standard normal $n$, so that
    its integral over time does not depend on the step.

    Attributes:
        fixation: Time before the stimulus, in membrane times.
        stimulus: Length of the stimulus.
        decision_delay: From the end of the stimulus to the decision.
        decision: Length of the decision period, at the end of the trial.
        channels: Number of signals, which is also the number of contexts.
        coherences: Values that the mean of a signal is drawn from, in units of the input amplitude. The
            default is the authors'; `coherences=SIGNS` is the paper's text.
        noise: Standard deviation of the signals' white noise, in units of the input amplitude.
        input_amplitude: Size of the signals at coherence 1.
        context_amplitude: Size of the context input.
        target_amplitude: Size of the answer.
        dt: Time step.

    Source: schuessler2020, supplement section 2 and Table S1. Deviation from print: the noise is divided by
        the square root of the time step, not of the learning rate, and coherences are the authors' unless
        `SIGNS` are given.

    Example:
        >>> Mante().duration, Mante().steps, Mante().inputs, Mante().outputs
        (48.0, 96, 4, 1)
        >>> sample = Mante(coherences=SIGNS, noise=0.0).sample(4, key=jax.random.key(0))
        >>> sorted({float(value) for value in sample.inputs[10, :, 2:].ravel()})
        [-1.0, 1.0]
    """

    name: ClassVar[str] = "mante"
    paper: ClassVar[str] = "schuessler2020"
    tags: ClassVar[tuple[str, ...]] = ("integration", "context", "decision", "noise")
    example_seed: ClassVar[int] = 0
    outputs: ClassVar[int] = 1

    fixation: float = setting(3.0)
    stimulus: float = setting(20.0)
    decision_delay: float = setting(5.0)
    decision: float = setting(20.0)
    channels: int = setting(2)
    coherences: tuple[float, ...] = setting(COHERENCES)
    noise: float = setting(0.05)
    input_amplitude: float = setting(1.0)
    context_amplitude: float = setting(1.0)
    target_amplitude: float = setting(0.5)
    dt: float = setting(0.5)

    def check(self) -> None:
        """Check all settings.

        Raises:
            ValueError: If one is out of its range.
        """
        check_duration("fixation", self.fixation)
        check_duration("stimulus", self.stimulus, shortest=self.dt)
        check_duration("decision_delay", self.decision_delay)
        check_duration("decision", self.decision, shortest=self.dt)
        check_count("channels", self.channels)
        for amplitude in ("input_amplitude", "context_amplitude", "target_amplitude"):
            check_amplitude(amplitude, getattr(self, amplitude))
        if not is_number(self.noise) or self.noise < 0:
            raise ValueError(f"noise is {self.noise!r}; it must be a number >= 0, for example noise=0.05.")
        values = self.coherences
        if not isinstance(values, tuple) or not values or not all(is_number(c) and c != 0 for c in values):
            raise ValueError(
                f"coherences is {values!r}; it must be a sequence of numbers other than 0 (their sign is what "
                "the network reports), for example coherences=(-1.0, 1.0)."
            )

    @property
    def inputs(self) -> int:
        """Number of input channels: the contexts, then the signals."""
        return 2 * self.channels

    @property
    def duration(self) -> float:
        """Length of a trial in membrane times, the sum of its periods."""
        return self.fixation + self.stimulus + self.decision_delay + self.decision

    def draw(self, trials: int, key: Array, dtype: str) -> Trials:
        """Draw context, coherences and noise."""
        key_choice, key_noise = jax.random.split(key)
        uniform = draw_uniform(key_choice, (trials, 1 + self.channels))  # (trial, context + signal)
        begin = self.steps_in(self.fixation)
        end = begin + self.steps_in(self.stimulus)
        answer = end + self.steps_in(self.decision_delay)

        context = one_hot(as_index(uniform[:, 0], self.channels), self.channels, dtype)  # (trial, context)
        which = as_index(uniform[:, 1:], len(self.coherences))  # (trial, signal)
        coherence = jnp.asarray(self.coherences, dtype)[which]  # (trial, signal)
        shape = (self.steps, trials, self.channels)
        white = jax.random.normal(key_noise, shape, jnp.float32).astype(dtype)

        stimulus = self.between(begin, end).astype(dtype)[:, None, None]  # (time, 1, 1)
        decision = self.between(answer, self.steps).astype(dtype)[:, None, None]  # (time, 1, 1)
        contexts = self.context_amplitude * stimulus * context[None]  # (time, trial, context)
        noise = self.noise / self.dt**0.5 * white  # (time, trial, signal)
        signals = self.input_amplitude * (stimulus * coherence[None] + noise)  # (time, trial, signal)

        sign = jnp.sign((context * coherence).sum(axis=1))  # (trial,)
        targets = self.target_amplitude * decision * sign[None, :, None]  # (time, trial, 1)
        counts = self.between(0, end).astype(dtype)[:, None, None] + decision  # (time, 1, 1)
        inputs = jnp.concatenate([contexts, signals], axis=2)  # (time, trial, context + signal)
        return Trials(inputs, targets, jnp.broadcast_to(counts, targets.shape))
