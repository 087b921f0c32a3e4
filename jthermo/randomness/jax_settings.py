"""JAX's settings: those that affect bits, and one CPU device per core."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import jax


@contextlib.contextmanager
def pinned() -> Iterator[None]:
    """Fix the JAX settings that affect bits while tracing and running, whatever the user set."""
    with (
        jax.threefry_partitionable(True),
        jax.default_matmul_precision("highest"),
        jax.enable_x64(False),
    ):
        yield


def ask_for_cores() -> bool:
    """Ask JAX for one CPU device per core; whether it could, or the user has set their number.

    JAX fixes its devices when it first computes. So a sweep asks when it is built, before it traces
    anything; later the number of devices stays as it is, and only the speed depends on it.
    """
    if jax.config.values["jax_num_cpu_devices"] == -1 and "device_count" not in os.environ.get(
        "XLA_FLAGS", ""
    ):
        try:
            jax.config.update("jax_num_cpu_devices", num_cores())
        except RuntimeError:
            return False
    return True


def num_cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0))
