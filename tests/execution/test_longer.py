"""More steps for runs in a folder: bit-equal to a sweep that was longer from the start."""

import functools
import shutil
from pathlib import Path

import jax
import numpy as np
import optax
import pytest

import jthermo as jt
from jthermo.cli import verbs
from jthermo.engines import choice as engines
from jthermo.errors import InputError, Interrupted
from jthermo.execution import placement, train_cohort
from jthermo.sweep.run_config import RunConfig
from tests.execution.test_placement import differing_bits, params
from tests.execution.test_resume import newest, rewrite, stop_after  # noqa: F401
from tests.execution.test_stateful_models import LinenCNN

SHORT, LONG = (0, 3, 20), (0, 3, 20, 21, 45)
NETS = {
    "fused": (jt.models.TwoLayer(inputs=16, hidden=10), jt.sgd(), "fused"),
    "batch norm, dropout, momentum": (LinenCNN(), jt.sgd(momentum=0.9), "xla"),
}
SMALL = jt.models.TwoLayer(inputs=2, hidden=2)


def sweep_of(name="fused", steps=LONG, **changes):
    model, optimizer, _ = NETS[name]
    fields = {
        "model": model,
        "optimizer": optimizer,
        "data": jt.data.Gaussian(dim=16),
        "learning_rate": (0.05, 0.1),
        "batch_size": 2,
        "seed": range(3),
        "num_steps": steps[-1],
        "record": jt.Record(steps=steps, observables=(params, jt.loss()), probe_size=16),
        "lane_width": 2,
    }
    return jt.Sweep(**{**fields, **changes})


@pytest.fixture(scope="module", params=NETS)
def name(request):
    if NETS[request.param][2] == "fused" and (reason := engines.refusal()):
        pytest.skip(reason)
    return request.param


@pytest.fixture(scope="module")
def run(name):
    return functools.partial(jt.run, engine=NETS[name][2], progress=False)


@pytest.fixture(scope="module")
def whole(name, run, tmp_path_factory):
    """A folder of longer runs from the start, and its records."""
    out = tmp_path_factory.mktemp("whole") / "o"
    return out, run(sweep_of(name), out)


@pytest.fixture(scope="module")
def short(name, run, tmp_path_factory):
    """A finished folder of the shorter runs."""
    out = tmp_path_factory.mktemp("short") / "o"
    run(sweep_of(name, SHORT), out)
    return out


def same(whole, out, ds):
    """Assert that records, and parameters and state of every run, agree in every bit."""
    reference, expected = whole
    assert ds.attrs["complete"] == 1
    assert differing_bits(expected, ds) == 0
    assert (ds.step.values == expected.step.values).all()
    for index in range(ds.sizes["run"]):
        one, two = (jt.open_params(folder, index, state=True) for folder in (reference, out))
        assert jax.tree.all(jax.tree.map(np.array_equal, one, two))
    assert jt.open_results(out).equals(ds)


def test_a_finished_folder_goes_on_from_its_last_state(
    name, run, whole, short, tmp_path, monkeypatch, capsys
):
    out = shutil.copytree(short, tmp_path / "o")
    with pytest.raises(InputError, match=r"only a part .*num_steps: 20 → 45.*--extend"):
        run(sweep_of(name), out)
    assert jt.open_results(out).equals(jt.open_results(short))
    starts = []
    train = train_cohort.train_cohort
    monkeypatch.setattr(
        "jthermo.execution.runner.train_cohort",
        lambda cohort, *rest: starts.append(cohort.progress) or train(cohort, *rest),
    )
    ds = run(sweep_of(name), out, extend=True)
    assert {tuple(row) for row in np.concatenate(starts).tolist()} == {(20, 3)}
    same(whole, out, ds)
    # what the shorter runs left is gone
    assert len(list(out.glob("records/*.npz"))) == len(list(whole[0].glob("records/*.npz")))
    assert len(list(out.glob("checkpoints/*/*"))) == len(list(whole[0].glob("checkpoints/*/*")))
    with pytest.raises(InputError, match="holds runs of 45 steps, more than this sweep has"):
        run(sweep_of(name, SHORT), out, extend=True)
    # a second time
    longer = sweep_of(name, (*LONG, 50))
    again = run(longer, out, extend=True)
    assert differing_bits(run(longer), again) == 0


def test_an_interrupted_folder_goes_on_also_if_that_is_interrupted(
    name,
    run,
    whole,
    tmp_path,
    stop_after,  # noqa: F811
):
    out, stops = tmp_path / "o", 0
    stop_after(3)
    with pytest.raises(Interrupted):
        run(sweep_of(name, SHORT), out)
    while stops < 20:
        stop_after(3)
        try:
            ds = run(sweep_of(name), out, extend=stops == 0)
            break
        except Interrupted:
            stops += 1
    assert 2 < stops < 20
    same(whole, out, ds)


def test_more_runs_and_more_steps_in_shards_on_other_devices(
    name, run, whole, tmp_path, monkeypatch
):
    out = tmp_path / "o"
    part = sweep_of(name, SHORT, learning_rate=0.1, seed=(0, 2))
    for index in (0, 1):
        run(part, out, shard=(index, 2))
    monkeypatch.setattr(placement, "devices", lambda: tuple(jax.devices()[:1]))
    half = run(sweep_of(name), out, extend=True, shard=(1, 2))
    assert half.attrs["complete"] == 0
    # runs that were not trained further yet have the records that they had
    shorter = half.step.values[:, -1] == -1
    assert 0 < shorter.sum() < len(shorter)
    for index in range(half.sizes["run"]):
        trained = np.concatenate([a.ravel() for a in jax.tree.leaves(jt.open_params(out, index))])
        last = half.params.values[index, 2 if shorter[index] else 4]
        np.testing.assert_array_equal(trained, last)
    monkeypatch.undo()
    ds = run(sweep_of(name), out, shard=(0, 2))
    same(whole, out, ds)


@pytest.mark.parametrize("name", list(NETS)[1:], scope="module")
def test_a_wrong_stream_or_a_lost_momentum_changes_bits(
    name, run, whole, short, tmp_path, monkeypatch
):
    """The negative control: what a run has besides its parameters matters after the extension."""
    out = shutil.copytree(short, tmp_path / "momentum")
    from jthermo.execution.checkpoint import DIGEST, META, row_digests

    number = len(jax.tree.leaves(jt.open_params(out, 0)))
    with np.load(newest(out)) as archive:
        rows = dict(archive)
    for i in range(number, 2 * number):
        assert rows[f"state/{i:03d}"].any()
        rows[f"state/{i:03d}"][:] = 0
    rows[DIGEST] = row_digests({k: v for k, v in rows.items() if k not in (DIGEST, META)})
    rewrite(newest(out), rows)
    lost = run(sweep_of(name), out, extend=True)
    monkeypatch.setattr(RunConfig, "stream", 7)
    other = run(sweep_of(name), shutil.copytree(short, tmp_path / "stream"), extend=True)
    for wrong in (lost, other):
        old, new = (wrong.isel(record=part) for part in (slice(0, 3), slice(3, 5)))
        assert differing_bits(whole[1].isel(record=slice(0, 3)), old) == 0
        assert differing_bits(whole[1].isel(record=slice(3, 5)), new) > 1000


def clocked(value, **changes):
    """Runs of several lengths in one cohort."""
    record = jt.Record(steps=(0, 3, 20, 21, 45, 80), observables=(params, jt.loss()))
    return sweep_of(num_steps=jt.RescaledSteps(value), record=record, seed=range(2), **changes)


def test_some_runs_of_a_cohort_go_on_and_some_are_finished(tmp_path):
    ds = jt.run(clocked(0.1), tmp_path / "o", progress=False)
    assert sorted(ds.step.values.max(1)) == [20, 20, 80, 80]
    longer = jt.run(clocked(0.2), tmp_path / "o", extend=True, progress=False)
    assert sorted(longer.step.values.max(1)) == [21, 21, 80, 80]
    whole = jt.run(clocked(0.2), tmp_path / "whole", progress=False)
    same((tmp_path / "whole", whole), tmp_path / "o", longer)
    # the finished runs are not trained twice, so their file stays beside that of the others
    assert len(list((tmp_path / "o" / "records").glob("*.npz"))) == 2


class Crash(BaseException):
    """The end of a process; nothing is written after it."""


def test_a_crash_before_any_change_of_a_file_loses_nothing(tmp_path, monkeypatch):
    from jthermo.execution import checkpoint, runner
    from jthermo.results import writing

    sweep, out = sweep_of(seed=range(2)), tmp_path / "o"
    jt.run(sweep_of(steps=SHORT, seed=range(2)), tmp_path / "short", progress=False)
    before, whole = jt.open_results(tmp_path / "short"), jt.run(sweep, progress=False)
    changes = (
        (writing, "write_whole"),
        (runner.shutil, "rmtree"),
        (checkpoint.Checkpoints, "save"),
        (Path, "unlink"),
    )
    records = set()
    for crashes in range(40):
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(tmp_path / "short", out)
        left = crashes

        def crashing(change):
            def changed(*args, **options):
                nonlocal left
                left -= 1
                if left < 0:
                    raise Crash
                return change(*args, **options)

            return changed

        with monkeypatch.context() as patched:
            for owner, name in changes:
                patched.setattr(owner, name, crashing(getattr(owner, name)))
            try:
                jt.run(sweep, out, extend=True, progress=False)
                break
            except Crash:
                pass
        shutil.rmtree(out / "locks")
        ds = jt.open_results(out)
        records.add(number := ds.sizes["record"])
        assert differing_bits(whole if number == 5 else before, ds) == 0
        # of a folder that holds the longer sweep by now
        ds = jt.run(sweep, out, extend=True, progress=False)
        assert (ds.attrs["complete"], differing_bits(whole, ds)) == (1, 0)
    assert records == {3, 5}
    assert 6 < crashes < 40


def tiny(**changes):
    fields = {"model": SMALL, "data": jt.data.Gaussian(dim=2), "observables": jt.loss()}
    fields |= {"steps": jt.every(2), "num_steps": 4, "optimizer": jt.sgd(), **changes}
    record = jt.Record(steps=fields.pop("steps"), observables=fields.pop("observables"))
    rates = fields.pop("learning_rate", (0.1, 0.2))
    return jt.Sweep(learning_rate=rates, record=record, **fields)


def cosine(learning_rate, total=4.0):
    return optax.sgd(lambda t: learning_rate * jax.numpy.cos(t / total))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            {"steps": jt.log_steps(3)},
            {"steps": jt.log_steps(3), "num_steps": 9},
            r"record.steps = LogSteps\(n=3\): gives other steps than those recorded in .*; append "
            r"new steps: steps=\(\*jt.log_steps\(3\).resolve\(4\), …\). Or choose another",
        ),
        (
            {"num_steps": 5},
            {"num_steps": 8},
            r"append new steps: steps=\(\*jt.every\(2\).resolve\(5\), …\)",
        ),
        (
            {"steps": (0, 1, 4)},
            {"steps": (0, 2, 4, 8), "num_steps": 8},
            r"append new steps to 0, 1, 4 … 4\. Or",
        ),
        (
            {"steps": jt.log_steps(3), "num_steps": jt.RescaledSteps(0.1)},
            {"steps": jt.log_steps(3), "num_steps": jt.RescaledSteps(0.2)},
            "runs of several lengths have no steps in common that could be kept",
        ),
        (
            {"optimizer": jt.Optimizer(cosine)},
            {"optimizer": jt.Optimizer(cosine, total=8.0), "num_steps": 8},
            r"it differs in num_steps: 4 → 8; optimizer\.total: .* → 8\.0\. .* Only a sweep that",
        ),
        ({}, {"num_steps": 8, "learning_rate": 0.1}, "holds another sweep.*learning_rate"),
        ({}, {"num_steps": 2}, "holds runs of 4 steps, more than this sweep has; jt.open_results"),
    ],
    ids=["log_steps", "every", "tuple", "rescaled", "schedule", "fewer runs", "fewer steps"],
)
def test_what_cannot_be_appended_is_refused_by_name(old, new, message, tmp_path):
    out = tmp_path / "o"
    ds = jt.run(tiny(**old), out, progress=False)
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    with pytest.raises(InputError, match=message):
        jt.run(tiny(**new), out, extend=True, progress=False)
    assert before == {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    assert jt.open_results(out).equals(ds)


def test_steps_of_any_schedule_can_be_appended_as_a_tuple(tmp_path):
    old = tiny(steps=jt.log_steps(3), num_steps=5)
    jt.run(old, tmp_path / "o", progress=False)
    new = tiny(steps=(*jt.log_steps(3).resolve(5), 9), num_steps=9)
    ds = jt.run(new, tmp_path / "o", extend=True, progress=False)
    assert ds.equals(jt.run(new, progress=False))


FILE = """
import jthermo as jt

SWEEP = jt.Sweep(
    model=jt.models.TwoLayer(inputs=2, hidden=2), data=jt.data.Gaussian(dim=2),
    learning_rate=(0.1, 0.2), num_steps=4,
    record=jt.Record(steps=jt.every(2), observables=jt.loss()))
"""


def test_the_command_line_extends_a_folder_and_says_how(tmp_path, capsys):
    path, out = tmp_path / "short_runs.py", tmp_path / "o"
    path.write_text(FILE)
    command = ["run", str(path), "--out", str(out), "--quiet"]
    verbs.main(command)
    with pytest.raises(SystemExit) as refused:
        verbs.main([*command, "--num-steps", "8"])
    err = capsys.readouterr().err
    assert refused.value.code == 2
    assert err.count("\n") == 1
    assert "only a part of this sweep; it differs in num_steps: 4 → 8. Give --extend" in err
    verbs.main([*command, "--num-steps", "8", "--extend"])
    assert "2 runs, 5 records, 0 diverged" in capsys.readouterr().out
    # the folder alone says how long its runs are
    verbs.main(["resume", str(out), "--quiet"])
    assert "2 runs, 5 records, 0 diverged" in capsys.readouterr().out
    assert jt.open_results(out).equals(jt.run(tiny(num_steps=8), progress=False))


def test_changed_code_and_removed_checkpoints_are_refused(tmp_path, monkeypatch):
    out = tmp_path / "o"
    ds = jt.run(tiny(optimizer=jt.Optimizer(cosine)), out, progress=False)
    longer = tiny(optimizer=jt.Optimizer(cosine), num_steps=8)
    with monkeypatch.context() as edited:
        source = "def cosine(learning_rate, total=4.0):\n    return optax.sgd(learning_rate)\n"
        edited.setattr("inspect.getsource", lambda obj: source)
        seeds = tiny(optimizer=jt.Optimizer(cosine), seed=range(9))
        with pytest.raises(InputError, match=r"seed: .* → 0:9; the code of your functions\. Choo"):
            jt.run(seeds, out, extend=True, progress=False)
        with pytest.raises(InputError, match=r"num_steps: 4 → 8; the code of your functions\. Ch"):
            jt.run(longer, out, extend=True, progress=False)
    shutil.rmtree(out / "checkpoints")
    with pytest.raises(InputError, match="has no checkpoints of its finished runs, so they can't"):
        jt.run(longer, out, extend=True, progress=False)
    assert jt.open_results(out).equals(ds)


def test_the_number_of_steps_is_in_the_key_of_a_run_and_not_in_its_stream():
    short, long = sweep_of(steps=SHORT), sweep_of(steps=LONG)
    assert [c.stream for c in short.configs] == [c.stream for c in long.configs]
    assert short.law == long.law
    assert not short.runs & long.runs
