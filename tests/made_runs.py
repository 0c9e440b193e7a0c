"""Made runs, and what their tests compare by."""

import numpy as np
import xarray as xr

from tauflow.run import RunError, run_attributes

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
