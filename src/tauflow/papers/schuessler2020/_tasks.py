"""What the figures on the nonlinear tasks share: training as the authors did, and measures of what was learned."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from numpy.typing import NDArray

from tauflow.analysis import functional_rank, shuffle_entries, singular_values, truncation_curve
from tauflow.learning import Record, ensemble
from tauflow.networks import RateRNN
from tauflow.objectives import MeanSquaredError, mean_squared_error
from tauflow.run import Run
from tauflow.tasks import Task, Trials, make_task

THRESHOLD = 0.05
"""Share of the initial loss below which a task counts as learned."""

TITLES = {"flip-flop": "Flip-flop", "mante": "Mante", "romo": "Romo"}


@dataclass(frozen=True)
class Training:
    """How a task is trained; the defaults are the authors' settings.

    Attributes:
        task: Name of the task.
        epochs: Number of updates.
        gains: Initial connectivity strengths g.
        seeds: Networks at each gain.
        neurons: Number of units N.
        learning_rate: Rate of Adam times N.
        batch: Trials per update.
        trials: Fresh trials on which truncated and shuffled networks are evaluated.
        settle: Let the rate fall to 0 along a cosine, so that a short training does not end in one of the jumps of the
            loss that Adam makes at a constant rate.
    """

    task: str
    epochs: int
    gains: tuple[float, ...] = (0.9,)
    seeds: int = 5
    neurons: int = 256
    learning_rate: float = 0.05
    batch: int = 32
    trials: int = 512
    settle: bool = False

    def make_task(self) -> Task:
        """The task."""
        return make_task(self.task)

    def train(self, *, key: jax.Array, progress: Callable[..., None] | None = None) -> Run:
        """Train every network; all weights learn, by Adam with rate `learning_rate`/N."""
        task, rate = self.make_task(), self.learning_rate / self.neurons
        schedule = optax.cosine_decay_schedule(rate, self.epochs) if self.settle else rate

        def make_network(*, key: jax.Array, gain: float) -> RateRNN:
            return RateRNN.random(self.neurons, task.inputs, task.outputs, gain=gain, key=key)

        return ensemble(
            make_network,
            lambda gain: MeanSquaredError(task, trials=self.batch),
            lambda gain: optax.adam(schedule),
            keys=jax.random.split(key, self.seeds),
            grid={"gain": list(self.gains)},
            steps=self.epochs,
            record=Record(measurements=0),
            progress=progress,
        )


class Evaluation:
    """The loss of networks on one batch of fresh trials."""

    def __init__(self, task: Task, trials: int, *, key: jax.Array):
        self.batch = task.sample(trials, key=key)

    def __call__(self, network: RateRNN) -> float:
        """The loss; +inf where the network's activity is not finite."""
        loss = float(_loss(network, self.batch))
        return loss if np.isfinite(loss) else np.inf

    def with_weights(self, network: RateRNN, W: NDArray[np.floating]) -> float:
        """The loss with other recurrent weights, shape (n, n)."""
        return self(eqx.tree_at(lambda net: net.W, network, jnp.asarray(np.asarray(W, network.W.dtype))))


@eqx.filter_jit
def _loss(network: RateRNN, batch: Trials) -> jax.Array:
    return mean_squared_error(network(batch.inputs).outputs, batch.targets, batch.mask)


def ranks_to_try(neurons: int, every: int = 25) -> NDArray[np.int64]:
    """Ranks 0, 1, ..., `every`, then in steps of a tenth, up to N.

    Example:
        >>> ranks_to_try(32).tolist()[-4:]
        [25, 28, 31, 32]
    """
    ranks = list(range(min(every, neurons) + 1))
    while ranks[-1] < neurons:
        ranks.append(min(neurons, ranks[-1] + max(1, round(0.11 * ranks[-1]))))
    return np.array(ranks, np.int64)


def learning_time(loss: NDArray[np.floating], threshold: float = THRESHOLD) -> NDArray[np.float64]:
    """First epoch whose training loss is below a share of that of epoch 0; NaN where there is none.

    Args:
        loss: Training loss of every epoch, shape (..., epoch).
        threshold: The share.

    Example:
        >>> learning_time(np.array([1.0, 0.5, 0.04, 0.06])).tolist()
        2.0
    """
    below = loss < threshold * loss[..., :1]  # (..., epoch)
    return np.where(below.any(axis=-1), below.argmax(axis=-1).astype(np.float64), np.nan)


def measure(run: Run, evaluation: Evaluation, *, ranks: Sequence[int] | NDArray[np.int64], seed: int) -> xr.Dataset:
    """What learning changed in every network: losses, norms, and how much survives truncation and shuffling.

    The functional rank is the first rank whose truncated loss is below `THRESHOLD` times the initial loss, both on the
    evaluation's trials.

    Args:
        run: Trained networks, with their first and last weights.
        evaluation: The fresh trials.
        ranks: Ranks to which ΔW is truncated.
        seed: From which the shuffling comes.

    Returns:
        Along `run`, with the Run's labels: `initial_loss`, `final_loss`, `shuffled_loss`, `learning_time`,
        `delta_W_norm`, `W_norm`, `functional_rank_delta_W`, `truncated_loss_delta_W (run, rank)` and the singular
        values `delta_W_singular_values (run, index)`, `W_singular_values`.
    """
    rows = [_measure_one(run, member, evaluation, ranks, seed) for member in range(run.n_runs)]
    data = xr.Dataset(
        {name: (_dims(name), np.stack([row[name] for row in rows])) for name in rows[0]},
        {"rank": np.asarray(ranks, np.int64), "seed": run.data["seed"], "gain": run.data["gain"]},
    )
    solved = functional_rank(data["truncated_loss_delta_W"], data["initial_loss"], threshold=THRESHOLD, ranks=ranks)
    data["functional_rank_delta_W"] = ("run", solved)
    data["learning_time"] = ("run", learning_time(np.asarray(run.data["loss"], np.float64)))
    return data


def _dims(name: str) -> tuple[str, ...]:
    inner = "rank" if name.startswith("truncated") else "index" if name.endswith("singular_values") else None
    return ("run",) if inner is None else ("run", inner)


def _measure_one(run: Run, member: int, evaluation: Evaluation, ranks: Any, seed: int) -> dict[str, Any]:
    before, after = run.network(run=member, snapshot=0), run.network(run=member, snapshot=-1)
    W0, W = (np.asarray(run.weights("W", member, at), np.float64) for at in (0, -1))  # (n, n)
    delta = W - W0
    shuffled = shuffle_entries(W0, key=1000 * seed + member) + delta
    return {
        "initial_loss": evaluation(before),
        "final_loss": evaluation(after),
        "shuffled_loss": evaluation.with_weights(after, shuffled),
        "delta_W_norm": np.linalg.norm(delta),
        "W_norm": np.linalg.norm(W),
        "delta_W_singular_values": singular_values(delta),
        "W_singular_values": singular_values(W),
        "truncated_loss_delta_W": truncation_curve(delta, lambda cut: evaluation.with_weights(after, W0 + cut), ranks),
    }


def truncate_weights(run: Run, evaluation: Evaluation, ranks: NDArray[np.int64], reference: xr.DataArray) -> xr.Dataset:
    """Loss against the rank to which the whole of W is truncated, and the functional rank of W.

    Args:
        run: Trained networks.
        evaluation: The fresh trials.
        ranks: Ranks to try, up to N.
        reference: Initial loss of each network, (run).

    Returns:
        `truncated_loss_W (run, rank_W)` and `functional_rank_W (run)`, with the coordinate `rank_W`.
    """
    curves = []
    for member in range(run.n_runs):
        after = run.network(run=member, snapshot=-1)
        curves.append(
            truncation_curve(after.W, lambda cut, net=after: evaluation.with_weights(net, cut), ranks)  # type: ignore[misc]
        )
    solved = functional_rank(np.stack(curves), reference, threshold=THRESHOLD, ranks=ranks)
    variables = {"truncated_loss_W": (("run", "rank_W"), np.stack(curves)), "functional_rank_W": ("run", solved)}
    return xr.Dataset(variables, {"rank_W": ranks})
