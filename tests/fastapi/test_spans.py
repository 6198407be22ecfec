"""Trace and span ids on the completion record, for every way of creating spans."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

import pytest
from fapilog_fastapi import FapilogMiddleware, install
from fastapi import FastAPI
from fastapi.responses import JSONResponse, StreamingResponse
from opentelemetry import trace
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.sdk.trace import TracerProvider

import fapilog
from tests.support.serving import TestClient

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"
HEADERS = {"traceparent": f"00-{TRACE}-{PARENT}-01"}


def shop(app=None):
    app = app or FastAPI()

    @app.get("/order")
    async def order():
        with trace.get_tracer("shop").start_as_current_span("inner"):
            fapilog.get_logger("shop").info("inside")
        return {}

    @app.get("/stream")
    async def stream():
        async def pieces():
            yield b"1"
            yield b"2"

        return StreamingResponse(pieces())

    @app.get("/boom")
    async def boom():
        raise ValueError("boom")

    return app


def before(app, provider):
    FastAPIInstrumentor.instrument_app(app, tracer_provider=provider)
    install(app)
    return app


def after(app, provider):
    install(app)
    FastAPIInstrumentor.instrument_app(app, tracer_provider=provider)
    return app


def middleware_before(app, provider):
    app.add_middleware(OpenTelemetryMiddleware, tracer_provider=provider)
    app.add_middleware(FapilogMiddleware)
    return app


def middleware_after(app, provider):
    app.add_middleware(FapilogMiddleware)
    app.add_middleware(OpenTelemetryMiddleware, tracer_provider=provider)
    return app


def installed_and_middleware(app, provider):
    install(app)
    app.add_middleware(OpenTelemetryMiddleware, tracer_provider=provider)
    return app


def inside(app, provider):
    return OpenTelemetryMiddleware(FapilogMiddleware(app), tracer_provider=provider)


def outside(app, provider):
    return FapilogMiddleware(OpenTelemetryMiddleware(app, tracer_provider=provider))


def around_an_instrumented_one(app, provider):
    FastAPIInstrumentor.instrument_app(app, tracer_provider=provider)
    return FapilogMiddleware(app)


@pytest.mark.parametrize(
    "arrange",
    [
        *(before, after, middleware_before, middleware_after, installed_and_middleware),
        *(inside, outside, around_an_instrumented_one),
    ],
)
@pytest.mark.parametrize("path", ["/order", "/stream", "/boom"])
def test_the_record_has_the_servers_span_in_every_order(logged, traces, arrange, path):
    app = shop()
    arranged = arrange(app, traces.provider)
    TestClient(arranged, raise_server_exceptions=False).get(path, headers=HEADERS)
    record = logged.completed()
    assert (record.trace_id, record.span_id) == traces.server_ids()
    assert record.trace_id == TRACE
    assert record.trace_flags & 1
    if getattr(app, "_is_instrumented_by_opentelemetry", False):
        FastAPIInstrumentor.uninstrument_app(app)


def test_auto_instrumentation_is_one_of_these_orders(logged, traces):
    import fastapi

    instrumentor = FastAPIInstrumentor()
    instrumentor.instrument(tracer_provider=traces.provider)
    try:
        app = shop(fastapi.FastAPI())
        install(app)
        assert isinstance(app, FastAPI)
        TestClient(app).get("/order", headers=HEADERS)
    finally:
        instrumentor.uninstrument()
    record = logged.completed()
    assert (record.trace_id, record.span_id) == traces.server_ids()


def test_instrumentation_taken_away_and_added_again_is_followed(logged, traces):
    app = before(shop(), traces.provider)
    http = TestClient(app)
    http.get("/order")
    FastAPIInstrumentor.uninstrument_app(app)
    http.get("/order", headers=HEADERS)
    records = logged("http.server.request.completed")
    assert (records[0].trace_id, records[0].span_id) == traces.server_ids()
    assert (records[1].trace_id, records[1].span_id) == (TRACE, PARENT)


def test_without_instrumentation_the_ids_are_the_callers(logged):
    app = shop()
    install(app, trace_headers=True)
    response = TestClient(app).get("/order", headers=HEADERS)
    inside_it, completion = logged()
    assert {inside_it.trace_id, completion.trace_id} == {TRACE}
    assert {inside_it.span_id, completion.span_id} == {PARENT}
    assert response.headers["traceparent"] == HEADERS["traceparent"]
    assert response.headers["x-trace-id"] == TRACE


@pytest.mark.parametrize("value", ["", "00-zz-1-01", "00-" + "0" * 32 + "-" + PARENT + "-01"])
def test_a_broken_traceparent_is_ignored(logged, value):
    app = shop()
    install(app, trace_headers=True)
    response = TestClient(app).get("/order", headers={"traceparent": value})
    assert logged.completed().trace_id == ""
    assert "traceparent" not in response.headers


def test_two_traceparents_are_ignored_and_two_tracestates_are_joined(logged):
    app = shop()
    states = []

    @app.get("/state")
    async def state():
        states.append(trace.get_current_span().get_span_context().trace_state.to_header())

    install(app)
    http = TestClient(app)
    given = list(HEADERS.items())
    http.get("/state", headers=[*given, ("tracestate", "a=1"), ("tracestate", "b=2")])
    http.get("/order", headers=[*given, ("traceparent", f"00-{'1' * 32}-{PARENT}-01")])
    assert states == ["a=1,b=2"]
    first, *others = logged("http.server.request.completed")
    assert first.trace_id == TRACE
    assert [record.trace_id for record in others] == [""]


def test_the_callers_trace_can_be_ignored(logged):
    app = shop()
    install(app, trace_context=False)
    TestClient(app).get("/order", headers=HEADERS)
    assert logged.completed().trace_id == ""


def test_the_callers_trace_is_not_active_after_the_request(logged, client):
    app = shop()
    install(app)

    async def main():
        async with client(app) as http:
            await http.get("/order", headers=HEADERS)
            await http.get("/boom", headers=HEADERS)
        fapilog.get_logger("outside").info("outside")

    asyncio.run(main())
    assert logged()[-1].trace_id == ""


def test_a_propagator_that_fails_costs_the_ids_and_nothing_else(logged, monkeypatch):
    def fail(*args, **kwargs):
        raise RuntimeError("no such header")

    monkeypatch.setattr("opentelemetry.propagate.extract", fail)
    app = shop()
    install(app)
    for _ in range(3):
        assert TestClient(app).get("/order", headers=HEADERS).status_code == 200
    troubles = [r for r in logged() if r.attributes.get("exception.message") == "no such header"]
    assert len(troubles) == 1
    assert len(logged("http.server.request.completed")) == 3


@pytest.mark.skipif(
    "telemetry" not in inspect.signature(FastAPI).parameters,
    reason="this version of FastAPI makes no spans itself",
)
def test_fastapis_own_spans_are_the_servers(logged, traces):
    app = shop(FastAPI(telemetry={"tracer_provider": traces.provider}))
    install(app)
    http = TestClient(app, raise_server_exceptions=False)
    http.get("/order", headers=HEADERS)
    record = logged.completed()
    assert (record.trace_id, record.span_id) == traces.server_ids()


def test_fastapis_own_logs_make_no_second_copy(logged, traces):
    options: dict[str, Any] = {}
    if "telemetry" in inspect.signature(FastAPI).parameters:
        options = {"telemetry": {"tracer_provider": traces.provider}}
    app = shop(FastAPI(**options))
    install(app)

    @app.get("/number/{number}")
    async def number(number: int):
        return JSONResponse({})

    http = TestClient(app, raise_server_exceptions=False)
    http.get("/boom")
    http.get("/number/x")
    assert len([r for r in logged() if "exception.stacktrace" in r.attributes]) == 1
    assert len(logged()) == 2


def test_a_span_of_the_application_around_the_response_is_not_taken_for_the_servers(logged, traces):
    app = shop()
    tracer = TracerProvider().get_tracer("shop")

    @app.middleware("http")
    async def around(request, call_next):
        with tracer.start_as_current_span("around"):
            return await call_next(request)

    after(app, traces.provider)
    TestClient(app).get("/order")
    record = logged.completed()
    assert (record.trace_id, record.span_id) == traces.server_ids()
    FastAPIInstrumentor.uninstrument_app(app)
