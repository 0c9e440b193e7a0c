"""How each task is trained when nothing else is said: the settings of the paper that the task comes from."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from tauflow.networks import coupling, outlier_pair
from tauflow.study.ways import Descent, Flow, Way


@dataclass(frozen=True)
class Recipe:
    """Settings with which a task is known to be learned.

    Attributes:
        way: How networks learn, and which.
        train: Fields of the network that learning moves.
        neurons: Number of units.
        gain: g, the radius of the disk that the eigenvalues of the initial W (of W/√N in a continuous network) fill.
        seeds: Number of networks.
    """

    way: Way = field(default_factory=Descent)
    train: tuple[str, ...] = ("W", "W_in", "W_out")
    neurons: int = 256
    gain: float = 0.9
    seeds: int = 4


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


def filter_recipe(way: Flow, *, gain: float = 0.2) -> Recipe:
    """The recipe of a filter task: 250 neurons, as in the figures of bordelon2025; flows are slow, so two networks."""
    return Recipe(way, neurons=250, gain=gain, seeds=2)


#: The recipe of every task by the task's name; a task that is not here takes `Recipe()`.
RECIPES: dict[str, Recipe] = {
    "flip-flop": Recipe(Descent(steps=1000)),
    "mante": Recipe(Descent(steps=2000)),
    "romo": Recipe(Descent(steps=6000)),
    "fixed-point": Recipe(
        Descent("identity", "sgd", steps=200, batch=1, learning_rate=fixed_point_rate, deterministic=True),
        train=("W",),
    ),
    "cosine": Recipe(
        Descent(
            "identity", "sgd", steps=1000, batch=1, learning_rate=cosine_rate, tied_readout=True, deterministic=True
        ),
        train=("W",),
    ),
    "leaky-integrator": filter_recipe(Flow(3.0, probe={"coupling": coupling})),
    # The paper's Fig. 3 does not say where its pair begins: here well inside the disk of stable ones, at half the
    # target's frequency, and far enough from the random eigenvalues to be told from them.
    "oscillator": filter_recipe(Flow(2.0, planted=(0.5, 0.5), probe={"outlier_pair": outlier_pair}), gain=0.1),
    "exponential-sum": filter_recipe(Flow(10.0)),
    "sampled-filter": filter_recipe(Flow(10.0)),
    "reaching": Recipe(Descent(steps=500, learning_rate=lambda neurons, gain, target: 3e-3)),
}


def recipe(task: str) -> Recipe:
    """The recipe of a task, by the task's name.

    Example:
        >>> recipe("mante").way.words, recipe("fixed-point").train
        ('updates of an optimizer', ('W',))
        >>> recipe("leaky-integrator").way.words
        'gradient flow of an exact loss'
    """
    return RECIPES.get(task, Recipe())
