"""The assumptions behind the fixed-point theory, each measured on one member of a run."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tauflow.analysis import spectral_radius
from tauflow.analysis.arguments import FloatArray
from tauflow.run import Run
from tauflow.simulate import NONLINEARITIES
from tauflow.theory.base import Found
from tauflow.theory.fixed_point import beta, learning_time
from tauflow.theory.fixed_point_reading import OBJECTIVE, TASK, Member
from tauflow.theory.reading import name_of, network_name, neurons, settings, task_setting

TRANSIENT_LIMIT = 0.01  # what may be left of the slowest mode when the output counts
STEP_LIMIT = 0.1  # one update as a share of the learning time
FROZEN_LIMIT = 1e-6  # relative change of W_in and W_out
SPREAD_LIMIT = 0.5  # relative size of the N^-1/2 band
DEVIATIONS = 5.0  # standard deviations that an overlap of independent vectors may have
POINTS: Any = np.linspace(-1, 1, 401)


def linear(run: Run, i: int) -> Found:
    """Whether the network is linear and free of noise: largest |φ(x) - x| for |x| <= 1, plus the noise."""
    fields = run.static(i)
    if "phi" not in fields:
        kind = network_name(run) or "network that does not say its kind"
        told = f"The theory is for a rate network in steps, whose phi is the identity; this one is a {kind}."
        return Found("linear network", math.nan, 0.0, told)
    phi, noise = str(fields["phi"]), float(fields.get("noise", 0.0))
    curvature = math.nan
    if phi in NONLINEARITIES:
        curvature = float(np.abs(np.asarray(NONLINEARITIES[phi](POINTS)) - POINTS).max())
    told = f"phi is {phi}, up to {curvature:.3g} away from linear on [-1, 1], and the noise is {noise:g}"
    return Found("linear network", curvature + noise, 0.0, f"{told}; the theory is for the identity without noise.")


def fixed_point(run: Run, i: int) -> Found:
    """Whether the loss is that of the fixed point: what is left of the slowest mode when the output counts."""
    configuration = settings(run)[i]
    name, wanted = (
        "fixed-point task",
        "the theory is for the loss (z - target)^2 / 2 of a fixed point reached from x = 0",
    )
    if name_of(configuration, "objective") == OBJECTIVE:
        return Found(name, 0.0, TRANSIENT_LIMIT, f"The loss is that of the fixed point itself; {wanted}.")
    if name_of(configuration, "task") != TASK:
        task = name_of(configuration, "task") or name_of(configuration, "objective") or "unknown"
        return Found(name, math.inf, TRANSIENT_LIMIT, f"The task is {task}; {wanted}.")
    eigenvalues = _eigenvalues(run, i)
    if not eigenvalues.size:
        return Found(
            name, math.nan, TRANSIENT_LIMIT, f"The run keeps no weights that would tell its slowest mode; {wanted}."
        )
    dt = float(run.static(i).get("dt", 1.0))
    time = task_setting(configuration, "duration", 101.0) - task_setting(configuration, "fixation", 1.0)
    steps = (time - task_setting(configuration, "decision", 1.0)) / dt
    slowest = np.nanmax(np.abs(1 - dt + dt * eigenvalues))  # of one Euler step
    left = math.exp(min(steps * math.log(max(slowest, 1e-300)), 700.0))
    return Found(
        name, left, TRANSIENT_LIMIT, f"When the output counts, {left:.2g} of the slowest mode is left; {wanted}."
    )


def only_W(run: Run, i: int) -> Found:
    """Whether W alone learns: relative change of W_in and W_out."""
    change = 0.0
    for name in ("W_in", "W_out"):
        path: FloatArray = np.asarray(run.data[name].values[i], np.float64)
        path = path.reshape(run.data.sizes["snapshot"], -1)  # (snapshot, entry)
        path = path[:, np.isfinite(path[0])]
        change = max(change, float(np.nanmax(np.linalg.norm(path - path[0], axis=-1)) / np.linalg.norm(path[0])))
    train = settings(run)[i].get("train", ["W"])
    told = f"W_in and W_out change by {change:.2g} of their size"
    if list(train) != ["W"] and change <= FROZEN_LIMIT:
        change, told = math.inf, f"{', '.join(train)} are trained"
    return Found("only W learns", change, FROZEN_LIMIT, f"{told}; in the theory W alone learns.")


def stable_start(member: Member) -> Found:
    """Whether the initial network is stable: gain and spectral radius of W0."""
    radius = float(spectral_radius(member.W0))
    told = f"W0 has gain {member.gain:.3g} and spectral radius {radius:.3g}; both must be below 1"
    return Found("gain below 1", max(radius, member.gain), 1.0, f"{told}, or the linear network is unstable.", True)


def gradient_flow(run: Run, i: int, member: Member) -> Found:
    """Whether learning follows plain gradient flow: one update as a share of the learning time."""
    name, configuration = "gradient flow", settings(run)[i]
    if run.tau_unit != "flow" or run.data.attrs["kind"] not in ("descend", "flow"):
        optimizer = configuration.get("optimizer", "unknown")
        told = f"Learning time is counted in units of {run.tau_unit!r} (optimizer: {optimizer})"
        return Found(name, math.inf, STEP_LIMIT, f"{told}; the theory is for plain gradient descent with one rate.")
    if run.data.attrs["kind"] == "flow":
        off = abs(float(dict(configuration.get("rates") or {}).get("W", 1.0)) - 1)
        return Found(name, off, 0.0, f"The rate of W is off 1 by {off:g}; learning time is then that of the theory.")
    tau, update = run.data["tau"].values[i], run.data["update"].values
    steps = np.diff(tau) / np.diff(update)
    steps = steps[np.isfinite(steps)]  # a stopped member may have no learning time
    step = float(np.max(steps, initial=0.0)) / float(learning_time(member.gain, member.target))
    told = f"One update is {step:.2g} of the learning time"
    return Found(name, step, STEP_LIMIT, f"{told}; gradient descent follows the flow if that is small.")


def unit_vectors(member: Member) -> Found:
    """Whether w and m have norm 1, up to what Gaussian entries of variance 1/N leave."""
    off = max(abs(float(np.linalg.norm(vector)) - 1) for vector in (member.w, member.m))
    limit = DEVIATIONS / math.sqrt(2 * member.neurons)
    told = f"The norms of w = sqrt(N) W_out and m = W_in/sqrt(N) (times the input) are off 1 by up to {off:.2g}"
    return Found("w and m of norm 1", off, limit, f"{told}; {limit:.2g} is allowed.")


def independent(member: Member) -> Found:
    """Whether w, m and W0 are independent: overlaps in units of their own standard deviation for random vectors."""
    n = member.neurons
    w, m = member.w / np.linalg.norm(member.w), member.m / np.linalg.norm(member.m)
    B = np.linalg.inv(np.eye(n) - member.W0)  # (n, n)
    p, q, outer, inner = B.T @ w, B @ m, B @ B.T, B.T @ B
    overlaps: dict[str, tuple[float, float]] = {
        "w.m": (float(w @ m), 1 / math.sqrt(n)),
        "w.Bm": (float(w @ q), float(np.linalg.norm(B)) / n),
        "m.B'BB'w": (float(q @ (B @ p)), float(np.linalg.norm(outer @ B)) / n),
        "w.BB'w": (float(p @ p - np.trace(outer) / n), _quadratic_spread(outer)),
        "m.B'Bm": (float(q @ q - np.trace(inner) / n), _quadratic_spread(inner)),
    }
    sizes = {name: abs(value) / spread if spread > 0 else 0.0 for name, (value, spread) in overlaps.items()}
    worst = max(sizes, key=lambda name: sizes[name])
    told = f"The overlap {worst} is {sizes[worst]:.2g} standard deviations of independent vectors away from its mean"
    return Found("independent w, m, W0", sizes[worst], DEVIATIONS, f"{told}; {DEVIATIONS:g} are allowed.")


def random_start(member: Member) -> Found:
    r"""Whether W0 is like a matrix of independent entries: $\frac1N$ Tr BBᵀ and Tr W0W0 against their limits."""
    n, b = member.neurons, float(beta(member.gain))
    B = np.linalg.inv(np.eye(n) - member.W0)  # (n, n)
    trace = abs(float(np.sum(B**2)) / n / b - 1)
    reciprocal = abs(float(np.sum(member.W0 * member.W0.T))) / max(float(np.sum(member.W0**2)), 1e-300)
    limit = 0.1 + 10 * b**2 / n
    told = (
        f"Tr BB'/N is off 1/(1 - g^2) by {trace:.2g} of it, and W0_ij W0_ji is {reciprocal:.2g} of W0_ij^2 on average"
    )
    return Found("random W0", max(trace, reciprocal), limit, f"{told}; {limit:.2g} is allowed for independent entries.")


def large(member: Member) -> Found:
    r"""Whether N is large: relative spread over networks of the initial error and of the rate of learning."""
    b, n = float(beta(member.gain)), member.neurons
    size = abs(member.target)
    spread = max(math.sqrt(b / n) / size if size else math.inf, 2 * math.sqrt((b**2 - 1) / n))
    told = f"Networks of {n} units spread by {spread:.2g} around the large-N prediction"
    return Found("large N", spread, SPREAD_LIMIT, f"{told} (relative, of order N^-1/2); {SPREAD_LIMIT:g} is allowed.")


def small_tau(run: Run, i: int, member: Member) -> Found:
    """Whether the run is seen within the series' reach: its first learning time after 0 against the cubic's root."""
    b2 = float(beta(member.gain)) ** 2
    reach = b2 * float(learning_time(member.gain, member.target))
    tau = np.concatenate([run.data[name].values[i] for name in ("tau", "tau_measurement") if name in run.data])
    later = tau[np.isfinite(tau) & (tau > 0)]
    first, last = (b2 * float(later.min()), b2 * float(later.max())) if later.size else (math.nan, math.nan)
    told = f"The run is seen from beta^2 tau = {first:.2g} to {last:.2g}; the series reaches to {reach:.2g}"
    return Found("small tau", first, reach, f"{told}, where it meets the target, and is not drawn beyond.", True)


def _quadratic_spread(M: FloatArray) -> float:
    """Standard deviation of wᵀMw for a random unit vector w and a symmetric M."""
    n = len(M)
    variance = 2 / (n + 2) * (float(np.sum(M**2)) / n - (float(np.trace(M)) / n) ** 2)
    return math.sqrt(max(variance, 0.0)) if variance > 1e-20 else 0.0


def _eigenvalues(run: Run, i: int) -> np.ndarray:
    """All eigenvalues of W that the run has recorded, or those of its snapshots; none if it keeps neither."""
    if "W_eigenvalues" in run.data and run.data.sizes["measurement"]:
        return run.data["W_eigenvalues"].values[i]
    if "W" not in run.data:
        return np.zeros(0)
    n = neurons(run, i)
    path = np.asarray(run.data["W"].values[i, :, :n, :n], np.float64)  # (snapshot, n, n)
    whole = path[np.isfinite(path).all(axis=(-1, -2))]
    return np.linalg.eigvals(whole)
