r"""Inputs that come before the go cue, one course per condition: free, or made by a neural differential equation.

A network that is told nothing but its condition is driven to a state by inputs u before the cue, and left to itself
from 100 ms after it. Free inputs are parameters bin by bin. Those of the neural differential equation are

$$u = \tanh(\hat D v), \qquad 2 \dot v = -v + [5\,\mathrm{DNN}(v)]_+ ,$$

with time in units of the network's time constant, DNN three layers of weights with rectification between them, the
same for all conditions, rows of $\hat D$ of norm 1, and v(0) learned for each condition.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from tauflow.networks.checks import check_size

INPUTS = ("none", "free", "ode")
LAYERS, WIDTH = 3, 150


def steps_until(time: ArrayLike, until: float = 0.1) -> int:
    """Number of bins in which inputs are on: those at times up to `until`.

    Args:
        time: Times of the bins relative to the go cue, shape (time,), in seconds.
        until: Last time of the inputs, in seconds; 0.1 leaves the cue 100 ms to arrive.

    Source: pellegrino2023, supplement B (modelling assumptions). Deviation from print: none.

    Example:
        >>> steps_until([-0.1, 0.0, 0.1, 0.2])
        3
    """
    return int((np.asarray(time, np.float64) <= until + 1e-9).sum())


def ode_inputs(v0: jax.Array, layers: jax.Array, D: jax.Array, *, steps: int, alpha: float) -> jax.Array:
    r"""Inputs of the neural differential equation, in Euler steps as long as the network's.

    Args:
        v0: v before the first step, shape (condition, h).
        layers: Weights of the layers, with biases in the last column, shape (layer, h, h + 1).
        D: Readout, shape (m, h); its rows are brought to norm 1.
        steps: Number of steps.
        alpha: Step in units of the network's time constant.

    Returns:
        u after each step, shape (time, condition, m), in (-1, 1).

    Source: pellegrino2023, supplement A.1 (condition-wise inputs). Deviation from print: v leaks and its drive is
    rectified, with the gain 5 and the time constant 2 of the authors' code; in print $\dot v = \mathrm{DNN}(v)$. The
    code has one DNN for each condition, print one for all, as here.

    Example:
        >>> still = jnp.zeros((3, 2, 3))  # v decays, since the DNN gives nothing
        >>> ode_inputs(jnp.ones((1, 2)), still, jnp.ones((1, 2)), steps=2, alpha=1.0)[:, 0, 0].round(3).tolist()
        [0.609, 0.34]
    """
    D = D / jnp.linalg.norm(D, axis=1, keepdims=True)  # (m, h)
    weights, biases = layers[..., :-1], layers[..., -1]  # (layer, h, h), (layer, h)

    def step(v: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
        r = v
        for i in range(len(layers)):
            made = r @ weights[i].T + biases[i][None]  # (condition, h)
            r = jax.nn.relu(made if i < len(layers) - 1 else 5 * made)
        v = v + (alpha / 2) * (r - v)
        return v, jnp.tanh(v @ D.T)

    return lax.scan(step, v0, length=steps)[1]


def drive(u: jax.Array, conditions: jax.Array, *, steps: int, rank: int) -> jax.Array:
    """Inputs as the drive of a recurrence in coordinates of its columns: 0 for those of the weights, and u for its own.

    Args:
        u: Inputs, shape (bin, condition, m).
        conditions: Condition of each trial, shape (trial,).
        steps: Number of steps; what u has beyond them is left out, and from the end of u on there is no input.
        rank: Number of columns R of the weights.

    Returns:
        Drive, shape (time, trial, R + m).

    Example:
        >>> drive(jnp.ones((1, 1, 1)), jnp.array([0]), steps=2, rank=2)[:, 0].tolist()
        [[0.0, 0.0, 1.0], [0.0, 0.0, 0.0]]
    """
    u = u[:steps]
    return jnp.pad(u[:, conditions], ((0, steps - len(u)), (0, 0), (rank, 0)))


def random_inputs(
    kind: str, *, units: int, channels: int, rank: int, conditions: int, steps: int, key: jax.Array, dtype: str
) -> dict[str, Any]:
    r"""Draw the arrays of a network that its inputs need.

    W_in ~ N(0, 1/R), so that its columns are √(n/R) long; free inputs ~ N(0, 0.01); v(0) ~ U(-1, 1) with h = 150,
    weights and biases of the layers ~ N(0, 1/h), D ~ N(0, 1/h).

    Args:
        kind: "none", "free" or "ode".
        units: Number of units n.
        channels: Number of inputs m, at least 1 unless there are none.
        rank: Number of components R of the network.
        conditions: Number of conditions.
        steps: Number of bins with inputs, at least 1 unless there are none.
        key: JAX random key.
        dtype: Of the arrays.

    Returns:
        Arrays by the name of the network's field.

    Raises:
        ValueError: If `kind` is unknown, or there are inputs and no channel or no bin for them.
    """
    if kind not in INPUTS:
        raise ValueError(f"inputs is {kind!r}; it must be 'none', 'free' or 'ode'.")
    if kind == "none":
        return {}
    check_size("channels", channels)
    check_size("input_steps", steps)
    k_in, k_u, k_v, k_layers, k_D = jax.random.split(key, 5)
    W_in = jax.random.normal(k_in, (units, channels), dtype) / math.sqrt(rank)
    if kind == "free":
        return {"W_in": W_in, "u": 0.1 * jax.random.normal(k_u, (steps, conditions, channels), dtype)}
    return {
        "W_in": W_in,
        "v0": jax.random.uniform(k_v, (conditions, WIDTH), dtype, -1, 1),
        "layers": jax.random.normal(k_layers, (LAYERS, WIDTH, WIDTH + 1), dtype) / math.sqrt(WIDTH),
        "D": jax.random.normal(k_D, (channels, WIDTH), dtype) / math.sqrt(WIDTH),
    }
