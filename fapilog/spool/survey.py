"""Reports about the spool's files on disk, for the command ``fapilog spool``.

:func:`survey` only reads files.  Functions that delete or move a process's directory or a file in
quarantine first acquire its lock.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from fapilog.process.files import make_private_directory
from fapilog.spool.credentials import FILE as MARK
from fapilog.spool.credentials import Credentials, mark_beside, read_mark, write_mark
from fapilog.spool.cursor import read_place
from fapilog.spool.directory import (
    FILE,
    DirectoryName,
    Owner,
    claim,
    is_locked,
    list_directories,
    list_segments,
    make_sink_directory,
    read_owner,
)
from fapilog.spool.quarantine import NAME, QuarantineFile, list_files
from fapilog.spool.scan import Scan, scan

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@dataclass
class DirectoryReport:
    """The content of a process's directory in the spool.

    Attributes:
        path: the directory's path.
        name: the fields of the directory's name.
        is_alive: whether a running process has locked the directory.
        problem: the reason why the directory cannot be read, or "".
        segments: the results of scanning the segment files.
        mark: the digest of the credentials that are needed to send the records, or "" if no
            digest is stored.
    """

    path: Path
    name: DirectoryName
    is_alive: bool = False
    problem: str = ""
    segments: list[Scan] = field(default_factory=list)
    mark: str = ""

    @property
    def records(self) -> int:
        """The number of records in the directory that are not acknowledged."""
        return sum(segment.records for segment in self.segments)

    @property
    def size(self) -> int:
        """The total size of the segment files in bytes."""
        return sum(segment.size for segment in self.segments)

    @property
    def oldest_ns(self) -> int:
        """The time when the oldest unacknowledged batch was written.

        The unit is nanoseconds since the Unix epoch.  If all batches are acknowledged, the time
        is 0.
        """
        return min((s.oldest_ns for s in self.segments if s.oldest_ns), default=0)

    @property
    def wire_formats(self) -> set[str]:
        """The names of the formats of the batches in the segment files."""
        return {segment.header.wire_format for segment in self.segments if segment.header}


@dataclass
class SinkReport:
    """The spool and the quarantine of one sink.

    Attributes:
        owner: the sink's name and, if known, its wire format and destination.
        path: the sink's directory.
        directories: the reports about the processes' directories, oldest first.
        quarantine: the results of scanning the quarantine's files.
        problem: the reason why the sink's directory cannot be read, or "".
    """

    owner: Owner
    path: Path
    directories: list[DirectoryReport] = field(default_factory=list)
    quarantine: list[Scan] = field(default_factory=list)
    problem: str = ""

    @property
    def name(self) -> str:
        """The sink's name."""
        return self.owner.name


def survey(directory: Path, *, load: bool = False) -> list[SinkReport]:
    """Return one report per sink that has records on disk.  Blocks on disk I/O.

    Args:
        directory: the directory that contains the directories of all sinks.
        load: whether the checksums of all payloads are verified.  If True, the numbers in the
            report also include acknowledged frames in segment files that still exist.

    Raises:
        OSError: the directory cannot be read.
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
        report.mark = read_mark(path / MARK)
        floor = 0 if load else read_place(path).floor
        scans = (scan(file, floor, load=load) for _, file in list_segments(path))
        report.segments = [found for found in scans if not _is_gone(found)]
    except OSError as error:
        report.problem = error.strerror or str(error)
    return report


def _is_gone(found: Scan) -> bool:
    """Return whether a scan failed because the file had been deleted."""
    return bool(found.problem) and not os.path.lexists(found.path)


def purge_directory(report: DirectoryReport) -> bool:
    """Delete a dead process's segment files, and the directory if it contains no other files.

    If a running process has locked the directory, nothing is deleted.

    Returns:
        Whether the directory no longer exists.

    Raises:
        OSError: the directory belongs to another user, or a file cannot be deleted.
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


def purge_quarantine(report: SinkReport) -> Iterator[Path]:
    """Delete the files in a sink's quarantine, and yield the path of each deleted file.

    Raises:
        OSError: a file cannot be deleted.
    """
    for path in list_files(report.path):
        with QuarantineFile(path) as file:
            file.remove()
        yield path


def other_credentials(report: SinkReport, credentials: Credentials) -> SinkReport:
    """Return a copy of ``report`` without the records that ``credentials`` match.

    The copy contains the directories of dead processes and the files in quarantine whose stored
    credentials digest does not match ``credentials``.
    """
    orphans = [one for one in report.directories if not one.is_alive]
    marks = [(one, read_mark(mark_beside(one.path))) for one in report.quarantine]
    return replace(
        report,
        directories=[one for one in orphans if not credentials.match(one.mark)],
        quarantine=[one for one, mark in marks if not credentials.match(mark)],
    )


def give_to(
    report: SinkReport, owner: Owner, root: Path, credentials: Credentials
) -> Iterator[tuple[Path, str]]:
    """Move the directories of dead processes and the files in quarantine to another sink.

    Args:
        report: the report about the sink whose directories and files are moved.
        owner: the other sink.
        root: the directory that contains the directories of all sinks.
        credentials: the credentials of the other sink.  A digest of them is stored with each
            directory or file.

    Yields:
        For each directory or file, its path and the reason why it was not moved, or "".

    Raises:
        OSError: the directory of the other sink cannot be created.
    """
    target = root / owner.directory
    make_sink_directory(target, owner)
    for one in report.directories:
        if not one.is_alive:
            yield one.path, _move_directory(one, owner, target, credentials.mark)
    for found in report.quarantine:
        yield found.path, _move_refused(found, owner, target / NAME, credentials.mark)
    if target == report.path:
        return
    with contextlib.suppress(OSError):  # the directory may contain other files
        if set(os.listdir(report.path)) <= {NAME, FILE}:  # noqa: PTH208 - only names are needed
            with contextlib.suppress(FileNotFoundError):
                (report.path / NAME).rmdir()
            (report.path / FILE).unlink(missing_ok=True)
            report.path.rmdir()


def _move_directory(report: DirectoryReport, owner: Owner, target: Path, mark: str) -> str:
    if report.problem or report.wire_formats - {owner.wire_format}:
        held = ", ".join(sorted(report.wire_formats))
        return report.problem or f"holds {held}, the sink takes {owner.wire_format}"
    try:
        owned = claim(report.path)
        if owned is None:
            return "a process owns it now"
        try:
            write_mark(report.path / MARK, mark)
            if target != report.path.parent:
                owned.move(target / report.path.name)
        finally:
            owned.release()
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _move_refused(found: Scan, owner: Owner, target: Path, mark: str) -> str:
    wire_format = found.header.wire_format if found.header else found.problem or "damage"
    if wire_format != owner.wire_format:
        return f"holds {wire_format}, the sink takes {owner.wire_format}"
    try:
        make_private_directory(target)
        with QuarantineFile(found.path) as file:
            write_mark(mark_beside(found.path), mark)
            if target != found.path.parent:
                file.move(target / found.path.name)
    except OSError as error:
        return error.strerror or str(error)
    return ""
