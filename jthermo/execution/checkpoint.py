"""Checkpoints: Orbax commits them whole and in the background; every run carries a digest that is verified on reading.

A checkpoint is one Orbax step with one item: a NumPy archive whose arrays have one row per run, parameters, optimizer
state, progress and the records made so far together, so that state and records are committed in one piece. Rows belong to
runs, not to lanes, devices or processes: a sweep goes on with any number of those. Keys and iterators are derived
from (seed, role, step) and need no saving.
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

from jthermo.errors import InputError, StorageError
from jthermo.execution.checkpoint_policy import CheckpointPolicy

ARCHIVE, SEAL, META, DIGEST = "rows.npz", "rows.sha256", "meta", "digest"
# what goes wrong is raised here as one message: Orbax would log it a second time, as a traceback
logging.getLogger("absl").addFilter(lambda record: "orbax" not in record.pathname)
Rows = dict[str, np.ndarray]
Say = Callable[[str], None]


def row_digests(rows: Mapping[str, np.ndarray]) -> np.ndarray:
    """CRC-32 of each run's bytes over all arrays in the order of their names, (R,) uint32: any flipped bit changes it."""
    (number,) = {len(a) for a in rows.values()}
    found = [0] * number
    for name in sorted(rows):
        body = np.ascontiguousarray(rows[name]).reshape(number, -1).view(np.uint8)
        found = [zlib.crc32(row.data, crc) for row, crc in zip(body, found, strict=True)]
    return np.array(found, np.uint32)


def verified(step: Path) -> Rows:
    """The rows of a committed checkpoint; a ValueError says which digests disagree."""
    rows = _load(step / "rows")
    body, expected = rows.pop(META).tolist()
    if hashlib.sha256(body.encode()).hexdigest() != expected:
        raise ValueError("its metadata fail their digest")
    stored = rows.pop(DIGEST)
    lost = np.flatnonzero(row_digests(rows) != stored)
    if len(lost):
        raise ValueError(
            f"runs {', '.join(map(str, lost[:5]))}{' …' * (len(lost) > 5)} fail their digest"
        )
    # what the archive keeps beside the arrays
    with (step / "rows" / ARCHIVE).open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != (step / "rows" / SEAL).read_text():
            raise ValueError("its file fails its digest")
    return rows


def newest(directory: Path) -> Rows | None:
    """The newest sound checkpoint of a folder, only read; None where there is none."""
    for step in sorted((p for p in directory.iterdir() if p.name.isdigit()), reverse=True):
        with contextlib.suppress(Exception):
            return verified(step)
    return None


def _load(directory: Path) -> Rows:
    with (directory / ARCHIVE).open("rb") as file, np.load(file, allow_pickle=False) as archive:
        return dict(archive)


class RowsHandler(ocp.AsyncCheckpointHandler):
    """Orbax's handler for a NumPy archive. Each process writes its own: no run's state is shared between processes."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="jthermo-checkpoint")

    async def async_save(self, directory: Any, args: SaveRows) -> list[Any]:
        """Start writing in the background."""
        return [self._pool.submit(self._write, Path(directory), args.rows)]

    def save(self, directory: Any, args: SaveRows) -> None:
        """Write now."""
        self._write(Path(directory), args.rows)

    def restore(self, directory: Any, args: Any = None) -> Rows:
        """The arrays as they were saved."""
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
        (directory / SEAL).write_text(sha256)


@ocp.args.register_with_handler(RowsHandler, for_save=True)
class SaveRows(ocp.args.CheckpointArgs):
    """What to save."""

    def __init__(self, rows: Rows) -> None:
        self.rows = rows


@ocp.args.register_with_handler(RowsHandler, for_restore=True)
class RestoreRows(ocp.args.CheckpointArgs):
    """Nothing to say."""


class Checkpoints:
    """The checkpoints of one cohort in one folder: saved in the background, verified, the last sound ones kept.

    Args:
        directory: the folder, made if need be.
        process: (index, count) of this process under ``jax.distributed``.
        say: prints a line.
        kept: how many sound checkpoints stay.
    """

    def __init__(
        self, directory: Path, process: tuple[int, int], say: Say, kept: int = CheckpointPolicy.kept
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory, self._say, self._kept = directory.absolute(), say, kept
        alone = MultiprocessingOptions()
        # Orbax would wait for the other processes, which save their own runs at their own pace
        if process[1] > 1:
            alone = MultiprocessingOptions(
                primary_host=process[0],
                active_processes={process[0]},
                barrier_sync_key_prefix=f"jthermo{process[0]}",
            )
        options = ocp.CheckpointManagerOptions(
            save_decision_policy=save_decision_policy.FixedIntervalPolicy(1),
            preservation_policy=preservation_policy.PreserveAll(),
            multiprocessing_options=alone,
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
        # seconds that training waited for one
        self.slowest = 0.0

    def save(self, rows: Rows, meta: Mapping[str, Any], wait: bool = False) -> None:
        """Start a checkpoint; with `wait` return when it is committed and verified."""
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
        """Take note of a checkpoint that has been committed; raise what went wrong with it."""
        if self._pending is not None:
            self._settle(wait=False)

    def restore(self) -> Rows | None:
        """The newest sound checkpoint; unsound ones are named and set aside. None where nothing was saved.

        Raises:
            InputError: there are checkpoints and none is sound; they are left as they are.
        """
        bad: dict[int, str] = {}
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                rows = self._read(step)
            except Exception as error:
                # a damaged archive raises whatever zipfile, NumPy or json make of it
                bad[step] = str(error) or type(error).__name__
                continue
            for other, why in bad.items():
                self._say(
                    f"checkpoint {other} is damaged ({why:.200}); set aside, going on from checkpoint {step}"
                )
                self._path(other).rename(self.directory / f"bad-{other}-{time.time_ns()}")
            if bad:
                self._manager.reload()
            return rows
        if bad:
            found = "; ".join(f"checkpoint {step}: {why:.200}" for step, why in bad.items())
            remedy = f"none is sound ({found}); restore the folder from a copy, or remove it to start its runs again"
            raise InputError("checkpoints", str(self.directory), remedy)
        return None

    def close(self) -> None:
        """Wait for what is being written."""
        with contextlib.suppress(StorageError):
            self._settle(wait=True)
        self._manager.close()

    def _settle(self, wait: bool) -> None:
        """When the pending checkpoint is committed: read it back, then let go of all but the last sound ones."""
        if self._pending is None:
            return
        with self._storage():
            if not wait and self._manager.is_saving_in_progress():
                return
            # raises what went wrong in the background
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
        """Errors of the disk as one message; the checkpoint that failed is given up."""
        try:
            yield
        except (OSError, ValueError) as error:
            self._pending = None
            why = getattr(error, "strerror", None) or error
            kept = "the last good one is kept: make room, then give the same command again"
            raise StorageError(
                "out", str(self.directory), f"a checkpoint failed ({why}); {kept}"
            ) from error
