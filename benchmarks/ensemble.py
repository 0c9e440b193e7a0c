"""Time per member and update of an ensemble, against a single run of the same network.

Both learn flip-flop by Adam, 32 freshly drawn trials of 100 steps an update, in float32: the single run with
`tauflow.learning.descend`, the members with `tauflow.learning.ensemble`. On CPUs JAX gets one device per core, as the
command line does it, and the members share them; on a GPU the members run side by side, and the single run they are
held against is one on the same machine's CPU, in a process of its own.

A run reports after every chunk of updates. The first chunk, which compiles, is left out; the others give the time per
update. Single runs and ensembles take turns, and the table gives medians over all chunks.

Run `python -m benchmarks.ensemble --help` for the options.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time

import jax
import optax

from benchmarks.machine import describe, table
from tauflow.learning import Progress, Record, descend, ensemble, network_key
from tauflow.networks import RateRNN
from tauflow.objectives import MeanSquaredError
from tauflow.tasks import FlipFlop

TASK = FlipFlop()
NOTHING = Record(measurements=0)


class Clock:
    """Listens to a run's progress and keeps the milliseconds per update of every chunk after the first."""

    def __init__(self) -> None:
        self.ms: list[float] = []
        self._last: tuple[int, float] | None = None

    def __call__(self, progress: Progress) -> None:
        now = time.perf_counter()
        if self._last is not None:
            update, then = self._last
            self.ms.append(1e3 * (now - then) / (progress.update - update))
        self._last = progress.update, now


def make_network(neurons: int, key: jax.Array) -> RateRNN:
    return RateRNN.random(neurons, TASK.inputs, TASK.outputs, gain=0.9, key=key)


def single_run(neurons: int, steps: int) -> list[float]:
    """Milliseconds per update of one network, chunk by chunk."""
    key, clock = jax.random.key(0), Clock()
    network = make_network(neurons, network_key(key))
    objective, optimizer = MeanSquaredError(TASK), optax.adam(1e-3)
    descend(network, objective, optimizer=optimizer, steps=steps, key=key, record=NOTHING, progress=clock)
    return clock.ms


def members_run(neurons: int, members: int, steps: int) -> list[float]:
    """Milliseconds per update and member of an ensemble, chunk by chunk."""
    clock = Clock()
    ensemble(
        lambda *, key: make_network(neurons, key),
        lambda: MeanSquaredError(TASK),
        lambda: optax.adam(1e-3),
        keys=jax.random.split(jax.random.key(0), members),
        steps=steps,
        record=NOTHING,
        progress=clock,
    )
    return [ms / members for ms in clock.ms]


def single_run_on_cpu(neurons: int, steps: int) -> list[float]:
    """`single_run` in a process that computes on the CPU."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.ensemble",
        "--single",
        "--neurons",
        str(neurons),
        "--steps",
        str(steps),
    ]
    answer = subprocess.run(
        command, env=os.environ | {"JAX_PLATFORMS": "cpu"}, capture_output=True, text=True, check=True
    )
    return [float(ms) for ms in answer.stdout.split()]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ensemble", description=__doc__.split("\n")[0])
    parser.add_argument("--neurons", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--members", type=int, default=8)
    parser.add_argument("--steps", type=int, default=320, help="updates of a run; those of the first chunk compile")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each kind, taking turns")
    parser.add_argument("--single", action="store_true", help="only print the single run's ms per update, by chunk")
    parser.add_argument("--markdown", action="store_true", help="print a Markdown table")
    options = parser.parse_args()

    jax.config.update("jax_num_cpu_devices", len(os.sched_getaffinity(0)))
    if options.single:
        print(*(ms for neurons in options.neurons for ms in single_run(neurons, options.steps)))
        return
    on_cpu = jax.devices()[0].platform == "cpu"
    print(describe("jax", "jaxlib", "optax", "numpy"))
    print(f"{options.members} members, flip-flop, 32 trials of {TASK.steps} steps, Adam, float32.\n")
    rows = []
    for neurons in options.neurons:
        single, members = [], []
        for _ in range(options.repeats):
            single += (single_run if on_cpu else single_run_on_cpu)(neurons, options.steps)
            members += members_run(neurons, options.members, options.steps)
        one, each = statistics.median(single), statistics.median(members)
        best = f"{min(members) / min(single):.2f}"
        rows.append([str(neurons), f"{one:.2f}", f"{each:.2f}", f"{each / one:.2f}", best])
    alone = "single run, ms" if on_cpu else "single run on the CPU, ms"
    header = ["N", alone, f"member of {options.members}, ms", "ratio", "ratio of the minima"]
    print(table(header, rows, markdown=options.markdown))


if __name__ == "__main__":
    main()
