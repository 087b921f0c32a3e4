"""Kill sweeps, damage checkpoints and fill the disk; print what was lost, one line per test.

Sweeps of two data sources are killed while they train whole, in two shards at once, and while they
are extended. A sweep with a damaged record file and one that is trained further are killed before
each change that they make to their folders. Every sweep then has to end with the bytes of an
uninterrupted one; otherwise the exit code is 1.

usage: .venv/bin/python scripts/torture.py [--kills 100] [--damages 50]
"""

import argparse
import os
import shutil
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
TEACHER = SWEEP.replace(
    "data=jt.data.Gaussian(dim=10)",
    "data=jt.data.Teacher(jt.data.Gaussian(dim=10), jt.models.TwoLayer(inputs=10, hidden=3))",
)
# The same runs with records at equal distances, so that they can be trained further.
EVEN = SWEEP.replace("jt.RescaledSteps(8.0)", "4000").replace("jt.log_steps(30)", "jt.every(200)")
RUN = ["-c", "import sys; from jthermo.cli import main; main(sys.argv[1:])"]
# Runs jthermo, and kills it before its N-th change of a file's name, N being the first argument.
KILLED_AT = """
import os, signal, sys
from pathlib import Path

left = int(sys.argv.pop(1))


def killing(change):
    def changed(*args, **options):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return change(*args, **options)

    return changed


for owner, names in ((Path, ("rename", "replace", "unlink")), (os, ("rename", "replace"))):
    for name in names:
        setattr(owner, name, killing(getattr(owner, name)))
from jthermo.cli import main

main(sys.argv[1:])
"""
OFTEN = ["--checkpoint-seconds", "0.001", "--checkpoint-steps", "100"]


def start(*args, program=RUN):
    """Start a jthermo command in a separate process."""
    command = [sys.executable, *program, *map(str, args)]
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


def killed(rng, number, *commands):
    """Start commands together and kill them at a random moment, `number` times; then finish them.

    Returns:
        Whether all of them ended with code 0.
    """
    for left in range(number, -1, -1):
        processes = [start("run", *command, *OFTEN) for command in commands]
        if left:
            time.sleep(rng.uniform(0.5, 6.0))
            for process in processes:
                process.kill()
        for process in processes:
            process.communicate()
    return all(process.returncode == 0 for process in processes)


def whole_sweep(rng, file, out):
    """Five kills of a sweep."""
    return killed(rng, 5, [file, "--out", out])


def two_shards(rng, file, out):
    """Five kills of two shards that train at the same time."""
    return killed(rng, 5, *([file, "--out", out, "--shard", f"{i}/2"] for i in range(2)))


def extended(rng, file, out):
    """Two kills of a part of a sweep, and three while it is extended."""
    part = killed(rng, 2, [file, "--out", out, "--seed", "0:24"])
    return part and killed(rng, 3, [file, "--out", out, "--extend"])


def kill(sweeps, folder, number, rng):
    """Kill sweeps with SIGKILL at random moments, five times each; then let them finish.

    Args:
        sweeps: for each data source, the file of the sweep and its uninterrupted results.
        folder: a scratch folder.
        number: number of kills, a multiple of 5.
        rng: draws the moments.
    """
    ways = [(source, way) for way in (whole_sweep, two_shards, extended) for source in sweeps]
    counts = {way: [0, 0, 0] for way in ways}
    for turn in range(-(-number // 5)):
        source, way = ways[turn % len(ways)]
        (file, whole), out = sweeps[source], folder / f"kill{turn}"
        finished = way(rng, file, out)
        count = counts[source, way]
        count[0] += 1
        count[1] += finished
        count[2] += finished and equal(out, whole)
    for (source, way), (rounds, finished, agree) in counts.items():
        print(
            f"kill -9, {source}, {way.__name__.replace('_', ' ')}: {5 * rounds} kills in {rounds} "
            f"sweeps; {finished} finished, {agree} byte-equal",
            flush=True,
        )
    return all(rounds == agree for rounds, _, agree in counts.values())


def damaged(whole, out):
    """Copy results, with a damaged record file."""
    shutil.copytree(whole, out)
    path = min(out.glob("records/*.npz"))
    path.write_bytes(path.read_bytes()[:-100])


def kill_before_each_change(what, file, whole, folder, begin, *options):
    """Kill a sweep before each of its changes of a file, and start it again.

    Args:
        what: the sweep in words.
        file: the file of the sweep.
        whole: its uninterrupted results.
        folder: a scratch folder.
        begin: makes the results that the sweep finds.
        options: of the command.
    """
    kills = agree = 0
    while True:
        out = folder / f"{what}{kills}"
        begin(out)
        command = ["run", file, "--out", out, *options]
        process = start(*command, program=["-c", KILLED_AT, str(kills)])
        process.communicate()
        if process.returncode == 0:
            break
        kills += 1
        process = start(*command)
        process.communicate()
        agree += process.returncode == 0 and equal(out, whole)
        shutil.rmtree(out)
    last = equal(out, whole)
    print(
        f"kill -9 inside {what}: {kills} kills, each before another change of a file; "
        f"{agree} byte-equal after a restart; without a kill: {last}",
        flush=True,
    )
    return kills == agree and kills > 0 and last


def further(folder):
    """Train runs further, killed before each change of a file."""
    file, whole, short = (folder / name for name in ("further.py", "longer", "shorter"))
    file.write_text(EVEN)
    assert start("run", file, "--out", whole).wait() == 0
    assert start("run", file, "--out", short, "--num-steps", 1000).wait() == 0

    def begin(out):
        shutil.copytree(short, out)

    return kill_before_each_change("more steps", file, whole, folder, begin, "--extend")


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
        f"byte-equal: {(same := equal(out, whole))}",
        flush=True,
    )
    return same


def full_disk(file, whole, folder):
    """Let a sweep fill a small tmpfs, then enlarge it and resume."""
    out = folder / "disk"
    out.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", out], check=False
    ).returncode:
        print("full disk: skipped, since mounting a tmpfs needs root")
        return True
    process = start("run", file, "--out", out / "o", *OFTEN)
    _, err = process.communicate()
    print(f"full disk: exit {process.returncode}: {err.strip().splitlines()[-1]}")
    subprocess.run(["mount", "-o", "remount,size=100m", out], check=True)
    process = start("run", file, "--out", out / "o", *OFTEN)
    process.communicate()
    same = equal(out / "o", whole)
    print(f"  after enlarging it: exit {process.returncode}, byte-equal: {same}", flush=True)
    subprocess.run(["umount", out], check=True)
    return same


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
        folder, sweeps = Path(name), {}
        for source, text in (("Gaussian", SWEEP), ("Teacher", TEACHER)):
            file, whole = folder / f"torture_{source}.py", folder / f"whole_{source}"
            file.write_text(text)
            assert start("run", file, "--out", whole).wait() == 0
            sweeps[source] = file, whole
        file, whole = sweeps["Gaussian"]
        passed = [
            full_disk(file, whole, folder),
            damage(file, whole, folder, options.damages, rng),
            kill_before_each_change(
                "the set-aside", file, whole, folder, lambda out: damaged(whole, out), *OFTEN
            ),
            further(folder),
            kill(sweeps, folder, options.kills, rng),
        ]
    sys.exit(not all(passed))


if __name__ == "__main__":
    main()
