"""Real processes that are killed, signalled or run in pairs end with the bytes of a normal run."""

import os
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

import jthermo as jt
from jthermo.errors import InputError
from jthermo.results.writing import resumable

SWEEP = """
import jthermo as jt

SWEEP = jt.Sweep(
    model=jt.models.TwoLayer(inputs=10, hidden=10), data=jt.data.Gaussian(dim=10), lane_width=8,
    learning_rate=(0.05, 0.1), seed=range(40), batch_size=(1, 2), num_steps=jt.RescaledSteps(4.0),
    record=jt.Record(
        steps=jt.log_steps(30), observables=(jt.activation_rate(), jt.weight_norm("V"))))
"""
CODE = "import sys; from jthermo.cli import main; main(sys.argv[1:])"


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("sweep") / "processes_sweep.py"
    path.write_text(SWEEP)
    return path


@pytest.fixture(scope="module")
def whole(file):
    return jt.run(jt.reproduction.load(str(file)).SWEEP, file.parent / "whole", progress=False)


def start(*args, env=()):
    """Start a jthermo command in a separate process."""
    command = [sys.executable, "-c", CODE, *map(str, args)]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", **dict(env)}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


def run_args(file, out):
    """Arguments of ``jthermo run`` with a checkpoint every 50 steps."""
    return ["run", file, "--out", out, "--checkpoint-seconds", "0.001", "--checkpoint-steps", "50"]


def equal(out, whole):
    """Assert that records and trained parameters agree byte for byte."""
    ds = jt.open_results(out)
    for name in ("step", "activation_rate", "weight_norm_V", "finite"):
        assert ds[name].values.tobytes() == whole[name].values.tobytes(), name
    for run in (0, 70, 159):
        one, two = (jt.open_params(folder, run) for folder in (out, out.parent / "reference"))
        assert all(one[k].tobytes() == two[k].tobytes() for k in one)


@pytest.fixture
def out(tmp_path, file, whole):
    (tmp_path / "reference").symlink_to(file.parent / "whole")
    return tmp_path / "out"


def wait_for(condition, process, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < end
        time.sleep(0.01)


def saved(out):
    """The folders of committed checkpoints."""
    return [p for p in out.glob("checkpoints/*/*/*") if p.name.isdigit()]


def test_a_sweep_killed_at_random_moments_ends_with_the_same_bytes(file, out, whole):
    rng = np.random.default_rng(5)
    for _ in range(3):
        process = start(*run_args(file, out))
        wait_for(lambda: saved(out) or (out / "manifest.json").exists(), process)
        time.sleep(rng.uniform(0, 0.5))
        process.kill()
        process.communicate()
    process = start("resume", out)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    equal(out, whole)
    assert "Traceback" not in err


def test_a_signal_saves_and_exits_75_and_the_same_command_resumes(file, out, whole):
    """Each of three calls of the command gets another signal; the fourth call gets none."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        before = {p.name for p in saved(out)}
        process = start(*run_args(file, out))
        wait_for(lambda before=before: {p.name for p in saved(out)} - before, process)
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 75, err
        assert f"{number.name} at step" in err
        assert "Traceback" not in err
    process = start(*run_args(file, out))
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    equal(out, whole)


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def test_if_one_of_two_processes_is_killed_the_other_fails_and_one_can_resume(file, out, whole):
    port = free_port()
    options = [
        "--distributed",
        "--coordinator",
        f"127.0.0.1:{port}",
        "--num-processes",
        2,
        "--heartbeat-timeout",
        10,
    ]
    pair = [start(*run_args(file, out), *options, "--process-id", i) for i in range(2)]
    wait_for(lambda: {p.parent.parent.name for p in saved(out)} == {"0-of-2", "1-of-2"}, pair[0])
    pair[1].kill()
    pair[1].communicate()
    assert pair[0].wait(timeout=90) != 0
    pair[0].communicate()
    process = start("resume", out)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    equal(out, whole)


def test_two_processes_give_the_bits_of_one_and_one_manifest(file, out, whole):
    port = free_port()
    options = ["--distributed", "--coordinator", f"127.0.0.1:{port}", "--num-processes", 2]
    pair = [start(*run_args(file, out), *options, "--process-id", i) for i in range(2)]
    for process in pair:
        _, err = process.communicate(timeout=180)
        assert process.returncode == 0, err
    assert [p.name for p in out.glob("manifest*.json")] == ["manifest.json"]
    equal(out, whole)


def test_resume_of_nothing_is_refused(tmp_path):
    process = start("resume", tmp_path)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "nothing to resume" in err
    with pytest.raises(InputError, match="nothing to resume"):
        resumable(tmp_path)
