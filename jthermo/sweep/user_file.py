"""A user's own Python file, imported by its path."""

from __future__ import annotations

import importlib.util
import sys
import traceback
from pathlib import Path
from types import ModuleType

from jthermo.errors import InputError


def import_file(path: Path, name: str, field: str) -> ModuleType:
    """A user's Python file as the module `name`; what goes wrong in it is one message about `field`, with the line."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # so that the file's own classes and functions have a home
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except InputError:
        # it says which value is wrong
        raise
    except Exception as error:
        del sys.modules[name]
        calls = traceback.extract_tb(error.__traceback__)
        lines = [call.lineno for call in calls if Path(call.filename).resolve() == path.resolve()]
        line = error.lineno if isinstance(error, SyntaxError) else lines[-1]
        remedy = f"fails at line {line}: {type(error).__name__}: {error}; mend the file"
        raise InputError(field, str(path), remedy) from error
    return module
