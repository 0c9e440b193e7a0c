"""Who takes part in an ensemble: members from keys and grid points, and the groups that share a compiled program."""

from __future__ import annotations

import itertools
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from tauflow.learning.assemble import Group, Member
from tauflow.learning.member import Makers, Point, replace, trained
from tauflow.learning.rates import plain_rates
from tauflow.precision import cast
from tauflow.run.schema import VARIABLES

_NETWORK_KEY = 2**32 - 1
#: Names along `run` that a Run has already.
RESERVED = {*VARIABLES, "run", "units", "network_static", "objective_settings"}


def network_key(key: jax.Array) -> jax.Array:
    """The key with which `ensemble` makes the network of a member whose key is `key`.

    No update uses it, so weights and trials are independent.
    """
    return jax.random.fold_in(key, _NETWORK_KEY)


def checked_keys(keys: Any) -> list[jax.Array]:
    """The keys as a list, or a `ValueError` if there is none or one is no JAX random key."""
    keys = list(keys)
    if not keys:
        raise ValueError("0 keys came; an ensemble needs at least one, for example keys=jax.random.split(key, 4).")
    for key in keys:
        if not (isinstance(key, jax.Array) and jax.dtypes.issubdtype(key.dtype, jax.dtypes.prng_key) and key.ndim == 0):
            raise ValueError(f"a key is {key!r}; it must be a JAX random key, for example jax.random.key(0).")
    return keys


def checked_fields(train: Any) -> tuple[str, ...]:
    """The names of the fields to train, each once, or a `ValueError` if there is none."""
    fields = (train,) if isinstance(train, str) else tuple(dict.fromkeys(train))
    if not fields:
        raise ValueError("train is empty; it must name one field of the network or more, for example ('W',).")
    return fields


def checked_steps(steps: Any) -> int:
    """`steps` as an int, or a `ValueError` that says what it must be."""
    if isinstance(steps, bool) or not isinstance(steps, (int, np.integer)) or steps < 0:
        raise ValueError(f"steps is {steps!r}; it must be a whole number of updates, 0 or more.")
    return int(steps)


def device_in_words() -> str:
    """Kind and number of the devices that JAX computes on, for example "2 x cpu"."""
    devices = jax.local_devices()
    return f"{len(devices)} x {devices[0].device_kind}"


def points_of(grid: Mapping[str, Sequence[Any]]) -> list[Point]:
    """Every combination of the grid's values, one mapping a point; a `ValueError` for an axis that cannot be."""
    for name, values in grid.items():
        if name in RESERVED:
            raise ValueError(f"a grid axis is named {name!r}, which a Run has already; give it another name.")
        if len(values) == 0:
            raise ValueError(f"grid axis {name!r} is empty; give it one value or more.")
    return [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]


def members_of(
    make_network: Callable[..., Any], keys: list[jax.Array], points: list[Point], train: tuple[str, ...], dtype: str
) -> list[Member]:
    """Every key at every point, with its network; a `ValueError` if `train` does not fit them."""
    members: list[Member] = []
    for point in points:
        for seed, key in enumerate(keys):
            network = cast(make_network(key=network_key(key), **point), dtype)
            check_trained(network, train)
            members.append(Member(len(members), point, seed, key, network))
    return members


def check_trained(network: Any, train: tuple[str, ...]) -> None:
    """Raise a `ValueError` unless every field in `train` is of floating-point arrays."""
    for name in train:
        leaves = jax.tree.leaves(getattr(network, name, None))
        if not leaves or not all(
            hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in leaves
        ):
            raise ValueError(
                f"train names {name!r}; it must name fields of the {type(network).__name__} that are arrays of "
                "floating-point numbers, for example ('W',)."
            )


def with_rates(group: Group, train: tuple[str, ...], steps: int) -> Group:
    """The group with the learning rates of each member; None unless it learns by plain gradient descent."""
    known: dict[int, np.ndarray | None] = {}
    for optimizer, member in zip(group.optimizers, group.members, strict=True):
        if not (hasattr(optimizer, "init") and hasattr(optimizer, "update")):
            raise ValueError(f"the optimizer is {optimizer!r}; it must be one of optax, for example optax.adam(1e-3).")
        if id(optimizer) not in known:
            plain = group.makers.project is None  # a projection makes it another dynamics
            known[id(optimizer)] = plain_rates(optimizer, trained(member.network, train), steps) if plain else None
    return group._replace(rates=[known[id(optimizer)] for optimizer in group.optimizers])


def program_of(group: Group, train: tuple[str, ...]) -> list[Any]:
    """What an update of the group does, in words and arrays that are the same in another process."""
    member, makers = group.members[0], group.makers

    def update(params: dict[str, Any], point: Point, key: jax.Array) -> Any:
        loss = makers.objective(**point)(replace(member.network, params), key)
        optimizer = makers.optimizer(**point)
        change, _ = optimizer.update(params, optimizer.init(params), params)
        return loss, change, None if makers.project is None else makers.project(replace(member.network, params))

    with jax.numpy_dtype_promotion("standard"):
        program = jax.make_jaxpr(update)(trained(member.network, train), group.points[0], member.key)
    return [re.sub(r"0x[0-9a-f]+", "", str(program)), program.consts]


def groups_of(
    members: list[Member],
    make_objective: Callable[..., Any],
    make_optimizer: Callable[..., optax.GradientTransformation],
    project: Callable[[Any], Any] | None,
    dtype: str,
    train: tuple[str, ...],
) -> list[Group]:
    """Members that can share one compiled program, and how each group gets its objective and optimizer."""
    by_structure: dict[Any, list[Member]] = {}
    for member in members:
        text = tuple((name, value) for name, value in member.point.items() if not _is_number(value))
        by_structure.setdefault((_structure(member.network), repr(text)), []).append(member)
    groups = []
    for alike in by_structure.values():
        shared = _traced_group(alike, make_objective, make_optimizer, project, dtype, train)
        if shared is not None:
            groups.append(shared)
            continue
        by_point: dict[str, list[Member]] = {}
        for member in alike:
            by_point.setdefault(repr(member.point), []).append(member)
        groups += [_fixed_group(same, make_objective, make_optimizer, project, dtype) for same in by_point.values()]
    return groups


def _fixed_group(
    members: list[Member], make_objective: Any, make_optimizer: Any, project: Any, dtype: str
) -> Group:  # fmt: skip
    """Members at one grid point: objective and optimizer are made once, of Python values."""
    point = members[0].point
    objective, optimizer = cast(make_objective(**point), dtype), make_optimizer(**point)
    makers = Makers(lambda: objective, lambda: optimizer, project)
    return Group(members, [{} for _ in members], makers, [optimizer] * len(members), [objective] * len(members))


def _traced_group(
    members: list[Member], make_objective: Any, make_optimizer: Any, project: Any, dtype: str, train: tuple[str, ...]
) -> Group | None:
    """Members at several grid points with the numbers traced; None where a maker needs them as Python numbers."""
    if all(member.point == members[0].point for member in members):
        return None
    constant = {name: value for name, value in members[0].point.items() if not _is_number(value)}
    numbers = [
        {name: _array(value, dtype) for name, value in member.point.items() if name not in constant}
        for member in members
    ]
    makers = Makers(
        lambda **point: cast(make_objective(**constant, **point), dtype),
        lambda **point: make_optimizer(**constant, **point),
        project,
    )

    def probe(point: Point) -> Any:
        params = trained(members[0].network, train)
        loss = makers.objective(**point)(replace(members[0].network, params), members[0].key)
        return makers.optimizer(**point).init(params), loss

    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="A JAX array is being set as static")
            jax.eval_shape(probe, numbers[0])
    except (TypeError, ValueError, UserWarning):  # a maker needs a number: run the points one by one, with real errors
        return None
    optimizers = [make_optimizer(**member.point) for member in members]
    objectives = [make_objective(**member.point) for member in members]
    return Group(members, numbers, makers, optimizers, objectives)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)


def _array(value: Any, dtype: str) -> np.ndarray:
    return np.asarray(value, dtype if isinstance(value, (float, np.floating)) else np.int32)


def _structure(network: Any) -> Any:
    leaves, structure = jax.tree.flatten(network)
    return structure, tuple((leaf.shape, str(leaf.dtype)) if eqx.is_array(leaf) else repr(leaf) for leaf in leaves)
