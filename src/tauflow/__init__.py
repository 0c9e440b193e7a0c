"""tauflow watches recurrent networks learn: the path of their weights, what it is made of, what theory predicts.

The names here are loaded when first used, so that `import tauflow` and the command line start at once. Everything else
is reached through its folder, for example `tauflow.analysis.singular_values`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tauflow.learning import Record, descend, ensemble, flow
    from tauflow.networks import ContinuousLinearRNN, RateRNN
    from tauflow.objectives import FilterLoss, FixedPointLoss, MeanSquaredError
    from tauflow.run import Run, load, merge
    from tauflow.study import Study, resume_study, run_study
    from tauflow.tasks import (
        Cosine,
        DampedOscillator,
        ExponentialSum,
        FixedPoint,
        FlipFlop,
        LeakyIntegrator,
        Mante,
        Reaching,
        Romo,
        SampledFilter,
    )

__version__ = "0.1.0"

_HOMES = {
    "tauflow.learning": ("Record", "descend", "ensemble", "flow"),
    "tauflow.networks": ("ContinuousLinearRNN", "RateRNN"),
    "tauflow.objectives": ("FilterLoss", "FixedPointLoss", "MeanSquaredError"),
    "tauflow.run": ("Run", "load", "merge"),
    "tauflow.study": ("Study", "resume_study", "run_study"),
    "tauflow.tasks": (
        "Cosine", "DampedOscillator", "ExponentialSum", "FixedPoint", "FlipFlop", "LeakyIntegrator", "Mante",
        "Reaching", "Romo", "SampledFilter",
    ),
}  # fmt: skip
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "ContinuousLinearRNN",
    "Cosine",
    "DampedOscillator",
    "ExponentialSum",
    "FilterLoss",
    "FixedPoint",
    "FixedPointLoss",
    "FlipFlop",
    "LeakyIntegrator",
    "Mante",
    "MeanSquaredError",
    "RateRNN",
    "Reaching",
    "Record",
    "Romo",
    "Run",
    "SampledFilter",
    "Study",
    "descend",
    "ensemble",
    "flow",
    "load",
    "merge",
    "resume_study",
    "run_study",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
