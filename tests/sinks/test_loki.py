"""The Loki sink on real sockets: its requests, and the effect of every answer."""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from typing import Any

import httpx
import pytest
from opentelemetry import context as otel_context

import fapilog
from fapilog.context import BOUND, SUPPRESSED
from fapilog.errors import (
    AccessDeniedError,
    InvalidDataError,
    NoAnswerError,
    PermanentError,
    RetryableError,
    TooLargeError,
)
from fapilog.protocols import BatchLimits, Outcome
from fapilog.record import LogRecord, Resource
from fapilog.sinks import LokiSink, OTLPSink, Sink
from fapilog.sinks.loki import sink as loki
from fapilog.values import normalise
from tests.support.loki import OK, Answer, Entry, FakeLoki, decode_request
from tests.support.sinks import send_around_a_fork

FORMATS = ("json", "protobuf")
each_format = pytest.mark.parametrize("form", FORMATS)
SECRET = "s3cr3t-token"
NOW = 1_795_000_000_000_000_000
WEB = Resource({"service.name": "web"})


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@contextlib.contextmanager
def opened(sink: LokiSink) -> Iterator[LokiSink]:
    sink.open()
    try:
        yield sink
    finally:
        sink.close()


def record_of(body: str, when: int = NOW, number: int = 9) -> LogRecord:
    record = LogRecord(when, when + 1, number, "INFO", body, {"n": 1}, resource=WEB)
    normalise(record)
    return record


def deliver(sink: LokiSink, *bodies: str, timeout: float = 10.0) -> Outcome | None:
    return sink.send([sink.encode(record_of(body)) for body in bodies or ("hello",)], timeout)


def answering(status: int, headers: dict[str, str] | None = None, body: bytes = b"") -> Any:
    answer: Answer = (status, headers or {}, body)
    return lambda entries: answer


# ---- requests


@each_format
def test_records_arrive_over_a_socket_in_both_formats(form):
    with FakeLoki() as server:
        with opened(LokiSink(server.url, format=form)) as sink:
            assert deliver(sink, "one", "two") is None
            assert deliver(sink, "three") is None
        assert [entry.line for entry in server.entries] == ["one", "two", "three"]
        assert [len(server.streams), len(server.requests)] == [1, 2]


@each_format
def test_entries_of_a_stream_are_in_order_of_time_and_streams_are_apart(form):
    moments = [5, 3, 9, 1, 7, 3]
    with FakeLoki() as server, opened(LokiSink(server.url, format=form)) as sink:
        records = [
            record_of(f"{place}", NOW + when, 9 if place % 2 else 17)
            for place, when in enumerate(moments)
        ]
        assert sink.send([sink.encode(record) for record in records], 10) is None
        by_severity = {
            dict(labels)["severity"]: [entry.line for entry in entries]
            for labels, entries in server.streams.items()
        }
    assert by_severity == {"ERROR": ["0", "4", "2"], "INFO": ["3", "1", "5"]}


@each_format
def test_a_request_says_what_it_is_for_whom_and_who_sends_it(form):
    with FakeLoki() as server:
        sink = LokiSink(server.url, format=form, tenant="team-a", headers={"X-Extra": "1"})
        with opened(sink):
            deliver(sink)
        (headers,) = server.requests
    assert headers["x-scope-orgid"] == "team-a"
    assert headers["x-extra"] == "1"
    assert headers["user-agent"].startswith("fapilog-loki/")
    assert "authorization" not in headers


@pytest.mark.parametrize(
    ("options", "authorization"),
    [
        ({"username": "me", "password": "pass"}, "Basic bWU6cGFzcw=="),
        ({"token": "abc"}, "Bearer abc"),
        ({"token": "abc", "headers": {"Authorization": "mine"}}, "mine"),
        ({}, "Basic dTpw"),
    ],
)
def test_credentials_are_sent_as_told(options, authorization):
    with FakeLoki() as server:
        url = server.url if options else server.url.replace("http://", "http://u:p@")
        with opened(LokiSink(url, **options)) as sink:
            deliver(sink)
        assert server.requests[0]["authorization"] == authorization
    if not options:
        assert "u:p" not in repr(sink) + repr(sink.options)


@pytest.mark.parametrize(
    ("url", "posted"),
    [
        ("http://loki:3100", "http://loki:3100/loki/api/v1/push"),
        ("http://loki:3100/", "http://loki:3100/loki/api/v1/push"),
        ("https://gateway/loki/push?a=b", "https://gateway/loki/push?a=b"),
    ],
)
def test_a_url_without_a_path_gets_lokis(url, posted):
    seen: list[str] = []

    def handle(request: httpx.Request) -> httpx.Response:
        seen.append(str(request.url))
        return httpx.Response(204)

    with opened(LokiSink(url, transport=httpx.MockTransport(handle))) as sink:
        assert deliver(sink) is None
    assert seen == [posted]


@each_format
def test_ten_thousand_lines_are_at_most_twenty_requests_well_below_lokis_limits(form):
    sizes: list[int] = []
    numbers: list[int] = []

    def handle(request: httpx.Request) -> httpx.Response:
        streams = decode_request(request.headers, request.content)
        entries = [entry for _, of_stream in streams for entry in of_stream]
        numbers.extend(int(entry.values["order_id"]) for entry in entries)
        sizes.append(
            sum(
                len(entry.line) + sum(len(n) + len(v) for n, v in entry.metadata)
                for entry in entries
            )
        )
        return httpx.Response(204)

    sink = LokiSink("http://loki:3100", format=form, transport=httpx.MockTransport(handle))
    runtime = fapilog.Runtime(sinks=[sink], resource={"service.name": "web"}, queue_size=20_000)
    log = runtime.get_logger("shop")
    for number in range(10_000):
        log.info("order placed", order_id=number, customer="c-7", total=9.99, sku="A-1")
    assert runtime.flush(60)
    runtime.shutdown(10)
    assert sorted(numbers) == list(range(10_000))
    assert len(sizes) <= 20
    assert max(sizes) < 2_000_000


def test_a_request_that_loki_could_not_pass_on_is_split_before_it_is_sent(monkeypatch):
    monkeypatch.setattr(loki, "MAX_REQUEST", 3000)
    with FakeLoki() as server:
        sink = LokiSink(server.url, limits=BatchLimits(delay=0.05))
        with pytest.raises(TooLargeError, match="exceeds the limit of 3000"):
            deliver(sink, "x" * 4000)
        runtime = fapilog.Runtime(sinks=[sink], resource={"service.name": "web"})
        for number in range(50):
            runtime.get_logger("shop").info("order placed", n=number)
        assert runtime.flush(30)
        runtime.shutdown(10)
        assert sorted(int(entry.values["n"]) for entry in server.entries) == list(range(50))


# ---- answers


@pytest.mark.parametrize("status", [200, 202])
def test_success_is_204_and_another_success_is_a_warning(status):
    with FakeLoki(answering(status)) as server, opened(LokiSink(server.url)) as sink:
        outcome = deliver(sink)
        assert outcome is not None
        assert outcome.rejected == 0
        assert f"HTTP {status} instead of 204; does the URL lead to Loki?" in outcome.message
        server.respond = answering(204)
        assert deliver(sink) is None


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504, 507])
def test_an_answer_that_may_be_another_one_later_is_worth_another_try(status):
    with FakeLoki(answering(status, {"Retry-After": "7"}, b"busy")) as server:
        with opened(LokiSink(server.url)) as sink:
            with pytest.raises(RetryableError, match=f"HTTP {status} .*busy") as caught:
                deliver(sink)
    # After a 504, the server behind the gateway may have taken the request.
    assert type(caught.value) is (NoAnswerError if status == 504 else RetryableError)
    assert caught.value.retry_after == 7


def test_a_success_whose_rest_cannot_be_read_is_a_success():
    answer = answering(200, {"Content-Length": "50"}, b"half")
    with FakeLoki(answer) as server, opened(LokiSink(server.url, timeout=0.2)) as sink:
        outcome = deliver(sink)
    assert outcome is not None
    assert outcome.rejected == 0
    assert "HTTP 200, but the rest of the answer cannot be read" in outcome.message


def test_retry_after_may_be_a_date():
    when = format_datetime(datetime.now(timezone.utc) + timedelta(seconds=100), usegmt=True)
    with FakeLoki(answering(429, {"Retry-After": when})) as server:
        with opened(LokiSink(server.url)) as sink:
            with pytest.raises(RetryableError) as caught:
                deliver(sink)
    assert caught.value.retry_after is not None
    assert 50 < caught.value.retry_after <= 100


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, InvalidDataError),
        (413, TooLargeError),
        (401, AccessDeniedError),
        (403, AccessDeniedError),
        (404, PermanentError),
        (405, PermanentError),
        (415, PermanentError),
    ],
)
def test_every_other_answer_is_what_loki_means_by_it(status, error):
    with FakeLoki(answering(status, {}, b"entry too far behind")) as server:
        with opened(LokiSink(server.url)) as sink:
            with pytest.raises(error, match=f"HTTP {status} .*entry too far behind") as caught:
                deliver(sink)
    assert type(caught.value) is error


def test_a_message_too_large_for_a_part_of_loki_is_split_although_the_answer_is_500():
    words = b"rpc error: code = ResourceExhausted desc = grpc: received message larger than max"
    with FakeLoki(answering(500, {}, words)) as server, opened(LokiSink(server.url)) as sink:
        with pytest.raises(TooLargeError, match="larger than max"):
            deliver(sink)


def test_a_huge_answer_is_judged_by_its_status():
    for status, error in ((503, RetryableError), (404, PermanentError)):
        with FakeLoki(answering(status, {}, b"x" * (5 << 20))) as server:
            with opened(LokiSink(server.url)) as sink:
                with pytest.raises(error):
                    deliver(sink)


def test_the_bad_entry_of_a_push_is_found_and_the_others_arrive(capsys):
    def refuse_bad(entries: list[Entry]) -> Answer | None:
        """Refuse the bad entries of a push and keep the others, like Loki."""
        good = [entry for entry in entries if "bad" not in entry.line]
        for entry in good:
            server.streams.setdefault(entry.labels, []).append(entry)
        return OK if len(good) == len(entries) else (400, {}, b"1 error: bad entry")

    with FakeLoki(refuse_bad) as server:
        sink = LokiSink(server.url, limits=BatchLimits(delay=0.2))
        runtime = fapilog.Runtime(sinks=[sink], resource={"service.name": "web"})
        log = runtime.get_logger("shop")
        for number in range(20):
            log.info("bad" if number == 7 else f"good {number}")
        assert runtime.flush(30)
        stats = runtime.stats().sinks["loki"]
        runtime.shutdown(10)
        # Loki keeps one of several equal entries, so repeated entries do no harm.
        assert len(set(server.entries)) == 19
    assert (stats.delivered, stats.rejected) == (19, 1)
    assert "bad entry" in capsys.readouterr().err


@pytest.mark.parametrize("form", FORMATS)
def test_an_answer_that_repeats_our_credentials_shows_none_of_them(form):
    words = f"token {SECRET} and p4ssw0rd and q-t0ken are wrong".encode()
    with FakeLoki(answering(401, {}, words)) as server:
        server_url = server.url.replace("http://", "http://me:p4ssw0rd@")
        url = f"{server_url}/loki/api/v1/push?key=q-t0ken"
        sink = LokiSink(url, format=form, headers={"x-api-key": SECRET})
        server.push = lambda path, headers, body: (401, {}, words)  # type: ignore[method-assign]
        with opened(sink), pytest.raises(AccessDeniedError) as caught:
            deliver(sink)
    shown = f"{caught.value} {sink!r}"
    assert shown.count("[REDACTED]") == 3
    for secret in (SECRET, "p4ssw0rd", "q-t0ken"):
        assert secret not in shown


# ---- in the application


def test_secrets_are_masked_before_they_reach_loki():
    with FakeLoki() as server:
        sink = LokiSink(server.url, limits=BatchLimits(delay=0))
        runtime = fapilog.Runtime(sinks=[sink], resource={"service.name": "web", "api_key": SECRET})
        log = runtime.get_logger("shop")
        log.info("login", password=SECRET, nested={"token": SECRET})
        message = f"Authorization: Bearer {SECRET}0123456789"
        log.info(message)
        log.event("user.login", secret=SECRET)
        assert runtime.flush(30)
        runtime.shutdown(10)
        assert len(server.entries) == 3
        assert SECRET not in repr(server.entries)
        assert "user.login" in {entry.values.get("event_name") for entry in server.entries}


def test_own_requests_are_kept_out_of_traces_and_of_fapilogs_own_logs(caplog):
    caplog.set_level(logging.INFO)
    seen: list[tuple[object, object]] = []

    def handle(request: httpx.Request) -> httpx.Response:
        key = otel_context._SUPPRESS_INSTRUMENTATION_KEY
        seen.append((otel_context.get_value(key), BOUND.get()))
        return httpx.Response(204)

    with opened(LokiSink("http://loki", transport=httpx.MockTransport(handle))) as sink:
        deliver(sink)
    assert seen == [(True, SUPPRESSED)]
    assert caplog.records == []


# ---- on disk


@each_format
def test_what_is_packed_comes_back_in_its_order_and_is_a_push(form):
    sink = LokiSink("http://loki", format=form)
    records = [record_of(f"{n} é\n", NOW - n, 9 if n % 3 else 17) for n in range(20)]
    items = [sink.encode(record) for record in records]
    packed = sink.pack(items)
    assert sink.wire_format == f"loki-{form}"
    assert sink.unpack(packed) == items
    assert sink.unpack(sink.pack([])) == []
    with FakeLoki() as server, opened(LokiSink(server.url, format=form)) as other:
        assert other.send(other.unpack(packed), 10) is None
        assert {entry.line for entry in server.entries} == {record.body for record in records}


@each_format
def test_damaged_bytes_raise_value_error_and_nothing_else(form):
    sink = LokiSink("http://loki", format=form)
    packed = sink.pack([sink.encode(record_of("hello")), sink.encode(record_of("x", NOW, 17))])
    for place in range(len(packed)):
        for bit in (0, 3, 7):
            damaged = bytearray(packed)
            damaged[place] ^= 1 << bit
            with contextlib.suppress(ValueError):
                sink.unpack(bytes(damaged))
        with contextlib.suppress(ValueError):
            sink.unpack(packed[:place])
    number = b'{"streams":[{"stream":{},"values":[[1,"x",{}]]}]}'
    wrong = [
        number,
        b"[]",
        b"{}",
        b'{"streams":5}',
        b'{"streams":[{"stream":{},"values":[["1"]]}]}',
        b'{"streams":[{"stream":{},"values":[["1","x",5]]}]}',
    ]
    numbers = [b"\x08\x05", b"\x0a\x02\x10\x05", b"\x0a\x04\x12\x02\x08\x05"]
    for data in wrong if form == "json" else numbers:
        with pytest.raises(ValueError):
            sink.unpack(data)


# ---- threads and processes

SINKS: list[tuple[str, Any]] = [
    *(
        (f"loki {form}", lambda url, form=form, **o: LokiSink(url, format=form, **o))
        for form in FORMATS
    ),
    ("otlp", lambda url, **o: OTLPSink(url, **o)),
]


@pytest.mark.parametrize(("name", "make"), SINKS, ids=[name for name, _ in SINKS])
def test_as_many_requests_are_under_way_as_there_are_threads(name, make):
    threads, rounds = 6, 3
    together = threading.Barrier(threads, timeout=30)

    def meet(entries: object) -> Answer:
        together.wait()
        return OK

    with FakeLoki() as server:
        server.push = lambda path, headers, body: meet(body)  # type: ignore[method-assign]
        sink: Sink[Any] = make(server.url, concurrency=threads)
        assert sink.concurrency == threads
        sink.open()
        failures: list[BaseException] = []

        def send() -> None:
            try:
                for number in range(rounds):
                    sink.send([sink.encode(record_of(f"{number}"))], 30)
            except BaseException as error:
                failures.append(error)

        running = [threading.Thread(target=send) for _ in range(threads)]
        for thread in running:
            thread.start()
        for thread in running:
            thread.join()
        sink.close()
    assert failures == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the platform has no fork")
@each_format
def test_parent_and_child_go_on_sending_after_a_fork(form):
    with FakeLoki() as server:
        send_around_a_fork("LokiSink(sys.argv[1], format=sys.argv[2])", server.url, form)
        assert sorted(entry.line for entry in server.entries) == ["before", "child", "parent"]


def test_a_sink_that_was_not_opened_opens_itself_and_outlives_a_fork():
    with FakeLoki() as server:
        sink = LokiSink(server.url)
        sink.after_fork()
        assert deliver(sink) is None
        sink.after_fork()
        assert deliver(sink) is None
        sink.close()
        sink.close()
        assert len(server.requests) == 2


def test_a_sink_can_be_made_without_loading_httpx_or_the_snappy_package():
    code = (
        "import sys; from fapilog.sinks.loki.sink import LokiSink; LokiSink('http://h');"
        "print({'httpx', 'cramjam'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("set()\n", "")
