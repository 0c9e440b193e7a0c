"""Every network keeps the contract; the rate network has its published statistics, and answers bad input in words.

What is particular to the continuous linear network is in `test_continuous_network.py`.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tauflow.networks import NETWORKS, ContinuousLinearRNN, RateRNN
from tauflow.precision import float64

X64 = jax.config.jax_enable_x64
BEST = "float64" if X64 else "float32"
TOLERANCE = 1e-12 if X64 else 2e-6
both_modes = pytest.mark.x64off

# One small network of every class, 2 inputs and 3 outputs if it can. A class without an example fails its tests.
EXAMPLES = {
    "RateRNN": lambda key: RateRNN.random(6, 2, 3, gain=0.9, key=key, dtype=BEST),
    "RateRNN with noise": lambda key: RateRNN.random(6, 2, 3, gain=0.9, key=key, noise=0.1, dtype=BEST),
    "ContinuousLinearRNN": lambda key: ContinuousLinearRNN.random(6, sigma=0.9, gamma0=0.2, key=key, dtype=BEST),
}


def example_inputs(network, *trials, time=5):
    return jnp.asarray(np.random.default_rng(0).normal(size=(time, *trials, network.W_in.shape[-1])), BEST)


def test_every_network_has_an_example():
    assert {name.split(" with ")[0] for name in EXAMPLES} == set(NETWORKS)


@pytest.fixture(params=EXAMPLES)
def network(request, key):
    return EXAMPLES[request.param](key)


@both_modes
@pytest.mark.parametrize("trials", [(), (4,), (2, 3)], ids=str)
def test_shapes_and_dtypes(network, trials, key):
    states, outputs = network(example_inputs(network, *trials), key=key)
    assert states.shape == (5, *trials, 6) and outputs.shape == (5, *trials, len(network.W_out))
    assert states.dtype == outputs.dtype == jnp.dtype(BEST)


def test_same_key_same_answer(network, key):
    inputs = example_inputs(network, 4)
    once, again = network(inputs, key=key).outputs, network(inputs, key=key).outputs
    assert np.array_equal(once, again)
    other = network(inputs, key=jax.random.fold_in(key, 1)).outputs
    assert np.array_equal(once, other) == (getattr(network, "noise", 0) == 0)


def test_jit_and_vmap_change_nothing(network, key):
    inputs, keys = example_inputs(network, 4), jax.random.split(key, 2)
    other = jax.tree.map(lambda leaf: -leaf, network)
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), network, other)
    batched = jax.jit(jax.vmap(lambda net, key: net(inputs, key=key).outputs))(stacked, keys)
    for i, member in enumerate((network, other)):
        alone = member(inputs, key=keys[i]).outputs
        np.testing.assert_allclose(batched[i], alone, rtol=0, atol=TOLERANCE)


@both_modes
def test_gradient_is_finite_and_reaches_every_array(network, key):
    gradient = eqx.filter_jit(
        eqx.filter_grad(lambda net: (net(example_inputs(network, 4), key=key).outputs ** 2).sum())
    )(network)
    leaves = jax.tree.leaves(gradient)
    assert len(leaves) == len(jax.tree.leaves(network))
    assert all(np.isfinite(leaf).all() and np.abs(leaf).max() > 0 for leaf in leaves)


@both_modes
def test_initial_state_is_used_and_broadcasts(network, key):
    start = jnp.arange(6, dtype=BEST) / 6
    full = network(example_inputs(network, 4), x0=jnp.stack([start] * 4), key=key).states
    assert np.array_equal(network(example_inputs(network, 4), x0=start, key=key).states, full)
    assert not np.allclose(network(example_inputs(network, 4), key=key).states, full)


# The rate network -----------------------------------------------------------------------------------------------


@both_modes
def test_output_follows_the_step_that_its_input_drives():
    W, W_in, W_out = np.array([[0.0, 2.0], [0.5, 0.0]]), np.array([[1.0], [0.0]]), np.array([[1.0, 3.0]])
    network = RateRNN(*(jnp.asarray(a, BEST) for a in (W, W_in, W_out)), dt=0.25)
    states, outputs = network(jnp.asarray([[2.0], [0.0]], BEST))
    first = 0.25 * np.array([2.0, 0.0])
    second = 0.75 * first + 0.25 * W @ np.tanh(first)
    np.testing.assert_allclose(states, [first, second], atol=TOLERANCE)
    np.testing.assert_allclose(outputs, np.tanh([first, second]) @ W_out.T, atol=TOLERANCE)


def test_linear_network_settles_on_its_fixed_point(key):
    network = RateRNN.random(40, 1, 1, gain=0.5, key=key, phi="identity", dtype=BEST)
    outputs = network(jnp.ones((200, 1), BEST)).outputs
    W, W_in, W_out = (np.asarray(a, float) for a in (network.W, network.W_in, network.W_out))
    exact = W_out @ np.linalg.solve(np.eye(40) - W, W_in)
    np.testing.assert_allclose(outputs[-1:], exact, rtol=10 * TOLERANCE)


def test_random_weights_have_the_published_statistics(key):
    N, gain = 400, 0.8
    network = RateRNN.random(N, 3, 2, gain=gain, key=key)
    W, W_in, W_out = (np.asarray(a, float) for a in (network.W, network.W_in, network.W_out))
    assert {a.dtype for a in (network.W, network.W_in, network.W_out)} == {jnp.dtype("float32")}
    assert abs(W.mean()) < 4 * gain / N**1.5
    # 4 standard errors are 1.4 % of the variance: a gain 1 % off is found.
    assert abs(W.var() / (gain**2 / N) - 1) < 4 * np.sqrt(2 / N**2)
    assert (W**4).mean() / W.var() ** 2 == pytest.approx(3, abs=4 * np.sqrt(96) / N)
    assert abs(np.linalg.eigvals(W)).max() == pytest.approx(gain, rel=0.08)
    np.testing.assert_allclose(np.linalg.norm(W_in, axis=0), np.sqrt(N), rtol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(W_out, axis=1), 1 / np.sqrt(N), rtol=1e-6)
    assert abs(W_in[:, 0] @ W_in[:, 1]) < 4 * np.sqrt(N)
    assert abs(W_in[:, 0] @ W_out[0]) < 4 / np.sqrt(N)


def test_gain_scales_one_draw(key):
    weak, strong, none = (RateRNN.random(5, 1, 1, gain=gain, key=key, dtype=BEST) for gain in (0.5, 1, 0))
    np.testing.assert_allclose(2 * weak.W, strong.W, rtol=TOLERANCE)
    assert np.array_equal(weak.W_in, strong.W_in) and np.array_equal(weak.W_out, strong.W_out)
    assert not none.W.any()
    assert not np.allclose(strong.W, RateRNN.random(5, 1, 1, gain=1, key=jax.random.fold_in(key, 1), dtype=BEST).W)


@pytest.mark.parametrize("dt", [0.25, 1.0])
def test_noise_has_the_variance_of_the_discrete_process(dt, key):
    noise, n = 0.3, 50
    silent = (jnp.zeros((n, n), BEST), jnp.zeros((n, 1), BEST), jnp.ones((1, n), BEST))
    network = RateRNN(*silent, phi="identity", dt=dt, noise=noise)
    states = np.asarray(eqx.filter_jit(network)(jnp.zeros((400, 40, 1), BEST), key=key).states, float)[100:]
    # x ← (1-dt) x + noise √dt ξ: variance noise² dt / (1 - (1-dt)²), correlation (1-dt)^k at lag k.
    square = (1 - dt) ** 2
    error = np.sqrt(2 * (1 + square) / (1 - square) / states.size)
    assert abs(states.var() / (noise**2 / (2 - dt)) - 1) < 4 * error < 0.02
    correlation = (states[1:] * states[:-1]).mean() / states.var()
    assert correlation == pytest.approx(1 - dt, abs=4 * error)


def test_inputs_are_data_and_take_the_dtype_of_the_weights(key):
    network = RateRNN.random(4, 2, 1, gain=0.9, key=key, dtype="float32")
    inputs = np.random.default_rng(0).normal(size=(5, 3, 2)).round(3)
    exact = network(jnp.asarray(inputs, "float32")).outputs
    for same in (inputs, jnp.asarray(inputs), inputs.tolist(), jax.jit(lambda: jnp.asarray(inputs))()):
        assert np.array_equal(network(same).outputs, exact)
    assert network(np.ones((5, 3, 2), int)).outputs.dtype == np.float32


@both_modes
def test_weights_may_be_lists():
    network = RateRNN([[0, 2], [0.5, 0]], [[1], [0]], ((1, 3),), dt=0.25)
    W, W_in, W_out = (jnp.asarray(a, BEST) for a in ([[0.0, 2.0], [0.5, 0.0]], [[1.0], [0.0]], [[1.0, 3.0]]))
    assert network.W.dtype == BEST and network.W_out.shape == (1, 2)
    inputs = jnp.asarray([[2.0], [0.0]], BEST)
    assert np.array_equal(network(inputs).outputs, RateRNN(W, W_in, W_out, dt=0.25)(inputs).outputs)


@both_modes
def test_float64_weights_need_the_64_bit_mode(key):
    with jax.enable_x64(False), pytest.raises(ValueError, match=r"64-bit mode is off; .* tauflow.precision.float64"):
        RateRNN.random(4, 1, 1, gain=0.9, key=key, dtype="float64")
    with float64():
        assert RateRNN.random(4, 1, 1, gain=0.9, key=key, dtype="float64").W.dtype == np.float64


def _random(**changed):
    arguments = {"neurons": 4, "inputs": 1, "outputs": 1, "gain": 0.9, "key": jax.random.key(0)} | changed
    return RateRNN.random(arguments.pop("neurons"), arguments.pop("inputs"), arguments.pop("outputs"), **arguments)


def _of_shapes(W, W_in, W_out):
    return RateRNN(*(jnp.zeros(shape, BEST) for shape in (W, W_in, W_out)))


BAD = {
    "negative gain": (lambda: _random(gain=-1), r"gain is -1; it must be a number >= 0, for example gain=0.9"),
    "NaN gain": (lambda: _random(gain=float("nan")), "gain is nan; it must be a number >= 0"),
    "infinite gain": (lambda: _random(gain=float("inf")), "gain is inf; it must be a number >= 0"),
    "gain in words": (lambda: _random(gain="high"), "gain is 'high'; it must be a number >= 0"),
    "no gain": (lambda: _random(gain=None), "gain is None; it must be a number >= 0"),
    "no neurons": (lambda: _random(neurons=0), "neurons is 0; it must be a whole number of at least 1"),
    "half a neuron": (lambda: _random(neurons=2.5), "neurons is 2.5; it must be a whole number of at least 1"),
    "no inputs": (lambda: _random(inputs=0), "inputs is 0; it must be a whole number of at least 1"),
    "negative outputs": (lambda: _random(outputs=-1), "outputs is -1; it must be a whole number of at least 1"),
    "dt 0": (lambda: _random(dt=0.0), r"dt is 0.0; it must be a number in \(0, 1\]"),
    "dt above 1": (lambda: _random(dt=1.5), r"dt is 1.5; it must be a number in \(0, 1\]"),
    "dt NaN": (lambda: _random(dt=float("nan")), r"dt is nan; it must be a number in \(0, 1\]"),
    "negative noise": (lambda: _random(noise=-0.1), "noise is -0.1; it must be a number >= 0"),
    "dt in words": (lambda: _random(dt="x"), r"dt is 'x'; it must be a number in \(0, 1\]"),
    "noise in words": (lambda: _random(noise="x"), "noise is 'x'; it must be a number >= 0"),
    "W no matrix": (lambda: RateRNN([[0.0], [1.0, 2.0]], [[1.0]], [[1.0]]), r"W is \[\[0.0\], .*a matrix of numbers"),
    "W_in in words": (
        lambda: RateRNN([[0.0]], [["a"]], [[1.0]]),
        r"W_in is \[\['a'\]\]; it must be a matrix of numbers",
    ),
    "W of whole numbers": (
        lambda: RateRNN(*[jnp.ones((1, 1), int)] * 3)(jnp.ones((3, 1))),
        r"W is int\d\d; it must be float32 or float64",
    ),
    "inputs None": (lambda: _random()(None), "inputs are NoneType; they must be an array of real numbers"),
    "ragged inputs": (lambda: _random()([[1.0], [1.0, 2.0]]), "inputs are list; they must be an array of real numbers"),
    "complex inputs": (lambda: _random()(np.ones((3, 1), complex)), "inputs are complex128; they must be an array of"),
    "half precision": (lambda: _random(dtype="float16"), "dtype is 'float16'; it must be 'float32' or 'float64'"),
    "unknown phi": (lambda: _random(phi="than"), "phi is 'than'; it must be one of 'tanh', 'relu'"),
    "function as phi": (lambda: _random(phi=jnp.tanh), "RateRNN takes a name, so that a saved run can be rebuilt"),
    "W not square": (lambda: _of_shapes((4, 3), (4, 1), (1, 4)), r"W is \(4, 3\), .*they must be \(n, n\)"),
    "W_in transposed": (lambda: _of_shapes((4, 4), (1, 4), (1, 4)), r"W_in \(1, 4\), .*\(n, n_in\)"),
    "W_out transposed": (lambda: _of_shapes((4, 4), (4, 1), (4, 1)), r"W_out \(4, 1\); .*\(n_out, n\)"),
    "too many channels": (
        lambda: _random()(jnp.ones((3, 2, 5))),
        r"inputs have shape \(3, 2, 5\); they must be \(time, \*trials, 1\)",
    ),
    "inputs without time": (lambda: _random()(jnp.ones(1)), r"inputs have shape \(1,\); they must be"),
    "noise without a key": (
        lambda: _random(noise=0.1)(jnp.ones((3, 1), "float32")),
        "noise is 0.1 and no key came; pass key=, or set noise=0",
    ),
}


@both_modes
@pytest.mark.parametrize("bad", BAD)
def test_bad_input_is_answered_by_a_sentence(bad):
    attempt, sentence = BAD[bad]
    with pytest.raises(ValueError, match=sentence):
        attempt()
