r"""Eigenvalues of weights kept as factors, and how they bifurcate when one strength changes over trials.

On trial k the weights are $W = a\,\mathrm{diag}(c)\,b^T$ with R columns. Their nonzero eigenvalues are those of the R x
R matrix $M = \mathrm{diag}(c)\,b^Ta$: if $Mw = \lambda w$, then $v = aw$ is a right eigenvector of W, and with the rows
$z_i$ of the inverse of the matrix of the w, $\tilde v_i^T = z_i^T\mathrm{diag}(c)b^T/\lambda_i$ is the left one,
$\tilde v_i \cdot v_j = \delta_{ij}$. So the expansion of an eigenvalue into components is

$$ \lambda_i = \sum_j c_j(\tilde v_i \cdot a_j)(b_j \cdot v_i) = \sum_j \lambda_i z_{ij}w_{ji} , $$

without anything of the size of the network.

With one component of two units, $a = b = (-1, 1)/\sqrt2$, fixed points are $x_1 = -x_2 = x$ with $x = c\,\varphi(x)$
for odd φ.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tauflow.analysis.arguments import FloatArray, real_array
from tauflow.theory._arguments import with_axes

ComplexArray = NDArray[np.complex128]


class EigenvalueContributions(NamedTuple):
    """Eigenvalues, and what each component adds to them.

    Attributes:
        eigenvalues: By falling modulus, shape (..., R).
        contributions: Entry (i, j) is what component j adds to eigenvalue i, shape (..., R, R); rows sum to the
            eigenvalues.
    """

    eigenvalues: ComplexArray
    contributions: ComplexArray


class FixedPoints(NamedTuple):
    """Fixed points of the network of two units along $(x, -x)$.

    Attributes:
        x: The negative one, the origin and the positive one, shape (..., 3); NaN where there is none.
        growth: Rate at which a deviation along (1, -1) grows there, shape (..., 3): stable if < 0, 0 on a line
            attractor and at the bifurcation. The other eigenvalue of the Jacobian is -1.
    """

    x: FloatArray
    growth: FloatArray


def factor_eigenvalues(a: ArrayLike, c: ArrayLike, b: ArrayLike) -> ComplexArray:
    r"""Eigenvalues of $W = a\,\mathrm{diag}(c)\,b^T$ from its factors; the other n - R are 0.

    Args:
        a: Output directions, shape (..., n, R).
        c: Strengths, shape (..., R), in the unit of W for unit vectors.
        b: Input directions, shape (..., n, R). Leading axes broadcast: one a and b go with c of shape (trial, R).

    Returns:
        Shape (..., R), complex128, by falling modulus.

    Raises:
        ValueError: If an argument is not finite and real, or the shapes do not fit.

    Assumes: nothing.
    Source: pellegrino2023, supplement A.3. Deviation from print: none; the R x R matrix is this library's.

    Example:
        >>> factor_eigenvalues([[0.6], [0.8]], [2.0], [[1.0], [0.0]])
        array([1.2+0.j])
    """
    return _ordered(_small(a, c, b))[0]


def eigenvalue_contributions(a: ArrayLike, c: ArrayLike, b: ArrayLike) -> EigenvalueContributions:
    r"""Eigenvalues of $W = a\,\mathrm{diag}(c)\,b^T$ and what each component adds, $c_j(\tilde v_i \cdot a_j)(b_j \cdot
    v_i)$.

    Args:
        a: Output directions, shape (..., n, R).
        c: Strengths, shape (..., R).
        b: Input directions, shape (..., n, R).

    Returns:
        `EigenvalueContributions`. For a complex eigenvalue the parts are complex; products are not conjugated.

    Raises:
        ValueError: If an argument is not finite and real, the shapes do not fit, or the weights within the span cannot
            be diagonalised.

    Assumes: eigenvectors that are independent.
    Source: pellegrino2023, supplement A.3.2. Deviation from print: none; with |v| = 1 it is (A.3.3) to (A.3.5). Left
        and right eigenvectors are bi-orthonormal, where the footnote says orthonormal.

    Example:
        >>> made = eigenvalue_contributions(np.eye(2), [2.0, 1.0], np.eye(2))
        >>> made.contributions.real.tolist()
        [[2.0, 0.0], [0.0, 1.0]]
    """
    values, w = _ordered(_small(a, c, b))
    if (np.linalg.cond(w) > 1e7).any():  # half of all digits
        raise ValueError("The weights of a, c and b have eigenvectors that depend on each other; change c a little.")
    z = np.linalg.inv(w)  # rows are left eigenvectors
    return EigenvalueContributions(values, values[..., :, None] * z * np.swapaxes(w, -1, -2))


def rank_one_fixed_points(c: ArrayLike, *, phi: str = "tanh") -> FixedPoints:
    r"""Fixed points of the network of two units and tensor rank one, $x = c\,\varphi(x)$ with $x_1 = -x_2 = x$.

    For tanh there are three for c > 1, of which the origin is unstable and the two others are stable, and one, which is
    stable, for c < 1, at c <= 0 too: a supercritical pitchfork. For the identity there is the origin, stable for c < 1
    and unstable for c > 1; at c = 1 every point of the line $(x, -x)$ is one.

    Args:
        c: Strength of the component, shape (...), dimensionless.
        phi: "tanh" or "identity".

    Returns:
        `FixedPoints`.

    Raises:
        ValueError: If `c` is not finite and real or `phi` is neither.

    Assumes: no input; $a = b = (-1, 1)/\sqrt2$, $\dot x = c\,a\,b^T\varphi(x) - x$.
    Source: pellegrino2023, supplement A.2.3 and after. Deviation from print: for tanh and c > 1 the print counts two
        fixed points; for the identity it has only negative eigenvalues at c <= 1, where at c = 1 one of them is 0.

    Example:
        >>> made = rank_one_fixed_points(1.5)
        >>> made.x.round(4), made.growth < 0
        (array([-1.2878,  0.    ,  1.2878]), array([ True, False,  True]))
    """
    strength = real_array("c", c, wanted="a finite real number, for example c=1.5")
    if phi not in ("tanh", "identity"):
        raise ValueError(f"phi is {phi!r}; it must be 'tanh' or 'identity'.")
    outer = _outer(strength) if phi == "tanh" else np.full(strength.shape, np.nan)
    x = np.stack([-outer, np.zeros(strength.shape), outer], axis=-1)  # (..., 3)
    slope = 1 - np.tanh(x) ** 2 if phi == "tanh" else np.where(np.isnan(x), np.nan, 1.0)
    return FixedPoints(x, strength[..., None] * slope - 1)


def _outer(c: FloatArray) -> FloatArray:
    """The positive solution of x = c tanh x, NaN for c <= 1: Newton's method from above falls monotonically to it."""
    strength = np.where(c > 1, c, 2.0)
    x = strength.copy()
    for _ in range(60):
        rate = np.tanh(x)
        x = x - (x - strength * rate) / (1 - strength * (1 - rate**2))
    return np.where(c > 1, x, np.nan)


def _small(a: ArrayLike, c: ArrayLike, b: ArrayLike) -> FloatArray:
    """The R x R matrix diag(c) bᵀa."""
    kinds = {"a": ("n", "R"), "c": ("R",), "b": ("n", "R")}
    (a_, c_, b_), _ = with_axes(kinds, a=a, c=c, b=b)
    return c_[..., :, None] * (np.swapaxes(b_, -1, -2) @ a_)


def _ordered(M: FloatArray) -> tuple[ComplexArray, ComplexArray]:
    """Eigenvalues by falling modulus, then real and imaginary part, and their right eigenvectors in columns."""
    values, vectors = (part.astype(np.complex128) for part in np.linalg.eig(M))
    order = np.lexsort((-values.imag, -values.real, -np.abs(values)), axis=-1)  # (..., R)
    return np.take_along_axis(values, order, -1), np.take_along_axis(vectors, order[..., None, :], -1)
