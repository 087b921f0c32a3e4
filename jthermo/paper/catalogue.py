"""The experiments that come with jthermo: their files and descriptions, without importing them."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path

SCALES = ("small", "paper")


@dataclass(frozen=True)
class About:
    """What the file of an experiment says about it.

    Attributes:
        text: its docstring, with each paragraph on one line.
        claims: ids of the claims that it fits or judges.
        study: whether it studies what the exponents of its claims depend on. It then fits them in
            several windows, and tests none.
    """

    text: str
    claims: tuple[str, ...]
    study: bool

    @property
    def title(self) -> str:
        """The first paragraph of the text."""
        return self.text.partition("\n\n")[0]


def experiments() -> dict[str, Path]:
    """The file of each experiment by name, from ``experiments/`` in a clone or from the wheel."""
    package = Path(__file__).parents[1]
    folder = next(
        f for f in (package.parent / "experiments", package / "_experiments") if f.is_dir()
    )
    return {path.stem: path for path in sorted(folder.glob("*.py"))}


def about(path: Path) -> About:
    """The description of an experiment, read from its file: importing it would load JAX.

    The claims are the first arguments of all ``Claim(...)`` in ``FIT``, then the ids in ``CLAIMS``.

    >>> about(experiments()["fig9_10"]).claims
    ('C3', 'C5')
    """
    module = ast.parse(path.read_text("utf-8"))
    assigned = {
        ast.unparse(target): node.value
        for node in module.body
        if isinstance(node, ast.Assign)
        for target in node.targets
    }
    nothing = ast.Tuple([])
    claims = [
        ast.literal_eval(node.args[0])
        for node in ast.walk(assigned.get("FIT", nothing))
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("Claim")
    ]
    claims += ast.literal_eval(assigned.get("CLAIMS", nothing))
    text = joined_lines(ast.get_docstring(module))
    return About(text, tuple(dict.fromkeys(claims)), "WINDOWS" in assigned)


def joined_lines(docstring: str | None) -> str:
    """A docstring with each paragraph on one line."""
    paragraphs = (docstring or "").strip().split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
