"""How many components a recording asks for: held-out losses over ranks and masks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import xarray as xr

from tauflow.learning import Progress
from tauflow.neural.masks import Masks, draw_masks, warn_of_leaks
from tauflow.neural.recording import listed
from tauflow.neural.training import Options, Problem, best, train


def cross_validate(
    recording: xr.Dataset,
    ranks: Sequence[int],
    units: int | Sequence[int] = 200,
    seeds: int = 4,
    masks: int | Sequence[Masks] = 4,
    *,
    key: jax.Array,
    out: str | Path | None = None,
    resume: bool = False,
    progress: Callable[[Progress], None] | None = None,
    **options: Any,
) -> xr.Dataset:
    """Fit networks of several ranks on several masks, on all cores.

    On every mask several starts are tried and the most promising goes on; every network is taken where its own held-out
    loss is lowest, both as in `fit_low_tensor_rank`.

    Args:
        recording: The recording.
        ranks: Numbers of components to try.
        units: Number of units, or several to try.
        seeds: Number of starts that are tried on each mask, with a fifth of the updates each; one may lead to a poor
            local minimum.
        masks: Masks, or how many to draw by `draw_masks`. Standard errors of a few are themselves uncertain: with two
            masks chance may choose a rank too large.
        key: JAX random key.
        out: Folder for checkpoints, one for each rank and number of units; None keeps everything in memory.
        resume: Go on with what is in `out`.
        progress: Called with a `tauflow.learning.Progress` now and then, anew for each rank.
        **options: Fields of `tauflow.neural.training.Options`.

    Returns:
        `test_loss`, `train_loss`, `explained_test` and `explained_train (units, rank, mask)` (see `Fit.explained`) and
        `updates`, NaN where a fit diverged. Give it to `choose_rank`.

    Raises:
        ValueError: If an argument is out of range, a mask tests nothing, or the recording is none.

    Source: pellegrino2023, supplement B. Deviation from print: means over entries; the rank is chosen by one standard
        error, which the paper does not say.

    Example:
        >>> from tauflow.neural import recording
        >>> made = recording(np.random.default_rng(0).normal(size=(12, 24, 5)), kind="rates",
        ...                  time=0.01 * np.arange(12))
        >>> found = cross_validate(made, [2], 10, 1, 1, steps=40, key=jax.random.key(0))
        >>> dict(found.test_loss.sizes)
        {'units': 1, 'rank': 1, 'mask': 1}
    """
    sizes = [units] if isinstance(units, int) else list(units)
    tried = list(ranks)
    for name, values in (("ranks", tried), ("units", sizes), ("seeds", [seeds])):
        if not values or any(isinstance(v, bool) or not isinstance(v, (int, np.integer)) or v < 1 for v in values):
            raise ValueError(f"{name} is {values!r}; it must hold whole numbers from 1, for example {name}=3.")
    mask_key, fit_key = jax.random.split(key)
    if isinstance(masks, int):
        masks = [draw_masks(recording, key=each) for each in jax.random.split(mask_key, masks)]
    if not masks or not all(each.test.any() for each in masks):
        raise ValueError("a mask tests nothing; every mask of a cross-validation needs entries in `test`.")
    problem = Problem(recording, masks, Options(**options))
    warn_of_leaks(masks, recording)
    blocks = []
    for size in sizes:
        for rank in tried:
            home = None if out is None else Path(out) / f"units-{size}-rank-{rank}"
            run = train(problem, rank, size, starts=seeds, key=fit_key, out=home, resume=resume, progress=progress)
            blocks.append(_scores(run.data, problem).expand_dims(units=[size], rank=[rank]))
    return xr.combine_by_coords(blocks)  # type: ignore[return-value]


def _scores(data: xr.Dataset, problem: Problem) -> xr.Dataset:
    """Losses of the network of every mask at its best, (mask)."""
    count = len(problem.masks)
    names = ("train_loss", "test_loss", "explained_train", "explained_test", "updates")
    found = {name: np.full(count, np.nan) for name in names}
    for k in range(count):
        if data["status"].values[k] != "done":
            continue
        end = best(problem.unexplained(data["probe_test"].values[k, :, k], k), problem.options)
        for kind in Masks._fields:
            loss = data[f"probe_{kind}"].values[k, end, k]
            found[f"{kind}_loss"][k] = loss
            found[f"explained_{kind}"][k] = problem.explained(loss, kind, k)
        found["updates"][k] = data["measurement_update"].values[end]
    return xr.Dataset({name: ("mask", values) for name, values in found.items()}, {"mask": np.arange(count)})


def choose_rank(scores: xr.Dataset) -> xr.Dataset:
    """The smallest rank whose mean held-out loss is within one standard error of the best, for each number of units.

    Means are over masks and the standard error is that of the best rank's. It counts how hard masks are, which all
    ranks share, so that it rather chooses a rank too small than too large.

    A rank whose fits diverged on more than half of the masks has no mean. A mask on which the fit of another rank
    diverged is left out for all, unless no mask would be left: means are then over the masks that each rank has, and
    one of those with the most is chosen.

    Args:
        scores: As `cross_validate` gives them.

    Returns:
        `chosen (units)`; `mean_test_loss`, `standard_error` and the number of masks that count, `fits (units, rank)`;
        and which these are, `counted (units, rank, mask)`. The standard error of one fit is NaN, and taken for 0 where
        a rank is chosen.

    Raises:
        ValueError: If no fit has a finite loss.

    Example:
        >>> losses = np.array([1.0, 0.501, 0.5])[None, :, None] + 0.02 * np.array([0, 1, 0.3, 0.8])
        >>> scores = xr.Dataset({"test_loss": (("units", "rank", "mask"), losses)},
        ...                     {"units": [10], "rank": [1, 2, 3]})
        >>> int(choose_rank(scores).chosen[0])
        2
    """
    ranks = scores["rank"].values
    losses = scores["test_loss"].transpose("units", "rank", "mask").values
    finite = np.isfinite(losses)
    sound = 2 * finite.sum(axis=2, keepdims=True) >= finite.shape[2]  # (units, rank, 1)
    shared = (finite | ~sound).all(axis=1, keepdims=True)  # (units, 1, mask)
    counted = finite & sound & (shared | ~shared.any(axis=2, keepdims=True))
    fits = counted.sum(axis=2)
    means, errors = np.full((2, *losses.shape[:2]), np.nan)
    for u, r in np.ndindex(*losses.shape[:2]):
        own = losses[u, r][counted[u, r]]
        means[u, r] = own.mean() if own.size else np.nan
        errors[u, r] = own.std(ddof=1) / np.sqrt(own.size) if own.size > 1 else np.nan
    chosen = []
    most = fits.max(axis=1, keepdims=True)
    for mean, error in zip(np.where(fits == most, means, np.nan), errors, strict=True):
        if not np.isfinite(mean).any():
            raise ValueError("no fit has a finite held-out loss; choose a smaller learning_rate.")
        lowest = int(np.nanargmin(mean))
        chosen.append(ranks[mean <= mean[lowest] + np.nan_to_num(error[lowest])].min())
    return xr.Dataset(
        {
            "chosen": ("units", np.array(chosen)),
            "mean_test_loss": (("units", "rank"), means),
            "standard_error": (("units", "rank"), errors),
            "fits": (("units", "rank"), fits),
            "counted": (("units", "rank", "mask"), counted),
        },
        {"units": scores["units"].values, "rank": ranks},
    )


def fits_note(scores: xr.Dataset) -> str:
    """What a reader of losses over ranks must know: which masks are left out because fits diverged; empty if none.

    Args:
        scores: As `cross_validate` gives them.

    Example:
        >>> scores = xr.Dataset({"test_loss": (("units", "rank", "mask"), [[[0.5, 0.4], [np.nan, 0.3]]])},
        ...                     {"units": [10], "rank": [1, 2]})
        >>> fits_note(scores)
        'Some fits diverged; losses of rank 1, 2 are means over 1 of 2 masks.'
    """
    fits, masks = choose_rank(scores)["fits"].values.min(axis=0), scores.sizes["mask"]
    ranks = scores["rank"].values
    said = [
        f"losses of rank {listed(ranks[fits == count])} are means over {count} of {masks} masks"
        if count
        else f"there are none of rank {listed(ranks[fits == 0])}"
        for count in sorted(set(fits.tolist()) - {masks}, reverse=True)
    ]
    return f"Some fits diverged; {' and '.join(said)}." if said else ""
