"""Milliseconds per exact gradient of a filter loss against autodiff through time, and its matrix products alone.

A gradient is that of the loss of a random continuous linear network of spectral radius sigma with the target
exp(-0.2 t), for W, u and v, with the loss; float64:

    (a) ours      `tauflow.objectives.FilterLoss`
    (b) autodiff  the same integral by fourth-order Runge-Kutta and Simpson's rule, a `lax.scan` differentiated by JAX,
                  with the fewest steps (to 20 %) at which its gradient is right to `--error`
    (c) floor     the matrix-vector products that both Krylov bases need, and the one product that makes the gradient
                  of W from them, in NumPy

The contestants take turns, so that whatever else the machine does meets all of them; the table gives medians over the
rounds, and the ratios of those.

Then, in seconds, compiling included, two whole flows of figures of bordelon2025: one network of Fig. 1 (N = 250) and
one of Fig. 2c (N = 4000).

Run `python -m benchmarks.filters --help` for the options.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from scipy.linalg import solve_continuous_lyapunov

from benchmarks.machine import describe, table
from tauflow import krylov
from tauflow.networks import ContinuousLinearRNN
from tauflow.objectives import FilterLoss
from tauflow.papers.bordelon2025 import fig1, fig2
from tauflow.papers.bordelon2025._flows import draw_network
from tauflow.papers.bordelon2025._lazy import LazyTraining
from tauflow.tasks import LeakyIntegrator

TARGET = LeakyIntegrator(0.2)
Gradient = dict[str, jax.Array]
Contestant = Callable[[], Any]  # makes one gradient


def network_of(neurons: int, sigma: float) -> ContinuousLinearRNN:
    """A random network in float64."""
    return ContinuousLinearRNN.random(neurons, sigma=sigma, key=jax.random.key(0), dtype="float64")


def compiled(loss: Callable[[Any], jax.Array], network: ContinuousLinearRNN) -> Contestant:
    """Value and gradient of a loss for W, u and v."""
    run = jax.jit(jax.value_and_grad(loss))
    return lambda: jax.block_until_ready(run(network))


def integrated(network: Any, horizon: float, steps: int) -> jax.Array:
    """The loss as one would write it without this library: integrated up to a horizon, with an even number of steps."""
    dt, A = horizon / steps, network.recurrent
    times = jnp.asarray(dt * np.arange(steps + 1))
    weights = np.full(steps + 1, 2.0)
    weights[1::2], weights[[0, -1]] = 4.0, 1.0

    def slope(h: jax.Array) -> jax.Array:
        return A @ h - h

    def step(h: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
        k1 = slope(h)
        k2 = slope(h + dt / 2 * k1)
        k3 = slope(h + dt / 2 * k2)
        k4 = slope(h + dt * k3)
        return h + dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4), network.v @ h

    f = network.readout_scale * jax.lax.scan(step, network.u, None, steps + 1)[1]  # (time,)
    return dt / 3 * jnp.asarray(weights) @ (f - jnp.exp(-TARGET.c * times)) ** 2


def deviation(found: Any, exact: Any) -> float:
    """Largest relative error of the gradients for W, u and v."""
    pairs = zip(jax.tree.leaves(found[1]), jax.tree.leaves(exact[1]), strict=True)
    return max(float(jnp.linalg.norm(f - e) / jnp.linalg.norm(e)) for f, e in pairs)


def steps_needed(horizon: float, sigma: float, error: float) -> int:
    """Fewest steps, to 20 %, at which autodiff is right to `error`; found at 64 units, since N hardly matters."""
    network = network_of(64, sigma)
    exact = eqx.filter_value_and_grad(FilterLoss(TARGET, tolerance=1e-12))(network)
    steps = 2 * math.ceil(horizon / 2)
    while True:
        found = compiled(lambda net, steps=steps: integrated(net, horizon, steps), network)()  # type: ignore[misc]
        if deviation(found, exact) < error:
            return steps
        steps = 2 * math.ceil(0.6 * steps)


def vectors_needed(network: ContinuousLinearRNN, tolerance: float) -> int:
    """Size of the bases that the library settles for: the first whose Lyapunov equations leave no more than that."""
    bases, *_ = krylov.begin(network.u, network.v)
    for size in krylov.stages(network.neurons):
        bases = krylov.extend(network.W, network.neurons**-0.5, bases, size)
        left = []
        for H in (np.asarray(bases.H_u), np.asarray(bases.H_v)):
            start = np.eye(size)[0]
            P = solve_continuous_lyapunov(H[:size, :size].T - np.eye(size), -np.outer(start, start))
            left.append(math.sqrt(2) * H[size - 1, size] * np.linalg.norm(P[-1]))
        if max(left) < tolerance:
            break
    return size


def floor_contestant(network: ContinuousLinearRNN, vectors: int) -> Contestant:
    """The large products of one gradient and nothing else, in NumPy."""
    W = np.array(network.W)
    Q_u, Q_v = np.random.default_rng(1).normal(size=(2, vectors, len(W)))
    one, like_W = np.empty(len(W)), np.empty_like(W)

    def run() -> None:
        for q_u, q_v in zip(Q_u, Q_v, strict=True):
            np.matmul(W, q_u, out=one)
            np.matmul(q_v, W, out=one)
        np.matmul(Q_v.T, Q_u, out=like_W)

    return run


def measure(contestants: dict[str, Contestant], *, repeats: int, block_s: float) -> dict[str, float]:
    """Median milliseconds per gradient, the contestants taking turns."""
    count = {}
    for name, run in contestants.items():
        run()  # compiles
        start = time.perf_counter()
        run()
        count[name] = max(1, round(block_s / (time.perf_counter() - start)))
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(repeats):
        for name, run in contestants.items():
            start = time.perf_counter()
            for _ in range(count[name]):
                run()
            times[name].append(1e3 * (time.perf_counter() - start) / count[name])
    return {name: statistics.median(values) for name, values in times.items()}


HEADER = [
    "N",
    "sigma",
    "m",
    "(a) ours, ms",
    "(b) autodiff, ms",
    "steps",
    "error",
    "(c) floor, ms",
    "(a)/(c)",
    "(b)/(a)",
]


def row(neurons: int, sigma: float, options: argparse.Namespace) -> list[str]:
    """One line of the table."""
    network, objective = network_of(neurons, sigma), FilterLoss(TARGET).bare()
    vectors = vectors_needed(network, objective.used_tolerance(network.W))
    contestants = {"ours": compiled(objective, network), "floor": floor_contestant(network, vectors)}
    steps = error = "-"
    if neurons <= options.largest_autodiff:
        horizon = -math.log(options.error / 10) / (1 - sigma + TARGET.c)  # beyond it the gradient has no more than that
        count = steps_needed(horizon, sigma, options.error)
        contestants["autodiff"] = compiled(lambda net: integrated(net, horizon, count), network)
        steps, error = str(count), f"{deviation(contestants['autodiff'](), contestants['ours']()):.0e}"
    ms = measure(contestants, repeats=options.repeats, block_s=options.block)
    autodiff = (f"{ms['autodiff']:.1f}", f"{ms['autodiff'] / ms['ours']:.1f}") if "autodiff" in ms else ("-", "-")
    sizes = [str(neurons), f"{sigma:g}", str(vectors), f"{ms['ours']:.1f}", autodiff[0], steps, error]
    return [*sizes, f"{ms['floor']:.1f}", f"{ms['ours'] / ms['floor']:.2f}", autodiff[1]]


def flows() -> list[list[str]]:
    """Seconds for one network of Fig. 1 and one of Fig. 2c, as `tauflow figure` runs them."""
    one, many = fig1.FULL, fig2.FULL
    sigma = max(many.networks, key=lambda each: each[1])[0]  # that of which there are most
    lazy = LazyTraining(many.large, fig2.TARGET, ((sigma, 1),))
    rich = draw_network(one.neurons, one.sigmas[0], key=jax.random.key(0))
    figures = {
        ("1", one.neurons, one.sigmas[0]): lambda: fig1.follow(rich, one.sigmas[0], one.points, True),
        ("2c", many.large, sigma): lambda: lazy.train(key=jax.random.key(0)),
    }
    rows = []
    for (figure, neurons, spread), run in figures.items():
        start, cpu = time.perf_counter(), time.process_time()
        run()
        seconds = (time.perf_counter() - start, time.process_time() - cpu)
        rows.append([figure, str(neurons), f"{spread:g}", *(f"{each:.0f}" for each in seconds)])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.filters", description=__doc__.split("\n")[0])
    parser.add_argument("--neurons", type=int, nargs="+", default=[250, 1000, 4000])
    parser.add_argument("--sigma", type=float, nargs="+", default=[0.5], help="spectral radii")
    parser.add_argument("--error", type=float, default=1e-6, help="relative error that autodiff may have")
    parser.add_argument(
        "--largest-autodiff", type=int, default=1000, help="most units for (b), which takes minutes beyond"
    )
    parser.add_argument("--repeats", type=int, default=5, help="rounds")
    parser.add_argument("--block", type=float, default=0.3, help="seconds per contestant and round")
    parser.add_argument("--no-flows", dest="flows", action="store_false", help="leave out the flows of the figures")
    parser.add_argument("--markdown", action="store_true", help="print a Markdown table")
    options = parser.parse_args()

    jax.config.update("jax_enable_x64", True)
    print(describe("jax", "jaxlib", "numpy"))
    print(f"float64, medians of {options.repeats} rounds; m vectors in each basis.\n")
    rows = [row(neurons, sigma, options) for neurons in options.neurons for sigma in options.sigma]
    print(table(HEADER, rows, markdown=options.markdown))
    if options.flows:
        print()
        print(table(["Fig.", "N", "sigma", "flow, s", "CPU, s"], flows(), markdown=options.markdown))


if __name__ == "__main__":
    main()
