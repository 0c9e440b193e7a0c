r"""What a task is: inputs, targets and a mask for as many trials as are asked for.

**The time grid.** A trial of duration $T$ has $T/\Delta t$ steps. Step $k = 0, 1, \dots$ takes the network
from $x_k$ to $x_{k+1}$, and everything with index $k$ belongs to that step: `inputs[k]` drives it, and the
output read *after* it, $z_k = W_{out}\,\phi(x_{k+1})$, is compared with `targets[k]` where `mask[k]` is 1. A
period that begins at time $t$ begins with step $t/\Delta t$. Durations are in units of the membrane time
constant and are rounded down to whole steps; so are drawn ones.

**Random numbers** are drawn in 32 bits, whatever the precision asked for, so one key gives the same trials in
float32 and float64 and with JAX's 64-bit mode on or off.

**Your own task** is a subclass that says what it is called, how many channels it has, how long a trial is,
and how to draw trials. It gets checks of its settings, a fixed example, and the right precision from the base
class:

    >>> import jax, jax.numpy as jnp
    >>> from tauflow.tasks import Task, Trials, as_sign, as_steps, draw_uniform, setting
    >>> class DelayedSign(Task):
    ...     "Say the sign of a brief pulse after a random delay."
    ...     name, paper, tags = "delayed-sign", "none", ("memory",)
    ...     inputs, outputs = 1, 1
    ...     duration: float = setting(20.0)
    ...     delay: tuple[float, float] = setting((4.0, 12.0))
    ...     dt: float = setting(0.5)
    ...     def draw(self, trials, key, dtype):
    ...         for_sign, for_delay = draw_uniform(key, (2, trials))  # each (trial,)
    ...         begin = 2 + as_steps(for_delay, self.delay, self.dt)  # (trial,), in steps
    ...         answer = self.between(begin, self.steps).astype(dtype)[..., None]  # (time, trial, 1)
    ...         pulse = self.between(0, 2).astype(dtype)[:, None, None]  # (time, 1, 1)
    ...         sign = as_sign(for_sign).astype(dtype)[None, :, None]  # (1, trial, 1)
    ...         return Trials(pulse * sign, answer * sign, answer)
    >>> trials = DelayedSign().sample(3, key=jax.random.key(0))
    >>> trials.inputs.shape, trials.mask.dtype
    ((40, 3, 1), dtype('float32'))
"""

from __future__ import annotations

import abc
import dataclasses
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

from tauflow.precision import usable
from tauflow.tasks.settings import check_count, check_dt, check_duration, whole_steps


class Trials(NamedTuple):
    """Trials of a task, all of one floating-point dtype.

    Attributes:
        inputs: What the network receives, shape (time, trial, n_in).
        targets: What it should answer, shape (time, trial, n_out).
        mask: 1 where the answer counts and 0 elsewhere, shape (time, trial, n_out).
    """

    inputs: Array
    targets: Array
    mask: Array


class Task(eqx.Module):
    """Something to ask of a network. Subclasses declare the class attributes, the settings and `draw`.

    Attributes:
        name: Short name, as on the command line.
        paper: Short name of the paper that defines the task.
        tags: Words to find it by.
        example_seed: Seed of the trial that `example` shows.
    """

    name: ClassVar[str]
    paper: ClassVar[str]
    tags: ClassVar[tuple[str, ...]]
    example_seed: ClassVar[int] = 0

    @property
    @abc.abstractmethod
    def inputs(self) -> int:
        """Number of input channels."""

    @property
    @abc.abstractmethod
    def outputs(self) -> int:
        """Number of output channels."""

    @property
    @abc.abstractmethod
    def duration(self) -> float:
        """Length of a trial in membrane times."""

    @property
    @abc.abstractmethod
    def dt(self) -> float:
        """Length of a time step in membrane times, in (0, 1]."""

    def __check_init__(self) -> None:
        check_dt(self.dt)
        self.check()
        check_duration("duration", self.duration, shortest=self.dt)

    def check(self) -> None:
        """Raise a ValueError if a setting makes no sense; `dt` and `duration` are checked besides."""

    @abc.abstractmethod
    def draw(self, trials: int, key: Array, dtype: str) -> Trials:
        """Draw the trials; `sample` has checked the arguments and checks the shapes that come back."""

    def answer(self, outputs: Array) -> Array:
        """What is compared with the targets, (time, *trials, n_out): here a network's outputs themselves.

        A task whose outputs act on something, such as forces on a hand, gives what that does.
        """
        return outputs

    @property
    def steps(self) -> int:
        """Number of time steps of a trial."""
        return whole_steps(self.duration, self.dt)

    @property
    def times(self) -> NDArray[np.float64]:
        """Time at which each step begins, shape (time,), in membrane times."""
        return np.asarray(np.arange(self.steps) * self.dt, dtype=np.float64)

    @property
    def settings(self) -> dict[str, Any]:
        """All settings by name; `make_task(task.name, **task.settings)` is the same task again."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    def sample(self, trials: int, *, key: Array, dtype: str = "float32") -> Trials:
        """Draw independent trials.

        Args:
            trials: How many, >= 1.
            key: A JAX random key. The same key gives the same trials.
            dtype: "float32", or "float64" where JAX's 64-bit mode is on.

        Returns:
            Trials with arrays of shape (time, trial, channel).

        Raises:
            ValueError: If `trials`, `key` or `dtype` is not as above.

        Example:
            >>> from tauflow.tasks import Romo
            >>> Romo().sample(5, key=jax.random.key(0)).targets.shape
            (56, 5, 2)
        """
        check_count("trials", trials)
        if not hasattr(key, "dtype"):
            raise ValueError(f"key is {key!r}; it must be a JAX random key, such as jax.random.key(0).")
        return _draw(self, int(trials), key, usable(dtype, "sample"))

    def example(self) -> Trials:
        """Return the one trial that figures show, always the same, in float32.

        Example:
            >>> from tauflow.tasks import Mante
            >>> Mante().example().inputs.shape
            (96, 1, 4)
        """
        return self.sample(1, key=jax.random.key(self.example_seed, impl="threefry2x32"))

    def steps_in(self, duration: float) -> int:
        """Count the whole time steps in a duration given in membrane times.

        Example:
            >>> from tauflow.tasks import Mante
            >>> Mante(dt=0.5).steps_in(20.0)
            40
        """
        return whole_steps(duration, self.dt)

    def between(self, start: Array | int, stop: Array | int) -> Array:
        """Mark the steps k with start <= k < stop.

        Args:
            start: First step of the period, an integer or an integer array of any shape, for example
                (trial,).
            stop: The step after the last one, likewise; arrays must have the same shape.

        Returns:
            Booleans, shape (time, *shape).

        Example:
            >>> from tauflow.tasks import FixedPoint
            >>> [int(on) for on in FixedPoint(duration=3.0).between(1, 3)]
            [0, 1, 1, 0, 0, 0]
        """
        shape = jnp.broadcast_shapes(jnp.shape(start), jnp.shape(stop))
        step = jnp.arange(self.steps, dtype=jnp.int32).reshape(-1, *(1 for _ in shape))  # (time, 1, ...)
        return (step >= _row(start)) & (step < _row(stop))  # (time, *shape)


@eqx.filter_jit
def _draw(task: Task, trials: int, key: Array, dtype: str) -> Trials:
    """Draw in one compiled function, so that a call outside a training step is no slower; check what comes back."""
    drawn = task.draw(trials, key, dtype)
    channels = (task.inputs, task.outputs, task.outputs)
    for what, array, count in zip(Trials._fields, drawn, channels, strict=True):
        shape = (task.steps, trials, count)
        if array.shape != shape:
            raise ValueError(
                f"{what} of task {task.name!r} have shape {array.shape}; "
                f"draw must give (time, trial, channel) = {shape}."
            )
    return Trials(*(array.astype(dtype) for array in drawn))


def _row(index: Array | int) -> Array | int:
    """Give an array index a leading time axis; leave a plain integer alone."""
    return index[None] if isinstance(index, jax.Array) and index.ndim else index
