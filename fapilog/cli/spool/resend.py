"""Sends batches of records from disk, and counts the delivered and the refused records.

A delivered batch is deleted immediately.  As in a running service, records that the backend
refuses permanently are moved to the quarantine.  All other records stay on disk.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any, Final

from fapilog.cli.spool.command import counted
from fapilog.delivery.backlog import Batch
from fapilog.delivery.circuit import RetryPolicy
from fapilog.delivery.sender import Delivery, send_until_settled
from fapilog.diagnostics import describe
from fapilog.errors import InvalidDataError, TooLargeError
from fapilog.native import monotonic
from fapilog.protocols import credentials_of, destination_of
from fapilog.spool import Quarantine, Spool, SpoolOptions
from fapilog.spool.credentials import Credentials, mark_beside, read_mark
from fapilog.spool.quarantine import QuarantineFile, list_files
from fapilog.spool.survey import other_credentials

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from fapilog.protocols import DurableSink, Outcome
    from fapilog.settings import Settings
    from fapilog.spool.survey import SinkReport

_ATTEMPTS: Final = 3
#: The minimum interval, in seconds, between two updates of the progress line.
_PROGRESS_EVERY: Final = 0.1
#: The ANSI escape sequence that erases the line from the cursor to its end.
_ERASE: Final = "\x1b[K"


class BackendAwayError(Exception):
    """Raised if the backend currently accepts no records, which ends ``fapilog spool replay``."""


class Resend(Delivery):
    """Sends batches from disk through one sink, and counts the results.

    Args:
        sink: the sink; the caller must open it before the first batch is sent.
        settings: the settings, which contain the time limit and the waits between attempts.
        options: the directory and the limits of the spool and the quarantine.

    Attributes:
        name: the sink's name.
        delivered: the number of records that the backend accepted.
        rejected: the number of rejected records in batches that the backend accepted partially.
        moved: the number of refused records that were moved to the quarantine.
        left: the number of records that stay on disk.
        problem: a reason why some records stay on disk or are lost, or "".
        note: the backend's latest message about an accepted batch, or "".
    """

    def __init__(self, sink: DurableSink[Any], settings: Settings, options: SpoolOptions) -> None:
        retry = RetryPolicy(settings.retry_initial, settings.retry_maximum, unknown_attempts=1)
        super().__init__(sink, str(sink.name), retry)
        self._durable = sink
        secret = credentials_of(sink)
        self._owner: dict[str, Any] = {"destination": destination_of(sink), "credentials": secret}
        self._credentials = Credentials(secret)
        self._timeout = settings.export_timeout
        self._options = options
        self._quarantine = Quarantine(self.name, sink.wire_format, options, **self._owner)
        self._refused: list[tuple[bytes, Sequence[int], str]] = []
        self._next_progress = 0.0
        self.delivered = self.rejected = self.moved = self.left = 0
        self.problem = self.note = ""

    def send_spool(self, report: SinkReport) -> None:
        """Send the spooled records of dead processes.

        Records stay on disk if the sink stored them in a different wire format, or before its
        credentials changed.

        Raises:
            BackendAwayError: the backend currently accepts no records.
        """
        mine = self._durable.wire_format
        foreign = [
            one for one in report.directories if not one.is_alive and one.wire_formats - {mine}
        ]
        for one in foreign:
            self.problem = f"{one.path} holds {', '.join(one.wire_formats)}, the sink takes {mine}"
        others = other_credentials(report, self._credentials).directories
        for one in others:
            self.problem = self._other_credentials(one.path, report)
        foreign += [one for one in others if one not in foreign]
        spool = Spool(self.name, mine, self._options, cache_bytes=0, **self._owner)
        spool.open()
        done = 0
        try:
            while spool.adopt():
                while frame := spool.read():
                    self._show_progress(done, spool.adopted)
                    if self._send(frame.body, frame.severities):
                        spool.ack(frame)
                    done += len(frame.severities)
            if spool.corrupt.records:
                self.problem = f"{counted(spool.corrupt.records, 'record')} damaged and lost"
        finally:
            self._clear_progress()
            self.left = spool.pending_records + sum(one.records for one in foreign)
            spool.close()

    def send_quarantine(self, report: SinkReport) -> None:
        """Send the records in the quarantine.

        Records stay on disk if the sink stored them in a different wire format, or before its
        credentials changed.

        Raises:
            BackendAwayError: the backend currently accepts no records.
        """
        files = [QuarantineFile(path) for path in list_files(report.path)]
        total = sum(file.scan().records for file in files)
        self.left = total
        try:
            for file in files:
                if self._credentials.match(read_mark(mark_beside(file.path))):
                    self._send_file(file, total)
                else:
                    self.problem = self._other_credentials(file.path, report)
        finally:
            self._clear_progress()

    def _other_credentials(self, path: Path, report: SinkReport) -> str:
        return (
            f"{path} holds records that were logged with other credentials; to send them with "
            f"this sink: fapilog spool adopt {report.path.name} --sink {self.name}"
        )

    def _send_file(self, file: QuarantineFile, total: int) -> None:
        found = file.scan()
        if found.header is None or found.header.wire_format != self._durable.wire_format:
            held = found.header.wire_format if found.header else found.problem or "damage"
            self.problem = f"{file.path} holds {held}, the sink takes {self._durable.wire_format}"
            return
        try:
            with file:
                for refused in file:
                    self._show_progress(total - self.left, total)
                    if self._send(refused.body, refused.severities, is_refused=True):
                        file.settle(refused)
                        self.left -= len(refused.severities)
        except OSError as error:
            self.problem = f"{file.path}: {error.strerror or error}"

    def _send(self, body: bytes, severities: bytes, *, is_refused: bool = False) -> bool:
        """Send one batch.  Return True if the batch may be removed from its file.

        A batch from the quarantine (``is_refused``) stays in its file if the backend refuses
        all of its records again.
        """
        try:
            items = self._durable.unpack(body)
            if len(items) != len(severities):
                reason = f"it holds {len(items)} records instead of {len(severities)}"
                return self._move([(body, severities, f"cannot be unpacked: {reason}")], is_refused)
        except ValueError as error:
            return self._move([(body, severities, f"cannot be unpacked: {error}")], is_refused)
        self._refused = []
        batch = Batch(items, list(severities))
        batch.parts = [batch]
        send_until_settled(batch, self)
        is_whole = sum(len(severities) for _, severities, _ in self._refused) == len(items)
        return self._move(self._refused, is_refused and is_whole)

    def _move(self, parts: Sequence[tuple[bytes, Sequence[int], str]], may_stay: bool) -> bool:
        """Write the refused ``parts`` of a batch to the quarantine.

        Return False if the batch must stay in its file.  If ``may_stay`` is True, the batch is
        already in the quarantine, so its parts are not written again.
        """
        if not parts:
            return True
        self.problem = self.problem or f"refused: {parts[0][2]}"
        if may_stay or not all(self._quarantine.add(*part) for part in parts):
            return False  # keep the batch: records may be sent twice, but are not lost
        self.moved += sum(len(severities) for _, severities, _ in parts)
        return True

    def _show_progress(self, done: int, total: int) -> None:
        if sys.stderr.isatty() and monotonic() >= self._next_progress:
            self._next_progress = monotonic() + _PROGRESS_EVERY
            sys.stderr.write(f"\r{self.name}: {done} of {total} records{_ERASE}")
            sys.stderr.flush()

    def _clear_progress(self) -> None:
        if self._next_progress:
            sys.stderr.write(f"\r{_ERASE}")

    def wait(self, seconds: float) -> bool:
        """Sleep for ``seconds`` between two attempts.  Return True to continue the delivery."""
        time.sleep(seconds)
        return True

    def time_limit(self) -> float:
        """Return the time limit, in seconds, for one attempt to send a batch."""
        return self._timeout

    def fail(self, error: BaseException, attempt: int) -> None:
        """End the replay after three failed attempts to send the same records.

        Raises:
            BackendAwayError: the third attempt failed.
        """
        if attempt == _ATTEMPTS:
            raise BackendAwayError(describe(error)) from error

    def accept(self, batch: Batch, outcome: Outcome) -> None:
        """Remove the accepted part, the first of ``batch.parts``, and count its records."""
        self.rejected += outcome.rejected
        self.delivered += len(batch.parts.pop(0)) - outcome.rejected
        if outcome.message:
            self.note = f"the backend says: {outcome.message}"
        if outcome.rejected:
            self.problem = self.problem or self.note or "rejected by the backend"

    def give_up(self, batch: Batch, part: Batch, error: BaseException) -> None:
        """Remember ``part``, which the backend refused, so that it is moved to the quarantine.

        Raises:
            BackendAwayError: the error is not caused by the records.
        """
        if not isinstance(error, Exception):
            raise error
        if not isinstance(error, (TooLargeError, InvalidDataError)):
            # Errors that the records did not cause, such as a wrong address, affect all batches.
            raise BackendAwayError(describe(error)) from error
        batch.parts.pop(0)
        packed = self._durable.pack(part.items)
        self._refused.append((packed, part.severities, describe(error)))

    @property
    def is_done(self) -> bool:
        """Return whether all records were delivered without a problem."""
        return not (self.left or self.problem)
