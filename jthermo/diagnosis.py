"""What can be wrong with a machine before a sweep starts on it."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import sys
from pathlib import Path
from typing import NamedTuple

PACKAGES = (
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "tensorflow-datasets",
    "matplotlib",
    "xarray",
    "scipy",
    "tyro",
)
LEAST_FREE_BYTES = 1_000_000_000


class Check(NamedTuple):
    """One finding; `text` holds the remedy where it is not ok."""

    name: str
    ok: bool
    text: str


def doctor(results: str | Path = "results") -> list[Check]:
    """Check Python, packages, devices, precision and the results disk.

    >>> [check.name for check in doctor()]
    ['python', 'packages', 'devices', 'precision', 'disk']
    """
    return [_python(), _packages(), _devices(), _precision(), _disk(Path(results))]


def _python() -> Check:
    version = ".".join(map(str, sys.version_info[:3]))
    return Check(
        "python",
        sys.version_info >= (3, 11),
        f"{version}" if sys.version_info >= (3, 11) else f"{version}; install 3.11 or newer",
    )


def _packages() -> Check:
    found, missing = [], []
    for name in PACKAGES:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    return Check(
        "packages",
        not missing,
        ", ".join(found) if not missing else f"missing {', '.join(missing)}; pip install jthermo again",
    )


def _devices() -> Check:
    from jthermo.placement import devices

    on, cores = devices(), len(os.sched_getaffinity(0))
    kinds = f"{len(on)} × {on[0].device_kind} ({on[0].platform})"
    if on[0].platform == "cpu" and Path("/dev/nvidia0").exists():
        return Check(
            "devices",
            False,
            f"{kinds}, but there is an NVIDIA GPU; pip install 'jthermo[cuda12]' or 'jthermo[cuda13]'",
        )
    if on[0].platform == "cpu" and len(on) < cores:
        return Check(
            "devices",
            False,
            f"{kinds} for {cores} cores; unset XLA_FLAGS or JAX_NUM_CPU_DEVICES to use them all",
        )
    return Check("devices", True, kinds)


def _precision() -> Check:
    import jax

    low = jax.config.values["jax_default_matmul_precision"]
    return Check(
        "precision",
        True,
        "float32, matrix products at highest precision" + (f" (overrides {low})" if low else ""),
    )


def _disk(results: Path) -> Check:
    folder = next(p for p in (results.absolute(), *results.absolute().parents) if p.exists())
    free = shutil.disk_usage(folder).free
    if not os.access(folder, os.W_OK):
        return Check("disk", False, f"{folder} can't be written; choose another folder with --out")
    if free < LEAST_FREE_BYTES:
        return Check(
            "disk",
            False,
            f"{free / 1e9:.2g} GB free at {folder}; make room or choose another folder with --out",
        )
    return Check("disk", True, f"{free / 1e9:.3g} GB free at {folder}")
