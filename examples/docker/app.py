"""A FastAPI application whose logs go to standard output and to Loki.

    docker compose -f examples/docker/compose.yaml up --build

Its options are the environment variables in ``compose.yaml``.
"""

import fapilog_fastapi
from fastapi import FastAPI, HTTPException

import fapilog

LAST_ORDER = 1999

app = FastAPI()
fapilog_fastapi.install(app)
log = fapilog.get_logger("shop")


@app.get("/health")
async def health() -> dict[str, str]:
    return {"status": "ok"}


@app.get("/orders/{number}")
async def read_order(number: int) -> dict[str, int]:
    if number > LAST_ORDER:
        log.warning("no such order", order=number)
        raise HTTPException(404)
    log.info("order read", order=number)
    return {"order": number}
