"""Smoothing, baselines, scaling and selection against loops, exact cases, and what a mistake would give."""

import itertools
import json
import warnings

import numpy as np
import pytest

from tauflow.neural import crop, recording, scale, select_neurons, smooth, subtract_baseline, to_rates

BIN = 0.01
TIME = -0.5 + BIN * (np.arange(150) + 0.5)


def rates(seed=0, trials=6, neurons=4):
    rng = np.random.default_rng(seed)
    values = rng.gamma(2.0, 5.0, size=(TIME.size, trials, neurons)) * np.arange(1, neurons + 1)
    return recording(values, kind="rates", time=TIME)


def wave(k):
    """cos(pi k (t + 1/2) / T), whose mirror image at both ends continues it: smoothing only makes it smaller."""
    return np.cos(np.pi * k * (np.arange(TIME.size) + 0.5) / TIME.size)


@pytest.mark.parametrize("k", [0, 3, 10])
def test_smoothing_shrinks_a_wave_by_the_factor_of_a_gaussian(k):
    sd, waves = 0.04, np.zeros((TIME.size, 2, 2))
    waves[:, 1, 0] = wave(k)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        smoothed = smooth(recording(waves, kind="rates", time=TIME), sd).activity.values

    def expected(sd):
        return np.exp(-((np.pi * k / (TIME.size * BIN) * sd) ** 2) / 2) * wave(k)

    np.testing.assert_allclose(smoothed[:, 1, 0], expected(sd), atol=3e-4)  # the kernel ends at 4 sd
    assert not smoothed[:, 0].any() and not smoothed[:, 1, 1].any()  # neither trials nor neurons are mixed
    if k == 10:
        assert all(np.abs(smoothed[:, 1, 0] - expected(sd * wrong)).max() > 3e-3 for wrong in (0.98, 1.02, 0.0))


def test_smoothing_is_a_sum_over_mirrored_neighbours_and_keeps_every_mean():
    data, sd = rates(), 0.035
    weights = np.exp(-((np.arange(-14, 15) * BIN / sd) ** 2) / 2)
    weights /= weights.sum()
    padded = np.concatenate([data.activity[:14][::-1], data.activity, data.activity[-14:][::-1]])
    expected = sum(weight * padded[shift : shift + TIME.size] for shift, weight in enumerate(weights))
    smoothed = smooth(data, sd)
    np.testing.assert_allclose(smoothed.activity, expected, rtol=1e-5)
    np.testing.assert_allclose(smoothed.activity.mean("time"), data.activity.mean("time"), rtol=1e-5)
    assert (smoothed.activity.var("time") < 0.5 * data.activity.var("time")).all()


def test_counts_become_rates_whose_time_integral_is_the_count():
    counts = np.random.default_rng(1).poisson(0.3, size=(TIME.size, 5, 3))
    data = recording(counts, kind="spikes", time=TIME)
    for made in (to_rates(data), smooth(data, 0.05)):
        np.testing.assert_allclose(made.activity.sum("time") * BIN, counts.sum(axis=0), rtol=1e-5)
        assert made.activity.attrs == {"kind": "rates", "unit": "Hz"} and made.activity.dtype == np.float32
    assert data.activity.attrs["kind"] == "spikes" and json.loads(data.attrs["steps"]) == []  # as it was


def test_the_baseline_of_each_neuron_is_zero_after_and_nothing_else_changes():
    data = rates()
    centred = subtract_baseline(data, (-0.5, 0.0))
    before = centred.activity.values[TIME < 0]
    np.testing.assert_allclose(before.mean(axis=(0, 1)), 0, atol=1e-5)
    np.testing.assert_allclose(centred.activity.diff("time"), data.activity.diff("time"), atol=1e-4)
    assert np.abs(before.mean(axis=0)).max() > 0.1  # one mean for all trials: differences between trials stay
    assert centred.activity.attrs["unit"] == "Hz from baseline"


def printed(values, *, root=True):
    """Eq. (B.0.1) of pellegrino2023 by loops, neuron by neuron, with the square root or, as printed, without."""
    out = np.empty(values.shape)
    for i in range(values.shape[2]):
        before = [
            values[t, k, i]
            for t, k in itertools.product(range(values.shape[0]), range(values.shape[1]))
            if TIME[t] < 0.1
        ]
        mean = sum(before) / len(before)
        after = [
            values[t, k, i]
            for t, k in itertools.product(range(values.shape[0]), range(values.shape[1]))
            if TIME[t] >= 0.1
        ]
        middle = sum(after) / len(after)
        spread = sum((each - middle) ** 2 for each in after) / len(after)
        out[..., i] = (values[..., i] - mean) / (np.sqrt(spread) if root else spread)
    return out


def test_baseline_and_scale_are_b_0_1_with_the_square_root():
    data = rates()
    values = data.activity.values.astype(float)
    made = scale(subtract_baseline(data, (-0.5, 0.1)), (0.1, 1.0))
    np.testing.assert_allclose(made.activity, printed(values), atol=1e-5)
    as_printed = printed(values, root=False)
    assert np.abs(made.activity.values - as_printed).max() > 1
    spread = as_printed[TIME >= 0.1].std(axis=(0, 1))
    deviations = values[TIME >= 0.1].std(axis=(0, 1))
    np.testing.assert_allclose(spread, 1 / deviations, rtol=0.02)  # the print leaves a spread of 1/sd


def test_scale_makes_the_standard_deviation_of_the_period_one_whatever_the_unit():
    data = rates()
    scaled = scale(data, (0.1, 1.0))
    np.testing.assert_allclose(scaled.activity.values[TIME >= 0.1].std(axis=(0, 1)), 1, rtol=1e-5)
    twice = data.assign(activity=(data.activity.dims, data.activity.values * np.float32(7), data.activity.attrs))
    np.testing.assert_allclose(scale(twice, (0.1, 1.0)).activity, scaled.activity, rtol=1e-5)
    assert not np.allclose(scale(data, (-0.5, 0.1)).activity, scaled.activity)  # the window counts
    moved = scale(subtract_baseline(data, (-0.5, 0.1)), (0.1, 1.0))  # a baseline subtracted before changes no deviation
    np.testing.assert_allclose(moved.activity.std(("time", "trial")), scaled.activity.std(("time", "trial")), rtol=1e-5)


def test_silent_neurons_stay_zero_and_those_still_in_the_window_are_refused():
    values = rates().activity.values.copy()
    values[..., 1] = 0
    with pytest.warns(UserWarning, match="never fires"):
        data = recording(values, kind="rates", time=TIME)
    scaled = scale(data, (0.1, 1.0))
    assert not scaled.activity.values[..., 1].any() and np.isfinite(scaled.activity).all()
    values[..., 1] = 3.3
    values[0, 0, 1] = 9.0
    with pytest.raises(ValueError, match=r"Neurons 1 do not change in 0.1 to 1 s but do elsewhere"):
        scale(recording(values, kind="rates", time=TIME), (0.1, 1.0))


def test_neurons_are_selected_by_their_mean_rate_and_the_others_named():
    counts = np.zeros((100, 4, 4), int)
    counts[::10, :, 1], counts[::5, :, 2], counts[::50, :, 3] = 1, 2, 1  # 10, 40 and 2 Hz
    with pytest.warns(UserWarning, match="never fires"):
        data = recording(counts, kind="spikes", time=BIN * np.arange(100), neuron_id=list("abcd"))
    kept = select_neurons(data, 10.0)
    assert kept.neuron_id.values.tolist() == ["b", "c"] and kept.activity.attrs["kind"] == "spikes"
    assert json.loads(kept.attrs["silent"]) == [] and "2 neurons under 10 Hz left out (a, d)" in kept.attrs["steps"]
    assert select_neurons(data, 10.01).neuron_id.values.tolist() == ["c"]
    assert select_neurons(to_rates(data), 2.0).neuron_id.values.tolist() == ["b", "c", "d"]


def test_a_wide_window_smoothed_and_cropped_has_no_edge():
    data = rates()
    inner = crop(smooth(data, 0.03), (0.0, 0.5))
    np.testing.assert_allclose(inner.time, TIME[50:100], atol=1e-12)
    np.testing.assert_array_equal(inner.activity, smooth(data, 0.03).activity[50:100])
    early = smooth(crop(data, (0.0, 0.5)), 0.03).activity.values
    assert np.abs(early - inner.activity.values)[:3].max() > 100 * np.abs(early - inner.activity.values)[20:30].max()
    assert [step.split()[0] for step in json.loads(inner.attrs["steps"])] == ["smoothed", "cut"]


@pytest.mark.parametrize(
    ("do", "sentence"),
    [
        (lambda d: smooth(d, 0), "sd_s is 0; it must be a positive number of seconds"),
        (lambda d: smooth(d, "40 ms"), "sd_s is '40 ms'"),
        (lambda d: smooth(d, 0.004), "sd_s is 0.004 s, under half a bin of 0.01 s; leave smoothing away"),
        (lambda d: subtract_baseline(d, (3.0, 4.0)), "No bin lies in 3 to 4 s; the times go from -0.495 to 0.995 s"),
        (lambda d: subtract_baseline(d, 0.1), "window is 0.1; it must be a start and a later end"),
        (lambda d: select_neurons(d, 0), "least_rate is 0; it must be a positive number of Hz"),
        (lambda d: select_neurons(d, 1e6), "No neuron fires at 1e[+]06 Hz or more; the highest mean rate is"),
        (
            lambda d: select_neurons(subtract_baseline(d, (0, 1)), 1.0),
            "'Hz from baseline', not in Hz; select neurons before",
        ),
        (lambda d: crop(d, (0.0, 0.01)), "Only one bin lies in"),
        (lambda d: crop(d.drop_vars("epoch"), (0.0, 0.5)), "no recording, because it lacks epoch"),
    ],
)
def test_a_mistake_gets_one_sentence(do, sentence):
    with pytest.raises(ValueError, match=sentence):
        do(rates())


@pytest.mark.parametrize("do", [subtract_baseline, scale])
def test_counts_are_no_rates(do):
    data = recording(np.ones((150, 2, 2), int), kind="spikes", time=TIME)
    with pytest.raises(
        ValueError, match=f"{do.__name__} is for rates and this recording has counts of spikes; smooth it"
    ):
        do(data, (0.0, 1.0))
