"""Sending batches from disk once more, and what becomes of their records.

What is delivered leaves the disk at once.  What the backend refuses for good goes
to the quarantine, as it would in a service: a batch that stayed would have all
behind it come back.  Everything else stays where it is.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from fapilog.cli.spool.command import counted
from fapilog.delivery.retry import RetryPolicy
from fapilog.diagnostics import describe
from fapilog.errors import InvalidDataError, NoAnswerError, RetryableError, TooLargeError
from fapilog.native import monotonic
from fapilog.protocols import destination_of
from fapilog.spool import Quarantine, Spool, SpoolOptions
from fapilog.spool.quarantine import QuarantineFile, list_files

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fapilog.protocols import DurableSink, Outcome
    from fapilog.settings import Settings
    from fapilog.spool.survey import SinkReport

_ATTEMPTS: Final = 3
_PROGRESS_EVERY: Final = 0.1  # seconds


class BackendAwayError(Exception):
    """The backend takes nothing now; the rest of its batches is not tried."""


class Part(NamedTuple):
    """Records the backend refused, and its words."""

    items: list[Any]
    severities: bytes
    reason: str


class Resend:
    """Sends batches from disk through one sink and counts what became of their records.

    Args:
        sink: opened before the first batch.
        settings: time limit and waits between attempts.
        options: where spool and quarantine are.

    Attributes:
        name: of the sink.
        delivered: records the backend took.
        rejected: records it took the batch of, but not them.
        moved: records it refused; they are in quarantine now.
        left: records that stay where they were.
        problem: why the first of these stay, or what was lost.
        note: what the backend said of a batch it took.
    """

    def __init__(self, sink: DurableSink[Any], settings: Settings, options: SpoolOptions) -> None:
        self._sink = sink
        self.name = str(sink.name)
        self._destination = destination_of(sink)
        self._timeout = settings.export_timeout
        self._retry = RetryPolicy(initial=settings.retry_initial, maximum=settings.retry_maximum)
        self._options = options
        self._quarantine = Quarantine(
            self.name, sink.wire_format, options, destination=self._destination
        )
        self._progress = Progress(self.name)
        self.delivered = self.rejected = self.moved = self.left = 0
        self.problem = self.note = ""

    def send_spool(self, report: SinkReport) -> None:
        """Send what dead processes left.

        Raises:
            BackendAwayError: the backend takes nothing now.
        """
        mine = self._sink.wire_format
        foreign = [
            one for one in report.directories if not one.is_alive and one.wire_formats - {mine}
        ]
        for one in foreign:
            self.problem = f"{one.path} holds {', '.join(one.wire_formats)}, the sink takes {mine}"
        spool = Spool(self.name, mine, self._options, destination=self._destination, cache_bytes=0)
        spool.open()
        done = 0
        try:
            while spool.adopt():
                while frame := spool.read():
                    self._progress.show(done, spool.adopted)
                    if self._send(frame.body, frame.severities):
                        spool.ack(frame)
                    done += len(frame.severities)
            if spool.corrupt.records:
                self.problem = f"{counted(spool.corrupt.records, 'record')} damaged and lost"
        finally:
            self._progress.clear()
            self.left = spool.pending_records + sum(one.records for one in foreign)
            spool.close()

    def send_quarantine(self, report: SinkReport) -> None:
        """Send what is in quarantine.

        Raises:
            BackendAwayError: the backend takes nothing now.
        """
        files = [QuarantineFile(path) for path in list_files(report.path)]
        total = sum(file.scan().records for file in files)
        self.left = total
        try:
            for file in files:
                self._send_file(file, total)
        finally:
            self._progress.clear()

    def _send_file(self, file: QuarantineFile, total: int) -> None:
        found = file.scan()
        if found.header is None or found.header.wire_format != self._sink.wire_format:
            held = found.header.wire_format if found.header else found.problem or "damage"
            self.problem = f"{file.path} holds {held}, the sink takes {self._sink.wire_format}"
            return
        try:
            with file:
                for refused in file:
                    self._progress.show(total - self.left, total)
                    if self._send(refused.body, refused.severities, is_refused=True):
                        file.settle(refused)
                        self.left -= len(refused.severities)
        except OSError as error:
            self.problem = f"{file.path}: {error.strerror or error}"

    def _send(self, body: bytes, severities: bytes, *, is_refused: bool = False) -> bool:
        """Send one batch; whether it may leave where it is.

        Args:
            body: the batch, packed.
            severities: of its records.
            is_refused: whether it comes out of the quarantine, where it may
                as well stay.
        """
        try:
            items = self._unpack(body, len(severities))
        except ValueError as error:
            return self._move([(body, severities, f"cannot be unpacked: {error}")], is_refused)
        refused: list[Part] = []
        self._deliver(items, severities, refused)
        packed = [(self._sink.pack(part.items), part.severities, part.reason) for part in refused]
        is_whole = sum(len(part.items) for part in refused) == len(items)
        return self._move(packed, is_refused and is_whole)

    def _unpack(self, body: bytes, count: int) -> list[Any]:
        items = self._sink.unpack(body)
        if len(items) != count:
            msg = f"it holds {len(items)} records instead of {count}"
            raise ValueError(msg)
        return items

    def _move(self, parts: list[tuple[bytes, bytes, str]], may_stay: bool) -> bool:
        """Put what is refused in quarantine; False where the batch has to stay as it is."""
        if not parts:
            return True
        self.problem = self.problem or f"refused: {parts[0][2]}"
        if may_stay or not all(self._quarantine.add(*part) for part in parts):
            return False  # better twice than never
        self.moved += sum(len(severities) for _, severities, _ in parts)
        return True

    def _deliver(self, items: list[Any], severities: bytes, refused: list[Part]) -> None:
        """Send records, in halves where the backend does not take them together."""
        try:
            outcome = self._attempt(items)
        except (TooLargeError, InvalidDataError, NoAnswerError) as error:
            if len(items) == 1:
                refused.append(Part(items, severities, describe(error)))
                return
            middle = len(items) // 2
            self._deliver(items[:middle], severities[:middle], refused)
            self._deliver(items[middle:], severities[middle:], refused)
        else:
            rejected = min(outcome.rejected, len(items)) if outcome is not None else 0
            self.rejected += rejected
            self.delivered += len(items) - rejected
            if outcome is not None and outcome.message:
                self.note = f"the backend says: {outcome.message}"
            if rejected:
                self.problem = self.problem or self.note or "rejected by the backend"

    def _attempt(self, items: Sequence[Any]) -> Outcome | None:
        attempt = 1
        while True:
            try:
                return self._sink.send(items, self._timeout)
            except RetryableError as error:
                if isinstance(error, NoAnswerError) and len(items) > 1:
                    raise  # half of them may be answered in time
                if attempt == _ATTEMPTS:
                    raise BackendAwayError(describe(error)) from error
                wait = self._retry.delay(attempt, error.retry_after)
            except (TooLargeError, InvalidDataError):
                raise
            except Exception as error:  # a wrong address, for example: it is for all of them
                raise BackendAwayError(describe(error)) from error
            time.sleep(wait)
            attempt += 1

    @property
    def is_done(self) -> bool:
        """Whether nothing is left and nothing went wrong."""
        return not (self.left or self.problem)


class Progress:
    """A line on standard error that says how far it is; nothing where that is no terminal."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._is_shown = sys.stderr.isatty()
        self._next = 0.0
        self._width = 0

    def show(self, done: int, total: int) -> None:
        """Say that so many records of so many are done, ten times a second at most."""
        now = monotonic()
        if self._is_shown and now >= self._next:
            self._next = now + _PROGRESS_EVERY
            self._write(f"{self._name}: {done} of {total} records")

    def clear(self) -> None:
        """Leave an empty line for what comes next."""
        if self._width:
            self._write("")
            sys.stderr.write("\r")

    def _write(self, text: str) -> None:
        sys.stderr.write(f"\r{text.ljust(self._width)}")
        sys.stderr.flush()
        self._width = len(text)
