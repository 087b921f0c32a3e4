"""`jthermo doctor`: checks of a machine before a sweep starts on it, each with a remedy."""

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

# Free bytes of memory and of disk below which a machine is reported as too full.
LEAST_FREE_BYTES = 1_000_000_000
DEV = Path("/dev")
# For each accelerator its name, its device files, and the extra that installs JAX for it.
ACCELERATORS = (
    ("an NVIDIA GPU", "nvidia[0-9]*", "'jthermo[cuda12]' or 'jthermo[cuda13]'"),
    ("a TPU", "accel[0-9]*", "'jthermo[tpu]'"),
)


class Check(NamedTuple):
    """The result of one check; if it is not ok, `text` includes the remedy."""

    name: str
    ok: bool
    text: str


def doctor(results: str | Path = "results") -> list[Check]:
    """Check this machine and environment for problems that would stop or spoil a sweep.

    Args:
        results: folder for results, whose disk is checked.

    Returns:
        Checks of Python, packages, devices, SLURM tasks, precision, memory, the compilation cache,
        the fused engine and the disk.

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
                remedy = f"run pip install {extra}, and unset JAX_PLATFORMS"
                return Check("devices", False, f"{kinds}, but this machine has {name}; {remedy}")
    if on[0].platform == "cpu" and len(on) < cores:
        return Check(
            "devices",
            False,
            f"{kinds} for {cores} cores; unset XLA_FLAGS or JAX_NUM_CPU_DEVICES to use all cores",
        )
    return Check("devices", True, kinds)


def _tasks() -> Check:
    """Whether a SLURM node has as many tasks as accelerators."""
    from jthermo.execution.placement import devices

    on = devices()
    seen = 0 if on[0].platform == "cpu" else len(on)
    count = re.match(
        r"\d+",
        os.environ.get("SLURM_NTASKS_PER_NODE") or os.environ.get("SLURM_TASKS_PER_NODE", ""),
    )
    if count is None:
        return Check(
            "tasks", True, "one process, not started by SLURM; it uses every device that it sees"
        )
    tasks, stated = int(count[0]), os.environ.get("SLURM_GPUS_ON_NODE", "")
    gpus = max(seen, int(stated) if stated.isdigit() else 0)
    remedy = f"start one task per GPU with --ntasks-per-node={gpus}"
    if tasks > 1 and seen > 1:
        return Check(
            "tasks",
            False,
            f"{tasks} tasks of this node see all {seen} GPUs and share them; "
            "add --gpus-per-task=1, or run with --distributed, which gives each task its own GPU",
        )
    if seen and tasks * seen < gpus:
        return Check(
            "tasks",
            False,
            f"{tasks} task(s) use {tasks * seen} of {gpus} GPUs; {remedy} --gpus-per-task=1",
        )
    if tasks == 1 and seen > 1:
        words = f"one task sees {seen} GPUs; a plain run uses all, --distributed only the first"
        return Check("tasks", False, f"{words}; {remedy}")
    return Check("tasks", True, f"{tasks} on this node" + (f" for {gpus} GPUs" if gpus else ""))


def _precision() -> Check:
    """Settings that change results: jthermo overrides those of JAX, but not those below it."""
    import jax

    if os.environ.get("NVIDIA_TF32_OVERRIDE", "") == "1":
        return Check(
            "precision",
            False,
            "NVIDIA_TF32_OVERRIDE=1 rounds the inputs of matrix products to 10 bits; unset it",
        )
    for flag in os.environ.get("XLA_FLAGS", "").split():
        if "fast_math" in flag and not flag.endswith("=false"):
            return Check("precision", False, f"XLA_FLAGS has {flag}, which may hide NaN; remove it")
    overridden = []
    if low := jax.config.values["jax_default_matmul_precision"]:
        overridden.append(f"jax_default_matmul_precision={low}")
    if jax.config.values["jax_enable_x64"]:
        overridden.append("jax_enable_x64")
    words = f"; jthermo overrides {' and '.join(overridden)}" if overridden else ""
    return Check(
        "precision",
        True,
        f"float32 or the dtype of the sweep, matrix products at highest precision{words}",
    )


def _memory() -> Check:
    from jthermo.execution.placement import devices

    on, free = devices(), memory.available()
    words = "unknown" if free is None else f"{memory.text(free)} free"
    if free is not None and free < LEAST_FREE_BYTES:
        return Check(
            "memory", False, f"{words}; stop other programs, or request more memory (SLURM: --mem)"
        )
    if on[0].platform != "cpu" and (held := memory.limit(on)) is not None:
        words += f", {memory.text(held)} per device"
    return Check("memory", True, words)


def _cache() -> Check:
    import jax

    folder = jax.config.values["jax_compilation_cache_dir"]
    if not folder:
        words = "compiled programs are not kept; to compile once and not after each restart, "
        return Check("cache", True, words + "export JAX_COMPILATION_CACHE_DIR=DIR")
    if "://" not in folder and (trouble := _writing(_existing(Path(folder)))):
        return Check(
            "cache", False, f"{folder}: {trouble}; set JAX_COMPILATION_CACHE_DIR to another folder"
        )
    return Check("cache", True, f"compiled programs are kept in {folder}")


def _engine() -> Check:
    """Which engine trains by default; without the fused one XLA trains the same sweeps."""
    reason = engines.refusal()
    if reason is not None:
        text = f"xla, because {reason}"
    elif engines.at_hand() == "fused":
        text = "fused, compiled with the C++ compiler of this machine"
    else:
        text = "xla; engine='fused' uses Pallas, which has been tested in interpret mode only"
    return Check("engine", True, text)


def _disk(results: Path) -> Check:
    folder = _existing(results)
    free = shutil.disk_usage(folder).free
    if not os.access(folder, os.W_OK):
        return Check("disk", False, f"{folder} is not writable; choose another folder with --out")
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
    """The folder, or its nearest parent that exists."""
    return next(p for p in (folder.absolute(), *folder.absolute().parents) if p.exists())


def _writing(folder: Path) -> str:
    """The error of writing into a folder; empty if there is none. Only a write detects a quota."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(1 << 16))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return error.strerror or str(error)
    return ""
