"""Objectives: the sampled loss against plain NumPy, the exact one against algebra, and both against each other."""

from __future__ import annotations

import re
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tauflow.networks import RateRNN
from tauflow.objectives import FixedPointLoss, MeanSquaredError, fixed_point_readout, mean_squared_error
from tauflow.precision import float64
from tauflow.tasks import TASKS, Cosine, FixedPoint, FlipFlop, Task, Trials, setting

IN_BOTH_MODES = ("flip-flop", "sampled-filter")
every_task = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.x64off] * (name in IN_BOTH_MODES)) for name in TASKS]
)


def network_of(n, inputs, outputs, *, gain=0.6, seed=0, dtype="float32", **static) -> RateRNN:
    """A network scaled as `RateRNN.random` scales it, without its compile times."""
    rng = np.random.default_rng(seed)
    W, m, w = (rng.normal(size=shape) for shape in ((n, n), (n, inputs), (outputs, n)))
    m, w = m / np.linalg.norm(m, axis=0), w / np.linalg.norm(w, axis=1, keepdims=True)
    parts = gain * W / np.sqrt(n), m * np.sqrt(n), w / np.sqrt(n)
    return RateRNN(*(jnp.asarray(part, dtype) for part in parts), **static)


def linear(n: int = 12, gain: float = 0.6, seed: int = 0, dtype: str = "float64") -> RateRNN:
    return network_of(n, 1, 1, gain=gain, seed=seed, dtype=dtype, phi="identity")


@eqx.filter_jit
def value(objective, network, key=None):
    return objective(network, key)


@eqx.filter_jit
def value_and_gradient(objective, network, key=None):
    return eqx.filter_value_and_grad(lambda network: objective(network, key))(network)


def with_W(network: RateRNN, W: np.ndarray) -> RateRNN:
    return eqx.tree_at(lambda tree: tree.W, network, jnp.asarray(W, network.W.dtype))


# ---------------------------------------------------------------------------------- mean squared error


@pytest.mark.x64off
def test_mean_squared_error_is_the_pooled_masked_mean():
    rng = np.random.default_rng(0)
    outputs, targets = rng.normal(size=(2, 6, 5, 3)).astype(np.float32)
    mask = (rng.random((6, 5, 3)) < 0.3).astype(np.float32)
    by_hand = np.mean([0.5 * (z - y) ** 2 for z, y, m in zip(outputs.flat, targets.flat, mask.flat, strict=True) if m])
    loss = mean_squared_error(jnp.asarray(outputs), jnp.asarray(targets), jnp.asarray(mask))
    np.testing.assert_allclose(loss, by_hand, rtol=1e-5)


def test_mean_squared_error_refuses_what_it_cannot_average():
    ones = jnp.ones((4, 2, 1))
    with pytest.raises(ValueError, match="must have one shape"):
        mean_squared_error(ones, jnp.ones((4, 2, 2)), ones)
    with pytest.raises(ValueError, match="mask is 0 everywhere"):
        mean_squared_error(ones, ones, 0 * ones)


def test_what_the_mask_hides_does_not_matter():
    outputs = jnp.array([1.0, jnp.inf, jnp.nan])
    mask = jnp.array([1.0, 0.0, 0.0])
    loss, gradient = jax.value_and_grad(mean_squared_error)(outputs, jnp.zeros(3), mask)
    assert loss == 0.5
    np.testing.assert_array_equal(gradient, [1.0, 0.0, 0.0])


@every_task
def test_sampled_loss_keeps_the_contract(name, key):
    """Scalar, decided by the key, the same under jit, and with finite gradients, in the network's precision."""
    task = TASKS[name]()
    objective = MeanSquaredError(task, trials=4)
    network = network_of(10, task.inputs, task.outputs, dt=task.dt)
    loss, gradient = value_and_gradient(objective, network, key)
    assert loss.shape == () and loss.dtype == jnp.float32 and loss > 0
    assert loss == value_and_gradient(objective, network, key)[0]
    assert all(np.isfinite(part).all() and np.any(part) for part in (gradient.W, gradient.W_in, gradient.W_out))
    other = value_and_gradient(objective, network, jax.random.fold_in(key, 1))[0]
    assert (other == loss) == ("deterministic" in task.tags)


def test_sampled_loss_over_an_ensemble(key):
    objective, keys = MeanSquaredError(FlipFlop(), trials=4), jax.random.split(key, 3)
    members = [network_of(10, 2, 2, seed=seed) for seed in range(3)]
    networks = jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)
    together = eqx.filter_jit(eqx.filter_vmap(objective))(networks, keys)
    for loss, network, one in zip(together, members, keys, strict=True):
        np.testing.assert_allclose(loss, value_and_gradient(objective, network, one)[0], rtol=1e-5)


class Answer(NamedTuple):
    outputs: jax.Array


class Readout(eqx.Module):
    """A network of another kind: it reads its inputs out and adds a number made from its noise key."""

    weights: jax.Array

    def __call__(self, inputs, *, x0=None, key=None):
        offset = (jax.random.key_data(key)[0] >> 8).astype(inputs.dtype) / 2**24
        return Answer(inputs @ self.weights + offset)


def test_sampled_loss_of_any_network_by_hand(key):
    """The trials come from the first half of the key, the network's noise from the second."""
    network = Readout(jnp.asarray([[1.0, 0.5], [0.0, 2.0]], "float32"))
    key_trials, key_noise = jax.random.split(key)
    trials = FlipFlop().sample(4, key=key_trials)
    outputs = np.asarray(trials.inputs) @ np.asarray(network.weights) + (jax.random.key_data(key_noise)[0] >> 8) / 2**24
    counts = np.asarray(trials.mask) > 0
    by_hand = 0.5 * np.mean((outputs - np.asarray(trials.targets))[counts] ** 2)
    np.testing.assert_allclose(value(MeanSquaredError(FlipFlop(), trials=4), network, key), by_hand, rtol=1e-5)
    with float64():
        double = Readout(jnp.asarray(np.asarray(network.weights), "float64"))
        loss = eqx.filter_eval_shape(MeanSquaredError(FlipFlop(), trials=4), double, key)
    assert loss.dtype == jnp.float64, "the trials take the precision of the network"


def test_sampled_loss_of_an_unstable_network_is_inf(key):
    network = with_W(linear(dtype="float32"), 30 * np.eye(12))
    loss = value(MeanSquaredError(FixedPoint(), trials=1), network, key)
    assert np.isposinf(loss)


def test_sampled_loss_refuses(key):
    with pytest.raises(ValueError, match=r"network's dt is 0.5 and the task's is 0.1"):
        MeanSquaredError(Cosine())(linear(), key)
    with pytest.raises(ValueError, match="trials is 0; it must be a whole number >= 1"):
        MeanSquaredError(FlipFlop(), trials=0)
    with pytest.raises(ValueError, match="task is 'flip-flop'; it must be a task"):
        MeanSquaredError("flip-flop")
    with pytest.raises(ValueError, match="network's number of outputs"):
        network = RateRNN(jnp.zeros((5, 5)), jnp.zeros((5, 2)), jnp.zeros((1, 5)))
        eqx.filter_eval_shape(MeanSquaredError(FlipFlop()), network, key)


def test_sampled_loss_refuses_a_task_in_which_nothing_counts():
    class Pointless(Task):
        name, paper, tags = "pointless", "none", ("test",)
        inputs, outputs = 1, 1
        duration: float = setting(5.0)
        dt: float = setting(0.5)

        def draw(self, trials, key, dtype):
            zeros = jnp.zeros((self.steps, trials, 1), dtype)
            return Trials(zeros, zeros, zeros)

    with pytest.raises(ValueError, match="mask is 0 everywhere"):
        MeanSquaredError(Pointless())
    with pytest.raises(ValueError, match="mask is 0 everywhere"):
        jax.jit(lambda: MeanSquaredError(Pointless()).trials)()


# ---------------------------------------------------------------------------------- fixed point: value and derivatives


def exact(network: RateRNN, target: float) -> tuple[float, np.ndarray]:
    """Loss and its gradient in W by NumPy: Eqs. 5 and 6 of the supplement, dL/dW = -(zhat - z) B^T w m^T B^T."""
    W, m, w = (np.asarray(part, float) for part in (network.W, network.W_in[:, 0], network.W_out[0]))
    B = np.linalg.inv(np.eye(len(W)) - W)
    z = w @ B @ m
    return 0.5 * (target - z) ** 2, -(target - z) * np.outer(B.T @ w, B @ m)


@pytest.mark.parametrize("stability", ["eigenvalues", "determinant"])
def test_fixed_point_loss_and_gradient(stability):
    network, objective = linear(), FixedPointLoss(1.7, stability)
    loss, gradient = exact(network, 1.7)
    computed, derived = value_and_gradient(objective, network)
    np.testing.assert_allclose(computed, loss, rtol=1e-12)
    np.testing.assert_allclose(derived.W, gradient, rtol=1e-12, atol=1e-12 * np.abs(gradient).max())
    z = eqx.filter_jit(fixed_point_readout)(network)
    np.testing.assert_allclose(z, 1.7 - np.sqrt(2 * loss), rtol=1e-12)

    def plain(parts):
        W, W_in, W_out = parts
        return 0.5 * (1.7 - (W_out @ jnp.linalg.solve(jnp.eye(12) - W, W_in))[0, 0]) ** 2

    for ours, autodiff in zip(
        (derived.W, derived.W_in, derived.W_out),
        jax.jit(jax.grad(plain))((network.W, network.W_in, network.W_out)),
        strict=True,
    ):
        np.testing.assert_allclose(ours, autodiff, rtol=1e-11, atol=1e-13)


def test_fixed_point_target_is_an_array_with_a_gradient():
    network = linear()
    objective = FixedPointLoss(jnp.asarray(2.0))
    gradient = eqx.filter_jit(eqx.filter_grad(lambda objective: objective(network, None)))(objective)
    np.testing.assert_allclose(gradient.target, np.sqrt(2 * value(objective, network)), rtol=1e-12)


def test_fixed_point_second_derivatives():
    network, objective = linear(), FixedPointLoss(2.0)
    rng = np.random.default_rng(3)
    along, across = (jnp.asarray(rng.normal(size=(12, 12))) for _ in range(2))

    def loss(W):
        return objective(eqx.tree_at(lambda tree: tree.W, network, W))

    gradient = jax.jit(jax.grad(loss))
    curvature = jax.jit(lambda W, along: jax.jvp(jax.grad(loss), (W,), (along,))[1])  # forward over reverse
    forward = curvature(network.W, along)
    reverse = jax.jit(jax.grad(lambda W: jnp.vdot(jax.grad(loss)(W), along)))(network.W)  # reverse over reverse
    np.testing.assert_allclose(forward, reverse, rtol=1e-9, atol=1e-11)
    h = 1e-5
    difference = (gradient(network.W + h * along) - gradient(network.W - h * along)) / (2 * h)
    np.testing.assert_allclose(forward, difference, rtol=1e-6, atol=1e-7 * np.abs(forward).max())
    symmetric = np.vdot(across, forward), np.vdot(along, curvature(network.W, across))
    np.testing.assert_allclose(*symmetric, rtol=1e-10)


def test_one_factorisation_serves_loss_and_gradient():
    network, objective = linear(), FixedPointLoss(1.0, "determinant")
    jaxpr = jax.make_jaxpr(jax.value_and_grad(lambda W: objective(eqx.tree_at(lambda t: t.W, network, W), None)))
    text = str(jaxpr(network.W))
    assert len(re.findall(r"= lu\b(?!_)", text)) == 1
    assert "eig" not in text


@pytest.mark.x64off
def test_fixed_point_loss_in_float32():
    network = linear(dtype="float32")
    loss = value(FixedPointLoss(0.3), network)
    assert loss.dtype == jnp.float32
    np.testing.assert_allclose(loss, exact(network, 0.3)[0], rtol=2e-5)
    assert FixedPointLoss(0.3).target.dtype == np.float64, "the target keeps its precision until it is used"


def test_fixed_point_loss_is_the_sampled_loss_of_long_trials(key):
    """The simulation converges by exp(-100 (1 - max Re lambda)), far below a rounding error here."""
    network, target = linear(n=40, gain=0.5, seed=2), 2.0
    sampled = MeanSquaredError(FixedPoint(target_amplitude=target), trials=1)
    loss, gradient = value_and_gradient(sampled, network, key)
    expected, derived = value_and_gradient(FixedPointLoss(target), network)
    np.testing.assert_allclose(loss, expected, rtol=1e-11)
    np.testing.assert_allclose(gradient.W, derived.W, rtol=1e-8, atol=1e-12)
    assert abs(loss / exact(network, 1.02 * target)[0] - 1) > 1e-3, "a target 2 % off would be noticed"


# ---------------------------------------------------------------------------------- fixed point: stability


def stretched(*blocks: np.ndarray) -> np.ndarray:
    """A 12 x 12 matrix with the given diagonal blocks and 0.1 elsewhere on the diagonal, in a skewed basis."""
    W = 0.1 * np.eye(12)
    at = 0
    for block in blocks:
        W[at : at + len(block), at : at + len(block)] = block
        at += len(block)
    basis = np.eye(12) + 0.3 * np.random.default_rng(4).normal(size=(12, 12)) / np.sqrt(12)
    return basis @ W @ np.linalg.inv(basis)


REAL, NEARLY = np.array([[1.1]]), np.array([[0.99]])
PAIR = np.array([[1.2, -1.0], [1.0, 1.2]])
FAST = np.array([[0.5, -3.0], [3.0, 0.5]])  # |lambda| > 1 but Re < 1: stable in continuous time


@pytest.mark.parametrize(
    ("blocks", "eigenvalues", "determinant"),
    [
        ((NEARLY,), True, True),
        ((FAST,), True, True),
        ((REAL,), False, False),
        ((PAIR,), False, True),
        ((REAL, 2 * REAL), False, True),
        ((REAL, PAIR), False, False),
    ],
    ids=["below 1", "fast pair", "real", "complex pair", "two real", "real and pair"],
)
def test_instability(blocks, eigenvalues, determinant):
    network = with_W(linear(), stretched(*blocks))
    for stability, stable in (("eigenvalues", eigenvalues), ("determinant", determinant)):
        loss = value(FixedPointLoss(1.0, stability), network)
        assert np.isfinite(loss) if stable else np.isposinf(loss), stability


def test_instability_at_exactly_one():
    network = with_W(linear(), np.diag([1.0] + [0.0] * 11))
    for stability in ("eigenvalues", "determinant"):
        assert np.isposinf(value(FixedPointLoss(1.0, stability), network))


def test_determinant_has_the_sign_that_numpy_finds():
    objective = FixedPointLoss(1.0, "determinant")
    signs = []
    for W in np.random.default_rng(5).normal(size=(60, 12, 12)) * 2 / np.sqrt(12):
        signs.append(np.linalg.slogdet(np.eye(12) - W)[0])
        assert np.isfinite(value(objective, with_W(linear(), W))) == (signs[-1] > 0)
    assert min(signs) == -1 and max(signs) == 1


def test_not_a_number_is_not_stable():
    network = with_W(linear(), np.full((12, 12), np.nan))
    for stability in ("eigenvalues", "determinant"):
        assert not np.isfinite(value(FixedPointLoss(1.0, stability), network))


@pytest.mark.parametrize("stability", ["eigenvalues", "determinant"])
def test_fixed_point_ensemble(stability):
    """Members with their own weights and targets, one of them unstable, in one vmapped call with gradients."""
    members = [linear(seed=1), with_W(linear(seed=2), stretched(REAL)), linear(seed=3)]
    networks = jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)
    targets = jnp.array([0.5, 1.0, 2.0])

    def of(network, target):
        return FixedPointLoss(target, stability)(network)

    losses, gradients = eqx.filter_jit(eqx.filter_vmap(eqx.filter_value_and_grad(of)))(networks, targets)
    for member, (network, target) in enumerate(zip(members, targets, strict=True)):
        if member == 1:
            assert np.isposinf(losses[member])
            continue
        loss, gradient = exact(network, float(target))
        np.testing.assert_allclose(losses[member], loss, rtol=1e-11)
        np.testing.assert_allclose(gradients.W[member], gradient, rtol=1e-9, atol=1e-12)


def test_fixed_point_loss_refuses():
    with pytest.raises(ValueError, match="stability is 'hope'"):
        FixedPointLoss(1.0, "hope")
    for target in (float("nan"), "two", None, True, []):
        with pytest.raises(ValueError, match="it must be a finite number"):
            FixedPointLoss(target)
    with pytest.raises(ValueError, match="phi is 'tanh', but the fixed-point loss is that of a linear network"):
        FixedPointLoss(1.0)(RateRNN(jnp.zeros((5, 5)), jnp.zeros((5, 1)), jnp.zeros((1, 5))))
    with pytest.raises(ValueError, match="The network has 2 inputs and 1 outputs"):
        FixedPointLoss(1.0)(RateRNN(jnp.zeros((5, 5)), jnp.zeros((5, 2)), jnp.zeros((1, 5)), phi="identity"))
