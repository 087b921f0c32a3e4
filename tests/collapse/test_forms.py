"""Scaling forms: critical points, published errors, log scales, offsets, windows of the clock."""

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy import stats

from jthermo.cli.options import read_table
from jthermo.collapse import fit_collapse, intervals
from jthermo.errors import InputError
from scripts.collapse_study.forms import FORMS, lost
from scripts.collapse_study.scoring import ours, score_family, source

SIZES = (16.0, 32.0, 64.0, 128.0)


def lattice(q=0.0, *, p=1.0, t_c=2.0, noise=0.005, num_replicates=1, seed=0, curve=None):
    """Value = L^q·F((t − t_c)·L^p) at times on both sides, with the standard errors."""
    rng = np.random.default_rng(seed)
    curve = curve or (lambda s: 0.5 + 0.5 * np.tanh(s) + 0.2 * np.exp(-((s - 0.5) ** 2)))
    times = t_c + np.linspace(-0.1, 0.1, 25)
    frames = []
    for size in SIZES:
        mean = (size / 45) ** q * curve((times - t_c) * (size / 45) ** p * 30)
        for r in range(num_replicates):
            value = mean + noise * rng.standard_normal(25)
            columns = {"L": size, "t": times, "value": value, "error": noise}
            frames.append(pd.DataFrame({**columns, "seed": f"{size}-{r}"}))
    return pd.concat(frames, ignore_index=True)


def holds(fit, **truth):
    return all(fit.exponents[n].low <= x <= fit.exponents[n].high for n, x in truth.items())


def test_a_crossing_is_fitted_jointly_with_the_exponents_from_both_sides():
    table = lattice(-0.125, noise=0.003)
    options = {"time": "t", "error": "error", "rescale": "L"}
    fit = fit_collapse(table, ["L"], critical_point=(1.95, 2.08), **options)
    assert holds(fit, L=1.0, value_L=-0.125, critical_point=2.0)
    assert fit.collapsed is True
    assert fit.exponents["critical_point"].standard_error < 1e-3
    assert fit.test(L=1.0, value_L=-0.125, critical_point=2.0).p_value > 0.01
    assert fit.test(critical_point=2.02).p_value < 1e-6
    known = fit_collapse(table, ["L"], critical_point=2.0, **options)
    # Not to know t_c costs precision.
    assert known.exponents["L"].standard_error < fit.exponents["L"].standard_error
    assert "t_c = 2 [2, 2]  (fixed)" in known.summary()
    # A wrong crossing is refused.
    wrong = fit_collapse(table, ["L"], critical_point=2.02, **options)
    assert wrong.collapsed is False
    tau = fit.tau(table.t.to_numpy()[:25], L=SIZES[0])
    shown = fit.rescaled(table.value.to_numpy()[:25], L=SIZES[0])
    assert tau[0] < 0 < tau[-1]
    assert np.abs(shown - np.interp(tau, fit.curve_tau, fit.curve)).max() < 0.02 * np.ptp(fit.curve)
    held = fit.profile("critical_point", np.array([1.999, fit.exponents["critical_point"].value]))
    assert held[0] > 1
    assert held[1] == pytest.approx(0, abs=1e-4)


def test_times_of_both_signs_are_all_used():
    table = lattice(t_c=0.0)
    fit = fit_collapse(table, ["L"], time="t", error="error")
    assert fit.window == (-0.1, 0.1)
    assert fit.exponents["critical_point"].value == 0
    assert sum(len(c.log_time) for c in fit.curves.conditions) == len(table)
    assert holds(fit, L=1.0)
    half = fit_collapse(table[table.t > 0], ["L"], time="t", error="error")
    assert fit.exponents["L"].standard_error < half.exponents["L"].standard_error


def test_units_of_time_and_value_change_no_exponent():
    table = lattice(-0.5)
    options = {"time": "t", "error": "error", "rescale": ["L"]}
    one = fit_collapse(table, ["L"], critical_point=(1.95, 2.08), **options)
    scaled = table.assign(t=1e-3 * table.t, value=40 * table.value, error=40 * table.error)
    two = fit_collapse(scaled, ["L"], critical_point=(1.95e-3, 2.08e-3), **options)
    for name, factor in (("L", 1), ("value_L", 1), ("critical_point", 1e3)):
        assert factor * two.exponents[name].value == pytest.approx(
            one.exponents[name].value, abs=1e-3 * one.exponents[name].standard_error + 1e-9
        )


def test_published_errors_are_the_noise():
    table = lattice(noise=0.01)
    options = {"time": "t", "critical_point": (1.95, 2.08)}
    right = fit_collapse(table, ["L"], error="error", **options)
    assert right.collapsed is True
    # Errors that are five times too small leave scatter that no collapse explains.
    bold = fit_collapse(table.assign(error=0.002), ["L"], error="error", **options)
    assert bold.collapsed is False
    shy = fit_collapse(table.assign(error=0.04), ["L"], error="error", **options)
    ratio = shy.exponents["L"].standard_error / right.exponents["L"].standard_error
    assert ratio == pytest.approx(4, rel=0.3)
    array = table.set_index(["L", "t"])[["value", "error"]].to_xarray()
    same = fit_collapse(array.value, ["L"], error=array.error, **options)
    assert same.exponents == right.exponents
    assert isinstance(array.error, xr.DataArray)
    repeated = lattice(noise=0.01, num_replicates=5)
    both = fit_collapse(repeated, ["L"], error="error", **options)
    neither = fit_collapse(repeated, ["L"], **options)
    assert both.exponents == neither.exponents
    assert "errors_not_used" in {note.code for note in both.notes}


def law(offset=0.0, *, noise=0.01, seed=1, num_replicates=6):
    """Value = offset + L^0.4·F(t·L^0.8) with noise in proportion, where F falls by two decades."""
    rng = np.random.default_rng(seed)
    times = np.geomspace(0.1, 1e3, 40)
    frames = []
    for size in (1.0, 2.0, 4.0, 8.0):
        tau = times * size**0.8
        mean = offset + size**0.4 / (1 + tau) ** 0.7 * (1 + 0.3 * np.exp(-tau))
        for r in range(num_replicates):
            value = mean * np.exp(noise * rng.standard_normal(40))
            columns = {"L": size, "seed": f"{size}-{r}", "step": times, "value": value}
            frames.append(pd.DataFrame(columns))
    return pd.concat(frames, ignore_index=True)


def test_values_over_decades_are_compared_by_their_logs():
    fit = fit_collapse(law(), ["L"], rescale=["L"], scale="log")
    assert holds(fit, L=0.8, value_L=0.4)
    assert fit.collapsed is True
    assert fit.curve[0] > 50 * fit.curve[-1] > 0
    table = law()
    table.loc[7, "value"] = -0.5
    with pytest.raises(InputError, match=r"value = -0.5: scale=\"log\" takes values > 0"):
        fit_collapse(table, ["L"], scale="log")


@pytest.mark.parametrize("scale", ["linear", "log"])
def test_an_irreducible_value_is_fitted(scale):
    table = law(0.3, noise=0.003)
    fit = fit_collapse(table, ["L"], rescale=["L"], offset=(0.0, 0.5), scale=scale)
    assert holds(fit, L=0.8, value_L=0.4, offset=0.3)
    assert fit.exponents["offset"].standard_error < 0.02
    assert fit.collapsed is True
    known = fit_collapse(table, ["L"], rescale=["L"], offset=0.3, scale=scale)
    assert holds(known, L=0.8, value_L=0.4)
    assert fit_collapse(table, ["L"], rescale=["L"], scale=scale).collapsed is False
    last = fit.curves.conditions[0]
    shown = fit.rescaled(last.values.mean(axis=0), L=1.0)
    at = np.log(fit.tau(np.exp(last.log_time), L=1.0))
    assert np.abs(shown - np.interp(at, fit.log_tau, fit.curve)).max() < 0.05


def test_a_window_of_the_clock_cuts_each_curve_at_its_own_time():
    table = law()
    # Early records follow another law.
    table.loc[table.step * table.L**0.8 < 1, "value"] *= 1 + 0.5 * np.log(table.L)
    options = {"rescale": ["L"], "scale": "log"}
    assert fit_collapse(table, ["L"], **options).collapsed is False
    late = fit_collapse(table, ["L"], clock_window=(1, np.inf, {"L": 0.8}), **options)
    assert late.collapsed is True
    for condition in late.curves.conditions:
        first = np.exp(condition.log_time[0]) * np.exp(0.8 * condition.log_controls[0])
        assert 1 <= first < 1.3
    assert holds(late, L=0.8, value_L=0.4)
    held = fit_collapse(table, ["L"], clock_window=(1, np.inf), fixed={"L": 0.8}, **options)
    assert held.window == late.window


@pytest.mark.parametrize(
    ("t_c", "options"),
    [
        (2.0, {"window": (1.97, 2.03), "critical_point": (1.95, 2.05)}),
        (2.0, {"window": (2.001, 2.1), "critical_point": 2.0}),
        (0.0, {"window": (1e-3, 0.1)}),
        (0.0, {"clock_window": (-1.5, 1.5, {"L": 1.0}), "critical_point": 0.0}),
    ],
    ids=["around t_c", "after t_c", "after 0", "of the clock"],
)
def test_records_outside_a_window_change_nothing(t_c, options):
    table = lattice(t_c=t_c)
    since = table.t - t_c
    far = table.assign(t=t_c + 40 * since, value=table.value * 3)
    both = pd.concat([table, far[since.abs() > 0.03]])
    named = {"time": "t", "error": "error"}
    windowed = fit_collapse(both, ["L"], **options, **named)
    low, high, *powers = options.get("window") or options["clock_window"]
    tau = both.t * both.L ** powers[0]["L"] if powers else both.t
    selected = both[(tau >= low) & (tau <= high)]
    assert len(selected) < len(table)
    law = {"critical_point": options["critical_point"]} if "critical_point" in options else {}
    alone = fit_collapse(selected, ["L"], **law, **named)
    assert windowed.exponents == alone.exponents
    assert (windowed.p_value, windowed.misfit) == (alone.p_value, alone.misfit)
    assert "times_left_out" not in {note.code for note in windowed.notes}
    # Of the records inside, each matters.
    fewer = fit_collapse(selected.iloc[1:], ["L"], **law, **named)
    assert fewer.exponents != alone.exponents


def test_two_branches_need_not_meet():
    def curve(s):
        return np.where(s < 0, (0.3 + np.abs(s)) ** -0.8, 3 * (0.3 + np.abs(s)) ** 0.5)

    table = lattice(0.3, curve=curve, noise=0.01)
    table["value"] *= 1 + 0.01 * np.random.default_rng(2).standard_normal(len(table))
    table["error"] = 0.01 * np.hypot(1, table.value)
    options = {"time": "t", "error": "error", "rescale": "L", "critical_point": 2.0, "scale": "log"}
    two = fit_collapse(table, ["L"], branches=2, **options)
    assert two.collapsed is True
    assert holds(two, L=1.0, value_L=0.3)
    assert not two.notes


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"critical_point": (3, 1)}, "critical_point = .3, 1.: give a number, or a range"),
        ({"critical_point": "here"}, "critical_point = 'here'"),
        ({"branches": 3}, "branches = 3: give 1"),
        ({"branches": 2}, "give critical_point"),
        ({"scale": "sqrt"}, "scale = 'sqrt'"),
        ({"offset": (0, 1)}, "name in rescale the control"),
        ({"error": "sigma"}, "column = 'sigma': is not in the table"),
        ({"error": "none"}, "error = 0.0: a standard error must be > 0"),
        ({"error": "endless"}, "error = inf: a standard error must be > 0 and finite"),
        ({"error": "value"}, "error = 'value': is the value already"),
        ({"error": pd.Series([0.1])}, "error = 'Series': name the column"),
        ({"critical_point": 10**400}, "critical_point = 1"),
        ({"rescale": 5}, r"rescale = 5: give names out of \['L'\]"),
        ({"clock_window": (2, 1)}, "clock_window = .2, 1.: give .low, high"),
        ({"clock_window": (1, 2, {"M": 1})}, "clock_window = "),
        ({"clock_window": (1e8, 1e9)}, "no record lies in it, since τ goes from"),
        ({"clock_window": (0, 1), "critical_point": (1, 3)}, "which is fitted; give one number"),
    ],
)
def test_a_form_that_cannot_be_is_refused_in_one_line(options, words):
    table = lattice(t_c=2.0).assign(none=0.0, endless=np.inf)
    with pytest.raises(InputError, match=words) as refused:
        fit_collapse(table, ["L"], time="t", **options)
    assert "\n" not in str(refused.value)


def test_errors_of_an_array_go_with_its_coordinates():
    table = lattice()
    array = table.set_index(["L", "t"])[["value", "error"]].to_xarray()
    array["error"] = array.error * (1 + array.t - array.t.min())
    options = {"time": "t", "critical_point": 2.0}
    fit = fit_collapse(array.value, ["L"], error=array.error, **options)
    for error in (array.error[:, ::-1], array.error.T, "error"):
        data = array.set_coords("error").value if isinstance(error, str) else array.value
        assert fit_collapse(data, ["L"], error=error, **options).exponents == fit.exponents
    for error, words in (
        (array.error[:, :3], "error = nan"),
        (array.error.expand_dims(run=2), "error = .*differs from the data"),
    ):
        with pytest.raises(InputError, match=words):
            fit_collapse(array.value, ["L"], error=error, **options)
    # An error far below rounding is no reason to stop.
    tiny = fit_collapse(table.assign(error=1e-300), ["L"], error="error", **options)
    assert tiny.collapsed is False


def test_published_errors_of_equal_replicates_are_not_used_and_the_notes_say_so():
    table = lattice()
    copies = pd.concat([table.assign(seed=seed) for seed in range(3)])
    fit = fit_collapse(copies, ["L"], time="t", error="error", critical_point=2.0)
    assert {"copies", "errors_not_used"} <= {note.code for note in fit.notes}
    alone = fit_collapse(table, ["L"], time="t", replicate=None, critical_point=2.0)
    assert fit.exponents == alone.exponents
    known = fit_collapse(table, ["L"], time="t", error="error", critical_point=2.0)
    with pytest.raises(InputError, match="advice"):
        known.advice()


def far_off(draw):
    """A fitter that answers four standard errors away."""
    fit = ours(draw)
    moved = {
        name: dataclasses.replace(e, low=e.low + 4 * e.standard_error, high=e.high + 5)
        for name, e in fit.exponents.items()
    }
    return dataclasses.replace(fit, exponents=moved)


def test_every_form_has_the_coverage_it_claims():
    """One draw of each of the 24 forms; the study draws more."""
    for fitter, right in ((ours, True), (far_off, False)):
        scores = [score_family(name, 1, fitter, salt=5, families=FORMS) for name in FORMS]
        hits = [hit for score in scores for hit in score.hits]
        assert not sum(score.crashes for score in scores)
        assert (sum(hits) >= stats.binom.ppf(1e-3, len(hits), 0.95)) == right


def measured(letter):
    """A published table of the square Ising model, if it is there."""
    folders = (parent / "shared" / "data" for parent in Path(__file__).parents)
    path = next((f / f"ising2d_square_{letter}.dat" for f in folders if f.is_dir()), None)
    if path is None:
        pytest.skip("the published tables are not here")
    return pd.read_csv(path, sep=r"\s+", names=["L", "beta", "value", "error"])


def test_the_published_susceptibility_of_the_ising_model_has_its_exponents():
    options = {"time": "beta", "error": "error", "critical_point": (0.42, 0.46), "rescale": ["L"]}
    fit = fit_collapse(measured("X"), ["L"], **options)
    assert holds(fit, value_L=1.75, critical_point=np.log(1 + np.sqrt(2)) / 2)
    assert fit.exponents["L"].value == pytest.approx(1, abs=0.03)
    binder = fit_collapse(measured("B"), ["L"], **{**options, "rescale": ()})
    assert binder.exponents["L"].value == pytest.approx(1, abs=0.01)
    assert holds(binder, critical_point=np.log(1 + np.sqrt(2)) / 2)


@pytest.mark.parametrize("name", ["order_log", "peak_correction", "offset_fitted", "offset_logs"])
def test_the_slope_of_the_objective_is_its_derivative(name):
    if name == "offset_logs":
        options = {"rescale": ["L"], "offset": (0.1, 0.4), "scale": "log"}
        fit = fit_collapse(law(0.3), ["L"], **options)
    else:
        fit = ours(FORMS[name](np.random.default_rng(1)))
    likelihood, theta = fit.likelihood, fit.solution.theta + 0.003
    slope = likelihood.slope(likelihood.solve(theta))
    steps = 1e-5 * np.eye(len(theta))
    rise = [likelihood.objective(theta + h) - likelihood.objective(theta - h) for h in steps]
    assert slope == pytest.approx(np.array(rise) / 2e-5, rel=1e-3, abs=1e-3 * np.abs(slope).max())


def test_exact_values_given_as_a_start_reach_no_better_minimum():
    """The study draws 500 forms."""
    worst = 0.0
    for number, name in enumerate([*FORMS, *list(FORMS)[:6]]):
        draw = FORMS[name](source(name, number, 1))
        worst = max(worst, lost(ours(draw), draw.truth))
    assert worst < 0.01


def eighth(seed):
    """Value = L^(−1/8)·(½ + (tL)²)^(1/16), whose textbook exponents are small."""
    rng = np.random.default_rng(seed)
    times = np.geomspace(0.01, 10, 40)
    frames = []
    for size in (8.0, 16.0, 32.0, 64.0):
        mean = size**-0.125 * (0.5 + (times * size) ** 2) ** (1 / 16)
        for r in range(6):
            value = mean + 1e-3 * rng.standard_normal(40)
            columns = {"L": size, "seed": f"{size}-{r}", "step": times, "value": value}
            frames.append(pd.DataFrame(columns))
    return pd.concat(frames, ignore_index=True)


def test_small_exponents_between_the_points_of_the_grid_are_found():
    truth = {"L": 1.0, "value_L": -0.125}
    for seed in range(3):
        table = eighth(seed)
        fit = fit_collapse(table, ["L"], rescale=["L"])
        assert lost(fit, truth) < 1e-3
        assert fit.exponents["L"].value == pytest.approx(1, abs=0.02)
        assert fit.exponents["value_L"].value == pytest.approx(-0.125, abs=0.002)
        assert fit.collapsed
    # The minimum that a grid of steps of ¼ leads to.
    trapped = fit.likelihood.solve(np.array([3.13, -0.161]))
    assert lost(dataclasses.replace(fit, solution=trapped), truth) > 1


def characteristic(seed, power, scale):
    """Value = V^power whatever the control, as a current against a voltage."""
    rng = np.random.default_rng(seed)
    volts = np.geomspace(0.1, 10, 30)
    mean, frames = volts**power, []
    for control in (1.0, 2.0, 4.0, 8.0):
        for r in range(6):
            draws = 0.01 * rng.standard_normal(30)
            value = mean * np.exp(draws) if scale == "log" else mean + np.ptp(mean) * draws
            columns = {"c": control, "seed": f"{control}-{r}", "step": volts, "value": value}
            frames.append(pd.DataFrame(columns))
    return pd.concat(frames, ignore_index=True)


@pytest.mark.parametrize("scale", ["linear", "log"])
def test_a_power_law_cannot_tell_the_exponents_of_time_and_value_apart(scale):
    for seed in range(4):
        power = 0.5 + 0.5 * seed
        table = characteristic(seed, power, scale)
        fit = fit_collapse(table, ["c"], rescale=["c"], scale=scale)
        assert not fit.identifiable["c"]
        assert not fit.identifiable["value_c"]
        assert "power_law_curve" in {note.code for note in fit.notes}
        assert fit.collapsed is True
        (known,) = fit.combinations
        assert "·q(c)" in fit.summary()
        assert "value_c" not in fit.summary()
        # q + p·power = 0
        weights = known.weights["c"] / known.weights["value_c"]
        assert weights == pytest.approx(power, rel=0.02)
        assert known.low - 0.02 < 0 < known.high + 0.02
        assert known.high - known.low < 0.1
        # A bend is enough to tell them apart.
        bent = table.assign(value=table.value / (1 + table.step**2) ** power)
        told = fit_collapse(bent, ["c"], rescale=["c"], scale=scale)
        assert told.identifiable["c"]
        assert holds(told, c=0.0, value_c=0.0)


@pytest.mark.parametrize("scale", ["linear", "log"])
def test_free_exponents_are_accepted_where_the_same_ones_held_are(scale):
    for seed in range(3):
        table = law(seed=seed, noise=0.01) if scale == "log" else characteristic(seed, 1.0, "log")
        free = fit_collapse(table, [table.columns[0]], rescale=[table.columns[0]], scale=scale)
        exponents = dict(zip(free.free, free.directions.numbers(free.solution.theta), strict=True))
        held = fit_collapse(
            table, [table.columns[0]], rescale=[table.columns[0]], scale=scale, fixed=exponents
        )
        assert free.collapsed is held.collapsed is True


@pytest.mark.parametrize(
    ("name", "numbers"),
    [("above_fitted_log", (1, 3, 8)), ("offset_log", (1, 3, 11)), ("order_log", (1, 5))],
)
def test_a_true_form_is_accepted_next_to_its_singular_point(name, numbers):
    """Records a hundredth of the range from t_c, values within noise of v₀, t_c hardly known."""
    for number in numbers:
        draw = FORMS[name](source(name, number, 1201 if name == "order_log" else 733))
        assert ours(draw).collapsed is True
        table = draw.table
        since = table.t - draw.truth.get("critical_point", 0.0)
        place = since if (since < 0).any() else np.log(since)
        wave = np.sin(15 * place / np.ptp(place))
        noise = (table.error / table.value).median()
        largest = np.isclose(table.L, table.L.max())
        table["value"] *= 1 + 8 * noise * wave * largest
        assert ours(draw).collapsed is False


def test_the_end_of_a_given_range_is_an_answer_if_noise_may_have_led_there():
    options = {"time": "t", "error": "error"}
    table = lattice(seed=3)
    free = fit_collapse(table, ["L"], critical_point=(1.95, 2.05), **options)
    best, error = (
        free.exponents["critical_point"].value,
        free.exponents["critical_point"].standard_error,
    )
    cut = fit_collapse(table, ["L"], critical_point=(1.95, best - error), **options)
    assert "at_bound" in {note.code for note in cut.notes}
    assert all(cut.identifiable.values())
    assert holds(cut, L=free.exponents["L"].value, critical_point=best)
    assert cut.exponents["L"].standard_error > 0.9 * free.exponents["L"].standard_error
    near = fit_collapse(table, ["L"], critical_point=(1.95, best + error), **options)
    assert all(near.identifiable.values())
    # Far beyond its end lies another answer.
    wrong = fit_collapse(table, ["L"], critical_point=(1.95, best - 8 * error), **options)
    assert not wrong.identifiable["critical_point"]


def test_a_second_minimum_inside_the_interval_leaves_the_critical_point_known():
    rng, times = np.random.default_rng(4), np.linspace(8.3, 9, 29)
    frames = []
    for size in (7, 9, 11, 13):
        curve = 0.5 + 0.2 * np.tanh(1.5 * (times - 8.7) * (size / 10) ** 1.2)
        # a correction to scaling, which widens the interval and leaves several minima in it
        mean = curve + 0.006 * (size / 10) ** -3
        value = mean + 0.0006 * rng.normal(size=29)
        frames.append(pd.DataFrame({"L": size, "t": times, "value": value, "error": 0.0006}))
    options = {"time": "t", "error": "error", "critical_point": (8, 9.5)}
    fit = fit_collapse(pd.concat(frames), ["L"], **options)
    assert holds(fit, L=1.2, critical_point=8.7)
    assert fit.exponents["critical_point"].standard_error < 0.05


@pytest.mark.parametrize(("errors", "known"), [(0.7, True), (4.0, False)])
def test_only_a_minimum_outside_the_interval_is_another_answer(errors, known, monkeypatch):
    judge = intervals.identify

    def beside(likelihood, best, rivals, spread, *rest):
        axes = np.linalg.eigh(likelihood.information(best)[0])[1]
        steps = errors * np.sqrt(np.diag(axes.T @ spread @ axes)) * axes
        rival = likelihood.solve(best.theta + steps[:, 0])
        return judge(likelihood, best, [rival], spread, *rest)

    monkeypatch.setattr(intervals, "identify", beside)
    options = {"time": "t", "error": "error", "critical_point": (1.95, 2.05)}
    fit = fit_collapse(lattice(seed=3), ["L"], **options)
    assert fit.identifiable["L"] == known
    assert ("second_minimum" in {note.code for note in fit.notes}) != known


def test_the_picture_shows_values_below_their_fitted_offset():
    draw = FORMS["offset_log"](source("offset_log", 11, 733))
    ax = ours(draw).plot()
    assert ax.get_yscale() == "asinh"
    low, high = ax.get_ylim()
    assert low < 0 < high


def test_the_command_line_fits_forms_of_tables_as_people_have_them(tmp_path, capsys):
    from jthermo.cli import verbs

    table = lattice(-0.125, noise=0.003).drop(columns="seed")
    text = table.to_csv(index=False, sep=";")
    (tmp_path / "crossing.csv").write_text("# square lattice\n" + text)
    table.to_csv(tmp_path / "crossing.tsv.gz", index=False, sep="\t")
    spaced = table.to_string(index=False)
    (tmp_path / "crossing.dat").write_text("# spaces\n" + spaced + "\n# end\n")
    options = ["--controls", "L", "--time", "t", "--value", "value", "--replicate", "none"]
    options += ["--error", "error", "--critical-point", "1.95:2.08", "--rescale", "L"]
    said = []
    for name in ("crossing.csv", "crossing.tsv.gz", "crossing.dat"):
        verbs.main(["fit", str(tmp_path / name), *options])
        said.append(capsys.readouterr().out)
    assert said[0] == said[1]
    for text in said:
        assert text.startswith("value/L^q against τ = (t − t_c)·L^p\n")
        low, high = re.search(r"  t_c = .* \[(.*), (.*)\]", text).groups()
        assert float(low) < 2 < float(high)
    with pytest.raises(SystemExit) as stopped:
        verbs.main(["fit", str(tmp_path / "crossing.csv"), *options, "--offset", "low"])
    assert stopped.value.code == 2
    assert "offset = 'low': write a number, or LOW:HIGH" in capsys.readouterr().err


def test_tables_are_read_as_people_write_them(tmp_path):
    expected = [[16, 2.5, 0.25], [32, 3.0, 1e-3]]
    names = ["L", "T", "m"]
    files = {
        "header.csv": "L,T,m\n16,2.5,.25\n32,3,1e-3\n",
        "decimal_comma.csv": "L;T;m\n16;2,5;0,25\n32;3,0;1e-3\n",
        "units.csv": "L (sites),T [K],m/N\n16,2.5,.25\n32,3,1e-3\n",
        "line_of_units.tsv": "L\tT\tm\nsites\tK\t-\n16\t2.5\t.25\n32\t3\t1e-3\n",
        "spaced_units.txt": "  L   T [K]  m (N)\n 16 2.5 .25\n 32 3 1e-3\n",
        "numpy.dat": "# made by hand\n# L T m\n16 2.5 .25\n\n32 3 1e-3\n# end\n",
        "numpy.csv": "# L,T,m\n16,2.5,.25\n32,3,1e-3\n",
        "nameless.dat": "16 2.5 .25\n32 3 1e-3\n",
        "excel.csv": "\ufeffL,T,m\r\n16,2.5,.25\r\n32,3,1e-3\r\n",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
        columns = names if name == "nameless.dat" else []
        table = read_table(tmp_path / name, names=names, columns=columns)
        np.testing.assert_allclose(table[names].to_numpy(float), expected, err_msg=name)
    # A name is never shortened if that is ambiguous, and exact names come first.
    (tmp_path / "two.csv").write_text("loss (train),loss (test),T,T [K]\n1,2,3,4\n1,2,3,4\n")
    table = read_table(tmp_path / "two.csv", ["T=3"], ["loss", "T"])
    assert list(table.columns) == ["loss (train)", "loss (test)", "T", "T [K]"]
    assert len(read_table(tmp_path / "units.csv", ["T=3"])) == 1


def test_fit_and_explore_have_the_same_options(tmp_path, capsys):
    from jthermo.cli import verbs
    from jthermo.figures import explore

    lattice(-0.125, noise=0.003).to_csv(tmp_path / "crossing.csv", index=False)
    options = ["--controls", "L", "--time", "t", "--value", "value", "--error", "error"]
    options += ["--critical-point", "1.95:2.08", "--rescale", "L", "--replicate", "none"]
    verbs.main(["fit", str(tmp_path / "crossing.csv"), *options])
    summary = capsys.readouterr().out
    verbs.main(["explore", str(tmp_path / "crossing.csv"), *options])
    page = (tmp_path / "explore.html").read_text()
    (text,) = re.findall(r'<script type="application/json" id="content">(.*?)</script>', page)
    (view,) = json.loads(text)["views"]
    assert view["summary"].strip() == summary.strip()
    assert [number["kind"] for number in view["exponents"]] == ["shift", "height", "critical_point"]
    reach = view["exponents"][2]["reach"]
    assert reach == pytest.approx([1.95, 2.08])
    assert (reach[1] - reach[0]) / view["exponents"][2]["step"] >= explore.STEPS


def test_a_small_misfit_is_told_as_such():
    table = lattice(noise=0.001)
    table["value"] += 0.004 * np.log(table.L / 45)
    fit = fit_collapse(table, ["L"], time="t", error="error", critical_point=2.0)
    assert fit.collapsed is False
    assert "a collapse for most purposes, but not within the noise" in fit.summary()
    table["value"] += 0.2 * np.log(table.L / 45)
    worse = fit_collapse(table, ["L"], time="t", error="error", critical_point=2.0)
    assert ": NO collapse" in worse.summary()
    assert "±: one standard error" in worse.summary()


def test_the_pictures_of_a_two_sided_fit_show_both_sides():
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    fit = fit_collapse(lattice(), ["L"], time="t", error="error", critical_point=(1.95, 2.08))
    drawn = fit.plot()
    x = np.concatenate([c.lines[0].get_xdata() for c in drawn.containers])
    assert x.min() < 0 < x.max()
    assert drawn.get_xscale() == "linear"
    assert "(t − 2)" in drawn.get_title()
    for axes in (fit.plot_residuals(), fit.plot_residuals(by="L")):
        heights = np.concatenate([c.lines[0].get_ydata() for c in axes.containers])
        assert np.nanmax(np.abs(heights)) < 0.03
    fit.plot_profile("critical_point")
    with pytest.raises(InputError, match="advice"):
        fit.advice()
    matplotlib.pyplot.close("all")


def test_published_errors_are_drawn():
    """As they are scaled with the value; without them a single curve has no error bars."""
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    table = lattice()
    fit = fit_collapse(
        table, ["L"], time="t", error="error", critical_point=2.0, rescale=["L"], offset=0.1
    )
    power = fit.exponents["value_L"].value
    for axes in (fit.plot(), fit.plot_residuals()):
        for container, size in zip(axes.containers, SIZES, strict=True):
            (bars,) = container.lines[2]
            half = np.array([np.ptp(part[:, 1]) / 2 for part in bars.get_segments()])
            rows = table[size == table.L].sort_values("t")
            np.testing.assert_allclose(half, rows.error / size**power)
    matplotlib.pyplot.close("all")


def test_the_explore_page_draws_times_before_and_after_zero(tmp_path):
    from jthermo.figures.explore import explore

    table = lattice(t_c=0.0)
    explore(table, tmp_path / "page.html", ["L"], value=["value"], time="t")
    page = (tmp_path / "page.html").read_text()
    (text,) = re.findall(r'<script type="application/json" id="content">(.*?)</script>', page)
    (view,) = json.loads(text)["views"]
    # The critical point is 0, and its slider covers a tenth of the times on either side.
    held = view["exponents"][1]
    assert (held["kind"], held["held"], held["value"]) == ("critical_point", True, 0.0)
    assert held["reach"] == pytest.approx([-0.02, 0.02])
    assert len(view["conditions"]) == len(SIZES)
