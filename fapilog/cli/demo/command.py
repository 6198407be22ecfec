"""The command ``fapilog demo``, which prints an error if ``fapilog[demo]`` is not installed."""

from __future__ import annotations

from typing import Annotated

import typer

import fapilog
from fapilog.cli.demo.options import Protocol, in_options
from fapilog.cli.interrupt import INTERRUPTED, quiet_interrupt
from fapilog.cli.terminal import Terminal
from fapilog.errors import ConfigurationError


def demo(
    endpoint: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Send to this collector (base URL) instead of the embedded receiver.",
        ),
    ] = None,
    protocol: Annotated[
        Protocol, typer.Option(help="OTLP protocol for the logs.")
    ] = Protocol.HTTP_PROTOBUF,
    requests: Annotated[
        int, typer.Option(min=1, max=10_000, metavar="NUMBER", help="Requests to send to the shop.")
    ] = 12,
) -> None:
    """Watch logs and traces of a FastAPI app arrive.

    Serves a small shop, sends requests to it, and shows the results.
    Logs and spans go over OTLP to a receiver in this process, or to --endpoint.
    Exits with 0 if every record arrived with its span's ids, and with 1 otherwise.
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
