"""All colours of curves and pages."""

from __future__ import annotations

from typing import Any

import numpy as np

# Colours for unordered categories: Okabe & Ito (2008) without yellow. The first few are the easiest
# to tell apart.
CATEGORIES = ("#0072B2", "#D55E00", "#56B4E9", "#E69F00", "#CC79A7", "#009E73")


# The range of viridis, from its dark end (0) to its light end (1), that is legible on a white page
# and on a dark page.
SEQUENCE = {"light": (0.0, 0.82), "dark": (0.3, 1.0)}
# Page colours by role. Verdicts use hues of Okabe and Ito; the pages show a sign as well.
PAGE_ROLES = {
    "light": {
        "paper": "#ffffff",
        "panel": "#f5f7f9",
        "ink": "#1c2126",
        "soft": "#59636e",
        "line": "#d5dbe1",
        "accent": "#0067a5",
        "reproduced": "#0068a6",
        "not-reproduced": "#b84a00",
        "undecided": "#876300",
        "not-run": "#66707a",
    },
    "dark": {
        "paper": "#15181c",
        "panel": "#1e2328",
        "ink": "#e5e8eb",
        "soft": "#a2abb5",
        "line": "#373e46",
        "accent": "#6fb7ec",
        "reproduced": "#66b5ec",
        "not-reproduced": "#ff9a5c",
        "undecided": "#e3bb4e",
        "not-run": "#9aa4ae",
    },
}

# The two matrices of OKLab (Ottosson 2020). LMS maps linear sRGB to cone responses, and OKLAB maps
# their cube roots to lightness and two hue axes.
LMS = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
OKLAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)


def on_dark(colour: str) -> str:
    """The counterpart of a colour for dark pages: same hue, inverted lightness (OKLab)."""
    from matplotlib.colors import to_hex, to_rgb

    rgb = np.array(to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    lightness, *hue = OKLAB @ np.cbrt(LMS @ linear)
    # black (0) becomes 0.95, white (1) becomes 0.2
    inverted = np.interp(lightness, (0, 0.8, 1), (0.95, 0.62, 0.2))
    linear = np.linalg.solve(LMS, np.linalg.solve(OKLAB, [inverted, *hue]) ** 3).clip(0, 1)
    srgb = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return to_hex((srgb[0], srgb[1], srgb[2]))


def colours(number: int) -> list[Any]:
    """RGBA colours from dark to light, which colour-blind readers can also put in order.

    Args:
        number: how many.

    >>> [tuple(round(float(x), 2) for x in rgba) for rgba in colours(2)]
    [(0.27, 0.0, 0.33, 1.0), (0.53, 0.83, 0.29, 1.0)]
    """
    from matplotlib import colormaps

    return [colormaps["viridis"](x) for x in np.linspace(*SEQUENCE["light"], max(number, 2))][
        :number
    ]


def page_shades(number: int) -> dict[str, list[str]]:
    """The sequence of :func:`colours` as hex, for light and for dark pages."""
    from bokeh.palettes import Viridis256

    return {
        scheme: [Viridis256[round(255 * x)] for x in np.linspace(*ends, max(number, 2))][:number]
        for scheme, ends in SEQUENCE.items()
    }


def page_css() -> str:
    """The page colours as CSS variables that follow the reader's light or dark scheme."""
    light, dark = (
        "".join(f"--{role}: {colour}; " for role, colour in PAGE_ROLES[scheme].items())
        for scheme in ("light", "dark")
    )
    return f":root {{ {light}}}\n@media (prefers-color-scheme: dark) {{ :root {{ {dark}}} }}\n"
