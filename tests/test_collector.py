"""The configurations in ``collector-config/``, run by the collector against fake backends."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import cramjam
import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from tests.support import kafka
from tests.support.backends import Loki, Tempo, serving_grpc, serving_http
from tests.support.collectors import COLLECTOR, shipped_collector
from tests.support.ports import free_port

pytestmark = [
    pytest.mark.collector,
    pytest.mark.skipif(not COLLECTOR.exists(), reason="no collector: run `make collector`"),
]

SECONDS = 90  # the time after which what has not arrived is lost
RESOURCE = {
    "service.name": "shop",
    "service.version": "1.2",
    "service.instance.id": "i-1",
    "host.name": "h-1",
    "process.command_line": "python -m shop " + "x" * 400,
    "telemetry.sdk.name": "opentelemetry",
}
GATEWAY = ("base.yaml", "gateway.yaml")


def eventually(condition: Callable[[], bool], log: Path) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, log.read_text()[-4000:]
        time.sleep(0.05)


def add(attributes: Any, values: dict[str, str]) -> None:
    for key, value in values.items():
        attributes.add(key=key).value.string_value = value


def logs(bodies: Iterable[str], **attributes: str) -> ExportLogsServiceRequest:
    """Return a request with one record per body; the first record is an event."""
    request = ExportLogsServiceRequest()
    of_resource = request.resource_logs.add()
    add(of_resource.resource.attributes, RESOURCE)
    of_scope = of_resource.scope_logs.add()
    of_scope.scope.name = "shop.orders"
    now = time.time_ns()
    for body in bodies:
        record = of_scope.log_records.add(
            time_unix_nano=now,
            observed_time_unix_nano=now,
            severity_number=9,
            severity_text="INFO",
            trace_id=os.urandom(16),
            span_id=os.urandom(8),
        )
        record.body.string_value = body
        add(record.attributes, attributes)
    of_scope.log_records[0].event_name = "order.placed"
    return request


def span(name: str, trace: bytes, *, failed: bool = False, ms: int = 5, text: str = "") -> Span:
    now = time.time_ns()
    made = Span(
        name=name,
        trace_id=trace,
        span_id=os.urandom(8),
        start_time_unix_nano=now - ms * 1_000_000,
        end_time_unix_nano=now,
    )
    made.status.code = Status.STATUS_CODE_ERROR if failed else Status.STATUS_CODE_UNSET
    add(made.attributes, {"text": text})
    return made


def traces(spans: Iterable[Span]) -> ExportTraceServiceRequest:
    request = ExportTraceServiceRequest()
    of_resource = request.resource_spans.add()
    add(of_resource.resource.attributes, RESOURCE)
    of_resource.scope_spans.add().spans.extend(spans)
    return request


def in_pieces(items: list[str], size: int) -> Iterable[list[str]]:
    return (items[n : n + size] for n in range(0, len(items), size))


class Stack(ExitStack):
    """Fake backends, and the variables that send a gateway's data to them."""

    def __init__(self) -> None:
        super().__init__()
        self.loki, self.tempo = Loki(), Tempo()
        self.written: list[bytes] = []
        self.loki_port, self.tempo_port = free_port(), free_port()

    def write(self, body: bytes, _headers: dict[str, str]) -> int:
        self.written.append(bytes(cramjam.snappy.decompress_raw(body)))
        return 204

    def start(self) -> None:
        self.enter_context(serving_http(self.loki.push, self.loki_port))
        self.enter_context(serving_grpc(self.tempo, port=self.tempo_port))

    def variables(self, **more: str) -> dict[str, str]:
        return {
            "LOKI_ENDPOINT": f"http://127.0.0.1:{self.loki_port}/otlp",
            "TEMPO_ENDPOINT": f"127.0.0.1:{self.tempo_port}",
            "PROMETHEUS_ENDPOINT": self.enter_context(serving_http(self.write)) + "/api/v1/write",
            "DECISION_WAIT": "1s",
            "SAMPLED_PERCENT": "100",
            **more,
        }


@pytest.mark.slow
def test_large_records_and_spans_pass_the_limits_of_loki_and_tempo(tmp_path: Path) -> None:
    large = [f"large-{n} {'x' * 5000}" for n in range(6000)]
    huge = [f"huge-{n} {'x' * 200_000}" for n in range(100)]
    # Loki counts several times the bytes of a short record, because of its metadata.
    short = [f"short-{n}" for n in range(20_000)]
    with Stack() as stack:
        stack.start()
        with shipped_collector(tmp_path, GATEWAY, stack.variables()) as collector:
            for size, bodies in ((500, large), (20, huge), (10_000, short)):
                for piece in in_pieces(bodies, size):
                    collector.post("logs", logs(piece))
            for n in range(0, 4000, 500):  # a trace of 2.5 MB
                trace = os.urandom(16)
                spans = (span(f"span-{i}", trace, text="x" * 5000) for i in range(n, n + 500))
                collector.post("traces", traces(spans))
            eventually(
                lambda: len(stack.loki.ids) == 26_100 and len(stack.tempo.ids) == 4000,
                collector.log,
            )
    assert set(stack.loki.ids.values()) == {1}
    assert set(stack.tempo.ids.values()) == {1}
    assert set(stack.loki.refused) <= {429}


def test_logs_that_wait_for_loki_survive_a_kill_of_the_collector(tmp_path: Path) -> None:
    names = [f"log-{n}" for n in range(1000)]
    with Stack() as stack:
        variables = stack.variables()
        with shipped_collector(tmp_path, GATEWAY, variables) as collector:
            for piece in in_pieces(names, 100):
                collector.post("logs", logs(piece))
            collector.process.kill()
        stack.start()
        with shipped_collector(tmp_path, GATEWAY, variables) as collector:
            eventually(lambda: len(stack.loki.ids) == 1000, collector.log)
    assert stack.loki.ids.keys() == set(names)


def test_a_queue_that_is_full_refuses_new_data_instead_of_losing_old_data(tmp_path: Path) -> None:
    body = "x" * 1000
    taken = []
    with Stack() as stack:
        variables = stack.variables(QUEUE_BYTES="300000")
        with shipped_collector(tmp_path, GATEWAY, variables) as collector:
            for n in range(20):
                names = [f"log-{n}-{i}" for i in range(50)]
                status = collector.send("logs", logs(f"{name} {body}" for name in names))
                if status == 200:
                    taken += names
                else:
                    assert status == 503
            stack.start()
            eventually(lambda: len(stack.loki.ids) == len(taken), collector.log)
    assert 0 < len(taken) < 1000
    assert stack.loki.ids.keys() == set(taken)


def test_loki_gets_the_attributes_that_people_search_for_and_the_name_of_events(
    tmp_path: Path,
) -> None:
    with Stack() as stack:
        stack.start()
        with shipped_collector(tmp_path, GATEWAY, stack.variables()) as collector:
            collector.post("logs", logs(["first", "second"], user="ada"))
            eventually(lambda: len(stack.loki.ids) == 2, collector.log)
    (resource, first), (_, second) = stack.loki.records
    kept = {pair.key: pair.value.string_value for pair in resource.attributes}
    wanted = ("service.name", "service.version", "service.instance.id", "host.name")
    assert kept == {name: RESOURCE[name] for name in wanted}
    assert {pair.key: pair.value.string_value for pair in first.attributes} == {
        "user": "ada",
        "otel.event.name": "order.placed",
    }
    assert [pair.key for pair in second.attributes] == ["user"]


def test_the_gateway_keeps_failed_and_slow_traces_whole(tmp_path: Path) -> None:
    failed, slow, fast = (os.urandom(16) for _ in range(3))
    first = [
        span("failed-parent", failed),
        span("failed-child", failed, failed=True),
        span("slow-parent", slow, ms=1500),
        span("slow-child", slow),
        span("fast-parent", fast),
    ]
    late = [span("failed-late", failed), span("slow-late", slow), span("fast-late", fast)]
    with Stack() as stack:
        stack.start()
        variables = stack.variables(SAMPLED_PERCENT="0")
        files = (*GATEWAY, "yaml:connectors::span_metrics::metrics_flush_interval: 1s")
        with shipped_collector(tmp_path, files, variables) as collector:
            collector.post("traces", traces(first))
            eventually(lambda: len(stack.tempo.ids) == 4, collector.log)
            collector.post("traces", traces(late))
            eventually(lambda: len(stack.tempo.ids) == 6, collector.log)
            # The metrics count all spans, including those of dropped traces.
            eventually(
                lambda: any(b"fast-late" in series for series in stack.written), collector.log
            )
    assert stack.tempo.ids.keys() == {span.name for span in [*first[:4], *late[:2]]}
    assert any(b"traces_span_metrics_calls_total" in series for series in stack.written)


def test_a_gateway_that_is_stopped_sends_the_traces_that_it_was_waiting_for(tmp_path: Path) -> None:
    with Stack() as stack:
        stack.start()
        variables = stack.variables(DECISION_WAIT="60s", SAMPLED_PERCENT="0")
        with shipped_collector(tmp_path, GATEWAY, variables) as collector:
            collector.post("traces", traces([span("failed", os.urandom(16), failed=True)]))
            collector.post("logs", logs(["hello"]))
        # The queue has everything that the backends did not get.
        with shipped_collector(tmp_path, GATEWAY, variables) as collector:
            eventually(lambda: len(stack.tempo.ids) == 1, collector.log)
            eventually(lambda: len(stack.loki.ids) == 1, collector.log)


def test_victorialogs_replaces_loki(tmp_path: Path) -> None:
    with Stack() as stack:
        victoria = stack.enter_context(serving_http(stack.loki.push))
        variables = stack.variables(VICTORIALOGS_ENDPOINT=victoria)
        files = (*GATEWAY, "victorialogs.yaml")
        with shipped_collector(tmp_path, files, variables) as collector:
            collector.post("logs", logs(["hello"]))
            eventually(lambda: len(stack.loki.ids) == 1, collector.log)
    (headers,) = stack.loki.headers
    assert headers[":path"] == "/insert/opentelemetry/v1/logs"
    sent = {name.lower(): value for name, value in headers.items()}
    assert sent["vl-stream-fields"].split(",")[0] == "service.name"


SECRETS = {
    "password": "hunter2-open-sesame",
    "http.request.header.authorization": "Bearer sk-4242-4242-4242",
    "db.url": "postgresql://shop:hunter3-open@db.internal/shop",
    "note": "the key is AKIAIOSFODNN7EXAMPLE",
    "jwt": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl",
}


def test_an_agent_masks_secrets_and_adds_the_name_of_the_host(tmp_path: Path) -> None:
    kept = {"order": "1001", "trace": "0af7651916cd43dd8448eb211c80319c", "card": "[REDACTED]"}
    request = logs(["login with password=hunter4-open and api_key: hunter5-open", "plain"])
    (of_resource,) = request.resource_logs
    del of_resource.resource.attributes[3]
    record = of_resource.scope_logs[0].log_records[0]
    add(record.attributes, {**SECRETS, **kept})
    nested = record.attributes.add(key="form").value.kvlist_value
    nested.values.add(key="password").value.string_value = "hunter6-open"
    traced = span("login", os.urandom(16))
    add(traced.attributes, SECRETS)
    with Stack() as stack:
        gateway = stack.enter_context(serving_grpc(stack.tempo, stack.loki))
        variables = {"GATEWAY_ENDPOINT": gateway, "GATEWAY_INSECURE": "true"}
        with shipped_collector(tmp_path, ("base.yaml", "agent.yaml"), variables) as collector:
            collector.post("logs", request)
            collector.post("traces", traces([traced]))
            eventually(
                lambda: len(stack.loki.records) == 2 and len(stack.tempo.spans) == 1, collector.log
            )
    (resource, first), (_, plain) = stack.loki.records
    for sent in (str(first), str(stack.tempo.spans[0][1])):
        assert "hunter" not in sent
        assert "4242" not in sent
        assert "AKIA" not in sent
        assert "eyJ" not in sent
    attributes = {pair.key: pair.value.string_value for pair in first.attributes}
    assert {name: attributes[name] for name in kept} == kept
    assert first.body.string_value.startswith("login with ")
    assert plain.body.string_value == "plain"
    names = {pair.key: pair.value.string_value for pair in resource.attributes}
    assert names["host.name"] == os.uname().nodename
    assert names["service.name"] == "shop"


def test_a_balancer_sends_all_spans_of_a_trace_to_one_gateway(tmp_path: Path) -> None:
    ids = [os.urandom(16) for _ in range(50)]
    with Stack() as stack:
        tempos = [Tempo(), Tempo()]
        addresses = [stack.enter_context(serving_grpc(tempo, stack.loki)) for tempo in tempos]
        resolver = f"yaml:exporters::load_balancing::resolver: {{dns: null, static: {{hostnames: {addresses}}}}}"
        endpoint = f"yaml:exporters::otlp_grpc/gateways::endpoint: {addresses[0]}"
        files = ("base.yaml", "balancer.yaml", resolver, endpoint)
        with shipped_collector(tmp_path, files, {"GATEWAY_INSECURE": "true"}) as collector:
            for part in ("parent", "child"):
                collector.post("traces", traces(span(part, trace) for trace in ids))
            collector.post("logs", logs(["hello"]))
            eventually(lambda: sum(len(tempo.spans) for tempo in tempos) == 100, collector.log)
            eventually(lambda: len(stack.loki.ids) == 1, collector.log)
    found = [sorted(span.trace_id for _, span in tempo.spans) for tempo in tempos]
    assert all(found), "one gateway got everything"
    assert all(spans[::2] == spans[1::2] for spans in found), "a trace was torn apart"


def test_a_collector_for_development_prints_what_it_receives(tmp_path: Path) -> None:
    with shipped_collector(tmp_path, ["development.yaml"], {}) as collector:
        collector.post("logs", logs(["order placed"]))
        collector.post("traces", traces([span("GET /orders", os.urandom(16))]))
        eventually(lambda: {"order placed", "GET /orders"} <= shown(collector.log), collector.log)


def shown(log: Path) -> set[str]:
    text = log.read_text()
    return {name for name in ("order placed", "GET /orders") if name in text}


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.skipif(not kafka.is_available(), reason=f"no Kafka: {kafka.HOW}")
def test_kafka_loses_nothing_when_the_broker_is_killed_and_the_queue_behind_it_is_full(
    tmp_path: Path,
) -> None:
    consumer = (*GATEWAY, "kafka-consumer.yaml")
    for name in ("producer", "consumer"):
        (tmp_path / name).mkdir()
    with Stack() as stack, kafka.Broker(tmp_path / "kafka") as broker:
        variables = stack.variables(KAFKA_BROKER=broker.address)
        small = {**variables, "QUEUE_BYTES": "3000000"}  # it must hold the largest batch

        def send(part: int) -> None:
            for n in range(part * 1000, part * 1000 + 1000, 100):
                names = range(n, n + 100)
                producer.post("logs", logs(f"log-{i} {'x' * 2000}" for i in names))
                made = (span(f"span-{i}", os.urandom(16), text="x" * 2000) for i in names)
                producer.post("traces", traces(made))

        files = ("base.yaml", "kafka-producer.yaml")
        with shipped_collector(tmp_path / "producer", files, variables) as producer:
            send(0)  # before the consumer has ever been there
            with shipped_collector(tmp_path / "consumer", consumer, small) as reader:
                send(1)
                eventually(lambda: "refused" in reader.log.read_text(), reader.log)  # by Loki
                broker.kill()
                send(2)
                broker.start()
                send(3)
                stack.start()
                eventually(
                    lambda: len(stack.loki.ids) == 4000 and len(stack.tempo.ids) == 4000,
                    reader.log,
                )
