"""A real Loki, and a fake one that checks pushes by Loki's rules.

The fake decodes pushes without the sink's code, with the json module and Google's
protobuf library, and refuses each push that Loki would refuse.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import re
import shutil
import signal
import ssl
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

import cramjam
import httpx
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.timestamp_pb2 import DESCRIPTOR as TIMESTAMP
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from typing_extensions import Self

from tests.support.ports import free_port

PUSH = "/loki/api/v1/push"
QUERY = "/loki/api/v1/query_range"
OTLP = "/otlp/v1/logs"
KB = 1024
#: The number of entries in one answer to a query.
PAGE = 500

#: The status, headers and body of an answer.
Answer = tuple[int, dict[str, str], bytes]
OK: Answer = (204, {}, b"")


class Entry(NamedTuple):
    """One line with its labels, time and metadata, hashable."""

    labels: frozenset[tuple[str, str]]
    time: int
    line: str
    metadata: frozenset[tuple[str, str]]

    @property
    def values(self) -> dict[str, str]:
        """The metadata as a dict."""
        return dict(self.metadata)


def entry_of(labels: dict[str, str], when: int, line: str, metadata: dict[str, str]) -> Entry:
    return Entry(frozenset(labels.items()), when, line, frozenset(metadata.items()))


# ---- decoding of pushes


def _message(name: str, *fields: tuple[str, int, int, str]) -> descriptor_pb2.DescriptorProto:
    message = descriptor_pb2.DescriptorProto(name=name)
    for field, number, label, kind in fields:
        made = message.field.add(name=field, number=number, label=label)
        if kind == "string":
            made.type = descriptor_pb2.FieldDescriptorProto.TYPE_STRING
        else:
            made.type = descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE
            made.type_name = kind
    return message


def _push_request() -> Any:
    """Return the class of ``PushRequest`` in github.com/grafana/loki/pkg/push/push.proto."""
    file = descriptor_pb2.FileDescriptorProto(name="push.proto", package="logproto")
    file.syntax = "proto3"
    file.dependency.append(TIMESTAMP.name)
    file.message_type.extend(
        [
            _message("PushRequest", ("streams", 1, 3, ".logproto.Stream")),
            _message("Stream", ("labels", 1, 1, "string"), ("entries", 2, 3, ".logproto.Entry")),
            _message(
                "Entry",
                ("timestamp", 1, 1, ".google.protobuf.Timestamp"),
                ("line", 2, 1, "string"),
                ("metadata", 3, 3, ".logproto.Pair"),
            ),
            _message("Pair", ("name", 1, 1, "string"), ("value", 2, 1, "string")),
        ]
    )
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(TIMESTAMP.serialized_pb)
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("logproto.PushRequest"))


PushRequest = _push_request()
_LABEL = re.compile(r'\s*([a-zA-Z_]\w*)="((?:[^"\\\n]|\\.)*)"\s*(,|$)', re.ASCII)


def parse_labels(text: str) -> dict[str, str]:
    """Parse ``{a="b", c="d"}``; Go and JSON share the escapes in use."""
    assert text.startswith("{"), text
    assert text.endswith("}"), text
    inside, labels, at = text[1:-1], {}, 0
    while at < len(inside):
        match = _LABEL.match(inside, at)
        assert match, text
        labels[match[1]] = json.loads(f'"{match[2]}"')
        at = match.end()
    return labels


def decode_json(body: bytes) -> Iterator[tuple[dict[str, str], list[Entry]]]:
    for stream in json.loads(body, object_pairs_hook=unique)["streams"]:
        labels = stream["stream"]
        entries = []
        for when, line, *rest in stream["values"]:
            metadata = rest[0] if rest else {}
            assert len(rest) <= 1
            assert isinstance(when, str)
            assert all(isinstance(text, str) for text in metadata.values())
            entries.append(entry_of(labels, int(when), line, metadata))
        yield labels, entries


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    assert len({name for name, _ in pairs}) == len(pairs), "a name occurs twice"
    return dict(pairs)


def decode_protobuf(body: bytes) -> Iterator[tuple[dict[str, str], list[Entry]]]:
    request = PushRequest.FromString(body)
    for stream in request.streams:
        labels = parse_labels(stream.labels)
        yield (
            labels,
            [
                entry_of(
                    labels,
                    entry.timestamp.seconds * 1_000_000_000 + entry.timestamp.nanos,
                    entry.line,
                    unique([(pair.name, pair.value) for pair in entry.metadata]),
                )
                for entry in stream.entries
            ],
        )


def decode_request(headers: Any, body: bytes) -> list[tuple[dict[str, str], list[Entry]]]:
    """Decode a push by its headers."""
    kind, encoding = headers.get("content-type"), headers.get("content-encoding")
    if kind == "application/json":
        assert encoding == "gzip"
        return list(decode_json(gzip.decompress(body)))
    assert (kind, encoding) == ("application/x-protobuf", None)
    return list(decode_protobuf(bytes(cramjam.snappy.decompress_raw(body))))


# ---- Loki's rules


def normal_name(name: str) -> str:
    """Return Loki 3.7's name for ``name``.

    Raises:
        ValueError: Loki refuses the name.
    """
    clean = re.sub(r"[^a-zA-Z0-9]+", "_", name)
    if clean[:1].isdigit():
        clean = f"key_{clean}"
    if not clean.strip("_"):
        raise ValueError(name)
    return clean


def check_labels(labels: dict[str, str]) -> None:
    assert 0 < len(labels) <= 15
    for name, value in labels.items():
        assert re.fullmatch(r"[a-zA-Z_][a-zA-Z0-9_]*", name), name
        assert len(name.encode()) <= 1024
        assert 0 < len(value.encode()) <= 2048


def check_entry(entry: Entry) -> None:
    names = [name for name, _ in entry.metadata]
    assert len(entry.line.encode()) <= 256 * KB
    assert len(names) <= 128
    assert sum(len(n.encode()) + len(v.encode()) for n, v in entry.metadata) <= 64 * KB
    assert len({*map(normal_name, names)}) == len(names)
    assert all(normal_name(name) == name for name in names), names
    assert not {name for name, _ in entry.labels} & {*names}, "a label hides this entry"


def refuse_metadata(entries: list[Entry]) -> Answer | None:
    """Answer as a Loki whose ``limits_config.allow_structured_metadata`` is false.

    Source: pkg/validation/validate.go and pkg/util/errors/errors.go of Loki 3.7.6.
    """
    return refuse(
        entries,
        lambda entry: (
            f"stream '{label_string(entry)}' includes structured metadata, but this feature is "
            "disallowed. Please see `limits_config.allow_structured_metadata` or contact your "
            "Loki administrator to enable it"
            if entry.metadata
            else ""
        ),
    )


def refuse_metadata_2_8(entries: list[Entry]) -> Answer | None:
    """Answer as Loki 2.8, which cannot parse a third value (pkg/loghttp/entry.go)."""
    words = b"error reading entry: array must contains 2 values, error found in #10 byte of ...\n"
    return (400, {}, words) if any(entry.metadata for entry in entries) else None


def refuse(entries: list[Entry], why: Callable[[Entry], str]) -> Answer | None:
    """Answer as Loki, which groups equal reasons; None if no entry has a reason."""
    reasons = Counter(filter(None, map(why, entries)))
    is_one = reasons.total() == 1
    said = [
        words if is_one else f"{count} errors like: {words}" for words, count in reasons.items()
    ]
    return (400, {}, "; ".join(said).encode() + b"\n") if said else None


def label_string(entry: Entry) -> str:
    """Return the labels in Prometheus notation."""
    pairs = sorted(entry.labels)
    return "{" + ", ".join(f"{name}={json.dumps(value)}" for name, value in pairs) + "}"


class FakeLoki:
    """Accepts pushes on a free port of loopback.

    Args:
        respond: returns the answer to a push, or None for the usual answer.
        ssl_context: the TLS settings for https.
        port: the port, or 0 for a free one.

    Attributes:
        streams: the entries by the labels of their stream, in the order of arrival.
        requests: the headers of every push, with names in lower case.
    """

    def __init__(
        self,
        respond: Callable[[list[Entry]], Answer | None] = lambda entries: None,
        *,
        ssl_context: ssl.SSLContext | None = None,
        port: int = 0,
    ) -> None:
        self.respond = respond
        self.streams: dict[frozenset[tuple[str, str]], list[Entry]] = {}
        self.requests: list[dict[str, str]] = []
        self.failures: list[BaseException] = []
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                status, extra, answer = outer.push(self.path, headers, body)
                self.send_response(status)
                for name, value in extra.items():
                    self.send_header(name, value)
                if status != 204:
                    self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *args: object) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        scheme = "http"
        if ssl_context is not None:
            self._server.socket = ssl_context.wrap_socket(self._server.socket, server_side=True)
            scheme = "https"
        self.url = f"{scheme}://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    @property
    def entries(self) -> list[Entry]:
        """All entries, by stream, in the order of arrival."""
        return [entry for entries in self.streams.values() for entry in entries]

    def push(self, path: str, headers: dict[str, str], body: bytes) -> Answer:
        if path != PUSH:
            return 404, {}, b"404 page not found"
        try:
            with self._lock:
                self.requests.append(headers)
                streams = decode_request(headers, body)
                answer = self.respond([entry for _, entries in streams for entry in entries])
                if answer is not None:
                    return answer
                for labels, entries in streams:
                    check_labels(labels)
                    for entry in entries:
                        check_entry(entry)
                    assert [e.time for e in entries] == sorted(e.time for e in entries)
                    self.streams.setdefault(frozenset(labels.items()), []).extend(entries)
        except BaseException as error:
            self.failures.append(error)
            return 400, {}, repr(error).encode()
        return OK

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        if exc[0] is None and self.failures:
            raise self.failures[0]


class QueriedLoki(FakeLoki):
    """Also takes OTLP and answers queries.  Each tenant has its own entries.

    Args:
        needs_tenant: whether a request without a tenant is refused, as with ``auth_enabled``.
        read_tenant: returns the tenant that is read when a query names one, as a gateway may.
        misses: the number of queries that do not find an entry yet.
        keeps: whether accepted entries are stored.
        refuses_reads: the status of every query, or 0 to answer them.
        ssl_context: the TLS settings for https.
    """

    def __init__(
        self,
        *,
        needs_tenant: bool = False,
        read_tenant: Callable[[str], str] = lambda tenant: tenant,
        misses: int = 0,
        keeps: bool = True,
        refuses_reads: int = 0,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        super().__init__(ssl_context=ssl_context)
        self.tenants: dict[str, list[Entry]] = {}
        self._needs_tenant = needs_tenant
        self._read_tenant = read_tenant
        self._misses = misses
        self._keeps = keeps
        self._refuses_reads = refuses_reads

    def push(self, path: str, headers: dict[str, str], body: bytes) -> Answer:
        tenant = headers.get("x-scope-orgid", "")
        if self._needs_tenant and not tenant and path in {PUSH, QUERY, OTLP}:
            return 401, {"content-type": "text/plain; charset=utf-8"}, b"no org id\n"
        if path == QUERY:
            return self._query(self._read_tenant(tenant), dict(parse_qsl(body.decode())))
        if path == OTLP:
            entries = list(decode_otlp(body))
        elif path == PUSH and body == b'{"streams":[]}':
            return OK
        else:
            answer = super().push(path, headers, body)
            if answer != OK:
                return answer
            entries = [entry for _, found in decode_request(headers, body) for entry in found]
        if self._keeps:
            self.tenants.setdefault(tenant, []).extend(entries)
        return OK

    def _query(self, tenant: str, form: dict[str, str]) -> Answer:
        if self._refuses_reads:
            return self._refuses_reads, {}, b"authentication error: invalid scope requested\n"
        found = [
            entry
            for entry in self.tenants.get(tenant, [])
            if int(form["start"]) <= entry.time < int(form["end"])
            and selects(form["query"], dict(entry.labels))
        ][: int(form["limit"])]
        if self._misses:
            self._misses -= 1
            found = []
        streams = [
            {
                "stream": dict([*entry.labels, *entry.metadata]),
                "values": [[str(entry.time), entry.line]],
            }
            for entry in found
        ]
        document = {"status": "success", "data": {"resultType": "streams", "result": streams}}
        return 200, {"content-type": "application/json"}, json.dumps(document).encode()


def decode_otlp(body: bytes) -> Iterator[Entry]:
    """Return the entries that Loki makes from an OTLP request."""
    for group in ExportLogsServiceRequest.FromString(body).resource_logs:
        resource = {one.key: one.value.string_value for one in group.resource.attributes}
        labels = {"service_name": resource.get("service.name", "unknown_service")}
        for scope in group.scope_logs:
            for log in scope.log_records:
                metadata = {normal_name(one.key): one.value.string_value for one in log.attributes}
                yield entry_of(labels, log.time_unix_nano, log.body.string_value, metadata)


def selects(query: str, labels: dict[str, str]) -> bool:
    """Return whether ``query``, a selector such as ``{a="b", c=~".+"}``, selects the labels."""
    assert re.fullmatch(r'\{\w+=~?"[^"]*"(, \w+=~?"[^"]*")*\}', query), query
    return all(
        re.fullmatch(value if is_pattern else re.escape(value), labels.get(name, ""))
        for name, is_pattern, value in re.findall(r'(\w+)=(~?)"([^"]*)"', query)
    )


# ---- the real one

CONFIGURATION = """
auth_enabled: false
analytics: {{reporting_enabled: false}}
server:
  http_listen_address: 127.0.0.1
  http_listen_port: {http}
  grpc_listen_address: 127.0.0.1
  grpc_listen_port: {grpc}
  log_level: error
common:
  path_prefix: {directory}
  replication_factor: 1
  ring: {{instance_addr: 127.0.0.1, kvstore: {{store: inmemory}}}}
  storage:
    filesystem: {{chunks_directory: {directory}/chunks, rules_directory: {directory}/rules}}
memberlist: {{bind_addr: [127.0.0.1], bind_port: {gossip}}}
frontend: {{address: 127.0.0.1}}
ingester: {{lifecycler: {{min_ready_duration: 0s}}}}
schema_config:
  configs:
    - from: 2024-01-01
      store: tsdb
      object_store: filesystem
      schema: v13
      index: {{prefix: index_, period: 24h}}
"""

WHERE = (
    "Loki is not installed: put `loki` on PATH or its path into LOKI_BIN (a release from "
    "https://github.com/grafana/loki/releases, or `go install ./cmd/loki` in its repository)"
)


class RealLoki:
    """Grafana Loki with its data in ``directory``; a test can kill and restart it."""

    def __init__(self, directory: Path) -> None:
        found = os.environ.get("LOKI_BIN") or shutil.which("loki")
        if not found:
            pytest.skip(WHERE)
        self._program = found
        self._log = directory / "loki.log"
        http = free_port()
        self.url = f"http://127.0.0.1:{http}"
        self._configuration = directory / "loki.yaml"
        self._configuration.write_text(
            CONFIGURATION.format(
                http=http, grpc=free_port(), gossip=free_port(), directory=directory
            )
        )
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start Loki and wait until it is ready."""
        with self._log.open("ab") as log:
            command = [self._program, f"-config.file={self._configuration}"]
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        deadline = time.monotonic() + 120
        while True:
            assert self._process.poll() is None, self._log.read_text()[-2000:]
            assert time.monotonic() < deadline, "Loki does not get ready"
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(f"{self.url}/ready", trust_env=False).status_code == 200:
                    return
            time.sleep(0.3)

    def kill(self) -> None:
        """Kill Loki, as a crash would."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def query(self, selector: str, start: int, end: int) -> set[Entry]:
        """Return the entries of streams from ``start`` to ``end``, in nanoseconds."""
        found: set[Entry] = set()
        while True:
            page = self._page(selector, start, end)
            before = len(found)
            found.update(page)
            if len(page) < PAGE or len(found) == before:
                return found
            start = max(entry.time for entry in page)

    def _page(self, selector: str, start: int, end: int) -> list[Entry]:
        """Return the first entries; an answer must fit into 4 MiB."""
        answer = httpx.get(
            f"{self.url}/loki/api/v1/query_range",
            params={
                "query": selector,
                "start": str(start),
                "end": str(end),
                "limit": str(PAGE),
                "direction": "forward",
            },
            headers={"X-Loki-Response-Encoding-Flags": "categorize-labels"},
            timeout=60,
            trust_env=False,
        )
        assert answer.status_code == 200, answer.text
        return [
            entry_of(one["stream"], int(when), line, extra.get("structuredMetadata", {}))
            for one in answer.json()["data"]["result"]
            for when, line, extra in one["values"]
        ]

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.kill()
