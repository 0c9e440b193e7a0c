"""What the theories of rich filter learning assume, each measured on one member of a run."""

from __future__ import annotations

import math

import numpy as np

from tauflow.analysis.arguments import FloatArray
from tauflow.theory._arguments import EVERYTHING
from tauflow.theory._leading import leading_pair, singular_values
from tauflow.theory.base import Found
from tauflow.theory.filter_reading import FilterMember
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
    half = float(singular_values(member.W0 / math.sqrt(member.neurons), 1)[0]) / 2
    told = f"Half the largest singular value of W0/sqrt(N), sigma of a random matrix, is {half:.2g}"
    return Found("small weights", half, SMALL_LIMIT, f"{told}; {SMALL_LIMIT:g} is allowed.")


def aligns(member: FilterMember) -> Found:
    """Whether u and v have a common direction to align to: size of their difference against that of their sum."""
    plus, minus = (float(np.linalg.norm(member.u + sign * member.v)) for sign in (1, -1))
    ratio = minus / plus if plus > 0 else math.inf
    told = f"|u - v| is {ratio:.2g} of |u + v| at the start, about 1 for independent vectors"
    return Found("common direction", ratio, START_LIMIT, f"{told}; {START_LIMIT:g} is allowed.")


def planted_pair(member: FilterMember) -> Found:
    """Whether a conjugate pair lies outside the bulk, in a stable network: radius of the bulk against its modulus."""
    name, M = "planted pair", member.W0 / math.sqrt(member.neurons)
    wanted = "the theory is for a stable network with one conjugate pair outside its bulk"
    try:
        value, _ = leading_pair(M)
    except ValueError as error:
        return Found(name, math.inf, APART_LIMIT, f"{str(error)[:-1]}, because {wanted}.")
    if value.real >= 1:
        return Found(name, math.inf, APART_LIMIT, f"The network is unstable at the start; {wanted}.")
    radius = _bulk(M) / abs(value)
    told = f"The bulk reaches {radius:.2g} of the modulus of the leading pair; {APART_LIMIT:g} is allowed"
    return Found(name, radius, APART_LIMIT, f"{told}; {wanted}.")


def small_bulk(member: FilterMember) -> Found:
    """Whether what is left of W0 beside the pair is small: half the third singular value of W0/√N."""
    half = _bulk(member.W0 / math.sqrt(member.neurons))
    told = f"Half the third singular value of W0/sqrt(N), sigma of a random bulk, is {half:.2g}"
    return Found("small bulk", half, SMALL_LIMIT, f"{told}; {SMALL_LIMIT:g} is allowed.")


def _bulk(M: FloatArray) -> float:
    """Radius of the bulk beside a pair, sigma of independent entries: half the third singular value."""
    return float(singular_values(M, 3)[2]) / 2 if len(M) > 2 else 0.0


def in_plane(member: FilterMember) -> Found:
    """Whether u and v lie in the planted plane: share of them that does not."""
    plane = planted_plane(member.W0)
    shares = [np.linalg.norm(x - plane.T @ (plane @ x)) / np.linalg.norm(x) for x in (member.u, member.v)]
    off = float(max(shares))
    told = f"Up to {off:.2g} of u and v lie outside the plane of the pair"
    return Found("u and v in the plane", off, PLANE_LIMIT, f"{told}; {PLANE_LIMIT:g} is allowed.")
