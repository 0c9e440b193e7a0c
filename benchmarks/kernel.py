"""Milliseconds per update of the kernel against plain autodiff, eager PyTorch, and its matrix products alone.

An update is loss, gradient and Adam of a tanh rate network (3 inputs, 3 outputs; W, W_in and W_out all trained;
float32) on a given batch:

    (a) ours      `tauflow.simulate` with its hand-derived adjoint
    (b) autodiff  the same loss, differentiated by JAX through a `lax.scan` written here
    (c) torch     an eager PyTorch loop written here
    (d) floor     the same matrix products alone, in NumPy: W r and Wᵀλ at each step, the one for ∇W, and the thin
                  ones of inputs and outputs

The contestants take turns in short blocks, so that whatever else the machine does meets all of them; the table gives
medians over the blocks, and the ratios of those. Before each block a few updates run untimed.

Run `python -m benchmarks.kernel --help` for the options.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.machine import describe, table
from tauflow.simulate import simulate

CHANNELS = 3
ALPHA = 0.5
LEARNING_RATE = 1e-3
Contestant = Callable[[int], None]  # makes that many updates and waits for the last


def problem(neurons: int, batch: int, steps: int) -> dict[str, np.ndarray]:
    """Weights as in a rate network, and inputs and targets (time, trial, channel), all float32."""
    rng = np.random.default_rng(0)
    shapes = {
        "W": (neurons, neurons),
        "W_in": (neurons, CHANNELS),
        "W_out": (CHANNELS, neurons),
        "inputs": (steps, batch, CHANNELS),
        "targets": (steps, batch, CHANNELS),
    }
    scales = {"W": 0.9 / neurons**0.5, "W_out": 1 / neurons}
    return {k: (scales.get(k, 1.0) * rng.normal(size=s)).astype(np.float32) for k, s in shapes.items()}


def plain_scan(W: jax.Array, drive: jax.Array) -> jax.Array:
    """The recurrence as one would write it without this library."""

    def step(x: jax.Array, d: jax.Array) -> tuple[jax.Array, jax.Array]:
        x = (1 - ALPHA) * x + ALPHA * (jnp.tanh(x) @ W.T + d)  # (trial, n)
        return x, x

    return jax.lax.scan(step, jnp.zeros_like(drive[0]), drive)[1]


def kernel(W: jax.Array, drive: jax.Array) -> jax.Array:
    """The recurrence by this library."""
    return simulate(W, drive, phi="tanh", alpha=ALPHA)


def jax_contestant(data: dict[str, np.ndarray], recurrence: Callable[[jax.Array, jax.Array], jax.Array]) -> Contestant:
    """Updates by JAX and optax, one compiled call each."""
    inputs, targets = jnp.asarray(data["inputs"]), jnp.asarray(data["targets"])
    optimizer = optax.adam(LEARNING_RATE)

    def loss(weights: dict[str, jax.Array]) -> jax.Array:
        states = recurrence(weights["W"], inputs @ weights["W_in"].T)  # (time, trial, n)
        return 0.5 * jnp.mean((jnp.tanh(states) @ weights["W_out"].T - targets) ** 2)

    def update(weights: Any, memory: Any) -> tuple[Any, Any, jax.Array]:
        value, gradient = jax.value_and_grad(loss)(weights)
        change, memory = optimizer.update(gradient, memory)
        return optax.apply_updates(weights, change), memory, value

    compiled = jax.jit(update, donate_argnums=(0, 1))
    weights = {name: jnp.asarray(data[name]) for name in ("W", "W_in", "W_out")}
    state = [weights, optimizer.init(weights)]

    def run(updates: int) -> None:
        for _ in range(updates):
            *state[:], value = compiled(*state)
        jax.block_until_ready((state, value))

    return run


def torch_contestant(data: dict[str, np.ndarray]) -> Contestant | None:
    """Updates by an eager PyTorch loop; None where PyTorch is not installed."""
    try:
        import torch
    except ImportError:
        return None
    inputs, targets = torch.tensor(data["inputs"]), torch.tensor(data["targets"])
    W, W_in, W_out = (torch.tensor(data[name], requires_grad=True) for name in ("W", "W_in", "W_out"))
    optimizer = torch.optim.Adam([W, W_in, W_out], lr=LEARNING_RATE)

    def run(updates: int) -> None:
        for _ in range(updates):
            x = torch.zeros(inputs.shape[1], W.shape[0])
            drive, rates = inputs @ W_in.T, []
            for d in drive:
                x = (1 - ALPHA) * x + ALPHA * (torch.tanh(x) @ W.T + d)  # (trial, n)
                rates.append(torch.tanh(x))
            loss = 0.5 * ((torch.stack(rates) @ W_out.T - targets) ** 2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return run


def floor_contestant(data: dict[str, np.ndarray]) -> Contestant:
    """The matrix products of one update and nothing else, in NumPy; with a rate and an adjoint of order one."""
    W, W_in, W_out = (data[name] for name in ("W", "W_in", "W_out"))
    steps, batch = data["inputs"].shape[:2]
    rng = np.random.default_rng(1)
    rates, lam = rng.normal(size=(2, steps, batch, len(W))).astype(np.float32)
    inputs, errors = (data[name].reshape(-1, CHANNELS) for name in ("inputs", "targets"))
    all_rates, all_lam = (x.reshape(-1, len(W)) for x in (rates, lam))  # (time * trial, n)
    step, whole, like_W = np.empty_like(rates[0]), np.empty_like(all_rates), np.empty_like(W)

    def run(updates: int) -> None:
        for _ in range(updates):
            np.matmul(inputs, W_in.T, out=whole)
            for r in rates:
                np.matmul(r, W.T, out=step)
            np.matmul(all_rates, W_out.T)
            np.matmul(errors, W_out, out=whole)
            for later in lam:
                np.matmul(later, W, out=step)
            np.matmul(all_lam.T, all_rates, out=like_W)
            np.matmul(errors.T, all_rates)
            np.matmul(all_lam.T, inputs)

    return run


def measure(contestants: dict[str, Contestant], *, repeats: int, block_s: float) -> dict[str, list[float]]:
    """Milliseconds per update in each block, the contestants taking turns."""
    updates = {}
    for name, run in contestants.items():
        run(2)  # compiles
        start = time.perf_counter()
        run(3)
        updates[name] = max(3, round(block_s * 3 / (time.perf_counter() - start)))
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(repeats):
        for name, run in contestants.items():
            run(max(1, updates[name] // 5))
            start = time.perf_counter()
            run(updates[name])
            times[name].append(1e3 * (time.perf_counter() - start) / updates[name])
    return times


def row(neurons: int, times: dict[str, list[float]]) -> list[str]:
    """One line of the table: medians in ms and their ratios."""
    ms = {name: statistics.median(values) for name, values in times.items()}

    def ratio(over: str, under: str) -> str:
        return f"{ms[over] / ms[under]:.2f}" if over in ms else "-"

    columns = [f"{ms[name]:.2f}" if name in ms else "-" for name in ("ours", "autodiff", "torch", "floor")]
    best = f"{min(times['ours']) / min(times['floor']):.2f}"
    return [
        str(neurons),
        *columns,
        ratio("ours", "floor"),
        ratio("autodiff", "ours"),
        ratio("torch", "ours"),
        best,
    ]


HEADER = [
    "N",
    "(a) ours, ms",
    "(b) autodiff, ms",
    "(c) torch, ms",
    "(d) floor, ms",
    "(a)/(d)",
    "(b)/(a)",
    "(c)/(a)",
    "(a)/(d) of the minima",
]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kernel", description=__doc__.split("\n")[0])
    parser.add_argument("--neurons", type=int, nargs="+", default=[64, 256, 1024])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=100, help="time steps of a trial")
    parser.add_argument("--repeats", type=int, default=15, help="blocks per contestant")
    parser.add_argument("--block", type=float, default=0.3, help="seconds per block")
    parser.add_argument("--markdown", action="store_true", help="print a Markdown table")
    options = parser.parse_args()

    print(describe("jax", "jaxlib", "optax", "numpy", "torch"))
    print(f"Batch {options.batch}, {options.steps} steps, float32, medians of {options.repeats} blocks.\n")
    rows = []
    for neurons in options.neurons:
        data = problem(neurons, options.batch, options.steps)
        torch_run = torch_contestant(data)
        contestants = {
            "ours": jax_contestant(data, kernel),
            "autodiff": jax_contestant(data, plain_scan),
            **({"torch": torch_run} if torch_run else {}),
            "floor": floor_contestant(data),
        }
        rows.append(row(neurons, measure(contestants, repeats=options.repeats, block_s=options.block)))
    if torch_run is None:
        print("PyTorch is not installed, so (c) is missing; `pip install 'tauflow[torch]'` brings it.\n")
    print(table(HEADER, rows, markdown=options.markdown))


if __name__ == "__main__":
    main()
