"""Writes docs/quickstart.ipynb from docs/start.md; a test checks that the two agree.

Usage: python scripts/notebook.py
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

DOCS = Path(__file__).parent.parent / "docs"
FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$\n?", re.DOTALL | re.MULTILINE)


def pieces(page: Path) -> Iterator[tuple[str, str]]:
    """The blocks of a Markdown page in order, as (language, text); text outside fences has ""."""
    text, end = page.read_text(), 0
    for block in FENCE.finditer(text):
        yield "", text[end : block.start()]
        yield block[1], block[2]
        end = block.end()
    yield "", text[end:]


def notebook(page: Path) -> str:
    """The page as a notebook without outputs: Python becomes code cells, the rest Markdown."""
    cells: list[tuple[str, str]] = []
    for language, body in pieces(page):
        if language == "python":
            cells.append(("code", body.strip()))
            continue
        text = f"```{language}\n{body}```" if language else body.strip()
        if cells and cells[-1][0] == "markdown":
            text = f"{cells.pop()[1]}\n\n{text}"
        cells.append(("markdown", text))
    as_json = [
        {
            "cell_type": kind,
            "id": f"cell-{i}",
            "metadata": {},
            "source": text.strip().splitlines(keepends=True),
        }
        | ({"execution_count": None, "outputs": []} if kind == "code" else {})
        for i, (kind, text) in enumerate(cells)
    ]
    kernel = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    content = {"cells": as_json, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    (DOCS / "quickstart.ipynb").write_text(notebook(DOCS / "start.md"))
