"""How a trained network is measured: by its loss on trials that it has not seen, or by an exact loss; and what it does.

Both say the same two things: the loss of a network, one number, and what the page shows of the networks at work.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import equinox as eqx
import jax
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from tauflow.objectives import FilterLoss, mean_squared_error
from tauflow.precision import cast, float64
from tauflow.run import Run
from tauflow.tasks import Task, Trials

_EVALUATION_KEY = 2**32 - 2  # in `fold_in(key(seed), ...)`, where members take 0, 1, ..., 10**6 - 1
FILTER_POINTS = 201


def evaluation_keys(seed: int) -> tuple[jax.Array, jax.Array]:
    """The keys of the batch and of the noise that a study of this seed is measured with.

    No member of the study learns with them or with a key that comes from them: the batch is new to every network.
    """
    keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), _EVALUATION_KEY))
    return keys[0], keys[1]


class Evaluation(Protocol):
    """What `measure` asks of the way in which networks are measured."""

    def scope(self) -> AbstractContextManager[None]:
        """The precision to measure in."""
        ...

    def loss(self, network: Any, member: int) -> float:
        """The loss of a member's network, +inf where it is not finite."""
        ...

    def shown(self, run: Run) -> xr.Dataset:
        """What the networks do, for a picture; NaN where a member has no final weights."""
        ...


@dataclass(frozen=True)
class TrialEvaluation:
    """The loss on one batch, the same for every member and whatever is done to its weights; shows the example trial.

    Attributes:
        task: What the networks were trained on.
        trials: Size of the batch; 1 is enough for a task that draws nothing.
        seed: From which the batch and the noise come.
    """

    task: Task
    trials: int
    seed: int = 0

    @cached_property
    def _batch(self) -> Trials:
        return self.task.sample(self.trials, key=evaluation_keys(self.seed)[0])

    def _key(self, member: int) -> jax.Array:
        return jax.random.fold_in(evaluation_keys(self.seed)[1], member)

    def scope(self) -> AbstractContextManager[None]:
        """The precision of the process."""
        return nullcontext()

    def loss(self, network: Any, member: int) -> float:
        """The mean squared error on the batch."""
        return _finite(_on_trials(network, self.task, self._batch, self._key(member)))

    def shown(self, run: Run) -> xr.Dataset:
        """`example_inputs (time, input)`, `example_targets`, `example_mask (time, output)`, `example_outputs`."""
        example = self.task.example()

        def answer(member: int) -> NDArray[np.floating]:
            if not has_ended(run, member):
                return np.full(example.targets[:, 0].shape, np.nan, np.float32)
            return np.asarray(_answer(run.network(run=member), self.task, example.inputs, self._key(member)))[:, 0]

        outputs = np.stack([answer(member) for member in range(run.n_runs)])
        variables = {
            "example_inputs": (("time", "input"), np.asarray(example.inputs)[:, 0]),
            "example_targets": (("time", "output"), np.asarray(example.targets)[:, 0]),
            "example_mask": (("time", "output"), np.asarray(example.mask)[:, 0]),
            "example_outputs": (("run", "time", "output"), outputs),
        }
        time = ("time", self.task.times, {"unit": "membrane times"})
        return xr.Dataset(variables, {"time": time}, {"trials": self.trials})


@dataclass(frozen=True)
class FilterEvaluation:
    """The exact loss of a filter; shows the filters before and after learning, and the target.

    Attributes:
        objective: The loss that the networks learned by.
    """

    objective: FilterLoss

    @contextmanager
    def scope(self) -> Iterator[None]:
        """Exact losses are taken in float64, as flows are."""
        with float64():
            yield

    def loss(self, network: Any, member: int) -> float:
        """The exact loss; the member makes no difference."""
        return _finite(_exact(cast(self.objective.bare(), "float64"), cast(network, "float64")))

    def shown(self, run: Run) -> xr.Dataset:
        """`filter_target (time)`, `filter_initial` and `filter_final (run, time)` over the duration of a trial."""
        target = self.objective.target
        time = np.linspace(0.0, target.duration, FILTER_POINTS)
        nothing = np.full(time.shape, np.nan)
        members = range(run.n_runs)
        initial = [run.network(run=i, snapshot=0).filter(time) for i in members]
        final = [run.network(run=i).filter(time) if has_ended(run, i) else nothing for i in members]
        variables = {
            "filter_target": ("time", target.filter(time), {"long_name": "target filter"}),
            "filter_initial": (("run", "time"), np.stack(initial), {"long_name": "filter before learning"}),
            "filter_final": (("run", "time"), np.stack(final), {"long_name": "filter after learning"}),
        }
        return xr.Dataset(variables, {"time": ("time", time, {"unit": "membrane times"})})


def has_ended(run: Run, member: int) -> bool:
    """Whether a member has final weights: one that diverged has none."""
    return bool(np.isfinite(run.weights("W", member, -1)).all())


def _finite(loss: Any) -> float:
    value = float(loss)
    return value if np.isfinite(value) else np.inf  # an unstable network may come to inf - inf


@eqx.filter_jit
def _exact(objective: Any, network: Any) -> jax.Array:
    return objective(network)


@eqx.filter_jit
def _answer(network: Any, task: Task, inputs: jax.Array, key: jax.Array) -> jax.Array:
    return task.answer(network(inputs, key=key).outputs)


@eqx.filter_jit
def _on_trials(network: Any, task: Task, batch: Trials, key: jax.Array) -> jax.Array:
    return mean_squared_error(_answer(network, task, batch.inputs, key), batch.targets, batch.mask)
