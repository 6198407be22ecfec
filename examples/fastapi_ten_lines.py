"""FastAPI in ten lines: one record per request, and the request's id on all its records.

    pip install fapilog-fastapi uvicorn
    uvicorn examples.fastapi_ten_lines:app

Records go to the console, or to OTEL_EXPORTER_OTLP_ENDPOINT if it is set.
"""

import fapilog_fastapi
from fastapi import FastAPI

import fapilog

app = FastAPI()
fapilog_fastapi.install(app)
log = fapilog.get_logger(__name__)


@app.get("/hello/{name}")
async def hello(name: str) -> dict[str, str]:
    log.info("greeting", visitor=name)
    return {"hello": name}
