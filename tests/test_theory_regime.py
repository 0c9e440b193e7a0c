"""Whether a target lies inside the bulk: against the norm's own series, least squares on networks, and exact cases."""

import math

import numpy as np
import pytest

from tauflow.tasks import DampedOscillator, ExponentialSum, LeakyIntegrator, SampledFilter
from tauflow.theory.mean_field import learnable_range, rkhs_norm
from tauflow.theory.outlier import escape_time
from tauflow.theory.regime import regime

READOUT = ("W_out",)


def partial_norms(coefficients, rates, sigma, terms):
    """Partial sums of sum_k |sum_j a_j (1 - p_j)^k|² / sigma^(2k + 2) of a real filter, whose conjugates count too."""
    k = np.arange(terms)[:, None]
    both = np.concatenate([coefficients, np.conj(coefficients)]) / 2
    a = (both * (1 - np.concatenate([rates, np.conj(rates)])) ** k).sum(1)
    return np.cumsum(abs(a) ** 2 / sigma ** (2 * k[:, 0] + 2.0))


@pytest.mark.parametrize("sigma", [0.2, 0.6])
def test_it_is_lazy_where_the_norm_is_finite(sigma):
    """Rates and frequencies on both sides of the disk; the edges are outside."""
    low, high = learnable_range(sigma)
    for c in (float(low), float(high), low + 0.01, high - 0.01, low - 0.01, high + 0.01, 1.0):
        for omega in (0.0, 0.5 * sigma, 0.99 * sigma, 1.01 * sigma):
            target = DampedOscillator(float(c), omega)
            finite = np.isfinite(rkhs_norm(c, sigma, omega=omega))
            assert (regime(target, sigma, train=READOUT).kind == "lazy") == finite, (c, omega)
            assert np.isclose(regime(target, sigma).margin, abs(1 - c + 1j * omega) - sigma, atol=1e-12)


def test_a_sum_is_decided_by_its_farthest_rate_and_by_nothing_that_cancels():
    sigma, inside, outside = 0.5, 0.8, 0.4
    cases = {
        ((1.0, 1.0), (inside, 1.2)): "lazy",
        ((1.0, -1.0), (inside, outside)): "rich",
        ((1.0, 0.5, -0.5), (inside, outside, outside)): "lazy",  # the second and third are nothing
        ((1.0, 1j, 1j), (inside, 0.4 + 0.6j, 0.4 - 0.6j)): "lazy",  # as are sin(wt) and sin(-wt)
        ((1.0, 1j), (inside, outside)): "lazy",  # the real part of i e^-ct is 0
        ((1.0, 1j), (inside, 0.6 + 0.5j)): "rich",
    }  # fmt: skip
    for (a, p), kind in cases.items():
        assert regime(ExponentialSum(a, p), sigma).kind == kind, (a, p)
        norms = partial_norms(np.array(a, complex), np.array(p, complex), sigma, 200)
        assert (norms[-1] < 1.001 * norms[99]) == (kind == "lazy"), (a, p)


def test_readout_weights_stay_bounded_inside_and_not_outside():
    """Least squares for the readout of a large network, ever closer: weights of the norm's size, or without bound."""
    sigma, n, t = 0.6, 400, np.linspace(0, 20, 401)
    rng = np.random.default_rng(0)
    A = sigma / np.sqrt(n) * rng.standard_normal((n, n)) - np.eye(n)
    values, vectors = np.linalg.eig(A)
    start = np.linalg.solve(vectors, sigma * rng.standard_normal(n) + 0j)
    units = (vectors @ (start[:, None] * np.exp(values[:, None] * t))).real.T / np.sqrt(n)  # (time, n)
    weights, cutoffs, size = np.sqrt(np.gradient(t)), np.array([1e-1, 1e-4, 1e-7, 1e-10]), {}
    for c in (0.7, 0.2):
        wanted = weights * np.exp(-c * t)
        fits = [np.linalg.lstsq(weights[:, None] * units, wanted, rcond=least)[0] for least in cutoffs]
        size[c] = np.linalg.norm(fits, axis=-1)
    slopes = {c: -np.polyfit(np.log(cutoffs), np.log(found), 1)[0] for c, found in size.items()}
    assert abs(slopes[0.7]) < 0.01 and slopes[0.2] > 0.2, slopes
    assert abs(size[0.7][-1] / float(rkhs_norm(0.7, sigma)) - 1) < 0.15, size  # it scatters by 4 % at this N


def test_kind_and_certainty_follow_what_learns():
    inside, outside = LeakyIntegrator(0.9), LeakyIntegrator(0.2)
    assert [regime(x, 0.3).kind for x in (inside, outside)] == ["lazy", "rich"]
    assert [regime(x, 0.3, train=READOUT).kind for x in (inside, outside)] == ["lazy", "out of reach"]
    assert [regime(outside, 0.3, train=x).certainty for x in (READOUT, ("W_in",), ("W_in", "W_out"), ("W",))] == [
        "theorem", "theorem", "rule of thumb", "rule of thumb",
    ]  # fmt: skip


def test_the_escape_time_is_that_of_the_outlier_theory():
    assert regime(LeakyIntegrator(0.2), 0.3).escape_time == escape_time(0.2, 0.3)
    doubled = regime(LeakyIntegrator(0.2, target_amplitude=2.0), 0.3).escape_time
    assert doubled == escape_time(0.2, 0.3) / 2
    fast = LeakyIntegrator(1.4)  # rich, but its outlier leaves the bulk on the other side
    assert regime(fast, 0.3).kind == "rich" and "after about" not in regime(fast, 0.3).sentence
    others = (LeakyIntegrator(0.9), fast, DampedOscillator(0.1, 1.0), LeakyIntegrator(0.2, target_amplitude=-1.0))
    for target in others:
        assert math.isnan(regime(target, 0.3).escape_time)
    assert math.isnan(regime(LeakyIntegrator(0.2), 0.3, train=READOUT).escape_time)


def test_samples_have_kinks_that_no_bulk_has():
    found = regime(SampledFilter([1.0, 0.5, 0.0], 1.0), 0.9)
    assert found.kind == "rich" and math.isnan(found.margin) and "kinks" in found.sentence
    assert regime(SampledFilter([0.0, 0.0], 1.0), 0.9).kind == "lazy"


def test_it_says_so_in_one_sentence():
    assert regime(LeakyIntegrator(0.2), 0.3).sentence == (
        "The rate 0.2 lies 0.5 outside the bulk |1 - p| < 0.3, so that learning has to make new eigenvalues, "
        "the first after about 0.85."
    )
    assert "0.1-1j" in regime(DampedOscillator(0.1, 1.0), 0.3).sentence
    for target in (LeakyIntegrator(0.9), DampedOscillator(0.1, 1.0), SampledFilter([1.0, 0.0], 1.0)):
        for train in (READOUT, ("W", "W_in", "W_out")):
            sentence = regime(target, 0.3, train=train).sentence
            assert sentence.endswith(".") and "\n" not in sentence


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("leaky-integrator", 0.3), "target is 'leaky-integrator'"),
        ((LeakyIntegrator(0.2), 1.0), "sigma is 1.0"),
        ((LeakyIntegrator(0.2), [0.2, 0.3]), "sigma has shape"),
    ],
)
def test_bad_input_is_answered_in_one_sentence(arguments, told):
    with pytest.raises(ValueError, match="it must be") as error:
        regime(*arguments)
    assert told in str(error.value) and str(error.value).endswith(".")
