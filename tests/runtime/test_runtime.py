from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from typing import Any

import pytest
from opentelemetry.sdk.resources import Resource as SDKResource

import fapilog
from fapilog import ConfigurationError, Runtime, Settings
from fapilog.record import Resource
from fapilog.sinks import MemorySink
from tests.support.sinks import ScriptedSink


def bodies(sink):
    return [record.body for record in sink.records]


def test_configure_twice_is_the_same_as_once():
    sink = MemorySink()
    first = fapilog.configure(sinks=[sink], level="debug", resource={"service.name": "shop"})
    fapilog.get_logger("t").info("x")
    again = fapilog.configure(sinks=[sink], level="debug", resource={"service.name": "shop"})
    assert again is first
    fapilog.flush(5)
    assert bodies(sink) == ["x"]
    assert fapilog.stats().delivered == 1


def test_loggers_taken_before_configure_follow_every_change():
    log = fapilog.get_logger("early")
    one, two = MemorySink(name="one"), MemorySink(name="two")
    fapilog.configure(sinks=[one])
    log.info("to one")
    fapilog.configure(sinks=[two])
    log.info("to two")
    fapilog.flush(5)
    assert (bodies(one), bodies(two)) == (["to one"], ["to two"])


def test_a_sink_kept_across_a_change_is_closed_and_opened_again():
    sink = ScriptedSink()
    fapilog.configure(sinks=[sink])
    fapilog.get_logger("t").info("first")
    fapilog.configure(sinks=[sink], level="debug")
    fapilog.get_logger("t").debug("second")
    fapilog.flush(5)
    assert bodies(sink) == ["first", "second"]
    assert (sink.opened, sink.closed) == (2, 1)


def test_a_wrong_option_changes_nothing():
    sink = MemorySink()
    runtime = fapilog.configure(sinks=[sink])
    with pytest.raises(ConfigurationError, match="level"):
        fapilog.configure(level="loud")
    with pytest.raises(ConfigurationError, match="'nowhere' is not known"):
        fapilog.configure(sinks="nowhere")
    fapilog.get_logger("t").info("still here")
    fapilog.flush(5)
    assert bodies(sink) == ["still here"]
    assert runtime.stats().delivered == 1


def test_shutdown_undoes_configure_and_configure_works_again():
    log = fapilog.get_logger("t")
    sink = MemorySink()
    fapilog.configure(sinks=[sink])
    log.info("one")
    fapilog.shutdown()
    assert fapilog.stats().delivered == 1
    assert not log.is_enabled("fatal")
    assert not fapilog.get_logger("new").is_enabled("fatal")
    log.info("lost")
    assert fapilog.stats().drops == {"closed": {"INFO": 1}}
    assert not [t for t in threading.enumerate() if t.name.startswith("fapilog-")]
    fapilog.configure(sinks=[sink])
    assert log.is_enabled("info")
    log.info("two")
    fapilog.flush(5)
    assert bodies(sink) == ["one", "two"]


def test_a_first_log_call_configures_from_the_environment(monkeypatch, capsys):
    monkeypatch.setenv("FAPILOG_SINKS", "console")
    fapilog.get_logger("t").info("hello")
    fapilog.flush(5)
    assert '"hello"' in capsys.readouterr().out


def test_a_wrong_environment_does_not_break_the_first_log_call(monkeypatch, capsys):
    monkeypatch.setenv("FAPILOG_SINKS", "nowhere")
    fapilog.get_logger("t").info("hello")
    fapilog.flush(5)
    captured = capsys.readouterr()
    assert '"hello"' in captured.out
    assert "'nowhere' is not known" in captured.err


def test_several_runtimes_live_side_by_side():
    ours, theirs = MemorySink(), MemorySink()
    with Runtime(sinks=[ours], level="debug") as a, Runtime(sinks=[theirs], level="error") as b:
        for runtime in (a, b):
            log = runtime.get_logger("same.name")
            log.debug("debug")
            log.error("error")
            runtime.flush(5)
    assert bodies(ours) == ["debug", "error"]
    assert bodies(theirs) == ["error"]


def test_settings_may_be_given_whole_with_options_on_top():
    settings = Settings(level="warn", queue_size=7)
    with Runtime(settings, sinks="memory", level="debug") as runtime:
        assert runtime.settings.level == 5
        assert runtime.settings.queue_size == 7
    with Runtime(settings, sinks="memory") as runtime:
        assert runtime.settings is settings


def test_the_resource_is_detected_and_can_be_added_to(monkeypatch):
    monkeypatch.setenv("OTEL_SERVICE_NAME", "shop")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=prod,team=a")
    with Runtime(sinks="none", resource={"team": "b", "password": "hunter2"}) as runtime:
        attributes = runtime.resource.attributes
    assert attributes["service.name"] == "shop"
    assert attributes["deployment.environment.name"] == "prod"
    assert attributes["team"] == "b"
    assert attributes["telemetry.sdk.language"] == "python"
    assert attributes["process.pid"] == os.getpid()
    assert attributes["host.name"]
    assert attributes["password"] == "[REDACTED]"
    assert "process.command_args" not in attributes


def test_the_name_of_the_service_is_an_option_of_every_source(tmp_path, monkeypatch):
    def name(**options: Any) -> object:
        with Runtime(sinks="none", **options) as runtime:
            return runtime.resource.attributes["service.name"]

    (tmp_path / "own.toml").write_text('service_name = "from a file"\n')
    monkeypatch.setenv("FAPILOG_CONFIG", str(tmp_path / "own.toml"))
    assert name() == "from a file"
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "a=b,service.name=from%20attributes")
    assert name() == "from attributes"
    monkeypatch.setenv("OTEL_SERVICE_NAME", "from OpenTelemetry")
    assert name() == "from OpenTelemetry"
    monkeypatch.setenv("FAPILOG_SERVICE_NAME", "from fapilog")
    assert name() == "from fapilog"
    assert name(service_name="from an argument") == "from an argument"
    assert name(service_name="x", resource={"service.name": "from the resource"}) == (
        "from the resource"
    )
    with pytest.raises(ConfigurationError, match="option 'service_name'"):
        name(service_name="")


def test_a_whole_resource_is_taken_as_it_is():
    given = SDKResource({"service.name": "mine"}, schema_url="https://example.org/1")
    with Runtime(sinks="none", resource=given) as runtime:
        assert dict(runtime.resource.attributes) == {"service.name": "mine"}
        assert runtime.resource.schema_url == "https://example.org/1"


def test_records_carry_the_resource():
    sink = MemorySink()
    with Runtime(sinks=[sink], resource={"service.name": "shop"}) as runtime:
        runtime.get_logger("t").info("x")
        runtime.flush(5)
    assert sink.records[0].resource.attributes["service.name"] == "shop"


@pytest.mark.parametrize(
    ("sinks", "words"),
    [
        ("nowhere", "'nowhere' is not known; use console, otlp"),
        ("file", "'file' needs a path"),
        ([object()], "is not a sink"),
    ],
)
def test_a_wrong_sink_is_named_with_the_choices(sinks, words):
    with pytest.raises(ConfigurationError, match=words):
        Runtime(sinks=sinks)


def test_a_processor_that_is_no_callable_is_refused():
    processors: Any = [3]
    with pytest.raises(ConfigurationError, match="processors: 3 is not callable"):
        Runtime(sinks="none", processors=processors)


def test_sinks_of_one_name_are_told_apart():
    with Runtime(sinks=[MemorySink(), MemorySink(), "memory"]) as runtime:
        assert list(runtime.stats().sinks) == ["memory", "memory-2", "memory-3"]


def test_sinks_are_built_from_their_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "app.jsonl"
    with Runtime(sinks=f"file:{path}") as runtime:
        runtime.get_logger("t").info("x")
    assert '"x"' in path.read_text()
    monkeypatch.setenv("FAPILOG_FILE__PATH", str(tmp_path / "other.jsonl"))
    with Runtime(sinks=["file", "console:stderr"]) as runtime:
        runtime.get_logger("t").info("y")
    assert '"y"' in (tmp_path / "other.jsonl").read_text()


def test_set_level_refuses_what_is_no_severity():
    with Runtime(sinks="none") as runtime, pytest.raises(ConfigurationError, match="set_level"):
        runtime.set_level("loud")


def test_importing_the_package_loads_nothing_heavy():
    script = (
        "import sys, fapilog; fapilog.get_logger('x'); "
        "heavy = {'grpc', 'fastapi', 'httpx', 'pydantic', 'google.protobuf', 'asyncio', "
        "'opentelemetry.sdk'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_the_public_names_are_what_they_are():
    assert fapilog.__all__ == [
        "AsyncLogger", "ConfigurationError", "FapilogError", "Handler", "LogRecord", "Logger",
        "Runtime", "Settings", "Severity", "__version__", "bind", "bind_context",
        "clear_context", "collect", "configure", "flush", "get_async_logger", "get_logger",
        "get_runtime", "hold", "install_celery", "install_hooks", "install_stdlib", "set_level", "shutdown",
        "stats", "unbind_context", "uninstall_hooks", "uninstall_stdlib",
    ]  # fmt: skip
    for name in fapilog.__all__:
        assert getattr(fapilog, name) is not None
    assert set(dir(fapilog)) == set(fapilog.__all__)
    with pytest.raises(AttributeError, match="nothing"):
        fapilog.nothing  # type: ignore[attr-defined]  # noqa: B018


def test_logging_while_configuring_from_many_threads_loses_nothing():
    # Nobody gives up on a busy machine: what is missing then was lost in between.
    patient: dict[str, Any] = {"block_timeout": 60, "shutdown_timeout": 60}
    sinks = [MemorySink(name=str(n), capacity=100_000) for n in range(6)]
    fapilog.configure(sinks=[sinks[0]], **patient)
    log = fapilog.get_logger("t")
    stop = threading.Event()
    counts = []

    def work():
        count = 0
        while not stop.is_set():
            log.info("x")
            count += 1
            time.sleep(0.0001)  # the rate is not what this is about
        counts.append(count)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for sink in sinks[1:]:
        fapilog.configure(sinks=[sink], **patient)
    stop.set()
    for thread in threads:
        thread.join()
    assert fapilog.flush(30)
    assert sum(len(sink.records) + sink.dropped for sink in sinks) == sum(counts)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"processors": 3}, "processors: 3 is not a list"),
        ({"processors": lambda record: record}, "is not a list"),
        ({"processors": [asyncio.sleep]}, "is a coroutine function"),
        ({"resource": 3}, "resource: 3 is neither"),
        ({"settings": "app.toml"}, "'app.toml' is not a Settings object"),
        ({"level": 3.5}, "3.5 is not a severity"),
        ({"sinks": [MemorySink]}, "is not a sink"),
    ],
)
def test_an_option_of_a_wrong_type_is_named(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        fapilog.configure(**options)
    with pytest.raises(ConfigurationError, match=words):
        Runtime(**options)


def test_a_sink_whose_send_is_a_coroutine_function_is_refused() -> None:
    class Awaited(MemorySink):
        async def send(self, batch: Any, timeout: float) -> None:  # type: ignore[override]
            raise AssertionError

    with pytest.raises(ConfigurationError, match="coroutine function"):
        Runtime(sinks=[Awaited()])


def test_a_change_that_fails_leaves_a_shared_sink_at_work() -> None:
    sink = MemorySink()
    fapilog.configure(sinks=[sink])
    with pytest.raises(ConfigurationError, match="'nowhere' is not known"):
        fapilog.configure(sinks=[sink, "nowhere"])
    fapilog.get_logger("t").info("still here")
    fapilog.flush(5)
    assert bodies(sink) == ["still here"]


def test_what_is_logged_in_the_midst_of_the_first_configuration_starts_no_second_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    log = fapilog.get_logger("t")

    def detect(*_given: object) -> Resource:
        log.info("from a detector")
        return Resource()

    monkeypatch.setattr("fapilog.otel.resource.detect_resource", detect)
    monkeypatch.setenv("FAPILOG_SINKS", "memory")
    log.info("x")
    fapilog.flush(5)
    assert fapilog.stats().accepted == 1
    assert "a record logged during configure() was dropped" in capsys.readouterr().err


def test_a_wrong_option_switches_nothing_else_off_at_the_first_log_call(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FAPILOG_REDACT_FIELDS", "iban")
    monkeypatch.setenv("FAPILOG_LEVEL", "error")
    monkeypatch.setenv("FAPILOG_QUEUE_SIZE", "many")
    log = fapilog.get_logger("t")
    log.info("too low", iban="DE02")
    log.error("high enough", iban="DE02")
    fapilog.flush(5)
    captured = capsys.readouterr()
    assert "FAPILOG_QUEUE_SIZE" in captured.err
    assert "high enough" in captured.out
    assert "too low" not in captured.out
    assert "DE02" not in captured.out
