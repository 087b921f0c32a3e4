"""What can be wrong with a machine before a sweep starts on it."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from packaging.requirements import Requirement

from jthermo.engines import choice as engines
from jthermo.execution import memory

LEAST_FREE_BYTES = 1_000_000_000
DEV = Path("/dev")
ACCELERATORS = (
    ("an NVIDIA GPU", "nvidia[0-9]*", "'jthermo[cuda12]' or 'jthermo[cuda13]'"),
    ("a TPU", "accel[0-9]*", "'jthermo[tpu]'"),
)


class Check(NamedTuple):
    """One finding; `text` holds the remedy where it is not ok."""

    name: str
    ok: bool
    text: str


def doctor(results: str | Path = "results") -> list[Check]:
    """Check Python, packages, devices, tasks, precision, memory, compilation, the fused engine and the results disk.

    >>> [check.name for check in doctor()]
    ['python', 'packages', 'devices', 'tasks', 'precision', 'memory', 'cache', 'engine', 'disk']
    """
    return [
        _python(),
        _packages(),
        _devices(),
        _tasks(),
        _precision(),
        _memory(),
        _cache(),
        _engine(),
        _disk(Path(results)),
    ]


def _python() -> Check:
    version = ".".join(map(str, sys.version_info[:3]))
    return Check(
        "python",
        sys.version_info >= (3, 11),
        f"{version}" if sys.version_info >= (3, 11) else f"{version}; install 3.11 or newer",
    )


def _packages() -> Check:
    """Compare the installed packages with the versions that jthermo's own metadata requires."""
    found, wrong = [], []
    for requirement in _requirements():
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            wrong.append((requirement, "is not installed"))
            continue
        found.append(f"{requirement.name} {version}")
        if not requirement.specifier.contains(version, prereleases=True):
            wrong.append((requirement, f"is {version}"))
    if not wrong:
        return Check("packages", True, ", ".join(found))
    words = ", ".join(f"{r.name} {state}" for r, state in wrong)
    remedy = " ".join(f"'{r.name}{r.specifier}'" for r, _ in wrong)
    return Check("packages", False, f"{words}; pip install {remedy}")


def _requirements() -> list[Requirement]:
    """The packages that jthermo requires on this machine, without those of its extras."""
    lines = map(Requirement, importlib.metadata.requires("jthermo") or ())
    return [r for r in lines if r.marker is None or r.marker.evaluate({"extra": ""})]


def _devices() -> Check:
    from jthermo.execution.placement import devices

    on, cores = devices(), len(os.sched_getaffinity(0))
    kinds = f"{len(on)} × {on[0].device_kind} ({on[0].platform})"
    if on[0].platform == "cpu":
        for name, pattern, extra in ACCELERATORS:
            if any(DEV.glob(pattern)):
                remedy = f"pip install {extra}, and unset JAX_PLATFORMS"
                return Check("devices", False, f"{kinds}, but there is {name}; {remedy}")
    if on[0].platform == "cpu" and len(on) < cores:
        return Check(
            "devices",
            False,
            f"{kinds} for {cores} cores; unset XLA_FLAGS or JAX_NUM_CPU_DEVICES to use them all",
        )
    return Check("devices", True, kinds)


def _tasks() -> Check:
    """Whether the tasks of a SLURM node and its accelerators are equal in number."""
    from jthermo.execution.placement import devices

    on = devices()
    seen = 0 if on[0].platform == "cpu" else len(on)
    count = re.match(
        r"\d+",
        os.environ.get("SLURM_NTASKS_PER_NODE") or os.environ.get("SLURM_TASKS_PER_NODE", ""),
    )
    if count is None:
        return Check(
            "tasks", True, "one process, not started by SLURM; it uses every device it sees"
        )
    tasks, given = int(count[0]), os.environ.get("SLURM_GPUS_ON_NODE", "")
    there = max(seen, int(given) if given.isdigit() else 0)
    equal = f"start one task a GPU with --ntasks-per-node={there}"
    if tasks > 1 and seen > 1:
        return Check(
            "tasks",
            False,
            f"{tasks} tasks of this node see all {seen} GPUs and share them; add --gpus-per-task=1, or run with "
            "--distributed, which gives each its own",
        )
    if seen and tasks * seen < there:
        return Check(
            "tasks",
            False,
            f"{tasks} task(s) use {tasks * seen} of {there} GPUs; {equal} --gpus-per-task=1",
        )
    if tasks == 1 and seen > 1:
        words = f"one task sees {seen} GPUs: a plain run uses all, --distributed under SLURM only the first"
        return Check("tasks", False, f"{words}; {equal}")
    return Check("tasks", True, f"{tasks} on this node" + (f" for {there} GPUs" if there else ""))


def _precision() -> Check:
    """Settings that change numbers. JAX's own are pinned while jthermo trains; those of libraries below it are not."""
    import jax

    if os.environ.get("NVIDIA_TF32_OVERRIDE", "") == "1":
        return Check(
            "precision", False, "NVIDIA_TF32_OVERRIDE=1 rounds matrix products to 10 bits; unset it"
        )
    for flag in os.environ.get("XLA_FLAGS", "").split():
        if "fast_math" in flag and not flag.endswith("=false"):
            return Check(
                "precision", False, f"XLA_FLAGS has {flag}, which may hide NaN; take it out"
            )
    named = []
    if low := jax.config.values["jax_default_matmul_precision"]:
        named.append(f"jax_default_matmul_precision={low}")
    if jax.config.values["jax_enable_x64"]:
        named.append("jax_enable_x64")
    words = (
        f"; {' and '.join(named)} of your settings is overridden and can be left out"
        if named
        else ""
    )
    return Check("precision", True, f"float32, matrix products at highest precision{words}")


def _memory() -> Check:
    from jthermo.execution.placement import devices

    on, free = devices(), memory.available()
    words = "unknown" if free is None else f"{memory.text(free)} free"
    if free is not None and free < LEAST_FREE_BYTES:
        return Check(
            "memory", False, f"{words}; end other programs, or ask for more (SLURM: --mem)"
        )
    if on[0].platform != "cpu" and (held := memory.limit(on)) is not None:
        words += f", {memory.text(held)} a device"
    return Check("memory", True, words)


def _cache() -> Check:
    import jax

    folder = jax.config.values["jax_compilation_cache_dir"]
    if not folder:
        words = "compiled programs are not kept; export JAX_COMPILATION_CACHE_DIR=DIR and a restart compiles nothing"
        return Check("cache", True, words)
    if "://" not in folder and (trouble := _writing(_existing(Path(folder)))):
        return Check(
            "cache", False, f"{folder}: {trouble}; set JAX_COMPILATION_CACHE_DIR to another folder"
        )
    return Check("cache", True, f"compiled programs are kept in {folder}")


def _engine() -> Check:
    """Whether the fused engine is there; without it the same sweeps are trained by XLA, so nothing is wrong."""
    reason = engines.refusal()
    if reason is not None:
        text = f"xla, since {reason}"
    elif engines.at_hand() == "fused":
        text = "fused, compiled by this machine's C++ compiler"
    else:
        text = (
            "xla; fused by Pallas where engine='fused' asks for it, checked in interpret mode only"
        )
    return Check("engine", True, text)


def _disk(results: Path) -> Check:
    folder = _existing(results)
    free = shutil.disk_usage(folder).free
    if not os.access(folder, os.W_OK):
        return Check("disk", False, f"{folder} can't be written; choose another folder with --out")
    if free < LEAST_FREE_BYTES:
        return Check(
            "disk",
            False,
            f"{free / 1e9:.2g} GB free at {folder}; make room or choose another folder with --out",
        )
    if trouble := _writing(folder):
        return Check(
            "disk", False, f"{folder}: {trouble}; make room or choose another folder with --out"
        )
    return Check("disk", True, f"{free / 1e9:.3g} GB free at {folder}")


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there."""
    return next(p for p in (folder.absolute(), *folder.absolute().parents) if p.exists())


def _writing(folder: Path) -> str:
    """What stands against writing into a folder; empty where nothing does. A quota shows only in the attempt."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(1 << 16))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return error.strerror or str(error)
    return ""
