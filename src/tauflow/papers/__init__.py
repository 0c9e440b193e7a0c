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

_BORDELON = {
    "fig1": "an integrator learned from small weights: outlier, flow field, loss against the scale of the weights",
    "fig2": "an integrator learned lazily: static eigenvalues, autocorrelation, loss and theory, change of weights",
    "fig3": "an oscillator learned from a planted pair: loss and paths of the pair, with the network of two neurons",
    "s1": "an integrator learned lazily: loss in smaller networks, eigenvalues and eigenvectors of the autocorrelation",
    "s2": "an oscillator learned lazily: static eigenvalues, loss with the theory",
    "s3": "an oscillator learned without a planted pair: the way out of the bulk depends on the scale of the weights",
}

_PELLEGRINO = {
    "motor": "a network that reaches under a rotation and a force field: behaviour, rank of the change of its weights",
    "s1": "two units of tensor rank one: vector fields and fixed points through the bifurcation, tanh and identity",
    "s3": "fits to the reaching network: held-out loss against rank with single entries, blocks, whole trials hidden",
    "s4": "a fit to the reaching network against the weights that made its activity: trials, eigenvalues, what changed",
    "s5": "counts of spikes of a known network: a fit by Poisson likelihood against one of squared errors",
    "s6": "five networks that learn: singular values of rates, adjoint states, gradients and weights, with the bounds",
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
    ),
    "bordelon2025": Paper(
        name="bordelon2025",
        title="Dynamically Learning to Integrate in Recurrent Neural Networks",
        citation="Bordelon, Cotler, Pehlevan and Zavatone-Veth, 2025",
        figures={
            name: Figure(f"tauflow.papers.bordelon2025.{name}", description) for name, description in _BORDELON.items()
        },
    ),
    "pellegrino2023": Paper(
        name="pellegrino2023",
        title="Low tensor rank learning of neural dynamics",
        citation="Pellegrino, Cayco-Gajic and Chadwick, NeurIPS 2023",
        figures={
            name: Figure(f"tauflow.papers.pellegrino2023.{name}", description)
            for name, description in _PELLEGRINO.items()
        },
    ),
}

__all__ = ["PAPERS", "Claim", "Figure", "Paper", "Reproduction"]
