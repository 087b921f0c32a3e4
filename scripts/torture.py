"""Kill sweeps, damage checkpoints and fill the disk; print what was lost, one line per test.

usage: .venv/bin/python scripts/torture.py [--kills 100] [--damages 50]
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import jthermo as jt

SWEEP = """
import jthermo as jt

SWEEP = jt.Sweep(
    model=jt.models.TwoLayer(inputs=10, hidden=10), data=jt.data.Gaussian(dim=10), lane_width=8,
    learning_rate=(0.05, 0.1), seed=range(40), batch_size=(1, 2), num_steps=jt.RescaledSteps(8.0),
    record=jt.Record(
        steps=jt.log_steps(30), observables=(jt.activation_rate(), jt.weight_norm("V"))))
"""
RUN = ["-c", "import sys; from jthermo.cli import main; main(sys.argv[1:])"]
OFTEN = ["--checkpoint-seconds", "0.001", "--checkpoint-steps", "100"]


def start(*args):
    """Start a jthermo command in a separate process."""
    command = [sys.executable, *RUN, *map(str, args)]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment
    )


def archives(out):
    """The checkpoint archives of the first cohort that has two or more, newest last."""
    for folder in sorted(out.glob("checkpoints/*/*")):
        committed = (p for p in folder.glob("*/rows/rows.npz") if p.parts[-3].isdigit())
        ordered = sorted(committed, key=lambda p: int(p.parts[-3]))
        if len(ordered) >= 2:
            return ordered
    return []


def equal(out, whole):
    """Whether all records and the parameters of every 13th run agree byte for byte."""
    ds, reference = jt.open_results(out), jt.open_results(whole)
    same = all(
        ds[n].values.tobytes() == reference[n].values.tobytes()
        for n in ("step", *reference.data_vars)
    )
    for run in range(0, ds.sizes["run"], 13):
        one, two = (jt.open_params(folder, run) for folder in (out, whole))
        same = same and all(one[k].tobytes() == two[k].tobytes() for k in one)
    return same


def kill(file, whole, folder, number, rng):
    """Kill sweeps with SIGKILL at random moments, five times each; then let them finish."""
    kills = finished = agree = 0
    while kills < number:
        out = folder / f"kill{kills}"
        for _ in range(min(5, number - kills)):
            process = start("run", file, "--out", out, *OFTEN)
            time.sleep(rng.uniform(0.5, 6.0))
            process.kill()
            process.communicate()
            kills += 1
        process = start("run", file, "--out", out, *OFTEN)
        process.communicate()
        finished += process.returncode == 0
        agree += equal(out, whole)
    rounds = -(-number // 5)
    print(
        f"kill -9: {kills} kills in {rounds} sweeps; "
        f"{finished} of {rounds} finished, {agree} byte-equal",
        flush=True,
    )


def damage(file, whole, folder, number, rng):
    """Damage the newest checkpoint in four ways, `number` times each, and restore the previous one.

    Prints how often the damage was not reported, and how often the previous checkpoint was used.
    """
    from jthermo.execution.checkpoint import Checkpoints

    out = folder / "damage"
    process = start("run", file, "--out", out, *OFTEN)
    while len(archives(out)) < 2:
        time.sleep(0.02)
    process.kill()
    process.communicate()
    before, path = archives(out)[-2:]
    body = path.read_bytes()
    for kind in ("bit flip", "zeroed 4 KiB", "truncation", "deletion"):
        silent = used = 0
        for _ in range(number):
            broken = bytearray(body)
            if kind == "bit flip":
                broken[rng.integers(len(body))] ^= 1 << rng.integers(8)
            elif kind == "zeroed 4 KiB":
                at = int(rng.integers(max(1, len(body) - 4096)))
                broken[at : at + 4096] = bytes(4096)
            elif kind == "truncation":
                broken = broken[: int(rng.integers(len(body)))]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(broken)
            if kind == "deletion":
                path.unlink()
            messages = []
            checkpoints = Checkpoints(path.parents[2], (0, 1), messages.append)
            rows = checkpoints.restore()
            checkpoints.close()
            # Zeros may have been written over zeros.
            harmless = bytes(broken) == body
            silent += not messages and not harmless
            used += harmless or (
                bool(messages) and int(before.parts[-3]) == int(messages[0].rsplit(" ", 1)[1])
            )
            # Undo the renaming of the damaged checkpoint.
            for aside in path.parents[2].glob("bad-*"):
                aside.rename(path.parent.parent)
            assert rows is not None
        print(
            f"{kind}: {number} times; {silent} not reported, {used} resumed from the previous one",
            flush=True,
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(body[:-1000])
    process = start("run", file, "--out", out, *OFTEN)
    process.communicate()
    print(
        f"after the last damage the sweep finished with code {process.returncode}, "
        f"byte-equal: {equal(out, whole)}"
    )


def full_disk(file, whole, folder):
    """Let a sweep fill a small tmpfs, then enlarge it and resume."""
    out = folder / "disk"
    out.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", out], check=False
    ).returncode:
        print("full disk: skipped, since mounting a tmpfs needs root")
        return
    process = start("run", file, "--out", out / "o", *OFTEN)
    _, err = process.communicate()
    print(f"full disk: exit {process.returncode}: {err.strip().splitlines()[-1]}")
    subprocess.run(["mount", "-o", "remount,size=100m", out], check=True)
    process = start("run", file, "--out", out / "o", *OFTEN)
    process.communicate()
    print(f"  after enlarging it: exit {process.returncode}, byte-equal: {equal(out / 'o', whole)}")
    subprocess.run(["umount", out], check=True)


def main():
    """Run all tests."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=100, help="number of kills with SIGKILL")
    parser.add_argument(
        "--damages", type=int, default=50, help="number of damages of each of four kinds"
    )
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file, whole = folder / "torture_sweep.py", folder / "whole"
        file.write_text(SWEEP)
        assert start("run", file, "--out", whole).wait() == 0
        full_disk(file, whole, folder)
        damage(file, whole, folder, options.damages, rng)
        kill(file, whole, folder, options.kills, rng)


if __name__ == "__main__":
    main()
