"""Write, verify and read checkpoints, with Orbax.

A checkpoint is one Orbax step with one item: a NumPy archive whose arrays have one row per run. A
row holds parameters, optimizer state, progress and the records so far, so state and records are
committed together. Rows belong to runs, not to lanes, devices or processes, so a sweep can resume
with any number of these. Random keys and data are functions of (seed, role, step) and are not
saved. Every row carries a CRC-32 and the archive a SHA-256; both are checked after writing and on
reading.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy, save_decision_policy
from orbax.checkpoint.options import AsyncOptions, MultiprocessingOptions

from jthermo.errors import InputError, StorageError, disk_error
from jthermo.execution.checkpoint_policy import CheckpointPolicy
from jthermo.npz import read_npz

# File names of the archive and of its SHA-256, and names of its two arrays that are not rows.
ARCHIVE, SEAL, META, DIGEST = "rows.npz", "rows.sha256", "meta", "digest"
# Orbax logs a traceback of each error, which is also raised as a message below: drop the log.
logging.getLogger("absl").addFilter(lambda record: "orbax" not in record.pathname)
Rows = dict[str, np.ndarray]
Say = Callable[[str], None]


def row_digests(rows: Mapping[str, np.ndarray]) -> np.ndarray:
    """CRC-32 of the bytes of each run over all arrays, in the order of their names.

    Args:
        rows: arrays (R, …) by name.

    Returns:
        (R,) uint32. Any single flipped bit of a run changes its digest.
    """
    (number,) = {len(a) for a in rows.values()}
    digests = [0] * number
    for name in sorted(rows):
        body = np.ascontiguousarray(rows[name]).reshape(number, -1).view(np.uint8)
        digests = [zlib.crc32(row.data, crc) for row, crc in zip(body, digests, strict=True)]
    return np.array(digests, np.uint32)


def verified(step: Path) -> Rows:
    """The rows of a committed checkpoint, checked against all digests.

    Args:
        step: the folder of one checkpoint.

    Raises:
        ValueError: a digest does not match; the message says which.
        OSError: a file is missing.
    """
    rows = _load(step / "rows")
    body, expected = rows.pop(META).tolist()
    if hashlib.sha256(body.encode()).hexdigest() != expected:
        raise ValueError("the digest of its metadata does not match")
    stored = rows.pop(DIGEST)
    damaged = np.flatnonzero(row_digests(rows) != stored)
    if len(damaged):
        raise ValueError(
            f"the digest of {len(damaged)} of its {len(stored)} runs does not match, rows "
            f"{', '.join(map(str, damaged[:5]))}{' …' * (len(damaged) > 5)}"
        )
    # The digest of the whole file also covers the archive's own headers.
    with (step / "rows" / ARCHIVE).open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != _seal(step / "rows"):
            raise ValueError("the digest of its file does not match")
    return rows


def newest(directory: Path) -> Rows | None:
    """The rows of the newest intact checkpoint of a folder; None without any. Changes no file."""
    for step in sorted((p for p in directory.iterdir() if p.name.isdigit()), reverse=True):
        with contextlib.suppress(Exception):
            return verified(step)
    return None


def _load(directory: Path) -> Rows:
    return read_npz(directory / ARCHIVE)


def _seal(directory: Path) -> str:
    return (directory / SEAL).read_text(encoding="utf-8")


class RowsHandler(ocp.AsyncCheckpointHandler):
    """Orbax handler that writes a NumPy archive; each process writes its own runs."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="jthermo-checkpoint")

    async def async_save(self, directory: Any, args: SaveRows) -> list[Any]:
        """Start writing in the background."""
        return [self._pool.submit(self._write, Path(directory), args.rows)]

    def save(self, directory: Any, args: SaveRows) -> None:
        """Write now."""
        self._write(Path(directory), args.rows)

    def restore(self, directory: Any, args: Any = None) -> Rows:
        """Read the arrays, without checking digests."""
        return _load(Path(directory))

    def close(self) -> None:
        """Stop the writing thread."""
        self._pool.shutdown()

    @staticmethod
    def _write(directory: Path, rows: Rows) -> None:
        with (directory / ARCHIVE).open("w+b") as file:
            np.savez(file, allow_pickle=False, **rows)
            file.flush()
            os.fsync(file.fileno())
            file.seek(0)
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        (directory / SEAL).write_text(sha256, encoding="utf-8")


@ocp.args.register_with_handler(RowsHandler, for_save=True)
class SaveRows(ocp.args.CheckpointArgs):
    """Orbax's argument for saving: the rows."""

    def __init__(self, rows: Rows) -> None:
        self.rows = rows


@ocp.args.register_with_handler(RowsHandler, for_restore=True)
class RestoreRows(ocp.args.CheckpointArgs):
    """Orbax's argument for restoring, which has no fields."""


class Checkpoints:
    """The checkpoints of one cohort, saved in the background, then verified; the last are kept.

    Args:
        directory: the folder, created if it does not exist.
        process: (index, count) of this process under ``jax.distributed``.
        say: prints a line.
        kept: number of verified checkpoints that stay on disk.

    Attributes:
        slowest: seconds for which training waited for the slowest save.
    """

    def __init__(
        self, directory: Path, process: tuple[int, int], say: Say, kept: int = CheckpointPolicy.kept
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory, self._say, self._kept = directory.absolute(), say, kept
        multiprocessing = MultiprocessingOptions()
        # By default Orbax waits for the other processes, but these save their own runs at other
        # times.
        if process[1] > 1:
            multiprocessing = MultiprocessingOptions(
                primary_host=process[0],
                active_processes={process[0]},
                barrier_sync_key_prefix=f"jthermo{process[0]}",
            )
        options = ocp.CheckpointManagerOptions(
            save_decision_policy=save_decision_policy.FixedIntervalPolicy(1),
            preservation_policy=preservation_policy.PreserveAll(),
            multiprocessing_options=multiprocessing,
            async_options=AsyncOptions(create_directories_asynchronously=False),
            step_format_fixed_length=10,
            create=False,
        )
        self._manager = ocp.CheckpointManager(
            self.directory,
            options=options,
            item_names=("rows",),
            item_handlers={"rows": RowsHandler()},
        )
        self._pending: int | None = None
        self.slowest = 0.0

    def save(self, rows: Rows, meta: Mapping[str, Any], wait: bool = False) -> None:
        """Start to write a checkpoint, once the previous one is committed.

        Args:
            rows: arrays (R, …) by name.
            meta: JSON values stored with the rows.
            wait: return only after the checkpoint is committed and verified.

        Raises:
            StorageError: this checkpoint or the previous one failed.
        """
        began = time.monotonic()
        self._settle(wait=True)
        body = json.dumps(meta, sort_keys=True)
        sealed = {
            **rows,
            META: np.array([body, hashlib.sha256(body.encode()).hexdigest()]),
            DIGEST: row_digests(rows),
        }
        self._pending = max(self._manager.all_steps(), default=0) + 1
        with self._storage():
            self._manager.save(self._pending, args=ocp.args.Composite(rows=SaveRows(sealed)))
        self._settle(wait)
        self.slowest = max(self.slowest, time.monotonic() - began)

    def poll(self) -> None:
        """Verify a checkpoint that has been committed in the background.

        Raises:
            StorageError: the checkpoint failed.
        """
        if self._pending is not None:
            self._settle(wait=False)

    def restore(self) -> Rows | None:
        """The newest intact checkpoint; None if nothing was saved.

        Damaged checkpoints that are newer are reported and renamed to ``bad-…``.

        Raises:
            InputError: there are checkpoints and all are damaged; no file is changed.
        """
        bad: dict[int, str] = {}
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                rows = self._read(step)
            except Exception as error:
                # A damaged archive can raise any error of zipfile, NumPy or json.
                bad[step] = str(error) or type(error).__name__
                continue
            for other, why in bad.items():
                self._say(
                    f"checkpoint {other} is damaged ({why:.200}); "
                    f"it is set aside, resuming from checkpoint {step}"
                )
                self._path(other).rename(self.directory / f"bad-{other}-{time.time_ns()}")
            if bad:
                self._manager.reload()
            return rows
        if bad:
            damage = "; ".join(f"checkpoint {step}: {why:.200}" for step, why in bad.items())
            remedy = (
                f"all checkpoints are damaged ({damage}); "
                "restore the folder from a copy, or remove it to train its runs from the start"
            )
            raise InputError("checkpoints", str(self.directory), remedy)
        return None

    def close(self) -> None:
        """Wait for the checkpoint that is being written, if any."""
        with contextlib.suppress(StorageError):
            self._settle(wait=True)
        self._manager.close()

    def _settle(self, wait: bool) -> None:
        """Once the pending checkpoint is committed, verify it and delete all but the last ones."""
        if self._pending is None:
            return
        with self._storage():
            if not wait and self._manager.is_saving_in_progress():
                return
            # Raises the error of the writing thread, if there was one.
            self._manager.wait_until_finished()
            step, self._pending = self._pending, None
            self._read(step)
            for old in sorted(self._manager.all_steps())[: -self._kept]:
                self._manager.delete(old)

    def _read(self, step: int) -> Rows:
        return verified(self._path(step))

    def _path(self, step: int) -> Path:
        return self.directory / f"{step:010d}"

    @contextlib.contextmanager
    def _storage(self) -> Iterator[None]:
        """Turn an error of the disk into a StorageError and forget the failed checkpoint."""
        try:
            yield
        except OSError as error:
            self._pending = None
            kept = "a checkpoint failed, and the previous one is kept. "
            raise disk_error(error, "out", self.directory, kept) from error
        except ValueError as error:
            # what was read after writing differs from what was written
            self._pending = None
            remedy = (
                f"a checkpoint failed ({error}); the previous one is kept. "
                "Check the disk, then give the same command again"
            )
            raise StorageError("out", str(self.directory), remedy) from error
