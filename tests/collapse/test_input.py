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


def test_jax_is_never_imported():
    code = (
        "import sys, jthermo.collapse; "
        "assert not {'jax', 'matplotlib'} & set(sys.modules), 'heavy import'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
