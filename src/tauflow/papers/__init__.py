"""The papers, figure by figure, written only with what a user can import."""

from __future__ import annotations

from tauflow.papers.base import Claim, Figure, Paper, Reproduction

_SCHUESSLER = {
    "fig1": "three tasks: trials, loss over training, singular values of ΔW and W, loss against the rank kept",
    "fig2": "learning time, rank of ΔW, loss after shuffling W0 and norm of ΔW against the gain",
    "fig3": "linear network: loss and singular values of ΔW over learning, with the theory",
    "fig4": "linear network: learning time, norm of ΔW and shuffled loss against the gain, with the theory",
    "s1": "learning time, norms and rank of ΔW against the number of neurons",
    "s2": "singular values and eigenvalues of ΔW and W at small, medium and large gain",
    "s3": "linear network: singular values of ΔW on a logarithmic axis, the second growing as the cube of time",
    "s4": "linear network: learning fails where an eigenvalue crosses 1",
    "s5": "a linear network learns a cosine only with initial connectivity",
}

#: Every paper by its short name.
PAPERS: dict[str, Paper] = {
    "schuessler2020": Paper(
        name="schuessler2020",
        title="The interplay between randomness and structure during learning in RNNs",
        citation="Schuessler, Mastrogiuseppe, Dubreuil, Ostojic and Barak, NeurIPS 2020",
        figures={
            name: Figure(f"tauflow.papers.schuessler2020.{name}", description)
            for name, description in _SCHUESSLER.items()
        },
    )
}

__all__ = ["PAPERS", "Claim", "Figure", "Paper", "Reproduction"]
