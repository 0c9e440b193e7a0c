"""What a trained ensemble is made of: measures of its first and last weights, and what its networks do."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from tauflow.analysis import functional_rank, outliers, shuffle_entries, singular_values, truncation_curve
from tauflow.learning.recorder import matrix_name, recurrent
from tauflow.run import Run
from tauflow.study.evaluation import Evaluation, has_ended

THRESHOLD = 0.05
SINGULAR_VALUES = 10
#: What every measure is, as the attribute `long_name`, with the name of the matrix that multiplies the state as {}.
_LONG_NAMES = {
    "initial_loss": "loss before learning",
    "final_loss": "loss after learning",
    "updates_to_threshold": "updates to 5 % of the initial training loss",
    "tau_to_threshold": "learning time τ to 5 % of the initial loss",
    "functional_rank_delta_W": "functional rank of ΔW",
    "functional_rank_W": "functional rank of W",
    "delta_W_norm": "‖Δ{}‖ (Frobenius)",
    "shuffled_loss": "loss after shuffling W₀",
    "truncated_loss_delta_W": "loss with ΔW truncated to a rank",
    "truncated_loss_W": "loss with W truncated to a rank",
    "final_delta_W_singular_values": "first singular values of Δ{} after learning",
    "outliers": "eigenvalues of {} outside the circle |λ| = max(1.1 g, 0.05)",
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


def measure(
    run: Run, evaluation: Evaluation, *, gain: float, seed: int = 0, threshold: float = THRESHOLD
) -> xr.Dataset:
    """Measure what learning changed and of what rank it is, member by member.

    All losses but the training loss are those of the evaluation: on one batch, the same for every member, rank and
    shuffling, or exact. A functional rank is the first rank tried whose truncated loss is below `threshold` times the
    initial one. Members without final weights (diverged ones) get NaN. Sizes, singular values and eigenvalues are
    those of the matrix that multiplies the state.

    Args:
        run: A Run of networks that keeps its first and last weights.
        evaluation: How to measure a network: `TrialEvaluation` or `FilterEvaluation`.
        gain: g; eigenvalues with |λ| > max(1.1 g, 0.05) count as outliers.
        seed: From which the shuffling comes.
        threshold: Fraction of the initial loss that counts as solved.

    Returns:
        A dataset along `run`: `initial_loss`, `final_loss`, `updates_to_threshold` (of a flow: `tau_to_threshold`),
        `functional_rank_delta_W`, `functional_rank_W`, `delta_W_norm`, `shuffled_loss`; `truncated_loss_delta_W`,
        `truncated_loss_W (run, rank)`; `final_delta_W_singular_values (run, index)`; `outliers (run, outlier)`,
        complex, NaN-padded; and what `evaluation.shown` gives.

    Raises:
        ValueError: If the Run keeps no weights.
    """
    ranks = ranks_to_try(run.data.sizes["unit"])
    with evaluation.scope():
        rows = [_member(run, member, evaluation, ranks, gain, seed) for member in range(run.n_runs)]
        shown = evaluation.shown(run)
        matrix = matrix_name(run.network(snapshot=0))
    found = {name: np.stack([row[name] for row in rows]) for name in rows[0] if name != "outliers"}
    most = max(len(row["outliers"]) for row in rows)
    padded = [np.pad(row["outliers"], (0, most - len(row["outliers"])), constant_values=np.nan) for row in rows]
    time_name, time = _time_to_threshold(run, threshold)
    variables: dict[str, Any] = {
        **{name: (_dims(name), values) for name, values in found.items()},
        "outliers": (("run", "outlier"), np.stack(padded)),
        time_name: ("run", time),
    }
    finite = np.where(np.isfinite(found["initial_loss"]), found["initial_loss"], 0.0)  # no loss is below 0
    for name in ("delta_W", "W"):
        solved = functional_rank(found[f"truncated_loss_{name}"], finite, threshold=threshold, ranks=ranks)
        variables[f"functional_rank_{name}"] = ("run", solved)
    coordinates = {"rank": ranks, **{n: ("run", run.data[n].values) for n in ("seed", "status")}}
    attributes = {**shown.attrs, "threshold": threshold, "functional_rank_reference": "initial loss", "matrix": matrix}
    measures = xr.Dataset(variables, coordinates, attributes).merge(shown)
    for name in variables:
        measures[name].attrs["long_name"] = _LONG_NAMES[name].format(matrix)
    return measures


def _time_to_threshold(run: Run, threshold: float) -> tuple[str, NDArray[np.float64]]:
    """Updates, or in a flow the learning time, at which the recorded loss first lies below the threshold."""
    position = updates_to_threshold(np.asarray(run.data["loss"]), threshold)  # (run,)
    if run.data.attrs["kind"] != "flow":
        return "updates_to_threshold", position
    reached = np.isfinite(position)
    at = np.where(reached, position, 0).astype(np.int64)
    return "tau_to_threshold", np.where(reached, run.data["tau"].values[np.arange(len(at)), at], np.nan)


def _dims(name: str) -> tuple[str, ...]:
    inner = {
        "truncated_loss_delta_W": ("rank",),
        "truncated_loss_W": ("rank",),
        "final_delta_W_singular_values": ("index",),
    }
    return ("run", *inner.get(name, ()))


def _member(
    run: Run, member: int, evaluation: Evaluation, ranks: NDArray[np.int64], gain: float, seed: int
) -> dict[str, NDArray[Any]]:
    """All measures of one member that need its weights; NaN where it has no final ones."""
    first = run.network(run=member, snapshot=0)
    W0, W = (np.asarray(run.weights("W", member, at), np.float64) for at in (0, -1))
    kept = min(SINGULAR_VALUES, W.shape[0])
    result: dict[str, Any] = {"initial_loss": np.float64(evaluation.loss(first, member))}
    if not has_ended(run, member):
        return result | {
            **{name: np.float64(np.nan) for name in ("final_loss", "delta_W_norm", "shuffled_loss")},
            **{f"truncated_loss_{name}": np.full(len(ranks), np.nan) for name in ("delta_W", "W")},
            "final_delta_W_singular_values": np.full(kept, np.nan),
            "outliers": np.zeros(0, np.complex128),
        }
    network = run.network(run=member, snapshot=-1)

    def loss(W: NDArray[Any]) -> float:
        return evaluation.loss(with_W(network, W), member)

    delta, change = W - W0, recurrent(network) - recurrent(first)
    return result | {
        "final_loss": np.float64(loss(W)),
        "delta_W_norm": np.linalg.norm(change),
        "shuffled_loss": np.float64(loss(shuffle_entries(W0, key=seed * 1_000_003 + member) + delta)),
        "truncated_loss_delta_W": truncation_curve(delta, lambda cut: loss(W0 + cut), ranks),
        "truncated_loss_W": truncation_curve(W, loss, ranks),
        "final_delta_W_singular_values": singular_values(change)[:kept],
        "outliers": outliers(recurrent(network), max(1.1 * gain, 0.05)),
    }


def with_W(network: Any, W: NDArray[Any]) -> Any:
    """The network with other recurrent weights, in its own precision."""
    return eqx.tree_at(lambda net: net.W, network, jnp.asarray(np.asarray(W, network.W.dtype)))
