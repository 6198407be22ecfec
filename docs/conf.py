"""The configuration of Sphinx for ``make docs``, which treats every warning as an error."""

import re
import sys
from importlib.metadata import version as installed_version

import fastapi  # noqa: F401 - autodoc sets TYPE_CHECKING, and FastAPI's models break under it

project = "fapilog"
author = "The fapilog maintainers"
project_copyright = "The fapilog maintainers"
release = installed_version("fapilog")
version = release

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"fapilog {release}"

myst_enable_extensions = ["colon_fence", "deflist", "fieldlist"]
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
OTHERS |= {"pydantic_settings", "starlette", "typing_extensions", *sys.stdlib_module_names}
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
    "LogRecordExporter",
    "ReadableLogRecord",
    "fapilog.protocols.ItemT",
]
# These names belong to Starlette, OpenTelemetry, and the implementation of /metrics.
PASSED_THROUGH += ["Context", "Meter", "Receive", "Request", "RequestTable", "Response", "Send"]
PASSED_THROUGH += ["ASGIApp", "OptionNames", "Starlette"]
nitpick_ignore = [("py:class", name) for name in PASSED_THROUGH]
# The class's docstring describes this attribute, so it is not a separate target.
nitpick_ignore += [("py:attr", "LogRecord.size")]
