"""scripts/gpu without a GPU: the page agrees with its JSON, and a failure stops nothing else."""

import argparse
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

from jthermo.sweep.user_file import import_file

ROOT = Path(__file__).parent.parent
FOLDERS = [ROOT / "scripts" / name for name in ("benchmark", "gpu")]


@pytest.fixture
def script(monkeypatch):
    for folder in FOLDERS:
        monkeypatch.syspath_prepend(folder)
    return importlib.import_module


def found():
    machine = {"device": "abacus", "driver": "580.1", "versions": {"jax": "1"}}
    return {
        "machine": {"name": "Abacus 9000", **machine},
        "date": "today",
        "plain-jax": [{"case": "runs-16", "runs": 16, "ns": 4321.0}],
        "jthermo-xla": [{"case": "runs-16", "runs": 16, "error": "no"}],
        "jthermo-fused": [{"case": "wide", "runs": 1024, "ns": 0.123}],
        "widths": [{"net": "small", "width": w, "runs": w, "ns": 1e4 / w} for w in (16, 64)],
        "layouts": [
            {
                "net": "wide",
                "runs": 64,
                "ns": ns,
                "runs_per_program": 2,
                "warps": 8,
                "unrolled": False,
            }
            for ns in (9.0, 7.0)
        ],
        "tests": {
            "rows": [{"name": "a", "outcome": "passed"}, {"name": "b", "outcome": "failure"}]
        },
    }


def test_the_page_says_what_was_measured_and_where(script):
    page = script("tables").page(found())
    assert "one Abacus 9000, driver 580.1, JAX 1, today" in page
    lines = page.splitlines()
    (plain,) = (line for line in lines if line.startswith("| plain JAX") and "4,321" in line)
    assert plain.count("–") == len(script("nets").RUNS) - 1
    assert sum("| 0.123 |" in line for line in lines) == 1
    assert "| 10-10-1 | 625 at 16, 156 at 64 |" in lines
    assert "7 (2 runs per program, 8 warps), 9 (" in page
    assert "Of 2 tests on this device 1 passed.\n- b: failure" in page


def test_the_figure_has_a_point_for_every_row(script):
    figure = script("picture").draw(found())
    assert [len(line.get_xdata()) for ax in figure.axes for line in ax.get_lines()] == [1, 2]
    plt.close(figure)


def test_every_case_is_measured_once_and_is_one_of_the_table(script):
    nets, tables = script("nets"), script("tables")
    assert sorted(nets.ORDER) == sorted(nets.CASES)
    assert set(nets.NETS) == set(tables.NAMES)
    assert set(nets.WIDTHS) | set(nets.LAYOUTS) <= set(tables.SHORT)


def worker(kind, *more):
    command = [
        sys.executable,
        str(ROOT / "scripts" / "gpu"),
        "--worker",
        kind,
        "60",
        "0.01",
        "--tiny",
    ]
    # plain JAX is written as a user would write it, so it may promote ranks
    environment = {**os.environ, "JAX_NUMPY_RANK_PROMOTION": "allow"}
    done = subprocess.run(
        [*command, *more], capture_output=True, text=True, check=False, cwd=ROOT, env=environment
    )
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")], done


@pytest.mark.parametrize("kind", ["plain-jax", "jthermo-xla"])
def test_a_worker_compiles_its_cases(kind):
    rows, done = worker(kind, "--prepare")
    assert done.returncode == 0, done.stderr
    assert len(rows) == 8
    assert not [row for row in rows if "error" in row]


def test_what_fails_is_kept_and_the_rest_goes_on(script, monkeypatch, capsys):
    speed = script("speed")

    def fail():
        raise ValueError("out of tape")

    made = speed.Timed(lambda steps: None, 4, 1, {"width": 4}, exactly=3)
    items = [({"case": "first"}, fail), ({"case": "second"}, lambda: made)]
    monkeypatch.setattr(speed, "items", lambda kind, tiny: iter(items))
    speed.work("jthermo-xla", 60.0, 0.01, prepare=False, tiny=True)
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert first == {"case": "first", "error": "ValueError: out of tape"}
    assert (second["steps"], second["runs"], second["width"]) == (3, 4, 4)
    speed.work("jthermo-xla", -1.0, 0.01, prepare=False, tiny=True)
    assert all("skipped" in json.loads(line) for line in capsys.readouterr().out.splitlines())


def test_the_json_is_whole_after_every_row(script, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    script("nets")
    module = import_file(ROOT / "scripts" / "gpu" / "__main__.py", "gpu_main", "script")
    book = module.Book(tmp_path / "gpu.json")
    book.add("widths", {"net": "small", "ns": 1.0})
    book.add("widths", {"net": "wide", "error": "no room"})
    kept = json.loads((tmp_path / "gpu.json").read_text())
    assert [row["net"] for row in kept["widths"]] == ["small", "wide"]
    assert kept["failures"] == [{"part": "widths", "net": "wide", "error": "no room"}]
    given = argparse.Namespace(seconds=0.01, tiny=True)
    module.worker(book, "nothing of this name", 5.0, given, tmp_path, prepare=False)
    assert "failures" in book.found


def test_the_page_is_that_of_the_json_where_there_is_one(script):
    kept = ROOT / "results" / "gpu.json"
    if not kept.exists():
        pytest.skip("no GPU has been measured")
    page = script("tables").page(json.loads(kept.read_text()))
    assert page in (ROOT / "docs" / "speed.md").read_text(), (
        "run: python scripts/gpu --into docs/speed.md"
    )
