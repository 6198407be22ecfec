"""Sends records or spans to a collector or to any other backend that supports OTLP.

A sink encodes each record once, and sends a batch of encoded records as one request.  The
transport, which loads httpcore or grpc, is imported when the sink is opened.
"""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING, ClassVar, Final

from fapilog.context import suppressed
from fapilog.errors import ConfigurationError, RetryableError, TooLargeError
from fapilog.otlp.classify import outcome
from fapilog.otlp.encode import in_order
from fapilog.protocols import BatchLimits, DurableSink, Outcome
from fapilog.sinks.http.destination import credentials_in, describe_destination
from fapilog.sinks.http.options import CONCURRENCY, GZIP_LEVEL
from fapilog.sinks.otlp.options import GRPC, USER_AGENT, resolve, with_port_hint
from fapilog.sinks.otlp.signal import LOGS, TRACES, Signal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import httpx

    from fapilog.otlp.encode import Item
    from fapilog.record import LogRecord
    from fapilog.sinks.http import options as http_options
    from fapilog.sinks.otlp import options as otlp_options
    from fapilog.sinks.otlp.grpc import GRPCTransport

#: The protocol's size limit for a request before compression, in bytes
#: (https://opentelemetry.io/docs/specs/otlp/#otlphttp-request).
MAX_REQUEST: Final = 64 << 20

_CONTENT_TYPES: Final = {"http/protobuf": "application/x-protobuf", "http/json": "application/json"}


class OTLPSink(DurableSink["Item"]):
    """Sends records with the OpenTelemetry protocol, over HTTP or gRPC.  Thread-safe.

    According to the specification, an option that is not passed comes from the variable
    ``OTEL_EXPORTER_OTLP_LOGS_<OPTION>`` or, if it is not set, ``OTEL_EXPORTER_OTLP_<OPTION>``
    (https://opentelemetry.io/docs/specs/otel/protocol/exporter/).

    Args:
        endpoint: the URL of the backend, or a gRPC target.  For HTTP, the sink adds
            ``/v1/logs`` to a URL without a path.  The default is port 4318 (HTTP) or 4317
            (gRPC) of localhost.  Credentials in the URL become an ``Authorization`` header.
        protocol: the protocol: ``"http/protobuf"`` (default), ``"http/json"`` or
            ``"grpc"``, which needs the extra ``fapilog[grpc]``.
        headers: additional headers for every request; messages never show them.
        timeout: the time limit for one request in seconds, by default 10.  The variables
            contain milliseconds, or 0 for no limit.
        compression: the compression of requests, ``"gzip"`` or ``"none"`` (default).
        certificate: the path of a PEM file with the certificate authorities to trust.
        client_key: the path of a PEM file with the client's unencrypted private key.
        client_certificate: the path of a PEM file with the client's certificate chain.
        insecure: whether to use gRPC without TLS if the endpoint has no scheme.
        limits: the limits at which a batch is sent.
        concurrency: the maximum number of simultaneous requests, 1 to 64.  If it is more than
            1, records may arrive out of order.
        name: the sink's name in statistics and in messages.
        transport: an httpx transport to use instead of the network, for tests.

    Redirects are not followed, so headers are never sent to another host.  Only the system's
    name resolution can exceed the time limit.  Certificate files are reloaded after a renewal.

    Raises:
        ConfigurationError: an option or variable is invalid.
    """

    signal: ClassVar[Signal] = LOGS

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
            self.signal,
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
        self.destination = describe_destination(f"OTLP {self.options.protocol}", self.options)
        self.credentials = credentials_in(self.options)
        self._given_transport = transport
        self._transport: _HTTPTransport | GRPCTransport | None = None
        is_json = self.options.protocol == "http/json"
        self._encoding = self.signal.json if is_json else self.signal.protobuf
        self.wire_format = self._encoding.wire_format

    def __repr__(self) -> str:
        options = self.options
        return f"{type(self).__name__}({options.shown!r}, {options.protocol!r}, name={self.name!r})"

    def open(self) -> None:
        """Load the transport and the certificates.  Makes no connection.

        Raises:
            ConfigurationError: a certificate or the proxy in the environment is invalid, or the
                protocol needs a package that is not installed.
        """
        if self.options.protocol == GRPC:
            from fapilog.sinks.otlp.grpc import GRPCTransport  # noqa: PLC0415 - optional

            self._transport = GRPCTransport(self.options)
        else:
            self._transport = _HTTPTransport(self.options, self._given_transport)

    def encode(self, record: LogRecord) -> Item:
        """Return the record's resource, its scope and the encoded record."""
        return record.resource, record.scope, self._encoding.encode(record)

    def send(self, batch: Sequence[Item], timeout: float) -> Outcome | None:
        """Send one request.  Blocks for at most ``timeout`` seconds.

        The request ends earlier if ``options.timeout`` is shorter.

        Raises:
            SendError: the batch was not delivered; see :meth:`fapilog.protocols.Sink.send`.
        """
        body = self._encoding.encode_request(batch)
        if len(body) > MAX_REQUEST:
            msg = f"a request of {len(body)} bytes exceeds the protocol's limit of {MAX_REQUEST}"
            raise TooLargeError(msg)
        if self._transport is None:
            self.open()
        assert self._transport is not None  # noqa: S101 - open() has set it
        try:
            with suppressed():
                return self._transport.export(body, len(batch), min(timeout, self.options.timeout))
        except RetryableError as error:
            error.args = (with_port_hint(str(error)),)
            raise

    def pack(self, items: Sequence[Item]) -> bytes:
        """Return a request that contains the encoded records in the order of ``items``."""
        return self._encoding.encode_request(items, in_order)

    def unpack(self, packed: bytes) -> list[Item]:
        """Return the encoded records in a request that :meth:`pack` returned.

        Raises:
            ValueError: ``packed`` is not such a request.
        """
        return self._encoding.split_request(packed)

    def close(self) -> None:
        """Close all connections."""
        if self._transport is not None:
            self._transport.close()
            self._transport = None

    def after_fork(self) -> None:
        """Discard the parent's connections.  The next ``send`` opens new connections."""
        if self._transport is not None:
            self._transport.after_fork()


class OTLPSpanSink(OTLPSink):
    """Sends spans (:class:`fapilog.span.Span`) with the OpenTelemetry protocol.  Thread-safe.

    The arguments are those of :class:`OTLPSink`.  The variables are
    ``OTEL_EXPORTER_OTLP_TRACES_<OPTION>`` and ``OTEL_EXPORTER_OTLP_<OPTION>``, and the path of
    HTTP backends is ``/v1/traces``.

    Raises:
        ConfigurationError: an option or variable is invalid.
    """

    signal = TRACES


class _HTTPTransport:
    """Sends OTLP requests over HTTP.  Thread-safe.

    Specification: https://opentelemetry.io/docs/specs/otlp/#otlphttp
    """

    def __init__(
        self, options: otlp_options.OTLPOptions, transport: httpx.BaseTransport | None
    ) -> None:
        from fapilog.sinks.http.client import HTTPClient  # noqa: PLC0415 - loads httpcore

        headers = {"content-type": _CONTENT_TYPES[options.protocol]}
        self._is_compressed = options.compression == "gzip"
        if self._is_compressed:
            headers["content-encoding"] = "gzip"
        self._client = HTTPClient(options, USER_AGENT, headers, transport)
        self.close = self._client.close
        self.after_fork = self._client.after_fork

    def export(self, body: bytes, count: int, timeout: float) -> Outcome | None:
        if self._is_compressed:
            body = gzip.compress(body, GZIP_LEVEL, mtime=0)
        client = self._client
        answer = client.post(body, timeout)
        if answer.problem:
            return Outcome(0, answer.problem)
        return outcome(answer.body, count, content_type=answer.content_type, clean=client.clean)
