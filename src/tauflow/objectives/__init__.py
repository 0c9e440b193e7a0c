"""Scalars to descend: functions of a network and a key."""

from __future__ import annotations

from tauflow.objectives.filter import FilterLoss
from tauflow.objectives.fixed_point import FixedPointLoss, fixed_point_readout
from tauflow.objectives.mean_squared_error import MeanSquaredError, mean_squared_error, run_trials
from tauflow.objectives.reaching import ReachingLoss

__all__ = [
    "FilterLoss",
    "FixedPointLoss",
    "MeanSquaredError",
    "ReachingLoss",
    "fixed_point_readout",
    "mean_squared_error",
    "run_trials",
]
