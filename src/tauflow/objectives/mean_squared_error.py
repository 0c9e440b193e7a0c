"""The loss of a network on sampled trials: a masked mean of squared errors."""

from __future__ import annotations

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from tauflow.networks import Response
from tauflow.tasks import TASKS, Task, Trials
from tauflow.tasks.settings import check_count


def mean_squared_error(outputs: Array, targets: Array, mask: Array) -> Array:
    r"""Half the mean squared error where the mask is on, $\frac12 \sum m\,(z - \hat z)^2 / \sum m$.

    The mean is over everything together: times, trials and outputs.

    Args:
        outputs: What the network answered, any shape, for example (time, trial, n_out).
        targets: What it should have answered, same shape.
        mask: 1 where the answer counts and 0 elsewhere, same shape.

    Returns:
        Scalar, >= 0, in squared units of the output.

    Raises:
        ValueError: If the shapes differ, or the mask is 0 everywhere.

    Source: schuessler2020, supplement Eqs. 3 and 4. Deviation from print: the mask is counted over trials, times and
        outputs together, which is the same where all outputs share one mask.

    Example:
        >>> outputs, targets = jnp.array([3.0, 5.0, 9.0]), jnp.array([1.0, 5.0, 0.0])
        >>> float(mean_squared_error(outputs, targets, jnp.array([1.0, 1.0, 0.0])))
        1.0
    """
    if not np.shape(outputs) == np.shape(targets) == np.shape(mask):
        raise ValueError(
            f"outputs {np.shape(outputs)}, targets {np.shape(targets)} and mask {np.shape(mask)} must have one shape; "
            "compare the network's number of outputs with the task's."
        )
    _refuse_empty(mask)
    error = jnp.where(mask != 0, outputs - targets, 0)  # where nothing counts, not even an overflow does
    return 0.5 * jnp.sum(mask * error * error) / jnp.sum(mask)


class MeanSquaredError(eqx.Module):
    """The loss of a network on freshly drawn trials of a task.

    Each call draws `trials` trials, and noise for the network, from the key alone; so one key is one batch. It takes
    any network that maps inputs (time, trial, n_in) to outputs (time, trial, n_out), in the precision of its weights;
    what is compared with the targets is the task's `answer` to these outputs.

    Attributes:
        task: What is asked.
        trials: Trials in a batch, >= 1; 1 is enough for a task that draws nothing.

    Source: schuessler2020, supplement Eqs. 3 and 4, with batches of 32 trials.

    Example:
        >>> from tauflow.networks import RateRNN
        >>> from tauflow.tasks import FlipFlop
        >>> silent = RateRNN(jnp.zeros((5, 5)), jnp.zeros((5, 2)), jnp.zeros((2, 5)))
        >>> objective = MeanSquaredError(FlipFlop(), trials=4)
        >>> float(objective(silent, jax.random.key(1)))  # one of the two targets is 0.5 or -0.5 whenever they count
        0.0625
    """

    name: ClassVar[str] = "mean-squared-error"
    task: Task
    trials: int = eqx.field(static=True, default=32)

    def __check_init__(self) -> None:
        check_count("trials", self.trials)
        if not hasattr(self.task, "sample"):
            raise ValueError(
                f"task is {self.task!r}; it must be a task, for example MeanSquaredError(tauflow.tasks.FlipFlop())."
            )
        if type(self.task) not in TASKS.values():  # ours cannot be empty, and need not be drawn to know it
            with jax.ensure_compile_time_eval():
                _refuse_empty(self.task.example().mask)

    def __call__(self, network: Any, key: Array) -> Array:
        """Return the loss on the batch that the key draws, a scalar in the precision of the network.

        It is +inf, never NaN, where the network is so unstable that its outputs overflow.

        Args:
            network: Maps inputs to a response with `outputs`, as `network(inputs, key=key)`.
            key: A JAX random key.

        Raises:
            ValueError: If the network's time step or number of outputs is not the task's, or the mask is empty.
        """
        batch, response = run_trials(self.task, network, self.trials, key)
        answers = self.task.answer(response.outputs)  # (time, trial, n_out)
        loss = mean_squared_error(answers, batch.targets, batch.mask)
        return jnp.where(jnp.isnan(loss), jnp.inf, loss)


def run_trials(task: Task, network: Any, trials: int, key: Array) -> tuple[Trials, Response]:
    """Draw trials, in the precision of the network, and let it respond to them.

    Args:
        task: What is asked.
        network: Maps inputs to a response, as `network(inputs, key=key)`.
        trials: How many, >= 1.
        key: A JAX random key, for the trials and for noise in the network.

    Returns:
        The trials, and states and outputs.

    Raises:
        ValueError: If the network's time step is not the task's.

    Example:
        >>> from tauflow.networks import RateRNN
        >>> from tauflow.tasks import FlipFlop
        >>> silent = RateRNN(jnp.zeros((5, 5)), jnp.zeros((5, 2)), jnp.zeros((2, 5)))
        >>> run_trials(FlipFlop(), silent, 4, jax.random.key(0))[1].states.shape
        (100, 4, 5)
    """
    dt = getattr(network, "dt", task.dt)
    if dt != task.dt:
        raise ValueError(f"The network's dt is {dt!r} and the task's is {task.dt!r}; give both the same time step.")
    key_trials, key_noise = jax.random.split(key)
    batch = task.sample(trials, key=key_trials, dtype=_precision(network))
    return batch, network(batch.inputs, key=key_noise)


def _precision(network: Any) -> str:
    """Name the dtype of the network's weights: that of its widest floating-point array, float32 if it has none."""
    weights = jax.tree.leaves(eqx.filter(network, eqx.is_inexact_array))
    names = {np.dtype(leaf.dtype).name for leaf in weights}
    return "float64" if "float64" in names else "float32"


def _refuse_empty(mask: Array) -> None:
    """Raise if a mask that can be looked at now (it is not being traced) is 0 everywhere."""
    if not isinstance(mask, jax.core.Tracer) and not np.any(mask):
        raise ValueError("The mask is 0 everywhere, so there is no error to take the mean of; set it to 1 somewhere.")
