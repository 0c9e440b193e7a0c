r"""The exact population loss of a linear network that learns to filter white noise, and its exact gradient.

The stationary error variance under white noise, which is also the squared error of the impulse response, is

$$ L = \int_0^\infty (f(t) - f_\star(t))^2\,dt, \qquad f(t) = \kappa\,v^T e^{At} u, \quad A = -I + W/\sqrt N . $$

With $g = f - f_\star$, $u(t) = e^{At}u$ and $v(t) = e^{A^Tt}v$ its gradient is

$$ \nabla_u L = 2\kappa\int g(t)\,v(t)\,dt, \quad \nabla_v L = 2\kappa\int g(t)\,u(t)\,dt, \quad
   \nabla_W L = \frac{2\kappa}{\sqrt N}\iint g(s + r)\,v(s)\,u(r)^T\,ds\,dr . $$

All of it is computed in Krylov bases of $(W, u)$ and $(W^T, v)$ (`tauflow.krylov`). A target that is a sum of
exponentials, $f_\star = c_\star^Te^{A_\star t}b_\star$, joins the small system as a block of its own, so that the loss
is one Gramian of it and the double integral the product of a Sylvester solution and that Gramian: nothing is
integrated over time, and the only large products are those of $W$ with one vector after the other. A sampled target
brings a matrix polynomial instead.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.custom_derivatives import SymbolicZero
from jax.scipy.linalg import block_diag, expm

from tauflow import krylov

_UNDECIDED = 1e-4  # residual above which a network of many units whose basis is at its largest counts as unstable


class FilterLoss(eqx.Module):
    r"""Squared distance of a linear network's impulse response from a target filter, $\int_0^\infty(f - f_\star)^2dt$.

    It is the stationary mean squared error under white noise of unit density. It is +inf where the network is
    unstable: where a growing mode is reached by the input or seen by the readout. Modes
    whose relative amplitude in u and v is below the root of the tolerance may go unseen. Beyond `tauflow.krylov.SMALL`
    units a network whose basis of `tauflow.krylov.LARGEST` vectors leaves a residual above
    1e-4, which takes a spectral abscissa within about 0.01 of zero, counts as unstable too.

    Attributes:
        target: The target, of `tauflow.tasks`: `LeakyIntegrator`, `DampedOscillator`, `ExponentialSum`,
            `SampledFilter`.
        tolerance: Residual of the Lyapunov equations, relative to |u|² and |v|², at which a basis is large enough;
            None for 1e-10 up to `tauflow.krylov.SMALL` units and 1e-6 beyond and in float32. Loss and gradient
            are then right to 1e-8, and to 1e-5 at N = 4000.

    Source: bordelon2025, Eqs. B2, B8, B9, B14 and B15. Deviation from print: the expectation in B2 diverges; this is
        the error per unit time (or of one impulse). B15 and the lines before it lack a factor 2, since the loss has
        no ½.

    Example:
        >>> import jax
        >>> from tauflow.networks import ContinuousLinearRNN
        >>> from tauflow.tasks import LeakyIntegrator
        >>> one = ContinuousLinearRNN(jnp.zeros((1, 1)), jnp.ones((1, 1)), jnp.ones((1, 1)))  # f = exp(-t)
        >>> round(float(FilterLoss(LeakyIntegrator(0.5))(one)), 4)  # 1/2 - 2/1.5 + 1
        0.1667
    """

    name: ClassVar[str] = "filter-loss"
    target: Any
    tolerance: float | None = eqx.field(static=True, default=None)

    def __check_init__(self) -> None:
        wanted = ("realisation", "squared_norm")
        if not all(hasattr(self.target, name) for name in wanted):
            raise ValueError(
                f"target is {self.target!r}; it must be a filter, for example FilterLoss(LeakyIntegrator(0.2)) with "
                "LeakyIntegrator from tauflow.tasks."
            )
        if self.tolerance is not None and not 0 < self.tolerance < 1:
            raise ValueError(f"tolerance is {self.tolerance!r}; it must be a number between 0 and 1, or None.")

    @property
    def task(self) -> Any:
        """The target, under the name that every objective has for what it asks."""
        return self.target

    def bare(self) -> BareFilterLoss:
        """The same loss with its numbers as arrays: losses of equal structure share their compiled programs."""
        realisation = self.target.realisation()
        norm = np.asarray(self.target.squared_norm, np.float64)
        if realisation is None:
            spacing = np.asarray(self.target.spacing, np.float64)
            numbers: _Exponentials | _Samples = _Samples(np.asarray(self.target.samples, np.float64), spacing, norm)
        else:
            numbers = _Exponentials(*(np.asarray(x, np.float64) for x in realisation))
        return BareFilterLoss(numbers, self.tolerance)

    def __call__(self, network: Any, key: Array | None = None) -> Array:
        """Return the loss, a scalar in the precision of the network; +inf if the network is unstable.

        Args:
            network: A `ContinuousLinearRNN`, or whatever has its `W (n, n)`, `u (n,)`, `v (n,)` and `readout_scale`.
            key: Ignored, since nothing is drawn.

        Raises:
            ValueError: If the network is not a linear one with one input and one output.
        """
        return self.bare()(network, key)


class _Exponentials(NamedTuple):
    """A target c'exp(At)b: system matrix (k, k), input (k,), readout (k,)."""

    A: Any
    b: Any
    c: Any


class _Samples(NamedTuple):
    """A target that is linear between samples: values (time,), their spacing, the integral of its square."""

    values: Any
    spacing: Any
    norm: Any


class BareFilterLoss(eqx.Module):
    """A `FilterLoss` reduced to its arrays; made by `FilterLoss.bare`."""

    numbers: _Exponentials | _Samples
    tolerance: float | None = eqx.field(static=True)

    def __call__(self, network: Any, key: Array | None = None) -> Array:
        """The loss of the network, see `FilterLoss.__call__`."""
        W, u, v, readout_scale = _parameters(network)
        numbers = jax.tree.map(lambda x: jnp.asarray(x, W.dtype), self.numbers)
        return _loss(W, u, v, numbers, float(readout_scale), self.used_tolerance(W))

    def used_tolerance(self, W: Array) -> float:
        """The tolerance for a network with these weights."""
        if self.tolerance is not None:
            return self.tolerance
        if W.dtype != jnp.float64:
            return 1e-6
        return 1e-10 if W.shape[0] <= krylov.SMALL else 1e-6


def _parameters(network: Any) -> tuple[Array, Array, Array, float]:
    names = ("W", "u", "v", "readout_scale")
    if not all(hasattr(network, name) for name in names):
        raise ValueError(
            f"the network is a {type(network).__name__}; the filter loss is that of a ContinuousLinearRNN, "
            "for example ContinuousLinearRNN.random(250, sigma=0.2, key=key)."
        )
    W = jnp.asarray(network.W)
    return W, network.u, network.v, network.readout_scale


@partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _loss(W: Array, u: Array, v: Array, numbers: Any, kappa: float, tolerance: float) -> Array:
    return _evaluate(W, u, v, numbers, kappa, tolerance, with_W=False)[0]


def _forward(W: Any, u: Any, v: Any, numbers: Any, kappa: float, tolerance: float) -> tuple[Array, tuple[Any, ...]]:
    if any(number.perturbed for number in numbers):
        raise TypeError("the gradient for the target was asked for; the filter loss has those of W, u and v alone.")
    values = type(numbers)(*(number.value for number in numbers))
    loss, *gradient = _evaluate(W.value, u.value, v.value, values, kappa, tolerance, with_W=W.perturbed)
    return loss, (*gradient, values)


def _backward(kappa: float, tolerance: float, residuals: tuple[Any, ...], cotangent: Any) -> tuple[Any, ...]:
    *gradient, values = residuals
    nothing = jax.tree.map(jnp.zeros_like, values)
    if isinstance(cotangent, SymbolicZero):
        return (*(None if part is None else jnp.zeros_like(part) for part in gradient), nothing)
    return (*(None if part is None else cotangent * part for part in gradient), nothing)


_loss.defvjp(_forward, _backward, symbolic_zeros=True)


def _evaluate(
    W: Array, u: Array, v: Array, numbers: _Exponentials | _Samples, kappa: float, tolerance: float, with_W: bool
) -> tuple[Array, Array | None, Array, Array]:
    """Loss and its gradients for W (None unless wanted), u and v."""
    sizes = krylov.stages(W.shape[0])
    scale = 1 / math.sqrt(W.shape[0])

    def attempt(stage: int, bases: krylov.Bases) -> tuple[Array, Array | None, Array, Array]:
        size, last = sizes[stage], stage == len(sizes) - 1
        bases = krylov.extend(W, scale, bases, size)
        small = _Small.of(bases, lengths, kappa, v, numbers)
        equations = krylov.gramians(small.F, small.b, small.c)
        residual = _residual(bases, equations, lengths, size)

        def finish() -> tuple[Array, Array | None, Array, Array]:
            decided = residual < _UNDECIDED if last and size < W.shape[0] else True
            loss, core, on_u, on_v = small.finish(equations, numbers)
            Q_u, Q_v = bases.Q_u[:size], bases.Q_v[:size]  # (m, n)
            in_W = (2 * kappa * scale) * (Q_v.T @ core) @ Q_u if with_W else None  # (n, n)
            loss = jnp.where(equations.stable & decided, jnp.maximum(loss, 0.0), jnp.inf)
            return loss, in_W, 2 * kappa * (on_u @ Q_v), 2 * kappa * (on_v @ Q_u)

        if last:
            return finish()
        return lax.cond(residual < tolerance, finish, lambda: attempt(stage + 1, bases))

    bases, *lengths = krylov.begin(u, v)
    return attempt(0, bases)


def _residual(bases: krylov.Bases, equations: krylov.Gramians, lengths: list[Array], size: int) -> Array:
    """Norms of the residuals of both Lyapunov equations, the larger one.

    They are relative to |u|² and |v|² or, where something grows, to the Gramians.
    """
    last = equations.X[:, size - 1, :size]  # (2, m)
    left = jnp.stack([bases.H_u[size - 1, size], bases.H_v[size - 1, size]]) * jnp.sqrt(
        2 * jnp.sum(last * last, axis=1)
    )
    squares = jnp.stack([length * length for length in lengths])
    whole = jnp.where(equations.stable, squares, equations.sizes)
    return jnp.max(jnp.where(whole > 0, left / whole, 0.0))


class _Small(NamedTuple):
    """The projected problem: the network's own system (with the target's, if it has one) and that of the readout."""

    F: Array
    b: Array
    c: Array
    size: int

    @classmethod
    def of(cls, bases: krylov.Bases, lengths: list[Array], kappa: float, v: Array, numbers: Any) -> _Small:
        size = bases.Q_u.shape[0] - 1
        unit = jnp.eye(size, dtype=v.dtype)
        F_u, F_v = (H[:size, :size].T - unit for H in (bases.H_u, bases.H_v))
        b_u, b_v = (length * unit[0] for length in lengths)
        c = kappa * (bases.Q_u[:size] @ v)  # (m,)
        if isinstance(numbers, _Exponentials):
            extra = numbers.b.shape[0]
            F_u, F_v = block_diag(F_u, numbers.A), block_diag(F_v, -jnp.eye(extra, dtype=v.dtype))
            b_u, b_v = jnp.concatenate([b_u, numbers.b]), jnp.pad(b_v, (0, extra))
            c = jnp.concatenate([c, -numbers.c])
        return cls(jnp.stack([F_u, F_v]), jnp.stack([b_u, b_v]), c, size)

    def finish(self, equations: krylov.Gramians, numbers: Any) -> tuple[Array, Array, Array, Array]:
        """Loss, the core of W's gradient (m, m), and the gradients of u and v in the bases, (m,) each."""
        m, c = self.size, self.c
        P, Y = equations.X[0], equations.Y
        Pc = P @ c
        loss, core, on_u, on_v = c @ Pc, (Y @ P[:, :m])[:m], (Y @ self.b[0])[:m], Pc[:m]
        if isinstance(numbers, _Exponentials):
            return loss, core, on_u, on_v
        between, target_v, target_u = _against_samples(self.F, self.b, numbers)
        return loss - 2 * c @ target_u + numbers.norm, core - between, on_u - target_v, on_v - target_u


def _against_samples(F: Array, b: Array, target: _Samples) -> tuple[Array, Array, Array]:
    r"""Integrals of a sampled target: ∫∫f⋆(s + r) v(s) u(r)ᵀ ds dr, ∫f⋆ v dt and ∫f⋆ u dt in the bases.

    With G = [[F_v, b_v b_uᵀ], [0, F_uᵀ]] they are blocks of ∫f⋆(t) exp(Gt) dt, which for a target that is linear
    between samples is a polynomial in E = exp(G Δ), times two weights.
    """
    m = F.shape[-1]
    G = jnp.block([[F[1], jnp.outer(b[1], b[0])], [jnp.zeros_like(F[0]), F[0].T]])  # (2m, 2m)
    unit, zero = jnp.eye(2 * m, dtype=F.dtype), jnp.zeros_like(G)
    step = target.spacing
    phi = expm(jnp.block([[step * G, unit, zero], [zero, zero, unit], [zero, zero, zero]]))
    E, both, first = phi[: 2 * m, : 2 * m], step * phi[: 2 * m, 2 * m : 4 * m], step * phi[: 2 * m, 4 * m :]
    rising = jnp.stack([target.values[:-1], target.values[1:]])  # (2, intervals)
    sums = _polynomials(E, rising)
    S = first @ sums[0] + (both - first) @ sums[1]
    return S[:m, m:], S[:m, :m] @ b[1], S[m:, m:].T @ b[0]


def _polynomials(E: Array, coefficients: Array) -> Array:
    """Sums over i of coefficients[a, i] E^i, shape (a, k, k), by Horner's rule in blocks of powers of E."""
    count = coefficients.shape[1]
    block = math.ceil(math.sqrt(count))
    padded = jnp.pad(coefficients, ((0, 0), (0, -count % block)))
    powers = lax.associative_scan(jnp.matmul, jnp.broadcast_to(E, (block, *E.shape)))  # E^1 .. E^block
    unit = jnp.eye(E.shape[0], dtype=E.dtype)[None]
    inner = jnp.concatenate([unit, powers[:-1]])  # E^0 .. E^(block - 1)
    rows = padded.reshape(padded.shape[0], -1, block)[:, ::-1].swapaxes(0, 1)  # (blocks, a, block), the last first

    def horner(total: Array, row: Array) -> tuple[Array, None]:
        return total @ powers[-1] + jnp.einsum("ai,ijk->ajk", row, inner), None

    start = jnp.zeros((padded.shape[0], *E.shape), E.dtype)
    return lax.scan(horner, start, rows)[0]
