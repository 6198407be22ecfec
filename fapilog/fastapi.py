"""Raises an ImportError that names the replacement of the FastAPI module of fapilog 0.18."""

_MESSAGE = (
    "fapilog.fastapi is the separate package fapilog-fastapi: `pip install fapilog-fastapi`, "
    "`from fapilog_fastapi import install`, then `install(app)` (for setup_logging and the "
    "middleware) and `Depends(fapilog_fastapi.get_logger)` (for get_request_logger)"
)
raise ImportError(_MESSAGE, name=__name__)
