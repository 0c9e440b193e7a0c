"""Descending: against flow, against single runs, through divergence, and with bad input."""

import json

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tauflow.learning import Record, descend, descent, ensemble, flow, member, network_key
from tauflow.learning.rates import plain_rates
from tauflow.networks import RateRNN
from tauflow.objectives import FixedPointLoss, MeanSquaredError
from tauflow.tasks import FlipFlop

TASK = FlipFlop(duration=20.0)
RECORDED = ("loss", "grad_norm", "W", "W_in", "W_out", "delta_W_singular_values", "W_eigenvalues")


def make_network(*, key, gain=0.9, neurons=16, **_):
    return RateRNN.random(int(neurons), 2, 2, gain=gain, key=key)


def make_objective(**_):
    return MeanSquaredError(TASK, trials=4)


def make_optimizer(learning_rate=3e-3, **_):
    return optax.adam(learning_rate)


def keys(n, seed=0):
    return list(jax.random.split(jax.random.key(seed), n))


def linear(neurons=12, gain=0.5, seed=3):
    return RateRNN.random(neurons, 1, 1, gain=gain, key=jax.random.key(seed), phi="identity")


def same(a, b):
    return np.array_equal(np.asarray(a), np.asarray(b), equal_nan=True)


@pytest.mark.x64off
def test_members_equal_their_single_runs_bit_for_bit():
    settings = {"steps": 23, "record": Record(measurements=4)}
    run = ensemble(make_network, make_objective, make_optimizer, keys=keys(3), **settings)
    for i, key in enumerate(keys(3)):
        network = make_network(key=network_key(key))
        single = descend(network, make_objective(), optimizer=make_optimizer(), key=key, **settings)
        for name in RECORDED:
            assert same(run.data[name][i], single.data[name][0]), name
    assert not same(run.data.loss[0], run.data.loss[1])  # seeds do differ
    assert run.data.seed.values.tolist() == [0, 1, 2]


def test_grid_members_equal_their_single_runs_and_carry_their_coordinates():
    grid = {"gain": [0.0, 0.9], "learning_rate": [1e-3, 3e-3]}
    settings = {"steps": 12, "record": Record(measurements=2)}
    run = ensemble(make_network, make_objective, make_optimizer, keys=keys(2), grid=grid, **settings)
    assert run.n_runs == 8
    assert run.data.gain.values.tolist() == [0.0] * 4 + [0.9] * 4
    assert run.data.learning_rate.values.tolist() == [1e-3, 1e-3, 3e-3, 3e-3] * 2
    for i in (0, 3, 6):
        point = {"gain": float(run.data.gain[i]), "learning_rate": float(run.data.learning_rate[i])}
        key = keys(2)[int(run.data.seed[i])]
        network = make_network(key=network_key(key), **point)
        single = descend(network, make_objective(), optimizer=make_optimizer(**point), key=key, **settings)
        assert same(run.data.W[i], single.data.W[0])
    assert not np.allclose(run.data.W[4, -1], run.data.W[6, -1], atol=1e-5)  # the learning rate was used


def test_members_that_differ_in_numbers_share_one_program(monkeypatch):
    groups = []
    monkeypatch.setattr(descent, "_run_group", lambda group, *_: groups.append(group))
    monkeypatch.setattr(descent, "to_run", lambda *_, **__: None)

    def count(objective, optimizer, **grid):
        groups.clear()
        ensemble(make_network, objective, optimizer, keys=keys(1), grid=grid, steps=1)
        return len(groups)

    def planted(gain, **_):
        return Planted(jnp.asarray(gain, jnp.float32), MeanSquaredError(TASK, trials=4))

    assert count(planted, lambda **_: make_optimizer(), gain=[0.1, 0.2, 0.3]) == 1
    assert count(make_objective, make_optimizer, gain=[0.1, 0.2], learning_rate=[1e-3, 2e-3]) == 1
    assert count(make_objective, make_optimizer, neurons=[5, 6]) == 2
    needs_a_number = count(
        lambda trials: MeanSquaredError(TASK, trials=trials), lambda trials: make_optimizer(), trials=[2, 3]
    )
    assert needs_a_number == 2


def test_a_grid_axis_that_changes_shapes_is_looped_over_and_padded():
    grid = {"neurons": [6, 16]}
    run = ensemble(make_network, make_objective, make_optimizer, keys=keys(1), grid=grid, steps=3, record=Record())
    assert run.data.units.values.tolist() == [6, 16]
    assert np.isnan(run.data.W[0, -1, 6:]).all() and np.isfinite(run.data.W[1, -1]).all()
    small = run.network(run=0)
    assert small.W.shape == (6, 6) and small.W_in.shape == (6, 2) and small.W_out.shape == (2, 6)
    assert run.weights("W", run=0).shape == (6, 6)
    inputs = jnp.ones((5, 3, 2), small.W.dtype)
    assert np.isfinite(small(inputs).outputs).all()


def test_static_fields_that_differ_between_members_are_rebuilt():
    def make(*, key, phi):
        return RateRNN.random(6, 2, 2, gain=0.5, key=key, phi=phi)

    grid = {"phi": ["tanh", "relu"]}
    run = ensemble(make, lambda phi: make_objective(), lambda phi: make_optimizer(), keys=keys(1), grid=grid, steps=2)
    assert [run.network(run=i).phi for i in (0, 1)] == ["tanh", "relu"]
    assert run.data.phi.values.tolist() == ["tanh", "relu"]
    assert run.select(phi="relu").network().phi == "relu"


class Planted(eqx.Module):
    """An objective that is not a number for members whose gain is 0.7, once their readout has grown a little."""

    gain: jax.Array
    inner: MeanSquaredError

    def __call__(self, network, key):
        bad = (jnp.abs(self.gain - 0.7) < 1e-3) & (jnp.linalg.norm(network.W_out) > THRESHOLD)
        return jnp.where(bad, jnp.nan, self.inner(network, key))


THRESHOLD = 0.385  # of |W_out|, passed a few updates after the start


def test_a_planted_nan_stops_one_of_eight_members_and_leaves_the_others_bit_identical():
    gains = [0.1, 0.2, 0.3, 0.7, 0.4, 0.5, 0.6, 0.8]

    def objective(gain):
        return Planted(jnp.asarray(gain, jnp.float32), MeanSquaredError(TASK, trials=4))

    def plain(gain):
        return Planted(jnp.asarray(0.0 * gain, jnp.float32), MeanSquaredError(TASK, trials=4))

    settings = {"keys": keys(1), "grid": {"gain": gains}, "steps": 30, "record": Record(measurements=4)}
    run = ensemble(make_network, objective, lambda gain: make_optimizer(), **settings)
    calm = ensemble(make_network, plain, lambda gain: make_optimizer(), **settings)
    others = [i for i in range(8) if i != 3]
    assert run.data.status.values.tolist() == ["diverged" if i == 3 else "done" for i in range(8)]
    for name in RECORDED:
        assert same(run.data[name][others], calm.data[name][others]), name
    stop = int(run.data.stopped_at[3])
    assert 0 < stop < 30
    assert same(run.data.loss[3, :stop], calm.data.loss[3, :stop])
    assert np.isnan(run.data.loss[3, stop:]).all()
    assert np.isnan(run.data.W[3, -1]).all() and np.isfinite(run.data.W[3, 0]).all()
    assert np.isnan(run.data.W_eigenvalues[3, -1]).all()
    assert np.isfinite(run.data.diverged_spectral_abscissa[3])
    assert run.data.stopped_at.values[others].tolist() == [-1] * 7


def test_a_run_that_is_infinite_from_the_start_is_a_result_not_an_exception():
    network = eqx.tree_at(lambda net: net.W, linear(), 3.0 * jnp.eye(12, dtype=jnp.float32))
    run = descend(network, FixedPointLoss(1.0), optimizer=optax.sgd(0.1), steps=5, key=keys(1)[0], train=("W",))
    assert run.data.status.values.tolist() == ["diverged"]
    assert int(run.data.stopped_at[0]) == 0
    assert np.isclose(run.data.diverged_spectral_abscissa[0], 3.0)


@pytest.mark.x64off
def test_weights_that_overflow_between_two_losses_are_recorded_as_nothing():
    network, steps = linear(), 3
    run = descend(network, lambda net, key: (net.W**2).sum(), optimizer=optax.sgd(1e38), steps=steps, key=keys(1)[0],
                  train=("W",), record=Record(measurements=steps + 1))  # fmt: skip
    assert run.data.status.values.tolist() == ["diverged"]
    assert np.isfinite(run.data.loss[0, 0]) and np.isnan(run.data.W_eigenvalues[0, -1]).all()


def test_the_trajectory_does_not_depend_on_how_it_is_cut_into_chunks(monkeypatch):
    settings = {"optimizer": make_optimizer(), "steps": 20, "key": keys(1)[0]}
    network = make_network(key=keys(1, 5)[0])
    whole = descend(network, make_objective(), record=Record(measurements=2), **settings)
    monkeypatch.setattr(descent, "CAPACITY", 3)
    cut = descend(network, make_objective(), record=Record(measurements=[0, 7, 8, 20], weights="all"), **settings)
    assert same(whole.data.loss, cut.data.loss)
    assert same(whole.data.W[0, -1], cut.data.W[0, -1])
    assert cut.data.snapshot_update.values.tolist() == [0, 7, 8, 20]


def test_records_are_what_they_say():
    run = descend(
        make_network(key=keys(1)[0]),
        make_objective(),
        optimizer=make_optimizer(),
        steps=10,
        key=keys(1)[0],
        record=Record(measurements=3, weights="all", probes={"norm": lambda net: np.linalg.norm(net.W)}),
    )
    W = run.data.W.values[0].astype(float)
    assert run.data.measurement_update.values.tolist() == [0, 5, 10]
    for k in range(3):
        expected = np.linalg.svd(W[k] - W[0], compute_uv=False)
        assert np.allclose(run.data.delta_W_singular_values[0, k], expected, atol=1e-12)
        eigenvalues = np.sort_complex(np.linalg.eigvals(W[k]))
        assert np.allclose(np.sort_complex(run.data.W_eigenvalues.values[0, k]), eigenvalues, atol=1e-10)
        assert np.isclose(run.data.probe_norm[0, k], np.linalg.norm(W[k]))
    assert run.data.delta_W_singular_values[0, -1, 0] > 0.01  # something was learned
    first = make_objective()(run.network(snapshot=0), jax.random.fold_in(keys(1)[0], 0))
    assert np.isclose(float(first), float(run.data.loss[0, 0]), rtol=1e-5)


def test_only_the_trained_fields_move_and_project_holds_after_every_update():
    def dale(network):
        return eqx.tree_at(lambda net: net.W, network, jnp.maximum(network.W, 0))

    run = descend(
        make_network(key=keys(1)[0]), make_objective(), optimizer=make_optimizer(), steps=8, key=keys(1)[0],
        train=("W", "W_out"), project=dale, record=Record(weights="all", measurements=3),
    )  # fmt: skip
    assert (run.data.W.values[0, 1:] >= 0).all() and (run.data.W.values[0, 0] < 0).any()
    assert same(run.data.W_in[0, 0], run.data.W_in[0, -1])
    assert not same(run.data.W_out[0, 0], run.data.W_out[0, -1])


def test_descent_approaches_flow_in_first_order_of_the_learning_rate():
    network, duration = linear(), 1.0
    exact = flow(network, FixedPointLoss(1.0), duration=duration, train=("W",), rtol=1e-11, atol=1e-13)
    W0, W = exact.weights("W", snapshot=0), exact.weights("W")
    rates = np.array([0.1, 0.05, 0.025, 0.0125])

    finals = []
    for rate in rates:
        run = ensemble(
            lambda *, key, rate: network, lambda rate: FixedPointLoss(1.0), lambda rate: optax.sgd(rate), keys=keys(1),
            grid={"rate": [rate]}, steps=round(duration / rate), train=("W",), dtype="float64",
            record=Record(measurements=2),
        )  # fmt: skip
        assert run.tau_unit == "flow" and np.isclose(run.data.tau_snapshot[0, -1], duration)
        finals.append(run.weights("W"))

    def slope(prediction):
        errors = [np.linalg.norm(final - prediction) for final in finals]
        return np.polyfit(np.log(rates), np.log(errors), 1)[0]

    assert abs(slope(W) - 1) < 0.06
    for wrong in (W0, W0 - (W - W0), W0 + 1.02 * (W - W0)):  # nothing happens, wrong sign, 2 % off
        assert abs(slope(wrong) - 1) > 0.2


def test_plain_gradient_descent_is_told_from_everything_else():
    params = {"W": jnp.ones((3, 3)), "W_in": jnp.ones((3, 1))}
    warm = plain_rates(optax.sgd(optax.linear_schedule(0.0, 1.0, 4)), params, 4)
    assert warm is not None and np.allclose(warm, [0.0, 0.25, 0.5, 0.75])
    rates = plain_rates(optax.sgd(optax.linear_schedule(1.0, 0.0, 4)), params, 4)
    assert rates is not None and np.allclose(rates, [1.0, 0.75, 0.5, 0.25])
    others = {
        "momentum": optax.sgd(0.1, momentum=0.9),
        "adam": optax.adam(0.1),
        "weight decay": optax.chain(optax.add_decayed_weights(0.1), optax.sgd(0.1)),
        "clipping": optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.1)),
        "sign": optax.sign_sgd(0.1),
        "two rates": optax.multi_transform({"a": optax.sgd(0.1), "b": optax.sgd(0.2)}, {"W": "a", "W_in": "b"}),
        "ascent": optax.sgd(-0.1),
    }
    for name, optimizer in others.items():
        assert plain_rates(optimizer, params, 4) is None, name


def test_float64_training_is_float64_whatever_the_mode(key):
    run = descend(
        linear(), FixedPointLoss(1.0), optimizer=optax.sgd(0.1), steps=3, key=key, train=("W",), dtype="float64"
    )
    assert run.data.W.dtype == run.data.loss.dtype == np.float64
    assert descend(
        linear(), FixedPointLoss(1.0), optimizer=optax.sgd(0.1), steps=3, key=key, train=("W",)
    ).data.W.dtype == np.float32  # fmt: skip


def test_no_updates_is_a_run(key):
    run = descend(linear(), FixedPointLoss(1.0), optimizer=optax.sgd(0.01), steps=0, key=key, train=("W",))
    assert run.data.sizes["update"] == 0 and run.data.status.values.tolist() == ["done"]


def test_progress_counts_up_to_the_end(key):
    seen = []
    ensemble(make_network, make_objective, make_optimizer, keys=keys(3), steps=12, progress=seen.append,
             record=Record(measurements=4))  # fmt: skip
    assert [p.update for p in seen] == [4, 8, 12]
    assert (seen[0].running, seen[0].done) == (3, 0) and (seen[-1].running, seen[-1].done) == (0, 3)
    assert np.isfinite(seen[-1].loss) and seen[-1].updates_per_second > 0
    assert seen[-1].seconds_left == 0


def test_a_projected_descent_is_no_flow(key):
    run = descend(linear(), FixedPointLoss(1.0), optimizer=optax.sgd(0.01), steps=2, key=key, train=("W",),
                  project=lambda network: network)  # fmt: skip
    assert run.tau_unit == "update"


def test_weights_that_overflow_on_the_last_update_are_a_divergence(key):
    def grow(network, key):
        return (network.W**2).sum()

    settings = {"steps": 1, "key": key, "train": ("W",)}
    run = descend(linear(), grow, optimizer=optax.sgd(3e38), **settings)
    assert run.data.status.values.tolist() == ["diverged"] and int(run.data.stopped_at[0]) == 0
    broken = eqx.tree_at(lambda net: net.W, linear(), jnp.full((12, 12), jnp.nan, jnp.float32))
    run = descend(broken, grow, optimizer=optax.sgd(3e38), **settings)
    assert run.data.status.values.tolist() == ["diverged"]


def test_members_keep_what_differs_between_their_objectives():
    run = ensemble(
        lambda *, key, reach: linear(),
        lambda reach: FixedPointLoss(reach),
        lambda reach: optax.sgd(0.01),
        keys=keys(1),
        grid={"reach": [0.5, 2.0]},
        steps=1,
        train=("W",),
    )
    targets = [json.loads(text)["objective"]["target"] for text in run.data.objective_settings.values]
    assert targets == [0.5, 2.0]


def test_side_by_side_members_agree_with_single_ones(monkeypatch):
    settings = {"steps": 10, "record": Record(measurements=2)}
    in_turn = ensemble(make_network, make_objective, make_optimizer, keys=keys(3), **settings)
    monkeypatch.setattr(member, "side_by_side", lambda devices: True)  # as on an accelerator
    side_by_side = ensemble(make_network, make_objective, make_optimizer, keys=keys(3), **settings)
    for i in range(3):
        change = in_turn.weights("W", i) - in_turn.weights("W", i, 0)
        difference = side_by_side.weights("W", i) - in_turn.weights("W", i)
        assert np.linalg.norm(difference) < 1e-4 * np.linalg.norm(change)


BAD = [
    ({"steps": -1}, "steps is -1; it must be a whole number"),
    ({"steps": 2.5}, "steps is 2.5"),
    ({"train": ("V",)}, "it must name fields of the RateRNN"),
    ({"train": ("phi",)}, "arrays of floating-point numbers"),
    ({"train": ()}, "train is empty"),
    ({"key": 0}, r"a key is 0; it must be a JAX random key, for example jax.random.key\(0\)"),
    ({"optimizer": 0.1}, "the optimizer is 0.1; it must be one of optax"),
    ({"configuration": {"where": object()}}, "it must be made of numbers, text, lists and mappings"),
    ({"configuration": {"seed": None}}, "configuration has seed None"),
    ({"configuration": {"steps": 3}}, "configuration has 'steps', which the Run fills in itself"),
    ({"record": Record(probes={"name": lambda net: "tanh"})}, "probe 'name' gave an array of <U4"),
    ({"dtype": "float16"}, "dtype is 'float16'"),
]


@pytest.mark.parametrize(("changed", "message"), BAD)
def test_bad_input_is_one_sentence(changed, message, key):
    arguments = {"optimizer": optax.sgd(0.1), "steps": 1, "key": key, "train": ("W",), **changed}
    with pytest.raises(ValueError, match=message):
        descend(linear(), FixedPointLoss(1.0), **arguments)


def test_bad_ensembles_and_flows_are_one_sentence(key):
    with pytest.raises(ValueError, match="0 keys came"):
        ensemble(make_network, make_objective, make_optimizer, keys=[], steps=1)
    with pytest.raises(ValueError, match="grid axis 'gain' is empty"):
        ensemble(make_network, make_objective, make_optimizer, keys=keys(1), grid={"gain": []}, steps=1)
    with pytest.raises(ValueError, match="a grid axis is named 'loss', which a Run has already"):
        ensemble(make_network, make_objective, make_optimizer, keys=keys(1), grid={"loss": [1.0]}, steps=1)
    with pytest.raises(ValueError, match="different units; run them as two ensembles"):
        ensemble(
            lambda *, key, rule: linear(), lambda rule: FixedPointLoss(1.0), lambda rule: getattr(optax, rule)(0.1),
            keys=keys(1), grid={"rule": ["sgd", "adam"]}, steps=1, train=("W",), progress=pytest.fail,
        )  # fmt: skip
    for wrong in ({"rtol": -1.0}, {"atol": float("nan")}, {"max_steps": 0}, {"save_at": [0.0, float("nan")]}):
        with pytest.raises(ValueError, match=r"it must be a number > 0|increasing learning times"):
            flow(linear(), FixedPointLoss(1.0), duration=1.0, **wrong)
    with pytest.raises(ValueError, match="duration is -1"):
        flow(linear(), FixedPointLoss(1.0), duration=-1.0)
    with pytest.raises(ValueError, match="rates names 'W_in', which is not trained"):
        flow(linear(), FixedPointLoss(1.0), duration=1.0, train=("W",), rates={"W_in": 1.0})
    with pytest.raises(ValueError, match="increasing learning times"):
        flow(linear(), FixedPointLoss(1.0), duration=1.0, save_at=[0.5, 0.2])
    unstable = eqx.tree_at(lambda net: net.W, linear(), 3.0 * jnp.eye(12, dtype=jnp.float32))
    with pytest.raises(ValueError, match="the loss at the start is inf"):
        flow(unstable, FixedPointLoss(1.0), duration=1.0)
    with pytest.raises(ValueError, match="holds updates 0 to 9; the run has 0 to 4"):
        Record(measurements=[0, 9]).measurement_times(4)


def test_learning_ends_where_the_records_say_so(tmp_path):
    network = RateRNN.random(6, 1, 1, gain=0.5, key=jax.random.key(0))

    def learn(until=None, **where):
        record = Record(measurements=range(0, 41, 5), probes={"size": lambda net: np.linalg.norm(net.W)})
        settings = {"optimizer": optax.sgd(0.05), "steps": 40, "key": jax.random.key(1), "record": record}
        return descend(network, lambda net, key: (net.W**2).sum(), until=until, **settings, **where)

    def small(records):
        return records["probe_size"].values[0, -1] < 0.2 * records["probe_size"].values[0, 0]

    whole, short = learn(), learn(small, out=tmp_path / "run")
    sizes = whole.data["probe_size"].values[0]
    last = 5 * int(np.argmax(sizes < 0.2 * sizes[0]))
    assert 0 < last < 40 and short.data.sizes["update"] == last and short.data["status"].values[0] == "done"
    np.testing.assert_array_equal(short.data["loss"], whole.data["loss"][:, :last])
    assert short.data["snapshot_update"].values.tolist() == [0, last]
    assert np.linalg.norm(short.weights("W")) < 0.2 * np.linalg.norm(short.weights("W", snapshot=0))
    again = learn(small, out=tmp_path / "run", resume=True)
    np.testing.assert_array_equal(again.weights("W"), short.weights("W"))
    assert learn(lambda records: False).data.sizes["update"] == 40
