"""``LoggerCore``: the state that all loggers of one name share, and the work of a log call.

``LoggerCore.emit`` reads the time, the active span and the bound context, takes
bounded snapshots of the values, and appends an entry to the queue.  The worker
makes the record later.
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
#: Types of immutable values of bounded size, which need no snapshot.
_SMALL: Final = SCALARS - {str}


class LoggerCore:
    """The threshold, the scope and the queue that all loggers of one name in a runtime share.

    While no pipeline is attached, every log call first calls ``unattached``, which
    may attach a pipeline: the default runtime configures itself at the first call.

    Attributes:
        threshold: the lowest severity number at which loggers call
            :meth:`emit`; lower than ``level`` if a hold may take less severe records.
        level: the lowest enabled severity number.
        scope: the instrumentation scope of the records.
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
        """Detach from the pipeline; the next log call calls ``unattached`` again."""
        self.threshold = self.level = TRACE
        self._pipeline: Pipeline | None = None
        self._queue: Any = ()
        self._capacity = 0  # the queue seems full, so every log call calls _find_room()
        self._code = False
        self._severities: Mapping[str, int] = {}

    def attach(self, pipeline: Pipeline, settings: Settings, level: int) -> None:
        """Send records of severity number ``level`` or higher to ``pipeline`` from now on.

        ``settings`` says which severity names exist and whether records get the call site.
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
        """Enable severity numbers from ``level`` up; only a hold takes less severe records."""
        self.level = level
        self.threshold = gate(level)

    @property
    def is_open(self) -> bool:
        """Whether records can reach a sink.

        False if the pipeline is closed or has no sink; True while no pipeline is attached.
        """
        pipeline = self._pipeline  # read once, because another thread may replace it
        return pipeline is None or (bool(pipeline.sending_queues()) and not pipeline.closed)

    def takes(self, number: int) -> bool:
        """Whether a call at this severity number is logged or held, instead of ignored."""
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
        """Put one log call into the queue, or into the buffer of a hold.

        ``bound`` contains the fields of the logger, and ``args`` the values for the
        placeholders in ``body``.  The application's code must be two frames above this
        method, because the call site is looked up there.
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
                if number < self.level:  # _find_room() may have raised the level
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

        A wrong value is announced instead of raised, because a misspelt severity in a rarely
        used branch must not break the application.  A wrong integer is
        converted by :func:`closest_severity`; any other wrong value becomes INFO.
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
        """Whether the queue is too full for the least severe records.

        False while no pipeline is attached.
        """
        return self._pipeline is not None and len(self._queue) >= self._capacity

    async def room(self, number: int) -> None:
        """Wait until the queue has space for a record of severity ``number``.

        Does not block the event loop.  Waits no longer than a synchronous log call would.
        If the waiting task is cancelled, its record is refused and counted.
        """
        import asyncio  # noqa: PLC0415 - already loaded: it runs this coroutine

        if number < self.level:
            hold = taker(number)
            if hold is None or not hold.released:
                return  # a record that is held or disabled needs no space in the queue
        pipeline = self._pipeline
        if pipeline is not None:
            self._worker.wake()  # the worker may sleep to collect more entries
        delay, deadline = 0.001, monotonic() + (pipeline.patience if pipeline else 0.0)
        while (pipeline := self._pipeline) and not pipeline.closed:
            if pipeline.has_room(number):
                return
            if monotonic() >= deadline or (self._worker.idle and not self._worker.wake()):
                return  # emit() refuses the record and counts the refusal
            try:
                await asyncio.sleep(delay)
            except asyncio.CancelledError:
                pipeline.refuse(number)
                raise
            delay = min(delay * 2, 0.05)

    def _find_room(self, number: int) -> deque[Entry] | None:
        """Return the queue when it has space for a record of severity ``number``.

        Calls ``unattached`` if there is no pipeline, and blocks as long as the overflow
        policy allows.  Returns None if the record was refused or its severity is disabled.
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
            return  # without memory, the record cannot be counted

    def _overtaken(self, queue: deque[Entry], entry: Entry) -> None:
        """Move an entry to the present queue.

        Another thread replaced ``queue`` during the log call.  If the worker of the old
        queue has already taken the entry, the entry stays there.
        """
        if self._pipeline is not None and withdraw(queue, entry):
            self._pipeline.put(entry)

    def close(self) -> None:
        """Make the queue seem full, so that the closed pipeline refuses and counts each record."""
        self._capacity = 0
        self._queue = ()


def _call_site(stacklevel: int) -> CallSite | None:
    frame = caller(4, stacklevel)
    return frame and (frame.f_code, frame.f_lineno, frame.f_globals.get("__name__"))
