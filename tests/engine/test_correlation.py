"""With a thousand concurrent requests, every record has the ids of its own request."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars

from opentelemetry.sdk.trace import TracerProvider

import fapilog
from fapilog.sinks import MemorySink

TRACER = TracerProvider().get_tracer("requests")
REQUESTS = 1_000


async def request(number, pool, expected):
    log = fapilog.get_logger("web")
    alog = fapilog.get_async_logger("web.async")

    def note(place):
        context = fapilog_span()
        expected[number, place] = context
        return place

    async def child(place):
        with TRACER.start_as_current_span(place):
            await asyncio.sleep(0)
            log.info(note(place), request=number)
            await asyncio.sleep(0.001 * (number % 3))
            await alog.info(note(place + " async"), request=number)

    with TRACER.start_as_current_span("request"), fapilog.bind(request=number):
        log.info(note("handler"))
        await asyncio.sleep(0)
        with TRACER.start_as_current_span("deep"):
            log.debug(note("deep"))
            await asyncio.gather(child("task one"), child("task two"))
        await asyncio.to_thread(lambda: log.info(note("to_thread")))
        copied = contextvars.copy_context()
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(pool, copied.run, lambda: log.info(note("executor")))
        log.info(note("end"))


def fapilog_span():
    from opentelemetry import trace

    context = trace.get_current_span().get_span_context()
    return format(context.trace_id, "032x"), format(context.span_id, "016x")


def test_every_record_of_a_thousand_concurrent_requests_has_its_own_ids():
    sink = MemorySink(capacity=100_000)
    fapilog.configure(sinks=[sink], level="debug")
    expected: dict[tuple[int, str], tuple[str, str]] = {}

    async def main():
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            await asyncio.gather(*(request(n, pool, expected) for n in range(REQUESTS)))

    asyncio.run(main())
    assert fapilog.flush(30)
    places = 9
    assert fapilog.stats().delivered == len(sink.records) == len(expected) == REQUESTS * places
    found = {
        (record.attributes["request"], record.body): (record.trace_id, record.span_id)
        for record in sink.records
    }
    assert found == expected
    traces: dict[int, set[str]] = {}
    for (number, _), (trace_id, _) in found.items():
        traces.setdefault(number, set()).add(trace_id)
    assert all(len(ids) == 1 for ids in traces.values())
    assert len({next(iter(ids)) for ids in traces.values()}) == REQUESTS
