"""Planted truths with fixed seeds: intervals that hold, sharpness, verdicts and candour, each with a control that fails."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from jthermo.collapse import Exponent
from tests.collapse.scoring import BEST_SCORE, ours, score_family

TRUE = ("white_3", "white_8", "memory_3", "walks", "paired_offsets", "ragged_steps", "two_controls")
DRAWS = 7


def always_two(draw):
    """A fitter that answers 2 ± .1 whatever the data are, and that every collapse holds."""
    fit = ours(draw)
    return replace(
        fit,
        exponents={name: Exponent(2.0, 1.9, 2.1, 0.05) for name in fit.exponents},
        identifiable=dict.fromkeys(fit.exponents, True),
        collapsed=True,
        notes=(),
    )


@pytest.fixture(scope="module")
def true_scores():
    return [score_family(name, DRAWS) for name in TRUE]


def enough_hits(scores):
    """Whether the intervals hold the truth as often as the binomial law of 95 % allows at one in a thousand."""
    hits = [hit for score in scores for hit in score.hits]
    return sum(hits) >= stats.binom.ppf(1e-3, len(hits), 0.95)


def test_intervals_hold_the_truth(true_scores):
    assert not sum(score.crashes for score in true_scores)
    assert enough_hits(true_scores)
    assert not enough_hits([score_family(name, 3, always_two) for name in TRUE])


def test_intervals_are_as_sharp_as_the_bound_allows(true_scores):
    assert np.median([score.interval_score for score in true_scores]) < 1.4
    assert np.median([score.rmse for score in true_scores]) < 1.4
    blunt = score_family("white_8", 3, always_two)
    assert blunt.interval_score > BEST_SCORE


def test_true_collapses_are_accepted_with_uniform_p_values(true_scores):
    draws = sum(score.draws for score in true_scores)
    assert sum(score.refused for score in true_scores) <= stats.binom.ppf(0.999, draws, 0.0027)
    p_values = [p for score in true_scores for p in score.p_values]
    assert stats.kstest(p_values, "uniform").pvalue > 1e-3
    assert stats.kstest(score_family("false_amplitude", 8).p_values, "uniform").pvalue < 1e-3


@pytest.mark.parametrize("name", ["false_amplitude", "false_stretch", "false_two_clocks", "false_odd_one"])
def test_what_does_not_collapse_is_refused(name):
    assert score_family(name, 4).refused >= 3
    assert score_family(name, 2, always_two).refused == 0


@pytest.mark.parametrize("name", ["hidden_ridge", "hidden_flat", "hidden_constant", "hidden_disjoint"])
def test_controls_that_the_data_do_not_determine_are_admitted(name):
    score = score_family(name, 4)
    assert score.admitted == score.hidden > 0
    assert score_family(name, 2, always_two).admitted == 0


@pytest.mark.parametrize("name", ["correction_clock", "correction_value"])
def test_corrections_to_scaling_are_noted_as_drift(name):
    assert score_family(name, 6).silent_misses <= 1
    assert score_family(name, 6, always_two).silent_misses >= 5


def test_a_true_power_law_does_not_drift(true_scores):
    draws = sum(score.draws for score in true_scores)
    assert sum(score.drifting for score in true_scores) <= stats.binom.ppf(0.999, draws, 0.01)
    drifting = score_family("correction_clock", 6).drifting
    assert drifting > stats.binom.ppf(0.999, 6, 0.01)
