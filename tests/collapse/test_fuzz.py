"""Hostile tables: an answer or one clear error each, without a traceback or much memory."""

from collections import Counter

from scripts.fuzz import tables
from scripts.fuzz.trial import ACCEPTED, REFUSED


def test_mutated_tables_get_an_answer_or_one_clear_error():
    outcomes = Counter(outcome.kind for outcome in tables.run(60, seed=0))
    assert set(outcomes) == {ACCEPTED, REFUSED}
    assert min(outcomes.values()) >= 5


def test_the_fuzzer_notices_what_is_no_clear_error(monkeypatch):
    def broken(*_, **__):
        raise IndexError("of the fitter")

    monkeypatch.setattr(tables, "fit_collapse", broken)
    assert [outcome.kind for outcome in tables.run(2, seed=0)] == ["traceback"] * 2
