"""What users implement: processors and sinks.

A processor is any callable; a sink is one ``send(batch)`` with an encoder in
front.  Everything around a sink - its backlog, its thread, batching, time
limits, retries, the ledger - is the pipeline's work (``fapilog.delivery``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol, TypeVar, cast

from fapilog.options.checks import Rule, check_all, is_number, refuse, whole

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fapilog.record import LogRecord
    from fapilog.values.exceptions import Capture

ItemT = TypeVar("ItemT")

_RULES: Final = {
    "count": whole(1),
    "size": whole(1, unit="bytes"),
    "delay": Rule(
        lambda value: is_number(value) and 0 <= value <= _DAY,
        "a number of seconds from 0 to 86400",
    ),
}
_DAY: Final = 86_400


class Processor(Protocol):
    """Changes a record, or drops it by returning None.

    Called on the pipeline's worker, one record at a time, in the order of
    configuration.  If it raises, the record is masked, never let through raw,
    and the failure is counted.  Must not block.
    """

    def __call__(self, record: LogRecord, /) -> LogRecord | None:
        """Return the record to go on with, or None to drop it."""
        ...


@dataclass(frozen=True)
class BatchLimits:
    """When a batch is sent: at the first of these limits.

    Attributes:
        count: records in a batch, at least 1.
        size: bytes of text in a batch, by :attr:`LogRecord.size`.
        delay: seconds the oldest record waits for company; 0 sends at once,
            a day is the most.

    Raises:
        ConfigurationError: a limit is out of range.
    """

    count: int = 1024
    size: int = 1 << 20
    delay: float = 1.0

    def __post_init__(self) -> None:
        check_all(_RULES, vars(self), "BatchLimits")


@dataclass(frozen=True)
class Outcome:
    """What a backend said of a batch it took.

    Attributes:
        rejected: records of the batch the backend refused for good.
        message: its words, announced on stderr at most once per 30 s.
    """

    rejected: int = 0
    message: str = ""


class RecordTarget(Protocol):
    """What the bridges feed: a pipeline, seen from outside.

    All methods are thread-safe and never raise.
    """

    def is_enabled(self, name: str, severity_number: int) -> bool:
        """Whether a record of logger ``name`` at this severity would be taken."""
        ...

    def lowest_severity(self) -> int:
        """Return the lowest severity number that a record of any logger is taken at."""
        ...

    def offer(self, record: LogRecord, exception: Capture | None = None) -> None:
        """Take a record whose values are snapshots already.

        Waits for room in the queue at most as long as the overflow policy
        allows, and never in a thread that runs an event loop.

        Args:
            record: without a resource it gets the target's own.
            exception: what the record is about; becomes the ``exception.*``
                attributes, beneath those the record has.
        """
        ...

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until every record offered so far is settled.

        Blocks up to ``timeout`` seconds (None: 30).  False at the time limit.
        """
        ...


class Sink(Protocol[ItemT]):
    """Where records go.  Subclass it to inherit the defaults.

    ``encode`` is called by the pipeline's worker; ``send`` by up to
    ``concurrency`` delivery threads at a time, ``close`` by the last of them;
    ``after_fork`` runs in the child before any of these threads exists.
    """

    name: str = "sink"
    limits: BatchLimits = BatchLimits()
    concurrency: int = 1

    def open(self) -> None:
        """Check options and acquire what start-up must fail without.

        Called once before the first record, on the configuring thread; must
        not block on a network.

        Raises:
            ConfigurationError: an option is wrong; names it and the fix.
        """
        return  # a body, or type checkers call the method abstract

    def encode(self, record: LogRecord) -> ItemT:
        """Return what ``send`` needs of ``record``.  Must not block or change it."""
        ...

    def send(self, batch: Sequence[ItemT], timeout: float) -> Outcome | None:
        """Deliver encoded records in order.  May block up to ``timeout`` seconds.

        Args:
            batch: at least one item, as ``encode`` returned it.
            timeout: seconds this attempt may take, above 0.

        Returns:
            None when every record was delivered, else the outcome.

        Raises:
            RetryableError: the same batch may succeed later.
            NoAnswerError: it may have arrived, but no answer came in time; it is
                sent again in smaller parts.
            TooLargeError: smaller batches may succeed; the batch is split.
            InvalidDataError: the backend refuses some of the records; the
                batch is bisected until these are alone.
            PermanentError: it never will succeed; the batch is quarantined,
                or without a quarantine counts as rejected.
        """
        ...

    def close(self) -> None:
        """Release everything.  Called once, after the last ``send``."""
        return  # a body, or type checkers call the method abstract

    def after_fork(self) -> None:
        """Forget connections, locks and buffers inherited from the parent process."""
        return  # a body, or type checkers call the method abstract


class DurableSink(Sink[ItemT], Protocol[ItemT]):
    """A sink whose encoded records can wait on disk.

    Attributes:
        wire_format: names what :meth:`pack` makes, ``"otlp-protobuf"``; what
            another format has written is never given to :meth:`unpack`.
        destination: where the records go, in words: endpoint, protocol and
            tenant, without secrets, and the same after a change of
            credentials.  Records on disk are sent by a sink of the same name
            and destination only.  "", the default, leaves the name alone to
            tell; then each such sink needs a name of its own.
    """

    wire_format: str
    destination: str = ""

    def pack(self, items: Sequence[ItemT]) -> bytes:
        """Return encoded records as bytes.  Must not block or fail."""
        ...

    def unpack(self, packed: bytes) -> list[ItemT]:
        """Return the records that :meth:`pack` was given, in their order.

        Raises:
            ValueError: ``packed`` is nothing that :meth:`pack` makes.
        """
        ...


def destination_of(sink: DurableSink[ItemT]) -> str:
    """Return where a sink sends its records; "" when it does not say.

    Raises:
        ConfigurationError: ``destination`` is not a str.
    """
    destination: object = getattr(sink, "destination", "")  # it need not inherit
    if not isinstance(destination, str):
        refuse("destination", destination, "use a str", f"sink {sink.name!r}")
    return destination


def as_durable(sink: Sink[ItemT]) -> DurableSink[ItemT] | None:
    """Return ``sink`` when its encoded records can wait on disk, else None."""
    durable = all(hasattr(sink, name) for name in ("wire_format", "pack", "unpack"))
    return cast("DurableSink[ItemT]", sink) if durable else None
