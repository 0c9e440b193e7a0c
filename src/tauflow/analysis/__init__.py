"""Functions of arrays: what weights, and changes of weights, are made of."""

from tauflow.analysis.rank import functional_rank, shuffle_entries, truncate, truncation_curve
from tauflow.analysis.spectra import (
    coupling,
    eigenvalue_pair,
    eigenvalues,
    outliers,
    participation_ratio,
    singular_values,
    spectral_abscissa,
    spectral_radius,
    variance_explained,
)

__all__ = [
    "coupling",
    "eigenvalue_pair",
    "eigenvalues",
    "functional_rank",
    "outliers",
    "participation_ratio",
    "shuffle_entries",
    "singular_values",
    "spectral_abscissa",
    "spectral_radius",
    "truncate",
    "truncation_curve",
    "variance_explained",
]
