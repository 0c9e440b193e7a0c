r"""The continuous-time linear network of bordelon2025: a filter whose impulse response is known exactly."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import expm
from numpy.typing import ArrayLike, NDArray

from tauflow import analysis
from tauflow.networks.checks import as_data, as_plain, as_weights, check_size, is_number
from tauflow.networks.response import Response
from tauflow.precision import usable
from tauflow.run import register_network


@register_network
class ContinuousLinearRNN(eqx.Module):
    r"""Linear network in continuous time with one input and one output, in mean-field scaling.

    $$ \dot h = -h + \tfrac1{\sqrt N} W h + u\,x(t), \qquad y = \tfrac{1}{\gamma\sqrt N} v^T h, \qquad
       \gamma = \gamma_0\sqrt N . $$

    It answers with the convolution of the input with its filter $f(t) = \frac{1}{\gamma_0 N} v^T e^{At}u$, where
    $A = -I + W/\sqrt N$. The entries of W, u and v are of order 1 in N. Gradient flow of an N-independent speed needs
    the rates `mean_field_rates()`; tangent-kernel (lazy) scaling is $\gamma_0 = \gamma/\sqrt N$ with $\gamma$ of
    order 1.

    Attributes:
        W: Recurrent weights before their factor $1/\sqrt N$, shape (n, n), `W[post, pre]`.
        W_in: Read-in u as a column, shape (n, 1).
        W_out: Read-out v as a row, shape (1, n).
        gamma0: Richness $\gamma_0 > 0$; small is lazy.
        dt: Step of `__call__`, > 0, in membrane times; `simulate` takes any.

    Source: bordelon2025, Eqs. 1, A1 and A4. Deviation from print: the second form of A4 has lost its t.

    Example:
        >>> network = ContinuousLinearRNN.random(100, sigma=0.5, key=jax.random.key(0))
        >>> network.filter([0.0, 1.0]).shape, network(jnp.ones((20, 3, 1))).outputs.shape
        ((2,), (20, 3, 1))
    """

    W: jax.Array = eqx.field(converter=partial(as_weights, "W"))
    W_in: jax.Array = eqx.field(converter=partial(as_weights, "W_in"))
    W_out: jax.Array = eqx.field(converter=partial(as_weights, "W_out"))
    gamma0: float = eqx.field(static=True, default=1.0, converter=as_plain)
    dt: float = eqx.field(static=True, default=0.1, converter=as_plain)

    def __check_init__(self) -> None:
        for name in ("gamma0", "dt"):
            value = getattr(self, name)
            if not (is_number(value) and 0 < value < math.inf):
                raise ValueError(f"{name} is {value!r}; it must be a number > 0.")
        shapes = [np.shape(a) for a in (self.W, self.W_in, self.W_out)]
        if not all(len(shape) == 2 for shape in shapes):
            return  # a stack of networks, or a tree that JAX rebuilds with other leaves
        n = shapes[0][0]
        if shapes != [(n, n), (n, 1), (1, n)]:
            raise ValueError(
                f"W is {shapes[0]}, W_in {shapes[1]}, W_out {shapes[2]}; they must be (n, n), (n, 1) and (1, n)."
            )

    @classmethod
    def random(
        cls,
        neurons: int,
        *,
        sigma: float,
        key: jax.Array,
        gamma0: float = 1.0,
        dt: float = 0.1,
        dtype: str = "float32",
    ) -> ContinuousLinearRNN:
        r"""Draw a network: entries of W, u and v from N(0, σ²), so that $W/\sqrt N$ fills the disk of radius σ.

        Args:
            neurons: Number of units N, at least 1.
            sigma: σ, at least 0; from 1 on the network is unstable.
            key: JAX random key.
            gamma0: Richness, > 0.
            dt: Step of `__call__` in membrane times, > 0.
            dtype: "float32" or "float64"; the latter needs `tauflow.precision.float64()` around the call.

        Raises:
            ValueError: If a size, `sigma`, `gamma0` or `dt` is out of range, or `dtype` cannot be had.

        Source: bordelon2025, Eqs. A5 to A7. Deviation from print: none.

        Example:
            >>> network = ContinuousLinearRNN.random(400, sigma=0.5, key=jax.random.key(1))
            >>> bool(0.45 < abs(network.eigenvalues()).max() < 0.55)
            True
        """
        check_size("neurons", neurons)
        sigma = _checked("sigma", sigma, least=0.0)
        dtype = usable(dtype, "draw")
        k_W, k_in, k_out = jax.random.split(key, 3)
        W = sigma * jax.random.normal(k_W, (neurons, neurons), dtype)
        W_in = sigma * jax.random.normal(k_in, (neurons, 1), dtype)
        W_out = sigma * jax.random.normal(k_out, (1, neurons), dtype)
        return cls(W, W_in, W_out, gamma0=gamma0, dt=dt)

    @classmethod
    def warm_start(
        cls,
        neurons: int,
        *,
        sigma: float,
        c: float,
        omega: float,
        key: jax.Array,
        amplitude: float = 0.5,
        gamma0: float = 1.0,
        dt: float = 0.1,
        dtype: str = "float32",
    ) -> ContinuousLinearRNN:
        r"""Draw a network with a conjugate pair of eigenvalues planted outside the random ones.

        $$ \tfrac1{\sqrt N}W = \tfrac{\sigma}{\sqrt N} G + (1 + \lambda_+) z z^\dagger + (1 + \lambda_-) z^* z^T,
           \qquad \lambda_\pm = -c \pm i\omega, $$

        with G of independent N(0, 1) entries and $z = (p + iq)/\sqrt2$ for a random orthonormal pair p, q. Read-in
        and read-out lie in its plane, $u = v = \sqrt N\,a\,p$, so that the network begins with the filter
        $\frac{a^2}{\gamma_0}e^{-ct}\cos\omega t$ up to what G adds.

        Args:
            neurons: Number of units N, at least 2.
            sigma: Radius of the disk of random eigenvalues, at least 0.
            c: Decay rate of the planted pair, per membrane time; the network is unstable unless c > 0.
            omega: Its angular frequency, in radians per membrane time.
            key: JAX random key.
            amplitude: a, the length of u and v over √N, > 0.
            gamma0: Richness, > 0.
            dt: Step of `__call__` in membrane times, > 0.
            dtype: "float32" or "float64"; the latter needs `tauflow.precision.float64()` around the call.

        Raises:
            ValueError: If an argument is out of range.

        Source: bordelon2025, Eqs. F2 to F5. Deviation from print: F2 lacks the term $-(I - zz^\dagger - z^*z^T)$,
            without which the random eigenvalues lie around 0 and the network is unstable; $\lambda_+$ is an eigenvalue
            of A and not of $W/\sqrt N$. The paper does not give the amplitude of u and v.

        Example:
            >>> network = ContinuousLinearRNN.warm_start(300, sigma=0.1, c=0.5, omega=0.8, key=jax.random.key(0))
            >>> bool(abs(outlier_pair(network)[0] - (0.5 + 0.8j)) < 0.1)
            True
        """
        check_size("neurons", neurons, least=2)
        sigma, amplitude = _checked("sigma", sigma, least=0.0), _checked("amplitude", amplitude)
        c, omega = _checked("c", c, least=-math.inf), _checked("omega", omega, least=-math.inf)
        dtype = usable(dtype, "draw")
        k_W, k_plane = jax.random.split(key)
        p, q = jnp.linalg.qr(jax.random.normal(k_plane, (neurons, 2), dtype))[0].T  # (n,), (n,)
        planted = (1 - c) * (jnp.outer(p, p) + jnp.outer(q, q)) - omega * (jnp.outer(q, p) - jnp.outer(p, q))
        root = math.sqrt(neurons)
        W = sigma * jax.random.normal(k_W, (neurons, neurons), dtype) + root * planted
        u = root * amplitude * p
        return cls(W, u[:, None], u[None], gamma0=gamma0, dt=dt)

    @property
    def u(self) -> jax.Array:
        """Read-in vector, shape (n,)."""
        return self.W_in[:, 0]

    @property
    def v(self) -> jax.Array:
        """Read-out vector, shape (n,)."""
        return self.W_out[0]

    @property
    def neurons(self) -> int:
        """Number of units N."""
        return self.W.shape[-1]

    @property
    def gamma(self) -> float:
        r"""$\gamma = \gamma_0\sqrt N$."""
        return self.gamma0 * math.sqrt(self.neurons)

    @property
    def readout_scale(self) -> float:
        r"""$\kappa = 1/(\gamma\sqrt N) = 1/(\gamma_0 N)$, the factor before vᵀh."""
        return 1 / (self.gamma0 * self.neurons)

    @property
    def recurrent(self) -> jax.Array:
        r"""The matrix that multiplies the state, $W/\sqrt N$, shape (n, n)."""
        return self.W / math.sqrt(self.neurons)

    def mean_field_rates(self, train: Sequence[str] = ("W", "W_in", "W_out")) -> dict[str, float]:
        r"""Learning rates $\eta = \gamma_0^2N$ of W, W_in and W_out, with which learning takes a time of order 1 in N.

        Args:
            train: The fields that learn.

        Source: bordelon2025, Eq. E14. Deviation from print: none.

        Example:
            >>> one = ContinuousLinearRNN(jnp.zeros((4, 4)), jnp.ones((4, 1)), jnp.ones((1, 4)), gamma0=0.5)
            >>> one.mean_field_rates()["W"]
            1.0
        """
        return dict.fromkeys(train, self.gamma0**2 * self.neurons)

    def eigenvalues(self) -> NDArray[np.complex128]:
        r"""Eigenvalues of $W/\sqrt N$, complex, shape (n,); those of A are 1 less.

        Raises:
            ValueError: If W holds what is no finite number.

        Example:
            >>> ContinuousLinearRNN(2 * jnp.eye(4), jnp.ones((4, 1)), jnp.ones((1, 4))).eigenvalues().real
            array([1., 1., 1., 1.])
        """
        return analysis.eigenvalues(_recurrent(self))

    def filter(self, t: ArrayLike) -> NDArray[np.float64]:
        r"""Impulse response $f(t) = \frac{1}{\gamma_0N}v^Te^{At}u$, computed in float64.

        Args:
            t: Times in membrane times, any shape, >= 0.

        Returns:
            The filter, of the shape of `t`.

        Raises:
            ValueError: If a time is negative or no finite number.

        Source: bordelon2025, Eq. A4. Deviation from print: its second form has lost the t.

        Example:
            >>> ContinuousLinearRNN(jnp.zeros((1, 1)), jnp.ones((1, 1)), jnp.ones((1, 1))).filter([0.0, 1.0]).round(4)
            array([1.    , 0.3679])
        """
        from scipy.sparse.linalg import expm_multiply

        times = np.asarray(t, np.float64)
        if not (np.isfinite(times).all() and (times >= 0).all()):
            raise ValueError(f"t is {t!r}; times must be finite numbers >= 0.")
        A = _recurrent(self) - np.eye(self.neurons)
        state, v, now = np.asarray(self.u, np.float64), np.asarray(self.v, np.float64), 0.0
        distinct, where = np.unique(times, return_inverse=True)
        values = np.empty(distinct.shape)
        for i, time in enumerate(distinct):
            if time > now:
                state = expm_multiply((time - now) * A, state, traceA=(time - now) * np.trace(A))
                now = time
            values[i] = self.readout_scale * (v @ state)
        return values[where].reshape(times.shape)

    def simulate(self, inputs: ArrayLike, dt: float, *, x0: jax.Array | None = None) -> Response:
        """Answer to inputs that are constant within each step, exactly whatever the step.

        Args:
            inputs: Inputs, shape (time, *trials, 1).
            dt: Length of a step in membrane times, > 0.
            x0: State before the first step, shape (*trials, n) or what broadcasts to it; 0 by default.

        Returns:
            States h and outputs y after each step.

        Raises:
            ValueError: If inputs are no real numbers or have another number of channels, or `dt` is not > 0.

        Example:
            >>> network = ContinuousLinearRNN(jnp.zeros((1, 1)), jnp.ones((1, 1)), jnp.ones((1, 1)))
            >>> round(float(network.simulate(jnp.ones((1, 1)), 2.0).outputs[0, 0]), 4)  # 1 - exp(-2)
            0.8647
        """
        dt = _checked("dt", dt)
        W = jnp.asarray(self.W)
        inputs = as_data(inputs, W.dtype, channels=1)
        n = self.neurons
        A = self.recurrent - jnp.eye(n, dtype=W.dtype)
        joint = jnp.block([[A, self.W_in], [jnp.zeros((1, n + 1), W.dtype)]])  # the input as a constant unit
        whole = expm(dt * joint)
        step, push = whole[:n, :n], whole[:n, n]  # (n, n), (n,)
        shape = (*inputs.shape[1:-1], n)
        if x0 is not None and not _fits(np.shape(x0), shape):
            raise ValueError(f"x0 has shape {np.shape(x0)}; it must be (*trials, n) = {shape} or broadcast to it.")
        start = jnp.zeros(shape, W.dtype) if x0 is None else jnp.broadcast_to(jnp.asarray(x0, W.dtype), shape)

        def advance(h: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
            h = h @ step.T + x * push.reshape((1,) * (h.ndim - 1) + (n,))  # (*trials, n)
            return h, h

        states = jax.lax.scan(advance, start, inputs)[1]  # (time, *trials, n)
        return Response(states, self.readout_scale * (states @ self.W_out.T))

    def __call__(self, inputs: jax.Array, *, x0: jax.Array | None = None, key: jax.Array | None = None) -> Response:
        """Answer to inputs (time, *trials, 1) in steps of `dt`; nothing is drawn, so the key is ignored."""
        return self.simulate(inputs, self.dt, x0=x0)


def coupling(network: Any) -> NDArray[np.float64]:
    r"""Weight from read-in to read-out, $v^TWu/(\sqrt N|v||u|)$; once they are aligned, the outlier eigenvalue.

    Args:
        network: A `ContinuousLinearRNN`.

    Returns:
        Scalar; NaN where u or v is 0. It is `tauflow.analysis.coupling` of $W/\sqrt N$.

    Raises:
        ValueError: If a weight is no finite number.

    Source: bordelon2025, Fig. 1b. Deviation from print: its caption lacks the √N.

    Example:
        >>> u = jnp.ones((4, 1))
        >>> float(coupling(ContinuousLinearRNN(0.4 * u @ u.T, u, u.T)))  # W/√N = 0.8 times the projection on u
        0.8
    """
    return analysis.coupling(_recurrent(network), network.u, network.v)


def outlier_pair(network: Any) -> NDArray[np.complex128]:
    r"""The two eigenvalues of $W/\sqrt N$ of largest modulus, the one with the larger imaginary part first.

    Args:
        network: A `ContinuousLinearRNN` of two units or more.

    Returns:
        Complex, shape (2,); a conjugate pair, or two real ones in falling order.

    Raises:
        ValueError: If there is one unit, or W holds what is no finite number.

    Example:
        >>> turn = jnp.array([[0.3, -0.4], [0.4, 0.3]]) * np.sqrt(2)
        >>> pair = outlier_pair(ContinuousLinearRNN(turn, jnp.ones((2, 1)), jnp.ones((1, 2))))
        >>> [complex(np.round(x, 6)) for x in pair]
        [(0.3+0.4j), (0.3-0.4j)]
    """
    return analysis.eigenvalue_pair(_recurrent(network))


def _fits(shape: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    """Whether an array of one shape broadcasts to another."""
    try:
        return np.broadcast_shapes(shape, wanted) == wanted
    except ValueError:
        return False


def _recurrent(network: Any) -> NDArray[np.float64]:
    """W/√N in float64 whatever JAX's precision is."""
    W = np.asarray(network.W, np.float64)
    return W / math.sqrt(W.shape[-1])


def _checked(name: str, value: Any, least: float | None = None) -> float:
    """A finite number as a float: > 0, or from `least` on."""
    number = float(value) if is_number(value) else math.nan
    if not (math.isfinite(number) and (number > 0 if least is None else number >= least)):
        wanted = "> 0" if least is None else (f">= {least:g}" if least > -math.inf else "and finite")
        raise ValueError(f"{name} is {value!r}; it must be a number {wanted}.")
    return number
