r"""The flow of a fitted network in an orthonormal frame of the space in which its states lie, and its fixed points.

All states are in the span of the columns a (and of those that carry inputs). With an orthonormal frame Q of that span,
$x = Qy$, and without input

$$\tau\,\dot y = -y + Q^\top a\,(c \odot b^\top\varphi(Qy)) ,$$

exactly. Arrows can be drawn in a plane of that space only with the other coordinates held at some value, here at the
mean of the states. In most planes such arrows tell next to nothing of the motion, even in that of the first principal
components: what moves a state within the plane is where it is off it. So the plane is chosen by what its arrows tell:
$1 - \sum|\dot y - \hat{\dot y}|^2/\sum|\dot y|^2$ along trajectories, where $\hat{\dot y}$ is the arrow at the
state's place in the plane, and 0 off it. The first R axes span the columns a, and only planes and velocities there
count: what inputs add at right angles to the columns only decays, which would be told by any arrows.

The network itself moves in Euler steps of one bin, $\alpha = $ bin$/\tau$; a fixed point is one of both,
and is called stable where the steps are: where $|1 + \alpha(\mu - 1)| < 1$ for all eigenvalues $\mu$ of
 $\mathrm{diag}(c)\,b^\top\mathrm{diag}(\varphi')\,a$.
"""

from __future__ import annotations

from itertools import combinations
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linear_sum_assignment

from tauflow.precision import float64
from tauflow.simulate import nonlinearity

FloatArray = NDArray[np.float64]
_NEWTON_STEPS = 40
_REACH = 1.5  # fixed points farther out than this many times the farthest state are beyond what the fit has seen


class StateSpace(NamedTuple):
    r"""A frame of the states of a network, and what moves them there.

    Attributes:
        frame: Q, orthonormal axes, shape (n, K).
        mean: Mean of the states in that frame, shape (K,).
        scatter: Covariance of the states in that frame, shape (K, K).
        write: $Q^\top a$, shape (K, R).
        read: b, shape (n, R).
        phi: Name of the nonlinearity.
        alpha: Step in units of the time constant.
        bin_s: Step in seconds.
    """

    frame: FloatArray
    mean: FloatArray
    scatter: FloatArray
    write: FloatArray
    read: FloatArray
    phi: str
    alpha: float
    bin_s: float

    def reads(self, y: ArrayLike) -> FloatArray:
        r"""$b^\top\varphi(Qy)$, shape (..., R), of states y (..., K)."""
        x = np.asarray(y, np.float64) @ self.frame.T  # (..., n)
        with float64():
            rates = np.asarray(nonlinearity(self.phi)(jnp.asarray(x)))
        return rates @ self.read

    def flow(self, y: ArrayLike, c: ArrayLike) -> FloatArray:
        """Velocity without input in units of the state per second, shape (..., K), of states y and strengths c."""
        y = np.asarray(y, np.float64)
        return (self.alpha / self.bin_s) * ((np.asarray(c, np.float64) * self.reads(y)) @ self.write.T - y)

    def turned(self, turn: ArrayLike) -> StateSpace:
        """The same in other axes, orthonormal columns (K, K) in the present ones, their largest entries positive."""
        new = np.asarray(turn, np.float64)
        frame = self.frame @ new
        new = new * np.where(frame[np.abs(frame).argmax(axis=0), np.arange(frame.shape[1])] < 0, -1.0, 1.0)
        scatter = new.T @ self.scatter @ new
        return self._replace(frame=self.frame @ new, mean=self.mean @ new, scatter=scatter, write=new.T @ self.write)

    def on_plane(self, points: ArrayLike) -> FloatArray:
        """States (..., K) of points (..., 2) of the plane of the first axes, the others at their mean."""
        points = np.asarray(points, np.float64)
        others = np.broadcast_to(self.mean[points.shape[-1] :], (*points.shape[:-1], len(self.mean) - points.shape[-1]))
        return np.concatenate([points, others], axis=-1)


def state_space(
    span: ArrayLike, states: ArrayLike, a: ArrayLike, b: ArrayLike, *, phi: str, alpha: float, bin_s: float
) -> StateSpace:
    """Make the frame of a network's states.

    Args:
        span: Columns whose span holds the states, those of the weights first, shape (n, R + m).
        states: Coordinates of states in these columns, shape (..., R + m).
        a: Columns of the weights, shape (n, R).
        b: Rows of the weights, shape (n, R).
        phi: Name of the nonlinearity.
        alpha: Step in units of the time constant.
        bin_s: Step in seconds.

    Returns:
        `StateSpace`, in the principal axes of the states within the span of a, then others.

    Example:
        >>> z = [[0.0, 0.0], [1.0, 0.0], [0.0, 0.1]]
        >>> space = state_space(np.eye(3)[:, :2], z, np.eye(3)[:, :2], np.eye(3)[:, :2], phi="tanh", alpha=0.1,
        ...                     bin_s=0.01)
        >>> bool(space.frame[0, 0] > 0.99), space.scatter.round(3).diagonal().tolist()
        (True, [0.223, 0.002])
    """
    basis, triangle = np.linalg.qr(np.asarray(span, np.float64))
    y = np.asarray(states, np.float64).reshape(-1, triangle.shape[1]) @ triangle.T  # (state, K)
    mean = y.mean(axis=0)
    scatter = (y - mean).T @ (y - mean) / len(y)
    a, b = (np.asarray(each, np.float64) for each in (a, b))
    plain = StateSpace(basis, mean, scatter, basis.T @ a, b, phi, float(alpha), float(bin_s))
    turn, rank = np.eye(len(mean)), a.shape[1]
    turn[:rank, :rank] = np.linalg.eigh(scatter[:rank, :rank])[1][:, ::-1]
    return plain.turned(turn)


class Telling(NamedTuple):
    """How much of the motion along trajectories, within the span of a, the arrows in a plane tell.

    Attributes:
        all: Share of the squared velocity.
        within: Share of the squared velocity in the plane.
    """

    all: float
    within: float


def telling(space: StateSpace, paths: ArrayLike, strengths: ArrayLike) -> Telling:
    """What arrows in the plane of the first two axes tell of the motion along trajectories.

    Args:
        space: The frame.
        paths: Trajectories in the frame, shape (case, ..., K).
        strengths: Strengths of each case, shape (case, R).
    """
    y = np.asarray(paths, np.float64)
    rank = space.read.shape[1]
    flat = min(2, rank)
    c = np.asarray(strengths, np.float64).reshape(len(y), *(1,) * (y.ndim - 2), -1)
    velocity = space.flow(y, c)[..., :rank]
    arrows = space.flow(space.on_plane(y[..., :flat]), c)[..., :flat]
    missed, inside = ((velocity[..., :flat] - arrows) ** 2).sum(), (velocity[..., :flat] ** 2).sum()
    tiny = np.finfo(float).tiny
    return Telling(float((inside - missed) / max((velocity**2).sum(), tiny)), float(1 - missed / max(inside, tiny)))


def plane_that_tells(space: StateSpace, paths: ArrayLike, strengths: ArrayLike) -> StateSpace:
    """Turn the frame so that its first two axes span the plane whose arrows tell most of the motion.

    Planes are tried that pairs of principal axes, of columns a, of rows b, and of left eigenvectors of the linear flow
    that fits the motion best span: in a linear flow the latter close, as what moves a state within them lies in them.

    Args:
        space: The frame.
        paths: Trajectories in the frame, shape (case, ..., K).
        strengths: Strengths of each case, shape (case, R).

    Returns:
        The frame; its first two axes are the principal ones of the states within the plane.
    """
    y = np.asarray(paths, np.float64)
    rank, turn = space.read.shape[1], np.eye(y.shape[-1])
    if rank <= 2:
        return space
    c = np.asarray(strengths, np.float64).reshape(len(y), *(1,) * (y.ndim - 2), -1)
    near, velocity = (each[..., :rank].reshape(-1, rank) for each in (y, space.flow(y, c)))
    left = np.linalg.eig(np.linalg.lstsq(near, velocity, rcond=None)[0])[1]  # the matrix comes transposed
    rows = (space.frame.T @ space.read)[:rank]
    best, found = -np.inf, space
    for vectors in (np.eye(rank), space.write[:rank], rows, left):
        for i, j in combinations(range(vectors.shape[1]), 2):
            pair = np.stack([part(vectors[:, k]) for k in (i, j) for part in (np.real, np.imag)], axis=1)
            axes = np.linalg.svd(pair)[0]  # a conjugate pair spans one plane, two real ones have no imaginary part
            scatter = axes[:, :2].T @ space.scatter[:rank, :rank] @ axes[:, :2]
            axes[:, :2] = axes[:, :2] @ np.linalg.eigh(scatter)[1][:, ::-1]
            turn[:rank, :rank] = axes
            new = space.turned(turn)
            told = telling(new, y @ space.frame.T @ new.frame, strengths).all
            if told > best + 1e-9:
                best, found = told, new
    return found


class FixedPoints(NamedTuple):
    """Fixed points found at several strengths; NaN and -1 where there are fewer than elsewhere.

    Attributes:
        y: In the frame, shape (case, point, K).
        unstable: Number of directions in which deviations grow, shape (case, point).
    """

    y: FloatArray
    unstable: NDArray[np.int64]


def fixed_points(space: StateSpace, strengths: ArrayLike, starts: ArrayLike) -> FixedPoints:
    """Find fixed points of the network without input by Newton's method from many starts.

    Args:
        space: The frame.
        strengths: Strengths c of each case, shape (case, R).
        starts: States in the frame to start from, shape (case, start, K); what is found farther out than 1.5 times
            the farthest of them is left out.

    Returns:
        `FixedPoints`, by their distance from the origin. Those near a start are usually found; others may be missed.

    Example:
        >>> one = np.ones((1, 1))
        >>> space = StateSpace(one, np.zeros(1), one, one, one, "tanh", 0.1, 0.01)
        >>> found = fixed_points(space, [[1.5]], [[[-2.0], [0.1], [2.0]]])
        >>> found.y[0, :, 0].round(4).tolist(), found.unstable[0].tolist()  # x = 1.5 tanh x
        ([0.0, -1.2878, 1.2878], [1, 0, 0])
    """
    c, y0 = np.asarray(strengths, np.float64), np.asarray(starts, np.float64)
    reach = float(np.linalg.norm(y0, axis=-1).max(initial=0.0)) or 1.0
    ends, off, slopes = _newton(space, c, y0, reach)
    found, counts = [], []
    for y, miss, slope in zip(ends, off, slopes, strict=True):
        good = np.isfinite(y).all(axis=1) & (miss < 1e-8 * reach) & (np.linalg.norm(y, axis=1) < _REACH * reach)
        kept: list[int] = []
        for i in sorted(np.flatnonzero(good), key=lambda i: (round(float(np.linalg.norm(y[i])) / reach, 6), *y[i])):
            if all(np.linalg.norm(y[i] - y[j]) > 1e-4 * reach for j in kept):
                kept.append(int(i))
        values = 1 + space.alpha * np.linalg.eigvals(slope[kept]) if kept else np.zeros((0, 1))
        found.append(y[kept])
        counts.append((np.abs(values) >= 1).sum(axis=-1))
    most = max(map(len, found), default=0)
    whole = np.full((len(found), most, y0.shape[-1]), np.nan)
    unstable = np.full((len(found), most), -1)
    for k, (y, count) in enumerate(zip(found, counts, strict=True)):
        whole[k, : len(y)], unstable[k, : len(y)] = y, count
    return FixedPoints(whole, unstable.astype(np.int64))


def _newton(space: StateSpace, c: FloatArray, starts: FloatArray, reach: float) -> tuple[FloatArray, ...]:
    """Where Newton's method ends, how far from rest, and the Jacobian there, (case, start, ...)."""
    with float64():
        phi, frame, write, read = nonlinearity(space.phi), *map(jnp.asarray, (space.frame, space.write, space.read))

        def still(y: jax.Array, c: jax.Array) -> jax.Array:
            return write @ (c * (phi(frame @ y) @ read)) - y  # (K,)

        def step(_: int, y: jax.Array, c: jax.Array) -> jax.Array:
            move = jnp.linalg.solve(jax.jacfwd(still)(y, c), still(y, c))
            return y - move * jnp.minimum(1.0, 0.3 * reach / jnp.maximum(jnp.linalg.norm(move), 1e-300))

        def end(y: jax.Array, c: jax.Array) -> tuple[jax.Array, ...]:
            y = jax.lax.fori_loop(0, _NEWTON_STEPS, lambda i, y: step(i, y, c), y)
            return y, jnp.linalg.norm(still(y, c)), jax.jacfwd(still)(y, c)

        ends = jax.jit(jax.vmap(jax.vmap(end, (0, None)), (0, 0)))(jnp.asarray(starts), jnp.asarray(c))
        return tuple(np.asarray(each) for each in ends)


def tracked(values: ArrayLike) -> NDArray[np.complex128]:
    """Order eigenvalues so that each column goes on where it was of late, with the least sum of moves.

    Where a column was of late is an average over the trials before that halves from one to the next, so that a complex
    pair that has been real for a moment goes on as before.

    Args:
        values: Eigenvalues of each trial in any order, shape (trial, R).

    Returns:
        The same numbers, columns by falling mean modulus.

    Example:
        >>> tracked([[1.0, 0.5], [0.5, 1.1], [1.2, 0.4]]).real.tolist()
        [[1.0, 0.5], [1.1, 0.5], [1.2, 0.4]]
    """
    out = np.array(values, np.complex128)
    late = out[0]
    for k in range(1, len(out)):
        _, order = linear_sum_assignment(np.abs(late[:, None] - out[k][None]))
        out[k] = out[k][order]
        late = (late + out[k]) / 2
    return out[:, np.argsort(-np.abs(out).mean(axis=0), kind="stable")]
