"""What is on disk, seen from outside: for the command line, which owns none of it.

Looking needs no lock and changes nothing.  Only what is named purge deletes, and
only what it could lock.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fapilog.process.files import make_private_directory
from fapilog.spool.cursor import read_floor
from fapilog.spool.directory import (
    DirectoryName,
    claim,
    is_locked,
    list_directories,
    list_segments,
)
from fapilog.spool.owner import FILE, Owner, make_sink_directory, read_owner
from fapilog.spool.quarantine_file import NAME, QuarantineFile, list_files
from fapilog.spool.scan import Scan, scan

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@dataclass
class DirectoryReport:
    """A process's directory.

    Attributes:
        path: the directory.
        name: when its process began, and the process's id.
        is_alive: whether a process owns it, the writer or one that adopted it.
        problem: why it cannot be looked at; "" if it can.
        segments: what they hold.
    """

    path: Path
    name: DirectoryName
    is_alive: bool = False
    problem: str = ""
    segments: list[Scan] = field(default_factory=list)

    @property
    def records(self) -> int:
        """Records that wait."""
        return sum(segment.records for segment in self.segments)

    @property
    def size(self) -> int:
        """Bytes of all segments."""
        return sum(segment.size for segment in self.segments)

    @property
    def oldest_ns(self) -> int:
        """Time of the oldest batch that waits, in nanoseconds since the Unix epoch; 0 for none."""
        return min((s.oldest_ns for s in self.segments if s.oldest_ns), default=0)

    @property
    def wire_formats(self) -> set[str]:
        """The wire formats of its segments."""
        return {segment.header.wire_format for segment in self.segments if segment.header}


@dataclass
class SinkReport:
    """The spool and the quarantine of one sink.

    Attributes:
        owner: the sink, as far as the directory tells.
        path: its directory.
        directories: of processes, the oldest first.
        quarantine: its files.
        problem: why it cannot be looked at; "" if it can.
    """

    owner: Owner
    path: Path
    directories: list[DirectoryReport] = field(default_factory=list)
    quarantine: list[Scan] = field(default_factory=list)
    problem: str = ""

    @property
    def name(self) -> str:
        """The name that the sink was given."""
        return self.owner.name


def survey(directory: Path, *, load: bool = False) -> list[SinkReport]:
    """Look at everything below a spool's directory.  Blocks for the disk.

    Args:
        directory: as in the options.
        load: whether every payload is read and checked, too.

    Raises:
        OSError: the directory itself cannot be read.
    """
    with os.scandir(directory) as entries:
        names = sorted(e.name for e in entries if e.is_dir(follow_symlinks=False))
    reports = (_look_at_sink(directory / name, load=load) for name in names)
    return [one for one in reports if one.directories or one.quarantine or one.problem]


def _look_at_sink(path: Path, *, load: bool) -> SinkReport:
    report = SinkReport(read_owner(path), path)
    try:
        for name in list_directories(path):
            report.directories.append(_look_at_directory(path / name.text, name, load=load))
        scans = (scan(file, load=load) for file in list_files(path))
        report.quarantine = [found for found in scans if not _is_gone(found)]
    except OSError as error:
        report.problem = error.strerror or str(error)
    return report


def _look_at_directory(path: Path, name: DirectoryName, *, load: bool) -> DirectoryReport:
    report = DirectoryReport(path, name)
    try:
        report.is_alive = is_locked(path)
        floor = 0 if load else read_floor(path)
        scans = (scan(file, floor, load=load) for _, file in list_segments(path))
        report.segments = [found for found in scans if not _is_gone(found)]
    except OSError as error:
        report.problem = error.strerror or str(error)
    return report


def _is_gone(found: Scan) -> bool:
    """Whether a segment was delivered and deleted while we looked."""
    return bool(found.problem) and not os.path.lexists(found.path)


def purge_directory(report: DirectoryReport) -> bool:
    """Delete the directory of a dead process.

    Returns:
        False when a process owns it now, or it holds files that are not the
        spool's; its segments are deleted in the second case.

    Raises:
        OSError: it is another user's, or something cannot be deleted.
    """
    owned = claim(report.path)
    if owned is None:
        return not report.path.exists()
    try:
        for _, segment in list_segments(report.path):
            segment.unlink()
        return owned.remove()
    finally:
        owned.release()


def give_to(report: SinkReport, owner: Owner, root: Path) -> Iterator[tuple[Path, str]]:
    """Move what dead processes left, and the quarantine, to another sink's directory.

    Yields:
        What was looked at, and why it stays; "" when it was moved.

    Raises:
        OSError: the other directory cannot be made.
    """
    target = root / owner.directory
    make_sink_directory(target, owner)
    for one in report.directories:
        if not one.is_alive:
            yield one.path, _move_directory(one, owner, target)
    for found in report.quarantine:
        yield found.path, _move_refused(found, owner, target / NAME)
    with contextlib.suppress(OSError):  # something else is there
        if set(os.listdir(report.path)) <= {NAME, FILE}:  # noqa: PTH208 - names are what is wanted
            with contextlib.suppress(FileNotFoundError):
                (report.path / NAME).rmdir()
            (report.path / FILE).unlink(missing_ok=True)
            report.path.rmdir()


def _move_directory(report: DirectoryReport, owner: Owner, target: Path) -> str:
    if report.problem or report.wire_formats - {owner.wire_format}:
        held = ", ".join(sorted(report.wire_formats))
        return report.problem or f"holds {held}, the sink takes {owner.wire_format}"
    try:
        owned = claim(report.path)
        if owned is None:
            return "a process owns it now"
        owned.move(target / report.path.name)
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _move_refused(found: Scan, owner: Owner, target: Path) -> str:
    wire_format = found.header.wire_format if found.header else found.problem or "damage"
    if wire_format != owner.wire_format:
        return f"holds {wire_format}, the sink takes {owner.wire_format}"
    try:
        make_private_directory(target)
        with QuarantineFile(found.path) as file:
            file.move(target / found.path.name)
    except OSError as error:
        return error.strerror or str(error)
    return ""


def purge_quarantine(report: SinkReport) -> Iterator[Path]:
    """Delete a sink's quarantine, yielding what was deleted.

    Raises:
        OSError: something cannot be deleted.
    """
    for path in list_files(report.path):
        with QuarantineFile(path) as file:
            file.remove()
        yield path
