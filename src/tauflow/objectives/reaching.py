"""The loss of a network that reaches: how far the hand is from where it should be, in each period of a trial."""

from __future__ import annotations

from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
from jax import Array

from tauflow.objectives.mean_squared_error import run_trials
from tauflow.tasks import Reaching
from tauflow.tasks.settings import check_count, is_number


class ReachingLoss(eqx.Module):
    r"""Mean squared distance of the cursor from the origin during the preparation, plus that from the target after it.

    $$ L = \Big\langle \frac{h}{T_{go}} \int_0^{T_{go}} |y(t)|^2\,dt
       + \frac{1}{T_{end} - T_s} \int_{T_s}^{T_{end}} |y(t) - v|^2\,dt \Big\rangle_{trials} $$

    with integrals as sums over the steps, y being read after each, and $T_s - T_{go}$ the time that the task gives to
    settle. Each call draws trials, and noise for the network, from the key alone.

    Attributes:
        task: The reaches asked for.
        trials: Trials in a batch, >= 1.
        hold: Weight h of holding still, > 0.

    Source: pellegrino2023, supplement Eq. C.0.2, where h = 1 and $T_s = T_{go}$. Deviation from print: the cursor is
        compared, which the visuomotor rotation sets apart from the hand; h and $T_s$, as by default it is the print's.

    Example:
        >>> import jax
        >>> from tauflow.networks import RateRNN
        >>> silent = RateRNN(jnp.zeros((5, 5)), jnp.zeros((5, 3)), jnp.zeros((2, 5)), dt=0.1)
        >>> loss = ReachingLoss(Reaching(), trials=4)(silent, jax.random.key(0))
        >>> round(float(loss), 6)  # the hand stays at the origin, and targets are at distance 1
        1.0
    """

    name: ClassVar[str] = "reaching-loss"
    task: Reaching
    trials: int = eqx.field(static=True, default=32)
    hold: float = eqx.field(static=True, default=1.0)

    def __check_init__(self) -> None:
        check_count("trials", self.trials)
        if not is_number(self.hold) or self.hold <= 0:
            raise ValueError(f"hold is {self.hold!r}; it must be a number > 0, for example hold=1.0.")
        if not isinstance(self.task, Reaching):
            raise ValueError(
                f"task is {self.task!r}; it must be a reaching task, for example ReachingLoss(Reaching())."
            )

    def __call__(self, network: Any, key: Array) -> Array:
        """Return the loss on the batch that the key draws, a scalar in the precision of the network.

        It is +inf, never NaN, where the network is so unstable that its outputs overflow.

        Args:
            network: Maps inputs (time, trial, 3) to a response with `outputs` (time, trial, 2).
            key: A JAX random key.

        Raises:
            ValueError: If the network's time step is not the task's.
        """
        batch, response = run_trials(self.task, network, self.trials, key)
        distance = ((self.task.answer(response.outputs) - batch.targets) ** 2).sum(axis=-1)  # (time, trial)
        loss = self.hold * distance[: self.task.go].mean() + distance[self.task.settled :].mean()
        return jnp.where(jnp.isnan(loss), jnp.inf, loss)
