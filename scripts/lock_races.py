"""Start several writers of one results folder at the same moment, and count who holds its lock.

Prints one line per kind of race, and exits with code 1 if a folder ever had no writer, or two that
may not write at once.

usage: .venv/bin/python scripts/lock_races.py [--races 2000] [--without-gate]
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import multiprocessing
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from jthermo.errors import InputError
from jthermo.execution import lock

WHOLE, FIRST, SECOND = (0, 1), (0, 2), (1, 2)


def owner(**changes):
    """A lock file of a process on this machine that has ended."""
    ended = subprocess.Popen(["true"])
    ended.wait()
    mine = lock._me()
    return {**mine, "pid": ended.pid, "started": "1", **changes}


# For each kind of race: the lock file found, its age in seconds, and the shards that start.
KINDS = {
    "no lock": (None, 0, [WHOLE] * 4),
    "owner dead": (owner(), 0, [WHOLE] * 4),
    "owner elsewhere, silent for an hour": (owner(machine="elsewhere"), 3600, [WHOLE] * 4),
    "lock of jthermo 0.2.0, owner dead": (
        {"host": socket.gethostname(), "pid": owner()["pid"], "started": "1"},
        0,
        [WHOLE] * 4,
    ),
    "JSON without an owner, an hour old": ([1], 3600, [WHOLE] * 4),
    "unsharded beside shards": (owner(), 0, [WHOLE, FIRST, SECOND, WHOLE]),
}


def contestant(number, shards, folder, barrier, holds):
    """Try to hold the lock in every race; `shards` and `folder` are those of each race."""
    for shard_of, directory in zip(shards, folder, strict=True):
        barrier.wait(60)
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(lock.held(directory, shard_of[number]))
                holds[number] = 1
            except InputError:
                holds[number] = 0
            # hold it until everybody has tried
            barrier.wait(60)
            # and until the referee has read the result
            barrier.wait(60)


def may_both(one, other):
    """Whether two shards may be written at the same time."""
    return one[1] == other[1] and one[0] != other[0]


def main():
    """Run the races and print what happened."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--races", type=int, default=2000, help="number of races of all kinds")
    parser.add_argument(
        "--without-gate",
        action="store_true",
        help="negative control: locks are taken without the gate",
    )
    options = parser.parse_args()
    # Half of the looks at another's lock take up to 3 ms longer, so that the contestants overlap.
    look, gate = lock._owner, lock._gate

    def slow_look(path):
        found = look(path)
        time.sleep(random.choice((0.0, 0.003)) * random.random())
        return found

    @contextlib.contextmanager
    def open_gate(folder, directory):
        with gate(folder, directory) as now:
            pass
        yield now

    lock._owner = slow_look
    if options.without_gate:
        lock._gate = open_gate
    order = [kind for kind, _ in zip(itertools.cycle(KINDS), range(options.races), strict=False)]
    context = multiprocessing.get_context("fork")
    barrier, holds = context.Barrier(5), context.Array("b", 4)
    counts = {kind: [0, 0, 0] for kind in KINDS}
    with tempfile.TemporaryDirectory() as name:
        folders = [Path(name) / str(race) for race in range(options.races)]
        shards = [KINDS[kind][2] for kind in order]
        processes = [
            context.Process(
                target=contestant, args=(i, shards, folders, barrier, holds), daemon=True
            )
            for i in range(4)
        ]
        for process in processes:
            process.start()
        for kind, folder, starts in zip(order, folders, shards, strict=True):
            found, age, _ = KINDS[kind]
            (folder / "locks").mkdir(parents=True)
            if found is not None:
                path = folder / "locks" / "0-of-1.json"
                path.write_text(json.dumps(found))
                os.utime(path, (time.time() - age,) * 2)
            barrier.wait(60)
            barrier.wait(60)
            held = [shard for shard, holding in zip(starts, holds[:], strict=True) if holding]
            fair = all(may_both(a, b) for a, b in itertools.combinations(held, 2))
            counts[kind][0 if not held else 1 if fair else 2] += 1
            barrier.wait(60)
        for process in processes:
            process.join()
    for kind, (none, one, several) in counts.items():
        print(
            f"{kind}: {none + one + several} races; one holder in {one}, none in {none}, "
            f"several in {several}",
            flush=True,
        )
    none, one, several = (sum(column) for column in zip(*counts.values(), strict=True))
    print(f"all: {options.races} races; one holder in {one}, none in {none}, several in {several}")
    sys.exit(one != options.races)


if __name__ == "__main__":
    main()
