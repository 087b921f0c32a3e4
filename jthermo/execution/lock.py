"""Lock files: one writer per results folder and shard; taken over when the owner is dead.

A lock is a file that names its owner and that the owner touches every ten seconds. Locks are taken
and given back one at a time, under an exclusive ``flock`` of ``locks/gate``, which the kernel gives
back when a process dies. Where a file system has no ``flock``, exclusive creation still refuses a
second start; two processes that take over the same abandoned lock at the same moment then both
hold it, until the one that lost it notices at its next check.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import stat
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jthermo.errors import FolderInUse, InputError
from jthermo.results.layout import LOCKS, shard_name

GATE = "gate"
# Age in seconds of the last touch at which a lock of another machine counts as abandoned.
STALE_SECONDS = 600.0
# Seconds between two touches of a held lock.
RENEW_SECONDS = 10.0
# Seconds to wait for the gate, which is held for milliseconds.
GATE_SECONDS = 60.0
# What flock raises on file systems that have no locks.
NO_FLOCK = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)


class Lock:
    """A held lock, which a thread of its own touches until `release`.

    Compilations can take longer than `STALE_SECONDS`, so the training loop cannot do it.

    Args:
        directory: the results folder.
        path: the lock file.
        body: its content.
    """

    def __init__(self, directory: Path, path: Path, body: bytes) -> None:
        self._directory, self._path, self._body = directory, path, body
        self._released = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="jthermo-lock", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise FolderInUse if another process has taken the lock over, or if it was removed."""
        if not self._is_mine():
            owner = _who(_owner(self._path)) if self._path.is_file() else "nobody"
            raise FolderInUse(
                "out",
                str(self._directory),
                f"this process has lost its lock {self._path}, which belongs to {owner} now; what "
                "is committed is kept. Once no other process writes to the folder, give the same "
                "command again",
            )

    def release(self) -> None:
        """Stop touching the lock, and remove it if it is still this process's own."""
        self._released.set()
        self._thread.join()
        with contextlib.suppress(OSError, FolderInUse), _gate(self._path.parent, self._directory):
            if self._is_mine():
                self._path.unlink()

    def _renew(self) -> None:
        while not self._released.wait(RENEW_SECONDS) and self._is_mine():
            with contextlib.suppress(OSError):
                os.utime(self._path)

    def _is_mine(self) -> bool:
        try:
            return self._path.read_bytes() == self._body
        except FileNotFoundError:
            return False
        except OSError:
            # an error of a network file system says nothing about the owner
            return True


@contextlib.contextmanager
def held(directory: Path, shard: tuple[int, int]) -> Iterator[Lock]:
    """Hold the lock of one shard of a results folder.

    Args:
        directory: the results folder.
        shard: (I, N). Shards with the same N may run at once. Shards with another N train the same
            runs and are refused.

    Raises:
        FolderInUse: another process holds the lock; the message names its host and pid.
        InputError: something that is not a file is in the place of the lock.
    """
    folder = directory / LOCKS
    with contextlib.suppress(FileExistsError):
        folder.mkdir()
    path = folder / f"{shard_name(shard)}.json"
    body = json.dumps(_me()).encode()
    with _gate(folder, directory) as now:
        for other in sorted(folder.glob("*-of-*.json")):
            if other == path or other.stem.rpartition("-")[2] != str(shard[1]):
                _refuse_living(other, directory, now)
        try:
            file = path.open("xb")
        except FileExistsError:
            raise _busy(directory) from None
        try:
            with file:
                file.write(body)
        except BaseException:
            path.unlink()
            raise
    lock = Lock(directory, path, body)
    try:
        yield lock
    finally:
        lock.release()


@contextlib.contextmanager
def _gate(folder: Path, directory: Path) -> Iterator[float]:
    """A context that one process at a time is in; yields the time of the file system's clock."""
    with (folder / GATE).open("ab") as file:
        end = time.monotonic() + GATE_SECONDS
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end:
                    raise _busy(directory) from None
                time.sleep(0.01)
            except OSError as error:
                if error.errno not in NO_FLOCK:
                    raise
                break
        os.utime(folder / GATE)
        yield (folder / GATE).stat().st_mtime


def _busy(directory: Path) -> FolderInUse:
    return FolderInUse("out", str(directory), "is being locked by another process; try again")


def _refuse_living(path: Path, directory: Path, now: float) -> None:
    """Remove an abandoned lock; raise FolderInUse if its owner is alive."""
    owner = _owner(path)
    try:
        status = path.stat()
    except FileNotFoundError:
        return
    if not stat.S_ISREG(status.st_mode):
        raise InputError("out", str(path), "is in the place of a lock file; remove it")
    if _lives(owner, now - status.st_mtime):
        remedy = (
            f"is being written by {_who(owner)}; wait for it, stop it, or choose another folder"
        )
        if not _here(owner):
            remedy += (
                f". If that process is dead, remove {path}; "
                f"after {STALE_SECONDS / 60:.0f} minutes without a sign of life it is taken over"
            )
        raise FolderInUse("out", str(directory), remedy)
    path.unlink(missing_ok=True)


def _here(owner: Mapping[str, Any]) -> bool:
    """Whether the owner of a lock is a process of this machine."""
    if "machine" in owner:
        return owner["machine"] == _machine() is not None
    # written by jthermo 0.2.0 or earlier
    return owner.get("host") == socket.gethostname()


def _lives(owner: Mapping[str, Any], age: float) -> bool:
    """Whether the owner of a lock that was touched `age` seconds ago is alive."""
    if _here(owner):
        return _started(owner["pid"]) == owner.get("started") is not None
    # A time in the future is that of a clock that was wrong.
    return abs(age) < STALE_SECONDS


def writers(directory: Path) -> dict[str, str]:
    """The living processes that write to a results folder: ``"process 7 on host"`` by shard."""
    living = {}
    for path in sorted((directory / LOCKS).glob("*-of-*.json")):
        owner = _owner(path)
        with contextlib.suppress(OSError):
            if owner and _lives(owner, time.time() - path.stat().st_mtime):
                living[path.stem] = _who(owner)
    return living


def _owner(path: Path) -> dict[str, Any]:
    """The content of a lock file; empty if it names no owner."""
    with contextlib.suppress(ValueError, RecursionError, OSError):
        owner = json.loads(path.read_bytes())
        if (
            isinstance(owner, dict)
            and isinstance(owner.get("pid"), int)
            and isinstance(owner.get("host"), str)
            and owner["host"].isprintable()
        ):
            return owner
    return {}


def _who(owner: dict[str, Any]) -> str:
    return f"process {owner['pid']} on {owner['host']}" if owner else "an unknown process"


def _me() -> dict[str, Any]:
    """The content of a lock file of this process; no two are equal."""
    return {
        "host": socket.gethostname(),
        "machine": _machine(),
        "pid": os.getpid(),
        "started": _started(os.getpid()),
        "token": uuid.uuid4().hex,
    }


def _machine() -> str | None:
    """What names one table of processes: the boot of a kernel and a pid namespace in it.

    Containers can have equal host names and equal pids. None if it is unknown.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        # without procfs there are no containers either
        return None if Path("/proc/self").exists() else socket.gethostname()


def _started(pid: int) -> str | None:
    """Start time of a process on this machine, None if it is dead; tells reused pids apart."""
    with contextlib.suppress(OSError):
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
        state, *fields = text.rpartition(")")[2].split()
        # a killed process stays as a zombie if its parent does not wait for it
        return None if state in "ZX" else fields[18]
    # Without procfs only the pid can be compared.
    if not Path("/proc/self").exists():
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, 0)
            return str(pid)
    return None
