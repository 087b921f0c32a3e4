"""Files that are there in full or not at all, and a user's Python file as a module."""

from __future__ import annotations

import importlib.util
import os
import sys
import traceback
import uuid
from pathlib import Path
from types import ModuleType

from jthermo.errors import InputError


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
    folder = os.open(path.parent, os.O_RDONLY)  # the new name has to survive a crash as well
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def import_file(path: Path, name: str, field: str) -> ModuleType:
    """A user's Python file as the module `name`; what goes wrong in it is one message about `field`, with the line."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # so that the file's own classes and functions have a home
    try:
        spec.loader.exec_module(module)
    except InputError:
        raise  # it says which value is wrong
    except Exception as error:
        del sys.modules[name]
        calls = traceback.extract_tb(error.__traceback__)
        lines = (
            [error.lineno]
            if isinstance(error, SyntaxError)
            else [c.lineno for c in calls if c.filename == str(path)]
        )
        remedy = (
            f"fails at line {lines[-1] if lines else '?'}: {type(error).__name__}: {error}; mend the file"
        )
        raise InputError(field, str(path), remedy) from error
    return module
