"""Equations of schuessler2020 that docs/equations.md gives in a corrected form: that form is right, the print is not.

The networks are the designed ones, on which the large-N scalar products are exact, so that a series can be compared
with the Taylor coefficients of the exact flow order by order.
"""

from collections import Counter

import numpy as np
import pytest
from numpy.polynomial import Polynomial as Series

import designed_networks
from tauflow.theory import fixed_point as theory
from tauflow.theory.resolvent_traces import pairings

GAIN, TARGET = 0.6, 2.0
NET = designed_networks.designed(GAIN)
BETA = float(theory.beta(GAIN))
B = np.linalg.inv(np.eye(len(NET.w)) - NET.W0)
w, m = NET.w, NET.m


def off(found, wanted) -> float:
    """Largest deviation as a share of the largest entry wanted."""
    return float(np.abs(np.subtract(found, wanted)).max() / np.abs(wanted).max())


def derivatives(order: int) -> list[np.ndarray]:
    """W_1, W_2, ... of the exact flow on the designed network, by arithmetic of power series."""
    W, A = [NET.W0], [B]
    for k in range(order):
        e = [TARGET - w @ A[0] @ m] + [-(w @ a @ m) for a in A[1:]]
        p, q = [a.T @ w for a in A], [a @ m for a in A]
        terms = [(i, j) for i in range(k + 1) for j in range(k + 1 - i)]
        W.append(sum(e[i] * np.outer(p[j], q[k - i - j]) for i, j in terms) / (k + 1))
        A.append(B @ sum(W[j] @ A[k + 1 - j] for j in range(1, k + 2)))
    return [W[k] * np.prod(np.arange(1.0, k + 1)) for k in range(1, order + 1)]


def products() -> dict[str, Series]:
    """The products of coefficients of Eqs. 33 to 37 as series in tau."""
    z, b = TARGET, BETA
    aa = Series([0, z, -z * b**2 / 2, z * b**4 / 6])
    return {
        "aa": aa, "ab": Series([0, 0, z**2 * b / 2, -(z**2) * b**3 / 2]), "ac": Series([0, 0, 0, z**3 * b**2 / 6]),
        "bb": Series([0, 0, 0, z**3 * b**2 / 4]), "hat": Series([0, 0, 0, z**3 * b**2 / 12]),
    }  # fmt: skip


def cubic(series: Series) -> float:
    return series.coef[3]


def test_second_order_right_factor():
    """Eqs. 21 and 22: w'B in the bracket, where the print transposes B."""
    W1, W2 = derivatives(2)
    c = products()
    assert c["aa"].coef[1] * np.outer(B.T @ w, B @ m) == pytest.approx(W1, abs=1e-12)

    def change(right_w):  # tau^2 of u v' with u = B'(aw + bBm), v' = (am' + b right_w') B'
        mixed = np.outer(B.T @ w, B @ right_w) + np.outer(B.T @ B @ m, B @ m)
        return c["aa"].coef[2] * np.outer(B.T @ w, B @ m) + c["ab"].coef[2] * mixed

    assert off(2 * change(B.T @ w), W2) < 1e-10
    assert off(2 * change(B @ w), W2) > 0.2


def test_second_order_denominator():
    """Eq. 26: the same transposition in the middle; the result 2 a2 b2 gamma is right."""

    def middle(right_w):
        left, right = (m, right_w), (w, B @ m)  # coefficients of a and of b
        bracket = [[x @ B.T @ B @ B.T @ y for y in right] for x in left]
        return bracket[0][1] + bracket[1][0]  # the terms in ab

    assert off(middle(B.T @ w), 2 * BETA**4) < 1e-10
    assert off(middle(B @ w), 2 * BETA**4) > 0.2


def test_third_order_weight_change():
    """Eq. 28: W_3 in the first line and w'B in the last; Eqs. 29 to 32 as printed."""
    _, W2, W3 = derivatives(3)
    c = products()
    left, right = [B.T @ w, B.T @ B @ m, B.T @ B @ B.T @ w], [B @ m, B @ B.T @ w, B @ B.T @ B @ m]
    hat = np.outer(B.T @ B @ m, B @ B.T @ w)

    def change(right_w):
        mixed = np.outer(left[0], right_w) + np.outer(left[1], right[0])
        far = np.outer(left[0], right[2]) + np.outer(left[2], right[0])
        parts = (c["aa"], np.outer(left[0], right[0])), (c["ab"], mixed), (c["ac"], far)
        return (
            sum(cubic(s) * part for s, part in parts)
            + cubic(c["bb"]) * np.outer(left[1], right_w)
            + (cubic(c["hat"]) * hat)
        )

    assert off(6 * change(right[1]), W3) < 1e-10
    assert off(6 * change(B @ B @ w), W3) > 0.2
    assert off(W2, W3) > 0.5, "W_2 stands where W_3 belongs"


def test_third_order_inverse():
    """Eq. 44: the matrix is symmetric, [[1-x, -y], [-y, 1]]; so is Eq. 45, which follows from it."""
    tau = 1e-3
    c = {name: float(series(tau)) for name, series in products().items()}
    a = np.sqrt(c["aa"])
    b, far, hat = c["ab"] / a, c["ac"] / a, np.sqrt(c["hat"])
    U = np.stack([B.T @ (a * w + b * B @ m + far * B @ B.T @ w), hat * B.T @ B @ m], 1)
    V = np.stack([B @ (a * m + b * B.T @ w + far * B.T @ B @ m), hat * B @ B.T @ w], 1)
    x, y = 2 * a * b * BETA**4, a * hat * BETA**4
    exact = V.T @ B @ U
    assert off([[x, y], [y, 0]], exact) < 20 * tau
    assert off([[x, y], [x, 0]], exact) > 0.2
    np.testing.assert_allclose(np.linalg.inv(np.eye(2) - exact), [[1 + x, y], [y, 1]], atol=100 * tau**3)


def test_singular_values_come_from_the_product():
    """Eq. 56: P is the square of [[p, q], [q, r]], not the square of that square."""
    rng = np.random.default_rng(0)
    u, v = rng.standard_normal((2, 2, 2)).round(2)
    gram = u @ u.T
    turn = np.linalg.qr(v)[0]
    U, V = np.linalg.cholesky(gram).T, turn @ np.linalg.cholesky(gram).T  # U'U = V'V = [[p, q], [q, r]]
    s = np.linalg.svd(U @ V.T, compute_uv=False) ** 2
    np.testing.assert_allclose(np.sort(np.linalg.eigvalsh(gram @ gram)), np.sort(s), rtol=1e-10)
    assert off(np.sort(np.linalg.eigvalsh(gram @ gram @ gram @ gram)), np.sort(s)) > 0.2


@pytest.mark.parametrize("target", [0.5, 1.0, 2.0])
def test_zero_gain_cubic_coefficient(target):
    """Eq. 49: the first line has tau^3/2 zhat, which agrees with Eq. 51 only at zhat = 1."""
    tau = 1e-3
    upper = theory.zero_gain_flow(tau, target).A[0, 1]
    found = (upper / target - tau + tau**2 / 2) / tau**3
    assert found == pytest.approx((1 + 2 * target**2) / 6, rel=0.01)
    assert (abs(found - 0.5) < 0.005) == (target == 1.0)


# ---------------------------------------------------------------------------------- traces


def means(word: tuple[int, ...]) -> Counter:
    """(1/N) E Tr of a word of J (+1) and J' (-1), exactly: power of N -> coefficient, in units of g^length.

    Wick's theorem for independent Gaussian entries: every pairing counts N for each index that it leaves free.
    """
    length = len(word)
    found: Counter = Counter()

    def pair(left: list[int], joined: list[tuple[int, int]]) -> None:
        if not left:
            found[_free(length, joined) - length // 2 - 1] += 1
            return
        first, rest = left[0], left[1:]
        ends = [(first, (first + 1) % length)[:: word[first]]]
        for other in rest:
            ends_other = (other, (other + 1) % length)[:: word[other]]
            pair([k for k in rest if k != other], [*joined, *zip(ends[0], ends_other, strict=True)])

    if length % 2 == 0:
        pair(list(range(length)), [])
    return found


def _free(length: int, joined: list[tuple[int, int]]) -> int:
    """How many groups of indices are left when these are set equal."""
    group = list(range(length))
    for i, j in joined:
        group = [group[i] if g == group[j] else g for g in group]
    return len(set(group))


def test_powers_of_a_random_matrix():
    """Eqs. 83 to 85: every even power leaves g^K/N, where the print has N^(1 - K/2); so Eq. 68 is I(1 + g^2 beta/N)."""
    assert means((1,)) == means((1, 1, 1)) == {}
    assert means((1,) * 4) == {-1: 1, -2: 2} and means((1,) * 6) == {-1: 1, -2: 6, -3: 8}
    first = [means((1,) * power)[-1] for power in (2, 4, 6, 8)]
    assert first == [1, 1, 1, 1]  # so E Tr B/N - 1 = (g^2 + g^4 + ...)/N = g^2 beta/N
    n, gain = 20, 0.6
    rng = np.random.default_rng(0)
    J = rng.standard_normal((40_000, n, n)) * gain / np.sqrt(n)
    square = J @ J
    sample = np.einsum("kij,kji->k", square, square) / n
    exact = gain**4 * (1 / n + 2 / n**2)
    assert abs(sample.mean() - exact) < 4 * sample.std() / 200 < 0.2 * exact


def test_words_with_transposes():
    """Eqs. 88 to 92 and 98: the leading pairings; what is left where K != L is of order 1/N, not N^(1 - (L-K)/2)."""
    for i in range(1, 5):
        for j in range(1, 5):
            found = means((1,) * i + (-1,) * j)
            assert found[0] == pairings(i, j, 0, 0)
            assert max(found, default=-1) == (0 if i == j else -1)
    for i, j, k, l in [(1, 1, 1, 1), (2, 1, 1, 2), (2, 2, 1, 1), (1, 2, 2, 1), (2, 2, 2, 2)]:  # noqa: E741
        assert means((1,) * i + (-1,) * j + (1,) * k + (-1,) * l)[0] == pairings(i, j, k, l)


def test_traces_with_a_shuffled_matrix():
    """Eqs. 68 and 72 on random matrices whose entries are shuffled: (1/N) Tr BsB' = 1, (1/N) Tr BB'BsB' = beta^2."""
    n, gain, count = 120, 0.4, 60
    rng = np.random.default_rng(3)
    found = []
    for _ in range(count):
        W0 = rng.standard_normal((n, n)) * gain / np.sqrt(n)
        A, As = (np.linalg.inv(np.eye(n) - each) for each in (W0, rng.permutation(W0.ravel()).reshape(n, n)))
        found.append([np.sum(As * A), np.sum((A @ A.T) * (As @ A.T).T), np.sum(A * A)])
    mean, error = np.mean(found, axis=0) / n, np.std(found, axis=0) / n / np.sqrt(count)
    b = float(theory.beta(gain))
    assert (np.abs(mean - [1, b**2, b]) < 4 * error + 3 / n).all() and (error < 0.01).all()
    assert abs(mean[0] - b) > 0.1 and abs(mean[1] - b**4) > 0.3, "as if nothing had been shuffled"


@pytest.mark.parametrize("gain", [0.3, 0.6])
def test_sums_over_words(gain):
    """Eqs. 93, 94, 106, 112, 113: the sums start at 0; 108 and 110: only their last forms are right."""
    q, top = gain**2, 80
    traces = theory.traces(gain)
    assert sum(q**k for k in range(top)) == pytest.approx(float(traces.BBt))
    assert sum(q**k for k in range(1, top)) == pytest.approx(float(traces.BBt) - 1)  # as printed
    assert sum(q ** (k + j) for k in range(top) for j in range(top)) == pytest.approx(float(traces.BBBt))
    assert sum(q ** (k + j) for k in range(1, top) for j in range(1, top)) < 0.7 * float(traces.BBBt)  # as printed
    for i in (1, 2, 4):
        tail = sum(q**j for j in range(i, top))
        a = (i + 1) * q ** (2 * i) / (1 - q) ** 2
        assert sum(q ** (j + l) * (i + 1) for j in range(i, top) for l in range(i, top)) == pytest.approx(a)  # noqa: E741
        assert (i + 1) ** 2 * tail**2 == pytest.approx((i + 1) * a), "the middle of 108 has a factor i + 1 too many"
        c = q**i / (1 - q) ** 3 * (1 - q**i - q**i * i * (1 - q))
        assert sum(q ** (j + l) * (l + 1) for j in range(i, top) for l in range(i)) == pytest.approx(c)  # noqa: E741
        bare = sum(q**l * (l + 1) for l in range(i))  # noqa: E741
        assert tail * bare == pytest.approx(c), "the middle of 110 lacks g^(2j) under its first sum"
        low = range(i)
        b = sum(q ** (j + l) * (j + l - i + 1) for j in low for l in low if j + l >= i)  # noqa: E741
        closed = q**i / (1 - q) ** 3 * (i * (1 + q**i) * (1 - q) - (1 - q**i) * (1 + q))
        assert b == pytest.approx(closed)
        assert a + closed + 2 * c == pytest.approx((i + 1) * q**i / (1 - q) ** 2)
