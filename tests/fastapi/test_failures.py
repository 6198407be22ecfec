"""Exceptions are logged once, with their stack trace, and passed on unchanged."""

from __future__ import annotations

import asyncio
import functools
import logging
from typing import Any

import pytest
from fapilog_fastapi import FapilogMiddleware, install
from fapilog_fastapi.failures import is_logged
from fastapi import APIRouter, BackgroundTasks, FastAPI, HTTPException
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel, field_validator
from starlette.applications import Starlette
from starlette.routing import Host, Mount

import fapilog
from tests.support.serving import TestClient, fetch, serving


class Order(BaseModel):
    item: str
    count: int

    @field_validator("item")
    @classmethod
    def known(cls, item):
        if item == "s3cret":
            raise ValueError(f"there is no {item}")
        return item


class Login(BaseModel):
    password: int


class PaymentError(Exception):
    pass


def shop(**options):
    app = FastAPI()
    install(app, **options)

    @app.get("/boom/{number}")
    async def boom(number: int):
        raise ValueError("boom")

    @app.post("/orders")
    async def place(order: Order):
        return {}

    @app.get("/pay")
    async def pay():
        raise PaymentError("card 4")

    return app


def traced(records):
    return [r for r in records if "exception.stacktrace" in r.attributes]


def test_an_unhandled_exception_is_on_the_completion_record_and_reaches_the_server(logged):
    http = TestClient(shop())
    with pytest.raises(ValueError, match="boom"):
        http.get("/boom/1", headers={"x-request-id": "r-1"})
    (record,) = logged()
    assert (record.severity_text, record.body) == ("ERROR", "GET /boom/{number} 500")
    assert record.attributes["error.type"] == record.attributes["exception.type"] == "ValueError"
    assert "in boom" in record.attributes["exception.stacktrace"]


def test_the_response_of_an_unhandled_exception_has_the_id_too(logged):
    http = TestClient(shop(), raise_server_exceptions=False)
    response = http.get("/boom/1", headers={"x-request-id": "r-1"})
    assert (response.status_code, response.headers["x-request-id"]) == (500, "r-1")


def test_an_httpexception_without_a_handler_is_a_fault(logged):
    class Guard:
        def __init__(self, app):
            self.app = app

        async def __call__(self, scope, receive, send):
            if scope["type"] == "http":
                raise HTTPException(401)
            await self.app(scope, receive, send)

    app = FastAPI()
    app.add_middleware(Guard)
    install(app)
    assert TestClient(app, raise_server_exceptions=False).get("/").status_code == 500
    (record,) = logged()
    assert record.attributes["error.type"].endswith("HTTPException")
    assert "in __call__" in record.attributes["exception.stacktrace"]


async def fails():
    raise ValueError("deep down")


def inner():
    app = FastAPI()
    app.add_api_route("/boom", fails)
    return app


def called(app):
    async def call(scope, receive, send):
        await app(scope, receive, send)

    return call


def included(app):
    outer, router = FastAPI(), APIRouter()
    router.mount("/m", app)
    outer.include_router(router)
    return outer


def mounted_by_a_function(app):
    outer = FastAPI()
    outer.mount("/m", called(app))
    return outer


@pytest.mark.parametrize(
    "outer",
    [
        lambda app: Starlette(routes=[Mount("/m", routes=[Mount("/", app=app)])]),
        lambda app: Starlette(routes=[Host("testserver", app=Mount("/m", app=app))]),
        included,
        mounted_by_a_function,
    ],
    ids=["mounts", "host", "included", "function"],
)
def test_an_exception_deep_down_is_one_record_with_its_trace(logged, outer):
    app = outer(inner())
    install(app)
    response = TestClient(app, raise_server_exceptions=False).get("/m/boom")
    if response.status_code == 404:
        pytest.skip("this version includes no mounts")
    records = logged()
    if outer is mounted_by_a_function:  # fapilog cannot find FastAPI's own telemetry there
        records = [r for r in records if r.scope.name == "fapilog_fastapi"]
    (record,) = records
    assert (record.severity_text, record.attributes["error.type"]) == ("ERROR", "ValueError")
    assert record.attributes["http.response.status_code"] == 500
    assert "deep down" in record.attributes["exception.stacktrace"]


def test_a_failure_that_is_answered_is_recorded_with_the_time_of_its_answer(logged):
    app = FastAPI()
    install(app)

    @app.get("/busy")
    async def busy(tasks: BackgroundTasks):
        tasks.add_task(asyncio.sleep, 0.2)
        return JSONResponse({}, status_code=503, background=tasks)

    TestClient(app).get("/busy")
    (record,) = logged()
    assert (record.body, record.attributes["error.type"]) == ("GET /busy 503", "503")
    assert "request.outcome" not in record.attributes
    assert record.attributes["http.server.request.duration"] < 0.2


def test_a_handler_of_every_exception_has_the_fields_and_makes_no_second_trace(logged):
    app = shop()

    @app.exception_handler(Exception)
    async def sorry(request, error):
        fapilog.get_logger("shop").info("sorry")
        return JSONResponse({"sorry": True}, status_code=503)

    http = TestClient(app, raise_server_exceptions=False)
    assert http.get("/boom/1", headers={"x-request-id": "r-1"}).status_code == 503
    sorry_record, completion = logged()
    assert sorry_record.attributes["request.id"] == "r-1"
    assert completion.attributes["http.response.status_code"] == 503
    assert len(traced(logged())) == 1


@pytest.mark.parametrize(("status", "traces"), [(502, 1), (409, 0)])
@pytest.mark.parametrize("kind", ["coroutine", "function"])
def test_a_handled_exception_has_a_stack_trace_if_the_response_is_a_failure(
    logged, status, traces, kind
):
    app = shop()

    async def coroutine(request, error):
        return JSONResponse({}, status_code=status)

    def function(request, error):
        return JSONResponse({}, status_code=status)

    app.add_exception_handler(PaymentError, coroutine if kind == "coroutine" else function)
    assert TestClient(app).get("/pay").status_code == status
    (record,) = logged()
    assert len(traced([record])) == traces
    if traces:
        assert record.attributes["exception.message"] == "card 4"


class AsyncHandler:
    async def __call__(self, request, error):
        return JSONResponse({}, status_code=502)


class ThreadedHandler:
    def __call__(self, request, error):
        return JSONResponse({}, status_code=502)


@pytest.mark.parametrize("kind", [AsyncHandler, ThreadedHandler])
@pytest.mark.parametrize("layers", [0, 1, 2])
def test_an_exception_handler_can_be_an_object_also_inside_of_partial(logged, kind, layers):
    handler = kind()
    for _ in range(layers):
        handler = functools.partial(handler)
    app = shop()
    app.add_exception_handler(PaymentError, handler)
    assert TestClient(app).get("/pay").status_code == 502
    assert len(traced([logged.completed()])) == 1


def test_an_exception_raised_in_an_exception_handler_shows_both(logged):
    app = shop()

    @app.exception_handler(PaymentError)
    async def answer(request, error):
        raise RuntimeError("worse")

    TestClient(app, raise_server_exceptions=False).get("/pay")
    (record,) = logged()
    trace = record.attributes["exception.stacktrace"]
    assert "PaymentError: card 4" in trace
    assert "RuntimeError: worse" in trace


def test_an_exception_during_the_response_keeps_the_status(logged):
    app = shop()

    @app.get("/stream")
    async def stream():
        async def pieces():
            yield b"x"
            raise ValueError("in the midst")

        return StreamingResponse(pieces())

    with pytest.raises(BaseException, match=r"in the midst|TaskGroup"):
        TestClient(app).get("/stream")
    record = logged.completed()
    assert (record.severity_text, record.body) == ("ERROR", "GET /stream 200 failed")
    assert record.attributes["request.outcome"] == "failed"
    assert "in the midst" in record.attributes["exception.stacktrace"]


def test_an_exception_of_a_background_task_gets_a_separate_record(logged):
    app = shop()

    @app.get("/work")
    async def work(tasks: BackgroundTasks):
        def fail():
            raise ValueError("too late")

        tasks.add_task(fail)

    with pytest.raises(ValueError, match="too late"):
        TestClient(app).get("/work", headers={"x-request-id": "r-1"})
    completion, late = logged()
    assert completion.severity_text == "INFO"
    assert late.severity_text == "ERROR"
    assert late.event_name == "http.server.request.exception"
    assert late.attributes["request.id"] == "r-1"
    assert late.attributes["http.route"] == "/work"
    assert "too late" in late.attributes["exception.stacktrace"]


def test_validation_errors_are_logged_without_values(logged):
    http = TestClient(shop())
    http.post("/orders", json={"item": "s3cret", "count": "many"})
    (record,) = logged()
    assert (record.severity_text, record.body) == ("WARN", "POST /orders 422")
    assert record.attributes["validation.errors"] == [
        {"loc": "body.item", "type": "value_error"},
        {"loc": "body.count", "type": "int_parsing"},
    ]
    assert record.attributes["validation.error_count"] == 2
    assert "s3cret" not in repr(record)


def test_validation_errors_have_values_on_request(logged):
    TestClient(shop(validation_inputs=True)).post("/orders", json={"item": "x", "count": "many"})
    (error,) = logged.completed().attributes["validation.errors"]
    assert error["input"] == "many"
    assert "integer" in error["msg"]


def test_the_values_of_secret_fields_are_masked_also_when_asked_for(logged):
    app = shop(validation_inputs=True)

    @app.post("/login")
    async def login(login: Login):
        return {}

    @app.get("/login")
    async def form(password: int):
        return {}

    TestClient(app).post("/login", json={"password": "S3CRET"})
    TestClient(app).get("/login", params={"password": "S3CRET"})
    assert [r.attributes["validation.errors"][0]["loc"] for r in logged()] == [
        "body.password",
        "query.password",
    ]
    assert "S3CRET" not in repr(logged())


@pytest.mark.parametrize("where", ["response", "model"])
def test_a_secret_field_that_did_not_validate_is_masked_in_the_exception(logged, where):
    app = FastAPI()
    install(app)

    @app.get("/response", response_model=Login)
    async def response():
        return {"password": "S3CRET"}

    @app.get("/model")
    async def model():
        Login.model_validate({"password": "S3CRET"})

    TestClient(app, raise_server_exceptions=False).get(f"/{where}")
    (record,) = traced(logged())
    assert "ValidationError" in record.attributes["error.type"]
    assert "S3CRET" not in repr(record)


def test_a_thousand_validation_errors_are_counted_and_a_few_are_logged(logged):
    app = shop()

    @app.post("/numbers")
    async def numbers(numbers: list[int]):
        return {}

    TestClient(app).post("/numbers", json=["x"] * 1000)
    record = logged.completed()
    assert record.attributes["validation.error_count"] == 1000
    assert len(record.attributes["validation.errors"]) == 20


@pytest.mark.parametrize(
    ("key", "shown"),
    [
        ("alice@example.com 4111", "*"),
        ("4111111111111111", "*"),
        ("x" * 65, "*"),
        ("größe", "größe"),
        ("x-count", "x-count"),
    ],
)
def test_keys_that_clients_choose_show_no_more_than_names(logged, key, shown):
    app = shop()

    @app.post("/counts")
    async def counts(body: dict[str, int]):
        return {}

    TestClient(app).post("/counts", json={key: "x"})
    (error,) = logged.completed().attributes["validation.errors"]
    assert error["loc"] == f"body.{shown}"


def test_validation_errors_of_a_mounted_application_are_logged(logged):
    app, admin = FastAPI(), FastAPI()

    @admin.get("/{number}")
    async def read(number: int):
        return {}

    app.mount("/admin", admin)
    install(app)
    TestClient(app).get("/admin/x")
    assert logged.completed().attributes["validation.error_count"] == 1


@pytest.mark.parametrize("arrange", ["install", "add_middleware"])
def test_the_servers_report_of_an_exception_is_not_a_second_copy(logged, arrange):
    app = shop() if arrange == "install" else FastAPI()
    if arrange == "add_middleware":
        app.add_middleware(FapilogMiddleware)

        @app.get("/boom/{number}")
        async def boom(number: int):
            raise ValueError("boom")

    fapilog.install_stdlib()
    with serving(app) as port:
        answer = asyncio.run(fetch(port, "/boom/1"))
    assert answer.startswith(b"HTTP/1.1 500")
    assert len(traced(logged())) == 1
    assert not [r for r in logged() if "Exception in ASGI" in str(r.body)]


def test_after_a_shutdown_the_servers_own_report_and_access_line_stay(logged, caplog):
    app = shop()
    with caplog.at_level(logging.INFO), serving(app) as port:
        fapilog.shutdown(10)
        asyncio.run(fetch(port, "/boom/1"))
    own = [r for r in caplog.records if r.name in {"uvicorn.access", "uvicorn.error"}]
    assert [r.exc_info[0] for r in own if r.exc_info] == [ValueError]
    assert sum(r.name == "uvicorn.access" for r in own) == 1


def test_an_exception_of_another_application_is_still_the_servers_to_report(logged, caplog):
    install(FastAPI())

    async def app(scope, receive, send):
        if scope["type"] == "http":
            raise ValueError("boom")

    with caplog.at_level(logging.ERROR), serving(app, lifespan="off") as port:
        asyncio.run(fetch(port, "/"))
    assert [r.message.strip() for r in caplog.records] == ["Exception in ASGI application"]


def test_one_exception_object_raised_by_two_requests_is_logged_by_both(logged):
    error = ValueError("the same")
    app = shop()

    @app.get("/same")
    async def same(tasks: BackgroundTasks):
        async def fail():
            raise error

        tasks.add_task(fail)

    http = TestClient(app, raise_server_exceptions=False)
    http.get("/same")
    http.get("/same")
    assert len(traced(logged())) == 2


def test_the_server_reports_an_exception_of_an_excluded_request_that_another_has_logged(logged):
    error = ValueError("the same")
    app = FastAPI()
    install(app, exclude="/health")

    @app.get("/page")
    @app.get("/health")
    async def same():
        raise error

    http = TestClient(app, raise_server_exceptions=False)
    http.get("/page")
    assert is_logged(error)
    http.get("/health")
    assert not is_logged(error)


def test_an_exception_without_settable_attributes_is_logged_too(logged):
    class StubbornError(Exception):
        @property
        def __dict__(self) -> Any:  # type: ignore[override]
            raise RuntimeError

    app = shop()

    @app.get("/stubborn")
    async def stubborn():
        raise StubbornError

    TestClient(app, raise_server_exceptions=False).get("/stubborn")
    assert len(traced(logged())) == 1
