"""Which requests are logged: exclusion, sampling, slow ones; and the servers' access logs."""

from __future__ import annotations

import asyncio
import gc
import logging
import logging.config
import re

import pytest
import uvicorn.config
from fapilog_fastapi import FapilogMiddleware, install, uninstall
from fastapi import FastAPI
from fastapi.responses import JSONResponse
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor

import fapilog
from tests.support.serving import TestClient, fetch, serving


def shop(**options):
    app = FastAPI()
    install(app, **options)

    @app.get("/status/{code}")
    async def status(code: int):
        return JSONResponse({}, status_code=code)

    @app.get("/health")
    async def health():
        fapilog.get_logger("shop").info("healthy")

    inner = FastAPI()
    install(inner)
    inner.get("/health")(lambda: None)
    app.mount("/inner", inner)
    return app


def completed(logged):
    return [r.attributes["url.path"] for r in logged("http.server.request.completed")]


@pytest.mark.parametrize(
    "exclude",
    [
        "/health$",
        ["/health$"],
        "nothing , health",
        r"shop\.example",
        "//shop",
        re.compile("/HEALTH", re.IGNORECASE),
        ["nothing", re.compile("^http://shop.example/")],
    ],
    ids=str,
)
def test_excluded_requests_are_not_logged_but_their_own_records_are(logged, exclude):
    http = TestClient(shop(exclude=exclude), base_url="http://shop.example")
    http.get("/health")
    http.get("/inner/health")
    assert completed(logged) == []
    assert logged.bodies() == ["healthy"]


@pytest.mark.parametrize("host", ["health", "health.evil", "x/health"])
def test_a_client_cannot_switch_its_records_off_by_the_host_it_names(logged, host):
    TestClient(shop(exclude="/health")).get("/status/200", headers={"host": host})
    assert completed(logged) == ["/status/200"]


@pytest.mark.parametrize("name", ["OTEL_PYTHON_FASTAPI_EXCLUDED_URLS", "OTEL_PYTHON_EXCLUDED_URLS"])
def test_the_standards_variables_exclude_as_well(logged, monkeypatch, name):
    monkeypatch.setenv(name, "health")
    http = TestClient(shop())
    http.get("/health")
    http.get("/status/200")
    assert completed(logged) == ["/status/200"]


@pytest.mark.parametrize("pattern", ["/health", "^http://testserver/h", "testserver,x", "^/health"])
def test_the_same_pattern_excludes_the_same_requests_from_logs_and_spans(logged, traces, pattern):
    app = shop(exclude=pattern)
    FastAPIInstrumentor.instrument_app(
        app, tracer_provider=traces.provider, excluded_urls=pattern, exclude_spans=["send"]
    )
    http = TestClient(app)
    http.get("/health")
    http.get("/status/200")
    FastAPIInstrumentor.uninstrument_app(app)
    spans = {s.name for s in traces.exporter.get_finished_spans() if s.kind.name == "SERVER"}
    assert ("GET /health" in spans) == ("/health" in completed(logged))
    assert ("GET /status/{code}" in spans) == ("/status/200" in completed(logged))


def test_a_request_without_a_host_is_matched_by_the_servers_address(logged):
    app = shop(exclude="http://testserver:80/health")

    async def drop_host(scope, receive, send):
        scope["headers"] = [h for h in scope.get("headers", ()) if h[0] != b"host"]
        await app(scope, receive, send)

    TestClient(drop_host).get("/health")
    assert completed(logged) == []


def test_sampling_leaves_out_successes_only(logged):
    http = TestClient(shop(sample=0))
    for code in (200, 302, 404, 500):
        http.get(f"/status/{code}", follow_redirects=False)
    assert completed(logged) == ["/status/404", "/status/500"]


def test_slow_requests_are_always_logged(logged):
    TestClient(shop(sample=0, slow=1e-9)).get("/status/200")
    TestClient(shop(sample=0, slow=1e9)).get("/status/200")
    assert completed(logged) == ["/status/200"]


def test_sampling_by_trace_gives_every_process_the_same_answer(logged):
    answers = []
    for _ in range(2):
        http = TestClient(shop(sample=0.5))
        fapilog.flush(30)
        logged.sink.clear()
        for number in range(64):
            low = number << 58
            parent = f"00-{(1 << 100) + low:032x}-00f067aa0ba902b7-01"
            http.get("/status/200", headers={"traceparent": parent})
        answers.append([r.trace_id for r in logged()])
    assert answers[0] == answers[1]
    assert len(answers[0]) == 32


def test_without_a_trace_the_ratio_is_kept_about(logged):
    http = TestClient(shop(sample=0.5, request_id_header=None))
    for _ in range(100):
        http.get("/status/200")
    assert 10 < len(completed(logged)) < 90


# ---- the servers' access logs


@pytest.fixture
def dict_config():
    """uvicorn's own configuration of logging, undone at the end."""
    names = ("uvicorn", "uvicorn.access", "uvicorn.error")
    loggers = [logging.getLogger(name) for name in names]
    before = [(x.handlers[:], x.propagate, x.level) for x in loggers]
    yield uvicorn.config.LOGGING_CONFIG
    for logger, (handlers, propagate, level) in zip(loggers, before, strict=True):
        logger.handlers[:], logger.propagate = handlers, propagate
        logger.setLevel(level)


@pytest.mark.parametrize("order", ["before", "after"])
@pytest.mark.parametrize(
    ("options", "lines"),
    [({}, 0), ({"replace_access_log": False}, 3), ({"exclude": "200"}, 0)],
)
def test_access_lines_are_replaced_in_any_order_with_uvicorns_configuration(
    logged, dict_config, capsys, order, options, lines
):
    if order == "before":
        logging.config.dictConfig(dict_config)
    app = shop(**options)
    log_config = dict_config if order == "after" else None

    async def main(port):
        for path in ("/status/200", "/status/404", "/nowhere"):
            await fetch(port, path)

    with serving(app, log_config=log_config) as port:
        asyncio.run(main(port))
    assert capsys.readouterr().out.count("HTTP/1.1") == lines


def test_another_applications_access_lines_stay(logged, caplog):
    shop()
    with caplog.at_level(logging.INFO), serving(FastAPI()) as port:
        asyncio.run(fetch(port, "/nowhere"))
    assert sum(r.name == "uvicorn.access" for r in caplog.records) == 1


def test_uninstalling_the_last_application_gives_everything_back(logged, caplog):
    apps = [FastAPI(), FastAPI()]
    for app in apps:
        install(app)
    access = logging.getLogger("uvicorn.access")
    for app in apps:
        assert access.filters
        uninstall(app)
        uninstall(app)
        assert type(app) is FastAPI
    assert not access.filters
    TestClient(apps[0]).get("/")
    assert logged() == []


def test_uninstalling_leaves_the_filters_that_another_middleware_needs(logged):
    access = logging.getLogger("uvicorn.access")
    served = FapilogMiddleware(FastAPI())
    app = FastAPI()
    install(app)
    install(app, sample=0.5)
    uninstall(app)
    assert access.filters
    del served
    gc.collect()
    install(app)
    uninstall(app)
    assert not access.filters
