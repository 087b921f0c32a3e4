"""Chooses the examples of a finite set for each step: with replacement, in epochs, or all.

The indices are functions of (key, step) alone, so no iterator is saved. An example of a finite
synthetic set is a function of (key of the set, index), so the set takes no memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jthermo.errors import InputError

SAMPLINGS = ("replacement", "epochs")
# Largest number of classes of the labels: a net has one output per class, and the largest labelled
# image sets have about 20,000.
MOST_CLASSES = 100_000


def check_epoch(batch_size: int, num_samples: int | None, sampling: str) -> None:
    """Raise an InputError if an epoch of a finite set holds no full batch."""
    if sampling == "epochs" and num_samples is not None and batch_size > num_samples:
        raise InputError(
            "batch_size",
            batch_size,
            f"an epoch has only {num_samples} examples; give a smaller batch or "
            "sampling='replacement'",
        )


def steps_per_epoch(num_samples: int, batch_size: int) -> int:
    """Full batches per epoch; the remaining examples are dropped, as by ``drop_last`` loaders."""
    return num_samples // batch_size


def permutation(key: Array, num_samples: int) -> Array:
    """The order of the examples in one epoch, (n,)."""
    return jax.random.permutation(key, num_samples)


def over_parts(add: Callable[[Any, Array], Any], carry: Any, size: int, part: int) -> Any:
    """``add(carry, index)`` for the examples 0 … size − 1 in parts; the last can be shorter.

    Args:
        add: the new carry from the last one and the indices (M,) of a part.
        carry: a pytree of arrays.
        size: number of examples.
        part: most examples of a part; it bounds the memory.
    """
    part = min(part, size)
    firsts = part * jnp.arange(size // part)
    carry, _ = jax.lax.scan(lambda c, i: (add(c, i + jnp.arange(part)), None), carry, firsts)
    rest = size % part
    return add(carry, size - rest + jnp.arange(rest)) if rest else carry


def with_replacement(key: Array, batch_size: int, num_samples: int) -> Array:
    """Indices of the examples of a batch, (B,) int32."""
    return jax.random.randint(key, (batch_size,), 0, num_samples, jnp.int32)


def by_epoch(order: Array, step: Array, batch_size: int) -> Array:
    """Indices of the examples of the batch at `step`, (B,), from the order of its epoch."""
    position = step % steps_per_epoch(order.shape[0], batch_size)
    return jax.lax.dynamic_slice(order, (position * batch_size,), (batch_size,))
