"""Interrupted runs: a process killed at random moments and resumed ends bit for bit like one never killed."""

import json
import multiprocessing
import random
import shutil
import signal
import time
from pathlib import Path

import jax
import numpy as np
import optax
import pytest

from tauflow.learning import Record, descent, ensemble
from tauflow.learning.checkpoint import held
from tauflow.learning.member import Ensemble
from tauflow.networks import RateRNN
from tauflow.objectives import MeanSquaredError
from tauflow.run import Run, RunError, load
from tauflow.tasks import FlipFlop

RECORDED = ("loss", "grad_norm", "W", "W_in", "W_out", "delta_W_singular_values", "W_eigenvalues", "status")
STEPS = 400


def study(out, *, resume=False, steps=STEPS, learning_rate=3e-3, progress=None, seed=0, target=0.5, project=None):
    """A small ensemble that commits as often as it can."""
    return ensemble(
        lambda *, key: RateRNN.random(16, 2, 2, gain=0.9, key=key),
        lambda: MeanSquaredError(FlipFlop(duration=20.0, target_amplitude=target), trials=4),
        lambda: optax.adam(learning_rate),
        keys=list(jax.random.split(jax.random.key(seed), 2)),
        steps=steps,
        record=Record(measurements=21),
        out=out,
        resume=resume,
        progress=progress,
        project=project,
        commit_seconds=0.0,
    )


def study_in_a_process(out, x64):
    jax.config.update("jax_enable_x64", x64)
    jax.config.update("jax_num_cpu_devices", 2)
    jax.config.update("jax_compilation_cache_dir", str(Path(out).parent / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    study(out, resume=True)


def differences(a, b):
    return [name for name in RECORDED if not np.array_equal(a.data[name], b.data[name], equal_nan=name != "status")]


class Stop(Exception):
    """Raised from a progress listener to interrupt a run where it stands."""


def stop_at(update):
    def listener(progress):
        if progress.update >= update:
            raise Stop

    return listener


@pytest.fixture(scope="module")
def stopped_half_way(tmp_path_factory):
    out = tmp_path_factory.mktemp("interrupted") / "out"
    with pytest.raises(Stop):
        study(out, progress=stop_at(200))
    return out


@pytest.fixture
def half_way(stopped_half_way, tmp_path):
    """A folder of its own, interrupted half-way."""
    return Path(shutil.copytree(stopped_half_way, tmp_path / "out"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return study(tmp_path_factory.mktemp("whole") / "out")


@pytest.mark.parametrize("kills", [4, pytest.param(20, marks=pytest.mark.slow)])
def test_a_process_killed_many_times_and_resumed_ends_bit_for_bit_the_same(tmp_path, whole, kills):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tauflow.learning", "tauflow.objectives", "tauflow.tasks"])
    out, chance, killed_at = tmp_path / "out", random.Random(20), []

    def start():
        process = context.Process(target=study_in_a_process, args=(str(out), bool(jax.config.jax_enable_x64)))
        process.start()
        return process

    while len(killed_at) < kills:
        process, before = start(), _next_update(out)
        while process.is_alive() and _next_update(out) == before and chance.random() > 0.002:
            time.sleep(0.005)  # mostly until it has committed something, sometimes not so long
        time.sleep(chance.uniform(0.0, 0.2))
        process.kill()
        process.join()
        if process.exitcode == -signal.SIGKILL:
            killed_at.append(_next_update(out))
        else:  # it was quicker than the kill: check, and start another one to kill
            assert process.exitcode == 0 and differences(load(out / "run.zarr"), whole) == []
            shutil.rmtree(out)
    process = start()
    process.join()
    assert process.exitcode == 0
    assert len(set(killed_at)) >= kills // 4 + 1  # not all in one place
    assert differences(load(out / "run.zarr"), whole) == []
    assert [path.name for path in out.iterdir()] == ["run.zarr"]


def _next_update(out):
    """The update at which the last commit goes on; -1 before the first and after the last."""
    try:
        with np.load(out / "state.npz", allow_pickle=False) as state:
            return json.loads(str(state["header"]))["next_update"]
    except (OSError, ValueError, KeyError, EOFError):
        return -1


@pytest.mark.x64off
def test_an_interrupted_run_goes_on_and_the_listener_is_told_where(half_way, whole):
    before = _next_update(half_way)
    assert 0 < before <= 200
    seen = []
    resumed = study(half_way, resume=True, progress=seen.append)
    assert seen[0].update > before and seen[-1].seconds_left == 0
    assert differences(resumed, whole) == []
    assert differences(load(half_way / "run.zarr"), whole) == []
    again = study(half_way, resume=True)  # finished: loaded, not run again
    assert differences(again, whole) == [] and again.data.attrs["created"] == resumed.data.attrs["created"]


@pytest.mark.parametrize("forgotten", ["update", "key", "optimizer", "params"])
def test_a_resume_that_forgets_any_part_of_the_state_is_found_out(half_way, whole, monkeypatch, forgotten):
    complete = Ensemble.set_state

    def forgetful(self, leaves):
        fresh = getattr(self.state, forgotten)
        if forgotten == "key":
            fresh = fresh[::-1]
        complete(self, leaves)
        self.state = self.state._replace(**{forgotten: fresh})

    monkeypatch.setattr(Ensemble, "set_state", forgetful)
    resumed = study(half_way, resume=True)
    assert "loss" in differences(resumed, whole)


def test_parts_beyond_the_commit_are_deleted_and_do_no_harm(half_way, whole):
    parts = half_way / "parts"
    first = sorted(parts.iterdir())[0]
    shutil.copytree(first, parts / "300.zarr")
    shutil.copytree(first, parts / "320.tmp.zarr")
    assert differences(study(half_way, resume=True), whole) == []


def test_what_cannot_be_resumed_is_refused_in_a_sentence_and_kept(half_way):
    out = half_way
    state = (out / "state.npz").read_bytes()
    with pytest.raises(RunError, match=r"already holds state\.npz of a run; pass resume=True"):
        study(out)
    for change in ({"seed": 1}, {"steps": 500}):
        with pytest.raises(RunError, match="other initial weights, keys, settings or steps"):
            study(out, resume=True, **change)
    for change in ({"learning_rate": 1e-3}, {"target": 1.0}, {"project": lambda network: network}):
        with pytest.raises(RunError, match="another objective, optimizer or projection"):
            study(out, resume=True, **change)
    assert (out / "state.npz").read_bytes() == state
    (out / "state.npz").write_bytes(state[: len(state) // 2])
    with pytest.raises(RunError, match=r"state\.npz is damaged"):
        study(out, resume=True)
    (out / "state.npz").write_bytes(b"something else")
    with pytest.raises(RunError, match=r"state\.npz is damaged"):
        study(out, resume=True)
    (out / "state.npz").write_bytes(state)
    part = sorted((out / "parts").iterdir())[0]
    shutil.rmtree(part)
    with pytest.raises(RunError, match=f"There is nothing at .*{part.name}"):
        study(out, resume=True)


def test_other_versions_or_devices_warn_that_the_last_digits_may_differ(half_way, monkeypatch):
    monkeypatch.setattr(descent, "device_in_words", lambda: "7 x abacus")
    with pytest.warns(UserWarning, match="may differ in its last digits"):
        study(half_way, resume=True)


def test_a_finished_run_is_not_taken_for_another_one(tmp_path):
    study(tmp_path / "out", steps=2)
    (tmp_path / "out" / "state.npz").write_bytes(b"left by a kill between saving and clearing")
    assert study(tmp_path / "out", steps=2, resume=True).n_runs == 2
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["run.zarr"]
    with pytest.raises(RunError, match="another objective, optimizer or projection"):
        study(tmp_path / "out", steps=2, resume=True, target=1.0)
    with pytest.raises(RunError, match="other initial weights, keys, settings or steps"):
        study(tmp_path / "out", steps=3, resume=True)


@pytest.mark.parametrize("steps", [0, 3])
def test_interruptions_after_the_last_update_lose_nothing(tmp_path, monkeypatch, steps):
    expected = study(None, steps=steps)

    def interrupted(*_):
        raise Stop

    with monkeypatch.context() as patch:
        patch.setattr(Run, "save", interrupted)
        for attempt in range(3):
            with pytest.raises(Stop):
                study(tmp_path / "out", steps=steps, resume=attempt > 0)
    assert differences(study(tmp_path / "out", steps=steps, resume=True), expected) == []


def test_every_group_of_a_grid_goes_on_where_it_was(tmp_path):
    def grid(out, **settings):
        return ensemble(
            lambda *, key, neurons: RateRNN.random(neurons, 2, 2, gain=0.9, key=key),
            lambda neurons: MeanSquaredError(FlipFlop(duration=20.0), trials=4),
            lambda neurons: optax.adam(3e-3),
            keys=[jax.random.key(0)],
            grid={"neurons": [6, 9]},
            steps=8,
            record=Record(measurements=5),
            out=out,
            commit_seconds=0.0,
            **settings,
        )

    whole, seen = grid(None), []

    def third_report_of_the_second_group(progress):
        seen.append(progress)
        if len(seen) == 7:
            raise Stop

    with pytest.raises(Stop):
        grid(tmp_path / "out", progress=third_report_of_the_second_group)
    for _ in range(2):
        with pytest.raises(Stop):
            grid(tmp_path / "out", resume=True, progress=stop_at(8))
    assert differences(grid(tmp_path / "out", resume=True), whole) == []
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["run.zarr"]


def test_two_processes_do_not_work_in_one_folder(tmp_path):
    with held(tmp_path / "out"), pytest.raises(RunError, match="another process is working in"):
        study(tmp_path / "out", steps=1)
    assert study(tmp_path / "out", steps=1).n_runs == 2
