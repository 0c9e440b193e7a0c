"""The two ways in which a study learns: updates of an optimizer on a sampled loss, or gradient flow of an exact one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import jax
import numpy as np
import optax

from tauflow.learning import Progress, ensemble, flow_ensemble
from tauflow.networks import ContinuousLinearRNN, RateRNN
from tauflow.objectives import FilterLoss, MeanSquaredError
from tauflow.run import Run
from tauflow.study.evaluation import Evaluation, FilterEvaluation, TrialEvaluation

if TYPE_CHECKING:
    from tauflow.study.configuration import StudyConfiguration

EVALUATION_TRIALS = 512
#: Settings that a Run keeps by itself.
KNOWN_TO_THE_RUN = ("task", "settings", "train", "weights", "measurements")


@dataclass(frozen=True)
class Descent:
    """A `RateRNN` learns in updates of an optimizer that descends the loss on sampled trials.

    Attributes:
        phi: Nonlinearity of the network.
        optimizer: "adam" or "sgd".
        steps: Number of updates.
        batch: Trials per update.
        learning_rate: `(neurons, gain, target) -> rate`; `target` is the task's target amplitude.
        tied_readout: Whether the readout starts along the input vector, W_out = W_inᵀ/N.
        deterministic: Whether all trials are equal, so that one is enough to evaluate on.
        settings: The settings of a study that only this way has.
        words: The way, as a sentence about a study names it.
    """

    phi: str = "tanh"
    optimizer: str = "adam"
    steps: int = 1000
    batch: int = 32
    learning_rate: Callable[[int, float, float], float] = lambda neurons, gain, target: 0.05 / neurons
    tied_readout: bool = False
    deterministic: bool = False
    settings: ClassVar[tuple[str, ...]] = ("steps", "phi", "learning_rate", "optimizer", "batch", "noise")
    words: ClassVar[str] = "updates of an optimizer"

    def defaults(self, neurons: int, gain: float, target: float) -> dict[str, Any]:
        """Settings that were not given."""
        rate = self.learning_rate(neurons, gain, target)
        own = {"steps": self.steps, "phi": self.phi, "optimizer": self.optimizer, "batch": self.batch, "noise": 0.0}
        return {**own, "learning_rate": rate}

    def network(self, configuration: StudyConfiguration, *, key: jax.Array) -> RateRNN:
        """Draw the network of one member."""
        task, of = configuration.make_task(), configuration
        static: dict[str, Any] = {"phi": of.phi, "dt": of.dt, "noise": of.noise}
        network = RateRNN.random(of.neurons, task.inputs, task.outputs, gain=of.gain, key=key, **static)
        if not self.tied_readout:
            return network
        W_in = network.W_in  # (n, 1)
        return RateRNN(network.W, W_in, W_in.T / of.neurons, **static)

    def objective(self, configuration: StudyConfiguration) -> MeanSquaredError:
        """The loss that training descends."""
        return MeanSquaredError(configuration.make_task(), trials=configuration.batch)

    def probes(self) -> Mapping[str, Callable[[Any], Any]]:
        """What is measured besides spectra: nothing."""
        return {}

    def points(self, configuration: StudyConfiguration) -> int:
        """The last position in learning."""
        return configuration.steps

    def learn(
        self, configuration: StudyConfiguration, folder: Path, progress: Callable[[Progress], None] | None
    ) -> Run:
        """Train the networks, or go on, or find the finished run in the folder."""
        make_optimizer = {"adam": optax.adam, "sgd": optax.sgd}[configuration.optimizer]
        return ensemble(
            configuration.make_network,
            configuration.make_objective,
            lambda: make_optimizer(configuration.learning_rate),
            keys=configuration.keys(),
            steps=configuration.steps,
            train=configuration.train,
            record=configuration.record(),
            out=folder,
            resume=True,
            progress=progress,
            configuration=configuration.describe(*KNOWN_TO_THE_RUN, "steps"),
        )

    def evaluation(self, configuration: StudyConfiguration) -> Evaluation:
        """How trained networks are measured: on one batch of trials that no network has seen."""
        trials = 1 if self.deterministic and configuration.noise == 0 else EVALUATION_TRIALS
        return TrialEvaluation(configuration.make_task(), trials, configuration.seed)


@dataclass(frozen=True)
class Flow:
    """A `ContinuousLinearRNN` learns to be a filter by gradient flow of the exact loss, with the mean-field rates.

    Attributes:
        duration: Learning time τ.
        planted: Decay rate c and angular frequency ω of the conjugate pair of eigenvalues that the network begins
            with, as in `ContinuousLinearRNN.warm_start`; None for a random network.
        probe: Name -> function of a network, measured along with the spectra.
        saved: Number of saved points, evenly spaced.
        gamma0: Richness γ₀.
        rtol: Relative tolerance of a step; the loss of the two tasks of the paper is then right to 1e-4 of itself.
        atol: Absolute tolerance of a step.
        settings: The settings of a study that only this way has.
        words: The way, as a sentence about a study names it.
    """

    duration: float
    planted: tuple[float, float] | None = None
    probe: Mapping[str, Callable[[Any], Any]] = field(default_factory=dict)
    saved: int = 61
    gamma0: float = 1.0
    rtol: float = 1e-6
    atol: float = 1e-8
    settings: ClassVar[tuple[str, ...]] = ("duration", "points", "gamma0")
    words: ClassVar[str] = "gradient flow of an exact loss"

    def defaults(self, neurons: int, gain: float, target: float) -> dict[str, Any]:
        """Settings that were not given."""
        return {"duration": self.duration, "points": self.saved, "gamma0": self.gamma0}

    def network(self, configuration: StudyConfiguration, *, key: jax.Array) -> ContinuousLinearRNN:
        """Draw the network of one member."""
        static: dict[str, Any] = {"gamma0": configuration.gamma0, "dt": configuration.dt}
        neurons, sigma = configuration.neurons, configuration.gain
        if self.planted is None:
            return ContinuousLinearRNN.random(neurons, sigma=sigma, key=key, **static)
        c, omega = self.planted
        return ContinuousLinearRNN.warm_start(neurons, sigma=sigma, c=c, omega=omega, key=key, **static)

    def objective(self, configuration: StudyConfiguration) -> FilterLoss:
        """The loss that learning follows."""
        return FilterLoss(configuration.make_task())

    def probes(self) -> Mapping[str, Callable[[Any], Any]]:
        """What is measured besides spectra."""
        return self.probe

    def points(self, configuration: StudyConfiguration) -> int:
        """The last position in learning."""
        return configuration.points - 1

    def learn(
        self, configuration: StudyConfiguration, folder: Path, progress: Callable[[Progress], None] | None
    ) -> Run:
        """Let the networks flow, or go on, or find the finished run in the folder."""
        return flow_ensemble(
            configuration.make_network,
            configuration.make_objective(),
            keys=configuration.keys(),
            duration=configuration.duration,
            save_at=np.linspace(0.0, configuration.duration, configuration.points),
            train=configuration.train,
            rates=lambda network: network.mean_field_rates(configuration.train),
            rtol=self.rtol,
            atol=self.atol,
            record=configuration.record(),
            out=folder,
            resume=True,
            progress=progress,
            configuration=configuration.describe(*KNOWN_TO_THE_RUN, "duration"),
        )

    def evaluation(self, configuration: StudyConfiguration) -> Evaluation:
        """How trained networks are measured: by the exact loss itself."""
        return FilterEvaluation(self.objective(configuration))


Way = Descent | Flow
WAYS = (Descent, Flow)
