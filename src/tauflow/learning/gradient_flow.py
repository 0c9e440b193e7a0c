r"""Gradient flow, $d\theta/d\tau = -\eta_\theta\,\partial L/\partial\theta$, integrated adaptively in float64.

The integrator steps as far as its tolerances let it, whatever is to be recorded. Within a step the weights are known
at every time (dense output of the Runge-Kutta method), so recording changes nothing of the path: at each saved time
inside the step, loss and gradient norm are computed where the weights are, and the weights themselves come to the host
only for a snapshot or a measurement. Memory is that of one step, about 20 copies of the weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from tauflow.learning.assemble import describe_objective, with_learning_time
from tauflow.learning.groups import check_trained, checked_fields, device_in_words
from tauflow.learning.member import replace, trained
from tauflow.learning.progress import Progress, Reporter
from tauflow.learning.record import Record
from tauflow.learning.recorder import WEIGHT_FIELDS, Recorder, spectral_abscissa_of
from tauflow.precision import cast, scope
from tauflow.run import Run, describe_network, run_attributes

_FIRST_STEP = 1e-4  # of the duration; the controller makes it ten times longer with every step that is good
_FEWEST_STEP = 1e-13  # of the duration: a step that must be shorter means that the flow goes no further


def flow(
    network: Any,
    objective: Callable[[Any, jax.Array], jax.Array],
    *,
    duration: float,
    save_at: Sequence[float] | np.ndarray | None = None,
    train: Sequence[str] = ("W", "W_in", "W_out"),
    rates: Mapping[str, float] | None = None,
    rtol: float = 1e-8,
    atol: float = 1e-10,
    key: jax.Array | None = None,
    record: Record = Record(),
    max_steps: int = 100_000,
    progress: Callable[[Progress], None] | None = None,
    configuration: Mapping[str, Any] | None = None,
) -> Run:
    r"""Follow the gradient flow of a loss, $d\theta/d\tau = -\eta_\theta\,\partial L/\partial\theta$, in float64.

    The loss is descended as it is given: no hidden ½ and no factor N. An adaptive eighth-order Runge-Kutta step that
    reaches a loss of +inf is rejected and tried again shorter; where no step is short enough the run ends as
    "diverged", and all that was recorded before is kept.

    Args:
        network: An `equinox.Module`; the fields named in `train` are moved.
        objective: `objective(network, key) -> scalar`. It sees one and the same key all along, so a sampled loss is
            that of one fixed batch.
        duration: Learning time τ to go, > 0.
        save_at: Learning times to record at, within [0, duration]; 101 evenly spaced by default. They are the `update`
            axis of the Run.
        train: Names of the fields to train.
        rates: Name -> learning rate η of that field; 1 for those not named.
        rtol: Relative tolerance of a step.
        atol: Absolute tolerance of a step.
        key: JAX random key for a sampled loss; a fixed one by default.
        record: What to keep; its updates count the saved points, from 0 to len(save_at) - 1. It changes nothing of
            the path.
        max_steps: Most steps of the integrator; beyond it the run ends as "interrupted".
        progress: Called with a `Progress` at every saved point, which counts as an update there.
        configuration: Plain values to store with the run.

    Returns:
        The Run, with one member, tau in units of "flow".

    Raises:
        ValueError: If an argument is out of range, or the loss is not finite at the start.

    Example:
        >>> import jax
        >>> from tauflow.networks import RateRNN
        >>> network = RateRNN.random(10, 1, 1, gain=0.5, key=jax.random.key(0))
        >>> run = flow(network, lambda net, key: 0.5 * (net.W**2).sum(), duration=1.0, train=("W",))
        >>> ratio = run.weights("W") / run.weights("W", snapshot=0)
        >>> bool(abs(ratio - np.exp(-1.0)).max() < 1e-8)
        True
    """
    plan = planned(
        network, duration=duration, save_at=save_at, train=train, rates=rates, rtol=rtol, atol=atol,
        max_steps=max_steps, record=record,
    )  # fmt: skip
    reporter = Reporter(progress, 1, len(plan.times), unit="points", compiled=2)
    with scope("float64"):
        return follow(
            cast(network, "float64"),
            cast(objective, "float64"),
            plan,
            key=jax.random.key(0) if key is None else key,
            reporter=reporter,
            configuration=configuration or {},
        )


class Plan(NamedTuple):
    """How to flow: times to save, fields and their rates, tolerances, what to record; all checked."""

    times: np.ndarray
    train: tuple[str, ...]
    rates: dict[str, float]
    duration: float
    rtol: float
    atol: float
    max_steps: int
    record: Record

    def describe(self) -> dict[str, Any]:
        """What the Run keeps of it."""
        kept = {"train": list(self.train), "rates": self.rates, "duration": self.duration, "dtype": "float64"}
        return kept | {"rtol": self.rtol, "atol": self.atol, "optimizer": "gradient flow"}


def planned(
    network: Any, *, duration: Any, save_at: Any, train: Any, rates: Any, rtol: Any, atol: Any, max_steps: Any,
    record: Record,
) -> Plan:  # fmt: skip
    """Check the settings of a flow, see `flow`.

    Raises:
        ValueError: If one is out of range.
    """
    times = _checked_times(duration, save_at)
    for name, value in (("rtol", rtol), ("atol", atol), ("max_steps", max_steps)):
        if not (isinstance(value, (int, float, np.number)) and 0 < value < math.inf):
            raise ValueError(f"{name} is {value!r}; it must be a number > 0.")
    train = checked_fields(train)
    check_trained(network, train)
    speed = {name: 1.0 for name in train} | _checked_rates(rates or {}, train)
    return Plan(times, train, speed, float(duration), float(rtol), float(atol), int(max_steps), record)


def follow(
    network: Any,
    objective: Callable[[Any, jax.Array], jax.Array],
    plan: Plan,
    *,
    key: jax.Array,
    reporter: Reporter,
    configuration: Mapping[str, Any],
    must_start: bool = True,
) -> Run:
    """Do what `flow` does, by a plan, for one member of as many as the reporter knows of.

    Call it within `scope("float64")`, with a network and an objective of float64 arrays. Without `must_start`, a loss
    that is not finite at the start is no error but makes a Run that diverged at point 0.
    """
    rates = {name: jnp.asarray(rate) for name, rate in plan.rates.items()}
    problem = _Problem(network, getattr(objective, "bare", lambda: objective)(), rates, key)
    recorder = Recorder([network], (*WEIGHT_FIELDS, *plan.train), plan.record.probes)
    reporter.start_group(1, 0)
    status, stopped_at, last = _integrate(problem, plan, recorder, reporter, must_start)
    stopped = status == "diverged"
    reporter.end_group(np.array([not stopped]))
    at_stop = (float(_loss_and_norm(problem, last)[1]), spectral_abscissa_of(replace(network, last)))
    norm, abscissa = at_stop if stopped else (np.nan, np.nan)
    labels = {
        "status": ("run", np.array([status])),
        "stopped_at": ("run", np.array([stopped_at], np.int64)),
        "seed": ("run", np.array([0], np.int64)),
        "diverged_grad_norm": ("run", np.array([norm])),
        "diverged_spectral_abscissa": ("run", np.array([abscissa])),
    }
    settings, seed = {**describe_objective(objective), **plan.describe(), **configuration}, configuration.get("seed", 0)
    attributes = run_attributes(
        "flow", configuration=settings, network=describe_network(network), seed=seed, device=device_in_words()
    )
    data = with_learning_time(recorder.take().assign(labels), plan.times[None], "flow")
    return Run(data.assign_coords(run=np.arange(1)).assign_attrs(attributes))


class _Problem(eqx.Module):
    """What is integrated: the vector field's fixed ingredients, as a pytree so that compiled steps are shared.

    An objective that keeps its numbers as static settings may say them as arrays, by a method `bare()`; then objectives
    that differ in numbers alone share the steps as well.
    """

    network: Any
    objective: Any
    rates: dict[str, jax.Array]
    key: jax.Array


class _Tolerances(NamedTuple):
    """What a step must keep to, as arrays, so that a compiled step serves all of them."""

    rtol: jax.Array
    atol: jax.Array
    first: jax.Array  # length of the first step
    shortest: jax.Array  # that a step may have
    last: jax.Array  # time at which to end


class _State(NamedTuple):
    """Where the integrator is: the step to try next, and what it starts from."""

    begin: jax.Array
    end: jax.Array
    params: dict[str, Any]
    solver: Any
    controller: Any


class _Tried(NamedTuple):
    """A step that was tried: whether it is good, whether no step can be, what follows, and its stages."""

    good: jax.Array
    hopeless: jax.Array
    following: _State
    stages: dict[str, Any]


def _loss(problem: _Problem, params: dict[str, Any]) -> jax.Array:
    return problem.objective(replace(problem.network, params), problem.key)


def _velocity(tau: jax.Array, params: dict[str, Any], problem: _Problem) -> dict[str, Any]:
    loss, gradient = jax.value_and_grad(_loss, argnums=1)(problem, params)
    there = jnp.isfinite(loss)  # where it is not, the step must fail, whatever gradient an infinite loss has

    def velocity(rate: jax.Array, gradient: Any) -> Any:
        return jax.tree.map(lambda leaf: jnp.where(there, -rate * leaf, jnp.nan), gradient)

    return {name: velocity(problem.rates[name], gradient[name]) for name in params}


@eqx.filter_jit
def _loss_and_norm(problem: _Problem, params: dict[str, Any]) -> tuple[jax.Array, jax.Array]:
    loss, gradient = jax.value_and_grad(_loss, argnums=1)(problem, params)
    return loss, optax.tree.norm(gradient)


_SOLVER, _TERM = diffrax.Dopri8(), diffrax.ODETerm(_velocity)


def _controller(tolerances: _Tolerances) -> diffrax.PIDController:
    return diffrax.PIDController(
        rtol=tolerances.rtol, atol=tolerances.atol, dtmin=tolerances.shortest, force_dtmin=False
    )


@eqx.filter_jit
def _start(problem: _Problem, params: dict[str, Any], tolerances: _Tolerances) -> _State:
    """The state at learning time 0."""
    begin, order = jnp.zeros(()), _SOLVER.error_order(_TERM)
    end, controller = _controller(tolerances).init(
        _TERM, begin, tolerances.last, params, tolerances.first, problem, _SOLVER.func, order
    )
    return _arrays(_State(begin, end, params, _SOLVER.init(_TERM, begin, end, params, problem), controller))


def _arrays(state: _State) -> _State:
    """The state without Python values: with one of them the next step would be another program."""
    return jax.tree.map(jnp.asarray, state)


@eqx.filter_jit
def _try(problem: _Problem, state: _State, tolerances: _Tolerances) -> _Tried:
    """Try the next step; one that is no good is to be tried again as the state that follows, from where it began."""
    params, error, within, solver, _ = _SOLVER.step(
        _TERM, state.begin, state.end, state.params, problem, state.solver, made_jump=False
    )
    error = jax.tree.map(lambda leaf: jnp.where(jnp.isnan(leaf), jnp.inf, leaf), error)
    good, begin, end, _, controller, result = _controller(tolerances).adapt_step_size(
        state.begin, state.end, state.params, params, problem, error, _SOLVER.error_order(_TERM), state.controller
    )
    nearly = tolerances.last - 1e-14 * tolerances.last  # no last step of a few roundings
    end = jnp.where(end > nearly, jnp.where(good, tolerances.last, 0.5 * (begin + tolerances.last)), end)
    hopeless = result != diffrax.RESULTS.successful
    return _Tried(good, hopeless, _arrays(_State(begin, end, params, solver, controller)), within["k"])


@eqx.filter_jit
def _look(before: _State, after: _State, stages: dict[str, Any], tau: jax.Array) -> dict[str, Any]:
    """The weights at a time within the step between two states."""
    step = _SOLVER.interpolation_cls(t0=before.begin, t1=before.end, y0=before.params, y1=after.params, k=stages)
    return step.evaluate(tau)


class _Notebook:
    """Writes down saved points one after the other: into the recorder what is due, to the reporter how far it is."""

    def __init__(self, problem: _Problem, plan: Plan, recorder: Recorder, reporter: Reporter):
        last = len(plan.times) - 1
        self._times, self._network = plan.times, problem.network
        self._recorder, self._reporter = recorder, reporter
        self._measurements = set(plan.record.measurement_times(last))
        self._snapshots = set(plan.record.snapshot_times(last))
        self.next = 0  # position of the next point to save

    @property
    def full(self) -> bool:
        """Whether all points are saved."""
        return self.next == len(self._times)

    def due(self, tau: float) -> bool:
        """Whether the next point lies at `tau` or before it."""
        return not self.full and bool(self._times[self.next] <= tau)

    def write(self, params: dict[str, Any], loss: Any, norm: Any, *, alive: bool = True) -> None:
        """Save the next point."""
        i, self.next = self.next, self.next + 1
        here, losses = np.array([alive]), np.full((1, 1), float(loss))
        self._recorder.add_losses(i, losses, np.full((1, 1), float(norm)))
        if i in self._snapshots or i in self._measurements:
            now = [replace(self._network, jax.tree.map(np.asarray, params))]
            if i in self._snapshots:
                self._recorder.keep_weights(i, now, here)
            if i in self._measurements:
                self._recorder.measure(i, now, here)
        if np.isfinite(losses).all():
            self._reporter.chunk(i + 1, here, losses, 1)


def _integrate(
    problem: _Problem, plan: Plan, recorder: Recorder, reporter: Reporter, must_start: bool
) -> tuple[str, int, Any]:
    """Step through all saved times; status, the point where it stopped (-1 if not) and the last weights."""
    params, times = trained(problem.network, plan.train), plan.times
    loss, norm = _loss_and_norm(problem, params)
    can_start = bool(np.isfinite(loss) and np.isfinite(norm))
    if must_start and not can_start:
        raise ValueError(
            f"the loss at the start is {float(loss)} and its gradient norm {float(norm)}; flow needs finite ones."
        )
    notebook = _Notebook(problem, plan, recorder, reporter)
    if times[0] == 0:  # the weights are worth keeping whatever their loss
        notebook.write(params, *((loss, norm) if can_start else (jnp.nan, jnp.nan)))
    first, shortest = (max(share * plan.duration, 1e-300) for share in (_FIRST_STEP, _FEWEST_STEP))
    tolerances = _Tolerances(*map(jnp.asarray, (plan.rtol, plan.atol, first, shortest, times[-1])))
    state, status, steps = _start(problem, params, tolerances), "done" if can_start else "diverged", 0
    while not notebook.full and status == "done":
        tried = _try(problem, state, tolerances)
        steps += 1
        before, after, good = state, tried.following, bool(tried.good)
        state = after if good else before._replace(end=after.end, controller=after.controller)
        reached = float(before.end) if good else -math.inf
        while notebook.due(reached):
            params = _look(before, after, tried.stages, jnp.asarray(times[notebook.next]))
            loss, norm = _loss_and_norm(problem, params)
            if not np.isfinite(loss):
                break
            notebook.write(params, loss, norm)
        if not notebook.full and (notebook.due(reached) or bool(tried.hopeless)):
            status = "diverged"
        elif not notebook.full and steps >= plan.max_steps:
            status = "interrupted"
        del tried, before, after  # the stages are most of the memory: gone before the next step makes its own
    stopped_at = -1 if status == "done" else (notebook.next if can_start else 0)
    while not notebook.full:
        notebook.write(state.params, jnp.nan, jnp.nan, alive=False)
    return status, stopped_at, state.params


def _checked_times(duration: float, save_at: Any) -> np.ndarray:
    if isinstance(duration, bool) or not isinstance(duration, (int, float, np.number)) or not 0 < duration < math.inf:
        raise ValueError(f"duration is {duration!r}; it must be a learning time > 0.")
    times = np.linspace(0.0, float(duration), 101) if save_at is None else np.asarray(save_at, np.float64)
    rising = times.ndim == 1 and times.size and np.isfinite(times).all() and (np.diff(times) > 0).all()
    if not rising or times[0] < 0 or times[-1] > duration:
        raise ValueError(f"save_at must be increasing learning times within [0, {duration}]; {save_at!r} came.")
    return times


def _checked_rates(rates: Mapping[str, float], train: tuple[str, ...]) -> dict[str, float]:
    for name, rate in rates.items():
        if name not in train:
            raise ValueError(f"rates names {name!r}, which is not trained; train is {train}.")
        if not (isinstance(rate, (int, float, np.number)) and 0 <= rate < math.inf):
            raise ValueError(f"the rate of {name!r} is {rate!r}; it must be a number >= 0.")
    return {name: float(rate) for name, rate in rates.items()}
