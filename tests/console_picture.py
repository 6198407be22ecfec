"""Draws the development console for the documentation: ``python -m tests.console_picture``.

The records are those of a small web application.  The formatter of the console sink
writes them for a terminal of 100 columns, and this module draws its output as SVG.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from html import escape
from pathlib import Path
from unittest.mock import patch

from fapilog.record import LogRecord, Scope
from fapilog.sinks.pretty import PrettyFormatter, _local_second

PICTURE = Path(__file__).parent.parent / "docs" / "console.svg"
COLUMNS = 100
START = 1_795_428_900_118_000_000
_CELL, _LINE, _MARGIN = 8.4, 20, 16
_PART = re.compile("\x1b\\[([0-9;]*)m(.*?)\x1b\\[0m|([^\x1b]+)")
_WORDS = re.compile(r"[^ ]+(?: [^ ]+)*")
_COLOURS = {"31": "#ff6b6b", "32": "#8cc265", "33": "#e5c07b", "34": "#6cb6ff", "36": "#56b6c2"}

_LIBRARY = "/srv/shop/.venv/lib/python3.12/site-packages"
_CHARGE = """Traceback (most recent call last):
  File "/srv/shop/app/payments.py", line 31, in pay
    charge(card, order.total)
  File "{library}/stripe/_http_client.py", line 214, in request
    raise APIConnectionError(message)
stripe.APIConnectionError: 502 from gateway
""".replace("{library}", _LIBRARY)
_FAILED = (
    _CHARGE
    + f"""
The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File "{_LIBRARY}/starlette/middleware/errors.py", line 164, in __call__
    await self.app(scope, receive, _send)
  File "{_LIBRARY}/fastapi/routing.py", line 301, in app
    raw_response = await run_endpoint_function(
  File "{_LIBRARY}/fastapi/routing.py", line 212, in run_endpoint_function
    return await dependant.call(**values)
  File "/srv/shop/app/payments.py", line 34, in pay
    raise PaymentError(order.id) from error
app.payments.PaymentError: order 1234
"""
)


def records() -> Iterator[LogRecord]:
    """Yield the records of the picture."""
    first, second = "a816e660cf97fbd988d6462edd5c2526", "1a274a34fc03453b2b0270187cbed7af"
    yield _record(0, 9, "Uvicorn running on http://127.0.0.1:8000", "uvicorn.error")
    yield _record(
        2104, 5, "query", "shop.db", first, sql="INSERT INTO orders", rows=1, seconds=0.00182342
    )
    yield _record(
        2131,
        9,
        "order placed",
        "shop.orders",
        first,
        order_id=1234,
        total=59.9,
        customer="3f2504e0-4f89-41d3-9a0c-0305e82c3301",
    )
    yield _completion(2143, 9, "POST", "/orders", 201, 0.03867670099998577, first, order_id=1234)
    yield _completion(
        4377, 13, "GET", "/orders/77", 404, 0.0018, "c8a5179d54b4d74e", **{"url.query": "lines=all"}
    )
    yield _record(
        6298,
        17,
        "payment failed",
        "shop.payments",
        second,
        order_id=1234,
        **_exception("stripe.APIConnectionError", "502 from gateway", _CHARGE),
    )
    yield _completion(
        6310,
        17,
        "POST",
        "/orders/1234/payment",
        500,
        1.2391,
        second,
        **_exception("app.payments.PaymentError", "order 1234", _FAILED),
    )


def _exception(kind: str, message: str, text: str) -> dict[str, str]:
    return {
        "exception.type": kind,
        "exception.message": message,
        "exception.stacktrace": text,
    }


def _record(
    milliseconds: int, severity: int, body: str, scope: str, request: str = "", **attributes: object
) -> LogRecord:
    if request:
        attributes = {"request.id": request, **attributes}
    moment = START + milliseconds * 1_000_000
    return LogRecord(moment, moment, severity, "", body, attributes, scope=Scope(scope))


def _completion(
    milliseconds: int,
    severity: int,
    method: str,
    path: str,
    status: int,
    seconds: float,
    request: str,
    **attributes: object,
) -> LogRecord:
    common = {
        "url.path": path,
        "url.scheme": "http",
        "client.address": "127.0.0.1",
        "user_agent.original": "curl/8.5.0",
        "server.address": "127.0.0.1",
        "server.port": 8000,
        "http.request.method": method,
        "http.response.status_code": status,
        "http.server.request.duration": seconds,
    }
    body = f"{method} {path} {status}"
    return _record(milliseconds, severity, body, "fapilog_fastapi", request, **common, **attributes)


def text() -> str:
    """Return what the console shows, with ANSI colours."""
    _local_second.cache_clear()
    try:
        with patch("time.localtime", time.gmtime):
            formatter = PrettyFormatter(color=True, columns=lambda: COLUMNS, directory="/srv/shop")
            return "".join(map(formatter.format, records()))
    finally:
        _local_second.cache_clear()


def svg() -> str:
    """Return the picture."""
    lines = text().splitlines()
    width, height = COLUMNS * _CELL + 2 * _MARGIN, len(lines) * _LINE + 2 * _MARGIN
    rows = [
        f'<text x="{_MARGIN}" y="{_MARGIN + number * _LINE + 15}">{_row(line)}</text>'
        for number, line in enumerate(lines)
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" '
        f'width="{width:g}" height="{height:g}" role="img" '
        'aria-label="The development console: one line per request, a folded stack trace">\n'
        f'<rect width="100%" height="100%" rx="8" fill="#1e2127"/>\n'
        '<g fill="#d7dae0" font-family="ui-monospace, SFMono-Regular, Menlo, Consolas, '
        'DejaVu Sans Mono, monospace" font-size="14">\n' + "\n".join(rows) + "\n</g>\n</svg>\n"
    )


def _row(line: str) -> str:
    parts = []
    column = 0
    for codes, painted, plain in _PART.findall(line):
        shown = painted or plain
        for words in _WORDS.finditer(shown):
            # A length for each part keeps the columns, whatever font the reader has.
            start, length = _MARGIN + (column + words.start()) * _CELL, len(words[0]) * _CELL
            place = f'x="{start:g}" textLength="{length:g}"'
            parts.append(f"<tspan {place}{_style(codes)}>{escape(words[0])}</tspan>")
        column += len(shown)
    return "".join(parts)


def _style(codes: str) -> str:
    style = ""
    for code in codes.split(";"):
        if code in _COLOURS:
            style += f' fill="{_COLOURS[code]}"'
        elif code == "1":
            style += ' font-weight="bold"'
        elif code == "2":
            style += ' fill="#7f848e"'
    return style


if __name__ == "__main__":
    PICTURE.write_text(svg(), encoding="utf-8")
    print(PICTURE)
