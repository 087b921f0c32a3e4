"""Clocks of whole steps: flagged where half a step matters, and corrected if the step is known."""

import json

import numpy as np
import pandas as pd
import pytest

from jthermo.cli import verbs
from jthermo.collapse import Form, compare, fit_collapse
from jthermo.errors import InputError


def late(seed=0, *, by=1.0, fastest=0.4, unit=1.0, error=False):
    """A law of t·c whose records are stamped up to a step late."""
    rng = np.random.default_rng(seed)
    times, frames = np.unique(np.round(np.geomspace(1, 200, 40))), []
    for c in fastest * np.array([0.125, 0.25, 0.5, 1.0]):
        for r in range(1 if error else 5):
            clean = 1 / (1 + ((times - by) * c) ** 1.5)
            value = clean + 0.01 * rng.standard_normal(len(times))
            columns = {"c": c, "seed": f"{c}-{r}", "step": unit * times, "value": value}
            frames.append(pd.DataFrame({**columns, "sigma": 0.01}))
    return pd.concat(frames)


def codes(fit):
    return {note.code for note in fit.notes}


@pytest.mark.parametrize("error", [None, "sigma"])
def test_a_known_resolution_corrects_the_bias_of_a_discrete_clock(error):
    options = {"error": error, "replicate": None if error else "seed"}
    table = late(error=error)
    raw = fit_collapse(table, ["c"], **options)
    assert raw.exponents["c"].value < 0.9
    assert raw.collapsed is False
    assert "coarse_clock" in codes(raw)
    (note,) = [note.message for note in raw.notes if note.code == "coarse_clock"]
    assert "half a step moves c by" in note
    known = fit_collapse(table, ["c"], time_resolution=1, **options)
    assert known.exponents["c"].low < 1 < known.exponents["c"].high
    assert known.exponents["c"].value > (0.97 if error is None else 0.93)
    assert known.collapsed is True
    assert "coarse_clock" not in codes(known)


def test_intervals_hold_whichever_end_of_its_step_a_time_is():
    for seed, by in enumerate((0.0, 0.5, 1.0)):
        fit = fit_collapse(late(seed, by=by), ["c"], time_resolution=1)
        assert fit.exponents["c"].low < 1 < fit.exponents["c"].high
        assert fit.collapsed is True


def test_the_step_has_the_unit_of_time():
    steps = fit_collapse(late(), ["c"], time_resolution=1)
    hours = fit_collapse(late(unit=0.1), ["c"], time_resolution=0.1)
    assert hours.exponents["c"].value == pytest.approx(steps.exponents["c"].value, abs=2e-3)
    assert hours.exponents["c"].high == pytest.approx(steps.exponents["c"].high, abs=2e-3)


def test_a_clock_that_is_fine_enough_is_neither_flagged_nor_costs_anything():
    times, rng = np.unique(np.round(np.geomspace(1, 20000, 60))), np.random.default_rng(1)
    rows = [
        pd.DataFrame(
            {
                "c": c,
                "seed": f"{c}-{r}",
                "step": times,
                "value": 1 / (1 + times * c) + 0.02 * rng.standard_normal(len(times)),
            }
        )
        for c in (0.0005, 0.001, 0.002)
        for r in range(5)
    ]
    table = pd.concat(rows)
    plain, known = (fit_collapse(table, ["c"], time_resolution=step) for step in (None, 1.0))
    assert "coarse_clock" not in codes(plain)
    width = [fit.exponents["c"].high - fit.exponents["c"].low for fit in (plain, known)]
    assert width[0] == pytest.approx(width[1], rel=0.02)


def test_forms_are_compared_on_such_a_clock():
    forms = {"theory": Form(fixed={"c": 1}), "raw": Form(fixed={"c": 0.8})}
    assert set(compare(late(), ["c"], forms).rejected) == {"theory", "raw"}
    answer = compare(late(), ["c"], forms, time_resolution=1)
    assert (answer.best, answer.rejected) == ("theory", ("raw",))


@pytest.mark.parametrize("step", [0, -1, np.inf, "1"])
def test_a_step_that_is_none_is_refused(step):
    with pytest.raises(InputError, match=f"time_resolution = {step!r}: give the step"):
        fit_collapse(late(), ["c"], time_resolution=step)


def test_the_step_can_be_given_in_the_shell(tmp_path, capsys):
    late().to_csv(tmp_path / "late.csv", index=False)
    plain = ["fit", str(tmp_path / "late.csv"), "--controls", "c", "--value", "value", "--as-json"]
    powers = []
    for more in ([], ["--time-resolution", "1"]):
        verbs.main([*plain, *more])
        (fit,) = json.loads(capsys.readouterr().out)
        powers.append(fit["exponents"]["c"]["value"])
    assert powers[0] < 0.9 < 0.97 < powers[1]
