"""Figures as files: PNG, PDF or SVG on disk, and SVG for HTML pages.

An SVG that comes from a folder goes into a page only if it draws and does nothing else: a page runs
the scripts of an inlined SVG, and applies its styles to everything.
"""

from __future__ import annotations

import html
import io
import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jthermo.errors import InputError
from jthermo.figures.colours import on_dark
from jthermo.figures.style import STYLE, style
from jthermo.labels import all_log_ticks
from jthermo.results.atomic import write_whole, writing

if TYPE_CHECKING:
    from matplotlib.figure import Figure


# Pixels per point in a page: text of 8 points becomes 13 pixels high.
PIXELS = 1.6
# No dates or versions in a file, so that the same figure gives the same bytes.
METADATA = {"png": {"Software": None}, "pdf": {"CreationDate": None}, "svg": {"Date": None}}

# What an inlined SVG may consist of. An attribute can refer to an id of the SVG itself only: other
# addresses need a quote, a slash or a backslash, which no pattern contains.
_SVG, _XLINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}"
_ELEMENT = re.compile(
    re.escape(_SVG)
    + "(svg|g|defs|clipPath|use|style|text|tspan|path|rect|circle|ellipse|line|polyline|"
    "polygon|image|pattern|linearGradient|radialGradient|stop)"
)
_ATTRIBUTES = {
    "x|y|x1|x2|y1|y2|cx|cy|r|rx|ry|dx|dy|d|points|transform|width|height|viewBox|version|offset|"
    "patternUnits|gradientUnits|gradientTransform|preserveAspectRatio|fill|stroke|opacity|"
    "font-family|text-anchor|shape-rendering": r"[\w\s.,()+#%-]*",
    "id": r"[\w-]+",
    "clip-path": r"url\(#[\w-]+\)",
    re.escape(_XLINK) + "href": r"#[\w-]+|data:image/png;base64,[A-Za-z0-9+/=\s]*",
    "role": "img",
    "type": "text/css",
    "aria-label": r"(?s:.*)",
}
_PROPERTY = re.compile(
    "(fill|stroke|stop|font|image|shape|text)-[a-z]+|fill|stroke|opacity|background"
)
_VALUE = re.compile(r"(url\(#[\w-]+\)|(?!url)[\w .,()#+%-])*", re.IGNORECASE)
_COLOURS = r":root\{(?:--c[0-9a-f]{6}:#[0-9a-f]{6};)*\}"
_RULES = r'(?:\[(?:fill|stroke)="#[0-9a-f]{6}"\]\{(?:fill|stroke):#[0-9a-f]{6}\})*'
_SCHEME = r"@media \(prefers-color-scheme:dark\)"
# The style sheets that Matplotlib and `svg` write, and that `svg` wrote until version 0.2.
_STYLE = re.compile(
    r"\*\{stroke-linejoin: round; stroke-linecap: butt\}|"
    rf"{_SCHEME}\{{:root\{{--sheet:#[0-9a-f]{{6}}\}}{_RULES}\}}|"
    rf"{_COLOURS}{_SCHEME}\{{{_COLOURS}\}}"
)


def save(
    made: Mapping[str, Figure], folder: str | Path, formats: Sequence[str] = ("png",)
) -> list[Path]:
    """Write figures to files and close them.

    Args:
        made: figures by name.
        folder: the folder to write to; it is created if needed.
        formats: any of ``"png"``, ``"pdf"`` and ``"svg"``.

    Returns:
        The paths written, ``folder/name.format``.

    Raises:
        InputError: an unknown format, or a folder that cannot be written.

    Guarantees:
        A file is written completely or not at all.
    """
    import matplotlib.pyplot as plt

    if not isinstance(made, Mapping):
        raise InputError("made", type(made).__name__, 'give figures by name, as {"rate": figure}')
    formats = (formats,) if isinstance(formats, str) else formats
    if unknown := set(formats) - set(METADATA):
        raise InputError("formats", unknown, f"use {', '.join(METADATA)}")
    paths = []
    for name, fig in made.items():
        all_log_ticks(fig)
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
    """A figure as SVG, for use inside an HTML page or alone.

    Text stays text. Colours are plain attributes, which every program understands; a style sheet
    replaces them where the reader prefers dark pages.

    Args:
        fig: the figure; it stays open.
        name: a description for screen readers.

    Returns:
        The SVG as UTF-8.
    """
    import matplotlib.pyplot as plt

    all_log_ticks(fig)
    body = io.BytesIO()
    with plt.rc_context({**STYLE, "svg.fonttype": "none", "svg.hashsalt": name}):
        fig.savefig(
            body, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator"))
        )
    text = body.getvalue().decode()
    head, text = "<svg", text[text.index("<svg") + 4 :]
    text = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", text, flags=re.DOTALL)
    # keep only the ids that are referenced: repeated paths and clips
    used = set(re.findall(r"#([\w-]+)", text))
    text = re.sub(r' id="([^"]*)"', lambda match: match[0] if match[1] in used else "", text)
    text = re.sub(
        r'(width|height)="([\d.]+)pt"',
        lambda match: f'{match[1]}="{float(match[2]) * PIXELS:.0f}"',
        text,
    )
    places = re.compile(r'(?<= )(?:d|x|y|width|height|transform|viewBox)="[^"]*"')
    # one decimal, a tenth of a point, is enough on a screen
    text = places.sub(lambda match: re.sub(r"(\.\d)\d+", r"\1", match[0]), text)
    text = re.sub(r"font-family: [^;\"]*(; )?", "", text)
    text = re.sub(r'style="([^"]*)"', _plain, text)
    text = re.sub(r"\s*\n\s*", " ", text).replace("> <", "><")
    shades = re.findall(r'(fill|stroke)="(#[0-9a-f]{6})"', text)
    # text without a colour of its own inherits that of the root
    scheme = _dark(sorted({("fill", "#000000"), *shades}))
    head += (
        f' role="img" aria-label="{html.escape(name)}" font-family="sans-serif" fill="#000000"'
        # the background of the page, if it defines one
        ' style="background: var(--paper, var(--sheet, #ffffff))"'
    )
    return f"{head}{text.replace('<defs>', scheme + '<defs>', 1)}".encode()


def _plain(style: re.Match[str]) -> str:
    """A style attribute with its colours as attributes, which other style sheets can override."""
    colours = re.findall(r"(?:^|; ?)(fill|stroke): (#[0-9a-f]{6})\b", style[1])
    rest = re.sub(r"(^|; ?)(?:fill|stroke): #[0-9a-f]{6}\b", r"\1", style[1])
    rest = "; ".join(part.strip() for part in rest.split(";") if part.strip())
    attributes = [f'{name}="{colour}"' for name, colour in colours]
    return " ".join([*attributes, *([f'style="{rest}"'] if rest else [])])


def _dark(shades: Sequence[tuple[str, str]]) -> str:
    """The style sheet of a dark page: another colour for each fill and stroke."""
    rules = "".join(f'[{name}="{colour}"]{{{name}:{on_dark(colour)}}}' for name, colour in shades)
    sheet = f":root{{--sheet:{on_dark('#ffffff')}}}"
    return f"<style>@media (prefers-color-scheme:dark){{{sheet}{rules}}}</style>"


def for_page(text: str) -> str:
    """An SVG from a file as it goes into an HTML page, or a sentence in its place.

    Args:
        text: the SVG. It is shown if it has only elements, attributes and styles that draw.

    >>> for_page("<svg onload='alert(1)'/>")[:27]
    '<p>This figure is not shown'
    """
    if _only_draws(text):
        return text
    return (
        "<p>This figure is not shown: its file contains more than a drawing. "
        "The command of its experiment draws it again.</p>"
    )


def _only_draws(text: str) -> bool:
    # Comments, entities, CDATA and prefixes mean one thing in XML and another in HTML.
    if re.search(r"<(?!/?[a-zA-Z]+[\s/>])", text):
        return False
    try:
        root = ET.fromstring(text)
    except (ET.ParseError, ValueError):
        return False
    return root.tag == f"{_SVG}svg" and all(
        _ELEMENT.fullmatch(element.tag)
        and all(_allowed(name, value) for name, value in element.attrib.items())
        and (
            element.tag != f"{_SVG}style"
            or (len(element) == 0 and _STYLE.fullmatch((element.text or "").strip()))
        )
        for element in root.iter()
    )


def _allowed(name: str, value: str) -> bool:
    if name == "style":
        declarations = [part.partition(":") for part in value.split(";") if part.strip()]
        return all(
            _PROPERTY.fullmatch(key.strip()) and _VALUE.fullmatch(entry)
            for key, _, entry in declarations
        )
    return any(re.fullmatch(k, name) and re.fullmatch(v, value) for k, v in _ATTRIBUTES.items())
