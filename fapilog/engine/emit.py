"""Defines ``LoggerCore``, which stores the state that all loggers of one name share.

``LoggerCore.emit`` reads the time, the active span and the bound context, and copies mutable
and large values.  It appends these values to the queue as one entry.  The worker, a background
thread, makes the log record from the entry later.
"""

from __future__ import annotations

from time import time_ns
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.context import get_current
from opentelemetry.trace.propagation import _SPAN_KEY

from fapilog.context import BOUND, SUPPRESSED
from fapilog.diagnostics import announce, describe
from fapilog.engine.arguments import SPECIAL, caller, format_message, unpack
from fapilog.engine.entry import announce_span, build_logged, withdraw
from fapilog.engine.holding import gate, taker
from fapilog.native import monotonic
from fapilog.severity import (
    FATAL,
    INFO,
    SHORT_NAMES,
    STDLIB_LEVELS,
    TRACE,
    closest_severity,
    parse_severity,
)
from fapilog.values import DEFAULT_LIMITS, SCALARS, snapshot, snapshot_attributes

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable, Mapping

    from fapilog.engine.entry import CallSite, Entry
    from fapilog.engine.hold_buffer import Buffer
    from fapilog.engine.pipeline import Pipeline
    from fapilog.record import Scope
    from fapilog.settings import Settings

_MAX_TEXT: Final = DEFAULT_LIMITS.text
#: The types of small immutable values, which need no copy.
_SMALL: Final = SCALARS - {str}


class LoggerCore:
    """The threshold, the scope and the queue that all loggers of one name in a runtime share.

    Until a ``Pipeline`` is attached, every log call first calls the function ``unattached``,
    which may attach a pipeline.  In this way, the default runtime configures itself at the
    first log call.

    Attributes:
        threshold: the lowest severity number for which loggers call :meth:`emit`.  It is lower
            than ``level`` if a ``hold()`` block may buffer less severe records.
        level: the lowest enabled severity number.
        scope: the OpenTelemetry instrumentation scope of the records.
    """

    __slots__ = (
        "__weakref__", "_capacity", "_code", "_pipeline", "_queue", "_resource", "_severities",
        "_unattached", "_worker", "level", "scope", "threshold",
    )  # fmt: skip

    def __init__(self, scope: Scope, unattached: Callable[[LoggerCore], None]) -> None:
        self.scope = scope
        self._unattached = unattached
        self.detach()

    def detach(self) -> None:
        """Detach from the pipeline.

        The next log call then calls the function ``unattached``, which may attach a pipeline.
        """
        self.threshold = self.level = TRACE
        self._pipeline: Pipeline | None = None
        self._queue: Any = ()
        self._capacity = 0  # 0 makes the queue seem full, so that log calls call _find_room()
        self._code = False
        self._severities: Mapping[str, int] = {}

    def attach(self, pipeline: Pipeline, settings: Settings, level: int) -> None:
        """Send records of severity number ``level`` or higher to ``pipeline`` from now on.

        ``settings`` defines additional severity names, and whether records contain the source
        file and line of the log call.
        """
        self._pipeline = pipeline
        self._worker = pipeline.bell
        self._queue = pipeline.queue
        self._resource = pipeline.resource
        self._code = settings.code_attributes
        self._severities = settings.severities
        self.set_level(level)
        self._capacity = pipeline.admission.lowest

    def set_level(self, level: int) -> None:
        """Enable the severity numbers from ``level`` upwards.

        A less severe record is discarded, unless a ``hold()`` block buffers it.
        """
        self.level = level
        self.threshold = gate(level)

    @property
    def is_open(self) -> bool:
        """Whether records can reach a sink.

        False if the pipeline is closed or has no sink; True while no pipeline is attached.
        """
        pipeline = self._pipeline  # a single read, because another thread may replace the pipeline
        return pipeline is None or (bool(pipeline.sending_queues()) and not pipeline.closed)

    def takes(self, number: int) -> bool:
        """Whether a log call with this severity would be logged, or buffered by ``hold()``."""
        return number >= self.threshold and (number >= self.level or taker(number) is not None)

    def emit(  # noqa: C901, PLR0912, PLR0917 - one function, arguments by position: for speed
        self,
        number: int,
        text: str,
        body: Any,
        attributes: dict[str, Any],
        bound: Mapping[str, Any],
        args: tuple[Any, ...] = (),
        event_name: str = "",
    ) -> None:
        """Append one log call to the queue, or to the buffer of a ``hold()`` block.

        ``bound`` contains the fields that are bound to the logger, and ``args`` the values for
        the placeholders in ``body``.  The application's code must be two frames above this
        method, because the record may contain the file and line of that code.
        """
        is_in = False
        hold = None
        if number < self.level:
            hold = taker(number)
            if hold is None:
                return
        try:
            context = BOUND.get()
            if context is SUPPRESSED:
                return
            traces = None
            stacklevel = 1
            try:
                if args:
                    body = format_message(body, args, attributes, self.scope.name)
                for name, value in attributes.items():
                    kind = type(value)
                    if type(name) is str and (
                        (kind is str and len(value) <= _MAX_TEXT)
                        or (kind in _SMALL and name not in SPECIAL)
                    ):
                        continue
                    attributes, traces, stacklevel = unpack(attributes)
                    break
            except Exception:  # noqa: BLE001 - a name or a class may refuse comparison
                attributes = snapshot_attributes(attributes)
            if type(body) is not str or len(body) > _MAX_TEXT:
                body = snapshot(body)
            span: Any = get_current().get(_SPAN_KEY)
            if span is not None:
                try:
                    span = span.get_span_context()
                except Exception as error:  # noqa: BLE001 - the application's own span class
                    span = None
                    announce_span(error)
            queue = self._queue
            if hold is None and len(queue) >= self._capacity:
                queue = self._find_room(number)
                if queue is None:
                    return
                # _find_room() may have attached a pipeline and raised ``self.level``.
                if number < self.level:
                    hold = taker(number)
            entry = (
                build_logged,
                number,
                self.scope,
                time_ns(),
                text,
                body,
                attributes,
                context,
                bound,
                span,
                event_name,
                traces,
                _call_site(stacklevel) if self._code else None,
                self._resource,
            )
            if hold is not None:
                self._hold(hold, entry)
                return
            queue.append(entry)
            is_in = True
            if self._queue is not queue:
                self._overtaken(queue, entry)
            elif self._worker.idle:
                self._worker.wake()
        except MemoryError:
            if not is_in:
                self._refuse_for_memory(number)

    def severity(self, severity: int | str) -> tuple[int, str]:
        """Return the severity number and text for the argument ``severity`` of ``Logger.log``.

        A wrong value causes a message on stderr instead of an exception, because a misspelt
        severity in a rarely used branch must not break the application.  The function
        :func:`closest_severity` converts a wrong integer; any other wrong value becomes INFO.
        """
        if type(severity) is int and severity in STDLIB_LEVELS:
            number = STDLIB_LEVELS[severity]
            return number, SHORT_NAMES[number]
        try:
            if isinstance(severity, str):
                name = severity.strip().upper()
                if name in self._severities:
                    return int(self._severities[name]), name
            number = min(int(parse_severity(severity)), FATAL + 3)
        except Exception as error:  # noqa: BLE001 - callers may give any object
            number = closest_severity(severity) if type(severity) is int else INFO
            text = SHORT_NAMES[number]
            announce("severity", f"log() takes a severity: {describe(error)}; {text} is used")
        return number, SHORT_NAMES[number]

    @property
    def is_full(self) -> bool:
        """Whether the queue has no space for the least severe records.

        Some space of the queue is reserved for more severe records.  Returns False while no
        pipeline is attached.
        """
        return self._pipeline is not None and len(self._queue) >= self._capacity

    async def room(self, number: int) -> None:
        """Wait until the queue has space for a record of severity ``number``.

        Does not block the event loop.  Returns after a time limit even if there is still no
        space; the limit is the longest wait of a synchronous log call.  If the waiting task is
        cancelled, its record is counted as dropped.
        """
        import asyncio  # noqa: PLC0415 - already loaded: it runs this coroutine

        if number < self.level:
            hold = taker(number)
            if hold is None or not hold.released:
                return  # a record that is buffered or ignored needs no space in the queue
        pipeline = self._pipeline
        if pipeline is not None:
            self._worker.wake()  # the worker may be waiting for more entries
        delay, deadline = 0.001, monotonic() + (pipeline.patience if pipeline else 0.0)
        while (pipeline := self._pipeline) and not pipeline.closed:
            if pipeline.has_room(number):
                return
            if monotonic() >= deadline or (self._worker.idle and not self._worker.wake()):
                return  # emit() will drop the record and count it as dropped
            try:
                await asyncio.sleep(delay)
            except asyncio.CancelledError:
                pipeline.refuse(number)
                raise
            delay = min(delay * 2, 0.05)

    def _find_room(self, number: int) -> deque[Entry] | None:
        """Wait until the queue has space for a record of severity ``number``; return the queue.

        First calls ``unattached`` if no pipeline is attached.  Blocks as long as the option
        ``overflow`` allows.  Returns None if the severity is disabled, or if the queue stays
        full; in the latter case, the record is counted as dropped.
        """
        if self._pipeline is None:
            self._unattached(self)
        if not self.takes(number):
            return None
        while (pipeline := self._pipeline) is not None:
            if pipeline.has_room(number):
                return pipeline.queue
            if not pipeline.make_room(number) and pipeline is self._pipeline:
                pipeline.refuse(number)
                return None
        return None

    def _hold(self, hold: Buffer, entry: Entry) -> None:
        pipeline = self._pipeline
        if pipeline is not None:
            hold.add(pipeline, entry)

    def _refuse_for_memory(self, number: int) -> None:
        try:
            if self._pipeline is not None:
                self._pipeline.refuse(number, "no_memory")
        except MemoryError:
            return  # not enough memory is left to count the dropped record

    def _overtaken(self, queue: deque[Entry], entry: Entry) -> None:
        """Move ``entry`` to the current queue, because another thread has replaced ``queue``.

        The entry is not moved if a worker thread has already removed it from ``queue``.
        """
        if self._pipeline is not None and withdraw(queue, entry):
            self._pipeline.put(entry)

    def close(self) -> None:
        """Make the queue seem full, so that every later record is counted as dropped."""
        self._capacity = 0
        self._queue = ()


def _call_site(stacklevel: int) -> CallSite | None:
    frame = caller(4, stacklevel)
    return frame and (frame.f_code, frame.f_lineno, frame.f_globals.get("__name__"))
