"""Sphinx configuration: `sphinx-build -W -b html docs docs/_build`."""

from importlib.metadata import version as installed_version

project = "tornado_sse_auth"
author = "The tornado_sse_auth authors"
copyright = "the tornado_sse_auth authors"  # noqa: A001 - Sphinx's name for it
release = version = installed_version("tornado-sse-auth")

extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "tornado_sse_auth"
html_static_path = ["_static"]

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

default_role = "code"

linkcheck_timeout = 10
linkcheck_ignore = [r"http://127\.0\.0\.1", r"https?://[^/]*\.example\b"]  # what only a reader's machine has

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "show-inheritance": True}
