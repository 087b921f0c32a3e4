"""docs/quickstart.ipynb from docs/start.md: python scripts/notebook.py. A test holds the one to the other."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

DOCS = Path(__file__).parent.parent / "docs"
FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$\n?", re.DOTALL | re.MULTILINE)


def pieces(page: Path) -> Iterator[tuple[str, str]]:
    """A Markdown page in order as (language, text); prose has no language, and code that is included is read."""
    text, end = page.read_text(), 0
    for found in FENCE.finditer(text):
        yield "", text[end : found.start()]
        language, body = found.groups()
        if language.startswith("{literalinclude}"):
            options = dict(re.findall(r"^:([\w-]+): (.*)$", body, re.MULTILINE))
            source = (page.parent / language.split()[1]).read_text()
            after = source.partition(json.loads(options["start-after"]) + "\n")[2]
            language, body = (
                options["language"],
                after.partition(json.loads(options["end-before"]))[0],
            )
        yield language, body
        end = found.end()
    yield "", text[end:]


def notebook(page: Path) -> str:
    """The page as a notebook without outputs: Python is code, all else Markdown."""
    cells: list[tuple[str, str]] = []
    for language, body in pieces(page):
        if language == "python":
            cells.append(("code", body.strip()))
            continue
        text = f"```{language}\n{body}```" if language else body.strip()
        if cells and cells[-1][0] == "markdown":
            text = f"{cells.pop()[1]}\n\n{text}"
        cells.append(("markdown", text))
    made = [
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
    made_of = {"cells": made, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(made_of, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    (DOCS / "quickstart.ipynb").write_text(notebook(DOCS / "start.md"))
