"""Registers all commands of the program ``fapilog`` in one typer application."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from fapilog import __version__
from fapilog.cli.check import check
from fapilog.cli.config import config
from fapilog.cli.demo.command import demo
from fapilog.cli.metrics import metrics
from fapilog.cli.receive import receive
from fapilog.cli.spool.adopt import adopt
from fapilog.cli.spool.command import quarantine, status, verify
from fapilog.cli.spool.purge import purge
from fapilog.cli.spool.replay import replay


def _print_version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"fapilog {__version__}\n")
        sys.exit(0)


app = typer.Typer(
    help="OpenTelemetry logging bridge: show the configuration, test it, watch it work.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
_spool = typer.Typer(
    help="Show, check, send, move and delete the records that wait on disk.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
for command in (config, check, demo, receive, metrics):
    app.command()(command)
for part in (status, verify, quarantine, replay, adopt, purge):
    _spool.command()(part)
app.add_typer(_spool, name="spool")


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            help="Print the version and exit.",
            callback=_print_version,
            is_eager=True,
        ),
    ] = False,
) -> None:
    """Accept the option ``--version``, which works without a command."""
