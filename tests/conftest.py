"""What every test runs under: 64-bit JAX, strict promotion of dtypes and ranks, no display, warnings as errors.

`TAUFLOW_TEST_X64=0` leaves JAX's 64-bit mode off, as a user's process has it; the tests marked `x64off` run in both
modes, those marked `x64off("only")` in that one alone.
"""

import os
import tempfile

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # small matrices: threads only get in each other's way
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    # What several tests compile is compiled once, also by the workers and the programs that tests start, which inherit
    # the environment; the folder goes with the process that made it. A maximal size makes JAX lock it.
    _COMPILED = tempfile.TemporaryDirectory(prefix="tauflow-compiled-")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _COMPILED.name
    os.environ["JAX_COMPILATION_CACHE_MAX_SIZE"] = str(4 * 2**30)
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.2"

import jax
import matplotlib
import pytest

X64 = os.environ.get("TAUFLOW_TEST_X64", "1") != "0"
jax.config.update("jax_enable_x64", X64)
jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
matplotlib.use("Agg")


LONGEST = ("papers_schuessler2020", "papers_pellegrino2023", "papers_bordelon2025", "house", "fit_command", "fit",
           "learning", "cli", "study", "motor_learning", "simulate")  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first, so that no worker is left alone with one; skip what the other mode alone runs."""
    order = {f"test_{name}.py": place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.name, len(order)))
    elsewhere = pytest.mark.skip(reason="runs with the 64-bit mode off alone: set TAUFLOW_TEST_X64=0")
    for item in items:
        if X64 and any("only" in mark.args for mark in item.iter_markers("x64off")):
            item.add_marker(elsewhere)


@pytest.fixture
def key() -> jax.Array:
    """A fixed random key."""
    return jax.random.key(20_20)


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    matplotlib.pyplot.close("all") if "matplotlib.pyplot" in __import__("sys").modules else None
