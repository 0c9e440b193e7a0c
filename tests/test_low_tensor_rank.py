"""The low-tensor-rank network, its strengths over trials and its inputs, against whole networks and exact answers."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import solve_triangular

from tauflow.networks import LowTensorRankRNN
from tauflow.networks.condition_inputs import ode_inputs, steps_until
from tauflow.networks.low_tensor_rank import orthonormal
from tauflow.networks.trial_factors import block_by_epoch, predict_factors, rational_quadratic, smoothing_matrix
from tauflow.run.rebuild import describe_network, rebuild

X64 = jax.config.jax_enable_x64
BEST = "float64" if X64 else "float32"
TOLERANCE = 1e-12 if X64 else 2e-5
both_modes = pytest.mark.x64off

IDS, CONDITIONS = [0, 1, 4, 5], np.array([0, 1, 1, 0])
KINDS = {
    "no inputs": {},
    "free inputs": {"inputs": "free", "input_steps": 3, "channels": 2},
    "inputs of an equation": {"inputs": "ode", "input_steps": 3, "channels": 2},
}


def make(seed=0, **changed):
    options = {"rank": 2, "conditions": 2, "trial_ids": IDS, "dtype": BEST, "alpha": 0.3} | changed
    return LowTensorRankRNN.random(12, 5, key=jax.random.key(seed), **options)


def learned(network, seed=1):
    """The network with noise on all that learns: rows are no longer columns, and norms no longer 1."""
    keys = iter(jax.random.split(jax.random.key(seed), 20))
    noisy = jax.tree.map(lambda leaf: leaf + 0.3 * jax.random.normal(next(keys), leaf.shape, leaf.dtype), network)
    return eqx.tree_at(lambda net: net.smoothing, noisy, network.smoothing)


def whole(network, steps):
    """States and rates of the network as one of n × n weights per trial, in NumPy, one step after the other."""
    f = {"tanh": np.tanh}[network.phi]
    get = {name: np.asarray(getattr(network, name), float) for name in ("a", "b", "c_latent", "c_offset", "smoothing")}
    a, b = (get[name] / np.linalg.norm(get[name], axis=0) for name in ("a", "b"))
    c = get["smoothing"] @ get["c_latent"] + get["c_offset"]
    W = np.einsum("ir,kr,jr->kij", a, c, b)
    x = (np.asarray(network.z0, float) @ a.T)[CONDITIONS]
    u, states = network.inputs(), []
    for t in range(steps):
        push = (
            0 if u is None or t >= len(u) else np.asarray(u[t], float)[CONDITIONS] @ np.asarray(network.W_in, float).T
        )
        x = x + network.alpha * (-x + np.einsum("kij,kj->ki", W, f(x)) + push)
        states.append(x)
    return np.stack(states), f(np.stack(states))


def assert_close(got, want, tolerance=TOLERANCE):
    np.testing.assert_allclose(np.asarray(got, float), want, rtol=0, atol=tolerance * max(1, np.abs(want).max()))


# Network --------------------------------------------------------------------------------------------------------


@both_modes
@pytest.mark.parametrize("kind", KINDS)
def test_states_and_outputs_are_those_of_one_matrix_per_trial(kind):
    network = learned(make(**KINDS[kind]))
    states, rates = whole(network, 6)
    want = rates @ np.asarray(network.W_out, float).T + np.asarray(network.bias, float)
    response = network(CONDITIONS, 6)
    assert response.states.dtype == response.outputs.dtype == jnp.dtype(BEST)
    assert_close(response.states, states)
    assert_close(response.outputs, want)
    assert_close(network.W.dense()[1], np.einsum("ir,r,jr->ij", *map(np.asarray, _factors(network, 1))))
    assert_close(network.initial_states, np.asarray(network.z0 @ network.columns.T))
    assert np.abs(network(1 - CONDITIONS, 6).outputs - want).max() > 1e-2, "the conditions make no difference"


def _factors(network, trial):
    return network.columns, network.trial_factors[trial], network.rows


def square(y, target):
    return ((y - target) ** 2).sum(), {"largest": y.max()}


def squared_error(network, target):
    return ((network(CONDITIONS, len(target)).outputs - target) ** 2).sum()


def test_total_and_its_gradient_are_those_of_all_outputs_at_once():
    network = learned(make(decoder="orthonormal", output="softplus", **KINDS["free inputs"]))
    target = jnp.asarray(np.random.default_rng(0).normal(size=(6, 4, 5)), BEST)

    def total(network):
        return network.total(square, CONDITIONS, target)

    (value, aside), gradient = eqx.filter_jit(eqx.filter_value_and_grad(total, has_aux=True))(network)
    want, wanted = eqx.filter_jit(eqx.filter_value_and_grad(squared_error))(network, target)
    assert_close(value, want)
    assert_close(aside["largest"], np.asarray(network(CONDITIONS, 6).outputs.max(axis=(1, 2)).sum()))
    for got, other in zip(jax.tree.leaves(gradient), jax.tree.leaves(wanted), strict=True):
        assert_close(got, np.asarray(other), 20 * TOLERANCE)


@pytest.mark.parametrize("kind", ["no inputs", "inputs of an equation"])
def test_gradient_reaches_all_that_learns(kind):
    network, target = learned(make(**KINDS[kind])), jnp.ones((6, 4, 5), BEST)
    gradient = eqx.filter_jit(eqx.filter_grad(lambda net: net.total(square, CONDITIONS, target)[0]))(network)
    for path, leaf in jax.tree.leaves_with_path(gradient):
        assert np.isfinite(leaf).all()
        assert (np.abs(leaf).max() > 0) == ("smoothing" not in jax.tree_util.keystr(path)), path


def test_random_network_starts_as_its_authors_start_it():
    net = LowTensorRankRNN.random(
        300, 400, rank=3, conditions=50, trial_ids=range(200), key=jax.random.key(3), dtype=BEST, inputs="ode",
        input_steps=4,
    )  # fmt: skip
    assert_close(net.a, np.asarray(net.b), 0)
    assert_close(np.linalg.norm(net.a, axis=0), np.ones(3), 1e-6)
    assert_close(net.c_offset, np.ones(3), 0)
    for name, sd in (("a", 300**-0.5), ("c_latent", 1), ("W_out", 300**-0.5), ("W_in", 3**-0.5), ("layers", 150**-0.5)):
        values = np.asarray(getattr(net, name), float).ravel()
        assert abs(values.mean()) < 4 * sd / len(values) ** 0.5
        assert abs(values.var() / sd**2 - 1) < 4 * (2 / len(values)) ** 0.5
    bound = 0.2 * (300 / 3) ** 0.5
    assert abs(net.z0).max() <= bound and abs(np.var(net.z0) / (bound**2 / 3) - 1) < 4 * (0.8 / 150) ** 0.5
    S = np.asarray(net.smoothing, float)
    assert_close(S @ S.T, rational_quadratic(range(200)) + 0.01 * np.eye(200), 1e-6)


@pytest.mark.parametrize("shape", [(3, 7), (7, 7), (7, 3)], ids=str)
def test_orthonormal_decoder_has_the_span_and_a_smooth_derivative(shape):
    M = jnp.asarray(np.random.default_rng(0).normal(size=shape), BEST)
    Q = orthonormal(M)
    short = Q @ Q.T if shape[0] <= shape[1] else Q.T @ Q
    assert_close(short, np.eye(min(shape)), 10 * TOLERANCE)
    assert_close(orthonormal(Q), np.asarray(Q), 10 * TOLERANCE)
    if X64:
        weights = jnp.cos(jnp.arange(M.size, dtype=BEST)).reshape(shape)
        direction = jnp.sin(jnp.arange(M.size, dtype=BEST)).reshape(shape)
        slope = (jax.grad(lambda M: (weights * orthonormal(M)).sum())(M) * direction).sum()
        ends = [(weights * orthonormal(M + h * direction)).sum() for h in (1e-5, -1e-5)]
        assert float((ends[0] - ends[1]) / 2e-5) == pytest.approx(float(slope), rel=1e-6)
    network = make(decoder="orthonormal")
    assert_close(network.readout, np.asarray(network.W_out), 10 * TOLERANCE)


@pytest.mark.parametrize("kind", KINDS)
def test_network_is_rebuilt_from_what_a_run_keeps(kind):
    network = make(phi="relu", decoder="orthonormal", output="softplus", **KINDS[kind])
    known = describe_network(network)
    arrays = {name: np.asarray(value) for name, value in vars(network).items() if eqx.is_array(value)}
    again = rebuild(known["name"], known["static"], arrays)
    assert jax.tree.structure(again) == jax.tree.structure(network)
    assert np.array_equal(again(CONDITIONS, 5).outputs, network(CONDITIONS, 5).outputs)


def test_jit_and_vmap_change_nothing():
    nets = [make(seed) for seed in range(2)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *nets)
    batched = jax.jit(jax.vmap(lambda net: net(CONDITIONS, 5).outputs))(stacked)
    for i, net in enumerate(nets):
        assert_close(batched[i], np.asarray(net(CONDITIONS, 5).outputs))
    traced = jax.jit(lambda where: nets[0](where, 5).outputs)(CONDITIONS)
    assert_close(traced, np.asarray(batched[0]))


def test_one_euler_step_per_bin_differs_at_first_order_from_the_equation():
    """Five components over 15 time constants, in bins of 0.1 of one and others, against an adaptive solver."""
    import diffrax

    start = LowTensorRankRNN.random(
        200, 1, rank=5, conditions=4, trial_ids=range(4), key=jax.random.key(0), dtype="float64"
    )
    network = eqx.tree_at(lambda net: net.c_offset, start, 2.0 * start.c_offset)  # activity that lasts
    a, c, b = network.columns, network.trial_factors, network.rows

    def flow(t, z, _):
        return -z + c * (jnp.tanh(z @ a.T) @ b)

    exact = diffrax.diffeqsolve(
        diffrax.ODETerm(flow), diffrax.Tsit5(), 0.0, 15.0, 0.01, network.z0,
        saveat=diffrax.SaveAt(ts=jnp.arange(1.0, 16.0)), stepsize_controller=diffrax.PIDController(1e-9, 1e-11),
    ).ys  # fmt: skip
    steps, errors = np.array([0.2, 0.1, 0.05, 0.025]), []
    for alpha in steps.tolist():
        z, _ = LowTensorRankRNN(**{**vars(network), "alpha": alpha}).simulate(np.arange(4), round(15 / alpha))
        found = z[round(1 / alpha) - 1 :: round(1 / alpha)]
        errors.append(float(jnp.sqrt(((found - exact) ** 2).sum() / (exact**2).sum())))
    slopes = np.diff(np.log(errors)) / np.diff(np.log(steps))
    # Measured: 3.1, 1.6, 0.81, 0.41 % of the norm of the latents.
    assert (np.diff(np.abs(slopes - 1)) < 0).all() and slopes[-1] == pytest.approx(1, abs=0.03)
    assert 0.01 < errors[1] < 0.02


# Strengths over trials ------------------------------------------------------------------------------------------


def test_covariance_is_a_mixture_of_gaussian_ones_over_true_trial_numbers():
    ids, length, scale, shape = np.array([0, 3, 10]), 4.0, 0.7, 1.7
    rng = np.random.default_rng(0)
    # exp(-τ d²/2) with τ ~ Gamma(shape β, rate β l²) has the mean (1 + d²/(2 β l²))^-β.
    precision = rng.gamma(shape, 1 / (shape * length**2), size=200_000)
    draws = scale**2 * np.exp(-precision[:, None, None] * (ids[:, None] - ids[None]) ** 2 / 2)
    error = draws.std(axis=0) / np.sqrt(len(draws))
    A = rational_quadratic(ids, length=length, scale=scale, shape=shape)
    assert (abs(A - draws.mean(axis=0)) <= 4 * error + 1e-9).all()
    as_printed = scale**2 * (1 + (ids[:, None] - ids[None]) ** 2 / (2 * length)) ** -1
    assert abs(as_printed - draws.mean(axis=0))[0, 2] > 20 * error[0, 2]
    assert_close(rational_quadratic(ids, [3], length=length, scale=scale, shape=shape)[:, 0], A[:, 1], 1e-15)
    assert abs(rational_quadratic(range(3), length=length) - rational_quadratic(ids, length=length)).max() > 1e-4


@pytest.mark.parametrize("form", ["cholesky", "sum"])
def test_strengths_have_the_covariance_of_their_form_and_missing_trials_its_mean(form):
    """Draws of fitted trials and of two that are missing: covariance, and the regression of these on those."""
    ids, missing, sigma = np.array([0, 1, 2, 6, 7]), np.array([3, 9]), 0.4
    kernel = {"length": 3.0, "scale": 0.8}
    A, A_new = rational_quadratic(ids, **kernel), rational_quadratic(missing, ids, **kernel)
    S = smoothing_matrix(A, sigma, form)
    L = np.linalg.cholesky(A)
    exact = A + sigma**2 * np.eye(5) + (sigma * (L + L.T) if form == "sum" else 0)
    draws = 100_000
    latent = np.random.default_rng(0).normal(size=(7, draws))
    everywhere = smoothing_matrix(rational_quadratic([*ids, *missing], **kernel), sigma, form) @ latent
    c, unseen = everywhere[:5], everywhere[5:]
    assert_close(S @ latent[:5], c, 1e-12)
    error = np.sqrt((np.outer(np.diag(exact), np.diag(exact)) + exact**2) / draws)
    assert (abs(c @ c.T / draws - exact) < 4.5 * error).all()
    other = A + sigma**2 * np.eye(5) + (0 if form == "sum" else sigma * (L + L.T))
    assert (abs(c @ c.T / draws - other) > 10 * error).any()
    # What is left after the prediction is uncorrelated with all that was fitted.
    predicted = predict_factors(latent[:5], np.full(draws, 2.0), S, A_new, sigma=sigma, form=form) - 2
    left = unseen - predicted
    spread = np.sqrt(np.outer(left.var(axis=1), c.var(axis=1)) / draws)
    assert (abs(left @ c.T / draws) < 4.5 * spread).all()
    assert (abs((unseen - 0.9 * predicted) @ c.T / draws) > 10 * spread).any()
    assert (abs((unseen + predicted) @ c.T / draws) > 10 * spread).any()


def test_without_noise_a_trial_that_was_fitted_is_predicted_as_fitted():
    ids, rng = np.arange(4), np.random.default_rng(0)
    A, latent, offset = rational_quadratic(ids, length=1.0, scale=1.0), rng.normal(size=(4, 2)), np.array([1.0, -1.0])
    for form in ("cholesky", "sum"):
        S = smoothing_matrix(A, 1e-5, form)
        assert_close(predict_factors(latent, offset, S, A, sigma=1e-5, form=form), S @ latent + offset, 1e-4)
        far = rational_quadratic([10**6], ids, length=1.0)
        assert_close(predict_factors(latent, offset, S, far, sigma=1e-5, form=form), offset[None], 1e-6)


def test_epochs_are_independent_of_each_other():
    epochs = ["before", "before", "after", "after"]
    A = block_by_epoch(rational_quadratic(range(4)), epochs)
    S = smoothing_matrix(A, 0.1)
    assert not A[:2, 2:].any() and not S[2:, :2].any() and A[0, 1] > 0 and S[3, 2] > 0
    new = block_by_epoch(rational_quadratic([4], range(4)), ["after"], epochs)
    latent = np.ones((4, 1))
    changed = np.where(np.arange(4)[:, None] < 2, 5.0, latent)
    assert predict_factors(latent, [0.0], S, new)[0] == predict_factors(changed, [0.0], S, new)[0]
    assert_close(solve_triangular(S, A, lower=True)[:2, :2], solve_triangular(S[:2, :2], A[:2, :2], lower=True))


def test_smooth_covariances_of_many_trials_have_a_root_in_both_forms():
    A = rational_quadratic(np.arange(400), length=50.0)
    for form in ("cholesky", "sum"):
        assert np.isfinite(smoothing_matrix(A, 0.1, form)).all()


def test_any_covariance_can_be_given():
    network = make(covariance=lambda ids: np.diag(1.0 + np.asarray(ids)), sigma=1.0)
    assert_close(network.smoothing, np.diag(np.sqrt(2.0 + np.array(IDS))), 1e-6)


# Inputs ---------------------------------------------------------------------------------------------------------


def test_inputs_of_an_equation_follow_it_step_by_step():
    rng = np.random.default_rng(0)
    v, layers, D = rng.normal(size=(2, 4)), rng.normal(size=(3, 4, 5)), rng.normal(size=(3, 4))
    found = ode_inputs(*(jnp.asarray(value, BEST) for value in (v, layers, D)), steps=3, alpha=0.2)
    for u in found:
        r = v
        for i in range(3):
            r = np.maximum((r @ layers[i, :, :4].T + layers[i, :, 4]) * (5 if i == 2 else 1), 0)
        v = v + 0.2 * (r - v) / 2
        assert_close(u, np.tanh(v @ (D / np.linalg.norm(D, axis=1, keepdims=True)).T), 10 * TOLERANCE)


def test_inputs_end_with_their_bins():
    network = make(inputs="free", input_steps=3)
    silent = eqx.tree_at(lambda net: net.u, network, 0 * network.u)
    late = eqx.tree_at(lambda net: net.u, network, network.u.at[2].add(1.0))
    z, quiet, delayed = (net.simulate(CONDITIONS, 8)[0] for net in (network, silent, late))
    assert np.abs(z[0] - quiet[0]).max() > 1e-3 and np.array_equal(z[:2], delayed[:2])
    assert np.abs(z[2] - delayed[2]).max() > 0.1
    # After the last bin of the inputs their coordinates decay by 1 - alpha in every step.
    assert_close(z[3:, :, 2:], np.asarray(z[2, :, 2:]) * 0.7 ** np.arange(1, 6)[:, None, None])
    assert network.simulate(CONDITIONS, 2)[0].shape == (2, 4, 4)


def test_number_of_bins_with_inputs_ends_100_ms_after_the_cue():
    assert steps_until(np.arange(-50, 100) * 0.01) == 61
    assert steps_until(np.arange(5) + 1.0) == 0


# Bad input ------------------------------------------------------------------------------------------------------

_NET = make()
BAD = {
    "no units": (lambda: LowTensorRankRNN.random(1, 2, rank=2, conditions=1, trial_ids=[0], key=None), "units is 1"),
    "rank 0": (lambda: make(rank=0), "rank is 0; it must be a whole number of at least 1"),
    "alpha above 1": (lambda: make(alpha=2.0), r"alpha is 2.0; it must be a number in \(0, 1\], bin / time constant"),
    "unknown decoder": (
        lambda: make(decoder="affine"),
        "decoder is 'affine'; it must be one of 'linear', 'orthonormal'",
    ),
    "unknown output": (lambda: make(output="exp"), "output is 'exp'; it must be one of 'identity'"),
    "unknown inputs": (lambda: make(inputs="step"), "inputs is 'step'; it must be 'none', 'free' or 'ode'"),
    "inputs without bins": (lambda: make(inputs="free"), "input_steps is 0; it must be a whole number of at least 1"),
    "function as phi": (lambda: make(phi=jnp.tanh), "it must be a name, so that a saved run can be rebuilt"),
    "rows of other units": (
        lambda: LowTensorRankRNN(**{**vars(_NET), "b": _NET.b[:5]}),
        r"b has shape \(5, 2\) and a \(12, 2\); they must be \(n, R\) and \(n, R\)",
    ),
    "columns of inputs alone": (
        lambda: LowTensorRankRNN(**{**vars(_NET), "W_in": _NET.a}),
        "of the inputs there are W_in; there must be none, or W_in and u",
    ),
    "too few conditions": (lambda: _NET([0, 1], 3), r"shape \(2,\); they must be whole numbers, one for each of the 4"),
    "unknown condition": (lambda: _NET([0, 1, 2, 0], 3), r"conditions go from 0 to 2; they must be in 0 \.\.\. 1"),
    "names as conditions": (lambda: _NET(np.zeros(4), 3), "conditions are float"),
    "sigma 0": (lambda: smoothing_matrix(np.eye(2), 0.0), "sigma is 0.0; it must be a number > 0"),
    "unknown form": (lambda: smoothing_matrix(np.eye(2), 0.1, "product"), "form is 'product'"),
    "no covariance": (
        lambda: smoothing_matrix(-np.eye(2), 0.1),
        "A has the eigenvalue -1; a covariance has none below",
    ),
    "A not square": (lambda: smoothing_matrix(np.ones((2, 3))), r"A has shape \(2, 3\); it must be a symmetric"),
    "length 0": (lambda: rational_quadratic([0], length=0.0), "length is 0.0; it must be a number > 0"),
    "trial NaN": (lambda: rational_quadratic([np.nan]), "trial_ids must be a row of finite numbers"),
    "epochs of other trials": (lambda: block_by_epoch(np.eye(2), ["a"]), r"A has shape \(2, 2\) and there are epochs"),
    "factors of other trials": (
        lambda: predict_factors(np.ones((3, 1)), [0.0], np.eye(2), np.ones((1, 2))),
        r"c_latent is \(3, 1\), c_offset \(1,\), smoothing \(2, 2\), A_new \(1, 2\); they must be",
    ),
}


@pytest.mark.parametrize("bad", BAD)
def test_bad_input_is_answered_by_a_sentence(bad):
    attempt, sentence = BAD[bad]
    with pytest.raises(ValueError, match=sentence):
        attempt()
