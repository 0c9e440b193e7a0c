"""Run: its schema, its networks, its merging; and stores that are whole, absent, or say that they are damaged."""

import errno
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import tauflow.run
from tauflow.networks import RateRNN
from tauflow.run import (
    Run,
    RunError,
    common_tau_unit,
    describe_network,
    load,
    merge,
    read_npz,
    read_store,
    register_network,
    replace_store,
    run_attributes,
    versions,
    write_atomic_bytes,
    write_atomic_npz,
    write_atomic_store,
)
from tauflow.simulate import LowRank

RUNS, UPDATES, UNITS = 3, 10, 4


def dataset(seed=0, dtype="float32", unit="update", runs=RUNS, gain=0.9):
    """A dataset that is a Run, its last member diverged."""
    rng = np.random.default_rng(seed)
    snapshots, measured = np.array([0, UPDATES]), np.array([0, 5, UPDATES])

    def normal(*shape):
        return rng.normal(size=shape).astype(dtype)

    def times(positions):
        return np.tile(positions.astype(float), (runs, 1))

    status = np.array(["done"] * (runs - 1) + ["diverged"])
    W = normal(runs, 2, UNITS, UNITS)
    W[-1, 1] = np.nan
    eigenvalues = normal(runs, 3, UNITS) + 1j * normal(runs, 3, UNITS)
    return xr.Dataset(
        {
            "loss": (("run", "update"), normal(runs, UPDATES) ** 2),
            "grad_norm": (("run", "update"), normal(runs, UPDATES) ** 2),
            "W": (("run", "snapshot", "unit", "unit_pre"), W),
            "W_in": (("run", "snapshot", "unit", "input"), normal(runs, 2, UNITS, 2)),
            "W_out": (("run", "snapshot", "output", "unit"), normal(runs, 2, 1, UNITS)),
            "delta_W_singular_values": (("run", "measurement", "index"), np.abs(normal(runs, 3, UNITS)).astype("f8")),
            "W_eigenvalues": (("run", "measurement", "index"), eigenvalues.astype("complex128")),
            "probe_readout": (("run", "measurement", "output"), normal(runs, 3, 1)),
            "status": ("run", status),
            "stopped_at": ("run", np.where(status == "diverged", 7, -1)),
            "diverged_grad_norm": ("run", np.where(status == "diverged", 1e9, np.nan)),
        },
        coords={
            "update": np.arange(UPDATES),
            "snapshot_update": ("snapshot", snapshots),
            "measurement_update": ("measurement", measured),
            "tau": (("run", "update"), times(np.arange(UPDATES)), {"unit": unit}),
            "tau_snapshot": (("run", "snapshot"), times(snapshots), {"unit": unit}),
            "tau_measurement": (("run", "measurement"), times(measured), {"unit": unit}),
            "seed": ("run", np.arange(seed, seed + runs)),
            "gain": ("run", np.full(runs, gain)),
        },
        attrs=run_attributes(
            "descend",
            configuration={"task": {"name": "flip-flop"}, "steps": UPDATES, "gain": gain},
            network={"name": "RateRNN", "static": {"phi": "tanh", "dt": 0.5, "noise": 0.0}},
            seed=seed,
            device="cpu",
        ),
    )


def with_factors(data, rank=2):
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(2, RUNS, 2, UNITS, rank))
    return data.drop_vars("W").assign(
        W_a=(("run", "snapshot", "unit", "rank"), a),
        W_c=(("run", "snapshot", "rank"), rng.normal(size=(RUNS, 2, rank))),
        W_b=(("run", "snapshot", "unit", "rank"), b),
    )


def same(one: xr.Dataset, other: xr.Dataset) -> None:
    """Same names, dims, dtypes, attributes, and the same bytes: also the sign of zero and NaN."""
    assert one.sizes == other.sizes and set(one.coords) == set(other.coords) and one.attrs == other.attrs
    assert set(one.variables) == set(other.variables)
    for name, variable in one.variables.items():
        again = other.variables[name]
        assert variable.dims == again.dims and variable.attrs == again.attrs
        if variable.dtype.kind == "U":
            assert variable.values.tolist() == again.values.tolist()
        else:
            assert variable.dtype == again.dtype
            assert variable.values.tobytes() == again.values.tobytes(), name


def one_sentence(error: BaseException) -> str:
    message = str(error)
    assert isinstance(error, RunError) and isinstance(error, ValueError)
    assert "\n" not in message and "Traceback" not in message and len(message) < 500 and message.endswith(".")
    return message


def refused(data: xr.Dataset) -> str:
    with pytest.raises(RunError) as caught:
        Run(data)
    return one_sentence(caught.value)


# --- schema


def test_a_run_is_accepted_and_says_what_it_is():
    run = Run(dataset())
    assert run.n_runs == RUNS and run.tau_unit == "update" and run.configuration["steps"] == UPDATES
    text = repr(run)
    for part in ("descend", "3 x RateRNN of 4 units", "2 done", "1 diverged", "10 updates", "2 snapshots", "loss"):
        assert part in text
    with pytest.raises(AttributeError):
        run.data = dataset()
    assert run.tau().dims == ("run", "update") and run.tau("snapshot").attrs["unit"] == "update"
    assert run.tau("measurement").values[0].tolist() == [0, 5, 10]


@pytest.mark.parametrize(
    "name", ["loss", "update", "tau", "tau_snapshot", "measurement_update", "status", "stopped_at", "seed"]
)
def test_a_missing_variable_is_named(name):
    assert repr(name) in refused(dataset().drop_vars(name))


@pytest.mark.parametrize("name", ["kind", "configuration", "network", "seed", "versions", "device", "created"])
def test_a_missing_attribute_is_named(name):
    data = dataset()
    del data.attrs[name]
    assert f"attribute {name!r}" in refused(data)


def test_everything_missing_is_named_at_once():
    message = refused(xr.Dataset({"x": ("time", np.ones(2))}, attrs={"schema": 1}))
    for part in ("dimension 'run'", "learning dimension", "'status'", "'seed'", "'configuration'"):
        assert part in message
    assert "no Run" in refused(xr.Dataset())
    assert "DataArray" in refused(dataset()["loss"])


BAD = {
    "order of dims": (lambda d: d.assign(W=d.W.transpose("run", "unit", "snapshot", "unit_pre")), "W has dimensions"),
    "run first": (lambda d: d.assign(extra=(("time", "run"), np.ones((2, RUNS)))), "'run' must come first"),
    "probe order": (lambda d: d.assign(probe_x=d.probe_readout.transpose("run", "output", "measurement")), "probe_x"),
    "complex loss": (lambda d: d.assign(loss=d.loss.astype(complex)), "loss has dtype complex128"),
    "real eigenvalues": (lambda d: d.assign(W_eigenvalues=d.W_eigenvalues.real), "a complex dtype"),
    "text seed": (lambda d: d.assign_coords(seed=("run", ["a"] * RUNS)), "a whole-number dtype"),
    "float32 tau": (lambda d: d.assign_coords(tau=d.tau.astype("f4")), "must be float64"),
    "no unit": (lambda d: d.assign_coords(tau=(("run", "update"), d.tau.values)), "attrs['unit'] = None"),
    "other unit": (lambda d: d.assign_coords(tau=d.tau.assign_attrs(unit="flow")), "different units"),
    "unknown unit": (lambda d: d.assign_coords(tau=d.tau.assign_attrs(unit="days")), "must be one of"),
    "update falls": (lambda d: d.assign_coords(update=np.arange(UPDATES)[::-1]), "must count up"),
    "negative snapshot": (lambda d: d.assign_coords(snapshot_update=("snapshot", [-1, 0])), "from 0 or more"),
    "status": (lambda d: d.assign(status=("run", ["lost"] * RUNS)), "status is 'lost'"),
    "two kinds of W": (lambda d: d.merge(with_factors(d)), "both W and its factors"),
    "half of the factors": (lambda d: with_factors(d).drop_vars("W_c"), "'W_c'"),
    "objects": (lambda d: d.assign(x=("run", np.array([None] * RUNS))), "x has dtype object"),
    "kind": (lambda d: d.assign_attrs(kind="guess"), "attrs['kind'] is 'guess'"),
    "configuration": (lambda d: d.assign_attrs(configuration="{"), "JSON text of an object"),
    "network": (lambda d: d.assign_attrs(network="{}"), "must have name and static only"),
    "newer": (lambda d: d.assign_attrs(schema=2), "upgrade tauflow"),
    "odd schema": (lambda d: d.assign_attrs(schema="old"), "must be 1"),
    "no member": (lambda d: d.isel(run=slice(0, 0)), "empty"),
    "not NumPy": (lambda d: d.assign(x=xr.Variable("run", jnp.ones(RUNS))), "np.asarray"),
}


@pytest.mark.parametrize("damage", BAD)
def test_what_is_wrong_is_named(damage):
    change, words = BAD[damage]
    assert words in refused(change(dataset()))


def test_attributes_of_a_run():
    with pytest.raises(RunError, match="kind is 'x'"):
        run_attributes("x", configuration={}, network={}, seed=0, device="cpu")
    with pytest.raises(RunError, match="configuration holds"):
        run_attributes("flow", configuration={"f": len}, network={}, seed=0, device="cpu")
    made = run_attributes("flow", configuration={"g": np.float32(0.5), "a": np.ones(2)}, network={}, seed=1, device="x")
    assert json.loads(made["configuration"]) == {"g": 0.5, "a": [1.0, 1.0]}
    assert json.loads(made["versions"]) == versions() and versions()["numpy"] == np.__version__


# --- weights and networks


def test_weights_and_network_of_a_member():
    data = dataset(dtype="float64")
    run = Run(data)
    np.testing.assert_array_equal(run.weights("W", run=1, snapshot=0), data.W.values[1, 0])
    network = run.network(run=1)
    assert isinstance(network, RateRNN) and (network.phi, network.dt) == ("tanh", 0.5)
    for name in ("W", "W_in", "W_out"):
        np.testing.assert_array_equal(getattr(network, name), run.weights(name, run=1))
    assert network(jnp.ones((3, 2))).outputs.shape == (3, 1)
    assert Run(dataset()).network().W.dtype == np.float32


def test_weights_that_are_not_there():
    run = Run(dataset())
    for arguments, words in [
        ({"name": "V"}, "keeps no weights 'V'; it keeps 'W', 'W_in', 'W_out'"),
        ({"run": RUNS}, "the Run has 3"),
        ({"snapshot": -3}, "from -2 to 1"),
        ({"run": 0.5}, "whole number"),
    ]:
        with pytest.raises(ValueError, match=re.escape(words)):
            run.weights(**arguments)
    with pytest.raises(ValueError, match="no dimension 'snapshot'"):
        bare = run.data.drop_dims("snapshot")
        Run(bare).tau("snapshot")
    with pytest.raises(ValueError, match="keeps no weights"):
        Run(bare).network()
    with pytest.raises(ValueError, match="which is 'loss'"):
        run.tau("loss")
    with pytest.raises(ValueError, match="diverged, stopped at update 7"):
        run.network(run=-1)
    assert isinstance(run.network(run=-1, snapshot=0), RateRNN)


class Mine(eqx.Module):
    W: jax.Array
    W_in: jax.Array
    W_out: jax.Array
    bias: jax.Array


class Wrapped(eqx.Module):
    cell: Mine
    label: str = eqx.field(static=True)


def mine(units=UNITS, dtype="float64"):
    return Mine(*(jnp.zeros(s, dtype) for s in ((units, units), (units, 2), (1, units))), bias=jnp.ones(units, dtype))


def test_a_module_of_the_user_is_filled():
    run = Run(dataset())
    filled = run.network(like=Wrapped(mine(), "a"), run=1, snapshot=0)
    assert filled.label == "a" and filled.cell.W.dtype == np.float64
    np.testing.assert_array_equal(filled.cell.bias, np.ones(UNITS))
    np.testing.assert_array_equal(filled.cell.W, run.weights("W", run=1, snapshot=0))
    filled = run.network(like={"rnn": {"W": np.zeros((4, 4)), "W_in": np.zeros((4, 2)), "W_out": np.zeros((1, 4))}})
    np.testing.assert_array_equal(filled["rnn"]["W_in"], run.weights("W_in"))


def test_a_module_that_does_not_fit_is_refused():
    run = Run(dataset())
    with pytest.raises(RunError, match=r"W has shape \(5, 5\) in like= and \(4, 4\)"):
        run.network(like=mine(5))
    with pytest.raises(RunError, match="no field named W_out"):
        run.network(like={"W": np.zeros((4, 4)), "W_in": np.zeros((4, 2))})
    with pytest.raises(RunError, match="2 fields named W;"):
        run.network(like=(mine(), mine()))


def test_an_unknown_network_asks_for_like():
    data = dataset()
    other = data.assign_attrs(network=json.dumps({"name": "Nobody", "static": {}}))
    with pytest.raises(RunError, match=r"Nobody, not registered .*RateRNN.*like="):
        Run(other).network()
    with pytest.raises(RunError, match="lacks W_out"):
        Run(data.drop_vars("W_out")).network()
    with pytest.raises(RunError, match="has bias, which the class has not"):
        Run(data.assign(bias=data.W_in.isel(input=0))).network()


def test_networks_kept_as_factors():
    run = Run(with_factors(dataset()))
    factors = run.weights("W", run=1)
    assert isinstance(factors, LowRank) and factors.dense().shape == (UNITS, UNITS)
    np.testing.assert_allclose(factors.dense(), factors.a @ np.diag(factors.c) @ factors.b.T)
    with pytest.raises(RunError, match="takes dense weights"):
        run.network()

    @register_network(low_rank=LowRank)
    class Thin(eqx.Module):
        W: LowRank
        W_in: jax.Array
        W_out: jax.Array
        gain: float = eqx.field(static=True, default=1.0)

    thin = Run(run.data.assign_attrs(network=json.dumps({"name": "Thin", "static": {"gain": 2.0}}))).network(run=1)
    assert isinstance(thin.W, LowRank) and thin.gain == 2.0
    np.testing.assert_allclose(thin.W.dense(), factors.dense())
    again = run.network(run=1, like=jax.tree.map(jnp.zeros_like, thin))
    np.testing.assert_allclose(again.W.dense(), factors.dense())


def test_members_of_different_size_and_static_fields():
    data = dataset()
    small = data.W.values.copy()
    small[0, :, 3:, :] = small[0, :, :, 3:] = np.nan
    fields = [json.dumps({"phi": phi, "dt": 0.5, "noise": 0.0}) for phi in ("relu", "tanh", "tanh")]
    data = data.assign(W=(data.W.dims, small)).assign_coords(units=("run", [3, 4, 4]), network_static=("run", fields))
    run = Run(data)
    network = run.network(run=0)
    assert [a.shape for a in (network.W, network.W_in, network.W_out)] == [(3, 3), (3, 2), (1, 3)]
    np.testing.assert_array_equal(network.W, small[0, -1, :3, :3])
    assert run.static(0)["phi"] == "relu" and run.static(1)["phi"] == "tanh" and Run(dataset()).static()["dt"] == 0.5
    assert network.phi == "relu" and run.network(run=1).phi == "tanh" and run.network(run=1).W.shape == (4, 4)
    assert run.select(seed=1).network().phi == "tanh" and merge([run, run]).network(run=RUNS).phi == "relu"


def test_a_network_is_described_and_rebuilt():
    network = RateRNN.random(UNITS, 2, 1, gain=0.5, key=jax.random.key(0), phi="relu", noise=0.1)
    described = describe_network(network)
    assert described == {"name": "RateRNN", "static": {"phi": "relu", "dt": 0.5, "noise": 0.1}}
    again = Run(dataset().assign_attrs(network=json.dumps(described))).network()
    assert describe_network(again) == described

    class Odd(eqx.Module):
        W: jax.Array
        call: object = eqx.field(static=True, default=len)
        sizes: tuple = eqx.field(static=True, default=(1, 2))

    assert describe_network(Odd(jnp.ones(1))) == {"name": "Odd", "static": {"sizes": [1, 2]}}
    assert describe_network({"W": 1}) == {"name": "dict", "static": {}}


# --- selecting, merging


def test_select_members():
    run = merge([Run(dataset(gain=0.1 * 3)), Run(dataset(seed=9, gain=0.6))])
    assert run.n_runs == 2 * RUNS
    assert run.select(gain=0.3).data.seed.values.tolist() == [0, 1, 2]
    assert run.select(gain=0.6, status="done").data.seed.values.tolist() == [9, 10]
    for where, words in [
        ({"gain": 0.5}, "no member has gain = 0.5; there are 0.3"),
        ({"g": 1}, "no label 'g'"),
        ({"gain": 0.6, "seed": 0}, "no member has all"),
        ({"status": "lost"}, "done"),
    ]:
        with pytest.raises(ValueError, match=f"(?i){words}"):
            run.select(**where)


def test_merge_keeps_members_and_configurations():
    one, two, three = Run(dataset()), Run(dataset(seed=5, gain=1.5)), Run(dataset(seed=8, runs=1))
    merged = merge([merge([one, two]), three])
    same(merge([one, two, three]).data.assign_attrs(created=""), merged.data.assign_attrs(created=""))
    assert merged.n_runs == 7 and merged.data.gain.values.tolist() == [0.9] * 3 + [1.5] * 3 + [0.9]
    np.testing.assert_array_equal(merged.data.W.values[3:6], two.data.W.values)
    configuration = merged.configuration
    assert configuration["steps"] == UPDATES and "gain" not in configuration
    kept = [(part["runs"], part["seed"], part["configuration"]["gain"]) for part in configuration["merged"]]
    assert kept == [(3, 0, 0.9), (3, 5, 1.5), (1, 8, 0.9)]
    assert merged.tau().attrs["unit"] == "update"


def change_tau(data, unit):
    return data.assign_coords({n: data[n].assign_attrs(unit=unit) for n in ("tau", "tau_snapshot", "tau_measurement")})


UNMERGEABLE = {
    "units of learning time": (lambda d: change_tau(d, "flow"), "update and flow"),
    "kind": (lambda d: d.assign_attrs(kind="flow"), "kind is flow and not descend"),
    "network": (lambda d: d.assign_attrs(network='{"name": "Other", "static": {}}'), "its network is"),
    "size": (lambda d: d.isel(index=slice(0, 2)), "index has size 2 and not 4"),
    "lacking": (lambda d: d.drop_vars("grad_norm"), "lacks grad_norm"),
    "having": (lambda d: d.assign(extra=d.loss), "alone has extra"),
    "dtype": (lambda d: d.assign(loss=d.loss.astype("f8")), "loss has dtype float64 and not float32"),
    "updates": (lambda d: d.assign_coords(update=d["update"] + 1), "update has other values"),
}


@pytest.mark.parametrize("difference", UNMERGEABLE)
def test_what_cannot_be_merged_is_named(difference):
    change, words = UNMERGEABLE[difference]
    with pytest.raises(ValueError, match=words):
        merge([Run(dataset()), Run(change(dataset(seed=4)))])


def test_axes_need_one_unit():
    one, flow = Run(dataset()), Run(dataset(unit="flow"))
    assert common_tau_unit([one, one]) == "update" and common_tau_unit([flow]) == "flow"
    with pytest.raises(ValueError, match="update and flow; only one unit"):
        common_tau_unit([one, flow])
    for function in (common_tau_unit, merge):
        with pytest.raises(ValueError, match="pass one or more"):
            function([])


# --- stores: round trips


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_save_and_load_keep_everything(tmp_path, dtype):
    run = Run(dataset(dtype=dtype))
    assert run.save(tmp_path / "new" / "run.zarr") == tmp_path / "new" / "run.zarr"
    same(load(tmp_path / "new" / "run.zarr").data, run.data)
    assert os.listdir(tmp_path / "new") == ["run.zarr"]
    merged = merge([run, load(str(tmp_path / "new" / "run.zarr"))])
    merged.save(tmp_path / "merged.zarr")
    same(load(tmp_path / "merged.zarr").data, merged.data)
    with xr.open_zarr(tmp_path / "new" / "run.zarr", consolidated=False, chunks=None) as plain:
        np.testing.assert_array_equal(plain.loss.values, run.data.loss.values)  # any Zarr reader opens it


ARRAYS = st.sampled_from(["f2", "f4", "f8", "c8", "c16", "i1", "i8", "u4", "?", "U5"]).flatmap(
    lambda dtype: hnp.arrays(
        np.dtype(dtype),
        hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3),
        elements=st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=5) if dtype == "U5" else None,
    )
)


@settings(max_examples=25, deadline=None)
@given(arrays=st.lists(ARRAYS, min_size=1, max_size=3), attribute=st.text(max_size=5))
def test_any_dataset_comes_back_bit_for_bit(arrays, attribute):
    variables = {
        f"v{i}": ([f"d{i}_{axis}" for axis in range(array.ndim)], array, {"units": attribute, "scale_factor": 2.0})
        for i, array in enumerate(arrays)
    }
    data = xr.Dataset(variables, attrs={"note": attribute})
    with tempfile.TemporaryDirectory() as folder:
        path = write_atomic_store(data, Path(folder) / "part.zarr")
        same(read_store(path), data)
        path = write_atomic_npz(Path(folder) / "state.npz", **{name: v.values for name, v in data.items()})
        back = read_npz(path)
    for name, variable in data.items():
        assert back[name].dtype == variable.dtype and back[name].tobytes() == variable.values.tobytes()


def test_constant_arrays_keep_the_sign_of_zero_and_nan(tmp_path):
    values = {
        "a": np.zeros(3),
        "b": -np.zeros(3),
        "c": np.full(3, np.nan),
        "d": np.zeros(2, bool),
        "e": -np.zeros(2, "c16"),
    }
    data = xr.Dataset({name: (f"dim_{name}", value) for name, value in values.items()})
    path = write_atomic_store(data, tmp_path / "x.zarr")
    same(read_store(path), data)
    assert all((path / name / "c.0").is_file() for name in values)  # else a lost chunk would read as zeros


def test_large_arrays_are_cut_into_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr("tauflow.run.storage._CHUNK_BYTES", 2**10)
    data = xr.Dataset(
        {"W": (("run", "snapshot", "unit", "unit_pre"), np.random.default_rng(0).normal(size=(3, 2, 8, 9)))}
    )
    path = write_atomic_store(data, tmp_path / "run.zarr")
    assert len(list((path / "W").glob("c.*"))) == 6  # 576 bytes each
    same(read_store(path), data)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (xr.Dataset({"x": ("run", np.array([1, None]))}), "x has dtype object"),
        (xr.Dataset({"a/b": ("run", np.ones(2))}), "named 'a/b'"),
        (xr.Dataset({"x": ("run", np.array(["2020-01-01"], "M8[ns]"))}), "datetime64"),
        (xr.Dataset({"x": ("run", np.ones(2))}, attrs={"f": len}), "cannot be stored"),
    ],
)
def test_what_a_store_cannot_hold(tmp_path, data, words):
    with pytest.raises(RunError, match=re.escape(words)):
        write_atomic_store(data, tmp_path / "x.zarr")
    assert os.listdir(tmp_path) == []


# --- stores: damage


def load_error(path) -> str:
    with pytest.raises(RunError) as caught:
        load(path)
    return one_sentence(caught.value)


def truncate(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def cut_one_byte(file):
    file.write_bytes(file.read_bytes()[:-1])


def flip(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(bytes(content))


DAMAGES = {"delete": Path.unlink, "empty": lambda file: file.write_bytes(b""), "truncate": truncate,
           "cut": cut_one_byte, "flip": flip}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_of_any_file_is_found(tmp_path, damage):
    path = Run(dataset()).save(tmp_path / "run.zarr")
    files = [file for file in sorted(path.rglob("*")) if file.is_file()]
    assert len(files) == 2 * len(dataset().variables) + 1  # a zarr.json and one chunk each, and the root
    for file in files:
        content = file.read_bytes()
        DAMAGES[damage](file)
        message = load_error(path)
        assert str(file.relative_to(path)) in message, message
        file.write_bytes(content)
    load(path)


def test_a_changed_attribute_and_a_lost_folder_are_found(tmp_path):
    path = Run(dataset()).save(tmp_path / "run.zarr")
    root = path / "zarr.json"
    content = root.read_text()
    root.write_text(content.replace('"descend"', '"flow"'))
    assert "zarr.json was changed" in load_error(path)
    for other in ("[]", "{}", '{"attributes": []}', '{"attributes": {"tauflow_store": 1}}', "\udcff"):
        root.write_bytes(other.encode("utf-8", "surrogateescape"))
        load_error(path)
    root.write_text(content)
    shutil.rmtree(path / "W")
    assert "W/" in load_error(path) and "is missing" in load_error(path)


def test_stores_from_elsewhere(tmp_path):
    assert "nothing at" in load_error(tmp_path / "none.zarr")
    (tmp_path / "file.zarr").write_text("x")
    assert "is a file" in load_error(tmp_path / "file.zarr")
    (tmp_path / "folder").mkdir()
    assert "no Zarr store of format 3" in load_error(tmp_path / "folder")
    plain = xr.Dataset({"x": ("time", np.ones(2))})
    plain.to_zarr(tmp_path / "foreign.zarr", zarr_format=3, consolidated=False)
    assert "not one that tauflow saved" in load_error(tmp_path / "foreign.zarr")
    plain.to_zarr(tmp_path / "v2.zarr", zarr_format=2, consolidated=False)
    assert "no Zarr store of format 3" in load_error(tmp_path / "v2.zarr")
    write_atomic_store(plain, tmp_path / "part.zarr")
    message = load_error(tmp_path / "part.zarr")
    assert "part.zarr" in message and "lacks the dimension 'run'" in message


def test_newer_stores_ask_for_an_upgrade(tmp_path, monkeypatch):
    write_atomic_store(dataset().assign_attrs(schema=2).drop_vars("loss"), tmp_path / "schema.zarr")
    assert "schema 2 and this tauflow reads up to 1; upgrade" in load_error(tmp_path / "schema.zarr")
    monkeypatch.setattr("tauflow.run.storage.FORMAT", 2)
    Run(dataset()).save(tmp_path / "format.zarr")
    monkeypatch.undo()
    assert "storage format 2 and this tauflow reads up to 1; upgrade" in load_error(tmp_path / "format.zarr")


# --- saving in one step


def test_an_existing_target_is_refused_and_kept(tmp_path):
    run = Run(dataset())
    path = run.save(tmp_path / "run.zarr")
    for target in (path, tmp_path):
        with pytest.raises(RunError, match="exists and is never overwritten"):
            Run(dataset(seed=1)).save(target)
    same(load(path).data, run.data)


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("x")
    inside = tmp_path / "file" / "run.zarr"
    for write in (lambda: Run(dataset()).save(inside), lambda: write_atomic_npz(inside, x=np.ones(1))):
        with pytest.raises(RunError, match="cannot be written") as caught:
            write()
        one_sentence(caught.value)
    if os.geteuid() != 0:
        (tmp_path / "locked").mkdir(mode=0o500)
        with pytest.raises(RunError, match="Permission denied"):
            Run(dataset()).save(tmp_path / "locked" / "run.zarr")


def failing(function, after, error):
    calls = iter(range(10**6))

    def fail(*arguments, **keywords):
        if next(calls) >= after:
            raise error
        return function(*arguments, **keywords)

    return fail


@pytest.mark.parametrize(
    ("function", "after"), [("fsync", 0), ("fsync", 1), ("fsync", 9), ("rename", 0), ("replace", 0)]
)
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_a_failed_save_leaves_what_was_there(tmp_path, monkeypatch, function, after, error):
    old = write_atomic_npz(tmp_path / "state.npz", x=np.zeros(3))
    Run(dataset()).save(tmp_path / "old.zarr")
    before = sorted(os.listdir(tmp_path))
    wanted = RunError if isinstance(error, OSError) else KeyboardInterrupt
    if function != "replace":
        monkeypatch.setattr(os, function, failing(getattr(os, function), after, error))
        with pytest.raises(wanted, match="No space left" if wanted is RunError else None):
            Run(dataset(seed=1)).save(tmp_path / "run.zarr")
        monkeypatch.undo()
    if (function, after) in (("fsync", 0), ("replace", 0)):
        monkeypatch.setattr(os, function, failing(getattr(os, function), after, error))
        with pytest.raises(wanted):
            write_atomic_npz(old, x=np.ones(3))
        monkeypatch.undo()
    assert sorted(os.listdir(tmp_path)) == before
    assert read_npz(old)["x"].tolist() == [0, 0, 0]
    load(tmp_path / "old.zarr")


SAVER = """
import sys, itertools, numpy as np, xarray as xr
from tauflow.run import read_store, write_atomic_npz, write_atomic_store
folder = sys.argv[1]
for i in itertools.count():
    data = xr.Dataset({name: (("run", "update"), np.full((4, 500), float(i))) for name in "abcde"})
    write_atomic_store(data, f"{folder}/{i}.zarr")
    write_atomic_npz(f"{folder}/state.npz", next=np.int64(i + 1), leaves=np.full(50_000, float(i)))
    print(i, flush=True)
"""


def test_a_killed_process_leaves_whole_stores(tmp_path):
    rng = np.random.default_rng(0)
    folders = [tmp_path / str(i) for i in range(3)]
    for folder in folders:
        with subprocess.Popen([sys.executable, "-c", SAVER, str(folder)], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None and process.stdout.readline() == "0\n"
            time.sleep(rng.uniform(0.0, 0.15))
            process.kill()
        committed = int(read_npz(folder / "state.npz")["next"])
        stores = [path for path in folder.glob("*.zarr") if ".tmp" not in path.name]
        assert len(stores) in (committed, committed + 1)
        for path in stores:
            assert (read_store(path)["e"].values == int(path.stem)).all()


def test_what_a_crash_left_beside_is_replaced(tmp_path):
    left = tmp_path / "run.tmp.zarr"
    left.mkdir()
    (left / "zarr.json").write_text("{")
    (left / "stray").write_text("x")
    path = write_atomic_store(xr.Dataset({"a": ("run", np.ones(2))}), tmp_path / "run.zarr")
    assert os.listdir(tmp_path) == ["run.zarr"] and not (path / "stray").exists()
    read_store(path)


# --- files


def test_bytes_are_replaced_in_one_step(tmp_path):
    path = write_atomic_bytes(tmp_path / "a" / "x.txt", b"1")
    assert write_atomic_bytes(path, b"22").read_bytes() == b"22"
    assert os.listdir(path.parent) == ["x.txt"]


def test_npz_takes_any_name_and_refuses_objects(tmp_path):
    path = write_atomic_npz(tmp_path / "s.npz", file=np.ones(2), path=np.array("text"), W=np.zeros((2, 0), "f4"))
    back = read_npz(path)
    assert back["file"].tolist() == [1, 1] and back["path"] == "text" and back["W"].shape == (2, 0)
    with pytest.raises(RunError, match="x has dtype object"):
        write_atomic_npz(path, x=np.array([None]))
    assert set(read_npz(path)) == {"file", "path", "W"}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_npz_is_refused(tmp_path, damage):
    path = write_atomic_npz(tmp_path / "s.npz", x=np.arange(1000))
    DAMAGES[damage](path)
    with pytest.raises(RunError, match=r"damaged|no file") as caught:
        read_npz(path)
    one_sentence(caught.value)


def test_changed_bytes_of_an_npz_are_found(tmp_path):
    path = write_atomic_npz(tmp_path / "s.npz", x=np.arange(3), y=np.ones(2, "f4"))
    with np.load(path, allow_pickle=False) as archive:
        assert archive["x"].tolist() == [0, 1, 2]  # NumPy alone opens it
    whole = path.read_bytes()
    for position in range(0, len(whole), 3):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0xFF]) + whole[position + 1 :])
        with pytest.raises(RunError):
            read_npz(path)


class Bomb:
    """A pickle that leaves a mark when it is opened."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return (Path.touch, (self.mark,))


def test_pickles_are_never_opened(tmp_path):
    mark = tmp_path / "opened"
    np.savez(tmp_path / "objects.npz", x=np.array([Bomb(mark)], dtype=object))
    (tmp_path / "raw.npz").write_bytes(pickle.dumps(Bomb(mark)))
    np.save(tmp_path / "plain.npy", np.ones(3))
    os.rename(tmp_path / "plain.npy", tmp_path / "plain.npz")
    for name in ("objects.npz", "raw.npz", "plain.npz", "missing.npz"):
        with pytest.raises(RunError, match=name) as caught:
            read_npz(tmp_path / name)
        one_sentence(caught.value)
    assert not mark.exists()
    pickle.loads((tmp_path / "raw.npz").read_bytes())
    assert mark.exists()  # the pickle would have shown
    for source in Path(tauflow.run.__file__).parent.glob("*.py"):
        assert not re.search(r"import pickle|allow_pickle=True|cloudpickle|joblib", source.read_text())


@pytest.mark.parametrize("read", [load, read_npz, read_store])
@pytest.mark.parametrize("path", [None, 3])
def test_what_is_no_path_is_said(read, path):
    with pytest.raises(RunError, match=f"The path is {path}; it must be text or a pathlib.Path"):
        read(path)


@pytest.mark.parametrize("moment", range(4))
def test_a_replaced_store_is_never_lost(moment, tmp_path, monkeypatch):
    old, new = (xr.Dataset({"loss": ("update", np.full(3, value))}) for value in (1.0, 2.0))
    path = replace_store(old, tmp_path / "measures.zarr")
    steps = iter(range(4))

    def dying(step):
        def do(*arguments):
            if arguments[0].suffix == ".zarr" and ".tmp" not in arguments[0].name and next(steps) == moment:
                raise KeyboardInterrupt
            return step(*arguments)

        return do

    with monkeypatch.context() as killed:
        killed.setattr(os, "rename", dying(os.rename))
        killed.setattr(shutil, "rmtree", dying(shutil.rmtree))
        if moment < 3:
            with pytest.raises(KeyboardInterrupt):
                replace_store(new, path)
        else:
            replace_store(new, path)
    whole = [read_store(each).loss.values[0] for each in tmp_path.iterdir() if ".tmp" not in each.name]
    assert whole and set(whole) <= {1.0, 2.0}
    if moment >= 2:
        assert read_store(path).loss.values[0] == 2.0
    replace_store(new, path)
    assert [each.name for each in tmp_path.iterdir()] == ["measures.zarr"]
    assert read_store(path).identical(new)


def test_a_store_that_cannot_be_replaced_stays(tmp_path, monkeypatch):
    old = xr.Dataset({"loss": ("update", np.ones(3))})
    path = replace_store(old, tmp_path / "measures.zarr")
    with pytest.raises(RunError, match="a store holds numbers"):
        replace_store(xr.Dataset({"x": ("update", np.array([None] * 3))}), path)
    assert read_store(path).identical(old)
    rename = os.rename

    def full(source, target):
        if Path(target) == path and ".new" in Path(source).name:
            raise OSError(errno.ENOSPC, "No space left on device")
        rename(source, target)

    monkeypatch.setattr(os, "rename", full)
    with pytest.raises(RunError, match="No space left"):
        replace_store(xr.Dataset({"loss": ("update", np.zeros(3))}), path)
    assert read_store(path).identical(old)
