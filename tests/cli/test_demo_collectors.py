"""Collectors of other projects accept everything that ``fapilog demo`` sends."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from fapilog.cli.demo.traffic import SECRETS
from fapilog.cli.demo.verify import verify
from fapilog.cli.receiver import Receiver
from fapilog.delivery.ledger import Stats
from tests.support.collectors import Endpoints, opentelemetry_collector, rotel_agent

REQUESTS = 18
SECONDS = 110  # after which the demo counts as stuck

Collector = Callable[[Path, Receiver], AbstractContextManager[Endpoints]]


def run_demo(endpoint: str, protocol: str) -> tuple[int, int]:
    """Run the demo, and return the numbers of records in its ledger and of spans sent."""
    command = [sys.executable, "-c", "from fapilog.cli import main; main()", "demo"]
    done = subprocess.run(
        [*command, "--endpoint", endpoint, "--protocol", protocol, "--requests", str(REQUESTS)],
        check=False,
        capture_output=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
        timeout=SECONDS,
    )
    assert (done.returncode, done.stderr) == (0, "")
    found = re.search(
        r"(\d+) spans delivered.*accepted (\d+) = delivered \2 \+ rejected 0 \+ dropped 0",
        done.stdout,
        re.DOTALL,
    )
    assert found, done.stdout
    return int(found[2]), int(found[1])


@pytest.mark.parametrize("protocol", ["http/protobuf", "http/json", "grpc"])
@pytest.mark.parametrize(
    "collector",
    [
        pytest.param(rotel_agent, marks=pytest.mark.rotel),
        pytest.param(opentelemetry_collector, marks=pytest.mark.collector),
    ],
)
def test_every_record_of_the_demos_ledger_arrives_once_with_the_ids_of_its_span(
    tmp_path: Path, collector: Collector, protocol: str
) -> None:
    with Receiver() as behind:
        with collector(tmp_path, behind) as endpoints:
            records, span_count = run_demo(endpoints.of(protocol), protocol)
        logs, spans = behind.logs, behind.spans
    assert len(spans) == span_count
    findings = verify(Stats(records, records), logs, spans, SECRETS)
    assert [finding.text for finding in findings if not finding.passed] == []
    # As many as the ledger has, and all of them different.
    times_arrived = Counter(
        (log.record.time_unix_nano, log.trace_id, log.span_id, log.scope.name, str(log.body))
        for log in logs
    )
    assert set(times_arrived.values()) == {1}
    servers = {(s.trace_id, s.span_id) for s in spans if s.span.kind == Span.SPAN_KIND_SERVER}
    assert len(servers) == REQUESTS
    access = [(log.trace_id, log.span_id) for log in logs if log.scope.name == "uvicorn.access"]
    assert sorted(access) == sorted(servers)
