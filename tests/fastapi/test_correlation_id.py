"""The request's id, the request's logger, and the fields of the context hook."""

from __future__ import annotations

from typing import Annotated

import fapilog_fastapi
import pytest
from fapilog_fastapi import install
from fastapi import Depends, FastAPI, Request
from starlette.responses import PlainTextResponse

import fapilog
from tests.support.serving import TestClient

Log = Annotated[fapilog.Logger, Depends(fapilog_fastapi.get_logger)]


def shop(**options):
    app = FastAPI()
    install(app, **options)

    @app.get("/orders/{number}")
    async def read(number: int, log: Log):
        log.info("read")

    @app.get("/plain")
    def plain():
        return PlainTextResponse("x", headers={"X-Request-ID": "the application's own"})

    return app


def test_an_id_that_is_given_is_on_all_records_and_in_the_response(logged):
    response = TestClient(shop()).get("/orders/1", headers={"X-Request-ID": "a.B:1/2_3+4=-@"})
    assert response.headers["x-request-id"] == "a.B:1/2_3+4=-@"
    assert {r.attributes["request.id"] for r in logged()} == {"a.B:1/2_3+4=-@"}


@pytest.mark.parametrize("given", ["", "a b", "x" * 129, "{}", "a\u00fc", "a;b", '"'])
def test_an_id_that_could_do_harm_is_replaced(logged, given):
    headers = {"X-Request-ID": given.encode("latin-1")}
    response = TestClient(shop()).get("/orders/1", headers=headers)
    assert len(response.headers["x-request-id"]) == 32
    assert {r.attributes["request.id"] for r in logged()} == {response.headers["x-request-id"]}


def test_two_requests_never_share_an_id_that_was_made(logged):
    http = TestClient(shop())
    ids = {http.get("/orders/1").headers["x-request-id"] for _ in range(20)}
    assert len(ids) == 20


def test_another_header_can_be_the_one(logged):
    http = TestClient(shop(request_id_header="X-Correlation-ID"))
    response = http.get("/orders/1", headers={"X-Correlation-ID": "c-1", "X-Request-ID": "r-1"})
    assert response.headers["x-correlation-id"] == "c-1"
    assert "x-request-id" not in response.headers
    assert logged.completed().attributes["request.id"] == "c-1"


def test_without_a_header_an_id_is_made_and_kept_here(logged):
    response = TestClient(shop(request_id_header=None)).get(
        "/orders/1", headers={"X-Request-ID": "r-1"}
    )
    assert "x-request-id" not in response.headers
    assert len(logged.completed().attributes["request.id"]) == 32


def test_a_header_that_the_application_sets_stays(logged):
    response = TestClient(shop()).get("/plain")
    assert response.headers.get_list("x-request-id") == ["the application's own"]


def test_a_response_that_is_sent_twice_does_not_collect_headers(logged):
    shared = PlainTextResponse("x")
    app = FastAPI()
    install(app)
    app.get("/shared")(lambda: shared)
    http = TestClient(app)
    ids = [http.get("/shared").headers.get_list("x-request-id") for _ in range(2)]
    assert [len(found) for found in ids] == [1, 1]
    assert ids[0] != ids[1]


def test_the_requests_logger_is_named_after_the_endpoints_module_and_bound(logged):
    TestClient(shop()).get("/orders/1", headers={"X-Request-ID": "r-1"})
    record = logged()[0]
    assert record.scope.name == __name__
    assert record.attributes == {"request.id": "r-1", "http.route": "/orders/{number}"}


def test_the_requests_logger_is_one_for_all_of_a_request(logged):
    seen = []
    app = shop()

    def first(log: Log):
        seen.append(log)

    @app.get("/two", dependencies=[Depends(first)])
    def two(log: Annotated[fapilog.Logger, Depends(fapilog_fastapi.get_logger, use_cache=False)]):
        seen.append(log)

    TestClient(app).get("/two")
    assert seen[0] is seen[1]


def test_the_requests_logger_works_without_the_middleware(logged):
    app = FastAPI()

    @app.get("/orders/{number}")
    def read(number: int, log: Log):
        log.bind(user="ada").info("read")

    TestClient(app).get("/orders/1")
    (record,) = logged()
    assert record.attributes == {"http.route": "/orders/{number}", "user": "ada"}


async def asynchronous(request):
    return {"user.id": request.headers["x-user"], "tenant": {"plan": "gold"}}


def synchronous(request):
    return {"user.id": request.headers["x-user"], "tenant": {"plan": "gold"}}


@pytest.mark.parametrize("context", [asynchronous, synchronous])
@pytest.mark.parametrize("path", ["/orders/1", "/plain"])
def test_fields_of_the_context_hook_are_on_the_requests_records(logged, context, path):
    TestClient(shop(context=context)).get(path, headers={"x-user": "ada"})
    for record in logged():
        assert record.attributes["user.id"] == "ada"
        assert record.attributes["tenant"] == {"plan": "gold"}


@pytest.mark.parametrize("name", ["request.id", "http.route", "scope", "fields", "name", "self"])
def test_any_name_can_be_that_of_a_field_and_the_requests_own_win(logged, name):
    response = TestClient(shop(context=lambda _: {name: "theirs"})).get("/orders/1")
    assert response.status_code == 200
    own = {"request.id": response.headers["x-request-id"], "http.route": "/orders/{number}"}
    (read,) = [record for record in logged() if record.body == "read"]
    for record in (read, logged.completed()):
        assert record.attributes.items() >= {name: "theirs", **own}.items()


def test_the_application_is_asked_once_a_request(logged):
    asked = []

    def context(request):
        asked.append(request.url.path)

    TestClient(shop(context=context)).get("/orders/1")
    assert asked == ["/orders/1"]


@pytest.mark.parametrize(
    "wrong", [lambda _: 1 / 0, lambda _: 7, lambda request: request.state.nobody]
)
def test_a_hook_that_fails_is_reported_once_and_breaks_no_request(logged, wrong):
    http = TestClient(shop(context=wrong))
    for _ in range(5):
        assert http.get("/orders/1").status_code == 200
    (told,) = [r for r in logged() if r.body == "the context hook failed"]
    assert told.severity_text == "WARN"
    assert told.attributes["failures"] == 1
    assert "exception.stacktrace" in told.attributes
    assert len(logged("http.server.request.completed")) == 5


def test_unreported_failures_are_counted_with_the_next_one(logged, monkeypatch):
    now = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    http = TestClient(shop(context=lambda _: 1 / 0))
    for _ in range(5):
        http.get("/plain")
    now += 31
    http.get("/plain")
    monkeypatch.undo()
    told = [r.attributes["failures"] for r in logged() if r.body == "the context hook failed"]
    assert told == [1, 5]


def test_a_hook_sees_the_values_that_middleware_puts_on_the_request(logged):
    app = shop(context=lambda request: {"user": request.state.user})

    @app.middleware("http")
    async def authenticate(request: Request, call_next):
        request.state.user = "ada"
        return await call_next(request)

    TestClient(app).get("/orders/1")
    assert logged.completed().attributes["user"] == "ada"
