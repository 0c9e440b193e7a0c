"""What a run has recorded so far: losses of every update, spectra and probes, weights; and the Run it becomes.

Spectra are those of the matrix that multiplies the state: W, or W/√N where a network has it as `recurrent`. Which one
is the attribute `matrix` of `delta_W_singular_values` and `W_eigenvalues`. Kept weights are the fields as they are.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import xarray as xr
from threadpoolctl import threadpool_limits

from tauflow.analysis import eigenvalues, singular_values, spectral_abscissa
from tauflow.low_rank import LowRank

#: Dimensions of a weight by the name of its field, after (run, snapshot).
WEIGHT_DIMS = {"W": ("unit", "unit_pre"), "W_in": ("unit", "input"), "W_out": ("output", "unit")}
WEIGHT_FIELDS = tuple(WEIGHT_DIMS)
_LEARNING_DIMS = ("update", "snapshot", "measurement")
_SPECTRA = {"delta_W_singular_values": "singular values of Δ{}", "W_eigenvalues": "eigenvalues of {}"}


class Recorder:
    """Collects what `networks` (one per member, on the host) go through, as datasets that can be put end to end."""

    def __init__(self, initial: Sequence[Any], fields: Sequence[str], probes: Mapping[str, Callable[[Any], Any]]):
        self._W0 = [recurrent(network) if _has_dense_W(network) else None for network in initial]
        self._matrix = matrix_name(initial[0])
        absent = (type(None), LowRank)  # weights kept as factors are recorded under the names of their own
        self._fields = [
            name for name in dict.fromkeys(fields) if not isinstance(getattr(initial[0], name, None), absent)
        ]
        self._probes = dict(probes)
        self._probe_shapes: dict[str, tuple[int, ...]] = {}
        self._blocks: list[xr.Dataset] = []

    def add_losses(self, first: int, loss: np.ndarray, grad_norm: np.ndarray) -> None:
        """Losses and gradient norms of updates `first`, `first` + 1, …, each (run, update)."""
        if loss.shape[1]:
            data = {"loss": (("run", "update"), loss), "grad_norm": (("run", "update"), grad_norm)}
            self._blocks.append(xr.Dataset(data, {"update": np.arange(first, first + loss.shape[1])}))

    def keep_weights(self, update: int, networks: Sequence[Any], alive: np.ndarray) -> None:
        """Keep the weights of all members after `update` updates; NaN for those that have stopped."""
        data = {}
        for name in self._fields:
            stack = np.stack([np.asarray(getattr(network, name)) for network in networks])[:, None]
            stack = np.where(alive.reshape(-1, *[1] * (stack.ndim - 1)), stack, stack.dtype.type(np.nan))
            inner = WEIGHT_DIMS.get(name, tuple(f"{name}_{axis}" for axis in range(stack.ndim - 2)))
            data[name] = (("run", "snapshot", *inner), stack)
        self._blocks.append(xr.Dataset(data, {"snapshot_update": ("snapshot", [update])}))

    def measure(self, update: int, networks: Sequence[Any], alive: np.ndarray) -> None:
        """Measure spectra and probes of all members after `update` updates; NaN for those that have stopped."""
        pairs = zip(self._W0, networks, strict=True)  # made here: JAX's precision is a setting of each thread
        matrices = [None if W0 is None else recurrent(network) for W0, network in pairs]
        with threadpool_limits(1), ThreadPoolExecutor(os.cpu_count()) as pool:  # a core a member beats cores on one
            rows = list(pool.map(_spectra, self._W0, matrices))
        for row, network in zip(rows, networks, strict=True):
            for name, probe in self._probes.items():
                row[f"probe_{name}"] = self._probed(name, probe(network))
        data = {}
        for name in rows[0]:
            stack = np.stack([row[name] for row in rows])[:, None]
            stack = stack if stack.dtype.kind in "fc" else stack.astype(np.float64)
            stack[~alive] = np.nan
            named = (f"{name}_{axis}" for axis in range(stack.ndim - 2))
            inner, attributes = (("index",), self._described(name)) if name in _SPECTRA else (tuple(named), {})
            data[name] = (("run", "measurement", *inner), stack, attributes)
        self._blocks.append(xr.Dataset(data, {"measurement_update": ("measurement", [update])}))

    def _described(self, spectrum: str) -> dict[str, str]:
        return {"long_name": _SPECTRA[spectrum].format(self._matrix), "matrix": self._matrix}

    def _probed(self, name: str, value: Any) -> np.ndarray:
        array = np.asarray(value)
        shape = self._probe_shapes.setdefault(name, array.shape)
        if array.dtype.kind not in "biufc" or array.shape != shape:
            raise ValueError(
                f"probe {name!r} gave an array of {array.dtype} with shape {array.shape}; it must give numbers, "
                f"always of one shape, which was {shape} at first."
            )
        return array

    def seen(self) -> xr.Dataset:
        """Everything recorded since the last `take`, as one dataset."""
        return joined(self._blocks)

    def take(self) -> xr.Dataset:
        """Everything recorded since the last call, as one dataset."""
        blocks, self._blocks = self._blocks, []
        return joined(blocks)


def _spectra(W0: np.ndarray | None, W: np.ndarray | None) -> dict[str, np.ndarray]:
    if W0 is None or W is None:
        return {}
    if not np.isfinite(W).all():  # a member that came with weights that are no numbers
        nothing = np.full(W.shape[0], np.nan)
        return {"delta_W_singular_values": nothing, "W_eigenvalues": nothing.astype(np.complex128)}
    return {"delta_W_singular_values": singular_values(W - W0), "W_eigenvalues": eigenvalues(W)}


def recurrent(network: Any) -> np.ndarray:
    """The matrix that multiplies the state, in float64: `network.recurrent` where the network has it, else W."""
    return np.asarray(getattr(network, "recurrent", network.W), np.float64)


def matrix_name(network: Any) -> str:
    """What `recurrent` gives, as a label shows it."""
    return "W/√N" if hasattr(network, "recurrent") else "W"


def _has_dense_W(network: Any) -> bool:
    W = getattr(network, "W", None)
    if W is None or isinstance(W, LowRank):
        return False
    return np.ndim(W) == 2 and np.shape(W)[0] == np.shape(W)[1]


def joined(blocks: Sequence[xr.Dataset]) -> xr.Dataset:
    """Datasets that follow each other in learning, put end to end along each learning dimension."""
    result = xr.Dataset()
    for dim in _LEARNING_DIMS:
        pieces = [block.drop_dims([d for d in _LEARNING_DIMS if d != dim], errors="ignore") for block in blocks]
        pieces = [piece for piece in pieces if dim in piece.dims]
        if pieces:
            result = result.merge(xr.concat(pieces, dim=dim, coords="minimal", compat="override", join="exact"))
    return result


def spectral_abscissa_of(network: Any) -> float:
    """Largest real part of the eigenvalues of the matrix that multiplies the state; NaN without a finite dense W."""
    if not _has_dense_W(network) or not np.isfinite(np.asarray(network.W)).all():
        return float("nan")
    return float(spectral_abscissa(recurrent(network)))
