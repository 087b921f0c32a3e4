"""Writes files in full or not at all, and turns disk errors into messages."""

from __future__ import annotations

import contextlib
import errno
import os
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

from jthermo.errors import InputError, StorageError

# Errors that free disk space does not cure: another folder is needed.
NEVER = (errno.ENOENT, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.ENAMETOOLONG)


def write_whole(path: Path, body: bytes) -> None:
    """Write a file in full or not at all, even if the process crashes or the disk is full."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with temporary.open("xb") as file:
            file.write(body)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    # The directory entry has to survive a crash as well.
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_between(page: Path, sections: Mapping[str, str]) -> None:
    """Replace the text between the lines ``<!-- name:begin -->`` and ``<!-- name:end -->``.

    Args:
        page: the page. Names that have no such lines on it are skipped.
        sections: the new text by name.

    Raises:
        InputError: the page has the lines of none of the names.
    """
    text, written = page.read_text(), False
    for name, new in sections.items():
        begin, end = _markers(name)
        before, opened, rest = text.partition(begin)
        _, closed, after = rest.partition(end)
        if opened and closed:
            text, written = f"{before}{begin}\n{new}\n{end}{after}", True
    if not written:
        begin, end = _markers(next(iter(sections)))
        raise InputError(
            "page", str(page), f"has no lines {begin} and {end}; add both where the tables go"
        )
    write_whole(page, text.encode())


def _markers(name: str) -> tuple[str, str]:
    return f"<!-- {name}:begin -->", f"<!-- {name}:end -->"


@contextlib.contextmanager
def writing(directory: str | Path) -> Iterator[None]:
    """Turn an OSError into a StorageError, or into an InputError if freeing space does not help."""
    if Path(directory).is_file():
        raise InputError("out", str(directory), "is a file; give a folder")
    try:
        yield
    except OSError as error:
        if error.errno in NEVER:
            raise InputError(
                "out", str(directory), f"cannot be written ({error.strerror}); give another folder"
            ) from None
        remedy = (
            f"cannot be written ({error.strerror}); committed records and checkpoints are kept. "
            "Make room or choose another folder, then give the same command again"
        )
        raise StorageError("out", str(directory), remedy) from error
