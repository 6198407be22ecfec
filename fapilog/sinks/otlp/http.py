"""OTLP over HTTP/1.1: one POST a batch, over connections that are kept.

Below the OTLP sink.  Specification: https://opentelemetry.io/docs/specs/otlp/#otlphttp
"""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING, Final

from fapilog.errors import PermanentError
from fapilog.otlp.classify import outcome
from fapilog.sinks.http.client import MAX_RESPONSE, HTTPClient
from fapilog.sinks.http.options import GZIP_LEVEL
from fapilog.sinks.otlp.options import USER_AGENT

if TYPE_CHECKING:
    import httpx

    from fapilog.protocols import Outcome
    from fapilog.sinks.otlp.options import OTLPOptions

_CONTENT_TYPES: Final = {"http/protobuf": "application/x-protobuf", "http/json": "application/json"}


class HTTPTransport:
    """Posts requests to one URL.  Thread-safe.

    Args:
        options: checked.
        transport: used in place of the network, for tests.

    Raises:
        ConfigurationError: the endpoint, a certificate or the environment's
            proxy cannot be used.
    """

    def __init__(self, options: OTLPOptions, transport: httpx.BaseTransport | None = None) -> None:
        headers = {"content-type": _CONTENT_TYPES[options.protocol]}
        self._is_compressed = options.compression == "gzip"
        if self._is_compressed:
            headers["content-encoding"] = "gzip"
        self._shown = options.shown
        self._client = HTTPClient(options, USER_AGENT, headers, transport)

    def export(self, body: bytes, count: int, timeout: float) -> Outcome | None:
        """Post a request of ``count`` records within ``timeout`` seconds; see ``Sink.send``."""
        if self._is_compressed:
            body = gzip.compress(body, GZIP_LEVEL, mtime=0)
        client = self._client
        answer = client.post(body, timeout)
        if answer.is_cut:
            msg = (
                f"{self._shown}: HTTP {answer.status}, an answer of more than {MAX_RESPONSE} bytes"
            )
            raise PermanentError(msg)
        if not answer.is_success:
            raise client.error_of(answer)
        if answer.problem:
            return client.unread(answer)
        return outcome(answer.body, count, content_type=answer.content_type, clean=client.clean)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def after_fork(self) -> None:
        """Leave the parent's connections to the parent; a transport of the user's is kept."""
        self._client.after_fork()
