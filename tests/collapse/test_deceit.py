"""What misleads a fitter: slope noise, steps common to all replicates, hardly any overlap."""

from dataclasses import replace
from itertools import product

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from jthermo.collapse import fit_collapse
from jthermo.collapse.likelihood import Whitener
from jthermo.collapse.settings import DEFAULT
from scripts.collapse_study.families import FAMILIES
from scripts.collapse_study.scoring import ours, source
from tests.chance import sigmas


def test_the_noise_of_the_slope_is_told_from_information():
    """The information of a curve fitted to noise is too large by `slope_noise`."""
    sd, rng = 0.6, np.random.default_rng(11)
    rows = []
    for control, seed in product((1.0, 2.0, 4.0), (0, 1)):
        t = np.geomspace(1, 300, 40)
        value = 1 / (1 + t * control / 20) + 0.1 * rng.standard_normal(40)
        rows.append(pd.DataFrame({"c": control, "seed": seed, "step": t, "value": value}))
    fit = fit_collapse(pd.concat(rows), ("c",))
    means, theta = fit.likelihood.means, fit.solution.theta
    blocks = [sd**2 * np.eye(int(number)) for number in np.bincount(means.condition)]
    model = replace(fit.likelihood, whiten=Whitener.of(blocks))
    true = model.curve(fit.solution, means.binned(means.log_tau(theta)))

    def seen(mean):
        known = replace(model, means=replace(means, mean=mean))
        solution = known.solve(theta)
        return known.information(solution)[0][0, 0], known.slope_noise(solution)[0, 0]

    def pair(error):
        """Mean over an error and its opposite, so that linear terms cancel."""
        return (seen(true + error)[0] + seen(true - error)[0]) / 2

    exact, said = seen(true)
    drawn = np.array([pair(sd * rng.standard_normal(len(true))) for _ in range(100)])
    error = drawn.std() / np.sqrt(len(drawn))
    # to first order only, so the rate of 1e-4 is that of the drawn numbers alone
    assert abs(drawn.mean() - exact - said) < sigmas(1e-4) * error
    # Without the term the information would be too large.
    assert drawn.mean() - exact > 8 * error


# Draws whose shares fall in steps: on a lattice, walkers can leave only at every other step.
STAIRCASES = (11, 28)


def holds(number, settings=DEFAULT):
    """Whether the interval holds the exponent −2, and the codes of the notes."""
    draw = FAMILIES["physics_first_passage"](source("physics_first_passage", number, salt=81))
    fit = ours(draw, settings)
    return fit.exponents["size"].low < -2 < fit.exponents["size"].high, {
        note.code for note in fit.notes
    }


@pytest.mark.parametrize("number", STAIRCASES)
def test_steps_that_all_replicates_share_tell_nothing_of_the_exponent(number):
    right, notes = holds(number)
    assert right
    assert "common_noise" in notes
    wrong, notes = holds(number, replace(DEFAULT, common_noise_gain=np.inf))
    assert not wrong
    assert "common_noise" not in notes


def test_noise_of_each_replicate_is_not_called_common():
    notes = {
        note.code
        for n in range(6)
        for note in ours(FAMILIES["memory_3"](source("memory_3", n))).notes
    }
    assert "common_noise" not in notes


def test_curves_that_nearly_coincide_are_compared_where_they_overlap():
    """They fit better pushed apart until they hardly meet, which tells no exponent."""
    draw = FAMILIES["correction_value"](source("correction_value", 95, salt=104))
    fit, truth = ours(draw), draw.truth["rate"]
    assert fit.exponents["rate"].low < truth < fit.exponents["rate"].high
    assert fit.collapsed is False
    assert "drifting_exponent" in {note.code for note in fit.notes}
    apart = ours(draw, replace(DEFAULT, near_misfit=0.0))
    assert "poor_overlap" in {note.code for note in apart.notes}
    assert not apart.identifiable["rate"]
    assert apart.collapsed is None


def test_limits_by_the_likelihood_follow_the_confidence():
    """With large losses all limits are those of the likelihood, here nearly that of a parabola."""
    rng = np.random.default_rng(2)
    rows = []
    for control, seed in product((1.0, 2.0, 4.0), range(8)):
        t = np.geomspace(1, 300, 40)
        value = 1 / (1 + t * control / 20) + 0.6 * rng.standard_normal(40)
        rows.append(pd.DataFrame({"c": control, "seed": seed, "step": t, "value": value}))
    table = pd.concat(rows)
    by_likelihood = replace(DEFAULT, min_loss=10.0, limit_loss=8.0, scan_points=400)

    def width(confidence, settings=by_likelihood):
        exponent = fit_collapse(table, "c", confidence=confidence, settings=settings).exponents["c"]
        return exponent.high - exponent.low

    usual = width(0.95)
    assert usual > 1.5 * width(0.95, DEFAULT)
    for confidence in (0.5, 0.8, 0.98):
        z = stats.norm.ppf(0.5 + confidence / 2) / stats.norm.ppf(0.975)
        assert width(confidence) / usual == pytest.approx(z, rel=0.15)
