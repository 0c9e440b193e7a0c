"""What a study is: every setting by name, checked once, and written beside its results as JSON."""

from __future__ import annotations

import json
from typing import Any, Literal

import jax
import optax
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tauflow.learning import Record
from tauflow.names import check_name
from tauflow.networks import RateRNN
from tauflow.objectives import MeanSquaredError
from tauflow.simulate import NONLINEARITIES
from tauflow.study.recipe import recipe
from tauflow.tasks import Task, make_task
from tauflow.tasks.settings import plain

SCHEMA = 1
_WHOLE = "a whole number >= 1"


class StudyConfiguration(BaseModel):
    """All settings of a study. Make one with `StudyConfiguration.complete`, which fills in the task's recipe.

    Attributes:
        task: Name of the task.
        neurons: Number of units N.
        gain: g, the radius of the disk that the eigenvalues of the initial W fill.
        seeds: Number of networks.
        steps: Number of updates.
        seed: The number from which all randomness comes; member i takes `fold_in(key(seed), i)`.
        phi: Nonlinearity of the network.
        learning_rate: Rate of the optimizer.
        optimizer: "adam" or "sgd".
        batch: Trials per update.
        dt: Time step in membrane times.
        noise: Standard deviation of the white noise on the state per square root of time.
        target: Size of the task's target.
        train: Fields of the network that learning moves.
        weights: When to keep the weights, as in `tauflow.learning.Record`.
        measurements: When to measure spectra, as in `tauflow.learning.Record`.

    Example:
        >>> configuration = StudyConfiguration.complete("flip-flop", neurons=100, gain=0.9)
        >>> configuration.steps, configuration.learning_rate
        (1000, 0.0005)
        >>> StudyConfiguration.from_json(configuration.to_json()) == configuration
        True
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    task: str = Field(description="the name of a task", examples=["flip-flop"])
    neurons: int = Field(ge=1, le=10**6, description=_WHOLE + " (and at most a million)", examples=[256])
    gain: float = Field(ge=0, description="a number >= 0", examples=[0.9])
    seeds: int = Field(ge=1, le=10**6, description=_WHOLE, examples=[4])
    steps: int = Field(ge=1, lt=2**31, description=_WHOLE, examples=[1000])
    seed: int = Field(ge=0, lt=2**31, description="a whole number from 0 to 2147483647", examples=[0])
    phi: str = Field(description="the name of a nonlinearity", examples=["tanh"])
    learning_rate: float = Field(gt=0, description="a number > 0", examples=[0.0002])
    optimizer: Literal["adam", "sgd"] = Field(description="'adam' or 'sgd'", examples=["adam"])
    batch: int = Field(ge=1, description=_WHOLE, examples=[32])
    dt: float = Field(gt=0, le=1, description="a number in (0, 1], in membrane times", examples=[0.5])
    noise: float = Field(ge=0, description="a number >= 0", examples=[0.1])
    target: float = Field(description="a finite number", examples=[0.5])
    train: tuple[str, ...] = Field(min_length=1, description="fields of the network", examples=[("W", "W_in")])
    weights: Literal["ends", "all"] | tuple[int, ...] = Field(description="'ends', 'all' or updates", examples=["ends"])
    measurements: int | tuple[int, ...] = Field(description="a number >= 0, or updates", examples=[100])

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
        given = {name: plain(value) for name, value in given.items() if value is not None}
        check_name("phi", given.get("phi", "tanh"), NONLINEARITIES)
        if record.probes:
            raise ValueError("A study keeps no probes, since it must be able to go on from its folder; use ensemble.")
        bare = make_task(task)
        taken = recipe(task)
        defaults: dict[str, Any] = {
            "task": task, "neurons": 256, "gain": 0.9, "seeds": 4, "seed": 0, "noise": 0.0, "steps": taken.steps,
            "phi": taken.phi, "optimizer": taken.optimizer, "batch": taken.batch, "dt": bare.dt, "train": taken.train,
            "target": float(bare.settings["target_amplitude"]), "learning_rate": 1.0,
            "weights": plain(record.weights), "measurements": plain(record.measurements),
        }  # fmt: skip
        made = cls._checked({**defaults, **given})
        if "learning_rate" not in given:
            rate = taken.learning_rate(made.neurons, made.gain, made.target)
            made = made.model_copy(update={"learning_rate": rate})
        return made._fitting()

    def _fitting(self) -> StudyConfiguration:
        """Itself, once its names are known, its task can be made, and what is kept lies within the run."""
        check_name("phi", self.phi, NONLINEARITIES)
        self.make_task()
        for name in self.train:
            check_name("field to train", name, ("W", "W_in", "W_out"))
        self.record().measurement_times(self.steps), self.record().snapshot_times(self.steps)
        return self

    @classmethod
    def _checked(cls, values: dict[str, Any]) -> StudyConfiguration:
        unknown = [name for name in values if name not in cls.model_fields]
        for name in unknown:
            check_name("setting", name, cls.model_fields, of="the study")
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise ValueError(_sentence(cls, error)) from None

    @classmethod
    def from_json(cls, text: str | bytes) -> StudyConfiguration:
        """Read what `to_json` wrote.

        Raises:
            ValueError: If the text is no configuration of a study, or that of a newer tauflow, or a setting in it is
                not as `complete` wants it.
        """
        try:
            document = json.loads(text)
            schema, values = document["schema"], dict(document["configuration"])
        except (ValueError, KeyError, TypeError):
            raise ValueError("it is damaged or no configuration of a study; restore it from a copy.") from None
        if schema != SCHEMA:
            raise ValueError(f"it has schema {schema!r} and this tauflow reads {SCHEMA}; upgrade tauflow.")
        return cls._checked({name: plain(value) for name, value in values.items()})._fitting()

    def to_json(self) -> str:
        """The configuration as JSON text."""
        return json.dumps({"schema": SCHEMA, "configuration": self.model_dump(mode="json")}, indent=2) + "\n"

    def make_task(self) -> Task:
        """The task."""
        return make_task(self.task, dt=self.dt, target_amplitude=self.target)

    def make_network(self, *, key: jax.Array) -> RateRNN:
        """Draw the network of one member."""
        task = self.make_task()
        network = RateRNN.random(
            self.neurons, task.inputs, task.outputs, gain=self.gain, key=key, phi=self.phi, dt=self.dt, noise=self.noise
        )
        if not recipe(self.task).tied_readout:
            return network
        W_in = network.W_in  # (n, 1)
        return RateRNN(network.W, W_in, W_in.T / self.neurons, phi=self.phi, dt=self.dt, noise=self.noise)

    def make_objective(self) -> MeanSquaredError:
        """The loss that training descends."""
        return MeanSquaredError(self.make_task(), trials=self.batch)

    def make_optimizer(self) -> optax.GradientTransformation:
        """The optimizer of one member."""
        return {"adam": optax.adam, "sgd": optax.sgd}[self.optimizer](self.learning_rate)

    def keys(self) -> list[jax.Array]:
        """The key of every member; more seeds leave the first ones as they are."""
        root = jax.random.key(self.seed)
        return [jax.random.fold_in(root, member) for member in range(self.seeds)]

    def record(self) -> Record:
        """What to keep while learning."""
        return Record(weights=self.weights, measurements=self.measurements)

    def describe(self) -> dict[str, Any]:
        """What `ensemble` cannot know by itself, as plain values for the attribute `configuration` of the Run."""
        known = {"task", "steps", "train", "weights", "measurements"}
        return {name: value for name, value in self.model_dump(mode="json").items() if name not in known}


def _sentence(model: type[BaseModel], error: ValidationError) -> str:
    """The first thing that is wrong, in one sentence: what came, what is wanted, an example."""
    first = error.errors()[0]
    name = str(first["loc"][0])
    if first["type"] == "missing":
        return f"{name} is missing; restore it, or begin a new study."
    field = model.model_fields[name]
    example = (field.examples or [""])[0]
    value = f"{name}={example}"
    return f"{name} is {first['input']!r}; it must be {field.description}, for example {value}."
