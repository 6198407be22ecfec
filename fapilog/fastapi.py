"""The import path of fapilog 0.18 for FastAPI, which only says where its names are now."""

_MESSAGE = (
    "fapilog.fastapi is the separate package fapilog-fastapi: `pip install fapilog-fastapi`, "
    "`from fapilog_fastapi import install`, then `install(app)` (for setup_logging and the "
    "middleware) and `Depends(fapilog_fastapi.get_logger)` (for get_request_logger)"
)
raise ImportError(_MESSAGE, name=__name__)
