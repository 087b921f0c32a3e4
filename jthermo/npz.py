"""Reads .npz archives whose sizes are checked before memory is taken for their arrays.

A few kilobytes can announce arrays of terabytes, and a few megabytes can be zeros in gigabytes.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import zipfile
from collections.abc import Collection
from pathlib import Path

import numpy as np

# Data may take this many bytes of memory in any case, and beyond that so many times what is stored.
FREE_BYTES, MOST_EXPANSION = 2**30, 100


def read_npz(
    file: str | Path | bytes, names: Collection[str] | None = None
) -> dict[str, np.ndarray]:
    """The arrays of an .npz archive by name; no code in it is executed.

    Args:
        file: its path, or its bytes.
        names: the arrays to read; None reads all.

    Raises:
        ValueError: an array is not as large as its header says, is encrypted or compressed in a way
            that NumPy does not write, or all together expand too much.
        OSError, EOFError, zipfile.BadZipFile, zlib.error: the file cannot be read, or is damaged.

    >>> body = io.BytesIO()
    >>> np.savez(body, x=np.arange(3))
    >>> read_npz(body.getvalue())["x"].tolist()
    [0, 1, 2]
    """
    try:
        return _read(file, names)
    except RuntimeError as error:
        # what zipfile says of encryption, and of versions and compressions that it doesn't know
        raise ValueError(str(error)) from error


def _read(file: str | Path | bytes, names: Collection[str] | None) -> dict[str, np.ndarray]:
    """The arrays of an archive as zipfile and NumPy read them, once their sizes are checked."""
    with contextlib.ExitStack() as stack:
        opened = (
            io.BytesIO(file) if isinstance(file, bytes) else stack.enter_context(open(file, "rb"))
        )
        stored = opened.seek(0, os.SEEK_END)
        with zipfile.ZipFile(opened) as archive:
            members = [
                member
                for member in archive.infolist()
                if names is None or member.filename.removesuffix(".npy") in names
            ]
            check_expansion(stored, sum(member.file_size for member in members))
            for member in members:
                _check_header(archive, member)
        opened.seek(0)
        with np.load(opened, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays if names is None or name in names}


def check_expansion(stored: int, size: int) -> None:
    """Raise a ValueError if data of `stored` bytes would take far more memory than that.

    >>> check_expansion(3_000_000, 3_000_000_000)
    Traceback (most recent call last):
    ...
    ValueError: its 3,000,000 bytes announce 3,000,000,000, more than 100 times as many
    """
    if size > max(FREE_BYTES, MOST_EXPANSION * stored):
        raise ValueError(
            f"its {stored:,} bytes announce {size:,}, more than {MOST_EXPANSION} times as many"
        )


def _check_header(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
    """Raise a ValueError if an array is not as large as its header says."""
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        if version == (1, 0):
            shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        else:
            shape, _, dtype = np.lib.format.read_array_header_2_0(file)
        size = math.prod(shape) * dtype.itemsize
        if dtype.hasobject or size != member.file_size - file.tell():
            raise ValueError(
                f"{member.filename} is announced as {dtype} {shape} and has "
                f"{member.file_size - file.tell():,} bytes"
            )
