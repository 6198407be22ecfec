"""Sends the HTTP requests of ``fapilog demo``: some are slow, some fail, some contain secrets."""

from __future__ import annotations

import base64
import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import httpx

from fapilog.cli.demo.app import DATABASE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: The number of concurrent requests.  Several requests run concurrently, to show that a log
#: record never gets the trace id of a different request.
CONCURRENCY: Final = 4
_TIMEOUT: Final = 30.0  # seconds per request; long enough for a slow machine


def _token(claims: Mapping[str, str]) -> str:
    """Return a JSON Web Token (RFC 7519) with an invalid signature."""
    parts = (json.dumps({"alg": "HS256"}), json.dumps(claims), "signature-of-the-demo")
    return ".".join(base64.urlsafe_b64encode(part.encode()).decode().rstrip("=") for part in parts)


PASSWORD: Final = "correct-horse-battery"  # noqa: S105 - made up for the demo
TOKEN: Final = _token({"sub": "ada", "scope": "orders"})
#: The secrets that the shop logs.  They must be masked before the records are sent.
SECRETS: Final = (PASSWORD, TOKEN, DATABASE.split("@")[0].rpartition(":")[2])


@dataclass(frozen=True, eq=False)  # makes Call hashable, because the report uses it as a dict key
class Call:
    """An HTTP request that the demo sends repeatedly, with a note for the printed report."""

    method: str
    path: str
    note: str = ""
    body: Mapping[str, Any] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Exchange:
    """A request that was sent, with its HTTP status and its duration in seconds."""

    call: Call
    request_id: str
    status: int
    seconds: float


#: The HTTP requests of the demo.  ``send_requests`` sends them in this order, and begins again
#: after the last one.
ROUND: Final = (
    Call("GET", "/orders/1001"),
    Call("POST", "/orders", "", {"item": "teapot", "quantity": 2}),
    Call("POST", "/orders", "the gateway times out", {"item": "teapot", "payment": "voucher"}),
    Call(
        "POST",
        "/login",
        "contains secrets",
        {"user": "ada", "password": PASSWORD},
        {"authorization": f"Bearer {TOKEN}"},
    ),
    Call("POST", "/orders", "a slow warehouse", {"item": "piano"}),
    Call("GET", "/orders/2001", "no such order"),
)


def send_requests(url: str, count: int) -> Sequence[Exchange]:
    """Send ``count`` requests to the shop at ``url``, several concurrently.  Blocks.

    Raises:
        httpx.TransportError: the shop does not answer.
    """
    # Without trust_env=False, httpx may use the user's proxy, which cannot reach this server.
    with httpx.Client(base_url=url, timeout=_TIMEOUT, trust_env=False) as client:
        pool = ThreadPoolExecutor(CONCURRENCY, thread_name_prefix="customer")
        try:
            return list(pool.map(partial(_send, client), range(count)))
        finally:
            pool.shutdown(cancel_futures=True)  # after Ctrl-C, send no further requests


def _send(client: httpx.Client, number: int) -> Exchange:
    call = ROUND[number % len(ROUND)]
    request_id = f"demo-{number + 1:04d}"
    headers = {**call.headers, "x-request-id": request_id}
    began = time.perf_counter()
    response = client.request(call.method, call.path, json=call.body, headers=headers)
    return Exchange(call, request_id, response.status_code, time.perf_counter() - began)
