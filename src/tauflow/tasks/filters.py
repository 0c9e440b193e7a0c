r"""Filter white noise: the answer is the input convolved with a target filter.

A network receives white noise $x(t)$ and should answer

$$y_*(t) = \int_0^t f_*(t')\,x(t - t')\,dt'.$$

The noise has unit spectral density and is held for a step: $x_k \sim \mathcal N(0, 1/\Delta t)$ from $k\,\Delta t$
to $(k+1)\,\Delta t$. Target k is the answer at the end of step k, exact for this input:

$$y_k = \sum_{j=0}^{k} w_j\,x_{k-j}, \qquad w_j = \int_{j\Delta t}^{(j+1)\Delta t} f_*(t)\,dt.$$

Network and filter both start from nothing, so all of a trial counts. The variance of the answer tends to
$\sum_j w_j^2 / \Delta t$ as the trial goes on, and that to $\int_0^\infty f_*^2\,dt$, the filter's `squared_norm`, as
$\Delta t \to 0$.

Source: bordelon2025, eqs. (B1) and (B2). Deviation from print: (B1) has $f$ where $f_*$ is meant; the input is held
for a step.
"""

from __future__ import annotations

import abc
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import ArrayLike

from tauflow.analysis.arguments import FloatArray, real_array
from tauflow.tasks.base import Task, Trials
from tauflow.tasks.settings import check_amplitude, check_numbers, is_number, setting


class Realisation(NamedTuple):
    r"""A linear system that has a given filter as its impulse response, $f_*(t) = c^\top e^{At}\,b$; all float64.

    Attributes:
        A: Generator, shape (k, k), per membrane time.
        b: Read-in, shape (k,).
        c: Readout, shape (k,).
    """

    A: FloatArray
    b: FloatArray
    c: FloatArray


class FilterTask(Task):
    """Answer white noise with its convolution with a target filter. Subclasses say which filter.

    Attributes:
        duration: Length of a trial in membrane times.
        dt: Time step, during which the input is held.
        target_amplitude: Factor of the filter.
    """

    paper: ClassVar[str] = "bordelon2025"
    inputs: ClassVar[int] = 1
    outputs: ClassVar[int] = 1

    duration: float = setting(40.0)
    dt: float = setting(0.1)
    target_amplitude: float = setting(1.0)

    @abc.abstractmethod
    def filter(self, t: ArrayLike) -> FloatArray:
        """Evaluate the target filter.

        Args:
            t: Times in membrane times, >= 0, any shape.

        Returns:
            float64 array of the same shape.

        Raises:
            ValueError: If a time is not a finite number >= 0.
        """

    @abc.abstractmethod
    def step_response(self, t: ArrayLike) -> FloatArray:
        """Integrate the target filter from 0 to each time, which is the answer to an input that goes from 0 to 1.

        Args:
            t: Times in membrane times, >= 0, any shape.

        Returns:
            float64 array of the same shape.

        Raises:
            ValueError: If a time is not a finite number >= 0.
        """

    @property
    @abc.abstractmethod
    def squared_norm(self) -> float:
        """The integral of the squared filter over all times."""

    @abc.abstractmethod
    def realisation(self) -> Realisation | None:
        """Return a real linear system with this filter, or None where no small one has it."""

    def draw(self, trials: int, key: Array, dtype: str) -> Trials:
        """Draw the noise, and convolve it with the integral of the filter over each step."""
        shape = (self.steps, trials, 1)
        white = jax.random.normal(key, shape, jnp.float32).astype(dtype)
        inputs = white / float(np.sqrt(self.dt))  # (time, trial, 1)
        weights = np.diff(self.step_response(self.dt * np.arange(self.steps + 1)))  # (time,)
        length = 1 << (2 * self.steps - 1).bit_length()  # so that the end of a trial does not wrap to its beginning
        noise = jnp.fft.rfft(inputs, length, axis=0)  # (frequency, trial, 1)
        response = jnp.asarray(np.fft.rfft(weights, length), noise.dtype)[:, None, None]  # (frequency, 1, 1)
        targets = jnp.fft.irfft(response * noise, length, axis=0)[: self.steps]  # (time, trial, 1)
        return Trials(inputs, targets, jnp.ones(shape, dtype))


def as_times(t: ArrayLike) -> FloatArray:
    """Check the times at which a filter is asked for.

    Raises:
        ValueError: If a time is not a finite number >= 0.

    Example:
        >>> as_times([0, 1])
        array([0., 1.])
    """
    wanted = "finite times >= 0 in membrane times, for example numpy.linspace(0, 10, 101)"
    at = real_array("t", t, wanted=wanted)
    if (at < 0).any():
        raise ValueError(f"t has the negative time {at.min():g}; it must be {wanted}.")
    return at


class SampledFilter(FilterTask):
    """Filter white noise with any filter that is given by samples.

    The filter is linear between samples and 0 after the last one. Samples that end before they reach 0 are a filter
    that is cut off there.

    Attributes:
        values: The filter at times 0, spacing, 2 spacing, ..., at least two numbers.
        spacing: Time between samples, in membrane times.

    Source: none; it takes what bordelon2025 asks of a network to targets that are no sum of exponentials.

    Example:
        >>> task = SampledFilter([1.0, 0.0], 5.0)
        >>> task.filter([0.0, 2.0, 9.0]), round(task.squared_norm, 4)
        (array([1. , 0.6, 0. ]), 1.6667)
    """

    name: ClassVar[str] = "sampled-filter"
    tags: ClassVar[tuple[str, ...]] = ("filter", "memory", "linear")

    values: tuple[float, ...] = setting((1.0, 0.0), positional=True)
    spacing: float = setting(5.0, positional=True)

    def check(self) -> None:
        """Check all settings.

        Raises:
            ValueError: If there are fewer than two samples, one is not a number, or their spacing is not positive.
        """
        check_numbers("values", self.values, fewest=2)
        if not is_number(self.spacing) or self.spacing <= 0:
            raise ValueError(f"spacing is {self.spacing!r}; it must be a time > 0 in membrane times, such as 0.1.")
        check_amplitude("target_amplitude", self.target_amplitude)

    @property
    def samples(self) -> FloatArray:
        """The filter at its samples, with the factor `target_amplitude`, shape (sample,)."""
        return self.target_amplitude * np.asarray(self.values, np.float64)

    def filter(self, t: ArrayLike) -> FloatArray:
        """Evaluate the target filter, as in `FilterTask.filter`."""
        samples = self.samples
        knots = self.spacing * np.arange(samples.size)
        return np.asarray(np.interp(as_times(t), knots, samples, right=0.0), np.float64)

    def step_response(self, t: ArrayLike) -> FloatArray:
        """Integrate the target filter, as in `FilterTask.step_response`."""
        samples = self.samples
        areas = self.spacing * (samples[1:] + samples[:-1]) / 2  # of the pieces between samples
        before = np.concatenate([[0.0], np.cumsum(areas)])
        place = np.minimum(as_times(t) / self.spacing, samples.size - 1)  # in samples
        piece = np.minimum(place.astype(np.int64), samples.size - 2)
        share = place - piece  # of that piece, in [0, 1]
        slope = samples[piece + 1] - samples[piece]
        return np.asarray(before[piece] + self.spacing * share * (samples[piece] + slope * share / 2), np.float64)

    @property
    def squared_norm(self) -> float:
        """The integral of the squared filter over all times."""
        left, right = self.samples[:-1], self.samples[1:]
        return float(self.spacing / 3 * np.sum(left**2 + left * right + right**2))

    def realisation(self) -> None:
        """Return None: no small linear system has this filter."""
