"""Sends orders to the two services: most succeed, some are refused, slow or fail.

    python -m examples.two_services.load [REQUESTS]

Without a number of requests it runs until it is asked to end.  The logins contain
secrets, which must not appear in any log.
"""

import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from typing import Any

import httpx

ORDERS_URL = os.environ.get("ORDERS_URL", "http://127.0.0.1:8001")
STOCK_URL = os.environ.get("STOCK_URL", "http://127.0.0.1:8002")
PER_SECOND = float(os.environ.get("REQUESTS_PER_SECOND", "5"))
PASSWORD, TOKEN = "hunter2-open-sesame", "sk-load-4242-4242"


def requests() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield method, URL and options of one round of 20 requests, in random order."""
    orders = ["teapot"] * 12 + ["piano"] * 3 + ["harp"] + ["unicorn"]
    login = {
        "json": {"user": "ada", "password": PASSWORD},
        "headers": {"authorization": f"Bearer {TOKEN}"},
    }
    round_: list[tuple[str, str, dict[str, Any]]] = [
        ("POST", f"{ORDERS_URL}/orders/{item}", {"params": {"quantity": 1 + (item == "piano")}})
        for item in orders
    ]
    round_ += [("POST", f"{ORDERS_URL}/login", login)] * 2
    random.shuffle(round_)
    yield "PUT", f"{STOCK_URL}/stock/teapot", {"params": {"quantity": 12}}
    yield "PUT", f"{STOCK_URL}/stock/harp", {"params": {"quantity": 1}}
    yield from round_


def main(wanted: str = "") -> None:
    """Send requests until ``wanted`` are sent, at ``REQUESTS_PER_SECOND``."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    endless = (request for _ in count() for request in requests())
    with httpx.Client(timeout=10) as client:
        for number, (method, url, options) in enumerate(endless, 1):
            with suppress(httpx.TransportError):  # the service is starting, or ends
                answer = client.request(method, url, **options)
                print(answer.status_code, method, url, flush=True)
            if str(number) == wanted:
                return
            time.sleep(1 / PER_SECOND)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except KeyboardInterrupt:
        sys.exit(130)
