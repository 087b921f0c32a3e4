"""One writer per results folder and shard: a lock that names its owner, refuses a second one and outlives no owner."""

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

# a lock of another host that was not touched for so long has no owner any more
STALE_SECONDS = 600


class Lock:
    """A held lock; `touch` shows other hosts that its owner lives."""

    def __init__(self, path: Path) -> None:
        self.path, self._touched = path, time.monotonic()

    def touch(self) -> None:
        """Renew the lock's time, at most every ten seconds."""
        if time.monotonic() - self._touched > 10:
            with contextlib.suppress(OSError):
                os.utime(self.path)
            self._touched = time.monotonic()


@contextlib.contextmanager
def held(directory: Path, shard: tuple[int, int]) -> Iterator[Lock]:
    """Hold the lock of a shard of a results folder.

    Args:
        directory: the results folder.
        shard: (I, N). Shards of one N may run at once; those of another N would train the same runs.

    Raises:
        InputError: another process holds it; the message names host and pid.
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
                # whole or not at all, and only where there is none
                os.link(mine, path)
                break
            except FileExistsError:
                _refuse_living(path, directory)
        else:
            raise InputError(
                "out", str(directory), "its lock is being taken by another process; try again"
            )
    finally:
        mine.unlink()
    try:
        yield Lock(path)
    finally:
        with contextlib.suppress(OSError):
            if path.read_bytes() == body:
                path.unlink()


def _refuse_living(path: Path, directory: Path) -> None:
    """Remove a stale lock; refuse where its owner lives."""
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
            remedy += f". If it is dead, remove {path} (a lock older than {STALE_SECONDS // 60} minutes is taken over)"
        raise InputError("out", str(directory), remedy)
    aside = path.with_name(f".stale-{uuid.uuid4().hex}")
    # by rename, so that only one of two processes removes it
    with contextlib.suppress(FileNotFoundError):
        path.rename(aside)
        aside.unlink()


def _started(pid: Any) -> str | None:
    """When a process of this host began, None where there is none: a pid alone may have been given again."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    # no procfs: the pid has to do
    if not Path("/proc/self").exists() and isinstance(pid, int):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, 0)
            return str(pid)
    return None
