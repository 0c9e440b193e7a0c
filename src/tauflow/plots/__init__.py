"""Figures for print and the self-contained page of a study. Draws, never computes."""

from tauflow.plots.figures import (
    eigenvalues,
    filters,
    loss,
    probes,
    save_figures,
    singular_values,
    trials,
    truncation,
)
from tauflow.plots.report import write_report
from tauflow.plots.style import house_style, new_figure, save_figure, sequential

__all__ = [
    "eigenvalues",
    "filters",
    "house_style",
    "loss",
    "new_figure",
    "probes",
    "save_figure",
    "save_figures",
    "sequential",
    "singular_values",
    "trials",
    "truncation",
    "write_report",
]
