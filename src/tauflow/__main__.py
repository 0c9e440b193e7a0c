"""The command `tauflow`, also as `python -m tauflow`."""

from __future__ import annotations

import os


def usable_cores() -> int:
    """Number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


def main() -> None:
    """Give JAX one device per core, as ensembles want it, and run the command line."""
    if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        os.environ.setdefault("JAX_NUM_CPU_DEVICES", str(usable_cores()))  # read when JAX is first imported
    from tauflow.cli import app

    app(prog_name="tauflow")


if __name__ == "__main__":
    main()
