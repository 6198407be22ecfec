"""Records under test: what an application logs, as a sink would get it, in memory.

``capture_logs`` stands in for every sink of every runtime made while it is
active, so a test sees records after redaction and nothing leaves the process.
The fixture ``logs`` of the pytest plugin (``pytest_fapilog``) is this for the
time of a test.
"""

from __future__ import annotations

import contextlib
import re
import threading
from collections import deque
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from unittest import mock

from fapilog.bridges import hooks, stdlib
from fapilog.delivery.route import Route
from fapilog.delivery.sending_queue import SendingQueue
from fapilog.engine import holding
from fapilog.native import monotonic
from fapilog.process import exit as process_exit
from fapilog.protocols import BatchLimits, Sink
from fapilog.record import LogRecord
from fapilog.runtime import default, wiring
from fapilog.runtime.runtime import Runtime, resolve_settings
from fapilog.severity import parse_severity
from fapilog.values import snapshot

if TYPE_CHECKING:
    import logging
    from collections.abc import Iterator, Sequence

    from fapilog.settings import Settings

    #: What a value has to be: ``...`` is anything, a compiled regular expression
    #: has to be found in its text, a type to be its type, a function to return a
    #: true value; everything else has to be equal.
    Pattern: TypeAlias = Any

#: Records one capture keeps; beyond them the oldest go.
CAPACITY: Final = 100_000
#: Seconds that reading waits for the pipeline.
TIMEOUT: Final = 10.0

_NAME: Final = "captured"
_MAX_LINES: Final = 100
_MAX_LINE: Final = 300
_IN_RANGE: Final = 4  # severity numbers of one name
_MISSING: Final = object()


class CapturedLogs:
    """The records logged while a capture is active.  Thread-safe.

    Reading waits until what was logged so far is processed, at most 10 s: what
    a thread or a task has logged before is there.  Nothing has to sleep.

    ``str()`` lists what was logged; so do the errors of :meth:`one` and
    :meth:`none`.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._records: deque[LogRecord] = deque(maxlen=CAPACITY)
        self._is_active = True

    @property
    def records(self) -> list[LogRecord]:
        """All records, in the order of the pipeline.

        Raises:
            TimeoutError: they are not processed within 10 s.
        """
        if not self._flush():
            msg = f"what was logged is not processed after {TIMEOUT:g} s: does a processor hang?"
            raise TimeoutError(msg)
        return self._kept()

    @property
    def bodies(self) -> list[Any]:
        """The bodies of all records."""
        return [record.body for record in self.records]

    def at(self, severity: int | str) -> list[LogRecord]:
        """Return the records of a severity.

        Args:
            severity: ``"ERROR"`` stands for its range, 17 to 20; a number, or
                ``"ERROR2"``, for itself.

        Raises:
            ValueError: it is no severity.
        """
        return self.find(severity=severity)

    def find(
        self,
        body: Pattern = ...,
        /,
        *,
        severity: int | str | None = None,
        logger: Pattern = ...,
        event_name: Pattern = ...,
        trace_id: Pattern = ...,
        span_id: Pattern = ...,
        **attributes: Pattern,
    ) -> list[LogRecord]:
        """Return the records that match all that is given, in their order.

        A pattern is a value to be equal to - after the conversion that logged
        values go through -, a compiled regular expression to be found in the
        text, a type, a function that is given the value, or ``...``: anything,
        as long as the attribute is there.

        Args:
            body: pattern of the body.
            severity: as for :meth:`at`.
            logger: pattern of the logger's name.
            event_name: pattern of the event's name.
            trace_id: pattern of the trace id, hex digits.
            span_id: pattern of the span id, hex digits.
            **attributes: patterns by name; ``**{"http.route": "/"}`` for
                names with dots.

        Raises:
            ValueError: ``severity`` is none.
        """
        wanted = None if severity is None else _numbers(severity)
        fields = {"event_name": event_name, "trace_id": trace_id, "span_id": span_id}
        return [
            record
            for record in self.records
            if (wanted is None or record.severity_number in wanted)
            and _matches(record.body, body)
            and _matches(record.scope.name, logger)
            and all(_matches(getattr(record, name), wish) for name, wish in fields.items())
            and all(
                _matches(record.attributes.get(name, _MISSING), wish)
                for name, wish in attributes.items()
            )
        ]

    def one(self, body: Pattern = ..., /, **patterns: Any) -> LogRecord:
        """Return the only record that matches; arguments as for :meth:`find`.

        Raises:
            AssertionError: none matches, or several do; lists what was logged.
        """
        found = self.find(body, **patterns)
        if len(found) != 1:
            msg = f"{len(found)} records match {_asked(body, patterns)} instead of one\n{self}"
            raise AssertionError(msg)
        return found[0]

    def none(self, body: Pattern = ..., /, **patterns: Any) -> None:
        """Make sure that no record matches; arguments as for :meth:`find`.

        Raises:
            AssertionError: some do; lists what was logged.
        """
        found = self.find(body, **patterns)
        if found:
            msg = f"{len(found)} records match {_asked(body, patterns)}\n{self}"
            raise AssertionError(msg)

    def clear(self) -> None:
        """Forget what was logged so far."""
        self._flush()
        with self._lock:
            self._records.clear()

    def __len__(self) -> int:
        return len(self.records)

    def __bool__(self) -> bool:
        return True

    def __iter__(self) -> Iterator[LogRecord]:
        return iter(self.records)

    def __str__(self) -> str:
        self._flush()
        records = self._kept()
        lines = [_line(record) for record in records[-_MAX_LINES:]]
        return "\n".join([f"{len(records)} records were logged:", *lines])

    def __repr__(self) -> str:
        return f"<CapturedLogs of {len(self._kept())} records>"

    def _kept(self) -> list[LogRecord]:
        with self._lock:
            return list(self._records)

    def _flush(self) -> bool:
        deadline = monotonic() + TIMEOUT
        return not self._is_active or all(
            one.pipeline.flush(deadline - monotonic())
            for one in process_exit.open_runtimes()
            if isinstance(one, Runtime)
            and any(queue.name == _NAME for queue in one.pipeline.sending_queues())
        )

    def _take(self, records: Sequence[LogRecord]) -> None:
        with self._lock:
            if self._is_active:
                self._records.extend(records)

    def _end(self) -> None:
        with self._lock:
            self._is_active = False


class _CaptureSink(Sink[LogRecord]):
    """Hands records over as they are."""

    name = _NAME
    limits = BatchLimits(delay=0)

    def __init__(self, logs: CapturedLogs) -> None:
        self._logs = logs

    def encode(self, record: LogRecord) -> LogRecord:
        return record

    def send(self, batch: Sequence[LogRecord], timeout: float) -> None:  # noqa: ARG002 - at once
        self._logs._take(batch)  # noqa: SLF001 - one thing in two classes


@contextlib.contextmanager
def capture_logs(level: int | str | None = None) -> Iterator[CapturedLogs]:
    """Capture what is logged in the block, instead of sending it anywhere.

    A new default runtime takes the place of the present one, with its
    settings and processors, or with those of the environment where nothing is
    configured.  Its sinks are replaced by one in memory, and so are those of
    every runtime that is made in the block, so the application under test may
    call :func:`fapilog.configure` and :func:`fapilog.shutdown` itself.
    Redaction, processors and levels work as ever.  Options of sinks are not
    looked at, nor is anything sent, written or spooled.

    What was there before is there again afterwards: the default runtime, its
    levels, what ``install_stdlib`` and ``install_hooks`` have installed.  A
    runtime of your own that was made before keeps its sinks.  Not to be used
    by two threads at once; blocks may be nested.

    Args:
        level: lowest enabled severity, until the application configures
            another one.

    Yields:
        The records; readable after the block too.

    Raises:
        ConfigurationError: an option is wrong.
    """
    logs = CapturedLogs()
    with contextlib.ExitStack() as stack:
        stack.callback(logs._end)  # noqa: SLF001 - as above
        stack.enter_context(_sinks_replaced(logs))
        stack.enter_context(_default_replaced(level))
        yield logs


def _sinks_replaced(logs: CapturedLogs) -> contextlib.AbstractContextManager[object]:
    """Make every pipeline that is made inside the block send to ``logs`` alone."""

    def make_queues(settings: Settings, _given: object = None) -> list[SendingQueue]:
        sink = _CaptureSink(logs)
        route = Route(sink)
        options = wiring.delivery_options(settings, _NAME, route)
        return [SendingQueue(sink, name=_NAME, options=options, route=route)]

    return mock.patch.object(wiring, "make_queues", make_queues)


@contextlib.contextmanager
def _default_replaced(level: int | str | None) -> Iterator[None]:
    """Replace the default runtime inside the block and restore it at the end."""
    state = default.state
    with state.lock:
        before, made_from, levels = state.runtime, state.made_from, state.registry.levels
        floor, installed, hooked = holding.floor, stdlib.installed(), hooks.installed()
        state.runtime, state.made_from = _like_default(level), ()
    stdlib.follow_levels()
    try:
        yield
    finally:
        with state.lock:
            present, state.runtime, state.made_from = state.runtime, before, made_from
            if present is not None and present is not before:
                present.shutdown()
            holding.reset_floor(floor)
            state.registry.detach()
            if before is not None:
                state.registry.attach(before.pipeline, before.settings)
                state.registry.restore(levels)
        _reinstall(installed)
        if hooks.installed() != hooked:
            hooks.uninstall_hooks()
            if any(hooked.values()):
                hooks.install_hooks(**hooked)  # type: ignore[arg-type]  # none is the loop
        stdlib.follow_levels()


def _like_default(level: int | str | None) -> Runtime:
    """Make a runtime that is like the open default runtime, or like the environment says."""
    state = default.state
    options: dict[str, Any] = {"handle_sigterm": False}
    if level is not None:
        options["level"] = level
    settings, processors, resource = None, None, None
    if state.runtime is not None and not state.runtime.pipeline.closed:
        settings = state.runtime.settings
        if state.made_from:
            processors, resource = state.made_from[2:]
    settings = resolve_settings(settings, options)
    return Runtime(settings, processors=processors, resource=resource, _registry=state.registry)


def _reinstall(installed: dict[logging.Logger, int | None]) -> None:
    """Restore the installations at loggers of the standard library."""
    now = stdlib.installed()
    for logger in now.keys() - installed.keys():
        stdlib.uninstall(logger)
    for logger in installed.keys() - now.keys():
        stdlib.install(default.target, installed[logger], logger)


def _numbers(severity: int | str) -> range:
    number = parse_severity(severity)
    is_range = isinstance(severity, str) and not severity.strip()[-1].isdecimal()
    return range(number, number + (_IN_RANGE if is_range else 1))


def _matches(value: Any, pattern: Pattern) -> bool:
    if value is _MISSING:
        return False
    if pattern is ...:
        return True
    if isinstance(pattern, re.Pattern):
        return isinstance(value, str) and pattern.search(value) is not None
    if isinstance(pattern, type):
        return isinstance(value, pattern)
    if callable(pattern):
        return bool(pattern(value))
    return bool(value == pattern) or bool(value == snapshot(pattern))


def _asked(body: Pattern, patterns: dict[str, Any]) -> str:
    given = [] if body is ... else [repr(body)]
    return ", ".join([*given, *(f"{name}={value!r}" for name, value in patterns.items())]) or "..."


def _line(record: LogRecord) -> str:
    where = f" {record.scope.name}:" if record.scope.name else ""
    event = f" event {record.event_name}" if record.event_name else ""
    body = "" if event and record.body is None else f" {record.body!r}"
    ids = f" trace_id={record.trace_id}" if record.trace_id else ""
    values = "".join(f" {name}={value!r}" for name, value in record.attributes.items())
    line = f"  {record.severity_text or record.severity_number:<8}{where}{event}{body}{values}{ids}"
    return line if len(line) <= _MAX_LINE else f"{line[: _MAX_LINE - 1]}…"
