"""Planted truths: coverage, sharpness, verdicts, admissions; a fitter that always says 2 fails."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from scipy import stats

from jthermo.collapse import Exponent
from scripts.collapse_study.families import FAMILIES
from scripts.collapse_study.scoring import BEST_SCORE, ours, score_family, source

TRUE = ("white_3", "white_8", "memory_3", "walks", "paired_offsets", "ragged_steps", "two_controls")
FALSE = ("false_amplitude", "false_stretch", "false_two_clocks", "false_odd_one")
CORRECTED = ("correction_clock", "correction_value")
DRAWS, FEW = 4, 2

# A family is fitted once for all tests.
scored = cache(score_family)


@cache
def some_fit():
    return ours(FAMILIES["white_3"](source("white_3", 0)))


def always_two(draw):
    """A fitter that answers 2 ± 0.1 and "collapse" for any data."""
    return replace(
        some_fit(),
        exponents={name: Exponent(2.0, 1.9, 2.1, 0.05) for name in draw.controls},
        identifiable=dict.fromkeys(draw.controls, True),
        collapsed=True,
        notes=(),
    )


@pytest.fixture(scope="module")
def true_scores():
    return [scored(name, DRAWS) for name in TRUE]


def enough_hits(scores):
    """Whether the number of hits is above the 0.1 % quantile of the binomial law with 95 %."""
    hits = [hit for score in scores for hit in score.hits]
    return sum(hits) >= stats.binom.ppf(1e-3, len(hits), 0.95)


def test_intervals_hold_the_truth(true_scores):
    assert not sum(score.crashes for score in true_scores)
    assert not sum(score.wrongly_hidden for score in true_scores)
    assert enough_hits(true_scores)
    assert not enough_hits([scored(name, DRAWS, always_two) for name in TRUE])


def test_intervals_are_as_sharp_as_the_bound_allows(true_scores):
    assert np.median([score.interval_score for score in true_scores]) < 1.4
    assert np.median([score.rmse for score in true_scores]) < 1.4
    assert scored("white_8", DRAWS, always_two).interval_score > BEST_SCORE


def test_true_collapses_are_accepted_with_uniform_p_values(true_scores):
    draws = sum(score.draws for score in true_scores)
    assert sum(score.refused for score in true_scores) <= stats.binom.ppf(0.999, draws, 0.005)
    p_values = [p for score in true_scores for p in score.p_values]
    assert stats.kstest(p_values, "uniform").pvalue > 1e-3
    false = [p for name in FALSE for p in scored(name, FEW).p_values]
    assert stats.kstest(false, "uniform").pvalue < 1e-3


@pytest.mark.parametrize("name", FALSE)
def test_what_does_not_collapse_is_refused(name):
    assert scored(name, FEW).refused == FEW
    assert scored(name, FEW, always_two).refused == 0


def test_a_plateau_that_drifts_by_five_standard_errors_is_refused():
    assert scored("false_plateau", 5).refused >= stats.binom.ppf(0.01, 5, 0.9)
    assert scored("false_plateau", 5, always_two).refused == 0


@pytest.mark.parametrize(
    ("name", "draws"),
    [("hidden_ridge", FEW), ("hidden_flat", FEW), ("hidden_constant", FEW), ("hidden_disjoint", 1)],
)
def test_controls_that_the_data_do_not_determine_are_admitted(name, draws):
    score = scored(name, draws)
    assert score.admitted == score.hidden > 0
    assert scored(name, draws, always_two).admitted == 0


@pytest.mark.parametrize("name", CORRECTED)
def test_corrections_to_scaling_are_noted_as_drift(name):
    assert scored(name, 4).silent_misses == 0
    assert scored(name, 4, always_two).silent_misses >= 3


def test_a_true_power_law_does_not_drift(true_scores):
    draws = sum(score.draws for score in true_scores)
    assert sum(score.drifting for score in true_scores) <= stats.binom.ppf(0.999, draws, 0.01)
    assert sum(scored(name, 4).drifting for name in CORRECTED) > stats.binom.ppf(0.999, 8, 0.01)
