"""fapilog for FastAPI and Starlette: logs one completion record per request.

This module only exports the public names.  The package imports only public names of
fapilog, and fapilog never imports the package.  Read ``middleware`` first.  The
middleware makes one ``exchange`` per request, which observes the request until it ends.
Then ``completion`` writes the record.  The middleware also serves the application's
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
