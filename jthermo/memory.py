"""Bytes: what a compiled program holds, and what a device or this machine still has."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

MEMINFO = Path("/proc/meminfo")
CGROUP = Path("/sys/fs/cgroup")
UNLIMITED = 2**60  # cgroup v1 writes a number of about 2⁶³ where there is no limit


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
        except (OSError, ValueError):  # another version of cgroups, or "max"
            continue
    return min(found, default=None)


def _meminfo() -> int | None:
    try:
        lines = MEMINFO.read_text().splitlines()
    except OSError:  # not Linux
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
