"""Networks that learned to reach, and fits to their activity, shared by the figures of motor learning.

Figures 3 and 4 of the supplement show monkeys; here a network that reaches takes their place, so that what a fit finds
can be compared with the weights that made the activity.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import xarray as xr

from tauflow.analysis.arguments import FloatArray
from tauflow.neural import Masks, block_masks
from tauflow.neural.cross_validation import cross_validate
from tauflow.neural.motor_learning import MotorLearning, motor_learning
from tauflow.tasks import Reaching

TASKS = {
    "rotation": Reaching(perturbation="rotation", angle=60.0, mass=0.3, settle=1.0),
    "force field": Reaching(perturbation="force field", field=1.0, mass=0.3, settle=1.0),
}
PROCEDURES = ("single entries", "blocks", "whole trials")
COURSES = 2
"""Courses over trials that are compared."""


@dataclass(frozen=True)
class Settings:
    """Sizes.

    Attributes:
        perturbations: Which of `TASKS`.
        neurons: Number of units of the network that reaches; all are recorded.
        pretraining: Updates that teach it to reach.
        trials: Trials of baseline, perturbation and washout.
        learning_rate: Rate of gradient descent over these trials.
        ranks: Numbers of components tried.
        masks: Masks of each procedure.
        units: Units of the networks fitted.
        steps: Updates of each fit.
        block: Bins and trials hidden together.
        inner: Bins and trials tested in the middle of these.
    """

    perturbations: tuple[str, ...]
    neurons: int
    pretraining: int
    trials: tuple[int, int, int]
    learning_rate: float
    ranks: tuple[int, ...]
    masks: int
    units: int
    steps: int
    block: tuple[int, int]
    inner: tuple[int, int]

    @property
    def fit(self) -> dict[str, Any]:
        """Options of every fit: all take the same number of updates, so that they can be compared."""
        return {"steps": self.steps, "every": 50, "tolerance": 1e-9}


FULL = Settings(("rotation", "force field"), 100, 500, (40, 130, 70), 0.025, (1, 2, 3, 4, 5, 6, 7, 8), 2, 60, 800,
                (10, 20), (4, 10))  # fmt: skip
QUICK = Settings(("rotation",), 40, 200, (16, 48, 16), 0.06, (1, 5), 1, 40, 400, (6, 8), (2, 4))


@functools.cache
def learned(perturbation: str, settings: Settings, seed: int) -> MotorLearning:
    """Teach a network to reach, perturb it and record it.

    Args:
        perturbation: One of `TASKS`.
        settings: Sizes.
        seed: The number from which all randomness comes.
    """
    epochs = dict(zip(("baseline", "perturbation", "washout"), settings.trials, strict=True))
    return motor_learning(
        TASKS[perturbation], key=jax.random.key(seed), neurons=settings.neurons, trials=epochs,
        pretraining=settings.pretraining, pretraining_rate=3e-3 if settings.pretraining > 400 else 5e-3,
        learning_rate=settings.learning_rate,
    )  # fmt: skip


def masks_of(procedure: str, sizes: dict[str, int], settings: Settings, key: jax.Array) -> Masks:
    """Hide a fifth of a recording, as one of `PROCEDURES` does.

    Args:
        procedure: "single entries", "blocks" of a few bins and trials of one neuron with only their interiors tested,
            or "whole trials".
        sizes: Sizes of the recording.
        settings: Sizes of the blocks.
        key: JAX random key.
    """
    if procedure == "single entries":
        one = {"time": 1, "trial": 1}
        return block_masks(sizes, one, one, key=key)
    if procedure == "blocks":
        hidden, tested = (dict(zip(("time", "trial"), each, strict=True)) for each in (settings.block, settings.inner))
        return block_masks(sizes, hidden, tested, key=key)
    seed = int(jax.random.randint(key, (), 0, 2**31 - 1))
    trials = np.random.default_rng(seed).permutation(sizes["trial"])[: sizes["trial"] // 5]
    hidden_trials = np.zeros((sizes["time"], sizes["trial"], sizes["neuron"]), bool)
    hidden_trials[:, trials] = True
    return Masks(~hidden_trials, hidden_trials)


@functools.cache
def compared(
    perturbation: str, procedures: tuple[str, ...], settings: Settings, seed: int,
    progress: Callable[..., None] | None = None,
) -> tuple[xr.Dataset, tuple[Masks, ...]]:  # fmt: skip
    """Cross-validate fits to the recording of one perturbation.

    Args:
        perturbation: One of `TASKS`.
        procedures: Which of `PROCEDURES`.
        settings: Sizes.
        seed: The number from which all randomness comes.
        progress: Called now and then.

    Returns:
        What `cross_validate` gives, with a dimension `procedure`; and the masks, those of one procedure together.
    """
    recording = learned(perturbation, settings, seed).recording
    sizes = {str(name): size for name, size in recording.sizes.items()}
    keys = jax.random.split(jax.random.key(seed + 1), (len(PROCEDURES), settings.masks))
    masks = [
        masks_of(each, sizes, settings, keys[PROCEDURES.index(each), k])
        for each in procedures
        for k in range(settings.masks)
    ]
    found = cross_validate(
        recording, settings.ranks, settings.units, 1, masks, key=jax.random.key(seed + 2), progress=progress,
        **settings.fit,
    )  # fmt: skip
    parts = [found.isel(mask=slice(k * settings.masks, (k + 1) * settings.masks)) for k in range(len(procedures))]
    parts = [part.assign_coords(mask=range(settings.masks)) for part in parts]
    return xr.concat(parts, dim="procedure").assign_coords(procedure=list(procedures)), tuple(masks)


def courses(change: FloatArray) -> FloatArray:
    """The leading courses over trials of weights, around their mean over trials.

    Args:
        change: Weights of each trial, shape (trial, anything).

    Returns:
        Orthonormal columns, shape (trial, `COURSES`), by falling singular value.
    """
    centred = change - change.mean(axis=0)
    values, vectors = np.linalg.eigh(centred @ centred.T)
    return np.asarray(vectors[:, np.argsort(-values)[:COURSES]])


def factor_courses(columns: FloatArray, strengths: FloatArray, rows: FloatArray) -> FloatArray:
    """`courses` of weights of low tensor rank, which are never formed.

    Args:
        columns: Shape (unit, rank).
        strengths: Shape (trial, rank).
        rows: Shape (unit, rank).
    """
    gram = (columns.T @ columns) * (rows.T @ rows)  # of the outer products
    values, vectors = np.linalg.eigh(gram)
    return courses(strengths @ (vectors * np.sqrt(np.maximum(values, 0.0))))
