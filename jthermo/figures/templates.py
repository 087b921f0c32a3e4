"""Pages that stand alone: one HTML file with its style, figures and scripts inside, and one look for all of them."""

from __future__ import annotations

from typing import Any

from jthermo.figures.colours import page_css


def render(template: str, *, title: str, **values: Any) -> str:
    """A page from a template beside this file, which extends ``page.html`` and so has the style of ``style.css``.

    Every value is escaped; a template says ``|safe`` where markup that jthermo made itself goes in as it is.

    Args:
        template: its file name.
        title: of the page.
        values: what the template names; a name that it misses is an error.

    >>> "<title>a &lt; b</title>" in render("page.html", title="a < b")
    True
    """
    import jinja2
    from markupsafe import Markup

    loader = jinja2.PackageLoader("jthermo.figures", "pages")
    templates = jinja2.Environment(
        loader=loader,
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style, _, _ = loader.get_source(templates, "style.css")
    return templates.get_template(template).render(
        title=title, style=Markup(page_css() + style), **values
    )
