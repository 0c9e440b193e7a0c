"""What a Run says, in the form that pictures need: axes with units, members with names, spread over the seeds."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

THRESHOLD = 0.05
"""Fraction of the initial loss that the dotted line marks, unless the measures carry another as attribute."""

_TAU_LABELS = {
    "flow": "learning time τ (sum of learning rates)",
    "update": "learning time τ (updates)",
    "trial": "learning time τ (trials)",
    "session": "learning time τ (sessions)",
    "checkpoint": "learning time τ (checkpoints)",
}
_TAU = {"update": "tau", "measurement": "tau_measurement"}


def dataset(run: Any) -> xr.Dataset:
    """The dataset of a Run, or the dataset itself."""
    return run if isinstance(run, xr.Dataset) else run.data


def settings(data: xr.Dataset) -> dict[str, Any]:
    """The configuration that the Run carries."""
    return json.loads(data.attrs.get("configuration", "{}"))


def network_name(data: xr.Dataset) -> str:
    """Name of the kind of network."""
    return str(json.loads(data.attrs.get("network", "{}")).get("name", "recurrent"))


def matrix_name(data: xr.Dataset) -> str:
    """The matrix whose spectra were recorded, as a label shows it: W, or W/√N."""
    spectra = [data[name] for name in ("W_eigenvalues", "delta_W_singular_values") if name in data]
    return next((str(each.attrs["matrix"]) for each in spectra if "matrix" in each.attrs), "W")


def position_word(data: xr.Dataset) -> str:
    """What counts positions in learning: updates, or the saved points of a flow."""
    return "point" if data.attrs.get("kind") == "flow" else "update"


class Axis(NamedTuple):
    """Learning time of every member.

    Attributes:
        values: Shape (run, k), in `unit`.
        label: Axis label with its unit.
        unit: "flow", "update", "trial", "session" or "checkpoint".
        shared: Whether all members have the same values, so that they can be averaged.
    """

    values: np.ndarray
    label: str
    unit: str
    shared: bool


def learning_axis(data: xr.Dataset, dim: str) -> Axis:
    """Learning time along `dim`, which is "update" or "measurement"."""
    tau = data[_TAU[dim]]
    values = np.asarray(tau.values, dtype=float)  # (run, k)
    known = np.where(np.isfinite(values), values, np.nan)
    spread = [np.ptp(column[np.isfinite(column)]) for column in known.T if np.isfinite(column).any()]
    size = np.nanmax(np.abs(known), initial=0.0)
    shared = max(spread, default=0.0) <= 1e-9 * size
    unit = str(tau.attrs.get("unit", "update"))
    label = _TAU_LABELS.get(unit, f"learning time τ ({unit})")
    label = "learning time τ (gradient flow)" if data.attrs.get("kind") == "flow" else label
    return Axis(values, label, unit, bool(shared))


def shared_values(axis: Axis) -> np.ndarray:
    """The one learning time of all members, from those that got furthest, shape (k,)."""
    counts = np.isfinite(axis.values).sum(axis=1)
    return axis.values[int(np.argmax(counts))]


@dataclass(frozen=True)
class Member:
    """One network of an ensemble, in words.

    Attributes:
        label: Short name, for example "seed 3" or "seed 3, gain 0.9".
        status: "done", "diverged" or "interrupted".
        note: What became of it in words, empty for one that is done.
        gain: Radius g of the disk that W₀'s eigenvalues fill; None where unknown.
        stopped_at: Update at which it stopped, None where it did not.
    """

    label: str
    status: str
    note: str
    gain: float | None
    stopped_at: int | None

    @property
    def title(self) -> str:
        """Label, and the status of one that is not done."""
        return self.label if self.status == "done" else f"{self.label} ({self.status})"

    @property
    def name(self) -> str:
        """Label and note together."""
        return f"{self.label} ({self.note})" if self.note else self.label


def members(run: Any, configuration: Mapping[str, Any] | None = None) -> tuple[Member, ...]:
    """All members of a Run, named by their seed and by whatever differs between them.

    Args:
        run: A Run or its dataset.
        configuration: Where to look for the gain when the Run has no such label; the Run's own by default.
    """
    data = dataset(run)
    count = data.sizes["run"]
    gains = _gains(data, configuration)
    labels = [f"seed {seed}" for seed in data["seed"].values.tolist()]
    for name in _varying(data):
        words = [number(v) if isinstance(v, float) else str(v) for v in data[name].values.tolist()]
        labels = [f"{label}, {name} {word}" for label, word in zip(labels, words, strict=True)]
    if len(set(labels)) < count:
        labels = [f"{label}, member {position}" for position, label in enumerate(labels)]
    out = []
    for i in range(count):
        status, stop = str(data["status"].values[i]), int(data["stopped_at"].values[i])
        out.append(Member(labels[i], status, _note(data, i, status, stop), gains[i], stop if stop >= 0 else None))
    return tuple(out)


def _varying(data: xr.Dataset) -> list[str]:
    """Labels of the grid along `run` that differ between members."""
    skip = {"seed", "run", "status", "stopped_at"}
    names = [str(name) for name, c in data.coords.items() if c.dims == ("run",) and name not in skip]
    return [name for name in names if len(set(data[name].values.tolist())) > 1]


def _note(data: xr.Dataset, i: int, status: str, stop: int) -> str:
    if status == "done":
        return ""
    text = status + (f" at {position_word(data)} {stop}" if stop >= 0 else "")
    for name, words in (
        ("diverged_grad_norm", "gradient norm"),
        ("diverged_spectral_abscissa", f"largest real part of the eigenvalues of {matrix_name(data)}"),
    ):
        if status == "diverged" and name in data and np.isfinite(data[name].values[i]):
            text += f", {words} {number(data[name].values[i])}"
    return text


def _gains(data: xr.Dataset, configuration: Mapping[str, Any] | None) -> list[float | None]:
    count = data.sizes["run"]
    if "gain" in data.variables and data["gain"].dims == ("run",):
        return [float(g) for g in data["gain"].values]
    found = configuration or settings(data)
    network = found.get("network")
    for place in (found, network if isinstance(network, Mapping) else {}):
        gain = place.get("gain")
        if isinstance(gain, (int, float)) and not isinstance(gain, bool):
            return [float(gain)] * count
    return [None] * count


def first_done(run: Any) -> int:
    """Position of the first member that finished; 0 if none did."""
    status = [str(each) for each in dataset(run)["status"].values]
    return status.index("done") if "done" in status else 0


class Spread(NamedTuple):
    """Median and quartiles over the members that did not diverge; NaN where none has a value.

    Attributes:
        median: Shape (...).
        low: Lower quartile, shape (...).
        high: Upper quartile, shape (...).
        members: How many were counted.
    """

    median: np.ndarray
    low: np.ndarray
    high: np.ndarray
    members: int


def spread(values: np.ndarray, keep: np.ndarray | None = None) -> Spread:
    """Median and quartiles along the first axis.

    Args:
        values: Shape (run, ...); NaN and infinite values are left out.
        keep: Members to count, shape (run,); all by default.

    Example:
        >>> s = spread(np.array([[1.0, np.nan], [3.0, np.nan], [2.0, 5.0]]))
        >>> s.median.tolist(), s.members
        ([2.0, 5.0], 3)
    """
    values = np.asarray(values, dtype=float)
    values = values if keep is None else values[np.asarray(keep, dtype=bool)]
    values = np.where(np.isfinite(values), values, np.nan)
    flat = values.reshape(len(values), -1)
    out = np.full((3, flat.shape[1]), np.nan)
    some = np.isfinite(flat).any(axis=0) if len(flat) else np.zeros(flat.shape[1], dtype=bool)
    if some.any():
        out[:, some] = np.nanpercentile(flat[:, some], [50.0, 25.0, 75.0], axis=0)
    median, low, high = out.reshape(3, *values.shape[1:])
    return Spread(median, low, high, len(values))


def not_diverged(run: Any) -> np.ndarray:
    """Which members count in a median, shape (run,); if all diverged, all do."""
    keep = np.array([str(each) != "diverged" for each in dataset(run)["status"].values])
    return keep if keep.any() else np.ones_like(keep)


class Curve(NamedTuple):
    """One prediction of one theory for one member.

    Attributes:
        label: The theory's name.
        values: Shape (k,) or (k, index); complex where the quantity is.
        band: Half-width of the error that it states, shape as `values`, or None for an exact result.
    """

    label: str
    values: np.ndarray
    band: np.ndarray | None


def predictions(overlays: Sequence[Any], variable: str, member: int) -> list[Curve]:
    """What the theories that apply predict of `variable` for one member.

    Args:
        overlays: Objects with `theory_name` and `prediction` (a dataset in the run's own names, or None).
        variable: Name of the variable, for example "loss".
        member: Position along `run`.
    """
    out = []
    for overlay in overlays:
        prediction = overlay.prediction
        if prediction is None or variable not in prediction:
            continue
        values = np.asarray(prediction[variable].values[member])
        values = values if np.iscomplexobj(values) else values.astype(float)
        name = f"{variable}_band"
        band = np.asarray(prediction[name].values[member], dtype=float) if name in prediction else None
        out.append(Curve(str(overlay.theory_name), values, band))
    return out


class Probe(NamedTuple):
    """One real quantity that was probed over learning: a recorded one, or a part of a complex one.

    Attributes:
        name: Variable of the Run, for example "probe_coupling".
        label: Axis label.
        values: Shape (run, measurement, k), real.
        part: What makes of the variable, or of a prediction of it, this real quantity.
    """

    name: str
    label: str
    values: np.ndarray
    part: Callable[[np.ndarray], np.ndarray]


MOST_NUMBERS = 8
"""A probe of more numbers than these is no line to draw."""


def probes(data: xr.Dataset) -> list[Probe]:
    """All probes that are numbers or a few numbers; of a complex one the real and the imaginary part."""
    out = []
    for name, array in data.data_vars.items():
        if not str(name).startswith("probe_") or array.dims[:2] != ("run", "measurement"):
            continue
        values = array.values.reshape(*array.shape[:2], -1)
        if values.shape[-1] > MOST_NUMBERS or not values.size:
            continue
        label = str(name).removeprefix("probe_").replace("_", " ")
        if np.iscomplexobj(values):
            out += [Probe(str(name), f"{kind} part of {label}", part(values), part) for kind, part in _PARTS]
        else:
            out.append(Probe(str(name), label, values.astype(float), np.real))
    return out


_PARTS = (("real", np.real), ("imaginary", np.imag))


def number(value: Any, digits: int = 3) -> str:
    """A number as a sentence wants it: three significant digits, no idle zeros, a proper minus.

    Example:
        >>> number(0.9), number(0.000123456), number(-12.0), number(float("nan")), number(1e-9), number(1234567.0)
        ('0.9', '0.000123', '−12', '—', '1.00×10⁻⁹', '1.23×10⁶')
    """
    text = fixed(value, digits)
    return text.rstrip("0").rstrip(".") if "." in text and "×" not in text else text


def fixed(value: Any, digits: int = 3) -> str:
    """A number as a table wants it: three significant digits, also where the last are zeros; whole numbers whole.

    Example:
        >>> fixed(0.9), fixed(2.0), fixed(float("inf")), fixed(40123.4)
        ('0.900', '2', '∞', '40123')
    """
    x = float(value)
    if not np.isfinite(x):
        return "—" if np.isnan(x) else ("∞" if x > 0 else "−∞")
    if x == int(x) and abs(x) < 1e6:
        return str(int(x)).replace("-", "−")
    if not 1e-4 <= abs(x) < 1e6:
        mantissa, exponent = f"{x:.{digits - 1}e}".split("e")
        power = str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
        return f"{mantissa}×10{power}".replace("-", "−")
    places = max(0, digits - 1 - int(np.floor(np.log10(abs(x)))))
    return f"{x:.{places}f}".replace("-", "−")
