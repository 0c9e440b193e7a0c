"""`LazyTheory`: learning with a fixed tangent kernel, laid over a run."""

from __future__ import annotations

import math

import numpy as np
import xarray as xr

from tauflow.analysis.arguments import FloatArray
from tauflow.run import Run
from tauflow.theory import lazy, lazy_assumptions
from tauflow.theory._filter_expansion import Expansion, expand
from tauflow.theory.base import Assumption, worst
from tauflow.theory.filter_reading import FilterMember, filter_loss, filter_member, need_rates
from tauflow.theory.reading import prediction, starts


class LazyTheory:
    r"""Loss of a linear network that learns a filter while its tangent kernel stands still.

    `check` measures: the exact filter loss of a continuous linear network; gradient flow; sigma below 1; initial
    weights like independent entries of one standard deviation; their independence; N large; and that learning is
    lazy, by how much the network's own tangent kernel differs between its first and its last weights. What decides
    the last is not how close eigenvalues stay: weights move by $\gamma\,\|f_* - f_0\|$ in the norm of the kernel,
    $\gamma_0\,\|f_* - f_0\|/\sigma$ of the size of a vector, which is small if $\gamma_0 = \gamma/\sqrt N$ is and the
    target lies inside the learnable range.

    `predict` gives `loss` from each member's own initial filter, sigma (the root mean square of W0), gamma, learning
    rates and target; where only the readout learns, that of a reservoir. The band is one standard deviation over
    networks at leading order in N^-1/2, as if the lengths of u and v alone scattered the kernel, plus what the
    motion of the kernel leaves out, for which the squared relative motion of the weights stands.

    Attributes:
        name: Its name in legends.
        paper: Short name of the paper it is from.

    Source: bordelon2025, Appendices C and D. Deviation from print: as `tauflow.theory.lazy`.

    Example:
        >>> import jax
        >>> from tauflow.learning import Record, flow
        >>> from tauflow.networks import ContinuousLinearRNN
        >>> from tauflow.objectives import FilterLoss
        >>> from tauflow.tasks import LeakyIntegrator
        >>> network = ContinuousLinearRNN.random(32, sigma=0.6, gamma0=0.1, key=jax.random.key(0))
        >>> run = flow(network, FilterLoss(LeakyIntegrator(0.8)), duration=1.0, save_at=[0.0, 0.5, 1.0],
        ...            rates=network.mean_field_rates(), record=Record(measurements=2))
        >>> theory = LazyTheory()
        >>> all(assumption.holds for assumption in theory.check(run))
        True
        >>> prediction = theory.predict(run)
        >>> bool((abs(prediction.loss - run.data.loss) <= 3 * prediction.loss_band + 1e-6).all())
        True
    """

    name: str = "LazyTheory"
    paper: str = "bordelon2025"

    def check(self, run: Run) -> tuple[Assumption, ...]:
        """Measure every assumption on the run; for several members, the worst.

        Args:
            run: Any run.

        Returns:
            The assumptions. Where those on the kind of run fail, the ones that need its numbers are left out.
        """
        a, every = lazy_assumptions, range(run.n_runs)
        found = [worst(filter_loss(run, i) for i in every)]
        if not found[0].holds:
            return tuple(found)
        if not starts(run):
            told = "The run does not keep the dense initial weights of networks with one input and one output."
            return (*found, Assumption("initial weights", math.nan, 0.0, False, told))
        try:
            members = [filter_member(run, i) for i in every]
        except ValueError as error:
            return (*found, Assumption("known target", math.nan, 0.0, False, str(error)))
        found.append(worst(a.stable_start(each) for each in members))
        if not found[-1].holds:
            return tuple(found)
        found.append(worst(a.gradient_flow(run, i, each) for i, each in enumerate(members)))
        for test in (a.random_start, a.independent, a.large):
            found.append(worst(test(each) for each in members))
        if all(each.rates for each in members):
            found.append(worst(a.still_kernel(run, i, each) for i, each in enumerate(members)))
        return tuple(found)

    def predict(self, run: Run) -> xr.Dataset:
        """Predict the loss at the run's own learning times.

        Args:
            run: A run whose assumptions hold; it must keep its initial weights and know its target.

        Returns:
            Dataset with `loss (run, update)` and `loss_band`; float64, NaN where a member has no learning time.

        Raises:
            ValueError: If the run lacks initial weights, target or rates, or a sigma is not below 1.
        """
        members = [filter_member(run, i) for i in range(run.n_runs)]
        losses, bands = zip(
            *(_loss(tau, each) for tau, each in zip(run.data["tau"].values, members, strict=True)), strict=True
        )
        dims = ("run", "update")
        return prediction(self, run, {"loss": (dims, np.stack(losses)), "loss_band": (dims, np.stack(bands))})


def _loss(tau: FloatArray, member: FilterMember) -> tuple[FloatArray, FloatArray]:
    """Loss and its band at these times, shape (time,); NaN where the member has no learning time."""
    need_rates([member])
    known = np.isfinite(tau)
    times, n = np.where(known, tau, 0.0), member.neurons
    start = _initial_filter(member)

    def flow(times: FloatArray, **scale: float) -> lazy.FilterFlow:
        rates = {name: rate * scale.get(name, 1.0) for name, rate in member.rates.items()}
        return lazy.filter_flow(
            member.target, member.sigma, times, [0.0], gamma=member.gamma, initial_filter=start,
            train=tuple(rates), rates=rates, tolerance=1e-8,
        )  # fmt: skip

    predicted = flow(times)
    spread = float(lazy.kernel_spread(member.sigma, n))
    off = np.zeros_like(times)
    for vector in ("W_in", "W_out"):  # the length of v scales the part of W_in, that of u the part of W_out
        both = [flow(times, **{vector: scale, "W": scale}).loss for scale in (1 + spread, max(1 - spread, 0.0))]
        off = np.hypot(off, np.max(np.abs(np.stack(both) - predicted.loss), axis=0))
    moved = (member.gamma0 * predicted.movement / member.sigma) ** 2
    off = off + np.abs(flow(times * (1 + moved)).loss - predicted.loss)
    return np.where(known, predicted.loss, np.nan), np.where(known, off, np.nan)


def _initial_filter(member: FilterMember) -> Expansion:
    """The member's own initial filter, in as many functions as leave a part below 1e-12 of a random one."""
    n, c = member.neurons, math.sqrt(1 - member.sigma**2)
    size = 16 + math.ceil(math.log(1e-12) / math.log(member.sigma / (1 + c)))
    system = (member.W0 / math.sqrt(n) - np.eye(n), member.u, member.v / (member.gamma * math.sqrt(n)))
    return expand("initial_filter", system, size, c)
