"""Makes lines that a user can copy to change an option of a sink, such as its URL.

A line has the form ``NAME=VALUE``, so it works in a shell before a command, after ``export``, and
in a file of environment variables.
"""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from fapilog.cli.terminal import mask_url
from fapilog.sinks.loki.options import PUSH_PATH
from fapilog.sinks.loki.sink import LokiSink
from fapilog.sinks.otlp.options import GRPC
from fapilog.sinks.otlp.signal import LOGS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fapilog.sinks.otlp.sink import OTLPSink

LOGS_PATH: Final = LOGS.path
#: The ports on which the backends of the sinks usually listen.
_PORTS: Final = {"grpc": 4317, "otlp": 4318, "loki": 3100}


class SettingsLines:
    """Makes the lines for one sink.

    Args:
        sink: the sink.
        specs: the names of all configured sinks, such as ``("file:PATH", "otlp:URL")``.
        position: the position of this sink's name in ``specs``, or -1 if ``specs`` is empty.
        is_argument: whether ``specs`` comes from the command line and not from the settings.
    """

    def __init__(
        self,
        sink: OTLPSink | LokiSink,
        specs: Sequence[str] = (),
        position: int = -1,
        *,
        is_argument: bool = False,
    ) -> None:
        self._is_loki = isinstance(sink, LokiSink)
        self._is_grpc = not self._is_loki and sink.options.protocol == GRPC  # type: ignore[union-attr]
        self._variables = LOGS.variables
        #: The usual path of the backend: of Loki, or of OTLP for the sink's signal.
        self.path = PUSH_PATH
        if not isinstance(sink, LokiSink):
            self._variables, self.path = sink.signal.variables, sink.signal.path
        self._specs = list(specs)
        self._position = position
        self._is_argument = is_argument

    @property
    def usual_port(self) -> int:
        """The port on which the sink's backend usually listens."""
        return _PORTS["loki" if self._is_loki else "grpc" if self._is_grpc else "otlp"]

    def sink(self, spec: str) -> str:
        """Return the line that replaces this sink by the sink ``spec`` and keeps the others."""
        specs = [mask_url(one) for one in self._specs] or [""]
        specs[self._position] = spec
        value = shlex.quote(",".join(specs))
        return f"fapilog check --sinks {value}" if self._is_argument else f"FAPILOG_SINKS={value}"

    def url(self, url: str) -> str:
        """Return the line that makes ``url`` the endpoint.  ``url`` contains the path."""
        if self._position >= 0 and ":" in self._specs[self._position]:
            kind = self._specs[self._position].partition(":")[0]
            is_usual = urlsplit(url).path == self.path
            return self.sink(f"{kind}:{url.removesuffix(self.path) if is_usual else url}")
        if self._is_loki:
            return f"FAPILOG_LOKI__URL={shlex.quote(url.removesuffix(PUSH_PATH))}"
        own = f"{self._variables}ENDPOINT={shlex.quote(url)}"
        if os.environ.get(f"{self._variables}ENDPOINT"):
            return own
        if urlsplit(url).path in ("", "/") or url.endswith(self.path):
            return f"OTEL_EXPORTER_OTLP_ENDPOINT={shlex.quote(url.removesuffix(self.path))}"
        return own

    def option(self, name: str, value: str) -> str:
        """Return the line that sets another option of the sink, such as ``certificate``."""
        prefix = "FAPILOG_LOKI__" if self._is_loki else "OTEL_EXPORTER_OTLP_"
        own = f"{self._variables}{name.upper()}"
        if not self._is_loki and os.environ.get(own):
            return f"{own}={shlex.quote(value)}"
        return f"{prefix}{name.upper()}={shlex.quote(value)}"

    def header(self, text: str) -> str:
        """Return the line that adds a header to the OTLP sink's headers: ``name=value``."""
        name = self.option("headers", "").partition("=")[0]
        return f'{name}="${name},{text}"' if os.environ.get(name) else f"{name}={text}"

    def tenant(self, tenant: str) -> str:
        """Return the line that sets the tenant of Loki."""
        return (
            self.option("tenant", tenant)
            if self._is_loki
            else self.header(f"x-scope-orgid={tenant}")
        )
