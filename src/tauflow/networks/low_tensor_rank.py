r"""The network of pellegrino2023, whose weights differ from trial to trial in the strengths of a few components."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from tauflow.latent import simulate_latent, sum_latent
from tauflow.low_rank import LowRank
from tauflow.networks.checks import as_plain, check_size, is_number
from tauflow.networks.condition_inputs import drive, ode_inputs, random_inputs
from tauflow.networks.response import Response
from tauflow.networks.trial_factors import rational_quadratic, smoothing_matrix
from tauflow.precision import usable
from tauflow.run import register_network
from tauflow.simulate import nonlinearity

DECODERS = ("linear", "orthonormal")
OUTPUTS = ("identity", "tanh", "softplus")


@register_network
class LowTensorRankRNN(eqx.Module):
    r"""Rate network with $W^{(k)} = \sum_j c_j^{(k)} a_j b_j^\top$ in trial k, $|a_j| = |b_j| = 1$, and a decoder.

    $$x_t = (1-\alpha)\,x_{t-1} + \alpha\,(W^{(k)}\varphi(x_{t-1}) + W_{in}u_t), \qquad
      y_t = g(M\varphi(x_t) + \beta), \qquad c_j = S\,\bar c_j + o_j ,$$

    one Euler step per bin of the recording. Initial states, one per condition, lie in the span of the $a_j$, hence all
    states in that of the $a_j$ and of the columns of $W_{in}$, and a state is carried as its few coordinates
    (`tauflow.latent`): exactly, and without a matrix of n × n per trial. What comes in is the condition of each trial
    of a recording, and not an input over time as other networks have it; the network belongs to those trials.

    Attributes:
        a: Columns before they are brought to norm 1, shape (n, R).
        b: Rows before they are brought to norm 1, shape (n, R).
        c_latent: $\bar c$, shape (trial, R).
        c_offset: o, shape (R,).
        smoothing: S, shape (trial, trial); it does not learn.
        z0: Coordinates of the initial states in the columns of norm 1, shape (condition, R).
        W_out: M, shape (neuron, n); orthonormal rows (columns where neuron > n) are made of it on the way if
            `decoder="orthonormal"`.
        bias: $\beta$, shape (neuron,), in units of the output before g.
        W_in: Columns that carry inputs, shape (n, m), or None for no inputs.
        u: Free inputs, shape (bin, condition, m); bins from the first on, and no input after them.
        v0: Start of the neural differential equation that makes the inputs, shape (condition, h).
        layers: Its weights, with biases in the last column, shape (layer, h, h + 1).
        D: Its readout, shape (m, h).
        phi: Nonlinearity $\varphi$, a name that `tauflow.simulate` knows.
        alpha: Bin divided by the time constant of a unit, in (0, 1].
        decoder: "linear" or "orthonormal".
        output: g, "identity", "tanh" or "softplus" (rates of Poisson spike counts, per bin).
        input_steps: Number of bins with inputs from the neural differential equation.

    Source: pellegrino2023, supplement A.1. Deviation from print: a learned offset o, and an initial state learned for
    each condition, both as in the authors' code.

    Example:
        >>> network = LowTensorRankRNN.random(50, 8, rank=3, conditions=2, trial_ids=range(4), key=jax.random.key(0))
        >>> network(np.array([0, 1, 1, 0]), 10).outputs.shape
        (10, 4, 8)
        >>> network.W.c.shape
        (4, 3)
    """

    a: jax.Array
    b: jax.Array
    c_latent: jax.Array
    c_offset: jax.Array
    smoothing: jax.Array
    z0: jax.Array
    W_out: jax.Array
    bias: jax.Array
    W_in: jax.Array | None = None
    u: jax.Array | None = None
    v0: jax.Array | None = None
    layers: jax.Array | None = None
    D: jax.Array | None = None
    phi: str = eqx.field(static=True, default="tanh")
    alpha: float = eqx.field(static=True, default=0.1, converter=as_plain)
    decoder: str = eqx.field(static=True, default="linear")
    output: str = eqx.field(static=True, default="identity")
    input_steps: int = eqx.field(static=True, default=0, converter=as_plain)

    def __check_init__(self) -> None:
        if not isinstance(self.phi, str):
            raise ValueError(f"phi is {self.phi!r}; it must be a name, so that a saved run can be rebuilt.")
        nonlinearity(self.phi)
        if not (is_number(self.alpha) and 0 < self.alpha <= 1):
            raise ValueError(f"alpha is {self.alpha!r}; it must be a number in (0, 1], bin / time constant.")
        for name, value, known in (("decoder", self.decoder, DECODERS), ("output", self.output, OUTPUTS)):
            if value not in known:
                raise ValueError(f"{name} is {value!r}; it must be one of {', '.join(map(repr, known))}.")
        given = {name for name in ("W_in", "u", "v0", "layers", "D") if getattr(self, name) is not None}
        if given not in (set(), {"W_in", "u"}, {"W_in", "v0", "layers", "D"}):
            raise ValueError(
                f"of the inputs there are {', '.join(sorted(given))}; there must be none, or W_in and u, or W_in, v0, "
                "layers and D."
            )
        _check_shapes({name: np.shape(getattr(self, name)) for name in _SHAPES if getattr(self, name) is not None})

    @classmethod
    def random(
        cls,
        units: int,
        neurons: int,
        *,
        rank: int,
        conditions: int,
        trial_ids: ArrayLike,
        key: jax.Array,
        covariance: Callable[[Any], Any] | None = None,
        sigma: float = 0.1,
        form: str = "cholesky",
        phi: str = "tanh",
        alpha: float = 0.1,
        decoder: str = "linear",
        output: str = "identity",
        inputs: str = "none",
        input_steps: int = 0,
        channels: int | None = None,
        dtype: str = "float32",
    ) -> LowTensorRankRNN:
        r"""Draw a network as its authors start a fit.

        a_ij ~ N(0, 1/n) with norm 1, b = a, c̄ ~ N(0, 1), o = 1, z(0) ~ 0.2 √(n/R) U(-1, 1), M_ij ~ N(0, 1/n) (made
        orthonormal where it is to be), β = 0.

        Args:
            units: Number of units n, at least the rank.
            neurons: Number of recorded neurons, at least 1.
            rank: Number of components R, at least 1.
            conditions: Number of conditions, at least 1.
            trial_ids: True numbers of the trials, shape (trial,).
            key: JAX random key.
            covariance: `covariance(trial_ids)` makes the covariance of strengths over trials, shape (trial, trial);
                `rational_quadratic` with what it starts from by default.
            sigma: Standard deviation of what varies from trial to trial without being smooth.
            form: How S is made of the covariance: see `smoothing_matrix`.
            phi: Nonlinearity.
            alpha: Bin divided by the time constant.
            decoder: "linear" or "orthonormal".
            output: Nonlinearity of the output.
            inputs: "none", "free" or "ode": see `tauflow.networks.condition_inputs`.
            input_steps: Number of bins with inputs: `steps_until(time)` for those up to 100 ms after the go cue.
            channels: Number of inputs m; the rank by default.
            dtype: "float32" or "float64"; the latter needs `tauflow.precision.float64()` around the call.

        Raises:
            ValueError: If a size or an option is out of range, or A = covariance(trial_ids) is no covariance.

        Source: pellegrino2023, Table 1 and the authors' code. Deviation from print: columns are N(0, 1) there, the
        same once their norm is 1.
        """
        for name, size in (("units", units), ("neurons", neurons), ("rank", rank), ("conditions", conditions)):
            check_size(name, size, least=rank if name == "units" else 1)
        dtype = usable(dtype, "draw")
        k_a, k_c, k_z, k_out, k_in = jax.random.split(key, 5)
        channels = rank if channels is None else channels
        sizes = {"units": units, "channels": channels, "rank": rank, "conditions": conditions, "steps": input_steps}
        S = smoothing_matrix((covariance or rational_quadratic)(trial_ids), sigma, form)  # (trial, trial)
        a = _normalised(jax.random.normal(k_a, (units, rank), dtype))
        W_out = jax.random.normal(k_out, (neurons, units), dtype) / math.sqrt(units)
        start = 0.2 * math.sqrt(units / rank) * jax.random.uniform(k_z, (conditions, rank), dtype, -1, 1)
        return cls(
            a=a,
            b=a,
            c_latent=jax.random.normal(k_c, (len(S), rank), dtype),
            c_offset=jnp.ones(rank, dtype),
            smoothing=jnp.asarray(S, dtype),
            z0=start,
            W_out=orthonormal(W_out) if decoder == "orthonormal" else W_out,
            bias=jnp.zeros(neurons, dtype),
            **random_inputs(inputs, **sizes, key=k_in, dtype=dtype),
            phi=phi,
            alpha=alpha,
            decoder=decoder,
            output=output,
            input_steps=input_steps,
        )

    @property
    def columns(self) -> jax.Array:
        """Columns a_j of norm 1, shape (n, R)."""
        return _normalised(self.a)

    @property
    def rows(self) -> jax.Array:
        """Rows b_j of norm 1, shape (n, R)."""
        return _normalised(self.b)

    @property
    def trial_factors(self) -> jax.Array:
        """Strengths c of the components, shape (trial, R)."""
        return jax.lax.stop_gradient(self.smoothing) @ self.c_latent + self.c_offset[None]

    @property
    def W(self) -> LowRank:
        """The weights of all trials, as factors."""
        return LowRank(self.columns, self.trial_factors, self.rows)

    @property
    def initial_states(self) -> jax.Array:
        """State of each condition before the first step, shape (condition, n)."""
        return self.z0 @ self.columns.T

    @property
    def readout(self) -> jax.Array:
        """M as it is used, shape (neuron, n): with orthonormal rows (or columns) if `decoder` says so."""
        return orthonormal(self.W_out) if self.decoder == "orthonormal" else self.W_out

    def inputs(self) -> jax.Array | None:
        """Inputs u of each condition in the bins that have them, shape (bin, condition, m), or None for no inputs."""
        if self.v0 is None or self.layers is None or self.D is None:
            return self.u
        return ode_inputs(self.v0, self.layers, self.D, steps=self.input_steps, alpha=self.alpha)

    def simulate(self, conditions: ArrayLike, steps: int) -> tuple[jax.Array, jax.Array]:
        """Coordinates of the states (time, trial, R + m) and rates φ(x) (time, trial, n), after each step.

        Args:
            conditions: Index of the condition of each trial of the recording, shape (trial,).
            steps: Number of steps.

        Raises:
            ValueError: If there is not one condition per trial, or one is no index of a condition.
        """
        a, c, b, z0, driven = self._recurrence(conditions, steps)
        return simulate_latent(a, c, b, z0, driven, steps=steps, phi=self.phi, alpha=self.alpha)

    def total(
        self, measure: Callable[[jax.Array, Any], tuple[jax.Array, Any]], conditions: ArrayLike, data: Any
    ) -> tuple[jax.Array, Any]:
        """Sum over time of a measure of outputs and data, with the memory of one step: what a fit descends on.

        Args:
            measure: `measure(y_t, data_t)` gives (scalar, sums) for outputs y_t (trial, neuron); `sums` is a tree of
                arrays without derivative. It closes over nothing traced.
            conditions: Index of the condition of each trial of the recording, shape (trial,).
            data: A tree of arrays (time, ...) that have no gradient, such as activity and a mask.

        Returns:
            The sums over time of both.

        Raises:
            ValueError: If conditions are not as for `simulate`, or the data are not of one length in time.

        Example:
            >>> one = LowTensorRankRNN.random(9, 2, rank=1, conditions=1, trial_ids=[0, 1], key=jax.random.key(0))
            >>> square = lambda y, target: (((y - target) ** 2).sum(), ())
            >>> one.total(square, [0, 0], np.zeros((5, 2, 2), "float32"))[0].shape
            ()
        """
        a, c, b, z0, driven = self._recurrence(conditions, len(jax.tree.leaves(data)[0]))
        measured = _Measured(measure, self.output)
        given = (self.readout, self.bias)
        return sum_latent(measured, given, data, a, c, b, z0, driven, phi=self.phi, alpha=self.alpha)

    def __call__(self, conditions: ArrayLike, steps: int) -> Response:
        """States x (time, trial, n) and outputs (time, trial, neuron) after each step; arguments as for `simulate`."""
        latents, rates = self.simulate(conditions, steps)
        return Response(latents @ self._span.T, _decoded(self.output, self.readout, self.bias, rates))

    def _recurrence(self, conditions: ArrayLike, steps: int) -> tuple[Any, ...]:
        """Columns, strengths, rows, coordinates of the initial state of each trial, and drive (or None)."""
        where = _indices(conditions, len(self.c_latent), len(self.z0))
        a, z0, u = self._span, self.z0[where], self.inputs()
        if u is None:
            return a, self.trial_factors, self.rows, z0, None
        channels, rank = u.shape[-1], z0.shape[-1]
        z0 = jnp.pad(z0, ((0, 0), (0, channels)))  # (trial, R + m)
        return a, self.trial_factors, self.rows, z0, drive(u, where, steps=steps, rank=rank)

    @property
    def _span(self) -> jax.Array:
        """Columns of the weights and those of the inputs, (n, R + m): all states are in their span."""
        return self.columns if self.W_in is None else jnp.concatenate([self.columns, self.W_in], axis=1)


# Axes of the arrays, by the size that each must share with the others.
_SHAPES = {
    "a": ("n", "R"),
    "b": ("n", "R"),
    "c_latent": ("trial", "R"),
    "c_offset": ("R",),
    "smoothing": ("trial", "trial"),
    "z0": ("condition", "R"),
    "W_out": ("neuron", "n"),
    "bias": ("neuron",),
    "W_in": ("n", "m"),
    "u": ("bin", "condition", "m"),
    "v0": ("condition", "h"),
    "layers": ("layer", "h", "h + 1"),
    "D": ("m", "h"),
}


def _check_shapes(shapes: dict[str, tuple[int, ...]]) -> None:
    """Raise a `ValueError` if sizes disagree; a stack of networks, or a tree of other leaves, is left alone."""
    if any(len(shape) != len(_SHAPES[name]) for name, shape in shapes.items()):
        return
    sizes: dict[str, tuple[str, int]] = {}
    for name, shape in shapes.items():
        for axis, size in zip(_SHAPES[name], shape, strict=True):
            first, wanted = sizes.setdefault(axis, (name, size))
            if size != wanted:
                raise ValueError(
                    f"{name} has shape {shape} and {first} {shapes[first]}; they must be ({', '.join(_SHAPES[name])}) "
                    f"and ({', '.join(_SHAPES[first])})."
                )


class _Measured(eqx.Module):
    """A measure of outputs as a measure of rates; equal to another of the same, so that it compiles once."""

    measure: Callable[[jax.Array, Any], tuple[jax.Array, Any]] = eqx.field(static=True)
    output: str = eqx.field(static=True)

    def __call__(self, parameters: Any, z: jax.Array, rates: jax.Array, data: Any) -> tuple[jax.Array, Any]:
        readout, bias = parameters
        return self.measure(_decoded(self.output, readout, bias, rates), data)


def _decoded(output: str, readout: jax.Array, bias: jax.Array, rates: jax.Array) -> jax.Array:
    """g(Mr + β), (..., neuron), of rates (..., n)."""
    return nonlinearity(output)(rates @ readout.T + bias.reshape((1,) * (rates.ndim - 1) + bias.shape))


def _normalised(a: jax.Array) -> jax.Array:
    return a / jnp.linalg.norm(a, axis=0, keepdims=True)


def orthonormal(M: jax.Array) -> jax.Array:
    """Orthonormal rows that span those of M, shape (k, n); columns instead where there are more rows than columns.

    They are those of Gram and Schmidt, a smooth function of M where its rows are independent, and M itself where they
    are orthonormal.

    Args:
        M: Matrix, shape (k, n).

    Example:
        >>> np.abs(orthonormal(jnp.array([[3.0, 0.0], [1.0, 2.0]]))).round(6).tolist()
        [[1.0, 0.0], [0.0, 1.0]]
    """
    wide = M.shape[0] <= M.shape[1]
    Q, triangle = jnp.linalg.qr(M.T if wide else M)
    Q = Q * jnp.sign(jnp.diagonal(triangle))[None]
    return Q.T if wide else Q


def _indices(conditions: ArrayLike, trials: int, kinds: int) -> jax.Array:
    """Conditions as an array of indices, one per trial."""
    where = jnp.asarray(conditions)
    if where.shape != (trials,) or not jnp.issubdtype(where.dtype, jnp.integer):
        raise ValueError(
            f"conditions are {where.dtype} of shape {where.shape}; they must be whole numbers, one for each of the "
            f"{trials} trials of the network."
        )
    if trials and not isinstance(where, jax.core.Tracer):
        least, most = np.asarray(where).min(), np.asarray(where).max()  # JAX would trace them under jit
        if not 0 <= least <= most < kinds:
            raise ValueError(f"conditions go from {least} to {most}; they must be in 0 ... {kinds - 1}.")
    return where
