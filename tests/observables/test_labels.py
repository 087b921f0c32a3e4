"""Labels of the user's observables, names along dims, and the names that results cannot have."""

import shutil

import jax.numpy as jnp
import numpy as np
import pytest

import jthermo as jt
from jthermo.errors import InputError
from jthermo.results.layout import SWEEP, SWEEP_COPY
from jthermo.results.sealed_json import read_json, sealed

WIDTH = 4


@jt.observable(dims=("unit",), units="1/x", long_name="norm of each unit's weights")
def unit_norm(model, params, probe):
    return jnp.linalg.norm(params["W"], axis=1)


@jt.observable(
    dims={"by_sign": ("sign", "unit")},
    units={"total": "examples"},
    long_name={"total": "number of examples"},
    coords={"sign": ("negative", "positive")},
)
def counts(model, params, probe):
    """Active examples."""
    active = (model.preactivations(params, probe.x)["hidden"] > 0).sum(0)
    by_sign = jnp.stack([len(probe.x) - active, active])
    return {"by_sign": by_sign, "total": by_sign.sum(), "rows": by_sign}


def sweep_of(*recorded, **changes):
    fields = {
        "model": jt.models.TwoLayer(inputs=3, hidden=WIDTH),
        "data": jt.data.Gaussian(dim=3),
        "learning_rate": 0.1,
        "num_steps": 2,
        "record": jt.Record(steps=(0, 2), observables=recorded, probe_size=8),
    }
    return jt.Sweep(**{**fields, **changes})


def test_a_function_has_the_labels_of_its_decorator(tmp_path):
    sweep = sweep_of(unit_norm, counts, jt.unit_activation())
    ds = jt.run(sweep, tmp_path / "o", progress=False)
    assert unit_norm.__name__ == "unit_norm"
    assert ds.unit_norm.dims == ("run", "record", "unit")
    assert ds.unit_norm.attrs == {"long_name": "norm of each unit's weights", "units": "1/x"}
    assert ds.by_sign.dims == ("run", "record", "sign", "unit")
    assert ds.rows.dims == ("run", "record", "rows_0", "rows_1")
    assert ds.total.attrs == {"long_name": "number of examples", "units": "examples"}
    assert ds.by_sign.attrs["long_name"] == "Active examples: by_sign"
    assert list(ds.sign.values) == ["negative", "positive"]
    # both ways of reading, and a variable that shares the dim
    assert jt.open_results(tmp_path / "o").identical(ds)
    np.testing.assert_array_equal(ds.by_sign.sum("sign"), 8)
    rate = ds.by_sign.sel(sign="positive") / 8
    assert rate.dims == ds.unit_activation.dims
    assert float(np.abs(rate - ds.unit_activation).max()) < 0.6
    # a float is not a run's own copy of the sweep
    assert jt.Sweep.from_json(sweep.to_json()) == sweep


def returns(value):
    def observed(model, params, probe):
        return value

    return observed


@pytest.mark.parametrize(
    ("labels", "value", "message"),
    [
        ({"dims": ("a",)}, np.zeros((2, 3)), r"shape \(2, 3\), but dims = \('a',\)"),
        ({"dims": ("a", "a")}, np.zeros((2, 2)), "an axis a name|every axis a name of its own"),
        ({"dims": {"b": ("x",)}}, {"a": np.zeros(2)}, "labels b, but records a"),
        ({"units": {"b": "m"}}, np.zeros(2), "labels b, but records observed"),
        ({"dims": "a", "coords": {"a": ("x",)}}, np.zeros(2), "whose size is 2"),
        ({"dims": "a", "coords": {"a": ("x", "x")}}, np.zeros(2), "a name of its own"),
        ({"coords": {"c": ("x", "y")}}, np.zeros(2), "whose size is None"),
        ({"dims": "run"}, np.zeros(2), "a dim named 'run'"),
        ({"dims": "learning_rate"}, np.zeros(2), "a dim named 'learning_rate'"),
        ({"dims": "observed"}, np.zeros(2), "a dim named 'observed'"),
        ({}, {"step": 1.0}, "a variable named 'step'"),
        ({}, {"learning_rate": 1.0}, "also the name of an axis"),
        ({}, {"Dense_0/kernel": 1.0}, "a variable named 'Dense_0/kernel'"),
        ({}, {3: 1.0, 4: 2.0}, "return an array, or a dict of arrays by name"),
        ({}, {"a": {"b": 1.0}}, "this function fails"),
        ({}, {}, "return an array, or a dict of arrays by name"),
        ({}, {"loss": 1.0}, "another observable records too"),
        ({"dims": "unit"}, np.zeros(WIDTH + 1), "another size or other names along the dim 'unit'"),
        ({"dims": {"a": "z", "b": "z"}}, {"a": np.zeros(2), "b": np.zeros(3)}, "another size"),
        ({}, {"a": np.zeros(2), "b": np.ones(2, np.complex64)}, "b in complex numbers"),
    ],
)
def test_labels_that_do_not_fit_are_one_line_that_says_so(labels, value, message):
    recorded = (jt.observable(returns(value), **labels), jt.loss(), jt.unit_activation())
    with pytest.raises(InputError, match=message) as failed:
        sweep_of(*recorded)
    assert str(failed.value).startswith("record.observables = ")
    assert "\n" not in str(failed.value)


def test_an_axis_cannot_have_the_name_of_a_variable():
    """Coordinate and variable would be one name in the dataset, after all training was done."""
    with pytest.raises(InputError, match="also the name of an axis"):
        sweep_of(jt.loss(), vary={"loss": ("bce", "hinge")})


DEPTHS = {"model": jt.models.MLP(3, hidden=(4,)), "vary": {"model.hidden": ((4,), (4, 4))}}
LAYERS = ["hidden_0", "hidden_1", "output"]


@pytest.fixture(scope="module")
def deep(tmp_path_factory):
    """A finished sweep over the depth, with its folder and its records."""
    recorded, out = (jt.gradient_variance(), jt.layer_statistics()), tmp_path_factory.mktemp("deep")
    sweep = sweep_of(*recorded, **DEPTHS)
    return sweep, out, jt.run(sweep, out, progress=False)


def test_layers_have_their_names_and_are_joined_by_them(deep):
    sweep, _, ds = deep
    assert list(ds.layer.values) == LAYERS
    assert list(ds.hidden_layer.values) == LAYERS[:2]
    shallow, both = ds.gradient_variance_layer.isel(record=-1)
    assert np.isnan(shallow.sel(layer="hidden_1"))
    assert np.isfinite(both).all()
    # the shallow net alone has the same numbers under the same names
    alone = jt.run(sweep.replace(vary={"model.hidden": ((4,),)}), progress=False)
    assert list(alone.layer.values) == ["hidden_0", "output"]
    np.testing.assert_array_equal(
        alone.gradient_variance_layer[0, -1], shallow.sel(layer=["hidden_0", "output"])
    )


def test_a_folder_without_names_opens_by_position(deep, tmp_path):
    """As folders of earlier versions do, also when the sweep is run again."""
    sweep, out, named = deep
    shutil.copytree(out, tmp_path / "o")
    stored = read_json(out / SWEEP)
    assert stored.pop("coords") == {"layer": LAYERS, "hidden_layer": LAYERS[:2]}
    removed = [run.pop("coords", None) for run in stored["runs"]]
    assert removed == [{"layer": ["hidden_0", "output"], "hidden_layer": ["hidden_0"]}, None]
    for name in (SWEEP, SWEEP_COPY):
        (tmp_path / "o" / name).write_bytes(sealed(stored))
    for ds in (jt.open_results(tmp_path / "o"), jt.run(sweep, tmp_path / "o", progress=False)):
        assert not {"layer", "hidden_layer"} & set(ds.coords)
        shallow = ds.gradient_variance_layer.values[0]
        np.testing.assert_array_equal(
            shallow[:, :2], named.gradient_variance_layer.values[0][:, [0, 2]]
        )
        assert np.isnan(shallow[:, 2]).all()
