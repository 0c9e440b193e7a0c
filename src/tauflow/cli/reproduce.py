"""Figures of papers: run them, show their claims, keep picture, data and claims."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from tauflow.cli.progress import ProgressLine
from tauflow.cli.show import claim_line
from tauflow.names import check_name
from tauflow.run import RunError, write_atomic_bytes, write_atomic_store
from tauflow.study.folders import first_free, make_new

REPRODUCTIONS = Path("reproductions")


def reproduce_figures(paper: str, figures: Sequence[str], *, quick: bool, seed: Any, out: Path | None) -> bool:
    """Run figures one after the other; each is written when it is done. Whether all claims hold comes back.

    Raises:
        ValueError: If there is no such paper or figure, the seed is no whole number >= 0, or the folder exists.
    """
    from tauflow.papers import PAPERS

    check_name("paper", paper, PAPERS)
    chosen = PAPERS[paper]
    for name in figures:
        check_name("figure", name, chosen.figures, of=paper)
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**31:
        raise ValueError(f"seed is {seed!r}; it must be a whole number from 0 to 2147483647, for example seed=0.")
    folder = first_free(REPRODUCTIONS, paper) if out is None else make_new(out)
    errors, console = Console(stderr=True), Console()
    hold = True
    for name in dict.fromkeys(figures or chosen.figures):
        figure = chosen.figures[name]
        console.print(f"{paper} {name}: {figure.description}", soft_wrap=True, highlight=False, markup=False)
        with ProgressLine(errors) as progress:
            reproduction = figure.function(quick=quick, seed=seed, progress=progress)
        _keep(reproduction, folder / name)
        for claim in reproduction.claims:
            line = claim_line(claim.name, claim.holds, claim.measured, claim.sentence)
            console.print(line, soft_wrap=True)
        hold = hold and all(claim.holds for claim in reproduction.claims)
    console.print(f"Pictures, data and claims: {folder}", soft_wrap=True, highlight=False, markup=False)
    return hold


def _keep(reproduction: Any, folder: Path) -> None:
    """Write figure.png, data.zarr and claims.json of one figure."""
    from tauflow.plots import save_figure

    claims = [
        {
            "name": claim.name,
            "holds": bool(claim.holds),
            "sentence": claim.sentence,
            "measured": _in_json(claim.measured),
        }
        for claim in reproduction.claims
    ]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        save_figure(reproduction.plot, folder / "figure.png")
    except OSError as error:
        raise RunError(f"{folder} cannot be written ({error.strerror}); choose another --out.") from error
    write_atomic_store(reproduction.data, folder / "data.zarr")
    write_atomic_bytes(folder / "claims.json", (json.dumps(claims, indent=2, ensure_ascii=False) + "\n").encode())


def _in_json(value: Any) -> Any:
    """JSON has neither NumPy's numbers nor NaN."""
    if isinstance(value, dict):
        return {str(key): _in_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_in_json(item) for item in value]
    if isinstance(value, (np.ndarray, np.generic)):
        return _in_json(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value
