"""Runs of full SGD and its controls on the 10-10-1 net, trained once for all tests."""

import functools

import pytest

import jthermo as jt
from jthermo.paper import reproduce

TAUS = (0.1, 0.3, 1.0)


@pytest.fixture(scope="session")
def trained():
    """(η, B, noise) → 512 runs with He init, recorded at steps 0 and 40 and at several η²t/B.

    These are η²t/B = 0.1, 0.3 and 1, and those in `more`.
    """
    # the same program as the experiment's own test
    sweep = reproduce.load("mechanism").SWEEP

    @functools.cache
    def runs(eta, size, noise="full", more=()):
        marks = {0, 40, *(round(tau * size / eta**2) for tau in (*TAUS, *more))}
        return jt.run(
            sweep.replace(
                learning_rate=eta, batch_size=size, seed=range(512), vary={"noise": (noise,)},
                num_steps=max(marks), **{"record.steps": tuple(sorted(marks))},
            ),
            progress=False,
        ).sortby("seed")  # fmt: skip

    return runs
