"""``fapilog config`` and ``fapilog check``, called as from a shell."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse

from fapilog import Runtime, __version__
from fapilog.cli import check, main
from fapilog.cli.receiver import Receiver
from fapilog.cli.terminal import RED, Terminal, Text, cut
from fapilog.protocols import Outcome
from fapilog.settings import Settings
from fapilog.sinks.memory import MemorySink

Shell = Callable[..., tuple[object, str, str]]


@pytest.fixture
def shell(capsys, monkeypatch, tmp_path) -> Shell:
    """Run a command in an empty folder, and return the exit code, the output and the errors."""
    monkeypatch.chdir(tmp_path)
    # The file counts as the application's; tests/options/test_found_files.py tests other files.
    monkeypatch.setattr("fapilog.options.found.belongs_to_application", lambda _path: True)

    def run(*arguments: str) -> tuple[object, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        return ended.value.code, *capsys.readouterr()

    return run


def has_row(output: str, *columns: str) -> bool:
    pattern = r"^  " + r"\s{2,}".join(map(re.escape, columns)) + "$"
    return re.search(pattern, output, re.MULTILINE) is not None


# ---- the command line


def test_without_arguments_it_lists_the_commands(shell):
    code, out, err = shell()
    assert code in (0, 2), "typer changed it"
    assert all(command in out + err for command in ("config", "check", "demo"))


def test_it_prints_its_version(shell):
    assert shell("--version") == (0, f"fapilog {__version__}\n", "")


def test_a_missing_typer_is_one_clear_line(shell, monkeypatch):
    monkeypatch.setitem(sys.modules, "typer", None)
    monkeypatch.delitem(sys.modules, "fapilog.cli.app", raising=False)
    code, out, err = shell("config")
    assert (code, out) == (1, "")
    assert "pip install 'fapilog[cli]'" in err
    assert err.count("\n") == 1


def test_a_wrong_option_is_one_error_without_a_traceback(shell, monkeypatch):
    monkeypatch.setenv("FAPILOG_LEVEL", "loud")
    for command in ("config", "check"):
        code, out, err = shell(command)
        assert (code, out) == (2, "")
        assert err.startswith("fapilog: FAPILOG_LEVEL: 'loud' is not a severity")
        assert err.count("\n") == 1


def test_a_wrong_argument_exits_with_2(shell):
    assert shell("config", "--yaml")[0] == 2
    assert shell("check", "--timeout", "0")[0] == 2


def child(*command: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command],
        check=False,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        timeout=60,
        **{"stdout": subprocess.PIPE, **options},
    )


def test_the_package_can_be_run_as_the_command_line(tmp_path):
    done = child("-m", "fapilog", "--version", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, f"fapilog {__version__}\n")
    done = child("-m", "fapilog", "check", "--sinks", "consle", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("fapilog: option 'sinks'")


def test_the_package_run_without_typer_says_what_to_install(tmp_path):
    (tmp_path / "typer.py").write_text("raise ModuleNotFoundError('no typer')")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = child("-m", "fapilog", "config", env=environment, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert "pip install 'fapilog[cli]'" in done.stderr
    assert done.stderr.count("\n") == 1


# Ctrl-C while a module is loading that turns the KeyboardInterrupt into another
# error, as pydantic's core does.
INTERRUPTED_IMPORT = """
import os, signal, sys

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == sys.argv[1]:
            try:
                os.kill(os.getpid(), signal.SIGINT)
            except KeyboardInterrupt as error:
                raise RuntimeError("cannot build a validator") from error

from fapilog.cli import main
sys.meta_path.insert(0, Finder())
main(sys.argv[2:])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT to send to a process")
@pytest.mark.parametrize(
    ("module", "command"), [("fapilog.settings", "config"), ("fapilog.cli.demo.run", "demo")]
)
def test_ctrl_c_while_modules_load_ends_quietly(module, command, tmp_path):
    done = child("-c", INTERRUPTED_IMPORT, module, command, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_ctrl_c_before_a_command_runs_ends_quietly(shell, monkeypatch):
    def interrupted(_app: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("typer.main.get_command", interrupted)
    assert shell("config") == (130, "", "")


def test_ctrl_c_works_as_before_once_modules_are_loaded(shell):
    before = signal.getsignal(signal.SIGINT)
    shell("--version")
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device of Linux")
def test_an_output_that_takes_nothing_is_one_clear_line(tmp_path):
    with open("/dev/full", "w", encoding="utf-8") as full:
        done = child("-m", "fapilog", "config", stdout=full, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr == "fapilog: [Errno 28] No space left on device\n"


# ---- config


def test_config_shows_each_value_and_where_it_comes_from(shell, monkeypatch):
    Path("fapilog.toml").write_text('redact_fields = ["iban", "pin"]\nlevel = "error"\n')
    Path("pyproject.toml").write_text("[tool.fapilog]\nbatch_size = 7\n")
    monkeypatch.setenv("FAPILOG_LEVEL", "warn")
    monkeypatch.setenv("FAPILOG_CONSOLE__STREAM", "stderr")
    monkeypatch.setenv("OTEL_BLRP_MAX_QUEUE_SIZE", "10")
    monkeypatch.setenv("FAPILOG_FILE__PATH", "app.jsonl")
    code, out, err = shell("config")
    assert (code, err) == (0, "")
    assert has_row(out, "level", "WARN", "FAPILOG_LEVEL")
    assert has_row(out, "redact_fields", "iban, pin", "fapilog.toml")
    assert has_row(out, "batch_size", "7", "[tool.fapilog] in pyproject.toml")
    assert has_row(out, "queue_size", "10", "OTEL_BLRP_MAX_QUEUE_SIZE")
    assert has_row(out, "console.stream", "stderr", "FAPILOG_CONSOLE__STREAM")
    assert has_row(out, "file.path", "app.jsonl", "FAPILOG_FILE__PATH")
    assert has_row(out, "console.format", "auto", "default")
    assert has_row(out, "redact", "true", "default")
    assert has_row(out, "sinks", "console", "default")


@pytest.mark.parametrize(
    ("variable", "value"),
    [("FAPILOG_SINKS", "kafka"), ("FAPILOG_SINKS", "file")],
)
def test_config_refuses_a_sink_that_cannot_be(shell, monkeypatch, variable, value):
    monkeypatch.setenv(variable, value)
    code, out, err = shell("config")
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert value in err


def test_config_aligns_its_columns(shell):
    _, out, _ = shell("config")
    rows = [line for line in out.splitlines() if line.endswith("default")]
    assert len(rows) > 20
    assert len({row.index("default") for row in rows}) == 1


def test_config_shows_the_otlp_options_and_no_secret_of_them(shell, monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://me:hunter2@collector:4318/?key=abc1")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_LOGS_HEADERS", "api-key=topsecret")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "2500")
    code, out, err = shell("config")
    assert (code, err) == (0, "")
    assert has_row(out, "sinks", "otlp", "OTEL_EXPORTER_OTLP_ENDPOINT")
    assert "http://collector:4318/v1/logs" in out
    assert "api-key=[REDACTED]" in out
    assert has_row(out, "timeout", "2.5", "OTEL_EXPORTER_OTLP_TIMEOUT")
    assert has_row(out, "protocol", "http/protobuf", "default")
    as_json = shell("config", "--json")[1]
    for secret in ("hunter2", "topsecret", "abc1"):
        assert secret not in out
        assert secret not in as_json


def test_config_masks_credentials_in_the_name_of_a_sink(shell, monkeypatch):
    monkeypatch.setenv("FAPILOG_SINKS", "console,otlp:https://me:hunter2@collector/v1/logs")
    code, out, _ = shell("config")
    assert code == 0
    assert "hunter2" not in out
    assert has_row(
        out, "sinks", "console, otlp:https://[REDACTED]@collector/v1/logs", "FAPILOG_SINKS"
    )
    assert has_row(out, "endpoint", "https://collector/v1/logs", "sinks")


def test_config_shows_the_resource_and_where_it_comes_from(shell, monkeypatch):
    monkeypatch.setenv("OTEL_SERVICE_NAME", "shop")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
    _, out, _ = shell("config")
    assert has_row(out, "service.name", "shop", "OTEL_SERVICE_NAME")
    assert has_row(out, "deployment.environment.name", "test", "OTEL_RESOURCE_ATTRIBUTES")
    assert re.search(r"^  telemetry\.sdk\.language +python +detected$", out, re.MULTILINE)


def test_config_shows_routes_one_row_for_each_option_that_was_set(shell, monkeypatch):
    Path("fapilog.toml").write_text('[routes.otlp]\nlevel = "error"\n')
    monkeypatch.setenv("FAPILOG_ROUTES__CONSOLE__MAX_LEVEL", "warn")
    monkeypatch.setenv("FAPILOG_FILE__MODE", "640")
    _, out, _ = shell("config")
    assert has_row(out, "routes.otlp.level", "ERROR", "fapilog.toml")
    assert has_row(out, "routes.console.max_level", "WARN", "FAPILOG_ROUTES__CONSOLE__MAX_LEVEL")
    assert has_row(out, "file.mode", "0640", "FAPILOG_FILE__MODE")
    assert not re.search(r"routes\.otlp\.where", out)


def test_config_as_json_has_every_option(shell, monkeypatch):
    monkeypatch.setenv("FAPILOG_LEVELS", "app.db=debug")
    code, out, _ = shell("config", "--json")
    document = json.loads(out)
    assert code == 0
    assert document["settings"]["levels"] == {
        "value": {"app.db": "DEBUG"},
        "from": "FAPILOG_LEVELS",
    }
    assert document["settings"]["queue_size"] == {"value": 32768, "from": "default"}
    shown = {name.partition(".")[0] for name in document["settings"]}
    assert shown == set(Settings.model_fields)


# ---- check


@pytest.fixture
def receiver():
    with Receiver(grpc_port=None) as receiver:
        yield receiver


def test_check_delivers_one_record_whatever_the_level(shell, receiver, monkeypatch):
    monkeypatch.setenv("FAPILOG_LEVEL", "off")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "shop")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.http_endpoint)
    code, out, err = shell("check")
    assert (code, err) == (0, "")
    assert re.match(r"✓ otlp  accepted in \d+ ms; not read back: ", out)
    (log,) = receiver.logs
    assert log.scope.name == "fapilog.check"
    assert log.resource["service.name"] == "shop"


@pytest.mark.parametrize(
    "variables",
    [{"OTEL_TRACES_EXPORTER": "console,fapilog_otlp"}, {"OTEL_PYTHON_DISTRO": "fapilog"}],
    ids=["by the exporter", "by the distro"],
)
def test_check_sends_a_span_if_spans_go_through_fapilog(variables, shell, receiver, monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.http_endpoint)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    code, out, _ = shell("check")
    assert (code, len(receiver.logs), len(receiver.spans)) == (0, 1, 1)
    assert [line.split()[:3] for line in out.splitlines()] == [
        ["✓", "otlp", "accepted"],
        ["✓", "traces", "accepted"],
    ]
    receiver.respond = lambda path, _body: (404, {}, b"") if path == "/v1/traces" else None
    code, out, _ = shell("check")
    assert code == 1
    assert "a collector has no pipeline for traces" in out


def test_check_sends_no_span_if_the_sdk_exports_spans_itself(shell, receiver, monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.http_endpoint)
    monkeypatch.setenv("OTEL_PYTHON_DISTRO", "fapilog")
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp")
    assert shell("check")[0] == 0
    assert receiver.spans == []


def test_check_does_not_count_its_record_among_those_of_the_users_processes(
    shell, receiver, monkeypatch, tmp_path
):
    monkeypatch.setenv("FAPILOG_METRICS_DIRECTORY", str(tmp_path / "metrics"))
    code, _, _ = shell("check", "--sinks", f"otlp:{receiver.http_endpoint}/v1/logs")
    assert code == 0
    assert not (tmp_path / "metrics").exists()


def test_check_says_what_the_backend_says(shell, receiver):
    receiver.respond = lambda _path, _body: (401, {"Content-Type": "text/plain"}, b"tenant unknown")
    code, out, _ = shell("check", "--sinks", f"otlp:{receiver.http_endpoint}")
    assert code == 1
    assert re.match(r"✗ otlp  access denied: http://\S+/v1/logs: HTTP 401 Unauthorized", out)
    assert "tenant unknown" in out
    assert "OTEL_EXPORTER_OTLP_HEADERS" in out


def test_check_counts_a_partial_success_as_rejected(shell, receiver):
    answer = ExportLogsServiceResponse()
    answer.partial_success.rejected_log_records = 1
    answer.partial_success.error_message = "too old"
    body = answer.SerializeToString()
    receiver.respond = lambda _path, _body: (200, {"Content-Type": "application/x-protobuf"}, body)
    code, out, _ = shell("check", "--sinks", f"otlp:{receiver.http_endpoint}")
    assert (code, out) == (1, "✗ otlp  rejected: too old\n")


def test_check_names_the_address_nobody_listens_at_and_the_fix(shell):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    code, out, _ = shell("check", "--sinks", f"otlp:http://127.0.0.1:{port}")
    assert code == 1
    assert "✗ otlp  not delivered: " in out
    assert f"http://127.0.0.1:{port}/v1/logs" in out
    assert "refused" in out
    assert "start the backend, or set its address" in out


def test_check_gives_up_after_the_timeout(shell):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"otlp:http://127.0.0.1:{silent.getsockname()[1]}"
        code, out, _ = shell("check", "--sinks", url, "--timeout", "0.2")
    assert code == 1
    assert "not delivered" in out


def test_check_speaks_of_every_sink_and_fails_if_one_does(shell, receiver, tmp_path):
    receiver.respond = lambda _path, _body: (503, {}, b"")
    path = tmp_path / "app.jsonl"
    code, out, _ = shell("check", "--sinks", f"file:{path},otlp:{receiver.http_endpoint}")
    assert code == 1
    assert re.search(r"^✓ file  delivered in \d+ ms$", out, re.MULTILINE)
    assert re.search(r"^✗ otlp  not delivered: .*HTTP 503", out, re.MULTILINE)
    assert "this record can be ignored" in path.read_text(encoding="utf-8")


def test_check_takes_several_sinks_in_one_option_and_in_several(shell, tmp_path):
    one, two, three = (tmp_path / name for name in ("1.jsonl", "2.jsonl", "3.jsonl"))
    code, out, _ = shell("check", "--sinks", f"file:{one}, file:{two}", "--sinks", f"file:{three}")
    assert code == 0
    assert re.findall(r"^✓ (\S+) +delivered", out, re.MULTILINE) == ["file", "file-2", "file-3"]
    assert all(path.read_bytes() for path in (one, two, three))


def test_check_shows_what_a_console_sink_writes_before_its_report(shell, tmp_path):
    code, out, err = shell(
        "check", "--sinks", f"file:{tmp_path / 'app.jsonl'}", "--sinks", "console"
    )
    assert (code, err) == (0, "")
    heading, record, empty, *report = out.splitlines()
    assert heading == "The record as console writes it:"
    assert json.loads(record)["body"] == "fapilog check: this record can be ignored"
    assert empty == ""
    assert [re.sub(r"\d+", "N", line) for line in report] == [
        "✓ file     delivered in N ms",
        "✓ console  delivered in N ms",
    ]


def test_levels_and_routes_do_not_keep_the_record_of_a_check_from_its_sink(shell, receiver):
    Path("fapilog.toml").write_text(
        '[levels]\nfapilog = "off"\n[routes.otlp]\nlevel = "error"\nloggers = ["app"]\n'
    )
    code, _, err = shell("check", "--sinks", f"otlp:{receiver.http_endpoint}")
    assert (code, err) == (0, "")
    assert len(receiver.logs) == 1


def test_a_misspelt_sink_is_told_with_its_variable_and_what_was_meant(shell, monkeypatch):
    monkeypatch.setenv("FAPILOG_SINKS", "console,oltp")
    code, out, err = shell("check")
    assert (code, out) == (2, "")
    assert err == "fapilog: FAPILOG_SINKS: 'oltp' is not known; did you mean 'otlp'?\n"


def test_config_shows_the_sinks_that_an_application_gets_from_a_wrong_exporter(shell, monkeypatch):
    monkeypatch.setenv("OTEL_LOGS_EXPORTER", "consle")  # the specification requires a warning
    code, out, err = shell("config", "--json")
    assert code == 0
    assert "OTEL_LOGS_EXPORTER: 'consle' is not known; did you mean 'console'?; ignored" in err
    shown = json.loads(out)
    assert shown["settings"]["sinks"] == {"value": ["otlp"], "from": "OTEL_LOGS_EXPORTER"}
    assert shown["sink otlp"]["endpoint"]["value"] == "http://localhost:4318/v1/logs"
    with Runtime() as runtime:
        assert list(runtime.stats().sinks) == ["otlp"]


def test_check_without_a_sink_fails(shell):
    code, out, _ = shell("check", "--sinks", "none")
    assert code == 1
    assert "no sink is configured" in out


def test_check_of_an_unknown_sink_names_it(shell):
    code, out, err = shell("check", "--sinks", "kafka")
    assert (code, out) == (2, "")
    assert err.startswith("fapilog: option 'sinks': 'kafka' is not known")


def test_a_sink_that_breaks_is_told_and_closed():
    class Broken(MemorySink):
        closed = False

        def send(self, batch, timeout):
            raise ZeroDivisionError("oops")

        def close(self):
            self.closed = True

    sink = Broken()
    verdict = check.send_one(sink, check.make_record(Settings()), 1.0)
    assert (verdict.delivered, verdict.text) == (False, "failed: oops")
    assert sink.closed


def test_a_warning_of_the_backend_is_told_with_the_delivery():
    class Warns(MemorySink):
        def send(self, batch, timeout):
            return Outcome(0, "deprecated path")

    verdict = check.send_one(Warns(), check.make_record(Settings()), 1.0)
    assert verdict.delivered
    assert verdict.text.endswith("; the backend says: deprecated path")


# ---- the terminal


def written(monkeypatch, encoding: str, *pieces: Text | str) -> str:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding, newline=""))
    Terminal().line(*pieces)
    return raw.getvalue().decode(encoding)


def test_colours_are_for_terminals_and_those_who_ask(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    assert written(monkeypatch, "utf-8", Text("bad", RED)) == "bad\n"
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert written(monkeypatch, "utf-8", Text("bad", RED), "!") == "\x1b[31mbad\x1b[0m!\n"
    monkeypatch.setenv("NO_COLOR", "1")
    assert written(monkeypatch, "utf-8", Text("bad", RED)) == "bad\n"


def test_an_output_without_box_drawing_gets_plain_characters(monkeypatch):
    assert written(monkeypatch, "ascii", "├─┤ ✓ Ä…") == "|-| + \\xc4~\n"


def test_control_characters_never_reach_the_terminal(monkeypatch):
    assert written(monkeypatch, "utf-8", "a\x1b[2Jb\nc") == "a\\x1b[2Jb\\nc\n"


def test_a_text_is_cut_to_its_columns_and_the_loss_is_marked():
    assert cut("abcdef", 6) == "abcdef"
    assert cut("abcdefg", 6) == "abcde…"
