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
amplitude above $\sqrt\epsilon$, and likewise for the readout: stability comes without eigenvalues of the whole. And
where $F$ itself has a growing mode $x$, its Gramian becomes that mode, $xx^T$ times a number without limit; once the
residual is below $\epsilon$ of it, $x$ grows in the whole too, and no larger basis need be tried.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array, lax

SMALL = 1000
"""Up to this number of units a basis may grow to all of space, so that a residual can always be had."""
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
        X: Gramians P and Q of both systems, F₁P + PF₁ᵀ + b₁b₁ᵀ = 0, shape (2, k, k).
        Y: Solution of F₂Y + YF₁ + b₂cᵀ = 0, shape (k, k).
        sizes: Norms of P and Q, shape (2,).
        stable: Whether both systems decay, scalar; if not, the rest is what had grown until that was seen.
    """

    X: Array
    Y: Array
    sizes: Array
    stable: Array


def stages(neurons: int) -> list[int]:
    """Sizes of the bases that are tried one after the other.

    Args:
        neurons: Number of units n, at least 1.

    Returns:
        Increasing sizes; the last is n up to `SMALL` units, and `LARGEST` beyond.

    Example:
        >>> stages(100)
        [40, 100]
    """
    few = neurons <= SMALL  # where products are cheap, so is a basis that is too large, and compiling counts
    sizes, ratio, first = ([neurons], 2.5, 64) if few else ([LARGEST], 1.5, 24)
    while sizes[0] > first:
        sizes.insert(0, math.ceil(sizes[0] / ratio))
    return sizes


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

    least = 10 * jnp.finfo(W.dtype).eps * scale * jnp.sqrt(jnp.sum(W * W))  # what rounding leaves of nothing

    def step(j: Array, bases: Bases) -> Bases:
        Q_u, H_u = _append(bases.Q_u, bases.H_u, scale * (W @ bases.Q_u[j]), j, least)
        Q_v, H_v = _append(bases.Q_v, bases.H_v, scale * (bases.Q_v[j] @ W), j, least)
        return Bases(Q_u, H_u, Q_v, H_v)

    return lax.fori_loop(jnp.int32(have), jnp.int32(size), step, grown)


def _grow(x: Array, size: int, square: bool) -> Array:
    return jnp.pad(x, ((0, size + 1 - x.shape[0]), (0, size + 1 - x.shape[1] if square else 0)))


def _append(Q: Array, H: Array, w: Array, j: Array, least: Array) -> tuple[Array, Array]:
    """Orthogonalise w twice against the basis, and append what is left of it, if that is more than `least`."""
    first = Q @ w  # (m + 1,)
    w = w - first @ Q
    second = Q @ w
    w = w - second @ Q
    length = jnp.sqrt(w @ w)
    inverse = _inverse(length, least)
    row = jnp.where(jnp.arange(H.shape[0], dtype=j.dtype) == j + 1, length * length * inverse, first + second)
    return (
        lax.dynamic_update_index_in_dim(Q, w * inverse, j + 1, 0),
        lax.dynamic_update_index_in_dim(H, row, j, 0),
    )


def _inverse(length: Array, least: Array | float) -> Array:
    return jnp.where(length > least, 1 / length, 0.0)


def gramians(F: Array, b: Array, c: Array) -> Gramians:
    """Solve the Lyapunov equations of two systems and the Sylvester equation between them.

    Args:
        F: Both system matrices, shape (2, k, k).
        b: Both input vectors, shape (2, k).
        c: Readout of the first system, shape (k,).

    Returns:
        The solutions; meaningless where not stable.
    """
    unit = jnp.eye(F.shape[-1], dtype=F.dtype)
    R = jnp.stack([jnp.linalg.inv(one - SHIFT * unit) for one in F])  # (2, k, k); a batch would compile twice as long
    r = jnp.einsum("aij,aj->ai", R, b)  # (2, k)
    X = 2 * SHIFT * r[:, :, None] * r[:, None, :]  # (2, k, k)
    Y = 2 * SHIFT * jnp.outer(r[1], c @ R[0])  # (k, k)
    eps, start = jnp.finfo(F.dtype).eps, _sizes(X)
    least, most = eps / 2, start / eps**2  # changes that no longer count; a sum that has no limit

    def more(state: Any) -> Array:
        sizes, changes, count = state[3:]
        return jnp.any(changes > least * sizes) & jnp.all(sizes <= most) & (count < _SQUARINGS)

    def square(state: Any) -> Any:
        S, X, Y, _, _, count = state
        change = S @ X @ jnp.swapaxes(S, 1, 2)
        X = X + change
        return S @ S, X, Y + S[1] @ Y @ S[0], _sizes(X), _sizes(change), count + 1

    begin = (unit[None] + 2 * SHIFT * R, X, Y, start, start, jnp.zeros((), jnp.int32))
    _, X, Y, sizes, changes, _ = lax.while_loop(more, square, begin)
    return Gramians(X, Y, sizes, jnp.all((changes <= least * sizes) & (sizes <= most)))


def _sizes(X: Array) -> Array:
    return jnp.sqrt(jnp.sum(X * X, axis=(1, 2)))
