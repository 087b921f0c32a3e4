"""Flip single bits in all files of a results folder; count the differences that nothing reports.

usage: .venv/bin/python scripts/flips.py [--flips 2000] [--seed 0]

Half of the flips hit a finished folder, half an unfinished one. After each, the folder is opened,
its parameters are read, and the sweep is run again: each has to give what it gave before, or to
report damage.
"""

import argparse
import collections
import contextlib
import io
import os
import shutil
import signal
import tempfile
import traceback
from pathlib import Path

import numpy as np

import jthermo as jt

SWEEP = jt.Sweep(
    model=jt.models.TwoLayer(inputs=3, hidden=4),
    data=jt.data.Gaussian(dim=3),
    learning_rate=(0.05, 0.1),
    seed=range(3),
    num_steps=40,
    record=jt.Record(
        steps=jt.log_steps(5), observables=(jt.activation_rate(), jt.weight_norm("V"))
    ),
)
NOTICED, HARMLESS, SILENT, CRASHED = "noticed", "harmless", "silent", "crashed"


def stop(update):
    """A callback that stops the sweep after its first updates."""
    if 0 < update.run_steps < update.total:
        os.kill(os.getpid(), signal.SIGTERM)


def folders(root):
    """A finished and an unfinished folder of the sweep; the second has records and checkpoints."""
    jt.run(SWEEP, root / "finished", engine="xla", progress=False)
    # the runs of one learning rate are finished, the others have two checkpoints
    out = root / "unfinished"
    jt.run(SWEEP.replace(learning_rate=0.05), out, engine="xla", progress=False)
    options = {"extend": True, "checkpoint_steps": 1, "progress": False}
    with contextlib.suppress(jt.Interrupted):
        jt.run(SWEEP, out, engine="xla", callbacks=(stop,), **options)
    return [root / "finished", out]


def answers(folder):
    """What each way to use a folder gives, or the error with which it refuses; and what was said.

    The time spent is left out, since a folder that is rebuilt spends more.
    """
    said = io.StringIO()

    def records(ds):
        plain = ds.to_dict()
        plain["attrs"] = {k: v for k, v in ds.attrs.items() if not k.endswith("_seconds")}
        return plain

    uses = {
        "open": lambda: records(jt.open_results(folder)),
        "params": lambda: {k: v.tobytes() for k, v in jt.open_params(folder, 0).items()},
        "run": lambda: records(jt.run(SWEEP, folder, engine="xla")),
    }
    given = {}
    with contextlib.redirect_stderr(said):
        for name, use in uses.items():
            try:
                given[name] = repr(use())
            except jt.InputError as error:
                given[name] = error
            except Exception:
                given[name] = traceback.format_exc()
    return given, said.getvalue()


def outcome(expected, given, said):
    """How a flip ended: the worst of the three uses."""
    differ = [given[name] for name, answer in expected.items() if given[name] != answer]
    if any(isinstance(answer, str) and answer.startswith("Traceback") for answer in differ):
        return CRASHED
    if any(isinstance(answer, str) for answer in differ):
        return SILENT
    return NOTICED if differ or "damaged" in said or "set aside" in said else HARMLESS


def kind(path, folder):
    """A file's row of the table: its place in the folder, without the names of runs."""
    place = path.relative_to(folder)
    return (
        place.name if len(place.parts) == 1 else f"{place.parts[0]}/…{place.suffix or place.name}"
    )


def flip_all(root, number, seed):
    """Flip `number` bits, one at a time.

    Returns:
        The number of flips by (file, outcome), and a text for each that was silent or crashed.
    """
    rng = np.random.default_rng(seed)
    counts, faults = collections.Counter(), []
    originals = folders(root)
    work = root / "flipped"
    expected = {}
    for folder in originals:
        shutil.copytree(folder, work)
        expected[folder], _ = answers(work)
        shutil.rmtree(work)
    for i in range(number):
        folder = originals[i % len(originals)]
        shutil.copytree(folder, work)
        files = sorted(p for p in work.rglob("*") if p.is_file() and p.stat().st_size)
        path = files[rng.integers(len(files))]
        body = bytearray(path.read_bytes())
        at, bit = int(rng.integers(len(body))), int(rng.integers(8))
        body[at] ^= 1 << bit
        path.write_bytes(body)
        given, said = answers(work)
        ended = outcome(expected[folder], given, said)
        counts[f"{folder.name}/{kind(path, work)}", ended] += 1
        if ended in (SILENT, CRASHED):
            faults.append(f"{ended}: {path.relative_to(work)}, byte {at}, bit {bit}: {given}")
        shutil.rmtree(work)
    return counts, faults


def table(counts):
    """The counts as a text table, one row per kind of file."""
    columns = (NOTICED, HARMLESS, SILENT, CRASHED)
    lines = [f"{'file':<48}" + "".join(f"{c:>10}" for c in columns)]
    names = sorted({name for name, _ in counts})
    lines += [f"{n:<48}" + "".join(f"{counts[n, c]:>10}" for c in columns) for n in names]
    sums = (sum(counts[n, c] for n in names) for c in columns)
    return "\n".join([*lines, f"{'all':<48}" + "".join(f"{s:>10}" for s in sums)])


def main():
    """Flip bits and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--flips", type=int, default=2000, help="number of flipped bits")
    parser.add_argument("--seed", type=int, default=0, help="seed of the choice of bits")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        counts, faults = flip_all(Path(name), options.flips, options.seed)
    print(table(counts), *faults, sep="\n")


if __name__ == "__main__":
    main()
