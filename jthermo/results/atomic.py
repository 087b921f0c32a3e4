"""Writes files in full or not at all, and turns disk errors into messages."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

from jthermo.errors import InputError, disk_error


def write_whole(path: Path, body: bytes) -> None:
    """Write a file in full or not at all, even if the process crashes or the disk is full.

    Raises:
        InputError: `path` is a folder or a device, which a file must not replace.
    """
    if path.exists() and not path.is_file():
        raise InputError("out", str(path), "is not a regular file; give the path of a file")
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
        InputError: the page has the lines of none of the names, or isn't a file.
    """
    # a device such as /dev/full has no end
    if page.exists() and not page.is_file():
        raise InputError("page", str(page), "isn't a file; give a Markdown page")
    with reading("page", page):
        text, written = page.read_text(encoding="utf-8"), False
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
    """Turn an OSError into a StorageError if the same command can succeed later, else InputError.

    Args:
        directory: the folder that is written.
    """
    try:
        if Path(directory).exists() and not Path(directory).is_dir():
            raise InputError("out", str(directory), "is a file; give a folder")
        yield
    except OSError as error:
        kept = "committed records and checkpoints are kept. "
        raise disk_error(error, "out", directory, kept) from error


@contextlib.contextmanager
def reading(field: str, path: Path) -> Iterator[None]:
    """Turn an error of reading a text file into an InputError.

    Args:
        field: the argument that names the file.
        path: the file.
    """
    try:
        yield
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it isn't UTF-8 text"
        raise InputError(field, str(path), f"cannot be read ({why})") from None
