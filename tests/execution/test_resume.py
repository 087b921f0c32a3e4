"""Resume: interruptions change no bit, damage is reported and not used, one writer at a time."""

import functools
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import types

import jax
import numpy as np
import optax
import pytest

import jthermo as jt
from jthermo.engines import choice as engines
from jthermo.errors import InputError, Interrupted, StorageError
from jthermo.execution import placement, runner, train_cohort
from jthermo.execution.checkpoint_policy import CheckpointPolicy
from jthermo.paper.reproduce import sweep_of as sweep_of_file
from jthermo.results.writing import resumable
from tests.execution.test_placement import NETS, differing_bits, params


def sweep_of(model="two-layer", **changes):
    fields = {
        "model": NETS[model][0],
        "data": jt.data.Gaussian(dim=16),
        "learning_rate": (0.05, 0.1),
        "batch_size": (2,),
        "seed": range(11),
        "num_steps": jt.RescaledSteps(0.15),
        "record": jt.Record(steps=jt.log_steps(5), observables=(params, jt.loss())),
        "optimizer": jt.sgd(momentum=0.9),
        "lane_width": 4,
    }
    return jt.Sweep(**{**fields, **changes})


@pytest.fixture
def stop_after(monkeypatch):
    """Make the next run see a signal when it checks for one the n + 1-st time, in small pieces."""

    def arm(looks):
        count = 0

        class Counting:
            @property
            def signal(self):
                nonlocal count
                count += 1
                return signal.SIGTERM if count > looks else None

        class Watched:
            def __enter__(self):
                return Counting()

            def __exit__(self, *_):
                return None

        monkeypatch.setattr(runner.stop_signals, "watched", Watched)

    monkeypatch.setattr(
        train_cohort._Pace,
        "until",
        lambda self, now, target: np.minimum(target, now + 7).astype(np.int32),
    )
    return arm


def same(a, b):
    """Assert that two results agree in every bit of every variable."""
    assert differing_bits(a, b) == 0
    np.testing.assert_array_equal(a.step, b.step)
    np.testing.assert_array_equal(a.finite, b.finite)


@pytest.mark.parametrize("model", NETS)
def test_a_sweep_stopped_at_every_check_ends_with_the_same_bits(model, tmp_path, stop_after):
    engine = NETS[model][1]
    if engine == "fused" and (reason := engines.refusal()):
        pytest.skip(reason)
    optimizer = jt.Optimizer(optax.adam) if model == "MLP" else jt.sgd(momentum=0.9)
    sweep = sweep_of(model, optimizer=optimizer)
    whole = jt.run(sweep, engine=engine, progress=False)
    out, stops, said = tmp_path / "o", 0, []
    while stops < 60:
        stop_after(2 if stops % 2 else 3)
        try:
            ds = jt.run(sweep, out, engine=engine, progress=False)
            break
        except Interrupted as stopped:
            said.append((stopped.code, "saved" in str(stopped)))
            stops += 1
    assert 4 < stops < 60
    assert set(said) == {(75, True)}
    same(whole, ds)
    for run in (0, 21):
        trained = jax.numpy.concatenate(
            [leaf.ravel() for leaf in jax.tree.leaves(jt.open_params(out, run))]
        )
        last = int((whole.step.values[run] >= 0).sum()) - 1
        np.testing.assert_array_equal(trained, whole.params.values[run, last])


@pytest.mark.parametrize("kind", placement.PLACEMENTS)
def test_trained_runs_whose_records_were_not_committed_are_taken_up(kind, tmp_path, monkeypatch):
    """A process that is killed between its last checkpoint and its records."""

    class Killed(Exception):
        pass

    def killed(*args):
        raise Killed

    sweep = sweep_of()
    with monkeypatch.context() as patch:
        patch.setattr(runner.Store, "add", killed)
        with pytest.raises(Killed):
            jt.run(sweep, tmp_path / "o", placement=kind, progress=False)
    ds = jt.run(sweep, tmp_path / "o", placement=kind, progress=False)
    same(jt.run(sweep, progress=False), ds)


@pytest.mark.parametrize("phase", ["plan", "compile", "chunk", "evaluation", "save"])
def test_a_real_signal_in_any_phase_saves_and_exits_75(phase, tmp_path, stop_after, monkeypatch):
    from jthermo.execution.checkpoint import Checkpoints

    watched = runner.stop_signals.watched
    # The fixture is needed for its short pieces, not for its signal.
    stop_after(10**9)
    monkeypatch.setattr(runner.stop_signals, "watched", watched)
    # No other test has compiled this sweep with five lanes.
    width = {"plan": 4, "compile": 5, "chunk": 4, "evaluation": 4, "save": 4}[phase]
    sweep, options = sweep_of(lane_width=width), {"checkpoint_steps": 7} if phase == "save" else {}
    calls = 0

    def signalled(function, at):
        def call(*args, **kwargs):
            nonlocal calls
            calls += 1
            if calls == at:
                os.kill(os.getpid(), signal.SIGTERM)
            return function(*args, **kwargs)

        return call

    if phase == "plan":
        monkeypatch.setattr(runner, "fitting", signalled(runner.fitting, 1))
    elif phase == "save":
        monkeypatch.setattr(Checkpoints, "save", signalled(Checkpoints.save, 1))
    else:
        name, at = {
            "compile": ("advance", 1),
            "chunk": ("advance", 3),
            "evaluation": ("observe", 2),
        }[phase]
        programs = placement.programs

        def armed(*args):
            originals = programs(*args)
            return originals._replace(**{name: signalled(getattr(originals, name), at)})

        monkeypatch.setattr(placement, "programs", armed)
    with pytest.raises(Interrupted, match="SIGTERM") as stopped:
        jt.run(sweep, tmp_path / "o", progress=False, **options)
    assert stopped.value.code == 75
    assert phase == "plan" or newest(tmp_path / "o").is_file()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    monkeypatch.undo()
    same(jt.run(sweep, progress=False), jt.run(sweep, tmp_path / "o", progress=False))


def hinge_squared(outputs, y):
    """A loss of the user's own."""
    return jax.nn.relu(1 - (2 * y - 1) * outputs) ** 2


@pytest.mark.parametrize(
    "changes",
    [
        {"batch_size": "full", "data": jt.data.Gaussian(dim=16, num_samples=9, redraw=0.3)},
        {"loss": hinge_squared},
        {
            "model": jt.models.MLP(16, hidden=(3,), outputs=2),
            "loss": jt.losses.Softmax(label_smoothing=0.2),
        },
        {"dtype": "float64"},
        {"dtype": "bfloat16"},
    ],
    ids=["full batch", "own loss", "label smoothing", "float64", "bfloat16"],
)
def test_full_batches_and_other_losses_resume_to_the_bit(changes, tmp_path, stop_after):
    sweep = sweep_of(num_steps=30).replace(**changes)
    whole = jt.run(sweep, progress=False)
    stop_after(9)
    with pytest.raises(Interrupted):
        jt.run(sweep, tmp_path / "o", progress=False)
    stop_after(10**9)
    same(whole, jt.run(sweep, tmp_path / "o", progress=False))
    last = whole.params.values[0, -1]
    trained = jax.tree.leaves(jt.open_params(tmp_path / "o", 0))
    assert trained[0].dtype == whole.params.dtype
    np.testing.assert_array_equal(np.concatenate([leaf.ravel() for leaf in trained]), last)


@pytest.mark.parametrize("number", [1, 2])
def test_another_number_of_devices_on_resume_changes_no_bit(
    tmp_path, stop_after, monkeypatch, number
):
    sweep = sweep_of()
    whole = jt.run(sweep, progress=False)
    monkeypatch.setattr(placement, "devices", lambda: tuple(jax.devices()[: 3 - number]))
    stop_after(9)
    with pytest.raises(Interrupted):
        jt.run(sweep, tmp_path / "o", progress=False)
    monkeypatch.setattr(placement, "devices", lambda: tuple(jax.devices()[:number]))
    stop_after(10**9)
    same(whole, jt.run(sweep, tmp_path / "o", placement="pmap", progress=False))


def test_an_extended_sweep_trains_only_the_new_runs(tmp_path, monkeypatch):
    out = tmp_path / "o"
    small = sweep_of(seed=range(4))
    jt.run(small, out, progress=False)
    trained = []
    train = runner.train_cohort
    monkeypatch.setattr(
        runner,
        "train_cohort",
        lambda cohort, *rest: trained.extend(cohort.members) or train(cohort, *rest),
    )
    larger = small.replace(seed=range(7), learning_rate=(0.05, 0.08, 0.1))
    with pytest.raises(
        InputError, match=r"holds only a part of this sweep.*; seed: 0:4 → 0:7\..*--extend"
    ):
        jt.run(larger, out, progress=False)
    ds = jt.run(larger, out, extend=True, progress=False)
    assert len(trained) == 21 - 8
    assert not set(trained) & set(small.runs)
    same(jt.run(larger, progress=False), ds)
    other = larger.replace(learning_rate=0.1)
    with pytest.raises(
        InputError, match=r"Only a sweep that contains every run in the folder can extend it"
    ):
        jt.run(other, out, extend=True, progress=False)


def test_shards_in_any_order_complete_the_sweep(tmp_path, stop_after):
    sweep = sweep_of()
    whole = jt.run(sweep, progress=False)
    out = tmp_path / "o"
    first = jt.run(sweep, out, shard=(2, 3), progress=False)
    assert 0 < first.sizes["run"] < 22
    assert first.attrs["complete"] == 0
    stop_after(6)
    with pytest.raises(Interrupted):
        jt.run(sweep, out, shard=(0, 3), progress=False)
    stop_after(10**9)
    jt.run(sweep, out, shard=(1, 3), progress=False)
    # A process without a shard finishes the interrupted shard.
    ds = jt.run(sweep, out, progress=False)
    assert ds.attrs["complete"] == 1
    same(whole, ds)
    same(whole, jt.open_results(out))
    for bad in ((3, 3), (0, 0), "half", ("a", "b")):
        with pytest.raises(InputError, match="shard = "):
            jt.run(sweep, tmp_path / "p", shard=bad, progress=False)
    with pytest.raises(InputError, match="a shard needs a results folder"):
        jt.run(sweep, shard=(0, 2), progress=False)


def test_parameters_are_not_read_from_an_older_layout_of_shards(tmp_path, stop_after):
    sweep, out = sweep_of(), tmp_path / "o"
    stop_after(6)
    with pytest.raises(Interrupted):
        jt.run(sweep, out, shard=(0, 3), progress=False)
    (stale,) = out.glob("checkpoints/0-of-3/*")
    copy = shutil.copytree(stale, tmp_path / stale.name)
    stop_after(10**9)
    ds = jt.run(sweep, out, progress=False)
    # Several copies, since folders are listed in any order.
    for n in range(2, 12):
        shutil.copytree(copy, out / "checkpoints" / f"0-of-{n}" / stale.name)
    for run in range(ds.sizes["run"]):
        leaves = jax.tree.leaves(jt.open_params(out, run))
        last = int((ds.step.values[run] >= 0).sum()) - 1
        trained = np.concatenate([leaf.ravel() for leaf in leaves])
        np.testing.assert_array_equal(trained, ds.params.values[run, last])


def newest(out):
    """The archive of the newest checkpoint."""
    return max(out.glob("checkpoints/*/*/*/rows/rows.npz"), key=lambda p: int(p.parent.parent.name))


def rewrite(path, rows):
    """Replace the arrays of an archive, with a matching SHA-256 of the file."""
    np.savez(path, **rows)
    path.with_name("rows.sha256").write_text(hashlib.sha256(path.read_bytes()).hexdigest())


def flip(path, rng):
    body = bytearray(path.read_bytes())
    body[rng.integers(len(body))] ^= 1 << rng.integers(8)
    path.write_bytes(body)


def zero(path, rng):
    body = bytearray(path.read_bytes())
    at = int(rng.integers(max(1, len(body) - 4096)))
    body[at : at + 4096] = bytes(len(body[at : at + 4096]))
    path.write_bytes(body)


def truncate(path, rng):
    path.write_bytes(path.read_bytes()[: int(rng.integers(path.stat().st_size))])


@pytest.mark.parametrize(
    "damage",
    [flip, zero, truncate, lambda path, _: path.unlink()],
    ids=["flip", "zero", "truncate", "delete"],
)
def test_a_damaged_checkpoint_is_reported_and_the_previous_one_is_used(
    tmp_path, stop_after, capsys, damage
):
    sweep = sweep_of(learning_rate=0.1)
    whole = jt.run(sweep, progress=False)
    out, rng = tmp_path / "o", np.random.default_rng(3)
    for looks in (3, 5):
        stop_after(looks)
        with pytest.raises(Interrupted):
            jt.run(sweep, out, progress=False)
    good, bad = sorted(
        int(p.parent.parent.name) for p in out.glob("checkpoints/*/*/*/rows/rows.npz")
    )
    damage(newest(out), rng)
    stop_after(10**9)
    ds = jt.run(sweep, out)
    err = capsys.readouterr().err
    assert f"checkpoint {bad} is damaged" in err
    assert f"resuming from checkpoint {good}" in err
    same(whole, ds)
    assert list(out.glob(f"checkpoints/*/*/bad-{bad}-*"))


def test_a_wrong_digest_of_a_run_is_reported(tmp_path, stop_after):
    """The checksums of the archive are made to match, so that only the run's digest is wrong."""
    sweep, out = sweep_of(learning_rate=0.1), tmp_path / "o"
    stop_after(5)
    with pytest.raises(Interrupted):
        jt.run(sweep, out, progress=False)
    with np.load(newest(out)) as archive:
        rows = dict(archive)
    rows["state/000"][7].reshape(-1).view(np.uint32)[0] ^= 1
    rewrite(newest(out), rows)
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    words = r"all checkpoints are damaged \(checkpoint 1: the digest of 1 of its 11 runs .* rows 7"
    with pytest.raises(InputError, match=words):
        jt.run(sweep, out, progress=False)
    assert all(p.read_bytes() == body for p, body in before.items() if p.exists())
    assert newest(out) in before


def test_a_damaged_record_file_is_rebuilt_from_its_checkpoint(tmp_path, capsys, monkeypatch):
    sweep, out = sweep_of(), tmp_path / "o"
    whole = jt.run(sweep, out, progress=False)
    (path,) = (out / "records").glob("*.npz")
    flip(path, np.random.default_rng(0))
    with pytest.raises(InputError, match="run the same sweep again to rebuild it"):
        jt.open_results(out)
    # Training would fail.
    monkeypatch.setattr(train_cohort._Pace, "until", None)
    same(whole, jt.run(sweep, out))
    assert "its runs are restored from their checkpoint" in capsys.readouterr().err
    assert list((out / "records").glob("bad-*.npz"))


def test_checkpoints_by_step_and_by_time_keep_two(tmp_path, stop_after, monkeypatch):
    # By default a slow save stretches the interval, since saving may take 1 % of the time.
    policy = functools.partial(CheckpointPolicy, share=1e9)
    monkeypatch.setattr(runner, "CheckpointPolicy", policy)
    for options in ({"checkpoint_steps": 7}, {"checkpoint_seconds": 1e-9}):
        out = tmp_path / next(iter(options))
        stop_after(14)
        with pytest.raises(Interrupted):
            jt.run(sweep_of(), out, progress=False, **options)
        numbers = sorted(int(p.name) for p in out.glob("checkpoints/*/*/*") if p.name.isdigit())
        assert len(numbers) == 2
        # Earlier checkpoints were saved and then deleted.
        assert numbers[-1] > 2
    for name in ("checkpoint_seconds", "checkpoint_steps"):
        with pytest.raises(InputError, match=f"{name} = 0"):
            jt.run(sweep_of(), tmp_path / "bad", **{name: 0})


def test_nan_in_two_lanes_touches_no_other(tmp_path, stop_after):
    sweep, out = sweep_of(seed=range(12), optimizer=jt.sgd()), tmp_path / "o"
    whole = jt.run(sweep, progress=False)
    stop_after(5)
    with pytest.raises(Interrupted):
        jt.run(sweep, out, progress=False)
    from jthermo.execution.checkpoint import DIGEST, META, row_digests

    with np.load(newest(out)) as archive:
        rows = dict(archive)
    nan_rows = [2, 17]
    rows["state/000"][nan_rows] = np.nan
    rows[DIGEST] = row_digests({k: v for k, v in rows.items() if k not in (DIGEST, META)})
    rewrite(newest(out), rows)
    stop_after(10**9)
    ds = jt.run(sweep, out, progress=False)
    nan_runs = {(str(rows["key"][i]), int(rows["seed"][i])) for i in nan_rows}
    is_nan = np.array([run in nan_runs for run in runs_of(sweep)])
    assert is_nan.sum() == 2
    assert not ds.finite.values[is_nan, -1].any()
    same(whole.isel(run=~is_nan), ds.isel(run=~is_nan))


def runs_of(sweep):
    return [(sweep.key_of(c), s) for c, (_, seeds) in sweep.groups.items() for s in seeds]


HOLDER = """
import sys, time
from pathlib import Path
from jthermo.execution import lock
with lock.held(Path(sys.argv[1]), (0, 1)):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_writer_is_refused_and_a_stale_lock_is_taken_over(tmp_path):
    from jthermo.execution import lock

    out = tmp_path / "o"
    jt.run(sweep_of(seed=range(2)), out, progress=False)
    larger = sweep_of(seed=range(3))
    other = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(out)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(InputError, match=rf"is being written by process {other.pid} on "):
            jt.run(larger, out, extend=True, progress=False)
        with pytest.raises(InputError, match="is being written by"), lock.held(out, (0, 2)):
            pass
    finally:
        other.kill()
        other.communicate()
    # The killed owner has left its lock.
    assert list((out / "locks").glob("*.json"))
    assert jt.run(larger, out, extend=True, progress=False).sizes["run"] == 6
    assert not list((out / "locks").glob("*.json"))
    with lock.held(out, (0, 2)), lock.held(out, (1, 2)):
        # Shards of the same N may run at once.
        pass
    foreign = out / "locks" / "0-of-1.json"
    foreign.write_text(json.dumps({"host": "elsewhere", "pid": 1, "started": "1"}))
    with pytest.raises(InputError, match=r"process 1 on elsewhere.*remove"), lock.held(out, (0, 1)):
        pass
    os.utime(foreign, (time.time() - 3600,) * 2)
    with lock.held(out, (0, 1)):
        pass


def test_the_parameters_of_several_runs_are_stacked(tmp_path):
    vary = {"model.hidden": ((3,), (3, 2))}
    sweep = sweep_of(num_steps=5, seed=range(3)).replace(
        model=jt.models.MLP(16, hidden=(3,)), vary=vary
    )
    ds = jt.run(sweep, tmp_path / "o", progress=False)
    same_shape = np.flatnonzero(ds["model.hidden"].values == "3-2")[::-1]
    assert len(same_shape) == 6
    stacked = jt.open_params(tmp_path / "o", same_shape)
    for place, run in enumerate(same_shape):
        one = jt.open_params(tmp_path / "o", int(run))
        jax.tree.map(lambda a, b, i=place: np.testing.assert_array_equal(a[i], b), stacked, one)
    with pytest.raises(InputError, match=r"run = .*nets with different shapes"):
        jt.open_params(tmp_path / "o", range(12))
    with pytest.raises(InputError, match="run = 12: give a whole number from 0 to 11"):
        jt.open_params(tmp_path / "o", (0, 12))
    with pytest.raises(InputError, match=r"run = \[\]: give at least one index"):
        jt.open_params(tmp_path / "o", [])


def test_resume_refuses_a_folder_without_a_sweep(tmp_path):
    from jthermo.results.writing import resumable

    with pytest.raises(InputError, match="nothing to resume"):
        resumable(tmp_path)
    jt.run(sweep_of(), tmp_path / "o", progress=False)
    assert resumable(tmp_path / "o") == sweep_of()


def test_an_impossible_folder_is_an_input_error_and_not_a_storage_error(tmp_path):
    with pytest.raises(InputError, match=r"out = '/proc/x'.*give another file or folder") as wrong:
        jt.run(sweep_of(), "/proc/x", progress=False)
    # A launcher would retry a StorageError for ever.
    assert not isinstance(wrong.value, StorageError)


def test_a_full_disk_keeps_the_last_checkpoint_and_the_sweep_can_resume(
    tmp_path, stop_after, monkeypatch
):
    from jthermo.execution import checkpoint

    sweep, out = sweep_of(learning_rate=0.1), tmp_path / "o"
    whole = jt.run(sweep, progress=False)
    writes = 0
    save = np.savez

    def filling(file, **rows):
        nonlocal writes
        writes += 1
        if writes == 3:
            raise OSError(28, "No space left on device")
        save(file, **rows)

    stop_after(10**9)
    monkeypatch.setattr(checkpoint.np, "savez", filling)
    with pytest.raises(StorageError, match=r"\(No space left on device\); a checkpoint failed"):
        jt.run(sweep, out, progress=False, checkpoint_steps=7)
    # The error is raised after at most one more piece of work.
    assert writes <= 4
    monkeypatch.undo()
    assert newest(out).stat().st_size > 0
    same(whole, jt.run(sweep, out, progress=False))


def test_a_loopback_coordinator_of_several_hosts_is_refused():
    from jthermo.execution.processes import refuse_loopback

    for address in ("127.0.0.1:1234", "localhost:1", "[::1]:1"):
        with pytest.raises(InputError, match=r"coordinator = .*the job has 4"):
            refuse_loopback(address, {"SLURM_JOB_NUM_NODES": "4"})
        refuse_loopback(address, {"SLURM_JOB_NUM_NODES": "1"})
    refuse_loopback("10.0.0.1:1", {"SLURM_JOB_NUM_NODES": "4"})
    with pytest.raises(InputError, match="coordinator"):
        refuse_loopback(
            None, {"OMPI_MCA_orte_num_nodes": "2", "JAX_COORDINATOR_ADDRESS": "127.0.0.1:1"}
        )


def test_a_sweep_that_does_not_fit_is_trained_in_rounds_and_a_refusal_halves_once(
    monkeypatch, capsys
):
    from jthermo.execution import timing

    sweep = sweep_of()
    whole = jt.run(sweep, progress=False)
    one = timing.measure(
        runner.cohorts(sweep, engine=whole.attrs["engine"])[0],
        placement.Placement("sharding", placement.devices()),
        3,
        burst=False,
    )
    monkeypatch.setattr(timing, "ROOMY", 1e9)
    monkeypatch.setattr(timing.memory, "limit", lambda devices: int(one.peak(2) / 0.9) + 2)
    same(whole, jt.run(sweep))
    assert "trained in 2 rounds" in capsys.readouterr().err
    monkeypatch.undo()
    train, refusals = runner.train_cohort, []

    def refusing(cohort, *rest):
        if cohort.num_runs > 12:
            refusals.append(cohort.num_runs)
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")
        return train(cohort, *rest)

    monkeypatch.setattr(runner, "train_cohort", refusing)
    same(whole, jt.run(sweep))
    assert refusals == [22]
    assert "trained in two rounds" in capsys.readouterr().err
    monkeypatch.setattr(runner, "train_cohort", lambda *_: exhausted())
    with pytest.raises(jax.errors.JaxRuntimeError):
        jt.run(sweep, progress=False)


def exhausted():
    raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")


SCRIPT = """
import flax.linen as nn
import jthermo as jt


class Own(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(1)(x)


def first_weight(model, params, probe):
    return params["Dense_0"]["kernel"][0, 0]


SWEEP = jt.Sweep(
    model=Own(), data=jt.data.Gaussian(dim=2), learning_rate=0.1, num_steps=4,
    record=jt.Record(steps=(0, 4), observables=first_weight))
"""


def test_a_sweep_begun_by_a_script_can_be_resumed_from_its_file(tmp_path, monkeypatch):
    path = tmp_path / "script_of_one_net.py"
    path.write_text(SCRIPT)
    script = types.ModuleType("__main__")
    script.__file__ = str(path)
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "__main__", script)
        # As `python script_of_one_net.py` does.
        exec(compile(SCRIPT, path, "exec"), script.__dict__)
        ds = jt.run(script.SWEEP, tmp_path / "out", progress=False)
        # Reading the sweep does not import the script a second time.
        assert jt.Sweep.from_json(ds.attrs["sweep"]).model is not None
        assert "script_of_one_net" not in sys.modules
    try:
        # `jthermo run FILE` would train the same sweep.
        assert sweep_of_file(str(path)).id == script.SWEEP.id
        del sys.modules["script_of_one_net"]
        assert resumable(tmp_path / "out").id == script.SWEEP.id
        assert jt.run(resumable(tmp_path / "out"), tmp_path / "out", progress=False).equals(ds)
    finally:
        sys.modules.pop("script_of_one_net", None)
