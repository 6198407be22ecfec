"""Sphinx: built by ``make docs``, where every warning is an error."""

import re
import sys
from importlib.metadata import version as installed_version

import fastapi  # noqa: F401 - autodoc imports as type checkers do, which breaks FastAPI's models

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
# As field lists, attributes do not collide with what autodoc finds itself.
napoleon_use_ivar = True

# References into other projects are not resolved, so that the build needs no
# network; references into fapilog must be right.
OTHERS = {"_typeshed", "fastapi", "google", "grpc", "httpx", "opentelemetry", "pydantic"}
OTHERS |= {"pydantic_settings", "starlette", "typing_extensions", *sys.stdlib_module_names}
nitpick_ignore_regex = [
    ("py:.*", rf"({'|'.join(map(re.escape, sorted(OTHERS)))})(\..*)?"),
    ("py:class", r"(otlp|http|loki)_options\.\w+"),
]
# Names in signatures that users pass through and never import.
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
# Of Starlette and OpenTelemetry, and the table behind /metrics.
PASSED_THROUGH += ["Context", "Meter", "Receive", "Request", "RequestTable", "Response", "Send"]
PASSED_THROUGH += ["ASGIApp", "OptionNames", "Starlette"]
nitpick_ignore = [("py:class", name) for name in PASSED_THROUGH]
# Described in the text of its class, not as a target of its own.
nitpick_ignore += [("py:attr", "LogRecord.size")]
