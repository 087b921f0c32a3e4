"""Altered files of a results folder: keys missing or of another type, damaged text and bytes."""

import copy
import functools
import json
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jthermo as jt
from jthermo.execution.trained_params import open_params
from jthermo.paper import claims_json, claims_tables, experiment_folder
from jthermo.paper.report import report
from jthermo.results.writing import resumable
from scripts.fuzz.trial import Outcome, Trial, accepted, run_all

# What a node of a JSON file is replaced by.
NODES = (
    *(None, True, 0, -1, 5, 0.5, 1e300, 2**70, "", "x", "1", "a" * 300, "\ud800", "a\nb"),
    *([], [[]], [1], [1, 2], [[0, 1]], ["x"], {}, {"a": 1}, {"type": 5}, {"function": "x"}),
    *({"type": "jthermo.models:Nope"}, {"type": ""}, {"type": "jthermo.models:TwoLayer"}),
)
TEXTS = ("", "{", "[" * 100_000, "null", "5", '"x"', "[]", "{}", "NaN", "\0", "{'a': 1}")
# Readers, and how often each is tried; some take a second.
SHARES = {"open_results": 6, "status": 2, "resumable": 3, "open_params": 1, "run": 0.3}
SHARES |= {"findings": 4, "claims": 5, "tables": 3, "report": 0.1, "published": 0.2}
SHARES |= {"from_json": 5}
ROW = {
    "choice": {"model.init": "he"}, "variable": "loss", "control": "learning_rate",
    "control_values": [0.1, 0.2], "claimed": "2", "exponent": 1.98, "low": 1.9, "high": 2.06,
    "misfit": 0.01, "p_value": 0.3, "collapsed": True, "first": 0.5, "last": 0.2, "num_seeds": 8,
    "num_runs": 24, "num_left_out": 0, "verdict": "reproduced", "why": "because",
}  # fmt: skip
EVIDENCE = {
    "quantity": "slope", "relation": "=", "target": 1.0, "value": 1.1, "low": 0.9, "high": 1.3,
    "tolerance": 0.0, "choice": {}, "num_seeds": 4, "claimed": "1", "verdict": "reproduced",
    "why": "because",
}  # fmt: skip
MADE = {"date": "2026-01-01", "wall_seconds": 3.0, "versions": {"jax": "1"}, "device": "cpu"}
MADE |= {"num_devices": 1, "engine": "xla", "num_runs": 4, "num_seeds": 2, "num_diverged": 0}


def make(folder: Path) -> None:
    """A results folder of a small sweep, with findings, and claims.json beside it."""
    sweep = jt.Sweep(
        model=jt.models.TwoLayer(inputs=2, hidden=2),
        data=jt.data.Gaussian(dim=2),
        learning_rate=(0.1, 0.2),
        seed=(0, 1),
        num_steps=4,
        record=jt.Record(steps=(0, 2, 4), observables=(jt.loss(), jt.weight_norm("V"))),
        vary={"optimizer.momentum": (0.0, 0.5)},
    )
    jt.run(sweep, folder / "fig3_4-small", engine="xla", progress=False)
    about = {"experiment": "fig3_4", "scale": "small", "about": "text", "sweep_id": sweep.id}
    about |= {"command": "jthermo reproduce fig3_4 --scale small", "code": "0" * 64, "made": MADE}
    rows = {"C2": [ROW], "C3": [EVIDENCE]}
    findings = {**about, "rows": rows, "sensitivity": {}, "windows": {}, "shows": {"fig3": "loss"}}
    findings = experiment_folder.write(folder / "fig3_4-small", findings, {"fig3": b"<svg></svg>"})
    claims_json.update(folder / "claims.json", "fig3_4", findings)


def readers(folder: Path) -> dict[str, Callable[[], object]]:
    """Everything that reads such a folder."""
    results = folder / "fig3_4-small"
    page = folder / "page.md"
    return {
        "open_results": lambda: jt.open_results(results),
        "status": lambda: jt.status(results),
        "resumable": lambda: resumable(results),
        "open_params": lambda: open_params(results, 1),
        "run": lambda: jt.run(resumable(results), results, progress=False),
        "findings": lambda: experiment_folder.read(results),
        "claims": lambda: claims_tables.summary(claims_json.read(folder / "claims.json")),
        "tables": lambda: claims_tables.write_tables(folder / "claims.json", page),
        "report": lambda: report(folder, folder / "report.html"),
        "published": lambda: report(folder, folder / "report.html", published=True),
    }


def nodes(plain: Any) -> Iterator[tuple[Any, Any]]:
    """Every (container, key) of JSON data."""
    keys = plain if isinstance(plain, dict) else range(len(plain))
    for key in keys:
        yield plain, key
        if isinstance(plain[key], dict | list):
            yield from nodes(plain[key])


def altered(text: str, rng: random.Random) -> tuple[bytes, str]:
    """A JSON file with one or two nodes changed, or other bytes; and the change in words."""
    if rng.random() < 0.15:
        place = rng.randrange(len(text))
        kinds = (
            rng.choice(TEXTS).encode(),
            text[:place].encode(),
            text[:place].encode() + b"\xff" + text[place:].encode(),
            b"\xef\xbb\xbf" + text.encode(),
        )
        body = rng.choice(kinds)
        return body, f"{body[:20]!r} …"
    plain, words = json.loads(text), []
    for _ in range(rng.choice((1, 1, 1, 2))):
        if not (places := list(nodes(plain))):
            break
        container, key = rng.choice(places)
        kind = rng.random()
        if kind < 0.35:
            del container[key]
            words.append(f"{key} removed")
        elif kind < 0.45 and isinstance(container, dict):
            container[f"{key}x"] = container.pop(key)
            words.append(f"{key} renamed")
        else:
            container[key] = copy.deepcopy(rng.choice(NODES))
            words.append(f"{key} = {ascii(container[key])[:60]}")
    # with its digest, any changed file is refused before its keys are looked at
    if isinstance(plain, dict) and rng.random() < 0.7:
        for sealed in (plain, *plain.values()):
            if isinstance(sealed, dict) and isinstance(sealed.get("sha256"), str):
                del sealed["sha256"]
    return json.dumps(plain).encode(), ", ".join(words)


def read(template: Path, file: str, body: bytes | None, reader: str) -> None:
    """Read a copy of the folder in which one file is altered, or is a folder (None)."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as scratch:
        folder = Path(scratch) / "results"
        shutil.copytree(template, folder)
        (folder / "page.md").write_text("<!-- claims:begin -->\n<!-- claims:end -->\n")
        if body is None:
            (folder / file).unlink()
            (folder / file).mkdir()
        elif body:
            (folder / file).write_bytes(body)
        readers(folder)[reader]()


def parsed(body: bytes) -> None:
    """The sweep of altered JSON."""
    jt.Sweep.from_json(body.decode(errors="replace")).to_json()


def run(count: int, seed: int) -> list[Outcome]:
    """Try `count` altered files."""
    rng, template = random.Random(seed), Path(tempfile.mkdtemp(prefix="fuzz-"))
    try:
        # in a process of its own, since this one is forked and must not have started JAX
        if (pid := os.fork()) == 0:
            try:
                make(template)
            except BaseException as error:
                print(f"the folder can't be made: {error!r}", file=sys.stderr)
                os._exit(1)
            os._exit(0)
        if os.waitpid(pid, 0)[1]:
            raise RuntimeError("the folder can't be made")
        files = [str(p.relative_to(template)) for p in sorted(template.rglob("*.json"))]
        files = [name for name in files if "checkpoints" not in name]
        sweep = json.loads((template / "fig3_4-small" / "sweep.json").read_text("utf-8"))["sweep"]
        trials = [
            Trial(name, functools.partial(accepted, read, template, files[0], b"", name))
            for name in readers(template)
        ]
        while len(trials) < count:
            (reader,) = rng.choices(list(SHARES), list(SHARES.values()))
            if reader == "from_json":
                body, words = altered(json.dumps(sweep), rng)
                trials.append(Trial(f"from_json: {words}", functools.partial(parsed, body)))
                continue
            own = [f for f in files if ("/" in f) == (reader not in ("claims", "tables"))]
            file = rng.choice(files if reader in ("report", "published") else own)
            altering = altered((template / file).read_text("utf-8"), rng)
            body, words = altering if rng.random() < 0.98 else (None, "a folder")
            text = f"{reader} with {file}: {words}"
            trials.append(Trial(text, functools.partial(read, template, file, body, reader)))
        return run_all(trials[:count])
    finally:
        shutil.rmtree(template)
