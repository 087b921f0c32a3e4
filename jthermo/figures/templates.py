"""Renders HTML pages: each is one file with its style, figures and scripts inside."""

from __future__ import annotations

from typing import Any

from jthermo.figures.colours import page_css


def render(template: str, *, title: str, **values: Any) -> str:
    """Render a template of ``figures/pages/``, with the colours and ``style.css`` included.

    Values are escaped, except where a template marks them as ``|safe``: markup made by jthermo.

    Args:
        template: file name of the template, which extends ``page.html``.
        title: title of the page.
        values: variables of the template; a missing one is an error.

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
