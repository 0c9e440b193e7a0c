"""What the page's script draws, as plain values for JSON: rounded, thinned where a screen cannot show more."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import xarray as xr

from tauflow.plots import drawing, reading, style

DIGITS = 5
LOSS_POINTS = 2000  # per member: more than a screen has columns
SINGULAR_VALUES = 64  # per spectrum
PATHS = 8  # singular values drawn over learning
SPECTRUM_NUMBERS = 1_500_000  # of all eigenvalues together; beyond it every k-th measurement is kept
_RANK_TICKS = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)


def payload(
    run: Any, measures: xr.Dataset, overlays: Sequence[Any], members: Sequence[reading.Member]
) -> dict[str, Any]:
    """All data of the page.

    Args:
        run: A Run or its dataset.
        measures: The study's measures; what is not there is left out.
        overlays: Theories' overlays.
        members: The Run's members, from `reading.members`.
    """
    data = reading.dataset(run)
    who = [{"label": m.label, "name": m.name, "status": m.status, "note": m.note, "gain": m.gain} for m in members]
    return {
        "members": who,
        "first": reading.first_done(run),
        "colours": colours(),
        "loss": _loss(data, measures, overlays) if "loss" in data else None,
        "spectra": _spectra(data, measures, overlays) if "measurement" in data.dims else None,
        "matrix": reading.matrix_name(data),
        "probes": _probes(data, overlays),
        "filter": _filter(measures) if "filter_final" in measures else None,
        "truncation": _truncation(run, measures) if "truncated_loss_delta_W" in measures else None,
        "trials": _trials(measures) if "example_outputs" in measures else None,
    }


def to_script(value: Any) -> str:
    """JSON that can stand inside a <script> element: nothing in it can end the element or the line.

    Example:
        >>> to_script({"label": "</script>", "x": [1.0, None]})
        '{"label":"\\\\u003c/script\\\\u003e","x":[1.0,null]}'
    """
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def rounded(values: Any) -> Any:
    """Numbers as nested lists of `DIGITS` significant digits; what is not finite is None.

    Example:
        >>> rounded(np.array([[0.123456789, np.nan], [2.0, 1e-9]]))
        [[0.12346, None], [2.0, 1e-09]]
    """
    if isinstance(values, np.ndarray) and values.ndim:
        return [rounded(row) for row in values] if values.ndim > 1 else [_rounded(x) for x in values.tolist()]
    return _rounded(float(values))


def _rounded(x: float) -> float | None:
    return float(f"{x:.{DIGITS}g}") if np.isfinite(x) else None


def colours() -> dict[str, Any]:
    """The house's colours by name, for the script of a page."""
    names = ("INK", "GREY", "PALE", "BLUE", "ORANGE", "GREEN", "THEORY", "TARGET", "WEIGHT_CHANGE", "WEIGHTS")
    named: dict[str, Any] = {name.lower(): getattr(style, name) for name in names}
    return named | {"cycle": list(style.CYCLE), "sequence": style.sequential(PATHS)}


def _axis(axis: reading.Axis, kept: np.ndarray) -> dict[str, Any]:
    """Learning time of each member, once if all have the same."""
    values = reading.shared_values(axis)[None] if axis.shared else axis.values
    return {"label": axis.label, "unit": axis.unit, "values": rounded(values[:, kept])}


def _overlays(
    overlays: Sequence[Any], variable: str, count: int, kept: np.ndarray, part: Callable[..., Any] = np.real
) -> list[dict[str, Any]]:
    """Predictions by theory, each a list over members of curves (index, k), so that a curve is one line."""
    out: dict[str, dict[str, Any]] = {}
    for i in range(count):
        for curve in reading.predictions(overlays, variable, i):
            entry = out.setdefault(curve.label, {"label": curve.label, "low": [], "high": [], "values": []})
            lines = part(curve.values).reshape(len(curve.values), -1)[kept].T  # (index, k)
            entry["values"].append(rounded(lines))
            if curve.band is not None:
                half = curve.band.reshape(len(curve.band), -1)[kept].T
                entry["low"].append(rounded(lines - half))
                entry["high"].append(rounded(lines + half))
    for entry in out.values():  # once, where it is the same for all members; the script then takes the last
        for name in ("values", "low", "high"):
            entry[name] = entry[name][:1] if all(each == entry[name][0] for each in entry[name]) else entry[name]
    return list(out.values())


def _thinned(length: int, most: int) -> np.ndarray:
    """At most about `most` positions of `length`, evenly, with the first and the last."""
    step = max(1, -(-length // most))
    return np.unique(np.append(np.arange(0, length, step), max(length - 1, 0))) if length else np.arange(0)


def _loss(data: xr.Dataset, measures: xr.Dataset, overlays: Sequence[Any]) -> dict[str, Any]:
    values = drawing.positive(data["loss"].values)  # (run, update)
    axis = reading.learning_axis(data, "update")
    kept = _thinned(values.shape[1], LOSS_POINTS)
    keep = reading.not_diverged(data)
    bounds = _bounds(values[keep])
    out: dict[str, Any] = {
        "axis": _axis(axis, kept),
        "values": rounded(values[:, kept]),
        "range": bounds,
        "thinned": len(kept) < values.shape[1],
        "stops": [_stop(axis.values[i], values[i], bounds) for i in range(len(values))],
        "overlays": _overlays(overlays, "loss", len(values), kept),
        "reference": _reference(measures),
        "spread": None,
    }
    if axis.shared and keep.sum() > 1:
        whole = reading.spread(values, keep)
        names = ("median", "low", "high")
        out["spread"] = {"count": whole.members} | {name: rounded(getattr(whole, name)[kept]) for name in names}
    return out


def _bounds(values: np.ndarray) -> list[float] | None:
    """Limits of a log axis that shows all values, as powers of ten."""
    known = values[np.isfinite(values)]
    return [float(np.log10(known.min() / 1.6)), float(np.log10(known.max() * 1.6))] if known.size else None


def _reference(measures: xr.Dataset) -> dict[str, Any] | None:
    """The dotted line: a fraction of the median initial loss."""
    if "initial_loss" not in measures:
        return None
    threshold = measures.attrs.get("threshold", reading.THRESHOLD)
    initial = reading.spread(measures["initial_loss"].values).median
    return {"value": rounded(threshold * initial), "label": f"{100 * threshold:g} % of initial loss"}


def _stop(tau: np.ndarray, values: np.ndarray, bounds: list[float] | None) -> list[float | None] | None:
    """Where a member's line ends, moved to the edge of the plot if it ends outside."""
    known = np.flatnonzero(np.isfinite(tau) & np.isfinite(values))
    if not known.size:
        return None
    last = float(np.log10(values[known[-1]]))
    if bounds:  # a little inside, or the script's rounding would hide it
        inside = 0.04 * (bounds[1] - bounds[0])
        last = float(np.clip(last, bounds[0] + inside, bounds[1] - inside))
    return [rounded(tau[known[-1]]), rounded(10**last)]


def _spectra(data: xr.Dataset, measures: xr.Dataset, overlays: Sequence[Any]) -> dict[str, Any] | None:
    name = "delta_W_singular_values"
    if name not in data and "W_eigenvalues" not in data:
        return None
    size = data["W_eigenvalues"].size if "W_eigenvalues" in data else 0
    length = data.sizes["measurement"]
    kept = _thinned(length, max(2, int(length * min(1.0, SPECTRUM_NUMBERS / max(size, 1)))))
    updates = data["measurement_update"].values
    out: dict[str, Any] = {
        "axis": _axis(reading.learning_axis(data, "measurement"), kept),
        "updates": updates[kept].tolist(),
        "last": int(updates[-1]),
        "word": reading.position_word(data),
        "singular": None,
        "eigenvalues": None,
        "outliers": None,
        "overlays": [],
    }
    if name in data:
        out["singular"] = rounded(data[name].values[:, kept, :SINGULAR_VALUES])
        out["of"] = data[name].sizes["index"]
        out["overlays"] = _overlays(overlays, name, data.sizes["run"], kept)
    if "W_eigenvalues" in data:
        out["eigenvalues"] = [[_half(each) for each in member] for member in data["W_eigenvalues"].values[:, kept]]
    if "outliers" in measures:
        out["outliers"] = [_points(each[np.isfinite(each)]) for each in measures["outliers"].values]
    return out


def _probes(data: xr.Dataset, overlays: Sequence[Any]) -> dict[str, Any] | None:
    """Every probe as lines over learning, (run, curve, k), with what theories predict for it."""
    found = reading.probes(data)
    if not found:
        return None
    kept, count = _thinned(data.sizes["measurement"], LOSS_POINTS), data.sizes["run"]
    panels = [
        {
            "label": each.label,
            "values": rounded(each.values[:, kept].swapaxes(1, 2)),
            "overlays": _overlays(overlays, each.name, count, kept, each.part),
        }
        for each in found
    ]
    return {"axis": _axis(reading.learning_axis(data, "measurement"), kept), "panels": panels}


def _filter(measures: xr.Dataset) -> dict[str, Any]:
    """Impulse responses before and after learning, (run, time), and the target's."""
    names = ("target", "initial", "final")
    return {
        "label": drawing.time_label(measures, "time since the impulse"),
        "time": rounded(np.asarray(measures["time"].values, float)),
        **{name: rounded(np.asarray(measures[f"filter_{name}"].values, float)) for name in names},
    }


def _points(values: np.ndarray) -> list[list[float | None]]:
    return [rounded(np.asarray(values.real, float)), rounded(np.asarray(values.imag, float))]


def _half(values: np.ndarray) -> list[Any]:
    """Eigenvalues as [real, imaginary, mirrored]: of a real matrix those with Im >= 0, which the script mirrors."""
    values = values[np.isfinite(values)]
    above, below = values[values.imag > 0], values[values.imag < 0]
    mirrored = len(above) == len(below) and np.allclose(np.sort(above), np.sort(below.conj()), rtol=1e-6, atol=1e-9)
    return [*_points(values[values.imag >= 0] if mirrored else values), int(mirrored)]


def _truncation(run: Any, measures: xr.Dataset) -> dict[str, Any]:
    ranks = measures["rank"].values
    many = bool(ranks.max(initial=0) > drawing.LINEAR_RANKS)
    out: dict[str, Any] = {
        "ranks": ranks.tolist(),
        "log": many,
        "ticks": [r for r in _RANK_TICKS if r <= ranks.max(initial=0)] if many else None,
        "curves": {},
        "reference": _reference(measures),
    }
    drawn = []
    for name in ("delta_W", "W"):
        values = drawing.positive(measures[f"truncated_loss_{name}"].values)
        whole = reading.spread(values, reading.not_diverged(run))
        out["curves"][name] = {"values": rounded(values), "median": rounded(whole.median)}
        drawn.append(values)
    return out | {"range": _bounds(np.concatenate(drawn))}


def _trials(measures: xr.Dataset) -> dict[str, Any]:
    time = np.asarray(measures["time"].values, dtype=float)
    mask = measures["example_mask"].values  # (time, output)
    targets = np.where(mask > 0, measures["example_targets"].values, np.nan)
    return {
        "label": drawing.time_label(measures),
        "time": rounded(time),
        "inputs": rounded(np.asarray(measures["example_inputs"].values, float).T),
        "targets": rounded(targets.T),
        "outputs": rounded(np.asarray(measures["example_outputs"].values, float).swapaxes(1, 2)),
        "counted": [drawing.stretches(time, channel) for channel in mask.T],
    }
