"""The configuration of Sphinx for ``make docs``, which treats every warning as an error."""

import re
import sys
from importlib.metadata import metadata

import fastapi  # noqa: F401 - autodoc sets TYPE_CHECKING, and FastAPI's models break under it

project = "fapilog"
author = "The fapilog maintainers"
project_copyright = "The fapilog maintainers"
release = metadata("fapilog")["Version"]
version = release
urls = dict(url.split(", ") for url in metadata("fapilog").get_all("Project-URL") or [])

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
exclude_patterns = ["_build"]

html_theme = "furo"
html_title = f"fapilog {release}"
html_static_path = ["_static"]
html_css_files = ["fapilog.css"]
html_js_files = ["tables.js"]
html_copy_source = False
html_show_sphinx = False
html_theme_options = {
    "source_repository": urls["Repository"],
    "source_branch": "main",
    "source_directory": "docs/",
}
if "dev" in release:
    html_theme_options["announcement"] = (
        "fapilog 1.0 is not on PyPI yet: <code>pip install fapilog</code> installs 0.18, "
        "a different program. Getting started says how to install this one."
    )

# A copied command has no prompt, and the output below it stays behind.
copybutton_prompt_text = "$ "
copybutton_exclude = ".linenos, .gp, .go"

myst_enable_extensions = ["attrs_inline", "colon_fence", "deflist", "fieldlist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True}
napoleon_google_docstring = True
napoleon_numpy_docstring = False
# Attributes are written as field lists, because autodoc documents them itself as well.
napoleon_use_ivar = True

# References into other projects are not resolved, so the build needs no network.
# References into fapilog must be right.
OTHERS = {"_typeshed", "fastapi", "google", "grpc", "httpx", "opentelemetry", "pydantic"}
OTHERS |= {"starlette", "typing_extensions", *sys.stdlib_module_names}
nitpick_ignore_regex = [
    ("py:.*", rf"({'|'.join(map(re.escape, sorted(OTHERS)))})(\..*)?"),
    ("py:class", r"(otlp|http|loki)_options\.\w+"),
]
# These names occur in signatures, but users never import them.
PASSED_THROUGH = [
    "fapilog.engine.logger._Front",
    "AnyResource",
    "Capture",
    "Item",
    "ItemT",
    "LoggerRegistry",
    "Sinks",
]
PASSED_THROUGH += [
    "fapilog.options.sources.Origins",
    "CollectorRegistry",
    "Metric",
    "LogRecordExporter",
    "ReadableLogRecord",
    "ReadableSpan",
    "fapilog.protocols.ItemT",
    "sdk.SpanExportResult",
]
# These names belong to Starlette, OpenTelemetry, and the implementation of /metrics.
PASSED_THROUGH += ["Context", "Meter", "Receive", "Request", "RequestTable", "Response", "Send"]
PASSED_THROUGH += ["ASGIApp", "Arguments", "OptionNames", "Starlette"]
nitpick_ignore = [("py:class", name) for name in PASSED_THROUGH]
# The class's docstring describes this attribute, so it is not a separate target.
nitpick_ignore += [("py:attr", "LogRecord.size")]
