r"""Traces of the resolvent $B = (I - J)^{-1}$ of a Gaussian random matrix, $J_{ij} \sim N(0, g^2/N)$, for $g < 1$.

Why they matter: a vector $a$ with independent entries of variance $1/N$ and a matrix $M$ that does not depend
on it have $E[a^T M a] = E[\mathrm{Tr} M]/N$ (81), with a variance of order $1/N$. All that a large random network
contributes to the learning of a linear readout are therefore a few such traces.

Derivation. $B = \sum_K J^K$ (82), so a trace of $B$s and $B^T$s is a sum of traces of words
$J^i J^{T j} J^k J^{T l}$. Each $J_{ab}$ must meet itself, each such pairing carries $g^2/N$, and only
pairings that leave the most free indices survive $N \to \infty$: the non-crossing ones that join a $J$ with a
$J^T$. Hence $K = L$ for $J^K J^{T L}$, with one pairing (92), and $i + k = j + l$
for the four-block word, with $1 + \min(i,j,k,l)$ pairings (98):

$$ \tfrac1N E\,\mathrm{Tr}\, J^i J^{T j} J^k J^{T l} = g^{2(i+k)}\, \delta_{i+k,\,j+l}\, (1 + \min(i,j,k,l)).
   \qquad (105) $$

Summing the words, with $\beta = 1/(1-g^2)$ (all sums start at 0; the print lets those of 93, 94, 106, 112,
113 start at 1):

$$ \tfrac1N\mathrm{Tr} B = 1, \quad \tfrac1N\mathrm{Tr} BB^T = \sum_K g^{2K} = \beta, \quad
   \tfrac1N\mathrm{Tr} BBB^T = \sum_M (M+1) g^{2M} = \beta^2, \quad
   \tfrac1N\mathrm{Tr} BB^TBB^T = \sum_i \frac{(i+1)\,g^{2i}}{(1-g^2)^2} = \beta^4 . $$

Higher powers of $BB^T$, which set how far single networks lie from the mean, follow from the resolvent
$G(x) = \frac1N \mathrm{Tr}(H - x)^{-1}$ of $H = (I-J)(I-J)^T$, which obeys $G = h/(1 - x h^2)$,
$h = 1 + g^2 G$ (a noncentral Wishart matrix), that is $G = \beta(1 + x\,G h^2)$: its Taylor coefficients are
the traces of
$(BB^T)^{k+1}$.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from tauflow.analysis.arguments import FloatArray, whole_number
from tauflow.theory._arguments import as_gain


class Traces(NamedTuple):
    r"""Large-N limits of normalised traces of $B = (I - W_0)^{-1}$, each of the shape of the gain.

    Attributes:
        B: (1/N) Tr B.
        BBt: (1/N) Tr BBᵀ.
        BBBt: (1/N) Tr BBBᵀ.
        BBtBBt: (1/N) Tr BBᵀBBᵀ, the paper's γ.
    """

    B: FloatArray
    BBt: FloatArray
    BBBt: FloatArray
    BBtBBt: FloatArray


def beta(gain: ArrayLike) -> FloatArray:
    r"""Amplification by the initial connectivity, $\beta = 1/(1 - g^2)$.

    Args:
        gain: g, in [0, 1), any shape (...).

    Returns:
        Shape (...), >= 1, dimensionless.

    Raises:
        ValueError: If `gain` is not a number in [0, 1).

    Assumes: independent Gaussian entries of variance g²/N, N large.
    Source: schuessler2020, supplement Eqs. 16, 78. Deviation from print: none.

    Example:
        >>> round(float(beta(0.6)), 6)
        1.5625
    """
    g = as_gain(gain)
    return 1 / ((1 - g) * (1 + g))


def traces(gain: ArrayLike) -> Traces:
    r"""The four traces of the learning problem: $1, \beta, \beta^2, \beta^4$.

    Args:
        gain: g, in [0, 1), any shape (...).

    Returns:
        `Traces` of arrays of shape (...), dimensionless.

    Raises:
        ValueError: If `gain` is not a number in [0, 1).

    Assumes: independent Gaussian entries of variance g²/N; corrections are of order 1/N.
    Source: schuessler2020, supplement Eqs. 77-80. Deviation from print: none (in 93, 94, 106, 112, 113 the
        sums start at 0, not 1).

    Example:
        >>> [round(float(x), 6) for x in traces(0.6)]
        [1.0, 1.5625, 2.441406, 5.960464]
    """
    b = beta(gain)
    return Traces(np.ones_like(b), b, b**2, b**4)


def pairings(i: int, j: int, k: int, l: int) -> int:  # noqa: E741 (the paper's letters)
    r"""How many pairings of $J^i J^{T j} J^k J^{T l}$ survive large N: $1 + \min(i,j,k,l)$ if $i + k = j + l$, else 0.

    Args:
        i: Power of the first J, >= 0; `j`, `k`, `l` likewise.
        j: See `i`.
        k: See `i`.
        l: See `i`.

    Returns:
        The number of non-crossing pairings.

    Raises:
        ValueError: If a power is not a whole number >= 0.

    Source: schuessler2020, supplement Eqs. 92, 98. Deviation from print: none.

    Example:
        >>> pairings(2, 1, 1, 2)
        2
    """
    powers = [whole_number(name, power, 0) for name, power in zip("ijkl", (i, j, k, l), strict=True)]
    return 1 + min(powers) if i + k == j + l else 0


def word_trace(gain: ArrayLike, i: int, j: int, k: int = 0, l: int = 0) -> FloatArray:  # noqa: E741
    r"""Trace of one word of the expansion, $\frac1N E\,\mathrm{Tr}\,J^i J^{T j} J^k J^{T l}$ at large N.

    Args:
        gain: g, in [0, 1), any shape (...).
        i: Power of the first J, >= 0; `j`, `k`, `l` likewise.
        j: See `i`.
        k: See `i`.
        l: See `i`.

    Returns:
        $g^{2(i+k)}\,\delta_{i+k,j+l}\,(1+\min(i,j,k,l))$, shape (...).

    Raises:
        ValueError: If `gain` is not a number in [0, 1) or a power not a whole number >= 0.

    Assumes: independent Gaussian entries of variance g²/N; corrections are of order 1/N.
    Source: schuessler2020, supplement Eqs. 83-85, 92, 105. Deviation from print: the correction to Eq. 85 is
        (g^K/N)(1 + O(1/N)) for every even K and 0 for odd K, not of order N^(1-K/2), and so is that to 91, with
        L - K for K; the limits are the same.

    Example:
        >>> float(word_trace(0.5, 1, 1))
        0.25
    """
    count = pairings(i, j, k, l)
    return count * as_gain(gain) ** (2 * (i + k))


def word_trace_sum(gain: ArrayLike, i: int) -> FloatArray:
    r"""Sum of `word_trace` over all j, k, l >= 0: $(i+1)\,g^{2i}/(1-g^2)^2$; over i as well it is $\beta^4$.

    Args:
        gain: g, in [0, 1), any shape (...).
        i: Power of the first J, >= 0.

    Returns:
        Shape (...), dimensionless.

    Raises:
        ValueError: If `gain` is not a number in [0, 1) or `i` not a whole number >= 0.

    Assumes: as `word_trace`.
    Source: schuessler2020, supplement Eqs. 106-113. Deviation from print: sums start at 0, not 1; the middle
        expressions of 108 (a factor i+1 too many) and 110 (g^{2j} missing) are wrong, the results right.

    Example:
        >>> round(float(sum(word_trace_sum(0.5, i) for i in range(60)) / beta(0.5) ** 4), 9)
        1.0
    """
    power = whole_number("i", i, 0)
    return (power + 1) * as_gain(gain) ** (2 * power) * beta(gain) ** 2


def power_trace(gain: ArrayLike, power: int) -> FloatArray:
    r"""Traces of powers, $\frac1N \mathrm{Tr}\,(BB^T)^k$ at large N: $1, \beta, \beta^4, \beta^7(1+2g^2), \dots$

    Computed as the Taylor coefficients of $G = \beta(1 + x\,G\,(1 + g^2 G)^2)$ (see the module).

    Args:
        gain: g, in [0, 1), any shape (...).
        power: k, a whole number >= 0.

    Returns:
        Shape (...), dimensionless.

    Raises:
        ValueError: If `gain` is not a number in [0, 1) or `power` not a whole number >= 0.

    Assumes: independent Gaussian entries of variance g²/N; corrections are of order 1/N.
    Source: this library; k = 1, 2 are schuessler2020, supplement Eqs. 78, 80.

    Example:
        >>> round(float(power_trace(0.6, 2) / traces(0.6).BBtBBt), 9)
        1.0
    """
    count, g, b = whole_number("power", power, 0), as_gain(gain), beta(gain)
    if count == 0:
        return np.ones_like(b)
    G = [b]
    for _ in range(count - 1):
        h = [1 + g**2 * G[0]] + [g**2 * c for c in G[1:]]
        G.append(b * _product(G, _product(h, h))[-1])
    return G[-1]


def _product(left: FloatArray | list, right: FloatArray | list) -> list:
    """Coefficients of the product of two power series of equal length."""
    return [sum(left[m] * right[n - m] for m in range(n + 1)) for n in range(len(left))]
