r"""The rate network of schuessler2020, $\dot x = -x + W\varphi(x) + W_{in}u$, in Euler steps, and its linear case."""

from __future__ import annotations

import math
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from tauflow.networks.checks import as_data, as_weights, check_size, is_number
from tauflow.networks.response import Response
from tauflow.precision import usable
from tauflow.run import register_network
from tauflow.simulate import nonlinearity, simulate


@register_network
class RateRNN(eqx.Module):
    r"""Rate network in Euler steps: x ← (1-dt) x + dt (W φ(x) + W_in u) + noise √dt ξ, output W_out φ(x), x(0) = 0.

    The output at index k is read after the step that input k drives. `phi="identity"` is the linear network.

    Attributes:
        W: Recurrent weights, shape (n, n), `W[post, pre]`.
        W_in: Input weights, shape (n, n_in).
        W_out: Readout weights, shape (n_out, n).
        phi: Nonlinearity, a name that `tauflow.simulate` knows.
        dt: Step in units of the membrane time constant, in (0, 1].
        noise: Standard deviation of the white noise on x per square root of time; 0 for none.

    Source: schuessler2020, supplement Eqs. 1 and 2. Deviation from print: the readout carries the 1/√N that the
    printed equations leave out (in the norm of W_out's rows), without which z = wᵀ(I-W)⁻¹m would not hold.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> network = RateRNN.random(64, 2, 1, gain=0.9, key=jax.random.key(0))
        >>> network(jnp.ones((10, 5, 2))).outputs.shape
        (10, 5, 1)
    """

    W: jax.Array = eqx.field(converter=partial(as_weights, "W"))
    W_in: jax.Array = eqx.field(converter=partial(as_weights, "W_in"))
    W_out: jax.Array = eqx.field(converter=partial(as_weights, "W_out"))
    phi: str = eqx.field(static=True, default="tanh")
    dt: float = eqx.field(static=True, default=0.5)
    noise: float = eqx.field(static=True, default=0.0)

    def __check_init__(self) -> None:
        if not isinstance(self.phi, str):
            raise ValueError(f"phi is {self.phi!r}; RateRNN takes a name, so that a saved run can be rebuilt.")
        nonlinearity(self.phi)
        if not (is_number(self.dt) and 0 < self.dt <= 1):
            raise ValueError(
                f"dt is {self.dt!r}; it must be a number in (0, 1], in units of the membrane time constant."
            )
        if not (is_number(self.noise) and 0 <= self.noise < math.inf):
            raise ValueError(f"noise is {self.noise!r}; it must be a number >= 0.")
        shapes = [np.shape(a) for a in (self.W, self.W_in, self.W_out)]
        if not all(len(shape) == 2 for shape in shapes):
            return  # a stack of networks, or a tree that JAX rebuilds with other leaves
        n = shapes[0][0]
        if shapes[0] != (n, n) or shapes[1][0] != n or shapes[2][1] != n:
            raise ValueError(
                f"W is {shapes[0]}, W_in {shapes[1]}, W_out {shapes[2]}; they must be (n, n), (n, n_in), (n_out, n)."
            )

    @classmethod
    def random(
        cls,
        neurons: int,
        inputs: int,
        outputs: int,
        *,
        gain: float,
        key: jax.Array,
        phi: str = "tanh",
        dt: float = 0.5,
        noise: float = 0.0,
        dtype: str = "float32",
    ) -> RateRNN:
        """Draw a network: W_ij ~ N(0, gain²/N), input columns of norm √N, readout rows of norm 1/√N.

        Args:
            neurons: Number of units N, at least 1.
            inputs: Number of input channels, at least 1.
            outputs: Number of output channels, at least 1.
            gain: g, the radius of the disk that the eigenvalues of W fill, at least 0.
            key: JAX random key.
            phi: Nonlinearity.
            dt: Step in units of the membrane time constant, in (0, 1].
            noise: Standard deviation of the noise, at least 0.
            dtype: "float32" or "float64"; the latter needs `tauflow.precision.float64()` around the call.

        Raises:
            ValueError: If a size is below 1, `gain`, `dt`, `noise` or `phi` is out of range, or `dtype` is "float64"
                and JAX's 64-bit mode is off.

        Source: schuessler2020; W_in = √N m and W_out = wᵀ/√N with |m| = |w| = 1 exactly, as in the authors' code.

        Example:
            >>> import jax
            >>> network = RateRNN.random(100, 1, 1, gain=0.5, key=jax.random.key(1))
            >>> round(float((network.W_in**2).sum()), 3)
            100.0
        """
        for name, size in (("neurons", neurons), ("inputs", inputs), ("outputs", outputs)):
            check_size(name, size)
        gain = checked_gain(gain)
        dtype = usable(dtype, "draw")
        k_W, k_in, k_out = jax.random.split(key, 3)
        root = math.sqrt(neurons)
        W = (gain / root) * jax.random.normal(k_W, (neurons, neurons), dtype)
        W_in = jax.random.normal(k_in, (neurons, inputs), dtype)
        W_out = jax.random.normal(k_out, (outputs, neurons), dtype)
        W_in = root * W_in / jnp.linalg.norm(W_in, axis=0, keepdims=True)
        W_out = W_out / (root * jnp.linalg.norm(W_out, axis=1, keepdims=True))
        return cls(W, W_in, W_out, phi=phi, dt=dt, noise=noise)

    def __call__(self, inputs: jax.Array, *, x0: jax.Array | None = None, key: jax.Array | None = None) -> Response:
        """Answer to inputs (time, *trials, n_in), from state `x0` (zero by default).

        Inputs are data: they take the dtype of W.

        Raises:
            ValueError: If inputs are no real numbers or have the wrong number of channels, W is not of floats, or
                noise > 0 comes without a key.
        """
        inputs = as_data(inputs, jnp.asarray(self.W).dtype, channels=self.W_in.shape[1])
        drive = inputs @ self.W_in.T  # (time, *trials, n)
        if self.noise > 0:
            if key is None:
                raise ValueError(f"noise is {self.noise} and no key came; pass key=, or set noise=0.")
            drive = drive + (self.noise / math.sqrt(self.dt)) * jax.random.normal(key, drive.shape, drive.dtype)
        states = simulate(self.W, drive, x0, phi=self.phi, alpha=self.dt)  # (time, *trials, n)
        outputs = nonlinearity(self.phi)(states) @ self.W_out.T  # (time, *trials, n_out)
        return Response(states, outputs)


def checked_gain(gain: float) -> float:
    """`gain` as a float, or a `ValueError` that says what it must be."""
    try:
        value = float(gain)
    except (TypeError, ValueError):
        value = math.nan
    if isinstance(gain, bool) or not (math.isfinite(value) and value >= 0):
        raise ValueError(f"gain is {gain!r}; it must be a number >= 0, for example gain=0.9.")
    return value
