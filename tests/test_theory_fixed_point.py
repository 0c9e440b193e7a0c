"""The fixed-point theory against exact gradient flow on designed networks, where every scalar product is exact.

A designed network has two blocks, one with w and one with m, so that no product of the two survives, and each block
gives the paper's large-N values w.BB'w = beta, w.(BB')^2 w = beta^4 and w.BB'B'w = beta^2 exactly. On it the theory's
polynomials are the Taylor polynomials of the exact flow: their coefficients agree to rounding, and what is left over
falls with the first power of tau that was dropped. Every such check is shown to fail for "nothing happens", for a
wrong sign and for a rate that is 2 % off.
"""

from functools import cache

import numpy as np
import pytest
from scipy.integrate import solve_ivp

import designed_networks
from tauflow.theory import fixed_point as theory

Network, designed = designed_networks.Network, designed_networks.designed

GAINS = (0.0, 0.3, 0.6, 0.8)
TARGETS = (0.5, 1.0, 2.0)
TAUS = np.array([0.0025, 0.005, 0.01, 0.02])  # in units of the learning time
NULLS = {
    "nothing happens": lambda f: lambda tau, *a, **k: 0 * np.asarray(f(tau, *a, **k)),
    "wrong sign": lambda f: lambda tau, *a, **k: -np.asarray(f(tau, *a, **k)),
    "rate 2% off": lambda f: lambda tau, *a, **k: f(1.02 * np.asarray(tau), *a, **k),
}


def taylor(net: Network, target: float, order: int) -> tuple[np.ndarray, np.ndarray]:
    """Taylor coefficients in tau of W and of z under exact gradient flow, by arithmetic of power series."""
    n = len(net.w)
    B = np.linalg.inv(np.eye(n) - net.W0)
    W, A = [net.W0], [B]
    for k in range(order):
        z = [net.w @ a @ net.m for a in A]
        e = [target - z[0]] + [-x for x in z[1:]]
        p, q = [a.T @ net.w for a in A], [a @ net.m for a in A]
        slope = sum(
            e[i] * np.outer(p[j], q[k - i - j]) for i in range(k + 1) for j in range(k + 1 - i)
        )  # the tau^k term of (target - z) A'w m'A'
        W.append(slope / (k + 1))
        A.append(B @ sum(W[j] @ A[k + 1 - j] for j in range(1, k + 2)))
    return np.array(W), np.array([net.w @ a @ net.m for a in A])


def flow(net: Network, target: float, taus: np.ndarray) -> np.ndarray:
    """Exact gradient flow of the n x n matrix, integrated; W at `taus`, shape (time, n, n)."""
    n = len(net.w)

    def slope(_, flat):
        A = np.linalg.inv(np.eye(n) - flat.reshape(n, n))
        return ((target - net.w @ A @ net.m) * np.outer(A.T @ net.w, A @ net.m)).ravel()

    path = solve_ivp(slope, (0, taus[-1]), net.W0.ravel(), "DOP853", t_eval=taus, rtol=3e-14, atol=1e-15)
    return path.y.T.reshape(-1, n, n)


def readout_of(W: np.ndarray, net: Network) -> np.ndarray:
    return net.w @ np.linalg.inv(np.eye(len(net.w)) - W) @ net.m


@cache
def flowed(gain: float, target: float) -> tuple[np.ndarray, np.ndarray]:
    taus = TAUS * float(theory.learning_time(gain, target))
    return taus, flow(designed(gain), target, taus)


def assert_order(predicted, exact, taus, order) -> None:
    """The error falls as tau^(order + 1)."""
    error = np.abs(predicted - exact).reshape(len(taus), -1).max(axis=-1)
    slope = np.polyfit(np.log(taus), np.log(np.maximum(error, 1e-300)), 1)[0]
    assert abs(slope - (order + 1)) < 0.25, f"the error falls as tau^{slope:.2f}, not tau^{order + 1}"


def rejects(check, *functions) -> None:
    """The check passes for the theory, and fails for each of the planted nulls."""
    check(*functions)
    for name, null in NULLS.items():
        with pytest.raises(AssertionError):
            check(*(null(function) for function in functions))
            pytest.fail(f"the check lets through: {name}")


def test_the_designed_networks_have_the_scalar_products_of_the_theory():
    for gain in GAINS:
        net, b = designed(gain), float(theory.beta(gain))
        n = len(net.w)
        B, Bs = np.linalg.inv(np.eye(n) - net.W0), np.linalg.inv(np.eye(n) - net.shuffled)
        p, q = B.T @ net.w, B @ net.m
        found = [p @ p, q @ q, (B @ p) @ (B @ p), (B.T @ q) @ (B.T @ q), (B @ p) @ B.T @ net.w, (B.T @ q) @ q]
        np.testing.assert_allclose(found, [b, b, b**4, b**4, b**2, b**2], rtol=1e-12)
        np.testing.assert_allclose([net.w @ Bs @ p, q @ Bs @ net.m], [1, 1], rtol=1e-12)
        np.testing.assert_allclose([(B @ p) @ Bs @ p, q @ Bs @ (B.T @ q)], [b**2, b**2], rtol=1e-12)
        np.testing.assert_allclose([net.w @ Bs @ B.T @ B @ p, (B @ B.T @ q) @ Bs @ net.m], [b**2, b**2], rtol=1e-12)
        np.testing.assert_allclose([net.w @ q, q @ (B @ p), net.w @ Bs @ net.m], 0, atol=1e-12)


@pytest.mark.parametrize("gain", GAINS)
@pytest.mark.parametrize("target", [*TARGETS, -1.0])
def test_readout_and_weight_change_are_the_taylor_polynomials(gain, target):
    net = designed(gain)
    W, z = taylor(net, target, 3)
    taus = np.array([0.1, 0.3, 1.0]) * float(theory.learning_time(gain, target))
    powers = taus[:, None] ** np.arange(1, 4)  # (time, order)

    def check(readout, weight_change):
        for order in (1, 2, 3):
            exact_z = powers[:, :order] @ z[1 : order + 1]
            exact_W = np.tensordot(powers[:, :order], W[1 : order + 1], 1)
            np.testing.assert_allclose(readout(taus, gain, target, order=order), exact_z, rtol=1e-9)
            change = weight_change(taus, net.W0, net.w, net.m, target, order=order)
            np.testing.assert_allclose(change, exact_W, rtol=1e-9, atol=1e-9 * np.abs(exact_W).max())

    rejects(check, theory.readout, theory.weight_change)


@pytest.mark.parametrize("gain", GAINS)
@pytest.mark.parametrize("target", TARGETS)
def test_errors_against_the_integrated_flow_fall_with_the_order_dropped(gain, target):
    net = designed(gain)
    taus, W = flowed(gain, target)
    z = np.array([readout_of(each, net) for each in W])
    dW = W - net.W0

    def check(readout, weight_change):
        for order in (1, 2, 3):
            assert_order(readout(taus, gain, target, order=order), z, taus, order)
            assert_order(weight_change(taus, net.W0, net.w, net.m, target, order=order), dW, taus, order)

    rejects(check, theory.readout, theory.weight_change)


@pytest.mark.parametrize("gain", GAINS)
@pytest.mark.parametrize("target", TARGETS)
def test_singular_values_and_eigenvalue_of_the_integrated_flow(gain, target):
    net = designed(gain)
    taus, W = flowed(gain, target)
    s = np.linalg.svd(W - net.W0, compute_uv=False)
    trace = np.trace(W - net.W0, axis1=1, axis2=2)
    assert_order(theory.singular_values(taus, gain, target)[0], s[:, 0], taus, 3)
    assert_order(theory.singular_values(taus, gain, target)[1], s[:, 1], taus, 3)
    rejects(lambda plus: assert_order(plus(taus, gain, target)[0], s[:, 0], taus, 3), theory.singular_values)
    rejects(lambda both: assert_order(both(taus, gain, target)[1], s[:, 1], taus, 3), theory.singular_values)
    rejects(lambda f: assert_order(f(taus, gain, target), trace, taus, 2), theory.eigenvalue)
    with pytest.raises(AssertionError):  # the misprint that the check is there to catch
        assert_order(theory.readout(taus, gain, 1.02 * target), np.array([readout_of(x, net) for x in W]), taus, 3)


@pytest.mark.parametrize("gain", GAINS)
@pytest.mark.parametrize("target", TARGETS)
def test_shuffled_readout_of_the_integrated_flow(gain, target):
    net = designed(gain)
    taus, W = flowed(gain, target)
    z = np.array([readout_of(net.shuffled + each - net.W0, net) for each in W])

    def check(shuffled):
        for order in (1, 2, 3):
            assert_order(shuffled(taus, gain, target, order=order), z, taus, order)

    rejects(check, theory.shuffled_readout)


def test_coefficients_build_the_weight_change():
    gain, target = 0.6, 2.0
    net = designed(gain)
    tau = np.array([0.003, 0.006, 0.012])
    n, b = len(net.w), float(theory.beta(gain))
    B = np.linalg.inv(np.eye(n) - net.W0)
    left = np.stack([B.T @ net.w, B.T @ B @ net.m, B.T @ B @ B.T @ net.w])
    right = np.stack([B @ net.m, B @ B.T @ net.w, B @ B.T @ B @ net.m])
    c = theory.coefficients(tau, gain, target)
    built = sum(
        np.multiply.outer(weight, np.outer(left[i], right[j]))
        for weight, i, j in [
            (c.aa, 0, 0),
            (c.ab, 0, 1),
            (c.ab, 1, 0),
            (c.ac, 0, 2),
            (c.ac, 2, 0),
            (c.bb + c.bhat, 1, 1),
        ]
    )
    np.testing.assert_allclose(built, theory.weight_change(tau, net.W0, net.w, net.m, target), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(c.bhat, tau**3 * target**3 * b**2 / 12)
    assert_order(c.ab**2 / c.aa, c.bb, tau, 3)


@pytest.mark.parametrize("target", [0.5, 2.0, -1.0])
def test_zero_gain_flow_is_the_flow_of_the_whole_matrix(target):
    net = designed(0.0)
    taus = np.array([0.05, 0.4, 1.5])
    W = flow(net, target, taus)
    basis = np.stack([net.w, net.m])

    def check(zero_gain_flow):
        result = zero_gain_flow(taus, target)
        A, z = result if isinstance(result, tuple) else (result, None)
        np.testing.assert_allclose(A, basis @ W @ basis.T, rtol=1e-9, atol=1e-11)
        np.testing.assert_allclose(np.einsum("ai,tab,bj->tij", basis, A, basis), W, atol=1e-10)
        if z is not None:
            np.testing.assert_allclose(z, [readout_of(each, net) for each in W], rtol=1e-9)

    check(theory.zero_gain_flow)
    rejects(lambda f: check(f), lambda tau, target: theory.zero_gain_flow(tau, target).A)


def test_zero_gain_series_is_that_of_its_flow():
    for target in (0.5, 1.0, 2.0):
        taus = TAUS * float(theory.learning_time(0.0, target))
        exact = theory.zero_gain_flow(taus, target).A
        rejects(lambda f, x=exact, t=taus, z=target: assert_order(f(t, z), x, t, 3), theory.zero_gain_coefficients)
        change = theory.weight_change(taus, np.zeros((2, 2)), [1.0, 0.0], [0.0, 1.0], target)
        np.testing.assert_allclose(theory.zero_gain_coefficients(taus, target), change, rtol=1e-12)
        np.testing.assert_array_equal(theory.readout(taus, 0.0, target), theory.shuffled_readout(taus, 0.0, target))


def test_zero_gain_flow_converges_and_never_crosses_the_target():
    result = theory.zero_gain_flow([[0.0, 0.5, 3.0, 40.0, 1e6]], [[0.5], [2.0]])
    assert result.A.shape == (2, 5, 2, 2)
    share = result.readout / np.array([[0.5], [2.0]])
    assert (np.diff(share, axis=-1) >= 0).all() and (share <= 1).all()
    np.testing.assert_allclose(share[:, -2:], 1, rtol=1e-11)
    small = theory.zero_gain_flow([0.3, 1.0, 3.0], 1e-4).readout / 1e-4
    np.testing.assert_allclose(small, 1 - np.exp([-0.3, -1.0, -3.0]), rtol=1e-6)


def test_learning_times_reach_the_target():
    gain, target = np.array(GAINS)[:, None], np.array([1e-6, *TARGETS, 50.0, -2.0])
    for order in (1, 3):
        for threshold in (0.0, 0.05, 0.9):
            tau = theory.learning_time(gain, target, order=order, threshold=threshold)
            reached = (target - theory.readout(tau, gain, target, order=order)) ** 2 / target**2
            np.testing.assert_allclose(np.sqrt(reached), np.sqrt(threshold), atol=1e-12)
    t = theory.beta(gain) ** 2 * theory.learning_time(gain, target)
    assert (t > 0).all() and (t <= 1.59607163798 + 1e-10).all()
    assert (theory.learning_time(gain, target) <= theory.learning_time(gain, 1e-9)).all()


def test_second_order_has_no_learning_time_and_says_so():
    with pytest.raises(ValueError, match=r"order is 2, which has no learning time: t - t\^2/2 never exceeds 1/2"):
        theory.learning_time(0.5, 1.0, order=2)
    assert theory.readout(np.linspace(0, 5, 1001), 0.0, 1.0, order=2).max() <= 0.5 + 1e-12
    tau = theory.learning_time(0.5, 1.0, order=2, threshold=0.3)
    assert theory.readout(tau, 0.5, 1.0, order=2) == pytest.approx(1 - np.sqrt(0.3))


@pytest.mark.parametrize("gain", GAINS)
def test_norm_of_the_weight_change_when_a_small_target_is_reached(gain):
    """The relative error of |target|/beta falls as target^2."""
    net, targets = designed(gain), np.array([0.02, 0.04, 0.08])
    end = 40 / float(theory.beta(gain)) ** 2
    norms = np.array([np.linalg.norm(flow(net, z, np.array([end]))[0] - net.W0) for z in targets])

    def check(norm):
        error = np.abs(norm(targets, gain) - norms) / targets
        assert abs(np.polyfit(np.log(targets), np.log(error), 1)[0] - 2) < 0.1

    rejects(check, lambda target, gain: theory.weight_change_norm(gain, target))
    first = theory.learning_time(gain, 0.3, order=1)
    slope = np.linalg.norm(taylor(net, 0.3, 1)[0][1])
    assert theory.weight_change_norm(gain, 0.3) == pytest.approx(float(first) * slope, rel=1e-12)


@pytest.mark.parametrize("gain", [0.3, 0.6, 0.8])
def test_shuffled_loss_at_the_first_order_learning_time(gain):
    """Exact when the weights change by tau* W1 only."""
    net, targets = designed(gain), np.array([0.1, 0.5, 2.0])
    tau = float(theory.learning_time(gain, 1.0, order=1))
    changes = [tau * taylor(net, z, 1)[0][1] for z in targets]
    exact = [(z - readout_of(net.shuffled + dW, net)) ** 2 / 2 for z, dW in zip(targets, changes, strict=True)]
    rejects(
        lambda shuffled_loss: np.testing.assert_allclose(shuffled_loss(targets, gain), exact, rtol=1e-9),
        lambda target, gain: theory.shuffled_loss(gain, target),
    )
    z = theory.shuffled_readout(tau, gain, 0.7, order=1)
    assert theory.shuffled_loss(gain, 0.7) == pytest.approx((0.7 - z) ** 2 / 2, rel=1e-12)


def test_weight_change_of_a_batch_is_that_of_each_network():
    nets = [designed(0.3), designed(0.6)]
    W0, w, m = (np.stack([getattr(net, name) for net in nets]) for name in ("W0", "w", "m"))
    tau, target = np.array([[0.1], [0.2], [0.3]]), np.array([0.5, 2.0])
    batch = theory.weight_change(tau, W0, w, m, target)
    assert batch.shape == (3, 2, 6, 6)
    np.testing.assert_allclose(batch[2, 1], theory.weight_change(0.3, W0[1], w[1], m[1], 2.0), rtol=1e-13)


def test_the_exact_flow_at_a_single_late_time_is_the_target():
    assert abs(theory.zero_gain_flow(50.0, 1.0).readout - 1.0) < 1e-9
