"""What the fit of a recording is: every setting by name, and what is done with the recording before."""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar

import jax
import xarray as xr
from pydantic import Field

from tauflow.names import check_name
from tauflow.neural import (
    Masks,
    crop,
    draw_masks,
    hidden_block,
    load_recording,
    scale,
    select_neurons,
    smooth,
    subtract_baseline,
    to_rates,
)
from tauflow.neural.training import Options, Problem
from tauflow.study.written import WHOLE, Configuration, as_plain

Whole = Annotated[int, Field(ge=1)]
_LOADING = tuple(inspect.signature(load_recording).parameters)[1:]
_STEPS: dict[str, Callable[..., xr.Dataset]] = {
    "min_rate": select_neurons,
    "smooth": smooth,
    "baseline": subtract_baseline,
    "scale": scale,
    "crop": crop,
}
_OF_RATES = ("smooth", "baseline", "scale")
_KINDS: dict[type, tuple[str, Callable[[Any], bool]]] = {
    bool: ("true or false", lambda value: isinstance(value, bool)),
    int: ("a whole number", lambda value: isinstance(value, int) and not isinstance(value, bool)),
    float: ("a number", lambda value: isinstance(value, int | float) and not isinstance(value, bool)),
    str: ("text", lambda value: isinstance(value, str)),
}


class RecordingConfiguration(Configuration):
    """All settings of the study of a recording. Make one with `RecordingConfiguration.complete`.

    Attributes:
        path: The file.
        rank: Number of components of the fit; None: chosen by cross-validation.
        ranks: Numbers of components that cross-validation tries.
        units: Number of units of the network.
        seeds: Number of starts to try, on every mask of the cross-validation and for the fit itself.
        masks: Number of masks in cross-validation; standard errors of fewer than four are themselves uncertain.
        hide: Bins and trials of a block that is hidden from a fit, of which the middle half along both is tested. None:
            see `tauflow.neural.hidden_block`.
        seed: The number from which all randomness comes.
        loading: Arguments of `tauflow.neural.load_recording`.
        preprocessing: What is done before the fit, see `prepare`.
        options: All fields of `tauflow.neural.training.Options`.

    Example:
        >>> RecordingConfiguration.complete("session.nwb", rank=2, options={"steps": 500}).ranks
        (1, 2, 3)
    """

    OF: ClassVar[str] = "fit"
    FILE: ClassVar[str] = "fit.json"

    path: str = Field(description="the path of a file", examples=["session.nwb"])
    rank: Whole | None = Field(None, description=WHOLE, examples=[5])
    ranks: tuple[Whole, ...] = Field((), description="whole numbers from 1", examples=[(1, 2, 3)])
    units: int = Field(200, ge=1, description=WHOLE, examples=[200])
    seeds: int = Field(4, ge=1, description=WHOLE, examples=[4])
    masks: int = Field(4, ge=1, description=WHOLE, examples=[4])
    hide: tuple[Whole, Whole] | None = Field(
        None, description="bins and trials, whole numbers >= 1", examples=[(10, 20)]
    )
    seed: int = Field(0, ge=0, lt=2**31, description="a whole number from 0 to 2147483647", examples=[0])
    loading: dict[str, Any] = Field({}, description="arguments of load_recording", examples=[{"bin_s": 0.01}])
    preprocessing: dict[str, Any] = Field({}, description="steps by name", examples=[{"smooth": 0.04}])
    options: dict[str, Any] = Field({}, description="options of the fit by name", examples=[{"loss": "poisson"}])

    @classmethod
    def complete(cls, path: str | Path, **given: Any) -> RecordingConfiguration:
        """Check the settings that came, and fill in the others.

        Args:
            path: The file.
            **given: Settings by name; None means the default, which for `ranks` is 1 to one more than the rank, or 1
                to 6 without a rank.

        Raises:
            ValueError: If a setting is unknown or out of its range, or there is neither a rank nor ranks to try.
        """
        given = {name: value for name, value in given.items() if value is not None}
        for name in ("loading", "preprocessing"):
            given[name] = {key: as_plain(value) for key, value in given.get(name, {}).items() if value is not None}
        rank = cls.checked({"path": str(Path(path).absolute()), **given}).rank
        tried = given.get("ranks", range(1, 7 if rank is None else rank + 2))
        return cls.checked(
            {"path": str(Path(path).absolute()), **given, "ranks": sorted(set(tried)), "options": _options(given)}
        ).fitting()

    def fitting(self) -> RecordingConfiguration:
        """Itself, once its names are known and its settings go together."""
        for name in self.loading:
            check_name("argument", name, _LOADING, of="loading")
        for name in self.preprocessing:
            check_name("step", name, _STEPS, of="preprocessing")
        _options({"options": self.options})
        if self.rank is None and not self.ranks:
            raise ValueError("No rank came and no ranks to try; give one of both, for example rank=3.")
        least = max((*self.ranks, self.rank or 1))
        if self.units < least:
            raise ValueError(
                f"units is {self.units} and the largest rank {least}; units must be as many or more, for example "
                f"units={max(200, least)}."
            )
        for name in _OF_RATES:
            if self.options["loss"] == "poisson" and name in self.preprocessing:
                raise ValueError(
                    f"{name} came with loss='poisson', which is for counts of spikes as they are; leave {name} out, or "
                    "take loss='mse'."
                )
        return self

    def keys(self) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Random keys of the masks, of cross-validation and of the fit."""
        masks, validation, fit = jax.random.split(jax.random.key(self.seed), 3)
        return masks, validation, fit

    def hidden(self, data: xr.Dataset) -> tuple[int, int]:
        """Bins and trials of a block that is hidden, `hide` or its default."""
        return hidden_block(data) if self.hide is None else self.hide

    def draw_masks(self, data: xr.Dataset) -> tuple[list[Masks], Masks]:
        """Masks for cross-validation, and one of its own for the fit.

        Raises:
            ValueError: If a hidden block is larger than the recording.
        """
        keys = jax.random.split(self.keys()[0], self.masks + 1)
        *several, last = (draw_masks(data, self.hide, key=key) for key in keys)
        return several, last


def _options(given: Mapping[str, Any]) -> dict[str, Any]:
    """All options of a fit, once those that came are known and of their kind."""
    options = dict(given.get("options", {}))
    known = {field.name: field.default for field in dataclasses.fields(Options)}
    for name, value in options.items():
        check_name("option", name, known, of="a fit")
        wanted, fits = _KINDS.get(type(known[name]), ("", lambda value: True))
        if not fits(value) or (isinstance(value, float) and not math.isfinite(value)):
            raise ValueError(f"{name} is {value!r}; it must be {wanted}, for example {name}={known[name]!r}.")
    return {name: as_plain(value) for name, value in dataclasses.asdict(Options(**options)).items()}


def load(configuration: RecordingConfiguration) -> xr.Dataset:
    """Read the recording that a configuration names, and prepare it.

    Raises:
        ValueError: If the file, an argument, or a setting of the fit does not suit; a network is drawn to know.
    """
    data = prepare(
        load_recording(configuration.path, **configuration.loading),
        loss=configuration.options["loss"],
        **configuration.preprocessing,
    )
    several, _ = configuration.draw_masks(data)
    problem = Problem(data, several[:1], Options(**configuration.options))
    problem.network(
        max((*configuration.ranks, configuration.rank or 1)), configuration.units, key=configuration.keys()[2]
    )
    return data


def prepare(data: xr.Dataset, *, loss: str = "mse", **steps: Any) -> xr.Dataset:
    """Do what is asked before a fit, in this order.

    Args:
        data: A recording, see `tauflow.neural.recording`.
        loss: "mse": counts become rates. "poisson": counts stay, and only `min_rate` and `crop` are for them.
        **steps: `min_rate` (Hz): neurons under it are left out. `smooth` (s): standard deviation of a Gaussian over
            time. `baseline` (start and end in s): its mean is subtracted. `scale` (likewise): neurons are divided by
            their standard deviation there. `crop` (likewise): only this is fitted.

    Returns:
        The recording.

    Raises:
        ValueError: If a step is unknown, or cannot be done; the name of the step stands first.

    Example:
        >>> import numpy as np
        >>> from tauflow.neural import recording
        >>> counts = recording(np.ones((10, 2, 3), int), kind="spikes", time=np.arange(10) * 0.1)
        >>> prepare(counts, baseline=(0.0, 0.2), crop=(0.0, 0.5)).activity.values.shape
        (5, 2, 3)
    """
    for name in steps:
        check_name("step", name, _STEPS, of="preprocessing")
    if loss == "mse":
        data = to_rates(data)
    for name, step in _STEPS.items():
        if name not in steps:
            continue
        try:
            data = step(data, steps[name])
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
    return data
