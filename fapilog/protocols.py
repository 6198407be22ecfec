"""The interfaces that users implement: processors and sinks.

A processor is any callable.  A sink implements ``encode(record)`` and
``send(batch)``; ``fapilog.delivery`` provides everything else that a sink needs: its
backlog and threads, batches, time limits, retries, and the ledger.
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

    The pipeline's worker calls the processors in their configured order, for one
    record at a time.  A processor may change the record in place, or return a
    changed copy (``dataclasses.replace``).  If it raises, the record is masked,
    and the failure is counted and announced with its message and line.  Must
    not block.
    """

    def __call__(self, record: LogRecord, /) -> LogRecord | None:
        """Return the record for the next processor, or None to drop it."""
        ...


@dataclass(frozen=True)
class BatchLimits:
    """The limits of a batch.  A batch is sent when it reaches one of its limits.

    Attributes:
        count: the largest number of records, at least 1.
        size: the largest sum of :attr:`LogRecord.size` in bytes, at least 1.
        delay: the longest time that the oldest record of a batch waits, in seconds, up
            to a day; 0 sends each record immediately.

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
    """The answer of a backend that accepted a batch, except for ``rejected`` records.

    Attributes:
        rejected: the number of records that the backend refused permanently.
        message: the backend's message, announced on stderr at most once per 30 s.
    """

    rejected: int = 0
    message: str = ""


class RecordTarget(Protocol):
    """The object to which bridges pass their records, and which puts them into a pipeline.

    All methods are thread-safe and never raise.
    """

    def is_enabled(self, name: str, severity_number: int) -> bool:
        """Whether the target accepts a record of logger ``name`` at this severity."""
        ...

    def lowest_severity(self) -> int:
        """Return the lowest severity number that the target accepts from any logger."""
        ...

    def offer(self, record: LogRecord, exception: Capture | None = None) -> None:
        """Put a record into the queue.

        Waits for space in the queue for as long as the overflow policy allows, but
        never in a thread that runs an event loop.

        Args:
            record: the record, whose values are snapshots.  If it has no resource, it gets
                the target's resource.
            exception: the exception that becomes the ``exception.*`` attributes;
                attributes that the record already has win.
        """
        ...

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until every record that was offered before this call is settled.

        Blocks up to ``timeout`` seconds (30 if None).  Returns False if this time passes.
        """
        ...


class Sink(Protocol[ItemT]):
    """A destination of records.  A subclass inherits default attributes and methods.

    The pipeline's worker calls ``encode``.  Up to ``concurrency`` delivery threads
    call ``send`` at the same time; the last of these threads to end calls ``close``.
    ``after_fork`` runs in the child process before these threads exist.
    """

    name: str = "sink"
    limits: BatchLimits = BatchLimits()
    concurrency: int = 1

    def open(self) -> None:
        """Check the options and acquire the resources that the sink cannot work without.

        Called once before the first record, on the thread that configures
        fapilog.  Must not wait for a network.

        Raises:
            ConfigurationError: an option is wrong; the error names the option and the fix.
        """
        return  # a body, because type checkers treat a method without a body as abstract

    def encode(self, record: LogRecord) -> ItemT:
        """Return the encoded record for ``send``.  Must not block or change the record."""
        ...

    def send(self, batch: Sequence[ItemT], timeout: float) -> Outcome | None:
        """Deliver encoded records in order.  May block up to ``timeout`` seconds.

        Args:
            batch: at least one item that ``encode`` returned.
            timeout: the number of seconds that this attempt may take, more than 0.

        Returns:
            None if every record was delivered, else the outcome.

        Raises:
            RetryableError: the same batch may succeed later.
            NoAnswerError: the batch may have arrived, but no answer came in
                time; the records are sent again in smaller batches.
            TooLargeError: smaller batches may succeed; the batch is split.
            InvalidDataError: the backend refuses some of the records; the batch
                is bisected until each refused record is alone.  From a batch of at least
                64 records, 16 single records are sent first; if all are refused for the
                same reason, the batch is given up.
            PermanentError: the batch will never succeed; it is quarantined, or
                counted as rejected if there is no quarantine.
        """
        ...

    def close(self) -> None:
        """Release all resources.  Called once, after the last ``send``."""
        return  # without a body, type checkers would treat the method as abstract

    def after_fork(self) -> None:
        """Discard the connections, locks and buffers inherited from the parent process."""
        return  # without a body, type checkers would treat the method as abstract


class DurableSink(Sink[ItemT], Protocol[ItemT]):
    """A sink whose encoded records can wait on disk.

    Attributes:
        wire_format: the name of the format of :meth:`pack`, such as
            ``"otlp-protobuf"``; :meth:`unpack` gets only bytes of this format.
        destination: the description of the destination: endpoint, protocol and
            tenant, without secrets and independent of the credentials.  Only a
            sink with the same name and destination sends the records on disk.
            Sinks without a destination ("", the default) need different names.
        credentials: the secrets by which a backend tells accounts of one
            destination apart, as one text; "", the default, if there are none.
            Only a sink with the same credentials sends the records on disk.  The
            spool does not store this text, only a salted digest of it.
    """

    wire_format: str
    destination: str = ""
    credentials: str = ""

    def pack(self, items: Sequence[ItemT]) -> bytes:
        """Return encoded records as bytes.  Must not block or fail."""
        ...

    def unpack(self, packed: bytes) -> list[ItemT]:
        """Return the encoded records in ``packed``, in the order in which they were packed.

        Raises:
            ValueError: ``packed`` does not come from :meth:`pack`.
        """
        ...


def destination_of(sink: DurableSink[ItemT]) -> str:
    """Return the destination of a sink, or "" if it has none.

    Raises:
        ConfigurationError: ``destination`` is not a str.
    """
    destination: object = getattr(sink, "destination", "")  # a sink may have no such attribute
    if not isinstance(destination, str):
        refuse("destination", destination, "use a str", f"sink {sink.name!r}")
    return destination


def credentials_of(sink: DurableSink[ItemT]) -> str:
    """Return the credentials of a sink, or "" if it has none.

    Raises:
        ConfigurationError: ``credentials`` is not a str.
    """
    credentials: object = getattr(sink, "credentials", "")  # a sink may have no such attribute
    if not isinstance(credentials, str):
        refuse("credentials", type(credentials), "use a str", f"sink {sink.name!r}")
    return credentials


def as_durable(sink: Sink[ItemT]) -> DurableSink[ItemT] | None:
    """Return ``sink`` if its encoded records can wait on disk, else None."""
    durable = all(hasattr(sink, name) for name in ("wire_format", "pack", "unpack"))
    return cast("DurableSink[ItemT]", sink) if durable else None
