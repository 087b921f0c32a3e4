"""The examples of a record: the probe and the test split have random streams of their own."""

import jax
import numpy as np

import jthermo as jt
from tests import oracles

X = np.arange(400, dtype=np.float32)[:, None] / 400
TEST = 5


def probe_of(model, params, probe):
    """The inputs of the probe, then those of the test split."""
    return jax.numpy.concatenate([probe.x, probe.test[0]])[:, 0]


def test_probe_and_test_examples_are_drawn_apart():
    """Both splits hold the same arrays, so equal keys would draw equal examples."""
    y = (np.arange(400) % 2).astype(int)
    sweep = jt.Sweep(
        model=jt.models.TwoLayer(inputs=1, hidden=2),
        data=jt.data.Arrays(X, y, X, y),
        learning_rate=0.1,
        seed=(1, 4),
        num_steps=3,
        record=jt.Record(steps=(0, 3), observables=(probe_of,), probe_size=20),
    )
    drawn = jt.run(sweep, progress=False).probe_of.values
    (config,) = sweep.configs
    for run, seed in enumerate((1, 4)):
        for record, step in enumerate((0, 3)):
            for part, role in ((slice(0, 20), oracles.PROBE), (slice(20, 40), TEST)):
                key = oracles.key(seed, role, config.stream, step)
                rows = jax.random.randint(jax.random.fold_in(key, 0), (20,), 0, 400)
                np.testing.assert_array_equal(drawn[run, record, part], X[np.asarray(rows), 0])
