"""Implements ``fapilog spool replay``, which sends records that dead processes left on disk.

The command locks the directory of a dead process before it sends the records, as a running
service does.  So the command and a service never send the same records.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from fapilog.cli.interrupt import INTERRUPTED
from fapilog.cli.spool.command import (
    Directory,
    SinkName,
    configured_sinks,
    counted,
    location,
    look,
    of_sink,
    owner_of,
)
from fapilog.cli.spool.resend import BackendAwayError, Resend
from fapilog.cli.terminal import GREEN, RED, YELLOW, Terminal, Text
from fapilog.protocols import as_durable
from fapilog.settings import Settings
from fapilog.spool import SpoolOptions

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from fapilog.spool.survey import SinkReport

_UNLIMITED: Final = 1 << 62


def replay(
    directory: Directory = None,
    sink: SinkName = None,
    from_quarantine: Annotated[
        bool, typer.Option("--quarantine", help="Send the quarantine, not the spool.")
    ] = False,
) -> None:
    """Send the records of dead processes, or the quarantine, through the configured sinks.

    Removes delivered records from the disk, moves refused records to the quarantine, and keeps
    all other records.  Exits with 0 if all records were delivered, else with 1.
    """
    settings = Settings()
    root = location(directory, settings)
    reports = [one for one in of_sink(look(root), sink) if _waiting(one, from_quarantine)]
    terminal = Terminal()
    if not reports:
        terminal.line("nothing to send")
        return
    sinks = configured_sinks(settings)
    results = [
        _replay_sink(terminal, settings, root, report, sinks, from_quarantine=from_quarantine)
        for report in reports
    ]
    if not all(results):
        raise typer.Exit(1)


def _show_no_sink(terminal: Terminal, report: SinkReport, sinks: Iterable[str]) -> None:
    destination = report.owner.destination
    reason = f"no such sink is configured for {destination}"
    if not destination:
        reason = "no such sink is configured, and the records' destination is not known"
    terminal.line(Text("✗", RED), f" {report.path.name}: {reason}")
    known = ", ".join(sinks) or "none"
    command = f"fapilog spool adopt {report.path.name} --sink NAME"
    terminal.line(f"  to send them with another sink: {command}; configured sinks: {known}")


def _waiting(report: SinkReport, from_quarantine: bool) -> bool:
    if from_quarantine:
        return any(found.frames for found in report.quarantine)
    return any(one.records for one in report.directories if not one.is_alive)


def _replay_sink(
    terminal: Terminal,
    settings: Settings,
    root: Path,
    report: SinkReport,
    sinks: dict[str, Any],
    *,
    from_quarantine: bool,
) -> bool:
    """Send the records that ``report`` lists, and print the result.

    The matching sink in ``sinks`` sends the records.  Return True if all records were delivered.
    """
    durables = [one for one in map(as_durable, sinks.values()) if one is not None]
    durable = {owner_of(one).directory: one for one in durables}.get(report.path.name)
    if durable is None:
        _show_no_sink(terminal, report, sinks)
        return False
    options = SpoolOptions(
        directory=root,
        max_bytes=_UNLIMITED,  # a limit could exclude the records of some dead processes
        min_free=0,
        quarantine_bytes=settings.spool.quarantine_bytes,
    )
    resend = Resend(durable, settings, options)
    durable.open()
    try:
        if from_quarantine:
            resend.send_quarantine(report)
        else:
            resend.send_spool(report)
    except BackendAwayError as error:
        resend.problem = str(error)
    except KeyboardInterrupt:
        resend.problem = "interrupted"
        _show(terminal, resend)
        raise typer.Exit(INTERRUPTED) from None
    finally:
        durable.close()
    _show(terminal, resend)
    return resend.is_done


def _show(terminal: Terminal, resend: Resend) -> None:
    parts = [f"{counted(resend.delivered, 'record')} delivered"]
    for count, what in (
        (resend.rejected, "rejected"),
        (resend.moved, "refused, now in quarantine"),
        (resend.left, "left on disk"),
    ):
        if count:
            parts.append(f"{count} {what}")
    mark = Text("✓", GREEN) if resend.is_done else Text("✗", RED)
    terminal.line(mark, f" {resend.name}: {', '.join(parts)}")
    if resend.problem or resend.note:
        terminal.line("  ", Text(resend.problem or resend.note, YELLOW))
