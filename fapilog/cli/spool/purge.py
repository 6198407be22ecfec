"""Implements ``fapilog spool purge``, which deletes unsent or refused records from the disk."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from fapilog.cli.spool.command import Directory, SinkName, counted, location, look, of_sink, size_of
from fapilog.cli.terminal import GREEN, RED, Terminal, Text
from fapilog.spool.survey import purge_directory, purge_quarantine

if TYPE_CHECKING:
    from fapilog.spool.scan import Scan
    from fapilog.spool.survey import DirectoryReport, SinkReport


def purge(
    directory: Directory = None,
    sink: SinkName = None,
    from_quarantine: Annotated[
        bool, typer.Option("--quarantine", help="Delete the quarantine, not the spool.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask first.")] = False,
) -> None:
    """Delete the records of dead processes, or the quarantine.

    Keeps the records of living processes.  The command asks for confirmation.  Without a
    terminal, --yes is required.
    """
    reports = of_sink(look(location(directory)), sink)
    terminal = Terminal()
    orphans = [one for report in reports for one in report.directories if not one.is_alive]
    held: list[tuple[str, list[Scan]]] = [(str(one.path), one.segments) for one in orphans]
    if from_quarantine:
        held = [(f"{one.path}/quarantine", one.quarantine) for one in reports if one.quarantine]
    if not held:
        terminal.line("nothing to delete")
        return
    for name, scans in held:
        records = counted(sum(found.records for found in scans), "record")
        terminal.line(f"{name}: {records}, {size_of(scans)}")
    confirm("Delete this for good?", yes=yes)
    if from_quarantine:
        done = [_purge_quarantine(terminal, report) for report in reports]
    else:
        done = [_purge_orphan(terminal, orphan) for orphan in orphans]
    if not all(done):
        raise typer.Exit(1)


def confirm(question: str, *, yes: bool) -> None:
    """Ask the user ``question``, unless ``yes`` is True.

    End the command if the answer is no, or if there is no terminal for the question.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        typer.echo("fapilog: nothing was changed: no terminal to ask on; use --yes", err=True)
        raise typer.Exit(1)
    typer.confirm(question, abort=True)


def _purge_orphan(terminal: Terminal, orphan: DirectoryReport) -> bool:
    try:
        if purge_directory(orphan):
            terminal.line(Text("✓", GREEN), f" deleted {orphan.path}")
            return True
        reason = "a process owns it now, or it holds other files"
    except OSError as error:
        reason = error.strerror or str(error)
    terminal.line(Text("✗", RED), f" kept {orphan.path}: {reason}")
    return False


def _purge_quarantine(terminal: Terminal, report: SinkReport) -> bool:
    try:
        for path in purge_quarantine(report):
            terminal.line(Text("✓", GREEN), f" deleted {path}")
    except OSError as error:
        terminal.line(Text("✗", RED), f" {report.path}: {error.strerror or error}")
        return False
    return True
