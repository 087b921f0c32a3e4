"""Imports the user's own Python file by its path."""

from __future__ import annotations

import importlib.util
import sys
import traceback
from pathlib import Path
from types import ModuleType

from jthermo.errors import InputError, Interrupted, one_line

# The files that are being imported for their sweep alone.
_READING: list[Path] = []


def refuse_training() -> None:
    """Raise an InputError if a file is being imported for its sweep alone, as for a plan."""
    if _READING:
        remedy = 'trains when it is imported; put jt.run under `if __name__ == "__main__":`'
        raise InputError("experiment", str(_READING[-1]), remedy)


def import_sweep(path: Path, name: str, field: str) -> ModuleType:
    """As :func:`import_file`, but a ``jt.run`` in the file is an InputError."""
    _READING.append(path)
    try:
        return import_file(path, name, field)
    finally:
        _READING.pop()


def import_file(path: Path, name: str, field: str) -> ModuleType:
    """The user's Python file as the module `name`; its exceptions become an InputError for `field`.

    The message names the line. InputErrors pass unchanged.
    """
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # registered first, so that the names of its classes and functions can be imported
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (InputError, Interrupted):
        # its message already names the wrong value
        del sys.modules[name]
        raise
    except (Exception, SystemExit) as error:
        sys.modules.pop(name, None)
        calls = traceback.extract_tb(error.__traceback__)
        lines = [call.lineno for call in calls if Path(call.filename).resolve() == path.resolve()]
        if isinstance(error, SyntaxError):
            lines = [error.lineno]
        # without a line, the file itself can't be read
        where = f" at line {lines[-1]}" if lines else ""
        remedy = f"fails{where}: {type(error).__name__}: {one_line(error)}; correct the file"
        raise InputError(field, str(path), remedy) from error
    return module
