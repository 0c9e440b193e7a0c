"""What the theories of rich filter learning assume, each measured on one member of a run."""

from __future__ import annotations

import math

import numpy as np

from tauflow.theory.base import Found
from tauflow.theory.filter_reading import EVERYTHING, FilterMember
from tauflow.theory.oscillator import planted_plane
from tauflow.theory.regime import leak, regime

RATE_LIMIT = 1e-6  # relative difference of the three rates
SMALL_LIMIT = 0.35  # half the largest singular value of the bulk, which is sigma if its entries are independent
START_LIMIT = 3.0  # size of u - v against u + v at the start; 1 for independent vectors
PLANE_LIMIT = 0.5  # share of u or v outside the planted plane
APART_LIMIT = 0.75  # largest modulus in the bulk against that of the planted pair


def everything_learns(member: FilterMember) -> Found:
    """Whether W, u and v all learn: how many do not."""
    missing = [name for name in EVERYTHING if not member.rates.get(name)]
    told = f"{', '.join(missing) if missing else 'None'} of W, W_in and W_out stay as they are"
    return Found("everything learns", float(len(missing)), 0.0, f"{told}; in the theory all three learn.")


def mean_field_rates(member: FilterMember) -> Found:
    """Whether W, u and v learn at one rate by gradient flow: relative difference of the rates."""
    given = [member.rates[name] for name in EVERYTHING if name in member.rates]
    if not given or min(given) <= 0:
        told = "Learning does not follow gradient flow"
        return Found("mean-field rates", math.inf, RATE_LIMIT, f"{told}; the theory is for one rate of W, u and v.")
    off = max(given) / min(given) - 1
    told = f"The rates differ by {off:.2g}, and are {speed(member):.3g} times gamma0^2 N"
    return Found("mean-field rates", off, RATE_LIMIT, f"{told}; one factor for all is only a unit of time.")


def speed(member: FilterMember) -> float:
    """Learning time of the theory per unit of the run's tau."""
    return max(member.rates.values()) / (member.gamma0**2 * member.neurons)


def one_exponential(member: FilterMember) -> Found:
    """Whether the target is one real decaying exponential of positive coefficient: 0, or infinity."""
    off = 0.0 if leak(member.target) else math.inf
    told = f"The target is {member.target.name}"
    return Found("leaky-integrator target", off, 0.0, f"{told}; the theory is for one exponential that decays.")


def realised(member: FilterMember) -> Found:
    """Whether a small linear system has the target filter: 0, or infinity."""
    off = math.inf if member.target.realisation() is None else 0.0
    told = f"The target is {member.target.name}"
    return Found("target with a realisation", off, 0.0, f"{told}; the theory is for sums of exponentials.")


def rich(member: FilterMember) -> Found:
    """Whether the target lies outside the bulk: how far inside it lies."""
    found = regime(member.target, min(max(member.sigma, 1e-9), 1 - 1e-9))
    return Found("target outside the bulk", -found.margin, 0.0, found.sentence, True)


def small_weights(member: FilterMember) -> Found:
    """Whether all of W0 is small: half the largest singular value of W0/√N."""
    half = float(np.linalg.norm(member.W0, 2)) / math.sqrt(member.neurons) / 2
    told = f"Half the largest singular value of W0/sqrt(N), sigma of a random matrix, is {half:.2g}"
    return Found("small weights", half, SMALL_LIMIT, f"{told}; {SMALL_LIMIT:g} is allowed.")


def aligns(member: FilterMember) -> Found:
    """Whether u and v have a common direction to align to: size of their difference against that of their sum."""
    plus, minus = (float(np.linalg.norm(member.u + sign * member.v)) for sign in (1, -1))
    ratio = minus / plus if plus > 0 else math.inf
    told = f"|u - v| is {ratio:.2g} of |u + v| at the start, about 1 for independent vectors"
    return Found("common direction", ratio, START_LIMIT, f"{told}; {START_LIMIT:g} is allowed.")


def planted_pair(member: FilterMember) -> Found:
    """Whether a conjugate pair lies outside the bulk, in a stable network: largest modulus of the others against it."""
    name, values = "planted pair", np.linalg.eigvals(member.W0) / math.sqrt(member.neurons)
    values = values[np.argsort(-np.abs(values), kind="stable")]
    wanted = f"the theory is for a stable network with one conjugate pair outside its bulk, at most {APART_LIMIT:g}"
    if len(values) < 2 or values[0].imag == 0:
        return Found(name, math.inf, APART_LIMIT, f"The eigenvalue of largest modulus is real; {wanted}.")
    if values.real.max() >= 1:
        return Found(name, math.inf, APART_LIMIT, f"The network is unstable at the start; {wanted}.")
    rest = float(abs(values[2]) / abs(values[0])) if len(values) > 2 else 0.0
    return Found(name, rest, APART_LIMIT, f"The next eigenvalue has {rest:.2g} of the pair's modulus; {wanted}.")


def small_bulk(member: FilterMember) -> Found:
    """Whether what is left of W0 beside the pair is small: half the third singular value of W0/√N."""
    s = np.linalg.svd(member.W0, compute_uv=False) / math.sqrt(member.neurons)
    half = float(s[2]) / 2 if len(s) > 2 else 0.0
    told = f"Half the third singular value of W0/sqrt(N), sigma of a random bulk, is {half:.2g}"
    return Found("small bulk", half, SMALL_LIMIT, f"{told}; {SMALL_LIMIT:g} is allowed.")


def in_plane(member: FilterMember) -> Found:
    """Whether u and v lie in the planted plane: share of them that does not."""
    plane = planted_plane(member.W0)
    shares = [np.linalg.norm(x - plane.T @ (plane @ x)) / np.linalg.norm(x) for x in (member.u, member.v)]
    off = float(max(shares))
    told = f"Up to {off:.2g} of u and v lie outside the plane of the pair"
    return Found("u and v in the plane", off, PLANE_LIMIT, f"{told}; {PLANE_LIMIT:g} is allowed.")
