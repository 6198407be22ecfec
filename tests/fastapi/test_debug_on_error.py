"""Debug on error: debug records of failed requests only."""

from __future__ import annotations

import asyncio
import logging

import pytest
from fapilog_fastapi import DebugOnError, install
from fastapi import BackgroundTasks, FastAPI, HTTPException
from fastapi.responses import JSONResponse

import fapilog
from tests.support.serving import TestClient

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def shop(**options):
    app = FastAPI()
    install(app, **{"debug_on_error": True, **options})
    log = fapilog.get_logger("shop")

    @app.get("/status/{code}")
    async def status(code: int):
        log.debug("first", code=code)
        await asyncio.sleep(0)
        log.info("second", code=code)
        await asyncio.to_thread(log.debug, "third", code=code)
        logging.getLogger("library").debug("fourth")
        if code == 500:
            raise ValueError
        if code == 503:
            raise HTTPException(503)
        return JSONResponse({}, status_code=code)

    @app.get("/work")
    async def work(tasks: BackgroundTasks):
        log.debug("handler")

        def fail():
            log.debug("task")
            raise ValueError

        tasks.add_task(fail)

    return app


def debugs(logged):
    return [r.body for r in logged() if r.severity_text == "DEBUG"]


@pytest.mark.parametrize("code", [500, 503])
def test_a_request_that_fails_has_its_debug_records_in_order(logged, code):
    fapilog.install_stdlib(logger="library")
    http = TestClient(shop(), raise_server_exceptions=False)
    http.get(f"/status/{code}", headers={"x-request-id": "r-1"})
    ordered = sorted(logged(), key=lambda record: record.timestamp)
    assert [r.body for r in ordered] == [
        *("first", "second", "third", "fourth"),
        f"GET /status/{{code}} {code}",
    ]
    assert {r.attributes["request.id"] for r in ordered} == {"r-1"}


def test_debug_records_of_a_successful_request_are_dropped_and_counted(logged):
    TestClient(shop()).get("/status/200")
    assert debugs(logged) == []
    assert fapilog.stats().drops == {"not_released": {"DEBUG": 2}}


def test_only_the_request_that_fails_has_them(logged, client):
    async def main():
        async with client(shop()) as http:
            codes = [200, 404, 500] * 5
            await asyncio.gather(*(http.get(f"/status/{code}") for code in codes))

    asyncio.run(main())
    found = {r.attributes["code"] for r in logged() if r.severity_text == "DEBUG"}
    assert found == {500}
    assert len(debugs(logged)) == 10


def test_slow_requests_count_as_failed(logged):
    TestClient(shop(slow=1e-9)).get("/status/200")
    assert debugs(logged) == ["first", "third"]


def test_from_which_status_on_a_request_failed_can_be_chosen(logged):
    TestClient(shop(debug_on_error=DebugOnError(status=404))).get("/status/404")
    assert debugs(logged) == ["first", "third"]


def test_a_background_task_that_fails_has_them_too(logged):
    TestClient(shop(), raise_server_exceptions=False).get("/work")
    assert debugs(logged) == ["handler", "task"]


@pytest.mark.parametrize(("flags", "expected"), [("01", ["first", "third"]), ("00", [])])
def test_a_sampled_trace_can_keep_them(logged, flags, expected):
    http = TestClient(shop(debug_on_error=DebugOnError(sampled=True)))
    http.get("/status/200", headers={"traceparent": f"00-{TRACE}-00f067aa0ba902b7-{flags}"})
    assert debugs(logged) == expected


def test_waiting_debug_records_are_bounded(logged):
    http = TestClient(shop(debug_on_error=DebugOnError(records=1)), raise_server_exceptions=False)
    http.get("/status/500")
    assert debugs(logged) == ["third"]


def test_without_it_nothing_is_held(logged):
    TestClient(shop(debug_on_error=False), raise_server_exceptions=False).get("/status/500")
    assert debugs(logged) == []
