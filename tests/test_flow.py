"""Gradient flow: on exact paths, over edges, for several networks, and where it was stopped."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tauflow.learning import Record, flow, flow_ensemble, gradient_flow, network_key
from tauflow.networks import ContinuousLinearRNN, RateRNN
from tauflow.objectives import FixedPointLoss
from tauflow.run import RunError

RECORDED = ("loss", "grad_norm", "W", "W_in", "W_out", "delta_W_singular_values", "W_eigenvalues")


def keys(n, seed=0):
    return list(jax.random.split(jax.random.key(seed), n))


def linear():
    return RateRNN.random(12, 1, 1, gain=0.5, key=jax.random.key(3), phi="identity")


def same(a, b):
    return np.array_equal(np.asarray(a), np.asarray(b), equal_nan=True)


def test_flow_follows_a_known_exact_path_with_its_rates():
    network = linear()

    def loss(net, key):
        return 0.5 * (net.W**2).sum() + 0.5 * (net.W_in**2).sum()

    run = flow(network, loss, duration=2.0, train=("W", "W_in"), rates={"W_in": 0.25}, record=Record(weights="all"))
    tau = run.data.tau_snapshot.values[0]
    W0, W_in0 = np.asarray(network.W, float), np.asarray(network.W_in, float)
    assert run.data.W.dtype == np.float64
    assert np.abs(run.data.W[0] - np.exp(-tau)[:, None, None] * W0).max() < 1e-7
    assert np.abs(run.data.W_in[0] - np.exp(-0.25 * tau)[:, None, None] * W_in0).max() < 1e-6
    assert run.tau_unit == "flow" and run.data.attrs["kind"] == "flow"
    assert np.allclose(run.data.loss[0, 0], 0.5 * (W0**2).sum() + 0.5 * (W_in0**2).sum())


def test_what_a_flow_records_changes_nothing_of_its_path():
    network, settings = linear(), {"duration": 1.0, "train": ("W",), "rtol": 1e-10, "atol": 1e-12}
    whole = flow(network, FixedPointLoss(1.0), **settings, record=Record(weights="all", measurements=101))
    ends = flow(network, FixedPointLoss(1.0), save_at=[1.0], **settings, record=Record(measurements=0))
    assert same(whole.weights("W"), ends.weights("W"))
    later = flow(network, FixedPointLoss(1.0), save_at=[0.5, 0.7], **settings)
    assert np.allclose(later.data.loss[0], whole.data.loss[0, [50, 70]], rtol=0, atol=1e-10)
    for point in (50, 70):  # loss and gradient norm are those of the weights there
        there = whole.weights("W", snapshot=point)
        exact = FixedPointLoss(1.0)(eqx.tree_at(lambda net: net.W, cast64(network), jnp.asarray(there)), None)
        assert np.isclose(float(exact), float(whole.data.loss[0, point]), rtol=1e-12)


def cast64(network):
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), network)


def test_a_flow_evaluates_its_objective_once_a_stage_and_once_a_saved_point():
    def evaluations(points):
        calls = []

        def loss(net, key):
            jax.debug.callback(lambda: calls.append(1))
            return 0.5 * (net.W**2).sum()

        save_at, record = np.linspace(0, 1, points), Record(measurements=0)
        flow(linear(), loss, duration=1.0, train=("W",), save_at=save_at, record=record)
        jax.effects_barrier()
        return len(calls)

    few = evaluations(2)
    assert evaluations(101) == few + 99
    assert (few - 2) % 13 <= 3 and few < 13 * 12  # 13 a step, and a few to begin with


def test_a_flow_that_takes_too_many_steps_is_interrupted():
    run = flow(linear(), FixedPointLoss(1.0), duration=1.0, train=("W",), max_steps=4)
    stop = int(run.data.stopped_at[0])
    assert run.data.status.values.tolist() == ["interrupted"] and 0 < stop < 100
    assert np.isfinite(run.data.loss[0, :stop]).all() and np.isnan(run.data.loss[0, stop:]).all()


def test_a_flow_tells_its_progress():
    seen = []
    flow(linear(), FixedPointLoss(1.0), duration=1.0, train=("W",), save_at=[0.0, 0.5, 1.0], progress=seen.append)
    assert [news.update for news in seen] == [1, 2, 3] and seen[-1].done == 1 and seen[-1].running == 0
    assert np.isnan([news.seconds_left for news in seen[:2]]).all() and seen[-1].seconds_left == 0
    seen.clear()  # only points that carry compilation
    flow(linear(), FixedPointLoss(1.0), duration=1.0, train=("W",), save_at=[0.0, 1.0], progress=seen.append)
    assert seen[-1].seconds_left == 0


def test_the_step_of_a_flow_compiles_once():
    network = RateRNN.random(7, 1, 1, gain=0.5, key=jax.random.key(3), phi="identity")  # of a size of its own
    before = gradient_flow._try._cached._cache_size()
    for duration in (1.0, 2.0):
        flow(network, FixedPointLoss(1.0), duration=duration, train=("W",), save_at=[0.0, 0.5, duration])
    assert gradient_flow._try._cached._cache_size() == before + 1


class Cliff(eqx.Module):
    """A loss that falls towards an edge beyond which it is infinite."""

    edge: float = eqx.field(static=True)

    def __call__(self, network, key):
        height = network.W[0, 0]
        return jnp.where(height < self.edge, -height, jnp.inf)


def test_flow_rejects_steps_over_an_infinite_edge_and_ends_there():
    network = eqx.tree_at(lambda net: net.W, linear(), jnp.zeros((12, 12), jnp.float32))
    run = flow(network, Cliff(0.5), duration=1.0, train=("W",), record=Record(weights="all", measurements=101))
    assert run.data.status.values.tolist() == ["diverged"]
    stop = int(run.data.stopped_at[0])
    assert 48 <= stop <= 51  # the flow reaches the edge at tau = 0.5
    assert np.isfinite(run.data.loss[0, :stop]).all() and np.isnan(run.data.loss[0, stop:]).all()
    assert np.nanmax(run.data.W) < 0.5
    smooth = flow(network, Cliff(5.0), duration=1.0, train=("W",))
    assert smooth.data.status.values.tolist() == ["done"]


FLOWS = {"duration": 0.5, "train": ("W",), "save_at": [0.0, 0.25, 0.5], "record": Record(measurements=2)}


def drawn(*, key):
    return RateRNN.random(10, 1, 1, gain=0.5, key=key, phi="identity")


def test_flows_of_several_networks_equal_their_single_runs_bit_for_bit():
    run = flow_ensemble(drawn, FixedPointLoss(1.0), keys=keys(3), rates=lambda net: {"W": 2.0}, **FLOWS)
    assert run.data.seed.values.tolist() == [0, 1, 2] and run.configuration["rates"] == {"W": 2.0}
    for i, key in enumerate(keys(3)):
        single = flow(drawn(key=network_key(key)), FixedPointLoss(1.0), key=key, rates={"W": 2.0}, **FLOWS)
        for name in RECORDED:
            assert same(run.data[name][i], single.data[name][0]), name
    assert not same(run.data.loss[0], run.data.loss[1])


def test_a_network_that_cannot_start_to_flow_leaves_the_others():
    sick = jax.random.key_data(network_key(keys(3)[1]))

    def planted(*, key):
        unstable = (jax.random.key_data(key) == sick).all()
        network = drawn(key=key)
        return eqx.tree_at(lambda net: net.W, network, 3.0 * jnp.eye(10, dtype=jnp.float32)) if unstable else network

    heard = []
    run = flow_ensemble(planted, FixedPointLoss(1.0), keys=keys(3), progress=heard.append, **FLOWS)
    assert run.data.status.values.tolist() == ["done", "diverged", "done"]
    assert run.data.stopped_at.values.tolist() == [-1, 0, -1]
    assert np.isfinite(run.data.W[1, 0]).all() and np.isnan(run.data.W[1, 1]).all() and np.isnan(run.data.loss[1]).all()
    assert np.isclose(run.data.diverged_spectral_abscissa[1], 3.0)
    assert (heard[-1].done, heard[-1].diverged, heard[-1].unit) == (2, 1, "points")


def test_flows_go_on_where_they_were_stopped(tmp_path):
    settings = {"keys": keys(3), "configuration": {"gain": 0.5}, **FLOWS}
    whole = flow_ensemble(drawn, FixedPointLoss(1.0), **settings)

    def interrupt(news):
        if news.done == 1 and news.update == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        flow_ensemble(drawn, FixedPointLoss(1.0), out=tmp_path, progress=interrupt, **settings)
    kept = (tmp_path / "parts" / "0.zarr" / "zarr.json").read_bytes()
    assert not (tmp_path / "parts" / "1.zarr").exists()
    with pytest.raises(RunError, match="pass resume=True"):
        flow_ensemble(drawn, FixedPointLoss(1.0), out=tmp_path, **settings)
    for wrong in ({"keys": keys(3, 8)}, {"duration": 0.6}, {"configuration": {"gain": 0.6}}):
        with pytest.raises(RunError, match="other initial weights, keys, settings"):
            flow_ensemble(drawn, FixedPointLoss(1.0), out=tmp_path, resume=True, **{**settings, **wrong})
    with pytest.raises(RunError, match="another objective"):
        flow_ensemble(drawn, FixedPointLoss(2.0), out=tmp_path, resume=True, **settings)
    assert (tmp_path / "parts" / "0.zarr" / "zarr.json").read_bytes() == kept
    heard = []
    run = flow_ensemble(drawn, FixedPointLoss(1.0), out=tmp_path, resume=True, progress=heard.append, **settings)
    assert heard[0].done == 1 and len(heard) == 6, "it did the first member again"
    assert run.data.equals(whole.data) and run.configuration == whole.configuration
    assert [path.name for path in tmp_path.iterdir()] == ["run.zarr"]
    again = flow_ensemble(drawn, FixedPointLoss(1.0), out=tmp_path, resume=True, progress=pytest.fail, **settings)
    assert again.data.equals(run.data)


def test_spectra_are_those_of_the_matrix_that_multiplies_the_state():
    network = ContinuousLinearRNN.random(9, sigma=0.5, key=jax.random.key(4))
    run = flow(network, lambda net, key: (net.W**2).sum(), duration=0.1, train=("W",))
    first, last = (run.weights("W", snapshot=at) / 3 for at in (0, -1))
    assert np.allclose(np.sort_complex(run.data.W_eigenvalues[0, -1]), np.sort_complex(np.linalg.eigvals(last)))
    singular = np.linalg.svd(last - first, compute_uv=False)
    assert np.allclose(run.data.delta_W_singular_values[0, -1], singular)
    assert run.data.W_eigenvalues.attrs == {"long_name": "eigenvalues of W/√N", "matrix": "W/√N"}
    plain = flow(linear(), FixedPointLoss(1.0), duration=0.1, train=("W",))
    assert plain.data.delta_W_singular_values.attrs == {"long_name": "singular values of ΔW", "matrix": "W"}
