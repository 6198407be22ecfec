"""The completion record: one per request, by the semantic conventions, at the right time."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import weakref
from typing import Annotated, Any

import fapilog_fastapi
import pytest
from fapilog_fastapi import FapilogMiddleware, install
from fastapi import APIRouter, BackgroundTasks, Depends, FastAPI, HTTPException
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

import fapilog
from tests.support.asgi import (
    Server,
    app_that_sends,
    body_messages,
    http_scope,
    response_messages,
)
from tests.support.serving import TestClient

Log = Annotated[fapilog.Logger, Depends(fapilog_fastapi.get_logger)]


def shop(**options):
    app = FastAPI()
    install(app, **options)

    @app.get("/orders/{number}")
    async def read(number: int):
        return {"number": number}

    @app.post("/orders")
    async def place(order: dict[str, int]):
        return order

    @app.get("/status/{code}")
    async def status(code: int):
        return JSONResponse({}, status_code=code)

    return app


def test_a_request_is_one_event_with_the_attributes_of_the_conventions(logged, client):
    async def main():
        async with client(shop()) as http:
            await http.get("/orders/7?page=2", headers={"user-agent": "curl/8"})

    asyncio.run(main())
    record = logged.completed()
    assert len(logged()) == 1
    assert (record.severity_text, record.body) == ("INFO", "GET /orders/{number} 200")
    duration = record.attributes.pop("http.server.request.duration")
    assert isinstance(duration, float)
    assert len(record.attributes.pop("request.id")) == 32
    assert record.attributes == {
        "http.request.method": "GET",
        "http.route": "/orders/{number}",
        "http.response.status_code": 200,
        "http.response.body.size": 12,
        "url.path": "/orders/7",
        "url.query": "page=2",
        "url.scheme": "http",
        "client.address": "127.0.0.1",
        "user_agent.original": "curl/8",
        "network.protocol.version": "1.1",
        "server.address": "shop.example",
        "server.port": 8080,
    }


@pytest.mark.parametrize(
    ("code", "severity"), [(204, "INFO"), (302, "INFO"), (404, "WARN"), (500, "ERROR")]
)
def test_severity_follows_the_status(logged, code, severity):
    TestClient(shop()).get(f"/status/{code}", follow_redirects=False)
    assert logged.completed().severity_text == severity


def test_severity_can_be_chosen_by_status_and_by_class(logged):
    http = TestClient(shop(severity={404: "DEBUG", "4xx": "ERROR", "2xx": "WARN"}))
    for code in (200, 404, 409):
        http.get(f"/status/{code}")
    records = logged("http.server.request.completed")
    assert [r.severity_text for r in records] == ["WARN", "ERROR"]  # 404 is below the level


def test_secrets_in_a_query_do_not_leave(logged):
    TestClient(shop()).get("/orders/1?token=s3cret&p%61ssword=hunter2&page=1")
    query = logged.completed().attributes["url.query"]
    assert "s3cret" not in query
    assert "hunter2" not in query
    assert "page=1" in query


def test_an_unknown_method_becomes_other(logged):
    TestClient(shop()).request("BREW", "/orders/1")
    record = logged.completed()
    assert record.attributes["http.request.method"] == "_OTHER"
    assert record.attributes["http.request.method_original"] == "BREW"
    assert record.body.startswith("HTTP /orders/{number}")


def test_sizes_of_bodies_are_counted_also_without_a_length(logged):
    http = TestClient(shop())
    http.post(
        "/orders", content=iter([b'{"a"', b": 1}"]), headers={"content-type": "application/json"}
    )
    http.post("/orders", content=b'{"a":1}', headers={"content-type": "application/json"})
    sizes = [
        (r.attributes["http.request.body.size"], r.attributes["http.response.body.size"])
        for r in logged("http.server.request.completed")
    ]
    assert sizes == [(8, 7), (7, 7)]


LENGTH = [(b"content-length", b"17")]


@pytest.mark.parametrize(
    ("method", "status", "headers", "messages", "size"),
    [
        ("GET", 200, [], [{"type": "http.response.pathsend", "path": "/x"}], None),
        ("GET", 200, LENGTH, [{"type": "http.response.pathsend", "path": "/x"}], 17),
        ("GET", 200, [], [{"type": "http.response.zerocopysend", "file": 3, "count": 9}], 9),
        ("GET", 200, [], [{"type": "http.response.zerocopysend", "file": 3}], None),
        ("HEAD", 200, LENGTH, [{"type": "http.response.body", "body": b"abc"}], None),
        ("GET", 304, [], [{"type": "http.response.body", "body": b"abc"}], None),
        ("GET", 200, [], [{"type": "http.response.body", "body": b"abc"}], 3),
    ],
)
def test_a_size_is_logged_only_for_bodies_that_the_client_gets(
    logged, method, status, headers, messages, size
):
    start = {"type": "http.response.start", "status": status, "headers": headers}
    app = FapilogMiddleware(app_that_sends([start, *messages], reads=0))
    asyncio.run(Server(http_scope(method=method), []).play(app))
    record = logged.completed()
    assert record.severity_text == "INFO"
    assert "request.outcome" not in record.attributes
    assert record.attributes.get("http.response.body.size") == size


def test_a_path_without_a_route_has_no_route(logged):
    TestClient(shop()).get("/nowhere")
    record = logged.completed()
    assert "http.route" not in record.attributes
    assert record.body == "GET /nowhere 404"


def test_a_mounted_application_with_its_own_middleware_makes_no_second_record(logged):
    app, admin, plain = shop(), FastAPI(), Starlette(routes=[Route("/x", PlainTextResponse("x"))])
    install(admin)
    admin.add_middleware(FapilogMiddleware)

    @admin.get("/users/{name}")
    async def user(name: str):
        return name

    app.mount("/tenants/{tenant}/admin", admin)
    app.mount("/plain", plain)
    http = TestClient(app)
    http.get("/tenants/acme/admin/users/ada")
    http.get("/plain/x")
    assert [r.body for r in logged("http.server.request.completed")] == [
        "GET /tenants/{tenant}/admin/users/{name} 200",
        "GET /plain/x 200",
    ]


class Copying:
    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        await self.app(dict(scope), receive, send)


@pytest.mark.parametrize("is_mounted", [False, True])
def test_the_route_is_known_if_middleware_copies_the_scope(logged, is_mounted):
    app = inner = shop()
    if is_mounted:
        app = FastAPI()
        app.mount("/areas/{area}", inner)
        install(app)
    app.add_middleware(Copying)
    prefix, template = ("/areas/7", "/areas/{area}") if is_mounted else ("", "")
    TestClient(app).get(f"{prefix}/orders/7")
    assert logged.completed().attributes["http.route"] == f"{template}/orders/{{number}}"


def test_an_included_router_has_its_prefix_in_the_route(logged):
    app = shop()
    inner, outer = APIRouter(prefix="/items"), APIRouter()

    @inner.get("/{item}")
    async def read(item: str):
        return item

    outer.include_router(inner, prefix="/v1")
    app.include_router(outer, prefix="/api")
    app.include_router(inner, prefix="/again")
    http = TestClient(app)
    http.get("/api/v1/items/a")
    http.get("/again/items/a")
    assert [r.attributes["http.route"] for r in logged()] == [
        "/api/v1/items/{item}",
        "/again/items/{item}",
    ]


def test_starlette_gets_the_same(logged):
    async def page(request):
        return PlainTextResponse("page")

    routes = [
        Route("/pages/{name}", page, methods=["GET"]),
        Route("/pages", page, methods=["POST"]),
        Mount("/deep/{area}", routes=[Route("/pages/{name}", page, methods=["GET"])]),
    ]
    app = Starlette(routes=routes)
    install(app)
    http = TestClient(app)
    for path in ("/pages/a", "/deep/x/pages/b"):
        assert http.get(path).status_code == 200
    http.post("/pages")
    assert logged.bodies() == [
        "GET /pages/{name} 200",
        "GET /deep/{area}/pages/{name} 200",
        "POST /pages 200",
    ]


def test_any_asgi_application_can_be_wrapped(logged):
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"x"})

    TestClient(FapilogMiddleware(app)).get("/raw")
    assert logged.completed().body == "GET /raw 200"


def test_a_streamed_response_ends_with_its_last_piece(logged):
    app = shop()

    @app.get("/stream")
    async def stream():
        async def pieces():
            for number in range(3):
                fapilog.get_logger("shop").info("piece", number=number)
                yield b"12345"

        return StreamingResponse(pieces())

    TestClient(app).get("/stream")
    assert logged.bodies() == ["piece", "piece", "piece", "GET /stream 200"]
    assert logged.completed().attributes["http.response.body.size"] == 15


def test_background_tasks_come_after_the_record_and_keep_the_fields(logged):
    app = shop()

    @app.get("/work")
    async def work(tasks: BackgroundTasks):
        fapilog_fastapi.bind(order=7)
        tasks.add_task(lambda: fapilog.get_logger("shop").info("in the thread pool"))

        async def later():
            fapilog.get_logger("shop").info("later")

        tasks.add_task(later)

    TestClient(app).get("/work", headers={"x-request-id": "r-1"})
    assert logged.bodies() == ["GET /work 200", "in the thread pool", "later"]
    assert {r.attributes["request.id"] for r in logged()} == {"r-1"}
    assert {r.attributes["order"] for r in logged()} == {7}


async def nothing(message=None) -> Any:
    """Receive nothing and ignore every message, as a server's ``receive`` and ``send``."""


def test_an_application_that_never_answers_is_not_a_success(logged):
    async def app(scope, receive, send):
        return

    wrapped = FapilogMiddleware(app)
    scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
    asyncio.run(wrapped(scope, nothing, nothing))
    record = logged.completed()
    assert record.severity_text == "WARN"
    assert record.attributes["request.outcome"] == "incomplete"
    assert "http.response.status_code" not in record.attributes


def test_a_cancelled_request_is_recorded_and_stays_cancelled(logged):
    started = asyncio.Event()

    async def app(scope, receive, send):
        started.set()
        await asyncio.Event().wait()

    async def main():
        scope = {"type": "http", "method": "GET", "path": "/slow", "headers": []}
        task = asyncio.create_task(FapilogMiddleware(app)(scope, nothing, nothing))
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    record = logged.completed()
    assert (record.severity_text, record.body) == ("WARN", "GET /slow cancelled")
    assert record.attributes["error.type"] == "asyncio.exceptions.CancelledError"
    assert "exception.stacktrace" not in record.attributes


def test_other_protocols_pass_by(logged):
    seen = []

    async def app(scope, receive, send):
        seen.append(scope)

    asyncio.run(FapilogMiddleware(app)({"type": "lifespan"}, nothing, nothing))
    assert seen == [{"type": "lifespan"}]
    assert logged() == []


def test_fields_bound_in_dependencies_and_handlers_are_on_the_record(logged):
    app = shop()

    async def asynchronous():
        fapilog_fastapi.bind(tenant="acme")

    def synchronous():
        fapilog_fastapi.bind(plan="gold")

    @app.get("/bound", dependencies=[Depends(asynchronous), Depends(synchronous)])
    def bound(log: Log):
        log.bind(user="ada").info("in the handler")
        with fapilog.bind(cart=[1, 2]):
            fapilog.get_logger("shop").info("in a block")

    TestClient(app).get("/bound")
    handler, block, completion = logged()
    assert handler.attributes["user"] == "ada"
    assert handler.attributes["tenant"] == "acme"
    assert handler.attributes["http.route"] == "/bound"
    assert block.attributes["cart"] == [1, 2]
    found = {name: completion.attributes[name] for name in ("tenant", "plan", "user", "cart")}
    assert found == {"tenant": "acme", "plan": "gold", "user": "ada", "cart": [1, 2]}


@pytest.mark.parametrize("how", ["bind", "logger", "block", "context"])
def test_a_field_may_have_any_name(logged, how):
    fields = {"event_name": "signup", "exc_info": True, "severity": 1, "message": "m", "self": "s",
              "extra": {"a": 1}, "stack_info": True, "stacklevel": 2}  # fmt: skip
    app = FastAPI()
    install(app, context=(lambda request: fields) if how == "context" else None)

    @app.get("/")
    async def page(log: Log):
        if how == "bind":
            fapilog_fastapi.bind(**fields)
        elif how == "logger":
            log.bind(**fields)
        elif how == "block":
            with fapilog.bind(**fields):
                pass

    TestClient(app).get("/")
    (record,) = logged()
    assert record.event_name == "http.server.request.completed"
    assert record.attributes["event_name"] == "signup"
    assert record.attributes["self"] == "s"
    assert record.attributes["extra"] == {"a": 1}
    assert record.attributes["stack_info"] is True
    assert record.attributes["stacklevel"] == 2
    assert "code.stacktrace" not in record.attributes
    assert "exception.type" not in record.attributes


def test_nothing_that_was_bound_is_left_after_a_request(logged, client):
    app = shop()

    @app.get("/bound")
    async def bound():
        fapilog_fastapi.bind(tenant="acme")

    @app.get("/boom")
    async def boom():
        fapilog_fastapi.bind(tenant="acme")
        raise ValueError

    async def main():
        async with client(app) as http:
            await http.get("/bound")
            await http.get("/boom")
        fapilog.get_logger("outside").info("outside")
        fapilog_fastapi.bind(nothing="happens")
        fapilog.get_logger("outside").info("outside")

    asyncio.run(main())
    assert [r.attributes for r in logged() if r.body == "outside"] == [{}, {}]


def test_a_thousand_bound_names_do_not_grow_the_record_without_end(logged):
    app = shop()

    @app.get("/many")
    async def many():
        for number in range(1000):
            fapilog_fastapi.bind(**{f"field{number}": number})

    TestClient(app).get("/many")
    assert len(logged.completed().attributes) < 200


def test_httpexception_counts_by_its_status(logged):
    app = shop()

    @app.get("/teapot")
    async def teapot():
        raise HTTPException(418)

    @app.get("/gateway")
    async def gateway():
        try:
            raise ConnectionError("payments are down")
        except ConnectionError as error:
            raise HTTPException(502) from error

    http = TestClient(app)
    http.get("/teapot")
    http.get("/gateway")
    teapot_record, gateway_record = logged()
    assert teapot_record.severity_text == "WARN"
    assert "error.type" not in teapot_record.attributes
    assert gateway_record.attributes["error.type"] == "502"
    assert "payments are down" in gateway_record.attributes["exception.stacktrace"]


def test_a_context_that_outlives_its_request_keeps_neither_its_scope_nor_its_exchange(logged):
    """Event loops keep the contexts of cancelled timers, a hundred of them and more."""

    class Request:
        pass

    kept = []

    async def app(scope, receive, send):
        kept.append(contextvars.copy_context())
        await app_that_sends(response_messages(b"{}"))(scope, receive, send)

    request = Request()
    scope = http_scope(request=request)
    asyncio.run(Server(scope, body_messages(b"")).play(FapilogMiddleware(app)))
    reference = weakref.ref(request)
    del request, scope
    assert logged.completed()
    gc.collect()
    assert kept
    assert reference() is None
