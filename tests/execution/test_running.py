"""A running sweep shows how far it is, and the records so far; neither affects its results."""

import os
import re
import signal
import socket

import numpy as np
import pytest

import jthermo as jt
from jthermo.cli import main
from jthermo.errors import Interrupted
from jthermo.execution import running
from jthermo.execution.progress import Progress
from jthermo.results.layout import RUNNING

SWEEP = jt.Sweep(
    model=jt.models.TwoLayer(inputs=4, hidden=4),
    data=jt.data.Gaussian(dim=4),
    learning_rate=(0.1, 0.2),
    batch_size=(1, 2),
    seed=range(4),
    num_steps=400,
    record=jt.Record(steps=jt.log_steps(30), observables=(jt.activation_rate(), jt.loss())),
)
RUN_STEPS = 16 * 400


@pytest.fixture(autouse=True)
def _at_once(monkeypatch):
    monkeypatch.setattr(running, "EVERY_SECONDS", 0.0)
    monkeypatch.setattr(running, "PAUSE", 0.0)


@pytest.fixture(scope="module")
def whole():
    return jt.run(SWEEP, engine="xla", progress=False)


def trained(out, look):
    """By the engine that returns after every record; the fused one takes many in a call."""
    return jt.run(SWEEP, out, engine="xla", progress=False, callbacks=[look])


def same_where_recorded(part, whole):
    """Whether every record of a part equals that of the whole; all others are missing."""
    runs, order = (
        [*zip(*(ds[name].values for name in ("batch_size", "learning_rate", "seed")), strict=True)]
        for ds in (part, whole)
    )
    rows = whole.isel(run=[order.index(run) for run in runs])
    there = part.step.values >= 0
    for name in ("activation_rate", "loss", "finite"):
        np.testing.assert_array_equal(part[name].values[there], rows[name].values[there])
        absent = part[name].values[~there]
        assert not absent.any() if name == "finite" else np.isnan(absent).all()


def test_records_of_runs_in_training_open_as_they_come(tmp_path, whole):
    seen = []

    def look(update):
        if update.run_steps:
            seen.append((update, jt.open_results(tmp_path), jt.status(tmp_path)))

    done = trained(tmp_path, look)
    lengths = []
    for update, ds, status in seen:
        assert ds.attrs["complete"] == 0
        assert ds.attrs["running"] in (0, 8)
        assert ds.sizes["run"] in (8, 16)
        same_where_recorded(ds, whole)
        lengths.append(int((ds.step >= 0).sum()))
        assert status["state"] == "running"
        me = f"process {os.getpid()} on {socket.gethostname()}"
        pattern = rf"(\d+) % of 6\.4e\+03 run-steps, \S+ run-steps/s, \d+:\d\d left, \d s ago; {me}"
        percent = int(re.fullmatch(pattern, status["progress"])[1])
        # the file is written after each piece of work, so it is at most one record behind
        assert percent <= 100 * update.run_steps / RUN_STEPS + 1
        partly = "8 of them with a part of their records" in status["runs"]
        assert partly == (ds.attrs["running"] == 8)
        # the device is known once a group of runs is finished
        assert ("made on" in status) == (ds.sizes["run"] > ds.attrs["running"])
        assert status["records"].startswith(f"{len(np.unique(ds.step.values[ds.step >= 0]))} up to")
    assert lengths == sorted(lengths)
    assert len(set(lengths)) > 20
    # the second group begins at half of the sweep
    assert seen[-1][0].total == RUN_STEPS
    assert "batch_size" in seen[-1][1].coords
    assert seen[-1][1].sizes["run"] == 16
    for name in done.data_vars:
        np.testing.assert_array_equal(done[name].values, whole[name].values)
    assert not (tmp_path / RUNNING).exists()
    status = jt.status(tmp_path)
    assert status["state"] == "complete"
    assert "progress" not in status


def test_an_interrupted_sweep_shows_its_records_and_goes_on_counting(tmp_path, whole):
    updates = []

    def stop(update):
        updates.append(update)
        if update.run_steps > RUN_STEPS * 0.6:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted):
        trained(tmp_path, stop)
    ds = jt.open_results(tmp_path)
    assert (ds.attrs["complete"], ds.attrs["running"], ds.sizes["run"]) == (0, 8, 16)
    same_where_recorded(ds, whole)
    assert jt.status(tmp_path)["state"].startswith("unfinished")
    resumed = []
    done = trained(tmp_path, resumed.append)
    # what was done before counts, and the whole sweep is the total
    assert resumed[0].run_steps >= updates[-1].run_steps
    assert {update.total for update in updates + resumed} == {RUN_STEPS}
    assert resumed[-1].run_steps == RUN_STEPS
    np.testing.assert_array_equal(done.loss.values, whole.loss.values)
    assert done.attrs["running"] == 0


def test_plot_explore_and_status_read_a_folder_in_use(tmp_path, capsys):
    codes = []

    def look(update):
        if update.run_steps > RUN_STEPS * 0.9 and not codes:
            for verb, *more in (["status"], ["plot", "--where", "batch_size=2"], ["explore"]):
                try:
                    codes.append(main([verb, str(tmp_path), *more]))
                except SystemExit as error:
                    codes.append(error.code)

    trained(tmp_path, look)
    assert codes == [None] * 3
    assert re.search(r"state +running", capsys.readouterr().out)
    assert (tmp_path / "activation_rate.png").is_file()
    assert (tmp_path / "explore.html").is_file()


def test_before_its_first_record_a_sweep_has_no_time_left(tmp_path):
    states = []

    def look(update):
        if not update.run_steps:
            states.append(jt.status(tmp_path))

    trained(tmp_path, look)
    assert states[0]["progress"].startswith("0 % of 6.4e+03 run-steps, 0 run-steps/s, time left un")
    assert states[0]["records"] == "none yet"
    assert list(states[0]) == ["state", "progress", "records", "sweep"]


def test_a_damaged_file_of_a_running_sweep_is_left_out(tmp_path):
    counts, states = [], []

    def look(update):
        if update.run_steps > RUN_STEPS * 0.9 and not counts:
            path = tmp_path / RUNNING / "0-of-1.part"
            body = bytearray(path.read_bytes())
            body[len(body) // 2] ^= 1
            path.write_bytes(body)
            (tmp_path / RUNNING / "0-of-1.json").write_text("{")
            counts.append(jt.open_results(tmp_path).sizes["run"])
            states.append(jt.status(tmp_path)["progress"])

    trained(tmp_path, look)
    assert counts == [8]
    assert states[0].startswith("starting")


def test_the_time_left_contains_that_of_records(monkeypatch):
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    bar = Progress(show=False)
    bar.begin(10, 1000, done=200, records=80)
    # 200 of 800 updates took 2 s, and 20 of 80 records 6 s
    bar.advance(200, 2.0, 1)
    bar.recorded(20)
    now = 8.0
    assert bar.rate == 100
    assert bar.left == pytest.approx(600 / 100 + 60 * 6 / 20)
    assert str(bar) == "40 % of 1e+03 run-steps, 100 run-steps/s, 0:24 left"


def test_the_first_call_which_compiles_is_no_measure_of_the_pace():
    bar = Progress(show=False)
    bar.begin(10, 100_000)
    bar.advance(16, 30.0, 16)
    assert str(bar).endswith("0.533 run-steps/s, time left unknown")
    bar.advance(10_000, 1.0, 1016)
    assert bar.rate == 10_000
    assert bar.left == pytest.approx(9, abs=0.1)
