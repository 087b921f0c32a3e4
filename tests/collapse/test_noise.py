"""The noise model finds what is there and no more; the rivals' S is that of its paper."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from jthermo.collapse import fit_collapse
from jthermo.collapse.noise_covariance import Bins, Sample, ages_of, estimate_weights, kernels
from jthermo.collapse.settings import DEFAULT
from scripts.collapse_study.families import FAMILIES
from scripts.collapse_study.rivals import quality
from scripts.collapse_study.scoring import ours, source


def components(x, where, level, slope, curve):
    """The names and kernels of the noise model, with the same level for points and replicates."""
    bins = Bins(x, x, where, level, level, slope, curve)
    return kernels(bins, ages=ages_of(x, DEFAULT), paired=False, settings=DEFAULT)


def lead_weight(size, draws=10, replicates=6, sd=0.02, settings=DEFAULT):
    """Mean estimate of the variance of leads of standard deviation `size` under point noise."""
    x = np.linspace(0, 6, 60)
    curve, slope = 1 / (1 + np.exp(x - 3)), np.exp(x - 3) / (1 + np.exp(x - 3)) ** 2
    level, where = np.full(60, sd), np.zeros(60, int)
    names, kernel = components(x, where, level, slope, curve)
    found = []
    for seed in range(draws):
        rng = np.random.default_rng(seed)
        rows = (
            sd * rng.standard_normal((replicates, 60))
            + size * rng.standard_normal((replicates, 1)) * slope
        )
        sample = np.cov(rows, rowvar=False)
        weights, information = estimate_weights(
            [Sample(kernel, sample, replicates - 1)], names, settings
        )
        found.append(weights[names.index("lead")])
        assert np.all(weights >= 0)
        assert np.all(np.linalg.eigvalsh(information) > -1e-6 * np.trace(information))
    return np.mean(found)


def test_a_lead_must_show():
    assert lead_weight(0.1) == pytest.approx(0.1**2, rel=0.5)
    without_prior = replace(DEFAULT, prior_strength=0.0)
    assert lead_weight(0.0) < 0.5 * lead_weight(0.0, settings=without_prior)


# Share of lattices that span at the threshold: it never comes near 1.
SHARE = 0.45


def counted(names=None):
    """Relative distance of the model from the exact covariance of a share from 0.45 to none."""
    x = np.linspace(0, 6, 40)
    curve = 1 - x / 6.5
    slope, where = np.gradient(curve, x), np.zeros(40, int)
    share = SHARE * curve
    exact = np.minimum.outer(share, share) - np.outer(share, share)
    level = np.full(40, np.sqrt(np.trace(exact) / 40))
    every, kernel = components(x, where, level, slope, curve)
    kept = [i for i, name in enumerate(every) if names is None or name in names]
    kernel, every = kernel[kept], [every[i] for i in kept]
    patient = replace(DEFAULT, max_weight_steps=400)
    weights, _ = estimate_weights([Sample(kernel, exact, 1000.0)], tuple(every), patient)
    return np.linalg.norm(np.tensordot(weights, kernel, axes=1) - exact) / np.linalg.norm(exact)


def test_counts_of_a_share_that_starts_below_one():
    assert counted() < 0.05
    assert (
        counted({"point", "point_scaled", "memory_0.05", "memory_0.17", "memory_0.6", "counts"})
        > 0.15
    )


def test_records_at_which_all_replicates_are_equal_tell_no_size_of_the_noise():
    """Percolation: far from the threshold no lattice spans, and every replicate records 0."""
    name = "physics_percolation"
    draws = [
        FAMILIES[name](source(name, n, salt=salt))
        for n, salt in ((25, 129), (3, 130), (15, 130), (6, 131))
    ]
    assert all(ours(draw).collapsed for draw in draws)
    trusting = replace(DEFAULT, min_scattered_bins=10**9)
    assert not any(ours(draw, trusting).collapsed for draw in draws)


def test_quality_of_exact_lines_is_zero_and_of_shifted_ones_is_not():
    x = np.linspace(0, 1, 20)
    error = np.full(20, 0.01)
    same = [(x, 2 * x, error), (x + 0.013, 2 * (x + 0.013), error)]
    value, terms = quality(same)
    assert value < 1e-20
    # One point at either end has no neighbours.
    assert terms == 38
    moved = [same[0], (x + 0.1, 2 * x, error)]
    assert quality(moved)[0] > 100
    assert quality([same[0], (x + 5, 2 * x, error)]) == (np.inf, 0)


def with_common(size: float, seed: int, num_replicates: int = 4, num_records: int = 60):
    """A decay from 0.98 to 0.015 whose replicates share noise of standard deviation `size`."""
    rng = np.random.default_rng([seed, int(1e4 * size)])
    step, frames = np.geomspace(1, 1000, num_records), []
    for c in (0.5, 1.0, 2.0):
        mean = 1 / (1 + step * c / 30) + size * rng.standard_normal(num_records)
        for r in range(num_replicates):
            value = mean + 0.012 * rng.standard_normal(num_records)
            frames.append(pd.DataFrame({"c": c, "seed": f"{c}-{r}", "step": step, "value": value}))
    return pd.concat(frames)


@pytest.mark.parametrize(
    ("size", "num_records"), [(0.008, 60), (0.016, 60), (0.03, 60), (0.016, 300)]
)
def test_common_noise_is_found_with_its_uncertainty(size, num_records):
    """Also larger than the replicates' own. Binomial(5, 0.05) exceeds 2 with probability 0.001."""
    fits = [
        fit_collapse(with_common(size, seed, num_records=num_records), ["c"]) for seed in range(5)
    ]
    truth = size / 0.967
    limits = [fit.common_noise_interval for fit in fits]
    assert sum(not low <= truth <= high for low, high in limits) <= 2
    assert np.mean([fit.common_noise for fit in fits]) == pytest.approx(truth, rel=0.1)
    assert all(high < 1.8 * low for low, high in limits)
    hits = [fit.exponents["c"].low < 1 < fit.exponents["c"].high for fit in fits]
    assert sum(hits) >= 3


def test_no_common_noise_is_found_where_there_is_none():
    """Fits without it gain the evidence once in a hundred."""
    fits = [fit_collapse(with_common(0.0, seed), ["c"]) for seed in range(8)]
    assert sum(fit.common_noise > 0 for fit in fits) <= 1
    assert sum(fit.common_noise_interval == (0.0, 0.0) for fit in fits) >= 7


@pytest.mark.parametrize(("size", "expected"), [(0.0, 0.49), (0.01, 0.87)])
def test_advice_knows_that_replicates_do_not_help_against_common_noise(size, expected):
    promised, measured = [], []
    for seed in range(6):
        many = with_common(size, seed, 16)
        few = many[many.seed.str.split("-").str[-1].astype(int) < 4]
        fits = [fit_collapse(table, ["c"]) for table in (few, many)]
        promised.append(next(a.ratio for a in fits[0].advice() if a.change == "replicates"))
        four, sixteen = (fit.exponents["c"].high - fit.exponents["c"].low for fit in fits)
        measured.append(sixteen / four)
    # Medians, because common noise is found once in a hundred draws without it.
    assert np.median(promised) == pytest.approx(np.median(measured), rel=0.1)
    assert np.median(promised) == pytest.approx(expected, abs=0.04)


def test_curves_that_differ_smoothly_have_no_common_noise_of_that_size():
    """A plateau that depends on the control is a misfit of 6 % of the range, and no noise."""
    table = with_common(0.0, 0)
    table["value"] += 0.15 * np.log(table.c)
    fit = fit_collapse(table, ["c"])
    assert fit.collapsed is False
    assert fit.misfit > 0.02
    # At most about what neighbouring records show: 0.006 of 0.84, and √2.
    assert fit.common_noise < 0.012
