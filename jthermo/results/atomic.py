"""Files that are there in full or not at all, and a user's Python file as a module."""

from __future__ import annotations

import contextlib
import errno
import os
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

from jthermo.errors import InputError, StorageError

# room would not help
NEVER = (errno.ENOENT, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.ENAMETOOLONG)


def write_whole(path: Path, body: bytes) -> None:
    """Write a file so that it is there in full or not at all, also after a crash or a full disk."""
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
    # the new name has to survive a crash as well
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_between(page: Path, made: Mapping[str, str]) -> None:
    """Put text between its lines ``<!-- name:begin -->`` and ``<!-- name:end -->`` on a page that has some of the names."""
    text, written = page.read_text(), False
    for name, new in made.items():
        begin, end = _markers(name)
        before, found, rest = text.partition(begin)
        _, closed, after = rest.partition(end)
        if found and closed:
            text, written = f"{before}{begin}\n{new}\n{end}{after}", True
    if not written:
        begin, end = _markers(next(iter(made)))
        raise InputError(
            "page", str(page), f"has no lines {begin} and {end}; add them where the text belongs"
        )
    write_whole(page, text.encode())


def _markers(name: str) -> tuple[str, str]:
    return f"<!-- {name}:begin -->", f"<!-- {name}:end -->"


@contextlib.contextmanager
def writing(directory: str | Path) -> Iterator[None]:
    """Errors of the disk as one message: of a disk that may be mended, or of a folder that can't be one."""
    if Path(directory).is_file():
        raise InputError("out", str(directory), "is a file; give a folder")
    try:
        yield
    except OSError as error:
        if error.errno in NEVER:
            raise InputError(
                "out", str(directory), f"can't be written ({error.strerror}); give another folder"
            ) from None
        remedy = (
            f"can't be written ({error.strerror}); what is committed is kept: make room or choose another folder, "
            "then give the same command again"
        )
        raise StorageError("out", str(directory), remedy) from error
