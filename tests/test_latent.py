"""The recurrence in the coordinates of its columns, against the whole network, autodiff and exact answers."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from jaxprs import equations
from tauflow import latent
from tauflow.latent import simulate_latent, sum_latent
from tauflow.simulate import LowRank, simulate

X64 = jax.config.jax_enable_x64
BEST = "float64" if X64 else "float32"
TOLERANCE = 1e-12 if X64 else 2e-5
both_modes = pytest.mark.x64off


def leaky_tanh(x):
    return jnp.tanh(x) + 0.1 * x


PHIS = {
    "tanh": jnp.tanh,
    "softplus": lambda x: jnp.logaddexp(x, jnp.zeros_like(x)),
    leaky_tanh: leaky_tanh,
}


def draw(time=6, trials=(4,), n=7, rank=3, inputs=2, per_trial=True, seed=0):
    """Columns, strengths, rows, initial coordinates and a drive."""
    rng = np.random.default_rng(seed)

    def normal(*shape):
        return jnp.asarray(rng.normal(size=shape), BEST)

    c = normal(*trials, rank) if per_trial else normal(rank)
    width = rank + inputs
    return normal(n, width) / n**0.5, c, normal(n, rank), normal(*trials, width), normal(time, *trials, width)


def plain(a, c, b, z0, drive, phi, alpha):
    """The recurrence as its equation says."""
    f, rank = PHIS[phi], b.shape[1]

    def step(z, d):
        push = c.reshape((1,) * (z.ndim - c.ndim) + c.shape) * (f(z @ a.T) @ b)
        recurrent = jnp.concatenate([push, jnp.zeros_like(z[..., rank:])], axis=-1)
        z = z - alpha * z + alpha * (recurrent + d)
        return z, (z, f(z @ a.T))

    return lax.scan(step, z0, drive)[1]


def loss(results):
    """A loss that feels every entry of latents and rates, each in its own way."""
    weights = [jnp.cos(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape) for y in results]
    return sum((w * y + 0.5 * y**2).sum() for w, y in zip(weights, results, strict=True))


def assert_close(got, want, tolerance=TOLERANCE):
    """Every leaf agrees to `tolerance` of the largest entry of what is wanted."""
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for g, w in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert g.shape == w.shape and g.dtype == w.dtype
        if g.size:
            assert np.abs(np.asarray(g) - np.asarray(w)).max() <= tolerance * max(np.abs(w).max(), 1e-3)


PLAINLY = {"xla_backend_optimization_level": 0}  # for the reference: what is compared with need not be fast


def value_and_gradients(run, options=None):
    def value(*case):
        results = run(*case)
        return loss(results), results

    return jax.jit(jax.grad(value, argnums=(0, 1, 2, 3, 4), has_aux=True), compiler_options=options)


@both_modes
@pytest.mark.parametrize(
    "phi, per_trial",
    [*((phi, True) for phi in PHIS), ("tanh", False)],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_latents_rates_and_gradients_agree_with_autodiff(phi, per_trial):
    case = draw(per_trial=per_trial)
    ours = value_and_gradients(lambda *case: simulate_latent(*case, phi=phi, alpha=0.3))
    theirs = value_and_gradients(lambda *case: plain(*case, phi, 0.3), PLAINLY)
    assert_close(ours(*case), theirs(*case))


def test_states_are_those_of_the_whole_network_and_so_are_gradients(phi="softplus"):
    a, c, b, z0, drive = draw()

    def whole(a, c, b, z0, drive):
        states = simulate(LowRank(a[:, :3], c, b), drive @ a.T, z0 @ a.T, phi=phi, alpha=0.3)
        return states, PHIS[phi](states)

    def latent(a, c, b, z0, drive):
        z, rates = simulate_latent(a, c, b, z0, drive, phi=phi, alpha=0.3)
        return z @ a.T, rates

    want = value_and_gradients(whole, PLAINLY)(a, c, b, z0, drive)
    assert_close(value_and_gradients(latent)(a, c, b, z0, drive), want)
    # A network without its recurrence, and one whose trials have changed places, are another network.
    for other in (latent(a, 0 * c, b, z0, drive), latent(a, c[::-1], b, z0, drive)):
        assert np.abs(other[0] - want[1][0]).max() > 1e-2


@settings(max_examples=5, deadline=None, derandomize=True)
@given(
    time=st.integers(0, 3),
    trials=st.sampled_from([(), (1,), (3,), (2, 3)]),
    n=st.integers(1, 4),
    rank=st.integers(1, 3),
    inputs=st.integers(0, 1),
)
def test_every_shape_agrees_with_autodiff(time, trials, n, rank, inputs):
    case = draw(time, trials, n, rank, inputs)
    ours = value_and_gradients(lambda *case: simulate_latent(*case, phi="tanh", alpha=0.4))
    assert_close(ours(*case), value_and_gradients(lambda *case: plain(*case, "tanh", 0.4), PLAINLY)(*case))


def test_no_drive_is_a_drive_of_zeros():
    a, c, b, z0, drive = draw(inputs=0)

    def gradients(run):
        return jax.jit(jax.grad(lambda *case: loss(run(*case)), argnums=(0, 1, 2, 3)))(a, c, b, z0)

    ours = gradients(lambda *case: simulate_latent(*case, steps=6, phi="tanh", alpha=0.5))
    assert_close(ours, gradients(lambda *case: plain(*case, 0 * drive, "tanh", 0.5)))


@pytest.mark.parametrize("which", [0, 1])
def test_a_loss_of_latents_or_of_rates_alone_has_its_gradient(which):
    case = draw()

    def gradients(run, options=None):
        value = jax.grad(lambda *case: (run(*case)[which] ** 2).sum(), argnums=range(5))
        return jax.jit(value, compiler_options=options)(*case)

    ours = gradients(lambda *case: simulate_latent(*case, phi="tanh", alpha=0.3))
    assert_close(ours, gradients(lambda *case: plain(*case, "tanh", 0.3), PLAINLY))


def measure(parameters, z, r, data):
    """Squared error of a decoder where there are data, with two sums that have no derivative."""
    M, bias = parameters
    y, there = data
    error = jnp.where(there, r @ M.T + bias.reshape((1,) * (r.ndim - 1) + bias.shape) - y, 0)
    return (error**2).sum() + (z**3).sum(), (jnp.abs(error).sum(), there.sum())


@pytest.mark.parametrize("trials", [(4,), (2, 3)], ids=str)
def test_a_sum_over_time_and_its_gradients_are_those_of_all_rates_at_once(trials):
    case = draw(trials=trials)
    rng = np.random.default_rng(1)
    parameters = jnp.asarray(rng.normal(size=(2, 7)), BEST), jnp.asarray(rng.normal(size=2), BEST)
    data = jnp.asarray(rng.normal(size=(6, *trials, 2)), BEST), jnp.asarray(rng.random((6, *trials, 2)) < 0.7)

    def at_once(parameters, *case):
        return measure(parameters, *plain(*case, "tanh", 0.3), data)

    def over_time(parameters, *case):
        return sum_latent(measure, parameters, data, *case, phi="tanh", alpha=0.3)

    def gradients(run):
        return jax.jit(jax.value_and_grad(lambda *made: jax.tree.map(lambda v: 3 * v, run(*made)), range(6), True))

    want = gradients(at_once)(parameters, *case)
    assert_close(gradients(over_time)(parameters, *case), want)
    assert_close(jax.jit(lambda *made: jax.tree.map(lambda v: 3 * v, over_time(*made)))(parameters, *case), want[0])


def test_second_derivatives_agree_with_autodiff():
    case = draw(time=3, trials=(2,), n=3, rank=2, inputs=1)

    def second(run):
        def squared_gradient(c):
            gradient = jax.grad(lambda c: loss(run(case[0], c, *case[2:])))(c)
            return (gradient**2).sum()

        return jax.jit(jax.grad(squared_gradient))(case[1])

    want = second(lambda *case: plain(*case, "tanh", 0.4))
    assert_close(second(lambda *case: simulate_latent(*case, phi="tanh", alpha=0.4)), want, 10 * TOLERANCE)


def test_vmap_gives_each_member_its_own_result():
    cases = [draw(seed=seed) for seed in range(2)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *cases)
    ours = jax.jit(jax.vmap(value_and_gradients(lambda *case: simulate_latent(*case, phi="tanh", alpha=0.3))))
    theirs = value_and_gradients(lambda *case: plain(*case, "tanh", 0.3), PLAINLY)
    for i, case in enumerate(cases):
        assert_close(jax.tree.map(lambda leaf, i=i: leaf[i], ours(*stacked)), theirs(*case))


def test_linear_network_is_powers_of_a_matrix():
    a, c, b, z0, _ = draw(inputs=0, trials=())
    step = 0.7 * np.eye(3) + 0.3 * np.diag(c) @ np.asarray(b).T @ np.asarray(a)
    exact = np.stack([np.linalg.matrix_power(step, t + 1) @ np.asarray(z0) for t in range(5)])
    z, rates = simulate_latent(a, c, b, z0, steps=5, phi="identity", alpha=0.3)
    assert_close((z, rates), (jnp.asarray(exact, BEST), jnp.asarray(exact @ np.asarray(a).T, BEST)))


def test_nothing_of_units_by_units_is_made_and_a_sum_keeps_few_rates(monkeypatch):
    monkeypatch.setattr(latent, "BLOCK", 5 * 13)  # the rates of one step
    case = draw(time=11, trials=(5,), n=13)
    parameters, data = (
        (jnp.ones((2, 13), BEST), jnp.zeros(2, BEST)),
        (jnp.ones((11, 5, 2), BEST), jnp.ones((11, 1, 1), bool)),
    )

    def shapes(run):
        traced = jax.make_jaxpr(jax.grad(lambda a, c, b: run(a, c, b, *case[3:]), argnums=(0, 1, 2)))(*case[:3])
        return {v.aval.shape for equation, _ in equations(traced.jaxpr) for v in equation.outvars}

    over_time = shapes(lambda *case: sum_latent(measure, parameters, data, *case, phi="tanh", alpha=0.3)[0])
    at_once = shapes(lambda *case: measure(parameters, *simulate_latent(*case, phi="tanh", alpha=0.3), data)[0])
    assert all(shape.count(13) < 2 for shape in over_time | at_once)
    sizes = {math.prod(shape) for shape in over_time}
    assert (11, 5, 13) in at_once and 11 * 5 * 13 not in sizes and max(sizes) == 11 * 5 * 5  # the latents


def test_how_many_steps_are_a_block_makes_no_difference(monkeypatch):
    case = draw(time=12, trials=(5,), n=13)
    parameters, data = (jnp.ones((2, 13), BEST), jnp.zeros(2, BEST)), (
        jnp.asarray(np.random.default_rng(0).normal(size=(12, 5, 2)), BEST),
        jnp.asarray(np.arange(12).reshape(12, 1, 1) % 3 > 0),
    )  # fmt: skip
    found = {}
    for steps in (1, 4, 12):
        monkeypatch.setattr(latent, "BLOCK", steps * 5 * 13)

        def total(parameters, *case):
            return sum_latent(measure, parameters, data, *case, phi="tanh", alpha=0.3)

        found[steps] = jax.jit(jax.value_and_grad(total, argnums=range(6), has_aux=True))(parameters, *case)
        found[-steps] = jax.jit(lambda *case: total(*case))(parameters, *case)  # without derivatives
        assert_close(found[-steps], found[steps][0])
    assert_close(found[1], found[12])
    assert_close(found[4], found[12])


_A, _C, _B, _Z, _D = draw()
_GOOD = {"a": _A, "c": _C, "b": _B, "z0": _Z, "drive": _D, "phi": "tanh", "alpha": 0.3}
BAD = {
    "another dtype": (dict(b=_B.astype("float16")), r"b float16, z0 .*; all must be of one float type"),
    "integers": (dict(a=np.ones((7, 5), np.int32)), "a is int32"),
    "rows of another network": (dict(b=_B[:6]), r"a is \(7, 5\), c \(4, 3\), b \(6, 3\), z0 \(4, 5\); they must be"),
    "strengths of other trials": (
        dict(c=_C[:3]),
        r"c \(3, 3\), .*they must be \(n, R \+ m\), \(R\) or \(\*trials, R\)",
    ),
    "start of another rank": (dict(z0=_Z[:, :3]), r"z0 \(4, 3\); they must be"),
    "drive of other trials": (dict(drive=_D[:, :3]), r"drive has shape \(6, 3, 5\); it must be \(time, \*trials, R"),
    "neither steps nor drive": (dict(drive=None), "steps is None; without a drive it must be a whole number >= 0"),
    "half a step": (dict(drive=None, steps=1.5), "steps is 1.5"),
    "two numbers of steps": (dict(steps=5), "steps is 5 and the drive has 6; leave steps out"),
    "unknown phi": (dict(phi="than"), "phi is 'than'; it must be one of 'tanh', 'relu'"),
    "phi that changes shape": (dict(phi=lambda x: x[..., :2]), "it must act on each element alone"),
    "alpha above 1": (dict(alpha=1.5), r"alpha is 1.5; it must lie in \(0, 1\]"),
}


@pytest.mark.parametrize("bad", BAD)
def test_bad_input_is_answered_by_a_sentence(bad):
    changed, sentence = BAD[bad]
    with pytest.raises(ValueError, match=sentence):
        simulate_latent(**(_GOOD | changed))


def test_what_has_no_gradient_says_so():
    parameters, data = (jnp.ones((2, 7)), jnp.zeros(2)), (jnp.ones((6, 4, 2)), jnp.ones((6, 4, 2), bool))
    with pytest.raises(TypeError, match="the gradient for alpha was asked for"):
        jax.grad(lambda alpha: loss(simulate_latent(**(_GOOD | {"alpha": alpha}))))(0.3)
    with pytest.raises(TypeError, match="the gradient for data was asked for"):
        jax.grad(lambda y: sum_latent(measure, parameters, (y, data[1]), **_GOOD)[0])(data[0])
    with pytest.raises(ValueError, match=r"data have the lengths \[5, 6\] in time"):
        sum_latent(measure, parameters, (data[0], data[1][:5]), **_GOOD)
