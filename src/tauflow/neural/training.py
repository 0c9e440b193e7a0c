"""How low-tensor-rank networks are trained on a recording: what a fit and a cross-validation share."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np
import optax
import xarray as xr
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from tauflow.learning import Progress, Record, ensemble
from tauflow.learning.checkpoint import held_in
from tauflow.names import check_name
from tauflow.networks import LowTensorRankRNN
from tauflow.networks.condition_inputs import INPUTS, steps_until
from tauflow.networks.trial_factors import FORMS, block_by_epoch, rational_quadratic, smoothing_matrix
from tauflow.neural.masks import Masks
from tauflow.neural.recording import check_recording
from tauflow.neural.scores import neuron_means
from tauflow.objectives import RecordingError
from tauflow.objectives.recording import entry_losses
from tauflow.run import Run, RunError

TRAINED = ("a", "b", "c_latent", "c_offset", "z0", "W_out", "bias")
INPUT_FIELDS = {"none": (), "free": ("W_in", "u"), "ode": ("W_in", "v0", "layers", "D")}
OUTPUTS = {"mse": "identity", "poisson": "softplus"}
MATRICES = ("W_out", "layers", "D")
LOOKS = 4  # least number of looks by which a loss is judged to stand still
COOLING = 0.4  # share of the updates over which rates fall
TRYOUT = 0.2  # share of the updates that each of several starts gets
STARTS = "starts"  # folder of what was tried


@dataclasses.dataclass(frozen=True)
class Options:
    """How to fit, whatever the rank.

    Attributes:
        loss: "mse" for rates, "poisson" for counts of spikes.
        time_constant_s: Time constant of a unit in seconds; a step is one bin.
        length: Scale of smoothness over trials, in trials.
        scale: Standard deviation of smooth strengths at the start, in the unit of strengths, which all begin around
            1. With the paper's 0.1 strengths that change by more move slowly.
        sigma: Standard deviation of what varies from trial to trial without being smooth.
        form: How strengths are made of white numbers, "cholesky" or "sum", see
            `tauflow.networks.trial_factors.smoothing_matrix`. Their covariance is rational-quadratic in a fit; a
            network of your own takes any (`LowTensorRankRNN.random`).
        by_epoch: Whether strengths may jump between epochs.
        phi: Nonlinearity.
        decoder: "linear" or "orthonormal".
        inputs: What comes in before the go cue, which is at time 0, one course per condition: "none" (initial states
            alone tell conditions apart), "free" or "ode", see `tauflow.networks.condition_inputs`.
        inputs_until_s: Last time of the inputs, in seconds.
        trial_dropout: Share of the trials left out of every update, at random.
        penalty: Weight of the mean square of the latent strengths.
        learning_rate: Of Adam, for all but the large matrices.
        matrix_rate: Of Adam, for the decoder and the neural differential equation, whose many small entries would be
            shaken by a larger one.
        steps: Most updates; over the last 40 % of them both rates fall to a hundredth. Of several starts each gets a
            fifth of as many before, so that four add 80 %.
        every: Updates between two looks at the held-out loss.
        window: Updates over which the held-out loss must stand still for the fit to end, four looks or more.
        tolerance: Standard deviation of the held-out loss over the window, as a share of what a constant rate loses
            beyond a prediction of every entry (for squared errors, of the variance), below which it stands still.
            The authors' 1e-3 ends a fit that still gains 0.3 % of the variance in a window.
    """

    loss: str = "mse"
    time_constant_s: float = 0.1
    length: float = 15.0
    scale: float = 1.0
    sigma: float = 0.1
    form: str = "cholesky"
    by_epoch: bool = False
    phi: str = "tanh"
    decoder: str = "linear"
    inputs: str = "none"
    inputs_until_s: float = 0.1
    trial_dropout: float = 0.2
    penalty: float = 1e-4
    learning_rate: float = 0.1
    matrix_rate: float = 0.01
    steps: int = 1500
    every: int = 20
    window: int = 200
    tolerance: float = 2e-4

    def __post_init__(self) -> None:
        check_name("loss", self.loss, tuple(OUTPUTS))
        check_name("inputs", self.inputs, INPUTS)
        check_name("form", self.form, FORMS)
        positive = ("time_constant_s", "learning_rate", "matrix_rate", "tolerance")
        whole = ("steps", "every", "window")
        for name in (*positive, *whole):
            value = getattr(self, name)
            kinds: Any = (int, np.integer) if name in whole else (int, float, np.number)
            if isinstance(value, bool) or not isinstance(value, kinds) or not value > 0:
                raise ValueError(f"{name} is {value!r}; it must be a {'whole ' * (name in whole)}number > 0.")
        if self.window < LOOKS * self.every:
            raise ValueError(
                f"window is {self.window} updates and the held-out loss is looked at every {self.every}; a window must "
                f"hold {LOOKS} looks, so choose window={LOOKS * self.every} or a smaller every."
            )

    def covariance(self, epochs: NDArray[Any]) -> Callable[..., NDArray[np.float64]]:
        """Covariance of strengths between trials of given ids and those fitted, whose epochs are given."""

        def of(ids: Any, others: Any = None, own_epochs: Any = None) -> NDArray[np.float64]:
            A = rational_quadratic(ids, others, length=self.length, scale=self.scale)
            return block_by_epoch(A, epochs if own_epochs is None else own_epochs, epochs) if self.by_epoch else A

        return of

    @property
    def trained(self) -> tuple[str, ...]:
        """The fields of the network that a fit moves."""
        return (*TRAINED, *INPUT_FIELDS[self.inputs])

    def optimizer(self, steps: int | None = None) -> optax.GradientTransformation:
        """Adam with a rate of its own for large matrices; rates stay for 60 % of the steps and fall to a hundredth.

        Args:
            steps: Number of updates; `self.steps` by default.
        """
        steps = self.steps if steps is None else steps
        whole = math.ceil((1 - COOLING) * steps)

        def adam(rate: float) -> optax.GradientTransformation:
            stages = [optax.constant_schedule(rate), optax.linear_schedule(rate, rate / 100, steps - whole)]
            return optax.adam(optax.join_schedules(stages, [whole]), b2=0.99)

        kinds = {name: "matrix" if name in MATRICES else "rest" for name in self.trained}
        return optax.multi_transform({"matrix": adam(self.matrix_rate), "rest": adam(self.learning_rate)}, kinds)


class Problem:
    """A recording made ready: what the network's outputs should be, the masks, and what losses mean.

    For squared errors every neuron is centred and divided by its standard deviation over the entries that the first
    mask leaves for fitting, so that all count alike and the loss is a share of the variance; of a neuron that it hides
    wholly, over all entries. All masks share these two numbers of a neuron, which entries that another mask holds out
    have then a small part in.

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
        self.centre = neuron_means(activity, first)
        self.size = np.ones_like(self.centre)
        if options.loss == "mse":
            spread = np.sqrt(neuron_means((activity - self.centre) ** 2, first))
            self.size = np.where(spread > 0, spread, 1.0)
            activity = (activity - self.centre) / self.size
        self.activity = activity.astype(np.float32)
        self.names, conditions = np.unique(recording["condition"].values, return_inverse=True)
        self.conditions = conditions.astype(np.int32)
        self.alpha = float(recording.attrs["bin_s"]) / options.time_constant_s
        if self.alpha > 1:
            raise ValueError(
                f"a bin is {recording.attrs['bin_s']:g} s and time_constant_s {options.time_constant_s:g}; a step of "
                "one bin must not be longer than the time constant, so take narrower bins or a longer time_constant_s."
            )
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
        bins = steps_until(data["time"].values, options.inputs_until_s)
        if options.inputs != "none" and not bins:
            raise ValueError(
                f"inputs is {options.inputs!r} and no bin lies before {options.inputs_until_s:g} s; read the recording "
                "from an earlier time on, or leave inputs away."
            )
        network = LowTensorRankRNN.random(
            units,
            data.sizes["neuron"],
            rank=rank,
            conditions=len(self.names),
            trial_ids=data["trial_id"].values,
            key=key,
            covariance=options.covariance(data["epoch"].values),
            sigma=options.sigma,
            form=options.form,
            phi=options.phi,
            alpha=self.alpha,
            decoder=options.decoder,
            output=OUTPUTS[options.loss],
            inputs=options.inputs,
            input_steps=bins if options.inputs != "none" else 0,
        )
        if options.loss == "mse":
            return network
        bias = np.log(np.expm1(np.maximum(self.centre, 1e-3)))  # softplus of it is the mean count
        return eqx.tree_at(lambda net: net.bias, network, jax.numpy.asarray(bias, network.bias.dtype))

    @property
    def smoothing(self) -> NDArray[np.float32]:
        """S of the recorded trials, shape (trial, trial), which every network of a fit has."""
        ids, epochs = (self.recording[name].values for name in ("trial_id", "epoch"))
        A = self.options.covariance(epochs)(ids)
        return smoothing_matrix(A, self.options.sigma, self.options.form).astype(np.float32)

    def explained(self, losses: NDArray[np.floating], kind: str, mask: int) -> NDArray[np.float64]:
        """Share of the loss of a constant rate per neuron that is gone, of losses over "train" or "test" of a mask.

        For squared errors it is the variance explained; for Poisson losses the deviance explained, whose 1 is a
        prediction of every count.
        """
        null, least = self._ends[kind][:, mask]
        return np.asarray((null - losses) / (null - least), np.float64)

    def unexplained(self, losses: NDArray[np.floating], mask: int) -> NDArray[np.float64]:
        """What is left of held-out losses on a mask, as a share: what `ended` and `best` judge."""
        return 1 - self.explained(losses, "test", mask)

    def _null_and_least(self, kind: str) -> NDArray[np.float64]:
        """Mean losses of a constant rate per neuron and of the data themselves, shape (2, mask); NaN of no entries."""
        loss, y = self.options.loss, self.activity.astype(np.float64)
        constant = np.zeros_like(y) if loss == "mse" else np.broadcast_to(self.centre, y.shape)
        ends = [entry_losses(rate, y, loss, np) for rate in (constant, y)]
        masks = [getattr(each, kind) for each in self.masks]
        return np.array([[end[where].mean() if where.any() else np.nan for where in masks] for end in ends])


def ended(losses: NDArray[np.floating], options: Options) -> int | None:
    """Position of the held-out loss, one every `options.every` updates, at which a fit ends; None if it goes on.

    It ends where losses over the last window stand still: where their standard deviation is below the tolerance.

    Source: the authors' code of pellegrino2023.

    Example:
        >>> flat, falling = np.full(20, 0.3), np.linspace(1, 0, 20)
        >>> ended(flat, Options()), ended(falling, Options())
        (11, None)
    """
    count = options.window // options.every + 1
    if len(losses) <= count:
        return None
    still = np.flatnonzero(sliding_window_view(losses[1:], count).std(axis=1) < options.tolerance)
    return int(still[0]) + count if still.size else None


def best(losses: NDArray[np.floating], options: Options) -> int:
    """Position of the lowest held-out loss until a fit ends, whose weights are the fit's; the last one without any.

    Example:
        >>> best(np.array([1.0, 0.4, 0.6]), Options()), best(np.full(3, np.nan), Options())
        (1, 2)
    """
    end = ended(losses, options)
    known = losses if end is None else losses[: end + 1]
    return int(np.nanargmin(known)) if np.isfinite(known).any() else len(known) - 1


def train(
    problem: Problem,
    rank: int,
    units: int,
    *,
    starts: int,
    key: jax.Array,
    out: Path | None,
    resume: bool,
    progress: Callable[[Progress], None] | None,
    keep: bool = False,
) -> Run:
    """Train one network on every mask until all of them have ended.

    Of several starts each learns for a fifth of the updates on every mask, with rates that fall at their end, and the
    one that then fits its own entries best goes on. A start that leads to a poor local minimum mostly lags behind by
    then, and held-out entries have no say. What was tried is kept in the folder `starts` of `out`.

    Returns:
        The Run, one member for each mask, with `probe_train` and `probe_test (run, measurement, mask)`, and with `keep`
        the weights at every measurement. Its configuration says which of the `starts` leads on each mask, `leaders`.

    Raises:
        RunError: If `out` holds another run, of which nothing is changed.
    """
    options, watch = problem.options, Watch(problem)
    _check_folder(out, starts, resume)
    told: dict[str, Any] = {"rank": rank, "units": units, "fit": dataclasses.asdict(options), "starts": starts}
    common: dict[str, Any] = {"grid": {"mask": range(len(problem.masks))}, "train": options.trained, "resume": resume}

    def begin(*, key: jax.Array, mask: int) -> Any:
        return problem.network(rank, units, key=key)

    probes, networks = _probes(problem), None
    if starts > 1:
        *keys, key = jax.random.split(key, starts + 1)
        steps = math.ceil(TRYOUT * options.steps)
        tried = ensemble(
            begin,
            problem.objective,
            lambda mask: options.optimizer(steps),
            keys=keys,
            steps=steps,
            record=Record(weights="ends", measurements=[steps], probes=probes),
            out=None if out is None else out / STARTS,
            progress=_noting(progress, lambda: f"{starts} starts"),
            configuration=told,
            **common,
        )
        leaders = [leader(tried.data, mask) for mask in range(len(problem.masks))]
        told["leaders"] = tried.data["seed"].values[leaders].tolist()
        networks = _networks_of(tried, leaders, like=begin(key=keys[0], mask=0))

    looks = [*range(0, options.steps, options.every), options.steps]
    return ensemble(
        begin if networks is None else lambda *, key, mask: networks[mask],
        problem.objective,
        lambda mask: options.optimizer(),
        keys=[key],
        steps=options.steps,
        record=Record(weights="all" if keep else "ends", measurements=looks, probes=probes),
        until=watch,
        out=out,
        progress=_noting(progress, watch.in_words),
        configuration=told,
        **common,
    )


def _check_folder(out: Path | None, starts: int, resume: bool) -> None:
    """Refuse a folder with another run before anything is tried in it."""
    if out is None:
        return
    held_there, tried = held_in(out), (out / STARTS).exists()
    if not resume and (held_there or tried):
        raise RunError(
            f"{out} already holds {[*held_there, STARTS][0]} of a run; pass resume=True to go on with it, or another "
            "out=."
        )
    if (held_there and tried != (starts > 1)) or (tried and starts == 1):
        raise RunError(
            f"{out} holds a run {'with' if tried else 'without'} a folder {STARTS!r} of starts that were tried, and "
            f"{starts} are to be tried now; resume with the same arguments, or choose another folder."
        )


def _probes(problem: Problem) -> dict[str, Callable[[Any], Any]]:
    """Mean losses of a network over what each mask fits and tests, of one evaluation."""
    objective = problem.objective()
    errors = eqx.filter_jit(lambda network: objective.errors(network))
    latest: dict[int, Any] = {}

    def probe(kind: str) -> Callable[[Any], Any]:
        def of(network: Any) -> Any:
            if id(network) not in latest:
                latest.clear()
                latest[id(network)] = (network, errors(network))
            return np.asarray(getattr(latest[id(network)][1], kind))

        return of

    return {kind: probe(kind) for kind in Masks._fields}


def leader(tried: xr.Dataset, mask: int) -> int:
    """Position of the start with the lowest loss on what a mask fits; one that diverged leads only where all did."""
    own = np.flatnonzero(tried["mask"].values == mask)
    losses = tried["probe_train"].values[own, -1, mask].astype(np.float64)
    sound = (tried["status"].values[own] == "done") & np.isfinite(losses)
    return int(own[np.where(sound, losses, np.inf).argmin()])


def _networks_of(tried: Run, leaders: Sequence[int], *, like: LowTensorRankRNN) -> list[LowTensorRankRNN]:
    """Networks to go on with; one that diverged, where all did, begins anew, and what comes of it is reported."""
    done = tried.data["status"].values == "done"
    return [tried.network(i, snapshot=-1 if done[i] else 0, like=like) for i in leaders]


class Watch:
    """Follows the records of a fit: true once the fits of all masks have ended.

    Args:
        problem: What is fitted.
    """

    def __init__(self, problem: Problem):
        self.problem = problem
        self._latest: xr.Dataset | None = None

    def __call__(self, records: xr.Dataset) -> bool:
        self._latest, problem = records, self.problem
        losses = records["probe_test"].values  # (run, measurement, mask)
        tested = [problem.unexplained(losses[k, :, k], k) for k, mask in enumerate(problem.masks) if mask.test.any()]
        options = problem.options
        return bool(tested) and all(not np.isfinite(each).all() or ended(each, options) is not None for each in tested)

    def in_words(self) -> str:
        """Median over members, one for each mask, of what they explain of their entries at the last look."""
        if self._latest is None:
            return ""
        shares = {}
        for kind in Masks._fields:
            losses = self._latest[f"probe_{kind}"].values[:, -1]  # (run, mask)
            each = [float(self.problem.explained(losses[k, k], kind, k)) for k in range(len(losses))]
            shares[kind] = np.median([value for value in each if np.isfinite(value)] or [np.nan])
        return f"explained {shares['train']:.3f}, held out {shares['test']:.3f}"


def _noting(progress: Callable[[Progress], None] | None, note: Callable[[], str]) -> Callable[[Progress], None] | None:
    """A listener that is told a note with all else."""
    return None if progress is None else lambda news: progress(dataclasses.replace(news, note=note()))
