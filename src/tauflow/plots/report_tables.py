"""The parts of the page that are text and tables: what was measured, what theory says, how it was made."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
import xarray as xr

from tauflow.plots import reading
from tauflow.plots.reading import fixed, number

Row = tuple[str, str, str]  # variable, name, explanation

_ROWS: tuple[Row, ...] = (
    ("initial_loss", "Loss before learning", ""),
    ("final_loss", "Loss after learning", ""),
    ("updates_to_threshold", "Updates to {threshold} of the initial loss", "Counted on the training loss."),
    ("tau_to_threshold", "Learning time τ to {threshold} of the initial loss", "The first saved point below it."),
    (
        "functional_rank_delta_W",
        "Functional rank of ΔW",
        "The smallest rank to which ΔW can be cut, W₀ kept, with the loss still below {threshold} of the initial one.",
    ),
    ("functional_rank_W", "Functional rank of W", "The same, but the whole of W is cut."),
    (
        "singular",
        "First singular values of Δ{matrix}",
        "s₁, s₂, s₃ at the end: sizes of the strongest directions of change.",
    ),
    ("outliers", "Eigenvalue outliers of {matrix}", "Eigenvalues clearly outside the circle: |λ| > max(1.1 g, 0.05)."),
    ("delta_W_norm", "‖Δ{matrix}‖", "Frobenius norm: the size of the whole change of {matrix}."),
    (
        "shuffled_loss",
        "Loss after shuffling W₀",
        "Entries of W₀ permuted, ΔW kept. If the loss is large again, ΔW needs this very W₀.",
    ),
)


def measures_table(measures: xr.Dataset, data: xr.Dataset, members: Sequence[reading.Member]) -> str:
    """The table of measures: one row each, the median first, then every member.

    Args:
        measures: The study's measures; rows that are not there are left out.
        data: The Run's dataset.
        members: The Run's members.
    """
    several = len(members) > 1
    words = {"matrix": reading.matrix_name(data)}
    words["threshold"] = f"{100 * measures.attrs.get('threshold', reading.THRESHOLD):g} %"
    keep = reading.not_diverged(data)
    head = "".join(
        f'<th scope="col" data-member="{i}">{escape(m.label)}{_status(m)}</th>' for i, m in enumerate(members)
    )
    median = '<th scope="col" class="median">median</th>' if several else ""
    rows = []
    for name, title, gloss in _ROWS:
        cells = _cells(name, measures, data)
        if cells is None:
            continue
        texts, middle = cells
        small = f"<small>{escape(gloss.format(**words))}</small>" if gloss else ""
        row = f'<th scope="row">{escape(title.format(**words))}{small}</th>'
        row += f'<td class="median">{middle(keep)}</td>' if several else ""
        row += "".join(f'<td data-member="{i}">{text}</td>' for i, text in enumerate(texts))
        rows.append(f"<tr>{row}</tr>")
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="Measures of every network">'
        f'<table class="measures"><thead><tr><td></td>{median}{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _status(member: reading.Member) -> str:
    return f'<br><span class="bad">{escape(member.status)}</span>' if member.status != "done" else ""


def _cells(name: str, measures: xr.Dataset, data: xr.Dataset) -> tuple[list[str], Callable[[np.ndarray], str]] | None:
    """Texts of a row for every member, and the function that gives the median's text."""
    if name == "singular":
        return _singular_cells(measures, data)
    if name not in measures:
        return None
    values = measures[name].values
    if name == "outliers":
        counts = np.isfinite(values).sum(axis=1)
        known = data["status"].values != "diverged"
        texts = [_outliers(each) if ok else "—" for each, ok in zip(values, known, strict=True)]
        return texts, lambda keep: f"{number(np.median(counts[keep]))}"
    missing = _missing(name, measures)
    gone = data["status"].values == "diverged"
    texts = [missing if np.isnan(v) and not out else fixed(v) for v, out in zip(values, gone, strict=True)]
    return texts, lambda keep: _median(values, keep, missing)


def _missing(name: str, measures: xr.Dataset) -> str:
    if name in ("updates_to_threshold", "tau_to_threshold"):
        return "not reached"
    if name.startswith("functional_rank") and "rank" in measures.coords:
        return f"none up to {int(measures['rank'].values.max())}"
    return "—"


def _median(values: np.ndarray, keep: np.ndarray, missing: str) -> str:
    """The median over those that have a value, with their number where some have none."""
    kept = np.asarray(values, dtype=float)[keep]
    some = kept[~np.isnan(kept)]
    if not some.size:
        return missing
    few = f"<small>of {some.size} of {kept.size}</small>" if some.size < kept.size else ""
    return fixed(np.median(some)) + few


def _singular_cells(measures: xr.Dataset, data: xr.Dataset) -> tuple[list[str], Callable[[np.ndarray], str]] | None:
    if "final_delta_W_singular_values" in measures:
        last = np.asarray(measures["final_delta_W_singular_values"].values[:, :3], dtype=float)
    elif "delta_W_singular_values" in data:
        last = np.asarray(data["delta_W_singular_values"].values[:, -1, :3], dtype=float)
    else:
        return None

    def line(values: np.ndarray) -> str:
        return "—" if np.isnan(values).all() else "<br>".join(fixed(v) for v in values)

    return [line(each) for each in last], lambda keep: line(reading.spread(last, keep).median)


def _outliers(values: np.ndarray) -> str:
    """Number of outliers, and the first few of them, a conjugate pair as one."""
    values = values[np.isfinite(values)]
    values = values[np.argsort(-np.abs(values), kind="stable")]
    words = []
    for value in values[values.imag >= 0]:
        pair = f" ± {number(value.imag)}i" if value.imag > 0 else ""
        words.append(number(value.real) + pair)
    more = "<br>…" if len(words) > 3 else ""
    return f"{len(values)}" + (f"<small>{'<br>'.join(words[:3])}{more}</small>" if words else "")


def theory_section(overlay: Any) -> str:
    """One theory: whether it applies, and every assumption with what was measured and what is allowed."""
    applies = overlay.prediction is not None
    failing = [each for each in overlay.assumptions if not each.holds]
    holding = [each for each in overlay.assumptions if each.holds]
    mark = '<span class="good">✓ applies</span>' if applies else '<span class="bad">✗ does not apply</span>'
    title = f"<h3>{escape(str(overlay.theory_name))}</h3><span>{escape(str(overlay.paper))}</span>{mark}"
    if applies:
        says = "All its assumptions hold. Its predictions are the dashed lines above, as far as it reaches"
        banded = [name for name in overlay.prediction.data_vars if str(name).endswith("_band")]
        says += "; the grey bands are the error that it states for itself." if banded else "."
        body = f"<p>{says}</p>{_folded(_count(holding, 'assumption') + ', measured', holding)}"
    else:
        count = f"{len(failing)} of its {_count(overlay.assumptions, 'assumption')}"
        verb = "fails" if len(failing) == 1 else "fail"
        body = f"<p>{count} {verb}, so nothing is drawn:</p>{_assumptions(failing)}" if failing else ""
        if holding:
            verb = "holds" if len(holding) == 1 else "hold"
            body += _folded(f"{_count(holding, 'assumption')} that {verb}", holding)
    return f'<article class="theory"><header>{title}</header>{body}</article>'


def _count(things: Sequence[Any], name: str) -> str:
    return f"{len(things)} {name}{'' if len(things) == 1 else 's'}"


def _folded(summary: str, assumptions: Sequence[Any]) -> str:
    return f"<details><summary>{summary}</summary>{_assumptions(assumptions)}</details>"


def _assumptions(assumptions: Sequence[Any]) -> str:
    rows = []
    for each in assumptions:
        mark = '<span class="good">✓</span>' if each.holds else '<span class="bad">✗</span>'
        holds = "holds" if each.holds else "fails"
        rows.append(
            f'<tr><th scope="row"><span role="img" aria-label="{holds}">{mark}</span> {escape(str(each.name))}</th>'
            f'<td class="figure" data-name="measured">{escape(number(each.measured))}</td>'
            f'<td class="figure" data-name="limit">{escape(number(each.limit))}</td>'
            f'<td class="said">{escape(str(each.sentence))}</td></tr>'
        )
    head = '<th scope="col">Assumption</th><th scope="col" class="figure">Measured</th>'
    head += '<th scope="col" class="figure">Limit</th><th scope="col">In words</th>'
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def provenance(data: xr.Dataset, configuration: Mapping[str, Any]) -> str:
    """How the run came about: every setting, the seeds, the machine, the date and all versions."""
    attributes = data.attrs
    made = {
        "date": str(attributes.get("created", "—")).replace("T", " ").replace("+00:00", " UTC"),
        "machine": attributes.get("device", "—"),
        "kind of run": attributes.get("kind", "—"),
    }
    if "seed" in data:
        made["seed of the run"] = attributes.get("seed", "—")
        made["seeds of the networks"] = ", ".join(str(seed) for seed in data["seed"].values.tolist())
    network = json.loads(attributes.get("network", "{}"))
    made |= {"network": network.get("name", "—"), **dict(flattened(network.get("static", {}), "network "))}
    versions = json.loads(attributes.get("versions", "{}"))
    raw = escape(json.dumps(configuration, indent=2, default=str, ensure_ascii=False))
    return (
        f'<div class="made"><div><h3>Settings</h3>{_list(dict(flattened(configuration)))}</div>'
        f"<div><h3>This run</h3>{_list(made)}<h3>Versions</h3>{_list(versions)}</div></div>"
        f"<details><summary>The settings as JSON</summary><pre>{raw}</pre></details>"
    )


def flattened(settings: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested settings as pairs of a dotted name and a text.

    Example:
        >>> list(flattened({"task": {"name": "romo", "delays": [1, 2]}, "gain": 0.9}))
        [('task name', 'romo'), ('task delays', '1, 2'), ('gain', '0.9')]
    """
    for name, value in settings.items():
        label = f"{prefix}{name}".replace("_", " ")
        if isinstance(value, Mapping):
            yield from flattened(value, f"{label} ")
        elif isinstance(value, (list, tuple)):
            yield label, ", ".join(str(each) for each in value)
        else:
            yield label, "—" if value is None else (f"{value:.6g}" if isinstance(value, float) else str(value))


def _list(pairs: Mapping[str, Any]) -> str:
    return "<dl>" + "".join(f"<dt>{escape(str(k))}</dt><dd>{escape(str(v))}</dd>" for k, v in pairs.items()) + "</dl>"
