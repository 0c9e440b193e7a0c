"""From saved weights back to networks: ours by name, a user's by filling a module of theirs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar, overload

import jax
import jax.numpy as jnp
import numpy as np

from tauflow.low_rank import LowRank
from tauflow.run.schema import RunError

T = TypeVar("T", bound=type)


class _Registered(NamedTuple):
    make: type
    low_rank: Callable[..., Any] | None


_REGISTRY: dict[str, _Registered] = {}


@overload
def register_network(cls: T) -> T: ...
@overload
def register_network(*, low_rank: Callable[..., Any]) -> Callable[[T], T]: ...
def register_network(
    cls: type | None = None, *, low_rank: Callable[..., Any] | None = None
) -> type | Callable[[type], type]:
    """Class decorator: let `Run.network` rebuild this class from its name, its arrays and its static fields.

    The class is called with its arrays and static fields by name, as a dataclass is.

    Args:
        cls: The class.
        low_rank: `low_rank(a, c, b)` makes what the class takes as `W` where a Run keeps factors; without it the
            class takes dense weights only.

    Example:
        >>> import equinox as eqx
        >>> @register_network
        ... class Tiny(eqx.Module):
        ...     W: jax.Array
        ...     dt: float = eqx.field(static=True)
        >>> describe_network(Tiny(jnp.ones((2, 2)), 0.5))
        {'name': 'Tiny', 'static': {'dt': 0.5}}
    """
    if cls is None:
        return lambda decorated: _register(decorated, low_rank)
    return _register(cls, low_rank)


def _register(cls: type, low_rank: Callable[..., Any] | None) -> type:
    _REGISTRY[cls.__name__] = _Registered(cls, low_rank)
    return cls


def describe_network(network: Any) -> dict[str, Any]:
    """Name and static fields of a network, for the attribute `network` of its Run.

    Args:
        network: Any pytree. Static fields are kept where they are numbers, text, None or lists of these.

    Returns:
        {"name": class name, "static": {field: value}}.
    """
    fields = dataclasses.fields(network) if dataclasses.is_dataclass(network) else ()
    values = {field.name: getattr(network, field.name) for field in fields if field.metadata.get("static")}
    static = {name: _plain(value) for name, value in values.items()}
    return {"name": type(network).__name__, "static": {k: v for k, v in static.items() if v is not _NOT_PLAIN}}


_NOT_PLAIN = object()


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    if isinstance(value, (list, tuple)):
        items = [_plain(item) for item in value]
        return _NOT_PLAIN if any(item is _NOT_PLAIN for item in items) else items
    return _NOT_PLAIN


def rebuild(name: str, static: Mapping[str, Any], weights: Mapping[str, Any]) -> Any:
    """A registered network from its class name, static fields and weights (arrays, or `LowRank` for W).

    Raises:
        RunError: If the class is unknown, or its weights were not kept.
    """
    if name not in _REGISTRY:
        known = ", ".join(sorted(_REGISTRY)) or "none; import tauflow.networks first"
        raise RunError(
            f"The Run's network is a {name}, not registered (known: {known}); pass like=, a module to be filled."
        )
    make, low_rank = _REGISTRY[name]
    fields = {field.name: field for field in dataclasses.fields(make)}
    required = {key for key, field in fields.items() if _has_no_default(field)}
    missing = sorted(required - weights.keys() - static.keys())
    unknown = sorted((weights.keys() | static.keys()) - fields.keys())
    if missing or unknown:
        problem = f"lacks {missing[0]}" if missing else f"has {unknown[0]}, which the class has not"
        raise RunError(f"The Run cannot be made a {name}, because it {problem}; pass like=, a module to be filled.")
    arrays = {}
    for key, value in weights.items():
        if isinstance(value, LowRank) and low_rank is None:
            raise RunError(f"The Run keeps factors of {key} and {name} takes dense weights; use run.weights({key!r}).")
        if isinstance(value, LowRank) and low_rank is not None:
            arrays[key] = low_rank(*map(jnp.asarray, value))
        else:
            arrays[key] = jnp.asarray(value)
    return make(**arrays, **static)


def _has_no_default(field: dataclasses.Field) -> bool:
    return field.init and field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def fill(like: Any, weights: Mapping[str, Any]) -> Any:
    """A user's module with the saved weights in it, field by field; its other leaves stay as they are.

    A field is found by its name anywhere in the module (`W`), or by its dotted path (`cell.W`). Each array
    takes the dtype of the one that it replaces.

    Raises:
        RunError: If a field is absent or ambiguous, or has another shape.
    """
    flat: dict[str, Any] = {}
    for name, value in weights.items():
        factors = value._asdict() if isinstance(value, LowRank) else None
        flat.update({f"{name}.{k}": v for k, v in factors.items()} if factors else {name: value})
    paths, structure = jax.tree_util.tree_flatten_with_path(like)
    names = [jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in paths]
    leaves = [leaf for _, leaf in paths]
    for name, value in flat.items():
        found = [i for i, path in enumerate(names) if path == name or path.endswith(f".{name}")]
        if len(found) != 1:
            problem = "no field" if not found else f"{len(found)} fields"
            raise RunError(
                f"like= has {problem} named {name}; its arrays are {', '.join(names) or 'none'}, "
                f"and the Run keeps {', '.join(flat)}."
            )
        old = leaves[found[0]]
        if np.shape(old) != value.shape:
            raise RunError(f"{name} has shape {np.shape(old)} in like= and {value.shape} in the Run; they must agree.")
        leaves[found[0]] = jnp.asarray(value, dtype=old.dtype if hasattr(old, "dtype") else None)
    return jax.tree_util.tree_unflatten(structure, leaves)
