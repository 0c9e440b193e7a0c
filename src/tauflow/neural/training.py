"""How low-tensor-rank networks are trained on a recording: what a fit and a cross-validation share."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np
import optax
import xarray as xr
from numpy.typing import NDArray

from tauflow.learning import Progress, Record, ensemble
from tauflow.names import check_name
from tauflow.networks import LowTensorRankRNN
from tauflow.networks.trial_factors import block_by_epoch, rational_quadratic
from tauflow.neural.masks import Masks
from tauflow.neural.recording import check_recording
from tauflow.objectives import RecordingError
from tauflow.run import Run

TRAINED = ("a", "b", "c_latent", "c_offset", "z0", "W_out", "bias")
OUTPUTS = {"mse": "identity", "poisson": "softplus"}


@dataclasses.dataclass(frozen=True)
class Options:
    """How to fit, whatever the rank.

    Attributes:
        loss: "mse" for rates, "poisson" for counts of spikes.
        time_constant_s: Time constant of a unit in seconds; a step is one bin.
        length: Scale of smoothness over trials, in trials.
        scale: Standard deviation of smooth strengths at the start, in the unit of strengths, which all begin around
            1. With the paper's 0.1 strengths that change by more move slowly: 500 updates then reached 0.95 of what
            could be explained of a made recording, with 1 0.99.
        sigma: Standard deviation of what varies from trial to trial without being smooth.
        by_epoch: Whether strengths may jump between epochs.
        phi: Nonlinearity.
        decoder: "linear" or "orthonormal".
        trial_dropout: Share of the trials left out of every update, at random.
        penalty: Weight of the mean square of the latent strengths.
        learning_rate: Of Adam.
        steps: Most updates.
        every: Updates between two looks at the held-out loss.
        window: Updates over which the held-out loss must stand still for the fit to end.
        tolerance: Standard deviation of the held-out loss over the window, relative to the variance of the data, below
            which it stands still.
    """

    loss: str = "mse"
    time_constant_s: float = 0.1
    length: float = 15.0
    scale: float = 1.0
    sigma: float = 0.1
    by_epoch: bool = False
    phi: str = "tanh"
    decoder: str = "linear"
    trial_dropout: float = 0.2
    penalty: float = 1e-4
    learning_rate: float = 0.03
    steps: int = 3000
    every: int = 20
    window: int = 200
    tolerance: float = 1e-3

    def __post_init__(self) -> None:
        check_name("loss", self.loss, tuple(OUTPUTS))
        positive = ("time_constant_s", "learning_rate", "tolerance")
        whole = ("steps", "every", "window")
        for name in (*positive, *whole):
            value = getattr(self, name)
            kinds: Any = (int, np.integer) if name in whole else (int, float, np.number)
            if isinstance(value, bool) or not isinstance(value, kinds) or not value > 0:
                raise ValueError(f"{name} is {value!r}; it must be a {'whole ' * (name in whole)}number > 0.")

    def covariance(self, epochs: NDArray[Any]) -> Callable[..., NDArray[np.float64]]:
        """Covariance of strengths between trials of given ids and those fitted, whose epochs are given."""

        def of(ids: Any, others: Any = None, own_epochs: Any = None) -> NDArray[np.float64]:
            A = rational_quadratic(ids, others, length=self.length, scale=self.scale)
            return block_by_epoch(A, epochs if own_epochs is None else own_epochs, epochs) if self.by_epoch else A

        return of


class Problem:
    """A recording made ready: what the network's outputs should be, the masks, and what losses mean.

    For squared errors every neuron is centred and divided by its standard deviation over the entries that the first
    mask leaves for fitting, so that all count alike and the loss is a share of the variance.

    Args:
        recording: The recording.
        masks: What is fitted and tested.
        options: How to fit.

    Raises:
        ValueError: If the recording is none, the masks do not fit it, or its kind does not fit the loss.
    """

    def __init__(self, recording: xr.Dataset, masks: Sequence[Masks], options: Options):
        check_recording(recording)
        activity = np.asarray(recording["activity"].values, np.float64)  # (time, trial, neuron)
        if options.loss == "poisson" and recording["activity"].attrs["kind"] != "spikes":
            raise ValueError("loss is 'poisson' and the recording holds rates; give counts of spikes, or loss='mse'.")
        for each in masks:
            if each.train.shape != activity.shape or not each.train.any() or (each.train & each.test).any():
                raise ValueError(
                    f"a mask has shape {each.train.shape}; it must be {activity.shape}, (time, trial, neuron), with "
                    "entries to train on and none of them tested."
                )
        self.recording, self.options, self.masks = recording, options, tuple(masks)
        first = self.masks[0].train
        count = np.maximum(first.sum(axis=(0, 1)), 1)
        self.centre = np.sum(activity, axis=(0, 1), where=first) / count  # (neuron,)
        self.size = np.ones_like(self.centre)
        if options.loss == "mse":
            spread = np.sqrt(np.sum((activity - self.centre) ** 2, axis=(0, 1), where=first) / count)
            self.size = np.where(spread > 0, spread, 1.0)
            activity = (activity - self.centre) / self.size
        self.activity = activity.astype(np.float32)
        self.names, conditions = np.unique(recording["condition"].values, return_inverse=True)
        self.conditions = conditions.astype(np.int32)
        self.alpha = min(float(recording.attrs["bin_s"]) / options.time_constant_s, 1.0)
        train, test = (np.stack([getattr(each, kind) for each in self.masks]) for kind in Masks._fields)
        self._objective = RecordingError(
            self.activity,
            self.conditions,
            train,
            test,
            loss=options.loss,
            trial_dropout=options.trial_dropout,
            penalty=options.penalty,
        )
        self._ends = {kind: self._null_and_least(kind) for kind in Masks._fields}

    def objective(self, mask: Any = 0) -> RecordingError:
        """The loss on one of the masks; all of them share the arrays."""
        return eqx.tree_at(lambda whole: whole.mask, self._objective, jax.numpy.asarray(mask))

    def network(self, rank: int, units: int, *, key: jax.Array) -> LowTensorRankRNN:
        """Draw the network that a fit starts from; its outputs begin at each neuron's mean."""
        options, data = self.options, self.recording
        network = LowTensorRankRNN.random(
            units,
            data.sizes["neuron"],
            rank=rank,
            conditions=len(self.names),
            trial_ids=data["trial_id"].values,
            key=key,
            covariance=options.covariance(data["epoch"].values),
            sigma=options.sigma,
            phi=options.phi,
            alpha=self.alpha,
            decoder=options.decoder,
            output=OUTPUTS[options.loss],
        )
        if options.loss == "mse":
            return network
        bias = np.log(np.expm1(np.maximum(self.centre, 1e-3)))  # softplus of it is the mean count
        return eqx.tree_at(lambda net: net.bias, network, jax.numpy.asarray(bias, network.bias.dtype))

    def explained(self, losses: NDArray[np.floating], kind: str) -> NDArray[np.float64]:
        """Share of the loss of a constant rate per neuron that is gone, of losses (..., mask) over "train" or "test".

        For squared errors it is the variance explained; for Poisson losses the deviance explained, whose 1 is a
        prediction of every count.
        """
        null, least = self._ends[kind]
        return np.asarray((null - losses) / (null - least), np.float64)

    def _null_and_least(self, kind: str) -> NDArray[np.float64]:
        """Mean losses of a constant rate per neuron and of the data themselves, shape (2, mask); NaN of no entries."""
        loss, y = self.options.loss, self.activity.astype(np.float64)
        constant = np.zeros_like(y) if loss == "mse" else np.broadcast_to(self.centre, y.shape)
        ends = [_entry_losses(y, rate, loss) for rate in (constant, y)]
        masks = [getattr(each, kind) for each in self.masks]
        return np.array([[end[where].mean() if where.any() else np.nan for where in masks] for end in ends])


def _entry_losses(y: NDArray[np.float64], rate: NDArray[np.float64], loss: str) -> NDArray[np.float64]:
    if loss == "mse":
        return (y - rate) ** 2
    return rate - y * np.log(np.where(y > 0, np.maximum(rate, 1e-300), 1.0))


def stands_still(losses: NDArray[np.floating], options: Options) -> bool:
    """Whether held-out losses, one every `options.every` updates, have come to rest over the last window.

    Source: the authors' code of pellegrino2023: the standard deviation of the last 200 test losses over the variance
        of the data is below 1e-3.

    Example:
        >>> stands_still(np.full(20, 0.3), Options()), stands_still(np.linspace(1, 0, 20), Options())
        (True, False)
    """
    count = options.window // options.every + 1
    return len(losses) > count and bool(np.std(losses[-count:]) < options.tolerance)


def stopping(losses: NDArray[np.floating], options: Options) -> int:
    """Position of the first of these held-out losses at which a fit ends; the last one if they never rest."""
    ends = (i for i in range(len(losses)) if stands_still(losses[: i + 1], options))
    return next(ends, len(losses) - 1)


def train(
    problem: Problem,
    rank: int,
    units: int,
    *,
    keys: Sequence[jax.Array],
    out: Path | None,
    resume: bool,
    progress: Callable[[Progress], None] | None,
) -> Run:
    """Train networks from every key on every mask until all held-out losses stand still.

    Returns:
        The Run, with `probe_train` and `probe_test (run, measurement, mask)` and the coordinate `mask` along `run`.
    """
    options, objective = problem.options, problem.objective()
    errors = eqx.filter_jit(lambda network: objective.errors(network))
    latest: dict[int, Any] = {}  # both probes are made of one evaluation

    def probe(kind: str) -> Callable[[Any], Any]:
        def of(network: Any) -> Any:
            if id(network) not in latest:
                latest.clear()
                latest[id(network)] = (network, errors(network))
            return np.asarray(getattr(latest[id(network)][1], kind))

        return of

    def until(records: xr.Dataset) -> bool:
        masks = range(len(problem.masks))
        own = [k for _ in keys for k in masks]
        losses = records["probe_test"].values  # (run, measurement, mask)
        tested = [losses[i, :, k] for i, k in enumerate(own) if problem.masks[k].test.any()]
        return bool(tested) and all(not np.isfinite(each).all() or _rested(each, options) for each in tested)

    return ensemble(
        lambda *, key, mask: problem.network(rank, units, key=key),
        lambda mask: problem.objective(mask),
        lambda mask: optax.adam(options.learning_rate),
        keys=list(keys),
        grid={"mask": range(len(problem.masks))},
        steps=options.steps,
        train=TRAINED,
        record=Record(
            measurements=[*range(0, options.steps, options.every), options.steps],
            probes={"train": probe("train"), "test": probe("test")},
        ),
        until=until,
        out=out,
        resume=resume,
        progress=progress,
        configuration={"rank": rank, "units": units, "fit": dataclasses.asdict(options)},
    )


def _rested(losses: NDArray[np.floating], options: Options) -> bool:
    """Whether losses have stood still once: a fit that went on for others' sake has ended then."""
    return stands_still(losses[: stopping(losses, options) + 1], options)
