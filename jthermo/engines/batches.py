"""The examples and labels of a step: drawn afresh, or rows of a finite data set."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from jthermo.data import sampling
from jthermo.engines.step_program import HeldArrays, Program, Run, source_of
from jthermo.randomness.streams import Streams, batch_key, epoch_key, part_key, step_labels_key


def draw_batch(
    program: Program, held: HeldArrays, run: Run, keys: Streams, order: Array | None, t: Array
) -> tuple[Array, Array]:
    """X (B, …) and labels (B,) of step t; `order` is that of the epoch, None without epochs."""
    data, size, labels_key = (
        source_of(program, run),
        program.data.size(held),
        step_labels_key(keys, t),
    )
    if size is None:
        x, y = data.draw(batch_key(keys, t), program.batch_size)
        return x, data.step_labels(y, labels_key)
    if program.full_batch:
        return part_of_set(program, held, run, keys, jnp.arange(size), t)
    if order is None:
        index = sampling.with_replacement(batch_key(keys, t), program.batch_size, size)
    else:
        index = sampling.by_epoch(order, t, program.batch_size)
    return data.rows(held, index, keys.dataset, labels_key)


def part_of_set(
    program: Program, held: HeldArrays, run: Run, keys: Streams, index: Array, t: Array
) -> tuple[Array, Array]:
    """The examples `index` (M,) of a full batch: X (M, …) and labels (M,) as step t uses them."""
    labels_key = part_key(step_labels_key(keys, t), index[0])
    return source_of(program, run).rows(held, index, keys.dataset, labels_key)


def draw_probe(
    program: Program, held: HeldArrays, run: Run, key: Array, dataset: Array, test: bool = False
) -> tuple[Array, Array]:
    """X (M, …) and labels (M,) of a record: random examples, or all of a finite set."""
    data = source_of(program, run)
    if program.whole_probe:
        return data.whole(held, key, dataset, test)
    return data.probe(held, key, dataset, program.probe_size, test)


def epoch_order(program: Program, held: HeldArrays, keys: Streams, t: Array) -> Array | None:
    """Order of the examples in the epoch of step t; None without epochs."""
    size = program.data.size(held)
    if size is None or program.full_batch or program.data.sampling != "epochs":
        return None
    epoch = t // sampling.steps_per_epoch(size, program.batch_size)
    return sampling.permutation(epoch_key(keys, epoch), size)


def begins_epoch(program: Program, held: HeldArrays, t: Array) -> Array:
    """Whether step t is the first step of an epoch of a finite data set."""
    size = program.data.size(held)
    assert size is not None
    return t % sampling.steps_per_epoch(size, program.batch_size) == 0
