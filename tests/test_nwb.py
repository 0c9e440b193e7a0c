"""Recordings from NWB: the shipped file against its raw tables and its network, and files of every kind."""

import itertools
import json
import sys

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import make_learning_nwb as made
from nwb_files import CUE, LEARNING, quietly, write_nwb
from tauflow.neural import bin_spikes, load_recording


@pytest.fixture(scope="module")
def learning():
    return quietly(made.PATH, **LEARNING)


# ----- the shipped file


def test_counts_of_the_shipped_file_are_those_of_plain_loops_over_its_raw_tables(learning):
    with h5py.File(made.PATH) as file:
        ends = file["units/spike_times_index"][:]
        spikes = np.split(file["units/spike_times"][:], ends[:-1])
        go = file["intervals/trials/go_cue_time"][:]
    data, _ = learning

    def counted(start):
        edges = start + 0.01 * np.arange(131)
        return np.stack(
            [[np.histogram(times, go[k] + edges)[0] for times in spikes] for k in data.trial_id.values], axis=0
        ).transpose(2, 0, 1)  # (time, trial, neuron)

    assert data.activity.dtype == np.int32 and data.activity.dims == ("time", "trial", "neuron")
    np.testing.assert_array_equal(data.activity, counted(-0.3))
    assert not np.array_equal(data.activity, counted(-0.31))
    np.testing.assert_allclose(data.time, -0.295 + 0.01 * np.arange(130), atol=1e-12)


def test_what_is_left_out_of_the_shipped_file_is_said(learning):
    data, said = learning
    known, out = made.truth(), {*made.BAD, made.WITHOUT_GO, made.CUT}
    kept = [k for k in range(made.TRIALS) if k not in out]
    assert data.trial_id.values.tolist() == kept
    assert data.condition.values.tolist() == known["condition"][kept].tolist()
    assert data.epoch.values.tolist() == known["epoch"][kept].tolist()
    reasons = {entry["trial_id"]: entry["reason"] for entry in json.loads(data.attrs["dropped"])}
    assert reasons == {
        **dict.fromkeys(made.BAD, "not good"),
        made.WITHOUT_GO: "no time in go_cue_time",
        made.CUT: "window not wholly recorded",
    }
    assert json.loads(data.attrs["silent"]) == [str(made.SILENT)]
    dropped, silent = said
    assert "2 of 60 trials dropped (ids 33, 59)" in dropped and "1 neuron never fires (17)" in silent
    assert (data.attrs["source"], data.attrs["bin_s"], data.attrs["align"]) == ("learning.nwb", 0.01, "go_cue_time")


def test_the_shipped_spikes_are_poisson_with_the_rates_of_the_known_network(learning):
    data, _ = learning
    rates = made.truth()["rates"][made.GO - 30 : made.GO + 100][:, data.trial_id.values]  # (time, trial, neuron)
    alive = np.arange(made.NEURONS) != made.SILENT
    counts, expected = data.activity.values[..., alive], rates[..., alive] * 0.01

    def log_likelihood(mean):
        return (counts * np.log(mean) - mean).sum()

    chi = (counts - expected) ** 2 / expected  # mean 1, variance 2 + 1/expected for a Poisson count
    assert abs((chi - 1).sum()) < 4 * np.sqrt((2 + 1 / expected).sum())
    over_trials = np.broadcast_to(expected.mean(axis=1, keepdims=True), expected.shape)
    for wrong in (over_trials, expected[:, ::-1], expected[::-1], expected * 1.05, expected * 0.95):
        assert log_likelihood(expected) > log_likelihood(wrong) + 10  # odds of e^10


def test_learning_is_visible_in_the_shipped_file():
    known = made.truth()
    after = known["rates"][made.GO : made.GO + 100]
    means = np.empty_like(after)
    for label in made.CONDITIONS:
        of = known["condition"] == label
        means[:, of] = after[:, of].mean(axis=1, keepdims=True)
    explained = 1 - ((after - means) ** 2).sum() / ((after - after.mean(axis=(0, 1))) ** 2).sum()
    assert explained < 0.9
    np.testing.assert_allclose(np.linalg.norm(known["a"], axis=0), 1)
    np.testing.assert_allclose(np.linalg.norm(known["b"], axis=0), 1)


def test_the_shipped_file_is_what_its_generator_writes(tmp_path):
    made.write(tmp_path / "again.nwb")
    assert made.PATH.stat().st_size < 500_000
    with h5py.File(made.PATH) as one, h5py.File(tmp_path / "again.nwb") as other:
        names = []
        one.visititems(lambda name, node: names.append(name) if isinstance(node, h5py.Dataset) else None)
        for name in names:
            np.testing.assert_array_equal(one[name][()], other[name][()], err_msg=name)
        assert any("spike_times" in name for name in names)


# ----- NWB files of every kind


def test_spikes_in_any_order_are_counted_and_a_bin_has_its_start_and_not_its_end(tmp_path):
    path = write_nwb(tmp_path / "a.nwb", trials=1, units=1, spikes=[[0.95, 0.0, 0.5, 0.25, 0.25, 1.5]])
    data, said = quietly(path, **CUE | {"bin_s": 0.25})
    assert data.activity.values.ravel().tolist() == [1, 2, 1, 1] and said == []


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_bin_spikes_counts_as_a_histogram_does(data):
    times = [
        data.draw(st.lists(st.floats(-2, 5, allow_nan=False).map(lambda t: round(t, 3) + 3e-4), max_size=30))
        for _ in range(3)
    ]
    starts, bins = (
        np.round(data.draw(st.lists(st.floats(0, 2), min_size=1, max_size=4)), 3),
        data.draw(st.integers(1, 9)),
    )
    counts = bin_spikes(times, starts, bins=bins, bin_s=0.125)
    for (k, start), (i, fired) in itertools.product(enumerate(starts), enumerate(times)):
        edges = start + 0.125 * np.arange(bins + 1)
        np.testing.assert_array_equal(counts[:, k, i], np.histogram(fired, edges)[0] if fired else 0)


def test_trials_outside_what_was_recorded_are_dropped_with_the_reason(tmp_path):
    everything, second = [[0, 1], [1, 8]], [[0.0, 3.0], [3.2, 8.0]]
    path = write_nwb(tmp_path / "a.nwb", observed=[everything, second], invalid=[[4.2, 4.3]])
    data, said = quietly(path, **CUE)
    assert data.trial_id.values.tolist() == [0, 1, 3] and len(said) == 1
    assert json.loads(data.attrs["dropped"]) == [{"trial_id": 2, "reason": "window overlaps invalid_times"}]
    data, said = quietly(path, **CUE | {"window": (-0.5, 0.8)})
    assert json.loads(data.attrs["dropped"])[0] == {"trial_id": 1, "reason": "window not wholly recorded for neurons 1"}
    data, said = quietly(path, neurons=[0], **CUE | {"window": (-0.5, 0.8)})
    assert data.trial_id.values.tolist() == [0, 1, 3] and data.neuron_id.values.tolist() == ["0"]


def test_without_intervals_of_observation_trials_and_spikes_tell_what_was_recorded(tmp_path):
    path = write_nwb(tmp_path / "a.nwb", spikes=[[0.2, 7.3], [3.0]])
    data, said = quietly(path, **CUE | {"window": (-0.5, 0.8)})  # to 7.3 s for the last trial, when the last spike is
    assert data.trial_id.values.tolist() == [0, 1, 2, 3]
    data, said = quietly(path, **CUE | {"window": (-0.6, 0.9)})  # trial 0 begins before, trial 3 ends after
    assert data.trial_id.values.tolist() == [1, 2] and "2 of 4 trials dropped (ids 0, 3)" in said[0]


def test_a_column_called_condition_or_epoch_is_used_and_one_called_good_only_if_asked(tmp_path):
    columns = {"condition": [90.0, 0.0, 90.0, 0.5], "epoch": ["a", "a", "b", "b"], "good": [1, 0, 1, 1]}
    path = write_nwb(tmp_path / "a.nwb", columns=columns)
    data, said = quietly(path, **CUE)
    assert data.condition.values.tolist() == ["90", "0", "90", "0.5"] and data.epoch.values.tolist() == list("aabb")
    data, said = quietly(path, good="good", epoch="condition", **CUE)
    assert data.trial_id.values.tolist() == [0, 2, 3] and data.epoch.values.tolist() == ["90", "90", "0.5"]
    assert said == [] and json.loads(data.attrs["dropped"]) == [{"trial_id": 1, "reason": "not good"}]
    assert quietly(write_nwb(tmp_path / "b.nwb"), **CUE)[0].condition.values.tolist() == ["all"] * 4


@pytest.mark.parametrize(
    ("made_of", "asked", "sentence"),
    [
        ({}, {"align": None}, r"align, window and bin_s are needed.*columns are start_time, stop_time, cue"),
        ({}, {"align": "que"}, r"no trials column 'que'; did you mean 'cue'\? There are start_time, stop_time, cue"),
        ({}, {"condition": "target"}, r"no trials column 'target'; there are start_time, stop_time, cue"),
        ({}, {"good": "god"}, r"no trials column 'god'"),
        ({}, {"good": "cue"}, r"cue holds 0.5, 2.5, 4.5 and 1 more; .*true or false"),
        ({}, {"neurons": [0, 7]}, r"no neuron '7'; .*0, 1"),
        ({}, {"bin_s": 0.3}, r"holds 3.33333 bins of 0.3 s.*window=\(-0.5, 0.4\)"),
        ({}, {"bin_s": 0}, r"bin_s is 0; it must be a positive"),
        ({}, {"window": (1, 0)}, r"window is \(1, 0\); it must be a start and a later end"),
        ({}, {"window": (20, 21)}, r"None of 4 trials is left: 4 window not wholly recorded"),
        (
            {"columns": {"side": list("abcd")}},
            {"align": "side"},
            r"'side' holds values such as 'a'; .*times in seconds",
        ),
        ({"columns": {"side": ["a", "", "c", ""]}}, {"condition": "side"}, r"condition has no value at positions 1, 3"),
        (
            {"columns": {"lists": [[1.0], [2.0, 3.0], [1.0], [1.0]]}, "indexed": True},
            {"align": "lists"},
            "a list for each",
        ),
        ({"columns": {"cue": [np.nan] * 4}}, {}, r"None of 4 trials is left: 4 no time in cue"),
        ({"spikes": [[0.1, np.nan], [0.2]]}, {}, r"spike_times of neuron 0 has 1 entries that are NaN"),
        ({"units": 0}, {}, "no units table"),
        ({"trials": 0, "spikes": [[1.0], [2.0]]}, {}, "no trials table"),
    ],
)
def test_a_mistake_with_an_nwb_file_gets_one_sentence(tmp_path, made_of, asked, sentence):
    path = write_nwb(tmp_path / "a.nwb", **made_of)
    with pytest.raises(ValueError, match=sentence) as caught:
        load_recording(path, **CUE | asked)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


@pytest.mark.parametrize("lacking", ["pynwb", "h5py"])
def test_without_pynwb_the_extra_to_install_is_named(monkeypatch, lacking):
    monkeypatch.setitem(sys.modules, lacking, None)
    with pytest.raises(ValueError, match=r"pip install pynwb"):
        load_recording(made.PATH, **LEARNING)
