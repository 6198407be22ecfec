"""Implements ``fapilog metrics``, which serves the metrics of several processes over HTTP."""

from __future__ import annotations

import threading
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import Annotated

import typer

from fapilog.cli.interrupt import quiet_interrupt
from fapilog.runtime.shared_metrics import shared_in
from fapilog.settings import Settings


def metrics(
    directory: Annotated[
        Path | None,
        typer.Option(help="Directory of the processes; by default, the option metrics_directory."),
    ] = None,
    host: Annotated[str, typer.Option(help="Address on which to listen.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65_535, help="TCP port; 0 selects a free port.")
    ] = 9464,
) -> None:
    """Serve the metrics of processes without HTTP to Prometheus, until Ctrl-C.

    The numbers are the sums over all processes whose option metrics_directory is this directory,
    including processes that have ended.
    """
    directory = directory or Settings().metrics_directory
    if directory is None:
        typer.echo("fapilog: metrics needs --directory or FAPILOG_METRICS_DIRECTORY", err=True)
        raise typer.Exit(2)
    try:
        with quiet_interrupt():
            from prometheus_client import CollectorRegistry, start_http_server  # noqa: PLC0415

            from fapilog.runtime.metrics import SharedCollector  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as error:
        typer.echo(f"fapilog: metrics needs: pip install 'fapilog[prometheus]' ({error})", err=True)
        raise typer.Exit(1) from None
    registry = CollectorRegistry()
    try:
        registry.register(SharedCollector(shared_in(directory)))
        server, _ = start_http_server(port, host, registry)
    except OSError as error:
        typer.echo(f"fapilog: cannot serve {directory} on {host}:{port}: {error}", err=True)
        raise typer.Exit(1) from None
    typer.echo(f"serving {directory} at http://{host}:{server.server_port}/metrics")
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        server.shutdown()
        server.server_close()
