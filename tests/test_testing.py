from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import socket
import subprocess
import sys
import threading
import uuid
import warnings
from collections.abc import AsyncIterator
from typing import Any

import fapilog_fastapi
import httpx
import pytest
from fastapi import BackgroundTasks, FastAPI
from opentelemetry.sdk.trace import TracerProvider

import fapilog
from fapilog import diagnostics, testing
from fapilog.engine import holding
from fapilog.errors import ConfigurationError
from fapilog.runtime import default
from fapilog.sinks import MemorySink
from fapilog.testing import CapturedLogs, capture_logs

pytest_plugins = ["pytester"]


# ---- the fixture


def test_the_fixture_sees_what_was_logged(logs: CapturedLogs):
    fapilog.get_logger("shop").info("order placed", order_id=42)
    record = logs.one("order placed", severity="INFO", logger="shop", order_id=42)
    assert record.severity_text == "INFO"
    assert logs.bodies == ["order placed"]
    assert len(logs) == 1
    assert list(logs) == logs.records
    logs.clear()
    assert logs.records == []
    assert logs


def test_records_are_as_a_sink_gets_them_redacted_and_with_ids(logs: CapturedLogs):
    with TracerProvider().get_tracer("t").start_as_current_span("span") as span:
        fapilog.get_logger("shop").info("login", password="hunter2", url="http://u:pw@h/")
    record = logs.one("login")
    assert "hunter2" not in repr(record)
    assert "pw@" not in repr(record)
    trace_id = format(span.get_span_context().trace_id, "032x")
    assert logs.find(trace_id=trace_id, span_id=str) == [record]


def client_of(app: FastAPI) -> Any:
    """Return Starlette's TestClient, whose newest version warns when it is imported."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from starlette.testclient import TestClient

        return TestClient(app)


def app_of(events: list[str]) -> FastAPI:
    """An application that calls configure() and shutdown() itself."""
    log = fapilog.get_logger("app")

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        fapilog.configure(sinks="otlp:http://127.0.0.1:9,console", level="debug")
        log.info("up")
        yield
        log.info("down")
        fapilog.shutdown()
        events.append("shut down")

    app = FastAPI(lifespan=lifespan)

    def background() -> None:
        log.info("background")

    @app.get("/async")
    async def in_loop(tasks: BackgroundTasks) -> None:
        tasks.add_task(background)
        log.debug("handler")
        await asyncio.to_thread(log.info, "thread")

    @app.get("/sync")
    def in_thread() -> None:
        log.warning("sync handler")

    return app


def test_an_application_that_configures_and_shuts_down_in_its_lifespan_is_captured(
    logs: CapturedLogs, capsys: pytest.CaptureFixture[str]
):
    events: list[str] = []
    with client_of(app_of(events)) as client:
        client.get("/async")
        assert logs.one("background")
        client.get("/sync")
    assert logs.bodies == ["up", "handler", "thread", "background", "sync handler", "down"]
    assert events == ["shut down"]
    with client_of(app_of(events)):
        pass
    assert logs.bodies[-2:] == ["up", "down"]
    assert capsys.readouterr() == ("", "")


def test_the_completion_record_of_a_request_is_shown_with_its_body(logs: CapturedLogs):
    app = FastAPI()
    fapilog_fastapi.install(app)
    client_of(app).get("/nowhere")
    assert "event http.server.request.completed 'GET /nowhere 404'" in str(logs)


def test_an_asynchronous_client_in_a_coroutine_is_captured_without_sleeping(logs: CapturedLogs):
    async def main() -> None:
        app = app_of([])
        async with app.router.lifespan_context(app):
            transport = httpx.ASGITransport(app=app)
            async with httpx.AsyncClient(transport=transport, base_url="http://t") as client:
                await client.get("/async")
            logs.one("thread")
            task = asyncio.create_task(fapilog.get_async_logger("app").info("task"))
            await task
            logs.one("task")

    asyncio.run(main())


def test_several_threads_are_captured(logs: CapturedLogs):
    def work(n: int) -> None:
        for k in range(50):
            fapilog.get_logger("t").info("x", n=n, k=k)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for n in range(4):
        assert [r.attributes["k"] for r in logs.find("x", n=n)] == list(range(50))


# ---- finding records


@pytest.fixture
def three(logs: CapturedLogs) -> CapturedLogs:
    log = fapilog.get_logger("shop.cart")
    log.info("order placed", order_id=42, tags=("a", "b"), id=uuid.UUID(int=7))
    log.log("error2", "order failed", order_id=43)
    log.event("order.shipped", **{"http.route": "/orders"})
    return logs


@pytest.mark.parametrize(
    ("body", "patterns", "found"),
    [
        (..., {}, 3),
        ("order placed", {}, 1),
        ("order", {}, 0),
        (re.compile("^order"), {}, 2),
        (None, {}, 1),
        (lambda body: body is not None and "failed" in body, {}, 1),
        (str, {}, 2),
        (..., {"order_id": 42}, 1),
        (..., {"order_id": ...}, 2),
        (..., {"order_id": int}, 2),
        (..., {"order_id": lambda n: n > 42}, 1),
        (..., {"order_id": pytest.approx(42.0)}, 1),
        (..., {"order_id": re.compile("42")}, 0),
        (..., {"nothing": None}, 0),
        (..., {"tags": ("a", "b")}, 1),
        (..., {"id": uuid.UUID(int=7)}, 1),
        (..., {"logger": re.compile(r"^shop\.")}, 3),
        (..., {"logger": "shop"}, 0),
        (..., {"event_name": "order.shipped"}, 1),
        (..., {"http.route": "/orders"}, 1),
        (..., {"severity": "INFO"}, 2),
        (..., {"severity": "error"}, 1),
        (..., {"severity": "error2"}, 1),
        (..., {"severity": fapilog.Severity.ERROR2}, 1),
        (..., {"severity": logging.ERROR}, 0),
    ],
)
def test_patterns_find_what_they_should(three, body, patterns, found):
    assert len(three.find(body, **patterns)) == found


def test_a_severity_finds_its_whole_range(three: CapturedLogs):
    assert [r.body for r in three.at("ERROR")] == ["order failed"]
    assert [r.body for r in three.at("info")] == ["order placed", None]
    with pytest.raises(ValueError, match="loud"):
        three.at("loud")


def test_a_miss_lists_what_was_logged(three: CapturedLogs):
    with pytest.raises(AssertionError) as miss:
        three.one("order lost", order_id=42)
    told = str(miss.value)
    assert told.startswith(
        "0 records match 'order lost', order_id=42 instead of one\n"
        "the level is INFO, so lower severities are disabled; "
        'fapilog.set_level("debug") changes that\n'
        "3 records were logged, the level is INFO:\n"
    )
    assert "INFO     shop.cart: 'order placed' order_id=42" in told
    assert "ERROR2   shop.cart: 'order failed'" in told
    assert "event order.shipped http.route='/orders'" in told
    with pytest.raises(AssertionError, match="2 records match order_id=Ellipsis instead of one"):
        three.one(order_id=...)
    with pytest.raises(AssertionError, match=r"3 records match \.\.\.\n"):
        three.none()
    three.none("order lost")
    assert repr(three) == "<CapturedLogs of 3 records>"


@pytest.mark.parametrize(
    ("patterns", "told"),
    [
        (
            {"severity": "debug"},
            'the level is INFO, so DEBUG is disabled; fapilog.set_level("debug") changes that\n',
        ),
        (
            {"severity": "trace2", "logger": "other"},
            (
                "the level of 'other' is INFO, so TRACE2 is disabled; "
                'fapilog.set_level("trace2", "other") changes that\n'
            ),
        ),
        (
            {"severity": "warning", "logger": "shop.cart"},
            (
                "the level of 'shop.cart' is ERROR, so WARN is disabled; "
                'fapilog.set_level("warn", "shop.cart") changes that\n'
            ),
        ),
        (
            {"logger": "quiet"},
            (
                "the level of 'quiet' is OFF, so lower severities are disabled; "
                'fapilog.set_level("debug", "quiet") changes that\n'
            ),
        ),
        ({"logger": "loud"}, ""),
        ({"severity": "error"}, ""),
        ({"severity": "info", "logger": re.compile("o")}, ""),
    ],
)
def test_a_miss_names_the_level_that_disables_the_expected_record(patterns, told):
    with capture_logs() as logs:
        for name, level in (("shop", "error"), ("quiet", "off"), ("loud", "trace")):
            fapilog.set_level(level, name)
    fapilog.set_level("trace")  # after the capture
    with pytest.raises(AssertionError) as miss:
        logs.one("x", **patterns)
    assert str(miss.value).partition(" instead of one\n")[2] == (
        told + "0 records were logged, the level is INFO:"
    )


def test_too_many_records_have_nothing_to_do_with_the_level(logs: CapturedLogs):
    for _ in range(2):
        fapilog.get_logger("t").info("x")
    with pytest.raises(AssertionError) as miss:
        logs.one("x")
    assert "disabled" not in str(miss.value)


def test_a_long_listing_is_cut(logs: CapturedLogs):
    for n in range(150):
        fapilog.get_logger("t").info("x" * 1000, n=n)
    lines = str(logs).splitlines()
    assert lines[0] == "150 records were logged, the level is INFO:"
    assert len(lines) == 101
    assert max(map(len, lines)) == 300


def test_a_processor_that_hangs_is_told(monkeypatch: pytest.MonkeyPatch):
    go = threading.Event()

    def hang(record: fapilog.LogRecord) -> fapilog.LogRecord:
        assert go.wait(20)
        return record

    with capture_logs() as logs:
        fapilog.configure(processors=[hang], otel_provider=False)
        fapilog.get_logger("t").info("x")
        monkeypatch.setattr(testing, "TIMEOUT", 0.01)
        with pytest.raises(TimeoutError, match="does a processor hang"):
            assert logs.records
        monkeypatch.undo()
        go.set()
        assert logs.bodies == ["x"]


# ---- replaced and restored objects


def test_what_is_configured_is_set_aside_and_back_afterwards_with_its_levels():
    sink = MemorySink()

    def mark(record: fapilog.LogRecord) -> fapilog.LogRecord:
        record.attributes["marked"] = True
        return record

    before = fapilog.configure(
        sinks=[sink], processors=[mark], level="warn", otel_provider=False, resource={"team": "a"}
    )
    fapilog.set_level("debug", "app")
    log = fapilog.get_logger("app.db")
    log.debug("before")
    with capture_logs() as logs:
        assert fapilog.get_logger("other").is_enabled("warn")
        assert not fapilog.get_logger("other").is_enabled("info")
        log.warning("within")
        assert logs.one(marked=True).resource.attributes["team"] == "a"
        fapilog.configure(level="trace", otel_provider=False)
        log.trace("configured anew")
        fapilog.set_level("off")
    log.debug("after")
    log.trace("disabled")
    assert default.get_runtime() is before
    fapilog.flush(10)
    assert [record.body for record in sink.records] == ["before", "after"]
    assert logs.bodies == ["within", "configured anew"]
    # The level is not named, because that would reset the level of `app`.
    assert fapilog.configure(
        sinks=[sink], processors=[mark], otel_provider=False, resource={"team": "a"}
    ) is before  # fmt: skip


def test_where_nothing_was_configured_nothing_is_afterwards(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FAPILOG_LEVEL", "error")
    with capture_logs() as logs:
        fapilog.get_logger("t").warning("x")
        fapilog.get_logger("t").error("y")
    assert logs.bodies == ["y"]
    assert default.get_runtime() is None
    assert fapilog.stats().accepted == 0
    with capture_logs("debug") as logs:
        fapilog.get_logger("t").debug("x")
    assert logs.bodies == ["x"]


def test_what_was_shut_down_stays_so(capsys: pytest.CaptureFixture[str]):
    sink = MemorySink()
    fapilog.configure(sinks=[sink], otel_provider=False)
    fapilog.shutdown()
    with capture_logs() as logs:
        fapilog.get_logger("t").info("x")
    fapilog.get_logger("t").info("late")
    assert logs.bodies == ["x"]
    assert fapilog.stats().drops == {"closed": {"INFO": 1}}
    diagnostics.reset()


def test_installations_at_loggers_of_logging_are_as_they_were():
    fapilog.configure(sinks="none", otel_provider=False)
    kept, added = logging.getLogger("kept"), logging.getLogger("added")
    fapilog.install_stdlib("info", "kept")
    handlers = list(kept.handlers)
    with capture_logs() as logs:
        fapilog.install_stdlib("debug", "added")
        kept.info("through")
        added.info("through, too")
        assert logs.bodies == ["through", "through, too"]
        fapilog.shutdown()  # removes both
        assert kept.handlers == []
        fapilog.install_stdlib("debug", "added")
    assert added.handlers == []
    assert [type(handler) for handler in kept.handlers] == [type(h) for h in handlers]
    assert kept.level == logging.INFO
    fapilog.uninstall_stdlib()


def test_hooks_are_as_they_were(monkeypatch):
    monkeypatch.setattr(warnings, "showwarning", lambda *given: None)
    fapilog.configure(sinks="none", otel_provider=False)
    untouched = warnings.showwarning, sys.excepthook, threading.excepthook
    with capture_logs() as logs:
        fapilog.install_hooks(threads=False)
        warnings.showwarning(UserWarning("seen"), UserWarning, __file__, 1)
        assert logs.one(re.compile("seen"))
    assert (warnings.showwarning, sys.excepthook, threading.excepthook) == untouched
    fapilog.install_hooks(warnings=False)
    with capture_logs():
        fapilog.shutdown()  # removes them
        assert (sys.excepthook, threading.excepthook) == untouched[1:]
    assert sys.excepthook is not untouched[1]
    assert threading.excepthook is not untouched[2]
    assert warnings.showwarning is untouched[0]
    fapilog.uninstall_hooks()


def test_a_hold_of_the_application_lowers_thresholds_only_for_the_test():
    before = fapilog.configure(sinks="none", otel_provider=False)
    with capture_logs() as logs:
        with fapilog.hold() as held:
            fapilog.get_logger("t").debug("x")
            held.release()
        logs.one("x", severity="DEBUG")
    assert holding.floor == 25
    assert before.lowest_severity() == 9


def test_the_sinks_of_every_runtime_made_meanwhile_are_replaced():
    sink = MemorySink()
    with capture_logs() as logs:
        with fapilog.Runtime(sinks=[sink], otel_provider=False) as runtime:
            runtime.get_logger("t").info("x")
            logs.one("x")
        late = fapilog.Runtime(sinks=[sink], otel_provider=False)
    late.get_logger("t").info("late")
    late.shutdown()
    assert sink.records == []
    assert logs.bodies == ["x"]


def test_captures_may_be_nested_and_the_inner_one_has_its_records_to_itself(logs: CapturedLogs):
    log = fapilog.get_logger("t")
    log.info("outer")
    with capture_logs() as inner:
        log.info("inner")
    log.info("outer again")
    assert inner.bodies == ["inner"]
    assert logs.bodies == ["outer", "outer again"]


def test_nothing_is_connected_to_or_written(logs: CapturedLogs, tmp_path: Any, capsys: Any):
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0)
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        file = tmp_path / "x.jsonl"
        fapilog.configure(
            sinks=f"otlp:{url},loki:{url},file:{file},console",
            spool={"directory": tmp_path / "spool"},
            otel_provider=False,
        )
        fapilog.get_logger("t").error("x")
        assert logs.bodies == ["x"]
        fapilog.shutdown()
        with pytest.raises(BlockingIOError):
            server.accept()
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr() == ("", "")


def test_a_wrong_option_fails_and_leaves_everything_as_it_was():
    before = fapilog.configure(sinks="none", otel_provider=False)
    with pytest.raises(ConfigurationError, match="level"), capture_logs("loud"):
        pass
    assert default.get_runtime() is before
    sink = MemorySink()
    with fapilog.Runtime(sinks=[sink], otel_provider=False) as runtime:
        runtime.get_logger("t").info("x")
    assert [record.body for record in sink.records] == ["x"]


# ---- the plugin


def test_the_plugin_loads_nothing_of_fapilog():
    script = (
        "import sys, pytest_fapilog; "
        "assert not [name for name in sys.modules if name.split('.')[0] == 'fapilog']"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_the_plugin_works_with_anyio_and_shows_the_records_of_a_failing_test(
    pytester: pytest.Pytester,
):
    pytester.makepyfile(
        """
        import anyio, pytest, fapilog

        @pytest.fixture
        def anyio_backend():
            return "asyncio"

        @pytest.mark.anyio
        async def test_coroutine(logs):
            async with anyio.create_task_group() as group:
                group.start_soon(fapilog.get_async_logger("shop").info, "in a task")
            await anyio.to_thread.run_sync(fapilog.get_logger("shop").info, "in a thread")
            assert logs.bodies == ["in a task", "in a thread"]

        def test_failing(logs):
            fapilog.get_logger("shop").warning("stock low", sku="A-1")
            fapilog.get_logger("shop").event("order.sent", id=7)
            assert logs.find("order placed")

        def test_miss(logs):
            logs.one("order placed")

        def test_without():
            assert False
        """
    )
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-p", "no:xdist")
    result.assert_outcomes(passed=1, failed=3)
    text = result.stdout.str()
    assert text.count("Captured fapilog records") == 2
    assert "  WARN     shop: 'stock low' sku='A-1'" in text
    assert "  INFO     shop: event order.sent id=7" in text
    assert "0 records were logged" in text


def test_a_fixture_of_that_name_of_the_users_own_is_left_alone(pytester: pytest.Pytester):
    pytester.makepyfile(
        """
        import sys, pytest

        @pytest.fixture
        def logs():
            return []

        def test_mine(logs):
            assert "fapilog" not in sys.modules
            assert logs
        """
    )
    result = pytester.runpytest_subprocess("-p", "no:anyio", "-p", "no:xdist")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*assert logs*"])
    result.stdout.no_fnmatch_line("*Captured fapilog*")


def test_a_failing_assertion_shows_the_line_of_the_test_and_no_line_of_fapilog(
    pytester: pytest.Pytester,
):
    pytester.makepyfile(
        """
        import fapilog

        def test_one(logs):
            fapilog.get_logger("shop").debug("stock low")
            logs.one("stock low")

        def test_none(logs):
            fapilog.get_logger("shop").info("stock low")
            logs.none("stock low")

        def test_severity(logs):
            logs.at("loud")
        """
    )
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-p", "no:xdist")
    result.assert_outcomes(failed=3)
    text = result.stdout.str()
    assert "testing.py" not in text
    for line in ('logs.one("stock low")', 'logs.none("stock low")', 'logs.at("loud")'):
        assert f">       {line}" in text
    assert 'so lower severities are disabled; fapilog.set_level("debug") changes that' in text


# ---- caplog

CAPLOG_TESTS = """
    import logging, fapilog, pytest

    log = fapilog.get_logger("shop")

    def test_native(caplog):
        log.warning("order placed", order_id=42, password="hunter2")
        logging.getLogger("other").warning("by logging")
        fapilog.get_logger().error("last")
        assert caplog.messages == ["order placed", "by logging", "last"]
        assert caplog.record_tuples[0] == ("shop", logging.WARNING, "order placed")
        assert caplog.records[0].order_id == 42
        assert caplog.records[0].password == "[REDACTED]"
        assert caplog.records[2].name == "root"
        assert "WARNING  shop:fapilog:0 order placed" in caplog.text
        caplog.clear()
        log.info("after")
        assert caplog.messages == ["after"]

    def test_levels(caplog):
        log.debug("disabled")
        fapilog.set_level("debug")
        log.debug("enabled")
        with caplog.at_level(logging.ERROR):
            log.warning("too low")
            log.error("high enough")
        log.info("at the end")
        assert caplog.messages == ["enabled", "high enough", "at the end"]

    def test_once(caplog, logs):
        fapilog.install_stdlib()
        logging.getLogger("other").warning("by %s", "logging")
        log.event("order.sent", id=7)
        try:
            1 / 0
        except ZeroDivisionError:
            log.exception("failed", code=5)
        assert caplog.messages == ["by logging", "order.sent", "failed"]
        assert logs.bodies == ["by logging", None, "failed"]
        assert "ZeroDivisionError: division by zero" in caplog.text

    def test_report(caplog):
        log.info("shown in the report")
        assert False
"""


def test_caplog_shows_the_records_of_fapilog_if_the_option_is_set(pytester: pytest.Pytester):
    pytester.makepyfile(CAPLOG_TESTS)
    pytester.makeini("[pytest]\nfapilog_caplog = true\n")
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-p", "no:xdist")
    result.assert_outcomes(passed=3, failed=1)
    result.stdout.fnmatch_lines(["*Captured log call*", "*INFO     shop:fapilog:0 shown in the*"])


def test_caplog_is_the_one_of_pytest_if_the_option_is_not_set(pytester: pytest.Pytester):
    pytester.makepyfile(
        """
        import sys

        def test_plain(caplog):
            assert caplog.records == []
            assert "fapilog" not in sys.modules
        """
    )
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-p", "no:xdist")
    result.assert_outcomes(passed=1)


# ---- CliRunner


@pytest.mark.parametrize("where", ["import", "command"])
def test_a_cli_runner_keeps_the_lines_of_each_invocation(pytester: pytest.Pytester, where: str):
    pytester.makepyfile(
        f"""
        import click, click.testing, fapilog, pytest, typer, typer.testing

        def work(name):
            if "{where}" == "command":
                fapilog.configure(sinks="console", otel_provider=False)
            fapilog.get_logger("cli").info(f"logged {{name}}")
            click.echo(f"printed {{name}}")

        if "{where}" == "import":
            fapilog.configure(sinks="console", otel_provider=False)
        typed = typer.Typer()
        typed.command()(lambda name: work(name))

        @pytest.mark.parametrize(
            ("runner", "app"),
            [
                (click.testing.CliRunner(), click.command()(click.argument("name")(work))),
                (typer.testing.CliRunner(), typed),
            ],
        )
        def test_lines(runner, app):
            for name in ("one", "two", "three"):
                result = runner.invoke(app, [name])
                assert result.exit_code == 0, result.output
                lines = result.output.splitlines()
                assert len(lines) == 2, result.output
                assert sum(f"logged {{name}}" in line for line in lines) == 1
        """
    )
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-p", "no:xdist")
    result.assert_outcomes(passed=2)
    assert "logged" not in result.stdout.str()
