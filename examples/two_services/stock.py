"""The stock service: reserves goods, and logs with the standard library, as many services do."""

import logging
import time

import fapilog_fastapi
from fapilog_fastapi.metrics import add_metrics_route
from fastapi import FastAPI, HTTPException

log = logging.getLogger("stock")
app = FastAPI()
fapilog_fastapi.install(app)
add_metrics_route(app, requests=False)

available = {"teapot": 7, "piano": 1, "harp": 3}


@app.get("/health")
def health() -> dict[str, str]:
    return {"status": "ok"}


@app.post("/stock/{item}")
def reserve(item: str, quantity: int) -> dict[str, int]:
    left = available[item] - quantity  # for an unknown item, a KeyError and status 500
    if item == "harp":
        time.sleep(1.5)  # its warehouse is far away
    if left < 0:
        log.error("cannot reserve %d of %s", quantity, item, extra={"available": left + quantity})
        raise HTTPException(409, "out of stock")
    available[item] = left
    log.info("reserved %d of %s", quantity, item, extra={"left": left})
    return {"left": left}


@app.put("/stock/{item}")
def restock(item: str, quantity: int) -> dict[str, int]:
    available[item] = quantity
    log.info("%d of %s delivered", quantity, item)
    return {"left": quantity}
