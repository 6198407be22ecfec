"""The order service: takes orders, reserves goods at the stock service, and logs with fapilog."""

import os

import fapilog_fastapi
import httpx
from fapilog_fastapi.metrics import add_metrics_route
from fastapi import FastAPI, HTTPException, Request

import fapilog

STOCK_URL = os.environ.get("STOCK_URL", "http://127.0.0.1:8002")

log = fapilog.get_logger("orders")
app = FastAPI()
fapilog_fastapi.install(app)
add_metrics_route(app, requests=False)  # OpenTelemetry measures the requests


@app.get("/health")
async def health() -> dict[str, str]:
    return {"status": "ok"}


@app.post("/orders/{item}")
async def place_order(item: str, quantity: int = 1) -> dict[str, str]:
    with fapilog.bind(item=item):
        log.info("order received", quantity=quantity)
        async with httpx.AsyncClient(base_url=STOCK_URL) as stock:
            answer = await stock.post(f"/stock/{item}", params={"quantity": quantity})
        if answer.status_code == httpx.codes.CONFLICT:
            log.warning("order refused", reason="out of stock")
            raise HTTPException(409, "out of stock")
        answer.raise_for_status()
        log.event("order.placed", quantity=quantity)
    return {"order": "placed"}


@app.post("/login")
async def login(request: Request, form: dict[str, str]) -> dict[str, str]:
    # Applications should not log secrets; fapilog masks these.
    log.info("login", form=form, headers=dict(request.headers))
    return {"user": form["user"]}
