"""Empty Bokeh figures for the explore page, which ``explore.js`` fills, and the BokehJS script."""

from __future__ import annotations

from typing import Any

# Log likelihood lost at the lower end of its logarithmic axis; smaller losses are drawn here.
LEAST = 0.1
# Pixels to the left of the loss plot, so that it lines up with the slider above it.
GUTTER = 62
TOOLTIP = (
    '<div style="margin: -5px; padding: 6px 10px; color: var(--ink); background: var(--panel)">'
    "@text<br>\n$snap_y{%.4g} at $snap_x{%.4g}</div>"
)


def library() -> str:
    """The text of BokehJS, without the log-level line of Bokeh, which prints to the console."""
    from bokeh.resources import Resources

    return Resources(mode="inline", components=["bokeh"]).js_raw[0]


def curves() -> Any:
    """Means with standard-error bands over single curves; axes are logarithmic or linear."""
    from bokeh.models import HoverTool, LinearAxis, LogAxis, Range1d
    from bokeh.plotting import figure

    fig = figure(
        sizing_mode="stretch_width",
        x_axis_type="log",
        x_range=Range1d(1, 10),
        y_range=Range1d(0, 1),
        tools="box_zoom,reset,save",
        active_drag=None,
    )
    parts = {
        "runs": fig.multi_line("xs", "ys", line_color="colour", line_alpha=0.3, source=_source()),
        "bands": fig.patches(
            "xs", "ys", color="colour", alpha=0.25, line_width=0, source=_source()
        ),
        "means": fig.multi_line("xs", "ys", line_color="colour", line_width=2.5, source=_source()),
    }
    points = _source("x", "y", "colour")
    parts["points"] = fig.scatter("x", "y", color="colour", size=5, source=points)
    for name, part in parts.items():
        part.name = name
    fig.add_tools(
        HoverTool(
            name="hover",
            tooltips=TOOLTIP,
            formatters={"$snap_x": "printf", "$snap_y": "printf"},
            line_policy="nearest",
            limit=1,
            show_arrow=False,
        )
    )
    fig.add_layout(LinearAxis(visible=False), "below")
    fig.add_layout(LogAxis(visible=False), "left")
    fig.toolbar.logo = None
    fig.toolbar.autohide = True
    return fig


def quality() -> Any:
    """Log likelihood lost against one exponent, with the fit, its interval and the slider."""
    from bokeh.models import BoxAnnotation, Range1d, Span
    from bokeh.plotting import figure

    fig = figure(
        height=170,
        sizing_mode="stretch_width",
        y_axis_type="log",
        x_range=Range1d(-1, 1),
        y_range=Range1d(LEAST / 2, 10),
        y_axis_label="log likelihood lost",
        min_border_left=GUTTER,
        min_border_right=10,
        tools="",
        toolbar_location=None,
    )
    fig.add_layout(BoxAnnotation(name="interval", line_width=0, fill_alpha=0.25))
    fig.add_layout(Span(name="fitted", dimension="height", line_dash="dashed"))
    fig.line([], [], name="profile", line_width=2)
    fig.scatter([], [], name="marker", size=11, level="overlay")
    return fig


def _source(*columns: str) -> Any:
    from bokeh.models import ColumnDataSource

    return ColumnDataSource({name: [] for name in columns or ("xs", "ys", "colour", "text")})
