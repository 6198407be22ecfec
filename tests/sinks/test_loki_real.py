"""A real Grafana Loki stores every record unchanged, and loses no record when it crashes."""

from __future__ import annotations

import base64
import json
import os
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider

import fapilog
from fapilog.record import LogRecord
from fapilog.sinks import LokiSink, MemorySink
from tests.support.loki import Entry, RealLoki, entry_of

pytestmark = [pytest.mark.loki, pytest.mark.slow, pytest.mark.timeout(900)]

#: Seconds for which Loki is down.
PAUSE = float(os.environ.get("LOKI_PAUSE", "60"))
FORMATS = ("json", "protobuf")
LABELS = {
    "service.name": "service_name",
    "deployment.environment.name": "deployment_environment_name",
}
RANGES = ("TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL")

#: One value of every kind.
VALUES: list[Any] = [
    "text", "", "ünïcödé ✓ \U0001f600", 'quotes " and \\ backslashes', "two\nlines\ttab", "\x00\x1b[31m\x7f",
    "{json: [not}", "x" * 20_000, 0, -1, 2**63 - 1, -(2**63), 0.1, 1e300, -2.5e-7, True, False, None,
    b"\x00\xff", [1, "two", [3.0, None]], {"k": {"deep": "v", "n": 7}, "l": [1]}, {}, [],
]  # fmt: skip
NAMES = ("value", "http.request.method", "with space", "größe", "1st", "_private", "a-b/c", "日本")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealLoki]:
    with RealLoki(tmp_path_factory.mktemp("loki")) as loki:
        yield loki


# ---- the expected entries, computed without the sink's code


def text_of(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: ""}[value]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, (dict, list)):
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return str(value)


def name_of(name: str) -> str:
    clean = re.sub("[^a-zA-Z0-9]+", "_", name)
    return clean if clean[0].isalpha() else "key_" + clean.lstrip("_")


def pairs_of(attributes: dict[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    for name, value in attributes.items():
        if isinstance(value, dict) and value:
            yield from pairs_of(value, f"{above}{name}.")
        else:
            yield name_of(above + name), text_of(value)


def expected(record: LogRecord) -> Entry:
    resource = dict(record.resource.attributes)
    labels = {label: str(resource.pop(name)) for name, label in LABELS.items()}
    labels["severity"] = RANGES[(record.severity_number - 1) // 4]
    attributes = dict(record.attributes)
    line = text_of(record.body) if record.body is not None else record.event_name
    trace = attributes.pop("exception.stacktrace", None)
    fields = {
        "observed_timestamp": record.observed_timestamp,
        "severity_text": record.severity_text,
        "severity_number": record.severity_number,
        "scope_name": record.scope.name,
        "scope_version": record.scope.version,
        "event_name": record.event_name,
        "trace_id": record.trace_id,
        "span_id": record.span_id,
        "flags": record.trace_flags or "",
    }
    metadata = dict(pairs_of({**resource, **attributes}))
    metadata |= {name: text_of(value) for name, value in fields.items()}
    # Loki drops an empty value.
    metadata = {name: text for name, text in metadata.items() if text}
    return entry_of(labels, record.timestamp, f"{line}\n{trace}" if trace else line, metadata)


#: Labels that Loki adds.  The second label splits a stream that grows fast into shards.
LOKIS_OWN = ("detected_level", "__stream_shard__")


def without_lokis_own(entry: Entry) -> Entry:
    def given(pairs: frozenset[tuple[str, str]]) -> frozenset[tuple[str, str]]:
        return frozenset(pair for pair in pairs if pair[0] not in LOKIS_OWN)

    return entry._replace(labels=given(entry.labels), metadata=given(entry.metadata))


# ---- an application


class Application:
    """An application that logs to Loki, and to memory for comparison."""

    def __init__(self, url: str, form: Any) -> None:
        self.name = f"{form}-{time.time_ns()}"
        self.began = time.time_ns()
        self.memory = MemorySink(capacity=100_000)
        resource = {"service.name": self.name, "deployment.environment.name": "test", "a.b": [1]}
        self.runtime = fapilog.Runtime(
            sinks=[LokiSink(url, format=form), self.memory],
            resource=resource,
            level="trace",
            schedule_delay=0.2,
            retry_maximum=5.0,
        )
        self._logs = [self.runtime.get_logger(name) for name in ("app.orders", "app.users", "")]
        self._spans = TracerProvider().get_tracer("test")
        self._made = 0

    def log(self, count: int) -> None:
        for _ in range(count):
            number = self._made = self._made + 1
            value, name = VALUES[number % len(VALUES)], NAMES[number % len(NAMES)]
            log, what = self._logs[number % 3], number % 7
            if what == 0:
                with self._spans.start_as_current_span("span"):
                    log.error("in a span", n=number, **{name: value})
            elif what == 1:
                log.event("order.placed", n=number, **{name: value})
            elif what == 2:
                try:
                    raise KeyError(number)
                except KeyError:
                    log.exception("an exception", n=number)
            elif what == 3:
                log.info(value, n=number)
            else:
                log.log(number % 24 + 1, "a message", n=number, **{name: value})

    def compare(self, server: RealLoki) -> None:
        """Check that Loki holds exactly the records that were logged."""
        wanted = {expected(record) for record in self.memory.records}
        assert len(wanted) == self._made, "all records can be told apart"
        found = server.query(f'{{service_name="{self.name}"}}', self.began, time.time_ns() + 10**9)
        got = {without_lokis_own(entry) for entry in found}
        lost, made_up = wanted - got, got - wanted
        assert not lost, f"{len(lost)} lost, such as {min(lost, key=lambda e: e.time)!r:.2000}"
        assert not made_up, f"{len(made_up)} not logged, such as {next(iter(made_up))!r:.2000}"


def test_loki_keeps_every_record_as_it_was_and_a_crash_of_it_loses_none(server: RealLoki) -> None:
    applications = [Application(server.url, form) for form in FORMATS]

    def log(count: int) -> None:
        for application in applications:
            application.log(count)

    def compare(seconds: float) -> None:
        for application in applications:
            assert application.runtime.flush(seconds)
            application.compare(server)

    try:
        log(3000)
        compare(60)
        server.kill()
        back = time.monotonic() + PAUSE
        while time.monotonic() < back:
            log(20)
            time.sleep(0.2)
        server.start()
        log(1000)
        compare(180)
        for application in applications:
            stats = application.runtime.stats().sinks["loki"]
            assert stats.accepted == stats.delivered == application._made
    finally:
        for application in applications:
            application.runtime.shutdown(5)


@pytest.mark.parametrize("form", FORMATS)
def test_loki_takes_what_is_at_its_limits(server: RealLoki, form: str, capsys: Any) -> None:
    application = Application(server.url, form)
    log = application.runtime.get_logger("large")
    log.info("x" * 65_536, n=1)
    log.info("\U0001f600" * 60_000, n=2)
    log.info("large values", a="y" * 60_000, b="z" * 60_000, n=3)
    log.info("many attributes", **{f"k{number}": number for number in range(127)}, n=4)
    log.info("a wide mapping", wide={f"k{number}": number for number in range(900)}, n=5)
    log.info("hard names", **{"\u00a0": 1, "日": 2, "本": 3, "": 4, "__a__": 5}, n=6)
    assert application.runtime.flush(60)
    stats = application.runtime.stats().sinks["loki"]
    application.runtime.shutdown(5)
    found = server.query(
        f'{{service_name="{application.name}"}}', application.began, time.time_ns() + 10**9
    )
    assert (stats.delivered, stats.rejected) == (6, 0), capsys.readouterr().err
    assert len(found) == 6
    by_number = {entry.values.get("n", "4"): entry for entry in found}
    assert by_number["2"].line == "\U0001f600" * 60_000
    assert by_number["3"].values["a"].endswith("…(truncated, 60000 characters)")
    assert int(by_number["4"].values["dropped_attributes_count"]) > 0
    assert json.loads(by_number["5"].values["wide"])["k899"] == 899
    hard = by_number["6"].values
    assert sorted(text for name, text in hard.items() if name.startswith("key_")) >= ["1", "2", "3"]
