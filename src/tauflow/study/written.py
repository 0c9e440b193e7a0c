"""Settings that are checked once, and kept as JSON beside what was made with them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from tauflow.names import check_name
from tauflow.run import RunError, versions
from tauflow.tasks.settings import plain

SCHEMA = 1
WHOLE = "a whole number >= 1"
C = TypeVar("C", bound="Configuration")


class Configuration(BaseModel):
    """Settings by name; a subclass says what they are and which of them fit together.

    Attributes:
        OF: What is configured, in words.
        FILE: Name of the file in its folder.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    OF: ClassVar[str]
    FILE: ClassVar[str]

    def fitting(self: C) -> C:
        """Itself, once its settings fit together; a `ValueError` says which do not."""
        return self

    @classmethod
    def checked(cls: type[C], values: Mapping[str, Any]) -> C:
        """Make one of values, or say in one sentence what is wrong first.

        Raises:
            ValueError: If a setting is unknown, missing or out of range.
        """
        values = {name: as_plain(value) for name, value in values.items()}
        for name in values:
            check_name("setting", name, cls.model_fields, of=f"the {cls.OF}")
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise ValueError(_sentence(cls, error)) from None

    @classmethod
    def from_json(cls: type[C], text: str | bytes) -> C:
        """Read what `to_json` wrote.

        Raises:
            ValueError: If the text is no such configuration, or that of a newer tauflow, or a setting in it is not as
                it must be.
        """
        try:
            document = json.loads(text)
            schema, values = document["schema"], dict(document["configuration"])
        except (ValueError, KeyError, TypeError):
            raise ValueError(f"it is damaged or no configuration of a {cls.OF}; restore it from a copy.") from None
        if schema != SCHEMA:
            raise ValueError(f"it has schema {schema!r} and this tauflow reads {SCHEMA}; upgrade tauflow.")
        return cls.checked(values).fitting()

    def to_json(self) -> str:
        """The configuration as JSON text, with the versions that it was made with."""
        return json.dumps({"schema": SCHEMA, "configuration": self.describe(), "versions": versions()}, indent=2) + "\n"

    @classmethod
    def read(cls: type[C], folder: Path) -> C:
        """Read the configuration in a folder.

        Raises:
            RunError: If there is none, or it cannot be used.
        """
        path = folder / cls.FILE
        if not path.is_file():
            raise RunError(
                f"{folder} holds no {cls.FILE}; name the folder of a {cls.OF}, for example runs/flip-flop-1."
            )
        try:
            return cls.from_json(path.read_bytes())
        except OSError as error:
            raise RunError(f"{path} cannot be read ({error.strerror}); check its permissions.") from error
        except ValueError as error:
            raise RunError(f"{path} cannot be used: {error}") from None

    def describe(self, *known: str) -> dict[str, Any]:
        """All settings but those named in `known`, as plain values."""
        return {
            name: value for name, value in self.model_dump(mode="json", exclude_none=True).items() if name not in known
        }


def as_plain(value: Any) -> Any:
    """As `plain`, also within a mapping.

    Example:
        >>> as_plain({"window": [0, 1]})
        {'window': (0, 1)}
    """
    return {name: plain(item) for name, item in value.items()} if isinstance(value, Mapping) else plain(value)


def _sentence(model: type[BaseModel], error: ValidationError) -> str:
    """The first thing that is wrong, in one sentence: what came, what is wanted, an example."""
    first = error.errors()[0]
    name = str(first["loc"][0])
    if first["type"] == "missing":
        return f"{name} is missing; restore it, or begin a new study."
    field = model.model_fields[name]
    example = (field.examples or [""])[0]
    value = f"{name}={example}"
    return f"{name} is {first['input']!r}; it must be {field.description}, for example {value}."
