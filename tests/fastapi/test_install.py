"""``install`` and its options."""

from __future__ import annotations

import re
from typing import Any, cast

import pytest
from fapilog_fastapi import (
    DebugOnError,
    FapilogMiddleware,
    PayloadLogging,
    RequestMetrics,
    install,
)
from fapilog_fastapi.request_table import RequestTable
from fastapi import FastAPI, Request
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from fapilog import ConfigurationError
from tests.support.serving import TestClient


def test_installing_twice_is_the_same_as_once_with_the_newer_options(logged):
    app = FastAPI()
    install(app, request_id_header="X-One")
    install(app, request_id_header="X-Two")
    app.add_middleware(FapilogMiddleware)
    response = TestClient(app).get("/")
    assert "x-two" in response.headers
    assert "x-one" not in response.headers
    assert len(logged()) == 1


def test_an_installed_application_keeps_its_class_and_its_behaviour(logged):
    class Shop(FastAPI):
        async def __call__(self, scope, receive, send):
            scope["seen"] = True
            await super().__call__(scope, receive, send)

    app, other = Shop(title="shop"), Shop()
    install(app)
    install(other)
    app.add_middleware(FapilogMiddleware)  # middleware can be added after it

    @app.get("/")
    async def root(request: Request):
        return [request.scope["seen"], request.app.title]

    assert isinstance(app, Shop)
    assert type(app).__name__ == "Shop"
    assert TestClient(app).get("/").json() == [True, "shop"]


def test_installing_after_the_first_request_works_as_well(logged):
    app = Starlette(routes=[Route("/", lambda request: PlainTextResponse("x"))])
    http = TestClient(app)
    http.get("/")
    install(app)
    http.get("/")
    assert logged.completed().body == "GET / 200"


def test_only_starlettes_applications_can_be_installed_on():
    with pytest.raises(ConfigurationError, match="FapilogMiddleware"):
        install(cast("Any", object()))


def test_an_application_whose_class_takes_no_subclass_is_refused_with_the_way_out(logged):
    class Shop(FastAPI):
        def __init_subclass__(cls, *, region: str) -> None:
            super().__init_subclass__()

    app = Shop()
    with pytest.raises(ConfigurationError, match=r"^app: Shop .*region.*FapilogMiddleware"):
        install(app)
    assert type(app) is Shop
    assert TestClient(FapilogMiddleware(app)).get("/").status_code == 404
    assert logged.completed()


WRONG: list[tuple[str, Any]] = [
    ("request_id_header", "X Request"),
    ("request_id_header", 7),
    ("trace_headers", 1),
    ("trace_context", "no"),
    ("context", {"user": 1}),
    ("exclude", "("),
    ("exclude", [7]),
    ("exclude", 5),
    ("exclude", False),
    ("exclude", [re.compile(b"/health")]),
    ("sample", 1.1),
    ("sample", "half"),
    ("sample", float("nan")),
    ("slow", 0),
    ("slow", True),
    ("severity", "INFO"),
    ("severity", {"6xx": "INFO"}),
    ("severity", {99: "INFO"}),
    ("severity", {404: "LOUD"}),
    ("severity", {404: "OFF"}),
    ("severity", {404: 13}),
    ("replace_access_log", None),
    ("validation_inputs", "yes"),
    ("debug_on_error", "always"),
    ("payloads", True),
    ("metrics", "prometheus"),
    ("no_such_option", 1),
]


@pytest.mark.parametrize(("name", "value"), WRONG, ids=str)
def test_a_wrong_option_fails_at_once_and_is_named(name, value):
    with pytest.raises(ConfigurationError, match=f"^{name}"):
        install(FastAPI(), **{name: value})


def test_a_misspelt_option_is_told_what_was_probably_meant():
    with pytest.raises(ConfigurationError, match="did you mean debug_on_error"):
        install(FastAPI(), debug_on_eror=True)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    "options",
    [
        {"level": "loud"},
        {"records": 0},
        {"records": 100.0},
        {"size": "big"},
        {"size": 1e6},
        {"seconds": -1},
        {"seconds": float("inf")},
        {"status": 499.5},
        {"status": 600},
        {"status": True},
        {"sampled": "x"},
    ],
    ids=str,
)
def test_a_wrong_way_to_hold_debug_records_fails_at_once(options):
    with pytest.raises(ConfigurationError, match="of debug_on_error: ") as caught:
        DebugOnError(**options)
    assert caught.value.option in options


def test_headers_and_bodies_are_on_the_completion_record(logged):
    app = FastAPI()
    install(
        app,
        payloads=PayloadLogging(
            request_headers=["x-client"],
            response_headers=["x-request-id"],
            request_bodies=["/orders"],
            response_bodies=["/orders"],
        ),
    )

    @app.post("/orders")
    async def place(order: dict[str, str]):
        return order

    TestClient(app).post(
        "/orders", json={"item": "tea", "password": "hunter2"}, headers={"x-client": "ios"}
    )
    attributes = logged.completed().attributes
    assert attributes["http.request.header.x-client"] == ["ios"]
    assert attributes["http.response.header.x-request-id"] == [attributes["request.id"]]
    assert attributes["http.request.body.content"] == {"item": "tea", "password": "[REDACTED]"}
    assert attributes["http.response.body.content"]["item"] == "tea"
    assert attributes["http.request.body.size"] > 30


def test_requests_are_counted_by_route_and_status_also_those_not_sampled(logged):
    table = RequestTable()
    table.is_served = True
    app = FastAPI()
    metrics = RequestMetrics(opentelemetry=False, table=table)
    install(app, metrics=metrics, sample=0, exclude="health")

    @app.get("/orders/{number}")
    async def read(number: int):
        if number == 0:
            raise ValueError

    http = TestClient(app, raise_server_exceptions=False)
    for path in ("/orders/1", "/orders/2", "/orders/0", "/health"):
        http.get(path)
    counted = {
        (labels.route, labels.status, labels.error): sum(series.duration.counts)
        for labels, series in table.series()
    }
    assert counted == {
        ("/orders/{number}", 200, ""): 2,
        ("/orders/{number}", 500, "ValueError"): 1,
    }


def test_metrics_can_be_switched_on_by_a_word(logged):
    app = FastAPI()
    install(app, metrics=True)
    assert TestClient(app).get("/").status_code == 404
    assert logged.completed()
