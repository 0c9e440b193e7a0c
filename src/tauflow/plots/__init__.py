"""Figures for print and the self-contained page of a study. Draws, never computes."""

from tauflow.plots.figures import eigenvalues, loss, save_figures, singular_values, trials, truncation
from tauflow.plots.report import write_report
from tauflow.plots.style import house_style, new_figure, save_figure, sequential

__all__ = [
    "eigenvalues",
    "house_style",
    "loss",
    "new_figure",
    "save_figure",
    "save_figures",
    "sequential",
    "singular_values",
    "trials",
    "truncation",
    "write_report",
]
