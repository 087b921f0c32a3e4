"""Figures from results. No JAX here.

A panel is a function that takes ``ax=`` and returns the Axes, its own where none are given; a whole figure (`clocks`,
`collapses`) is made of them. Means have standard-error bands, and a control has one colour per value.
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jthermo.errors import InputError
from jthermo.results.atomic import write_whole, writing

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from jthermo.claims import Chosen
    from jthermo.collapse import CollapseFit

COLUMN, PAGE = 3.4, 7.0  # widths in inches, of one column and of two
# Okabe & Ito (2008) without yellow; in this order the first ones are the farthest apart
CATEGORIES = ("#0072B2", "#D55E00", "#56B4E9", "#E69F00", "#CC79A7", "#009E73")
STYLE: dict[Any, Any] = {
    "figure.figsize": (COLUMN, 2.4),
    "figure.dpi": 200,
    "figure.constrained_layout.use": True,
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "legend.fontsize": 7,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "axes.prop_cycle": f"cycler('color', {CATEGORIES})",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "lines.linewidth": 1.2,
    "lines.markersize": 3,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "xtick.minor.visible": True,
    "ytick.minor.visible": True,
    "xtick.minor.width": 0.4,
    "ytick.minor.width": 0.4,
    "xtick.minor.size": 1.6,
    "ytick.minor.size": 1.6,
    "legend.frameon": False,
    "legend.handlelength": 1.2,
    "pdf.fonttype": 42,  # letters stay letters
    "svg.hashsalt": "jthermo",  # one figure, one file
}
SYMBOL = {"learning_rate": "η", "batch_size": "B", "data.redraw": "p"}
LMS = (
    np.array(  # from linear sRGB to the cones, and from their cube roots to lightness and hue: Ottosson 2020
        [
            [0.4122214708, 0.5363325363, 0.0514459929],
            [0.2119034982, 0.6806995451, 0.1073969566],
            [0.0883024619, 0.2817188376, 0.6299787005],
        ]
    )
)
OKLAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)
PIXELS = 1.6  # a point in a page: text of 8 points is 13 pixels high
REFERENCE = {"learning_rate": 0.05, "batch_size": 1.0}  # the paper's clocks agree with t at these values
METADATA = {"png": {"Software": None}, "pdf": {"CreationDate": None}, "svg": {"Date": None}}


def style() -> AbstractContextManager[None]:
    """The house's matplotlib settings, for a ``with``: a journal column of 3.4 in, 8 pt, colours that colour-blind readers
    tell apart. ``jt.figures.COLUMN`` and ``PAGE`` are the widths of one column and two.

    >>> import matplotlib.pyplot as plt, jthermo as jt
    >>> with jt.figures.style():
    ...     ax = plt.subplots()[1]
    >>> ax.figure.get_size_inches().tolist(), ax.xaxis.label.get_size()
    ([3.4, 2.4], 8.0)
    >>> plt.close("all")
    """
    import matplotlib.pyplot as plt

    return plt.rc_context(STYLE)


def curves(
    ds: xr.Dataset, variable: str, *, by: str = "learning_rate", power: float = 0, ax: Axes | None = None
) -> Axes:
    """Mean ± standard error over the seeds for each value of a control, against t·(c/c₀)^power on a log axis.

    Args:
        ds: results in which only `by` and the seed vary.
        variable: what to draw.
        by: the control c, a coordinate of the runs.
        power: of the clock.
        ax: where to draw; a column-wide figure of its own where it is None.
    """
    _refuse_mixed(ds, by)
    ax = _axes(ax)
    values = np.unique(ds[by].values)
    for value, colour in zip(values, colours(len(values)), strict=True):
        runs = ds.isel(run=ds[by].values == value)
        step, mean, error = mean_curve(runs, variable)
        clock = step * (value / REFERENCE.get(by, 1.0)) ** power
        band(clock, mean, error, ax=ax, color=colour, label=f"{SYMBOL.get(by, by)} = {value:g}")
    ax.set(xscale="log", xlabel=_clock_label(by, power))
    return ax


def band(x: np.ndarray, mean: np.ndarray, error: np.ndarray, *, ax: Axes | None = None, **line: Any) -> Axes:
    """A line with a band of ± `error` in its colour.

    Args:
        x: abscissae.
        mean: ordinates.
        error: half the height of the band.
        ax: where to draw; a figure of its own where it is None.
        **line: of the line: ``color``, ``label`` …
    """
    ax = _axes(ax)
    (drawn,) = ax.plot(x, mean, **line)
    ax.fill_between(x, mean - error, mean + error, color=drawn.get_color(), alpha=0.25, linewidth=0)
    return ax


def theory(x: Any, y: Any, *, ax: Axes | None = None, label: str = "theory", **line: Any) -> Axes:
    """A prediction over the data: dashed and black.

    Args:
        x: abscissae.
        y: what the theory says there.
        ax: where the data are; a figure of its own where it is None.
        label: for the legend.
        **line: other than dashed, black and 0.9 pt wide.
    """
    ax = _axes(ax)
    ax.plot(x, y, label=label, **{"color": "black", "ls": "--", "lw": 0.9, "zorder": 3, **line})
    return ax


def collapse(fit: CollapseFit, *, ax: Axes | None = None) -> Axes:
    """The means on the fitted clock τ, over the common curve with its band: :meth:`jthermo.collapse.CollapseFit.plot`."""
    with style():
        return fit.plot(_axes(ax))


def residuals(fit: CollapseFit, *, ax: Axes | None = None) -> Axes:
    """The means minus the common curve against τ: :meth:`jthermo.collapse.CollapseFit.plot_residuals`."""
    with style():
        return fit.plot_residuals(_axes(ax))


def clocks(
    ds: xr.Dataset,
    variable: str,
    *,
    by: str = "learning_rate",
    powers: Sequence[float] = (0, 1, 2),
    ylabel: str = "",
) -> Figure:
    """A figure of :func:`curves`, a panel for each clock t·(c/c₀)^p: if the claim holds, the curves meet on its clock.

    Args:
        ds: results in which only `by` and the seed vary.
        variable: what to draw.
        by: the control c, a coordinate of the runs.
        powers: p of each panel.
        ylabel: label of the shared vertical axis; the variable's long name where empty.
    """
    with style():
        fig, axes = _row(len(powers))
        for ax, power in zip(axes, powers, strict=True):
            curves(ds, variable, by=by, power=power, ax=ax)
        axes[0].set_ylabel(ylabel or ds[variable].attrs.get("long_name", variable))
        axes[0].legend()
    fig.set_label(variable)  # what it shows
    return fig


def collapses(chosen: Sequence[Chosen], *, ylabel: str = "", share: bool = True) -> Figure:
    """A figure of :func:`curves`, a panel for each choice, on the clock that fits best, its exponent and interval above.

    Args:
        chosen: fits of one variable on one control, as :func:`jthermo.claims.fit_choices` makes them.
        ylabel: label of the vertical axis; the variable's long name where empty.
        share: one vertical axis for all panels.
    """
    with style():
        fig, axes = _row(len(chosen), share=share)
        for ax, (choice, runs, fit) in zip(axes, chosen, strict=True):
            ((control, exponent),) = fit.exponents.items()
            known = np.isfinite(exponent.value)  # the curves as they are where no exponent is known
            curves(runs, fit.curves.value, by=control, power=exponent.value if known else 0.0, ax=ax)
            name = ", ".join(f"{k.rpartition('.')[2]} {v}" for k, v in choice.items())
            found = f"{exponent.value:.2f} [{exponent.low:.2f}, {exponent.high:.2f}]\nmisfit {100 * fit.misfit:.1f} %"
            ax.set_title(f"{name}\n{found if known else 'no exponent identified'}".lstrip(), fontsize=7)
        axes[0].set_ylabel(ylabel or runs[fit.curves.value].attrs.get("long_name", fit.curves.value))
        axes[0].legend()
    fig.set_label(fit.curves.value)
    return fig


def heatmap(
    ax: Axes,
    chosen: Sequence[Chosen],
    *,
    x: str,
    y: str,
    target: float,
    names: Mapping[str, str] | None = None,
) -> Axes:
    """The exponent of every fit over two choices: a cell for each pair, its colour the distance from a claimed exponent.

    Args:
        ax: where to draw.
        chosen: fits of one variable on one control, one for each pair, as :func:`jthermo.claims.fit_choices` makes them.
        x: the choice along the horizontal axis.
        y: the choice along the vertical axis.
        target: the claimed exponent; it is white, one more or less is the darkest.
        names: values of the choices in other words.
    """
    import matplotlib.pyplot as plt

    columns, rows = (list(dict.fromkeys(str(each.choice[axis]) for each in chosen)) for axis in (x, y))
    value = np.full((len(rows), len(columns)), np.nan)
    with plt.rc_context(STYLE):
        for choice, _, fit in chosen:
            ((found),) = fit.exponents.values()
            row, column = rows.index(str(choice[y])), columns.index(str(choice[x]))
            value[row, column] = found.value
            known = np.isfinite(found.value)
            text = f"{found.value:.2f}\n[{found.low:.2f}, {found.high:.2f}]" if known else "not\nidentifiable"
            dark = known and abs(found.value - target) > 0.65
            middle: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 6}
            ax.text(column + 0.5, row + 0.5, text, color="white" if dark else "black", **middle)
        ax.pcolormesh(value, cmap="PuOr", vmin=target - 1, vmax=target + 1, edgecolor="white", zorder=0)
        words = names or {}
        ax.set_xticks(np.arange(len(columns)) + 0.5, [words.get(c, c) for c in columns])
        ax.set_yticks(np.arange(len(rows)) + 0.5, [words.get(r, r) for r in rows])
        ax.set_ylim(len(rows), 0)
        ax.tick_params(which="both", length=0)
        ax.spines[:].set_visible(False)
    return ax


def mean_curve(runs: xr.Dataset, variable: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Steps t > 0 with the mean over finite runs and its standard error; the runs share their recorded steps."""
    step = runs.step.values[0]
    value = np.where(runs.finite.values, runs[variable].values, np.nan)[:, step > 0]
    count = np.isfinite(value).sum(0)
    keep = count > 0
    value, count = value[:, keep], count[keep]
    spread = np.nanstd(value, axis=0) * np.sqrt(count / np.maximum(count - 1, 1))
    return step[step > 0][keep], np.nanmean(value, axis=0), spread / np.sqrt(count)


def save(made: Mapping[str, Figure], folder: str | Path, formats: Sequence[str] = ("png",)) -> list[Path]:
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
        fig.savefig(body, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator")))
    text = body.getvalue().decode()
    head, text = "<svg", text[text.index("<svg") + 4 :]
    text = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", text, flags=re.DOTALL)
    used = set(re.findall(r"#([\w-]+)", text))  # ids of paths that are drawn several times, and of clips
    text = re.sub(r' id="([^"]*)"', lambda found: found[0] if found[1] in used else "", text)
    text = re.sub(
        r'(width|height)="([\d.]+)pt"', lambda found: f'{found[1]}="{float(found[2]) * PIXELS:.0f}"', text
    )
    places = re.compile(r'(?<= )(?:d|x|y|width|height|transform|viewBox)="[^"]*"')
    text = places.sub(
        lambda found: re.sub(r"(\.\d)\d+", r"\1", found[0]), text
    )  # a tenth of a point is not seen
    text = re.sub(r"font-family: [^;\"]*(; )?", "", text)
    text = re.sub(r"(?<=: )#([0-9a-f]{6})\b", r"var(--c\1)", text)
    text = re.sub(r"\s*\n\s*", " ", text).replace("> <", "><")
    shades = dict.fromkeys(["000000", "ffffff", *re.findall(r"var\(--c(\w+)\)", text)])
    light, dark = (
        "".join(f"--c{c}:{shade(f'#{c}')};" for c in shades) for shade in (str, _on_dark)
    )  # a colour has one name wherever it stands, so that figures in one page agree
    scheme = f"<style>:root{{{light}}}@media (prefers-color-scheme:dark){{:root{{{dark}}}}}</style>"
    head += (
        f' role="img" aria-label="{html.escape(name)}" font-family="sans-serif"'
        ' style="fill: var(--c000000); background: var(--paper, var(--cffffff))"'  # a page's own paper, where it has one
    )
    return f"{head}{text.replace('<defs>', scheme + '<defs>', 1)}".encode()


def _on_dark(colour: str) -> str:
    """The colour that does on a dark page what this one does on a white one: same hue, lightness turned round (OKLab)."""
    from matplotlib.colors import to_hex, to_rgb

    rgb = np.array(to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    lightness, *hue = OKLAB @ np.cbrt(LMS @ linear)
    turned = np.interp(lightness, (0, 0.8, 1), (0.95, 0.62, 0.2))
    linear = np.linalg.solve(LMS, np.linalg.solve(OKLAB, [turned, *hue]) ** 3).clip(0, 1)
    srgb = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return to_hex((srgb[0], srgb[1], srgb[2]))


def colours(number: int) -> list[Any]:
    """A dark-to-light sequence that colour-blind readers can order."""
    from matplotlib import colormaps

    return [colormaps["viridis"](x) for x in np.linspace(0.0, 0.82, max(number, 2))][:number]


def _axes(ax: Axes | None) -> Axes:
    """The given axes, or those of a new column-wide figure."""
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    with style():
        return plt.subplots()[1]


def _row(number: int, share: bool = True) -> tuple[Figure, Sequence[Axes]]:
    """A figure of `number` panels side by side, no wider than a page."""
    import matplotlib.pyplot as plt

    width = max(COLUMN, min(PAGE, PAGE * number / 3))
    fig, axes = plt.subplots(1, number, figsize=(width, 2.2), sharey=share, squeeze=False)
    return fig, axes[0]


def _clock_label(by: str, power: float) -> str:
    if power == 0:
        return "t"
    symbol, reference = SYMBOL.get(by, by), REFERENCE.get(by, 1.0)
    ratio = symbol if reference == 1 else f"({symbol}/{reference:g})"
    if power == -1:
        return f"t/{ratio}"
    return f"t {ratio}" + ("" if power == 1 else f"$^{{{power:.3g}}}$")


def _refuse_mixed(ds: xr.Dataset, by: str) -> None:
    if by not in ds.coords:
        raise InputError(
            "by", by, f"is no swept axis; the results have {', '.join(str(c) for c in ds.coords)}"
        )
    for name, coordinate in ds.coords.items():
        if coordinate.dims == ("run",) and name not in (by, "seed") and len(np.unique(coordinate.values)) > 1:
            raise InputError(
                "ds",
                f"{name} with several values",
                f"pick one first: ds.isel(run=ds[{name!r}].values == ...)",
            )
