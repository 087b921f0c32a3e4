"""Sweep(start=...): given parameters, those of a folder, or a function of the model's own."""

import shutil

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jthermo as jt
from jthermo.cli import verbs
from jthermo.engines import choice as engines
from jthermo.errors import InputError, Interrupted
from jthermo.results.writing import resumable
from jthermo.sweep import start as starts
from tests.execution.test_placement import params
from tests.execution.test_resume import stop_after  # noqa: F401


class Normed(nn.Module):
    """A net with batch normalisation."""

    @nn.compact
    def __call__(self, x, train: bool):
        return nn.Dense(1)(nn.relu(nn.BatchNorm(use_running_average=not train)(nn.Dense(4)(x))))


NET = jt.models.TwoLayer(inputs=3, hidden=4)
RECORD = jt.Record(steps=(0, 10), observables=(params, jt.loss()), probe_size=8)


def sweep_of(**changes):
    fields = {
        "model": NET,
        "data": jt.data.Gaussian(dim=3),
        "learning_rate": (0.1, 0.2),
        "seed": range(3),
        "num_steps": 10,
        "record": RECORD,
        "lane_width": 2,
    }
    return jt.Sweep(**{**fields, **changes})


def doubled(params, key):
    """Twice the model's own parameters, and noise on those of the output."""
    noise = jax.random.normal(key, params["V"].shape)
    return {**jax.tree.map(lambda a: 2 * a, params), "V": 2 * params["V"] + noise}


def unchanged(params, key):
    return params


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished folder, and its records."""
    out = tmp_path_factory.mktemp("trained") / "o"
    return out, jt.run(sweep_of(), out, progress=False)


@pytest.mark.parametrize("engine", ["xla", "fused"])
def test_runs_start_from_what_was_given(trained, tmp_path, engine):
    """The first record has exactly the given parameters, on either engine."""
    if engine == "fused" and (reason := engines.refusal()):
        pytest.skip(reason)
    folder, ds = trained
    own, last = ds.params.values[:, 0], ds.params.values[:, 1]
    starts = {
        "pytree": (jt.open_params(folder, 4), np.broadcast_to(last[4], last.shape)),
        "folder": (folder, last),
        "one rate": (jt.Start(folder, where={"learning_rate": 0.2}), last[[3, 4, 5, 3, 4, 5]]),
        "one run": (jt.Start(folder, where={"learning_rate": 0.1, "seed": 2}), last[[2] * 6]),
        "function": (unchanged, own),
    }
    for name, (start, expected) in starts.items():
        new = jt.run(sweep_of(start=start), engine=engine, progress=False)
        np.testing.assert_array_equal(new.params.values[:, 0], expected, err_msg=name)
        assert (new.params.values[:, 1] != expected).any(1).all()
        # each start has its own stream
        assert (new.params.values[:, 1] != last).any(1).all()
    new = jt.run(sweep_of(start=doubled), engine=engine, progress=False)
    twice = 2 * own
    same = new.params.values[:, 0] == twice
    output = np.arange(own.shape[1]) < 4
    np.testing.assert_array_equal(same, np.broadcast_to(~output, same.shape))
    # the same noise for both learning rates of a seed, and another one for each seed
    noise = (new.params.values[:, 0] - twice)[:, output]
    np.testing.assert_array_equal(noise[:3], noise[3:])
    assert len(np.unique(noise[:3], axis=0)) == 3


FULL = {
    "data": jt.data.Gaussian(dim=3, num_samples=9),
    "batch_size": "full",
    "optimizer": jt.sgd(),
}


def test_ten_steps_and_ten_from_their_end_are_twenty_of_gradient_descent(tmp_path):
    """Momentum would be lost: it is the negative control."""
    for optimizer, equal in ((jt.sgd(), True), (jt.sgd(momentum=0.9), False)):
        sweep, out = sweep_of(**{**FULL, "optimizer": optimizer}), tmp_path / f"{equal}"
        twenty = sweep.replace(num_steps=20, **{"record.steps": (20,)})
        jt.run(sweep, out, progress=False)
        more = jt.run(sweep.replace(start=out), progress=False).params.values[:, 1]
        whole = jt.run(twenty, progress=False).params.values[:, 0]
        assert (more == whole).all(1).tolist() == [equal] * 6


def test_with_common_data_the_models_own_parameters_give_the_same_run(trained):
    sweep = sweep_of(common_data=True)
    plain, again = (jt.run(s, progress=False) for s in (sweep, sweep.replace(start=unchanged)))
    np.testing.assert_array_equal(plain.params, again.params)
    assert (jt.run(sweep.replace(start=doubled), progress=False).params != plain.params).any()


def test_the_identity_is_the_content(trained, tmp_path):
    folder, _ = trained
    given = jt.open_params(folder, 4)
    copied = shutil.copytree(folder, tmp_path / "copy")
    same = (
        (given, jax.tree.map(jnp.array, given)),
        (folder, copied),
        (jt.Start(folder, where={"seed": 2}), jt.Start(copied, where={"seed": 2})),
    )
    ids = {sweep_of().id, sweep_of(start=unchanged).id, sweep_of(start=doubled).id}
    for one, two in same:
        assert sweep_of(start=one).id == sweep_of(start=two).id
        ids.add(sweep_of(start=one).id)
    ids.add(sweep_of(start={**given, "b": given["b"] + 1}).id)
    assert len(ids) == 7
    for start in (given, folder, unchanged):
        sweep = sweep_of(start=start)
        assert jt.Sweep.from_json(sweep.to_json()) == sweep
        # more runs change no run
        assert sweep_of(start=start, seed=range(2)).runs < sweep.runs


def test_a_folder_that_was_extended_still_starts_its_runs(trained, tmp_path):
    folder = shutil.copytree(trained[0], tmp_path / "o")
    before = sweep_of(start=folder)
    jt.run(sweep_of(seed=range(4)), folder, extend=True, progress=False)
    assert sweep_of(start=folder) == before
    assert sweep_of(start=folder, seed=range(4)).num_runs == 8
    longer = sweep_of(num_steps=12, seed=range(4), record=RECORD).replace(
        **{"record.steps": (0, 10, 12)}
    )
    jt.run(longer, folder, extend=True, progress=False)
    # the last parameters are others now
    assert sweep_of(start=folder) != before
    with pytest.raises(InputError, match=r"has no last parameters of 6 .*, such as seed 0; finish"):
        jt.run(before, progress=False)


def test_the_averages_of_batch_normalisation_come_with_a_folder(tmp_path):
    fields = {"model": Normed(), "batch_size": 4, "learning_rate": 0.1}
    out = tmp_path / "o"
    jt.run(sweep_of(**fields, optimizer=jt.sgd(momentum=0.9)), out, progress=False)
    trained, state = jt.open_params(out, 1, state=True)
    short = {"num_steps": 1, "record": jt.Record(steps=(0,), observables=jt.loss())}
    sweep = sweep_of(**fields, **short, seed=1)
    for start, expected in (
        (out, state),
        (trained, sweep.configs[0].model.start(jax.random.key(0))[1]),
    ):
        name = str(tmp_path / type(start).__name__)
        jt.run(sweep.replace(start=start), name, progress=False)
        again = jt.open_params(name, 0, state=True)
        assert jax.tree.all(jax.tree.map(np.array_equal, again, (trained, expected)))


def test_the_folder_alone_resumes(trained, tmp_path, stop_after, monkeypatch):  # noqa: F811
    """Given parameters are kept beside the sweep."""
    given = jt.open_params(trained[0], 3)
    sweep, out = sweep_of(start=given), tmp_path / "o"
    whole = jt.run(sweep, progress=False)
    stop_after(0)
    with pytest.raises(Interrupted):
        jt.run(sweep, out, progress=False)
    stop_after(10**9)
    # in another process
    monkeypatch.setattr(starts, "_SEEN", {})
    unknown = jt.Sweep.from_json(sweep.to_json())
    with pytest.raises(InputError, match=r"were passed in memory; pass the same to jt\.Sweep aga"):
        jt.run(unknown, tmp_path / "p", progress=False)
    ds = jt.run(resumable(out), out, progress=False)
    np.testing.assert_array_equal(ds.params, whole.params)
    # a damaged file is not used
    (out / "start.npz").write_bytes((out / "start.npz").read_bytes()[:-50])
    monkeypatch.setattr(starts, "_SEEN", {})
    assert jt.run(resumable(out), out, progress=False).equals(ds)
    assert starts._SEEN == {}


@pytest.mark.parametrize("looks", [1, 4], ids=["at step 0", "later"])
def test_runs_that_have_begun_need_no_start(trained, tmp_path, stop_after, looks):  # noqa: F811
    source = shutil.copytree(trained[0], tmp_path / "source")
    sweep, out = sweep_of(start=source, optimizer=jt.Optimizer(optax.adam)), tmp_path / "o"
    whole = jt.run(sweep, progress=False)
    stop_after(looks)
    with pytest.raises(Interrupted, match="step 0" if looks == 1 else "step [1-9]"):
        jt.run(sweep, out, progress=False)
    stop_after(10**9)
    shutil.rmtree(source)
    ds = jt.run(resumable(out), out, progress=False)
    np.testing.assert_array_equal(ds.params, whole.params)
    assert jt.open_params(out, 0).keys() == {"W", "V", "b"}


GIVEN = {name: np.zeros(leaf.shape, np.float32) for name, leaf in NET.shapes.items()}


def one_argument(params):
    return params


def wide(params, key):
    return {**params, "V": jnp.ones((7,))}


@pytest.mark.parametrize(
    ("start", "message"),
    [
        ({"W": GIVEN["W"]}, r"start = \['W'\]: has no leaf V of the model's \['V', 'W', 'b'\]"),
        ({**GIVEN, "V": np.zeros(5, np.float32)}, r"start V = 'float32\[5\]': the model needs flo"),
        ({**GIVEN, "W": GIVEN["W"].astype(float)}, r"start W = 'float64\[4, 3\]': the model needs"),
        ({**GIVEN, "z": GIVEN["V"]}, "start = 'z': is no leaf of the model's"),
        (
            {**GIVEN, "b": GIVEN["b"] + np.nan},
            r"start b = 'float32\[4\]': has values that aren't fin",
        ),
        (wide, r"start V = 'float32\[7\]': the model needs float32\[4\]"),
        (one_argument, r"start = <function .*fails: .*2 were given; give a pytree of parameters"),
        ("nowhere/at/all", "start = 'nowhere/at/all': is no results folder of jthermo; give a py"),
        ({1: GIVEN["V"], "V": GIVEN["V"]}, r"start = \{1: .* give a pytree of parameters"),
        (jax.random.key(0), r"start = .*PRNGKey dtype cannot be converted .* give a pytree"),
        (3.0, "start = 3.0: give a pytree of parameters, a results folder, or a function"),
        ([], r"start = \[\]: give a pytree"),
    ],
)
def test_a_start_that_does_not_fit_is_refused_in_one_line(start, message):
    with pytest.raises(InputError, match=message) as refused:
        sweep_of(start=start)
    assert "\n" not in str(refused.value)


def test_a_run_without_a_match_in_the_folder_is_refused_by_name(trained):
    folder = trained[0]
    cases = (
        ({"learning_rate": 0.3}, r"has no run with learning_rate = 0.3; choose one, as in start="),
        ({"seed": (1, 7)}, r"has no run with seed = 7; choose one, .*where=\{'seed': 0\}\)"),
    )
    for changes, message in cases:
        with pytest.raises(InputError, match=message):
            sweep_of(start=folder, **changes)
    with pytest.raises(InputError, match=r"start.where seed = 9: no run of .* has this value"):
        jt.Start(folder, where={"seed": 9})
    with pytest.raises(InputError, match=r"start.where depth = 2: no run of .* has this value"):
        jt.Start(folder, where={"depth": 2})


def test_a_start_that_does_not_fit_leaves_no_folder(trained, tmp_path):
    out = tmp_path / "new"
    wide = jt.models.TwoLayer(inputs=3, hidden=5)
    with pytest.raises(InputError, match=r"start V = 'float32\[4\]': the model needs float32\[5\]"):
        jt.run(sweep_of(start=trained[0], model=wide), out, progress=False)
    # the sweep without the mistake can have it
    assert not out.exists()


def test_an_axis_that_only_the_folder_has_is_named(tmp_path):
    vary = {"optimizer.momentum": (0.0, 0.9)}
    fields = {"learning_rate": 0.1, "optimizer": jt.sgd(momentum=0.0), "seed": 0, "num_steps": 1}
    record = jt.Record(steps=(0, 1), observables=(params, jt.loss()))
    source = sweep_of(**fields, record=record, vary=vary)
    ds = jt.run(source, tmp_path / "o", progress=False)
    message = r"differ in optimizer.momentum; choose one, .*where=\{'optimizer.momentum': 0.0\}"
    with pytest.raises(InputError, match=message):
        sweep_of(start=tmp_path / "o")
    where = {"optimizer.momentum": 0.9}
    new = jt.run(sweep_of(start=jt.Start(tmp_path / "o", where=where), seed=(5, 6)), progress=False)
    # a single run starts runs of all seeds
    np.testing.assert_array_equal(
        new.params.values[:, 0], np.broadcast_to(ds.params.values[1, 1], (4, 20))
    )


def test_runs_with_a_seed_each_start_only_their_own_seeds(tmp_path):
    """A run of another seed started silently from the only run with its learning rate."""
    record = jt.Record(steps=(0, 1), observables=(params, jt.loss()))
    points = [{"learning_rate": 0.1, "seed": 1}, {"learning_rate": 0.3, "seed": 2}]
    given = {"learning_rate": None, "seed": None, "num_steps": 1, "record": record}
    ds = jt.run(sweep_of(**given, points=points), tmp_path / "o", progress=False)
    new = jt.run(sweep_of(start=tmp_path / "o", **given, points=points), progress=False)
    np.testing.assert_array_equal(new.params.values[:, 0], ds.params.values[:, 1])
    with pytest.raises(InputError, match=r"has no run with seed = 2; .*where=\{'seed': 1\}"):
        sweep_of(start=tmp_path / "o", learning_rate=(0.1, 0.3), seed=(1, 2))
    # a run that was chosen starts all seeds
    chosen = sweep_of(start=jt.Start(tmp_path / "o", where={"seed": 1}), learning_rate=0.1, seed=5)
    first = jt.run(chosen, progress=False).params.values[:, 0]
    np.testing.assert_array_equal(first[0], ds.params.values[0, 1])


FILE = """
import jthermo as jt

SWEEP = jt.Sweep(
    model=jt.models.TwoLayer(inputs=2, hidden=2), data=jt.data.Gaussian(dim=2),
    learning_rate=0.1, seed=range(2), num_steps=2,
    record=jt.Record(steps=(0, 2), observables=jt.weight_norm("V")))
"""


def test_the_command_line_starts_from_a_folder(tmp_path, capsys):
    path = tmp_path / "started_runs.py"
    path.write_text(FILE)
    one, two = (str(tmp_path / name) for name in ("one", "two"))
    verbs.main(["run", str(path), "--out", one, "--quiet"])
    verbs.main(["run", str(path), "--out", two, "--start", one, "--quiet"])
    first, second = (jt.open_results(folder).weight_norm_V.values for folder in (one, two))
    np.testing.assert_array_equal(second[:, 0], first[:, 1])
    with pytest.raises(SystemExit) as refused:
        verbs.main(["run", str(path), "--out", two, "--start", "nowhere", "--quiet"])
    assert refused.value.code == 2
    assert "start = 'nowhere': is no results folder" in capsys.readouterr().err
