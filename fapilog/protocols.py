"""The interfaces that users implement: processors and sinks.

A processor is any callable that accepts a record and returns it.  A sink implements
``encode(record)`` and ``send(batch, timeout)``.  The package ``fapilog.delivery`` provides the
queue, the threads, the batches, the time limits, the retries and the statistics of each sink.
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

    A background thread calls the processors in their configured order, for one
    record at a time.  A processor may change the record in place, or return a
    changed copy (``dataclasses.replace``).  If it raises, all values of the record are masked,
    and fapilog counts the error, and writes the error's message and the line of code that raised
    it to stderr.  Must not block.
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
    """The answer of a backend that accepted all or some records of a batch.

    Attributes:
        rejected: the number of records that the backend refused permanently.
        message: the backend's message, which is written to stderr at most once every 30 seconds.
    """

    rejected: int = 0
    message: str = ""


class RecordTarget(Protocol):
    """An object, usually a ``Runtime``, that accepts records and delivers them to sinks.

    The modules in ``fapilog.bridges`` pass the records of other logging libraries to such an
    object.  All methods are thread-safe and never raise.
    """

    def is_enabled(self, name: str, severity_number: int) -> bool:
        """Return whether the target accepts records of the logger ``name`` at this severity."""
        ...

    def lowest_severity(self) -> int:
        """Return the lowest severity number that the target accepts from any logger."""
        ...

    def offer(self, record: LogRecord, exception: Capture | None = None) -> None:
        """Put a record into the pipeline's queue.

        Waits for space in the queue for as long as the option ``overflow`` allows, but
        never in a thread that runs an event loop.

        Args:
            record: the record, whose values must not change later.  If it has no resource, it
                gets the target's resource.
            exception: the exception that becomes the ``exception.*`` attributes.  It does not
                replace attributes that the record already has.
        """
        ...

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until every earlier record has a final result, such as delivered or dropped.

        Blocks up to ``timeout`` seconds (30 if None).  Returns False if the wait takes longer.
        """
        ...


class Sink(Protocol[ItemT]):
    """A destination of records.  A subclass inherits default attributes and methods.

    A background thread calls ``encode``.  Up to ``concurrency`` other background threads call
    ``send`` at the same time; the last of these threads calls ``close`` when it ends.
    ``after_fork`` runs in a forked child process before these threads are started.
    """

    name: str = "sink"
    limits: BatchLimits = BatchLimits()
    concurrency: int = 1

    def open(self) -> None:
        """Check the options and acquire the resources that the sink needs.

        Called once before the first record, on the thread that configures
        fapilog.  Must not wait for a network.

        Raises:
            ConfigurationError: an option is wrong; the error names the option and the fix.
        """
        return  # without a body, type checkers would treat the method as abstract

    def encode(self, record: LogRecord) -> ItemT:
        """Return the encoded record for ``send``.  Must not block or change the record."""
        ...

    def send(self, batch: Sequence[ItemT], timeout: float) -> Outcome | None:
        """Deliver encoded records in order.  May block up to ``timeout`` seconds.

        Args:
            batch: the encoded records, at least one item that ``encode`` returned.
            timeout: the number of seconds that this attempt may take, more than 0.

        Returns:
            None if every record was delivered, else an ``Outcome`` with the number of refused
            records.

        Raises:
            RetryableError: the same batch may succeed later.
            NoAnswerError: the batch may have arrived, but no answer came in
                time; the records are sent again in smaller batches.
            TooLargeError: smaller batches may succeed; the batch is split.
            InvalidDataError: the backend refuses some of the records.  The batch
                is bisected until each refused record is alone.  From a batch of at least
                64 records, 16 single records are sent first; if all are refused for the
                same reason, the remaining records are not sent, and all records of the batch
                are treated as refused.
            PermanentError: the batch will never succeed.  Its records are written to the
                sink's quarantine on disk, or counted as rejected if there is no quarantine.
        """
        ...

    def close(self) -> None:
        """Release all resources.  Called once, after the last ``send``."""
        return

    def after_fork(self) -> None:
        """Discard the connections, locks and buffers inherited from the parent process."""
        return


class DurableSink(Sink[ItemT], Protocol[ItemT]):
    """A sink whose encoded records can be stored on disk until they are sent.

    Attributes:
        wire_format: the name of the format of :meth:`pack`, such as
            ``"otlp-protobuf"``; :meth:`unpack` gets only bytes of this format.
        destination: the description of the destination: endpoint, protocol and
            tenant, without secrets and independent of the credentials.  Records on disk are
            only sent by a sink with the same name and destination as the sink that stored
            them.  Sinks without a destination ("", the default) need different names.
        credentials: a string that contains every secret that identifies an account at the
            destination; "" (the default) if the sink has no such secret.  Records on disk are
            only sent by a sink with the same credentials as the sink that stored them.  Only a
            salted digest of this string is written to disk.
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
    destination: object = getattr(sink, "destination", "")  # a sink may lack the attribute
    if not isinstance(destination, str):
        refuse("destination", destination, "use a str", f"sink {sink.name!r}")
    return destination


def credentials_of(sink: DurableSink[ItemT]) -> str:
    """Return the credentials of a sink, or "" if it has none.

    Raises:
        ConfigurationError: ``credentials`` is not a str.
    """
    credentials: object = getattr(sink, "credentials", "")
    if not isinstance(credentials, str):
        refuse("credentials", type(credentials), "use a str", f"sink {sink.name!r}")
    return credentials


def as_durable(sink: Sink[ItemT]) -> DurableSink[ItemT] | None:
    """Return ``sink`` if its encoded records can be stored on disk, else None."""
    durable = all(hasattr(sink, name) for name in ("wire_format", "pack", "unpack"))
    return cast("DurableSink[ItemT]", sink) if durable else None
