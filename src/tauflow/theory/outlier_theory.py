"""`OutlierTheory`: the reduced dynamics of `tauflow.theory.outlier` laid over a run."""

from __future__ import annotations

import numpy as np
import xarray as xr

from tauflow.analysis import coupling
from tauflow.run import Run
from tauflow.theory import projected_flow, rich_assumptions
from tauflow.theory.base import Assumption
from tauflow.theory.effective_network import project
from tauflow.theory.filter_reading import FilterMember
from tauflow.theory.projected_flow import Networks

FACTORS = 2


class OutlierTheory:
    """Loss and coupling of a linear network of small weights that learns to integrate.

    `check` measures: continuous time and the exact loss; W, u and v learn at one rate (a factor to the mean-field rate
    is a unit of time); the target is one decaying exponential, outside the bulk; all of W is small; and u and v have a
    direction to align to.

    `predict` gives `loss` and `probe_coupling`, the weight of W/√N from u to v. With one direction, u₊, the latter is
    the paper's 1 - c(tau) (`outlier.reduced_flow`), but what the bulk and u₋ add is not small at the paper's own
    sigma of 0.2: it makes learning 0.1 earlier. So `predict` follows an effective network of 14 neurons: u, v and what
    up to two factors W or Wᵀ make of them at the start. The band is what the second factor changes.

    Attributes:
        name: Its name in legends.
        paper: Short name of the paper it is from.

    Source: bordelon2025, Eqs. 2-4 and appendix E; the corrections in sigma² are this library's.

    Example:
        >>> import jax
        >>> from tauflow.learning import Record, flow
        >>> from tauflow.networks import ContinuousLinearRNN
        >>> from tauflow.objectives import FilterLoss
        >>> from tauflow.tasks import LeakyIntegrator
        >>> network = ContinuousLinearRNN.random(12, sigma=0.1, key=jax.random.key(0))
        >>> run = flow(network, FilterLoss(LeakyIntegrator(0.4)), duration=1.5, rates=network.mean_field_rates(),
        ...            train=("W", "W_in", "W_out"), record=Record(measurements=2))
        >>> theory = OutlierTheory()
        >>> prediction = theory.predict(run)
        >>> sorted(prediction)
        ['loss', 'loss_band', 'probe_coupling', 'probe_coupling_band']
        >>> off = abs(prediction.loss - run.data.loss)
        >>> bool((off <= prediction.loss_band + 1e-6).all()), all(found.holds for found in theory.check(run))
        (True, True)
    """

    name = "OutlierTheory"
    paper = "bordelon2025"

    def check(self, run: Run) -> tuple[Assumption, ...]:
        """Measure every assumption on the run.

        Args:
            run: Any run.

        Returns:
            The assumptions. Where the run is of another kind, those that need its numbers are left out.
        """
        a = rich_assumptions
        tests = (a.everything_learns, a.mean_field_rates, a.one_exponential, a.rich, a.small_weights, a.aligns)
        return projected_flow.checked(run, tests)

    def predict(self, run: Run) -> xr.Dataset:
        """Predict loss and coupling at the run's own learning times.

        Args:
            run: A run whose assumptions hold; it must keep its initial weights and know its target.

        Returns:
            Dataset with `loss (run, update)` and, where the run has measurements, `probe_coupling (run, measurement)`,
            each with `<name>_band`; float64.

        Raises:
            ValueError: If the run lacks initial weights, target or learning rates, or the target has no realisation.
        """
        probe = ("probe_coupling", lambda flow: coupling(flow.M, flow.u, flow.v))
        return projected_flow.predict(self, run, _networks, probe)


def _networks(member: FilterMember) -> Networks:
    u, v, W, start = member.u, member.v, member.W0, np.stack([member.u, member.v])
    return project(u, v, W, start, FACTORS), project(u, v, W, start, FACTORS - 1)
