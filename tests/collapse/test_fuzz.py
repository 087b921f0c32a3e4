"""Hostile tables: an answer or one clear error each, without a traceback."""

from collections import Counter

from scripts.fuzz import tables
from scripts.fuzz.trial import ACCEPTED, REFUSED, outcome_of


def outcomes(count):
    """In this process, since a fork after JAX has started may deadlock."""
    return [outcome_of(trial.call)[0] for trial in tables.trials(count, seed=0)]


def test_mutated_tables_get_an_answer_or_one_clear_error():
    kinds = Counter(outcomes(60))
    assert set(kinds) == {ACCEPTED, REFUSED}
    assert min(kinds.values()) >= 5


def test_the_fuzzer_notices_what_is_no_clear_error(monkeypatch):
    def broken(*_, **__):
        raise IndexError("of the fitter")

    monkeypatch.setattr(tables, "fit_collapse", broken)
    assert outcomes(2) == ["traceback"] * 2
