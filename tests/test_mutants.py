"""The list of mutations fits the code: each fragment is there once, and each test file exists."""

from pathlib import Path

import pytest

from scripts import mutants
from scripts.mutants import MUTATIONS, ROOT, Mutation


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda m: f"{m.file}-{m.new[:20]}")
def test_a_mutation_changes_one_place_and_names_tests(mutation):
    mutants.position(mutation)
    assert mutation.old != mutation.new
    for test in mutation.tests.split():
        assert (ROOT / test.partition("::")[0]).is_file()


def test_a_list_that_no_longer_fits_the_code_stops_the_script(monkeypatch, capsys):
    for old in ("no such line", "import"):
        stale = Mutation("jthermo/errors.py", old, "x", "tests/test_shapes.py")
        monkeypatch.setattr(mutants, "MUTATIONS", [stale])
        assert mutants.main([]) == 2
        assert f"jthermo/errors.py has {old!r}" in capsys.readouterr().out


def test_a_failing_test_is_named_and_a_passing_one_is_not(tmp_path: Path):
    test = tmp_path / "test_of_two.py"
    test.write_text("def test_good():\n    assert True\n")
    assert mutants.noticed(tmp_path, [test.name]) == ""
    test.write_text(test.read_text() + "\n\ndef test_bad():\n    assert False\n")
    assert mutants.noticed(tmp_path, [test.name]) == "test_of_two.py::test_bad"
    assert "pytest stops with 4" in mutants.noticed(tmp_path, ["absent.py"])
