"""A small FastAPI web shop that logs through fapilog.

``fapilog demo`` and ``examples/demo.py`` run the shop.
"""
# FastAPI reads annotations at run time, so ``from __future__ import annotations`` is omitted.

import asyncio
import itertools
import logging
from typing import Final
from uuid import uuid4

from fastapi import APIRouter, FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse
from opentelemetry import trace
from pydantic import BaseModel
from starlette.types import ASGIApp, Lifespan, Receive, Scope, Send

import fapilog

#: The attribute with the id of an HTTP request, on the request's span and on its log records.
REQUEST_ID: Final = "request.id"
#: The simulated duration, in seconds, of the reservation of an item in the warehouse.
RESERVING: Final = {"teapot": 0.003, "piano": 0.22}
#: The time limit, in seconds, for an answer of the simulated payment gateway.
PATIENCE: Final = 0.06
LAST_ORDER: Final = 1999
DATABASE: Final = "postgresql://shop:open-sesame@db.internal/shop"

log = fapilog.get_async_logger("shop.orders")
payments = fapilog.get_async_logger("shop.payments")
accounts = fapilog.get_async_logger("shop.accounts")
stock = logging.getLogger("shop.stock")  # simulates a library that does not use fapilog
tracer = trace.get_tracer("shop")

router = APIRouter()
_numbers = itertools.count(1001)


class Order(BaseModel):
    """A customer's order, with its payment method."""

    item: str
    quantity: int = 1
    payment: str = "card"


class Login(BaseModel):
    """A login form, which contains a password."""

    user: str
    password: str


class PaymentFailedError(Exception):
    """Raised when the payment gateway does not answer."""


class RequestId:
    """ASGI middleware that adds the id of a request to the request's span and log records."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request whose span and log records get the attribute ``REQUEST_ID``."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = dict(scope["headers"]).get(b"x-request-id", b"").decode("latin-1")
        request_id = given or uuid4().hex
        trace.get_current_span().set_attribute(REQUEST_ID, request_id)
        with fapilog.bind(**{REQUEST_ID: request_id}):
            await self.app(scope, receive, send)


def create_app(lifespan: Lifespan[FastAPI] | None = None) -> FastAPI:
    """Return the shop's FastAPI application, which the caller instruments and serves."""
    app = FastAPI(title="fapilog demo shop", lifespan=lifespan)
    app.add_middleware(RequestId)
    app.add_exception_handler(PaymentFailedError, payment_failed)
    app.include_router(router)
    return app


async def payment_failed(_request: Request, error: Exception) -> JSONResponse:
    """Answer with the status 502 and the text of the error."""
    return JSONResponse({"detail": str(error)}, status_code=502)


@router.get("/health")
async def health() -> dict[str, str]:
    """Answer a health check."""
    return {"status": "ok"}


@router.get("/orders/{number}")
async def read_order(number: int) -> dict[str, int]:
    """Return an order, or answer 404 if its number is above ``LAST_ORDER``."""
    if number > LAST_ORDER:
        await log.warning("no such order", order=number)
        raise HTTPException(404)
    await log.info("order read", order=number)
    return {"order": number}


@router.post("/orders", status_code=201)
async def place_order(order: Order) -> dict[str, int]:
    """Reserve the goods, then charge the customer."""
    number = next(_numbers)
    with fapilog.bind(order=number):
        await log.info("order received", item=order.item, quantity=order.quantity)
        await reserve(order)
        await charge(order)
        await log.event("shop.order.placed", item=order.item)
    return {"order": number}


async def reserve(order: Order) -> None:
    """Simulate the reservation of an order's goods, which takes a long time for some items."""
    with tracer.start_as_current_span("reserve stock"):
        seconds = RESERVING.get(order.item, 0.003)
        await asyncio.sleep(seconds)
        if seconds > PATIENCE:
            stock.warning("the warehouse took %d ms", seconds * 1000, extra={"warehouse": "north"})
        stock.info("reserved %d of %s", order.quantity, order.item, extra={"warehouse": "north"})


async def charge(order: Order) -> None:
    """Charge the customer through the simulated payment gateway, which accepts only cards.

    Raises:
        PaymentFailedError: the gateway does not answer.
    """
    with tracer.start_as_current_span("charge customer"):
        await payments.info("asking the gateway", method=order.payment, patience_ms=PATIENCE * 1000)
        try:
            await ask_gateway(order.payment)
        except TimeoutError as error:
            await payments.exception("payment failed", method=order.payment)
            msg = "the payment gateway did not answer"
            raise PaymentFailedError(msg) from error


async def ask_gateway(method: str) -> None:
    """Simulate the payment gateway, which answers only if the payment method is a card."""
    if method != "card":
        await asyncio.sleep(PATIENCE)
        msg = f"no answer within {PATIENCE * 1000:.0f} ms"
        raise TimeoutError(msg)
    await asyncio.sleep(0.005)


@router.post("/login")
async def login(form: Login, request: Request) -> dict[str, str]:
    """Log secrets, as a careless application may do.  fapilog masks the secrets."""
    await accounts.info("login", form=form.model_dump(), headers=dict(request.headers))
    token = request.headers.get("authorization", "").rpartition(" ")[2]
    await accounts.info(f"session {token} opened", user=form.user)
    await accounts.info("profile loaded", database=DATABASE)
    return {"user": form.user}
