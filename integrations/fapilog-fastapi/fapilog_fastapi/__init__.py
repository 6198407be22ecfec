"""fapilog for FastAPI and Starlette: one completion record per request, with its fields and ids.

This module has the public names and nothing else.  The package imports only
public names of fapilog, and fapilog never imports it.  Read ``middleware``
first: it makes one exchange per request (``exchange``), which follows the request
to its end, where ``completion`` writes the record, and serves the application's
``lifespan``, at whose end all records are delivered.  ``installation`` puts the
middleware around an application, and ``stack`` finds the application's layers.
"""

from fapilog_fastapi.installation import install, uninstall
from fapilog_fastapi.lifespan import lifespan
from fapilog_fastapi.metrics import RequestMetrics, add_metrics_route, metrics_endpoint
from fapilog_fastapi.middleware import FapilogMiddleware
from fapilog_fastapi.options import DebugOnError
from fapilog_fastapi.payloads import PayloadLogging, redact_query
from fapilog_fastapi.request_logger import RequestLogger, bind, get_logger

__version__ = "1.0.0.dev0"

__all__ = [
    "DebugOnError",
    "FapilogMiddleware",
    "PayloadLogging",
    "RequestLogger",
    "RequestMetrics",
    "__version__",
    "add_metrics_route",
    "bind",
    "get_logger",
    "install",
    "lifespan",
    "metrics_endpoint",
    "redact_query",
    "uninstall",
]
