"""fapilog's distro and configurator: defaults, options, wrong options, and the SDK's part."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
from importlib.metadata import entry_points
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from opentelemetry import metrics, trace
from opentelemetry.instrumentation import auto_instrumentation
from opentelemetry.instrumentation.auto_instrumentation import _load
from opentelemetry.sdk import _configuration as sdk

from fapilog.bridges.stdlib import Handler
from fapilog.otel import resource, signals, zero_code
from fapilog.otel.zero_code import FapilogConfigurator, FapilogDistro
from fapilog.process import exit as process_exit
from fapilog.runtime import default
from tests.support.loki import FakeLoki
from tests.support.zero_code import SECONDS, Telemetry, receiving, run

SCRIPT = """
import json, logging
from opentelemetry import _logs, metrics, trace
from fapilog.runtime import default
import fapilog

logging.getLogger("shop").info("from logging")
fapilog.get_logger("shop").info("from fapilog", password="hunter2-open-sesame")
before = default.get_runtime()
print(json.dumps({
    "configured": before is not None,
    "same": fapilog.configure() is before,
    "traces": type(trace.get_tracer_provider()).__module__,
    "metrics": type(metrics.get_meter_provider()).__module__,
    "logs": type(_logs.get_logger_provider()).__module__,
}))
"""
SPAN = """
from opentelemetry import trace
with trace.get_tracer("shop").start_as_current_span("work"):
    pass
"""
SDK_TRACES = "opentelemetry.sdk.trace"
SDK_METRICS = "opentelemetry.sdk.metrics._internal"
OURS = "fapilog.otel.provider"
BOTH = ["from fapilog", "from logging"]
#: With these variables, code that reads them as the SDK does finds one distro.
STOCK = {"OTEL_PYTHON_DISTRO": "distro", "OTEL_PYTHON_CONFIGURATOR": "configurator"}


def bodies(telemetry: Telemetry) -> list[str]:
    return sorted(log.body for log in telemetry.of_logger("shop"))


def told(telemetry: Telemetry, directory: Path, **more: str) -> tuple[dict[str, Any], list[str]]:
    """Return the script's findings and the lines on stderr."""
    done = run(telemetry, SCRIPT, directory, **more)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]), done.stderr.splitlines()


def test_one_variable_is_all_that_is_needed(tmp_path):
    with receiving() as telemetry:
        found, errors = told(telemetry, tmp_path)
    assert found == {
        "configured": True,
        "same": True,
        "traces": SDK_TRACES,
        "metrics": SDK_METRICS,
        "logs": OURS,
    }
    assert errors == []
    assert bodies(telemetry) == BOTH
    assert not [log for log in telemetry.logs if "hunter2" in str(log.record)]


def test_a_wrong_option_of_the_logs_is_told_in_one_line_and_costs_the_logs_alone(tmp_path):
    script = "import logging; logging.getLogger('shop').warning('hello')\n" + SPAN
    with receiving() as telemetry:
        done = run(telemetry, script, tmp_path, FAPILOG_SINKS="otpl,lokki")
    (line,) = [line for line in done.stderr.splitlines() if line != "hello"]
    told = "FAPILOG_SINKS: 'otpl' is not known; did you mean 'otlp'?"
    assert line == f"fapilog: {told}; logs are not exported"
    assert done.returncode == 0
    assert [span.name for span in telemetry.spans] == ["work"]
    assert telemetry.logs == []


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("OTEL_LOGS_EXPORTER", "otpl,lokki"),
        ("OTEL_EXPORTER_OTLP_LOGS_TIMEOUT", "abc"),
        ("OTEL_EXPORTER_OTLP_LOGS_COMPRESSION", "bogus"),
        ("OTEL_EXPORTER_OTLP_LOGS_PROTOCOL", "bogus"),
        ("OTEL_BLRP_EXPORT_TIMEOUT", "0"),
        ("OTEL_BLRP_MAX_QUEUE_SIZE", "-1"),
    ],
)
def test_a_value_that_opentelemetrys_variable_cannot_have_costs_no_logs(variable, value, tmp_path):
    with receiving() as telemetry:
        script = "import logging; logging.getLogger('shop').warning('hello')\n"
        done = run(telemetry, script, tmp_path, **{variable: value})
    assert done.returncode == 0
    assert [log.body for log in telemetry.logs] == ["hello"]
    assert variable in done.stderr or value == "0"


def test_what_the_sdk_cannot_be_told_is_one_line_and_the_logs_arrive(tmp_path):
    with receiving() as telemetry:
        _, errors = told(telemetry, tmp_path, OTEL_EXPORTER_OTLP_PROTOCOL="http/json")
    (line,) = errors
    assert line.startswith("fapilog: traces and metrics are not exported: RuntimeError: ")
    assert "'http/json'" in line
    assert "OTEL_EXPORTER_OTLP_PROTOCOL" in line
    assert bodies(telemetry) == BOTH


def test_a_disabled_sdk_configures_nothing_and_sends_nothing(tmp_path):
    with receiving() as telemetry:
        script = SCRIPT.replace('fapilog.get_logger("shop").info', "str.format").replace(
            "fapilog.configure()", "default.get_runtime()"
        )
        done = run(telemetry, script, tmp_path, OTEL_SDK_DISABLED="True")
    found = json.loads(done.stdout)
    assert not found["configured"]
    assert not found["traces"].startswith("opentelemetry.sdk")
    assert not found["metrics"].startswith("opentelemetry.sdk")
    assert (done.stderr, telemetry.receiver.requests) == ("", 0)


EMIT = """
from opentelemetry._logs import LogRecord, SeverityNumber, get_logger
get_logger("shop").emit(
    LogRecord(severity_number=SeverityNumber.WARN, body="hello", attributes={"token": "s3cret"})
)
"""


@pytest.mark.parametrize(
    ("exporters", "variables"),
    [
        ("none,otlp_proto_http,fapilog_file,fapilog_loki", {}),
        ("fapilog_otlp,fapilog_file,fapilog_loki", STOCK),
    ],
    ids=["fapilog's distro", "OpenTelemetry's own"],
)
def test_exporters_are_named_by_the_same_variable_with_either_distro(
    exporters, variables, tmp_path
):
    with receiving() as telemetry, FakeLoki() as loki:
        done = run(
            telemetry,
            EMIT,
            tmp_path,
            OTEL_LOGS_EXPORTER=exporters,
            OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf",
            FAPILOG_FILE__PATH=str(tmp_path / "app.jsonl"),
            FAPILOG_LOKI__URL=loki.url,
            **variables,
        )
    assert done.returncode == 0, done.stderr
    assert bodies(telemetry) == ["hello"]
    lines = (tmp_path / "app.jsonl").read_text().splitlines()
    assert [json.loads(line)["body"] for line in lines] == ["hello"]
    assert [entry.line for entry in loki.entries] == ["hello"]
    assert "s3cret" not in f"{telemetry.logs} {lines} {loki.entries}"


def test_the_exporter_of_spans_has_the_same_name_with_opentelemetrys_own_distro(tmp_path):
    variables = {
        **STOCK,
        "OTEL_TRACES_EXPORTER": "fapilog_otlp",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "FAPILOG_OTEL_PROVIDER": "false",
    }
    with receiving() as telemetry:
        done = run(telemetry, SPAN, tmp_path, **variables)
    assert done.returncode == 0
    assert "fapilog: " not in done.stderr
    assert [span.span.name for span in telemetry.spans] == ["work"]


def test_spans_survive_an_outage_with_no_code(tmp_path):
    """The backend refuses every request for a while, then the process ends."""
    with receiving() as telemetry:
        refused: list[str] = []

        def refuse(path: str, body: bytes) -> Any:
            if path != "/v1/traces" or len(refused) >= 3:
                return telemetry._note(path, body)
            refused.append(path)
            return 503, {"Retry-After": "0"}, b""

        telemetry.receiver.respond = refuse
        script = "for _ in range(1000):" + SPAN.replace("\n", "\n    ")
        done = run(telemetry, script, tmp_path)
    assert done.returncode == 0
    assert len(refused) == 3
    assert len(telemetry.spans) == 1000
    assert len({span.span.span_id for span in telemetry.spans}) == 1000


BASIC = """
import logging
logging.basicConfig(level=logging.DEBUG, format="%(name)s says %(message)s")
logging.getLogger("shop").debug("hidden by the option level")
logging.getLogger("shop").info("hello")
"""


def test_an_application_that_sets_up_logging_itself_writes_what_it_wrote(tmp_path):
    with receiving() as telemetry:
        done = run(telemetry, BASIC, tmp_path)
    lines = [line for line in done.stderr.splitlines() if line.startswith("shop")]
    assert lines == ["shop says hidden by the option level", "shop says hello"]
    assert bodies(telemetry) == ["hello"]


def test_fapilogs_configurator_with_another_distro_gives_one_copy(tmp_path):
    variables = {"OTEL_PYTHON_DISTRO": "distro", "OTEL_PYTHON_CONFIGURATOR": "fapilog"}
    with receiving() as telemetry:
        told(telemetry, tmp_path, **variables, OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf")
    assert bodies(telemetry) == BOTH


def test_bootstrap_lists_what_instruments_the_libraries_that_are_there():
    command = str(Path(sys.executable).with_name("opentelemetry-bootstrap"))
    done = subprocess.run([command], capture_output=True, text=True, check=True, timeout=SECONDS)
    names = {line.partition("==")[0] for line in done.stdout.splitlines()}
    assert {f"opentelemetry-instrumentation-{name}" for name in ("fastapi", "logging")} <= names
    assert not [name for name in names if "fapilog" in name]


# ---- the distro


@pytest.fixture
def variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The test's own environment, in an empty directory."""
    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.chdir(tmp_path)
    loader = logging.getLogger(_load.__name__)
    monkeypatch.setattr(loader, "filters", [])
    return os.environ


DEFAULTS = {
    "OTEL_PYTHON_CONFIGURATOR": "fapilog",
    "OTEL_TRACES_EXPORTER": "fapilog_otlp",
    "OTEL_METRICS_EXPORTER": "otlp",
    "OTEL_LOGS_EXPORTER": "otlp",
    "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
}


def otel(environment: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith("OTEL_")}


def test_the_distro_sets_what_is_unset_or_empty(variables):
    variables["OTEL_LOGS_EXPORTER"] = ""
    FapilogDistro().configure()
    assert otel(variables) == DEFAULTS


def test_the_distro_leaves_what_is_set(variables):
    variables.update(dict.fromkeys(DEFAULTS, "mine"))
    FapilogDistro().configure()
    assert otel(variables) == dict.fromkeys(DEFAULTS, "mine")


def test_sinks_in_a_file_stay_in_force(variables):
    Path("fapilog.toml").write_text('sinks = ["console"]\n')
    variables["FAPILOG_CONFIG"] = "fapilog.toml"
    FapilogDistro().configure()
    assert "OTEL_LOGS_EXPORTER" not in variables


def test_that_other_configurators_are_not_loaded_is_no_news(variables, caplog):
    FapilogDistro().configure()
    loader = logging.getLogger(_load.__name__)
    loader.warning("Configuration of %s not loaded, %s already loaded", "configurator", "fapilog")
    loader.warning("Configuration of %s failed", "fapilog")
    assert caplog.messages == ["Configuration of fapilog failed"]


def test_both_are_found_by_name():
    for group, found in [
        ("opentelemetry_distro", FapilogDistro),
        ("opentelemetry_configurator", FapilogConfigurator),
    ]:
        (point,) = entry_points(group=group, name="fapilog")
        assert point.load() is found


@pytest.mark.parametrize("takes", [True, False])
def test_opentelemetrys_own_handler_is_left_out_where_fapilog_takes_the_records(takes, monkeypatch):
    given: list[dict[str, Any]] = []
    instrumentor = SimpleNamespace(instrument=lambda **options: given.append(options))
    monkeypatch.setattr(FapilogConfigurator, "takes_stdlib", takes)
    for name in ("logging", "httpx"):
        point: Any = SimpleNamespace(name=name, load=lambda: lambda: instrumentor)
        FapilogDistro().load_instrumentor(point, skip_dep_check=True)
    of_logging, of_httpx = given
    assert of_logging.get("enable_log_auto_instrumentation", True) is not takes
    assert of_httpx == {"skip_dep_check": True}


@pytest.mark.parametrize("of_another", [False, True])
def test_processes_of_an_instrumented_one_are_instrumented_with_older_callers_too(
    of_another, variables, monkeypatch
):
    directory = str(Path(auto_instrumentation.__file__).parent)
    found = "/elsewhere" if of_another else directory
    customize = SimpleNamespace(__file__=os.path.join(found, "sitecustomize.py"))
    monkeypatch.setitem(sys.modules, "sitecustomize", customize)
    monkeypatch.delattr(auto_instrumentation, "_initialize", raising=False)
    variables["PYTHONPATH"] = "/app"
    FapilogDistro().configure()
    expected = ["/app"] if of_another else [directory, "/app"]
    assert variables["PYTHONPATH"].split(os.pathsep) == expected


# ---- the configurator


@pytest.fixture
def configured(variables: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A configurator whose SDK part is only recorded."""
    seen: dict[str, Any] = {}

    def components(**options: Any) -> None:
        seen.update(options, exporter=os.environ.get("OTEL_LOGS_EXPORTER"))
        seen["logging"] = sdk._init_logging({}, None)
        if "fail" in seen:
            raise RuntimeError(seen["fail"])

    def configure(**more: Any) -> dict[str, Any]:
        seen.update(more)
        FapilogConfigurator().configure(auto_instrumentation_version="0.99b0")
        return seen

    monkeypatch.setattr(sdk, "_initialize_components", components)
    monkeypatch.setattr(signals, "deliver_on_sigterm", lambda: seen.update(sigterm=True))
    monkeypatch.setattr(zero_code, "_spare_handler", lambda: None)
    monkeypatch.setattr(resource, "_of_auto_instrumentation", {})
    monkeypatch.setattr(FapilogConfigurator, "takes_stdlib", False)
    variables["FAPILOG_OTEL_PROVIDER"] = "false"  # a process keeps its provider
    variables["OTEL_LOGS_EXPORTER"] = "memory"
    return configure


def test_the_sdk_is_kept_from_logs_and_left_as_it_was(configured):
    before = sdk._init_logging
    seen = configured()
    assert (seen["exporter"], seen["logging"]) == (None, None)
    assert seen["auto_instrumentation_version"] == "0.99b0"
    assert sdk._init_logging is before
    assert os.environ["OTEL_LOGS_EXPORTER"] == "memory"
    assert seen["sigterm"]


def test_the_process_in_which_multiprocessing_keeps_its_books_is_left_alone(
    configured, monkeypatch
):
    of = "from multiprocessing.resource_tracker import main;main(6)"
    monkeypatch.setattr(sys, "orig_argv", [sys.executable, "-c", of])
    assert configured() == {}
    assert default.get_runtime() is None


def test_the_sdk_is_left_as_it_was_when_it_fails(configured, capsys):
    before = sdk._init_logging
    configured(fail="no such exporter")
    assert sdk._init_logging is before
    assert os.environ["OTEL_LOGS_EXPORTER"] == "memory"
    assert capsys.readouterr().err.count("no such exporter; correct OTEL_TRACES_EXPORTER") == 1


def test_logs_name_the_version_of_the_auto_instrumentation(configured):
    configured()
    runtime = default.get_runtime()
    assert runtime is not None
    assert runtime.resource.attributes["telemetry.auto.version"] == "0.99b0"


def test_sigterm_is_left_alone_where_an_option_says_so(configured, variables):
    variables["FAPILOG_HANDLE_SIGTERM"] = "false"
    assert "sigterm" not in configured()


def test_the_logging_module_is_left_alone_where_opentelemetrys_variable_says_so(
    configured, variables
):
    before = list(logging.getLogger().handlers)
    variables["OTEL_PYTHON_LOG_AUTO_INSTRUMENTATION"] = "False"
    configured()
    assert logging.getLogger().handlers == before
    assert not FapilogConfigurator.takes_stdlib


def test_fapilogs_handler_outlives_what_sets_logging_up(monkeypatch):
    root = logging.getLogger()
    ours, theirs = Handler(), Handler()
    monkeypatch.setattr(root, "handlers", [ours])

    def clear(*handlers: logging.Handler) -> bool:
        found = not root.handlers
        root.handlers[:] = handlers
        return found

    assert zero_code._with_handler_aside(clear, None, (), {})
    assert root.handlers == [ours]
    # A configuration with its own handler of fapilog keeps that one.
    assert zero_code._with_handler_aside(clear, None, (theirs,), {})
    assert root.handlers == [theirs]


def test_a_defect_of_fapilog_is_told_as_one(configured, monkeypatch, capsys):
    def fail(*_: Any) -> None:
        raise KeyError("x")

    monkeypatch.setattr(default, "configure", fail)
    configured()
    assert "KeyError: 'x' (this is a defect of fapilog); logs are not exported" in (
        capsys.readouterr().err
    )


# ---- spans and metrics at SIGTERM


class Provider:
    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.limits: list[int] = []
        self.may_end = threading.Event()
        self.may_end.set()

    def force_flush(self, timeout_millis: int) -> None:
        self.limits.append(timeout_millis)
        self.may_end.wait(60)
        if self.error:
            raise self.error


@pytest.fixture
def providers(monkeypatch: pytest.MonkeyPatch) -> tuple[Provider, Provider]:
    tracer, meter = Provider(), Provider()
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: tracer)
    monkeypatch.setattr(metrics, "get_meter_provider", lambda: meter)
    return tracer, meter


def ended() -> None:
    for thread in threading.enumerate():
        if thread.name == "fapilog-exit":
            thread.join(60)


def test_both_providers_are_flushed_within_the_time_that_is_left(providers):
    signals.flush_providers(2.5)
    assert [provider.limits for provider in providers] == [[2500], [2500]]
    ended()


def test_a_provider_that_hangs_does_not_hold_up_the_end(providers):
    tracer, meter = providers
    tracer.may_end.clear()
    signals.flush_providers(0.05)
    assert meter.limits == [50]
    tracer.may_end.set()
    ended()


def test_a_provider_that_fails_is_told_of(providers, capsys):
    providers[1].error = ValueError("closed")
    signals.flush_providers(60)
    ended()
    assert "spans or metrics were not flushed: ValueError: closed" in capsys.readouterr().err


def test_an_end_without_room_for_threads_is_told_of(providers, monkeypatch, capsys):
    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    signals.flush_providers(1)
    assert "can't start new thread" in capsys.readouterr().err


def test_at_sigterm_the_metrics_are_flushed_again_after_the_last_records(monkeypatch):
    calls: list[str] = []
    runtime = SimpleNamespace(
        exit_timeout=60.0,
        prepare_exit=lambda: None,
        flush=lambda _timeout: calls.append("flush"),
        shutdown=lambda _timeout: calls.append("shutdown"),
    )
    monkeypatch.setattr(process_exit, "_open", {1: runtime}.values())
    monkeypatch.setattr(process_exit, "_others", [lambda _seconds: calls.append("spans")])
    monkeypatch.setattr(process_exit, "_reports", [])
    process_exit.after_sigterm(lambda seconds: calls.append(f"metrics {seconds > 0}"))
    process_exit._deliver_and_close()
    assert calls == ["spans", "flush", "shutdown", "metrics True"]
    runtime.exit_timeout = 0.0  # no time remains
    process_exit._deliver_and_close()
    assert calls[4:] == ["spans", "flush", "shutdown"]


@pytest.fixture
def sigterm(monkeypatch: pytest.MonkeyPatch) -> Any:
    """SIGTERM has no handler, before and after the test."""
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    monkeypatch.setattr(process_exit, "_others", [])
    monkeypatch.setattr(process_exit.sigterm, "_is_wanted", False)
    yield
    signal.signal(signal.SIGTERM, before)


def test_sigterm_is_handled_again_before_uvicorn_notes_who_handles_it(sigterm):
    found: list[Any] = []

    class Server:
        def capture_signals(self) -> str:
            found.append(signal.getsignal(signal.SIGTERM))
            return "captured"

    module: Any = SimpleNamespace(Server=Server)
    signals._watch(module)
    assert Server().capture_signals() == "captured"
    process_exit.on_sigterm(lambda _seconds: None)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # as a worker of gunicorn does
    assert Server().capture_signals() == "captured"
    assert found == [signal.SIG_DFL, process_exit.sigterm.handle]


def test_a_handler_of_the_applications_own_is_not_replaced(sigterm):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    process_exit.on_sigterm(lambda _seconds: None)
    process_exit.sigterm.resume()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
