"""The sweep: errors of invalid arguments, the grid, JSON, ids and recorded steps."""

import dataclasses
import functools
import json
import math
import subprocess
import sys
from fractions import Fraction

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jthermo as jt
from jthermo.engines import step_program
from jthermo.errors import InputError

TWO_LAYER, GAUSSIAN = jt.models.TwoLayer(inputs=3, hidden=4), jt.data.Gaussian(dim=3)
RECORD = jt.Record(steps=jt.log_steps(5), observables=(jt.activation_rate(), jt.weight_norm("V")))


def sweep_of(**changes):
    fields = {
        "model": TWO_LAYER,
        "data": GAUSSIAN,
        "learning_rate": (0.1, 0.2),
        "batch_size": (1, 2),
        "seed": range(3),
        "num_steps": 20,
        "record": RECORD,
    }
    return jt.Sweep(**{**fields, **changes})


def triple(model, params, probe):
    """A user's observable."""
    return 3 * params["V"]


def mean_of_all(outputs, y):
    """A user's loss that isn't one value per example."""
    return jnp.mean((outputs - y) ** 2)


def quartic(outputs, y):
    """A user's loss."""
    return (outputs - y) ** 4


@dataclasses.dataclass(frozen=True)
class OwnSource(jt.data.Source):
    """A user's source, which checks none of its fields."""

    num_samples: int | None = 5
    sampling: str = "replacement"

    shape = property(lambda self: (3,))

    def draw(self, key, size):
        """Zeros of class 0."""
        return jnp.zeros((size, 3)), jnp.zeros(size, jnp.int32)


def without_module(model, params, probe):
    """An observable whose module is not known, like a function that exec made."""
    return jnp.zeros(())


without_module.__module__ = None

BAD = {
    "rate that is a schedule": (
        "learning_rate = <function .*: give numbers; for a schedule, give optimizer=jt.Optimizer",
        lambda: sweep_of(learning_rate=optax.linear_schedule(1.0, 0.0, 5)),
    ),
    "own source of no examples": (
        "data.num_samples = 0: give a whole number of at least 1",
        lambda: sweep_of(data=OwnSource(num_samples=0)),
    ),
    "own source of half an example": (
        "data.num_samples = 2.5: give a whole number",
        lambda: sweep_of(data=OwnSource(num_samples=2.5)),
    ),
    "own order": (
        "data.sampling = 'sorted': use one of replacement, epochs",
        lambda: sweep_of(data=OwnSource(sampling="sorted")),
    ),
    "data seed": ("data_seed = -1: give a whole number from 0", lambda: sweep_of(data_seed=-1)),
    "data seed in vary": (
        r"vary = 'data_seed': is an argument of Sweep; give Sweep\(data_seed=",
        lambda: sweep_of(vary={"data_seed": (0, 1)}),
    ),
    "tuple of an object": (
        r"vary\['model.hidden'\] = <object .*give numbers, strings, booleans, None or tuples",
        lambda: sweep_of(vary={"model.hidden": ((object(), 2), (3,))}),
    ),
    "negative rate": (
        "learning_rate = -0.1: give a positive finite",
        lambda: sweep_of(learning_rate=-0.1),
    ),
    "rate nan": ("learning_rate = nan", lambda: sweep_of(learning_rate=(0.1, float("nan")))),
    "rate text": ("learning_rate = 'fast'", lambda: sweep_of(learning_rate="fast")),
    "rate twice": (
        "learning_rate = 0.1: appears twice",
        lambda: sweep_of(learning_rate=(0.1, 0.1)),
    ),
    "rate missing": (
        "learning_rate = None: give at least one",
        lambda: sweep_of(learning_rate=None),
    ),
    "rate empty": (r"learning_rate = \(\): give at least one", lambda: sweep_of(learning_rate=())),
    "batch zero": (
        "batch_size = 0: give a whole number of at least 1",
        lambda: sweep_of(batch_size=0),
    ),
    "batch text": (
        "batch_size = 'ful': give a whole number of at least 1, or \"full\"",
        lambda: sweep_of(batch_size="ful"),
    ),
    "point of no field": (
        "points = 'lr': name learning_rate, batch_size, seed, or a field of model, data",
        lambda: sweep_of(learning_rate=None, points=[{"lr": 0.1}]),
    ),
    "no test split": (
        "split = 'test': the data have no test split; give x_test and y_test",
        lambda: sweep_of(record=jt.Record((0, 1), jt.loss("test"))),
    ),
    "batch half": ("batch_size = 1.5", lambda: sweep_of(batch_size=1.5)),
    "seed negative": ("seed = -1: give a whole number from 0", lambda: sweep_of(seed=-1)),
    "seed bool": ("seed = True", lambda: sweep_of(seed=True)),
    "steps zero": ("num_steps = 0: give a whole number from 1", lambda: sweep_of(num_steps=0)),
    "steps endless": (
        "num_steps = .* gives 1e.* steps",
        lambda: sweep_of(num_steps=jt.RescaledSteps(1e9)),
    ),
    "clock": ("num_steps.value = -1", lambda: jt.RescaledSteps(-1)),
    "not increasing": (
        r"record.steps = \(0, 5, 5\): must be strictly increasing",
        lambda: sweep_of(record=jt.Record(steps=(0, 5, 5), observables=jt.loss())),
    ),
    "past the end": (
        r"record.steps = \(0, 21\): the run has only 20 steps",
        lambda: sweep_of(record=jt.Record(steps=(0, 21), observables=jt.loss())),
    ),
    "log steps": ("log_steps = 1: give a whole number of at least 2", lambda: jt.log_steps(1)),
    "every": ("every = 0", lambda: jt.every(0)),
    "probe": (
        "record.probe_size = 1",
        lambda: jt.Record(steps=jt.every(1), observables=jt.loss(), probe_size=1),
    ),
    "probe of arrays": (
        r"record.probe_size = array\(\[4, 8\]\)",
        lambda: jt.Record(steps=jt.every(1), observables=jt.loss(), probe_size=np.array([4, 8])),
    ),
    "batch of arrays": (
        r"batch_size = array\(\[4, 8\]\)",
        lambda: sweep_of(batch_size=None, points=[{"batch_size": np.array([4, 8])}]),
    ),
    "observable twice": (
        "contains an observable twice",
        lambda: jt.Record(steps=jt.every(1), observables=(jt.loss(), jt.loss())),
    ),
    "observable not called": (
        r"record.observables = 'loss': call the function: jt.loss\(",
        lambda: jt.Record(steps=jt.every(1), observables=jt.loss),
    ),
    "no such parameter": (
        "weight_norm = 'U': give a parameter of .*: V, W, b",
        lambda: sweep_of(record=jt.Record(steps=jt.every(5), observables=jt.weight_norm("U"))),
    ),
    "no pre-activations": (
        "records no pre-activations",
        lambda: sweep_of(
            model=nn.Dense(1), record=jt.Record(steps=jt.every(5), observables=jt.activation_rate())
        ),
    ),
    "dimension": (
        "model.inputs = .*3.*make the two equal",
        lambda: sweep_of(data=jt.data.Gaussian(dim=4)),
    ),
    "hidden": ("model.hidden = 0", lambda: jt.models.TwoLayer(inputs=3, hidden=0)),
    "hidden text": ("model.hidden = 'ten'", lambda: jt.models.TwoLayer(inputs=3, hidden="ten")),
    "init": (
        "model.init = 'xavier': use one of torch",
        lambda: jt.models.TwoLayer(3, 4, init="xavier"),
    ),
    "odd pairs": (
        r"model.hidden = \(3,\): a paired init",
        lambda: jt.models.TwoLayer(3, 3, init="paired_he"),
    ),
    "bias": ("model.bias = 1", lambda: jt.models.TwoLayer(3, 4, bias=1)),
    "model": ("model = 'mlp': give a jt.models", lambda: sweep_of(model="mlp")),
    "data": ("data = 'gauss': give a source such as jt.data", lambda: sweep_of(data="gauss")),
    "dim": ("data.dim = 0", lambda: jt.data.Gaussian(dim=0)),
    "labels": ("data.labels = 'real'", lambda: jt.data.Gaussian(dim=3, labels="real")),
    "scale": ("data.scale = -1", lambda: jt.data.Gaussian(dim=3, scale=-1)),
    "interval": ("data.high = 0", lambda: jt.data.Uniform(dim=3, low=0, high=0)),
    "sampling": ("data.sampling = 'shuffle'", lambda: jt.data.Gaussian(dim=3, sampling="shuffle")),
    "epoch too short": (
        "batch_size = 2: an epoch has only 1 examples",
        lambda: sweep_of(data=jt.data.Gaussian(dim=3, num_samples=1, sampling="epochs")),
    ),
    "noise": ("noise = 'no': use one of full", lambda: sweep_of(noise="no")),
    "noise of a set": (
        "noise = Gaussian.*: replaces the noise of a finite set; give data.num_samples",
        lambda: sweep_of(noise="gaussian"),
    ),
    "two batches of an epoch": (
        "noise = SVAG.*: draws two independent batches",
        lambda: sweep_of(
            noise=jt.noise.SVAG(2),
            data=jt.data.Gaussian(dim=3, num_samples=9, sampling="epochs"),
        ),
    ),
    "no steps of SVAG": ("noise.l = 0: give a whole number", lambda: jt.noise.SVAG(0)),
    "noise scale": ("noise.scale = 0", lambda: jt.noise.Unbiased(0)),
    "loss": ("loss = 'huber'", lambda: sweep_of(loss="huber")),
    "smoothing": ("loss.label_smoothing = 1.0", lambda: jt.losses.Softmax(1.0)),
    "loss of a partial": (
        "loss = functools.partial",
        lambda: sweep_of(loss=functools.partial(jnp.add)),
    ),
    "own loss fails": (
        "loss = 'mean_of_all': returns .* float32 for outputs .* return one float32 per example",
        lambda: sweep_of(loss=mean_of_all),
    ),
    "noise of a margin": (
        "replaces the residual p − y of the losses bce, softmax, squared, but the loss is hinge",
        lambda: sweep_of(loss="hinge", noise="unbiased"),
    ),
    "kappa of a margin": (
        "'exponential': kappa needs one of the losses bce, logistic",
        lambda: sweep_of(
            loss="exponential", record=jt.Record(steps=(0, 5), observables=jt.kappa())
        ),
    ),
    "shares": (
        "data.y = 2.5: multi_label needs targets from 0 to 1",
        lambda: sweep_of(
            data=jt.data.Arrays(np.eye(3), np.array([0.5, 2.5, 0.0])), loss="multi_label"
        ),
    ),
    "optimizer": ("optimizer = 'adam': give a jt.Optimizer", lambda: sweep_of(optimizer="adam")),
    "optimizer with a huge integer": (
        r"optimizer.b1 = 10+.*: becomes infinite in float32",
        lambda: jt.Optimizer(optax.adam, b1=10**50),
    ),
    "observable without a module": (
        "function = .*: belongs to no module; define it in a Python file",
        lambda: sweep_of(record=jt.Record(steps=(0,), observables=without_module)).id,
    ),
    "optimizer argument": ("rejects these arguments", lambda: jt.Optimizer(optax.adam, beta=1)),
    "record": ("record = 5: give a jt.Record", lambda: sweep_of(record=5)),
    "width": ("lane_width = 0: give a whole number from 1", lambda: sweep_of(lane_width=0)),
    "huge": (
        "the grid has 300,000 runs .*set max_runs=300000",
        lambda: sweep_of(seed=range(75_000)),
    ),
    "huge axis": ("seed = range.*has 1,000,000 values", lambda: sweep_of(seed=range(1_000_000))),
    "vary unknown": (
        "TwoLayer has no field 'depth'",
        lambda: sweep_of(vary={"model.depth": (1, 2)}),
    ),
    "vary root": ("vary = 'depth': name a field of", lambda: sweep_of(vary={"depth": (1, 2)})),
    "vary axis": (
        "vary = 'seed': is an argument of Sweep",
        lambda: sweep_of(vary={"seed": (1, 2)}),
    ),
    "vary object": (
        r"vary\['model.init'\] = {",
        lambda: sweep_of(vary={"model.init": ({"he": 1},)}),
    ),
    "vary nothing": (
        "gives the same run as",
        lambda: sweep_of(vary={"loss": ("auto", "bce")}),
    ),
    "points fields": (
        "every point must name the same fields",
        lambda: sweep_of(
            learning_rate=None, points=[{"learning_rate": 0.1}, {"learning_rate": 0.2, "seed": 1}]
        ),
    ),
    "points root": (
        "points = 'depth': name learning_rate, batch_size, seed, or a field of",
        lambda: sweep_of(learning_rate=None, points=[{"learning_rate": 0.1, "depth": 2}]),
    ),
    "points dtype": (
        "points = 'dtype': make one sweep per dtype",
        lambda: sweep_of(learning_rate=None, points=[{"learning_rate": 0.1, "dtype": "float64"}]),
    ),
    "points and axis": (
        "is also named by the points",
        lambda: sweep_of(points=[{"learning_rate": 0.1}]),
    ),
    "points twice": (
        "appears twice",
        lambda: sweep_of(learning_rate=None, points=[{"learning_rate": 0.1}] * 2),
    ),
    "points kind": ("points = 5: give a list", lambda: sweep_of(points=5)),
    "replace": ("Sweep has no field 'eta'", lambda: sweep_of().replace(eta=1)),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_names_field_value_and_remedy(case):
    words, build = BAD[case]
    with pytest.raises(InputError, match=words) as caught:
        build()
    assert caught.value.remedy


def test_a_grid_is_the_product_and_points_are_a_list():
    assert sweep_of().num_runs == 12
    assert sweep_of(vary={"model.hidden": (4, 6)}).num_runs == 24
    points = [{"learning_rate": 0.1, "batch_size": 1}, {"learning_rate": 0.2, "batch_size": 2}]
    listed = sweep_of(learning_rate=None, batch_size=None, points=points)
    assert listed.num_runs == 6
    assert {(c.learning_rate, c.batch_size) for c in listed.configs} == {(0.1, 1), (0.2, 2)}


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("model.hidden", lambda c: c.model.arguments["hidden"]),
        ("data.num_samples", lambda c: c.data.num_samples),
        ("noise.scale", lambda c: c.noise.scale),
        ("optimizer.momentum", lambda c: c.optimizer.hyper["momentum"]),
    ],
)
def test_any_scalar_can_be_swept_by_name(name, read):
    base = sweep_of(noise=jt.noise.Unbiased(), optimizer=jt.sgd(momentum=0.5))
    values = (4, 6) if name in ("model.hidden", "data.num_samples") else (0.25, 0.75)
    assert {read(c) for c in base.replace(vary={name: values}).configs} == set(values)


def test_fields_that_must_agree_change_together():
    wide = sweep_of().replace(**{"model.inputs": 7, "data.dim": 7})
    assert wide.data.dim == wide.model.arguments["inputs"] == 7


LOSS = jt.Record(steps=(0, 5), observables=jt.loss())
VARIANTS = {
    "learning_rate": 0.3,
    "batch_size": 3,
    "seed": range(4),
    "num_steps": 21,
    "model": jt.models.TwoLayer(inputs=3, hidden=4, init="he"),
    "data": jt.data.Uniform(dim=3),
    "noise": "unbiased",
    "optimizer": jt.sgd(momentum=0.9),
    "loss": "squared",
    "record": jt.Record(steps=jt.log_steps(6), observables=RECORD.observables),
    "common_data": True,
    "lane_width": 8,
    "vary": {"model.hidden": (4, 6)},
    "data_seed": (0, 1),
    "dtype": "float64",
}


def test_json_round_trip_of_every_field():
    for name, value in VARIANTS.items():
        sweep = sweep_of(**{name: value})
        again = jt.Sweep.from_json(sweep.to_json())
        assert again == sweep, name
        assert again.to_json() == sweep.to_json()
    points = sweep_of(learning_rate=None, points=[{"learning_rate": 0.1}, {"learning_rate": 0.2}])
    assert jt.Sweep.from_json(points.to_json()).to_json() == points.to_json()
    own = sweep_of(record=jt.Record(steps=(0, 5), observables=(triple,)), loss=quartic)
    assert jt.Sweep.from_json(own.to_json()) == own
    smooth = sweep_of(
        model=jt.models.MLP(3, hidden=(4,), outputs=2), loss=jt.losses.Softmax(0.1), record=LOSS
    )
    assert jt.Sweep.from_json(smooth.to_json()) == smooth


def test_id_changes_with_everything_that_changes_results():
    ids = {name: sweep_of(**{name: value}).id for name, value in VARIANTS.items()}
    ids["base"] = sweep_of().id
    assert len(set(ids.values())) == len(ids)


def test_id_is_equal_for_what_gives_the_same_results():
    base = sweep_of()
    same = [
        sweep_of(learning_rate=(0.2, 0.1), seed=(2, 0, 1)),
        sweep_of(seed=np.arange(3), learning_rate=np.array([0.1, 0.2])),
        sweep_of(noise=jt.noise.Full(), loss="bce", optimizer=jt.sgd()),
        sweep_of(max_runs=500),
        sweep_of(record=jt.Record(steps=jt.log_steps(5), observables=RECORD.observables[::-1])),
        sweep_of(
            record=jt.Record(steps=jt.log_steps(5).resolve(20), observables=RECORD.observables)
        ),
        sweep_of(
            learning_rate=None,
            batch_size=None,
            points=[{"learning_rate": r, "batch_size": b} for r in (0.1, 0.2) for b in (1, 2)],
        ),
    ]
    assert {s.id for s in same} == {base.id}


FILE = """
import jthermo as jt

def twice(model, params, probe):
    return {body}

SWEEP = jt.Sweep(model=jt.models.TwoLayer(inputs=3, hidden=4), data=jt.data.Gaussian(dim=3),
                 learning_rate=0.1, num_steps=4, record=jt.Record(steps=(0,), observables=(twice,)))
"""


def test_an_edited_observable_is_another_sweep_and_a_comment_is_not(tmp_path):
    ids = []
    for number, body in enumerate(
        ("2 * params['V']", "2 * params['V']  # still", "3 * params['V']")
    ):
        path = tmp_path / str(number) / "own_sweep.py"
        path.parent.mkdir()
        path.write_text(FILE.format(body=body))
        ids.append(jt.reproduction.load(str(path)).SWEEP.id)
    assert ids[0] == ids[1] != ids[2]


def test_the_id_of_a_sweep_is_golden():
    """If it changes, existing results folders don't open; that needs a CHANGELOG entry."""
    assert sweep_of().id == "4aa5ffdddaae13ef"


@pytest.mark.parametrize(
    ("steps", "total", "expected"),
    [
        (jt.log_steps(6), 100, (0, 1, 3, 10, 32, 100)),
        (jt.log_steps(20), 8, tuple(range(9))),
        (jt.log_steps(2), 100, (0, 100)),
        (jt.every(30), 100, (0, 30, 60, 90, 100)),
        (jt.every(200), 100, (0, 100)),
    ],
)
def test_schedules(steps, total, expected):
    assert steps.resolve(total) == expected


def test_log_steps_are_increasing_and_log_spaced():
    steps = np.array(jt.log_steps(120).resolve(32_000))
    assert len(steps) == 120
    assert (np.diff(steps) > 0).all()
    late = np.diff(np.log(steps[60:]))
    assert late.max() / late.min() < 1.1


def test_rescaled_steps_follow_the_clock():
    clock = jt.RescaledSteps(20.0)
    assert clock.resolve(0.05, 1) == 8000
    assert clock.resolve(0.1, 3) == 6000
    assert jt.RescaledSteps(20.0, at_most=100).resolve(0.05, 1) == 100
    assert jt.RescaledSteps(4.0, learning_rate_power=1, batch_size_power=0).resolve(0.5, 7) == 8


@pytest.mark.parametrize(
    ("part", "plain"),
    {
        "a function as a type": ("model", {"type": "subprocess:getoutput", "cmd": "touch PWNED"}),
        "a function of another package": ("model", {"type": "jax:jit", "fun": 1}),
        "a module within a package": ("model", {"type": "jax:os.system", "command": "touch PWNED"}),
        "a class that is no spec value": ("data", {"type": "subprocess:Popen", "args": "touch"}),
        "a name of jthermo": ("data", {"type": "jthermo.results.atomic:write_whole"}),
        "a function of the optimizer": (
            "optimizer",
            {"type": "jthermo.optimizer:Optimizer", "fn": {"function": "os:system"}},
        ),
        "a nested function": ("vary", {"model.act": [{"function": "builtins:exec"}]}),
        "a file that is not imported": ("model", {"type": "file_that_touches:Net"}),
    }.values(),
)
def test_json_from_elsewhere_runs_no_code(part, plain, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "file_that_touches.py").write_text("open('PWNED', 'w').close()")
    touch = (tmp_path / "PWNED").touch
    monkeypatch.setattr(subprocess, "getoutput", lambda **_: touch())
    content = json.loads(sweep_of().to_json()) | {part: plain}
    with pytest.raises(InputError, match="type = "):
        jt.Sweep.from_json(json.dumps(content))
    assert not (tmp_path / "PWNED").exists()
    assert "file_that_touches" not in sys.modules


def test_rescaled_steps_are_exact_in_decimals():
    """The first step at which t·η²/B has reached the value, as decimals are meant."""
    # 0.45/0.15² is 20, but rounds to slightly more
    for value in ("20", "8", "2.5", "0.45"):
        for rate in ("0.05", "0.1", "0.02", "0.07", "0.15"):
            for size in (1, 3, 10):
                steps = jt.RescaledSteps(float(value)).resolve(float(rate), size)
                assert steps == math.ceil(Fraction(value) * size / Fraction(rate) ** 2)


def test_as_many_values_as_runs_are_allowed():
    assert sweep_of(learning_rate=0.1, batch_size=1, seed=(0, 1, 2), max_runs=3).num_runs == 3
    with pytest.raises(InputError, match=r"seed = .* has 4 values, more than max_runs = 3"):
        sweep_of(learning_rate=0.1, batch_size=1, seed=(0, 1, 2, 3), max_runs=3)


@pytest.mark.parametrize("n", [2, 3, 6, 40])
def test_log_steps_are_as_many_as_asked_for(n):
    """One record per step in a shorter run; n of them in one of n steps or more."""
    for num_steps in (1, n - 1, n, n + 1, 3 * n, 1000):
        steps = jt.log_steps(n).resolve(num_steps)
        assert len(steps) == min(n, num_steps + 1)
        assert (steps[0], steps[-1]) == (0, num_steps)
        assert (np.diff(steps) >= 1).all()


def test_an_integer_among_floats_is_a_float_and_needs_no_program_of_its_own():
    """(0, 0.9) is the axis (0.0, 0.9); whole numbers alone stay whole."""
    varied = {"optimizer.momentum": (0, 0.9)}
    sweep = sweep_of(optimizer=jt.sgd(momentum=0.5), vary=varied, batch_size=1)
    assert sweep.vary["optimizer.momentum"] == (0.0, 0.9)
    assert [type(v) for v in sweep.vary["optimizer.momentum"]] == [float, float]
    assert len(step_program.programs(sweep)) == 1
    assert sweep_of(vary={"model.hidden": (4, 8)}).vary["model.hidden"] == (4, 8)


def test_depth_is_an_axis():
    deep = jt.Sweep(
        model=jt.models.MLP(3, hidden=(4,)),
        data=GAUSSIAN,
        learning_rate=(0.1, 0.2),
        num_steps=3,
        record=jt.Record(steps=(0, 3), observables=jt.loss()),
        vary={"model.hidden": ((8,), (8, 8), ())},
    )
    assert [len(c.model.arguments["hidden"]) for c in deep.configs[::2]] == [0, 1, 2]
    ds = jt.run(deep, engine="xla", progress=False)
    assert ds["model.hidden"].values.tolist() == ["()", "()", "8", "8", "8-8", "8-8"]
    # the fused engine would train it, and round differently
    single = deep.replace(vary={}, **{"model.hidden": (8, 8)})
    alone = jt.run(single, engine="xla", progress=False)
    np.testing.assert_array_equal(ds.loss[4:], alone.loss)
    assert jt.grid(ds).sizes["model.hidden"] == 3
    # a list on the command line is the same axis
    assert deep == deep.replace(vary={"model.hidden": [[8], [8, 8], []]})


def test_a_data_seed_changes_the_data_and_not_the_start():
    plain = sweep_of(record=jt.Record(steps=(0, 20), observables=(triple,)), seed=(0, 1))
    swept = plain.replace(data_seed=(0, 1, 2))
    assert swept.num_runs == 3 * plain.num_runs
    assert len(step_program.programs(swept)) == len(step_program.programs(plain))
    ds = jt.grid(jt.run(swept, progress=False)).triple
    start, end = ds.isel(record=0), ds.isel(record=1)
    np.testing.assert_array_equal(start, start.isel(data_seed=[0, 0, 0]))
    assert not (end.isel(data_seed=0) == end.isel(data_seed=1)).all("triple_0").any()
    # with common data, each data seed has its own examples, which all rates share
    common = swept.replace(common_data=True)
    streams = {(c.data_seed, c.common_stream) for c in common.configs}
    assert len(streams) == len({stream for _, stream in streams}) == 3
    assert {c.common_stream for c in plain.configs} == {0}


def own_loss(outputs, y):
    return (outputs - y) ** 2


@pytest.mark.parametrize(
    ("name", "values", "labels"),
    [
        ("noise", ("full", jt.noise.SVAG(4), jt.noise.SVAG(2)), ["SVAG(l=2)", "SVAG(l=4)", "full"]),
        (
            "optimizer",
            (jt.sgd(), jt.Optimizer(optax.adam)),
            ["Optimizer(optax:adam)", "Optimizer(optax:sgd)"],
        ),
        ("loss", ("bce", own_loss), ["own_loss", "bce"]),
    ],
)
def test_whole_rules_optimizers_and_losses_are_an_axis(name, values, labels):
    fixed = {"data": jt.data.Gaussian(dim=3, num_samples=9), "learning_rate": 0.1, "batch_size": 1}
    sweep = sweep_of(vary={name: values}, **fixed)
    assert [group.at[name] for group in sweep.groups.values()] == labels
    assert len({getattr(config, name) for config in sweep.configs}) == len(values)
    assert jt.Sweep.from_json(sweep.to_json()) == sweep
    # the same runs, one value at a time
    for value in values:
        (alone,) = sweep_of(**{name: value}, **fixed).configs
        assert alone in sweep.configs
    with pytest.raises(InputError, match="appears twice"):
        sweep_of(vary={name: (values[1], values[1])}, **fixed)
