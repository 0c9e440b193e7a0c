"""The recurrence and its hand-derived adjoint, against autodiff through a loop written here and exact answers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from jaxprs import equations
from tauflow.simulate import LowRank, simulate, simulate_adjoint

X64 = jax.config.jax_enable_x64
DTYPES = ["float32", "float64"] if X64 else ["float32"]
BEST = DTYPES[-1]
TOLERANCE = {"float32": 1e-5, "float64": 1e-11}
both_modes = pytest.mark.x64off


def leaky_tanh(x):
    return jnp.tanh(x) + 0.1 * x


PHIS = {
    "tanh": jnp.tanh,
    "relu": lambda x: jnp.where(x > 0, x, 0),
    "identity": lambda x: x,
    "softplus": lambda x: jnp.logaddexp(x, jnp.zeros_like(x)),
    "sigmoid": lambda x: 1 / (1 + jnp.exp(-x)),
    leaky_tanh: leaky_tanh,
}
WEIGHTS = ["dense", "low rank", "low rank, one c per trial"]


def reference(W, drive, x0, phi, alpha):
    """The recurrence as its equation says, one step after the other; low-rank weights are made dense."""
    f = PHIS[phi]
    if isinstance(W, LowRank):
        W = jnp.einsum("ir,...r,jr->...ij", *W)  # (n, n) or (*trials, n, n)
    x0 = jnp.broadcast_to(x0, drive.shape[1:])

    def step(x, d):
        recurrent = jnp.einsum("...ij,...j->...i", W, f(x))  # (*trials, n)
        x = x - alpha * x + alpha * (recurrent + d)  # (*trials, n)
        return x, x

    return lax.scan(step, x0, drive)[1]


def draw(kind, time=7, trials=(3,), n=5, rank=2, dtype=BEST, seed=0):
    """Weights of a kind, a drive and an initial state, of order one."""
    rng = np.random.default_rng(seed)

    def normal(*shape, scale=1.0):
        return jnp.asarray(scale * rng.normal(size=shape), dtype=dtype)

    W = normal(n, n, scale=n**-0.5)
    if kind != "dense":
        c = normal(*trials, rank) if "per trial" in kind else normal(rank)
        W = LowRank(normal(n, rank, scale=n**-0.5), c, normal(n, rank))
    return W, normal(time, *trials, n), normal(*trials, n)


def loss(states):
    """A loss that feels every state, each in its own way."""
    weights = jnp.cos(jnp.arange(states.size, dtype=states.dtype)).reshape(states.shape)
    return (weights * states + 0.5 * states**2).sum()


def assert_close(got, want, tolerance):
    """Every leaf agrees to `tolerance` of the largest entry of what is wanted."""
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for g, w in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert g.shape == w.shape and g.dtype == w.dtype
        if g.size:
            g, w = np.asarray(g), np.asarray(w)
            assert np.abs(g - w).max() <= tolerance * max(np.abs(w).max(), 1e-3)


PLAINLY = {"xla_backend_optimization_level": 0}  # for the reference: what is compared with need not be fast


def both(phi, alpha_is_traced=True):
    """States and gradients for W, drive and x0, by the kernel and by the reference, compiled."""

    def value_and_gradients(run, options=None):
        def of(W, drive, x0, alpha):
            def value(*arguments):
                states = run(*arguments, alpha)
                return loss(states), states

            return jax.grad(value, argnums=(0, 1, 2), has_aux=True)(W, drive, x0)

        return jax.jit(of, static_argnums=() if alpha_is_traced else 3, compiler_options=options)

    ours = value_and_gradients(lambda W, d, x0, alpha: simulate(W, d, x0, phi=phi, alpha=alpha))
    theirs = value_and_gradients(lambda W, d, x0, alpha: reference(W, d, x0, phi, alpha), PLAINLY)
    return ours, theirs


# Every phi with every kind of weights in the best precision of the process (float32 where the 64-bit mode is off).
CASES = [(phi, kind, BEST) for phi in PHIS for kind in WEIGHTS]
CASES += [(phi, "dense", dtype) for phi in PHIS for dtype in DTYPES[:-1]]
CASES += [("tanh", kind, dtype) for kind in WEIGHTS[1:] for dtype in DTYPES[:-1]]


@both_modes
@pytest.mark.parametrize("phi, kind, dtype", CASES, ids=lambda phi: getattr(phi, "__name__", phi))
def test_states_and_gradients_agree_with_autodiff(phi, kind, dtype):
    ours, theirs = both(phi)
    W, drive, x0 = draw(kind, dtype=dtype)
    alpha = jnp.asarray(0.3, dtype)
    assert_close(ours(W, drive, x0, alpha), theirs(W, drive, x0, alpha), TOLERANCE[dtype])


@pytest.mark.parametrize("alpha", [0.3, 1.0])
def test_constant_alpha_agrees_with_autodiff(alpha):
    ours, theirs = both("tanh", alpha_is_traced=False)
    case = draw("dense")
    assert_close(ours(*case, alpha), theirs(*case, alpha), TOLERANCE[BEST])


@settings(max_examples=8, deadline=None, derandomize=True)
@given(
    time=st.integers(0, 3),
    trials=st.sampled_from([(), (1,), (3,), (2, 3)]),
    n=st.integers(1, 4),
    kind=st.sampled_from(WEIGHTS),
    start=st.sampled_from(["full", "one state for all trials", "one number"]),
)
def test_every_shape_agrees_with_autodiff(time, trials, n, kind, start):
    W, drive, x0 = draw(kind, time, trials, n)
    x0 = {"full": x0, "one state for all trials": x0[(0,) * len(trials)], "one number": x0.ravel()[0]}[start]
    ours, theirs = both("tanh")
    alpha = jnp.asarray(0.4, BEST)
    assert_close(ours(W, drive, x0, alpha), theirs(W, drive, x0, alpha), TOLERANCE[BEST])


@both_modes
def test_default_initial_state_is_zero_and_no_step_gives_no_state():
    W, drive, x0 = draw("dense")
    default = simulate(W, drive, phi="tanh", alpha=0.5)
    assert_close(default, simulate(W, drive, jnp.zeros_like(x0), phi="tanh", alpha=0.5), 0)
    assert simulate(W, drive[:0], phi="tanh", alpha=0.5).shape == (0, 3, 5)


@pytest.mark.parametrize("kind", WEIGHTS)
def test_vmap_over_seeds_gives_each_seed_its_own_result(kind):
    cases = [draw(kind, seed=seed) for seed in range(3)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *cases)
    alphas = jnp.asarray([0.2, 0.5, 1.0], BEST)
    ours, theirs = both("tanh")
    batched = jax.jit(jax.vmap(ours))(*stacked, alphas)
    for i, case in enumerate(cases):
        assert_close(jax.tree.map(lambda leaf, i=i: leaf[i], batched), theirs(*case, alphas[i]), TOLERANCE[BEST])


@both_modes
@pytest.mark.parametrize(
    "phi, kind",
    [("tanh", WEIGHTS[0]), ("softplus", WEIGHTS[1]), (leaky_tanh, WEIGHTS[2])],
    ids=lambda phi: getattr(phi, "__name__", phi),
)
def test_second_derivatives_agree_with_autodiff(phi, kind):
    case = draw(kind, time=4, trials=(2,), n=3)

    def second(run, options=None):
        def squared_gradient(*arguments):
            gradient = jax.grad(lambda *a: loss(run(*a)), argnums=(0, 1, 2))(*arguments)
            return sum((leaf**2).sum() for leaf in jax.tree.leaves(gradient))

        return jax.jit(jax.grad(squared_gradient, argnums=(0, 1, 2)), compiler_options=options)(*case)

    got = second(lambda W, d, x0: simulate(W, d, x0, phi=phi, alpha=0.4))
    assert_close(got, second(lambda W, d, x0: reference(W, d, x0, phi, 0.4), PLAINLY), 10 * TOLERANCE[BEST])


@both_modes
def test_adjoint_states_give_the_gradient_for_the_weights():
    W, drive, x0 = draw("dense", trials=(2, 3))
    states, rates = simulate(W, drive, x0, phi="sigmoid", alpha=0.3), PHIS["sigmoid"]
    lam = simulate_adjoint(W, states, jax.grad(loss)(states), x0, phi="sigmoid", alpha=0.3)
    for_W, for_drive = jax.grad(lambda *a: loss(reference(*a, x0, "sigmoid", 0.3)), argnums=(0, 1))(W, drive)
    before = rates(np.concatenate([x0[None], states])[:-1])
    assert lam.shape == states.shape
    assert_close(0.3 * lam, for_drive, TOLERANCE[BEST])
    assert_close(0.3 * jnp.einsum("tabi,tabj->ij", lam, jnp.asarray(before)), for_W, TOLERANCE[BEST])


def test_linear_network_is_powers_of_a_matrix():
    rng = np.random.default_rng(3)
    T, n, alpha = 6, 4, 0.3
    W, x0, w = rng.normal(size=(n, n)) / 2, rng.normal(size=n), rng.normal(size=n)
    A = (1 - alpha) * np.eye(n) + alpha * W
    powers = [np.linalg.matrix_power(A, k) for k in range(T + 1)]
    exact = np.stack([powers[t + 1] @ x0 for t in range(T)])
    # z = wᵀ Aᵀ x0 with dA = α dW: each of the T factors in turn, the ones before it and the ones after it.
    exact_gradient = alpha * sum(np.outer(powers[T - 1 - t].T @ w, powers[t] @ x0) for t in range(T))

    def readout(weights):
        start = jnp.asarray(x0, BEST)
        states = simulate(weights, jnp.zeros((T, n), BEST), start, phi="identity", alpha=alpha)
        return states[-1] @ jnp.asarray(w, BEST), states

    gradient, states = jax.grad(readout, has_aux=True)(jnp.asarray(W, BEST))
    assert_close(states, jnp.asarray(exact, BEST), TOLERANCE[BEST])
    assert_close(gradient, jnp.asarray(exact_gradient, BEST), TOLERANCE[BEST])


@pytest.mark.parametrize("kind", WEIGHTS)
def test_gradient_is_the_limit_of_finite_differences(kind):
    case, direction = draw(kind), draw(kind, seed=1)
    value = jax.jit(lambda case: loss(simulate(*case, phi="softplus", alpha=0.4)))
    slope = sum((g * d).sum() for g, d in zip(*map(jax.tree.leaves, (jax.grad(value)(case), direction)), strict=True))

    def difference(h):
        ahead, behind = (jax.tree.map(lambda x, d, s=s: x + s * h * d, case, direction) for s in (1, -1))
        return (value(ahead) - value(behind)) / (2 * h)

    errors = [abs(float(difference(h) - slope)) for h in (1e-2, 1e-3)]
    assert np.log10(errors[0] / errors[1]) == pytest.approx(2, abs=0.05)


@pytest.mark.parametrize("kind", WEIGHTS)
def test_autodiff_route_has_forward_mode_and_a_derivative_for_alpha(kind):
    case, direction = draw(kind), draw(kind, seed=1)

    def run(adjoint):
        return lambda W, d, x0, alpha: loss(simulate(W, d, x0, phi="tanh", alpha=alpha, adjoint=adjoint))

    alpha = jnp.asarray(0.4, BEST)
    primals, tangents = (*case, alpha), (*direction, jnp.ones_like(alpha))
    _, forward = jax.jit(lambda p, t: jax.jvp(run("autodiff"), p, t))(primals, tangents)
    gradient = jax.grad(run("fused"), argnums=(0, 1, 2))(*primals)
    for_alpha = jax.grad(lambda a: loss(reference(*case, "tanh", a)))(alpha)
    backward = for_alpha + sum((g * d).sum() for g, d in zip(*map(jax.tree.leaves, (gradient, direction)), strict=True))
    assert_close(forward, backward, TOLERANCE[BEST])


def test_gradient_for_alpha_raises_with_the_fused_adjoint():
    case = draw("dense")
    with pytest.raises(TypeError, match="use adjoint='autodiff'"):
        jax.grad(lambda alpha: loss(simulate(*case, phi="tanh", alpha=alpha)))(0.5)


def gradient_equations(kind, run):
    W, drive, x0 = draw(kind, time=7, trials=(3,), n=13, rank=2)
    traced = jax.make_jaxpr(jax.grad(lambda W: loss(run(W, drive, x0))))(W)
    return list(equations(traced.jaxpr))


def shapes(found):
    return {v.aval.shape for equation, _ in found for v in equation.outvars}


def fused(W, drive, x0):
    return simulate(W, drive, x0, phi="tanh", alpha=0.5)


def test_gradient_for_dense_weights_is_one_product_outside_the_loop():
    def products(run):
        found = gradient_equations("dense", run)
        square = [e for e in found if e[0].outvars[0].aval.shape == (13, 13)]
        return [depth for equation, depth in square if equation.primitive.name == "dot_general"]

    plain = [*products(lambda *case: simulate(*case, phi="tanh", alpha=0.5, adjoint="autodiff"))]
    assert products(fused) == [0]
    assert plain and plain != [0]
    assert max(np.prod(shape) for shape in shapes(gradient_equations("dense", fused))) <= 8 * 3 * 13


@pytest.mark.parametrize("kind", WEIGHTS[1:])
def test_low_rank_weights_are_never_made_square(kind):
    def square(run):
        return [s for s in shapes(gradient_equations(kind, run)) if s.count(13) > 1]

    assert square(fused) == []
    assert square(lambda *case: reference(*case, "tanh", 0.5))


_W, _D, _X = draw("dense")
_L = draw("low rank")[0]
BAD = {
    "shape of W": (dict(W=_W[:4]), r"W has shape \(4, 5\) and drive has 5 units; W must be \(5, 5\), W\[post, pre\]"),
    "drive without time": (dict(drive=_D[0, 0]), r"drive has shape \(5,\); it must be \(time, \*trials, n\)"),
    "integer drive": (dict(drive=np.ones((2, 3, 5), np.int32)), "drive is int32; it must be float32 or float64"),
    "two dtypes": (dict(W=_W.astype("float16")), f"W is float16 and drive is {BEST}; give both the same dtype"),
    "shape of x0": (dict(x0=_X[:, :4]), r"x0 has shape \(3, 4\); it must broadcast to \(\*trials, n\) = \(3, 5\)"),
    "factor of the wrong shape": (dict(W=_L._replace(b=_L.b[:, :1])), r"LowRank has a \(5, 2\), c \(2,\), b \(5, 1\)"),
    "c for other trials": (
        dict(W=_L._replace(c=jnp.ones((4, 2), BEST))),
        r"with 5 units and trials \(3,\) it needs a \(n, R\), c \(R\) or \(\*trials, R\), b \(n, R\)",
    ),
    "factor of another dtype": (dict(W=_L._replace(c=_L.c.astype("float16"))), f"all must be {BEST}, as the drive"),
    "unknown phi": (dict(phi="than"), "phi is 'than'; it must be one of 'tanh', 'relu'"),
    "phi of another type": (dict(phi=[1]), r"phi is \[1\]; it must be one of 'tanh', 'relu'"),
    "alpha 0": (dict(alpha=0), r"alpha is 0.0; it must lie in \(0, 1\]"),
    "alpha NaN": (dict(alpha=float("nan")), r"alpha is nan; it must lie in \(0, 1\]"),
    "alpha above 1": (dict(alpha=1.5), r"alpha is 1.5; it must lie in \(0, 1\]"),
    "alpha no number": (dict(alpha="half"), r"alpha is 'half'; it must be a number in \(0, 1\]"),
    "alpha true": (dict(alpha=True), r"alpha is True; it must be a number in \(0, 1\]"),
    "alpha true of NumPy": (dict(alpha=np.True_), r"alpha is .*True.*; it must be a number in \(0, 1\]"),
    "alpha as text": (dict(alpha="0.5"), r"alpha is '0.5'; it must be a number in \(0, 1\]"),
    "phi that changes shape": (
        dict(phi=lambda x: x[..., :2]),
        rf"phi makes {BEST} of shape \(3, 2\) of {BEST} of shape \(3, 5\); it must act on each element alone",
    ),
    "phi that changes dtype": (dict(phi=lambda x: x.astype("float16")), r"phi makes float16 of shape \(3, 5\)"),
    "phi that gives a pair": (dict(phi=lambda x: (x, x)), "phi makes tuple of"),
    "unknown adjoint": (dict(adjoint="forward"), "adjoint is 'forward'; it must be 'fused' or 'autodiff'"),
}


@both_modes
@pytest.mark.parametrize("bad", BAD)
def test_bad_input_is_answered_by_a_sentence(bad):
    changed, sentence = BAD[bad]
    arguments = {"W": _W, "drive": _D, "x0": _X, "phi": "tanh", "alpha": 0.5} | changed
    with pytest.raises(ValueError, match=sentence):
        simulate(arguments.pop("W"), arguments.pop("drive"), arguments.pop("x0"), **arguments)


def test_bad_input_to_the_adjoint_names_the_states():
    states = simulate(_W, _D, _X, phi="tanh", alpha=0.5)
    with pytest.raises(ValueError, match=r"cotangent has shape \(6, 3, 5\); it must have that of states"):
        simulate_adjoint(_W, states, states[1:], phi="tanh", alpha=0.5)
    with pytest.raises(ValueError, match=r"W has shape .* and states has 5 units"):
        simulate_adjoint(_W[:4], states, states, phi="tanh", alpha=0.5)


def test_traced_alpha_must_be_one_number():
    with pytest.raises(ValueError, match=r"alpha has shape \(2,\); it must be one number in \(0, 1\]"):
        jax.jit(lambda alpha: simulate(_W, _D, _X, phi="tanh", alpha=alpha))(jnp.ones(2))


@pytest.mark.parametrize("kind", WEIGHTS[1:])
def test_low_rank_weights_have_the_dense_form_of_their_docstring(kind):
    W = draw(kind)[0]
    each = np.asarray(W.c).reshape(-1, 2)
    dense = np.stack([np.asarray(W.a) @ np.diag(c) @ np.asarray(W.b).T for c in each])
    assert_close(W.dense(), jnp.asarray(dense.reshape(W.dense().shape)), TOLERANCE[BEST])
