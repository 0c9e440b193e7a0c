"""Figures for print and the self-contained pages of studies and fits. Draws, never computes."""

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
from tauflow.plots.fit_figures import save_fit_figures
from tauflow.plots.fit_page import fit_page
from tauflow.plots.report import write_report
from tauflow.plots.style import house_style, new_figure, save_figure, sequential

__all__ = [
    "eigenvalues",
    "filters",
    "fit_page",
    "house_style",
    "loss",
    "new_figure",
    "probes",
    "save_figure",
    "save_figures",
    "save_fit_figures",
    "sequential",
    "singular_values",
    "trials",
    "truncation",
    "write_report",
]
