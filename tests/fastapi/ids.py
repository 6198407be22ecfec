"""Logs from nine places in each of a thousand concurrent requests, and checks the ids.

``python -m tests.fastapi.ids`` (``make ids``) prints the table, with a real
uvicorn, real sockets and OpenTelemetry's own instrumentation.  Every client
sends its own trace and request id, so a record with the ids of another request
is found.
"""

from __future__ import annotations

import asyncio
import logging
import re
import sys
from collections import Counter
from dataclasses import dataclass, field
from typing import Annotated, Any

import fapilog_fastapi
from fastapi import BackgroundTasks, Depends, FastAPI, Request
from fastapi.responses import JSONResponse
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind
from starlette.concurrency import run_in_threadpool

import fapilog
from fapilog.record import LogRecord
from fapilog.sinks import MemorySink
from tests.support.serving import allow_sockets, fetch, serving

REQUESTS = 1_000
PLACES = (
    "middleware",
    "dependency, async",
    "dependency, sync",
    "handler",
    "thread pool",
    "exception handler",
    "background task",
    "access log",
    "completion record",
)
Log = Annotated[fapilog.Logger, Depends(fapilog_fastapi.get_logger)]
log = fapilog.get_logger("shop")


class OutOfStockError(Exception):
    """The endpoint of every request."""


@dataclass
class Outcome:
    """The results of one run."""

    right: Counter[str] = field(default_factory=Counter)
    wrong: Counter[str] = field(default_factory=Counter)
    examples: list[LogRecord] = field(default_factory=list)


def make_app(at_once: int) -> FastAPI:
    """Return an application that answers no request before ``at_once`` requests have arrived."""
    app = FastAPI()
    arrived = 0
    all_arrived = asyncio.Event()

    @app.middleware("http")
    async def middleware(request: Request, call_next: Any) -> Any:
        log.info("middleware")
        return await call_next(request)

    async def asynchronous() -> None:
        nonlocal arrived
        arrived += 1
        if arrived == at_once:
            all_arrived.set()
        await all_arrived.wait()
        log.info("dependency, async")

    def synchronous() -> None:
        log.info("dependency, sync")

    @app.get("/orders/{number}", dependencies=[Depends(asynchronous), Depends(synchronous)])
    async def handler(number: int, logger: Log) -> None:
        logger.info("handler")
        await run_in_threadpool(log.info, "thread pool")
        raise OutOfStockError

    async def later() -> None:
        await asyncio.sleep(0)
        log.info("background task")

    @app.exception_handler(OutOfStockError)
    async def answer(request: Request, error: Exception) -> JSONResponse:
        log.info("exception handler")
        tasks = BackgroundTasks()
        tasks.add_task(later)
        return JSONResponse({}, status_code=409, background=tasks)

    return app


def trace_of(number: int) -> str:
    """Return the trace id that the client of a request sends."""
    return f"{0xABC000000 + number:032x}"


def run(requests: int, *, instrument: str = "after") -> Outcome:
    """Serve ``requests`` requests at once and check every record.

    Args:
        requests: the number of requests.
        instrument: whether OpenTelemetry's instrumentation is added ``"before"`` or
            ``"after"`` fapilog's middleware, or ``"never"``.
    """
    allow_sockets(2 * requests + 500)
    sink = MemorySink(capacity=20 * requests)
    fapilog.configure(sinks=[sink], level="info", queue_size=20 * requests)
    fapilog.install_stdlib("info", "uvicorn.access")
    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    app = make_app(requests)
    if instrument == "before":
        FastAPIInstrumentor.instrument_app(app, tracer_provider=provider)
    fapilog_fastapi.install(app, replace_access_log=False)
    if instrument == "after":
        FastAPIInstrumentor.instrument_app(app, tracer_provider=provider)
    try:
        with serving(app) as port:
            asyncio.run(_ask(port, requests))
    finally:
        if instrument != "never":
            FastAPIInstrumentor.uninstrument_app(app)
        fapilog_fastapi.uninstall(app)
        fapilog.uninstall_stdlib()
    assert fapilog.flush(30)
    provider.shutdown()
    return _judge(sink.records, spans.get_finished_spans(), requests)


async def _ask(port: int, requests: int) -> None:
    async def one(number: int) -> None:
        parent = f"00-{trace_of(number)}-{number + 1:016x}-01"
        headers = {"traceparent": parent, "x-request-id": f"r-{number}"}
        response = await fetch(port, f"/orders/{number}", headers)
        assert response.startswith(b"HTTP/1.1 409"), response
        assert f"x-request-id: r-{number}\r\n".encode() in response

    await asyncio.gather(*(one(number) for number in range(requests)))


def _judge(records: list[LogRecord], spans: tuple[ReadableSpan, ...], requests: int) -> Outcome:
    servers = {
        format(span.context.trace_id, "032x"): format(span.context.span_id, "016x")
        for span in spans
        if span.kind is SpanKind.SERVER and span.context
    }
    # If nothing creates spans, only the caller's span is known.
    callers = {trace_of(number): f"{number + 1:016x}" for number in range(requests)}
    outcome = Outcome()
    seen: set[tuple[str, str]] = set()
    for record in records:
        place = _place(record)
        if place is None:
            continue
        number = str(record.attributes.get("request.id", ""))[2:]
        right = number.isdecimal() and record.trace_id == trace_of(int(number))
        if place in {"access log", "completion record"}:
            path = record.attributes.get("url.path") or str(record.body)
            right = right and re.search(rf"/orders/{number}\b", path) is not None
            right = right and record.span_id == (servers or callers).get(record.trace_id)
        right = right and bool(record.span_id) and (place, number) not in seen
        seen.add((place, number))
        (outcome.right if right else outcome.wrong)[place] += 1
        if not right:
            outcome.examples.append(record)
    return outcome


def _place(record: LogRecord) -> str | None:
    if record.scope.name == "uvicorn.access":
        return "access log"
    if record.event_name == "http.server.request.completed":
        return "completion record"
    return record.body if record.body in PLACES else None


def main() -> int:
    """Print the table, and return 1 if an id is wrong or missing."""
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    failed = False
    for instrument in ("before", "after", "never"):
        outcome = run(REQUESTS, instrument=instrument)
        print(f"\n{REQUESTS} requests at once; OpenTelemetry's instrumentation: {instrument}\n")
        print(f"{'place':<20}{'records':>10}{'right ids':>12}{'crossed':>10}")
        for place in PLACES:
            right, wrong = outcome.right[place], outcome.wrong[place]
            print(f"{place:<20}{right + wrong:>10}{right / REQUESTS:>12.1%}{wrong:>10}")
            failed |= right != REQUESTS or wrong > 0
        fapilog.shutdown(10)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
