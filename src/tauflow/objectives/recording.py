"""Distance of a network's activity from a recording, over the entries that are to be fitted."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

LOSSES = ("mse", "poisson")
_LEAST_RATE = 1e-6  # spikes per bin under the logarithm


class Errors(NamedTuple):
    """Mean losses over the entries of masks.

    Attributes:
        train: Over the entries that are fitted, shape (mask,).
        test: Over those held out and tested, shape (mask,); NaN where there are none.
    """

    train: Array
    test: Array


class RecordingError(eqx.Module):
    r"""Mean loss over the fitted entries of a recording, plus a penalty that keeps strengths smooth over trials.

    $$ L = \frac1{|K|} \sum_{(t,k,i) \in K} \ell(y_{tki}, \hat y_{tki}) + \frac{p}{KR} \sum_{kj} (\bar c_j^{(k)})^2,
       \qquad \ell = (y - \hat y)^2 \ \text{ or }\ \hat y - y\ln\hat y , $$

    with a share of the trials left out at random in every update.

    Attributes:
        activity: y, shape (time, trial, neuron): what the network's outputs should be, or counts of spikes per bin.
        conditions: Index of the condition of each trial, shape (trial,).
        train: Entries that may be fitted, one mask or more, true or false, shape (mask, time, trial, neuron).
        test: Entries held out and tested, likewise.
        mask: Which of the masks is used: a number, so that members of an ensemble may differ in it.
        loss: "mse", or "poisson": minus the log-likelihood of the counts per entry, without its constant part, for a
            network whose outputs are rates per bin.
        trial_dropout: Share of the trials left out of an update, in [0, 1).
        penalty: p, at least 0.

    Source: pellegrino2023, Eqs. A.1.1 and A.1.2. Deviation from print: means instead of sums, and trials left out at
        random, both as in the authors' code; a Poisson rate is the network's output and not $M\varphi$, which may be
        negative.
    """

    name: ClassVar[str] = "recording-error"
    activity: Array
    conditions: Array
    train: Array
    test: Array
    mask: Array
    loss: str = eqx.field(static=True, default="mse")
    trial_dropout: float = eqx.field(static=True, default=0.2)
    penalty: float = eqx.field(static=True, default=1e-4)

    def __init__(
        self,
        activity: ArrayLike,
        conditions: ArrayLike,
        train: ArrayLike,
        test: ArrayLike,
        mask: ArrayLike = 0,
        *,
        loss: str = "mse",
        trial_dropout: float = 0.2,
        penalty: float = 1e-4,
    ) -> None:
        if loss not in LOSSES:
            raise ValueError(f"loss is {loss!r}; it must be 'mse' or 'poisson'.")
        if not 0 <= trial_dropout < 1:
            raise ValueError(f"trial_dropout is {trial_dropout!r}; it must be a share of the trials in [0, 1).")
        if not 0 <= penalty < np.inf:
            raise ValueError(f"penalty is {penalty!r}; it must be a number >= 0.")
        self.activity, self.conditions = jnp.asarray(activity), jnp.asarray(conditions)
        self.train, self.test = jnp.asarray(train), jnp.asarray(test)
        for name, masks in (("train", self.train), ("test", self.test)):
            if masks.dtype != bool or masks.ndim != 4 or masks.shape[1:] != self.activity.shape:
                raise ValueError(
                    f"{name} is {masks.dtype} of shape {masks.shape}; it must be true or false, of shape (mask, "
                    f"*activity), with activity {self.activity.shape}."
                )
        self.mask = jnp.asarray(mask)
        self.loss, self.trial_dropout, self.penalty = loss, float(trial_dropout), float(penalty)

    def __call__(self, network: Any, key: Array | None = None) -> Array:
        """Return the loss, a scalar in the precision of the network.

        Args:
            network: A `LowTensorRankRNN` for the trials of the recording.
            key: Decides which trials are left out; without one, none are.
        """
        keep = self.train[self.mask]  # (time, trial, neuron)
        trials = keep.shape[1]
        if key is not None and self.trial_dropout > 0:
            order = jax.random.permutation(key, trials)
            keep = keep & (order >= int(self.trial_dropout * trials)).reshape(1, trials, 1)
        total, count = network.total(_MEASURES[self.loss], self.conditions, (self.activity, keep))
        strengths = network.c_latent
        return total / jnp.maximum(count, 1) + self.penalty * jnp.mean(strengths * strengths)

    def errors(self, network: Any) -> Errors:
        """Mean losses over the fitted and the tested entries of every mask, no trial left out and no penalty."""
        data = (self.activity, jnp.moveaxis(self.train, 0, 1), jnp.moveaxis(self.test, 0, 1))
        _, (train, test) = network.total(_MEASURED_APART[self.loss], self.conditions, data)
        return Errors(*(total / count for total, count in (train, test)))


def entry_losses(predicted: Any, target: Any, loss: str, xp: Any = jnp) -> Any:
    """Losses of single entries, without those constants that no prediction changes.

    Args:
        predicted: Activity, or rates per bin, any shape.
        target: Activity, or counts per bin, same shape.
        loss: "mse" or "poisson".
        xp: Whose arrays they are, `jax.numpy` or `numpy`.

    Returns:
        Losses, same shape.

    Example:
        >>> entry_losses(np.array([2.0, 0.0]), np.array([1.0, 0.0]), "poisson", np).round(3).tolist()
        [1.307, 0.0]
    """
    if loss == "mse":
        return (predicted - target) ** 2
    return predicted - target * xp.log(xp.maximum(predicted, _LEAST_RATE))


def _sum(losses: Array, keep: Array) -> tuple[Array, Array]:
    """Sum of the losses where `keep` says so, and how many there are; both over the last two axes."""
    return jnp.sum(jnp.where(keep, losses, 0), axis=(-2, -1)), jnp.sum(keep, axis=(-2, -1), dtype=losses.dtype)


def _squared_total(y: Array, data: tuple[Array, Array]) -> tuple[Array, Array]:
    return _sum(entry_losses(y, data[0], "mse"), data[1])


def _poisson_total(y: Array, data: tuple[Array, Array]) -> tuple[Array, Array]:
    return _sum(entry_losses(y, data[0], "poisson"), data[1])


def _squared_apart(y: Array, data: tuple[Array, Array, Array]) -> tuple[Array, Any]:
    losses = entry_losses(y, data[0], "mse")[None]
    return jnp.zeros((), y.dtype), tuple(_sum(losses, keep) for keep in data[1:])


def _poisson_apart(y: Array, data: tuple[Array, Array, Array]) -> tuple[Array, Any]:
    losses = entry_losses(y, data[0], "poisson")[None]
    return jnp.zeros((), y.dtype), tuple(_sum(losses, keep) for keep in data[1:])


# Functions of the module and not of an object: the same one every time, so that a loss compiles once.
_MEASURES = {"mse": _squared_total, "poisson": _poisson_total}
_MEASURED_APART = {"mse": _squared_apart, "poisson": _poisson_apart}
