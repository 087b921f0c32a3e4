"""Imports the user's own Python file by its path."""

from __future__ import annotations

import importlib.util
import sys
import traceback
from pathlib import Path
from types import ModuleType

from jthermo.errors import InputError


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
    except InputError:
        # its message already names the wrong value
        raise
    except Exception as error:
        del sys.modules[name]
        calls = traceback.extract_tb(error.__traceback__)
        lines = [call.lineno for call in calls if Path(call.filename).resolve() == path.resolve()]
        line = error.lineno if isinstance(error, SyntaxError) else lines[-1]
        remedy = f"fails at line {line}: {type(error).__name__}: {error}; correct the file"
        raise InputError(field, str(path), remedy) from error
    return module
