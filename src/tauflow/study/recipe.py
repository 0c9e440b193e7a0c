"""How each task is trained when nothing else is said: the settings of the paper that the task comes from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Recipe:
    """Settings with which a task is known to be learned.

    Attributes:
        phi: Nonlinearity of the network.
        optimizer: "adam" or "sgd".
        train: Fields of the network that learning moves.
        steps: Number of updates.
        batch: Trials per update.
        learning_rate: `(neurons, gain, target) -> rate`; `target` is the task's target amplitude.
        tied_readout: Whether the readout starts along the input vector, W_out = W_inᵀ/N.
        deterministic: Whether all trials are equal, so that one is enough to evaluate on.
    """

    phi: str = "tanh"
    optimizer: str = "adam"
    train: tuple[str, ...] = ("W", "W_in", "W_out")
    steps: int = 1000
    batch: int = 32
    learning_rate: Callable[[int, float, float], float] = lambda neurons, gain, target: 0.05 / neurons
    tied_readout: bool = False
    deterministic: bool = False


def fixed_point_rate(neurons: int, gain: float, target: float) -> float:
    """Rate of plain gradient descent on the fixed-point task, η₀(ẑ)(1-g²)².

    η₀ is 0.015, 0.009 and 0.003 for ẑ = 0.5, 1 and 2, a power law in between and beyond, and 0.015 below 0.5. From
    g = 0.95 on the factor stays what it is there, since it would vanish at g = 1.

    Args:
        neurons: Number of units; the rate does not depend on it.
        gain: g.
        target: ẑ, the value to reach.

    Source: schuessler2020, supplement section 1, completed from the authors' code.

    Example:
        >>> round(fixed_point_rate(1024, 0.0, 1.0), 6), round(fixed_point_rate(1024, 0.6, 2.0), 6)
        (0.009, 0.001229)
    """
    sizes, rates = np.log([0.5, 1.0, 2.0]), np.log([0.015, 0.009, 0.003])
    size = float(np.log(max(abs(target), 0.5)))
    steepness = (rates[2] - rates[1]) / (sizes[2] - sizes[1])
    log_rate = np.interp(size, sizes, rates) + steepness * max(size - sizes[2], 0.0)
    return float(np.exp(log_rate) * (1 - min(gain, 0.95) ** 2) ** 2)


def cosine_rate(neurons: int, gain: float, target: float) -> float:
    """Rate of plain gradient descent on the cosine task: 0.2, 0.15 and 0.05 for g = 0, 0.4 and 0.8, linear between.

    Args:
        neurons: Number of units; the rate does not depend on it.
        gain: g; from 0.8 on the rate stays what it is there.
        target: Amplitude of the cosine; the rate does not depend on it.

    Source: schuessler2020, supplement Fig. S5 and the authors' code.

    Example:
        >>> round(cosine_rate(256, 0.2, 1.0), 6)
        0.175
    """
    return float(np.interp(gain, [0.0, 0.4, 0.8], [0.2, 0.15, 0.05]))


#: The recipe of every task by the task's name; a task that is not here takes `Recipe()`.
RECIPES: dict[str, Recipe] = {
    "flip-flop": Recipe(steps=1000),
    "mante": Recipe(steps=2000),
    "romo": Recipe(steps=6000),
    "fixed-point": Recipe(
        phi="identity", optimizer="sgd", train=("W",), steps=200, batch=1,
        learning_rate=fixed_point_rate, deterministic=True,
    ),
    "cosine": Recipe(
        phi="identity", optimizer="sgd", train=("W",), steps=1000, batch=1,
        learning_rate=cosine_rate, tied_readout=True, deterministic=True,
    ),
    **dict.fromkeys(("leaky-integrator", "oscillator", "exponential-sum", "sampled-filter"), Recipe(phi="identity")),
}  # fmt: skip


def recipe(task: str) -> Recipe:
    """The recipe of a task, by the task's name.

    Example:
        >>> recipe("mante").steps, recipe("fixed-point").train
        (2000, ('W',))
    """
    return RECIPES.get(task, Recipe())
