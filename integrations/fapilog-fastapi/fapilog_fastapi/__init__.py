"""Logs the requests of FastAPI and Starlette applications with fapilog.

The package logs one record per request when the request ends: the completion record.
This file only exports the public names.  In the other modules:

- ``middleware`` is the ASGI middleware.
- ``exchange`` stores the state of one request.
- ``completion`` logs the completion record.
- ``lifespan`` delivers all records when the application shuts down.
- ``installation`` puts the middleware around an application.
- ``stack`` puts a ``Probe`` inside the application's other middleware, to observe spans and
  exceptions.

The package imports fapilog; fapilog never imports the package.
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
