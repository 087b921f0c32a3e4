"""Runs over devices: each device maps over its own blocks of W lanes, with no communication.

The number of devices, of blocks and their order change no bit of any run; the width W does, so it is fixed by the plan.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jthermo.data.source import Split
from jthermo.engines import choice as engines
from jthermo.engines import run_state, step_program, xla
from jthermo.errors import InputError
from jthermo.models import Model
from jthermo.update_rule.optimizer import Optimizer

PLACEMENTS = ("sharding", "pmap")


def devices() -> tuple[jax.Device, ...]:
    """The devices of this process; on a CPU one per core, unless JAX was started or configured before."""
    untouched = jax.config.values[
        "jax_num_cpu_devices"
    ] == -1 and "device_count" not in os.environ.get("XLA_FLAGS", "")
    if untouched:
        # JAX runs already: take what there is; only speed depends on it
        with contextlib.suppress(RuntimeError):
            jax.config.update("jax_num_cpu_devices", len(os.sched_getaffinity(0)))
    return tuple(jax.local_devices())


@contextlib.contextmanager
def pinned() -> Iterator[None]:
    """Tracing and running under fixed settings, so that no global setting of the user's changes a bit."""
    with (
        jax.threefry_partitionable(True),
        jax.default_matmul_precision("highest"),
        jax.enable_x64(False),
    ):
        yield


@dataclass(frozen=True)
class Placement:
    """How arrays of blocks lie on devices; their leading axis counts blocks, a multiple of the number of devices.

    Args:
        kind: ``"sharding"`` (jit over a mesh) or ``"pmap"``; both run the same program on each device.
        devices: the devices, in order.
    """

    kind: str
    devices: tuple[jax.Device, ...]

    def __post_init__(self) -> None:
        if self.kind not in PLACEMENTS:
            raise InputError("placement", self.kind, f"use one of {', '.join(PLACEMENTS)}")

    def put(self, tree: Any) -> Any:
        """Host arrays (blocks, …) onto the devices."""
        if self.kind == "sharding":
            return jax.device_put(tree, NamedSharding(self._mesh, PartitionSpec("runs")))
        return jax.tree.map(lambda a: a.reshape(len(self.devices), -1, *a.shape[1:]), tree)

    def tell(self, *numbers: np.ndarray) -> tuple[np.ndarray, ...]:
        """Host arrays (blocks,) as a mapped function takes them: jit places these few bytes sooner than `put` would."""
        return numbers if self.kind == "sharding" else self.put(numbers)

    def get(self, tree: Any) -> Any:
        """Device arrays back to the host as (blocks, …)."""
        host = jax.tree.map(np.asarray, tree)
        return (
            host
            if self.kind == "sharding"
            else jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), host)
        )

    def hold(self, tree: Any) -> Any:
        """Host arrays that all blocks share, one copy on each device."""
        if self.kind == "sharding":
            return jax.device_put(tree, NamedSharding(self._mesh, PartitionSpec()))
        each = NamedSharding(self._mesh, PartitionSpec("runs"))
        copies = jax.tree.map(lambda a: np.broadcast_to(a, (len(self.devices), *a.shape)), tree)
        return jax.device_put(copies, each)

    def map(
        self, per_block: Callable[..., Any], donate: tuple[int, ...] = (), together: bool = False
    ) -> jax.stages.Wrapped:
        """`per_block` over the blocks of every device, as a jitted function of arrays that `put` has placed.

        Its last argument is shared by all blocks and placed by `hold`. The blocks of a device run one after the other,
        or `together` where their number cannot change how one is rounded.
        """

        def per_device(*args: Any) -> Any:
            *blocked, held = args
            if together:
                return jax.vmap(lambda *block: per_block(*block, held))(*blocked)
            return jax.lax.map(lambda block: per_block(*block, held), tuple(blocked))

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
    """A jitted function with its last argument, the arrays that every block shares, filled in."""

    jitted: Any
    held: Any

    def __call__(self, *args: Any) -> Any:
        """Run it."""
        return self.jitted(*args, self.held)

    def compiled(self, *args: Any) -> Bound:
        """Compiled for `args`, arrays or their shapes."""
        return Bound(self.jitted.lower(*args, self.held).compile(), self.held)


class Programs(NamedTuple):
    """The jitted functions of a cohort; each compiles once per number of blocks.

    Attributes:
        advance: ``(runs, states, start, stop) → states``, with one start and stop per block.
        observe: ``(runs, states, step, record) → recorded values``, with one step and number of a record per block.
    """

    advance: Bound
    observe: Bound


def programs(program: step_program.Program, placement: Placement) -> Programs:
    """The jitted update and record of a program; the same objects for the same program, so nothing compiles twice."""
    data = program.data
    held = _held(data.load(), placement)
    # whatever is recorded, trained by one program
    update = replace(program, observables=(), probe_size=0)
    return Programs(
        Bound(_advance(update, placement), held), Bound(_observe(program, placement), held)
    )


@functools.lru_cache(maxsize=2)
def _held(split: Split, placement: Placement) -> Any:
    """A set's copies on the devices, made once."""
    return placement.hold(split.arrays)


@functools.lru_cache(maxsize=64)
def _advance(program: step_program.Program, placement: Placement) -> jax.stages.Wrapped:
    update = functools.partial(engines.advance(program), program)
    # for Pallas the blocks are an axis of the kernel's grid, so all of them are one launch
    return placement.map(update, donate=(1,), together=program.engine == "pallas")


@functools.lru_cache(maxsize=64)
def _observe(program: step_program.Program, placement: Placement) -> jax.stages.Wrapped:
    one = functools.partial(xla.observe, program)
    return placement.map(jax.vmap(one, in_axes=(0, 0, None, None, None)))


@functools.lru_cache(maxsize=64)
def initializer(model: Model, optimizer: Optimizer, placement: Placement) -> Bound:
    """The jitted ``runs → states``; a program of its own, since compiled inside another it rounds differently."""
    one = functools.partial(run_state.init, model, optimizer)
    return Bound(placement.map(lambda runs, _: jax.vmap(one)(runs)), {})
