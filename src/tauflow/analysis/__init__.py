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
from tauflow.analysis.tensor import (
    Match,
    Parafac,
    explained_by_rank,
    is_unique,
    kruskal_rank,
    match_factors,
    parafac,
    unfolding_explained,
)

__all__ = [
    "Match",
    "Parafac",
    "coupling",
    "eigenvalue_pair",
    "eigenvalues",
    "explained_by_rank",
    "functional_rank",
    "is_unique",
    "kruskal_rank",
    "match_factors",
    "outliers",
    "parafac",
    "participation_ratio",
    "shuffle_entries",
    "singular_values",
    "spectral_abscissa",
    "spectral_radius",
    "truncate",
    "truncation_curve",
    "unfolding_explained",
    "variance_explained",
]
