"""What every table of numbers must say about where it comes from, and how its rows are printed."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import jax


def describe(*packages: str) -> str:
    """One paragraph: date, processor, cores, JAX devices, and versions of Python and of the packages named."""
    versions = [f"Python {platform.python_version()}"]
    for package in packages:
        try:
            versions.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            versions.append(f"{package} not installed")
    devices = sorted({f"{device.platform} {device.device_kind}" for device in jax.devices()})
    return (
        f"{date.today().isoformat()}, {_processor()}, {len(os.sched_getaffinity(0))} cores available, "
        f"load {os.getloadavg()[0]:.1f} at the start, JAX on {len(jax.devices())} x {', '.join(devices)}; "
        f"{', '.join(versions)}."
    )


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    for line in info.read_text().splitlines() if info.exists() else ():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, markdown: bool) -> str:
    """Rows under a header: aligned text for a terminal, or a Markdown table."""
    if markdown:
        lines = [header, ["---:"] * len(header), *rows]
        return "\n".join("| " + " | ".join(line) + " |" for line in lines)
    widths = [max(len(line[i]) for line in [header, *rows]) for i in range(len(header))]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in [header, *rows]
    )
