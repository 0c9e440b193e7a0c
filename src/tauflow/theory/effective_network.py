r"""A network of few neurons that learns as a large one does: its loss, gradient and flow, and how a bulk dresses it.

In units where a network of N neurons has $\hat u = u/\sqrt N$, $\hat v = v/\sqrt N$ and $M = W/\sqrt N$, its
filter is $f(t) = \hat v^Te^{(M-1)t}\hat u/\gamma_0$, and mean-field rates $\eta = \gamma_0^2N$ on $u$, $v$ and $W$
are the plain flow $\theta' = -\gamma_0^2\,\partial L/\partial\theta$ of $(\hat u, \hat v, M)$: N no longer appears.
So **a subspace that holds $\hat u$ and $\hat v$ and that M and its transpose map to itself holds the whole flow**, and
the network in it is a network of few neurons (F8-F17). With a target $f_*(t) = c_*^Te^{A_*t}b_*$, $A = M - 1$, and

$$ AP + PA^T + uu^T = 0, \quad A^TQ + QA + vv^T = 0, \quad AX + XA_*^T + ub_*^T = 0,
   \quad A^TY + YA_* + vc_*^T = 0, $$

everything is in closed form:

$$ L = \frac{v^TPv}{\gamma_0^2} - \frac{2v^TXc_*}{\gamma_0} + L_*, \quad
   \frac{\partial L}{\partial u} = \frac{2Qu}{\gamma_0^2} - \frac{2Yb_*}{\gamma_0}, \quad
   \frac{\partial L}{\partial v} = \frac{2Pv}{\gamma_0^2} - \frac{2Xc_*}{\gamma_0}, \quad
   \frac{\partial L}{\partial M} = \frac{2QP}{\gamma_0^2} - \frac{2YX^T}{\gamma_0} . $$

**What a random bulk adds.** The rest of a network, $\sigma G$ with independent entries of variance $1/N$, takes a
vector of the subspace out of it. For large N, $\sigma G$ and its transpose act on the vectors that they make as
$\sigma(\ell_1 + \ell_2^*)$ and $\sigma(\ell_1^* + \ell_2)$: $\ell_1$ and $\ell_2$ each put a letter in front of a
word, words are orthogonal, and the empty words are the subspace itself. Every way out and back costs $\sigma^2$, so a
network on the words of up to m letters, $k(2^{m+1} - 1)$ neurons, leaves out terms of order $\sigma^{2m+2}$; without
letters it is the paper's reduction, `dress` makes the others. `project` takes the words that a given network's own
weights make.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.integrate import solve_ivp
from scipy.linalg import get_lapack_funcs, schur

from tauflow.analysis.arguments import FloatArray, matrix, real_array, whole_number
from tauflow.tasks.filters import FilterTask, Realisation
from tauflow.theory._arguments import as_positive, as_sigma, as_tau

_DEPENDENT = 1e-9  # length that a vector has left where it counts as dependent on others
_VECTORS = "vectors of finite numbers, shape (..., k), with k that of M"


class EffectiveNetwork(NamedTuple):
    """A network of k neurons, or a gradient with respect to it.

    Attributes:
        u: Read-in, shape (..., k); u/√N of a large network.
        v: Readout, shape (..., k); v/√N.
        M: Recurrent weights, shape (..., k, k); W/√N.
    """

    u: FloatArray
    v: FloatArray
    M: FloatArray


class EffectiveFlow(NamedTuple):
    """An effective network along its flow.

    Attributes:
        u: Read-in, shape (..., k).
        v: Readout, shape (..., k).
        M: Recurrent weights, shape (..., k, k).
        loss: The loss, shape (...), +inf where the network is unstable.
    """

    u: FloatArray
    v: FloatArray
    M: FloatArray
    loss: FloatArray


def effective_loss(u: ArrayLike, v: ArrayLike, M: ArrayLike, target: FilterTask, gamma0: ArrayLike = 1.0) -> FloatArray:
    r"""Exact loss of an effective network, $\int_0^\infty(f - f_*)^2\,dt$.

    Args:
        u: Read-in, shape (..., k).
        v: Readout, shape (..., k).
        M: Recurrent weights, shape (..., k, k).
        target: A target filter that a linear system realises.
        gamma0: Richness γ₀ > 0, shape (...).

    Returns:
        L, shape (...), in squared units of the filter times membrane times; +inf where M - 1 is unstable.

    Raises:
        ValueError: If an argument is out of range, the shapes do not fit, or the target has no realisation.

    Assumes: nothing; exact.
    Source: bordelon2025, Eqs. B2 and F12. Deviation from print: (B2) as the mean squared error of the stationary
        answer; closed form by this library.

    Example:
        >>> from tauflow.tasks import LeakyIntegrator
        >>> round(float(effective_loss([1.0], [1.0], [[0.5]], LeakyIntegrator(0.25))), 6)
        0.333333
    """
    (above,) = _each(_excess, u, v, M, target, gamma0)
    return above + target.squared_norm


def effective_gradient(
    u: ArrayLike, v: ArrayLike, M: ArrayLike, target: FilterTask, gamma0: ArrayLike = 1.0
) -> EffectiveNetwork:
    r"""Gradient of `effective_loss` with respect to u, v and M.

    Args:
        u: Read-in, shape (..., k).
        v: Readout, shape (..., k).
        M: Recurrent weights, shape (..., k, k), with M - 1 stable.
        target: A target filter that a linear system realises.
        gamma0: Richness γ₀ > 0, shape (...).

    Returns:
        `EffectiveNetwork` of ∂L/∂u, ∂L/∂v and ∂L/∂M. Mean-field learning is minus γ₀² times it.

    Raises:
        ValueError: If an argument is out of range, the shapes do not fit, or the target has no realisation.

    Assumes: nothing; exact.
    Source: bordelon2025, Eqs. F13-F16. Deviation from print: (F13)-(F15) lack a factor 2, and the adjoint in (F16)
        starts from v.

    Example:
        >>> from tauflow.tasks import LeakyIntegrator
        >>> effective_gradient([1.0], [1.0], [[0.5]], LeakyIntegrator(0.5)).M
        array([[0.]])
    """
    return EffectiveNetwork(*_each(_gradient, u, v, M, target, gamma0))


def effective_flow(
    tau: ArrayLike, u: ArrayLike, v: ArrayLike, M: ArrayLike, target: FilterTask, gamma0: float = 1.0
) -> EffectiveFlow:
    r"""Mean-field gradient flow of an effective network, $\theta' = -\gamma_0^2\,\partial L/\partial\theta$.

    Args:
        tau: Learning times >= 0, in flow units, any shape (...) and order.
        u: Initial read-in, shape (k,).
        v: Initial readout, shape (k,).
        M: Initial recurrent weights, shape (k, k), with M - 1 stable.
        target: A target filter that a linear system realises.
        gamma0: Richness γ₀ > 0.

    Returns:
        `EffectiveFlow` at these times, integrated to a relative error of about 1e-8 by a method that may be as stiff
        as it needs to be.

    Raises:
        ValueError: If an argument is out of range, the shapes do not fit, the network is unstable at the start, or the
            target has no realisation.

    Assumes: mean-field rates γ₀²N on u, v and W, gradient flow.
    Source: bordelon2025, Eqs. F13-F17. Deviation from print: (F13)-(F15) lack a factor 2. The six-parameter model
        (5) is not this flow: u and v are driven by e^{M't}v and e^{Mt}u, and so cannot stay equal.

    Example:
        >>> from tauflow.tasks import LeakyIntegrator
        >>> end = effective_flow(50.0, [0.1], [0.1], [[0.0]], LeakyIntegrator(0.5))
        >>> np.round(1 - end.M, 6)
        array([[0.5]])
    """
    times, system = as_tau(tau), _realisation(target)
    start, shape, gains = _network(u, v, M, "gamma0", as_positive("gamma0", gamma0))
    if shape:
        raise ValueError(f"u, v, M and gamma0 are those of networks {shape}; they must be those of one network.")
    gain = float(gains[0])
    if not np.isfinite(_excess(*start, system, gain)[0]):
        raise ValueError("M has an eigenvalue with real part >= 1; it must have none, so that the network is stable.")
    k, ascending, back = len(start.u), *np.unique(times.ravel(), return_inverse=True)

    def slope(_: float, flat: FloatArray) -> FloatArray:
        return -(gain**2) * np.concatenate([g.ravel() for g in _gradient(*_parted(flat, k), system, gain)])

    path = _integrated(slope, np.concatenate([part.ravel() for part in start]), ascending)[back]  # (time, k² + 2k)
    loss = target.squared_norm + np.array([_excess(*_parted(flat, k), system, gain)[0] for flat in path])
    parts = [p.reshape(*times.shape, *p.shape[1:]) for p in (path[:, :k], path[:, k : 2 * k], path[:, 2 * k :])]
    return EffectiveFlow(parts[0], parts[1], parts[2].reshape(*times.shape, k, k), loss.reshape(times.shape))


def dress(u: ArrayLike, v: ArrayLike, M: ArrayLike, sigma: ArrayLike, letters: int = 1) -> EffectiveNetwork:
    r"""Add to an effective network what a random bulk of radius sigma does to it, in powers of $\sigma^2$.

    Args:
        u: Read-in, shape (..., k).
        v: Readout, shape (..., k).
        M: Recurrent weights within the subspace, shape (..., k, k).
        sigma: Standard deviation of the entries of the bulk in W, in (0, 1), shape (...).
        letters: How many letters a word may have, >= 0; 0 gives the network back.

    Returns:
        `EffectiveNetwork` of k(2^(letters+1) - 1) neurons; the first k are those given.

    Raises:
        ValueError: If an argument is out of range or the shapes do not fit.

    Assumes: large N; a bulk of independent entries, independent of the subspace.
    Source: this library: the bulk is a circular element on a Fock space. bordelon2025 leaves it out (E8, F9).

    Example:
        >>> dress([1.0], [1.0], [[0.0]], 0.1, letters=1).M
        array([[0. , 0. , 0.1],
               [0.1, 0. , 0. ],
               [0. , 0. , 0. ]])
    """
    whole_number("letters", letters, 0)
    within, shape, spread = _network(u, v, M, "sigma", as_sigma(sigma))
    s = spread.reshape(shape)
    words, k = 2 ** (letters + 1) - 1, within.u.shape[-1]
    node = np.arange(2**letters - 1)  # word i followed by its two longer ones, 2i + 1 and 2i + 2
    step = np.zeros((words, words))
    step[2 * node + 1, node] = step[node, 2 * node + 2] = 1.0
    whole = np.kron(step, np.eye(k)) * s[..., None, None]  # (..., words k, words k)
    whole[..., :k, :k] += within.M
    outside = np.zeros((*shape, (words - 1) * k))
    return EffectiveNetwork(np.concatenate([within.u, outside], -1), np.concatenate([within.v, outside], -1), whole)


def project(u: ArrayLike, v: ArrayLike, W: ArrayLike, vectors: ArrayLike, factors: int = 0) -> EffectiveNetwork:
    r"""Project a network on what some vectors become under up to `factors` factors $W/\sqrt N$ or $W^T/\sqrt N$.

    Args:
        u: Read-in, shape (n,).
        v: Readout, shape (n,).
        W: Recurrent weights, before their factor 1/√N, shape (n, n).
        vectors: Vectors to begin with, shape (m, n).
        factors: How many factors, >= 0; 0 for the span of the vectors themselves.

    Returns:
        `EffectiveNetwork` of m(2^(factors+1) - 1) neurons, or fewer where the vectors depend on each other. Its flow is
        that of the network up to errors of order $\sigma^{2\,\text{factors}+2}$ if the span holds u, v and whatever is
        large in W, and the rest of W/√N has radius $\sigma$.

    Raises:
        ValueError: If an argument is not finite, the shapes do not fit, or all vectors are 0.

    Assumes: small weights outside the span.
    Source: bordelon2025, Eqs. F8-F12, which has no factors and two vectors of the planted plane; factors by
        this library. Deviation from print: none.

    Example:
        >>> project([2.0, 0.0], [2.0, 0.0], np.zeros((2, 2)), [[1.0, 0.0]]).u.round(4)
        array([1.4142])
    """
    whole_number("factors", factors, 0)
    W_ = np.asarray(matrix("W", real_array("W", W, wanted="a square matrix of finite numbers"), square=True))
    first, second = (
        real_array(name, x, wanted="a vector, shape (n,)", minimum_ndim=1) for name, x in (("u", u), ("v", v))
    )
    start = real_array("vectors", vectors, wanted="vectors of finite numbers, shape (m, n)", minimum_ndim=2)
    n = len(W_)
    if W_.ndim != 2 or first.shape != (n,) or second.shape != (n,) or start.shape[1:] != (n,):
        shapes = f"u {first.shape}, v {second.shape}, W {W_.shape}, vectors {start.shape}"
        raise ValueError(f"The shapes do not fit together: {shapes}; they must be (n,), (n,), (n, n) and (m, n).")
    M, basis = W_ / np.sqrt(n), _orthonormal(start, start[:0])
    newest = basis
    for _ in range(factors):
        newest = _orthonormal(np.concatenate([newest @ M.T, newest @ M]), basis)
        basis = np.concatenate([basis, newest])  # (k, n)
    if not len(basis):
        raise ValueError("vectors are all 0; one of them must not be.")
    return EffectiveNetwork(basis @ first / np.sqrt(n), basis @ second / np.sqrt(n), basis @ M @ basis.T)


def _orthonormal(rows: FloatArray, basis: FloatArray) -> FloatArray:
    """Orthonormal basis, in rows, of what `rows` add to the span of an orthonormal `basis`."""
    size = np.linalg.norm(rows, axis=1, keepdims=True)
    rows = rows[size[:, 0] > 0] / size[size[:, 0] > 0]
    for _ in range(2):
        rows = rows - (rows @ basis.T) @ basis
    _, s, directions = np.linalg.svd(rows, full_matrices=False)
    return directions[s > _DEPENDENT]


def _network(
    u: ArrayLike, v: ArrayLike, M: ArrayLike, name: str, scale: FloatArray
) -> tuple[EffectiveNetwork, tuple[int, ...], FloatArray]:
    """Check a network and broadcast it with a scale; return it, the leading shape, and the scale flattened."""
    weights = np.asarray(matrix("M", real_array("M", M, wanted="square matrices of finite numbers"), square=True))
    read_in, readout = (real_array(each, x, wanted=_VECTORS, minimum_ndim=1) for each, x in (("u", u), ("v", v)))
    k, given = weights.shape[-1], {"u": read_in.shape, "v": readout.shape, "M": weights.shape, name: scale.shape}
    try:
        if read_in.shape[-1] != k or readout.shape[-1] != k:
            raise ValueError
        shape = np.broadcast_shapes(read_in.shape[:-1], readout.shape[:-1], weights.shape[:-2], scale.shape)
    except ValueError:
        told = ", ".join(f"{each} {found}" for each, found in given.items())
        raise ValueError(
            f"The shapes do not fit together: {told}; u and v need (..., k) where M has (..., k, k)."
        ) from None
    first, second = (np.broadcast_to(x, (*shape, k)) for x in (read_in, readout))
    whole = EffectiveNetwork(first, second, np.broadcast_to(weights, (*shape, k, k)))
    return whole, shape, np.broadcast_to(scale, shape).ravel()


def _each(
    function: Callable[..., tuple], u: ArrayLike, v: ArrayLike, M: ArrayLike, target: FilterTask, gamma0: ArrayLike
) -> list[FloatArray]:
    """Apply a function of one network to a stack of them."""
    system = _realisation(target)
    stack, shape, gains = _network(u, v, M, "gamma0", as_positive("gamma0", gamma0))
    k = stack.u.shape[-1]
    rows = zip(stack.u.reshape(-1, k), stack.v.reshape(-1, k), stack.M.reshape(-1, k, k), gains, strict=True)
    found = [function(*one, system, gain) for *one, gain in rows]
    return [np.stack(part).reshape((*shape, *np.shape(part[0]))) for part in zip(*found, strict=True)]


def _realisation(target: FilterTask) -> Realisation:
    system = target.realisation() if isinstance(target, FilterTask) else None
    if system is None:
        raise ValueError(
            f"target is {target!r}; it must be a filter that a small linear system has, such as LeakyIntegrator(0.2)."
        )
    return system


def _gramians(u: FloatArray, v: FloatArray, M: FloatArray, system: Realisation) -> tuple[FloatArray, ...]:
    """P, Q, X and Y of the module's head, from one Schur form of A."""
    T, Z = schur(M - np.eye(len(u)))
    (solve,) = get_lapack_funcs(("trsyl",), (T,))
    S, B = schur(system.A)

    def solved(other: FloatArray, source: FloatArray, **transposed: str) -> FloatArray:
        x, scale, _ = solve(T, other, source, **transposed)
        return x * (1 / scale)

    a, b = Z.T @ u, Z.T @ v
    P = solved(T, -np.outer(a, a), tranb="T")
    Q = solved(T, -np.outer(b, b), trana="T")
    X = solved(S, -np.outer(a, B.T @ system.b), tranb="T")
    Y = solved(S, -np.outer(b, B.T @ system.c), trana="T")
    return Z @ P @ Z.T, Z @ Q @ Z.T, Z @ X @ B.T, Z @ Y @ B.T


def _excess(u: FloatArray, v: FloatArray, M: FloatArray, system: Realisation, gamma0: float) -> tuple[float]:
    """The loss without the target's squared norm, the loss of a network that does nothing."""
    if np.linalg.eigvals(M).real.max() >= 1:
        return (np.inf,)
    P, _, X, _ = _gramians(u, v, M, system)
    return (float(v @ P @ v / gamma0**2 - 2 * v @ X @ system.c / gamma0),)


def _gradient(u: FloatArray, v: FloatArray, M: FloatArray, system: Realisation, gamma0: float) -> EffectiveNetwork:
    P, Q, X, Y = _gramians(u, v, M, system)
    return EffectiveNetwork(
        2 / gamma0**2 * Q @ u - 2 / gamma0 * Y @ system.b,
        2 / gamma0**2 * P @ v - 2 / gamma0 * X @ system.c,
        2 / gamma0**2 * Q @ P - 2 / gamma0 * Y @ X.T,
    )


def _parted(flat: FloatArray, k: int) -> EffectiveNetwork:
    return EffectiveNetwork(flat[:k], flat[k : 2 * k], flat[2 * k :].reshape(k, k))


def _integrated(slope: Callable[[float, FloatArray], FloatArray], start: FloatArray, times: FloatArray) -> FloatArray:
    """The solution at ascending times, shape (time, parameter)."""
    if times[-1] == 0:
        return np.repeat(start[None], len(times), axis=0)
    path = solve_ivp(slope, (0.0, times[-1]), start, "LSODA", t_eval=times, rtol=1e-9, atol=1e-11)
    if path.status < 0:
        raise RuntimeError(f"The flow of the effective network could not be integrated: {path.message}")
    return np.asarray(path.y).T
