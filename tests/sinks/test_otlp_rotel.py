"""An independent OTLP implementation, rotel (in Rust), understands the requests.

Every record goes from the OTLP sink through rotel-agent to fapilog's receiver.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fapilog.cli.receiver import Receiver
from fapilog.record import LogRecord, Resource, Scope
from fapilog.sinks.otlp.options import Protocol
from fapilog.sinks.otlp.sink import OTLPSink
from tests.support.collectors import Endpoints, rotel_agent
from tests.support.otlp_servers import opened

pytestmark = pytest.mark.rotel


@pytest.fixture(scope="module")
def behind() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory, behind: Receiver) -> Iterator[Endpoints]:
    with rotel_agent(tmp_path_factory.mktemp("rotel"), behind) as endpoints:
        yield endpoints


@pytest.mark.parametrize("compression", ["none", "gzip"])
@pytest.mark.parametrize("protocol", ["http/protobuf", "http/json", "grpc"])
def test_a_record_comes_through_unchanged(
    agent: Endpoints, behind: Receiver, protocol: Protocol, compression: str
):
    sent = LogRecord(
        timestamp=1_700_000_000_000_000_001,
        observed_timestamp=1_700_000_000_000_000_002,
        severity_number=17,
        severity_text="ERROR",
        body=f"{protocol} {compression} ✓ \u2028",
        attributes={
            "int": -(2**63),
            "double": 0.1,
            "bool": False,
            "empty": "",
            "none": None,
            "bytes": b"\x00\xff",
            "nested": {"list": [1, "two", [3.0]], "dict": {"": {}, "none": None}},
            "long": "x" * 20_000,
        },
        trace_id="0af7651916cd43dd8448eb211c80319c",
        span_id="b7ad6b7169203331",
        trace_flags=1,
        scope=Scope("app.orders", "2.0"),
        resource=Resource({"service.name": "web", "n": 1}),
        dropped_attributes_count=3,
    )
    sink = OTLPSink(agent.of(protocol), protocol, compression=compression)  # type: ignore[arg-type]
    seen = len(behind.logs)
    with opened(sink):
        assert sink.send([sink.encode(sent)] * 3, 10) is None
    assert behind.wait_for(seen + 3, 20)
    for log in behind.logs[seen:]:
        assert log.body == sent.body
        assert log.attributes == sent.attributes
        assert (log.severity_number, log.severity_text) == (17, "ERROR")
        assert (log.trace_id, log.span_id) == (sent.trace_id, sent.span_id)
        assert log.record.flags == 1
        assert log.record.time_unix_nano == sent.timestamp
        assert log.record.observed_time_unix_nano == sent.observed_timestamp
        assert log.record.dropped_attributes_count == 3
        assert (log.scope.name, log.scope.version) == ("app.orders", "2.0")
        assert log.resource == {"service.name": "web", "n": 1}
