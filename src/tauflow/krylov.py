r"""Krylov bases of a matrix from both sides, and the Gramians that they carry: the engine of exact filter losses.

For a matrix $M$ and vectors $u, v$ the rows of $Q_u$ and $Q_v$ are orthonormal bases of $\{u, Mu, M^2u, \dots\}$ and
$\{v, M^Tv, \dots\}$, and $H_u = Q_uMQ_u^T$, $H_v = Q_vM^TQ_v^T$ are small. With $F_u = H_u - I$ the state
$e^{(M-I)t}u$ is $Q_u^Te^{F_ut}e_1|u|$ to spectral accuracy, so integrals over all times become small matrix equations.
These are solved by Smith's method: with the resolvent $R = (F-p)^{-1}$ and $S = I + 2pR$, the equation
$FX + XF^T + bb^T = 0$ is $X = SXS^T + 2p\,Rb(Rb)^T$, a series that is summed by repeated squaring of $S$. It converges
if and only if all eigenvalues of $F$ have negative real parts, so it decides stability as well.

**What a converged basis proves.** The residual of the Lyapunov equation of the whole network, put between a left
eigenvector $w$ of eigenvalue $\lambda$ with $\Re\lambda > 0$, is at least $|w^Tu|^2$, because all its other terms are
positive. So once the residual is below $\epsilon|u|^2$, no growing mode is reached by the input with a relative
amplitude above $\sqrt\epsilon$, and likewise for the readout: stability comes without eigenvalues of the whole.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax

SMALL = 1000
"""Up to this number of units a basis may grow to all of space, and nothing is left undecided."""
LARGEST = 900
"""Most vectors of a basis for more units than that."""
SHIFT = 0.3
"""p: time scales between 1/20 and 1000 membrane times are summed in at most 14 squarings."""
_SQUARINGS = 24


class Bases(NamedTuple):
    """Orthonormal bases of both sides, to be extended.

    Attributes:
        Q_u: Basis from u, in rows, shape (m + 1, n).
        H_u: Row j holds what M takes basis vector j to, shape (m + 1, m + 1); the projected matrix is its transpose.
        Q_v: Basis from v under the transpose.
        H_v: Likewise.
    """

    Q_u: Array
    H_u: Array
    Q_v: Array
    H_v: Array


class Gramians(NamedTuple):
    """Solutions of the small matrix equations.

    Attributes:
        P: Gramian of the first system, F₁P + PF₁ᵀ + b₁b₁ᵀ = 0, shape (k, k).
        Q: Gramian of the second system, shape (k, k).
        Y: Solution of F₂Y + YF₁ + b₂cᵀ = 0, shape (k, k).
        stable: Whether both systems decay, scalar.
    """

    P: Array
    Q: Array
    Y: Array
    stable: Array


def stages(neurons: int) -> list[int]:
    """Sizes of the bases that are tried one after the other.

    Args:
        neurons: Number of units n, at least 1.

    Returns:
        Increasing sizes; the last is n up to `SMALL` units, and `LARGEST` beyond.

    Example:
        >>> stages(100)
        [32, 64, 100]
    """
    last = neurons if neurons <= SMALL else LARGEST
    sizes, ratio = [32], 2.0 if neurons <= SMALL else 1.5
    while sizes[-1] < last:
        sizes.append(int(ratio * sizes[-1]))
    return [*sizes[:-1], last]


def begin(u: Array, v: Array) -> tuple[Bases, Array, Array]:
    """Bases of one vector each, and the lengths of u and v, shape (n,) each."""
    lengths = [jnp.sqrt(x @ x) for x in (u, v)]
    rows = [(x * _inverse(length, 0.0))[None] for x, length in zip((u, v), lengths, strict=True)]
    nothing = jnp.zeros((1, 1), u.dtype)
    return Bases(rows[0], nothing, rows[1], nothing), lengths[0], lengths[1]


def extend(W: Array, scale: float, bases: Bases, size: int) -> Bases:
    """Extend both bases to `size` vectors (and the next one, which the residual needs) by Arnoldi's method.

    Args:
        W: Matrix, shape (n, n); M is `scale * W`.
        scale: Factor.
        bases: What there is, of fewer vectors.
        size: Number of vectors wanted, at most n.

    Returns:
        Bases with rows 0 to `size`. Rows beyond an invariant subspace are 0 and couple to nothing.
    """
    have = bases.Q_u.shape[0] - 1
    grown = Bases(
        _grow(bases.Q_u, size, False), _grow(bases.H_u, size, True),
        _grow(bases.Q_v, size, False), _grow(bases.H_v, size, True),
    )  # fmt: skip

    def step(j: Array, bases: Bases) -> Bases:
        Q_u, H_u = _append(bases.Q_u, bases.H_u, scale * (W @ bases.Q_u[j]), j)
        Q_v, H_v = _append(bases.Q_v, bases.H_v, scale * (bases.Q_v[j] @ W), j)
        return Bases(Q_u, H_u, Q_v, H_v)

    return lax.fori_loop(jnp.int32(have), jnp.int32(size), step, grown)


def _grow(x: Array, size: int, square: bool) -> Array:
    return jnp.pad(x, ((0, size + 1 - x.shape[0]), (0, size + 1 - x.shape[1] if square else 0)))


def _append(Q: Array, H: Array, w: Array, j: Array) -> tuple[Array, Array]:
    """Orthogonalise w twice against the basis, and append what is left of it."""
    whole = jnp.sqrt(w @ w)
    first = Q @ w  # (m + 1,)
    w = w - first @ Q
    second = Q @ w
    w = w - second @ Q
    length = jnp.sqrt(w @ w)
    inverse = _inverse(length, 10 * jnp.finfo(w.dtype).eps * whole)
    kept = jnp.where(inverse > 0, length, 0.0)
    row = jnp.where(jnp.arange(H.shape[0], dtype=j.dtype) == j + 1, kept, first + second)
    return (
        lax.dynamic_update_index_in_dim(Q, w * inverse, j + 1, 0),
        lax.dynamic_update_index_in_dim(H, row, j, 0),
    )


def _inverse(length: Array, least: Array | float) -> Array:
    return jnp.where(length > least, 1 / jnp.where(length > least, length, 1.0), 0.0)


def gramians(F: Array, b: Array, c: Array) -> Gramians:
    """Solve the Lyapunov equations of two systems and the Sylvester equation between them.

    Args:
        F: Both system matrices, shape (2, k, k).
        b: Both input vectors, shape (2, k).
        c: Readout of the first system, shape (k,).

    Returns:
        The solutions; meaningless where not stable.
    """
    k = F.shape[-1]
    unit = jnp.eye(k, dtype=F.dtype)[None]  # (1, k, k)
    R = jnp.linalg.inv(F - SHIFT * unit)  # (2, k, k)
    r = jnp.einsum("aij,aj->ai", R, b)  # (2, k)
    X = 2 * SHIFT * r[:, :, None] * r[:, None, :]  # (2, k, k)
    Y = 2 * SHIFT * jnp.outer(r[1], c @ R[0])  # (k, k)
    least = jnp.finfo(F.dtype).eps / 2

    def more(state: tuple[Array, Array, Array, Array, Array]) -> Array:
        return (state[3] > least) & (state[4] < _SQUARINGS)

    def square(state: tuple[Array, Array, Array, Array, Array]) -> tuple[Array, Array, Array, Array, Array]:
        S, X, Y, _, count = state
        change = S @ X @ jnp.swapaxes(S, 1, 2)
        X = X + change
        sizes, changes = (jnp.sqrt(jnp.sum(x * x, axis=(1, 2))) for x in (X, change))
        relative = jnp.max(changes / jnp.where(sizes > 0, sizes, 1.0))
        return S @ S, X, Y + S[1] @ Y @ S[0], relative, count + 1

    begin = (unit + 2 * SHIFT * R, X, Y, jnp.ones((), F.dtype), jnp.zeros((), jnp.int32))
    _, X, Y, relative, _ = lax.while_loop(more, square, begin)
    return Gramians(X[0], X[1], Y, relative <= least)
