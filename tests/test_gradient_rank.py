"""Adjoint states, gradients as products, and the bounds on their singular values and ranks."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.integrate import solve_ivp

from tauflow.simulate import simulate
from tauflow.theory.gradient_rank import (
    adjoint_states,
    decoder_gradient,
    discrete_gradient,
    gradient_expansion,
    invariant_subspace,
    momentum_weights,
    operator_singular_values,
    rank_bound,
    share_outside,
    singular_value_bounds,
    sum_bounds,
)

RUN = jax.jit(partial(simulate, adjoint="autodiff"), static_argnames=("phi", "alpha"))
PHIS = ("tanh", "softplus", "relu", "identity", lambda x: jnp.maximum(jnp.tanh(x), 0))
LOSSES = ("terminal", "integrated")


class Net:
    """A rate network with inputs u (time, m) and targets, run in Euler steps."""

    def __init__(self, n=12, m=2, d=2, *, rank=None, phi="tanh", dt=0.05, steps=40, gain=1.5, start=0.0, seed=0):
        rng = np.random.default_rng(seed)
        factors = rng.standard_normal((2, n, rank or n))
        self.W = gain * (factors[0] @ factors[1].T / n if rank else factors[0] / np.sqrt(n))
        self.B, self.D = rng.standard_normal((n, m)), rng.standard_normal((d, n)) / np.sqrt(n)
        self.x0, last = start * rng.standard_normal(n), rng.uniform(-1, 1, d)
        self.y, self.u = (
            {"terminal": last, "integrated": rng.uniform(-1, 1, (steps, d))},
            rng.standard_normal((steps, m)),
        )
        self.phi, self.dt = phi, dt

    def f(self, x):
        return (
            np.asarray({"identity": lambda x: x}.get(self.phi, self.phi)(x))
            if callable(self.phi)
            else RATE[self.phi](x)
        )

    def states(self, W=None, B=None):
        W, B = (self.W if W is None else W), (self.B if B is None else B)
        return RUN(
            jnp.asarray(W), jnp.asarray(self.u) @ jnp.asarray(B).T, jnp.asarray(self.x0), phi=self.phi, alpha=self.dt
        )

    def before(self, x):
        return self.f(np.concatenate([self.x0[None], np.asarray(x)[:-1]]))

    def loss(self, W, B, D, which):
        error = self.rates(self.states(W, B)) @ jnp.asarray(D).T
        if which == "terminal":
            return ((error[-1] - self.y[which]) ** 2).sum()
        return self.dt * ((error - self.y[which]) ** 2).sum()

    def rates(self, x):
        return (
            x if self.phi == "identity" else getattr(jax.nn, self.phi)(x) if isinstance(self.phi, str) else self.phi(x)
        )

    def adjoint(self, which="terminal", W=None):
        W = self.W if W is None else W
        x = self.states(W)
        return np.asarray(x), adjoint_states(W, x, self.D, self.y[which], phi=self.phi, dt=self.dt, loss=which)

    def gradient(self, which="terminal", W=None):
        x, a = self.adjoint(which, W)
        return discrete_gradient(a, self.before(x), self.dt)


RATE = {
    "tanh": np.tanh,
    "relu": lambda x: np.maximum(x, 0),
    "identity": lambda x: x,
    "softplus": lambda x: np.logaddexp(x, 0),
}


def off(found, wanted):
    return np.linalg.norm(np.subtract(found, wanted)) / np.linalg.norm(wanted)


def rank(A):
    s = np.linalg.svd(A, compute_uv=False)
    return int((s > 1e-11 * s[0]).sum())


@pytest.mark.parametrize(("phi", "loss"), [*zip(PHIS, LOSSES * 2 + LOSSES[:1], strict=True), ("tanh", "integrated")])
def test_gradients_are_those_of_autodiff(phi, loss):
    net = Net(phi=phi, start=1.0)
    x, a = net.adjoint(loss)
    exact = jax.jit(jax.grad(net.loss, (0, 1, 2)), static_argnums=3)(net.W, net.B, net.D, loss)
    found = (
        discrete_gradient(a, net.before(x), net.dt),
        discrete_gradient(a, net.u, net.dt),
        decoder_gradient(x, net.D, net.y[loss], phi=phi, dt=net.dt, loss=loss),
    )
    for mine, wanted in zip(found, exact, strict=True):
        assert off(mine, wanted) < 1e-13 and off(-mine, wanted) > 1.9 and off(0 * mine, wanted) > 0.9


@pytest.mark.parametrize("loss", LOSSES)
def test_the_product_tends_to_the_differential_equation_at_first_order(loss):
    """Against the equations of state and adjoint solved together backwards, and the integral of their product."""
    errors = []
    for steps in (50, 100, 200):
        net = Net(5, 1, 2, dt=2.0 / steps, steps=steps, start=1.0)
        net.u, net.y["integrated"] = np.ones((steps, 1)), np.tile(net.y["terminal"], (steps, 1))
        errors.append(off(net.gradient(loss), continuous_gradient(net, loss)))
    slopes = np.diff(np.log(errors)) / np.log(0.5)
    assert np.abs(slopes - 1).max() < 0.1 and errors[0] < 0.2, "a factor 2 or a sign that is wrong has slope 0"


def continuous_gradient(net, loss):
    """By forward solution, backward solution of (x, a, integral), with everything else by hand (tanh, constant u)."""
    n, y, drive = 5, net.y["terminal"], net.B[:, 0]
    tight = {"rtol": 1e-10, "atol": 1e-12, "method": "DOP853"}

    def direct(x):
        return 2 * (1 - np.tanh(x) ** 2) * (net.D.T @ (net.D @ np.tanh(x) - y))

    def back(_, z):
        x, a = z[:n], z[n : 2 * n]
        da = a - (1 - np.tanh(x) ** 2) * (net.W.T @ a) - (direct(x) if loss == "integrated" else 0)
        return np.concatenate([net.W @ np.tanh(x) - x + drive, da, -np.outer(a, np.tanh(x)).ravel()])

    end = solve_ivp(lambda _, x: net.W @ np.tanh(x) - x + drive, (0, 2), net.x0, **tight).y[:, -1]
    last = direct(end) if loss == "terminal" else np.zeros(n)
    whole = solve_ivp(back, (2, 0), np.concatenate([end, last, np.zeros(n * n)]), **tight).y[:, -1]
    return whole[2 * n :].reshape(n, n)


def test_adjoint_of_a_scalar_network_is_known():
    """x_k = (1 - dt + dt w) x_{k-1}: the adjoint is a power, the gradient a polynomial."""
    w, dt, q, x0, y = 0.4, 0.1, 7, 2.0, 0.3
    step = 1 - dt + dt * w
    x = x0 * step ** np.arange(1, q + 1)
    a = adjoint_states([[w]], x[:, None], [[1.0]], [y], phi="identity", dt=dt)
    np.testing.assert_allclose(a[:, 0], 2 * (x[-1] - y) * step ** np.arange(q - 1, -1, -1), rtol=1e-13)
    gradient = discrete_gradient(a, np.append(x0, x[:-1])[:, None], dt)
    assert gradient[0, 0] == pytest.approx(2 * (x[-1] - y) * x0 * q * dt * step ** (q - 1), rel=1e-13)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("phi", PHIS[:3])
def test_singular_values_stay_below_their_bounds(phi, seed):
    net = Net(30, phi=phi, gain=(1.5, 2.1)[seed % 2], seed=seed, start=0.5, steps=80)
    x, a = net.adjoint()
    for driving in (net.before(x), net.u):
        s = np.linalg.svd(discrete_gradient(a, driving, net.dt), compute_uv=False)
        sharp, least = (singular_value_bounds(a, driving, net.dt, sharp=sharp) for sharp in (True, False))
        assert sharp.shape == s.shape
        assert (s <= sharp + 1e-14 * s[0]).all() and (sharp <= least).all()
        A, P = (operator_singular_values(each, net.dt) for each in (a, driving))
        k = len(s)
        A, P = np.append(A, np.zeros(k))[:k], np.append(P, np.zeros(k))[:k]
        np.testing.assert_allclose(least, np.minimum(A[0] * P, P[0] * A), rtol=1e-12)
        brute = [min(A[i] * P[m - i] for i in range(m + 1)) for m in range(k)]
        np.testing.assert_allclose(sharp, brute, rtol=1e-12)
        assert sharp[0] == least[0]
    assert np.linalg.norm(net.gradient(), 2) > 0.2 * singular_value_bounds(a, net.before(x), net.dt)[0], "of its order"


def test_bounds_are_attained_and_the_sharp_one_is_sharper():
    """Factors with the same vectors in time, in falling and in opposite order."""
    time, left, right = (np.linalg.qr(np.random.default_rng(k).standard_normal((6, 3)))[0] for k in range(3))
    s = np.array([4.0, 2.0, 1.0])
    a, b = (time * s) @ left.T, time @ right.T
    np.testing.assert_allclose(np.linalg.svd(0.1 * a.T @ b, compute_uv=False)[:3], singular_value_bounds(a, b, 0.1)[:3])
    b = (time * s) @ right.T
    assert singular_value_bounds(a, b, 1.0)[2] == pytest.approx(4.0)  # 4 x 1 and 2 x 2
    assert singular_value_bounds(a, (time * [4.0, 4.0, 1.0]) @ right.T, 1.0)[2] == pytest.approx(4.0)
    low, high = (singular_value_bounds(a, (time * [4.0, 1.0, 1.0]) @ right.T, 1.0, sharp=z)[2] for z in (True, False))
    assert (low, high) == pytest.approx((2.0, 4.0))


def test_the_expansion_is_the_gradient():
    net = Net(phi="softplus")
    x, a = net.adjoint()
    made = gradient_expansion(a, net.before(x), net.dt)
    whole = made.left * made.adjoint_values @ made.overlap * made.driving_values @ made.right.T
    assert off(whole, net.gradient()) < 1e-13
    assert np.abs(made.overlap).max() <= 1 + 1e-12 and off(made.left @ made.right.T, net.gradient()) > 0.1
    np.testing.assert_allclose(made.adjoint_values, operator_singular_values(a, net.dt), rtol=1e-10, atol=1e-14)


def test_a_sine_as_an_operator_has_its_norm():
    """In the limit the singular value of one component is its norm in L2: sqrt(pi) for a sine over a period."""
    errors = []
    for steps in (100, 1000):
        t = 2 * np.pi * np.arange(steps) / steps
        path = np.stack([np.sin(t), np.cos(t), np.exp(-t)], -1)
        errors.append(abs(operator_singular_values(path[:, :2], t[1])[0] - np.sqrt(np.pi)))
        assert errors[-1] < 1e-12
    wanted = np.sqrt((1 - np.exp(-4 * np.pi)) / 2)
    assert operator_singular_values(path[:, 2:], t[1])[0] == pytest.approx(wanted, rel=0.01)


def test_sums_of_gradients():
    rng = np.random.default_rng(0)
    for _ in range(50):
        Q = int(rng.integers(2, 6))
        G = rng.standard_normal((Q, 8, 2)) @ rng.standard_normal((Q, 2, 8))
        weights = rng.uniform(-1, 1, Q)
        s = np.linalg.svd(G, compute_uv=False)
        total = np.linalg.svd(np.tensordot(weights, G, 1), compute_uv=False)
        bound = sum_bounds(s, weights)
        assert (total <= bound + 1e-12).all()
        assert (bound[2 * Q :] < 1e-12).all(), "the rank of a sum is at most the sum of the ranks"
    same = sum_bounds(np.tile([3.0, 2.0, 1.0], (2, 1)), [0.5, 0.5])
    np.testing.assert_allclose(same, [3.0, 2.5, 2.0])  # 1+1, 1+2, 2+2
    bound = sum_bounds([[3.0, 0, 0], [2.0, 0, 0]], [1, 1])
    np.testing.assert_allclose(bound, [5.0, 2.0, 0.0])
    along, across = ([np.diag([3.0, 0, 0]), second] for second in (np.diag([2.0, 0, 0]), np.diag([0, 2.0, 0])))
    assert np.linalg.norm(sum(along), 2) == bound[0] and np.linalg.svd(sum(across))[1][1] == bound[1], "attained"


def test_momentum_weights_are_those_of_optax():
    """The update of an exponential average of gradients, against optax's own."""
    gradients = np.random.default_rng(0).standard_normal((6, 3))
    beta, rate = 0.8, 0.3
    optimizer = optax.chain(optax.ema(beta, debias=False), optax.scale(-rate))
    state = optimizer.init(jnp.zeros(3))
    for k in range(6):
        update, state = optimizer.update(jnp.asarray(gradients[k]), state)
        weights = momentum_weights(beta, k + 1, learning_rate=rate)
        np.testing.assert_allclose(update, -weights @ gradients[: k + 1], rtol=1e-12)
    assert momentum_weights(0.0, 3).tolist() == [0, 0, 1]
    for bad in (-0.1, 1.0, [0.5], "a"):
        with pytest.raises(ValueError, match="beta"):
            momentum_weights(bad, 2)


def learned(net, loss, *, optimizer=None, trials=1, steps=12, joint=False):
    """Weights W of gradient descent on a linear network, (update, n, n); inputs and targets of trials are random."""
    rng = np.random.default_rng(7)
    u = jnp.asarray(np.stack([net.u, *rng.standard_normal((trials - 1, *net.u.shape))], 1))  # (time, trial, m)
    y = jnp.asarray(np.stack([net.y[loss], *rng.uniform(-1, 1, (trials - 1, *net.y[loss].shape))], -2))
    p = {"W": jnp.asarray(net.W), "B": jnp.asarray(net.B), "D": jnp.asarray(net.D)}

    def mean(p):
        B, D = (p["B"], p["D"]) if joint else (jnp.asarray(net.B), jnp.asarray(net.D))
        x = simulate(p["W"], u @ B.T, jnp.asarray(net.x0)[None], phi="identity", alpha=net.dt)  # (time, trial, n)
        error = (x if loss == "integrated" else x[-1]) @ D.T - y
        return (net.dt if loss == "integrated" else 1.0) * (error**2).sum() / trials

    optimizer = optimizer or optax.sgd(0.05)

    def step(carry, _):
        p, state = carry
        value, gradient = jax.value_and_grad(mean)(p)
        update, state = optimizer.update(gradient, state)
        p = optax.apply_updates(p, update)
        return (p, state), (value, p["W"])

    with jax.numpy_dtype_promotion("standard"):
        _, (losses, path) = jax.jit(lambda p: jax.lax.scan(step, (p, optimizer.init(p)), length=steps))(p)
    assert losses[-1] < 0.99 * losses[0], "it learns"
    return np.concatenate([net.W[None], path])


CASES = [  # m, d, loss, trials, x(0) anywhere, rank of one update as measured and as bounded
    (2, 2, "terminal", 1, False, 4),
    (2, 2, "terminal", 1, True, 4),
    (1, 3, "integrated", 1, False, 4),
    (1, 3, "integrated", 1, True, 5),
    (3, 1, "integrated", 1, False, 4),
    (2, 2, "integrated", 1, False, 5),
    (2, 2, "terminal", 4, False, 5),
    (3, 3, "terminal", 2, False, 5),
]


@pytest.mark.parametrize(("m", "d", "loss", "trials", "anywhere", "one"), CASES)
def test_ranks_of_learning_in_a_linear_network_are_the_bounds(m, d, loss, trials, anywhere, one):
    """One update and all of them attain their bounds; the subspace is never left."""
    net = Net(20, m, d, rank=3, phi="identity", start=float(anywhere), steps=30, dt=0.2)
    path = learned(net, loss, trials=trials)
    free = int(anywhere)
    said = {"loss": loss, "trials": trials, "free_starts": free}
    assert rank(path[1] - path[0]) == one == rank_bound(3, m, d, updates="one", **said)
    whole = rank_bound(3, m, d, **said)
    assert whole == 6 + m + d + free
    assert max(rank(W) for W in path) <= whole and rank(np.concatenate([*path, *path.transpose(0, 2, 1)], 1)) == whole
    V = invariant_subspace(net.W, net.B, net.D, net.x0 if anywhere else None)
    assert V.shape == (20, whole)
    assert share_outside(path[1:] - path[0], V).max() < 1e-12
    assert share_outside(path[-1] - path[0], V[:, 1:]) > 1e-3, "no smaller subspace does"


def test_the_rank_of_the_weights_grows_to_its_bound():
    """2R + m + d is attained by W itself: rank 10 from rank 3, and the path has no more than 100 components."""
    net = Net(24, 2, 2, rank=3, phi="identity", steps=30, dt=0.2)
    path = learned(net, "integrated", trials=3, steps=25)
    assert rank(path[-1]) == rank_bound(3, 2, 2) == 10
    unfoldings = [np.moveaxis(path, axis, 0).reshape(path.shape[axis], -1) for axis in (1, 2)]
    assert [rank(each) for each in unfoldings] == [10, 10]
    V = invariant_subspace(net.W, net.B, net.D)
    core = np.einsum(
        "ia,kij,jb->kab", V, path, V, optimize=True
    )  # at most 10 x 10 components, each with its own course
    assert off(np.einsum("ia,kab,jb->kij", V, core, V, optimize=True), path) < 1e-12
    assert core[0].size == rank_bound(3, 2, 2, updates="tensor") == 100


def test_learning_everything_with_momentum_stays_inside_and_adam_does_not():
    net = Net(24, 2, 2, rank=3, phi="identity", steps=30, dt=0.2)
    V = invariant_subspace(net.W, net.B, net.D)
    inside = learned(net, "terminal", optimizer=optax.sgd(0.02, momentum=0.8), joint=True)
    assert share_outside(inside[-1] - inside[0], V) < 1e-12 and rank(inside[-1] - inside[0]) <= 10
    adam = learned(net, "terminal", optimizer=optax.adam(0.02), steps=5)
    change = adam[-1] - adam[0]
    assert rank(change) == 24 and share_outside(change, V) > 0.3
    for name in ("adam", "rmsprop", None):
        with pytest.raises(ValueError, match="elementwise"):
            rank_bound(3, 2, 2, optimizer=name)
    assert rank_bound(3, 2, 2, optimizer="momentum") == 10


def test_an_initial_state_outside_the_span_breaks_the_printed_bound():
    net = Net(20, 1, 3, rank=3, phi="identity", start=1.0, steps=30, dt=0.2)
    gradient = net.gradient("integrated")
    assert rank(gradient) == 5 > rank_bound(3, 1, 3, updates="one", loss="integrated") == 4
    assert share_outside(gradient, invariant_subspace(net.W, net.B, net.D)) > 0.01
    assert share_outside(gradient, invariant_subspace(net.W, net.B, net.D, net.x0)) < 1e-13


def test_a_nonlinear_network_is_not_bounded_by_this():
    net = Net(20, 2, 2, rank=3, phi="tanh", steps=30, dt=0.2)
    gradient = net.gradient()
    assert rank(gradient) > 4 and share_outside(gradient, invariant_subspace(net.W, net.B, net.D)) > 0.01


def test_bounds_of_small_networks():
    assert rank_bound(0, 1, 1, updates="one") == 1 and rank_bound(3, 0, 2, updates="one") == 3
    assert rank_bound(3, 0, 2, updates="one", free_starts=1) == 4
    assert rank_bound(3, 5, 4, updates="one", trials=2) == 5 and rank_bound(3, 5, 4, updates="one", trials=9) == 7
    for wrong in ({"updates": "some"}, {"loss": "mean"}, {"trials": 0}, {"free_starts": -1}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            rank_bound(3, 2, 2, **wrong)


def test_the_subspace_survives_parts_of_different_size():
    rng = np.random.default_rng(0)
    W, B, D = (
        1e-9 * rng.standard_normal((9, 1)) @ rng.standard_normal((1, 9)),
        rng.standard_normal((9, 1)),
        np.ones((1, 9)),
    )
    V = invariant_subspace(W, 1e6 * B, D)
    assert V.shape == (9, 4) and np.abs(V.T @ V - np.eye(4)).max() < 1e-14
    assert off(V @ (V.T @ W @ V) @ V.T, W) < 1e-12
    for bad in ({"W0": np.eye(8)}, {"B": np.ones(9)}, {"D": D.T}, {"x0": np.ones(4)}):
        with pytest.raises(ValueError):
            invariant_subspace(**({"W0": W, "B": B, "D": D} | bad))
    with pytest.raises(ValueError, match="orthonormal"):
        share_outside(W, B)


def test_wrong_arguments():
    x, D, y = np.zeros((3, 2)), np.ones((1, 2)), [0.0]
    with pytest.raises(ValueError, match="loss"):
        adjoint_states(np.eye(2), x, D, y, phi="tanh", dt=0.1, loss="mean")
    with pytest.raises(ValueError, match="loss"):
        decoder_gradient(x, D, y, phi="tanh", dt=0.1, loss="mean")
    with pytest.raises(ValueError, match="dt"):
        adjoint_states(np.eye(2), x, D, y, phi="tanh", dt=1.1)
    with pytest.raises(ValueError, match="one step"):
        adjoint_states(np.eye(2), np.zeros((0, 2)), D, y, phi="tanh", dt=0.1)
    for bad in ([[1.0, 2.0]], [[-1.0]], np.zeros((0, 2))):
        with pytest.raises(ValueError, match="falling"):
            sum_bounds(bad)
    with pytest.raises(ValueError, match="weights"):
        sum_bounds([[1.0]], [1.0, 2.0])
