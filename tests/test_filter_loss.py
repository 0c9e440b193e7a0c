"""The filter loss and its gradient: against dense matrix equations, time integration, samples of noise, and algebra.

The oracle solves the Lyapunov equations of the whole network by SciPy, and evaluates the target's resolvent; it shares
nothing with the Krylov bases of the library.
"""

from __future__ import annotations

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.linalg import expm
from scipy.linalg import solve_continuous_lyapunov

from tauflow import krylov
from tauflow.learning import flow
from tauflow.networks import ContinuousLinearRNN, RateRNN
from tauflow.objectives import FilterLoss
from tauflow.tasks import DampedOscillator, ExponentialSum, LeakyIntegrator, SampledFilter

X64 = jax.config.jax_enable_x64
TARGETS = {
    "leak": LeakyIntegrator(0.2),
    "oscillator": DampedOscillator(0.1, 1.0),
    "sum": ExponentialSum([1.0, -0.6 + 0.3j, 0.4], [0.3, 0.2 + 1.5j, 2.0], target_amplitude=0.7),
}


class Value(NamedTuple):
    """A loss and its gradient."""

    loss: np.ndarray
    W: np.ndarray
    u: np.ndarray
    v: np.ndarray


def random(n, sigma, gamma0=1.0, seed=0, dtype="float64") -> ContinuousLinearRNN:
    """A network as `ContinuousLinearRNN.random` draws it, without its compile times."""
    rng = np.random.default_rng(seed)
    parts = (sigma * rng.normal(size=shape) for shape in ((n, n), (n, 1), (1, n)))
    return ContinuousLinearRNN(*(jnp.asarray(part, dtype) for part in parts), gamma0=gamma0)


def made(recurrent, u, v, gamma0=1.0, dtype="float64") -> ContinuousLinearRNN:
    """The network with this W/√N, read-in and read-out."""
    W, u, v = np.sqrt(len(u)) * np.asarray(recurrent), np.reshape(u, (-1, 1)), np.reshape(v, (1, -1))
    return ContinuousLinearRNN(*(jnp.asarray(part, dtype) for part in (W, u, v)), gamma0=gamma0)


@eqx.filter_jit
def _compiled(objective, network):
    return eqx.filter_value_and_grad(lambda network: objective(network))(network)


def computed(target, network, **settings) -> Value:
    """Loss and gradient by the library."""
    loss, gradient = _compiled(FilterLoss(target, **settings).bare(), network)
    return Value(*(np.asarray(x, float) for x in (loss, gradient.W, gradient.W_in[:, 0], gradient.W_out[0])))


def dense(target, network) -> Value:
    """Loss and gradient by dense matrix equations, for a sum of exponentials."""
    W, u, v = (np.asarray(x, float) for x in (network.W, network.u, network.v))
    n, k = len(u), network.readout_scale
    A = W / np.sqrt(n) - np.eye(n)
    P = solve_continuous_lyapunov(A, -np.outer(u, u))
    Q = solve_continuous_lyapunov(A.T, -np.outer(v, v))
    loss = k**2 * v @ P @ v + target.squared_norm
    on_A, on_u, on_v = 2 * k**2 * Q @ P, 2 * k**2 * Q @ u, 2 * k**2 * P @ v
    for a, p in zip(*target.terms(), strict=True):
        Ru, Rv = np.linalg.solve(p * np.eye(n) - A, u), np.linalg.solve(p * np.eye(n) - A.T, v)
        loss -= 2 * k * (a * (v @ Ru)).real
        on_A -= 2 * k * (a * np.outer(Rv, Ru)).real
        on_u, on_v = on_u - 2 * k * (a * Rv).real, on_v - 2 * k * (a * Ru).real
    return Value(loss, on_A / np.sqrt(n), on_u, on_v)


def off(found: Value, wanted: Value) -> float:
    """The largest deviation of the parts, each as a share of its norm."""
    return max(np.linalg.norm(f - w) / np.linalg.norm(w) for f, w in zip(found, wanted, strict=True))


# ------------------------------------------------------------------------------------------- against dense algebra


@pytest.mark.parametrize(
    ("name", "n"), [("leak", 1), ("leak", 2), ("leak", 10), ("oscillator", 10), ("sum", 10), ("oscillator", 80)]
)
def test_loss_and_gradient_are_those_of_dense_matrix_equations(name, n):
    target = TARGETS[name]
    for sigma, gamma0 in [(0.2, 1.0), (0.8, 1.0)]:
        network = random(n, sigma, gamma0)
        assert off(computed(target, network), dense(target, network)) < 1e-9


@pytest.mark.parametrize("sigma", [0.2, 0.5, 0.9, 0.98])
def test_loss_and_gradient_of_250_units(sigma):
    network = random(250, sigma, seed=1)
    assert np.linalg.eigvals(np.asarray(network.recurrent)).real.max() < 1
    assert off(computed(TARGETS["leak"], network), dense(TARGETS["leak"], network)) < 1e-8


def test_networks_that_have_learnt_the_filter_are_computed_as_well():
    """A slow outlier beside the random eigenvalues, and read-in and read-out along it: the loss is small."""
    n, c, target = 250, 0.2, TARGETS["leak"]
    e = np.random.default_rng(3).normal(size=n)
    e /= np.linalg.norm(e)
    network = random(n, 0.5)
    network = made(network.recurrent + (1 - c) * np.outer(e, e), np.sqrt(n) * e, np.sqrt(n) * e)
    found, wanted = computed(target, network), dense(target, network)
    assert found.loss < 0.3 * target.squared_norm
    assert off(found, wanted) < 1e-8


def test_the_usual_mistakes_are_told_apart():
    network, target = random(80, 0.8, seed=2), TARGETS["oscillator"]
    found, wanted = computed(target, network), dense(target, network)
    assert off(found, wanted) < 1e-9
    minus = dense(ExponentialSum([-1.0], [0.1 - 1j]), network)
    mistakes = {
        "no factor 2": wanted._replace(W=wanted.W / 2),
        "no 1/sqrt N": wanted._replace(W=wanted.W * np.sqrt(80)),
        "transposed": wanted._replace(W=wanted.W.T),
        "u and v swapped": wanted._replace(u=wanted.v, v=wanted.u),
        "sign of the resolvent": minus,
        "rate 2 % off": dense(DampedOscillator(0.102, 1.0), network),
    }
    assert all(off(found, mistake) > 1e-3 for mistake in mistakes.values())


def test_matrix_invariant_of_equal_rates():
    """Under gradient flow with equal rates uu' - vv' + WW' - W'W stays: its derivative along the gradient is 0."""
    network = random(80, 0.9, gamma0=0.3)
    _, G, g, h = computed(TARGETS["oscillator"], network)
    W, u, v = (np.asarray(x) for x in (network.W, network.u, network.v))

    def change(G):
        half = np.outer(g, u) - np.outer(h, v) + G @ W.T - G.T @ W
        return np.linalg.norm(half + half.T)

    size = np.linalg.norm(G @ W.T)
    assert change(G) < 1e-8 * size
    assert change(G.T) > 1e-2 * size and change(2 * G) > 1e-2 * size


# --------------------------------------------------------------------------------------------- against other routes

NODES, WEIGHTS = np.polynomial.legendre.leggauss(30)
SAMPLES = 801  # of every sampled target, so that they share a compiled program


@jax.jit
def integrated(W, u, v, kappa, target, dt):
    """The loss by Simpson's rule in time, from states that are stepped on by exp(A dt)."""
    step = expm(dt * (W / np.sqrt(len(u)) - jnp.eye(len(u))))
    f = kappa * jax.lax.scan(lambda h, _: (step @ h, v @ h), u, target)[1]
    weights = jnp.full(target.shape, 2.0).at[1::2].set(4.0).at[jnp.array([0, -1])].set(1.0)
    return dt / 3 * weights @ (f - target) ** 2


def test_gradient_is_that_of_autodiff_through_time():
    target = DampedOscillator(0.3, 1.0)
    network, dt = random(10, 0.7, seed=4), 0.02
    values = jnp.asarray(target.filter(dt * np.arange(3001)))
    arguments = network.W, network.u, network.v, network.readout_scale, values, dt
    wanted = Value(*map(np.asarray, (integrated(*arguments), *jax.grad(integrated, (0, 1, 2))(*arguments))))
    assert off(computed(target, network), wanted) < 1e-7


def test_loss_is_the_mean_squared_error_under_white_noise(key):
    """Late in a trial; the noise is held for a step, which takes dt² |g'|²/12 from the loss."""
    target = LeakyIntegrator(0.5, duration=20.0, dt=0.1)
    network = random(10, 0.6, gamma0=0.2, seed=5)
    trials = target.sample(1000, key=key, dtype="float64")
    outputs = eqx.filter_jit(network.simulate)(trials.inputs, target.dt).outputs
    errors = np.asarray((outputs - trials.targets)[-50:] ** 2).mean(axis=(0, 2))  # (trial,)
    mean, error = errors.mean(), errors.std() / np.sqrt(errors.size)
    loss = computed(target, network).loss
    assert abs(mean - loss) < 4 * error < 0.1 * loss
    for null in (2 * loss, loss / 2, target.squared_norm):
        assert abs(mean - null) > 8 * error


def planted(c, a, b, n=10, gamma0=0.5):
    """One direction with its own decay: f = ab/γ0 exp(-ct)."""
    e = np.ones(n) / np.sqrt(n)
    return made((1 - c) * np.outer(e, e), np.sqrt(n) * a * e, np.sqrt(n) * b * e, gamma0), e


def test_planted_direction_has_loss_and_gradient_in_closed_form():
    c, c_star, a, b, n, gamma0 = 0.7, 0.3, 1.2, 0.9, 10, 0.5
    network, e = planted(c, a, b, n, gamma0)
    F, k = a * b / gamma0, 1 / (gamma0 * n)
    wanted_loss = F**2 / (2 * c) - 2 * F / (c + c_star) + 1 / (2 * c_star)
    overlap = F / (2 * c) - 1 / (c + c_star)  # of g and exp(-ct)
    moment = F / (2 * c) ** 2 - 1 / (c + c_star) ** 2  # of g and t exp(-ct)
    root = np.sqrt(n)
    wanted = Value(
        wanted_loss,
        2 * k / root * a * b * n * moment * np.outer(e, e),
        2 * k * overlap * root * b * e,
        2 * k * overlap * root * a * e,
    )
    assert off(computed(LeakyIntegrator(c_star), network), wanted) < 1e-12


def test_a_network_that_is_the_target_has_no_loss_and_no_gradient():
    network, _ = planted(0.3, 0.5, 1.0)
    loss, *gradient = computed(LeakyIntegrator(0.3), network)
    assert 0 <= loss < 1e-14 and all(np.abs(part).max() < 1e-13 for part in gradient)


def test_target_of_any_shape_by_quadrature():
    """A sampled target is linear between its samples: Gauss's rule on every interval is exact to rounding."""
    network, rng = random(10, 0.8, gamma0=0.2, seed=6), np.random.default_rng(0)
    target = SampledFilter(np.pad(rng.normal(size=12), (0, SAMPLES - 12)), 0.7, target_amplitude=0.6)
    nodes, weights = np.polynomial.legendre.leggauss(12)
    t = (0.7 * (np.arange(12)[:, None] + (1 + nodes) / 2)).ravel()  # the rest is 0
    weights = np.tile(0.35 * weights, 12)
    zero = dense(ExponentialSum([0.0], [1.0]), network)
    A, k = np.asarray(network.recurrent) - np.eye(10), network.readout_scale
    values, vectors = np.linalg.eig(A)
    flow_of = np.einsum("ij,tj,jk->tik", vectors, np.exp(np.outer(t, values)), np.linalg.inv(vectors)).real
    u, v = (np.asarray(x) for x in (network.u, network.v))
    states, adjoints = flow_of @ u, v @ flow_of  # (time, n) each
    measure = weights * target.filter(t)
    double = np.zeros((10, 10))
    for time, weight in zip(t, measure, strict=True):  # ∫ v(s) u(t - s)ᵀ ds, by the same rule on [0, t]
        s, w = time * (1 + NODES) / 2, time * WEIGHTS / 2
        left, right = (np.exp(np.outer(x, values)) for x in (s, time - s))
        at_s = np.einsum("i,ij,sj,jk->sk", v, vectors, left, np.linalg.inv(vectors), optimize=True).real
        at_r = np.einsum("ij,sj,jk,k->si", vectors, right, np.linalg.inv(vectors), u, optimize=True).real
        double += weight * np.einsum("s,si,sj->ij", w, at_s, at_r)
    wanted = Value(
        zero.loss - 2 * k * measure @ (states @ v) + target.squared_norm,
        zero.W - 2 * k / np.sqrt(10) * double,
        zero.u - 2 * k * measure @ adjoints,
        zero.v - 2 * k * measure @ states,
    )
    assert off(computed(target, network), wanted) < 1e-10


def test_samples_of_a_sum_of_exponentials_tend_to_it_with_the_square_of_their_spacing():
    network, exact = random(10, 0.8, gamma0=0.2), DampedOscillator(0.4, 1.0)
    wanted, errors = computed(exact, network), []
    for spacing in (0.2, 0.1, 0.05):
        target = SampledFilter(exact.filter(spacing * np.arange(SAMPLES)), spacing)
        errors.append([np.linalg.norm(f - w) for f, w in zip(computed(target, network), wanted, strict=True)])
    slopes = np.diff(np.log2(errors), axis=0)
    np.testing.assert_allclose(slopes, -2, atol=0.05)


# ---------------------------------------------------------------------------------------------------- unstable ones


def with_modes(*blocks, n=10, sigma=0.5, seed=7):
    """A random network with modes planted in orthonormal directions beside a bulk that does not touch them."""
    rng = np.random.default_rng(seed)
    Q = np.linalg.qr(rng.normal(size=(n, n)))[0]
    size = sum(len(block) for block in blocks)
    M, first = np.zeros((n, n)), 0
    for block in blocks:
        M[first : first + len(block), first : first + len(block)] = block
        first += len(block)
    M[size:, size:] = sigma * rng.normal(size=(n - size, n - size)) / np.sqrt(n)
    return Q @ M @ Q.T, rng


def turning(growth, omega):
    return np.array([[growth, -omega], [omega, growth]])


@pytest.mark.parametrize(
    ("mode", "stable"),
    [
        ([[1.05]], False),
        ([[1.0]], False),
        ([[1.0 - 1e-5]], True),
        (turning(1.01, 0.5), False),
        (turning(1.0, 0.5), False),
        (turning(1.0 - 1e-4, 0.5), True),
    ],
    ids=["real", "marginal", "barely stable", "pair", "marginal pair", "barely stable pair"],
)
def test_loss_is_inf_exactly_where_a_mode_does_not_decay(mode, stable):
    M, rng = with_modes(mode)
    network = made(M, *rng.normal(size=(2, 10)))
    loss = computed(LeakyIntegrator(0.2), network).loss
    assert np.isfinite(loss) == stable and not np.isnan(loss)
    if stable:
        assert loss == pytest.approx(float(dense(LeakyIntegrator(0.2), network).loss), rel=1e-6)


@pytest.mark.parametrize("sigma", [1.1, 1.3, 3.0])
def test_loss_of_an_unstable_bulk_is_inf(sigma):
    network = random(80, sigma, seed=3)
    assert np.linalg.eigvals(np.asarray(network.recurrent)).real.max() > 1
    assert np.isposinf(computed(TARGETS["oscillator"], network).loss)


def test_a_growing_mode_counts_if_the_input_reaches_it_or_the_readout_sees_it():
    rng = np.random.default_rng(0)
    M = np.pad(0.2 * rng.normal(size=(9, 9)), (1, 0))
    M[0, 0] = 1.2
    u, v = np.pad(rng.normal(size=(2, 9)), ((0, 0), (1, 0)))  # apart from the mode
    for there, seen in [(1, 0), (0, 1), (1, 1)]:
        network = made(M, u + there * np.eye(10)[0], v + seen * np.eye(10)[0])
        assert np.isposinf(computed(LeakyIntegrator(0.2), network).loss)
    found = computed(LeakyIntegrator(0.2), made(M, u, v))
    M[0, 0] = 0.5
    assert off(found, dense(LeakyIntegrator(0.2), made(M, u, v))) < 1e-9


@pytest.mark.slow
def test_flow_rejects_steps_into_instability():
    """The first step is far too long, lands where the loss is +inf, and is tried again."""
    network, seen = random(10, 0.5, seed=8), []

    def objective(network, key):
        loss = FilterLoss(TARGETS["leak"])(network)
        jax.debug.callback(lambda x: seen.append(float(x)), loss)
        return loss

    settings = {"rates": network.mean_field_rates(), "rtol": 1e-4, "atol": 1e-6}
    run = flow(network, objective, duration=2e4, save_at=[0.0, 0.5, 1.0], **settings)
    assert np.isposinf(seen).any()
    loss = run.data["loss"].values[0]
    assert str(run.data["status"].values[0]) == "done" and (np.diff(loss) < 0).all() and loss[-1] < 0.01 * loss[0]


def test_networks_of_many_units_are_decided_by_their_bases(monkeypatch):
    """As beyond 1000 units, where a basis has at most 900 vectors."""
    monkeypatch.setattr(krylov, "SMALL", 30)
    monkeypatch.setattr(krylov, "LARGEST", 20)
    target, n = TARGETS["leak"], 41
    settled, undecided = random(n, 0.3), random(n, 0.98, seed=5)
    assert off(computed(target, settled), dense(target, settled)) < 1e-6
    e = np.ones(n) / np.sqrt(n)
    growing = made(settled.recurrent + 1.1 * np.outer(e, e), settled.u, settled.v)
    assert np.isposinf(computed(target, growing).loss)
    assert np.isfinite(dense(target, undecided).loss) and np.isposinf(computed(target, undecided).loss)


# -------------------------------------------------------------------------------------------------------- as a loss


@pytest.mark.parametrize("silent", ["W_in", "W_out", "both"])
def test_a_silent_end_leaves_the_targets_norm_and_a_finite_gradient(silent):
    network, target = random(10, 0.8), TARGETS["leak"]
    names = ("W_in", "W_out") if silent == "both" else (silent,)
    network = eqx.tree_at(lambda net: [getattr(net, name) for name in names], network, replace_fn=jnp.zeros_like)
    found, wanted = computed(target, network), dense(target, network)
    assert found.loss == pytest.approx(target.squared_norm, rel=1e-12)
    for f, w in zip(found[1:], wanted[1:], strict=True):
        np.testing.assert_allclose(f, w, atol=1e-11)


@pytest.mark.x64off
def test_single_precision():
    n = 10
    network, target = random(n, 0.7, gamma0=0.3, dtype="float32"), TARGETS["oscillator"]
    assert _compiled(FilterLoss(target).bare(), network)[0].dtype == jnp.float32
    assert off(computed(target, network), dense(target, network)) < 2e-4
    growing = made(1.5 * np.eye(n), np.ones(n), np.ones(n), dtype="float32")
    assert np.isposinf(computed(target, growing).loss)


def test_jit_vmap_and_key_change_nothing(key):
    objective, members = FilterLoss(TARGETS["leak"]), [random(10, 0.7, seed=seed) for seed in range(3)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)
    grad = eqx.filter_value_and_grad(lambda network: objective(network, key))
    losses, gradients = eqx.filter_jit(eqx.filter_vmap(grad))(stacked)
    for i, member in enumerate(members):
        alone = computed(objective.target, member)
        together = Value(losses[i], gradients.W[i], gradients.W_in[i, :, 0], gradients.W_out[i, 0])
        assert off(Value(*map(np.asarray, together)), alone) < 1e-12


def test_gradient_of_the_readout_alone_leaves_out_that_of_W():
    """In a reservoir nothing of the size of W is formed but W itself."""
    network, objective = random(10, 0.5), FilterLoss(TARGETS["leak"]).bare()

    def gradient(*names):
        def loss(*values):
            return objective(eqx.tree_at(lambda net: [getattr(net, name) for name in names], network, list(values)))

        return jax.grad(loss, argnums=tuple(range(len(names))))

    (alone,) = jax.jit(gradient("W_out"))(network.W_out)
    np.testing.assert_allclose(alone[0], computed(TARGETS["leak"], network).v, rtol=1e-9)
    reservoir, whole = (
        str(jax.make_jaxpr(gradient(*names))(*(getattr(network, name) for name in names)))
        for names in (("W_out",), ("W", "W_out"))
    )
    assert reservoir.count("dot_general") == whole.count("dot_general") - 2


def test_bad_input_is_answered_by_a_sentence(key):
    with pytest.raises(ValueError, match="target is 'leak'; it must be a filter, for example"):
        FilterLoss("leak")
    for tolerance in (0, 1.0, -1e-3):
        with pytest.raises(ValueError, match=r"tolerance is .*; it must be a number between 0 and 1, or None"):
            FilterLoss(TARGETS["leak"], tolerance=tolerance)
    with pytest.raises(ValueError, match="the network is a RateRNN; the filter loss is that of a ContinuousLinearRNN"):
        FilterLoss(TARGETS["leak"])(RateRNN(jnp.zeros((2, 2)), jnp.ones((2, 1)), jnp.ones((1, 2))))
    bare = FilterLoss(TARGETS["leak"]).bare()
    with pytest.raises(TypeError, match="the gradient for the target was asked for"):
        jax.grad(lambda b: eqx.tree_at(lambda x: x.numbers.b, bare, b)(random(3, 0.5)))(jnp.ones(1))


# ------------------------------------------------------------------------------------------------------ large ones


@pytest.mark.slow
@pytest.mark.parametrize("sigma", [0.2, 0.8, 0.98])
@pytest.mark.parametrize("name", ["leak", "oscillator"])
def test_five_hundred_units_against_dense_equations(name, sigma):
    network = random(500, sigma, seed=1)
    assert np.linalg.eigvals(np.asarray(network.recurrent)).real.max() < 1
    found, wanted = computed(TARGETS[name], network), dense(TARGETS[name], network)
    assert off(found, wanted) < 1e-8
    assert off(found, dense(LeakyIntegrator(0.204), network)) > 1e-3


@pytest.mark.slow
def test_five_hundred_units_that_have_learnt():
    """Near the end of learning the loss is a small difference, and u, v and an outlier of W lie along one another."""
    target, start = TARGETS["leak"], random(500, 0.2)
    settings = {"rates": start.mean_field_rates(), "rtol": 1e-6, "atol": 1e-8}
    run = flow(start, FilterLoss(target), duration=2.5, train=("W", "W_in", "W_out"), **settings)
    network = run.network()
    found, wanted = computed(target, network), dense(target, network)
    assert found.loss < 1e-3 * target.squared_norm
    np.testing.assert_allclose(found.loss, wanted.loss, rtol=1e-8)
    whole = dense(target, start)  # in a minimum the gradient is a difference of large numbers
    for name in ("W", "u", "v"):
        apart = np.linalg.norm(getattr(found, name) - getattr(wanted, name))
        assert apart < 1e-9 * np.linalg.norm(getattr(whole, name))


@pytest.mark.slow
@pytest.mark.parametrize("sigma", [0.8, 0.9])
def test_four_thousand_units_against_a_tighter_basis(sigma):
    network = random(4000, sigma, seed=1)
    usual, tight = (computed(TARGETS["leak"], network, **settings) for settings in ({}, {"tolerance": 1e-12}))
    assert 0 < off(usual, tight) < 1e-5


@pytest.mark.slow
def test_large_unstable_networks_are_seen():
    network = random(1200, 0.5)
    e = np.ones(1200) / np.sqrt(1200)
    assert np.isposinf(
        computed(TARGETS["leak"], made(network.recurrent + 1.2 * np.outer(e, e), network.u, network.v)).loss
    )
    network = random(1200, 0.9)
    assert off(computed(TARGETS["leak"], network), dense(TARGETS["leak"], network)) < 1e-6
