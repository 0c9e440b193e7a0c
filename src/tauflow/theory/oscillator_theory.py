"""`OscillatorTheory`: the dynamics of a planted pair of eigenvalues, `tauflow.theory.oscillator`, laid over a run."""

from __future__ import annotations

import numpy as np
import xarray as xr

from tauflow.analysis import eigenvalue_pair
from tauflow.run import Run
from tauflow.theory import projected_flow, rich_assumptions
from tauflow.theory.base import Assumption
from tauflow.theory.effective_network import project
from tauflow.theory.filter_reading import FilterMember
from tauflow.theory.oscillator import planted_plane
from tauflow.theory.projected_flow import Networks


class OscillatorTheory:
    """Loss and outlier pair of a linear network with a planted pair of eigenvalues that learns a filter.

    `check` measures: continuous time and the exact loss; W, u and v learn at one rate (a factor to the mean-field rate
    is a unit of time); a small linear system has the target filter; a conjugate pair lies outside the bulk; the bulk is
    small; and u and v lie in the plane of the pair.

    `predict` gives `loss` and `probe_outlier_pair`, the two outlying eigenvalues of W/√N. The paper's two neurons live
    in the plane of the pair; to these come u, v and what one factor W or Wᵀ makes of them and of the plane, which
    lowers the error from order sigma² to sigma⁴. The band is what these change.

    Attributes:
        name: Its name in legends.
        paper: Short name of the paper it is from.

    Source: bordelon2025, appendix F, Eqs. F8-F17; the corrections in sigma² are this library's.

    Example:
        >>> import jax
        >>> from tauflow.learning import Record, flow
        >>> from tauflow.networks import ContinuousLinearRNN, outlier_pair
        >>> from tauflow.objectives import FilterLoss
        >>> from tauflow.tasks import DampedOscillator
        >>> network = ContinuousLinearRNN.warm_start(12, sigma=0.05, c=0.6, omega=0.7, key=jax.random.key(0))
        >>> run = flow(network, FilterLoss(DampedOscillator(0.4, 1.0)), duration=1.0, rates=network.mean_field_rates(),
        ...            train=("W", "W_in", "W_out"),
        ...            record=Record(measurements=2, probes={"outlier_pair": outlier_pair}))
        >>> theory = OscillatorTheory()
        >>> all(found.holds for found in theory.check(run))
        True
        >>> prediction = theory.predict(run)
        >>> for name in ("loss", "probe_outlier_pair"):
        ...     off = abs(prediction[name] - run.data[name])
        ...     print(name, bool((off <= prediction[f"{name}_band"] + 1e-6).all()))
        loss True
        probe_outlier_pair True
    """

    name = "OscillatorTheory"
    paper = "bordelon2025"

    def check(self, run: Run) -> tuple[Assumption, ...]:
        """Measure every assumption on the run.

        Args:
            run: Any run.

        Returns:
            The assumptions. Where the run is of another kind, those that need its numbers are left out.
        """
        a = rich_assumptions
        tests = (a.everything_learns, a.mean_field_rates, a.realised, a.planted_pair, a.small_bulk, a.in_plane)
        return projected_flow.checked(run, tests)

    def predict(self, run: Run) -> xr.Dataset:
        """Predict loss and outlier pair at the run's own learning times.

        Args:
            run: A run whose assumptions hold; it must keep its initial weights and know its target.

        Returns:
            Dataset with `loss (run, update)` and, where the run has measurements,
            `probe_outlier_pair (run, measurement, 2)`, complex128, each with `<name>_band`, float64.

        Raises:
            ValueError: If the run lacks initial weights, target or learning rates, has no planted pair, or the target
                no realisation.
        """
        probe = ("probe_outlier_pair", lambda flow: eigenvalue_pair(flow.M))
        return projected_flow.predict(self, run, _networks, probe)


def _networks(member: FilterMember) -> Networks:
    u, v, W, plane = member.u, member.v, member.W0, planted_plane(member.W0)
    start = np.concatenate([plane, np.stack([u, v]) / np.linalg.norm(u)])
    return project(u, v, W, start, 1), project(u, v, W, plane, 0)
