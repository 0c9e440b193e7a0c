"""Seconds per update of a fit of low tensor rank, against PyTorch with one weight matrix for every trial.

    (a) ours   `tauflow.neural` fits: the state in the coordinates of the columns, one compiled update
    (b) torch  the same network and loss with W of every trial formed, (trial, n, n), and an eager loop over time

"recurrence" is states and the gradient of the sum of squared rates by factors and initial states; "update" is loss over
all entries with the decoder, gradient and Adam; "score" is a whole fit of a made recording until its held-out loss
stands still by the authors' rule (standard deviation over 200 updates below 1e-3 of the variance), compiling included,
and until it first explains 95 % of what it explains in the end. Both do the same updates from the same start, so the
time of (b) is that number of updates at the measured time of one. Each contestant runs in a process of its own, so that
its peak of memory (resident set, without what importing takes) is known.

Run `python -m benchmarks.fit --help` for the options.
"""

from __future__ import annotations

import argparse
import dataclasses
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


def score(size: tuple[int, ...], starts: int, steps: int) -> None:
    """Print updates and seconds of a fit until 95 % of its final held-out score and to its end, that score, and its
    share of what the activity without noise has. Seconds count the starts that were tried before.
    """
    import jax

    from tauflow.learning import Progress
    from tauflow.neural import fit_low_tensor_rank, variance_explained

    recording, clean = known_recording(size)
    start, seen = time.perf_counter(), [(0, 0.0)]

    def clock(news: Progress) -> None:
        if news.update < seen[-1][0]:  # the starts are tried, and the fit begins
            seen[:] = [(0, seen[-1][1])]
        seen.append((news.update, time.perf_counter() - start))

    fit = fit_low_tensor_rank(
        recording, rank=size[3], units=size[1], tolerance=1e-3, starts=starts, steps=steps, key=jax.random.key(1),
        progress=clock,
    )  # fmt: skip
    took = time.perf_counter() - start
    explained, looks = fit.data["explained_test"].values[0], fit.data["fit_look"].values
    enough = int(looks[np.argmax(explained >= 0.95 * fit.explained["test"])])
    spread, masks = fit.data["size"].values, fit.masks
    best = variance_explained(recording["activity"].values / spread, clean / spread, masks.test, train=masks.train)
    reached = fit.score(recording)
    print(enough, np.interp(enough, *np.transpose(seen)), int(looks[-1]), took, reached, reached / best)


def known_recording(size: tuple[int, ...]) -> tuple[Any, np.ndarray]:
    """A recording of a network of known rank, whose strengths change over trials, with noise; and without it."""
    import jax
    import jax.numpy as jnp

    from tauflow.networks import LowTensorRankRNN
    from tauflow.neural import recording

    trials, units, bins, rank = size
    conditions = np.arange(trials) % 8
    network = LowTensorRankRNN.random(
        units, units, rank=rank, conditions=8, trial_ids=np.arange(trials), alpha=ALPHA, key=jax.random.key(0)
    )
    phase = np.arange(trials)[:, None] / trials + np.arange(rank) / rank
    turn = jnp.asarray(0.4 * np.random.default_rng(0).standard_normal((rank, rank)), network.a.dtype)  # a cycle or two
    network = dataclasses.replace(
        network,
        b=network.a @ (2 * jnp.eye(rank) + turn - turn.T),
        c_latent=jnp.asarray(2 + 1.5 * np.sin(2 * np.pi * phase), network.a.dtype),
        smoothing=jnp.eye(trials),
    )
    clean = np.asarray(network(conditions, bins).outputs, np.float64)
    clean = clean / clean.std()
    noisy = clean + 0.7 * np.random.default_rng(1).standard_normal(clean.shape)
    names = [f"c{each}" for each in conditions]
    return recording(noisy, kind="rates", time=0.01 * np.arange(bins), condition=names, unit="sd"), clean


def fits(rows: list[list[str]], starts: int, steps: int) -> list[list[str]]:
    """A line for each size: the whole fit, and what its updates take PyTorch by the table of updates."""
    lines = []
    for size in SIZES:
        numbers = alone_in_words(["score", str(steps), *map(str, size), str(starts)])
        enough, seconds, updates, whole, explained, share = numbers
        theirs = next(float(row[6]) for row in rows if row[0] == "update" and row[1:5] == [str(each) for each in size])
        by_torch = enough * theirs / 1e3
        own = [f"{enough:.0f}", f"{seconds:.0f}", f"{updates:.0f}", f"{whole:.0f}", f"{explained:.3f}", f"{share:.2f}"]
        lines.append([*map(str, size), *own, f"{by_torch:.0f}", f"{by_torch / seconds:.1f}"])
    return lines


def alone_in_words(words: list[str]) -> list[float]:
    """The numbers that a process of its own prints."""
    command = [sys.executable, "-m", "benchmarks.fit", "--alone", *words]
    return [float(each) for each in subprocess.run(command, capture_output=True, check=True).stdout.split()]


def measure(part: str, size: tuple[int, ...], repeats: int, rounds: int) -> list[str]:
    """One line of the table: the contestants take turns, each in a process of its own."""
    seconds: dict[str, list[float]] = {name: [] for name in CONTESTANTS}
    memory: dict[str, list[float]] = {name: [] for name in CONTESTANTS}
    for _ in range(rounds):
        for name in CONTESTANTS:
            count = repeats if name == "ours" else max(1, repeats // 5)
            took, megabytes = alone_in_words([name, part, *map(str, size), str(count)])
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
    parser.add_argument("--score", action="store_true", help="whole fits as well: some minutes")
    parser.add_argument("--starts", type=int, default=1, help="starts that whole fits try")
    parser.add_argument("--steps", type=int, default=1500, help="most updates of whole fits")
    parser.add_argument("--markdown", action="store_true", help="print a Markdown table")
    parser.add_argument("--alone", nargs=7, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.alone:
        name, part, *numbers = options.alone
        if name == "score":
            score(tuple(map(int, numbers[:4])), int(numbers[4]), int(part))
            return
        alone(name, part, tuple(map(int, numbers[:4])), int(numbers[4]))
        return
    print(describe("jax", "jaxlib", "torch", "optax"))
    print(f"float32, medians of {options.rounds} rounds.\n")
    header = ["part", "trials", "n", "bins", "R", "(a) ours, ms", "(b) torch, ms", "(b)/(a)", "(a) MB", "(b) MB"]
    rows = [measure(part, size, options.repeats, options.rounds) for part in PARTS for size in SIZES]
    print(table(header, rows, markdown=options.markdown))
    if options.score:
        header = ["trials", "n", "bins", "R", "updates to 95 %", "s", "updates", "s in all", "score", "of the best"]
        header += ["(b), s to 95 %", "(b)/(a)"]
        print("\nscore\n")
        print(table(header, fits(rows, options.starts, options.steps), markdown=options.markdown))


if __name__ == "__main__":
    main()
