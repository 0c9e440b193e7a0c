"""What the script of a fit's page draws, as plain values for JSON."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from tauflow.plots.fit_figures import (
    arrow_scale,
    condition_colours,
    cue_title,
    epoch_spans,
    example_name,
    explained_word,
    loss_label,
    neuron_scores,
    stage_title,
    time_label,
)
from tauflow.plots.report_data import colours, rounded

_TIMES = 120  # of a line, at most: there are many


def payload(portrait: xr.Dataset) -> dict[str, Any]:
    """All data of the page.

    Args:
        portrait: What `tauflow.neural.portrait.portrait` gives.
    """
    names = portrait["condition"].values
    time = portrait["time"].values
    thin = slice(None, None, max(1, -(-len(time) // _TIMES)))
    stages = range(portrait.sizes["stage"])
    ids, own = portrait["trial_id"].values, portrait["stage_of"].values
    inside = bool(time[0] < 0 < time[-1])
    return {
        "colours": colours(),
        "conditions": [
            {"name": str(n), "colour": c} for n, c in zip(names, condition_colours(len(names)), strict=True)
        ],
        "trials": ids.tolist(),
        "condition_of": [names.tolist().index(each) for each in portrait["condition_of"].values],
        "epochs": epoch_spans(portrait),
        "stages": [
            {"title": stage_title(portrait, s), "name": str(portrait["stage"].values[s]),
             "first": int(ids[own == s][0]), "last": int(ids[own == s][-1])} for s in stages
        ],
        "time": {"label": time_label(portrait), "values": rounded(time[thin]), "cue": 0 if inside else None},
        "ranks": _ranks(portrait) if "held_out_loss" in portrait else None,
        "strength": rounded(portrait["strength"].values.T),
        "smooth": rounded(portrait["smooth_strength"].values.T),
        "latent": rounded(portrait["latent"].values[:, :, thin].transpose(3, 0, 1, 2)),  # (component, stage, ...)
        "plane": _plane(portrait),
        "eigenvalues": {
            "real": rounded(portrait["eigenvalue"].values.real.T),
            "imag": rounded(portrait["eigenvalue"].values.imag.T),
            "edge": rounded(portrait.attrs["edge"]),
            "alpha": float(portrait.attrs["alpha"]),
        },
        "cue": {"title": cue_title(portrait), "values": rounded(portrait["cue_state"].values.T)},
        "neurons": _neurons(portrait, thin),
    }  # fmt: skip


def _ranks(portrait: xr.Dataset) -> dict[str, Any]:
    out: dict[str, Any] = {
        "ranks": portrait["rank"].values.tolist(),
        "units": portrait["units"].values.tolist(),
        "chosen": portrait["chosen_rank"].values.tolist(),
        "loss": loss_label(portrait),
        "explained": f"{explained_word(portrait)} explained",
        "mean": rounded(portrait["held_out_loss"].values),
        "error": rounded(portrait["held_out_loss_error"].values),
        "each": rounded(portrait["held_out_loss_each"].values),
    }
    return out | {name: rounded(portrait[f"{name}_explained"].mean("mask").values) for name in ("held_out", "fitted")}


def _plane(portrait: xr.Dataset) -> dict[str, Any]:
    """Flow as the parts that strengths of any trial put together, and paths and fixed points at trials and stages."""
    shown = portrait["shown"].values
    kinds = {}
    for name in ("stage", "shown"):
        found = zip(portrait[f"{name}_fixed"].values, portrait[f"{name}_unstable"].values, strict=True)
        paths = np.moveaxis(portrait[f"{name}_path"].values, -1, -2)  # (..., condition, plane, path)
        kinds[name] = {"paths": rounded(paths), "fixed": [_fixed(*each) for each in found]}
    stage_strength = np.stack(
        [
            portrait["strength"].values[portrait["stage_of"].values == s].mean(axis=0)
            for s in range(portrait.sizes["stage"])
        ]
    )
    return {
        **kinds,
        "axes": portrait.sizes["plane"],
        "points": rounded(portrait["point"].values),
        "read": rounded(portrait["field_read"].values),
        "columns": rounded(portrait["plane_columns"].values),
        "rate": float(portrait.attrs["alpha"] / portrait.attrs["bin_s"]),
        "arrow": rounded(arrow_scale(portrait)),
        "strengths": {"stage": rounded(stage_strength), "shown": rounded(portrait["strength"].values[shown])},
        "trials": portrait["trial_id"].values[shown].tolist(),
        "positions": shown.tolist(),
    }


def _fixed(points: np.ndarray, unstable: np.ndarray) -> list[list[Any]]:
    """Fixed points as [coordinates, number of unstable directions]."""
    return [[rounded(point), int(count)] for point, count in zip(points, unstable, strict=True) if count >= 0]


def _neurons(portrait: xr.Dataset, thin: slice) -> dict[str, Any]:
    explained, ceiling = neuron_scores(portrait)
    kinds = {
        name: rounded(portrait[f"rate_{name}"].values[:, :, thin].transpose(3, 0, 1, 2))  # (example, stage, ...)
        for name in ("data", "error", "model")
    }
    return kinds | {
        "explained": rounded(explained),
        "ceiling": rounded(ceiling),
        "ids": portrait["neuron_id"].values.tolist(),
        "examples": [example_name(portrait, e) for e in range(portrait.sizes["example"])],
        "which": portrait["example_neuron"].values.tolist(),
        "unit": str(portrait["rate_data"].attrs["unit"]),
    }
