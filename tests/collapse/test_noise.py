"""The noise model doubts what chance would show, and finds what is there; the rivals' S is what its paper says."""

import numpy as np
import pytest

from jthermo.collapse import covariance
from jthermo.collapse.covariance import estimate_weights, kernels
from tests.collapse.rivals import quality


def lead_weight(size, draws=10, replicates=6, sd=0.02):
    """Mean estimate of the variance of leads of standard deviation `size` under point noise."""
    x = np.linspace(0, 6, 60)
    curve, slope = 1 / (1 + np.exp(x - 3)), np.exp(x - 3) / (1 + np.exp(x - 3)) ** 2
    level, where = np.full(60, sd), np.zeros(60, int)
    names, kernel = kernels(x, x, where, level, level, slope, curve, paired=False)
    found = []
    for seed in range(draws):
        rng = np.random.default_rng(seed)
        rows = (
            sd * rng.standard_normal((replicates, 60)) + size * rng.standard_normal((replicates, 1)) * slope
        )
        sample = np.cov(rows, rowvar=False)
        weights, information = estimate_weights([kernel], [sample], [replicates - 1], names)
        found.append(weights[names.index("lead")])
        assert np.all(weights >= 0)
        assert np.all(np.linalg.eigvalsh(information) > -1e-6 * np.trace(information))
    return np.mean(found)


def test_a_lead_must_show(monkeypatch):
    by_chance = lead_weight(0.0)
    assert lead_weight(0.1) == pytest.approx(0.1**2, rel=0.5)
    monkeypatch.setattr(covariance, "DOUBT", 0.0)
    assert by_chance < 0.5 * lead_weight(0.0)


def test_quality_of_exact_lines_is_zero_and_of_shifted_ones_is_not():
    x = np.linspace(0, 1, 20)
    error = np.full(20, 0.01)
    same = [(x, 2 * x, error), (x + 0.013, 2 * (x + 0.013), error)]
    value, terms = quality(same)
    assert value < 1e-20
    assert terms == 38  # one point at either end has no neighbours
    moved = [same[0], (x + 0.1, 2 * x, error)]
    assert quality(moved)[0] > 100
    assert quality([same[0], (x + 5, 2 * x, error)]) == (np.inf, 0)
