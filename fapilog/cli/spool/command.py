"""Implements ``fapilog spool status``, ``verify`` and ``quarantine``, which only read files."""

from __future__ import annotations

import contextlib
import json
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from pydantic import ByteSize

from fapilog.cli.spool.bodies import lines_of
from fapilog.cli.terminal import BOLD, DIM, GREEN, RED, YELLOW, Terminal, Text, cut
from fapilog.errors import ConfigurationError
from fapilog.options.checks import absolute_path
from fapilog.protocols import as_durable, credentials_of, destination_of
from fapilog.settings import Settings
from fapilog.severity import SHORT_NAMES
from fapilog.sinks.factory import name_sinks, span_sink, wanted_sinks
from fapilog.spool import Owner
from fapilog.spool.credentials import Credentials
from fapilog.spool.quarantine import QuarantineFile
from fapilog.spool.survey import other_credentials, survey

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator

    from fapilog.protocols import DurableSink
    from fapilog.spool.quarantine import Refused
    from fapilog.spool.scan import Scan
    from fapilog.spool.survey import DirectoryReport, SinkReport

_SECOND: Final = 1_000_000_000
_UNITS: Final = (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1))
_MAX_LINE: Final = 2000
_OTHERS: Final = "other credentials"

Directory = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="The spool's directory, instead of the configured one."),
]
SinkName = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Only this sink or directory; see `status`."),
]


def status(
    directory: Directory = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show each sink's records on disk: their number, age, and the processes that logged them."""
    place = location(directory)
    reports = look(place)
    others = _with_other_credentials(directory, reports)
    if as_json:
        typer.echo(json.dumps({one.path.name: _plain(one, others) for one in reports}, indent=2))
        return
    terminal = Terminal()
    if not reports:
        terminal.line(f"no records wait in {place}")
    for report in reports:
        terminal.heading(report.name, report.problem)
        if report.path.name != report.name:
            destination = cut(report.owner.destination or "an unknown destination", _MAX_LINE)
            terminal.line(f"  {report.path.name}, for {destination}")
        rows = [_row(one, others) for one in report.directories]
        if report.quarantine:
            rows.append(_quarantine_row(report.quarantine, others))
        if rows:
            terminal.table(rows)
        if any(path.is_relative_to(report.path) for path in others):
            command = f"fapilog spool adopt {report.path.name} --sink {report.name}"
            terminal.line(f"  to send records of other credentials with this sink: {command}")


def verify(directory: Directory = None) -> None:
    """Check the spool and the quarantine for damage.

    Checks every frame in the files (one frame is one batch of records), even if its records
    were already sent.  Prints the file and the offset of any damage.  Exits with 1 if there
    is damage.
    """
    terminal = Terminal()
    frames = files = 0
    failed = False
    for report in look(location(directory), load=True):
        problems = {one.path: one.problem for one in report.directories if one.problem}
        if report.problem:
            problems[report.path] = report.problem
        for path, problem in problems.items():
            terminal.line(Text("✗", RED), f" {path}: {problem}")
            failed = True
        for found in (*_segments(report), *report.quarantine):
            files += 1
            frames += found.frames
            failed = _show_damage(terminal, found) or failed
    mark = Text("✗", RED) if failed else Text("✓", GREEN)
    terminal.line(mark, f" {counted(frames, 'whole frame')} in {counted(files, 'file')}")
    if failed:
        raise typer.Exit(1)


def quarantine(
    directory: Directory = None,
    sink: SinkName = None,
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="Batches to show.")] = 20,
) -> None:
    """Show the records that backends refused for good, with the time and the reason."""
    place = location(directory)
    terminal = Terminal()
    total = 0
    for report in of_sink(look(place), sink):
        for found in report.quarantine:
            if found.problem:
                terminal.line(Text("✗", RED), f" {found.path}: {found.problem}")
                continue
            wire_format = found.header.wire_format if found.header else ""
            for refused in QuarantineFile(found.path):
                total += 1
                if total <= limit:
                    _show_refused(terminal, report.name, wire_format, refused)
    if not total:
        terminal.line(f"the quarantine in {place} is empty")
        return
    terminal.line()
    if total > limit:
        terminal.line(Text(f"{total - limit} more: --limit {total}", DIM))
    terminal.line("to send them again: fapilog spool replay --quarantine")


def location(given: Path | None, settings: Settings | None = None) -> Path:
    """Return the spool's directory: ``given`` or, if it is None, the configured directory.

    Raises:
        ConfigurationError: no directory is given or configured, or the given directory does
            not exist.
    """
    if given is not None and not absolute_path("--directory", given).is_dir():
        msg = f"--directory {given}: there is no such directory"
        raise ConfigurationError(msg)
    chosen = given or (settings or Settings()).spool.directory
    if chosen is None:
        msg = "no spool is configured: set FAPILOG_SPOOL__DIRECTORY, or give --directory"
        raise ConfigurationError(msg)
    return absolute_path("--directory" if given else "spool.directory", chosen)


def look(directory: Path, *, load: bool = False) -> list[SinkReport]:
    """Return a report for each sink that has files in the spool's ``directory``.

    The list is empty if the directory does not exist.  If ``load`` is True, the records are also
    read and checked for damage.

    Raises:
        ConfigurationError: the directory cannot be read.
    """
    try:
        return survey(directory, load=load)
    except FileNotFoundError:
        return []
    except OSError as error:
        msg = f"cannot read {directory}: {error.strerror or error}"
        raise ConfigurationError(msg) from error


def of_sink(reports: list[SinkReport], name: str | None) -> list[SinkReport]:
    """Return the reports about the sink ``name``, or all reports if ``name`` is None.

    If ``name`` is the name of a sink's directory, return only the report about this directory.

    Raises:
        ConfigurationError: no records of this sink are on disk.
    """
    exact = [report for report in reports if report.path.name == name]
    chosen = exact or [report for report in reports if name in {None, report.name}]
    if name is not None and not chosen:
        known = ", ".join(report.path.name for report in reports) or "none"
        msg = f"--sink {name}: no records of this sink are on disk; sinks with records: {known}"
        raise ConfigurationError(msg)
    return chosen


def counted(number: int, word: str) -> str:
    """Return a number and a noun in singular or plural: ``1 record``, ``2 records``."""
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def size_of(scans: Iterable[Scan]) -> str:
    """Return the total size of the scanned files as text, such as ``1.5MiB``."""
    return ByteSize(sum(found.size for found in scans)).human_readable()


def configured_sinks(settings: Settings) -> dict[str, Any]:
    """Return the configured sinks by name, with the fallback sinks of routes and the sink of spans.

    If an environment variable for spans is wrong, the sink of spans is missing.
    """
    fallbacks = dict.fromkeys(group.fallback for group in settings.routes.values())
    wanted = [*wanted_sinks(settings), *(one for one in fallbacks if one is not None)]
    with contextlib.suppress(ConfigurationError):
        wanted.append(span_sink(settings))
    return name_sinks(settings, wanted)


def owner_of(sink: DurableSink[Any]) -> Owner:
    """Return the name, wire format and destination of ``sink``, which determine its directory."""
    return Owner(str(sink.name), sink.wire_format, destination_of(sink))


def _with_other_credentials(directory: Path | None, reports: list[SinkReport]) -> set[Path]:
    """Return the paths in the spool that a sink wrote before its credentials changed.

    The result is empty if ``directory`` is given or the configuration is invalid.
    """
    found: set[Path] = set()
    if directory is not None:
        return found  # the given directory may belong to sinks that are not configured here
    with contextlib.suppress(ConfigurationError):
        durables = [one for one in map(as_durable, configured_sinks(Settings()).values()) if one]
        known = {owner_of(one).directory: Credentials(credentials_of(one)) for one in durables}
        for report in reports:
            if report.path.name in known:
                others = other_credentials(report, known[report.path.name])
                found.update(one.path for one in others.directories)
                found.update(one.path for one in others.quarantine)
    return found


def _segments(report: SinkReport) -> Iterator[Scan]:
    for one in report.directories:
        yield from one.segments


def _row(report: DirectoryReport, others: Container[Path]) -> list[Text | str]:
    if report.problem:
        state = Text(report.problem, RED)
    else:
        state = Text("alive", GREEN) if report.is_alive else Text("dead", YELLOW)
    aside = sum(bool(found.problem) for found in report.segments)
    damaged = sum(found.damaged_frames for found in report.segments)
    notes = [
        _age(report.oldest_ns),
        _OTHERS if report.path in others else "",
        f"{counted(aside, 'segment')} skipped" if aside else "",
        f"{counted(damaged, 'frame')} damaged" if damaged else "",
    ]
    return [
        f"process {report.name.pid}",
        state,
        counted(len(report.segments), "segment"),
        size_of(report.segments),
        Text(counted(report.records, "record"), BOLD if report.records else ""),
        ", ".join(filter(None, notes)),
    ]


def _quarantine_row(scans: list[Scan], others: Container[Path]) -> list[Text | str]:
    records = counted(sum(found.records for found in scans), "record")
    oldest = min((found.oldest_ns for found in scans if found.oldest_ns), default=0)
    files = counted(len(scans), "file")
    notes = [_age(oldest), _OTHERS if any(found.path in others for found in scans) else ""]
    note = ", ".join(filter(None, notes))
    return ["quarantine", "", files, size_of(scans), Text(records, BOLD), note]


def _age(time_ns: int) -> str:
    if not time_ns:
        return ""
    seconds = max(time.time_ns() - time_ns, 0) // _SECOND
    unit, length = next((u, n) for u, n in _UNITS if seconds >= n or n == 1)
    return f"oldest {seconds // length} {unit} ago"


def _plain(report: SinkReport, others: Container[Path]) -> dict[str, Any]:
    return {
        "sink": report.name,
        "destination": report.owner.destination,
        "directories": [
            {
                "path": str(one.path),
                "pid": one.name.pid,
                "alive": one.is_alive,
                "other_credentials": one.path in others,
                "wire_formats": sorted(one.wire_formats),
                "segments": len(one.segments),
                "bytes": one.size,
                "records": one.records,
                "oldest_ns": one.oldest_ns or None,
                "damaged_frames": sum(found.damaged_frames for found in one.segments),
                "segments_left_alone": sum(bool(found.problem) for found in one.segments),
                "problem": one.problem,
            }
            for one in report.directories
        ],
        "quarantine": {
            "files": len(report.quarantine),
            "bytes": sum(found.size for found in report.quarantine),
            "records": sum(found.records for found in report.quarantine),
        },
        "problem": report.problem,
    }


def _show_damage(terminal: Terminal, found: Scan) -> bool:
    if found.problem:
        mark = Text("!", YELLOW) if found.is_newer else Text("✗", RED)
        terminal.line(mark, f" {found.path}: {found.problem}")
        return not found.is_newer
    for damage in found.damages:
        what = counted(damage.frames, "frame") if damage.frames else "the segment's header"
        where = f"{found.path}: offset {damage.offset}: {damage.end - damage.offset} bytes"
        terminal.line(Text("✗", RED), f" {where} are damaged, {what}")
    return bool(found.damages)


def _show_refused(terminal: Terminal, name: str, wire_format: str, refused: Refused) -> None:
    when = datetime.fromtimestamp(refused.time_ns // _SECOND, timezone.utc)
    worst = max(refused.severities, default=0)
    severity = SHORT_NAMES[worst] if worst < len(SHORT_NAMES) else ""
    count = counted(len(refused.severities), "record")
    terminal.heading(f"{name}  {when:%Y-%m-%d %H:%M:%S} UTC  {count}", severity)
    terminal.line("  ", Text(refused.reason, YELLOW))
    for line in lines_of(wire_format, refused.body):
        terminal.line("  ", cut(line, _MAX_LINE))
