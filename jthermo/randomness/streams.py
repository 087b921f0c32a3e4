"""Every random stream of the project: the key from which each random number is drawn.

The key of a number is ``fold_in(fold_in(fold_in(key(seed), role), stream), step)``. `seed` is the
run's seed, `role` the purpose of the number, `stream` a hash of the run's settings, and `step` the
number of updates so far. So a run's state contains no key and no iterator, and adding runs to a
sweep changes no other run. The integers of this file are part of every result: never change them.
"""

from __future__ import annotations

from enum import IntEnum, unique
from typing import NamedTuple, Protocol

import jax
from jax import Array

from jthermo.randomness import threefry

KEY_IMPL = threefry.IMPL


@unique
class Role(IntEnum):
    """The purpose of a random number; permanent, since it is folded into the key."""

    INIT = 0
    BATCH = 1
    NOISE = 2
    PROBE = 3
    DATASET = 4
    TEST = 5
    ESTIMATE = 6
    MODEL = 7
    OPTIMIZER = 8


# Numbers folded into the key of a data set: the index of a training example, the index of a test
# example plus TEST_SPLIT, or TEACHER for the teacher's parameters. No example has this index.
TEST_SPLIT = 2**31
TEACHER = 2**32 - 1
# Folded into the key of a run's init: of a function that changes the initial parameters.
_START = 2**32 - 1
# Folded into the key of a draw outside any run, for its data set or teacher. `two_keys` uses 0, 1.
_OWN_DATASET = 2


class Seeded(Protocol):
    """Anything with a run's seed and stream number, both uint32."""

    @property
    def seed(self) -> Array:
        """The run's seed."""

    @property
    def stream(self) -> Array:
        """The hash of the run's settings."""


class Streams(NamedTuple):
    """A run's keys, into which each step folds its number; runs of one seed share `dataset`."""

    batch: Array
    noise: Array
    dataset: Array


class RecordKeys(NamedTuple):
    """The keys of one record of a run: of the probe, the test examples and random estimators."""

    probe: Array
    test: Array
    estimate: Array


def streams(run: Seeded) -> Streams:
    """The keys of a run's training."""
    return Streams(_stream_key(run, Role.BATCH), _stream_key(run, Role.NOISE), dataset_key(run))


def record_keys(run: Seeded, step: Array) -> RecordKeys:
    """The keys of a run's record at a step."""
    roles = (Role.PROBE, Role.TEST, Role.ESTIMATE)
    return RecordKeys(*(jax.random.fold_in(_stream_key(run, role), step) for role in roles))


def probe_stream(run: Seeded) -> Array:
    """The key into which a record folds its step, to draw its probe."""
    return _stream_key(run, Role.PROBE)


def init_key(seed: Array) -> Array:
    """The key of the initial parameters, the same for all runs of a seed."""
    return jax.random.fold_in(_seed_key(seed), Role.INIT)


def start_key(init: Array) -> Array:
    """The key of a function that changes the initial parameters, from the key of these."""
    return jax.random.fold_in(init, _START)


def dataset_key(run: Seeded) -> Array:
    """The key of the finite data set, the same for all runs of a seed."""
    return jax.random.fold_in(_seed_key(run.seed), Role.DATASET)


def batch_key(keys: Streams, step: Array) -> Array:
    """The key of a step's examples, or of their indices in a finite set."""
    return jax.random.fold_in(keys.batch, step)


def step_labels_key(keys: Streams, step: Array) -> Array:
    """The key of the labels that are redrawn at a step."""
    return jax.random.fold_in(batch_key(keys, step), 1)


def noise_key(keys: Streams, step: Array) -> Array:
    """The key of the random residuals of a step, for noise controls that draw them."""
    return jax.random.fold_in(keys.noise, step)


def model_key(run: Seeded, step: Array) -> Array:
    """The key of the random numbers inside a net at a step, such as those of dropout."""
    return jax.random.fold_in(_stream_key(run, Role.MODEL), step)


def optimizer_key(run: Seeded) -> Array:
    """The key of the random numbers of an optimizer, with which its state starts."""
    return _stream_key(run, Role.OPTIMIZER)


def part_key(key: Array, first: Array) -> Array:
    """The key of a part of a full batch, from that of the step: `first` is its first example."""
    return jax.random.fold_in(key, first)


def direction_key(key: Array) -> Array:
    """The key of a random direction in parameter space, from that of a step's noise."""
    return jax.random.fold_in(key, 1)


def epoch_key(keys: Streams, epoch: Array) -> Array:
    """The key of the order of the examples in an epoch."""
    return jax.random.fold_in(keys.batch, epoch)


def example_key(dataset: Array, index: Array) -> Array:
    """The key of one example of a finite set, from the key of the set."""
    return jax.random.fold_in(dataset, index)


def teacher_key(dataset: Array) -> Array:
    """The key of the teacher's parameters, from the key of a seed's data set."""
    return jax.random.fold_in(dataset, TEACHER)


def two_keys(key: Array) -> tuple[Array, Array]:
    """Two keys derived from the key of one draw: of the inputs or indices, and of the labels."""
    return jax.random.fold_in(key, 0), jax.random.fold_in(key, 1)


def own_dataset_key(key: Array) -> Array:
    """The key of the data set or teacher of a draw outside any run."""
    return jax.random.fold_in(key, _OWN_DATASET)


def _seed_key(seed: Array) -> Array:
    return jax.random.key(seed, impl=KEY_IMPL)


def _stream_key(run: Seeded, role: Role) -> Array:
    return jax.random.fold_in(jax.random.fold_in(_seed_key(run.seed), role), run.stream)
