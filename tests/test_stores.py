"""Stores that are whole, absent, or say that they are damaged, and are replaced in one step."""

import errno
import os
import pickle
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import tauflow.run
from made_runs import dataset, one_sentence, same
from tauflow.run import (
    Run,
    RunError,
    load,
    merge,
    read_npz,
    read_store,
    replace_store,
    write_atomic_bytes,
    write_atomic_npz,
    write_atomic_store,
)

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
