"""``fapilog spool replay``: sends what dead processes left, or the quarantine, in the foreground.

It adopts directories as a service would, so a service that runs meanwhile and
this command never send the same one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from fapilog.cli.interrupt import INTERRUPTED
from fapilog.cli.spool.command import Directory, SinkName, counted, location, look, of_sink
from fapilog.cli.spool.resend import BackendAwayError, Resend
from fapilog.cli.terminal import GREEN, RED, YELLOW, Terminal, Text
from fapilog.protocols import as_durable, destination_of
from fapilog.settings import Settings
from fapilog.sinks.factory import name_sinks, wanted_sinks
from fapilog.spool import Owner, SpoolOptions

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from fapilog.protocols import DurableSink
    from fapilog.spool.survey import SinkReport

_UNLIMITED: Final = 1 << 62


def replay(
    directory: Directory = None,
    sink: SinkName = None,
    from_quarantine: Annotated[
        bool, typer.Option("--quarantine", help="Send the quarantine, not the spool.")
    ] = False,
) -> None:
    """Send what dead processes left in the spool, or the quarantine, through its sink.

    The sinks are the configured ones.  What is delivered leaves the disk, what
    is refused goes to the quarantine, the rest stays.  Exits with 0 when all
    was delivered, else with 1.
    """
    settings = Settings()
    root = location(directory, settings)
    reports = [one for one in of_sink(look(root), sink) if _waiting(one, from_quarantine)]
    terminal = Terminal()
    if not reports:
        terminal.line("there is nothing to send")
        return
    sinks = configured_sinks(settings)
    results = [
        _replay_sink(terminal, settings, root, report, sinks, from_quarantine=from_quarantine)
        for report in reports
    ]
    if not all(results):
        raise typer.Exit(1)


def configured_sinks(settings: Settings) -> dict[str, Any]:
    """Return the sinks by the names that a service with these settings spools under."""
    fallbacks = dict.fromkeys(group.fallback for group in settings.routes.values())
    wanted = [*wanted_sinks(settings), *(one for one in fallbacks if one is not None)]
    return name_sinks(settings, wanted)


def owner_of(sink: DurableSink[Any]) -> Owner:
    """Return what a service calls the owner of what it spools for a sink."""
    return Owner(str(sink.name), sink.wire_format, destination_of(sink))


def _show_no_sink(terminal: Terminal, report: SinkReport, sinks: Iterable[str]) -> None:
    """Say that the records were logged for no configured sink, and what to do."""
    destination = report.owner.destination
    reason = f"no such sink is configured for {destination}"
    if not destination:
        reason = "no such sink is configured, and nothing says where its records should go"
    terminal.line(Text("✗", RED), f" {report.path.name}: {reason}; give the records to another one")
    command = f"fapilog spool adopt {report.path.name} --sink NAME"
    terminal.line(f"  with {command}; there are: {', '.join(sinks) or 'none'}")


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
    """Send what waits for one sink and tell the result; whether nothing is left."""
    durables = [one for one in map(as_durable, sinks.values()) if one is not None]
    owners = [owner_of(one) for one in durables]
    directories = [owner.directory for owner in owners]
    if report.path.name not in directories:
        _show_no_sink(terminal, report, sinks)
        return False
    durable = durables[directories.index(report.path.name)]
    options = SpoolOptions(
        directory=root,
        max_bytes=_UNLIMITED,  # what is there is there already
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
    """Tell the result in one line, and in a second one what stands in the way."""
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
