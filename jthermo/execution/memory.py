"""Bytes: what a program needs, what a device has, and in how many rounds a sweep then trains."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jthermo.errors import InputError

MEMINFO = Path("/proc/meminfo")
CGROUP = Path("/sys/fs/cgroup")
# Bytes from which a limit of a control group means "none"; cgroup v1 writes about 2⁶³ for that.
UNLIMITED = 2**60
# Share of a device's memory that runs may fill. The rest is for gaps between allocations and for
# the program itself.
HEADROOM = 0.9


def peak(compiled: Any) -> int:
    """Peak memory of a compiled program on one device, in bytes."""
    analysis = compiled.memory_analysis()
    return (
        analysis.argument_size_in_bytes
        + analysis.output_size_in_bytes
        + analysis.temp_size_in_bytes
        - analysis.alias_size_in_bytes
    )


def temporary(compiled: Any) -> int:
    """Memory of the intermediate values of a compiled program on one device, in bytes."""
    return compiled.memory_analysis().temp_size_in_bytes


def limit(devices: Sequence[Any]) -> int | None:
    """Memory of each device in bytes; None if unknown. CPU devices share what is available.

    >>> import jax
    >>> limit(jax.devices("cpu")) > 0
    True
    """
    if devices[0].platform == "cpu":
        free = available()
        return None if free is None else free // len(devices)
    return min(((d.memory_stats() or {}).get("bytes_limit", 0) for d in devices), default=0) or None


def available() -> int | None:
    """Bytes this process can still allocate on the machine or in its container; None: unknown."""
    bounds = [] if (free := _meminfo()) is None else [free]
    for most, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        try:
            ceiling = int((CGROUP / most).read_text("utf-8"))
            if ceiling < UNLIMITED:
                bounds.append(max(0, ceiling - int((CGROUP / used).read_text("utf-8"))))
        except (OSError, ValueError):
            # The other version of cgroups has no such file; "max" means no limit.
            continue
    return min(bounds, default=None)


def _meminfo() -> int | None:
    """Available memory of a Linux machine in bytes; None on other systems."""
    try:
        lines = MEMINFO.read_text("utf-8").splitlines()
    except OSError:
        return None
    sizes = {line.partition(":")[0]: line.split()[1] for line in lines if ":" in line}
    return int(sizes["MemAvailable"]) * 1024 if "MemAvailable" in sizes else None


def text(count: float) -> str:
    """A number of bytes with a unit, for messages.

    >>> text(1_530_000)
    '1.53 MB'
    """
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def rounds(block_bytes: int, blocks: int, limit: int | None, fixed_bytes: int = 0) -> int:
    """Number of rounds in which a device has to train its blocks so that each round fits.

    Args:
        block_bytes: bytes that one block adds to the peak of the compiled program.
        blocks: number of blocks of the device.
        limit: memory of the device in bytes; None means unknown and is taken as enough.
        fixed_bytes: bytes of the program that do not depend on the number of blocks.

    Raises:
        InputError: the device cannot hold a single block.

    >>> rounds(block_bytes=1_000, blocks=100, limit=40_000)
    3
    """
    if limit is None or not blocks:
        return 1
    fitting = int(limit * HEADROOM - fixed_bytes) // max(1, block_bytes)
    if fitting < 1:
        need = text(block_bytes + fixed_bytes)
        raise InputError(
            "memory",
            text(limit),
            f"one block of runs needs {need}; lower lane_width or use a device with more memory",
        )
    return math.ceil(blocks / fitting)
