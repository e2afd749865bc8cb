"""The documentation site: Sphinx, MyST and furo. `tox run -e docs` builds it, with warnings as errors.

Sphinx has what matters here: warnings as errors, a link checker, an API reference from docstrings. Nothing
on the site is loaded from the network.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from n6_stateful import __version__

project = "n6-stateful"
author = "The n6-stateful authors"
copyright = author
release = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build", "_static"]
nitpicky = False

myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3

autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # or the fields of a tuple would be described twice
python_display_short_literal_types = True

smartquotes_action = "q"  # `...` is typed so
highlight_language = "none"

html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["wide.css"]
html_title = "n6-stateful"
html_copy_source = False
html_show_sphinx = False
html_theme_options = {
    "source_repository": "https://github.com/org/n6-stateful/",
    "source_branch": "main",
    "source_directory": "docs/",
}
# What the reader copies is the command, without the prompt and the output.
copybutton_prompt_text = "$ "
copybutton_only_copy_prompt_lines = True

# The repository is not published yet, and feed.example does not exist.
linkcheck_ignore = [
    r"https://github\.com/org/n6-stateful.*",
    r"https?://127\.0\.0\.1.*",
    r"https://feed\.example.*",
]
linkcheck_timeout = 15


# `type` is Python's here, and the name of an attribute that collectors have.
suppress_warnings = ["ref.python"]


def without_docstring_of_a_module(
    app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]
) -> None:
    """Leave out the docstring of a module, which is for readers of the source."""
    if what == "module":
        lines.clear()


def with_docstring_of_type(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Describe the property `type` of the base classes, where Python would describe `attrgetter`."""
    if what == "property" and name.endswith(".BaseCollector.type"):
        lines[:] = ["The name in n6's guide of `raw_type`."]


def setup(app: Any) -> None:
    """Edit docstrings on their way to the page."""
    app.connect("autodoc-process-docstring", without_docstring_of_a_module, priority=100)
    app.connect("autodoc-process-docstring", with_docstring_of_type, priority=100)
