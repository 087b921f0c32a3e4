"""One writer per folder: races, dead and silent owners, a lost lock, damaged lock files."""

import errno
import json
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

import jthermo as jt
from jthermo.cli import verbs
from jthermo.errors import FolderInUse, InputError, StorageError
from jthermo.execution import lock

RACES = Path(__file__).parents[2] / "scripts" / "lock_races.py"
ALONE = (0, 1)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "locks").mkdir()
    return tmp_path


def write(folder, content, age=0.0):
    """A lock file of the whole folder, last touched `age` seconds ago."""
    path = folder / "locks" / "0-of-1.json"
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    os.utime(path, (time.time() - age,) * 2)
    return path


def take(folder):
    with lock.held(folder, ALONE):
        return True


def counts(*options):
    """Races with one, no and several holders, and the exit code of the script."""
    done = subprocess.run(
        [sys.executable, RACES, *options], capture_output=True, text=True, check=False
    )
    last = done.stdout.splitlines()[-1]
    return [int(n) for n in re.findall(r"in (\d+)", last)], done.returncode


def test_of_writers_that_start_together_one_holds_the_lock():
    assert counts("--races", "48") == ([48, 0, 0], 0)
    # without the gate the same races have several holders
    (_, _, several), code = counts("--races", "48", "--without-gate")
    assert several > 0
    assert code == 1


def test_a_lock_is_renewed_while_the_main_thread_is_busy_and_never_after_a_theft(
    folder, monkeypatch
):
    monkeypatch.setattr(lock, "RENEW_SECONDS", 0.02)
    with lock.held(folder, ALONE):
        path = folder / "locks" / "0-of-1.json"
        os.utime(path, (0, 0))
        time.sleep(0.3)
        assert time.time() - path.stat().st_mtime < 60
        write(folder, {"host": "elsewhere", "pid": 1}, age=1000)
        time.sleep(0.3)
        assert time.time() - path.stat().st_mtime > 900
    # the lock of the other process stays
    assert json.loads(path.read_text())["host"] == "elsewhere"


def test_a_run_whose_lock_was_taken_over_stops_before_it_saves_anything(tmp_path):
    sweep = jt.Sweep(
        model=jt.models.TwoLayer(inputs=2, hidden=2),
        data=jt.data.Gaussian(dim=2),
        learning_rate=0.1,
        num_steps=8,
        record=jt.Record(steps=(0, 8), observables=jt.activation_rate()),
    )

    def steal(update):
        write(tmp_path, {"host": "elsewhere", "pid": 7})

    with pytest.raises(FolderInUse, match=r"has lost its lock .* process 7 on elsewhere"):
        jt.run(sweep, tmp_path, progress=False, callbacks=(steal,))
    assert not list(tmp_path.rglob("*.npz"))
    assert not (tmp_path / "manifest.json").exists()
    (tmp_path / "locks" / "0-of-1.json").unlink()
    assert jt.run(sweep, tmp_path, progress=False).attrs["complete"]


def test_a_removed_lock_is_noticed(folder):
    with lock.held(folder, ALONE) as mine:
        mine.check()
        (folder / "locks" / "0-of-1.json").unlink()
        with pytest.raises(FolderInUse, match="belongs to nobody"):
            mine.check()


def test_a_container_with_the_same_host_name_and_pid_is_another_machine(folder):
    mine = lock._me()
    other = {**mine, "machine": "another boot", "started": "1", "token": "2"}
    write(folder, other)
    with pytest.raises(FolderInUse, match=rf"process {os.getpid()} on .*10 minutes"):
        take(folder)
    write(folder, other, age=3600)
    assert take(folder)
    # of this machine, the same pid with another start time has been reused
    write(folder, {**mine, "started": "1"})
    assert take(folder)
    # and a living owner keeps its lock although it was silent, being suspended
    write(folder, mine, age=3600)
    with pytest.raises(FolderInUse, match="wait for it, stop it"):
        take(folder)


def test_locks_of_older_versions_are_judged_by_host_and_pid(folder):
    mine = {"host": socket.gethostname(), "pid": os.getpid(), "started": lock._started(os.getpid())}
    write(folder, mine)
    with pytest.raises(FolderInUse, match="is being written by"):
        take(folder)
    write(folder, {**mine, "started": "1"})
    assert take(folder)


def test_a_killed_owner_that_nobody_waits_for_is_dead(folder):
    process = subprocess.Popen(["sleep", "60"])
    write(folder, {**lock._me(), "pid": process.pid, "started": lock._started(process.pid)})
    with pytest.raises(FolderInUse):
        take(folder)
    process.kill()
    # wait until it is a zombie, but leave it one
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert take(folder)
    process.wait()


def test_a_time_in_the_far_future_does_not_lock_a_folder_for_ever(folder):
    write(folder, {"host": "elsewhere", "pid": 1}, age=-1e6)
    assert take(folder)


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"3", b"{", b"{}", b"\xff\xfe", b"[" * 100_000, {"host": 5, "pid": 1},
     {"host": "a\nb", "pid": 1}, {"host": "h", "pid": "../../etc"}],
    ids=range(10),
)  # fmt: skip
def test_a_lock_file_of_other_content_is_one_line_and_expires(folder, content):
    path = write(folder, content)
    before = path.read_bytes()
    with pytest.raises(FolderInUse, match=r"written by an unknown process.*remove") as wrong:
        take(folder)
    assert "\n" not in str(wrong.value)
    assert path.read_bytes() == before
    write(folder, content, age=3600)
    assert take(folder)


def test_what_can_never_be_locked_is_bad_input_and_a_held_lock_is_not(tmp_path, folder, capsys):
    (folder / "locks" / "0-of-1.json").mkdir()
    with pytest.raises(InputError, match="in the place of a lock file") as wrong:
        take(folder)
    assert not isinstance(wrong.value, StorageError)
    file = tmp_path / "my_sweep.py"
    file.write_text(
        "import jthermo as jt\nSWEEP = jt.Sweep(model=jt.models.TwoLayer(inputs=2, hidden=2),\n"
        "    data=jt.data.Gaussian(dim=2), learning_rate=0.1, num_steps=2,\n"
        "    record=jt.Record(steps=(2,), observables=jt.activation_rate()))\n"
    )

    def code(out):
        with pytest.raises(SystemExit) as stop:
            verbs.main(["run", str(file), "--out", str(out), "--quiet"])
        assert len(capsys.readouterr().err.splitlines()) == 1
        return stop.value.code

    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "locks").write_text("mine")
    assert code(tmp_path / "a") == 2
    assert (tmp_path / "a" / "locks").read_text() == "mine"
    (tmp_path / "b").mkdir()
    with lock.held(tmp_path / "b", ALONE):
        assert code(tmp_path / "b") == 75


def test_without_flock_a_second_start_is_refused_too(folder, monkeypatch):
    def no_locks(file, how):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(lock.fcntl, "flock", no_locks)
    with lock.held(folder, ALONE):
        for shard in (ALONE, (0, 2)):
            with pytest.raises(FolderInUse, match="is being written"), lock.held(folder, shard):
                pass


def test_a_gate_that_stays_shut_is_one_line(folder, monkeypatch):
    monkeypatch.setattr(lock, "GATE_SECONDS", 0.05)
    with (
        lock._gate(folder / "locks", folder),
        pytest.raises(FolderInUse, match="by another process; try again"),
    ):
        take(folder)
