"""The continuous linear network: exact in time, its filter, how it is drawn, what is planted in it, and bad input."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.linalg import expm

from tauflow.learning import Record, flow
from tauflow.networks import ContinuousLinearRNN
from tauflow.networks.continuous import coupling, outlier_pair
from tauflow.run import load

random, warm_start = ContinuousLinearRNN.random, ContinuousLinearRNN.warm_start
X64 = jax.config.jax_enable_x64
BEST = "float64" if X64 else "float32"
both_modes = pytest.mark.x64off


@pytest.fixture(scope="module")
def network():
    return random(12, sigma=0.8, gamma0=0.4, key=jax.random.key(1), dtype=BEST)


def system(network):
    """A, u, v and the factor of the readout in NumPy, from the definition."""
    W, u, v = (np.asarray(x, float) for x in (network.W, network.W_in, network.W_out))
    n = len(W)
    return W / np.sqrt(n) - np.eye(n), u[:, 0], v[0], 1 / (network.gamma0 * n)


# ----------------------------------------------------------------------------------------------------------- in time


@both_modes
def test_filter_is_the_impulse_response(network):
    A, u, v, factor = system(network)
    t = np.array([[3.0, 0.0, 0.5], [0.5, 40.0, 1e-3]])
    wanted = [[factor * v @ expm(A * time) @ u for time in row] for row in t]
    found = network.filter(t)
    assert found.shape == t.shape and found.dtype == np.float64
    np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-15)
    assert network.filter(0.0) == pytest.approx(factor * v @ u) and network.filter([]).shape == (0,)


def test_simulation_is_that_of_the_differential_equation(network):
    A, u, v, factor = system(network)
    inputs, dt, h = np.random.default_rng(0).normal(size=(4, 1)), 0.7, np.linspace(-1, 1, 12)
    found = network.simulate(inputs, dt, x0=jnp.asarray(h))
    for x, state, output in zip(inputs[:, 0], found.states, found.outputs, strict=True):
        h = solve_ivp(lambda _, h, x=x: A @ h + u * x, (0, dt), h, method="DOP853", rtol=1e-11, atol=1e-12).y[:, -1]
        np.testing.assert_allclose(state, h, atol=1e-9)
        np.testing.assert_allclose(output, [factor * v @ h], atol=1e-10)


@both_modes
def test_simulation_is_exact_whatever_the_step(network):
    inputs = np.random.default_rng(0).normal(size=(5, 3, 1))
    long = network.simulate(inputs, 0.8)
    short = network.simulate(np.repeat(inputs, 4, axis=0), 0.2)
    tolerance = 1e-12 if X64 else 1e-5
    np.testing.assert_allclose(short.states[3::4], long.states, atol=tolerance)
    np.testing.assert_allclose(short.outputs[3::4], long.outputs, atol=tolerance)
    same = eqx.tree_at(lambda net: net.W, network, network.W)
    assert np.array_equal(same(inputs).outputs, network.simulate(inputs, network.dt).outputs)


def test_simulation_of_an_impulse_is_the_filter(network):
    found = network.simulate(np.zeros((6, 1)), 0.5, x0=network.u).outputs[:, 0]
    np.testing.assert_allclose(found, network.filter(0.5 * np.arange(1, 7)), atol=1e-13)


def test_scales_are_those_of_the_mean_field(network):
    A, _, _, factor = system(network)
    assert network.readout_scale == pytest.approx(factor)
    assert network.gamma * np.sqrt(12) == pytest.approx(1 / factor)
    np.testing.assert_allclose(network.recurrent, A + np.eye(12), rtol=1e-15)
    np.testing.assert_allclose(np.sort_complex(network.eigenvalues()), np.sort_complex(np.linalg.eigvals(A) + 1))
    assert network.mean_field_rates() == pytest.approx(dict.fromkeys(("W", "W_in", "W_out"), 0.4**2 * 12))


# ------------------------------------------------------------------------------------------------------------- drawn


def test_random_weights_have_the_published_statistics(key):
    n, sigma = 300, 0.8
    network = random(n, sigma=sigma, key=key)
    W, u, v = (np.asarray(x, float) for x in (network.W, network.u, network.v))
    assert {x.dtype for x in (network.W, network.W_in, network.W_out)} == {jnp.dtype("float32")}
    assert abs(W.mean()) < 4 * sigma / n
    # 4 standard errors are 1.9 % of the variance: a sigma 1 % off is found.
    assert abs(W.var() / sigma**2 - 1) < 4 * np.sqrt(2) / n < 0.02
    for x in (u, v):
        assert abs((x**2).mean() / sigma**2 - 1) < 4 * np.sqrt(2 / n)
    assert abs(u @ v) < 4 * sigma**2 * np.sqrt(n)
    assert abs(network.eigenvalues()).max() == pytest.approx(sigma, rel=0.1)


def test_sigma_scales_one_draw(key):
    weak, strong, none = (random(5, sigma=sigma, key=key, dtype=BEST) for sigma in (0.4, 0.8, 0.0))
    for name in ("W", "W_in", "W_out"):
        np.testing.assert_allclose(2 * getattr(weak, name), getattr(strong, name), rtol=1e-6)
        assert not np.any(getattr(none, name))


def test_warm_start_plants_its_pair_exactly(key):
    n, c, omega, a, gamma0 = 40, 0.3, 0.9, 0.7, 0.5
    network = warm_start(n, sigma=0.0, c=c, omega=omega, amplitude=a, gamma0=gamma0, key=key, dtype="float64")
    assert network.W.dtype == np.float64 and np.linalg.matrix_rank(network.W) == 2
    np.testing.assert_allclose(outlier_pair(network), [1 - c + 1j * omega, 1 - c - 1j * omega], atol=1e-14)
    u, M = np.asarray(network.u), np.asarray(network.recurrent)
    assert np.linalg.norm(u) == pytest.approx(a * np.sqrt(n)) and np.array_equal(u, network.v)
    p = u / np.linalg.norm(u)
    q = (M @ p - (1 - c) * p) / -omega
    np.testing.assert_allclose([p @ p, q @ q, p @ q], [1, 1, 0], atol=1e-14)
    np.testing.assert_allclose(M @ M.T, ((1 - c) ** 2 + omega**2) * (np.outer(p, p) + np.outer(q, q)), atol=1e-14)
    t = np.linspace(0, 10, 30)
    np.testing.assert_allclose(network.filter(t), a**2 / gamma0 * np.exp(-c * t) * np.cos(omega * t), atol=1e-14)


def test_warm_start_leaves_the_random_eigenvalues_in_their_disk(key):
    """As printed they would lie around 1, where half of them grow."""
    network = warm_start(300, sigma=0.3, c=0.1, omega=1.0, key=key)
    moduli = np.sort(np.abs(network.eigenvalues()))
    assert moduli[-3] == pytest.approx(0.3, rel=0.15)
    np.testing.assert_allclose(outlier_pair(network)[0], 0.9 + 1j, atol=0.1)
    assert network.eigenvalues().real.max() < 1


# ----------------------------------------------------------------------------------------------------------- outliers


def test_coupling_is_the_eigenvalue_of_what_is_planted_along_read_in_and_read_out():
    rng = np.random.default_rng(0)
    u, v, n = rng.normal(size=30), rng.normal(size=30), 30
    unit_u, unit_v = u / np.linalg.norm(u), v / np.linalg.norm(v)
    network = ContinuousLinearRNN(*map(jnp.asarray, (np.sqrt(n) * 0.8 * np.outer(unit_v, unit_u), u[:, None], v[None])))
    assert coupling(network) == pytest.approx(0.8) and coupling(network).shape == ()
    aligned = eqx.tree_at(lambda net: net.W_in, network, network.W_out.T)
    assert coupling(aligned) == pytest.approx(0.8 * unit_u @ unit_v)
    assert np.isnan(coupling(eqx.tree_at(lambda net: net.W_in, network, 0 * network.W_in)))


def test_outlier_pair_is_in_a_fixed_order():
    def of(M):
        n = len(M)
        return ContinuousLinearRNN(np.sqrt(n) * jnp.asarray(M), jnp.ones((n, 1)), jnp.ones((1, n)))

    turn = np.pad([[0.2, 0.7], [-0.7, 0.2]], (0, 2))
    np.testing.assert_allclose(outlier_pair(of(turn)), [0.2 + 0.7j, 0.2 - 0.7j])
    np.testing.assert_allclose(outlier_pair(of(np.diag([0.1, -0.9, 0.0, 0.5]))), [0.5, -0.9])


# -------------------------------------------------------------------------------------------------- kept, and refused


def test_a_run_makes_the_network_again(tmp_path, key):
    network = random(6, sigma=0.5, gamma0=0.3, dt=0.05, key=key, dtype="float64")
    run = flow(network, lambda net, key: (net.W**2).sum(), duration=1.0, train=("W",), record=Record(measurements=2))
    kept = load(run.save(tmp_path / "run.zarr"))
    again = kept.network(snapshot=0)
    assert isinstance(again, ContinuousLinearRNN) and (again.gamma0, again.dt) == (0.3, 0.05)
    assert all(np.array_equal(getattr(again, x), getattr(network, x)) for x in ("W", "W_in", "W_out"))
    np.testing.assert_allclose(kept.network().W, np.exp(-2) * network.W, rtol=1e-7)


def _random(**changed):
    return random(**({"neurons": 4, "sigma": 0.5, "key": jax.random.key(0)} | changed))


def _warm(**changed):
    settings = {"neurons": 4, "sigma": 0.1, "c": 0.2, "omega": 1.0, "key": jax.random.key(0)}
    return warm_start(**(settings | changed))


def _of(W, W_in, W_out):
    return ContinuousLinearRNN(*(jnp.zeros(shape, BEST) for shape in (W, W_in, W_out)))


BAD = {
    "no neurons": (lambda: _random(neurons=0), "neurons is 0; it must be a whole number of at least 1"),
    "negative sigma": (lambda: _random(sigma=-0.1), "sigma is -0.1; it must be a number >= 0"),
    "sigma in words": (lambda: _random(sigma="x"), "sigma is 'x'; it must be a number >= 0"),
    "gamma0 0": (lambda: _random(gamma0=0), "gamma0 is 0; it must be a number > 0"),
    "gamma0 NaN": (lambda: _random(gamma0=float("nan")), "gamma0 is nan; it must be a number > 0"),
    "dt infinite": (lambda: _random(dt=float("inf")), "dt is inf; it must be a number > 0"),
    "half precision": (lambda: _random(dtype="float16"), "dtype is 'float16'; it must be 'float32' or 'float64'"),
    "pair in one unit": (lambda: _warm(neurons=1), "neurons is 1; it must be a whole number of at least 2"),
    "c NaN": (lambda: _warm(c=float("nan")), "c is nan; it must be a number and finite"),
    "omega in words": (lambda: _warm(omega="fast"), "omega is 'fast'; it must be a number and finite"),
    "amplitude 0": (lambda: _warm(amplitude=0), "amplitude is 0; it must be a number > 0"),
    "two inputs": (lambda: _of((4, 4), (4, 2), (1, 4)), r"W_in \(4, 2\), .*they must be \(n, n\), \(n, 1\) and \(1, n"),
    "W not square": (lambda: _of((4, 3), (4, 1), (1, 4)), r"W is \(4, 3\), .*they must be \(n, n\)"),
    "W no matrix": (lambda: ContinuousLinearRNN([[0.0], [1.0, 2.0]], [[1.0]], [[1.0]]), "must be a matrix of numbers"),
    "negative time": (lambda: _random().filter([1.0, -1.0]), r"times must be finite numbers >= 0"),
    "NaN time": (lambda: _random().filter(float("nan")), "times must be finite numbers >= 0"),
    "step 0": (lambda: _random().simulate(np.ones((3, 1)), 0.0), "dt is 0.0; it must be a number > 0"),
    "two channels": (
        lambda: _random()(np.ones((3, 2))),
        r"inputs have shape \(3, 2\); they must be \(time, \*trials, 1",
    ),
}


@both_modes
@pytest.mark.parametrize("bad", BAD)
def test_bad_input_is_answered_by_a_sentence(bad):
    attempt, sentence = BAD[bad]
    with pytest.raises(ValueError, match=sentence):
        attempt()
