"""Target filters: closed forms against quadrature and matrix exponentials, and targets against plain convolution."""

from __future__ import annotations

import json
from itertools import pairwise

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.integrate import quad, quad_vec
from scipy.linalg import expm, solve_continuous_lyapunov

from tauflow import (
    DampedOscillator,
    ExponentialSum,
    LeakyIntegrator,
    MeanSquaredError,
    RateRNN,
    SampledFilter,
    descend,
    load,
)
from tauflow.learning.assemble import describe_objective
from tauflow.networks import ContinuousLinearRNN
from tauflow.precision import float64
from tauflow.tasks import FilterTask, make_task

SUM = ExponentialSum([1.0, 0.5 - 2j, 0.3], [0.2, 0.4 + 3j, 1.5])
SAMPLES = SampledFilter([0.2, 1.0, -0.5, 0.4], 1.7)
FORMULAS = {
    LeakyIntegrator(0.3): lambda t: np.exp(-0.3 * t),
    LeakyIntegrator(1e-6): lambda t: np.exp(-1e-6 * t),
    DampedOscillator(0.1, 1.0): lambda t: np.exp(-0.1 * t) * np.cos(t),
    DampedOscillator(0.5, 0.0): lambda t: np.exp(-0.5 * t),
    DampedOscillator(0.2, -2.0, target_amplitude=-3.0): lambda t: -3 * np.exp(-0.2 * t) * np.cos(2 * t),
    SUM: lambda t: np.exp(-0.2 * t) + 0.3 * np.exp(-1.5 * t) + np.exp(-0.4 * t) * np.cos(3 * t) / 2
    - 2 * np.exp(-0.4 * t) * np.sin(3 * t),
    ExponentialSum([1j, 2.0, 1.0], [0.5 - 1j, 0.5, 0.5]): lambda t: np.exp(-0.5 * t) * (3 - np.sin(t)),
    SAMPLES: lambda t: np.interp(t, 1.7 * np.arange(4), [0.2, 1.0, -0.5, 0.4], right=0.0),
}  # fmt: skip
SHORT = [task for task in FORMULAS if task != LeakyIntegrator(1e-6)]  # those that end within 200 membrane times

every_filter = pytest.mark.parametrize("task", FORMULAS, ids=lambda task: task.name)
every_short_filter = pytest.mark.parametrize("task", SHORT, ids=lambda task: task.name)


def held_weights(task: FilterTask, steps: int) -> np.ndarray:
    """Integral of the filter over each step by Gauss-Legendre rule, from nothing but its values."""
    nodes, weights = np.polynomial.legendre.leggauss(8)
    at = task.dt * (np.arange(steps)[:, None] + (nodes + 1) / 2)  # (step, node)
    return task.dt / 2 * task.filter(at) @ weights


def convolved(task: FilterTask, inputs: np.ndarray) -> np.ndarray:
    """Answer to inputs (time, trial) that are held for a step, added up term by term."""
    weights = held_weights(task, len(inputs))
    return np.stack([weights[: k + 1][::-1] @ inputs[: k + 1] for k in range(len(inputs))])


def in_pieces(integrand, task: FilterTask, end: float = 200.0) -> float:
    """Integral from 0 to `end`, piece by piece where the filter has kinks."""
    edges = [0.0, *(1.7 * np.arange(1, 4) if task is SAMPLES else np.arange(5.0, 61.0, 5.0)), end]
    return sum(quad(integrand, left, right, epsabs=1e-13, limit=200)[0] for left, right in pairwise(edges))


# ---------------------------------------------------------------------------------- the filter itself


@every_filter
def test_filter_is_its_formula_and_the_response_of_its_realisation(task):
    t = np.array([[0.0, 0.01, 0.7], [3.0, 4.0, 25.0]])
    found = task.filter(t)
    assert found.shape == t.shape and found.dtype == np.float64 and task.filter(0.5).shape == ()
    np.testing.assert_allclose(found, FORMULAS[task](t), rtol=1e-13, atol=1e-14)
    system = task.realisation()
    if system is None:
        assert isinstance(task, SampledFilter)
        return
    k = len(system.b)
    assert system.A.shape == (k, k) and system.c.shape == (k,) and {part.dtype for part in system} == {np.dtype(float)}
    response = [system.c @ expm(system.A * time) @ system.b for time in t.ravel()]
    np.testing.assert_allclose(found.ravel(), response, rtol=1e-11, atol=1e-13)


@every_short_filter
def test_squared_norm_and_step_response_are_the_integrals(task):
    assert isinstance(task.squared_norm, float)
    np.testing.assert_allclose(task.squared_norm, in_pieces(lambda t: FORMULAS[task](t) ** 2, task), rtol=1e-10)
    at = np.array([0.0, 0.4, 1.7, 3.0, 30.0])
    by_hand = [quad_vec(FORMULAS[task], 0.0, end, points=[1.7, 3.4, 5.1], epsabs=1e-12)[0] for end in at]
    np.testing.assert_allclose(task.step_response(at), by_hand, rtol=1e-10, atol=1e-11)
    system = task.realisation()
    if system is not None:
        gramian = solve_continuous_lyapunov(system.A, -np.outer(system.b, system.b))
        np.testing.assert_allclose(task.squared_norm, system.c @ gramian @ system.c, rtol=1e-11)


def test_squared_norms_of_the_paper():
    np.testing.assert_allclose(LeakyIntegrator(0.2).squared_norm, 1 / 0.4, rtol=1e-14)
    c, w = 0.1, 1.0
    np.testing.assert_allclose(DampedOscillator(c, w).squared_norm, 1 / (4 * c) + c / (4 * (c**2 + w**2)), rtol=1e-14)
    np.testing.assert_allclose(DampedOscillator(c, 0.0).squared_norm, LeakyIntegrator(c).squared_norm, rtol=1e-14)


def test_the_filters_of_the_paper_are_sums_of_one_term():
    t = np.linspace(0, 20, 50)
    for task, same in [
        (LeakyIntegrator(0.2), ExponentialSum([1.0], [0.2])),
        (DampedOscillator(0.1, 1.0), ExponentialSum([1.0], [0.1 - 1j])),
        (DampedOscillator(0.1, 1.0), ExponentialSum([0.5, 0.5], [0.1 - 1j, 0.1 + 1j])),
    ]:
        np.testing.assert_allclose(task.filter(t), same.filter(t), atol=1e-15)
        np.testing.assert_allclose(task.squared_norm, same.squared_norm, rtol=1e-13)


def test_samples_of_a_smooth_filter_come_close_to_it_as_the_square_of_their_spacing():
    exact, spacings = DampedOscillator(0.3, 2.0), np.array([0.2, 0.1, 0.05])
    errors = []
    for spacing in spacings:
        sampled = SampledFilter(exact.filter(np.arange(0, 120 + spacing, spacing)), spacing)
        pairs = [(one.squared_norm, one.step_response(3.03)) for one in (sampled, exact)]
        errors.append(np.abs(np.subtract(*pairs)))
    slopes = np.diff(np.log(errors), axis=0) / np.diff(np.log(spacings))[:, None]
    np.testing.assert_allclose(slopes, 2.0, atol=0.1)


def test_the_amplitude_is_a_factor():
    t = np.linspace(0, 4, 9)
    for kind in (LeakyIntegrator, DampedOscillator, ExponentialSum, SampledFilter):
        one, many = kind(), kind(target_amplitude=-2.5)
        np.testing.assert_allclose(many.filter(t), -2.5 * one.filter(t), rtol=1e-14)
        np.testing.assert_allclose(many.step_response(t), -2.5 * one.step_response(t), rtol=1e-14)
        np.testing.assert_allclose(many.squared_norm, 6.25 * one.squared_norm, rtol=1e-14)
    np.testing.assert_allclose(many.samples, [-2.5, 0.0])


# ---------------------------------------------------------------------------------- the trials


@every_filter
def test_targets_are_the_convolution_of_the_held_input(task, key):
    with float64():
        trials = task.sample(3, key=key, dtype="float64")
    inputs, targets, mask = (np.asarray(part)[..., 0] for part in trials)
    by_hand = convolved(task, inputs)
    # SAMPLES has its kinks on the time grid, so the rule is exact for it too.
    np.testing.assert_allclose(targets, by_hand, rtol=1e-11, atol=1e-12)
    assert np.all(mask == 1)
    for wrong in (-by_hand, 0 * by_hand, np.vstack([np.zeros((1, 3)), by_hand[:-1]])):
        assert np.abs(targets - wrong).max() > 0.1, "a wrong sign, nothing, or a step late would be noticed"


def test_a_rate_that_is_two_percent_off_is_noticed(key):
    task, off = LeakyIntegrator(0.2), LeakyIntegrator(0.204)
    trials = task.sample(3, key=key)
    inputs, targets = (np.asarray(part, np.float64)[..., 0] for part in trials[:2])
    np.testing.assert_allclose(targets, convolved(task, inputs), atol=2e-6)
    assert np.abs(targets - convolved(off, inputs)).max() > 0.02


def test_a_linear_network_with_the_filter_answers_without_error(key):
    task = SUM
    A, b, c = task.realisation()
    n = len(b)
    with float64():
        trials = task.sample(4, key=key, dtype="float64")
        weights = (np.sqrt(n) * (A + np.eye(n)), b[:, None], n * c[None])
        network = ContinuousLinearRNN(*map(jnp.asarray, weights), gamma0=1.0, dt=task.dt)
        outputs = network(trials.inputs).outputs
    np.testing.assert_allclose(outputs, trials.targets, rtol=1e-10, atol=1e-11)


LONG_STEPS = [LeakyIntegrator(1.0, dt=1.0, duration=12.0), SampledFilter([1, -1, 0.5], 1.0, dt=0.5)]


@pytest.mark.parametrize("task", LONG_STEPS, ids=lambda task: task.name)
def test_variance_of_input_and_targets(task, key):
    n = 20_000
    trials = task.sample(n, key=key)
    inputs, targets = (np.asarray(part, np.float64)[..., 0] for part in trials[:2])
    error = np.sqrt(2 / n)  # of a variance of normal numbers, relative
    weights = held_weights(task, task.steps)
    for k in (0, 3, task.steps - 1):
        exact = (weights[: k + 1] ** 2).sum() / task.dt
        assert abs(np.mean(targets[k] ** 2) / exact - 1) < 4 * error
        assert abs(np.mean(inputs[k] ** 2) * task.dt - 1) < 4 * error
    assert abs(np.mean(inputs[5:] * inputs[4:-1]) * task.dt) < 4 / np.sqrt(inputs[5:].size)
    held = np.mean(targets[-1] ** 2)
    assert abs(held / task.squared_norm - 1) > 5 * error, "at a long step the correction for the held input shows"


@every_short_filter
def test_variance_comes_close_to_the_squared_norm_as_the_square_of_the_step(task):
    steps = 1.7 / np.array([4, 8, 16])  # which put the samples of SAMPLES on the time grid
    errors = []
    for dt in steps:
        weights = np.diff(task.step_response(dt * np.arange(round(170 / dt) + 1)))
        errors.append(abs((weights**2).sum() / dt - task.squared_norm))
    np.testing.assert_allclose(np.diff(np.log(errors)) / np.diff(np.log(steps)), 2.0, atol=0.25)


# ---------------------------------------------------------------------------------- kept and refused


def test_a_run_keeps_the_filter_so_that_it_can_be_made_again(tmp_path, key):
    network = RateRNN.random(4, 1, 1, gain=0.5, key=key, phi="identity", dt=SUM.dt)
    run = descend(network, MeanSquaredError(SUM, trials=1), optimizer=optax.sgd(0.01), steps=1, key=key)
    kept = load(run.save(tmp_path / "run.zarr")).configuration["task"]
    assert make_task(kept.pop("name"), **kept) == SUM


@pytest.mark.parametrize("task", [SAMPLES, DampedOscillator(0.2, 3, dt=0.5, target_amplitude=2.0), LeakyIntegrator(1)])
def test_the_description_of_a_filter_is_all_of_it(task):
    kept = json.loads(json.dumps(describe_objective(MeanSquaredError(task))))["task"]
    assert make_task(kept.pop("name"), **kept) == task


def test_make_task():
    assert make_task("leaky-integrator", c=0.3) == LeakyIntegrator(0.3)
    assert make_task("oscillator", c=0.3, omega=2, dt=0.5) == DampedOscillator(0.3, 2, dt=0.5)
    same = ExponentialSum(np.array([1.0, 2j]), jnp.asarray([0.5, 1 + 1j], "complex128"))
    assert same == ExponentialSum([1, 2j], ([0.5, 0.0], 1 + 1j))
    assert len({same, SUM, SAMPLES, LeakyIntegrator(), LeakyIntegrator(0.2)}) == 4, "they can be hashed"


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: LeakyIntegrator(0.0), "c is 0.0; it must be a number > 0, or the filter would not be square-integ"),
        (lambda: LeakyIntegrator(float("nan")), "c is nan;"),
        (lambda: LeakyIntegrator(1j), "c is 1j;"),
        (lambda: LeakyIntegrator(0.2, target_amplitude=float("inf")), "target_amplitude is inf;"),
        (lambda: LeakyIntegrator(0.2, dt=2.0), "dt is 2.0;"),
        (lambda: LeakyIntegrator(0.2, duration=0.01), "duration is 0.01;"),
        (lambda: DampedOscillator(-0.1, 1.0), "c is -0.1;"),
        (lambda: DampedOscillator(0.1, float("inf")), "omega is inf;"),
        (lambda: ExponentialSum([], []), r"coefficients is \(\); it must be a sequence of finite numbers"),
        (lambda: ExponentialSum(1.0, 0.2), r"coefficients is 1.0; it must be a sequence"),
        (lambda: ExponentialSum([1.0, 2.0], [0.2]), "have 2 and 1 entries; give one rate for each coefficient"),
        (lambda: ExponentialSum([1.0], [-0.2 + 1j]), r"rates\[0\] is -0.2\+1j; its real part must be > 0"),
        (lambda: ExponentialSum([1.0, 1.0], [0.2, 1j]), r"rates\[1\] is 0\+1j;"),
        (lambda: ExponentialSum([complex("nan")], [0.2]), r"coefficients\[0\] is \(nan, 0.0\);"),
        (lambda: ExponentialSum([1.0], ["slow"]), r"rates\[0\] is 'slow'; rates must be finite numbers"),
        (lambda: ExponentialSum([True], [0.2]), r"coefficients\[0\] is True;"),
        (lambda: SampledFilter([1.0], 0.1), r"values is \(1.0,\); it must be a sequence of finite numbers, at least 2"),
        (lambda: SampledFilter(3.0, 0.1), "values is 3.0;"),
        (lambda: SampledFilter([1.0, 0.5, float("nan")], 0.1), r"values\[2\] is nan;"),
        (lambda: SampledFilter([[1.0], [2.0]], 0.1), r"values\[0\] is \(1.0,\);"),
        (lambda: SampledFilter([1.0, 0.0], 0), "spacing is 0; it must be a time > 0"),
        (lambda: SampledFilter([1.0, 0.0], float("inf")), "spacing is inf;"),
        (lambda: LeakyIntegrator().filter([0.0, float("nan")]), "t has 1 entries that are NaN"),
        (lambda: SampledFilter().step_response([-0.5, 1.0]), "t has the negative time -0.5; it must be"),
        (lambda: SampledFilter().filter("late"), "t "),
        (lambda: make_task("oscillator", frequency=1.0), "no setting 'frequency' of oscillator"),
    ],
)  # fmt: skip
def test_refused_in_one_sentence(make, sentence):
    with pytest.raises(ValueError, match=sentence) as raised:
        make()
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 240
