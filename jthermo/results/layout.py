"""The format of a results folder: its files, and how a record file is encoded (npz).

::

    sweep.json             the sweep, its runs, the labels of its variables, digests of its programs
    sweep-copy.json        the same, from which a damaged sweep.json is restored
    start.npz              the parameters that all runs start from, if these were passed in memory
    manifest.json          SHA-256 of each record file, versions, device; written last
    manifest-I-of-N.json   the same for shard I of N
    records/PART.npz       the records of some runs
    checkpoints/I-of-N/    the states of runs in training and of finished runs
    locks/                 one lock file per writer
    running/I-of-N.part    the records so far of the runs in training: 32 bytes of SHA-256, npz
    running/I-of-N.json    how far shard I has come

The JSON files contain the SHA-256 of their content. A record file that no manifest names is
ignored. Each row belongs to a run, which is identified by (key, seed) whatever the grid of the
sweep.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping

import numpy as np

from jthermo.errors import InputError
from jthermo.npz import read_npz

SWEEP = "sweep.json"
SWEEP_COPY = "sweep-copy.json"
START = "start.npz"
MANIFEST = "manifest.json"
MANIFESTS = "manifest*.json"
RECORDS = "records"
CHECKPOINTS = "checkpoints"
LOCKS = "locks"
RUNNING = "running"
RECORD_SUFFIX = ".npz"
PART_SUFFIX = ".part"
# Record file of an experiment that trains no sweep, written by write_dataset.
DATASET = "results.nc"


def shard_name(shard: tuple[int, int]) -> str:
    """The part of a file name that stands for shard (I, N); ``"0-of-1"`` without shards."""
    return f"{shard[0]}-of-{shard[1]}"


def manifest_name(shard: tuple[int, int]) -> str:
    """The file name of the manifest that shard (I, N) writes."""
    return MANIFEST if shard[1] == 1 else f"manifest-{shard_name(shard)}.json"


def record_name(name: str) -> str:
    """The file name of the record file of a cohort."""
    return name + RECORD_SUFFIX


def encode_records(part: Mapping[str, np.ndarray]) -> bytes:
    """The bytes of a record file, from its arrays by name."""
    body = io.BytesIO()
    np.savez(body, allow_pickle=False, **part)
    return body.getvalue()


def encode_part(part: Mapping[str, np.ndarray]) -> bytes:
    """A record file of runs in training, which no manifest names: its own SHA-256 comes first."""
    body = encode_records(part)
    return hashlib.sha256(body).digest() + body


def decode_part(body: bytes) -> dict[str, np.ndarray]:
    """The arrays of :func:`encode_part`.

    Raises:
        InputError: the file is damaged.
    """
    if hashlib.sha256(body[32:]).digest() != body[:32]:
        raise InputError("records", "of runs in training", "are damaged; wait for the next ones")
    return decode_records(body[32:])


def decode_records(body: bytes) -> dict[str, np.ndarray]:
    """The arrays of a record file; no code in it is executed."""
    return read_npz(body)
