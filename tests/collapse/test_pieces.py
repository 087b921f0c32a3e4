"""Pieces of the fit by their formulas: outliers, unbiased deviations, levels of two tests."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import optimize

from jthermo.collapse import exponent_drift, fit_collapse
from jthermo.collapse.averages import Replicates
from jthermo.collapse.settings import DEFAULT

TIMES = np.geomspace(1, 300, 40)


def test_deviations_are_unbiased():
    """Their mean square is the sample variance with n − 1, also where fewer replicates are left."""
    values = np.random.default_rng(0).normal(size=(5, 6))
    present = np.ones((5, 6), bool)
    present[3:, 4:] = False
    counts = present.sum(0)
    kept = [values[present[:, k], k] for k in range(6)]
    deviations = np.zeros((5, 6))
    for k, column in enumerate(kept):
        deviations[present[:, k], k] = column - column.mean()
    unbiased = Replicates(deviations, present, counts, False).unbiased
    np.testing.assert_allclose(
        (unbiased**2).sum(0) / counts, [column.var(ddof=1) for column in kept]
    )


@pytest.mark.parametrize("weight", [1.0, 3.0, 0.25])
def test_two_tests_together_keep_their_level(weight):
    """p-values below which either alone alarms add up to the level: Bonferroni, with weights."""
    settings = replace(DEFAULT, control_drift_weight=weight)

    def combined(between, window):
        return exponent_drift._combined({"between": between, "window": window}, settings)

    def edge(of, level):
        return optimize.brentq(lambda p: of(p) - level, 1e-9, 1 - 1e-9)

    for level in (0.01, 0.05):
        edges = edge(lambda p: combined(p, 1.0), level), edge(lambda p: combined(1.0, p), level)
        assert sum(edges) == pytest.approx(level)
        assert edges[0] / edges[1] == pytest.approx(weight)
    assert combined(1.0, 1.0) == 1.0
    assert exponent_drift._combined({"window": 0.03}, settings) == 0.03


def table(added, sd=0.01):
    """Twelve replicates at each of two controls, with `added` (12, 40) to their values."""
    rng = np.random.default_rng(1)
    rows = [
        pd.DataFrame(
            {
                "c": c,
                "seed": f"{c}-{seed}",
                "step": TIMES,
                "value": 1 / (1 + TIMES * c / 20) + sd * rng.standard_normal(len(TIMES)) + more,
            }
        )
        for c in (1.0, 2.0)
        for seed, more in enumerate(added)
    ]
    return pd.concat(rows)


def left_out(added):
    return [run.replicate for run in fit_collapse(table(added), ("c",)).left_out]


def test_an_outlier_is_far_from_all_others():
    stuck = np.zeros((12, 40))
    assert not left_out(stuck)
    stuck[4] = 0.3
    assert left_out(stuck) == ["1.0-4", "2.0-4"]


def test_where_all_are_far_an_outlier_is_farther():
    """Spikes at times of their own leave the median distance small: the noise has heavy tails."""
    spikes = np.zeros((12, 40))
    for seed in range(12):
        # a root mean square of four robust standard deviations
        spikes[seed, 3 * seed : 3 * seed + 2] = 0.17
    # six, which is beyond five, but not three times that of the others
    spikes[4] *= 1.5
    assert not left_out(spikes)
    # sixteen
    spikes[4] *= 16 / 6
    assert left_out(spikes) == ["1.0-4", "2.0-4"]
