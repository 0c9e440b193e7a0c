r"""What a fit says about a recording, computed once for figures and the page.

Components are told only up to their order and to two signs each ($a_j \to -a_j$ with $b_j$ or with $c_j$). Here they
come in the order of how much they change, by the standard deviation of $c_j$ over trials; the mean of $c_j$ is
positive, and so is the weight in $Ma_j$ of the neuron that weighs most there. Equal or proportional strengths leave
more freedom than that, and Kruskal's condition (`tauflow.analysis.is_unique`) says whether there is none.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from tauflow.analysis import is_unique
from tauflow.networks import LowTensorRankRNN
from tauflow.networks.trial_factors import predict_factors
from tauflow.neural.cross_validation import choose_rank, fits_note
from tauflow.neural.fit import Fit
from tauflow.neural.masks import leak_note
from tauflow.neural.portrait_neurons import neurons_of
from tauflow.neural.recording import check_recording
from tauflow.neural.scores import ceiling_note, condition_means, variance_explained
from tauflow.neural.stages import Stage, stages
from tauflow.neural.state_space import fixed_points, plane_that_tells, state_space, telling, tracked
from tauflow.precision import cast, float64
from tauflow.theory.low_tensor_rank import factor_eigenvalues

SHOWN = 60  # trials at which the plane is computed, at most
PATH_POINTS = 80  # of a trajectory, at most
STARTS = 24  # of each kind, for Newton's method
ALIKE = 0.02  # share of their size by which factors of components must differ not to count as alike
GRID = 19  # arrows along the longer side of the plane
_EDGES = {"tanh": 1.0, "identity": 1.0}  # 1 / slope at the origin, where the origin is a fixed point


def portrait(fit: Fit, recording: xr.Dataset, scores: xr.Dataset | None = None) -> xr.Dataset:
    r"""All that the page and the figures of a fit show.

    | | dimensions | what |
    | --- | --- | --- |
    | `strength` | (trial, component) | $c_j$, in the order and with the signs of the module's docstring |
    | `smooth_strength` | (trial, component) | what of $c_j$ is smooth over trials, as the fit has it |
    | `columns`, `rows` | (unit, component) | $a_j$, $b_j$ |
    | `stage_of` | (trial,) | index of the stage that a trial belongs to, -1 for none; see `stages` |
    | `latent` | (stage, condition, time, component) | coordinates z of the states x = a z, mean over a stage's trials |
    | `cue_state` | (trial, component) | z at the cue (attribute `cue_time`) |
    | `eigenvalue` | (trial, eigenvalue) | eigenvalues of $W^{(k)}$ that are not 0, followed over trials; complex |
    | `plane_axes` | (unit, plane) | orthonormal axes of the plane whose arrows tell most: `state_space` |
    | `mean_state` | (unit,) | mean state, which the coordinates off the plane have in the field |
    | `point`, `field_read` | (point, plane or component) | grid in the plane, and $b^\top\varphi(x)$ there |
    | `plane_columns` | (component, plane) | $Q^\top a_j$: the flow is $(-p + \sum_j c_j\,$read$_j\,$column$_j)/\tau$ |
    | `stage_field` | (stage, point, plane) | flow in the plane, in units of the state per second |
    | `stage_path`, `shown_path` | (..., condition, path, plane) | trajectories from each condition's start |
    | `stage_fixed`, `shown_fixed` | (..., fixed point, plane) | fixed points of the whole network, seen in the plane |
    | `..._unstable` | (..., fixed point) | number of their unstable directions, -1 where there is no such point |
    | `shown` | (shown,) | positions of the trials at which paths and fixed points were computed |
    | `explained_by_neuron`, `ceiling_by_neuron` | (neuron,) | held-out variance explained, and what noise allows |
    | `rate_data`, `rate_error`, `rate_model` | (stage, condition, time, example) | of the neurons `example_neuron` |
    | `held_out_loss`, ... | (units, rank, ...) | of a cross-validation, if any |

    Attributes: `explained`, `ceiling`, `condition_means` (what trial-averaged conditions of the fitted entries explain
    of the held-out ones, hence without learning), `deviance_explained` (NaN unless Poisson), `arrows_tell` and
    `arrows_tell_within` (see `tauflow.neural.state_space.Telling`), `edge` (of stability of the origin, NaN where it is
    no fixed point), `unique` (Kruskal's condition), `notes` (JSON text: sentences that a reader must know), and others.

    Args:
        fit: The fit.
        recording: The recording that was fitted.
        scores: What `cross_validate` gave, if it was asked.

    Returns:
        The dataset, in float64.

    Raises:
        ValueError: If the recording is none, or not the one that was fitted.
    """
    check_recording(recording)
    if not np.array_equal(recording["trial_id"].values, fit.data["trial_id"].values) or (
        recording["neuron_id"].values.tolist() != fit.data["neuron_id"].values.tolist()
    ):
        raise ValueError("the recording has other trials or neurons than the fit; pass the recording that was fitted.")
    with float64():
        shown = _in_order(fit.data["conditions"].values)
        network, names = _oriented(cast(fit.network(), "float64"), shown), fit.data["conditions"].values[shown]
        where = np.argmax(recording["condition"].values[:, None] == names, axis=1)  # (trial,)
        z = np.asarray(network.simulate(where, recording.sizes["time"])[0])  # (time, trial, R + m)
        a, c, b = (np.asarray(each) for each in network.W)
    A = fit.options.covariance(recording["epoch"].values)(recording["trial_id"].values)  # (trial, trial)
    sigma, form = fit.options.sigma, fit.options.form
    smooth = predict_factors(network.c_latent, network.c_offset, network.smoothing, A, sigma=sigma, form=form)
    kept = stages(recording["epoch"].values, recording["condition"].values)
    parts = {
        "columns": (("unit", "component"), a),
        "strength": (("trial", "component"), c),
        "smooth_strength": (("trial", "component"), smooth),
        "rows": (("unit", "component"), b),
        "eigenvalue": (("trial", "eigenvalue"), tracked(factor_eigenvalues(a, c, b))),
    }
    labels = {
        "trial_id": ("trial", recording["trial_id"].values),
        "condition_of": ("trial", recording["condition"].values),
        "epoch": ("trial", recording["epoch"].values),
        "condition": names,
        "stage": [each.name for each in kept],
        "time": recording["time"].values,
        "neuron_id": ("neuron", recording["neuron_id"].values),
    }
    latents = z[..., : c.shape[1]]  # (time, trial, R)
    data = xr.Dataset(parts | _latents(recording, kept, latents, names) | _scores(scores), labels)
    notes = json.dumps(notes_of(fit, recording, scores))
    data.attrs = _about(fit, recording, network) | {"notes": notes, "unique": int(is_unique([a, smooth, b], ALIKE))}
    plane, told = _plane(network, z, data)
    return data.assign(plane).merge(neurons_of(fit, recording, kept, names)).assign_attrs(data.attrs | told)


def notes_of(fit: Fit, recording: xr.Dataset, scores: xr.Dataset | None = None) -> list[str]:
    """Sentences that a reader of scores must know: what leaks, and which trials and fits do not count.

    Args:
        fit: The fit.
        recording: The recording that was fitted.
        scores: What `cross_validate` gave, if it was asked.
    """
    of_scores = "" if scores is None else fits_note(scores)
    return [note for note in (leak_note([fit.masks], recording), ceiling_note(recording), of_scores) if note]


def _in_order(names: NDArray[Any]) -> NDArray[np.int64]:
    """Positions of conditions in order: by number where all are numbers, so that 90 comes before 180."""
    try:
        return np.argsort(names.astype(np.float64), kind="stable")
    except ValueError:
        return np.arange(len(names))


def _oriented(network: LowTensorRankRNN, conditions: NDArray[np.int64]) -> LowTensorRankRNN:
    """The same network with components and conditions in order, components with their signs and vectors of norm 1."""
    a, c, b = (np.asarray(each) for each in network.W)
    order = np.argsort(-c.std(axis=0), kind="stable")
    weights = (np.asarray(network.readout) @ a)[:, order]  # (neuron, R)
    flip = np.where(weights[np.abs(weights).argmax(axis=0), np.arange(len(order))] < 0, -1.0, 1.0)
    up = np.where(c.mean(axis=0)[order] < 0, -1.0, 1.0)
    new = {
        "a": a[:, order] * flip,
        "b": b[:, order] * flip * up,
        "c_latent": np.asarray(network.c_latent)[:, order] * up,
        "c_offset": np.asarray(network.c_offset)[order] * up,
        "z0": np.asarray(network.z0)[conditions][:, order] * flip,
    }
    if network.u is not None:
        new["u"] = np.asarray(network.u)[:, conditions]
    if network.v0 is not None:
        new["v0"] = np.asarray(network.v0)[conditions]
    return eqx.tree_at(lambda net: [getattr(net, name) for name in new], network, list(map(jnp.asarray, new.values())))


def _latents(
    recording: xr.Dataset, kept: Sequence[Stage], latents: NDArray[Any], names: NDArray[Any]
) -> dict[str, Any]:
    """Latents by stage and condition, and at the cue."""
    conditions = recording["condition"].values
    mean = np.full((len(kept), len(names), len(latents), latents.shape[2]), np.nan)
    stage_of = np.full(len(conditions), -1)
    for s, stage in enumerate(kept):
        stage_of[stage.trials] = s
        for k, name in enumerate(names):
            here = stage.trials[conditions[stage.trials] == name]
            if here.size:
                mean[s, k] = latents[:, here].mean(axis=1)
    return {
        "stage_of": ("trial", stage_of),
        "latent": (("stage", "condition", "time", "component"), mean),
        "cue_state": (("trial", "component"), latents[cue_bin(recording)]),
    }


def cue_bin(recording: xr.Dataset) -> int:
    """The first bin at or after time 0, or the first of all if 0 is not in the window.

    Example:
        >>> cue_bin(xr.Dataset(coords={"time": [-0.015, -0.005, 0.005]})), cue_bin(xr.Dataset(coords={"time": [1., 2]}))
        (2, 0)
    """
    time = recording["time"].values
    after = np.flatnonzero(time >= -1e-9)
    return int(after[0]) if after.size else 0


def _plane(network: LowTensorRankRNN, z: NDArray[Any], data: xr.Dataset) -> tuple[dict[str, Any], dict[str, Any]]:
    """The plane whose arrows tell most: flow, trajectories and fixed points in it, and how far it can be trusted."""
    a, b, c = (data[name].values for name in ("columns", "rows", "strength"))
    span = a if network.W_in is None else np.concatenate([a, np.asarray(network.W_in)], axis=1)  # (n, R + m)
    settings: dict[str, Any] = {"phi": network.phi, "alpha": network.alpha, "bin_s": data.attrs["bin_s"]}
    free = _inputs_end(network, len(z))  # what is driven tells little of where the network goes by itself
    space = state_space(span, z[free:], a, b, **settings)
    shown, count = evenly(len(c), SHOWN), data.sizes["stage"]
    by_stage = np.stack([c[data["stage_of"].values == s].mean(axis=0) for s in range(count)])
    cases = np.concatenate([by_stage, c[shown]])  # (case, R)
    states = _paths(network, cases, data.sizes["time"]) @ span.T  # (case, condition, time + 1, n)
    thin = evenly(states.shape[2], PATH_POINTS)
    space = plane_that_tells(space, states[:count, :, thin[thin >= free]] @ space.frame, by_stage)
    paths, flat = states @ space.frame, min(2, a.shape[1])  # (case, condition, time + 1, K)
    found = fixed_points(space, cases, _starts(paths))
    points = _grid(paths[..., :flat].reshape(-1, flat))
    read = space.reads(space.on_plane(points))  # (point, R)
    out = {
        "plane_axes": (("unit", "plane"), space.frame[:, :flat]),
        "plane_share": ("plane", space.scatter.diagonal()[:flat] / max(np.trace(space.scatter), np.finfo(float).tiny)),
        "plane_columns": (("component", "plane"), space.write[:flat].T),
        "mean_state": ("unit", space.frame @ space.mean),
        "point": (("point", "plane"), points),
        "field_read": (("point", "component"), read),
        "stage_field": (("stage", "point", "plane"), space.flow(space.on_plane(points), by_stage[:, None])[..., :flat]),
        "shown": ("shown", shown),
        "path_step": ("path", thin),
    }
    for name, part in (("stage", slice(count)), ("shown", slice(count, None))):
        out[f"{name}_path"] = ((name, "condition", "path", "plane"), paths[part][:, :, thin, :flat])
        out[f"{name}_fixed"] = ((name, f"{name}_fixed_point", "plane"), found.y[part][..., :flat])
        out[f"{name}_unstable"] = ((name, f"{name}_fixed_point"), found.unstable[part])
    told = telling(space, paths[:count, :, free:], by_stage)
    return out, {"arrows_tell": told.all, "arrows_tell_within": told.within}


def _inputs_end(network: LowTensorRankRNN, steps: int) -> int:
    """Number of bins with inputs, or 0 if next to none come after them."""
    bins = 0 if network.W_in is None else network.input_steps if network.u is None else len(network.u)
    return bins if bins + 5 <= steps else 0


def _paths(network: LowTensorRankRNN, cases: NDArray[Any], steps: int) -> NDArray[np.float64]:
    """Coordinates from the start of every condition on at given strengths, (case, condition, time + 1, R + m)."""
    kinds = len(network.z0)
    with float64():

        def of(strengths: jax.Array) -> jax.Array:
            """Coordinates (condition, time, R + m) of a trial of each condition, all with these strengths."""
            new = {
                "c_latent": jnp.tile(strengths, (kinds, 1)),
                "c_offset": jnp.zeros(cases.shape[1]),
                "smoothing": jnp.eye(kinds),
            }
            case = eqx.tree_at(lambda net: [getattr(net, name) for name in new], network, list(new.values()))
            return case.simulate(np.arange(kinds), steps)[0].swapaxes(0, 1)

        z = np.asarray(jax.vmap(of)(jnp.asarray(cases)))  # (case, condition, time, R + m)
        start = np.pad(np.asarray(network.z0), ((0, 0), (0, z.shape[3] - network.z0.shape[1])))
    return np.concatenate([np.broadcast_to(start[:, None], (len(cases), kinds, 1, z.shape[3])), z], axis=2)


def _starts(paths: NDArray[np.float64]) -> NDArray[np.float64]:
    """States to look for fixed points from, (case, start, K): along trajectories, mirrored, the origin, and between."""
    cases, kinds, steps, axes = paths.shape
    some = evenly(steps, max(2, 24 // kinds + 1))
    points = paths[:, :, some].reshape(cases, -1, axes)
    along = points[:, evenly(points.shape[1], STARTS)]
    scatter = np.random.default_rng(0).uniform(-1, 1, (STARTS, axes)) * np.abs(paths).max(axis=(0, 1, 2))
    rest = np.broadcast_to(np.concatenate([scatter, np.zeros((1, axes))]), (cases, STARTS + 1, axes))
    return np.concatenate([along, -along, rest], axis=1)


def _grid(path: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points (point, plane) around a path (state, plane), as far apart along one axis as along the other."""
    low, high = path.min(axis=0), path.max(axis=0)
    longest = float((high - low).max()) or 1.0
    margin, step = 0.12 * longest, 1.24 * longest / (GRID - 1)
    sides = []
    for least, most in zip(low - margin, high + margin, strict=True):
        count = int(np.ceil((most - least) / step - 1e-9)) + 1
        sides.append((least + most) / 2 + step * (np.arange(count) - (count - 1) / 2))
    return np.stack([each.ravel() for each in np.meshgrid(*sides)], axis=-1)


def evenly(length: int, most: int) -> NDArray[np.int64]:
    """Positions of at most `most` of `length` things, evenly spread, with the first and the last.

    Example:
        >>> evenly(9, 3).tolist(), evenly(2, 3).tolist()
        ([0, 4, 8], [0, 1])
    """
    return np.unique(np.linspace(0, length - 1, min(most, length), dtype=np.float64).round().astype(np.int64))


def _scores(scores: xr.Dataset | None) -> dict[str, Any]:
    """Of a cross-validation: means, standard errors, single fits and the chosen rank."""
    if scores is None:
        return {}
    scores = scores.sortby("rank")
    picked = choose_rank(scores)
    out: dict[str, Any] = {
        "rank": scores["rank"].values,
        "units": scores["units"].values,
        "chosen_rank": ("units", picked["chosen"].values),
        "held_out_loss": (("units", "rank"), picked["mean_test_loss"].values),
        "held_out_loss_error": (("units", "rank"), picked["standard_error"].values),
    }
    dims = ("units", "rank", "mask")
    each = {"held_out_loss_each": "test_loss", "held_out_explained": "explained_test",
            "fitted_explained": "explained_train"}  # fmt: skip
    for name, kind in each.items():
        values = scores[kind] if kind == "test_loss" else scores[kind].where(picked["counted"])
        out[name] = (dims, values.transpose(*dims).values.astype(np.float64))
    return out


def _about(fit: Fit, recording: xr.Dataset, network: LowTensorRankRNN) -> dict[str, Any]:
    """Numbers and words about the fit."""
    masks, size = fit.masks, fit.data["size"].values
    train, y = masks.train, recording["activity"].values.astype(np.float64)
    means = condition_means(y, recording["condition"].values, train)
    loss, cue = fit.options.loss, cue_bin(recording)
    tested = bool(masks.test.any())
    return {
        "kind": "portrait",
        "explained": fit.score(recording) if tested else np.nan,
        "ceiling": fit.ceiling(recording) if tested else np.nan,
        "condition_means": variance_explained(y / size, means / size, masks.test, train=train) if tested else np.nan,
        "deviance_explained": fit.explained["test"] if loss == "poisson" else np.nan,
        "fitted_rank": network.a.shape[1],
        "fitted_units": network.a.shape[0],
        "loss": loss,
        "inputs": int(network.W_in is not None),
        "edge": _EDGES.get(network.phi, np.nan),
        "phi": network.phi,
        "alpha": network.alpha,
        "cue_time": float(recording["time"].values[cue]),
        "cue_bin": cue,
        **{
            name: fit.data.attrs[name]
            for name in ("created", "device", "versions", "network")
            if name in fit.data.attrs
        },
        **{
            name: recording.attrs[name]
            for name in ("source", "align", "bin_s", "smoothed_s", "dropped", "silent", "steps")
        },
    }
