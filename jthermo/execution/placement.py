"""Place blocks of runs on devices and build the jitted functions that map over them.

Each device maps over its own blocks of W lanes, without communication. The number of devices, the
number of blocks and their order do not affect the bits of a run; W does.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jthermo.data.source import Split
from jthermo.engines import choice as engines
from jthermo.engines import run_state, step_program, xla
from jthermo.engines.fingerprint import Parts
from jthermo.errors import one_of
from jthermo.models import Model
from jthermo.randomness.jax_settings import ask_for_cores, num_cores
from jthermo.randomness.jax_settings import pinned as pinned
from jthermo.update_rule.optimizer import Optimizer

PLACEMENTS = ("sharding", "pmap")
# The fingerprints of all sweeps of this process, by group.
_TRACED: dict[str, Parts] = {}


def devices() -> tuple[jax.Device, ...]:
    """The local devices; on a CPU one per core, unless JAX has started or the user set another."""
    ask_for_cores()
    return tuple(jax.local_devices())


def idle_cores(what: str) -> str | None:
    """How to use all cores, if JAX started before a sweep could ask for them; else None.

    `what` is what XLA does: ``"trains"``, or measures some observables.
    """
    cores, count = num_cores(), jax.local_device_count()
    if jax.default_backend() != "cpu" or ask_for_cores() or count >= cores:
        return None
    return (
        f"{what} on {count} of {cores} cores, because JAX was in use before the sweep was built; "
        f'for all, first call jax.config.update("jax_num_cpu_devices", {cores})'
    )


@dataclass(frozen=True)
class Placement:
    """The devices, and how arrays whose leading axis counts blocks are divided among them.

    The number of blocks has to be a multiple of the number of devices.

    Args:
        kind: ``"sharding"`` (jit over a mesh) or ``"pmap"``; both run the same program on each
            device.
        devices: the devices, in order.

    Raises:
        InputError: an unknown `kind`.
    """

    kind: str
    devices: tuple[jax.Device, ...]

    def __post_init__(self) -> None:
        one_of("placement", self.kind, PLACEMENTS)

    def put(self, tree: Any) -> Any:
        """Copy host arrays (blocks, …) to the devices."""
        if self.kind == "sharding":
            return jax.device_put(tree, NamedSharding(self._mesh, PartitionSpec("runs")))
        return jax.tree.map(lambda a: a.reshape(len(self.devices), -1, *a.shape[1:]), tree)

    def tell(self, *numbers: np.ndarray) -> tuple[np.ndarray, ...]:
        """Small host arrays (blocks,) as arguments; under jit this is faster than `put`."""
        return numbers if self.kind == "sharding" else self.put(numbers)

    def get(self, tree: Any) -> Any:
        """Copy device arrays to the host as (blocks, …)."""
        host = jax.tree.map(np.asarray, tree)
        return (
            host
            if self.kind == "sharding"
            else jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), host)
        )

    def pieces(self, array: jax.Array | np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """The part (blocks, …) of an array on each device, with the number of its first block.

        On a CPU they are views, so that a large state is not copied.
        """
        if isinstance(array, np.ndarray):
            # what `put` gives to pmap, which copies it to the devices in its next call
            yield 0, self.get(array)
            return
        for shard in array.addressable_shards:
            first, part = shard.index[0].start or 0, np.asarray(shard.data)
            if self.kind == "pmap":
                # (1, blocks, …) of (devices, blocks, …)
                first, part = first * part.shape[1], part[0]
            yield first, part

    def hold(self, tree: Any) -> Any:
        """Copy host arrays that all blocks share to every device."""
        if self.kind == "sharding":
            return jax.device_put(tree, NamedSharding(self._mesh, PartitionSpec()))
        one_per_device = NamedSharding(self._mesh, PartitionSpec("runs"))
        copies = jax.tree.map(lambda a: np.broadcast_to(a, (len(self.devices), *a.shape)), tree)
        return jax.device_put(copies, one_per_device)

    def map(
        self, per_block: Callable[..., Any], donate: tuple[int, ...] = (), together: bool = False
    ) -> jax.stages.Wrapped:
        """A jitted function that applies `per_block` to every block on its device.

        Args:
            per_block: a function of one block; its last argument is shared by all blocks.
            donate: positions of arguments whose memory the result may reuse.
            together: run the blocks of a device at once instead of one after the other. Only for a
                function whose rounding does not depend on the number of blocks.

        Returns:
            A function of arrays (blocks, …) placed by `put`, except for the last argument, which is
            placed by `hold`.
        """

        def per_device(*args: Any) -> Any:
            *blocked, held = args
            if together:
                return jax.vmap(lambda *block: per_block(*block, held))(*blocked)
            return _one_by_one(lambda *block: per_block(*block, held), *blocked)

        if self.kind == "pmap":
            return jax.pmap(per_device, devices=self.devices, donate_argnums=donate)
        spec = PartitionSpec("runs")

        def call(*args: Any) -> Any:
            specs = (*(spec for _ in args[:-1]), PartitionSpec())
            mapped = jax.shard_map(
                per_device, mesh=self._mesh, in_specs=specs, out_specs=spec, check_vma=False
            )
            return mapped(*args)

        return jax.jit(call, donate_argnums=donate)

    @property
    def _mesh(self) -> Mesh:
        return Mesh(np.array(self.devices), ("runs",))


class Bound(NamedTuple):
    """A jitted function with its last argument, the arrays shared by all blocks, filled in."""

    jitted: Any
    held: Any

    def __call__(self, *args: Any) -> Any:
        """Call the function."""
        return self.jitted(*args, self.held)

    def compiled(self, *args: Any) -> Bound:
        """Compile the function for `args`, which are arrays or their shapes."""
        return Bound(self.jitted.lower(*args, self.held).compile(), self.held)


class Programs(NamedTuple):
    """The jitted functions of a cohort; each compiles once per number of blocks.

    Attributes:
        advance: ``(runs, states, start, stop) → states``, with start and stop steps per block. With
            an engine that takes records, ``(…, stop, marks) → states, recorded values``, with the
            steps (records,) of the records per block and values (W, records) by variable.
        last_step: ``(runs, states, stop) → last``, from the states before the step; None for a
            program that does not record it.
        observe: ``(runs, states, last, step, record) → recorded values``, with the step and the
            number of the record per block, and `last` = ``()`` without a `last_step`; None if
            `advance` takes all records.
        records: most records of one call of `advance`; 0 if it takes none.
        periods: periods of the observables that `observe` measures.
    """

    advance: Bound
    last_step: Bound | None
    observe: Bound | None
    records: int
    periods: tuple[int, ...]

    def observes(self, record: int) -> bool:
        """Whether `observe` has to be called for a record."""
        if not self.records or self.last_step is not None:
            return True
        return any(record % period == 0 for period in self.periods)

    def reach(self, record: int, most: int) -> int:
        """How many records from `record` on one call of `advance` may pass, at most `most`."""
        ahead = range(record, record + max(1, min(most, self.records)))
        return next((k + 1 - record for k in ahead if self.observes(k)), len(ahead))


def programs(program: step_program.Program, placement: Placement) -> Programs:
    """The jitted functions of a program, cached so that nothing is compiled twice."""
    held, mine = _held(program.data.load(), placement), engines.measured(program)
    others = tuple(o for o in program.observables if o not in mine)
    # The update does not depend on the observables, so programs that differ in them share it.
    update = replace(
        program,
        observables=mine,
        probe_size=program.probe_size if mine else 0,
        whole_probe=False,
        last_step=False,
    )
    records = engines.RECORDS.get(program.engine, 0)
    observe = None
    if others or not records:
        observe = Bound(_observe(replace(program, observables=others), placement), held)
    return Programs(
        Bound(_advance(update, placement), held),
        Bound(_last_step(update, placement), held) if program.last_step else None,
        observe,
        records,
        tuple(o.period for o in others),
    )


def forget_changed(code: Mapping[str, Parts]) -> None:
    """Drop compiled programs if the code of a group has changed in this process.

    In a notebook, a redefined helper leaves the model's class as it is, and with it the key under
    which its compiled programs are kept.
    """
    known = [(_TRACED.get(name, {}), parts) for name, parts in code.items()]
    if any(old[part] != new[part] for old, new in known for part in old.keys() & new.keys()):
        for cache in (_advance, _last_step, _observe, initializer):
            cache.cache_clear()
    _TRACED.update(code)


@functools.lru_cache(maxsize=2)
def _held(split: Split, placement: Placement) -> Any:
    """The arrays of a data set on all devices, copied once."""
    return placement.hold(split.arrays)


@functools.lru_cache(maxsize=64)
def _advance(program: step_program.Program, placement: Placement) -> jax.stages.Wrapped:
    update = functools.partial(engines.advance(program), program)
    return placement.map(update, donate=(1,), together=engines.together(program.engine))


@functools.lru_cache(maxsize=64)
def _last_step(program: step_program.Program, placement: Placement) -> jax.stages.Wrapped:
    one = functools.partial(xla.last_step, program)
    return placement.map(jax.vmap(one, in_axes=(0, 0, None, None)))


@functools.lru_cache(maxsize=64)
def _observe(program: step_program.Program, placement: Placement) -> jax.stages.Wrapped:
    one = functools.partial(xla.observe, program)
    return placement.map(jax.vmap(one, in_axes=(0, 0, 0, None, None, None)))


@functools.lru_cache(maxsize=64)
def initializer(
    model: Model, optimizer: Optimizer, placement: Placement, start: run_state.Start = None
) -> Bound:
    """The jitted ``runs → states``; a program of its own, since inlined it rounds differently."""
    one = functools.partial(run_state.init, model, optimizer, start=start)
    return Bound(placement.map(lambda runs, _: jax.vmap(one)(runs)), {})


@functools.lru_cache(maxsize=64)
def starter(optimizer: Optimizer, placement: Placement) -> Bound:
    """The jitted ``runs, states → states`` with a new state of the optimizer."""

    def one(run: step_program.Run, state: run_state.State) -> run_state.State:
        return run_state.begun(optimizer, run, state.params, state.model_state)

    return Bound(placement.map(lambda runs, states, _: jax.vmap(one)(runs, states)), {})


def _one_by_one(function: Callable[..., Any], *blocked: Any) -> Any:
    """``lax.map`` over the leading axis of arrays, with a number of iterations hidden from XLA.

    XLA would otherwise dissolve a loop of one iteration, and round differently where a device has a
    single block.
    """
    size = len(jax.tree.leaves(blocked)[0])
    # Behind the barrier an array that `function` does not use keeps its sharding as well.
    count, blocked = jax.lax.optimization_barrier((jnp.int32(size), blocked))

    def body(i: jax.Array, filled: Any) -> Any:
        block = jax.tree.map(lambda a: jax.lax.dynamic_index_in_dim(a, i, keepdims=False), blocked)
        return jax.tree.map(
            lambda a, value: jax.lax.dynamic_update_index_in_dim(a, value, i, 0),
            filled,
            function(*block),
        )

    shapes = jax.eval_shape(function, *jax.tree.map(lambda a: a[0], blocked))
    filled = jax.tree.map(lambda s: jax.lax.empty((size, *s.shape), s.dtype), shapes)
    return jax.lax.fori_loop(0, count, body, filled)
