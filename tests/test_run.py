"""Run: its schema, its networks, its merging."""

import json
import re

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

from made_runs import RUNS, UNITS, UPDATES, dataset, one_sentence, same, with_factors
from tauflow.networks import RateRNN
from tauflow.run import (
    Run,
    RunError,
    common_tau_unit,
    describe_network,
    merge,
    register_network,
    run_attributes,
    versions,
)
from tauflow.simulate import LowRank


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
