"""A target that bridges feed in tests."""

from __future__ import annotations

from fapilog.record import LogRecord
from fapilog.values.exceptions import Capture


class Collector:
    """A target that keeps the records it is offered."""

    def __init__(self, threshold: int = 1) -> None:
        self.threshold = threshold
        self.records: list[LogRecord] = []
        self.captures: list[Capture | None] = []
        self.flushed: list[float | None] = []
        self.asked: list[str] = []

    def is_enabled(self, name: str, severity_number: int) -> bool:
        self.asked.append(name)
        return severity_number >= self.threshold

    def lowest_severity(self) -> int:
        return self.threshold

    def offer(self, record: LogRecord, exception: Capture | None = None) -> None:
        self.records.append(record)
        self.captures.append(exception)

    def flush(self, timeout: float | None = None) -> bool:
        self.flushed.append(timeout)
        return True
