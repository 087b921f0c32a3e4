"""Runs over devices: each device maps over its own blocks of W lanes, with no communication.

The number of devices, of blocks and their order change no bit of any run; the width W does, so it is fixed by the plan.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jthermo import train
from jthermo.errors import InputError
from jthermo.models import Model
from jthermo.optimizer import Optimizer

PLACEMENTS = ("sharding", "pmap")


def devices() -> tuple[jax.Device, ...]:
    """The devices of this process; on a CPU one per core, unless JAX was started or configured before."""
    untouched = jax.config.values["jax_num_cpu_devices"] == -1 and "device_count" not in os.environ.get(
        "XLA_FLAGS", ""
    )
    if untouched:
        with contextlib.suppress(
            RuntimeError
        ):  # JAX runs already: take what there is; only speed depends on it
            jax.config.update("jax_num_cpu_devices", len(os.sched_getaffinity(0)))
    return tuple(jax.local_devices())


@contextlib.contextmanager
def pinned() -> Iterator[None]:
    """Tracing and running under fixed settings, so that no global setting of the user's changes a bit."""
    with jax.threefry_partitionable(True), jax.default_matmul_precision("highest"), jax.enable_x64(False):
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

    def get(self, tree: Any) -> Any:
        """Device arrays back to the host as (blocks, …)."""
        host = jax.tree.map(np.asarray, tree)
        return host if self.kind == "sharding" else jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), host)

    def map(self, per_block: Callable[..., Any], donate: tuple[int, ...] = ()) -> jax.stages.Wrapped:
        """`per_block` over the blocks of every device, as a jitted function of arrays that `put` has placed."""

        def per_device(*args: Any) -> Any:
            return jax.lax.map(lambda block: per_block(*block), args)

        if self.kind == "pmap":
            return jax.pmap(per_device, devices=self.devices, donate_argnums=donate)
        spec = PartitionSpec("runs")
        return jax.jit(
            jax.shard_map(per_device, mesh=self._mesh, in_specs=spec, out_specs=spec, check_vma=False),
            donate_argnums=donate,
        )

    @property
    def _mesh(self) -> Mesh:
        return Mesh(np.array(self.devices), ("runs",))


class Programs(NamedTuple):
    """The jitted functions of a cohort; each compiles once per number of blocks.

    Attributes:
        advance: ``(runs, states, start, stop) → states``, with one start and stop per block.
        observe: ``(runs, states, step) → recorded values``, with one step per block.
    """

    advance: jax.stages.Wrapped
    observe: jax.stages.Wrapped


@functools.lru_cache(maxsize=64)
def programs(program: train.Program, placement: Placement) -> Programs:
    """The jitted update and record of a program; the same objects for the same program, so nothing compiles twice."""
    one = functools.partial(train.observe, program)
    return Programs(
        advance=placement.map(functools.partial(train.advance, program), donate=(1,)),
        observe=placement.map(jax.vmap(one, in_axes=(0, 0, None))),
    )


@functools.lru_cache(maxsize=64)
def initializer(model: Model, optimizer: Optimizer, placement: Placement) -> jax.stages.Wrapped:
    """The jitted ``runs → states``; a program of its own, since compiled inside another it rounds differently."""
    one = functools.partial(train.init, model, optimizer)
    return placement.map(lambda runs: jax.vmap(one)(runs))
