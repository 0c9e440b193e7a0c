"""Theories: published results as functions, and as objects that know what they assume of a run."""

from tauflow.theory.base import Assumption, Overlay, Theory, overlay
from tauflow.theory.fixed_point_theory import FixedPointTheory
from tauflow.theory.lazy_theory import LazyTheory
from tauflow.theory.oscillator_theory import OscillatorTheory
from tauflow.theory.outlier_theory import OutlierTheory

#: Every theory that a study tries to lay over its run.
THEORIES: tuple[Theory, ...] = (FixedPointTheory(), LazyTheory(), OutlierTheory(), OscillatorTheory())

__all__ = [
    "THEORIES",
    "Assumption",
    "FixedPointTheory",
    "LazyTheory",
    "OscillatorTheory",
    "OutlierTheory",
    "Overlay",
    "Theory",
    "overlay",
]
