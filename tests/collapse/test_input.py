"""Input: tables and arrays give the same fit, padding is no divergence, messages name bad input.

Each table is drawn with one seed. By chance a 95 % interval misses the truth for one seed in 20,
and a true hypothesis has p < 0.01, or a true collapse is refused, for at most one in 100.
"""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from jthermo.collapse import fit_collapse
from jthermo.collapse.read import _cells
from jthermo.errors import InputError

RATES = np.array([0.05, 0.1, 0.2])
STEPS = np.unique(np.geomspace(1, 4000, 50).astype(int))


def long_table(seed: int = 0, num_replicates: int = 6) -> pd.DataFrame:
    """A decay that collapses on t·rate²."""
    rng = np.random.default_rng(seed)
    index = pd.MultiIndex.from_product(
        [RATES, range(num_replicates), STEPS], names=["learning_rate", "seed", "step"]
    )
    table = index.to_frame(index=False)
    table["value"] = 1 / (1 + table.step * table.learning_rate**2) + 0.01 * rng.standard_normal(
        len(table)
    )
    return table


def run_array(table: pd.DataFrame) -> xr.DataArray:
    """The same numbers as jthermo writes them: dims (run, record), a padded record first."""
    runs = list(table.groupby(["learning_rate", "seed"], sort=False))
    values = np.array([np.r_[5.0, group.value, np.nan] for _, group in runs])
    step = np.array([np.r_[0, group.step, -1] for _, group in runs])
    return xr.DataArray(
        values,
        dims=("run", "record"),
        coords={
            "run": np.arange(len(runs)),
            "learning_rate": ("run", [key[0] for key, _ in runs]),
            "batch_size": ("run", np.ones(len(runs), int)),
            "seed": ("run", [key[1] for key, _ in runs]),
            "step": (("run", "record"), step),
        },
        name="activation_rate",
    )


def gridded(table: pd.DataFrame) -> xr.DataArray:
    """The same numbers on a grid of named axes."""
    return table.set_index(["learning_rate", "seed", "step"]).value.to_xarray()


def test_table_runs_and_grid_say_the_same():
    table = long_table()
    one = fit_collapse(table, ["learning_rate"])
    two = fit_collapse(run_array(table))
    three = fit_collapse(gridded(table), ["learning_rate"])
    four = fit_collapse(gridded(table).transpose("step", "learning_rate", "seed"), "learning_rate")
    for other in (two, three, four):
        assert other.exponents["learning_rate"] == one.exponents["learning_rate"]
        assert other.p_value == one.p_value
    assert not two.identifiable["batch_size"]
    assert "constant_control" in {note.code for note in two.notes}
    assert two.curves.value == "activation_rate"
    assert two.window == (1.0, 4000.0)


def test_rows_units_and_names_do_not_matter():
    table = long_table()
    shuffled = table.sample(frac=1, random_state=0).rename(
        columns={"learning_rate": "eta", "seed": "who", "step": "t", "value": "y"}
    )
    shuffled["eta"] *= 1000
    shuffled["t"] *= 1e-3
    shuffled["y"] = 7 - 40 * shuffled["y"]
    one = fit_collapse(table, ["learning_rate"]).exponents["learning_rate"]
    two = fit_collapse(shuffled, ["eta"], time="t", replicate="who", value="y").exponents["eta"]
    assert two.value == pytest.approx(one.value, abs=1e-4)
    assert two.low == pytest.approx(one.low, abs=1e-3)
    assert two.high == pytest.approx(one.high, abs=1e-3)


def test_diverged_runs_are_left_out_whole_and_counted():
    table = long_table()
    late = (table.learning_rate == 0.2) & (table.seed == 3)
    table.loc[late & (table.step > 50), "value"] = np.nan
    # On its way to infinity.
    table.loc[late & (table.step <= 50), "value"] += 10.0
    all_bad = table.learning_rate.eq(0.1) & table.seed.eq(0)
    table.loc[all_bad, "value"] = np.inf
    fit = fit_collapse(table, ["learning_rate"])
    gone = {(run.controls["learning_rate"], run.replicate, run.reason) for run in fit.left_out}
    assert gone == {(0.2, 3, "non-finite"), (0.1, 0, "non-finite")}
    assert "runs left out: 2 (2 non-finite)" in fit.summary()
    without = table[~(late | all_bad)]
    assert fit.exponents == fit_collapse(without, ["learning_rate"]).exponents


def sparse(table: pd.DataFrame) -> pd.DataFrame:
    """The same table with every third record only, as `jt.sparse` writes it."""
    place = table.groupby(["learning_rate", "seed"]).cumcount()
    return table.assign(value=table.value.where(place % 3 == 0))


def test_records_that_no_replicate_has_are_no_gaps():
    empty = sparse(long_table())
    # the last records are empty too
    assert empty.value.isna().to_numpy()[-1]
    fit, dropped = (fit_collapse(t, ["learning_rate"]) for t in (empty, empty.dropna()))
    assert fit.left_out == ()
    assert fit.window == dropped.window
    assert fit.exponents == dropped.exponents
    assert fit_collapse(run_array(empty), ["learning_rate"]).left_out == ()


@pytest.mark.parametrize("seeds", [[2], range(6)])
def test_divergence_is_seen_between_records_that_no_replicate_has(seeds):
    table = sparse(long_table())
    gone = (table.learning_rate == 0.2) & table.seed.isin(seeds) & (table.step > 500)
    fit = fit_collapse(table.assign(value=table.value.mask(gone)), ["learning_rate"])
    assert [(run.controls, run.reason) for run in fit.left_out] == [
        ({"learning_rate": 0.2}, "non-finite") for _ in seeds
    ]


def test_a_replicate_of_empty_records_alone_is_left_out():
    table = long_table()
    other = table[table.seed == 0].assign(seed=9, step=table.step + 0.5, value=np.nan)
    fit = fit_collapse(pd.concat([table, other]), ["learning_rate"])
    assert {run.replicate for run in fit.left_out} == {9}


def test_a_whole_diverged_condition_is_left_out():
    table = long_table()
    table.loc[table.learning_rate == 0.2, "value"] = np.nan
    fit = fit_collapse(table, ["learning_rate"])
    assert len(fit.left_out) == 6
    assert len(fit.curves.conditions) == 2
    assert fit.exponents["learning_rate"].low < 2 < fit.exponents["learning_rate"].high


def test_every_replicate_on_its_own_clock():
    rng = np.random.default_rng(3)
    frames = []
    for rate in RATES:
        for seed in range(8):
            step = np.sort(np.exp(rng.uniform(0, np.log(4000), 60)))
            value = 1 / (1 + step * rate**2) + 0.01 * rng.standard_normal(60)
            frames.append(
                pd.DataFrame({"rate": rate, "seed": f"{rate}/{seed}", "step": step, "value": value})
            )
    fit = fit_collapse(pd.concat(frames), ["rate"])
    assert fit.exponents["rate"].value == pytest.approx(2, abs=0.05)
    assert fit.exponents["rate"].low < 2 < fit.exponents["rate"].high
    assert fit.collapsed


def test_single_curves_need_no_replicate_name():
    table = long_table(num_replicates=1).drop(columns="seed")
    fit = fit_collapse(table, ["learning_rate"], replicate=None)
    assert fit.exponents["learning_rate"].low < 2 < fit.exponents["learning_rate"].high
    assert "too_few_replicates" in {note.code for note in fit.notes}


@pytest.mark.parametrize(
    ("change", "call", "words"),
    [
        (lambda t: t, {"controls": ["rate"]}, r"column = 'rate': is not in the table.*controls="),
        (lambda t: t, {"controls": []}, "name at least one control"),
        (lambda t: t, {"confidence": 95}, "confidence = 95: .*between 0 and 1"),
        (lambda t: t, {"fixed": {"eta": 2}}, "fixed = 'eta': .*learning_rate"),
        (lambda t: t, {"fixed": {"learning_rate": np.nan}}, "finite exponent"),
        (lambda t: t, {"window": (5, 1)}, "window = .5, 1.*low < high"),
        (lambda t: t, {"window": (1e6, 1e7)}, "window = .*no step > 0 lies in it; widen it"),
        (
            lambda t: t.assign(learning_rate=-t.learning_rate),
            {},
            "learning_rate = -.*> 0",
        ),
        (lambda t: t.assign(value=np.nan), {}, "value = 'value': no replicate of it is finite"),
        (
            lambda t: t[(t.learning_rate == t.learning_rate[0]) & (t.seed == t.seed[0])],
            {},
            "data = 'one curve': .*several values of learning_rate",
        ),
        (lambda t: t.assign(value="x"), {}, "value = 'x': is not a number"),
        (lambda t: pd.concat([t, t]), {}, "two values.*something else varies"),
        (lambda t: t.to_numpy(), {}, "data = 'ndarray': .*DataArray"),
    ],
)
def test_bad_tables_name_field_value_and_remedy(change, call, words):
    with pytest.raises(InputError, match=words):
        fit_collapse(change(long_table()), **{"controls": ["learning_rate"], **call})


def test_another_setting_that_varies_is_refused():
    array = run_array(long_table())
    init = np.where(array.seed < 3, "torch", "he")
    with pytest.raises(InputError, match=r"coordinate = 'model.init': varies.*select one value"):
        fit_collapse(array.assign_coords({"model.init": ("run", init)}))
    same = fit_collapse(
        array.assign_coords({"model.init": ("run", np.full(array.sizes["run"], "he"))})
    )
    # as text, since NaN differs from itself
    assert str(same.exponents) == str(fit_collapse(array).exponents)


def test_another_dimension_and_a_missing_coordinate_are_refused():
    array = run_array(long_table())
    with pytest.raises(InputError, match=r"dimension = 'layer': \(size 2\).*isel\(layer=0\)"):
        fit_collapse(array.expand_dims(layer=2))
    with pytest.raises(InputError, match=r"coordinate = 'step': is not on the data.*set_coords"):
        fit_collapse(array.drop_vars("step"))


def test_a_fit_of_a_table_loads_no_jax_and_no_xarray(tmp_path):
    long_table().to_csv(tmp_path / "table.csv")
    code = (
        "import sys, pandas as pd; from jthermo.collapse import fit_collapse; "
        f"fit_collapse(pd.read_csv({str(tmp_path / 'table.csv')!r}), ['learning_rate']); "
        "assert not {'jax', 'matplotlib', 'xarray'} & set(sys.modules), 'heavy import'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def at_steps(number: int, num_replicates: int = 6, seed: int = 0) -> pd.DataFrame:
    """The decay of `long_table` at fewer steps."""
    table = long_table(seed, num_replicates)
    return table[table.step.isin(STEPS[np.linspace(0, len(STEPS) - 1, number).astype(int)])]


@pytest.mark.parametrize("num_records", [1, 2, 3])
@pytest.mark.parametrize("num_replicates", [1, 6])
def test_too_few_records_are_refused(num_records, num_replicates):
    with pytest.raises(InputError, match=f"'{num_records} records per replicate': .*at least 4"):
        fit_collapse(at_steps(num_records, num_replicates), ["learning_rate"])


def test_few_records_are_enough_and_noted():
    """Misses allowed: binomial(12, 0.05) exceeds 3 with probability 0.002."""
    for number, noted in ((4, True), (5, True), (6, False)):
        fits = [
            fit_collapse(at_steps(number, replicates, seed), ["learning_rate"])
            for replicates in (1, 2, 6)
            for seed in range(4)
        ]
        exponents = [fit.exponents["learning_rate"] for fit in fits]
        assert sum(not e.low < 2 < e.high for e in exponents) <= 3
        assert all(abs(e.value - 2) < 0.2 for e in exponents)
        for fit in fits:
            assert ("few_records" in {note.code for note in fit.notes}) == noted


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_window_of_few_records_is_refused(number):
    window = (0.5, float(STEPS[number - 1]) + 0.5)
    with pytest.raises(InputError, match="at least 4; record more often, or widen the window"):
        fit_collapse(long_table(num_replicates=1), ["learning_rate"], window=window)


def test_a_curve_of_one_record_spoils_no_other():
    table = long_table(num_replicates=1)
    short = table[(table.learning_rate < 0.2) | (table.step == STEPS[9])]
    exponent = fit_collapse(short, ["learning_rate"]).exponents["learning_rate"]
    assert exponent.low < 2 < exponent.high


@pytest.mark.parametrize("value", [0.0, 5.0, -1e-300])
def test_flat_values_are_refused(value):
    table = long_table()
    remedy = f"value = 'value': is flat: all its values are {value:g}"
    for flat in (value, value * (1 + 1e-15 * table.value)):
        for call in ({}, {"rescale": ["learning_rate"]}):
            with pytest.raises(InputError, match=remedy):
                fit_collapse(table.assign(value=flat), ["learning_rate"], **call)
    small = table.assign(value=value + (abs(value) or 1.0) * 1e-10 * table.value)
    exponent = fit_collapse(small, ["learning_rate"]).exponents["learning_rate"]
    assert exponent.low < 2 < exponent.high


def test_one_value_that_differs_tells_no_exponent():
    table = long_table()
    # But for one value the curves are flat, and flat curves collapse at any exponents.
    spike, step = (np.arange(len(table)) == 40, True), (table.learning_rate, None)
    for change, collapsed in (spike, step):
        fit = fit_collapse(table.assign(value=np.asarray(change, float)), ["learning_rate"])
        assert not fit.identifiable["learning_rate"]
        assert fit.collapsed is collapsed


def test_equal_replicates_count_as_one():
    """Four copies of a curve say nothing of its noise: the answer is that of the curve alone."""
    table = long_table(num_replicates=1)
    copies = pd.concat([table.assign(seed=k) for k in range(4)])
    one, four = fit_collapse(table, ["learning_rate"]), fit_collapse(copies, ["learning_rate"])
    assert four.exponents == one.exponents
    assert four.num_replicates == (1, 1)
    assert [run.reason for run in four.left_out] == ["copy"] * 9
    assert "copies" in {note.code for note in four.notes}
    exact = copies.assign(value=1 / (1 + copies.step * copies.learning_rate**2))
    exponent = fit_collapse(exact, ["learning_rate"]).exponents["learning_rate"]
    assert exponent.low < 2 < exponent.high
    assert 1e-7 < exponent.standard_error < 1e-4
    # The same replicates with noise of their own are no copies.
    noisy = copies.assign(
        value=copies.value + 1e-6 * np.random.default_rng(1).normal(size=len(copies))
    )
    assert fit_collapse(noisy, ["learning_rate"]).num_replicates == (4, 4)


def test_absolute_temperatures_are_times_like_any_other():
    """Curves against T near 300 cannot shift far on τ = T·rate^p, so little memory is needed."""
    table = long_table(num_replicates=1)
    for width in (1.0, 50.0):
        shift = 300 + 1e-3 * width * np.log(table.learning_rate / 0.1) / np.log(2)
        step = shift + width * (np.log(table.step) / np.log(STEPS[-1]))
        value = 1 / (1 + np.exp((step - shift - width / 2) / (width / 10)))
        fit = fit_collapse(table.assign(step=step, value=value), ["learning_rate"])
        wanted = -1e-3 * width / np.log(2) / (300 + width / 2)
        assert fit.exponents["learning_rate"].value == pytest.approx(wanted, rel=0.02)
        assert len(fit.advice()) == 4


@pytest.mark.parametrize(
    ("change", "call", "words"),
    [
        (
            lambda t: t.assign(step=pd.Timestamp("2026-01-01") + pd.to_timedelta(t.step, unit="s")),
            {},
            r"step = '2026-01-01.*is a date; give the time elapsed",
        ),
        (
            lambda t: t.assign(step=pd.to_timedelta(t.step, unit="s")),
            {},
            "step = .*total_seconds",
        ),
        (
            lambda t: t.assign(learning_rate=pd.Timestamp("2026-01-01")),
            {},
            "learning_rate = '2026-01-01.*is a date",
        ),
        (lambda t: t.assign(value=t.value + 1j), {}, "value = .*is complex"),
        (
            # pandas 2.2 cannot make such a column from a list of ints
            lambda t: t.assign(value=pd.Series([10**400] * len(t), dtype=object)),
            {},
            "value = 1000.*is not a number",
        ),
        (
            lambda t: t.assign(learning_rate=t.learning_rate.replace(0.2, 1e300)),
            {},
            r"learning_rate = 1e\+300: is too far from the other values",
        ),
        (
            lambda t: t.assign(learning_rate=t.learning_rate.replace(0.2, np.inf)),
            {},
            "learning_rate = inf: a power law needs finite controls > 0",
        ),
        (
            lambda t: t.assign(learning_rate=1e-311 * t.learning_rate),
            {},
            "learning_rate = .*e-31.: puts the curve beyond the largest numbers; divide",
        ),
        (lambda t: t.assign(value=1e200 * t.value), {}, r"finite and below 1e\+150"),
        (lambda t: t.assign(seed=range(len(t))), {}, "check that replicate= names the column"),
        (lambda t: t.assign(seed=[[1]] * len(t)), {}, r"replicate = 'seed': holds \[1\]"),
        (
            lambda t: pd.concat([t, t[["value"]]], axis=1),
            {},
            "column = 'value': names 2 columns of the table",
        ),
        (
            lambda t: t.set_axis(range(4), axis=1),
            {"controls": [0], "replicate": 1, "time": 2, "value": 3},
            r"controls = \(0,\): names are text; rename the columns",
        ),
        (lambda t: t.set_index("seed"), {}, "column = 'seed': is in the table's index"),
        (lambda t: t, {"time": "learning_rate"}, "time = 'learning_rate': is a control already"),
        (lambda t: t, {"value": "step"}, "value = 'step': is the time already"),
        (lambda t: t, {"time": None}, "time = None: names are text"),
        (lambda t: t, {"controls": None}, "controls = None: give a list of names"),
        (lambda t: t, {"controls": [["learning_rate"]]}, "controls = .*names are text"),
        (lambda t: t, {"seed": -1}, "seed = -1: give a whole number of at least 0"),
        (lambda t: t, {"seed": "x"}, "seed = 'x': give a whole number"),
        (lambda t: t, {"confidence": "x"}, "confidence = 'x': .*between 0 and 1"),
        (lambda t: t, {"fixed": {"learning_rate": 1e300}}, "fixed = .*1e.300.*give smaller exp"),
        (lambda t: t, {"fixed": {"learning_rate": True}}, "True: give a finite exponent"),
        (lambda t: t, {"fixed": ["learning_rate"]}, "fixed = .*give numbers by name"),
        (lambda t: t, {"correction": ["learning_rate"]}, "correction = .*give numbers by name"),
        (lambda t: t, {"correction": {"learning_rate": -1e300}}, "at most 50 in size"),
        (lambda t: t, {"rescale": 5}, r"rescale = 5: give names out of \['learning_rate'\]"),
        (lambda t: t, {"settings": 3}, "settings = 3: give a Settings"),
    ],
)
def test_hostile_tables_and_arguments_get_one_clear_line(change, call, words):
    with pytest.raises(InputError, match=words) as caught:
        fit_collapse(change(long_table()), **{"controls": ["learning_rate"], **call})
    assert "\n" not in str(caught.value)


def test_more_settings_than_a_fit_can_hold_are_refused():
    rates = np.geomspace(0.01, 1, 5000)
    table = pd.DataFrame({"rate": rates.repeat(5), "step": np.tile([1.0, 2, 3, 4, 5], 5000)})
    table["value"] = 1 / (1 + table.rate * table.step)
    with pytest.raises(InputError, match="take 5,000 settings, and a fit compares at most 200"):
        fit_collapse(table, "rate", replicate=None)
    clocks = np.random.default_rng(0).uniform(1, 2, size=(8000, 1)) * np.arange(1, 6)
    own = pd.DataFrame({"seed": np.arange(8000).repeat(5), "step": clocks.ravel(), "rate": 1.0})
    with pytest.raises(InputError, match="step = '40,000 different times of 8,000 replicates"):
        fit_collapse(own.assign(value=own.step), "rate")


def test_codes_of_many_controls_do_not_overflow():
    """Eight controls of 500 values each have more combinations than a 64-bit integer can count."""
    rng = np.random.default_rng(0)
    controls = np.array([rng.permutation(500) for _ in range(8)]).T
    assert len(np.unique(_cells(np.concatenate([controls, controls])))) == 500


def test_two_populations_are_refused_in_tables_too():
    table = long_table()
    other = table.assign(value=table.value / 2, seed=table.seed + 100)
    for kinds in (("a", "b"), (True, False), (0.1, 0.2)):
        both = pd.concat([table.assign(kind=kinds[0]), other.assign(kind=kinds[1])])
        with pytest.raises(InputError, match=r"column = 'kind': varies .*select one value.*drop"):
            fit_collapse(both, ["learning_rate"])
        array = run_array(both).assign_coords(
            kind=(
                "run",
                [g.kind.iloc[0] for _, g in both.groupby(["learning_rate", "seed"], sort=False)],
            )
        )
        with pytest.raises(InputError, match=r"coordinate = 'kind': varies .*select .*drop_vars"):
            fit_collapse(array)
    within = both.assign(seed=both.seed % 100, kind=np.where(both.step % 2, "a", "b"))
    within = within.drop_duplicates(["learning_rate", "seed", "step"])
    assert fit_collapse(within, ["learning_rate"]).collapsed
    within["kind"] = np.where((within.step + within.seed) % 2, "a", "b")
    with pytest.raises(InputError, match="column = 'kind': varies"):
        fit_collapse(within, ["learning_rate"])


def test_columns_that_are_no_setting_are_left_alone():
    table = long_table()
    run = table.groupby(["learning_rate", "seed"]).ngroup()
    rng = np.random.default_rng(0)
    wide = table.assign(
        run=run,
        name=run.map("run-{}".format),
        data_seed=table.seed + 1000,
        rate_name=table.learning_rate.map(str),
        epoch=table.step // 100,
        phase=np.where(table.step < 100, "early", "late"),
        loss=rng.normal(size=len(table)).round(1),
        constant="x",
        missing=np.nan,
        cells=[[1]] * len(table),
    )
    assert fit_collapse(wide, ["learning_rate"]).exponents == (
        fit_collapse(table, ["learning_rate"]).exponents
    )


def test_times_without_a_logarithm_are_counted():
    table = long_table()
    start = table[table.step == 1].assign(step=0)
    fit = fit_collapse(pd.concat([table, start]), ["learning_rate"])
    assert fit.exponents == fit_collapse(table, ["learning_rate"]).exponents
    assert f"  records left out: 18 of {len(table) + 18} (step ≤ 0 or missing)" in fit.summary()
    assert fit.to_dict()["num_records_left_out"] == 18
    assert "times_left_out" not in {note.code for note in fit.notes}
    before = table[table.step == 1].assign(step=-1)
    odd = fit_collapse(pd.concat([table, before]), ["learning_rate"])
    (note,) = (note for note in odd.notes if note.code == "times_left_out")
    assert note.message.startswith(f"18 of {len(table) + 18} records have step < 0")
    assert odd.exponents == fit_collapse(table, ["learning_rate"]).exponents
    # Times on both sides of 0 are those since a critical point, and all are used.
    signed = fit_collapse(pd.concat([table, table.assign(step=-table.step)]), ["learning_rate"])
    assert signed.to_dict()["num_records_left_out"] == 0
    assert signed.window[0] < 0
    assert "records left out" not in fit_collapse(table, ["learning_rate"]).summary()


def test_a_replicate_without_a_label_keeps_its_own_name():
    table = long_table()
    table["seed"] = table.seed.astype(float).where(table.seed != 2)
    table["value"] = table.value.where(table.seed.notna())
    left_out = fit_collapse(table, ["learning_rate"]).left_out
    assert len(left_out) == 3
    assert all(np.isnan(run.replicate) for run in left_out)


def test_a_replicate_on_its_way_to_infinity_is_left_out():
    table = long_table()
    grown = table.learning_rate.eq(0.1) & table.seed.eq(3)
    table.loc[grown & (table.step > 10), "value"] = 1e300
    fit = fit_collapse(table, ["learning_rate"])
    assert [(run.replicate, run.reason) for run in fit.left_out] == [(3, "non-finite")]


def test_an_exponent_far_off_is_refused_by_the_profile():
    fit = fit_collapse(long_table(), ["learning_rate"])
    with pytest.raises(InputError, match="shifts the curves too far apart"):
        fit.profile("learning_rate", [1e6])
    for value in (np.nan, np.inf):
        with pytest.raises(InputError, match=r"values = .*give finite values"):
            fit.profile("learning_rate", [value])
