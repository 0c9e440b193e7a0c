"""The fixed-point theory on random networks: means extrapolated to large N, spread falling as 1/N, traces, pairings."""

from functools import cache
from itertools import product

import numpy as np
import pytest

from tauflow.theory import fixed_point as theory
from tauflow.theory.resolvent_traces import pairings, power_trace, word_trace, word_trace_sum

GAIN, TARGET, T = 0.4, 1.2, 0.05  # T = beta^2 tau
SIZES, NETWORKS, PAIRS = (24, 48, 96, 192), 80, 100
B0 = float(theory.beta(GAIN))
TAU = T / B0**2


def products(rng: np.random.Generator, n: int) -> dict[str, np.ndarray]:
    """Scalar products of PAIRS independent pairs (w, m) of norm 1 with one random network, each shape (PAIRS,)."""
    W0 = rng.standard_normal((n, n)) * GAIN / np.sqrt(n)
    w, m = rng.standard_normal((2, n, PAIRS))
    w, m = w / np.linalg.norm(w, axis=0), m / np.linalg.norm(m, axis=0)
    B = np.linalg.inv(np.eye(n) - W0)
    p, q = B.T @ w, B @ m
    r, s = B @ p, B.T @ q
    z0, R, P, Q, S, Tq = ((a * b).sum(0) for a, b in ((w, q), (q, r), (p, p), (q, q), (r, r), (s, s)))
    e, rho = TARGET - z0, P * Q
    z1, z2 = e * rho, (-e * rho**2 + 4 * e**2 * rho * R) / 2
    fourth = Q * S + P * Tq
    z3 = (e * rho**3 - 16 * e**2 * rho**2 * R + 20 * e**3 * rho * R**2 + 4 * e**3 * rho * fourth) / 6
    return {
        "z0": z0, "z": z0 + z1 * TAU + z2 * TAU**2 + z3 * TAU**3, "z1": z1, "z2": z2, "z3": z3,
        "trace": ((w * (B @ r)).sum(0) + (q * (B @ q)).sum(0)) / 2,
        "s_minus": e**3 * rho * np.sqrt(S * Tq) / 12, "BBt": P, "BBtBBt": S, "R": R,
    }  # fmt: skip


@cache
def samples() -> dict[int, dict[str, np.ndarray]]:
    """For each size the scalar products, each shape (NETWORKS, PAIRS)."""
    result = {}
    for n in SIZES:
        rng = np.random.default_rng(1000 + n)
        found = [products(rng, n) for _ in range(NETWORKS)]
        result[n] = {name: np.array([one[name] for one in found]) for name in found[0]}
    return result


def large_n(values: dict[int, np.ndarray]) -> tuple[float, float]:
    """Limit N -> infinity of a mean over networks, from a line in 1/N, and its standard error."""
    x = np.array([1 / n for n in SIZES])
    means = np.array([values[n].mean() for n in SIZES])
    errors = np.array([values[n].std(ddof=1) / np.sqrt(len(values[n])) for n in SIZES])
    design = np.stack([np.ones_like(x), x, x**2], 1) / errors[:, None]
    covariance = np.linalg.inv(design.T @ design)
    return float(covariance @ design.T @ (means / errors) @ [1, 0, 0]), float(np.sqrt(covariance[0, 0]))


def mean_of(name: str) -> dict[int, np.ndarray]:
    return {n: samples()[n][name].mean(axis=1) for n in SIZES}


def variance_of(name: str) -> dict[int, np.ndarray]:
    """Unbiased variance over the pairs of each network, shape (NETWORKS,)."""
    return {n: samples()[n][name].var(axis=1, ddof=1) for n in SIZES}


def assert_within(found: tuple[float, float], wanted: float, sharp: float = np.inf) -> None:
    value, error = found
    assert error < sharp * abs(wanted), f"{value} +- {error} is no sharp measurement of {wanted}"
    assert abs(value - wanted) < 3 * error, f"{value} +- {error} is not {wanted}"


def coefficient(order: int, tau_factor: float = 1.0) -> float:
    """Coefficient of tau^order in the theory's readout, from its orders."""
    tau = 0.1 * tau_factor
    lower = float(theory.readout(tau, GAIN, TARGET, order=order - 1)) if order > 1 else 0.0
    return (float(theory.readout(tau, GAIN, TARGET, order=order)) - lower) / 0.1**order


def test_the_scalar_products_give_the_taylor_coefficients_of_the_flow():
    """On one small network, with all overlaps: arithmetic of power series in n x n matrices."""
    rng = np.random.default_rng(0)
    n = 12
    W0, w, m = rng.standard_normal((n, n)) * GAIN / np.sqrt(n), *rng.standard_normal((2, n)) / np.sqrt(n)
    B = np.linalg.inv(np.eye(n) - W0)
    W, A = [W0], [B]
    for k in range(3):
        z = [w @ a @ m for a in A]
        e = [TARGET - z[0]] + [-x for x in z[1:]]
        left, right = [a.T @ w for a in A], [a @ m for a in A]
        terms = ((i, j) for i, j in product(range(k + 1), repeat=2) if i + j <= k)
        W.append(sum(e[i] * np.outer(left[j], right[k - i - j]) for i, j in terms) / (k + 1))
        A.append(B @ sum(W[j] @ A[k + 1 - j] for j in range(1, k + 2)))
    p, q = B.T @ w, B @ m
    r, s = B @ p, B.T @ q
    e0, rho, R, fourth = TARGET - w @ q, (p @ p) * (q @ q), q @ r, (q @ q) * (r @ r) + (p @ p) * (s @ s)
    z3 = (e0 * rho**3 - 16 * e0**2 * rho**2 * R + 20 * e0**3 * rho * R**2 + 4 * e0**3 * rho * fourth) / 6
    wanted = [w @ q, e0 * rho, (-e0 * rho**2 + 4 * e0**2 * rho * R) / 2, z3]
    np.testing.assert_allclose([w @ a @ m for a in A], wanted, rtol=1e-9)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_mean_readout_over_networks(order):
    found = large_n(mean_of(f"z{order}"))
    assert_within(found, coefficient(order), sharp=0.03)
    for wrong in (0.0, -coefficient(order)):
        with pytest.raises(AssertionError):
            assert_within(found, wrong)
    with pytest.raises(AssertionError):  # a rate that is 5 % off is seen even on random networks
        assert_within(found, coefficient(order, tau_factor=1.05))


def test_mean_second_singular_value_and_eigenvalue():
    s_minus = float(theory.singular_values(1.0, GAIN, TARGET)[1])
    trace = float(theory.eigenvalue(1.0, GAIN, TARGET))
    for name, wanted in (("s_minus", s_minus), ("trace", trace / TARGET**2 / B0)):
        found = large_n(mean_of(name))
        assert_within(found, wanted, sharp=0.03)
        for wrong in (0.0, -wanted, 1.1 * wanted):
            with pytest.raises(AssertionError):
                assert_within(found, wrong)


def slope_of(name: str) -> tuple[float, float]:
    """Slope of log variance against log N, and its standard error."""
    values = variance_of(name)
    x = np.log(SIZES)
    y = np.log([values[n].mean() for n in SIZES])
    error = np.array([values[n].std(ddof=1) / np.sqrt(NETWORKS) / values[n].mean() for n in SIZES])
    design = np.stack([np.ones_like(x), x], 1) / error[:, None]
    covariance = np.linalg.inv(design.T @ design)
    return float((covariance @ design.T @ (y / error))[1]), float(np.sqrt(covariance[1, 1]))


@pytest.mark.parametrize("name", ["z0", "z", "R", "BBt"])
def test_variance_over_networks_falls_as_one_over_n(name):
    slope, error = slope_of(name)
    assert error < 0.06
    assert abs(slope + 1) < 3 * error + 0.03, f"variance falls as N^{slope:.3f} +- {error:.3f}"
    assert abs(slope) > 3 * error and abs(slope + 2) > 3 * error  # neither "no fall" nor 1/N^2 would pass


def test_spread_of_the_readout():
    """N times the variance, extrapolated to large N, at tau = 0 and during learning."""
    for name, tau in (("z0", 0.0), ("z", TAU)):
        scaled = {n: n * values for n, values in variance_of(name).items()}
        found, wanted = large_n(scaled), float(theory.readout_spread(tau, GAIN, TARGET, 1)) ** 2
        assert_within(found, wanted, sharp=0.06)
        for wrong in (0.0, 1.5 * wanted):
            with pytest.raises(AssertionError):
                assert_within(found, wrong)


@pytest.mark.parametrize(("gain", "target"), [(0.0, 1.0), (0.4, 1.0), (0.5, 2.0)])
def test_spread_of_the_singular_values(gain, target):
    """Standard deviations over networks of the singular values of W1 tau + W2 tau^2/2 + W3 tau^3/6."""
    rng = np.random.default_rng(3)
    n, networks = 200, 400
    tau = 0.002 * float(theory.learning_time(gain, target))
    found = []
    for _ in range(networks // 20):
        W0 = rng.standard_normal((n, n)) * gain / np.sqrt(n)
        B = np.linalg.inv(np.eye(n) - W0)
        for _ in range(20):
            w, m = rng.standard_normal((2, n))
            w, m = w / np.linalg.norm(w), m / np.linalg.norm(m)
            found.append(_first_two(B, w, m, target, tau))
    for values, spread in zip(np.transpose(found), theory.singular_value_spread(tau, gain, target, n), strict=True):
        ratio = values.std(ddof=1) / float(spread)
        assert abs(ratio - 1) < 0.15, f"the spread is {ratio:.3f} of the predicted one"


def _first_two(B, w, m, target, tau):
    """Singular values of the exact series to third order, overlaps included, in the span of the vectors."""
    p, q = B.T @ w, B @ m
    r, s = B @ p, B.T @ q
    e, P, Q, R = target - w @ q, p @ p, q @ q, q @ r
    left = np.stack([p, s, B.T @ r], 1)
    right = np.stack([q, r, B @ s], 1)
    e1, e2 = -e * P * Q, e * P**2 * Q**2 - 4 * e**2 * P * Q * R  # first two derivatives of the error
    p1, q1 = np.array([0, e * P, 0]), np.array([0, e * Q, 0])
    p2 = np.array([0, e1 * P + 2 * e**2 * P * R + e**2 * P * R, e**2 * P * Q])
    q2 = np.array([0, e1 * Q + 2 * e**2 * Q * R + e**2 * Q * R, e**2 * P * Q])
    one = np.array([1, 0, 0])
    K = tau * e * np.outer(one, one) + tau**2 / 2 * (
        e1 * np.outer(one, one) + e * (np.outer(p1, one) + np.outer(one, q1))
    )
    third = e2 * np.outer(one, one) + 2 * e1 * (np.outer(p1, one) + np.outer(one, q1))
    third += e * (np.outer(p2, one) + 2 * np.outer(p1, q1) + np.outer(one, q2))
    K = K + tau**3 / 6 * third
    return np.linalg.svd(np.linalg.qr(left)[1] @ K @ np.linalg.qr(right)[1].T, compute_uv=False)[:2]


@pytest.mark.parametrize("gain", [0.4])
def test_traces_of_random_matrices(gain):
    """Means over matrices, extrapolated to large N; a shift by 8 % would be seen."""
    values = {name: {} for name in ("B", "BBt", "BBBt", "BBtBBt", "cube")}
    for n in SIZES:
        rng = np.random.default_rng(n)
        rows = []
        for _ in range(70):
            B = np.linalg.inv(np.eye(n) - rng.standard_normal((n, n)) * gain / np.sqrt(n))
            H = B @ B.T
            rows.append([np.trace(B), np.sum(B**2), np.sum(H * B.T), np.sum(H**2), np.sum((H @ B) ** 2)])
        for name, column in zip(values, np.transpose(rows) / n, strict=True):
            values[name][n] = column
    wanted = {**theory.traces(gain)._asdict(), "cube": power_trace(gain, 3)}
    for name, each in values.items():
        found = large_n(each)
        assert_within(found, float(wanted[name]), sharp=0.016)
        for wrong in (0.0, -wanted[name], 1.08 * wanted[name]):
            with pytest.raises(AssertionError):
                assert_within(found, float(wrong))


def test_word_traces_of_random_matrices():
    rng, n, gain = np.random.default_rng(1), 150, 0.9
    words = [(1, 1, 0, 0), (2, 2, 0, 0), (2, 1, 0, 0), (1, 1, 1, 1), (2, 1, 1, 2), (2, 2, 2, 2), (3, 2, 1, 1)]
    for i, j, k, l in words:  # noqa: E741
        found = []
        for _ in range(12):
            J = rng.standard_normal((n, n)) * gain / np.sqrt(n)
            power = np.linalg.matrix_power
            found.append(np.trace(power(J, i) @ power(J.T, j) @ power(J, k) @ power(J.T, l)) / n)
        error = np.std(found, ddof=1) / np.sqrt(len(found))
        assert abs(np.mean(found) - float(word_trace(gain, i, j, k, l))) < 4 * error + 3 / n


def _noncrossing(word: tuple[int, ...]) -> int:
    """Brute force: pairings of a cyclic word without crossings that join a J (+1) with a J' (-1)."""
    if not word:
        return 1
    return sum(
        _noncrossing(word[1:end]) * _noncrossing(word[end + 1 :])
        for end in range(1, len(word), 2)
        if word[0] + word[end] == 0
    )


def test_pairings_by_brute_force():
    for i, j, k, l in product(range(5), repeat=4):  # noqa: E741
        assert pairings(i, j, k, l) == _noncrossing((1,) * i + (-1,) * j + (1,) * k + (-1,) * l)


def test_sums_of_words_by_brute_force():
    gain, top = 0.5, 40
    for i in (0, 1, 3, 6):
        total = sum(
            float(word_trace(gain, i, j, k, i + k - j)) for k in range(top) for j in range(i + k + 1)
        )  # l is what i + k = j + l leaves
        assert total == pytest.approx(float(word_trace_sum(gain, i)), rel=1e-10)
    assert sum(float(word_trace_sum(gain, i)) for i in range(60)) == pytest.approx(float(theory.traces(gain).BBtBBt))
    two = sum(float(word_trace(gain, k, k)) for k in range(60))
    three = sum(float(word_trace(gain, k + j, k + j)) for k in range(60) for j in range(60))  # B B B': J^k J^j J'^(k+j)
    np.testing.assert_allclose([two, three], [theory.traces(gain).BBt, theory.traces(gain).BBBt], rtol=1e-12)


def test_power_traces_in_closed_form():
    g = np.array([0.0, 0.3, 0.6, 0.9])
    b = theory.beta(g)
    closed = [np.ones(4), b, b**4, b**7 * (1 + 2 * g**2), b**10 * (1 + g**2) * (1 + 5 * g**2)]
    for k, wanted in enumerate(closed):
        np.testing.assert_allclose(power_trace(g, k), wanted, rtol=1e-12)
