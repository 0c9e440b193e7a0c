"""Tasks: the contract that each of them keeps, the distributions they draw from, and what they refuse."""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from tauflow.networks import RateRNN
from tauflow.precision import float64
from tauflow.tasks import (
    COHERENCES,
    SIGNS,
    TASKS,
    Cosine,
    FixedPoint,
    FlipFlop,
    Mante,
    Romo,
    Task,
    Trials,
    as_index,
    as_steps,
    draw_uniform,
    make_task,
    setting,
)
from tauflow.tasks.romo import as_amplitudes
from tauflow.tasks.settings import whole_steps

LEAST_P = 1e-4  # a right distribution fails a test at one seed in 10,000; the seeds are fixed
FILTERS = ("leaky-integrator", "oscillator", "exponential-sum", "sampled-filter")
CHANNELS = {"flip-flop": (2, 2), "mante": (4, 1), "romo": (1, 2), "fixed-point": (1, 1), "cosine": (1, 1)}
CHANNELS |= {"reaching": (3, 2), **dict.fromkeys(FILTERS, (1, 1))}
STEPS = {"flip-flop": 100, "mante": 96, "romo": 56, "fixed-point": 202, "cosine": 200, "reaching": 40}
STEPS |= dict.fromkeys(FILTERS, 400)
PAPERS = {"reaching": "pellegrino2023", **dict.fromkeys(FILTERS, "bordelon2025")}

every_task = pytest.mark.parametrize("task", [kind() for kind in TASKS.values()], ids=list(TASKS))


def numpy(trials: Trials) -> Trials:
    return Trials(*(np.asarray(part, np.float64) for part in trials))


def assert_same(left: Trials, right: Trials, **tolerance: float) -> None:
    for one, other in zip(left, right, strict=True):
        np.testing.assert_allclose(np.asarray(one), np.asarray(other), **tolerance)


def differ(left: Trials, right: Trials) -> bool:
    return any(not np.array_equal(one, other) for one, other in zip(left, right, strict=True))


# ---------------------------------------------------------------------------------- what every task promises


@pytest.mark.x64off
@every_task
def test_shapes_dtype_and_mask(task, key):
    trials = task.sample(5, key=key)
    n_in, n_out = CHANNELS[task.name]
    assert (task.inputs, task.outputs, task.steps) == (n_in, n_out, STEPS[task.name])
    assert trials.inputs.shape == (task.steps, 5, n_in)
    assert trials.targets.shape == trials.mask.shape == (task.steps, 5, n_out)
    assert {part.dtype for part in trials} == {jnp.dtype("float32")}
    assert set(np.unique(trials.mask)) <= {0.0, 1.0}
    assert np.all(np.asarray(trials.mask).any(axis=(0, 2))), "every trial has something that counts"
    assert all(np.isfinite(part).all() for part in trials)
    np.testing.assert_allclose(task.times, task.dt * np.arange(task.steps))


@every_task
def test_key_decides(task, key):
    trials, again = task.sample(5, key=key), task.sample(5, key=key)
    assert_same(trials, again, rtol=0)
    other = task.sample(5, key=jax.random.fold_in(key, 1))
    assert differ(trials, other) == ("deterministic" not in task.tags)
    if "deterministic" not in task.tags:
        assert not np.array_equal(trials.inputs[:, 0], trials.inputs[:, 1]), "trials of a batch are independent"


@every_task
def test_jit_and_vmap(task, key):
    keys = jax.random.split(key, 3)
    stacked = jax.jit(jax.vmap(lambda key: task.sample(5, key=key)))(keys)
    for index, one in enumerate(keys):
        assert_same(Trials(*(part[index] for part in stacked)), task.sample(5, key=one), rtol=1e-6, atol=1e-7)


@every_task
def test_same_trials_in_either_precision(task, key):
    single = task.sample(5, key=key)
    with jax.enable_x64(False):
        off = task.sample(5, key=key)
    assert_same(single, off, rtol=0, atol=0)
    with float64():
        double = task.sample(5, key=key, dtype="float64")
        assert {part.dtype for part in double} == {jnp.dtype("float64")}
    assert_same(single, double, rtol=1e-5, atol=1e-6)


@every_task
def test_no_loop_over_trials_or_time(task, key):
    longer = type(task)(dt=task.dt / 4)

    def program(task, trials):
        return str(jax.make_jaxpr(lambda key: task.sample(trials, key=key))(key))

    texts = [program(task, 2), program(task, 50), program(longer, 50)]
    assert len({text.count(" = ") for text in texts}) == 1, "the program is as long for more trials and more steps"
    assert "scan[" not in texts[0] and "while[" not in texts[0]


@pytest.mark.x64off
@every_task
def test_example_and_settings(task):
    assert_same(task.example(), task.example(), rtol=0)
    assert task.example().inputs.shape == (task.steps, 1, task.inputs)
    again = make_task(task.name, **json.loads(json.dumps(task.settings)))
    assert again == task and again.settings == task.settings
    assert task.paper == PAPERS.get(task.name, "schuessler2020") and task.tags and type(task).__doc__


@every_task
def test_targets_are_zero_where_no_answer_is_asked(task, key):
    trials = numpy(task.sample(5, key=key))
    if task.name == "cosine":  # whose target goes on, as the line that figures compare with
        np.testing.assert_allclose(trials.targets[100:], trials.targets[:100], atol=1e-6)
        return
    if task.name in FILTERS:  # which ask for an answer all the time
        assert np.all(trials.mask == 1)
        return
    if task.name == "reaching":  # to hold still is an answer too; amplitudes are those of vectors
        trials = trials._replace(targets=np.linalg.norm(trials.targets, axis=2, keepdims=True))
        assert np.all(trials.mask == 1) and np.all(trials.targets[:20] == 0) and np.all(trials.targets[20:] > 0)
    else:
        assert np.all(trials.targets[trials.mask == 0] == 0)
    asked = np.abs(trials.targets[trials.targets != 0])
    np.testing.assert_allclose(asked, task.target_amplitude, rtol=1e-6)


# ---------------------------------------------------------------------------------- flip-flop


def pulses_of(inputs: np.ndarray) -> list[tuple[int, int, int]]:
    """Onset, channel and sign of the pulses in one trial's inputs (time, channel)."""
    before = np.vstack([np.zeros((1, inputs.shape[1])), inputs[:-1]])
    found = np.argwhere((inputs != 0) & (before == 0))
    return [(int(k), int(c), int(np.sign(inputs[k, c]))) for k, c in found]


@pytest.mark.parametrize("task", [FlipFlop(duration=100), FlipFlop(channels=3, dt=0.25, stimulus=2)])
def test_flip_flop_follows_from_its_pulses(task, key):
    """Rebuild inputs, targets and mask by the words of the paper from nothing but the pulses' onsets and signs."""
    trials = numpy(task.sample(20, key=key))
    length, delay = round(task.stimulus / task.dt), round(5 / task.dt)
    for trial in range(20):
        inputs, targets, mask = (np.zeros_like(part[:, trial]) for part in trials)
        pulses = pulses_of(trials.inputs[:, trial])
        assert pulses[0][0] == round(1 / task.dt)
        for (onset, channel, sign), following in zip(pulses, [*pulses[1:], (task.steps, 0, 0)], strict=True):
            inputs[onset : onset + length, channel] = sign
            targets[onset + delay : following[0], channel] = 0.5 * sign
            mask[onset + delay : following[0]] = 1
        np.testing.assert_array_equal(trials.inputs[:, trial], inputs)
        np.testing.assert_array_equal(trials.targets[:, trial], targets)
        np.testing.assert_array_equal(trials.mask[:, trial], mask)
        assert (task.steps - pulses[-1][0]) * task.dt <= 30, "no pulse is missing at the end"


def test_flip_flop_statistics(key):
    trials = numpy(FlipFlop(duration=200).sample(600, key=key))
    pulses = [pulses_of(trials.inputs[:, trial]) for trial in range(600)]
    # The first 6 intervals always lie within 1 + 6 * 30 < 200, so none is censored by the end of a trial.
    intervals = np.array([np.diff([onset for onset, _, _ in one])[:6] for one in pulses]).ravel()
    assert intervals.min() >= 20 and intervals.max() <= 59  # 10 to 30 membrane times, 30 itself excluded
    counts = np.bincount(intervals - 20, minlength=40)
    assert stats.chisquare(counts).pvalue > LEAST_P
    assert stats.chisquare(np.bincount(np.minimum(intervals, 58) - 20, minlength=40)[:39]).pvalue < LEAST_P

    kinds = np.array([2 * channel + (sign > 0) for one in pulses for _, channel, sign in one])
    assert stats.chisquare(np.bincount(kinds, minlength=4)).pvalue > LEAST_P
    signs = np.array([[sign for _, _, sign in one[:6]] for one in pulses])
    correlation = (signs[:, :-1] * signs[:, 1:]).mean()
    assert abs(correlation) < 4 / np.sqrt(signs[:, 1:].size), "pulses are independent of one another"


def test_flip_flop_with_fixed_intervals_fills_the_trial(key):
    task = FlipFlop(stimulus_delay=(5, 5), duration=50)
    trials = numpy(task.sample(3, key=key))
    assert task.pulses == 5
    assert [onset for onset, _, _ in pulses_of(trials.inputs[:, 0])] == [2, 22, 42, 62, 82]


def test_zero_output_in_the_flip_flop_scores_a_sixteenth(key):
    """Whenever the answer counts, exactly one of two targets is +-0.5, so the mean of z-hat^2 / 2 is 1/16."""
    trials = numpy(FlipFlop().sample(5, key=key))
    loss = 0.5 * (trials.mask * trials.targets**2).sum() / trials.mask.sum()
    assert loss == pytest.approx(1 / 16, rel=1e-12)


# ---------------------------------------------------------------------------------- Mante


def test_mante_periods_context_and_answer(key):
    trials = numpy(Mante().sample(300, key=key))
    context, signals = trials.inputs[..., :2], trials.inputs[..., 2:]
    assert np.all(context[:6] == 0) and np.all(context[46:] == 0)
    assert np.all(context[6:46] == context[6:7]) and np.all(np.sort(context[6], axis=1) == [0, 1])
    assert np.all(trials.mask[:46] == 1) and np.all(trials.mask[46:56] == 0) and np.all(trials.mask[56:] == 1)
    means = signals[6:46].mean(axis=0)  # (trial, signal)
    coherences = np.array(COHERENCES)[np.abs(means[..., None] - np.array(COHERENCES)).argmin(axis=2)]
    error = 0.05 / np.sqrt(0.5) / np.sqrt(40)
    assert np.abs(means - coherences).max() < 5 * error
    sign = np.sign((coherences * context[6]).sum(axis=1))
    np.testing.assert_allclose(trials.targets[56:, :, 0], 0.5 * np.broadcast_to(sign, (40, 300)))
    assert np.all(trials.targets[:56] == 0)


@pytest.mark.parametrize("values", [COHERENCES, SIGNS])
def test_mante_coherences_and_contexts_are_uniform(values, key):
    trials = numpy(Mante(coherences=values, noise=0.0).sample(4000, key=key))
    drawn, counts = np.unique(trials.inputs[20, :, 2:], return_counts=True)
    np.testing.assert_allclose(drawn, values)
    assert stats.chisquare(counts).pvalue > LEAST_P
    assert abs(trials.inputs[20, :, 0].mean() - 0.5) < 4 * 0.5 / np.sqrt(4000)
    first, second = trials.inputs[20, :, 2], trials.inputs[20, :, 3]
    assert abs(np.corrcoef(first, second)[0, 1]) < 4 / np.sqrt(4000)


@pytest.mark.parametrize("dt", [0.5, 0.1])
def test_mante_noise_is_white_and_scales_with_the_step(dt, key):
    task = Mante(dt=dt, noise=0.2, input_amplitude=2.0)
    trials = numpy(task.sample(200, key=key))
    outside = np.r_[0 : round(3 / dt), round(23 / dt) : task.steps]
    assert np.all(trials.inputs[outside][..., :2] == 0), "no noise on the context channels"
    noise = trials.inputs[round(23 / dt) :, :, 2:]  # after the stimulus, where the mean is 0
    n, variance = noise.size, (2.0 * 0.2) ** 2 / dt
    error = np.sqrt(2 / n)
    assert abs(noise.var() / variance - 1) < 4 * error
    assert abs(noise.mean()) < 4 * np.sqrt(variance / n)
    assert abs((noise[1:] * noise[:-1]).mean() / variance) < 4 / np.sqrt(n)
    assert abs((noise[..., 0] * noise[..., 1]).mean() / variance) < 4 / np.sqrt(n / 2)
    assert abs(noise.var() / (variance * dt) - 1) > 4 * error, "noise without the factor 1/dt would be noticed"


# ---------------------------------------------------------------------------------- Romo


def rejected(n: int, seed: int) -> np.ndarray:
    """Pairs from U(0.5, 1.5)^2, redrawn where they differ by less than 0.2, as the paper says it."""
    drawn = np.random.default_rng(seed).uniform(0.5, 1.5, (3 * n, 2))
    return drawn[np.abs(drawn[:, 0] - drawn[:, 1]) >= 0.2][:n]


def cells(pairs: np.ndarray) -> np.ndarray:
    counts, _, _ = np.histogram2d(*pairs.T, bins=6, range=[[0.5, 1.5], [0.5, 1.5]])
    return counts.ravel()


def test_romo_amplitudes_match_redrawing(key):
    n = 20_000
    ours = np.stack(as_amplitudes(draw_uniform(key, (2, n)), (0.5, 1.5), 0.2), axis=1).astype(float)
    reference = rejected(n, seed=1)
    assert ours.min() >= 0.5 and ours.max() <= 1.5
    difference = np.abs(ours[:, 0] - ours[:, 1])
    assert difference.min() > 0.2 - 1e-6

    def distribution(d):  # P(|a - b| <= d) for the conditioned pairs: two triangles with legs 1 - d
        return 1 - ((1 - d) / 0.8) ** 2

    assert stats.kstest(difference, distribution).pvalue > LEAST_P
    for member in (0, 1):
        assert stats.ks_2samp(ours[:, member], reference[:, member]).pvalue > LEAST_P
    joint = np.stack([cells(ours), cells(reference)])
    assert stats.chi2_contingency(joint[:, joint.sum(axis=0) > 0]).pvalue > LEAST_P
    assert abs((ours[:, 0] > ours[:, 1]).mean() - 0.5) < 4 * 0.5 / np.sqrt(n)

    # A plausible wrong way, a uniform difference, must not pass for the right one.
    wrong = np.random.default_rng(2).uniform(0.2, 1.0, n)
    assert stats.kstest(wrong, distribution).pvalue < LEAST_P


def test_romo_trials(key):
    trials = numpy(Romo().sample(500, key=key))
    delays = []
    for trial in range(500):
        inputs, mask = trials.inputs[:, trial, 0], trials.mask[:, trial]
        on = np.flatnonzero(inputs)
        assert list(on[:2]) == [6, 7] and len(on) == 4 and on[3] == on[2] + 1
        first, second = inputs[6], inputs[on[2]]
        end = on[3] + 1
        counts = np.zeros_like(mask)
        counts[:end] = 1
        counts[end + 10 : end + 30] = 1
        np.testing.assert_array_equal(mask, counts)
        targets = np.zeros_like(mask)
        targets[end + 10 : end + 30, int(second > first)] = 0.5
        np.testing.assert_array_equal(trials.targets[:, trial], targets)
        delays.append(on[2] - 8)
    counts = np.bincount(delays, minlength=16)
    assert counts[:4].sum() == 0 and len(counts) == 16  # 2 to 8 membrane times, 8 itself excluded
    assert stats.chisquare(counts[4:]).pvalue > LEAST_P


# ---------------------------------------------------------------------------------- the deterministic ones


def test_fixed_point_arrays():
    trials = numpy(FixedPoint(target_amplitude=2.0, input_amplitude=3.0).sample(2, key=jax.random.key(0)))
    assert np.all(trials.inputs[:2] == 0) and np.all(trials.inputs[2:] == 3)
    assert np.all(trials.mask[:200] == 0) and np.all(trials.mask[200:] == 1)
    np.testing.assert_array_equal(trials.targets, 2 * trials.mask)


def test_cosine_starts_from_the_input_weights():
    task = Cosine()
    with float64():
        trials = task.sample(1, key=jax.random.key(0), dtype="float64")
        W, W_in = np.random.default_rng(0).normal(size=(2, 6, 6))
        network = RateRNN(*map(jnp.asarray, (0.2 * W, W_in[:, :1], W_in[:1])), phi="identity", dt=task.dt)
        states = np.asarray(network(trials.inputs).states[:, 0])
    np.testing.assert_allclose(states[0], network.W_in[:, 0], rtol=1e-14)
    decay = states[0] + 0.1 * (network.W @ states[0] - states[0])
    np.testing.assert_allclose(states[1], decay, rtol=1e-12, err_msg="no input after the kick")
    trials = numpy(trials)
    np.testing.assert_allclose(trials.targets[:, 0, 0], np.cos(2 * np.pi * task.times / 5), atol=1e-12)
    assert np.all(trials.mask[:100] == 1) and np.all(trials.mask[100:] == 0)


# ---------------------------------------------------------------------------------- what is refused

WRONG = [
    (FlipFlop, {"dt": 1.5}, r"dt is 1.5; it must be a number in \(0, 1\]"),
    (FlipFlop, {"dt": 0}, "dt is 0;"),
    (FlipFlop, {"dt": float("nan")}, "dt is nan;"),
    (FlipFlop, {"dt": "fast"}, "dt is 'fast';"),
    (FlipFlop, {"duration": -1.0}, "duration is -1.0; it must be a finite duration"),
    (FlipFlop, {"duration": float("inf")}, "duration is inf;"),
    (FlipFlop, {"duration": 6.0}, r"duration is 6, but fixation \(1\) and decision_delay \(5\)"),
    (FlipFlop, {"stimulus": 0.1}, "stimulus is 0.1; it must be a finite duration >= 0.5"),
    (FlipFlop, {"stimulus": 11.0}, "longer than the 10 from one pulse to the next"),
    (FlipFlop, {"stimulus_delay": (25.0, 5.0)}, r"stimulus_delay is \(25.0, 5.0\);"),
    (FlipFlop, {"stimulus_delay": 5.0}, "stimulus_delay is 5.0; it must be a pair"),
    (FlipFlop, {"stimulus_delay": (0.0, 5.0)}, "0.5 <= low"),
    (FlipFlop, {"channels": 0}, "channels is 0; it must be a whole number >= 1"),
    (FlipFlop, {"channels": 1.5}, "channels is 1.5;"),
    (FlipFlop, {"target_amplitude": None}, "target_amplitude is None;"),
    (Mante, {"fixation": -1}, "fixation is -1;"),
    (Mante, {"decision": 0.0}, "decision is 0.0;"),
    (Mante, {"noise": -0.1}, "noise is -0.1;"),
    (Mante, {"coherences": ()}, r"coherences is \(\);"),
    (Mante, {"coherences": (0.0, 1.0)}, "numbers other than 0"),
    (Mante, {"coherences": "signs"}, "coherences is 'signs';"),
    (Romo, {"smallest_difference": 1.0}, "below 1, the width"),
    (Romo, {"smallest_difference": -0.2}, "smallest_difference is -0.2;"),
    (Romo, {"amplitudes": (1.5, 0.5)}, r"amplitudes is \(1.5, 0.5\);"),
    (Romo, {"stimulus_delay": (-2.0, 8.0)}, "stimulus_delay is"),
    (Romo, {"decision": 0.2}, "decision is 0.2;"),
    (FixedPoint, {"decision": 0.0}, "decision is 0.0;"),
    (FixedPoint, {"duration": 1.5}, "duration is 1.5, but fixation"),
    (FixedPoint, {"input_amplitude": float("inf")}, "input_amplitude is inf;"),
    (Cosine, {"counted": 30.0}, r"duration is 20, but counted \(30\)"),
    (Cosine, {"counted": 0.0}, "counted is 0.0;"),
    (Cosine, {"period": 0.1}, "period is 0.1;"),
    (Cosine, {"dt": True}, "dt is True;"),
]


@pytest.mark.parametrize(("kind", "settings", "sentence"), WRONG, ids=lambda value: str(value)[:40])
def test_wrong_settings_are_refused_in_one_sentence(kind, settings, sentence):
    with pytest.raises(ValueError, match=sentence) as raised:
        kind(**settings)
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 240


@pytest.mark.parametrize("trials", [0, -3, 2.0, True, "many"])
def test_wrong_number_of_trials(trials, key):
    with pytest.raises(ValueError, match="it must be a whole number >= 1"):
        FlipFlop().sample(trials, key=key)


def test_wrong_key_or_dtype(key):
    with pytest.raises(ValueError, match="key is 3; it must be a JAX random key"):
        FlipFlop().sample(2, key=3)
    with pytest.raises(ValueError, match="dtype is 'int32'; it must be 'float32' or 'float64'"):
        FlipFlop().sample(2, key=key, dtype="int32")
    with pytest.raises(ValueError, match=r"dtype is 'half-ish'"):
        FlipFlop().sample(2, key=key, dtype="half-ish")
    with jax.enable_x64(False), pytest.raises(ValueError, match="64-bit mode is off"):
        FlipFlop().sample(2, key=key, dtype="float64")


def test_unknown_task_or_setting():
    with pytest.raises(ValueError, match=r"There is no task 'flipflop'; did you mean 'flip-flop'\?"):
        make_task("flipflop")
    with pytest.raises(ValueError, match=r"There is no task 'qqq'; there are flip-flop"):
        make_task("qqq")
    with pytest.raises(ValueError, match=r"There is no task \['flip-flop'\]"):
        make_task(["flip-flop"])
    with pytest.raises(ValueError, match=r"no setting 'decison' of romo; did you mean 'decision'\? There are "):
        make_task("romo", decison=3.0)


def test_a_users_task_is_checked(key):
    class Wrong(Task):
        name, paper, tags = "wrong", "none", ("test",)
        inputs, outputs = 2, 1
        duration: float = setting(5.0)
        dt: float = setting(0.5)

        def draw(self, trials, key, dtype):
            zeros = jnp.zeros((self.steps, trials, 1))
            return Trials(zeros, zeros, zeros)

    with pytest.raises(ValueError, match=r"inputs of task 'wrong' have shape \(10, 4, 1\); .* = \(10, 4, 2\)"):
        Wrong().sample(4, key=key)
    with pytest.raises(ValueError, match=r"duration is 0\.25; it must be"):
        Wrong(duration=0.25)


def test_steps_are_rounded_down_but_not_by_rounding_errors(key):
    assert [whole_steps(0.3, 0.1), whole_steps(0.7, 0.1), whole_steps(1.4, 0.5)] == [3, 7, 2]
    drawn = np.asarray(as_steps(draw_uniform(key, (2000,)), (1.0, 2.3), 0.5))
    assert set(drawn) == {2, 3, 4}
    np.testing.assert_allclose((drawn == 4).mean(), 0.3 / 1.3, atol=4 * np.sqrt(0.25 / 2000))
    most = np.float32(1) - np.float32(2**-24)  # the largest number that a uniform draw can give
    assert int(as_steps(jnp.asarray(most), (1.0, 3.0), 0.5)) == 5 and int(as_index(jnp.asarray(most), 3)) == 2
