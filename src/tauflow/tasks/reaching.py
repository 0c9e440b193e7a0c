r"""Reaching: a hand is pushed to one of several targets by what a network puts out as a force.

The hand is a point mass with damping, at rest at the origin at first,

$$m\,\ddot p = f - \beta\,\dot p + b\,J\dot p, \qquad J = \begin{pmatrix} 0 & -1 \\ 1 & 0 \end{pmatrix},$$

with the network's outputs f (right and up) as force. Two perturbations turn reaches counter-clockwise when positive: a
curl force field $b\,J\dot p$, at a right angle to the velocity, and a visuomotor rotation, in which the cursor that is
compared with the target is $y = R(\text{angle})\,p$. Outputs hold for a step, for which the hand moves exactly.

Source: pellegrino2023, supplement C. Deviation from print: the dynamics of the hand stand in the main text there; here
they are the above.
"""

from __future__ import annotations

import math
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray
from scipy.linalg import expm

from tauflow.tasks.base import Task, Trials
from tauflow.tasks.drawing import as_index, draw_uniform
from tauflow.tasks.settings import check_amplitude, check_count, check_duration, is_number, setting

PERTURBATIONS = ("none", "rotation", "force field")
_J = np.array([[0.0, -1.0], [1.0, 0.0]])


class Hand(NamedTuple):
    """How the hand moves, after each step.

    Attributes:
        position: Shape (time, *trials, 2), right and up.
        velocity: Likewise, per membrane time.
    """

    position: Array
    velocity: Array


class Reaching(Task):
    r"""Hold the hand still while the target is shown, then reach to it without any further input.

    Input channels are the target's direction, $\cos\theta$ and $\sin\theta$, and a hold cue of 1; all are on during the
    preparation and off afterwards. Outputs are the force on the hand; `answer` turns them into the path of the cursor,
    which is what targets are for: the origin during the preparation, the target during the execution. The go cue always
    comes at the same time, so a network that is to be at the target at once learns to set out before the cue; `settle`
    gives it time.

    Attributes:
        preparation: Time before the go cue, in membrane times.
        execution: Time after it.
        settle: Time after the go cue in which it does not matter where the cursor is, less than `execution`.
        directions: Number of targets, evenly spaced on a circle, the first one to the right.
        target_amplitude: Distance of the targets.
        mass: m of the hand, > 0.
        damping: β of the hand, >= 0.
        perturbation: "none", "rotation" or "force field".
        angle: Angle of the rotation in degrees, counter-clockwise.
        field: b of the force field; positive pushes counter-clockwise.
        dt: Time step.

    Source: pellegrino2023, supplement C, Eq. C.0.1. Deviation from print: the hand (see the module), and `settle`,
        which is 0 there.

    Example:
        >>> task = Reaching(perturbation="rotation", angle=90.0)
        >>> task.duration, task.steps, task.inputs, task.outputs
        (4.0, 40, 3, 2)
        >>> push = jnp.zeros((40, 2)).at[:, 0].set(1.0)  # to the right
        >>> [round(float(x), 3) for x in task.answer(push)[-1]]  # the cursor goes up
        [0.0, 3.018]
    """

    name: ClassVar[str] = "reaching"
    paper: ClassVar[str] = "pellegrino2023"
    tags: ClassVar[tuple[str, ...]] = ("motor", "preparation", "perturbation")
    example_seed: ClassVar[int] = 0
    inputs: ClassVar[int] = 3
    outputs: ClassVar[int] = 2

    preparation: float = setting(2.0)
    execution: float = setting(2.0)
    settle: float = setting(0.0)
    directions: int = setting(8)
    target_amplitude: float = setting(1.0)
    mass: float = setting(1.0)
    damping: float = setting(1.0)
    perturbation: str = setting("none")
    angle: float = setting(30.0)
    field: float = setting(0.5)
    dt: float = setting(0.1)

    def check(self) -> None:
        """Check all settings.

        Raises:
            ValueError: If one is out of its range.
        """
        check_duration("preparation", self.preparation, shortest=self.dt)
        check_duration("execution", self.execution, shortest=self.dt)
        check_duration("settle", self.settle)
        if self.steps_in(self.settle) >= self.steps_in(self.execution):
            raise ValueError(
                f"settle is {self.settle!r}; it must be shorter than the execution, {self.execution!r}, for example "
                "settle=1.0 with execution=2.0."
            )
        check_count("directions", self.directions)
        for name in ("target_amplitude", "angle", "field"):
            check_amplitude(name, getattr(self, name))
        if not is_number(self.mass) or self.mass <= 0:
            raise ValueError(f"mass is {self.mass!r}; it must be a number > 0, for example mass=1.0.")
        if not is_number(self.damping) or self.damping < 0:
            raise ValueError(f"damping is {self.damping!r}; it must be a number >= 0, for example damping=1.0.")
        if self.perturbation not in PERTURBATIONS:
            raise ValueError(
                f"perturbation is {self.perturbation!r}; it must be one of {', '.join(map(repr, PERTURBATIONS))}."
            )

    @property
    def duration(self) -> float:
        """Length of a trial in membrane times."""
        return self.preparation + self.execution

    @property
    def go(self) -> int:
        """The first step of the execution."""
        return self.steps_in(self.preparation)

    @property
    def settled(self) -> int:
        """The first step in which the cursor is to be at the target."""
        return self.go + self.steps_in(self.settle)

    @property
    def angles(self) -> NDArray[np.float64]:
        """Directions of the targets in degrees, shape (direction,)."""
        return np.linspace(0.0, 360.0, self.directions, endpoint=False, dtype=np.float64)

    def draw(self, trials: int, key: Array, dtype: str) -> Trials:
        """Draw the targets' directions."""
        which = as_index(draw_uniform(key, (trials,)), self.directions)  # (trial,)
        theta = jnp.asarray(np.deg2rad(self.angles), dtype)[which]  # (trial,)
        direction = jnp.stack([jnp.cos(theta), jnp.sin(theta)], axis=1)  # (trial, 2)
        shown = jnp.concatenate([direction, jnp.ones_like(direction[:, :1])], axis=1)  # (trial, 3)
        preparing = self.between(0, self.go).astype(dtype)[:, None, None]  # (time, 1, 1)
        targets = self.target_amplitude * (1 - preparing) * direction[None]  # (time, trial, 2)
        counts = 1 - self.between(self.go, self.settled).astype(dtype)  # (time,)
        return Trials(preparing * shown[None], targets, jnp.broadcast_to(counts[:, None, None], targets.shape))

    def answer(self, outputs: Array) -> Array:
        """The path of the cursor, (time, *trials, 2), under outputs taken as forces, of the same shape."""
        cursor = np.eye(2)
        if self.perturbation == "rotation":
            angle = math.radians(self.angle)
            cursor = math.cos(angle) * np.eye(2) + math.sin(angle) * _J
        return self.hand(outputs).position @ jnp.asarray(cursor.T, outputs.dtype)

    def hand(self, forces: Array) -> Hand:
        """How the hand moves under forces.

        Args:
            forces: Shape (time, *trials, 2), each of them held for one step.

        Returns:
            Position and velocity after each step.

        Raises:
            ValueError: If the forces have another number of components.

        Example:
            >>> position, velocity = Reaching(mass=2.0, damping=0.0).hand(jnp.ones((10, 2)))  # one membrane time
            >>> round(float(position[-1, 0]), 6), round(float(velocity[-1, 0]), 6)
            (0.25, 0.5)
        """
        if jnp.ndim(forces) < 2 or forces.shape[-1] != 2:
            raise ValueError(
                f"The outputs have shape {jnp.shape(forces)}; the force on a hand has two components, so they must be "
                "(time, *trials, 2)."
            )
        field = self.field if self.perturbation == "force field" else 0.0
        slowing, still, unit = (field * _J - self.damping * np.eye(2)) / self.mass, np.zeros((2, 2)), np.eye(2)
        generator = np.block([[still, unit, still], [still, slowing, unit / self.mass], [np.zeros((2, 6))]])
        step = jnp.asarray(expm(self.dt * generator)[:4].T, forces.dtype)  # (position + velocity + force, 4)

        def move(state: Array, force: Array) -> tuple[Array, Array]:
            state = jnp.concatenate([state, force], axis=-1) @ step  # (*trials, 4)
            return state, state

        start = jnp.zeros((*forces.shape[1:-1], 4), forces.dtype)
        _, states = jax.lax.scan(move, start, forces)  # (time, *trials, 4)
        return Hand(states[..., :2], states[..., 2:])


def direction_error(position: Array, target: Array) -> Array:
    """Angle from the target's direction to that of a position, both seen from the origin.

    Args:
        position: Where the cursor is, shape (..., 2), for example at the end of a reach.
        target: Where it should be, same shape.

    Returns:
        Shape (...), in degrees from -180 to 180, positive where the cursor is counter-clockwise of the target; 0 where
        either is at the origin.

    Example:
        >>> round(float(direction_error(jnp.array([0.0, 2.0]), jnp.array([1.0, 0.0]))), 3)
        90.0
    """
    along = (position * target).sum(axis=-1)
    across = target[..., 0] * position[..., 1] - target[..., 1] * position[..., 0]
    return jnp.rad2deg(jnp.arctan2(across, along))
