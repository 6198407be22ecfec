"""What the backend does to its requests, step by step, and the books that it keeps of them.

A script is a list of steps; each meets a number of requests, or all that come
within some seconds of the first.  After the last step every request is taken.
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
    "none",  # takes the request
    "die",  # reads the request, then the backend kills itself
    "silence",  # reads and never answers
    "dribble",  # answers a byte a second
    "reset writing",  # resets the connection while the client writes
    "reset reading",  # resets it once the request was read
    "status",  # answers `status`, with `retry_after`
    "bad",  # refuses requests with bad records as invalid; Loki keeps the good ones
    "partial",  # takes the good records and refuses the bad ones by partial_success
    "too large",  # refuses requests of more than `size` bytes
    "too large, Rust",  # the same by gRPC with OUT_OF_RANGE, as servers written in Rust do
    "body cut",  # a success whose body ends before its Content-Length
    "headers unreadable",  # a success with more headers than any client reads
    "body packed",  # a success with gzip as its transfer encoding
    "late",  # reads, and answers after the client has given up
    "many late",  # the same with requests of more than `count` records
    "bomb",  # a success, packed so that it unpacks to 16 MiB
    "huge",  # a success of 5 MiB
    "garbage",  # a success whose body is none of the protocol's
    "noise",  # an answer that is not even of the transport's protocol
]

#: Asks to be tried again at a date, not after some seconds.
DATE: Final = "date"

Protocol = Literal["http", "grpc", "loki"]

#: Statuses below 500 that a later attempt may not meet.
_PASSING: Final = frozenset({401, 403, 407, 429})

#: Requests that a step without an end meets.
ALWAYS: Final = 1 << 30


@dataclass(frozen=True)
class Step:
    """One fault, for ``times`` requests or, where ``seconds`` is given, for so long.

    Attributes:
        fault: see :data:`Fault`.
        times: requests that meet it.
        seconds: how long it lasts from the first request that meets it.
        status: HTTP status; for gRPC the code that means the same.
        retry_after: value of the header, :data:`DATE` for a date two seconds
            ahead; for gRPC seconds in ``RetryInfo``.
        size: bytes of the largest request that is taken.
        count: records of the largest request that is answered in time.
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
    """Hands out the steps, one for each request.  Thread-safe."""

    def __init__(self, steps: Sequence[Step]) -> None:
        self._steps = list(steps)
        self._met = 0
        self._until = 0.0
        self._lock = threading.Lock()

    @classmethod
    def from_json(cls, steps: Iterable[dict[str, Any]]) -> Script:
        return cls([Step(**step) for step in steps])

    def next(self) -> Step:
        """Return the step that the request at hand meets."""
        with self._lock:
            step = self._current()
            self._met += 1
            if step.seconds and not self._until:
                self._until = time.monotonic() + step.seconds
            return step

    def takes(self, fault: Fault) -> bool:
        """Use up one request of the present step if that is ``fault``."""
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
    """What becomes of one request's records, and how it is answered.

    Attributes:
        accepted, unanswered, refused: what goes to the :class:`Journal`.
        act: ``"succeed"``, ``"partial"``, ``"status"``, or the fault to play.
        status: HTTP status of the act ``"status"``.
    """

    act: str
    accepted: Sequence[Arrived] = ()
    unanswered: Sequence[Arrived] = ()
    refused: Sequence[Arrived] = ()
    status: int = 0


NOTHING: Final = Verdict("")


def judge(step: Step, records: Sequence[Arrived], size: int, protocol: Protocol) -> Verdict:
    """Return what ``step`` makes of a request of ``records`` and ``size`` bytes."""
    bad = [record for record in records if record.bad]
    good = [record for record in records if not record.bad]
    match step.fault:
        case "bad" if bad:
            # OTLP refuses the whole request; Loki has kept what it says nothing of.
            kept = good if protocol == "loki" else ()
            return Verdict("status", accepted=kept, refused=bad, status=400)
        case "partial" if bad:
            return Verdict("partial", accepted=good, refused=bad)
        case "too large" | "too large, Rust" if size > step.size:
            # A single record cannot be cut in two: that is the end of it.
            return Verdict("status", refused=records if len(records) == 1 else (), status=413)
        case "late":
            return Verdict("late", unanswered=records)
        case "many late" if len(records) > step.count:
            return Verdict("late", unanswered=records)
        case "status":
            lasting = step.status < 500 and step.status not in _PASSING
            return Verdict("status", refused=records if lasting else (), status=step.status)
        case "noise" if protocol == "grpc":
            # gRPC calls it UNKNOWN, which the specification does not let clients retry.
            return Verdict("noise", refused=records)
        case "die" | "silence" | "dribble" | "reset reading" | "noise":
            return Verdict(step.fault, unanswered=records)
        case "huge" if protocol != "loki":
            # By the specification a client takes an answer over its limit for an
            # error that is not retryable: https://opentelemetry.io/docs/specs/otlp/
            return Verdict("huge", refused=records)
        case "bomb" if protocol == "grpc":  # where clients have to unpack, so it is as above
            return Verdict("bomb", refused=records)
        case "huge" | "bomb" | "garbage" | "body cut" | "headers unreadable" | "body packed":
            return Verdict(step.fault, accepted=records)
    return Verdict("succeed", accepted=records)


def as_json(steps: Iterable[Step]) -> list[dict[str, Any]]:
    return [asdict(step) for step in steps]


@dataclass
class Books:
    """What a backend made of the records, by their numbers.

    Attributes:
        accepted: how often each came in a request that was answered as a
            success or, by Loki, kept in spite of a 400.
        unanswered: how often each came in a request that was read and never
            answered in full: a backend may have stored it all the same.
        refused: those that were refused for good.
        met: how many requests met which fault.
    """

    accepted: Counter[int] = field(default_factory=Counter)
    unanswered: Counter[int] = field(default_factory=Counter)
    refused: set[int] = field(default_factory=set)
    met: Counter[str] = field(default_factory=Counter)

    @classmethod
    def read(cls, journal: Path) -> Books:
        """Return the books that a journal holds; empty ones where there is none."""
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
        """Copies beyond the first that a backend would hold that stores before it answers."""
        return sum(count - 1 for count in (self.accepted + self.unanswered).values())


class Journal:
    """Writes the books to a file, a line a request, before the request is answered.

    What is in the file survives the backend's being killed.  Thread-safe: an
    append of one write.
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
