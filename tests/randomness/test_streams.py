"""The integers of the random streams: golden, unique, and equal to nested ``fold_in``.

A change of these values changes the random numbers of every existing sweep.
"""

from typing import NamedTuple

import jax
import numpy as np
import pytest

from jthermo.randomness import streams

SEED, STREAM, STEP = 3, 0x12345678, 5
GOLDEN = {
    "init": (3716834203, 3481239269),
    "batch": (3632544169, 1775388993),
    "noise": (1124041080, 678952549),
    "dataset": (1363109171, 377266333),
    "probe": (3925700188, 3992428258),
    "test": (2924348193, 1374522459),
    "estimate": (1071014398, 4118187092),
    "batch of a step": (3137177367, 3406440951),
    "labels of a step": (2468216815, 2631261761),
    "noise of a step": (2053110593, 3267653205),
    "epoch": (3137177367, 3406440951),
    "example": (779046720, 374274670),
    "teacher": (2476966989, 2889583297),
    "first of two": (2383853179, 724639332),
    "second of two": (2710862539, 842512366),
    "own data set": (1837548723, 986003670),
    "model at a step": (2592505265, 4287116447),
    "optimizer": (3500706507, 1484694626),
}
# The integers that each key folds into the seed's key, in this order.
PATHS = {
    "init": (0,),
    "batch": (1, STREAM),
    "noise": (2, STREAM),
    "dataset": (4,),
    "probe": (3, STREAM, STEP),
    "test": (5, STREAM, STEP),
    "estimate": (6, STREAM, STEP),
    "batch of a step": (1, STREAM, STEP),
    "labels of a step": (1, STREAM, STEP, 1),
    "noise of a step": (2, STREAM, STEP),
    "epoch": (1, STREAM, STEP),
    "example": (4, STEP),
    "teacher": (4, 2**32 - 1),
    "first of two": (1, STREAM, 0),
    "second of two": (1, STREAM, 1),
    "own data set": (1, STREAM, 2),
    "model at a step": (7, STREAM, STEP),
    "optimizer": (8, STREAM),
}


class Run(NamedTuple):
    """A run's seed and stream number."""

    seed: np.uint32
    stream: np.uint32


@pytest.fixture(scope="module")
def keys():
    run = Run(np.uint32(SEED), np.uint32(STREAM))
    training, record = streams.streams(run), streams.record_keys(run, STEP)
    first, second = streams.two_keys(training.batch)
    return {
        "init": streams.init_key(run.seed),
        "batch": training.batch,
        "noise": training.noise,
        "dataset": training.dataset,
        "probe": record.probe,
        "test": record.test,
        "estimate": record.estimate,
        "batch of a step": streams.batch_key(training, STEP),
        "labels of a step": streams.step_labels_key(training, STEP),
        "noise of a step": streams.noise_key(training, STEP),
        "epoch": streams.epoch_key(training, STEP),
        "example": streams.example_key(training.dataset, STEP),
        "teacher": streams.teacher_key(training.dataset),
        "first of two": first,
        "second of two": second,
        "own data set": streams.own_dataset_key(training.batch),
        "model at a step": streams.model_key(run, STEP),
        "optimizer": streams.optimizer_key(run),
    }


def words(key):
    return tuple(int(word) for word in jax.random.key_data(key))


@pytest.mark.parametrize("name", GOLDEN)
def test_keys_are_golden_and_follow_from_the_integers(keys, name):
    expected = jax.random.key(SEED, impl="threefry2x32")
    for integer in PATHS[name]:
        expected = jax.random.fold_in(expected, np.uint32(integer))
    assert words(keys[name]) == GOLDEN[name] == words(expected)


def test_roles_are_unique_and_keep_their_numbers():
    names = ("INIT", "BATCH", "NOISE", "PROBE", "DATASET", "TEST", "ESTIMATE", "MODEL", "OPTIMIZER")
    assert {role.name: role.value for role in streams.Role} == dict(
        zip(names, range(9), strict=True)
    )
    # an alias would not be listed above
    assert list(streams.Role.__members__) == list(names)
