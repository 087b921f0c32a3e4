"""Interval ends, regions and misfit by their formulas, at other confidences than 95 %."""

import json
from functools import cache

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from jthermo.cli import verbs
from jthermo.collapse import fit_collapse
from scripts.collapse_study.planted import Planted, PlantedNoise, random_curve
from tests.collapse.test_options import SIZES, sized

CONFIDENCES = (0.5, 0.68, 0.9, 0.95, 0.99)
RATES, TIMES = (0.5, 1.0, 2.0), np.geomspace(1, 3000, 40)


def planted(sd=0.02, replicates=3, step=0.0, ridge=False, seed=0):
    """A decay on t·a², with curves apart by `step` of its height per doubling of a."""
    rng = np.random.default_rng(seed)
    rows = [
        pd.DataFrame(
            {
                "a": a,
                "b": a**-2 if ridge else 1.0,
                "seed": (r, a).__repr__(),
                "step": TIMES,
                "value": 1 / (1 + TIMES * a**2 / 30)
                + step * np.log2(a)
                + sd * rng.standard_normal(len(TIMES)),
            }
        )
        for a in RATES
        for r in range(replicates)
    ]
    return pd.concat(rows, ignore_index=True)


@cache
def fitted(confidence, **options):
    controls = ("a", "b") if options.get("ridge") else ("a",)
    return fit_collapse(planted(**options), controls, confidence=confidence)


def quantile(confidence, degrees):
    """Half the width of the central interval of Student's t, from its distribution function."""
    grid = np.linspace(0, 60, 600_001)
    inside = stats.t.cdf(grid, degrees) - stats.t.cdf(-grid, degrees)
    return float(np.interp(confidence, inside, grid))


@pytest.mark.parametrize("confidence", CONFIDENCES)
def test_an_interval_is_two_sided_and_of_students_t(confidence):
    fit = fitted(confidence)
    exponent = fit.exponents["a"]
    # few enough for Student's t to differ from the normal distribution
    assert fit.degrees < 60
    half = quantile(confidence, fit.degrees) * exponent.standard_error
    assert exponent.high - exponent.value == pytest.approx(half, rel=1e-4)
    assert exponent.value - exponent.low == pytest.approx(half, rel=1e-4)
    # the confidence changes the interval and nothing else
    usual = fitted(0.95)
    assert (exponent.value, exponent.standard_error) == (
        usual.exponents["a"].value,
        usual.exponents["a"].standard_error,
    )
    assert (fit.p_value, fit.misfit) == (usual.p_value, usual.misfit)
    assert f"{100 * confidence:g} % intervals" in fit.summary()
    assert fit.to_dict()["confidence"] == confidence


def test_the_command_line_passes_the_confidence_on(tmp_path, capsys):
    planted().rename(columns={"step": "hours"}).to_csv(tmp_path / "curves.csv", index=False)
    words = "--value value --controls a --time hours --confidence 0.68 --window 2 900 --as-json"
    verbs.main(["fit", str(tmp_path / "curves.csv"), *words.split()])
    (said,) = json.loads(capsys.readouterr().out)
    fit = fit_collapse(planted(), ("a",), confidence=0.68, window=(2, 900))
    assert said["confidence"] == 0.68
    assert said["window"] == list(fit.window)
    for end in ("low", "value", "high"):
        expected = getattr(fit.exponents["a"], end)
        assert said["exponents"]["a"][end] == pytest.approx(expected, rel=1e-6)


def test_the_interval_of_a_combination_has_the_same_confidence():
    (wide,), (narrow,) = (fitted(c, ridge=True).combinations for c in (0.99, 0.68))
    degrees = fitted(0.99, ridge=True).degrees
    ratio = quantile(0.99, degrees) / quantile(0.68, degrees)
    for end in ("low", "high"):
        halves = [getattr(known, end) - known.value for known in (wide, narrow)]
        assert halves[0] / halves[1] == pytest.approx(ratio, rel=1e-3)
    assert wide.value == narrow.value


def test_a_region_is_where_the_test_has_one_minus_the_confidence():
    rng = np.random.default_rng(3)
    rows = [
        pd.DataFrame(
            {
                "a": a, "b": b, "seed": r, "step": TIMES,
                "value": 1 / (1 + TIMES * a**2 / b / 30) + 0.02 * rng.standard_normal(len(TIMES)),
            }
        )
        for a in RATES
        for b in (1.0, 2.0)
        for r in range(3)
    ]  # fmt: skip
    for confidence in (0.68, 0.95):
        fit = fit_collapse(pd.concat(rows), ("a", "b"), confidence=confidence)
        for a, b in fit.region("a", "b", 5):
            assert fit.test(a=a, b=b).p_value == pytest.approx(1 - confidence, rel=1e-6)
        # of one exponent, the ends of its interval
        low = fit.exponents["a"].low
        assert fit.test(a=low).p_value == pytest.approx(1 - confidence, rel=1e-3)


def test_the_interval_of_a_power_ends_where_the_likelihood_has_fallen_enough():
    """At its ends the log likelihood has lost t²/2, with t of the confidence that was asked for."""
    table = sized(0.0, 0.6, sizes=SIZES, sd=0.01)
    fit = fit_collapse(table, ["L"], correction={"L": (-4, -0.25)}, confidence=0.68)
    power = fit.exponents["power_L"]
    lost = fit.profile("power_L", np.array([power.low, power.high]))
    t = quantile(0.68, fit.degrees)
    np.testing.assert_allclose(lost, t**2 / 2, rtol=0.1)
    assert power.high - power.low == pytest.approx(2 * t * power.standard_error, rel=1e-6)


@pytest.mark.parametrize("sd", [0.02, 0.06])
def test_the_curve_has_its_standard_error(sd):
    """Beside the true curve, in units of the values; one key, so a band of sizes is allowed."""
    fit = fitted(0.95, sd=sd)
    z = (fit.curve - 1 / (1 + np.exp(fit.log_tau) / 30)) / fit.curve_error
    assert 0.4 < np.sqrt(np.mean(z**2)) < 2
    # several means lie within a cell of the curve
    assert 0.1 * sd < np.median(fit.curve_error) < sd / np.sqrt(3)


def test_the_misfit_is_the_distance_of_the_curves_beyond_their_noise():
    """Curves that collapse have none, however noisy; curves apart by a known amount have that."""
    for sd in (0.02, 0.1):
        assert fitted(0.95, sd=sd).misfit < 0.2 * sd
    step = 0.05
    apart = fit_collapse(planted(step=step, sd=0.01), ("a",), fixed={"a": 2})
    # root mean square of −1, 0 and 1 steps, as a share of the range of the values
    height = np.ptp(1 / (1 + TIMES / 30)) + 2 * step
    assert apart.misfit == pytest.approx(step * np.sqrt(2 / 3) / height, rel=0.15)


def test_the_interval_of_the_misfit_holds_the_distance_of_the_curves_without_noise():
    """In 19 of 20 fits; an interval of a third of the width does not hold it as often."""

    def misfit(sd, seed):
        fit = fit_collapse(planted(sd, 6, 0.03, seed=seed), ("a",), fixed={"a": 2})
        return fit.misfit, *fit.misfit_interval

    true, _, _ = misfit(1e-5, 0)
    fits = np.array([misfit(0.03, 100 + k) for k in range(25)])
    value, low, high = fits.T
    assert np.sum((low <= true) & (true <= high)) >= 20
    assert np.sum(np.abs(value - true) <= (high - low) / 6) < 20
    # curves that do collapse miss each other by nothing
    assert fitted(0.95).misfit_interval[0] == 0


def test_controls_that_vary_almost_together_cost_no_more_than_the_bound_says():
    """Two exponents on a ridge: each alone is hardly known, and the interval says how hardly."""
    rng, logs = np.random.default_rng(3), np.linspace(0, 2, 4)
    together = np.stack([logs, 0.9 * logs + 0.05 * np.array([1, -1, -1, 1])], axis=1)
    exponents, length = np.array([1.0, -0.5]), 7.0
    plan = Planted(
        curve=random_curve(rng, (together @ exponents).mean() + length / 2, length),
        exponents=exponents,
        log_controls=together,
        log_times=(np.linspace(0, length, 60),) * 4,
        num_replicates=(8,) * 4,
        noise=PlantedNoise(point=0.02),
        names=("rate", "size"),
    )
    fit = fit_collapse(plan.table(rng), plan.names)
    for name, truth, bound in zip(plan.names, exponents, plan.bound(), strict=True):
        exponent = fit.exponents[name]
        assert exponent.low < truth < exponent.high
        assert 0.6 < (exponent.high - exponent.low) / (2 * 1.96 * bound) < 1.5
