"""Figures as files: SVG for pages, and PNG, PDF or SVG on disk."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jthermo.errors import InputError
from jthermo.figures.colours import on_dark
from jthermo.figures.style import STYLE, style
from jthermo.results.atomic import write_whole, writing

if TYPE_CHECKING:
    from matplotlib.figure import Figure


# a point in a page: text of 8 points is 13 pixels high
PIXELS = 1.6


METADATA = {"png": {"Software": None}, "pdf": {"CreationDate": None}, "svg": {"Date": None}}


def save(
    made: Mapping[str, Figure], folder: str | Path, formats: Sequence[str] = ("png",)
) -> list[Path]:
    """Write figures, whole or not at all, and close them.

    Args:
        made: figures by name.
        folder: where to.
        formats: ``"png"``, ``"pdf"`` and ``"svg"``.
    """
    import matplotlib.pyplot as plt

    if unknown := set(formats) - set(METADATA):
        raise InputError("formats", unknown, f"use {', '.join(METADATA)}")
    paths = []
    for name, fig in made.items():
        for kind in formats:
            body = io.BytesIO()
            with style():
                fig.savefig(body, format=kind, metadata=METADATA[kind])
            paths.append(Path(folder) / f"{name}.{kind}")
            with writing(folder):
                Path(folder).mkdir(parents=True, exist_ok=True)
                write_whole(paths[-1], body.getvalue())
        plt.close(fig)
    return paths


def svg(fig: Figure, name: str) -> bytes:
    """A figure as SVG that can stand in a page or alone: text as text, darker or lighter with the reader's scheme.

    Args:
        fig: the figure, which stays open.
        name: what the figure is, for those who hear it read.
    """
    import matplotlib.pyplot as plt

    body = io.BytesIO()
    with plt.rc_context({**STYLE, "svg.fonttype": "none", "svg.hashsalt": name}):
        fig.savefig(
            body, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator"))
        )
    text = body.getvalue().decode()
    head, text = "<svg", text[text.index("<svg") + 4 :]
    text = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", text, flags=re.DOTALL)
    # ids of paths that are drawn several times, and of clips
    used = set(re.findall(r"#([\w-]+)", text))
    text = re.sub(r' id="([^"]*)"', lambda found: found[0] if found[1] in used else "", text)
    text = re.sub(
        r'(width|height)="([\d.]+)pt"',
        lambda found: f'{found[1]}="{float(found[2]) * PIXELS:.0f}"',
        text,
    )
    places = re.compile(r'(?<= )(?:d|x|y|width|height|transform|viewBox)="[^"]*"')
    # a tenth of a point is not seen
    text = places.sub(lambda found: re.sub(r"(\.\d)\d+", r"\1", found[0]), text)
    text = re.sub(r"font-family: [^;\"]*(; )?", "", text)
    text = re.sub(r"(?<=: )#([0-9a-f]{6})\b", r"var(--c\1)", text)
    text = re.sub(r"\s*\n\s*", " ", text).replace("> <", "><")
    shades = dict.fromkeys(["000000", "ffffff", *re.findall(r"var\(--c(\w+)\)", text)])
    # a colour has one name wherever it stands, so that figures in one page agree
    light, dark = ("".join(f"--c{c}:{shade(f'#{c}')};" for c in shades) for shade in (str, on_dark))
    scheme = f"<style>:root{{{light}}}@media (prefers-color-scheme:dark){{:root{{{dark}}}}}</style>"
    head += (
        f' role="img" aria-label="{html.escape(name)}" font-family="sans-serif"'
        # a page's own paper, where it has one
        ' style="fill: var(--c000000); background: var(--paper, var(--cffffff))"'
    )
    return f"{head}{text.replace('<defs>', scheme + '<defs>', 1)}".encode()
