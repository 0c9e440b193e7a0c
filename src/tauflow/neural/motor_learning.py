"""A network that learns to reach, meets a perturbation, and is recorded in every trial: data with a known truth.

Adam teaches a noisy rate network to reach to all targets. From then on there is one update of plain gradient descent
after each single trial: baseline, perturbation, washout. The activity of each trial is the one that its update was made
from, with the weights before that update, so a fit to the recording can be compared with the weights of the Run.

With the loss as printed a network sets out before the go cue, for it is to be at the target at once, and a rotation of
30 degrees is learned by changes of the weights that hardly show in its activity. By default the hand therefore has time
to settle, holding still weighs more, and the rotation is of 60 degrees.

Source: pellegrino2023, supplement C. Deviation from print: the above; Euler steps, not an adaptive solver; and the hand
of `tauflow.tasks.reaching`.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr

from tauflow.learning import Record, descend
from tauflow.networks import RateRNN, Response
from tauflow.neural.recording import recording
from tauflow.objectives import ReachingLoss, run_trials
from tauflow.run import Run
from tauflow.simulate import nonlinearity
from tauflow.tasks import Reaching, Trials, direction_error
from tauflow.tasks.settings import check_count

EPOCHS = ("baseline", "perturbation", "washout")
MEMBRANE_TIME = 0.1  # s, to give the recording seconds
_WEIGHTS = ("W", "W_in", "W_out")


@dataclass(frozen=True)
class MotorLearning:
    """What `motor_learning` gives.

    Attributes:
        pretraining: Run of the updates that teach the reaches, with the weights at both ends.
        run: Run of the trials that follow: snapshot k has the weights in trial k, the last one those after all trials.
        recording: Activity φ(x) of all units after each step of these trials, in the format of
            `tauflow.neural.recording`, at `MEMBRANE_TIME` seconds a membrane time; conditions are the targets'
            directions in degrees, epochs those of `EPOCHS`.
        noiseless: Activity (time, trial, neuron) that the weights of each trial make without noise.
        behaviour: `cursor (time, trial, axis)`, `direction_error (trial)` at the end of each reach in degrees, positive
            if counter-clockwise, and `distance (trial)` of the cursor from the target, the mean over the time after
            settling.
    """

    pretraining: Run
    run: Run
    recording: xr.Dataset
    noiseless: xr.DataArray
    behaviour: xr.Dataset


def motor_learning(
    task: Reaching | None = None,
    *,
    key: jax.Array,
    neurons: int = 200,
    trials: Mapping[str, int] | None = None,
    gain: float = 0.9,
    noise: float = 0.1,
    pretraining: int = 500,
    batch: int = 32,
    pretraining_rate: float = 3e-3,
    learning_rate: float = 0.02,
    hold: float = 10.0,
    train: Sequence[str] = ("W",),
) -> MotorLearning:
    """Teach a network to reach, perturb it while it goes on learning, end the perturbation, and record all trials.

    Args:
        task: The reaches with their perturbation, which is left out of pre-training, baseline and washout;
            `Reaching(perturbation="rotation", angle=60.0, mass=0.3, settle=1.0)` by default.
        key: JAX random key.
        neurons: Number of units, >= 1.
        trials: Number of trials in each of `EPOCHS`, >= 1; 50, 200 and 100 by default.
        gain: g of the initial weights.
        noise: Standard deviation of the units' white noise per square root of the membrane time.
        pretraining: Number of updates of Adam, on all weights.
        batch: Trials in each of them.
        pretraining_rate: Rate of Adam.
        learning_rate: Rate of gradient descent, one trial an update.
        hold: Weight of holding the hand still before the go cue, see `tauflow.objectives.ReachingLoss`.
        train: Weights that trials change, of "W", "W_in" and "W_out".

    Returns:
        Runs, recording and behaviour.

    Raises:
        ValueError: If an argument is out of range, or learning diverges.

    Source: pellegrino2023, supplement C. Deviation from print: see the module.

    Example:
        >>> few = {"baseline": 2, "perturbation": 3, "washout": 2}
        >>> learned = motor_learning(key=jax.random.key(0), neurons=20, trials=few, pretraining=3)
        >>> dict(learned.recording.sizes), learned.run.data.W.shape
        ({'time': 40, 'trial': 7, 'neuron': 20}, (1, 8, 20, 20))
    """
    task = Reaching(perturbation="rotation", angle=60.0, mass=0.3, settle=1.0) if task is None else task
    counts = _counts(trials)
    if not isinstance(task, Reaching) or task.perturbation == "none":
        raise ValueError(
            f"task is {task!r}; it must be a reaching task with a perturbation, for example "
            "Reaching(perturbation='rotation')."
        )
    free = dataclasses.replace(task, perturbation="none")
    k_network, k_before, *keys = jax.random.split(key, 2 + len(EPOCHS))
    network = RateRNN.random(neurons, task.inputs, task.outputs, gain=gain, key=k_network, dt=task.dt, noise=noise)
    before = descend(
        network, ReachingLoss(free, batch, hold), optimizer=optax.adam(pretraining_rate), steps=pretraining,
        key=k_before, configuration={"epoch": "pretraining"}, record=Record(measurements=0),
    )  # fmt: skip
    tasks = [task if epoch == "perturbation" else free for epoch in EPOCHS]
    optimizer, runs = optax.sgd(learning_rate), [before]
    for epoch, of, k_epoch in zip(EPOCHS, tasks, keys, strict=True):
        one = descend(
            _last(runs[-1]), ReachingLoss(of, 1, hold), optimizer=optimizer, steps=counts[epoch], key=k_epoch,
            train=train, configuration={"epoch": epoch},
            record=Record(measurements=0, weights=range(counts[epoch] + 1)),
        )  # fmt: skip
        runs.append(one)
    _last(runs[-1])
    run = _one_after_the_other(runs[1:])
    trial_keys = [
        jax.random.fold_in(k, trial) for k, epoch in zip(keys, EPOCHS, strict=True) for trial in range(counts[epoch])
    ]
    together, response, quiet = _trials_of(run, free, jnp.stack(trial_keys))
    data, behaviour = _recorded(tasks, counts, together, response, network.phi)
    noiseless = data["activity"].copy(data=np.asarray(nonlinearity(network.phi)(quiet.states)))
    return MotorLearning(before, run, data, noiseless, behaviour)


def _counts(trials: Mapping[str, int] | None) -> dict[str, int]:
    """The number of trials of each epoch."""
    counts = dict(zip(EPOCHS, (50, 200, 100), strict=True)) if trials is None else dict(trials)
    if counts.keys() != set(EPOCHS):
        raise ValueError(f"trials has {', '.join(map(str, counts))}; it must have {', '.join(EPOCHS)}.")
    for epoch, count in counts.items():
        check_count(f"trials[{epoch!r}]", count)
    return counts


def _last(run: Run) -> RateRNN:
    """The network at the end, or the sentence that there is none."""
    status, epoch = run.data.status.item(), run.configuration["epoch"]
    if status != "done":
        raise ValueError(f"Learning {status} at update {run.data.stopped_at.item()} of {epoch}; take a lower rate.")
    network: RateRNN = run.network()
    return network


def _one_after_the_other(runs: Sequence[Run]) -> Run:
    """Runs of which each begins where the one before ended, as one."""
    parts: list[xr.Dataset] = []
    updates, tau = 0, 0.0
    for run in runs:
        data = run.data if not parts else run.data.isel(snapshot=slice(1, None))
        shifted = {name: data[name] + updates for name in ("update", "snapshot_update")}
        shifted |= {name: (data[name] + tau).assign_attrs(data[name].attrs) for name in ("tau", "tau_snapshot")}
        data = data.assign_coords(shifted)
        parts.append(data)
        updates, tau = updates + run.data.sizes["update"], float(data.tau_snapshot[0, -1])
    by_update = [part.drop_dims("snapshot") for part in parts]
    by_snapshot = [part.drop_dims("update") for part in parts]
    options: dict[str, Any] = {"data_vars": "minimal", "coords": "minimal", "compat": "override", "join": "override"}
    joined = [xr.concat(by_update, "update", **options), xr.concat(by_snapshot, "snapshot", **options)]
    data = xr.merge(joined, compat="override", join="exact")
    data["stopped_at"] = data["stopped_at"].copy(data=[updates])
    configurations = {run.configuration["epoch"]: run.configuration for run in runs}
    data.attrs = {**runs[0].data.attrs, "configuration": json.dumps({"epochs": configurations})}
    return Run(data)


@eqx.filter_jit
def _respond(networks: RateRNN, task: Reaching, keys: jax.Array) -> tuple[Trials, Response]:
    """One trial of each of many networks, all arrays (trial, time, 1, ...)."""
    return eqx.filter_vmap(lambda network, key: run_trials(task, network, 1, key))(networks, keys)


def _trials_of(run: Run, task: Reaching, keys: jax.Array) -> tuple[Trials, Response, Response]:
    """The trials from which the updates were made, with the weights before each, as arrays (time, trial, ...).

    The second response is the same without noise.
    """
    weights = {name: jnp.asarray(run.data[name].values[0, :-1]) for name in _WEIGHTS}  # (trial, ...)
    networks = dataclasses.replace(run.network(snapshot=0), **weights)
    noisy, quiet = (_respond(dataclasses.replace(networks, noise=noise), task, keys) for noise in (networks.noise, 0.0))
    made: tuple[Trials, Response, Response] = jax.tree.map(
        lambda array: jnp.moveaxis(array[:, :, 0], 0, 1), (*noisy, quiet[1])
    )
    return made


def _recorded(
    tasks: Sequence[Reaching], counts: Mapping[str, int], batch: Trials, response: Response, phi: str
) -> tuple[xr.Dataset, xr.Dataset]:
    """Recording and behaviour of all trials."""
    task, epochs = tasks[0], np.repeat(EPOCHS, [counts[epoch] for epoch in EPOCHS])
    forces = jnp.split(response.outputs, np.cumsum([counts[epoch] for epoch in EPOCHS])[:-1], axis=1)
    cursor = jnp.concatenate([of.answer(force) for of, force in zip(tasks, forces, strict=True)], axis=1)
    angles = np.rad2deg(np.arctan2(batch.inputs[0, :, 1], batch.inputs[0, :, 0])) % 360  # (trial,)
    nearest = np.abs((angles[:, None] - task.angles + 180) % 360 - 180).argmin(axis=1)
    data = recording(
        np.asarray(nonlinearity(phi)(response.states)),
        kind="rates",
        time=MEMBRANE_TIME * (task.times + task.dt - task.preparation),
        condition=[f"{angle:g}" for angle in task.angles[nearest]],
        epoch=epochs,
        align="go cue",
        steps=["activity of a network that learned to reach"],
        unit="1",
    )
    distance = jnp.linalg.norm(cursor - batch.targets, axis=-1)[task.settled :].mean(axis=0)  # (trial,)
    error = np.asarray(direction_error(cursor[-1], batch.targets[-1]))  # (trial,)
    behaviour = xr.Dataset(
        {
            "cursor": (("time", "trial", "axis"), np.asarray(cursor)),
            "direction_error": ("trial", error, {"unit": "degrees"}),
            "distance": ("trial", np.asarray(distance)),
        },
        {name: data[name] for name in ("time", "trial_id", "condition", "epoch")} | {"axis": ["right", "up"]},
    )
    return data, behaviour
