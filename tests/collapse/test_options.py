"""Finite-size scaling: exponent of the value, corrections, a textbook model, what to measure.

Each table is drawn with one seed. By chance a 95 % interval misses the truth for one seed in 20,
and a true hypothesis has p < 0.01, or a true collapse is refused, for at most one in 100.
"""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from jthermo.collapse import fit_collapse
from jthermo.collapse.exponent_drift import Drift
from jthermo.errors import InputError
from tests.collapse.test_fit import CURVES, planted

SIZES = (8.0, 12.0, 16.0, 32.0, 64.0, 128.0)


def sized(height, correction, *, power=-1, sizes=(8.0, 16.0, 32.0, 64.0), sd=0.004, seed=0):
    """Value = L^height·F(t·L^0.75·exp(correction·(L/8)^power)), with eight replicates."""
    rng = np.random.default_rng(seed)
    times = np.geomspace(0.3, 300, 40)
    frames = []
    for size in sizes:
        u = np.log(times) + 0.75 * np.log(size) + correction * (size / 8) ** power
        for r in range(8):
            value = size**height * (0.2 + CURVES["decay"](u)) + sd * rng.standard_normal(40)
            frames.append(
                pd.DataFrame({"L": size, "seed": f"{size}-{r}", "step": times, "value": value})
            )
    return pd.concat(frames, ignore_index=True)


def test_the_value_is_rescaled_where_asked():
    table = sized(-0.7, 0.0)
    fit = fit_collapse(table, ["L"], rescale=["L"])
    assert fit.exponents["L"].low < 0.75 < fit.exponents["L"].high
    assert fit.exponents["value_L"].low < -0.7 < fit.exponents["value_L"].high
    assert fit.exponents["value_L"].standard_error < 0.02
    assert fit.collapsed is True
    assert fit.test(L=0.75, value_L=-0.7).p_value > 0.01
    assert fit.test(L=0.75, value_L=-0.5).p_value < 1e-6
    assert fit_collapse(table, ["L"]).collapsed is False
    for condition in fit.curves.conditions:
        size = float(np.exp(condition.log_controls[0]))
        at = np.log(fit.tau(np.exp(condition.log_time), L=size))
        gap = fit.rescaled(condition.values.mean(axis=0), L=size) - np.interp(
            at, fit.log_tau, fit.curve
        )
        # Noise of 0.0014·64^0.7 at most.
        assert np.abs(gap).max() < 0.12
    assert "value/L^q against τ = step·L^p" in fit.summary()
    with pytest.raises(InputError, match="rescale = 'M'"):
        fit_collapse(table, ["L"], rescale=["M"])


def test_a_leading_correction_takes_the_drift_away():
    table = sized(0.0, 0.5)
    plain, corrected = fit_collapse(table, ["L"]), fit_collapse(table, ["L"], correction={"L": -1})
    assert "drifting_exponent" in {note.code for note in plain.notes}
    assert not plain.collapsed
    assert corrected.collapsed
    assert corrected.exponents["L"].low < 0.75 < corrected.exponents["L"].high
    assert corrected.exponents["correction_L"].low < 0.5 < corrected.exponents["correction_L"].high
    assert "drifting_exponent" not in {note.code for note in corrected.notes}
    with pytest.raises(InputError, match="a power that is not 0"):
        fit_collapse(table, ["L"], correction={"L": 0.0})


def test_the_power_of_a_correction_is_fitted_within_a_range():
    table = sized(0.0, 0.6, sizes=SIZES, sd=0.01)
    fit = fit_collapse(table, ["L"], correction={"L": (-4, -0.25)})
    truth = {"L": 0.75, "correction_L": 0.6, "power_L": -1.0}
    for name, value in truth.items():
        assert fit.exponents[name].low < value < fit.exponents[name].high
    assert fit.exponents["power_L"].high - fit.exponents["power_L"].low < 0.8
    assert fit.collapsed
    assert fit.test(**truth).p_value > 0.01
    assert fit.test(L=0.75, correction_L=0.6).p_value > 0.01
    assert fit.test(L=0.75, correction_L=0.3).p_value < 1e-3
    assert fit.test(power_L=-3.5).p_value < 1e-3
    w = fit.exponents["power_L"]
    low, middle, high = fit.profile("power_L", np.array([w.low, w.value, w.high]))
    assert middle == pytest.approx(0.0, abs=1e-3)
    # Both ends lose the same.
    assert low == pytest.approx(high, abs=0.1)
    assert f"w(L) = {w}" in fit.summary()
    assert fit.to_dict()["corrections"][0]["power"] == fit.corrections[0].power == w.value
    known = fit_collapse(table, ["L"], correction={"L": w.value}).exponents["L"]
    # Taking ŵ as known makes the interval too narrow.
    assert fit.exponents["L"].standard_error > 1.2 * known.standard_error
    wrong = fit_collapse(table, ["L"], correction={"L": -3.5})
    assert not wrong.collapsed
    assert "drifting_exponent" in {note.code for note in wrong.notes}


def test_a_power_that_nothing_tells_is_not_given():
    fit = fit_collapse(sized(0.0, 0.0, sizes=SIZES, sd=0.01), ["L"], correction={"L": (-3, -0.3)})
    assert not fit.identifiable["power_L"]
    assert "w(L) = not identifiable" in fit.summary()
    assert "correction_power" in {note.code for note in fit.notes}
    assert fit.exponents["L"].low < 0.75 < fit.exponents["L"].high
    with pytest.raises(InputError, match="not identifiable"):
        fit.test(power_L=-1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"correction": {"L": (-1, 2)}}, "of one sign"),
        ({"correction": {"L": "free"}}, "of one sign"),
        ({"correction": {"L": (-4, -1)}, "sizes": SIZES[:3]}, "takes four values of L, here are 3"),
        ({"correction": {"L": (-4, -1)}, "fixed": {"correction_L": 1}}, "is held by fixed="),
        ({"correction": {"M": (-4, -1)}}, "'M': is not one of"),
    ],
)
def test_a_power_that_cannot_be_fitted_is_refused(options, message):
    table = sized(0.0, 0.5, sizes=options.pop("sizes", SIZES))
    with pytest.raises(InputError, match=message):
        fit_collapse(table, ["L"], **options)


def test_percolation_has_its_exact_exponent():
    path = Path(__file__).parents[2] / "scripts" / "percolation.py"
    spec = importlib.util.spec_from_file_location("percolation", path)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    table = script.simulate(sizes=(12, 24, 48), replicates=8, lattices=40, points=14)
    fit = fit_collapse(table, value="spanned", controls=["L"], time="distance")
    assert fit.exponents["L"].low < 0.75 < fit.exponents["L"].high
    assert fit.collapsed
    assert fit.test(L=0.0).p_value < 1e-3


def test_joint_region_and_profile_agree_with_the_test():
    fit = fit_collapse(
        planted(CURVES["decay"], [2, -1], {"a": [0.5, 1, 2], "b": [1, 2]}, sd=0.02), ["a", "b"]
    )
    for a, b in fit.region("a", "b", 5):
        assert fit.test(a=a, b=b).p_value == pytest.approx(0.05)
    e = fit.exponents["a"]
    low, middle, high = fit.profile("a", np.array([e.low, e.value, e.high]))
    assert middle == pytest.approx(0.0, abs=1e-6)
    # 1.92 for a normal with known noise.
    assert 1.0 < low == pytest.approx(high, rel=0.1)


def cut(table, low, high):
    """The records between two times, both kept."""
    return table[(table.step >= 0.999 * low) & (table.step <= 1.001 * high)]


def advised(fit):
    return {advice.change: advice for advice in fit.advice()}


def test_advice_is_what_happens():
    levels = {"c": [0.5, 1.0, 2.0]}
    fit = fit_collapse(planted(CURVES["decay"], [0.5], levels, sd=0.03), ["c"])
    more, further = advised(fit)["replicates"], advised(fit)["value"]
    width = fit.exponents["c"].standard_error
    four = fit_collapse(
        planted(CURVES["decay"], [0.5], levels, sd=0.03, num_replicates=int(more.value)), ["c"]
    )
    assert four.exponents["c"].standard_error / width == pytest.approx(more.ratio, rel=0.25)
    levels = {"c": [*levels["c"], further.value]}
    wider = fit_collapse(planted(CURVES["decay"], [0.5], levels, sd=0.03), ["c"])
    assert wider.exponents["c"].standard_error / width == pytest.approx(further.ratio, rel=0.25)
    assert further.ratio < 0.7


def test_the_number_of_replicates_gives_the_width_that_was_asked_for():
    levels = {"c": [0.5, 1.0, 2.0]}
    fit = fit_collapse(planted(CURVES["decay"], [0.5], levels, sd=0.03), ["c"])
    exponent = fit.exponents["c"]
    half = (exponent.high - exponent.low) / 2
    number = fit.replicates_for("c", half / 2)
    many = fit_collapse(
        planted(CURVES["decay"], [0.5], levels, sd=0.03, num_replicates=number), ["c"]
    ).exponents["c"]
    assert (many.high - many.low) / 2 == pytest.approx(half / 2, rel=0.25)
    assert fit.replicates_for("c", 2 * half) == fit.num_replicates[1]
    assert fit.replicates_for("c", half / 1e4) is None
    with pytest.raises(InputError, match="identifiable"):
        fit.replicates_for("d", half)
    with pytest.raises(InputError, match=r"half_width = -0\.1: give a positive"):
        fit.replicates_for("c", -0.1)


def test_records_to_a_later_time_narrow_the_interval_as_predicted():
    """The curve falls at τ = e⁴; up to step 40 only the fastest condition has seen it."""
    predicted, found = [], []
    for seed in range(3):
        whole = planted(CURVES["decay"], [2], {"c": [0.5, 1.0, 2.0]}, sd=0.03, seed=seed)
        short = fit_collapse(cut(whole, 1, 40), ["c"])
        later = advised(short)["end"]
        longer = fit_collapse(cut(whole, 1, later.value), ["c"])
        predicted.append(later.ratio)
        found.append(longer.exponents["c"].standard_error / short.exponents["c"].standard_error)
    assert np.mean(predicted) == pytest.approx(np.mean(found), rel=0.15)
    assert np.mean(predicted) < 0.55
    # All conditions are flat by then, so later records add nothing.
    over = fit_collapse(cut(whole, 1, 6000), ["c"])
    assert advised(over)["end"].ratio > 0.98
    all_ = fit_collapse(whole, ["c"])
    assert all_.exponents["c"].standard_error == pytest.approx(
        over.exponents["c"].standard_error, rel=0.05
    )


def test_more_records_help_where_the_curve_falls_and_not_against_leads():
    levels = {"c": [0.5, 1.0, 2.0]}
    table = planted(CURVES["decay"], [1.2], levels, sd=0.03)
    fit = fit_collapse(table, ["c"])
    error = fit.exponents["c"].standard_error
    records = advised(fit)["records"]
    low, high = records.window
    alone = fit_collapse(table, ["c"], window=(0.999 * low, 1.001 * high))
    assert alone.exponents["c"].standard_error / error < 1.2
    elsewhere = fit_collapse(cut(table, high, 3e4), ["c"])
    assert not elsewhere.identifiable["c"] or elsewhere.exponents["c"].standard_error > 2 * error
    twice = fit_collapse(planted(CURVES["decay"], [1.2], levels, sd=0.03, num_steps=139), ["c"])
    assert twice.exponents["c"].standard_error / error == pytest.approx(records.ratio, rel=0.25)
    assert records.ratio < 0.85
    leads = fit_collapse(planted(CURVES["decay"], [1.2], levels, sd=0.01, lag=0.2), ["c"])
    assert advised(leads)["records"].ratio > 0.95
    assert "records per curve, the new ones between" in str(records)


def test_a_control_with_one_value_spoils_neither_advice_nor_profile():
    table = planted(CURVES["decay"], [2], {"c": [0.5, 1, 2]}).assign(d=3.0)
    both, alone = fit_collapse(table, ["d", "c"]), fit_collapse(table, ["c"])
    assert both.advice() == alone.advice()
    at = np.array([1.95, 2.05])
    assert both.profile("c", at) == pytest.approx(alone.profile("c", at))


def test_a_drift_that_only_a_failed_collapse_suggests_is_said_so():
    likely = Drift((), {"c": 0.2}, refused=True)
    assert likely.caveat("c").startswith(
        "the curves do not collapse, and the exponent of c may change"
    )
    assert Drift((), {"c": 0.2}, refused=False).caveat("c") is None
    assert Drift((), {"c": 0.9}, refused=True).caveat("c") is None
    assert Drift((), {"c": 0.01}, refused=True).caveat("c").startswith("the exponent of c changes")


def test_drift_table_and_curve_are_in_the_users_units():
    fit = fit_collapse(planted(CURVES["decay"], [2], {"c": [5.0, 10.0, 20.0]}), ["c"])
    between = [(row.low, row.high) for row in fit.drift if row.kind == "between"]
    assert np.allclose(between, [(5, 10), (10, 20)])
    assert "local p(c) from c = 5 to 20: " in fit.summary()
    condition = fit.curves.conditions[0]
    at = np.log(fit.tau(np.exp(condition.log_time), c=5.0))
    assert (
        np.abs(condition.values.mean(axis=0) - np.interp(at, fit.log_tau, fit.curve)).max() < 0.02
    )


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({}, r"controls = \[\]: give a value of each control: c=…"),
        ({"C": 5.0}, r"controls = \['C'\]: give a value of each control: c=…"),
        ({"c": -5.0}, "c = -5.0: give a finite number > 0"),
        ({"c": "5"}, "c = '5': give a finite number > 0"),
    ],
)
def test_the_clock_of_a_setting_needs_each_control_above_zero(setting, message):
    fit = fit_collapse(planted(CURVES["decay"], [2], {"c": [5.0, 10.0]}), ["c"])
    for transform in (fit.tau, fit.rescaled):
        with pytest.raises(InputError, match=message):
            transform(np.ones(3), **setting)
    controls = np.array([5.0, 10.0])
    each = [fit.tau(np.ones(1), c=c).item() for c in controls]
    np.testing.assert_array_equal(fit.tau(np.ones(2), c=controls), each)
    with pytest.raises(InputError, match="c = '2': give a finite number"):
        fit.test(c="2")


def test_a_control_of_two_values_beside_others_is_told_in_words():
    table = planted(CURVES["decay"], [2, -1], {"c": [1.0, 2.0, 4.0], "d": [1.0, 4.0]})
    said = fit_collapse(table, ["c", "d"]).summary()
    assert "local p(c) from c = 1 to 4: " in said
    assert "local p(d) from" not in said
    assert (
        said.count("local p(c) in thirds of log τ: ")
        == said.count("local p(d) in thirds of log τ: ")
        == 1
    )


def test_all_pictures_draw_what_they_say():
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    fit = fit_collapse(
        planted(CURVES["decay"], [2, -1], {"a": [0.5, 1, 2], "b": [1, 2]}, sd=0.02), ["a", "b"]
    )
    residuals = fit.plot_residuals()
    heights = np.concatenate([c.lines[0].get_ydata() for c in residuals.containers])
    assert np.abs(heights).max() < 0.05
    table = planted(CURVES["decay"], [2, -1], {"a": [0.5, 1, 2], "b": [1, 2]}, sd=0.02)
    # A level that follows a, not b.
    table["value"] += 0.03 * np.log2(table.a)
    bent = fit_collapse(table, ["a", "b"], fixed={"a": 2, "b": -1})
    spread = {}
    for by in ("a", "b"):
        lines = [c.lines[0].get_ydata() for c in bent.plot_residuals(by=by).containers]
        assert len(lines) == {"a": 3, "b": 2}[by]
        spread[by] = np.nanmean(lines[-1]) - np.nanmean(lines[0])
    assert spread["a"] > 0.04
    assert abs(spread["b"]) < 0.02
    with pytest.raises(InputError, match=r"by = 'c': name one of the controls \['a', 'b'\]"):
        bent.plot_residuals(by="c")
    profile = fit.plot_profile("a")
    x, y = profile.lines[0].get_data()
    assert x[np.argmin(y)] == pytest.approx(fit.exponents["a"].value, abs=np.diff(x)[0])
    assert len(fit.plot_region("a", "b").patches) == 1
    with pytest.raises(InputError, match="has no interval to draw"):
        bent.plot_profile("a")
    matplotlib.pyplot.close("all")


def test_the_command_line_knows_the_options(tmp_path, capsys):
    from jthermo.cli import verbs

    table = planted(CURVES["decay"], [2], {"c": [0.5, 1, 2]}, num_replicates=1, sd=0.01)
    table.to_csv(tmp_path / "curves.csv", index=False)
    plain = [
        "fit",
        str(tmp_path / "curves.csv"),
        "--value",
        "value",
        "--controls",
        "c",
        "--replicate",
        "none",
    ]
    verbs.main([*plain, "--fixed", "c=2"])
    held = capsys.readouterr().out
    assert "p(c) = 2 [2, 2]  (fixed)" in held
    verbs.main(plain)
    assert (
        f"p(c) = {fit_collapse(table, ['c'], replicate=None).exponents['c']}"
        in capsys.readouterr().out
    )
    verbs.main([*plain, "--advice", "--as-json"])
    (said,) = json.loads(capsys.readouterr().out)
    assert [advice["change"] for advice in said["advice"]] == [
        "replicates",
        "value",
        "end",
        "records",
    ]
    verbs.main([*plain, "--advice"])
    assert capsys.readouterr().out.count("  advice: ") == 4


def test_the_command_line_refuses_bad_tables_in_one_line(tmp_path, capsys, monkeypatch):
    from jthermo.cli import verbs

    table = planted(CURVES["decay"], [2], {"c": [0.5, 1, 2]}, num_replicates=2)
    table.to_csv(tmp_path / "good.csv", index=False)
    table.iloc[:0].to_csv(tmp_path / "empty.csv", index=False)
    table.assign(step=-1).to_csv(tmp_path / "before.csv", index=False)
    table.assign(value="high").to_csv(tmp_path / "words.csv", index=False)
    (tmp_path / "ragged.csv").write_text("a\n1\n1,2\n")
    (tmp_path / "junk.parquet").write_text("none")
    (tmp_path / "table.xlsx").write_text("c,step\n")
    (tmp_path / "bare.dat").write_text("1 2 3\n1 3 4\n")
    wanted = {
        ("absent.csv",): "no such file",
        ("empty.csv",): "data = '0 rows'",
        ("before.csv",): "step = 'no value > 0'",
        ("words.csv",): "value = 'high': is not a number",
        ("ragged.csv",): "can't be read",
        ("junk.parquet",): "can't be read",
        ("table.xlsx",): "give a .csv, .tsv, .dat, .txt or .parquet file",
        ("bare.dat",): "names no columns; give them, such as --columns L T value error",
        ("bare.dat", "--columns", "c", "t"): "columns = 'c t': the file has 3 columns",
        ("good.csv", "--where", "d=1"): "name one of the columns c, seed",
        ("good.csv", "--where", "c=9"): "no row has this value; c takes 0.5, 1.0, 2.0",
        ("good.csv", "--where", "c=x"): "column c holds numbers",
        ("good.csv", "--correction", "c=x"): "write NAME=POWER",
        ("good.csv", "--correction", "c=-2:-1"): "takes four values of c, here are 3",
        ("good.csv", "--rescale", "d"): "rescale = 'd'",
    }
    for (name, *rest), message in wanted.items():
        with pytest.raises(SystemExit) as stopped:
            verbs.main(["fit", str(tmp_path / name), "--value", "value", "--controls", "c", *rest])
        said = capsys.readouterr().err
        assert (stopped.value.code, said.count("\n")) == (2, 1)
        assert message in said

    def missing(_):
        raise ImportError("Missing optional dependency 'pyarrow'")

    monkeypatch.setattr(pd, "read_parquet", missing)
    with pytest.raises(SystemExit) as stopped:
        verbs.main(["fit", str(tmp_path / "junk.parquet"), "--value", "value", "--controls", "c"])
    assert stopped.value.code == 2
    assert "pip install pyarrow" in capsys.readouterr().err


def test_exponents_that_are_all_held_are_judged_too():
    rng, times = np.random.default_rng(0), np.geomspace(0.02, 50, 40)
    frames = [
        pd.DataFrame(
            {
                "L": size,
                "seed": f"{size}-{r}",
                "step": times,
                "value": 1 / (1 + times * size) + 0.02 * rng.standard_normal(40),
            }
        )
        for size in (1.0, 2.0, 4.0)
        for r in range(5)
    ]
    table = pd.concat(frames)
    assert fit_collapse(table, ["L"], fixed={"L": 1}).collapsed is True
    assert fit_collapse(table, ["L"], fixed={"L": 0.6}).collapsed is False
    # So far apart, nothing is compared.
    apart = fit_collapse(table, ["L"], fixed={"L": 30})
    assert apart.collapsed is None
    assert "poor_overlap" in {note.code for note in apart.notes}
