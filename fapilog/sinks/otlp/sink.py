"""The OTLP sink: records leave for a collector or any backend that speaks OTLP.

A record is encoded once, by its own bytes; a batch of these is framed into one
request and sent by the transport of the chosen protocol.  The transports, and
with them httpx and grpc, are imported when the sink is opened.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from fapilog.context import suppressed
from fapilog.errors import ConfigurationError, TooLargeError
from fapilog.otlp.decode import split_request
from fapilog.otlp.decode_json import split_request_json
from fapilog.otlp.encode import encode_in_order, encode_record, encode_request
from fapilog.otlp.encode_json import encode_in_order_json, encode_record_json, encode_request_json
from fapilog.protocols import BatchLimits, DurableSink, Outcome
from fapilog.sinks.http.destination import describe_destination
from fapilog.sinks.http.options import CONCURRENCY
from fapilog.sinks.otlp.options import GRPC, resolve

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import httpx

    from fapilog.otlp.encode import Item
    from fapilog.record import LogRecord
    from fapilog.sinks.http import options as http_options
    from fapilog.sinks.otlp import options as otlp_options

#: Bytes before compression; a larger request must not be made
#: (https://opentelemetry.io/docs/specs/otlp/#otlphttp-request).
MAX_REQUEST: Final = 64 << 20


class Transport(Protocol):
    """Carries encoded requests of several threads."""

    def export(self, body: bytes, count: int, timeout: float) -> Outcome | None:
        """Send a request of ``count`` records within ``timeout`` seconds; see ``Sink.send``."""
        ...

    def close(self) -> None:
        """Release connections."""
        ...

    def after_fork(self) -> None:
        """Forget connections of the parent process without touching them."""
        ...


class OTLPSink(DurableSink["Item"]):
    """Sends records by the OpenTelemetry protocol, as HTTP or gRPC.  Thread-safe.

    Every option left out is taken from the environment, by the specification:
    ``OTEL_EXPORTER_OTLP_LOGS_<OPTION>``, else ``OTEL_EXPORTER_OTLP_<OPTION>``
    (https://opentelemetry.io/docs/specs/otel/protocol/exporter/).

    Args:
        endpoint: URL of the backend, used as it is; without a path
            ``/v1/logs`` is added for HTTP.  For gRPC a URL or a gRPC target.
            Default: port 4318 (HTTP) or 4317 (gRPC) of localhost.
            Credentials in it become an ``Authorization`` header.
        protocol: ``"http/protobuf"`` (default), ``"http/json"`` or ``"grpc"``,
            which needs the extra ``fapilog[grpc]``.
        headers: sent with every request; never shown.
        timeout: seconds one request may take in all, default 10.  The
            variables are in milliseconds; 0 there means no limit of its own.
        compression: ``"gzip"`` or ``"none"`` (default).
        certificate: PEM file of the authorities to trust for https.
        client_key: PEM file of the client's key, unencrypted.
        client_certificate: PEM file of the client's certificate chain.
        insecure: gRPC to an endpoint without a scheme goes without TLS.
        limits: when a batch is sent.
        concurrency: requests under way at once, 1 to 64; with more than one
            they may arrive in another order.
        name: of the sink in the ledger and in messages.
        transport: an httpx transport to use in place of the network, for tests.

    Redirects are not followed, so headers never reach another host; name
    resolution takes as long as the system lets it.  Certificate files are read
    again when they are renewed.

    Raises:
        ConfigurationError: an option or a variable is wrong; names it and the fix.
    """

    def __init__(
        self,
        endpoint: str | None = None,
        protocol: otlp_options.Protocol | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        compression: otlp_options.Compression | None = None,
        certificate: http_options.FilePath | None = None,
        client_key: http_options.FilePath | None = None,
        client_certificate: http_options.FilePath | None = None,
        insecure: bool | None = None,
        limits: BatchLimits | None = None,
        concurrency: int = 1,
        name: str = "otlp",
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.options = resolve(
            endpoint=endpoint,
            protocol=protocol,
            headers=headers,
            timeout=timeout,
            compression=compression,
            certificate=certificate,
            client_key=client_key,
            client_certificate=client_certificate,
            insecure=insecure,
        )
        if transport is not None and self.options.protocol == GRPC:
            msg = "transport is for HTTP only: leave it out, or set protocol to http/protobuf"
            raise ConfigurationError(msg)
        self.name = name
        self.limits = limits or BatchLimits()
        CONCURRENCY.check("concurrency", concurrency)
        self.concurrency = concurrency
        self._given_transport = transport
        self._transport: Transport | None = None
        is_json = self.options.protocol == "http/json"
        self._encode_record = encode_record_json if is_json else encode_record
        self._encode_request = encode_request_json if is_json else encode_request
        self.wire_format = "otlp-json" if is_json else "otlp-protobuf"
        self.destination = describe_destination(f"OTLP {self.options.protocol}", self.options)
        self._pack = encode_in_order_json if is_json else encode_in_order
        self._unpack = split_request_json if is_json else split_request

    def __repr__(self) -> str:
        options = self.options
        return f"OTLPSink({options.shown!r}, {options.protocol!r}, name={self.name!r})"

    def open(self) -> None:
        """Load the transport and the certificates; connects to nothing.

        Raises:
            ConfigurationError: a certificate cannot be used, or the protocol
                needs a package that is not installed.
        """
        if self.options.protocol == GRPC:
            from fapilog.sinks.otlp.grpc import GRPCTransport  # noqa: PLC0415 - an extra

            self._transport = GRPCTransport(self.options)
        else:
            from fapilog.sinks.otlp.http import HTTPTransport  # noqa: PLC0415 - loads httpx

            self._transport = HTTPTransport(self.options, self._given_transport)

    def encode(self, record: LogRecord) -> Item:
        """Return where ``record`` belongs and its bytes.  Does not block."""
        return record.resource, record.scope, self._encode_record(record)

    def send(self, batch: Sequence[Item], timeout: float) -> Outcome | None:
        """Send one request; blocks up to ``timeout`` seconds or the sink's own limit.

        Raises:
            RetryableError: connection and time-out errors, and the answers the
                specification calls retryable.
            TooLargeError: the request exceeds the protocol's limit, or one of
                the backend.
            InvalidDataError: the backend refuses some of the records.
            PermanentError: any other answer.
        """
        body = self._encode_request(batch)
        if len(body) > MAX_REQUEST:
            msg = f"a request of {len(body)} bytes exceeds the protocol's limit of {MAX_REQUEST}"
            raise TooLargeError(msg)
        if self._transport is None:
            self.open()
        assert self._transport is not None  # noqa: S101 - open() has set it
        with suppressed():
            return self._transport.export(body, len(batch), min(timeout, self.options.timeout))

    def pack(self, items: Sequence[Item]) -> bytes:
        """Return encoded records as a request in their order."""
        return self._pack(items)

    def unpack(self, packed: bytes) -> list[Item]:
        """Return the encoded records of a request that :meth:`pack` has made.

        Raises:
            ValueError: ``packed`` is none.
        """
        return self._unpack(packed)

    def close(self) -> None:
        """Close the connections."""
        if self._transport is not None:
            self._transport.close()
            self._transport = None

    def after_fork(self) -> None:
        """Forget the parent's connections; the next ``send`` opens new ones."""
        if self._transport is not None:
            self._transport.after_fork()
