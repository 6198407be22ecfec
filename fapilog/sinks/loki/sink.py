"""The Loki sink: sends records to Grafana Loki's push API.

Only the severity and some resource attributes become labels, so Loki has few streams.  All
other fields become structured metadata, by which Grafana can filter.
Specification: https://grafana.com/docs/loki/latest/reference/loki-http-api/#ingest-logs
"""

from __future__ import annotations

import time
import uuid
from functools import lru_cache
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Final

from fapilog.context import suppressed
from fapilog.errors import TooLargeError
from fapilog.otlp.classify import LOKI_RETRYABLE_STATUSES
from fapilog.otlp.encode import normal_copy
from fapilog.protocols import BatchLimits, DurableSink, Outcome
from fapilog.sinks.http.destination import credentials_in, describe_destination
from fapilog.sinks.http.options import CONCURRENCY, DEFAULT_TIMEOUT
from fapilog.sinks.loki.formats import JSONFormat, ProtobufFormat
from fapilog.sinks.loki.lines import LINES
from fapilog.sinks.loki.metadata import UID, identity, metadata_of, origin_of
from fapilog.sinks.loki.options import DEFAULT_LABELS, USER_AGENT, resolve

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import httpx

    from fapilog.record import LogRecord, Resource, Scope
    from fapilog.sinks.http import options as http_options
    from fapilog.sinks.http.client import HTTPClient
    from fapilog.sinks.loki import options as loki_options
    from fapilog.sinks.loki.formats import Format, Item
    from fapilog.sinks.loki.metadata import Room

#: The default limits of a batch; Loki accepts 4 MB per second from one tenant.
LIMITS: Final = BatchLimits(count=1000, size=1 << 20)
#: The maximum size of a request before compression, in bytes.  Loki's components limit the
#: messages between them to 4 MiB.
MAX_REQUEST: Final = 3 << 20

#: The maximum number of entries with the same time that are compared with each other.
_MAX_TWINS: Final = 1024
_NO_CONTENT: Final = 204

_stream, _time = itemgetter(0), itemgetter(1)


class LokiSink(DurableSink["Item"]):
    """Sends records to Grafana Loki.  ``send`` is thread-safe.

    Args:
        url: the URL of Loki or of a gateway in front of it; if it has no path, the sink
            adds ``/loki/api/v1/push``.  Credentials in the URL become basic authentication.
        tenant: the tenant, sent as ``X-Scope-OrgID``.
        username: the user name for basic authentication; requires ``password``.
        password: the password for basic authentication; never shown.
        token: the token sent as ``Authorization: Bearer``; never shown.
        headers: additional headers of every request; never shown.  Their ``Authorization``
            overrides the other credentials.
        format: the encoding of a request: ``"json"`` (default), gzipped, or
            ``"protobuf"``, compressed with snappy, which needs the extra ``fapilog[loki]``.
        line: the format of an entry's line: ``"message"`` (default) is the body, followed
            by an exception's stack trace; ``"json"`` and ``"logfmt"`` also contain the
            attributes.
        labels: the names of the resource attributes that become labels, up to 15, which
            may include ``"severity"`` (TRACE, DEBUG, INFO, WARN, ERROR or FATAL).  All
            other fields become structured metadata.
        timeout: the time limit for one request, in seconds.
        certificate: the path of a PEM file with the authorities to trust for https.
        client_key: the path of a PEM file with the client's unencrypted key.
        client_certificate: the path of a PEM file with the client's certificate chain.
        limits: the limits at which a batch is sent.
        concurrency: the maximum number of simultaneous requests, 1 to 64.  With more than
            one, requests may arrive in another order.
        name: the sink's name in the ledger and in messages.
        transport: an httpx transport to use instead of the network, for tests.

    Redirects are not followed, so headers never reach another host.  Name resolution by
    the system can exceed the time limit.  Certificate files are reloaded after a renewal.

    Raises:
        ConfigurationError: an option is wrong, or ``format`` needs a package that is not
            installed.
    """

    def __init__(
        self,
        url: str,
        *,
        tenant: str | None = None,
        username: str | None = None,
        password: str | None = None,
        token: str | None = None,
        headers: Mapping[str, str] | None = None,
        format: loki_options.Format = "json",  # noqa: A002 - the option's usual name
        line: loki_options.Line = "message",
        labels: Iterable[str] = DEFAULT_LABELS,
        timeout: float = DEFAULT_TIMEOUT,
        certificate: http_options.FilePath | None = None,
        client_key: http_options.FilePath | None = None,
        client_certificate: http_options.FilePath | None = None,
        limits: BatchLimits | None = None,
        concurrency: int = 1,
        name: str = "loki",
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.options = resolve(
            url,
            tenant=tenant,
            username=username,
            password=password,
            token=token,
            headers=headers,
            format=format,
            line=line,
            labels=labels,
            timeout=timeout,
            certificate=certificate,
            client_key=client_key,
            client_certificate=client_certificate,
        )
        self.name = name
        self.limits = limits or LIMITS
        CONCURRENCY.check("concurrency", concurrency)
        self.concurrency = concurrency
        encoder: Format = ProtobufFormat() if format == "protobuf" else JSONFormat()
        self._format = encoder
        self.wire_format = encoder.wire_format
        self.destination = describe_destination(
            f"Loki {format}", self.options, tenant=self.options.tenant
        )
        self.credentials = credentials_in(self.options)
        self._given_transport = transport
        self._client: HTTPClient | None = None
        self._line = LINES[line]
        self._origin = lru_cache(maxsize=1024)(self._encode_origin)
        self._identity = lru_cache(maxsize=1024)(lambda *ids: encoder.shared(identity(*ids)))
        self._moment = 0  # the time of the last entry
        self._entry = b""  # the first entry of this time
        self._twins: set[bytes] = set()  # all entries of this time, if there are several

    def __repr__(self) -> str:
        options = self.options
        return f"LokiSink({options.shown!r}, format={options.format!r}, name={self.name!r})"

    def open(self) -> None:
        """Load the HTTP client and the certificates.  Makes no connection.

        Raises:
            ConfigurationError: the URL, a certificate or the environment's proxy is wrong.
        """
        from fapilog.sinks.http.client import HTTPClient  # noqa: PLC0415 - loads httpx

        options, headers = self.options, dict(self._format.headers)
        if options.tenant:
            headers["x-scope-orgid"] = options.tenant
        self._client = HTTPClient(
            options,
            USER_AGENT,
            headers,
            self._given_transport,
            LOKI_RETRYABLE_STATUSES,
            refuses_long=False,
        )

    def encode(self, record: LogRecord) -> Item:
        """Return the stream, the time and the entry of ``record``.  Not thread-safe."""
        if not record.size:
            record = normal_copy(record)  # no pipeline has processed the record
        stream, shared, room = self._origin(
            record.resource, record.scope, record.severity_number, record.severity_text
        )
        shared += self._identity(
            record.trace_id, record.span_id, record.trace_flags, record.event_name
        )
        observed = record.observed_timestamp
        moment = record.timestamp or observed or time.time_ns()
        line, attributes = self._line(record)
        metadata = metadata_of(record, attributes, room)
        entry = self._format.entry(moment, line, observed or moment, metadata, shared)
        if moment != self._moment:
            self._moment, self._entry, self._twins = moment, entry, set()
        elif self._has_twin(entry):
            metadata[UID] = uuid.uuid4().hex
            entry = self._format.entry(moment, line, observed or moment, metadata, shared)
        return stream, moment, entry

    def _has_twin(self, entry: bytes) -> bool:
        """Return whether an equal entry has the same time; Loki would keep only one of them."""
        twins = self._twins
        if not twins or len(twins) >= _MAX_TWINS:
            self._twins = twins = {self._entry}
        has_twin = entry in twins
        twins.add(entry)
        return has_twin

    def _encode_origin(
        self, resource: Resource, scope: Scope, number: int, text: str
    ) -> tuple[bytes, bytes, Room]:
        """Return the encoded labels and metadata that records share, and the space for others."""
        labels, metadata, room = origin_of(resource, scope, number, text, self.options.labels)
        return self._format.stream(labels), self._format.shared(metadata), room

    def send(self, batch: Sequence[Item], timeout: float) -> Outcome | None:
        """Send one request.  Blocks up to ``timeout`` seconds or the sink's own limit.

        Sending a batch again is harmless, because Loki keeps only one of several equal entries.

        Raises:
            SendError: the batch was not delivered; see :meth:`fapilog.protocols.Sink.send`.
        """
        streams: dict[bytes, list[Item]] = {}
        for item in batch:
            streams.setdefault(item[0], []).append(item)
        request = self._format.request(
            (stream, [entry for _, _, entry in sorted(items, key=_time)])
            for stream, items in streams.items()
        )
        if len(request) > MAX_REQUEST:
            msg = f"a request of {len(request)} bytes exceeds the limit of {MAX_REQUEST}"
            raise TooLargeError(msg)
        with suppressed():
            return self._post(self._format.compress(request), timeout)

    def _post(self, body: bytes, timeout: float) -> Outcome | None:
        if self._client is None:
            self.open()
        client = self._client
        assert client is not None  # noqa: S101 - open() has set it
        answer = client.post(body, min(timeout, self.options.timeout))
        if answer.problem:
            return Outcome(0, answer.problem)
        if answer.status == _NO_CONTENT:
            return None
        said = f"HTTP {answer.status} instead of {_NO_CONTENT}; does the URL lead to Loki?"
        return Outcome(0, f"{self.options.shown}: {said}")

    def pack(self, items: Sequence[Item]) -> bytes:
        """Return a push request with the encoded records in their order."""
        return self._format.request(
            (stream, [entry for _, _, entry in entries])
            for stream, entries in groupby(items, _stream)
        )

    def unpack(self, packed: bytes) -> list[Item]:
        """Return the encoded records of a request made by :meth:`pack`.

        Raises:
            ValueError: ``packed`` was not made by :meth:`pack`.
        """
        return self._format.split(packed)

    def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def after_fork(self) -> None:
        """Abandon the parent's connections; the next ``send`` opens new ones."""
        if self._client is not None:
            self._client.after_fork()
