from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path
from typing import Any

import fapilog_fastapi
import fastapi
import httpx
import pytest
from fapilog_fastapi.metrics import RequestMetrics, add_metrics_route, metrics_endpoint
from fapilog_fastapi.request_table import PROCESS_TABLE
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette

import fapilog
from fapilog import ConfigurationError
from fapilog.sinks import MemorySink
from tests.support.asgi import http_scope

OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
LABELS = {
    "http_request_method": "POST",
    "url_scheme": "http",
    "http_response_status_code": "200",
    "network_protocol_version": "1.1",
    "error_type": "",
}


def get(app: Any, path: str = "/metrics", **headers: str) -> httpx.Response:
    async def run() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://t") as client:
            return await client.get(path, headers=headers)

    return asyncio.run(run())


def request(route: str, duration: float = 0.02, **sizes: int) -> None:
    metrics = RequestMetrics(opentelemetry=False)
    scope = http_scope()
    metrics.started(scope)
    metrics.finished(scope, route, 200, duration, **sizes)  # type: ignore[arg-type]


@pytest.mark.parametrize("options", [{}, {"metrics": False}, {"metrics": True}])
def test_requests_of_an_installed_application_are_shown_with_and_without_opentelemetry(options):
    app = fastapi.FastAPI()
    fapilog_fastapi.install(app, **options)
    path = f"/options/{len(options)}/{options.get('metrics')}"
    app.add_api_route(path, lambda: "x")
    add_metrics_route(app)
    assert get(app, path).status_code == 200
    line = re.compile(
        rf"^http_server_request_duration_seconds_count{{.*{path}.*}} 1.0$", re.MULTILINE
    )
    assert line.search(get(app).text)


@pytest.mark.parametrize("framework", [fastapi.FastAPI, Starlette])
def test_one_line_serves_the_ledger_and_the_requests_as_prometheus_text(framework):
    fapilog.configure(sinks=[MemorySink()])
    app = framework()
    add_metrics_route(app)
    fapilog.get_logger("t").info("one")
    assert fapilog.flush(10)
    route = f"/served-by/{framework.__name__}"
    request(route, request_size=48)
    response = get(app)
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain")
    families = list(text_string_to_metric_families(response.text))
    samples = {
        (s.name, s.labels.get("le", "")): s.value
        for family in families
        for s in family.samples
        if s.labels.get("http_route", route) == route
    }
    assert samples["fapilog_records_delivered_total", ""] == 1
    assert samples["http_server_request_duration_seconds_count", ""] == 1
    assert samples["http_server_request_duration_seconds_sum", ""] == 0.02
    assert samples["http_server_request_duration_seconds_bucket", "0.01"] == 0
    assert samples["http_server_request_duration_seconds_bucket", "0.025"] == 1
    assert samples["http_server_request_body_size_bytes_bucket", "100.0"] == 1
    assert samples["http_server_active_requests", ""] == 0
    assert ("http_server_response_body_size_bytes_count", "") not in samples


def test_the_labels_are_those_of_the_standard():
    app = Starlette()
    add_metrics_route(app)
    request("/labelled")
    (sample,) = [
        s
        for family in text_string_to_metric_families(get(app).text)
        for s in family.samples
        if s.name.endswith("seconds_count") and s.labels.get("http_route") == "/labelled"
    ]
    assert sample.labels == {**LABELS, "http_route": "/labelled"}


def test_openmetrics_has_the_trace_of_a_request_as_an_exemplar_and_plain_text_does_not():
    app = Starlette()
    add_metrics_route(app)
    with TracerProvider().get_tracer("t").start_as_current_span("request") as span:
        request("/traced", 0.3)
    context = span.get_span_context()
    with TracerProvider(sampler=ALWAYS_OFF).get_tracer("t").start_as_current_span("unsampled"):
        request("/traced", 0.02)
    response = get(app, accept=OPENMETRICS)
    assert response.headers["content-type"].startswith("application/openmetrics-text")
    exemplars = [
        (s.labels["le"], s.exemplar)
        for family in openmetrics(response.text)
        for s in family.samples
        if s.exemplar and s.labels.get("http_route") == "/traced"
    ]
    ((bound, exemplar),) = exemplars
    assert (bound, exemplar.value) == ("0.5", 0.3)
    assert exemplar.labels == {
        "trace_id": trace.format_trace_id(context.trace_id),
        "span_id": trace.format_span_id(context.span_id),
    }
    assert "trace_id" not in get(app).text


def test_an_applications_own_registry_is_served_with_the_rest():
    registry = CollectorRegistry()
    Counter("orders", "Orders.", registry=registry).inc()
    app, second = Starlette(), Starlette()
    add_metrics_route(app, "/internal/metrics", registry)
    add_metrics_route(second, registry=registry)
    for text in (get(app, "/internal/metrics").text, get(second).text):
        assert "orders_total 1.0" in text
        assert text.count("# TYPE fapilog_records_accepted_total") == 1
        assert text.count("# TYPE http_server_request_duration_seconds ") == 1


def test_request_metrics_that_a_registry_has_already_are_refused_or_left_out():
    registry = CollectorRegistry()
    Histogram("http_server_request_duration_seconds", "Another's.", registry=registry)
    with pytest.raises(ConfigurationError, match="requests=False"):
        add_metrics_route(Starlette(), registry=registry)
    app = Starlette()
    add_metrics_route(app, registry=registry, requests=False)
    assert "http_server_active_requests" not in get(app).text


def test_the_route_is_not_in_the_schema_of_the_app():
    app = fastapi.FastAPI()
    add_metrics_route(app)
    assert app.openapi()["paths"] == {}


def test_a_path_without_its_slash_is_refused():
    with pytest.raises(ConfigurationError, match=r"path must be text that begins with '/'"):
        add_metrics_route(Starlette(), "metrics")


def test_a_missing_prometheus_client_is_reported_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.delitem(sys.modules, "fapilog_fastapi.prometheus", raising=False)
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'fapilog-fastapi\[metrics\]'"):
        metrics_endpoint()


def test_the_table_of_the_process_is_added_up_once_it_is_served():
    add_metrics_route(Starlette())
    assert PROCESS_TABLE.is_served


def test_every_metric_of_requests_is_documented():
    page = (Path(__file__).parents[2] / "docs" / "fastapi-metrics.md").read_text(encoding="utf-8")
    app = Starlette()
    add_metrics_route(app)
    names = set(re.findall(r"^# TYPE (http_\w+)", get(app).text, re.MULTILINE))
    assert len(names) == 4
    assert {name for name in names if f"`{name}`" not in page} == set()
