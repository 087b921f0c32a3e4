"""The exit code of ``jthermo reproduce all`` for every mixture of outcomes."""

import itertools

import pytest

from jthermo.cli import verbs
from jthermo.errors import InputError, MissingData
from jthermo.paper import reproduce
from jthermo.paper.reproduce import Outcome

DONE = Outcome("fig1", "done", "reproduced")
BEFORE = Outcome("fig2_top", "done before", "reproduced")
ABSENT = Outcome("fig7_8", "not run", "no data", MissingData("data", "cifar10", "put it there"))
BAD_INPUT = Outcome("fig3_4", "failed", "bad", InputError("seed", -1, "give another"))
FAULT = Outcome("fig5_6", "failed", "fault", ZeroDivisionError("division by zero"))


@pytest.mark.parametrize(
    ("outcomes", "code"),
    [
        ((DONE, BEFORE), 0),
        ((ABSENT, DONE), 0),
        ((BAD_INPUT,), 2),
        ((BAD_INPUT, DONE, ABSENT), 2),
        ((BAD_INPUT, BAD_INPUT), 2),
        ((FAULT,), 1),
        ((FAULT, DONE, ABSENT), 1),
        ((FAULT, BAD_INPUT), 1),
        ((FAULT, BAD_INPUT, DONE), 1),
    ],
)
def test_exit_code_of_all_experiments(outcomes, code, monkeypatch, capsys):
    """2 if every failure was bad input, else 1; missing data are no failure. In any order."""
    for order in set(itertools.permutations(outcomes)):
        monkeypatch.setattr(reproduce, "reproduce_all", lambda *_, order=order, **__: order)
        if code == 0:
            verbs.main(["reproduce", "all"])
            assert "failed" not in capsys.readouterr().err
            continue
        with pytest.raises(SystemExit) as stopped:
            verbs.main(["reproduce", "all"])
        assert stopped.value.code == code
        said = capsys.readouterr().err
        number = sum(outcome.state == "failed" for outcome in outcomes)
        assert f"{number} of {len(outcomes)} experiments failed" in said
        for outcome in outcomes:
            assert (f"{outcome.name}: {outcome.why}" in said) == (outcome.state == "failed")
