"""Reaching: the hand against an ODE solver, its perturbations, and the loss against plain NumPy."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from scipy.integrate import solve_ivp

from tauflow.networks import RateRNN
from tauflow.objectives import ReachingLoss, mean_squared_error, run_trials
from tauflow.tasks import PERTURBATIONS, FlipFlop, Reaching, direction_error

ROTATED, FIELD = Reaching(perturbation="rotation", angle=40.0), Reaching(perturbation="force field", field=0.7)


def network_of(seed=0, noise=0.0, n=12, scale=1.0):
    rng = np.random.default_rng(seed)
    W, W_in, W_out = (jnp.asarray(rng.normal(size=shape)) for shape in ((n, n), (n, 3), (2, n)))
    return RateRNN(W / np.sqrt(n), W_in, scale * W_out, dt=0.1, noise=noise)


@eqx.filter_jit
def value(objective, network, key):
    return objective(network, key)


def forces_of(task, trials=3, seed=0):
    return np.random.default_rng(seed).normal(size=(task.steps, trials, 2))


@pytest.mark.parametrize("task", [Reaching(mass=0.5, damping=2.0), FIELD, Reaching(damping=0.0, dt=0.25)])
def test_the_hand_moves_as_an_ode_solver_says(task):
    """The steps are exact: they agree to the solver's tolerance, at any size of step; a wrong sign of b does not."""
    forces = forces_of(task, 1)[:, 0]
    b = task.field if task.perturbation == "force field" else 0.0

    def rate(b):
        def of(t, s):
            (vx, vy), (fx, fy) = s[2:], forces[min(int(t / task.dt + 1e-9), task.steps - 1)]
            push = (fx - task.damping * vx - b * vy, fy - task.damping * vy + b * vx)
            return [vx, vy, push[0] / task.mass, push[1] / task.mass]

        return of

    def solved(b):
        state, states = np.zeros(4), []
        for k in range(task.steps):
            span = (k * task.dt, (k + 1) * task.dt - 1e-9)
            state = solve_ivp(rate(b), span, state, rtol=1e-9, atol=1e-11).y[:, -1]
            states.append(state)
        return np.array(states)

    position, velocity = task.hand(jnp.asarray(forces))
    ours = np.concatenate([position, velocity], axis=1)
    np.testing.assert_allclose(ours, solved(b), atol=1e-6)
    if b:
        assert np.abs(ours - solved(-b)).max() > 1e-2


def test_a_rotation_turns_the_cursor_and_leaves_the_hand():
    forces = jnp.asarray(forces_of(ROTATED))
    angle = np.deg2rad(40)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    free = Reaching().answer(forces)
    np.testing.assert_allclose(ROTATED.hand(forces).position, free, rtol=1e-12)
    np.testing.assert_allclose(ROTATED.answer(forces), np.einsum("ij,tkj->tki", turn, free), atol=1e-12)
    error = direction_error(ROTATED.answer(forces)[-1], free[-1])
    np.testing.assert_allclose(error, 40, rtol=1e-9)


def test_a_curl_field_does_no_work_and_pushes_counter_clockwise():
    """With no damping and a push at the start, the speed stays, and the path is a circle of radius m v / b."""
    task = Reaching(perturbation="force field", field=0.8, damping=0.0, mass=0.5)
    push = jnp.zeros((task.steps, 2)).at[0, 0].set(10.0)
    position, velocity = (np.asarray(part) for part in task.hand(push))
    speed = np.linalg.norm(velocity, axis=1)
    np.testing.assert_allclose(speed[1:], speed[0], rtol=1e-10)
    turned = direction_error(jnp.asarray(velocity[1:]), jnp.asarray(velocity[:-1]))
    np.testing.assert_allclose(turned, np.rad2deg(0.8 / 0.5 * task.dt), rtol=1e-9)
    centre = position[0] + 0.5 / 0.8 * np.array([-velocity[0, 1], velocity[0, 0]])
    np.testing.assert_allclose(np.linalg.norm(position - centre, axis=1), 0.5 * speed[0] / 0.8, rtol=1e-9)


def test_trials_show_a_target_and_hold_and_then_nothing(key):
    task = Reaching(preparation=1.0, directions=5, target_amplitude=0.6)
    trials = task.sample(2000, key=key)
    assert task.go == 10 and task.steps == 30
    assert np.all(trials.inputs[10:] == 0) and np.all(trials.targets[:10] == 0) and np.all(trials.mask == 1)
    assert np.all(trials.inputs[:10, :, 2] == 1)
    np.testing.assert_allclose(trials.targets[10:], jnp.broadcast_to(0.6 * trials.inputs[:1, :, :2], (20, 2000, 2)))
    angles = np.rad2deg(np.arctan2(trials.inputs[0, :, 1], trials.inputs[0, :, 0])) % 360
    drawn, counts = np.unique(np.round(angles).astype(int) % 360, return_counts=True)
    np.testing.assert_array_equal(drawn, [0, 72, 144, 216, 288])
    assert stats.chisquare(counts).pvalue > 1e-4


def test_time_to_settle_and_the_weight_of_holding(key):
    """What happens between cue and settling does not count; holding counts `hold` times."""
    task = Reaching(settle=0.5)
    trials = task.sample(4, key=key)
    assert task.settled == task.go + 5
    np.testing.assert_array_equal(trials.mask[:, :, 0].sum(axis=1), np.where(np.arange(40) // 5 == 4, 0, 4))
    network = network_of()
    batch, response = eqx.filter_jit(run_trials)(task, network, 6, key)
    squared = ((np.asarray(task.answer(response.outputs)) - np.asarray(batch.targets)) ** 2).sum(axis=2)
    losses = [float(value(ReachingLoss(task, 6, hold), network, key)) for hold in (1.0, 3.0)]
    assert losses[0] == pytest.approx(squared[:20].mean() + squared[25:].mean(), rel=1e-10)
    assert losses[1] - losses[0] == pytest.approx(2 * squared[:20].mean(), rel=1e-8)
    with pytest.raises(ValueError, match=r"settle is 2\.0; it must be shorter than the execution, 2\.0"):
        Reaching(settle=2.0)
    with pytest.raises(ValueError, match="hold is 0; it must be a number > 0"):
        ReachingLoss(task, 6, 0)


def test_direction_errors_have_signs_and_wrap():
    target = jnp.array([[1.0, 0.0], [-1.0, 0.1], [-1.0, 0.1], [0.0, 2.0]])
    position = jnp.array([[1.0, 1.0], [-1.0, -0.1], [-2.0, 0.2], [3.0, 0.0]])
    wanted = [45.0, 2 * np.rad2deg(np.arctan(0.1)), 0.0, -90.0]
    np.testing.assert_allclose(direction_error(position, target), wanted, atol=1e-9)


@pytest.mark.parametrize("task", [Reaching(preparation=1.0), ROTATED])
def test_the_loss_is_what_its_equation_says(task, key):
    """Where the periods are equal it is 8 times the mean squared error, which halves, over two axes and two periods."""
    network = network_of(noise=0.2)
    batch, response = eqx.filter_jit(run_trials)(task, network, 6, key)
    cursor = np.asarray(task.answer(response.outputs))
    total = 0.0
    for trial in range(6):
        for period in (range(task.go), range(task.go, task.steps)):
            total += np.mean([((cursor[t, trial] - batch.targets[t, trial]) ** 2).sum() for t in period])
    loss = float(value(ReachingLoss(task, 6), network, key))
    assert loss == pytest.approx(total / 6, rel=1e-10)
    eightfold = 8 * float(mean_squared_error(cursor, batch.targets, batch.mask))
    assert (eightfold == pytest.approx(loss, rel=1e-10)) == (task.preparation == task.execution)


def test_the_gradient_of_the_loss_against_differences(key):
    objective, network = ReachingLoss(FIELD, 4), network_of(noise=0.1, scale=0.1)
    gradient = eqx.filter_jit(jax.grad(objective))(network, key)
    direction = network_of(seed=3, noise=0.1)
    along = sum(jnp.vdot(getattr(gradient, name), getattr(direction, name)) for name in ("W", "W_in", "W_out"))

    def loss(step):
        return value(objective, jax.tree.map(lambda x, d: x + step * d, network, direction), key)

    np.testing.assert_allclose(along, (loss(1e-5) - loss(-1e-5)) / 2e-5, rtol=1e-6)


def test_an_unstable_network_has_infinite_loss(key):
    network = RateRNN(jnp.full((3, 3), 1e200), jnp.ones((3, 3)), jnp.ones((2, 3)), phi="relu", dt=0.1)
    assert float(ReachingLoss(Reaching(), 2)(network, key)) == np.inf


WRONG = [
    ({"perturbation": "gravity"}, "perturbation is 'gravity'; it must be one of 'none', 'rotation', 'force field'"),
    ({"mass": 0.0}, "mass is 0.0; it must be a number > 0"),
    ({"damping": -1.0}, "damping is -1.0; it must be a number >= 0"),
    ({"angle": "wide"}, "angle is 'wide'"),
    ({"field": float("nan")}, "field is nan"),
    ({"directions": 0}, "directions is 0; it must be a whole number >= 1"),
    ({"preparation": 0.0}, "preparation is 0.0; it must be a finite duration >= 0.1"),
    ({"execution": 0.05}, "execution is 0.05"),
]


@pytest.mark.parametrize(("settings", "sentence"), WRONG, ids=range(len(WRONG)))
def test_wrong_settings(settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        Reaching(**settings)


def test_what_else_is_refused(key):
    with pytest.raises(ValueError, match=r"task is FlipFlop.*it must be a reaching task"):
        ReachingLoss(FlipFlop())
    with pytest.raises(ValueError, match="trials is 0"):
        ReachingLoss(Reaching(), 0)
    with pytest.raises(ValueError, match=r"The network's dt is 0\.5 and the task's is 0\.1"):
        ReachingLoss(Reaching())(RateRNN(jnp.eye(3), jnp.ones((3, 3)), jnp.ones((2, 3))), key)
    with pytest.raises(ValueError, match="a hand has two components"):
        ReachingLoss(Reaching())(RateRNN(jnp.eye(3), jnp.ones((3, 3)), jnp.ones((3, 3)), dt=0.1), key)
    assert PERTURBATIONS[0] == Reaching().perturbation
