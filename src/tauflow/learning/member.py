"""One member's updates as a compiled function, and the same for many members on the devices there are."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

Point = dict[str, Any]


class State(NamedTuple):
    """Everything that changes while a member learns; every leaf is an array.

    Attributes:
        params: Trained fields of the network, by name.
        optimizer: State of the optimizer.
        key: Data of the member's random key (uint32); update k uses `fold_in(key, k)`.
        update: The next update, int32.
        alive: False once the loss, the gradient or the new weights were not finite; nothing changes from then on.
    """

    params: dict[str, Any]
    optimizer: Any
    key: jax.Array
    update: jax.Array
    alive: jax.Array


class Makers(NamedTuple):
    """How a member gets its objective and optimizer from its grid point, and what `project` does after an update."""

    objective: Callable[..., Callable[[Any, jax.Array], jax.Array]]
    optimizer: Callable[..., optax.GradientTransformation]
    project: Callable[[Any], Any] | None


def trained(network: Any, train: tuple[str, ...]) -> dict[str, Any]:
    """The fields of a network that learning moves, by name."""
    return {name: getattr(network, name) for name in train}


def replace(network: Any, params: dict[str, Any]) -> Any:
    """The network with other values in the fields named in `params`."""
    return eqx.tree_at(lambda net: [getattr(net, name) for name in params], network, list(params.values()))


def initial_state(network: Any, key: jax.Array, point: Point, *, train: tuple[str, ...], makers: Makers) -> State:
    """The state of one member before its first update."""
    params = trained(network, train)
    return State(params, makers.optimizer(**point).init(params), key, jnp.int32(0), jnp.bool_(True))


def updates(
    network: Any, point: Point, state: State, count: jax.Array, *, capacity: int, makers: Makers
) -> tuple[State, jax.Array, jax.Array]:
    """Do `count` updates of one member; losses and gradient norms come in arrays of length `capacity`, NaN-padded.

    The number of updates is a traced value, so that one compiled function serves every chunk and the trajectory
    cannot depend on how it was cut into chunks.
    """
    objective, optimizer = makers.objective(**point), makers.optimizer(**point)
    key = jax.random.wrap_key_data(state.key)
    dtype = jnp.result_type(*(leaf.dtype for leaf in jax.tree.leaves(state.params)))

    def learn(state: State) -> tuple[State, jax.Array, jax.Array]:
        def loss_of(params: dict[str, Any]) -> jax.Array:
            return objective(replace(network, params), jax.random.fold_in(key, state.update))

        loss, gradient = jax.value_and_grad(loss_of)(state.params)
        norm = optax.tree.norm(gradient)
        with jax.numpy_dtype_promotion("standard"):
            change, optimizer_state = optimizer.update(gradient, state.optimizer, state.params)
            params = optax.apply_updates(state.params, change)
        if makers.project is not None:
            params = trained(makers.project(replace(network, params)), tuple(params))
        sound = [jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(params)]
        finite = jnp.isfinite(loss) & jnp.isfinite(norm) & jnp.stack(sound).all()
        new = State(params, optimizer_state, state.key, state.update + 1, jnp.bool_(True))
        stopped = state._replace(alive=jnp.bool_(False))
        kept = jax.tree.map(partial(jnp.where, finite), new, stopped)
        return kept, loss.astype(dtype), norm.astype(dtype)

    def freeze(state: State) -> tuple[State, jax.Array, jax.Array]:
        return state, jnp.asarray(jnp.nan, dtype), jnp.asarray(jnp.nan, dtype)

    def body(i: jax.Array, carry: tuple[State, jax.Array, jax.Array]) -> tuple[State, jax.Array, jax.Array]:
        state, losses, norms = carry
        state, loss, norm = lax.cond(state.alive, learn, freeze, state)
        return state, losses.at[i].set(loss), norms.at[i].set(norm)

    empty = jnp.full((capacity,), jnp.nan, dtype)
    return lax.fori_loop(0, count, body, (state, empty, empty))


def side_by_side(devices: list[jax.Device]) -> bool:
    """Whether members run as one `vmap`: on accelerators, not on CPUs, where one after the other is faster."""
    return devices[0].platform != "cpu"


def _in_turn(function: Callable[[Any], Any], members: Any, count: jax.Array) -> Any:
    """`function` of the first `count` members, one after the other; zeros for the rest."""
    size = jax.tree.leaves(members)[0].shape[0]

    def one(i: jax.Array, results: Any) -> Any:
        member = jax.tree.map(lambda leaf: lax.dynamic_index_in_dim(leaf, i, keepdims=False), members)
        return jax.tree.map(
            lambda all_, new: lax.dynamic_update_index_in_dim(all_, new, i, 0), results, function(member)
        )

    first = jax.tree.map(lambda leaf: leaf[0], members)
    shapes = jax.eval_shape(function, first)
    empty = jax.tree.map(lambda shape: jnp.zeros((size, *shape.shape), shape.dtype), shapes)
    return lax.fori_loop(0, count, one, empty)


class Ensemble:
    """Members of one structure, compiled once: on CPUs one after the other on each device, on a GPU side by side.

    On CPUs the members are shared out over the host devices by `shard_map`, and each device runs its members in turn,
    in a loop whose length the compiler does not know: every member so executes the very instructions of a run on its
    own, whatever their number. On accelerators they run as one `vmap`.
    """

    def __init__(
        self, networks: list[Any], keys: list[jax.Array], points: list[Point], *, train: tuple[str, ...],
        makers: Makers, capacity: int,
    ):  # fmt: skip
        self.members = len(networks)
        self.capacity = capacity
        devices = jax.local_devices()
        self.on_cpu = not side_by_side(devices)
        # At least two where there are two: XLA compiles a program for one device otherwise, to other last digits.
        shards = min(len(devices), max(self.members, 2)) if self.on_cpu else 1
        self.mesh = Mesh(np.array(devices[:shards]), ("member",))
        self.pad = -self.members % shards
        own = [int(part.sum()) for part in np.split(np.arange(self.members + self.pad) < self.members, shards)]
        self._own = self._put(jnp.asarray(own, jnp.int32))  # members of each device, padding left out
        static = eqx.filter(networks[0], eqx.is_array, inverse=True)
        self._arrays = self._put(self._stack([eqx.filter(network, eqx.is_array) for network in networks]))
        self._points = self._put(self._stack([{k: jnp.asarray(v) for k, v in point.items()} for point in points]))
        key_data = self._put(self._stack([jax.random.key_data(key) for key in keys]))

        def start(arrays: Any, key: jax.Array, point: Point) -> State:
            return initial_state(eqx.combine(arrays, static), key, point, train=train, makers=makers)

        def run(arrays: Any, point: Point, state: State, count: jax.Array) -> tuple[State, jax.Array, jax.Array]:
            network = eqx.combine(arrays, static)
            return updates(network, point, state, count, capacity=capacity, makers=makers)

        self.state: State = self._compile(start, 0)(self._arrays, key_data, self._points)
        self._run = self._compile(run, 1)

    def advance(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Do `count` updates of every member; the losses and gradient norms, (member, count)."""
        self.state, losses, norms = self._run(self._arrays, self._points, self.state, jnp.int32(count))
        return self._get(losses)[:, :count], self._get(norms)[:, :count]

    def host_state(self) -> State:
        """The state of every member as NumPy arrays, (member, ...)."""
        return jax.tree.map(self._get, self.state)

    def alive(self) -> np.ndarray:
        """Which members have not stopped, (member,)."""
        return self._get(self.state.alive)

    def set_state(self, leaves: list[np.ndarray]) -> None:
        """Put back the leaves of a `host_state`, in tree order."""
        old, treedef = jax.tree.flatten(self.state)
        padded = [np.concatenate([leaf, np.repeat(leaf[-1:], self.pad, axis=0)]) for leaf in leaves]
        new = [jnp.asarray(leaf, dtype=ref.dtype) for leaf, ref in zip(padded, old, strict=True)]
        self.state = self._put(jax.tree.unflatten(treedef, new))

    def _compile(self, function: Callable[..., Any], shared: int) -> Callable[..., Any]:
        """`function` over a leading member axis of all but its last `shared` arguments."""

        def mapped(own: jax.Array, *args: Any) -> Any:
            split = len(args) - shared
            per_member, common = args[:split], args[split:]
            if not self.on_cpu:
                return jax.vmap(lambda member: function(*member, *common))(per_member)
            return _in_turn(lambda member: function(*member, *common), per_member, own[0])

        def sharded(*args: Any) -> Any:
            specs = tuple(P("member") if i < len(args) - shared else P() for i in range(len(args)))
            specs = (P("member"), *specs)
            return jax.shard_map(mapped, mesh=self.mesh, in_specs=specs, out_specs=P("member"), check_vma=False)(
                self._own, *args
            )

        return jax.jit(sharded)

    def _stack(self, trees: list[Any]) -> Any:
        trees = trees + [trees[-1]] * self.pad
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)

    def _put(self, tree: Any) -> Any:
        return jax.device_put(tree, NamedSharding(self.mesh, P("member")))

    def _get(self, array: jax.Array) -> np.ndarray:
        return np.asarray(array)[: self.members]
