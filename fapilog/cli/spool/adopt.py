"""Implements ``fapilog spool adopt``, which assigns records on disk to a different sink.

A service sends records from disk only through the sink that stored them, and only if the sink
still has the same name, destination and credentials.  This command is for records whose original
sink is no longer configured, and for records that an earlier fapilog release stored without a
destination.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from fapilog.cli.spool.command import (
    Directory,
    configured_sinks,
    counted,
    location,
    look,
    of_sink,
    owner_of,
)
from fapilog.cli.spool.purge import confirm
from fapilog.cli.terminal import GREEN, RED, Terminal, Text
from fapilog.errors import ConfigurationError
from fapilog.protocols import as_durable, credentials_of
from fapilog.settings import Settings
from fapilog.spool.credentials import Credentials
from fapilog.spool.survey import give_to, other_credentials

if TYPE_CHECKING:
    from fapilog.protocols import DurableSink


def adopt(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The directory's name in `status`.")],
    sink: Annotated[
        str,
        typer.Option("--sink", metavar="SINK", help="The configured sink to send them."),
    ],
    directory: Directory = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask first.")] = False,
) -> None:
    """Move the records of dead processes, and the quarantine, to a configured sink.

    The service or `fapilog spool replay` then sends the records.  The command also works for
    a sink whose credentials have changed since it stored the records.  It asks for confirmation.
    Without a terminal, --yes is required.
    """
    settings = Settings()
    root = location(directory, settings)
    durable = _durable(configured_sinks(settings), sink)
    owner, credentials = owner_of(durable), Credentials(credentials_of(durable))
    reports = [one for one in of_sink(look(root), name) if one.path.name == name]
    if name == owner.directory:
        found = (other_credentials(one, credentials) for one in reports)
        reports = [one for one in found if one.directories or one.quarantine]
    terminal = Terminal()
    for report in reports:
        waiting = sum(one.records for one in report.directories if not one.is_alive)
        waiting += sum(found.records for found in report.quarantine)
        terminal.line(f"{report.path}: {counted(waiting, 'record')}")
    if not reports:
        terminal.line("nothing to adopt")
        return
    where = f" to {owner.destination}" if owner.destination else ""
    terminal.line(f"the sink {sink} will send them{where}")
    confirm("Give them to this sink?", yes=yes)
    done = [
        _show(terminal, f"{path}", problem)
        for report in reports
        for path, problem in give_to(report, owner, root, credentials)
    ]
    if not all(done):
        raise typer.Exit(1)


def _durable(sinks: dict[str, Any], name: str) -> DurableSink[Any]:
    """Return the configured sink called ``name``, which must be able to use the spool.

    Raises:
        ConfigurationError: the sink is not configured, or cannot use the spool.
    """
    durable = as_durable(sinks[name]) if name in sinks else None
    if durable is None:
        known = ", ".join(name for name, one in sinks.items() if as_durable(one)) or "none"
        problem = "no such sink is configured, or it cannot spool"
        msg = f"--sink {name}: {problem}; sinks that can spool: {known}"
        raise ConfigurationError(msg)
    return durable


def _show(terminal: Terminal, path: str, problem: str) -> bool:
    """Print that ``path`` was moved, or why not.  Return True if ``problem`` is empty."""
    if problem:
        terminal.line(Text("✗", RED), f" kept {path}: {problem}")
    else:
        terminal.line(Text("✓", GREEN), f" moved {path}")
    return not problem
