"""Times the contestants of a case in turns, each in its own process."""

from __future__ import annotations

import datetime
import importlib.metadata
import importlib.util
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from scripts.benchmark.contestant import ROOT, images
from scripts.benchmark.contestants import contestant

VERSIONS = ("jthermo", "jax", "jaxlib", "flax", "optax", "numpy", "torch", "equinox")


def work(case: str, name: str, seconds: float) -> None:
    """A contestant's process: prints its set-up, then times one turn for every line it reads."""
    it = contestant(case, name)
    it.prepare()
    began = time.perf_counter()
    it.run(it.unit)
    first, steps = time.perf_counter() - began, max(it.least, it.unit)
    while not it.exactly:
        it.prepare()
        began = time.perf_counter()
        it.run(steps)
        spent = time.perf_counter() - began
        if spent > seconds / 2:
            break
        steps = max(steps + it.unit, int(steps * min(8.0, seconds / spent) / it.unit) * it.unit)
    if it.exactly and steps > it.unit:
        it.prepare()
        it.run(steps)  # whatever compiles for so many
    told = {"steps": steps, "run_steps": steps * it.runs, "first_call_seconds": round(first, 3)}
    print(json.dumps(told), flush=True)
    for _ in sys.stdin:
        it.prepare()
        began, busy = time.perf_counter(), processors()
        it.run(steps)
        print(time.perf_counter() - began, processors() - busy, flush=True)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, flush=True)


def processors() -> float:
    """Seconds that all threads of this process and its children have kept processors busy."""
    both = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(r.ru_utime + r.ru_stime for r in both)


def compare(case: str, names: tuple[str, ...], turns: int, seconds: float) -> dict[str, Any]:
    """Time the contestants of a case in turns; each is set up before the next one starts."""
    found: dict[str, Any] = {}
    workers: dict[str, subprocess.Popen[str]] = {}
    try:
        for name in names:
            command = [
                sys.executable,
                str(Path(__file__).parent),
                "--worker",
                case,
                name,
                str(seconds),
            ]
            workers[name] = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
            )
            found[name] = json.loads(_said(workers[name], case, name))
        timed: dict[str, list[list[float]]] = {name: [] for name in names}
        for _ in range(turns):
            for name, worker in workers.items():
                assert worker.stdin is not None
                worker.stdin.write("\n")
                worker.stdin.flush()
                timed[name].append([float(s) for s in _said(worker, case, name).split()])
        for name, worker in workers.items():
            assert worker.stdin is not None
            worker.stdin.close()
            found[name]["peak_bytes"] = int(_said(worker, case, name))
            worker.wait()
    finally:
        for worker in workers.values():
            worker.kill()
    for name, each in found.items():
        wall, busy = zip(*timed[name], strict=True)
        per_step = sorted(s / each["run_steps"] * 1e9 for s in wall)
        each |= {"ns": statistics.median(per_step), "ns_low": per_step[0], "ns_high": per_step[-1]}
        each["processor_ns"] = statistics.median(busy) / each["run_steps"] * 1e9
    return found


def _said(worker: subprocess.Popen[str], case: str, name: str) -> str:
    assert worker.stdout is not None
    said = worker.stdout.readline()
    if not said:
        raise RuntimeError(f"{case}: {name} ended early")
    return said


def machine() -> dict[str, Any]:
    """What the numbers belong to."""
    model = platform.processor() or platform.machine()
    cpu = Path("/proc/cpuinfo")
    if cpu.exists():
        lines = (
            x.partition(":")[2].strip() for x in cpu.read_text().splitlines() if "model name" in x
        )
        model = next(lines, model)
    return {
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)),
        "load": round(os.getloadavg()[0], 2),  # of the minute before the first case
        "python": platform.python_version(),
        "versions": {
            n: importlib.metadata.version(n) for n in VERSIONS if importlib.util.find_spec(n)
        },
        "images": type(images()).__name__,
        "date": datetime.date.today().isoformat(),
    }
