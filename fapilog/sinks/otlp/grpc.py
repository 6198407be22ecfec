"""Sends OTLP over gRPC, with one unary call per batch and one channel for all calls.

The channel is created at the first call and not when the sink is opened, because gRPC's threads
would not survive if the process forked in between.  Specification:
https://opentelemetry.io/docs/specs/otlp/#otlpgrpc
"""

from __future__ import annotations

import os
import re
import ssl
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlsplit

from fapilog import native
from fapilog.errors import ConfigurationError, RetryableError, TooLargeError
from fapilog.native import monotonic
from fapilog.otlp.classify import grpc_error, outcome, size_limit
from fapilog.process.fork import GRPC
from fapilog.sinks.http.proxies import environment_proxy
from fapilog.sinks.http.tls import ClientTLS, authorities, untrusted
from fapilog.sinks.otlp.options import USER_AGENT

try:
    import grpc
    import grpc._channel  # imported early, so that no fork can happen during the import
except ImportError as error:
    msg = "protocol='grpc' needs gRPC: pip install 'fapilog[grpc]', or use protocol='http/protobuf'"
    raise ConfigurationError(msg) from error

if TYPE_CHECKING:
    from fapilog.protocols import Outcome
    from fapilog.sinks.http.proxies import Proxy
    from fapilog.sinks.otlp.options import OTLPOptions

_DETAILS: Final = "grpc-status-details-bin"
#: The details of gRPC's error contain ``_UNTRUSTED`` if OpenSSL does not trust the certificate,
#: and ``_REFUSED_BY_PROXY`` if the proxy refuses the credentials.
_UNTRUSTED: Final = "CERTIFICATE_VERIFY_FAILED"
_REFUSED_BY_PROXY: Final = "HTTP proxy returned response code 407"
#: ``grpc_proxy`` is the environment variable for a proxy that only gRPC uses.  The variable
#: ``no_grpc_proxy`` contains the hosts for which gRPC uses no proxy.
_GRPC_VARIABLES: Final = ("grpc_proxy", "no_grpc_proxy")

#: gRPC's own environment variable for the path of the certificate authorities to trust.
_ROOTS_VARIABLE: Final = "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"

_LIMIT_KEPT: Final = 60.0  # a server's size limit is remembered for this many seconds

_CHANNEL_OPTIONS: Final = [
    ("grpc.max_send_message_length", 64 << 20),
    ("grpc.max_receive_message_length", 4 << 20),
    ("grpc.primary_user_agent", USER_AGENT),
    ("grpc.enable_retries", 0),  # fapilog itself retries
    ("grpc.max_reconnect_backoff_ms", 5000),  # the default is two minutes
    # Without this option, a channel in a forked child would share its parent's connection.
    ("grpc.use_local_subchannel_pool", 1),
]

# Matches the header names that can be sent over gRPC.  Names with the prefix grpc- are reserved.
# Names that end in -bin have binary values, which the option ``headers`` cannot contain.
# Source: https://grpc.github.io/grpc/core/md_doc__p_r_o_t_o_c_o_l-_h_t_t_p2.html
_METADATA_KEY: Final = re.compile(r"(?!grpc-)[0-9a-z_.-]+(?<!-bin)")

# Matches gRPC targets of the form host or host:port.  Only these targets work with a proxy, unlike
# targets such as unix:PATH or dns:///HOST.
_HOST_AND_PORT: Final = re.compile(r"(?:[\w.-]+|\[[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*\])(?::\d+)?")

# The channels that a forked child inherited from its parent.  They stay in this list, because
# destroying them would affect the parent's connections.
_inherited: list[Any] = []


class GRPCTransport:
    """Sends requests as gRPC calls of the signal's method ``Export``.

    Thread-safe; all threads share one channel.

    Raises:
        ConfigurationError: a header, a certificate or the proxy in the environment is invalid.
    """

    def __init__(self, options: OTLPOptions) -> None:
        for name in options.headers:
            if not _METADATA_KEY.fullmatch(name):
                msg = f"headers: {name!r} cannot be sent over gRPC; leave it out"
                raise ConfigurationError(msg, "headers")
        self._options = options
        proxy, self._proxy_arguments = _proxy_of(options)
        self._clean = partial(options.conceal, proxy=proxy)
        self._metadata = tuple(options.headers.items())
        self._compression = (
            grpc.Compression.Gzip
            if options.compression == "gzip"
            else grpc.Compression.NoCompression
        )
        self._channel: grpc.Channel | None = None
        self._call: Any = None
        # The server's size limit in bytes, and the time until which the limit is remembered.
        self._limit: tuple[int, float] | None = None
        # The channel that was discarded when the certificates were last renewed.
        self._replaced: grpc.Channel | None = None
        self._connecting = native.Lock()
        # ClientTLS reads the certificate files.  So an invalid file is reported when the sink is
        # opened, and not only when a call fails.
        self._tls = ClientTLS(options, ssl.create_default_context) if options.is_secure else None

    def _connected(self) -> Any:
        with self._connecting:
            if self._call is None:
                self._channel = self._open()
                self._call = self._channel.unary_unary(self._options.signal.method, None, None)
            return self._call

    def _open(self) -> grpc.Channel:
        options = self._options
        arguments = [*_CHANNEL_OPTIONS, *self._proxy_arguments]
        if options.is_secure:
            credentials = grpc.ssl_channel_credentials(
                _read(_authorities(options)),
                _read(options.client_key or options.client_certificate),
                _read(options.client_certificate),
            )
            return grpc.secure_channel(options.target, credentials, arguments)
        return grpc.insecure_channel(options.target, arguments)

    def export(self, body: bytes, count: int, timeout: float) -> Outcome | None:
        """Send ``body``, a request of ``count`` records, within ``timeout`` seconds.

        The result and the errors are described in ``fapilog.protocols.Sink.send``.
        """
        self._check_size(body)
        try:
            with GRPC:
                call = self._call or self._connected()
                answer = call(
                    body, timeout=timeout, metadata=self._metadata, compression=self._compression
                )
        except grpc.RpcError as error:
            self._follow_certificates()
            trailers = {item.key: item.value for item in error.trailing_metadata() or ()}
            details = error.details() or ""
            failure = grpc_error(
                "UNAUTHENTICATED" if _REFUSED_BY_PROXY in details else error.code().name,
                untrusted(details, self._options) if _UNTRUSTED in details else details,
                trailers.get(_DETAILS, b""),
                is_compressed=self._options.compression == "gzip",
                source=self._options.shown,
                clean=self._clean,
            )
            if isinstance(failure, TooLargeError):
                self._learn_limit(details, len(body))
            raise failure from error
        return outcome(answer, count, clean=self._clean)

    def _check_size(self, body: bytes) -> None:
        limit, until = self._limit or (len(body), 0.0)
        if len(body) > limit and monotonic() < until:
            msg = f"{self._options.shown}: {len(body)} bytes exceed the server's limit of {limit}"
            raise TooLargeError(msg)

    def _learn_limit(self, details: str, size: int) -> None:
        limit = size_limit(details)
        # Remember the limit only if the error contains this request's size.  Otherwise, the server
        # has compared the limit with the compressed size, or the limit belongs to another server.
        if limit is not None and str(size) in details:
            self._limit = limit, monotonic() + _LIMIT_KEPT

    def _follow_certificates(self) -> None:
        """After a failed call, discard the channel if the certificates have been renewed.

        Other threads may still use the discarded channel, so it is not closed before the next
        renewal.
        """
        if self._tls is None or not self._tls.renew():
            return
        with GRPC, self._connecting:
            oldest, self._replaced = self._replaced, self._channel
            self._channel = self._call = None
            if oldest is not None:
                oldest.close()

    def close(self) -> None:
        """Close the channel."""
        for channel in (self._channel, self._replaced):
            if channel is not None:
                channel.close()
        self._channel = self._call = self._replaced = None

    def after_fork(self) -> None:
        """Discard the parent's channel without closing it.  The next call creates a new channel."""
        self._connecting = native.Lock()
        if self._channel is not None or self._replaced is not None:
            _inherited.append((self._channel, self._call, self._replaced))
            self._channel = self._call = self._replaced = None


def _proxy_of(options: OTLPOptions) -> tuple[Proxy | None, list[tuple[str, Any]]]:
    """Return the proxy for the backend (or None), and the options that a channel needs for it.

    The proxy is chosen by the same rules as for HTTP.  The rules of gRPC apply only if the target
    has a form that only gRPC supports, or if a proxy variable for gRPC is set.

    Raises:
        ConfigurationError: the proxy cannot be used.
    """
    url = f"{'https' if options.is_secure else 'http'}://{options.target}"
    if not _is_host_and_port(options.target, url) or any(map(os.environ.get, _GRPC_VARIABLES)):
        return None, []
    proxy = environment_proxy(url)
    if proxy is None:
        return None, [("grpc.enable_http_proxy", 0)]
    scheme, _, address = proxy.url.partition("://")
    if scheme != "http":
        msg = (
            "gRPC cannot reach the environment's proxy by https: give its URL as "
            "http://host:port, or use protocol='http/protobuf'"
        )
        raise ConfigurationError(msg)
    pair = f"{quote(proxy.username, safe='')}:{quote(proxy.password, safe='')}"
    return proxy, [("grpc.http_proxy", f"http://{f'{pair}@' if pair != ':' else ''}{address}")]


def _is_host_and_port(target: str, url: str) -> bool:
    try:
        return bool(_HOST_AND_PORT.fullmatch(target)) and urlsplit(url).port != 0
    except ValueError:  # a port above 65535, which gRPC itself reports
        return False


def _authorities(options: OTLPOptions) -> str | None:
    """Return the path of the certificate authorities to trust, or None to let gRPC choose them."""
    if not options.certificate and os.environ.get(_ROOTS_VARIABLE):
        return None
    path, _ = authorities(options)
    return path if path and not Path(path).is_dir() else None  # gRPC cannot read a directory


def _read(path: str | None) -> bytes | None:
    """Return the contents of a file, or None if ``path`` is None.

    Raises:
        RetryableError: the file cannot be read, but a later attempt may succeed.
    """
    try:
        return Path(path).read_bytes() if path else None
    except OSError as error:
        msg = f"{path}: {error.strerror or error}"
        raise RetryableError(msg) from error
