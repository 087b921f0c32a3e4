"""Which examples a step sees: fresh ones, or rows of a finite set of n drawn with replacement or by epochs.

All draws are functions of (key, step) alone, so no iterator is ever saved. A row of a finite synthetic set is
itself a function of (key of the set, index): the set takes no memory.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

SAMPLINGS = ("replacement", "epochs")


def steps_per_epoch(num_samples: int, batch_size: int) -> int:
    """Whole batches in one pass; the rest of a pass is dropped, as data loaders with ``drop_last`` do."""
    return num_samples // batch_size


def permutation(key: Array, num_samples: int) -> Array:
    """The order of the examples in one epoch, (n,)."""
    return jax.random.permutation(key, num_samples)


def with_replacement(key: Array, batch_size: int, num_samples: int) -> Array:
    """Row indices of a batch, (B,)."""
    return jax.random.randint(key, (batch_size,), 0, num_samples, jnp.int32)


def by_epoch(order: Array, step: Array, batch_size: int) -> Array:
    """Row indices of the batch at `step`, (B,), from the `permutation` of its epoch."""
    position = step % steps_per_epoch(order.shape[0], batch_size)
    return jax.lax.dynamic_slice(order, (position * batch_size,), (batch_size,))
