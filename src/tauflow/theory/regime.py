r"""Whether a network learns a filter with the eigenvalues that it has (lazy) or has to make new ones (rich).

The readout of a large random network reaches the filters of finite norm under $C$ (`tauflow.theory.mean_field`). With
$e_k(t) = e^{-t}t^k/k!$ a sum of exponentials of rates $p_j$ has the coefficients $\sum_ja_j(1-p_j)^k$ and the squared
norm $\sum_k|\cdot|^2/\sigma^{2k+2}$. The largest $|1-p_j|$ decides: different geometric series do not cancel, so the
norm is finite if and only if every rate lies in the open disk $|1 - p_j| < \sigma$, which the eigenvalues of
$1 - W/\sqrt N$ fill; for a real rate this is $1 - \sigma < c_* < 1 + \sigma$ (D31, D32). Such filters are entire
functions of time, so one with kinks, such as a sampled one, has no finite norm for any $\sigma$.

For a readout alone this is a theorem. A network that trains everything starts with a kernel that has the same filters
of finite norm; that it leaves this kernel for those outside, and only for those, is a rule of thumb.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from tauflow.tasks import FilterTask
from tauflow.tasks.exponential_filters import ExponentialFilter
from tauflow.theory._arguments import EVERYTHING, as_sigma, as_train
from tauflow.theory.outlier import escape_time


class Regime(NamedTuple):
    """How a network of given spread would learn a target.

    Attributes:
        kind: "lazy" (inside the bulk), "rich" (it needs outliers), or "out of reach" (it would, and W does not learn).
        margin: How far the farthest rate of the target lies outside the bulk, per membrane time; negative inside, NaN
            for a target that is no sum of exponentials.
        escape_time: When the outlier of a leaky integrator slower than the bulk is expected to leave it, in flow units
            at gamma0 = 1; NaN for other targets and where nothing leaves.
        certainty: "theorem" or "rule of thumb".
        sentence: All of it, for a reader.
    """

    kind: Literal["lazy", "rich", "out of reach"]
    margin: float
    escape_time: float
    certainty: Literal["theorem", "rule of thumb"]
    sentence: str


def regime(target: FilterTask, sigma: float, *, train: Sequence[str] = EVERYTHING) -> Regime:
    r"""Say whether a large random network learns a target filter with the eigenvalues that it has.

    Args:
        target: A target filter.
        sigma: Standard deviation of the initial weights, in (0, 1).
        train: What learns; only the readout, or only the read-in, makes it a theorem.

    Returns:
        `Regime`.

    Raises:
        ValueError: If `target` is no filter, or `sigma` or `train` is out of range.

    Assumes: large N, independent entries; gamma0 = 1 for the escape time.
    Source: bordelon2025, Eqs. D31, D32 and E7, and the text before section II B. Deviation from print: the edges do
        not belong to the learnable range; complex rates, sums and sampled filters are this library's.

    Example:
        >>> from tauflow.tasks import LeakyIntegrator
        >>> found = regime(LeakyIntegrator(0.2), 0.3)
        >>> found.kind, round(found.margin, 6), round(found.escape_time, 3), found.certainty
        ('rich', 0.5, 0.85, 'rule of thumb')
        >>> regime(LeakyIntegrator(0.8), 0.3, train=("W_out",)).sentence
        'The rate 0.8 lies 0.1 inside the bulk |1 - p| < 0.3, so that readout or read-in alone learn the filter.'
    """
    if not isinstance(target, FilterTask):
        raise ValueError(f"target is {target!r}; it must be a target filter, for example LeakyIntegrator(0.2).")
    spread = as_sigma(sigma)
    if spread.ndim:
        raise ValueError(f"sigma has shape {spread.shape}; it must be one number in (0, 1), for example sigma=0.2.")
    vectors, matrices = as_train(train)
    alone = vectors == 1 and matrices == 0  # the filter is then linear in what learns
    where, margin = _where(target, float(spread))
    if margin < 0:
        kind: Literal["lazy", "rich", "out of reach"] = "lazy"
        how = "so that readout or read-in alone learn the filter" if alone else "so that it need not make new ones"
    elif matrices:
        kind, how = "rich", "so that learning has to make new eigenvalues"
    else:
        kind, how = "out of reach", "so that it takes weights without bound to come ever closer"
    single = leak(target) if kind == "rich" else None
    slow = single and single[0] < 1 - spread  # the outlier of a faster target leaves on the other side
    time = float(escape_time(single[0], spread, single[1])) if single and slow else math.nan  # coefficient: as gamma0
    due = "" if math.isnan(time) else f", the first after about {time:.2g}"
    return Regime(kind, margin, time, "theorem" if alone else "rule of thumb", f"{where}, {how}{due}.")


def _where(target: FilterTask, sigma: float) -> tuple[str, float]:
    """Where the farthest rate of a target lies, in words and as a distance from the bulk's edge."""
    if target.squared_norm == 0:
        return "The filter is 0", -sigma
    if not isinstance(target, ExponentialFilter):
        return "A filter with kinks has no finite norm in any bulk", math.nan
    rates = np.array(list(distinct_terms(target)))
    farthest = complex(rates[np.argmax(np.abs(1 - rates))])
    margin = abs(1 - farthest) - sigma
    side = "outside" if margin >= 0 else "inside"
    told = f"{farthest.real:.4g}" if farthest.imag == 0 else f"{farthest:.4g}"
    return f"The rate {told} lies {abs(margin):.2g} {side} the bulk |1 - p| < {sigma:.4g}", margin


def distinct_terms(target: ExponentialFilter) -> dict[complex, complex]:
    """Coefficient of each different rate of a target, those of conjugate rates together; none is 0."""
    found: dict[complex, complex] = {}
    for coefficient, rate in zip(*target.terms(), strict=True):
        if rate.imag > 0:  # Re(a e^-pt) is also that of the conjugates
            coefficient, rate = coefficient.conjugate(), rate.conjugate()
        weight = coefficient.real if rate.imag == 0 else coefficient
        found[complex(rate)] = found.get(complex(rate), 0) + complex(weight)
    return {rate: weight for rate, weight in found.items() if weight != 0}


def leak(target: FilterTask) -> tuple[float, float] | None:
    """Rate and coefficient of a target that is one real exponential of positive coefficient, else None."""
    terms = distinct_terms(target) if isinstance(target, ExponentialFilter) else {}
    if len(terms) != 1:
        return None
    ((rate, weight),) = terms.items()
    return (rate.real, weight.real) if rate.imag == 0 and weight.real > 0 else None
