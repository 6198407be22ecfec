"""``fapilog demo``: the whole way of a record on this machine, in some seconds.

The command itself: its options, and how it ends.  ``demo_run`` wires and runs
it; it is imported late, because it needs the extra ``fapilog[demo]``.
"""

from __future__ import annotations

from enum import Enum
from typing import Annotated, Final

import typer

import fapilog
from fapilog.cli import INTERRUPTED, quiet_interrupt
from fapilog.cli.terminal import Terminal
from fapilog.errors import ConfigurationError

# The variables that hand on what the options say.
_OPTIONS: Final = {
    "OTEL_EXPORTER_OTLP_ENDPOINT": "--endpoint",
    "OTEL_EXPORTER_OTLP_LOGS_PROTOCOL": "--protocol",
    "OTEL_EXPORTER_OTLP_PROTOCOL": "--protocol",
}


class Protocol(str, Enum):
    """How records are sent, by the names of ``OTEL_EXPORTER_OTLP_PROTOCOL``."""

    HTTP_PROTOBUF = "http/protobuf"
    HTTP_JSON = "http/json"
    GRPC = "grpc"


def demo(
    endpoint: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="Send to this collector (base URL), not to the embedded receiver."
        ),
    ] = None,
    protocol: Annotated[
        Protocol, typer.Option(help="OTLP protocol of the logs.")
    ] = Protocol.HTTP_PROTOBUF,
    requests: Annotated[
        int, typer.Option(min=1, max=10_000, metavar="NUMBER", help="Requests to make to the shop.")
    ] = 12,
) -> None:
    """Watch logs and traces of a FastAPI app arrive.

    Serves a small shop, sends it requests, and shows what became of them.
    Logs and spans go over OTLP to a receiver in this process, or to --endpoint.
    Exits with 0 when every record arrived with the ids of its span, else with 1.
    """
    if endpoint is not None and not endpoint.strip():
        msg = "give the base URL of a collector"
        raise typer.BadParameter(msg, param_hint="--endpoint")
    terminal = Terminal()
    try:
        with quiet_interrupt():
            from fapilog.cli.demo.run import run  # noqa: PLC0415 - an extra

        passed = run(terminal, endpoint, protocol.value, requests)
    except KeyboardInterrupt:
        terminal.line()
        terminal.line("interrupted; ", str(fapilog.stats()))
        raise typer.Exit(INTERRUPTED) from None
    except ConfigurationError as error:
        raise ConfigurationError(in_options(str(error))) from None
    except ModuleNotFoundError as error:
        typer.echo(f"fapilog: the demo needs: pip install 'fapilog[demo]' ({error})", err=True)
        raise typer.Exit(1) from None
    raise typer.Exit(0 if passed else 1)


def in_options(text: str) -> str:
    """Return ``text`` with the options, which the user knows, in place of their variables."""
    for variable, option in _OPTIONS.items():
        text = text.replace(variable, option)
    return text
