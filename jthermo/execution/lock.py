"""Lock files: one writer per results folder and shard; taken over when the owner is dead."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jthermo.errors import InputError
from jthermo.results.layout import LOCKS, shard_name

# Age in seconds of the last touch at which a lock of another host counts as abandoned; an owner
# touches its lock between pieces of work, which take about a second each.
STALE_SECONDS = 600
# Seconds between two touches of a held lock.
TOUCH_SECONDS = 10


class Lock:
    """A held lock.

    Args:
        path: the lock file.
    """

    def __init__(self, path: Path) -> None:
        self.path, self._touched = path, time.monotonic()

    def touch(self) -> None:
        """Show other hosts that the owner is alive; writes at most every ten seconds."""
        if time.monotonic() - self._touched > TOUCH_SECONDS:
            with contextlib.suppress(OSError):
                os.utime(self.path)
            self._touched = time.monotonic()


@contextlib.contextmanager
def held(directory: Path, shard: tuple[int, int]) -> Iterator[Lock]:
    """Hold the lock of one shard of a results folder.

    Args:
        directory: the results folder.
        shard: (I, N). Shards with the same N may run at once. Shards with another N train the same
            runs and are refused.

    Raises:
        InputError: another process holds the lock; the message names its host and pid.
    """
    folder = directory / LOCKS
    folder.mkdir(exist_ok=True)
    path = folder / f"{shard_name(shard)}.json"
    owner = {"host": socket.gethostname(), "pid": os.getpid(), "started": _started(os.getpid())}
    body = json.dumps(owner).encode()
    mine = folder / f".{uuid.uuid4().hex}"
    mine.write_bytes(body)
    try:
        for other in sorted(folder.glob("*-of-*.json")):
            if other == path or other.stem.rpartition("-")[2] != str(shard[1]):
                _refuse_living(other, directory)
        for _ in range(3):
            try:
                # A hard link appears with its full content, and fails if the name exists.
                os.link(mine, path)
                break
            except FileExistsError:
                _refuse_living(path, directory)
        else:
            raise InputError("out", str(directory), "is being locked by another process; try again")
    finally:
        mine.unlink()
    try:
        yield Lock(path)
    finally:
        with contextlib.suppress(OSError):
            if path.read_bytes() == body:
                path.unlink()


def _refuse_living(path: Path, directory: Path) -> None:
    """Remove an abandoned lock; raise InputError if its owner is alive."""
    try:
        body, age = path.read_bytes(), time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return
    try:
        owner: dict[str, Any] = json.loads(body)
    except ValueError:
        owner = {"host": "?", "pid": "?", "started": None}
    here = owner["host"] == socket.gethostname()
    living = _started(owner["pid"]) == owner["started"] is not None if here else age < STALE_SECONDS
    if living:
        who = f"process {owner['pid']} on {owner['host']}"
        remedy = f"is being written by {who}; wait for it, stop it, or choose another folder"
        if not here:
            remedy += (
                f". If that process is dead, remove {path}; "
                f"after {STALE_SECONDS // 60} minutes without a sign of life it is taken over"
            )
        raise InputError("out", str(directory), remedy)
    aside = path.with_name(f".stale-{uuid.uuid4().hex}")
    # Rename before removing, so that only one of two processes succeeds.
    with contextlib.suppress(FileNotFoundError):
        path.rename(aside)
        aside.unlink()


def _started(pid: Any) -> str | None:
    """Start time of a process on this host, None if it does not exist; tells reused pids apart."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
    # Without procfs only the pid can be compared.
    if not Path("/proc/self").exists() and isinstance(pid, int):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, 0)
            return str(pid)
    return None
