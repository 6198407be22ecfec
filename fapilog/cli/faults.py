"""Names the reason why a sink did not deliver a record, with a line to copy that corrects it.

The reason is found in the backend's answer, in what listens at the sink's address (see
:mod:`fapilog.cli.listener`), and in the answers of the paths that OTLP receivers and Loki usually
have.
"""

from __future__ import annotations

import os
import re
import ssl
from dataclasses import replace
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import SplitResult, urlsplit, urlunsplit

from fapilog.cli.listener import Listener, Speaks, listener_at
from fapilog.cli.settings_lines import LOGS_PATH, SettingsLines
from fapilog.errors import ConfigurationError, SendError
from fapilog.otlp.classify import outcome
from fapilog.sinks.http.client import HTTPClient
from fapilog.sinks.http.proxies import environment_proxy
from fapilog.sinks.http.tls import client_context, default_context
from fapilog.sinks.loki.options import PUSH_PATH
from fapilog.sinks.loki.sink import LokiSink
from fapilog.sinks.otlp.options import GRPC, USER_AGENT
from fapilog.sinks.otlp.sink import OTLPSink

if TYPE_CHECKING:
    from fapilog.sinks.http.options import HTTPOptions

LOKI_OTLP_PATH: Final = f"/otlp{LOGS_PATH}"
NO_TENANT: Final = "no org id"  # Loki's words if a request names no tenant
NOT_OTLP: Final = "the answer is not OTLP"

_STATUS: Final = re.compile(r": HTTP (\d{3})\b")
_CODE: Final = re.compile(r": gRPC ([A-Z_]+)")
#: The codes of gRPC that a client also reports if no gRPC server has answered.
_UNANSWERED: Final = frozenset({"UNAVAILABLE", "DEADLINE_EXCEEDED", "UNKNOWN", "INTERNAL"})
#: gRPC's words about an answer of an HTTP server that is not a gRPC server.
_NOT_GRPC: Final = "http2 header with status"
_DENIED: Final = frozenset({"401", "403", "UNAUTHENTICATED", "PERMISSION_DENIED"})
_NOWHERE: Final = frozenset({"404", "405", "501"})
#: The HTTP statuses of a server that knows the path, but refuses an empty request.
_CHECKED: Final = frozenset({"400", "401", "403", "415", "422", "429"})
_EXPIRED: Final = (9, 10)  # OpenSSL's codes for a certificate that is not valid yet, or expired
_STEP: Final = 2.0  # the longest wait for one connection or request of this module, in seconds
_SCHEMES: Final = {False: "http", True: "https"}
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")


class Fault(NamedTuple):
    """The reason why a sink did not deliver a record.

    Attributes:
        name: a name that scripts may compare, such as ``"nobody-listens"``.
        words: the reason in a sentence without a full stop.
        fix: a line to copy, which may contain a placeholder such as ``TOKEN``; or "".
    """

    name: str
    words: str
    fix: str = ""


def find_fault(sink: object, failure: object, lines: SettingsLines, timeout: float) -> Fault | None:
    """Return the reason why ``sink`` did not deliver a record, or None if it is not known.

    Blocks while it asks the backend, up to some seconds.

    Args:
        sink: the sink.
        failure: the exception that the sink raised, or the text of the backend.
        lines: makes the lines to copy for this sink.
        timeout: the time limit of one connection or request; never more than two seconds.
    """
    if isinstance(sink, LokiSink | OTLPSink):
        return _Search(sink, failure, lines, min(timeout, _STEP)).fault()
    return None


def lost(lines: SettingsLines) -> Fault:
    """Return the fault of a Loki that accepted a record but does not find it again."""
    return Fault(
        "not-found-again",
        "Loki does not find the record that it has accepted: a gateway stores it for another "
        "tenant than the one that is queried, or Loki drops it",
        lines.tenant("TENANT"),
    )


class _Search:
    """Searches the fault of one sink after one failed request."""

    def __init__(
        self, sink: LokiSink | OTLPSink, failure: object, lines: SettingsLines, timeout: float
    ) -> None:
        self._options: HTTPOptions = sink.options
        self._is_loki = isinstance(sink, LokiSink)
        self._is_grpc = getattr(sink.options, "protocol", "") == GRPC
        self._is_json = getattr(sink.options, "protocol", "") == "http/json"
        self._tenant = sink.options.tenant if isinstance(sink, LokiSink) else ""
        self._items = "logs" if isinstance(sink, LokiSink) else sink.signal.name
        self._name = "Loki" if self._is_loki else "the backend"
        self._lines = lines
        self._timeout = timeout
        self._words = str(failure)
        found = (_CODE if self._is_grpc else _STATUS).search(self._words)
        self._answer = found[1] if found else ""
        is_secure = self._options.is_secure
        endpoint = self._options.endpoint
        if "://" not in endpoint:  # a target of gRPC, such as localhost:4317
            endpoint = f"{_SCHEMES[is_secure]}://{endpoint}"
        self._url: SplitResult = urlsplit(endpoint)
        self._is_secure = is_secure

    def fault(self) -> Fault | None:
        """Return the fault, or None."""
        if "HTTP 407" in self._words or "response code 407" in self._words:
            return Fault(
                "proxy-credentials",
                "the proxy wants credentials",
                f"{_SCHEMES[self._is_secure].upper()}_PROXY=http://USER:PASSWORD@HOST:PORT",
            )
        is_answered = self._answer not in ("", "400", *_UNANSWERED)
        if NOT_OTLP in self._words and not self._is_grpc:
            return self._wrong_path()
        if not is_answered:
            return self._fault_of_network()
        if self._answer in _DENIED:
            return self._denied()
        if self._is_grpc and self._answer == "UNIMPLEMENTED":
            return self._unimplemented()
        return self._wrong_path() if self._answer in _NOWHERE else None

    # ---- what listens at the address

    @property
    def _host(self) -> str:
        return self._url.hostname or ""

    @property
    def _port(self) -> int:
        return self._url.port or _DEFAULT_PORTS[self._url.scheme]

    @property
    def _address(self) -> str:
        if self._url.scheme not in _DEFAULT_PORTS:
            return self._options.shown  # another target of gRPC, such as dns:///HOST
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{host}:{self._port}"

    def _fault_of_network(self) -> Fault | None:
        if not re.fullmatch(r"[^/:]+|[^/:]+:\d+|\[[^]]+\](:\d+)?", self._url.netloc):
            return None  # another target of gRPC, such as unix:PATH
        if self._has_proxy():
            return Fault(
                "proxy",
                f"the request for {self._host} goes through the proxy in the environment: check "
                "the proxy, or exempt the host from it",
                f"NO_PROXY={self._host}",
            )
        listener = listener_at(self._host, self._port, self._timeout, self._trust())
        return (
            self._unreachable(listener)
            or self._wrong_protocol(listener)
            or self._wrong_tls(listener.speaks)
            or self._distrust(listener)
            or self._slow()
        )

    def _has_proxy(self) -> bool:
        if self._is_grpc and os.environ.get("grpc_proxy"):  # noqa: SIM112 - gRPC's own name
            return True
        try:
            return environment_proxy(self._url.geturl()) is not None
        except ConfigurationError:
            return True

    def _trust(self) -> ssl.SSLContext | None:
        if not self._is_secure:
            return None
        default = ssl.create_default_context if self._is_grpc else default_context
        return client_context(default, self._options)

    def _unreachable(self, listener: Listener) -> Fault | None:
        speaks, address = listener.speaks, self._address
        if speaks is Speaks.UNKNOWN_HOST:
            return Fault(
                "unknown-host",
                f"no such host is known: {self._host}; check the name",
                self._lines.url(self._url_of("HOST", self._port)),
            )
        if speaks is Speaks.UNREACHABLE:
            return Fault(
                "unreachable",
                f"no connection to {address} is possible: a firewall blocks it, or the host is "
                "down or wrong",
                self._lines.url(self._url_of("HOST", self._port)),
            )
        if speaks is Speaks.SILENT:
            return Fault(
                "no-answer",
                f"something listens at {address} but does not answer: a slow backend, or a port "
                "of another protocol",
                self._lines.url(self._url_of(self._host, self._lines.usual_port)),
            )
        if speaks is not Speaks.NOBODY:
            return None
        inside = "; in a container, localhost is the container itself"
        return Fault(
            "nobody-listens",
            f"nobody listens at {address}: start {self._name}, or set its address"
            f"{inside if self._host in _LOOPBACK else ''}",
            self._lines.url(self._url_of(self._neighbour(), self._lines.usual_port)),
        )

    def _neighbour(self) -> str:
        """Return this host if the sink's usual port speaks the sink's protocol, else HOST."""
        usual = self._lines.usual_port
        if usual == self._port:
            return "HOST"
        speaks = listener_at(self._host, usual, self._timeout).speaks
        fits = (speaks.is_grpc, speaks.is_tls) == (self._is_grpc, self._is_secure)
        return self._host if speaks.is_known and fits else "HOST"

    def _url_of(self, host: str, port: int, *, is_secure: bool | None = None) -> str:
        scheme = _SCHEMES[self._is_secure if is_secure is None else is_secure]
        name = f"[{host}]" if ":" in host else host
        path = "" if self._is_grpc else self._url.path
        return urlunsplit((scheme, f"{name}:{port}", path, "", ""))

    def _wrong_protocol(self, listener: Listener) -> Fault | None:
        speaks, address = listener.speaks, self._address
        is_wrong_tls = speaks.is_tls != self._is_secure
        url = self._url_of(self._host, self._port, is_secure=speaks.is_tls)
        # A server that accepts both versions of HTTP may be a proxy in front of a gRPC server.
        is_http = speaks in {Speaks.HTTP, Speaks.HTTPS} and not listener.has_h2
        if self._is_grpc and is_http:
            url = url if is_wrong_tls or "://" not in self._options.endpoint else ""
            return Fault(
                "grpc-at-http-port",
                f"an HTTP server listens at {address}, but the sink speaks gRPC: change the "
                "protocol, or use the port for gRPC, usually 4317",
                self._with_protocol("http/protobuf", url and url + self._lines.path),
            )
        if self._is_grpc or not speaks.is_grpc:
            return None
        words = f"a gRPC server listens at {address}, but the sink speaks HTTP"
        if self._is_loki:
            fix = self._lines.url(self._url_of(self._host, self._lines.usual_port))
            return Fault("http-at-grpc-port", f"{words}: Loki's port for HTTP is 3100", fix)
        return Fault(
            "http-at-grpc-port",
            f"{words}: change the protocol, or use the port for HTTP, usually 4318",
            self._with_protocol("grpc", url.removesuffix(self._lines.path) if is_wrong_tls else ""),
        )

    def _wrong_tls(self, speaks: Speaks) -> Fault | None:
        if not speaks.is_known or speaks.is_tls == self._is_secure:
            return None
        fix = self._lines.url(self._url_of(self._host, self._port, is_secure=speaks.is_tls))
        words = f"the server at {self._address}"
        if speaks.is_tls:
            words += " expects TLS, but the endpoint does not use it: write https://"
            return Fault("plain-at-tls-port", words, fix)
        words += " does not use TLS, but the endpoint does: write http://"
        return Fault("tls-at-plain-port", words, fix)

    def _with_protocol(self, protocol: str, url: str) -> str:
        line = self._lines.option("protocol", protocol)
        return f"{line} {self._lines.url(url)}" if url else line

    def _distrust(self, listener: Listener) -> Fault | None:
        error = listener.distrust
        if error is None:
            return self._client_certificate(listener)
        said = error.verify_message
        if listener.hosts:
            hosts = ", ".join(listener.hosts)
            return Fault(
                "wrong-certificate",
                f"the server's certificate is for {hosts}, not for {self._host}: use a host name "
                "that is in it",
                self._lines.url(self._url_of(listener.hosts[0].replace("*", "HOST"), self._port)),
            )
        if error.verify_code in _EXPIRED:
            look = (
                f"openssl s_client -connect {self._address} </dev/null | openssl x509 -noout -dates"
            )
            return Fault("wrong-certificate", f"the server's certificate is outdated: {said}", look)
        return Fault(
            "wrong-certificate",
            f"a server listens at {self._address}, but its certificate is not trusted ({said}): "
            "name the file of the authority that signed it",
            self._lines.option("certificate", "/path/to/ca.pem"),
        )

    def _client_certificate(self, listener: Listener) -> Fault | None:
        if not listener.hangs_up or self._options.client_certificate:
            return None
        certificate = self._lines.option("client_certificate", "/path/to/client.pem")
        key = self._lines.option("client_key", "/path/to/client-key.pem")
        return Fault(
            "client-certificate",
            f"the server at {self._address} ends each connection after the TLS handshake: it "
            "probably wants a certificate of the client",
            f"{certificate} {key}",
        )

    def _slow(self) -> Fault | None:
        if "no complete answer" not in self._words and self._answer != "DEADLINE_EXCEEDED":
            return None
        return Fault(
            "no-answer",
            f"a server listens at {self._address}, but does not answer in time: it is slow or "
            "overloaded; try again with more time",
            "fapilog check --timeout 60",
        )

    # ---- what the backend answers

    def _denied(self) -> Fault:
        if NO_TENANT in self._words:
            words = "Loki has tenants, and the request names none in X-Scope-OrgID"
            return Fault("loki-tenant", words, self._lines.tenant("TENANT"))
        words = f"{self._name} refuses the credentials, or there are none"
        if self._is_loki:
            return Fault(
                "credentials",
                f"{words}: set a token, or a user and a password",
                self._lines.option("token", "TOKEN"),
            )
        return Fault("credentials", words, self._lines.header("authorization=Bearer%20TOKEN"))

    def _unimplemented(self) -> Fault:
        if _NOT_GRPC in self._words:
            return Fault(
                "grpc-at-http-port",
                f"an HTTP server answers at {self._address}, but the sink speaks gRPC: change the "
                "protocol, or use the port for gRPC, usually 4317",
                self._with_protocol("http/protobuf", ""),
            )
        return Fault(
            "wrong-port",
            f"the gRPC server at {self._address} takes no {self._items}: it is another server, or "
            "one that takes only other data, such as a collector without a pipeline for "
            f"{self._items}",
            self._lines.url(self._url_of("HOST", self._lines.usual_port)),
        )

    def _wrong_path(self) -> Fault:
        path = self._right_path()
        url = urlunsplit((self._url.scheme, self._url.netloc, path, "", ""))
        if path == LOKI_OTLP_PATH or path.endswith(LOKI_OTLP_PATH):
            return Fault(
                "loki-otlp-path",
                f"this is Loki, which takes OTLP below /otlp: {path}",
                self._lines.url(url),
            )
        if path.endswith(PUSH_PATH) and not self._is_loki:
            return Fault(
                "loki-without-otlp",
                "this is a Loki that takes no OTLP: use the sink loki",
                self._lines.sink(f"loki:{url.removesuffix(PUSH_PATH)}"),
            )
        if path.endswith(LOGS_PATH) and self._is_loki:
            return Fault(
                "not-loki",
                "this is not Loki, but it takes OTLP: use the sink otlp",
                self._lines.sink(f"otlp:{url.removesuffix(LOGS_PATH)}"),
            )
        if path:
            words = f"the path {self._url.path} is wrong: the server takes {self._items} at {path}"
            return Fault("wrong-path", words, self._lines.url(url))
        host = self._neighbour()
        target = urlsplit(self._url_of(host, self._lines.usual_port))
        usual = target._replace(path=self._lines.path).geturl()
        return Fault(
            "wrong-port",
            f"an HTTP server answers at {self._address}, but takes {self._items} at none of the "
            "usual paths: the port or the host is wrong, or a collector has no pipeline for "
            f"{self._items}",
            self._lines.url(usual),
        )

    def _right_path(self) -> str:
        """Return the first usual path at which this server accepts requests, or ""."""
        own = self._url.path
        bases = dict.fromkeys(
            (
                own.rstrip("/"),
                own.removesuffix(self._lines.path).removesuffix(PUSH_PATH).rstrip("/"),
                "",
            )
        )
        if self._is_loki:
            ends = [PUSH_PATH, LOGS_PATH]
        elif self._lines.path == LOGS_PATH:
            ends = [LOGS_PATH, LOKI_OTLP_PATH, PUSH_PATH]
        else:
            ends = [self._lines.path]
        paths = [base + end for end in ends for base in bases]
        paths.append("/insert" if self._is_loki else "/insert/opentelemetry")
        paths[-1] += self._lines.path
        return next(
            (path for path in dict.fromkeys(paths) if path != own and self._takes(path)), ""
        )

    def _takes(self, path: str) -> bool:
        """Return whether the server does not refuse an empty request at ``path`` as unknown."""
        is_json = self._is_json or path.endswith(PUSH_PATH)
        body = b'{"streams":[]}' if path.endswith(PUSH_PATH) else b"{}" if is_json else b""
        headers = {"content-type": "application/json" if is_json else "application/x-protobuf"}
        if self._tenant:
            headers["x-scope-orgid"] = self._tenant
        url = urlunsplit((self._url.scheme, self._url.netloc, path, "", ""))
        try:
            client = HTTPClient(replace(self._options, endpoint=url), USER_AGENT, headers)
        except ConfigurationError:
            return False
        try:
            answer = client.post(body, self._timeout)
        except SendError as error:
            status = _STATUS.search(str(error))
            return status is not None and status[1] in _CHECKED
        finally:
            client.close()
        if path.endswith(PUSH_PATH):
            return not answer.body
        said = outcome(answer.body, 1, content_type=answer.content_type)
        return said is None or NOT_OTLP not in said.message
