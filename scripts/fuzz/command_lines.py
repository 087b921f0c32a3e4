"""Hostile command lines of every verb, with what a user may mistype, and files that fail."""

import contextlib
import functools
import io
import os
import random
import shutil
import sys
import tempfile
from pathlib import Path

from jthermo.cli import verbs
from jthermo.errors import InputError
from scripts.fuzz.json_files import make
from scripts.fuzz.trial import Outcome, Trial, accepted, run_all

OWN = """
import jthermo as jt

SWEEP = jt.Sweep(
    model=jt.models.TwoLayer(inputs=3, hidden=4), data=jt.data.Gaussian(dim=3),
    learning_rate=(0.1, 0.2), seed=range(2), num_steps=4,
    record=jt.Record(steps=(0, 2), observables=jt.loss(), probe_size=4))
"""
# Sweep files that fail, by name; the last is a folder.
FILES = {
    "exits.py": "import sys\nsys.exit(3)\n",
    "stops.py": "raise SystemExit\n",
    "nul.py": "x = '\0'\n",
    "syntax.py": "x = (\n",
    "latin.py": b"x = '\xff'\n",
    "raises.py": "1 / 0\n",
    "deep.py": "def f(): f()\nf()\n",
    "empty.py": "",
    "other.py": "SWEEP = 5\n",
    "small.py": OWN + "SMALL = 5\n",
    "lines.py": "raise ValueError('a\\nb')\n",
    "bad.py": OWN.replace("0.1,", "-0.1,"),
    "name with blank.py": OWN,
    "a" * 240 + ".py": OWN,
    "table.csv": "dose,t,y,seed\n1,1,1,0\n1,2,0.5,0\n2,1,0.7,0\n2,2,0.2,0\n",
    "broken.csv": b"\xff\xfe\0a,b\n1\n",
    "empty.csv": "",
    "text.csv": "a,b\nx,y\n",
    "broken.parquet": "PAR1",
    "page.md": "no markers\n",
    "folder.py": None,
}
TARGETS = (
    *FILES,
    *("own.py", "own.py", "own.py", "fig3_4", "fig99", "", ".", "/", "absent.py", "absent", "x\ny"),
    *(
        "\udcff.py",
        "a" * 300,
        "a/" * 2500,
        "/dev/full",
        "/proc/x",
        "-",
        "--",
        "~nobody/x",
        "results",
    ),
)
FOLDERS = (
    *("results/fig3_4-small", "results/fig3_4-small", "results/fig3_4-small", "results", "absent"),
    *("own.py", "", ".", "a" * 300, "/dev/full", "/dev/full/x", "/proc/x", "x\ny", "\udcff"),
    *("table.csv", "empty.csv", "text.csv", "broken.csv", "broken.parquet", "absent.csv"),
)
WORDS = (
    *("0", "1", "-1", "2", "0.1", "nan", "inf", "-inf", "1e-320", "1e300", "1e999", "", "x", "a b"),
    *("10" * 200, "4294967296", "0:3", "3:0", "0:1000000000000", "0:5:2", ":", "a:b", "1" * 5000),
    *(
        "a=b",
        "=",
        "a=",
        "=1",
        "==",
        "loss",
        "finite",
        "learning_rate",
        "seed=0",
        "seed=x",
        "seed=99",
    ),
    *("step", "none", "true", "null", "[]", "{}", "[[", "[" * 10_000, "NaN", "\udcff", "é", "\n"),
    *(
        "model.hidden=5",
        "model.hidden=x",
        "model=5",
        "data.dim=3",
        "vary=5",
        'points=[{"seed": 1}]',
    ),
    *("record.observables=[]", "num_steps=0", "seed=[1,1]", "max_runs=1", "optimizer.fn=x", "=5"),
    *("model.hidden=[[[", "record.steps=[0,1]", "model.bias=no", "common_data=no", "absent=1"),
    *(
        "xla",
        "fused",
        "auto",
        "small",
        "paper",
        "csv",
        "netcdf",
        "slurm",
        "0/2",
        "2/2",
        "1/0",
        "a/b",
    ),
    *("C2", "C99", "all", "24:00:00", "99", "x;y", "$(touch PWNED)", "learning_rate=2", "a" * 300),
    *("batch_size=-1:1", "learning_rate=1:2:3", "learning_rate=nan", "--help", "--", "-x", "0.5"),
)
# Headings of the messages of tyro, which parses the command line; these have several lines.
PARSER = ("Value error", "Unrecognized", "Required", "Missing argument", "Invalid choice")
CHANGES = ("--learning-rate", "--batch-size", "--seed", "--num-steps", "--noise", "--loss", "--set")
HOW = ("--placement", "--engine", "--extend", "--shard", "--checkpoint-seconds", "--quiet")
HOW += ("--checkpoint-steps", "--out", "--scale")
LAW = ("--value", "--controls", "--time", "--replicate", "--where", "--window", "--fixed")
LAW += ("--rescale", "--correction", "--confidence", "--columns", "--error", "--critical-point")
LAW += ("--branches", "--offset", "--scale", "--clock-window")
FIT = (*LAW, "--advice", "--as-json")
PLAN = ("--devices", "--hosts", "--rate", "--memory-gb", "--platform", "--scale")
JOB = ("--tasks", "--nodes", "--gpus", "--cpus", "--time", "--name", "--partition", "--setup")
JOB += ("--image", "--claim", "--rate", "--spot", "--out", "--accelerator", "--zone")
# Per verb: its share, the arguments that it starts with, and its options.
VERBS = {
    "run": (2, ("own.py", "--quiet"), (*CHANGES, *HOW)),
    "resume": (1, ("results/fig3_4-small", "--quiet"), HOW),
    "plan": (6, ("own.py", "--no-measure"), (*CHANGES, *PLAN)),
    "fit": (4, ("results/fig3_4-small", "--value", "loss"), FIT),
    "plot": (3, ("results/fig3_4-small", "--value", "loss", "--where", "optimizer.momentum=0"),
             ("--value", "--by", "--powers", "--where", "--out")),
    "explore": (1, ("results/fig3_4-small",), (*LAW, "--out")),
    "export": (3, ("results/fig3_4-small", "--to", "csv"), ("--to", "--out")),
    "status": (2, ("results/fig3_4-small",), ()),
    "claims": (2, (), ("--results", "--only", "--into")),
    "report": (1, (), ("--results", "--out", "--published")),
    "launch": (6, ("slurm", "own.py", "--print"), (*CHANGES, *JOB)),
    "reproduce": (1, ("fig99",), ("--scale", "--out", "--quiet")),
    "list": (0.3, (), ()),
    "doctor": (0.3, (), ("--results",)),
}  # fmt: skip


def command(verb: str, rng: random.Random) -> list[str]:
    """A verb with its arguments, of which some are replaced, removed, doubled or added."""
    _, start, options = VERBS[verb]
    words = list(start)
    for _ in range(rng.choice((1, 1, 2, 3))):
        place = rng.randrange(len(words)) if words else 0
        kind = rng.random()
        if options and kind < 0.6:
            values = rng.choices(WORDS, k=rng.choice((0, 1, 1, 1, 2)))
            if (option := rng.choice(options)) in ("--out", "--results", "--into"):
                values = [rng.choice(FOLDERS)]
            words += [option, *values]
        elif words and kind < 0.8 and not words[place].startswith("-"):
            pool = FOLDERS if "results" in words[place] else TARGETS
            words[place] = rng.choice(pool if "." in words[place] or "/" in words[place] else WORDS)
        elif words and kind < 0.9 and words[place] != "fig99":
            del words[place]
        else:
            words.insert(place, rng.choice(WORDS))
    # an experiment trains for minutes
    words = ["fig99" if verb == "reproduce" and word == "all" else word for word in words]
    words = ["own.py" if verb in ("run", "reproduce") and w == "fig3_4" else w for w in words]
    return [verb, *words]


def use(template: Path, words: list[str]) -> None:
    """Run a command in a copy of the folder, and check its exit code and its message."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as scratch:
        folder, before = Path(scratch) / "here", Path.cwd()
        shutil.copytree(template, folder)
        os.chdir(folder)
        out, err, code = io.StringIO(), io.StringIO(), 0
        names = set(sys.modules)
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                verbs.main(words)
        except SystemExit as stop:
            code = stop.code or 0
        finally:
            os.chdir(before)
            for name in set(sys.modules) - names:
                if name in {Path(file).stem for file in ("own.py", *FILES)}:
                    del sys.modules[name]
        text = err.getvalue().strip()
        if (folder / "PWNED").exists():
            raise AssertionError("a shell ran a word of the command line")
        if code == 0 or (code == 1 and words[0] == "doctor"):
            return
        if code != verbs.BAD_INPUT or "Traceback" in text:
            raise AssertionError(f"exit code {code}: {text}")
        if "\n" in text and not any(head in text.partition("\n")[0] for head in PARSER):
            raise AssertionError(f"a message of several lines: {text}")
        raise InputError("command", words, text)


def fill(folder: Path) -> None:
    """The files that the commands use."""
    make(folder / "results")
    (folder / "own.py").write_text(OWN)
    for name, body in FILES.items():
        path = folder / name
        if body is None:
            path.mkdir()
        else:
            path.write_bytes(body if isinstance(body, bytes) else body.encode())


def run(count: int, seed: int) -> list[Outcome]:
    """Try `count` hostile command lines."""
    rng, template = random.Random(seed), Path(tempfile.mkdtemp(prefix="fuzz-"))
    try:
        if (pid := os.fork()) == 0:
            (template / "results").mkdir()
            fill(template)
            os._exit(0)
        if os.waitpid(pid, 0)[1]:
            raise RuntimeError("the folder can't be made")
        trials = [
            Trial(verb, functools.partial(accepted, use, template, [verb, *start]))
            for verb, (_, start, _) in VERBS.items()
            if verb not in ("reproduce", "fit", "explore")
        ]
        shares = [share for share, _, _ in VERBS.values()]
        while len(trials) < count:
            (verb,) = rng.choices(list(VERBS), shares)
            words = command(verb, rng)
            shown = ascii([w[:60] for w in words])
            trials.append(Trial(shown, functools.partial(use, template, words)))
        return run_all(trials[:count])
    finally:
        shutil.rmtree(template)
