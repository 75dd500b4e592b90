"""How the site is built: Sphinx reads this. `python3 run.py site` gathers the pages first (tools/site.py)."""

import importlib.metadata
import tomllib
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

import cdt_lite

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
REPOSITORY = SETTINGS["tool"]["cdt-lite"]["repository"]
FOLDERS = ("data", "evaluation", "figures", "model", "teaching", "training")  # whose public names the API shows
LONG = 80  # letters in a cell of a table
# One file that holds MathJax with its fonts, so that no page asks another host for them.
MATHJAX = importlib.metadata.distribution("sphinx-mathjax-offline").locate_file(
    "sphinx-mathjax-offline/static/mathjax/tex-svg.js"
)

project = "CDT-lite"
copyright = "The CDT-lite authors. Text and figures: CC BY 4.0. Code: BSD-3-Clause"
release = version = cdt_lite.__version__
extensions = ["myst_nb", "sphinx.ext.mathjax", "sphinx.ext.napoleon", "autoapi.extension"]
exclude_patterns = [".doctrees", "README.md", "api/index.rst", "cdt_lite", "docs/contents.md", "original", "plain",
                    "tests", "workshop/instructor", "workshop/notes", "workshop/student"]

nb_execution_mode = "off"
nb_merge_streams = True
myst_enable_extensions = ["amsmath", "attrs_block", "dollarmath"]
myst_heading_anchors = 4
mathjax_path = "tex-svg.js"
mathjax3_config = {"options": {"enableMenu": False}}  # the menu would load more

autoapi_dirs = ["plain/cdt_lite"]
autoapi_ignore = ["*/cli/*", "*/exercises/*", "*/report/*"]
autoapi_root = "api"
autoapi_options = ["members", "imported-members", "undoc-members"]
autoapi_add_toctree_entry = False
default_role = "code"
suppress_warnings = [
    "autoapi.python_import_resolution",  # constants that are no public names
    "ref.python",  # fields of two classes
]

html_theme = "sphinx_book_theme"
html_title = "CDT-lite"
html_favicon = "_static/favicon.svg"
html_static_path = ["_static", str(MATHJAX)]
html_css_files, html_js_files = ["site.css"], ["site.js"]
html_copy_source = False
html_domain_indices = html_use_index = False
html_show_sourcelink = False
html_context = {"default_mode": "auto"}
html_theme_options: dict[str, Any] = {
    "collapse_navbar": True,
    "navbar_persistent": [],  # one search field is enough
    "show_toc_level": 2,
    "use_download_button": False,
}
if REPOSITORY:
    html_theme_options |= {"repository_url": REPOSITORY, "use_repository_button": True, "use_issues_button": True}


def skip(app: Sphinx, what: str, name: str, obj: Any, skipped: bool, options: list[str]) -> bool:
    """Says whether a name stays out of the API: files, and what the package's top has, since it is told there.

    Of what has no words of its own only the fields of a class stay, which have types.
    """
    if what == "module":
        return True
    if what == "attribute" and not obj.docstring:
        return skipped or not obj.annotation
    package, _, short = name.rpartition(".")
    if what == "package":
        return package != "" and short not in FOLDERS
    return skipped or (package.count(".") == 1 and short in cdt_lite.__all__)


def add_print_button(app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any) -> None:
    """Puts a button that prints the page beside the theme's own."""
    context["header_buttons"].append({
        "type": "javascript",
        "javascript": "window.print()",
        "tooltip": "Print this page",
        "icon": "fas fa-print",
        "label": "print-button",
        "classes": "pst-navbar-icon",
    })


def mark_long(app: Sphinx, doctree: nodes.document) -> None:
    """Marks cells of tables that hold sentences: they are kept wide, so that rows do not grow tall."""
    for cell in doctree.findall(nodes.entry):
        if len(cell.astext()) > LONG:
            cell["classes"].append("long")


def setup(app: Sphinx) -> None:
    """Connects the functions above; the theme's own buttons come first."""
    app.connect("doctree-read", mark_long)
    app.connect("autoapi-skip-member", skip)
    app.connect("html-page-context", add_print_button, priority=900)
