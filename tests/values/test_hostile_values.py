"""Ten thousand hostile objects through every sink at once: nothing raised, warned or lost."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import threading
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter

import fapilog
from fapilog import Logger, Runtime
from fapilog.cli.receiver import Receiver
from fapilog.sinks import (
    ConsoleSink,
    ExporterSink,
    FileSink,
    LokiSink,
    MemorySink,
    OTLPSink,
    Sink,
)
from tests.support.hostile import Hostility
from tests.support.loki import FakeLoki

if os.name == "nt":
    pytest.skip("needs a pseudo-terminal", allow_module_level=True)
import tty

COUNT = 10_000
#: Records between two flushes: fewer than any backlog could not hold.
PORTION = 250
PROTOCOLS = ("http/protobuf", "http/json", "grpc")
LOKI_FORMATS = ("json", "protobuf")

scope = attrgetter("scope")
_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_HEAD = re.compile(r"\d\d:\d\d:\d\d\.\d{3}  (?:INFO |ERROR)  .* (\w+)$")


class Seen(NamedTuple):
    """A record as it came out of a sink."""

    scope: str
    body: Any
    attributes: dict[str, Any]


def log_hostile(log: Logger, hostility: Hostility, number: int) -> None:
    """Make one log call with something hostile somewhere in it."""
    value = hostility.value()
    place = number % 8
    if place == 0:
        log.info(value, number=number)
    elif place == 1:
        log.info("an attribute", number=number, value=value)
    elif place == 2:
        log.info("a name", number=number, **hostility.fields(1, value))
    elif place == 3:
        log.bind(**hostility.fields(1, value)).info("a bound field", number=number)
    elif place == 4:
        with fapilog.bind(**hostility.fields(1, value)):
            log.info("a field of the context", number=number)
    elif place == 5:
        log.error("an exception", number=number, exc_info=hostility.exc_info())
    elif place == 6:
        log.event(value, number=number)
    else:
        fields = hostility.fields(5, value)
        bound = log.bind(**hostility.fields(1, value))
        bound.error(value, number=number, exc_info=hostility.exc_info(), **fields)


# ---- what came out


@contextlib.contextmanager
def reading(reader: int, writer: int, into: bytearray) -> Iterator[Any]:
    """Yield a text stream; what is written to it is read as it comes."""

    def read() -> None:
        # Linux answers EIO where the other end of a terminal is gone.
        with contextlib.suppress(OSError):
            while data := os.read(reader, 1 << 16):
                into.extend(data)

    thread = threading.Thread(target=read, name="reader")
    thread.start()
    try:
        with os.fdopen(writer, "w", encoding="utf-8") as stream:
            yield stream
    finally:
        thread.join()
        os.close(reader)


def from_json_lines(data: bytes) -> Iterator[Seen]:
    for line in data.splitlines():
        fields = json.loads(line)
        yield Seen(fields["scope"]["name"], fields["body"], fields["attributes"])


def from_otlp_lines(data: bytes) -> Iterator[Seen]:
    for line in data.splitlines():
        for of_resource in json.loads(line)["resourceLogs"]:
            for of_scope in of_resource["scopeLogs"]:
                for log in of_scope["logRecords"]:
                    values = {pair["key"]: pair.get("value") for pair in log["attributes"]}
                    if "number" in values:
                        values["number"] = int(values["number"]["intValue"])
                    yield Seen(of_scope["scope"]["name"], log.get("body"), values)


def from_receiver(receiver: Receiver) -> Iterator[Seen]:
    for log in receiver.logs:
        yield Seen(log.scope.name, log.body, log.attributes)


def from_loki(server: FakeLoki) -> Iterator[Seen]:
    """Yield what arrived in the order of its times; of few attributes the name is known."""
    for entry in sorted(server.entries, key=attrgetter("time")):
        values = entry.values
        number = int(values["number"]) if "number" in values else None
        yield Seen(values["scope_name"], entry.line, {"number": number})


def from_memory(sink: MemorySink) -> Iterator[Seen]:
    for record in sink.records:
        yield Seen(record.scope.name, record.body, record.attributes)


def from_exporter(exporter: InMemoryLogRecordExporter) -> Iterator[Seen]:
    for data in exporter.get_finished_logs():
        made = data.log_record
        origin = data.instrumentation_scope
        yield Seen(origin.name if origin else "", made.body, dict(made.attributes or {}))


def scopes_on_terminal(data: bytes) -> Counter[str]:
    """Count records by scope; a line that neither begins nor continues one is an error."""
    found: Counter[str] = Counter()
    for line in _ANSI.sub("", data.decode()).split("\n")[:-1]:
        assert line.isprintable(), ascii(line)
        head = _HEAD.match(line)
        if head:
            found[head[1]] += 1
        else:
            assert line.startswith("    │"), ascii(line)
    return found


# ---- the proof


@pytest.fixture
def untraced() -> Iterator[None]:
    """Leave this thread and those to come unmeasured, which takes a third of the time."""
    own, others = sys.gettrace(), threading.gettrace()
    sys.settrace(None)
    threading.settrace(None)
    yield
    threading.settrace(others)
    sys.settrace(own)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("untraced")
@pytest.mark.parametrize("seed", [1])
def test_hostile_values_reach_every_sink_without_an_exception_a_warning_or_a_loss(
    seed: int,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)  # a narrow line leaves out what repeats
    caller, chats = threading.current_thread(), 0
    failures: list[BaseException] = []

    def chat(this: object) -> None:
        nonlocal chats
        chats += 1
        try:
            assert threading.current_thread() is caller, "no object is read on the worker"
            echo.info("said in the midst of being read", speaker=this)
        except BaseException as error:
            failures.append(error)

    pipe, terminal = bytearray(), bytearray()
    memory, exporter = MemorySink(capacity=10 * COUNT), InMemoryLogRecordExporter()
    json_file, otlp_file = tmp_path / "json.jsonl", tmp_path / "otlp.jsonl"
    pseudo_terminal, its_end = os.openpty()
    tty.setraw(its_end)
    with contextlib.ExitStack() as stack:
        receivers = [stack.enter_context(Receiver()) for _ in PROTOCOLS]
        lokis = [stack.enter_context(FakeLoki()) for _ in LOKI_FORMATS]
        sinks: list[Sink[Any]] = [
            memory,
            ConsoleSink(stack.enter_context(reading(*os.pipe(), pipe)), format="json"),
            ConsoleSink(
                stack.enter_context(reading(pseudo_terminal, its_end, terminal)), color=True
            ),
            FileSink(json_file),
            FileSink(otlp_file, format="otlp"),
            *(otlp_sink(*pair) for pair in zip(PROTOCOLS, receivers, strict=True)),
            *(loki_sink(*pair) for pair in zip(LOKI_FORMATS, lokis, strict=True)),
            ExporterSink(exporter),
        ]
        runtime = stack.enter_context(Runtime(sinks=sinks, resource={"service.name": "hostile"}))
        echo = runtime.get_logger("echo")
        log = runtime.get_logger("hostile")
        hostility = Hostility(seed, chat)
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("error")
        for number in range(COUNT):
            try:
                log_hostile(log, hostility, number)
            except BaseException as error:
                failures.append(error)
            if number % PORTION == 0:
                assert runtime.flush(60)
        assert runtime.flush(60)
        stats = runtime.stats()
    assert failures == []
    assert chats > COUNT / 100, "some of the objects do log"
    check_ledger(stats, COUNT + chats)
    assert scopes_on_terminal(bytes(terminal)) == {"hostile": COUNT, "echo": chats}
    seen = list(from_memory(memory))
    for came_out in (
        seen,
        from_json_lines(bytes(pipe)),
        from_json_lines(json_file.read_bytes()),
        from_otlp_lines(otlp_file.read_bytes()),
        from_exporter(exporter),
        *map(from_loki, lokis),
    ):
        check_complete(came_out, chats)
    assert lokis[0].streams.keys() == lokis[1].streams.keys()
    assert len(lokis[0].streams) <= 2, "one for each severity"
    for receiver in receivers:
        # A request has its records by scope.  Compared outside of an assertion,
        # which would show both in full.
        same = sorted(from_receiver(receiver), key=scope) == sorted(seen, key=scope)
        assert same, "OTLP carries exactly what the pipeline made of the values"
    assert capsys.readouterr() == ("", "")


def otlp_sink(protocol: Any, receiver: Receiver) -> OTLPSink:
    endpoint = receiver.grpc_endpoint if protocol == "grpc" else receiver.http_endpoint
    return OTLPSink(endpoint, protocol, name=protocol)


def loki_sink(form: Any, server: FakeLoki) -> LokiSink:
    return LokiSink(server.url, format=form, name=f"loki {form}")


def check_ledger(stats: Any, accepted: int) -> None:
    assert len(stats.sinks) == 11
    for name, of_sink in stats.sinks.items():
        assert str(of_sink) == (
            f"accepted {accepted} = delivered {accepted} + rejected 0 + dropped 0 + pending 0"
        ), name
    assert stats.processor_errors == 0


def check_complete(came_out: Iterable[Seen], chats: int) -> None:
    """Every record is there once and in order, whatever an object has logged meanwhile."""
    scopes: Counter[str] = Counter()
    numbers = []
    for one in came_out:
        scopes[one.scope] += 1
        if one.scope == "hostile":
            numbers.append(one.attributes["number"])
    assert scopes == {"hostile": COUNT, "echo": chats}
    assert numbers == list(range(COUNT))
