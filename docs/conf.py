"""Settings of the documentation site, which `scripts/docs` builds from pages and docstrings."""

import re
import sys

import jthermo

project = "jthermo"
author = "The jthermo authors"
release = version = jthermo.__version__
html_title = f"jthermo {release}"
html_theme = "furo"
html_show_copyright = False
html_copy_source = False
html_static_path = ["static"]
html_css_files = ["site.css"]
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["figures"]

myst_heading_anchors = 2

default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
maximum_signature_line_length = 110
napoleon_use_ivar = True
napoleon_custom_sections = ["Guarantees"]

# with --fail-on-warning, a reference to a name that jthermo does not have fails the build
nitpicky = True
# annotations contain types that have no page
nitpick_ignore_regex = [("py:(class|obj|data)", ".*")]


def keep_letters(app, what, name, obj, options, lines):
    """Escape |x|, (n, *shape) and "B.", which reStructuredText would read as markup."""
    for i, line in enumerate(lines):
        parts = line.split("``")
        parts[::2] = [re.sub(r"\||(?<=[ ('\"])\*(?=\w)", r"\\\g<0>", text) for text in parts[::2]]
        lines[i] = re.sub(r"^((?::\w+ \w+:)?\s+)(\w\.)$", r"\1\\\2", "``".join(parts))


def show_signature(app, what, name, obj, options, signature, returns):
    """Show a default that a factory creates as "...", since Sphinx cannot parse <factory>."""
    return (signature and signature.replace("<factory>", "..."), returns)


def skip_fields(app, what, name, obj, skip, options):
    """Omit the fields of a named tuple: signature and section Attributes already show them."""
    return True if str(getattr(obj, "__doc__", "")).startswith("Alias for field number") else None


def find_public(app, env, node, contnode):
    """Resolve references to defining modules: entries of the site are under public names."""
    target = node["reftarget"]
    if node.get("refdomain") != "py" or target.partition(".")[0] in sys.modules.keys() - {
        "jthermo"
    }:
        return None
    name = target.rpartition(".")[2] if target.startswith("jthermo.") else target
    node["refspecific"] = True
    domain = env.get_domain("py")
    return domain.resolve_xref(
        env, node["refdoc"], app.builder, node["reftype"], name, node, contnode
    )


def setup(app):
    """Connect the hooks."""
    app.connect("autodoc-process-docstring", keep_letters)
    app.connect("autodoc-process-signature", show_signature)
    app.connect("autodoc-skip-member", skip_fields)
    app.connect("missing-reference", find_public)
