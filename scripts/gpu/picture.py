"""The figure from a GPU's JSON: time per run-step against runs, and against lanes of a block."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import figure
import nets
import tables

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw(found: Mapping[str, Any]) -> Figure:
    """Two panels, both on logarithmic axes."""
    import matplotlib.pyplot as plt

    from jthermo.figures.style import STYLE

    with plt.rc_context(STYLE):
        fig, (left, right) = plt.subplots(1, 2, figsize=(7.2, 2.8), layout="constrained")
        for name in nets.CONTESTANTS:
            label, colour, marker = figure.LOOK[name]
            rows = [r for r in found.get(name, ()) if r["case"] in nets.RUNS and "ns" in r]
            points = sorted((r["runs"], r["ns"]) for r in rows)
            if points:
                left.plot(*zip(*points, strict=True), f"{marker}-", color=colour, ms=4, label=label)
        rows = [r for r in found.get("widths", ()) if "ns" in r]
        for number, net in enumerate(dict.fromkeys(r["net"] for r in rows)):
            points = sorted((r["width"], r["ns"]) for r in rows if r["net"] == net)
            right.plot(
                *zip(*points, strict=True),
                "osD^vP"[number % 6] + "-",
                ms=4,
                label=tables.SHORT[net],
            )
        left.set(xlabel="runs of 10-10-1", ylabel="ns per run-step")
        right.set(xlabel="lanes of a block, XLA", ylabel="ns per run-step")
        for ax in (left, right):
            if ax.get_lines():
                ax.set(xscale="log", yscale="log")
                ax.legend()
    return fig


def save(found: Mapping[str, Any], folder: Path) -> None:
    """Write ``gpu.png``."""
    folder.mkdir(parents=True, exist_ok=True)
    draw(found).savefig(folder / "gpu.png", dpi=150)
