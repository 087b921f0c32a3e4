"""The figure of the benchmark, from its JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from jthermo.figures.style import STYLE
from scripts.benchmark.cases import NETS
from scripts.benchmark.report import curves, ratio

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# the colours of Okabe and Ito, which colour-blind readers tell apart, and a marker each
LOOK = {
    "torch-func": ("torch.func", "#009E73", "^"),
    "torch-batched": ("batched PyTorch", "#CC79A7", "v"),
    "plain-jax": ("plain JAX", "#555555", "s"),
    "jthermo-xla": ("jthermo, XLA", "#0072B2", "o"),
    "jthermo-fused": ("jthermo, fused", "#D55E00", "D"),
    "limit": ("arithmetic alone", "#000000", "|"),
}
NAMES = {
    "small": "10-10-1",
    "uniform": "10-10-1, no bias, U(0,1)",
    "batch": "10-10-1, B = 32",
    "wide": "100-100-1",
    "wide-batch": "100-100-1, B = 32",
    "mlp6": "100-100×5-1",
    "cnn": "6-layer CNN",
    "cnn-batch": "6-layer CNN, B = 8",
}
CURVES = {
    "runs": ("runs", "ns a step of all runs"),
    "steps": ("steps", "seconds, 128 runs"),
    "width": ("hidden units", "ns a run-step"),
    "memory": ("runs of 100-100-1", "peak memory, MB"),
}


def draw(found: Mapping[str, Any]) -> Figure:
    """Each engine against plain JAX, case by case, and how time and memory grow."""
    import matplotlib.pyplot as plt

    with plt.rc_context(STYLE):
        fig = plt.figure(figsize=(7.2, 4.6), layout="constrained")
        grid = fig.add_gridspec(2, 4, height_ratios=(1.35, 1))
        _ratios(fig.add_subplot(grid[0, :]), found)
        for column, what in enumerate(CURVES):
            _curve(fig.add_subplot(grid[1, column]), found, what)
    return fig


def _ratios(ax: Axes, found: Mapping[str, Any]) -> None:
    cases = [case for case in NETS if "plain-jax" in found["cases"].get(case, {})]
    for name, (label, colour, marker) in LOOK.items():
        known = [(i, ratio(found, case, "plain-jax", name)) for i, case in enumerate(cases)]
        points = [(i, value) for i, value in known if value is not None]
        if points and name != "plain-jax":
            size = 9 if marker == "|" else 5
            ax.plot(
                *zip(*[(v, i) for i, v in points], strict=True),
                marker,
                color=colour,
                ms=size,
                label=label,
            )
    ax.axvline(1, color=LOOK["plain-jax"][1], linewidth=0.8)
    ax.set_xscale("log")
    ax.set_yticks(range(len(cases)), [NAMES[case] for case in cases])
    ax.tick_params(axis="y", which="both", left=False)  # cases, not numbers
    ax.set_ylim(len(cases) - 0.5, -0.5)
    ax.set_xlabel("times as fast as plain JAX (wall time)")
    ax.grid(axis="y", linewidth=0.3)
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), handletextpad=0.2)


def _curve(ax: Axes, found: Mapping[str, Any], what: str) -> None:
    """The points of a scaling curve, with a dotted straight line through the origin for the eye."""
    drawn = {name: curves(found, what, name) for name in LOOK}
    for name, (x, y) in drawn.items():
        _, colour, marker = LOOK[name]
        if len(x):
            ax.plot(x, y / 1e6 if what == "memory" else y, f"{marker}-", color=colour, ms=3)
    ax.set_xlabel(CURVES[what][0])
    ax.set_ylabel(CURVES[what][1])
    if not any(len(x) for x, _ in drawn.values()):
        ax.set_axis_off()  # not measured
    elif what == "memory":
        ax.set(xlim=(0, None), ylim=(0, None))
    else:
        ax.set(xscale="log", yscale="log")
        if what != "width":
            ends, (low, high) = np.array(ax.get_xlim()), ax.get_ylim()
            ax.plot(ends, high / 3 * ends / ends[1], ":", color="0.6", linewidth=0.8, zorder=0)
            ax.set(xlim=ends, ylim=(low, high))
