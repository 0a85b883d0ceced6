"""Settings of the site, read by Sphinx: `make site` calls it on a folder that make_site.py filled.

Nothing is fetched: neither while the site is built, nor when a page of it is read.
"""

from typing import Any

from docutils import nodes
from latex2mathml.converter import convert

project = "TkMIA Lab"
author = "TkMIA Lab"
extensions = ["myst_nb"]
exclude_patterns = ["_static"]
myst_enable_extensions = ["dollarmath"]
myst_dmath_double_inline = True  # a formula in the middle of a paragraph
myst_heading_anchors = 4
suppress_warnings = ["misc.highlighting_failure"]  # csv is shown as it is
nb_execution_mode = "off"
nb_ipywidgets_js: dict[str, Any] = {}
# text of a terminal is text
nb_mime_priority_overrides = [("html", "text/plain", 90)]

html_theme = "pydata_sphinx_theme"
html_title = "TkMIA Lab"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_math_renderer = "mathml"
html_theme_options = {
    "logo": {"text": "TkMIA Lab"},
    "navbar_align": "left",
    "header_links_before_dropdown": 6,
    "show_prev_next": True,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "article_footer_items": [],
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
html_sidebars = {page: [] for page in ("index", "docs/course", "docs/glossary", "docs/api")}
html_context = {"default_mode": "auto"}
copyright = (
    "2026, TkMIA Lab. Scenes contain artwork of OpenMoji (CC BY-SA 4.0), Twemoji (CC BY 4.0)"
)


def inline(self: Any, node: nodes.Node) -> None:
    """A formula in a line, as MathML: browsers draw it and screen readers read it."""
    self.body.append(convert(node.astext()))
    raise nodes.SkipNode


def block(self: Any, node: nodes.Node) -> None:
    """A formula on lines of its own."""
    math = convert(node.astext(), display="block")
    self.body.append(f'<div class="math" tabindex="0">{math}</div>\n')
    raise nodes.SkipNode


def setup(app: Any) -> dict[str, bool]:
    """Name the renderer of formulas to Sphinx."""
    app.add_html_math_renderer(
        "mathml", inline_renderers=(inline, None), block_renderers=(block, None)
    )
    return {"parallel_read_safe": True, "parallel_write_safe": True}
