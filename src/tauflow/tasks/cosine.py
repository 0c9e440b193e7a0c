"""The cosine task: go on oscillating after a single kick."""

from __future__ import annotations

from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from jax import Array

from tauflow.tasks.base import Task, Trials
from tauflow.tasks.settings import check_amplitude, check_duration, check_fits, is_number, setting


class Cosine(Task):
    r"""Produce a cosine from a fixed initial state, with no input after it.

    The initial state is set by an input of size $1/\Delta t$ during step 0 alone: from rest,
    $x_1 = \Delta t\, W_{in} / \Delta t = W_{in}$. The output read after that step is at time 0 and should be
    $\cos 0$; index $k$ is time $k\,\Delta t$. Nothing is drawn: all trials are equal.

    Attributes:
        duration: Length of a trial in membrane times.
        period: Period of the cosine.
        counted: How long the answer counts, from the beginning; the rest of a trial shows whether it goes on.
        target_amplitude: Size of the cosine.
        dt: Time step; the paper takes a smaller one than for its other tasks.

    Source: schuessler2020, supplement Fig. S5. Deviation from print: none; the authors' simulations start at
        $W_{in}$ and read the first output one step later than here, against the same target.

    Example:
        >>> Cosine().steps, float(Cosine().example().inputs.sum())
        (200, 10.0)
    """

    name: ClassVar[str] = "cosine"
    paper: ClassVar[str] = "schuessler2020"
    tags: ClassVar[tuple[str, ...]] = ("oscillation", "linear", "deterministic")
    inputs: ClassVar[int] = 1
    outputs: ClassVar[int] = 1

    duration: float = setting(20.0)
    period: float = setting(5.0)
    counted: float = setting(10.0)
    target_amplitude: float = setting(1.0)
    dt: float = setting(0.1)

    def check(self) -> None:
        """Check all settings.

        Raises:
            ValueError: If one is out of its range, or the part that counts is longer than a trial.
        """
        check_duration("duration", self.duration, shortest=self.dt)
        check_duration("counted", self.counted, shortest=self.dt)
        check_amplitude("target_amplitude", self.target_amplitude)
        check_fits({"counted": self.counted}, self.duration)
        if not is_number(self.period) or self.period <= 2 * self.dt:
            raise ValueError(
                f"period is {self.period!r}; it must be a number above two time steps ({2 * self.dt:g}), "
                "or the steps cannot show the oscillation."
            )

    def draw(self, trials: int, key: Array, dtype: str) -> Trials:
        """Repeat the one trial there is; the key is not used."""
        shape = (self.steps, trials, 1)
        kick = self.between(0, 1).astype(dtype)[:, None, None] / self.dt  # (time, 1, 1)
        cosine = np.cos(2 * np.pi / self.period * self.times)  # (time,)
        wave = jnp.asarray(self.target_amplitude * cosine, dtype)[:, None, None]  # (time, 1, 1)
        counts = self.between(0, self.steps_in(self.counted)).astype(dtype)[:, None, None]  # (time, 1, 1)
        return Trials(*(jnp.broadcast_to(part, shape) for part in (kick, wave, counts)))
