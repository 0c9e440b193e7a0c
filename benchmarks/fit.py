"""Seconds per update of a fit of low tensor rank, against PyTorch with one weight matrix for every trial.

    (a) ours   `tauflow.neural` fits: the state in the coordinates of the columns, one compiled update
    (b) torch  the same network and loss with W of every trial formed, (trial, n, n), and an eager loop over time

"recurrence" is states and the gradient of the sum of squared rates by factors and initial states; "update" is loss over
all entries with the decoder, gradient and Adam. Each contestant runs in a process of its own, so that its peak of
memory (resident set, without what importing takes) is known.

Run `python -m benchmarks.fit --help` for the options.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.machine import describe, table

SIZES = ((100, 100, 60, 3), (370, 200, 150, 5))
"""Trials, units and neurons, bins, rank."""
ALPHA = 0.1
CONTESTANTS = ("ours", "torch")
PARTS = ("recurrence", "update")


def made(trials: int, units: int, bins: int, rank: int) -> dict[str, np.ndarray]:
    """Parameters and activity, float32."""
    rng = np.random.default_rng(0)
    a = rng.standard_normal((units, rank))
    arrays = {
        "a": a / np.linalg.norm(a, axis=0),
        "c": 1 + 0.3 * rng.standard_normal((trials, rank)),
        "z0": rng.standard_normal((trials, rank)),
        "M": rng.standard_normal((units, units)) / np.sqrt(units),
        "y": rng.standard_normal((bins, trials, units)),
    }
    return {name: value.astype(np.float32) for name, value in arrays.items()}


def ours(part: str, arrays: dict[str, np.ndarray]) -> Callable[[], Any]:
    """One call of a part, by tauflow."""
    import jax
    import jax.numpy as jnp
    import optax

    from tauflow.latent import simulate_latent, sum_latent

    y = jnp.asarray(arrays["y"])
    start = {name: jnp.asarray(arrays[name]) for name in ("a", "c", "z0", "M")} | {"b": jnp.asarray(arrays["a"])}
    steps = len(y)

    def squares(M: jax.Array, z: jax.Array, r: jax.Array, target: jax.Array) -> tuple[jax.Array, tuple[()]]:
        return ((r @ M.T - target) ** 2).sum(), ()

    def loss(p: dict[str, jax.Array]) -> jax.Array:
        if part == "recurrence":
            given = (p["a"], p["c"], p["b"], p["z0"])
            return (simulate_latent(*given, steps=steps, phi="tanh", alpha=ALPHA)[1] ** 2).sum()
        total = sum_latent(squares, p["M"], y, p["a"], p["c"], p["b"], p["z0"], phi="tanh", alpha=ALPHA)[0]
        return total / y.size

    if part == "recurrence":
        run = jax.jit(jax.grad(loss))
        return lambda: jax.block_until_ready(run(start))
    adam = optax.adam(1e-3)

    def update(p: Any, state: Any) -> Any:
        change, state = adam.update(jax.grad(loss)(p), state, p)
        return optax.apply_updates(p, change), state

    now, compiled = [start, adam.init(start)], jax.jit(update)

    def step() -> None:
        now[:] = jax.block_until_ready(compiled(*now))

    return step


def torch_loop(part: str, arrays: dict[str, np.ndarray]) -> Callable[[], Any]:
    """The same by PyTorch, with W of every trial."""
    import torch

    y = torch.from_numpy(arrays["y"])
    p = {name: torch.from_numpy(arrays[name]).requires_grad_() for name in ("a", "c", "z0", "M")}
    p["b"] = torch.from_numpy(arrays["a"].copy()).requires_grad_()
    adam = torch.optim.Adam(p.values(), lr=1e-3)

    def step() -> None:
        adam.zero_grad(set_to_none=True)
        W = torch.einsum("kr,nr,mr->knm", p["c"], p["a"], p["b"])
        x, rates = p["z0"] @ p["a"].T, []
        for _ in range(len(y)):
            x = x + ALPHA * (torch.bmm(W, torch.tanh(x)[..., None])[..., 0] - x)
            rates.append(torch.tanh(x))
        r = torch.stack(rates)
        if part == "recurrence":
            (r**2).sum().backward()
        else:
            ((r @ p["M"].T - y) ** 2).mean().backward()
            adam.step()

    return step


def alone(contestant: str, part: str, size: tuple[int, ...], repeats: int) -> None:
    """Print median seconds of a part, and megabytes at most beyond what was there before."""
    arrays = made(*size)
    step = {"ours": ours, "torch": torch_loop}[contestant](part, arrays)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    step()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(statistics.median(times), (after - before) / 1024)


def measure(part: str, size: tuple[int, ...], repeats: int, rounds: int) -> list[str]:
    """One line of the table: the contestants take turns, each in a process of its own."""
    seconds: dict[str, list[float]] = {name: [] for name in CONTESTANTS}
    memory: dict[str, list[float]] = {name: [] for name in CONTESTANTS}
    for _ in range(rounds):
        for name in CONTESTANTS:
            count = repeats if name == "ours" else max(1, repeats // 5)
            words = ["--alone", name, part, *map(str, size), str(count)]
            done = subprocess.run([sys.executable, "-m", "benchmarks.fit", *words], capture_output=True, check=True)
            took, megabytes = map(float, done.stdout.split()[-2:])
            seconds[name].append(took)
            memory[name].append(megabytes)
    own, theirs = (statistics.median(seconds[name]) for name in CONTESTANTS)
    peaks = [f"{statistics.median(memory[name]):.0f}" for name in CONTESTANTS]
    trials, units, bins, rank = map(str, size)
    return [part, trials, units, bins, rank, f"{1e3 * own:.0f}", f"{1e3 * theirs:.0f}", f"{theirs / own:.1f}", *peaks]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fit", description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=10, help="updates of (a) in a process; a fifth of them of (b)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--markdown", action="store_true", help="print a Markdown table")
    parser.add_argument("--alone", nargs=7, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.alone:
        name, part, *numbers = options.alone
        alone(name, part, tuple(map(int, numbers[:4])), int(numbers[4]))
        return
    print(describe("jax", "jaxlib", "torch", "optax"))
    print(f"float32, medians of {options.rounds} rounds.\n")
    header = ["part", "trials", "n", "bins", "R", "(a) ours, ms", "(b) torch, ms", "(b)/(a)", "(a) MB", "(b) MB"]
    rows = [measure(part, size, options.repeats, options.rounds) for part in PARTS for size in SIZES]
    print(table(header, rows, markdown=options.markdown))


if __name__ == "__main__":
    main()
