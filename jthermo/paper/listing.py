"""The experiments by name, and a list of them that imports none of them. No JAX."""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

# Beside the experiments: for each of them the digest of its file and the number of its runs.
COUNTS = "runs.json"


class Listed(NamedTuple):
    """An experiment in the list.

    Attributes:
        name: its name.
        num_runs: runs of its SWEEP; None if it trains no nets.
        title: the first paragraph of its docstring, on one line.
    """

    name: str
    num_runs: int | None
    title: str


def folder() -> Path:
    """``experiments/`` in a clone, or that of the wheel."""
    package = Path(__file__).parents[1]
    folders = (package.parent / "experiments", package / "_experiments")
    return next(f for f in folders if f.is_dir())


def experiments() -> dict[str, Path]:
    """The file of each experiment by name."""
    return {path.stem: path for path in sorted(folder().glob("*.py"))}


def listed(count: Callable[[str], int | None]) -> list[Listed]:
    """All experiments, in the order of their names.

    Args:
        count: gives the number of runs of an experiment that changed since it was counted.
    """
    path = folder() / COUNTS
    known = json.loads(path.read_text()) if path.is_file() else {}
    found = []
    for name, file in experiments().items():
        body, counted = file.read_bytes(), known.get(name, {})
        same = counted.get("sha256") == digest(body)
        num_runs = counted["num_runs"] if same else count(name)
        found.append(Listed(name, num_runs, _title(body)))
    return found


def counts(count: Callable[[str], int | None]) -> str:
    """The content that COUNTS should have."""
    rows = {
        name: {"sha256": digest(file.read_bytes()), "num_runs": count(name)}
        for name, file in experiments().items()
    }
    return json.dumps(rows, indent=1) + "\n"


def digest(body: bytes) -> str:
    """SHA-256 of a file, without regard to the ends of its lines."""
    return hashlib.sha256(body.replace(b"\r\n", b"\n")).hexdigest()


def _title(body: bytes) -> str:
    """The first paragraph of the docstring of a module, on one line."""
    docstring = ast.get_docstring(ast.parse(body)) or ""
    return " ".join(docstring.partition("\n\n")[0].split())
