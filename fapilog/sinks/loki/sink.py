"""Sends records to the push API of Grafana Loki.

Only the severity and some resource attributes become labels, so Loki has few streams.  All other
fields become structured metadata, by which Grafana can filter.  Specification:
https://grafana.com/docs/loki/latest/reference/loki-http-api/#ingest-logs
"""

from __future__ import annotations

import re
import time
import uuid
from functools import lru_cache, partial
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Final, NamedTuple

from fapilog.context import suppressed
from fapilog.diagnostics import announce
from fapilog.errors import PermanentError, TooLargeError
from fapilog.native import monotonic
from fapilog.otlp.classify import LOKI_RETRYABLE_STATUSES
from fapilog.otlp.encode import normal_copy
from fapilog.process.give_way import give_way
from fapilog.protocols import BatchLimits, DurableSink, Outcome
from fapilog.sinks.http.destination import credentials_in, describe_destination
from fapilog.sinks.http.options import CONCURRENCY, DEFAULT_TIMEOUT
from fapilog.sinks.loki.formats import InLine, JSONFormat, ProtobufFormat
from fapilog.sinks.loki.lines import LINES, metadata_line
from fapilog.sinks.loki.metadata import UID, identity, metadata_of, origin_of
from fapilog.sinks.loki.options import DEFAULT_LABELS, USER_AGENT, resolve

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import httpx

    from fapilog.record import LogRecord, Resource, Scope
    from fapilog.sinks.http import options as http_options
    from fapilog.sinks.http.client import HTTPClient
    from fapilog.sinks.loki import options as loki_options
    from fapilog.sinks.loki.formats import Format, Item
    from fapilog.sinks.loki.metadata import Room

#: The default limits of a batch.  The maximum size is about a quarter of the 4 MB that Loki
#: accepts from one tenant per second.
LIMITS: Final = BatchLimits(count=1000, size=1 << 20)
#: The maximum size of a request before compression, in bytes.  It is below 4 MiB, the limit for
#: the messages between Loki's components.
MAX_REQUEST: Final = 3 << 20

#: To detect equal entries with the same time, the sink stores at most this number of entries.
_MAX_TWINS: Final = 1024
_NO_CONTENT: Final = 204
#: Each time the sink has moved the metadata of this many entries into their lines, it pauses, so
#: that the application's threads can run.
_SLICE: Final = 64
#: The minimum time limit in seconds for the request that the sink sends after Loki has refused
#: structured metadata.
_LEAST: Final = 0.1

_stream, _time = itemgetter(0), itemgetter(1)


class MetadataRefusedError(PermanentError):
    """Loki accepts no structured metadata, and has stored no entry of the request."""


#: The messages with which Loki refuses structured metadata.  Loki 2.9 and later versions respond
#: with the first message, earlier versions with the second message.  Sources:
#: https://github.com/grafana/loki/blob/v3.7.6/pkg/validation/validate.go and
#: https://github.com/grafana/loki/blob/v2.8.0/pkg/loghttp/entry.go
_REFUSALS: Final = (
    (
        re.compile(
            "includes structured metadata, but this feature is disallowed"
            "|error reading entry: array must contains 2 values"
        ),
        MetadataRefusedError,
    ),
)


class _Encoding(NamedTuple):
    """The encoder of entries, and two functions that cache encoded metadata.

    To change the encoder, the sink replaces the tuple in one assignment, so that ``encode`` never
    combines metadata and entries of different encoders.
    """

    format: Format | InLine
    origin: Callable[[Resource, Scope, int, str], tuple[bytes, bytes, Room]]
    identity: Callable[[str, str, int, str], bytes]


class LokiSink(DurableSink["Item"]):
    """Sends records to Grafana Loki.  ``send`` is thread-safe.

    Args:
        url: the URL of Loki or of a gateway in front of it; if it has no path, the sink
            adds ``/loki/api/v1/push``.  Credentials in the URL become basic authentication.
        tenant: the tenant, sent as ``X-Scope-OrgID``.
        username: the user name for basic authentication; requires ``password``.
        password: the password for basic authentication; never shown.
        token: the token sent as ``Authorization: Bearer``; never shown.
        headers: additional headers of every request; never shown.  An
            ``Authorization`` header in this mapping overrides the other credentials.
        format: the encoding of a request: ``"json"`` (default), gzipped, or
            ``"protobuf"``, compressed with snappy, which needs the extra ``fapilog[loki]``.
        line: the format of an entry's line: ``"message"`` (default) is the body, followed
            by an exception's stack trace; ``"json"`` and ``"logfmt"`` also contain the
            attributes.
        labels: the labels of the streams, up to 15: names of resource attributes,
            ``"severity"`` (TRACE, DEBUG, INFO, WARN, ERROR or FATAL), and static labels
            such as ``"env=prod"``.  A mapping, such as ``{"env": "prod"}``, adds static
            labels to the default labels.  All other fields become structured metadata.
        metadata: how the fields that are not labels are sent: ``"structured"``, as structured
            metadata; ``"line"``, in the line of the entry, if Loki accepts no structured metadata;
            ``"auto"`` (default), as structured metadata until Loki refuses it, then in the
            line.  If ``line="message"``, a line with these fields has the format logfmt.
        timeout: the time limit for one request, in seconds.
        certificate: the path of a PEM file with the authorities to trust for https.
        client_key: the path of a PEM file with the client's unencrypted key.
        client_certificate: the path of a PEM file with the client's certificate chain.
        limits: the limits at which a batch is sent.
        concurrency: the maximum number of simultaneous requests, 1 to 64.  If it is more
            than 1, records may arrive out of order.
        name: the sink's name in statistics and in messages.
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
        labels: loki_options.Labels = DEFAULT_LABELS,
        metadata: loki_options.Metadata = "auto",
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
            metadata=metadata,
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
        self._join = partial(metadata_line, line)
        self._is_in_line = metadata == "line"
        self._encoding = self._encoding_now()
        self._moment = 0  # the time of the entry that was encoded last
        self._entry = b""  # the first entry whose time is ``_moment``
        # Entries with the time ``_moment``.  The set is empty until a second entry has this time.
        self._twins: set[bytes] = set()

    def __repr__(self) -> str:
        options = self.options
        return f"LokiSink({options.shown!r}, format={options.format!r}, name={self.name!r})"

    def _encoding_now(self) -> _Encoding:
        encoder = InLine(self._format, self._join) if self._is_in_line else self._format

        def origin(
            resource: Resource, scope: Scope, number: int, text: str
        ) -> tuple[bytes, bytes, Room]:
            """Return the encoded labels and metadata that records with these arguments share.

            The third value is the space that is available for the attributes of each record.
            """
            if missing := self.options.missing_in(resource):
                self._announce("labels", f"a record's resource has no attribute {missing!r}")
            names, static = self.options.labels, self.options.static_labels
            labels, metadata, room = origin_of(resource, scope, number, text, names, static=static)
            return encoder.stream(labels), encoder.shared(metadata), room

        return _Encoding(
            encoder,
            lru_cache(maxsize=1024)(origin),
            lru_cache(maxsize=1024)(lambda *ids: encoder.shared(identity(*ids))),
        )

    def _announce(self, option: str, message: str) -> None:
        announce(f"loki {option} {self.name}", f"{self.name}: {option}: {message}")

    def check_resource(self, resource: Resource) -> None:
        """Check that ``resource`` has the attributes in ``labels``.

        Raises:
            ConfigurationError: an attribute is missing, and it is not one of the default labels.
        """
        self.options.check_resource(resource)

    def open(self) -> None:
        """Load the HTTP client and the certificates.  Makes no connection.

        Raises:
            ConfigurationError: the URL, a certificate or the proxy in the environment is invalid.
        """
        from fapilog.sinks.http.client import HTTPClient  # noqa: PLC0415 - loads httpcore

        options, headers = self.options, dict(self._format.headers)
        if options.tenant:
            headers["x-scope-orgid"] = options.tenant
        self._client = HTTPClient(
            options,
            USER_AGENT,
            headers,
            self._given_transport,
            LOKI_RETRYABLE_STATUSES,
            refusals=_REFUSALS,
            refuses_long=False,
        )

    def encode(self, record: LogRecord) -> Item:
        """Return the encoded labels of the record's stream, its time and its encoded entry.

        Not thread-safe.
        """
        if not record.size:
            record = normal_copy(record)  # the size is 0, so no pipeline has corrected the record
        encoder, origin, identity_of = self._encoding
        stream, shared, room = origin(
            record.resource, record.scope, record.severity_number, record.severity_text
        )
        shared += identity_of(
            record.trace_id, record.span_id, record.trace_flags, record.event_name
        )
        observed = record.observed_timestamp
        moment = record.timestamp or observed or time.time_ns()
        line, attributes = self._line(record)
        metadata = metadata_of(record, attributes, room)
        entry = encoder.entry(moment, line, observed or moment, metadata, shared)
        if moment != self._moment:
            self._moment, self._entry, self._twins = moment, entry, set()
        elif self._has_twin(entry):
            metadata[UID] = uuid.uuid4().hex
            entry = encoder.entry(moment, line, observed or moment, metadata, shared)
        return stream, moment, entry

    def _has_twin(self, entry: bytes) -> bool:
        """Return whether an equal entry with the same time was encoded before.

        Loki would store only one of two equal entries, so the second entry needs a unique id.
        """
        twins = self._twins
        if not twins or len(twins) >= _MAX_TWINS:
            self._twins = twins = {self._entry}
        has_twin = entry in twins
        twins.add(entry)
        return has_twin

    def send(self, batch: Sequence[Item], timeout: float) -> Outcome | None:
        """Send the batch as one request.  Blocks up to ``timeout`` seconds.

        A request ends earlier if ``options.timeout`` is shorter.  If Loki refuses structured
        metadata, a second request contains the metadata in the lines.  This request may take 0.1 s
        even if less time remains.  Sending a batch again is harmless, because Loki stores only one
        of several equal entries.

        Raises:
            SendError: the batch was not delivered; see :meth:`fapilog.protocols.Sink.send`.
        """
        deadline = monotonic() + timeout
        with suppressed():
            if not self._is_in_line:
                try:
                    return self._push(batch, timeout)
                except MetadataRefusedError as error:
                    if self.options.metadata != "auto":
                        raise
                    self._use_line(error)
            batch = self._in_line(batch)
            return self._push(batch, max(deadline - monotonic(), _LEAST))

    def _use_line(self, error: MetadataRefusedError) -> None:
        """Put the metadata of all later records into their lines.

        ``error``, with which Loki refused structured metadata, is reported on stderr.
        """
        if not self._is_in_line:
            self._is_in_line = True
            self._encoding = self._encoding_now()
            parser = "json" if self.options.line == "json" else "logfmt"
            self._announce(
                "metadata",
                "Loki accepts no structured metadata, so it is in the line from now on; "
                f"query it with | {parser}; set metadata='line' to avoid the refused request, or "
                f"let Loki accept it (schema v13 and allow_structured_metadata): {error}",
            )

    def _in_line(self, batch: Sequence[Item]) -> list[Item]:
        """Return the batch with the metadata of each entry in its line.

        Some entries may already contain their metadata in the line, because other entries of the
        batch were encoded before the call of :meth:`_use_line`.
        """
        items: list[Item] = []
        for start in range(0, len(batch), _SLICE):
            for stream, moment, entry in batch[start : start + _SLICE]:
                items.append((stream, moment, self._format.in_line(entry, self._join)))
            give_way()
        return items

    def _push(self, batch: Sequence[Item], timeout: float) -> Outcome | None:
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
        """Return a push request that contains the encoded records in the order of ``items``."""
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
        """Discard the parent's connections.  The next ``send`` opens new connections."""
        if self._client is not None:
            self._client.after_fork()
