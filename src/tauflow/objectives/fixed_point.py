r"""The exact loss of a linear network on the fixed-point task.

At the fixed point of $\dot x = -x + W x + W_{in} u$ with $u = 1$ the state is $x = (I - W)^{-1} W_{in}$ and the output

$$ z = W_{out} (I - W)^{-1} W_{in} = w^T (I - W)^{-1} m, \qquad m = W_{in}/\sqrt N, \quad w = \sqrt N\, W_{out}^T, $$

and the loss is $L = \frac12 (\hat z - z)^2$. There is a fixed point that the network reaches if and only if all
eigenvalues of $W$ have real parts below 1; elsewhere the loss is $+\infty$, although the formula gives a number.

One LU factorisation of $I - W$ serves the readout, its gradient (which solves with the transpose) and, without ever
being differentiated itself, all higher derivatives; its diagonal also gives the sign of $\det(I - W)$.
"""

from __future__ import annotations

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

STABILITIES = ("eigenvalues", "determinant")


class FixedPointLoss(eqx.Module):
    r"""Half the squared distance of a linear network's fixed point from the target, $\frac12(\hat z - z)^2$.

    Attributes:
        target: The value $\hat z$ that the output should settle at under a constant input of 1. An array, so that it
            may differ between the members of an ensemble.
        stability: How an unstable network is told. "eigenvalues" computes all of them: exact, at the price of an
            eigenvalue decomposition per call, which takes some 50 times as long as the loss and its gradient on a CPU.
            "determinant" looks at the sign of $\det(I - W)$ and costs nothing: it is negative when an odd number of
            real eigenvalues exceeds 1. It so catches the way in which learning fails, one real eigenvalue crossing 1,
            but not a complex pair or two real eigenvalues beyond 1.

    Source: schuessler2020, supplement Eq. 5 and the line after it; Fig. S4 for the instability. Deviation from print:
        none (with the readout's factor $1/\sqrt N$, which Eqs. 1 and 2 leave out).

    Example:
        >>> from tauflow.networks import RateRNN
        >>> network = RateRNN(0.5 * jnp.eye(1), jnp.array([[3.0]]), jnp.array([[1.0]]), phi="identity")
        >>> float(FixedPointLoss(2.0)(network))  # its output settles at 3 / (1 - 0.5) = 6
        8.0
    """

    name: ClassVar[str] = "fixed-point-loss"
    target: Array
    stability: str = eqx.field(static=True, default="eigenvalues")

    def __init__(self, target: ArrayLike, stability: str = "eigenvalues") -> None:
        if not isinstance(target, jax.Array):
            target = _number(target)
        if stability not in STABILITIES:
            raise ValueError(f"stability is {stability!r}; it must be 'eigenvalues' or 'determinant'.")
        self.target = target  # type: ignore[assignment]  # NumPy's float64 survives where JAX's 64-bit mode is off
        self.stability = stability

    def __call__(self, network: Any, key: Array | None = None) -> Array:
        """Return the loss, a scalar in the precision of the network; +inf if the network is unstable.

        Args:
            network: A linear network with `W (n, n)`, `W_in (n, 1)` and `W_out (1, n)`.
            key: Ignored, since nothing is drawn.

        Raises:
            ValueError: If the network is not linear, or has more than one input or output.
        """
        W, W_in, W_out = _weights(network)
        z, positive = _readout(W, W_in, W_out)
        stable = positive if self.stability == "determinant" else _converges(W)
        error = jnp.asarray(self.target, z.dtype) - z
        return jnp.where(stable, 0.5 * error * error, jnp.inf)


def fixed_point_readout(network: Any) -> Array:
    """Output of a linear network at its fixed point under a constant input of 1, whether or not it gets there.

    Args:
        network: A linear network with `W (n, n)`, `W_in (n, 1)` and `W_out (1, n)`.

    Returns:
        Scalar z, in the precision of the network.

    Raises:
        ValueError: If the network is not linear, or has more than one input or output.

    Source: schuessler2020, supplement Eq. 5. Deviation from print: none.

    Example:
        >>> from tauflow.networks import RateRNN
        >>> network = RateRNN(0.5 * jnp.eye(1), jnp.array([[3.0]]), jnp.array([[1.0]]), phi="identity")
        >>> float(fixed_point_readout(network))
        6.0
    """
    return _readout(*_weights(network))[0]


def _readout(W: Array, W_in: Array, W_out: Array) -> tuple[Array, Array]:
    """Solve for the readout, and say whether det(I - W) is positive."""
    n = W.shape[0]
    A = jnp.eye(n, dtype=W.dtype) - W  # (n, n)
    factors, pivots, _ = jax.lax.linalg.lu(jax.lax.stop_gradient(A))  # (n, n), (n,)

    def solve(transpose: int) -> Any:
        return lambda _, b: jax.scipy.linalg.lu_solve((factors, pivots), b, trans=transpose)

    x = jax.lax.custom_linear_solve(lambda v: A @ v, W_in[:, 0], solve(0), solve(1))  # (n,)
    swaps = jnp.sum(pivots != jnp.arange(n, dtype=pivots.dtype), dtype=jnp.int32)
    negative = jnp.sum(jnp.diagonal(factors) < 0, dtype=jnp.int32)
    singular = jnp.any(jnp.diagonal(factors) == 0)
    return W_out[0] @ x, ((swaps + negative) % 2 == 0) & ~singular


def _converges(W: Array) -> Array:
    """Whether all eigenvalues of W have real parts below 1; not if W has NaNs."""
    return jnp.all(jnp.linalg.eigvals(jax.lax.stop_gradient(W)).real < 1)


def _weights(network: Any) -> tuple[Array, Array, Array]:
    """Return W, W_in and W_out of a linear network with one input and one output, or say what is wrong with it."""
    phi = getattr(network, "phi", "identity")
    if phi != "identity":
        raise ValueError(
            f"phi is {phi!r}, but the fixed-point loss is that of a linear network; "
            "make the network with phi='identity', or use MeanSquaredError(FixedPoint())."
        )
    shapes = network.W_in.shape[-1], network.W_out.shape[0]
    if shapes != (1, 1):
        raise ValueError(
            f"The network has {shapes[0]} inputs and {shapes[1]} outputs; the fixed-point loss is for one of each."
        )
    return network.W, network.W_in, network.W_out


def _number(target: Any) -> np.ndarray:
    """Turn a target that is not a JAX array into a NumPy one, or say that it is no number."""
    try:
        value = np.asarray(target, dtype=np.float64)
    except (TypeError, ValueError):
        value = np.asarray(np.nan)
    if value.size == 0 or not np.all(np.isfinite(value)) or isinstance(target, bool):
        raise ValueError(f"target is {target!r}; it must be a finite number, for example target=0.5.")
    return value
