"""Bytes: what a compiled program holds, and what a device or this machine still has."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jthermo.errors import InputError
from jthermo.execution import memory

MEMINFO = Path("/proc/meminfo")
CGROUP = Path("/sys/fs/cgroup")
# cgroup v1 writes a number of about 2⁶³ where there is no limit
UNLIMITED = 2**60


def peak(compiled: Any) -> int:
    """Bytes a compiled program holds at once on one device."""
    made = compiled.memory_analysis()
    return (
        made.argument_size_in_bytes
        + made.output_size_in_bytes
        + made.temp_size_in_bytes
        - made.alias_size_in_bytes
    )


def temporary(compiled: Any) -> int:
    """Bytes of a compiled program's intermediate values on one device."""
    return compiled.memory_analysis().temp_size_in_bytes


def limit(devices: Sequence[Any]) -> int | None:
    """Bytes each of the devices may hold; on CPUs an equal share of what is available. None where nobody says.

    >>> import jax
    >>> limit(jax.devices("cpu")) > 0
    True
    """
    if devices[0].platform == "cpu":
        free = available()
        return None if free is None else free // len(devices)
    return min(((d.memory_stats() or {}).get("bytes_limit", 0) for d in devices), default=0) or None


def available() -> int | None:
    """Bytes this process may still take: the machine's, or its container's where that has less."""
    found = [] if (free := _meminfo()) is None else [free]
    for most, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        try:
            ceiling = int((CGROUP / most).read_text())
            if ceiling < UNLIMITED:
                found.append(max(0, ceiling - int((CGROUP / used).read_text())))
        except (OSError, ValueError):
            # another version of cgroups, or "max"
            continue
    return min(found, default=None)


def _meminfo() -> int | None:
    try:
        lines = MEMINFO.read_text().splitlines()
    except OSError:
        # not Linux
        return None
    sizes = {line.partition(":")[0]: line.split()[1] for line in lines if ":" in line}
    return int(sizes["MemAvailable"]) * 1024 if "MemAvailable" in sizes else None


def text(count: float) -> str:
    """A number of bytes for people.

    >>> text(1_530_000)
    '1.53 MB'
    """
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


# of a device's memory; the rest is for the allocator's gaps and the program itself
HEADROOM = 0.9


def rounds(block_bytes: int, blocks: int, limit: int | None, fixed_bytes: int = 0) -> int:
    """In how many rounds a device trains its blocks so that each round fits.

    Args:
        block_bytes: what one block adds to the peak of the compiled program.
        blocks: blocks of the device.
        limit: bytes the device has; None where that isn't known, which is taken as enough.
        fixed_bytes: what the program holds however many blocks there are.

    Raises:
        InputError: not even one block fits.

    >>> rounds(block_bytes=1_000, blocks=100, limit=40_000)
    3
    """
    if limit is None or not blocks:
        return 1
    fitting = int(limit * HEADROOM - fixed_bytes) // max(1, block_bytes)
    if fitting < 1:
        need = memory.text(block_bytes + fixed_bytes)
        raise InputError(
            "memory",
            memory.text(limit),
            f"one block of lanes needs {need}; lower lane_width or take a device with more memory",
        )
    return math.ceil(blocks / fitting)
