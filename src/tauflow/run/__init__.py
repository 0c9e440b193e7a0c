"""The path of networks through learning: one labelled dataset, saved, loaded, merged."""

from tauflow.run.files import read_npz, write_atomic_bytes, write_atomic_npz
from tauflow.run.merging import common_tau_unit, merge
from tauflow.run.path import Run, load
from tauflow.run.rebuild import describe_network, register_network
from tauflow.run.schema import KINDS, SCHEMA, STATUSES, TAU_UNITS, RunError, run_attributes, versions
from tauflow.run.storage import read_store, replace_store, write_atomic_store

__all__ = [
    "KINDS",
    "SCHEMA",
    "STATUSES",
    "TAU_UNITS",
    "Run",
    "RunError",
    "common_tau_unit",
    "describe_network",
    "load",
    "merge",
    "read_npz",
    "read_store",
    "register_network",
    "replace_store",
    "run_attributes",
    "versions",
    "write_atomic_bytes",
    "write_atomic_npz",
    "write_atomic_store",
]
