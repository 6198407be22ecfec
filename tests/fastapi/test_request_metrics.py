from __future__ import annotations

import logging
from typing import Any

import pytest
from fapilog_fastapi.metrics import RequestMetrics
from fapilog_fastapi.request_labels import OTHER, Distinct, LabelMaker
from fapilog_fastapi.request_table import BYTES, SECONDS, RequestTable
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from tests.support.asgi import http_scope


class Measured:
    """OpenTelemetry's SDK, with the measurements that it has taken."""

    def __init__(self) -> None:
        self.reader = InMemoryMetricReader()
        self.provider = MeterProvider([self.reader])
        self.meter = self.provider.get_meter("test")

    def points(self) -> dict[str, Any]:
        data = self.reader.get_metrics_data()
        if data is None:
            return {}
        (resource,) = data.resource_metrics
        (scope,) = resource.scope_metrics
        return {metric.name: (metric.unit, metric.data.data_points) for metric in scope.metrics}


@pytest.fixture
def measured():
    measured = Measured()
    yield measured
    measured.provider.shutdown()


def test_a_request_is_measured_by_the_names_units_and_buckets_of_the_standard(measured):
    metrics = RequestMetrics(measured.meter, table=RequestTable())
    scope = http_scope()
    metrics.started(scope)
    metrics.finished(scope, "/orders/{id}", 200, 0.02, request_size=48, response_size=2_000_000)
    points = measured.points()
    expected = {
        "http.request.method": "POST",
        "url.scheme": "http",
        "http.route": "/orders/{id}",
        "http.response.status_code": 200,
        "network.protocol.version": "1.1",
    }
    for name, unit, bounds, total in [
        ("http.server.request.duration", "s", SECONDS, 0.02),
        ("http.server.request.body.size", "By", BYTES, 48),
        ("http.server.response.body.size", "By", BYTES, 2_000_000),
    ]:
        found, (point,) = points[name]
        assert (found, point.explicit_bounds, point.sum, point.count) == (unit, bounds, total, 1)
        assert dict(point.attributes) == expected
    unit, (active,) = points["http.server.active_requests"]
    assert (unit, active.value) == ("{request}", 0)
    assert dict(active.attributes) == {"http.request.method": "POST", "url.scheme": "http"}


def test_an_active_request_is_counted_until_it_ends_once_whatever_the_app_makes_of_its_scope(
    measured,
):
    table = RequestTable()
    table.is_served = True
    metrics = RequestMetrics(measured.meter, table=table)
    scope, other = http_scope(), http_scope()
    metrics.started(scope)
    metrics.started(other)
    scope["method"] = "GET"
    assert table.active() == {("POST", "http"): 2}
    for _ in range(2):
        metrics.finished(scope, None, 200, 0.1)
    assert table.active() == {("POST", "http"): 1}
    _, (active,) = measured.points()["http.server.active_requests"]
    assert active.value == 1
    assert measured.points()["http.server.request.duration"][1][0].count == 1


def test_other_scopes_than_http_are_not_measured(measured):
    metrics = RequestMetrics(measured.meter, table=RequestTable())
    for kind in ("websocket", "lifespan"):
        scope = {"type": kind}
        metrics.started(scope)
        metrics.finished(scope, None, None, 1.0)
    assert measured.points() == {}


@pytest.mark.parametrize(
    ("status", "error_type", "expected"),
    [
        (200, None, None),
        (404, None, None),
        (503, None, "503"),
        (500, "app.errors.StockError", "app.errors.StockError"),
        (None, "ClientDisconnect", "ClientDisconnect"),
    ],
)
def test_the_error_type_is_the_exception_or_the_status_of_a_failure(
    measured, status, error_type, expected
):
    metrics = RequestMetrics(measured.meter, table=RequestTable())
    scope = http_scope()
    metrics.started(scope)
    metrics.finished(scope, None, status, 0.1, error_type)
    _, (point,) = measured.points()["http.server.request.duration"]
    assert point.attributes.get("error.type") == expected
    assert point.attributes.get("http.response.status_code") == status
    assert "http.route" not in point.attributes


def test_values_that_clients_choose_freely_do_not_become_labels():
    maker = LabelMaker()
    scope = http_scope(method="EVIL", scheme="gopher", http_version="9")
    begun = maker.method_and_scheme(scope)
    labels = maker.finished(begun, scope, None, 700, None)
    assert labels == (OTHER, OTHER, "", 0, "", "")
    assert maker.method_and_scheme(http_scope(method="get"))[0] == OTHER


def test_the_known_methods_can_be_given_by_the_standards_variable(monkeypatch):
    monkeypatch.setenv("OTEL_INSTRUMENTATION_HTTP_KNOWN_METHODS", "GET, PURGE")
    maker = LabelMaker()
    methods = [maker.method_and_scheme(http_scope(method=m))[0] for m in ("GET", "PURGE", "POST")]
    assert methods == ["GET", "PURGE", OTHER]


def test_too_many_values_of_a_label_share_one_value():
    distinct = Distinct(2)
    assert [distinct(value) for value in "abcab"] == ["a", "b", OTHER, "a", "b"]
    maker = LabelMaker()
    begun = maker.method_and_scheme(http_scope())
    for n in range(1500):
        labels = maker.finished(begun, http_scope(), f"/{n}", 500, f"Error{n}")
    assert (labels.route, labels.error) == (OTHER, OTHER)


def test_too_many_combinations_share_one_series_and_no_request_is_lost():
    table = RequestTable()
    maker = LabelMaker()
    begun = maker.method_and_scheme(http_scope())
    for route in range(50):
        for status in range(100, 200):
            labels = maker.finished(begun, http_scope(), f"/{route}", status, None)
            table.add(labels, 0.1, (None, 5))
    series = table.series()
    assert len(series) <= 2001
    assert sum(sum(one.duration.counts) for _, one in series) == 5000
    assert series[-1][0].route == OTHER


def test_metrics_that_opentelemetrys_instrumentation_makes_are_not_made_twice(measured):
    table = RequestTable()
    metrics = RequestMetrics(measured.meter, opentelemetry=False, table=table)
    active = [metrics.is_active]
    scope = http_scope()
    metrics.started(scope)
    table.is_served = True
    active.append(metrics.is_active)
    assert active == [False, True]
    metrics.finished(scope, "/a", 200, 0.1)  # nothing measured the request when it began
    assert table.series() == []
    metrics.started(scope)
    metrics.finished(scope, "/a", 200, 0.1)
    assert len(table.series()) == 1
    assert measured.points() == {}


def test_the_default_meter_is_the_global_providers(monkeypatch, measured):
    monkeypatch.setattr(
        "opentelemetry.metrics.get_meter", lambda name, **_: measured.provider.get_meter(name)
    )
    metrics = RequestMetrics(table=RequestTable())
    scope = http_scope()
    metrics.started(scope)
    metrics.finished(scope, "/a", 200, 0.1)
    assert "http.server.request.duration" in measured.points()


def test_a_broken_meter_is_counted_and_announced_once_and_never_raises(caplog):
    class Broken:
        def __getattr__(self, name):
            raise RuntimeError("no meter")

    metrics = RequestMetrics(Broken(), table=RequestTable())  # type: ignore[arg-type]
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            scope = http_scope()
            metrics.started(scope)
            metrics.finished(scope, "/a", 200, 0.1, request_size=1, response_size=1)
    assert metrics.failures == 15
    assert len([r for r in caplog.records if r.name == "fapilog_fastapi.metrics"]) == 1
