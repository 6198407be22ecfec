"""The backend's script, step by step, and the books that it keeps about records.

A script is a list of steps.  Each step meets a number of requests, or all requests
within some seconds of the first.  After the last step every request is accepted.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from tests.faults.decode import Arrived

Fault = Literal[
    "none",  # accepts the request
    "die",  # reads the request, then the backend kills itself
    "silence",  # reads and never answers
    "dribble",  # answers one byte per second
    "reset writing",  # resets the connection while the client writes
    "reset reading",  # resets the connection after reading the request
    "status",  # answers `status`, with `retry_after`
    "bad",  # refuses requests with bad records as invalid; Loki keeps the good ones
    "partial",  # accepts the good records and refuses the bad ones by partial_success
    "too large",  # refuses requests of more than `size` bytes
    "too large, Rust",  # the same over gRPC with OUT_OF_RANGE, as servers written in Rust do
    "body cut",  # a success whose body ends before its Content-Length
    "headers unreadable",  # a success with more headers than any client reads
    "body packed",  # a success with gzip as its transfer encoding
    "late",  # reads, and answers after the client has given up
    "many late",  # the same for requests of more than `count` records
    "bomb",  # a success that unpacks to 16 MiB
    "huge",  # a success of 5 MiB
    "garbage",  # a success with a body of another protocol
    "noise",  # an answer that is not valid in the transport's protocol
]

#: Asks the client to retry at a date, not after some seconds.
DATE: Final = "date"

Protocol = Literal["http", "grpc", "loki"]

#: Statuses below 500 that a later attempt may not get again.
_PASSING: Final = frozenset({401, 403, 407, 429})

#: The number of requests for a step without an end.
ALWAYS: Final = 1 << 30


@dataclass(frozen=True)
class Step:
    """One fault, for ``times`` requests or for ``seconds``.

    Attributes:
        fault: a :data:`Fault`.
        times: the number of requests that meet it.
        seconds: its duration from the first request that meets it.
        status: the HTTP status; for gRPC the code with the same meaning.
        retry_after: the value of the header, :data:`DATE` for a date two seconds
            later; for gRPC the seconds in ``RetryInfo``.
        size: the bytes of the largest request that is accepted.
        count: the records of the largest request that is answered in time.
    """

    fault: Fault
    times: int = 1
    seconds: float = 0.0
    status: int = 0
    retry_after: str = ""
    size: int = 0
    count: int = 0


NO_FAULT: Final = Step("none", ALWAYS)


class Script:
    """Gives each request its step.  Thread-safe."""

    def __init__(self, steps: Sequence[Step]) -> None:
        self._steps = list(steps)
        self._met = 0
        self._until = 0.0
        self._lock = threading.Lock()

    @classmethod
    def from_json(cls, steps: Iterable[dict[str, Any]]) -> Script:
        return cls([Step(**step) for step in steps])

    def next(self) -> Step:
        """Return the step for the current request."""
        with self._lock:
            step = self._current()
            self._met += 1
            if step.seconds and not self._until:
                self._until = time.monotonic() + step.seconds
            return step

    def takes(self, fault: Fault) -> bool:
        """Use up one request of the current step if it plays ``fault``."""
        with self._lock:
            if self._current().fault != fault:
                return False
            self._met += 1
            return True

    def _current(self) -> Step:
        while self._steps:
            step = self._steps[0]
            over = time.monotonic() >= self._until if self._until else self._met >= step.times
            if step.seconds and not self._until:
                over = False
            if not over:
                return step
            self._steps.pop(0)
            self._met, self._until = 0, 0.0
        return NO_FAULT


@dataclass(frozen=True)
class Verdict:
    """The backend's decision about one request's records, and its answer.

    Attributes:
        accepted, unanswered, refused: the records for the :class:`Journal`.
        act: ``"succeed"``, ``"partial"``, ``"status"``, or the fault to play.
        status: the HTTP status of the act ``"status"``.
    """

    act: str
    accepted: Sequence[Arrived] = ()
    unanswered: Sequence[Arrived] = ()
    refused: Sequence[Arrived] = ()
    status: int = 0


NOTHING: Final = Verdict("")


def judge(step: Step, records: Sequence[Arrived], size: int, protocol: Protocol) -> Verdict:
    """Return the outcome of ``step`` for a request of ``records`` and ``size`` bytes."""
    bad = [record for record in records if record.bad]
    good = [record for record in records if not record.bad]
    match step.fault:
        case "bad" if bad:
            # OTLP refuses the whole request; Loki keeps the entries that its answer does not name.
            kept = good if protocol == "loki" else ()
            return Verdict("status", accepted=kept, refused=bad, status=400)
        case "partial" if bad:
            return Verdict("partial", accepted=good, refused=bad)
        case "too large" | "too large, Rust" if size > step.size:
            # A single record cannot be split, so it is refused for good.
            return Verdict("status", refused=records if len(records) == 1 else (), status=413)
        case "late":
            return Verdict("late", unanswered=records)
        case "many late" if len(records) > step.count:
            return Verdict("late", unanswered=records)
        case "status":
            lasting = step.status < 500 and step.status not in _PASSING
            return Verdict("status", refused=records if lasting else (), status=step.status)
        case "noise" if protocol == "grpc":
            # gRPC reports UNKNOWN, which the specification does not let clients retry.
            return Verdict("noise", refused=records)
        case "die" | "silence" | "dribble" | "reset reading" | "noise":
            return Verdict(step.fault, unanswered=records)
        case "huge" if protocol != "loki":
            # By the specification, a client treats an answer over its limit as an error
            # that is not retryable: https://opentelemetry.io/docs/specs/otlp/
            return Verdict("huge", refused=records)
        case "bomb" if protocol == "grpc":  # clients have to unpack it
            return Verdict("bomb", refused=records)
        case "huge" | "bomb" | "garbage" | "body cut" | "headers unreadable" | "body packed":
            return Verdict(step.fault, accepted=records)
    return Verdict("succeed", accepted=records)


def as_json(steps: Iterable[Step]) -> list[dict[str, Any]]:
    return [asdict(step) for step in steps]


@dataclass
class Books:
    """The numbers of the records that a backend got, by what it did with them.

    Attributes:
        accepted: how often each record came in a request that was answered with a
            success, or that Loki kept in spite of a 400.
        unanswered: how often each record came in a request that was read and never
            fully answered; a backend may have stored it.
        refused: the records that were refused for good.
        met: how many requests met each fault.
    """

    accepted: Counter[int] = field(default_factory=Counter)
    unanswered: Counter[int] = field(default_factory=Counter)
    refused: set[int] = field(default_factory=set)
    met: Counter[str] = field(default_factory=Counter)

    @classmethod
    def read(cls, journal: Path) -> Books:
        """Return the books in a journal; empty books without a journal."""
        books = cls()
        if journal.exists():
            for line in journal.read_text(encoding="ascii").splitlines():
                entry = json.loads(line)
                books.met[entry["fault"]] += 1
                books.accepted.update(entry["accepted"])
                books.unanswered.update(entry["unanswered"])
                books.refused.update(entry["refused"])
        return books

    @property
    def duplicates(self) -> int:
        """The number of extra copies in a backend that stores requests before it answers."""
        return sum(count - 1 for count in (self.accepted + self.unanswered).values())


class Journal:
    """Writes the books to a file, one line per request, before the request is answered.

    The file survives when the backend is killed.  Thread-safe, because each append
    is a single write.
    """

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def note(self, fault: Fault, verdict: Verdict = NOTHING) -> None:
        entry = {
            "fault": fault,
            "accepted": [record.n for record in verdict.accepted],
            "unanswered": [record.n for record in verdict.unanswered],
            "refused": [record.n for record in verdict.refused],
        }
        os.write(self._file, json.dumps(entry).encode() + b"\n")
