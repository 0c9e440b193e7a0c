"""What a study is: every setting by name, checked once, and written beside its results as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import jax
from pydantic import Field

from tauflow.learning import Record
from tauflow.names import check_name
from tauflow.simulate import NONLINEARITIES
from tauflow.study.recipe import recipe
from tauflow.study.ways import WAYS, Way
from tauflow.study.written import WHOLE, Configuration, as_plain
from tauflow.tasks import Task, make_task
from tauflow.tasks.settings import plain

_NOT_GIVEN: Any = None
#: Settings of a task that a study has under a name of its own.
OF_THE_TASK = {"dt": "dt", "target_amplitude": "target"}


class StudyConfiguration(Configuration):
    """All settings of a study. Make one with `StudyConfiguration.complete`, which fills in the task's recipe.

    A task's recipe says how networks learn, and each way has settings that the other has not; those are None.

    Attributes:
        task: Name of the task.
        settings: Settings of the task by name, where they are not its own; `dt` and `target` are given by themselves.
        neurons: Number of units N.
        gain: g, the radius of the disk that the eigenvalues of the initial W (W/√N in continuous networks) fill.
        seeds: Number of networks.
        seed: The number from which all randomness comes; member i takes `fold_in(key(seed), i)`.
        dt: Time step in membrane times; of a continuous network, where it is simulated.
        target: Size of the task's target.
        train: Fields of the network that learning moves.
        weights: When to keep the weights, as in `tauflow.learning.Record`.
        measurements: When to measure spectra, as in `tauflow.learning.Record`.
        steps: Number of updates.
        phi: Nonlinearity of the network.
        learning_rate: Rate of the optimizer.
        optimizer: "adam" or "sgd".
        batch: Trials per update.
        noise: Standard deviation of the white noise on the state per square root of time.
        duration: Learning time τ of a gradient flow.
        points: Number of learning times at which a flow is recorded.
        gamma0: Richness γ₀ of a continuous network.

    Example:
        >>> configuration = StudyConfiguration.complete("flip-flop", neurons=100, gain=0.9)
        >>> configuration.steps, configuration.learning_rate
        (1000, 0.0005)
        >>> StudyConfiguration.from_json(configuration.to_json()) == configuration
        True
        >>> StudyConfiguration.complete("leaky-integrator", settings={"c": 0.1}).duration
        3.0
    """

    OF: ClassVar[str] = "study"
    FILE: ClassVar[str] = "study.json"

    task: str = Field(description="the name of a task", examples=["flip-flop"])
    settings: dict[str, Any] = Field({}, description="the task's settings by name", examples=[{"c": 0.2}])
    neurons: int = Field(ge=1, le=10**6, description=WHOLE + " (and at most a million)", examples=[256])
    gain: float = Field(ge=0, description="a number >= 0", examples=[0.9])
    seeds: int = Field(ge=1, le=10**6, description=WHOLE, examples=[4])
    seed: int = Field(ge=0, lt=2**31, description="a whole number from 0 to 2147483647", examples=[0])
    dt: float = Field(gt=0, le=1, description="a number in (0, 1], in membrane times", examples=[0.5])
    target: float = Field(description="a finite number", examples=[0.5])
    train: tuple[str, ...] = Field(min_length=1, description="fields of the network", examples=[("W", "W_in")])
    weights: Literal["ends", "all"] | tuple[int, ...] = Field(description="'ends', 'all' or updates", examples=["ends"])
    measurements: int | tuple[int, ...] = Field(description="a number >= 0, or updates", examples=[100])
    # Each way of learning has some of these; the others stay None, which is never given.
    steps: int = Field(_NOT_GIVEN, ge=1, lt=2**31, description=WHOLE, examples=[1000])
    phi: str = Field(_NOT_GIVEN, description="the name of a nonlinearity", examples=["tanh"])
    learning_rate: float = Field(_NOT_GIVEN, gt=0, description="a number > 0", examples=[0.0002])
    optimizer: Literal["adam", "sgd"] = Field(_NOT_GIVEN, description="'adam' or 'sgd'", examples=["adam"])
    batch: int = Field(_NOT_GIVEN, ge=1, description=WHOLE, examples=[32])
    noise: float = Field(_NOT_GIVEN, ge=0, description="a number >= 0", examples=[0.1])
    duration: float = Field(_NOT_GIVEN, gt=0, description="a learning time > 0", examples=[5.0])
    points: int = Field(_NOT_GIVEN, ge=2, description="a whole number >= 2", examples=[101])
    gamma0: float = Field(_NOT_GIVEN, gt=0, description="a number > 0", examples=[1.0])

    @classmethod
    def complete(cls, task: str = "flip-flop", *, record: Record = Record(), **given: Any) -> StudyConfiguration:
        """Check the settings that came, and take the others from the task's recipe.

        Args:
            task: Name of the task.
            record: What to keep; probes cannot be written to a file, so there may be none.
            **given: Settings by name; None means the recipe's.

        Raises:
            ValueError: If a setting is unknown or out of its range, or settings do not fit together.
        """
        given = {name: as_plain(value) for name, value in given.items() if value is not None}
        check_name("phi", given.get("phi", "tanh"), NONLINEARITIES)
        if record.probes:
            raise ValueError("A study keeps no probes, since it must be able to go on from its folder; use ensemble.")
        bare = make_task(task)
        taken = recipe(task)
        _check_way(task, taken.way, given)
        defaults: dict[str, Any] = {
            "task": task, "neurons": taken.neurons, "gain": taken.gain, "seeds": taken.seeds, "seed": 0,
            "train": taken.train, "dt": bare.dt, "target": float(bare.settings["target_amplitude"]),
            "weights": plain(record.weights), "measurements": plain(record.measurements),
        }  # fmt: skip
        made = cls.checked({**defaults, **given})
        own = taken.way.defaults(made.neurons, made.gain, made.target)
        return cls.checked({**defaults, **own, **given}).fitting()

    def fitting(self) -> StudyConfiguration:
        """Itself, once its names are known, its task can be made, and what is kept lies within the run."""
        self.make_task()
        _check_way(self.task, self.way, self.model_dump(exclude_none=True))
        for name in self.way.settings:
            if getattr(self, name) is None:
                raise ValueError(f"{name} is missing; restore it, or begin a new study.")
        check_name("phi", self.phi or "tanh", NONLINEARITIES)
        for name in self.train:
            check_name("field to train", name, ("W", "W_in", "W_out"))
        last, record = self.way.points(self), self.record()
        record.measurement_times(last), record.snapshot_times(last)
        return self

    @property
    def way(self) -> Way:
        """How the networks learn."""
        return recipe(self.task).way

    def make_task(self) -> Task:
        """The task."""
        for name in self.settings:
            if name in OF_THE_TASK:
                own = OF_THE_TASK[name]
                raise ValueError(f"settings has {name}, which a study has by itself; give it as {own}=.")
        return make_task(self.task, dt=self.dt, target_amplitude=self.target, **self.settings)

    def make_network(self, *, key: jax.Array) -> Any:
        """Draw the network of one member."""
        return self.way.network(self, key=key)

    def make_objective(self) -> Any:
        """The loss that learning descends."""
        return self.way.objective(self)

    def keys(self) -> list[jax.Array]:
        """The key of every member; more seeds leave the first ones as they are."""
        root = jax.random.key(self.seed)
        return [jax.random.fold_in(root, member) for member in range(self.seeds)]

    def record(self) -> Record:
        """What to keep while learning."""
        return Record(weights=self.weights, measurements=self.measurements, probes=self.way.probes())


def _check_way(task: str, way: Way, given: Mapping[str, Any]) -> None:
    """Refuse settings of another way of learning than the task's."""
    others = {name for each in WAYS for name in each.settings} - set(way.settings)
    for name in given:
        if name in others:
            raise ValueError(
                f"{name} came for a study of {task}, where networks learn by {way.words}; leave it out, or choose "
                f"another task."
            )
