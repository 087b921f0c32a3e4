"""The experiments that come with jthermo: their files and descriptions, without importing them."""

from __future__ import annotations

import ast
from pathlib import Path


def experiments() -> dict[str, Path]:
    """The file of each experiment by name, from ``experiments/`` in a clone or from the wheel."""
    package = Path(__file__).parents[1]
    folder = next(
        f for f in (package.parent / "experiments", package / "_experiments") if f.is_dir()
    )
    return {path.stem: path for path in sorted(folder.glob("*.py"))}


def title(path: Path) -> str:
    """The first paragraph of a file's docstring, on one line.

    >>> title(experiments()["fig9_10"])[:60]
    'Figures 9 and 10: the 10-10-1 net without bias on U(0, 1) fo'
    """
    module = ast.parse(path.read_text("utf-8"))
    return joined_lines(ast.get_docstring(module)).partition("\n\n")[0]


def joined_lines(docstring: str | None) -> str:
    """A docstring with each paragraph on one line."""
    paragraphs = (docstring or "").strip().split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
