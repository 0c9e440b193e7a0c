r"""Gradient flow, $d\theta/d\tau = -\eta_\theta\,\partial L/\partial\theta$, integrated adaptively in float64."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from tauflow.learning.assemble import describe_objective, with_learning_time
from tauflow.learning.groups import check_trained, checked_fields, device_in_words
from tauflow.learning.member import replace, trained
from tauflow.learning.record import Record
from tauflow.learning.recorder import WEIGHT_FIELDS, Recorder, spectral_abscissa_of
from tauflow.precision import cast, scope
from tauflow.run import Run, describe_network, run_attributes

_BYTES_AT_ONCE = 2**28  # saved weights held on the device between two looks at the host
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
        record: What to keep; its updates count the saved points, from 0 to len(save_at) - 1.
        max_steps: Most steps of the integrator between two looks at the host; beyond it the run ends as "interrupted".
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
    times = _checked_times(duration, save_at)
    for name, value in (("rtol", rtol), ("atol", atol), ("max_steps", max_steps)):
        if not (isinstance(value, (int, float, np.number)) and 0 < value < math.inf):
            raise ValueError(f"{name} is {value!r}; it must be a number > 0.")
    train = checked_fields(train)
    check_trained(network, train)
    speed = {name: 1.0 for name in train} | _checked_rates(rates or {}, train)
    with scope("float64"):
        network, objective = cast(network, "float64"), cast(objective, "float64")
        key = jax.random.key(0) if key is None else key
        problem = _Problem(network, objective, {name: jnp.asarray(rate) for name, rate in speed.items()}, key)
        recorder = Recorder([network], (*WEIGHT_FIELDS, *train), record.probes)
        status, stopped_at, last = _integrate(problem, train, times, (rtol, atol, max_steps), record, recorder)
        labels = {
            "status": ("run", np.array([status])),
            "stopped_at": ("run", np.array([stopped_at], np.int64)),
            "seed": ("run", np.array([0], np.int64)),
        }
        data = recorder.take().assign(labels)
        if status == "diverged":
            abscissa = spectral_abscissa_of(replace(network, last))
            data["diverged_spectral_abscissa"] = ("run", np.array([abscissa]))
            data["diverged_grad_norm"] = ("run", np.array([float(_loss_and_norm(problem, last)[1])]))
        details = {"train": list(train), "rates": speed, "duration": float(duration), "dtype": "float64"}
        details |= {"rtol": rtol, "atol": atol, "optimizer": "gradient flow"}
        settings = {**describe_objective(objective), **details, **(configuration or {})}
        attributes = run_attributes(
            "flow", configuration=settings, network=describe_network(network), seed=0, device=device_in_words()
        )
    data = with_learning_time(data, times[None], "flow").assign_coords(run=np.arange(1))
    return Run(data.assign_attrs(attributes))


class _Problem(eqx.Module):
    """What is integrated: the vector field's fixed ingredients, as a pytree so that compiled steps are shared."""

    network: Any
    objective: Any
    rates: dict[str, jax.Array]
    key: jax.Array


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


@eqx.filter_jit
def _piece(
    problem: _Problem, params: dict[str, Any], times: jax.Array, dt0: jax.Array, tolerances: tuple[float, float, int]
) -> tuple[Any, jax.Array, jax.Array, Any, jax.Array]:
    """Integrate from times[0] to times[-1]: saved params, their losses and norms, the outcome, the last step."""
    rtol, atol, max_steps = tolerances
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(_velocity),
        diffrax.Dopri8(),
        t0=times[0],
        t1=times[-1],
        dt0=dt0,
        y0=params,
        args=problem,
        saveat=diffrax.SaveAt(ts=times),
        stepsize_controller=diffrax.PIDController(
            rtol=rtol, atol=atol, dtmin=_FEWEST_STEP * jnp.maximum(times[-1], 1e-300), force_dtmin=False
        ),
        max_steps=max_steps,
        throw=False,
    )

    def measure(saved: dict[str, Any]) -> tuple[jax.Array, jax.Array]:
        loss, gradient = jax.value_and_grad(_loss, argnums=1)(problem, saved)
        return loss, optax.tree.norm(gradient)

    losses, norms = lax.map(measure, solution.ys)
    step = (times[-1] - times[0]) / jnp.maximum(solution.stats["num_accepted_steps"], 1)
    return solution.ys, losses, norms, solution.result, step


def _integrate(
    problem: _Problem,
    train: tuple[str, ...],
    times: np.ndarray,
    tolerances: tuple[float, float, int],
    record: Record,
    recorder: Recorder,
) -> tuple[str, int, dict[str, Any]]:
    """Go through all saved times, piece by piece; status, where it stopped (-1 if not) and the last weights."""
    params = trained(problem.network, train)
    loss, norm = _loss_and_norm(problem, params)
    if not (np.isfinite(loss) and np.isfinite(norm)):
        raise ValueError(
            f"the loss at the start is {float(loss)} and its gradient norm {float(norm)}; flow needs finite ones."
        )
    last = len(times) - 1
    measurements, snapshots = set(record.measurement_times(last)), set(record.snapshot_times(last))

    def observe(i: int, params: dict[str, Any], finite: bool) -> None:
        now, alive = [replace(problem.network, jax.tree.map(np.asarray, params))], np.array([finite])
        if i in snapshots:
            recorder.keep_weights(i, now, alive)
        if i in measurements:
            recorder.measure(i, now if finite else [problem.network], alive)

    size = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    at_once = max(2, int(_BYTES_AT_ONCE // size))
    edges = np.concatenate([[0.0], times]) if times[0] > 0 else times
    offset = len(edges) - len(times)  # 1 if the start itself is not to be saved
    step = jnp.asarray(0.01 * float(edges[1] - edges[0]) if len(edges) > 1 else 1.0)
    if not offset:
        recorder.add_losses(0, np.full((1, 1), float(loss)), np.full((1, 1), float(norm)))
        observe(0, params, True)
    status, stopped_at, begin = "done", -1, 0
    while begin < len(edges) - 1:
        end = min(begin + at_once, len(edges) - 1)
        if status != "done":
            break
        piece = jnp.asarray(edges[begin : end + 1])
        saved, losses, norms, result, step = _piece(problem, params, piece, step, tolerances)
        losses, norms = np.asarray(losses), np.asarray(norms)
        for j in range(1, end - begin + 1):
            i = begin + j - offset
            finite = bool(np.isfinite(losses[j]))
            if finite:
                params = jax.tree.map(lambda leaf, j=j: leaf[j], saved)
            elif status == "done":
                short = result == diffrax.RESULTS.max_steps_reached
                status, stopped_at = "interrupted" if bool(short) else "diverged", i
            recorder.add_losses(i, *(np.full((1, 1), float(v[j]) if finite else np.nan) for v in (losses, norms)))
            observe(i, params, finite)
        begin = end
    for i in range(begin + 1 - offset, last + 1):
        recorder.add_losses(i, np.full((1, 1), np.nan), np.full((1, 1), np.nan))
        observe(i, params, False)
    return status, stopped_at, params


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
