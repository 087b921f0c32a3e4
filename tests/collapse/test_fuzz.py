"""Hostile tables: an answer or one clear error each, without a traceback or much memory."""

from collections import Counter

from scripts.fuzz import tables


def test_mutated_tables_get_an_answer_or_one_clear_error():
    outcomes = tables.run(60, seed=0)
    assert set(outcomes) == {"answer", "refused"}
    assert min(outcomes.values()) >= 5


def test_the_fuzzer_notices_what_is_no_clear_error(monkeypatch, capsys):
    def broken(*_, **__):
        raise IndexError("of the fitter")

    monkeypatch.setattr(tables, "fit_collapse", broken)
    assert tables.run(2, seed=0) == Counter(failed=2)
    assert "IndexError: of the fitter" in capsys.readouterr().out
