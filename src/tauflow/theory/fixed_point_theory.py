"""`FixedPointTheory`: the expansion of `tauflow.theory.fixed_point` laid over a run."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import xarray as xr

from tauflow.analysis.arguments import FloatArray
from tauflow.run import Run
from tauflow.theory import fixed_point, fixed_point_assumptions
from tauflow.theory.base import Assumption, worst
from tauflow.theory.fixed_point_reading import Member, member
from tauflow.theory.reading import prediction, starts


class FixedPointTheory:
    """Loss and singular values of a linear network that learns to reach a fixed point, to third order in tau.

    `check` measures: a linear network without noise; the fixed-point task, with the transient gone when the output
    counts; only W learns; plain gradient flow (the update small against the learning time); gain and spectral radius
    below 1; w and m of norm 1; w, m and W0 independent (overlaps against what chance gives); W0 like a matrix of
    independent entries; N large enough for the prediction to mean something; and the run seen within the reach of
    the series.

    `predict` gives `loss` and `delta_W_singular_values` (two of them) for every member from its own gain (measured on
    W0), target and N. It uses nothing else of the network. Their bands are one standard deviation over networks at
    leading order in N^-1/2, plus what the series leaves out, for which the last term that it keeps stands (for the
    second singular value, of which only the leading term is known, that term times beta² tau). Beyond the learning
    time, the root of the cubic where the series meets the target, the prediction is NaN.

    Attributes:
        name: Its name in legends.
        paper: Short name of the paper it is from.

    Source: schuessler2020, supplement sections 4 and 5.

    Example:
        >>> import jax, optax
        >>> from tauflow.learning import Record, descend
        >>> from tauflow.networks import RateRNN
        >>> from tauflow.objectives import FixedPointLoss
        >>> network = RateRNN.random(100, 1, 1, gain=0.3, key=jax.random.key(0), phi="identity")
        >>> run = descend(network, FixedPointLoss(1.0), optimizer=optax.sgd(0.01), steps=50, train=("W",),
        ...               key=jax.random.key(1), record=Record(measurements=2))
        >>> theory = FixedPointTheory()
        >>> all(assumption.holds for assumption in theory.check(run))
        True
        >>> prediction = theory.predict(run)
        >>> bool((abs(prediction.loss - run.data.loss) < 3 * prediction.loss_band).all())
        True
    """

    name: str = "FixedPointTheory"
    paper: str = "schuessler2020"

    def check(self, run: Run) -> tuple[Assumption, ...]:
        """Measure every assumption on the run; for several members, the worst.

        Args:
            run: Any run.

        Returns:
            The assumptions. Where those on the kind of run fail, the ones that need its numbers are left out.
        """
        a = fixed_point_assumptions
        every = range(run.n_runs)
        kind = [worst(test(run, i) for i in every) for test in (a.linear, a.fixed_point)]
        if not starts(run):
            told = "The run does not keep the dense initial weights of networks with one input and one output."
            return (*kind, Assumption("initial weights", float("nan"), 0.0, False, told))
        kind.append(worst(a.only_W(run, i) for i in every))
        if not all(assumption.holds for assumption in kind):
            return tuple(kind)
        try:
            members = [member(run, i) for i in every]
        except ValueError as error:
            return (*kind, Assumption("known target", float("nan"), 0.0, False, str(error)))
        kind.append(worst(a.stable_start(each) for each in members))
        if not kind[-1].holds:
            return tuple(kind)
        kind.append(worst(a.gradient_flow(run, i, each) for i, each in enumerate(members)))
        for test in (a.unit_vectors, a.independent, a.random_start, a.large):
            kind.append(worst(test(each) for each in members))
        kind.append(worst(a.small_tau(run, i, each) for i, each in enumerate(members)))
        return tuple(kind)

    def predict(self, run: Run) -> xr.Dataset:
        """Predict loss and singular values at the run's own learning times.

        Args:
            run: A run whose assumptions hold; it must keep its initial weights and know its target.

        Returns:
            Dataset with `loss (run, update)` and, where the run has measurements,
            `delta_W_singular_values (run, measurement, index)`, each with `<name>_band`; float64.

        Raises:
            ValueError: If the run lacks initial weights or target, or a gain is not below 1.
        """
        members = [member(run, i) for i in range(run.n_runs)]
        data = run.data
        variables: dict[str, tuple[tuple[str, ...], FloatArray]] = {}
        if "tau" in data:
            loss, band = _stack(_loss(tau, each) for tau, each in zip(data["tau"].values, members, strict=True))
            dims = ("run", "update")
            variables |= {"loss": (dims, loss), "loss_band": (dims, band)}
        if "tau_measurement" in data:
            times = data["tau_measurement"].values
            values, band = _stack(_singular_values(tau, each) for tau, each in zip(times, members, strict=True))
            named, dims3 = "delta_W_singular_values", ("run", "measurement", "index")
            variables |= {named: (dims3, values), f"{named}_band": (dims3, band)}
        return prediction(self, run, variables)


def _loss(tau: FloatArray, each: Member) -> tuple[FloatArray, FloatArray]:
    """Loss and its band at these times, shape (time,); NaN beyond the series' reach."""
    within, times = _reach(tau, each)
    error = each.target - fixed_point.readout(times, each.gain, each.target)
    left_out = np.abs(each.target - error - fixed_point.readout(times, each.gain, each.target, order=2))
    spread = fixed_point.readout_spread(times, each.gain, each.target, each.neurons) + left_out
    loss, band = error**2 / 2, np.abs(error) * spread + spread**2 / 2
    return np.where(within, loss, np.nan), np.where(within, band, np.nan)


def _singular_values(tau: FloatArray, each: Member) -> tuple[FloatArray, FloatArray]:
    """Both singular values and their bands at these times, shape (time, 2); NaN beyond the series' reach."""
    within, times = _reach(tau, each)
    values = np.stack(fixed_point.singular_values(times, each.gain, each.target), axis=-1)  # (time, 2)
    spread = np.stack(fixed_point.singular_value_spread(times, each.gain, each.target, each.neurons), axis=-1)
    b = fixed_point.beta(each.gain)
    t = b**2 * times
    second_order = np.abs(each.target) / b * (t - t**2 / 2)  # of the first singular value
    left_out = np.stack([np.abs(values[:, 0] - second_order), t * values[:, 1]], axis=-1)
    band = spread + left_out
    return np.where(within[:, None], values, np.nan), np.where(within[:, None], band, np.nan)


def _reach(tau: FloatArray, each: Member) -> tuple[np.ndarray, FloatArray]:
    """Where the series holds, and learning times that are 0 elsewhere."""
    within = np.isfinite(tau) & (tau <= fixed_point.learning_time(each.gain, each.target))
    return within, np.where(within, tau, 0.0)


def _stack(pairs: Iterable[tuple[FloatArray, FloatArray]]) -> tuple[FloatArray, FloatArray]:
    first, second = zip(*pairs, strict=True)
    return np.stack(first), np.stack(second)
