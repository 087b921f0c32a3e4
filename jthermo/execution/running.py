"""What a running sweep shows of itself in its folder: how far it is, and the records so far.

The files are for reading only. Nothing is resumed from them, and they are removed at the end.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from jthermo.errors import InputError, file_path
from jthermo.execution import lock
from jthermo.execution.progress import Progress
from jthermo.results.atomic import write_whole
from jthermo.results.layout import PART_SUFFIX, RUNNING, SWEEP, encode_part, shard_name
from jthermo.results.reading import open_results, summary
from jthermo.results.sealed_json import read_json

# Least seconds between two writes, and how many times as long as a write the pause is.
EVERY_SECONDS, PAUSE = 2.0, 100


class Shown:
    """Writes the progress of a sweep and the records of its runs in training into its folder.

    Args:
        directory: the results folder; None writes nothing.
        shard: (I, N).
        bar: the progress.
    """

    def __init__(self, directory: Path | None, shard: tuple[int, int], bar: Progress) -> None:
        self._folder = None if directory is None else directory / RUNNING
        self._name, self._bar = shard_name(shard), bar
        self._due = time.monotonic() + EVERY_SECONDS

    def write(self, records: Callable[[], Mapping[str, np.ndarray]]) -> None:
        """Write, if it is due.

        Args:
            records: returns the arrays of a record file of the runs in training.
        """
        began = time.monotonic()
        if self._folder is None or began < self._due:
            return
        # a full disk is reported by the next checkpoint
        with contextlib.suppress(OSError):
            self._folder.mkdir(exist_ok=True)
            part = records()
            if len(part["seed"]):
                write_whole(self._folder / f"{self._name}{PART_SUFFIX}", encode_part(part))
            state = {"text": str(self._bar), "time": time.time()}
            write_whole(self._folder / f"{self._name}.json", json.dumps(state).encode())
        ended = time.monotonic()
        self._due = ended + max(EVERY_SECONDS, PAUSE * (ended - began))

    def remove(self, all_shards: bool = False) -> None:
        """Remove the files of this shard, or of all shards, once the records are committed."""
        if self._folder is None:
            return
        if all_shards:
            shutil.rmtree(self._folder, ignore_errors=True)
        for suffix in (PART_SUFFIX, ".json"):
            with contextlib.suppress(OSError):
                (self._folder / f"{self._name}{suffix}").unlink()
        with contextlib.suppress(OSError):
            self._folder.rmdir()


def status(directory: str | Path) -> dict[str, str]:
    """Summary of a results folder, also while a sweep runs in it.

    Args:
        directory: a folder that ``jt.run`` wrote or is writing.

    Returns:
        Texts by heading, in the order in which ``jthermo status`` prints them: the state, for each
        process that writes to the folder its progress, speed, time left, pid and host; and the
        runs, records, variables, diverged runs, device and id.

    Raises:
        InputError: as :func:`open_results`.
    """
    folder = file_path("directory", directory)
    writers = lock.writers(folder)
    try:
        rows = summary(open_results(folder))
    except InputError:
        if not writers or not (folder / SWEEP).is_file():
            raise
        rows = {"state": "", "records": "none yet", "sweep": read_json(folder / SWEEP)["id"]}
    if not writers:
        return rows
    progress = {
        "progress" if len(writers) == 1 else f"shard {shard.replace('-of-', '/')}": (
            f"{_progress(folder, shard)}; {who}"
        )
        for shard, who in writers.items()
    }
    return {"state": "running", **progress, **{k: v for k, v in rows.items() if k != "state"}}


def _progress(folder: Path, shard: str) -> str:
    """How far a shard is, and when it said so."""
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
        state = json.loads((folder / RUNNING / f"{shard}.json").read_bytes())
        return f"{state['text']}, {max(time.time() - state['time'], 0.0):.0f} s ago"
    return "starting"
