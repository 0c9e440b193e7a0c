"""Fitting a low-tensor-rank network to a recording: what changed in the connectivity from trial to trial."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from tauflow.analysis.arguments import real_array
from tauflow.learning import Progress
from tauflow.networks import LowTensorRankRNN
from tauflow.networks.checks import check_size
from tauflow.networks.trial_factors import predict_factors
from tauflow.neural.masks import Masks, draw_masks, warn_of_leaks
from tauflow.neural.scores import noise_ceiling, variance_explained
from tauflow.neural.training import Options, Problem, best, train
from tauflow.run import Run, RunError, read_store, run_attributes


class Fit(Run):
    """A low-tensor-rank network fitted to a recording: a Run whose path is over the trials of the recording.

    `fit.data` holds the weights of every trial as factors, `W_a`, `W_c` and `W_b` along `snapshot`, whose learning time
    is the trial's own id, with the labels `trial_id`, `condition` and `epoch`; the parameters of the network as
    `parameter_<name>`; the course of the fit as `fit_loss (run, fit_update)` and, at `fit_look`, `fit_train` and
    `fit_test` (losses) and `explained_train` and `explained_test`; `chosen_look (run)`, whose weights
    were kept; and the masks, `train_mask` and `test_mask`.
    """

    @property
    def options(self) -> Options:
        """How it was fitted."""
        return Options(**self.configuration["fit"])

    @property
    def masks(self) -> Masks:
        """What was fitted and what was held out, each (time, trial, neuron)."""
        return Masks(*(np.asarray(self.data[f"{kind}_mask"].values, bool) for kind in Masks._fields))

    @property
    def explained(self) -> dict[str, float]:
        """Variance (for Poisson losses: deviance) explained by the weights kept, of "train" and of "test" entries."""
        look = int(self.data["chosen_look"].values[0])
        return {kind: float(self.data[f"explained_{kind}"].values[0, look]) for kind in Masks._fields}

    @property
    def factors(self) -> xr.Dataset:
        """Columns and rows (unit, rank) of norm 1, and strengths `trial_factors` (trial, rank) with trials' labels."""
        data = self.data
        labels = {name: ("trial", data[name].values) for name in ("trial_id", "condition", "epoch")}
        return xr.Dataset(
            {
                "columns": (("unit", "rank"), data["W_a"].values[0, 0]),
                "rows": (("unit", "rank"), data["W_b"].values[0, 0]),
                "trial_factors": (("trial", "rank"), data["W_c"].values[0]),
            },
            labels,
        )

    def network(self, run: int = 0, snapshot: int = -1, like: Any = None) -> Any:
        """The fitted network, for all trials of the recording; `run.weights("W", snapshot=k)` has those of one trial.

        Args:
            run: Position of the member; there is one, 0.
            snapshot: Not for a fit: the network has the weights of all trials.
            like: Not for a fit.

        Raises:
            RunError: If `snapshot` or `like` is given.
        """
        if snapshot != -1:
            raise RunError(
                f"snapshot is {snapshot}; the network of a Fit has the weights of all trials, so leave it out, or take "
                f'those of one trial as factors: fit.weights("W", snapshot={snapshot}).'
            )
        if like is not None:
            raise RunError("A Fit is a LowTensorRankRNN; leave like= out, or take its arrays from fit.data.")
        prefix = "parameter_"
        kept = [str(name).removeprefix(prefix) for name in self.data.data_vars if str(name).startswith(prefix)]
        arrays = {name: jnp.asarray(self.data[prefix + name].values[run]) for name in kept}
        return LowTensorRankRNN(**arrays, **self.static(run))

    def predict(
        self,
        trial_ids: ArrayLike | None = None,
        conditions: Sequence[str] | None = None,
        epochs: Sequence[str] | None = None,
    ) -> xr.DataArray:
        """Activity as the network has it, in the recording's unit and without noise.

        Args:
            trial_ids: Trials to predict, whole numbers, shape (trial,): those of the recording by default. Others are
                predicted from strengths that go on smoothly between the fitted ones, as if learning had gone on there
                too.
            conditions: Condition of each of these trials, among those of the recording; known for recorded trials.
            epochs: Epoch of each of these trials, among those of the recording, which matters in a fit `by_epoch`: what
                goes on smoothly does so within an epoch. By default that of the nearest recorded trial; of recorded
                trials without effect.

        Returns:
            Activity (time, trial, neuron), with labels.

        Raises:
            ValueError: If an id is no whole number, a condition or epoch is missing or was not recorded, or they come
                without ids.
        """
        if trial_ids is None and not (conditions is None and epochs is None):
            raise ValueError("conditions or epochs came without trial_ids; name the trials that they are of.")
        data, network = self.data, self.network()
        ids, names = data["trial_id"].values, data["condition"].values
        if trial_ids is not None:
            asked = _whole_ids(trial_ids)
            known = dict(zip(ids.tolist(), names.tolist(), strict=True))
            names = np.array([known.get(int(i), "") for i in asked] if conditions is None else conditions)
            network, ids = self._at(network, asked, epochs), asked
        kinds = data["conditions"].values.tolist()
        _check_known("conditions", names, kinds, len(ids))
        where = jnp.asarray([kinds.index(name) for name in names.tolist()], jnp.int32)
        outputs = np.asarray(network(where, data.sizes["time"]).outputs, np.float64)
        activity = data["centre"].values + data["size"].values * outputs
        labels = {"time": data["time"], "trial_id": ("trial", ids), "condition": ("trial", names)}
        return xr.DataArray(activity, labels, ("time", "trial", "neuron"), "activity")

    def _at(self, network: LowTensorRankRNN, ids: NDArray[np.int64], epochs: Sequence[str] | None) -> LowTensorRankRNN:
        """The network with the strengths of other trials."""
        options, data = self.options, self.data
        fitted, recorded = data["trial_id"].values, data["epoch"].values
        nearest = np.abs(ids[:, None] - fitted).argmin(axis=1)  # (trial,)
        own = recorded[nearest] if epochs is None else np.asarray(epochs)
        _check_known("epochs", own, np.unique(recorded).tolist(), len(ids))
        A = options.covariance(recorded)(ids, fitted, own)
        strengths = predict_factors(
            network.c_latent, network.c_offset, network.smoothing, A, sigma=options.sigma, form=options.form
        )  # (trial, R)
        known = np.isin(ids, fitted)  # then the nearest trial is that one
        strengths[known] = np.asarray(network.trial_factors)[nearest[known]]
        latent = strengths - np.asarray(network.c_offset, np.float64), np.eye(len(ids))
        arrays = [jnp.asarray(value, network.a.dtype) for value in latent]
        return dataclasses.replace(network, c_latent=arrays[0], smoothing=arrays[1])

    def score(self, recording: xr.Dataset, mask: ArrayLike | None = None) -> float:
        """Share of a recording's variance that the network explains, around each neuron's mean over fitted entries.

        In a fit of squared errors all neurons count alike, each divided by its standard deviation; in one of counts
        they count as they vary. The held-out entries also told when to stop, so the score is a little too good.

        Args:
            recording: The recording that was fitted.
            mask: Entries to count, shape (time, trial, neuron); those held out by default.

        Raises:
            ValueError: If the recording has another shape.
        """
        masks, size = self.masks, self.data["size"].values
        where = masks.test if mask is None else mask
        return variance_explained(recording["activity"].values / size, self.predict().values / size, where,
                                  train=masks.train)  # fmt: skip

    def ceiling(self, recording: xr.Dataset, mask: ArrayLike | None = None) -> float:
        """The largest `score` that the noise of single trials allows; arguments as for `score`.

        Returns:
            See `tauflow.neural.noise_ceiling`; NaN where no condition is repeated.
        """
        masks = self.masks
        own = recording.assign(activity=recording["activity"] / self.data["size"].values)
        return noise_ceiling(own, masks.test if mask is None else mask, train=masks.train)


def fit_low_tensor_rank(
    recording: xr.Dataset,
    *,
    rank: int,
    units: int = 200,
    masks: Masks | None = None,
    starts: int = 4,
    key: jax.Array,
    out: str | Path | None = None,
    resume: bool = False,
    progress: Callable[[Progress], None] | None = None,
    **options: Any,
) -> Fit:
    r"""Fit one network of low tensor rank to all trials of a recording.

    Adam descends the mean loss over the fitted entries; the fit ends when the loss of the held-out ones stands still,
    and keeps the weights with which that was lowest.

    Args:
        recording: Rates, or counts of spikes for `loss="poisson"`, see `tauflow.neural.recording`. Scaling beforehand
            is not needed: for squared errors every neuron is centred and divided by its standard deviation.
        rank: Number of components R.
        units: Number of units n of the network; more than neurons are allowed.
        masks: What to fit and what to hold out; `draw_masks` by default, whose blocks grow with smoothing. With nothing
            to test it takes all steps. A `tauflow.neural.masks.LeakWarning` comes where smoothing tells of what is
            tested.
        starts: How many starts to try, side by side on all cores, with a fifth of the updates each (four make 80 % more
            of them); the one with the lowest loss on the fitted entries goes on, `fit.configuration["leaders"]`. One
            start may lead to a poor local minimum, most of all with `loss="poisson"`.
        key: JAX random key, of the masks, the starts and the trials left out.
        out: Folder for `fit.zarr` and, in `training`, for the course of the fit and of the `starts` that were tried;
            None keeps everything in memory.
        resume: Go on with the fit in `out`, if there is one.
        progress: Called with a `tauflow.learning.Progress` now and then.
        **options: Fields of `tauflow.neural.training.Options`.

    Returns:
        The fit.

    Raises:
        ValueError: If an argument is out of range, the recording is none, or `out` holds another fit.

    Source: pellegrino2023, supplement A.1. Deviation from print: see `LowTensorRankRNN` and `RecordingError`.

    Example:
        >>> from tauflow.neural import block_masks, recording
        >>> rates = np.random.default_rng(0).normal(size=(12, 24, 5))
        >>> small = {"time": 4, "trial": 6}
        >>> masks = block_masks({"time": 12, "trial": 24, "neuron": 5}, small, {"time": 2, "trial": 2},
        ...                     key=jax.random.key(0))
        >>> made = recording(rates, kind="rates", time=0.01 * np.arange(12))
        >>> fit = fit_low_tensor_rank(made, rank=2, units=10, masks=masks, starts=1, steps=40, key=jax.random.key(1))
        >>> fit.factors.trial_factors.shape, fit.tau_unit
        ((24, 2), 'trial')
    """
    check_size("starts", starts)
    mask_key, fit_key = jax.random.split(key)
    masks = draw_masks(recording, key=mask_key) if masks is None else masks
    problem, folder = Problem(recording, [masks], Options(**options)), None if out is None else Path(out)
    warn_of_leaks([masks], recording)
    training = None if folder is None else folder / "training"
    if folder is not None and (folder / "fit.zarr").exists() and not resume:
        raise RunError(f"{folder} already holds fit.zarr; pass resume=True to take it, or another out=.")
    run = train(
        problem, rank, units, starts=starts, key=fit_key, out=training, resume=resume, progress=progress, keep=True
    )
    fit = _fit_of(run, problem, fit_key)
    if folder is not None and not (folder / "fit.zarr").exists():
        fit.save(folder / "fit.zarr")
    return fit


def load_fit(path: str | Path) -> Fit:
    """Load a saved Fit, after checking that the store is whole.

    Raises:
        RunError: If there is nothing, or it is no Fit.
    """
    data = read_store(path)
    if data.attrs.get("kind") != "fit":
        raise RunError(f"{path} is no fit; load it with tauflow.load.")
    return Fit(data)


def _whole_ids(trial_ids: ArrayLike) -> NDArray[np.int64]:
    """Ids of trials (trial,), or what is wrong with them."""
    wanted = "whole numbers, one for each trial"
    ids = real_array("trial_ids", trial_ids, wanted=wanted)
    if ids.ndim != 1 or (ids % 1).any():
        raise ValueError(f"trial_ids is {trial_ids!r}; it must be {wanted}, for example [10, 11].")
    return ids.astype(np.int64)


def _check_known(name: str, labels: NDArray[Any], recorded: Sequence[str], trials: int) -> None:
    if labels.shape != (trials,) or set(labels.tolist()) - set(recorded):
        raise ValueError(
            f"{name} are {sorted(set(labels.ravel().tolist()))} for {trials} trials; there must be one for each, of "
            f"those recorded: {list(recorded)}."
        )


def _fit_of(run: Run, problem: Problem, key: jax.Array) -> Fit:
    """The Fit that training has led to."""
    recording, data = problem.recording, run.data
    losses = {kind: data[f"probe_{kind}"].values[:, :, 0].astype(np.float64) for kind in Masks._fields}
    look = best(problem.unexplained(losses["test"][0], 0), problem.options)
    arrays = {name: np.asarray(run.weights(name, snapshot=look)) for name in problem.options.trained}
    arrays["smoothing"] = problem.smoothing
    fitted = LowTensorRankRNN(**{k: jnp.asarray(v) for k, v in arrays.items()}, **run.static())
    a, c, b = (np.asarray(each, np.float32) for each in fitted.W)
    trials = len(c)
    ids = recording["trial_id"].values.astype(np.int64)
    variables: dict[str, Any] = {
        "W_a": (("run", "snapshot", "unit", "rank"), np.broadcast_to(a, (1, trials, *a.shape)).copy()),
        "W_c": (("run", "snapshot", "rank"), c[None]),
        "W_b": (("run", "snapshot", "unit", "rank"), np.broadcast_to(b, (1, trials, *b.shape)).copy()),
        "fit_loss": (("run", "fit_update"), data["loss"].values),
        "chosen_look": ("run", [look]),
        "centre": ("neuron", problem.centre if problem.options.loss == "mse" else np.zeros_like(problem.centre)),
        "size": ("neuron", problem.size),
    }
    for name, value in arrays.items():
        dims = tuple(f"{name}_{axis}" for axis in range(value.ndim))
        variables[f"parameter_{name}"] = (("run", *dims), value[None])
    for kind in Masks._fields:
        variables[f"fit_{kind}"] = (("run", "fit_look"), losses[kind])
        variables[f"explained_{kind}"] = (("run", "fit_look"), problem.explained(losses[kind], kind, 0))
        variables[f"{kind}_mask"] = (("time", "trial", "neuron"), getattr(problem.masks[0], kind))
    coordinates = {
        "snapshot_update": ("snapshot", np.arange(trials)),
        "tau_snapshot": (("run", "snapshot"), ids[None].astype(np.float64), {"unit": "trial"}),
        "trial_id": ("snapshot", ids),
        "condition": ("snapshot", recording["condition"].values),
        "epoch": ("snapshot", recording["epoch"].values),
        "conditions": ("conditions", problem.names),
        "neuron_id": ("neuron", recording["neuron_id"].values),
        "time": ("time", recording["time"].values),
        "fit_look": ("fit_look", data["measurement_update"].values),
        **{name: ("run", data[name].values) for name in ("status", "stopped_at", "seed")},
    }
    about = {
        name: recording.attrs[name] for name in ("source", "align", "bin_s", "smoothed_s", "dropped", "silent", "steps")
    }
    kept = [name for name in ("rank", "units", "fit", "starts", "leaders") if name in run.configuration]
    configuration: dict[str, Any] = {**{name: run.configuration[name] for name in kept}, "recording": about}
    configuration["key"] = np.asarray(jax.random.key_data(key)).tolist()
    network_attr = json.loads(data.attrs["network"])
    attributes = run_attributes(
        "fit", configuration=configuration, network=network_attr, seed=0, device=data.attrs["device"]
    )
    return Fit(xr.Dataset(variables, coordinates, attributes))
