"""JAX's settings: those that affect bits, and one CPU device per core.

The dtype of a sweep is decided here. Inside ``pinned("float64")`` JAX's default dtype is float64,
otherwise float32, so the other files say ``float`` for it, and :func:`real` where JAX wants more.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from jthermo.errors import one_of

# With bfloat16 the forward and the backward pass of an update are computed in it; the parameters
# and all else are float32.
DTYPES = ("float32", "float64", "bfloat16")
T = TypeVar("T")
_DTYPE: ContextVar[str] = ContextVar("dtype", default="float32")


@contextlib.contextmanager
def pinned(dtype: str | None = None) -> Iterator[None]:
    """Fix the JAX settings that affect bits while tracing and running, whatever the user set.

    Args:
        dtype: one of DTYPES; None keeps that of an outer ``pinned``, and is float32 without one.

    Raises:
        InputError: an unknown `dtype`.
    """
    named = _DTYPE.get() if dtype is None else one_of("dtype", dtype, DTYPES)
    token = _DTYPE.set(named)
    try:
        with (
            jax.threefry_partitionable(True),
            jax.default_matmul_precision("highest"),
            jax.enable_x64(named == "float64"),
        ):
            yield
    finally:
        _DTYPE.reset(token)


def pinned_dtype() -> str:
    """The dtype of the innermost :func:`pinned`."""
    return _DTYPE.get()


def real() -> Any:
    """JAX's default dtype of real numbers: float64 inside ``pinned("float64")``, else float32."""
    return jnp.result_type(float)


def cached_per_dtype(function: Callable[[Any], T]) -> Callable[[Any], T]:
    """Cache a function that traces a model: by the model and the pinned dtype."""

    @functools.lru_cache(maxsize=256)
    def at(dtype: str, model: Any) -> T:
        with pinned(dtype):
            return function(model)

    return functools.wraps(function)(lambda model: at(_DTYPE.get(), model))


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
