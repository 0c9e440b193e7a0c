"""What a trained ensemble is made of: measures of its first and last weights on one fixed batch of trials."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from tauflow.analysis import functional_rank, outliers, shuffle_entries, singular_values, truncation_curve
from tauflow.objectives import mean_squared_error
from tauflow.run import Run
from tauflow.tasks import Task, Trials

EVALUATION_TRIALS = 512
THRESHOLD = 0.05
_EVALUATION_KEY = 2**32 - 2  # in `fold_in(key(seed), ...)`, where members take 0, 1, ..., 10**6 - 1
SINGULAR_VALUES = 10
#: What every measure is, as the attribute `long_name`, and its unit where it is not a plain number.
_LONG_NAMES = {
    "initial_loss": "loss before learning",
    "final_loss": "loss after learning",
    "updates_to_threshold": "updates to 5 % of the initial training loss",
    "functional_rank_delta_W": "functional rank of ΔW",
    "functional_rank_W": "functional rank of W",
    "delta_W_norm": "‖ΔW‖ (Frobenius)",
    "shuffled_loss": "loss after shuffling W₀",
    "truncated_loss_delta_W": "loss with ΔW truncated to a rank",
    "truncated_loss_W": "loss with W truncated to a rank",
    "final_delta_W_singular_values": "first singular values of ΔW after learning",
    "outliers": "eigenvalues of W outside the circle |λ| = max(1.1 g, 0.05)",
}


def ranks_to_try(neurons: int) -> NDArray[np.int64]:
    """Ranks at which weights are truncated: 0 to 20, then each about a quarter above the last, up to N.

    Example:
        >>> ranks_to_try(40).tolist()[-4:]
        [20, 25, 31, 40]
    """
    ranks = list(range(min(20, neurons) + 1))
    while ranks[-1] < neurons:
        following = int(1.25 * ranks[-1])
        ranks.append(following if 1.1 * following < neurons else neurons)
    return np.array(ranks, np.int64)


def updates_to_threshold(loss: NDArray[np.floating], threshold: float = THRESHOLD) -> NDArray[np.float64]:
    """First update whose training loss is below a fraction of the first one.

    Args:
        loss: Loss of every update, shape (..., update).
        threshold: The fraction.

    Returns:
        Number of updates done by then, shape (...); NaN where it never happens.

    Example:
        >>> updates_to_threshold(np.array([[1.0, 0.3, 0.04, 0.1], [1.0, 0.9, 0.8, 0.7]])).tolist()
        [2.0, nan]
    """
    below = loss < threshold * loss[..., :1]
    return np.where(below.any(axis=-1), below.argmax(axis=-1).astype(np.float64), np.nan)


def evaluation_keys(seed: int) -> tuple[jax.Array, jax.Array]:
    """The keys of the batch and of the noise that a study of this seed is measured with.

    No member of the study learns with them or with a key that comes from them: the batch is new to every network.
    """
    keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), _EVALUATION_KEY))
    return keys[0], keys[1]


def measure(
    run: Run, task: Task, *, gain: float, trials: int = EVALUATION_TRIALS, seed: int = 0, threshold: float = THRESHOLD
) -> xr.Dataset:
    """Measure what learning changed and of what rank it is, member by member.

    All losses but the training loss are taken on one batch, the same for every member, rank and shuffling. A functional
    rank is the first rank tried whose truncated loss is below `threshold` times the initial loss on that batch. Members
    without final weights (diverged ones) get NaN.

    Args:
        run: A Run of rate networks that keeps its first and last weights.
        task: What the networks were trained on.
        gain: g; eigenvalues with |λ| > max(1.1 g, 0.05) count as outliers.
        trials: Size of the batch; 1 is enough for a task that draws nothing.
        seed: From which the batch, the noise and the shuffling come.
        threshold: Fraction of the initial loss that counts as solved.

    Returns:
        A dataset along `run`: `initial_loss`, `final_loss`, `updates_to_threshold`, `functional_rank_delta_W`,
        `functional_rank_W`, `delta_W_norm`, `shuffled_loss`; `truncated_loss_delta_W`, `truncated_loss_W (run, rank)`;
        `final_delta_W_singular_values (run, index)`; `outliers (run, outlier)`, complex, NaN-padded; and the example
        trial: `example_inputs (time, input)`, `example_targets`, `example_mask (time, output)`,
        `example_outputs (run, time, output)`.

    Raises:
        ValueError: If the Run keeps no weights.
    """
    key_trials, key_noise = evaluation_keys(seed)
    batch = task.sample(trials, key=key_trials)
    example = task.example()
    ranks = ranks_to_try(run.data.sizes["unit"])
    rows = [
        _member(run, member, batch, example, ranks, gain, jax.random.fold_in(key_noise, member), seed)
        for member in range(run.n_runs)
    ]
    found = {name: np.stack([row[name] for row in rows]) for name in rows[0] if name != "outliers"}
    most = max(len(row["outliers"]) for row in rows)
    padded = [np.pad(row["outliers"], (0, most - len(row["outliers"])), constant_values=np.nan) for row in rows]
    variables: dict[str, Any] = {
        **{name: (_dims(name), values) for name, values in found.items()},
        "outliers": (("run", "outlier"), np.stack(padded)),
        "updates_to_threshold": ("run", updates_to_threshold(np.asarray(run.data["loss"]), threshold)),
        "example_inputs": (("time", "input"), np.asarray(example.inputs)[:, 0]),
        "example_targets": (("time", "output"), np.asarray(example.targets)[:, 0]),
        "example_mask": (("time", "output"), np.asarray(example.mask)[:, 0]),
    }
    finite = np.where(np.isfinite(found["initial_loss"]), found["initial_loss"], 0.0)  # no loss is below 0
    for name in ("delta_W", "W"):
        solved = functional_rank(found[f"truncated_loss_{name}"], finite, threshold=threshold, ranks=ranks)
        variables[f"functional_rank_{name}"] = ("run", solved)
    coordinates = {"rank": ranks, "time": task.times, **{n: ("run", run.data[n].values) for n in ("seed", "status")}}
    attributes = {"trials": trials, "threshold": threshold, "functional_rank_reference": "initial loss"}
    measures = xr.Dataset(variables, coordinates, attributes)
    for name, text in _LONG_NAMES.items():
        measures[name].attrs["long_name"] = text
    measures["time"].attrs["unit"] = "membrane times"
    return measures


def _dims(name: str) -> tuple[str, ...]:
    inner = {
        "truncated_loss_delta_W": ("rank",),
        "truncated_loss_W": ("rank",),
        "final_delta_W_singular_values": ("index",),
        "example_outputs": ("time", "output"),
    }
    return ("run", *inner.get(name, ()))


def _member(
    run: Run, member: int, batch: Trials, example: Trials, ranks: NDArray[np.int64], gain: float, key: jax.Array,
    seed: int,
) -> dict[str, NDArray[Any]]:  # fmt: skip
    """All measures of one member that need its weights; NaN where it has no final ones."""
    first = run.network(run=member, snapshot=0)
    initial = _loss(first, batch, key)
    W0, W = (np.asarray(run.weights("W", member, at), np.float64) for at in (0, -1))
    kept = min(SINGULAR_VALUES, W.shape[0])
    result: dict[str, Any] = {"initial_loss": np.float64(initial)}
    if not np.isfinite(W).all():
        return result | {
            **{name: np.float64(np.nan) for name in ("final_loss", "delta_W_norm", "shuffled_loss")},
            **{f"truncated_loss_{name}": np.full(len(ranks), np.nan) for name in ("delta_W", "W")},
            "final_delta_W_singular_values": np.full(kept, np.nan),
            "outliers": np.zeros(0, np.complex128),
            "example_outputs": np.full(example.targets[:, 0].shape, np.nan, np.float32),
        }
    network = run.network(run=member, snapshot=-1)

    def loss(W: NDArray[Any]) -> float:
        return _loss(with_W(network, W), batch, key)

    delta = W - W0
    return result | {
        "final_loss": np.float64(loss(W)),
        "delta_W_norm": np.linalg.norm(delta),
        "shuffled_loss": np.float64(loss(shuffle_entries(W0, key=seed * 1_000_003 + member) + delta)),
        "truncated_loss_delta_W": truncation_curve(delta, lambda cut: loss(W0 + cut), ranks),
        "truncated_loss_W": truncation_curve(W, loss, ranks),
        "final_delta_W_singular_values": singular_values(delta)[:kept],
        "outliers": outliers(W, max(1.1 * gain, 0.05)),
        "example_outputs": np.asarray(_answer(network, example.inputs, key))[:, 0],
    }


def with_W(network: Any, W: NDArray[Any]) -> Any:
    """The network with other recurrent weights, in its own precision."""
    return eqx.tree_at(lambda net: net.W, network, jnp.asarray(np.asarray(W, network.W.dtype)))


def _loss(network: Any, batch: Trials, key: jax.Array) -> float:
    value = float(_evaluate(network, batch, key))
    return value if np.isfinite(value) else np.inf  # an unstable network may come to inf - inf


@eqx.filter_jit
def _answer(network: Any, inputs: jax.Array, key: jax.Array) -> jax.Array:
    return network(inputs, key=key).outputs


@eqx.filter_jit
def _evaluate(network: Any, batch: Trials, key: jax.Array) -> jax.Array:
    return mean_squared_error(network(batch.inputs, key=key).outputs, batch.targets, batch.mask)
