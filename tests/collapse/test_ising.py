"""The simulated Ising model: its clusters, its estimates, and the fit of its published table."""

import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from jthermo.sweep import user_file

ROOT = Path(__file__).parents[2]
ising = user_file.import_file(ROOT / "scripts" / "ising.py", "ising_script", "script")


def exact_moments(size, temperature):
    """⟨|m|⟩, ⟨m²⟩ and ⟨m⁴⟩ by a sum over all states."""
    states = np.array(list(itertools.product((-1, 1), repeat=size * size)))
    near = ising.neighbours(size)
    energy = -0.5 * np.sum(states[:, :, None] * states[:, near], axis=(1, 2))
    weight = np.exp(-(energy - energy.min()) / temperature)
    m = states.mean(axis=1)
    return [np.sum(weight * np.abs(m) ** k) / weight.sum() for k in (1, 2, 4)]


@pytest.mark.parametrize("temperature", [1.5, 2.5, 4.0])
def test_clusters_sample_the_boltzmann_distribution(temperature):
    rng = np.random.default_rng(3)
    m = ising.magnetisations(3, np.full(400, temperature), 150, rng)
    exact = exact_moments(3, temperature)
    for k, truth in zip((1, 2, 4), exact, strict=True):
        chains = np.mean(np.abs(m) ** k, axis=0)
        error = chains.std(ddof=1) / np.sqrt(len(chains))
        assert abs(chains.mean() - truth) < 4 * error
        assert error < 0.01
    # Another temperature would be noticed.
    other = exact_moments(3, 1.1 * temperature)[1]
    chains = np.mean(m**2, axis=0)
    assert abs(chains.mean() - other) > 8 * chains.std() / np.sqrt(len(chains))


def test_the_jackknife_removes_the_bias_of_a_ratio():
    rng = np.random.default_rng(0)
    draws = rng.exponential(size=(1, 4000, 10))
    value, error = ising.jackknife(draws, lambda mean: mean**2)
    plain = draws.mean(axis=-1) ** 2
    assert np.mean(plain) == pytest.approx(1.1, abs=0.02)
    assert np.mean(value) == pytest.approx(1.0, abs=0.02)
    assert np.sqrt(np.mean(error**2)) == pytest.approx(np.std(value), rel=0.15)


def test_a_small_simulation_has_the_exponents_within_its_errors():
    table = ising.simulate((12, 24, 36), points=9, lattices=16, clusters=120)
    fitted = ising.fits(table, None)
    for name, rows in ising.answers(fitted).items():
        for _, exponent in rows:
            off = abs(exponent.value - ising.EXACT[name])
            assert off < max(4 * exponent.standard_error, 0.03), name


def test_the_simulated_table_gives_what_the_page_says():
    table = pd.read_csv(ROOT / "docs" / "figures" / "ising.csv")
    assert sorted(set(table.L)) == list(ising.SIZES)
    fitted = ising.fits(table)
    assert all(fit.collapsed for fit in fitted.values())
    for name, rows in ising.answers(fitted).items():
        assert all(e.low <= ising.EXACT[name] <= e.high for _, e in rows), name
    lines = ising.report(fitted).splitlines()
    assert len(lines) == 9
    # All temperatures are refused, as the page says.
    wide = ising.fits(table, None)
    assert wide["binder"].collapsed is False
    assert wide["susceptibility"].collapsed is False
    low, high = wide["magnetisation"].exponents["L"].low, wide["magnetisation"].exponents["L"].high
    assert (round(low, 3), round(high, 3)) == (1.012, 1.043)
