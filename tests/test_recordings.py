"""Recordings: read from NWB, NetCDF, Zarr and .npz against independent routes; nothing dropped in silence."""

import itertools
import json
import pickle
import warnings

import h5py
import numpy as np
import pytest
import xarray as xr

import make_learning_nwb as made
from nwb_files import CUE, LEARNING, quietly, write_nwb
from tauflow.neural import check_recording, hidden_block, load_recording, recording, smooth
from tauflow.run import write_atomic_store

# ----- files of arrays

TIMES = -0.1 + 0.02 * np.arange(5)
SPIKES = np.random.default_rng(3).poisson(2.0, size=(4, 5, 3)).astype(np.int16)  # (trial, time, neuron)
LABELS = {
    "trial_id": np.array([2, 3, 5, 9]),
    "condition": np.array(list("lrlr")),
    "epoch": np.array(["a", "a", "b", "b"]),
}
NAMES = np.array(["n1", "n2", "n4"])


def write_arrays(folder, form, dims=("trial", "time", "neuron"), **changes):
    """The same small recording in every form; `changes` replace or, with None, remove arrays."""
    arrays = {"spikes": SPIKES, "times": TIMES, **LABELS, "neuron_id": NAMES} | changes
    arrays = {name: np.asarray(values) for name, values in arrays.items() if values is not None}
    if form == "npz":
        np.savez(folder / "a.npz", **arrays)
        return folder / "a.npz"
    of = {"times": ("time",), "neuron_id": ("neuron",)}
    variables = {name: (of.get(name, ("trial",)), values) for name, values in arrays.items()}
    for name in {"spikes", "rates"} & arrays.keys():
        variables[name] = (dims, arrays[name].transpose([("trial", "time", "neuron").index(dim) for dim in dims]))
    data = xr.Dataset(variables)
    if form.startswith("zarr"):
        with warnings.catch_warnings():  # Zarr format 3 has no settled type for text
            warnings.simplefilter("ignore")
            data.to_zarr(folder / "a.zarr", zarr_format=int(form[-1]))
        return folder / "a.zarr"
    if form == "netcdf3":
        data.to_netcdf(folder / "a.nc", engine="scipy")
    else:
        data.to_netcdf(folder / "a.nc", engine="h5netcdf")
    return folder / "a.nc"


FORMS = ("npz", "zarr2", "zarr3", "netcdf3", "netcdf4")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dims", list(itertools.permutations(("trial", "time", "neuron")))[::2])
def test_every_form_gives_the_same_recording(tmp_path, form, dims):
    data, said = quietly(write_arrays(tmp_path, form, dims), bin_s=0.02)
    np.testing.assert_array_equal(data.activity, SPIKES.transpose(1, 0, 2))
    np.testing.assert_allclose(data.time, TIMES, atol=1e-12)
    assert data.activity.attrs == {"kind": "spikes", "unit": "spikes per bin"} and data.activity.dtype == np.int32
    assert all(data[name].values.tolist() == values.tolist() for name, values in LABELS.items())
    assert data.neuron_id.values.tolist() == NAMES.tolist() and said == []
    assert data.attrs["bin_s"] == 0.02 and data.attrs["source"] == f"a.{form.rstrip('234').replace('netcdf', 'nc')}"


@pytest.mark.parametrize("form", FORMS)
def test_rates_columns_by_name_bad_trials_neurons_and_windows(tmp_path, form):
    rates = SPIKES * 1.5
    path = write_arrays(
        tmp_path, form, spikes=None, rates=rates, fine=[True, True, False, True], side=[90, 0, 90, 0], neuron_id=None
    )
    data, said = quietly(path, good="fine", condition="side", neurons=["2", 0], window=(-0.08, 0.0))
    np.testing.assert_array_equal(data.activity, rates.transpose(1, 0, 2)[1:, [0, 1, 3]][..., [0, 2]])
    assert data.activity.dtype == np.float32 and data.activity.attrs == {"kind": "rates", "unit": "Hz"}
    assert data.condition.values.tolist() == ["90", "0", "0"] and data.trial_id.values.tolist() == [2, 3, 9]
    assert json.loads(data.attrs["dropped"]) == [{"trial_id": 5, "reason": "not fine"}] and said == []


def test_the_index_coordinates_of_xarray_are_read_and_times_may_be_made(tmp_path):
    data = xr.Dataset({"rates": (("time", "trial", "neuron"), np.ones((5, 2, 2)))}, {"time": TIMES, "trial": [4, 8]})
    data.to_netcdf(tmp_path / "a.nc", engine="scipy")
    read = load_recording(tmp_path / "a.nc")
    np.testing.assert_allclose(read.time, TIMES)
    assert read.trial_id.values.tolist() == [4, 8]
    path = write_arrays(tmp_path, "npz", times=None)
    np.testing.assert_allclose(load_recording(path, bin_s=0.5).time, [0.25, 0.75, 1.25, 1.75, 2.25])
    data.assign_coords(time=("time", TIMES * 1e3, {"units": "ms"})).to_netcdf(tmp_path / "b.nc", engine="scipy")
    with pytest.raises(ValueError, match="time is in 'ms'; it must be in seconds"):
        load_recording(tmp_path / "b.nc")


def test_a_recording_that_was_saved_is_read_as_it_was(tmp_path):
    data = smooth(quietly(made.PATH, **LEARNING)[0].isel(trial=slice(0, 5), neuron=slice(14, 20)), 0.04)
    write_atomic_store(data, tmp_path / "ours.zarr")
    data.to_netcdf(tmp_path / "xarrays.nc", engine="h5netcdf")
    for path in (tmp_path / "ours.zarr", tmp_path / "xarrays.nc"):
        again, _ = quietly(path)
        xr.testing.assert_identical(again, data)
        cut, _ = quietly(path, window=(0.0, 0.5))
        assert cut.sizes["time"] == 50 and len(json.loads(cut.attrs["steps"])) == 3


def ragged():
    trials = np.empty(2, object)
    trials[:] = [np.ones((3, 2)), np.ones((4, 2))]
    return trials


HOLE = np.where(np.arange(60).reshape(4, 5, 3) == 20, np.nan, 1.0)
BAD_ARRAYS = {
    "ragged": ({"spikes": ragged()}, "spikes is made of Python objects .trials of unequal length"),
    "labels of objects": ({"condition": np.array(["a", 1, "b", 2], object)}, "condition is made of Python objects"),
    "both": ({"rates": SPIKES}, "has rates and spikes .*must have one of rates and spikes"),
    "neither": ({"spikes": None, "firing": SPIKES}, "neither rates nor spikes .there are times, trial_id, .*firing"),
    "flat": ({"spikes": SPIKES[0]}, r"spikes has shape \(5, 3\); it must be \(trial, time, neuron\)"),
    "empty": ({"spikes": SPIKES[:, :, :0], "neuron_id": None}, r"spikes have shape \(5, 4, 0\)"),
    "text": ({"spikes": SPIKES.astype(str)}, "spikes is .*it must be numbers"),
    "complex": ({"spikes": None, "rates": SPIKES + 1j}, "rates have .*complex128"),
    "NaN": (
        {"spikes": None, "rates": HOLE},
        r"NaN or infinite at 1 of 60 entries, first at -0.08 s of trial 3, neuron n4; cut trials",
    ),
    "NaN spikes": ({"spikes": HOLE}, "1 entries that are no whole numbers, such as nan"),
    "too large": ({"spikes": None, "rates": SPIKES * 1e300}, "NaN or infinite"),
    "negative": ({"spikes": SPIKES - 40}, "Counts of spikes are negative at 60 of 60 entries, .*pass them as rates"),
    "halves": ({"spikes": SPIKES + 0.5}, "60 entries that are no whole numbers, such as .*pass anything else as rates"),
    "uneven": ({"times": TIMES**3}, "time goes in steps from .* rising in even steps"),
    "backwards": ({"times": TIMES[::-1]}, "time goes in steps from -0.02"),
    "swapped": ({"times": TIMES[:4]}, r"times has shape \(4,\) and the activity has 5 bins .*swapped"),
    "no times": ({"times": None}, "has no times; give the width of its bins in seconds"),
    "words for times": ({"times": list("abcde")}, "times holds <U1; it must be numbers"),
    "repeated": ({"trial_id": [1, 2, 2, 3]}, "trial_id repeats 2; each must be there once"),
    "falling": ({"trial_id": [1, 2, 9, 3]}, "trial_id falls from 9 to 3; sort the trials"),
    "fractions": ({"trial_id": [1, 2.5, 3, 4]}, "trial_id is 2.5 for a trial; it must be a whole number"),
    "same names": ({"neuron_id": list("aba")}, "neuron_id repeats a"),
    "too few labels": (
        {"condition": list("lrl")},
        r"condition has shape \(3,\); it must be \(4,\), one for each trial",
    ),
    "no label": ({"condition": [1.0, np.nan, 2.0, 1.0]}, "condition has no value at positions 1"),
}


@pytest.mark.parametrize("case", BAD_ARRAYS)
def test_a_mistake_in_a_file_of_arrays_gets_one_sentence(tmp_path, case):
    changes, sentence = BAD_ARRAYS[case]
    path = write_arrays(tmp_path, "npz", **changes)
    with pytest.raises(ValueError, match=sentence) as caught:
        load_recording(path)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"align": "go"}, "align='go' is for times of spikes"),
        ({"bin_s": 0.01}, "bin_s is 0.01 and times is 0.02 s apart"),
        ({"condition": "target"}, "no array 'target'; there are spikes, times"),
        ({"good": "good"}, "no array 'good'"),
        ({"good": "epoch"}, "epoch holds a, b; .*true or false"),
        ({"neurons": ["n3"]}, "no neuron 'n3'; there are n1, n2, n4"),
        ({"window": (5.0, 6.0)}, "No bin lies in 5 to 6 s; the times go from -0.1 to -0.02 s"),
        ({"window": (-0.1, -0.08)}, "Only one bin lies in"),
    ],
)
def test_a_mistake_in_what_is_asked_of_arrays_gets_one_sentence(tmp_path, asked, sentence):
    with pytest.raises(ValueError, match=sentence):
        load_recording(write_arrays(tmp_path, "npz"), **asked)


def test_other_dimensions_are_named(tmp_path):
    xr.Dataset({"rates": (("t", "trial", "cell"), np.ones((5, 2, 2)))}).to_netcdf(tmp_path / "a.nc", engine="scipy")
    with pytest.raises(ValueError, match="rates has dimensions t, trial, cell; they must be trial, time and neuron"):
        load_recording(tmp_path / "a.nc")


class Trap:
    def __reduce__(self):
        return pytest.fail, ("a pickle was opened",)


def test_no_pickle_is_opened(tmp_path):
    np.savez(tmp_path / "a.npz", spikes=np.array([Trap()], object))
    (tmp_path / "b.npz").write_bytes(pickle.dumps(Trap()))
    for name, sentence in (("a.npz", "spikes is made of Python objects"), ("b.npz", "this file is neither")):
        with pytest.raises(ValueError, match=sentence):
            load_recording(tmp_path / name)


# ----- files that are not what they say


@pytest.mark.parametrize(
    ("form", "name", "sentence"),
    [
        ("npz", "a.nwb", "By its name this is NWB, but by its content npz; rename it"),
        ("npz", "a.nc", "By its name this is NetCDF, but by its content npz"),
        ("netcdf4", "a.nwb", "By its name this is NWB, but by its content HDF5 without the marks of NWB"),
        ("netcdf3", "a.npz", "By its name this is npz, but by its content NetCDF 3"),
        ("zarr3", "a.npz", "By its name this is npz, but by its content Zarr"),
    ],
)
def test_a_file_that_is_not_what_its_name_says_is_refused(tmp_path, form, name, sentence):
    (tmp_path / "other").mkdir()
    path = write_arrays(tmp_path / "other", form).rename(tmp_path / name)
    with pytest.raises(ValueError, match=sentence):
        load_recording(path)


def test_nwb_under_another_name_is_told_by_its_content(tmp_path):
    path = write_nwb(tmp_path / "a.nwb").rename(tmp_path / "a.h5")
    assert load_recording(path, **CUE).activity.values.sum() == 4 * 10 * 2
    with pytest.raises(ValueError, match="By its name this is npz, but by its content NWB"):
        load_recording(path.rename(tmp_path / "a.npz"), **CUE)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "There is no such file"),
        (b"", "this file is empty"),
        (b"time,trial\n0,1\n", "A recording is NWB, NetCDF, Zarr or .npz; this file is neither"),
        (b"\x93NUMPY\x01\x00", "one NumPy array without names"),
        (b"MATLAB 5.0 MAT-file", "a MATLAB file"),
        ("folder", "The folder is no Zarr store"),
        ("nwb-zarr", "NWB kept as Zarr, which is not read"),
    ],
)
def test_what_is_no_recording_is_refused(tmp_path, content, sentence):
    path = tmp_path / "a.nwb"
    if content in ("folder", "nwb-zarr"):
        path.mkdir()
        if content == "nwb-zarr":
            (path / ".zattrs").write_text('{"nwb_version": "2.7.0"}')
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=sentence):
        load_recording(path)
    with pytest.raises(ValueError, match="The path is None"):
        load_recording(None)


def test_hdf5_that_is_neither_nwb_nor_labelled_is_refused(tmp_path):
    for name, attributes, sentence in (
        ("a.nwb", {"nwb_version": "2.7.0"}, "pynwb cannot read the file"),
        ("a.h5", {}, "rates has dimensions phony_dim_0, phony_dim_1, phony_dim_2; they must be trial, time and neuron"),
    ):
        with h5py.File(tmp_path / name, "w") as file:
            file["rates"] = np.ones((4, 5, 3))
            file.attrs.update(attributes)
        with pytest.raises(ValueError, match=sentence):
            load_recording(tmp_path / name, **CUE if attributes else {})


@pytest.mark.parametrize("form", ["nwb", "npz", "netcdf3", "netcdf4"])
@pytest.mark.parametrize("share", [0.3, 0.8])
def test_a_file_that_was_cut_off_is_refused(tmp_path, form, share):
    path = write_nwb(tmp_path / "a.nwb") if form == "nwb" else write_arrays(tmp_path, form)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=r"damaged|cannot read"):
        load_recording(path, **CUE if form == "nwb" else {})


# ----- recordings from arrays


def test_a_recording_keeps_what_it_is_given_and_names_silent_neurons():
    counts = np.zeros((3, 2, 2), bool)
    counts[1, 0, 1] = True
    with pytest.warns(UserWarning, match=r"b.npz: 1 neuron never fires \(x\); kept"):
        data = recording(
            counts,
            kind="spikes",
            time=np.float32([0.1, 0.2, 0.3]),
            neuron_id=["x", "y"],
            source="b.npz",
            steps=["counted"],
        )
    check_recording(data)
    assert data.activity.values.sum() == 1 and json.loads(data.attrs["steps"]) == ["counted"]
    assert data.attrs["bin_s"] == pytest.approx(0.1, rel=1e-6) and np.ptp(np.diff(data.time)) < 1e-12


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"kind": "rate"}, "no kind of activity 'rate'; did you mean 'rates'"),
        ({"activity": [[[1.0], [2.0]], [[1.0]]]}, "rates cannot be read as an array; it must be numbers"),
        ({"time": [0.0]}, r"time has shape \(1,\)"),
        ({"time": [0.0, np.nan, 1.0]}, "time has 1 entries that are NaN"),
        ({"time": [0.0, 0.1]}, r"time has shape \(2,\); it must be \(3,\), one for each time"),
        ({"condition": ["a"]}, r"condition has shape \(1,\); it must be \(2,\), one for each trial"),
        ({"trial_id": [0, np.inf]}, "trial_id has 1 entries that are NaN or infinite"),
        ({"activity": np.full((3, 2, 2), 2**40), "kind": "spikes"}, "no count of spikes"),
    ],
)
def test_recording_refuses_what_does_not_fit(changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        recording(**{"activity": np.ones((3, 2, 2)), "kind": "rates", "time": [0.0, 0.1, 0.2]} | changes)


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda d: d.activity, "A recording is an xarray.Dataset; a DataArray came"),
        (lambda d: d.drop_vars("epoch"), "it lacks epoch; build it"),
        (lambda d: d.transpose("trial", ...), "activity has .*it must have time, trial, neuron"),
        (lambda d: d.isel(trial=[]), "none of them empty"),
        (lambda d: d.assign(activity=d.activity.astype(float)), "activity of kind 'rates' is float64"),
        (
            lambda d: d.assign(activity=d.activity * np.float32(np.nan)),
            "no kind of activity None|NaN or infinite at 12",
        ),
        (lambda d: d.assign_attrs(bin_s=0.2), "bin_s is 0.2 and times are 0.1 s apart"),
        (lambda d: d.isel(trial=[0, 0]), "trial_id repeats 0"),
        (lambda d: d.isel(trial=[1, 0]), "trial_id falls from 1 to 0"),
        (lambda d: d.assign_coords(trial_id=("trial", np.float32([0, 1]))), "trial_id is float32"),
        (lambda d: d.assign_coords(epoch=("neuron", ["a", "b"])), r"epoch has dimensions \('neuron',\)"),
    ],
)
def test_check_recording_says_what_is_wrong(spoil, sentence):
    data = recording(np.ones((3, 2, 2)), kind="rates", time=[0.0, 0.1, 0.2])
    check_recording(data)
    with pytest.raises(ValueError, match=sentence):
        check_recording(spoil(data))


def test_a_file_may_say_that_its_rates_were_smoothed(tmp_path):
    rates = np.random.default_rng(0).normal(size=(4, 30, 2))  # (trial, time, neuron)
    np.savez(tmp_path / "a.npz", rates=rates, smoothed_s=0.04)
    np.savez(tmp_path / "plain.npz", rates=rates)
    np.savez(tmp_path / "text.npz", rates=rates, smoothed_s="40 ms")
    held = xr.Dataset({"rates": (("trial", "time", "neuron"), rates)}, attrs={"smoothed_s": 0.04})
    held.to_netcdf(tmp_path / "b.nc", engine="h5netcdf")
    told = [quietly(tmp_path / name, bin_s=0.01)[0] for name in ("a.npz", "b.nc", "plain.npz")]
    assert [data.attrs["smoothed_s"] for data in told] == [0.04, 0.04, 0.0]
    assert [hidden_block(data) for data in told] == [(32, 20), (32, 20), (10, 20)]
    with pytest.raises(ValueError, match="smoothed_s is '40 ms'; it must be a number of seconds >= 0"):
        load_recording(tmp_path / "text.npz", bin_s=0.01)
