"""The stock service: reserves goods, and logs with the standard library, as many services do."""

import logging

import fapilog_fastapi
from fastapi import FastAPI, HTTPException

log = logging.getLogger("stock")
app = FastAPI()
fapilog_fastapi.install(app)

available = {"teapot": 7, "piano": 1}


@app.post("/stock/{item}")
def reserve(item: str, quantity: int) -> dict[str, int]:
    left = available.get(item, 0) - quantity
    if left < 0:
        log.error("cannot reserve %d of %s", quantity, item, extra={"available": left + quantity})
        raise HTTPException(409, "out of stock")
    available[item] = left
    log.info("reserved %d of %s", quantity, item, extra={"left": left})
    return {"left": left}
