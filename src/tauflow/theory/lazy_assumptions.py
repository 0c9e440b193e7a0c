"""The assumptions behind the lazy theory, each measured on one member of a run."""

from __future__ import annotations

import math

import numpy as np

from tauflow.analysis.arguments import FloatArray
from tauflow.run import Run
from tauflow.theory import _laguerre
from tauflow.theory.base import Found
from tauflow.theory.filter_reading import FilterMember
from tauflow.theory.lazy import kernel_spread
from tauflow.theory.reading import neurons

KERNEL_LIMIT = 0.2  # relative change of the tangent kernel
SIGMA_LIMIT = 0.9999  # beyond it the prediction needs too many eigenfunctions
SPREAD_LIMIT = 0.5  # relative N^-1/2 spread of the kernel
STEP_LIMIT = 0.1  # one update times the fastest rate of the loss
DEVIATIONS = 5.0  # standard deviations that a random network may be off
FUNCTIONS = 16  # Laguerre functions in which kernels are compared


def stable_start(member: FilterMember) -> Found:
    """Whether sigma is below 1."""
    told = f"The initial weights have standard deviation {member.sigma:.4g}"
    return Found("sigma below 1", member.sigma, SIGMA_LIMIT, f"{told}; from 1 on large networks are unstable.", True)


def gradient_flow(run: Run, i: int, member: FilterMember) -> Found:
    """Whether learning follows gradient flow: one update times the fastest rate at which the loss can fall."""
    name = "gradient flow"
    if not member.rates:
        told = f"Learning time is counted in units of {run.tau_unit!r}"
        return Found(name, math.inf, STEP_LIMIT, f"{told}; the theory is for plain gradient flow or descent.")
    if run.data.attrs["kind"] == "flow":
        return Found(name, 0.0, STEP_LIMIT, "The flow is integrated with error control.")
    steps = np.diff(run.data["tau"].values[i]) / np.diff(run.data["update"].values)
    fastest = 4 * float(np.linalg.eigvalsh(_expected(member))[-1])
    step = float(np.max(steps[np.isfinite(steps)], initial=0.0)) * fastest
    told = f"One update is {step:.2g} of the shortest time in which the loss falls"
    return Found(name, step, STEP_LIMIT, f"{told}; gradient descent follows the flow if that is small.")


def random_start(member: FilterMember) -> Found:
    """Whether the initial weights are independent entries: the network's correlations, and W0_ij W0_ji."""
    c, spread = _decay(member), float(kernel_spread(member.sigma, member.neurons))
    wanted = np.diag(_laguerre.kernel(FUNCTIONS, np.asarray(member.sigma), 1.0, 0.0)[0])
    found = _correlations(member.W0, member.u, member.v, c)
    off = max(float(np.linalg.norm(each - wanted) / np.linalg.norm(wanted)) for each in found)
    reciprocal = abs(float(np.sum(member.W0 * member.W0.T))) / max(float(np.sum(member.W0**2)), 1e-300)
    told = (
        f"The correlations of the initial network are {off:.2g} of themselves away from those of random weights, and "
        f"W0_ij W0_ji is {reciprocal:.2g} of W0_ij^2 on average"
    )
    limit = DEVIATIONS * spread
    return Found("random start", max(off, reciprocal), limit, f"{told}; {limit:.2g} is allowed at this N.")


def independent(member: FilterMember) -> Found:
    """Whether u, v and W0 are independent: the initial filter at time 0 and its slope, in standard deviations."""
    u, v = (vector / np.linalg.norm(vector) for vector in (member.u, member.v))
    root = math.sqrt(member.neurons)
    overlaps = {"v.u": root * float(v @ u), "v.W0u": float(v @ member.W0 @ u) / member.sigma}
    worst = max(overlaps, key=lambda name: abs(overlaps[name]))
    off = abs(overlaps[worst])
    told = f"The overlap {worst} is {off:.2g} standard deviations of independent weights away from 0"
    return Found("independent u, v, W0", off, DEVIATIONS, f"{told}; {DEVIATIONS:g} are allowed.")


def large(member: FilterMember) -> Found:
    """Whether N is large: the relative spread of the kernel over networks."""
    spread = float(kernel_spread(member.sigma, member.neurons))
    told = f"The tangent kernel of networks of {member.neurons} units spreads by {spread:.2g} of itself"
    return Found("large N", spread, SPREAD_LIMIT, f"{told}; {SPREAD_LIMIT:g} is allowed.")


def still_kernel(run: Run, i: int, member: FilterMember) -> Found:
    """Whether learning is lazy: relative change of the network's own tangent kernel from first to last weights."""
    name, n = "lazy learning", neurons(run, i)
    if run.data.sizes["snapshot"] < 2:
        return Found(name, math.nan, KERNEL_LIMIT, "The run keeps only its first weights; record its last ones too.")
    last = [np.asarray(run.weights(field, i), np.float64) for field in ("W", "W_in", "W_out")]
    W, u, v = last[0][:n, :n], last[1][:n, 0], last[2][0, :n]
    if not all(np.isfinite(each).all() for each in (W, u, v)):
        return Found(name, math.nan, KERNEL_LIMIT, "The network's last weights are not finite; its kernel is unknown.")
    before = _tangent_kernel(member, member.W0, member.u, member.v)
    after = _tangent_kernel(member, W, u, v)
    change = float(np.linalg.norm(after - before) / np.linalg.norm(before))
    moved = float(np.linalg.norm(W - member.W0) / np.linalg.norm(member.W0))
    told = f"The tangent kernel changes by {_percent(change)} of itself while W changes by {_percent(moved)}"
    return Found(
        name, change, KERNEL_LIMIT,
        f"{told}; {_percent(KERNEL_LIMIT)} is allowed: take a small gamma0 and a target inside the learnable range.",
    )  # fmt: skip


def _percent(share: float) -> str:
    """A share in percent, in two digits or whole: 0.051 %, 22 %, 93214 %."""
    return f"{100 * share:.2g} %" if share < 1 else f"{100 * share:.0f} %"


def strengths(member: FilterMember) -> dict[str, float]:
    """Learning rate of each field in units of gamma²; 0 for those that do not learn."""
    return {name: member.rates.get(name, 0.0) / member.gamma**2 for name in ("W", "W_in", "W_out")}


def _decay(member: FilterMember) -> float:
    return math.sqrt(1 - member.sigma**2)


def _correlations(W: FloatArray, u: FloatArray, v: FloatArray, c: float) -> list[FloatArray]:
    """u(t).u(t')/n and v(t).v(t')/n in Laguerre functions, shape (FUNCTIONS, FUNCTIONS) each."""
    n = len(u)
    A = W / math.sqrt(n) - np.eye(n)
    rows = [np.array(list(_laguerre.states(*pair, FUNCTIONS, c))) for pair in ((A, u), (A.T, v))]
    return [each @ each.T / n for each in rows]


def _tangent_kernel(member: FilterMember, W: FloatArray, u: FloatArray, v: FloatArray) -> FloatArray:
    """The tangent kernel of these weights, shape (2 FUNCTIONS, 2 FUNCTIONS)."""
    c, rate = _decay(member), strengths(member)
    of_u, of_v = _correlations(W, u, v, c)
    vectors = np.pad(rate["W_out"] * of_u + rate["W_in"] * of_v, (0, FUNCTIONS))
    return vectors + rate["W"] * _laguerre.convolve(of_u, of_v, c)


def _expected(member: FilterMember) -> FloatArray:
    """The large-N tangent kernel of the member's rates, shape (FUNCTIONS, FUNCTIONS)."""
    rate = strengths(member)
    diagonal, off = _laguerre.kernel(FUNCTIONS, np.asarray(member.sigma), rate["W_in"] + rate["W_out"], rate["W"])
    return np.diag(diagonal) + np.diag(off, 1) + np.diag(off, -1)
