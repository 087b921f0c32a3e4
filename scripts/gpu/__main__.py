"""Tests and measurements of jthermo on one GPU, in one command that ends in a given time.

The results are one JSON, `gpu.json`. Each part runs in its own processes. If one fails, its error
is recorded there and the others go on. A part ends when its share of the time is up.

    python scripts/gpu                        tests, speed, then image figures if time is left
    python scripts/gpu --minutes 5 --only tests speed
    python scripts/gpu --tiny                 a rehearsal with tiny nets, also without a GPU
    python scripts/gpu --into docs/speed.md   write table and figure from results/gpu.json
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path += [str(ROOT), str(ROOT / "scripts" / "benchmark")]

import nets  # noqa: E402  it shares the nets of scripts/benchmark
import speed  # noqa: E402

from jthermo.results.atomic import write_whole  # noqa: E402

PARTS = ("tests", "speed", "paper")
SHARES = {
    "tests": 0.45,
    "speed": 0.45,
}  # of the minutes, at most; the paper's figures take what is left
# of what is left of the time for speed, at most, in this order
TURNS = {
    "jthermo-fused": 0.2,
    "plain-jax": 0.25,
    "jthermo-xla": 0.35,
    "layouts": 0.35,
    "widths": 0.75,
    "sweeps": 1.0,
}
PAPER = ("fig2_bottom",)
TAIL = 4000  # characters kept of what a failed process said
Say = Callable[[str], None]


class Book:
    """The JSON, written after every row."""

    def __init__(self, path: Path) -> None:
        self.path, self.found, self._lock = path, {"failures": []}, threading.Lock()

    def put(self, key: str, value: Any) -> None:
        """Keep what a part has found."""
        with self._lock:
            self.found[key] = value
            self._write()

    def add(self, key: str, row: dict[str, Any]) -> None:
        """Keep a row."""
        with self._lock:
            self.found.setdefault(key, []).append(row)
            if "error" in row:
                self.found["failures"].append({"part": key, **row})
            self._write()

    def failed(self, part: str, said: str) -> None:
        """Keep how a process failed."""
        with self._lock:
            self.found["failures"].append({"part": part, "error": said[-TAIL:]})
            self._write()

    def _write(self) -> None:
        write_whole(self.path, (json.dumps(self.found, indent=1) + "\n").encode())


def environment(cache: Path) -> dict[str, str]:
    """Of the processes: one store of compiled programs, memory taken as it is needed."""
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        "TF_CPP_MIN_LOG_LEVEL": "2",
    }


def worker(
    book: Book, kind: str, budget: float, given: argparse.Namespace, cache: Path, prepare: bool
) -> None:
    """Run one kind of measurement in a process of its own and keep its rows as they come."""
    command = [
        sys.executable,
        str(Path(__file__).parent),
        "--worker",
        kind,
        str(budget),
        str(given.seconds),
    ]
    command += ["--prepare"] * prepare + ["--tiny"] * given.tiny
    part = f"prepare {kind}" if prepare else kind
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=environment(cache),
            cwd=ROOT,
        ) as process,
    ):
        timer = threading.Timer(budget + 20, process.kill)
        timer.start()
        assert process.stdout is not None
        for line in process.stdout:
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if not prepare:
                book.add(kind, row)
            elif "error" in row:
                book.failed(part, json.dumps(row))
        code = process.wait()
        timer.cancel()
        if code:
            errors.seek(0)
            book.failed(part, f"exit code {code}: {errors.read()}")


def tests(book: Book, budget: float, given: argparse.Namespace, cache: Path) -> None:
    """The tests marked gpu, and the kernel's own."""
    report = cache / "tests.xml"
    chosen = ["tests/engines/test_gpu.py"]
    command = [
        sys.executable,
        "-m",
        "pytest",
        *chosen,
        "-m",
        "gpu",
        f"--junitxml={report}",
        "-W",
        "default",
    ]
    command += ["-p", "no:cacheprovider"]
    parallel = ["-n", "6"] * (
        subprocess.run([sys.executable, "-c", "import xdist"], capture_output=True).returncode == 0
    )
    try:
        done = subprocess.run(
            [*command, *parallel],
            cwd=ROOT,
            env=environment(cache),
            capture_output=True,
            text=True,
            timeout=budget,
            check=False,
        )
        said = done.stdout + done.stderr
        closing = done.stdout.strip().splitlines()[-1] if done.stdout.strip() else ""
    except subprocess.TimeoutExpired as error:
        said = closing = f"stopped after {budget:.0f} s: {(error.stdout or b'')[-500:]!r}"
    rows = []
    if report.exists():
        for case in ElementTree.parse(report).iter("testcase"):
            problem = next((e for e in case if e.tag in ("failure", "error", "skipped")), None)
            row = {"name": case.get("name"), "seconds": float(case.get("time", 0))}
            row["outcome"] = "passed" if problem is None else problem.tag
            if problem is not None:
                row["why"] = (problem.get("message", "") + "\n" + (problem.text or ""))[-1500:]
            rows.append(row)
    book.put("tests", {"closing": re.sub(r"\x1b\[[0-9;]*m", "", closing), "rows": rows})
    if not rows:
        book.failed("tests", said)


def measure(book: Book, budget: float, given: argparse.Namespace, cache: Path) -> None:
    """Contestants, layouts, lane widths and whole sweeps: one process at a time, alone."""
    ends = time.monotonic() + budget
    for kind, share in TURNS.items():
        worker(book, kind, share * (ends - time.monotonic()), given, cache, prepare=False)
        print(f"{kind}: {len(book.found.get(kind, []))} rows", file=sys.stderr, flush=True)


def paper(book: Book, budget: float, given: argparse.Namespace, cache: Path) -> None:
    """Image figures at the paper's scale by `jthermo reproduce`, as far as the time goes."""
    ends = time.monotonic() + budget
    for name in PAPER:
        out = given.out / "paper"
        scale = "small" if given.tiny else "paper"
        code = (
            f"import jthermo.paper.reproduce as r; r.reproduce({name!r}, {scale!r}, {str(out)!r})"
        )
        began = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, "-c", code], cwd=ROOT, env=environment(cache), stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        try:
            said, _ = process.communicate(timeout=max(1.0, ends - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.terminate()  # it saves and stops
            try:
                said, _ = process.communicate(timeout=15)
            except subprocess.TimeoutExpired:
                process.kill()
                said, _ = process.communicate()
        row = {
            "experiment": name,
            "scale": scale,
            "seconds": time.monotonic() - began,
            "code": process.returncode,
        }
        book.add("paper", {**row, "said": said[-1500:]})


def run(given: argparse.Namespace) -> None:
    """All parts, within the minutes."""
    began, seconds = time.monotonic(), 60 * given.minutes
    given.out.mkdir(parents=True, exist_ok=True)
    cache = Path(tempfile.mkdtemp())
    book = Book(given.out / "gpu.json")
    book.put("date", datetime.date.today().isoformat())
    where = subprocess.run(
        [sys.executable, str(Path(__file__).parent), "--worker", "device", "0", "0"],
        capture_output=True, text=True, env=environment(cache), cwd=ROOT, check=False,
    )  # fmt: skip
    try:
        book.put("machine", json.loads(where.stdout.splitlines()[-1]))
    except (ValueError, IndexError):
        book.failed("machine", where.stdout + where.stderr)

    def tell(text: str) -> None:
        print(f"{time.monotonic() - began:5.0f} s  {text}", file=sys.stderr, flush=True)

    tell(json.dumps(book.found.get("machine")))
    threads = []
    if "tests" in given.only:
        threads.append(
            threading.Thread(target=tests, args=(book, SHARES["tests"] * seconds, given, cache))
        )
    if "speed" in given.only:  # what takes no timing to compile is compiled beside the tests
        for kind in (*nets.CONTESTANTS, "layouts", "widths"):
            arguments = (book, kind, SHARES["tests"] * seconds / 2, given, cache, True)
            threads.append(threading.Thread(target=worker, args=arguments))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    tell(f"tests: {book.found.get('tests', {}).get('closing')}")
    if "speed" in given.only:
        left = seconds - (time.monotonic() - began)
        measure(
            book, SHARES["speed"] * seconds if "paper" in given.only else left - 20, given, cache
        )
        tell("speed: done")
    if "paper" in given.only:
        paper(book, seconds - (time.monotonic() - began) - 15, given, cache)
        tell(f"paper: {book.found.get('paper')}")
    book.put("seconds", round(time.monotonic() - began, 1))
    shutil.rmtree(cache, ignore_errors=True)
    for failure in book.found["failures"]:
        tell(f"FAILED {failure['part']}: {failure['error'][-600:]}")


def main() -> None:
    """Run the parts, or write the page from their JSON."""
    parser = argparse.ArgumentParser(
        prog="scripts/gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--minutes", type=float, default=9.0, help="within which it ends")
    parser.add_argument(
        "--out", type=Path, default=ROOT / "results" / "gpu", help="folder of the results"
    )
    parser.add_argument(
        "--only", nargs="+", choices=PARTS, default=PARTS, metavar="PART", help=", ".join(PARTS)
    )
    parser.add_argument(
        "--seconds", type=float, default=0.3, help="about how long a turn of a timing takes"
    )
    parser.add_argument("--tiny", action="store_true", help="tiny nets, a rehearsal")
    parser.add_argument(
        "--json",
        type=Path,
        default=ROOT / "results" / "gpu.json",
        help="what the page is made from",
    )
    parser.add_argument(
        "--into", type=Path, metavar="PAGE", help="write table and figure; measures nothing"
    )
    parser.add_argument("--table", action="store_true", help="print the tables; measures nothing")
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--prepare", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        kind, budget, seconds = given.worker
        if kind == "device":
            print(json.dumps(speed.device()))
        else:
            speed.work(kind, float(budget), float(seconds), given.prepare, given.tiny)
    elif given.into or given.table:
        import picture
        import tables

        found = json.loads(given.json.read_text())
        if given.table:
            print(tables.page(found))
        else:
            picture.save(found, ROOT / "results" / "figures")
            tables.write(found, given.into)
    else:
        run(given)


if __name__ == "__main__":
    main()
