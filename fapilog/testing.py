"""Captures the records that an application under test logs, in memory.

``capture_logs`` replaces every sink of every runtime that is created while it is
active.  A test therefore sees the records that a sink would get, after redaction,
and the process does not send any records.  The fixture ``logs`` of the pytest plugin
(``pytest_fapilog``) captures the records of one test.
"""

from __future__ import annotations

import contextlib
import logging
import re
import sys
import threading
from collections import deque
from dataclasses import replace
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from unittest import mock

from fapilog.bridges import hooks, stdlib
from fapilog.delivery.direct_queue import DirectQueue
from fapilog.delivery.options import DeliveryOptions
from fapilog.delivery.route import Route
from fapilog.delivery.sending_queue import SendingQueue
from fapilog.engine import holding
from fapilog.errors import ConfigurationError
from fapilog.native import monotonic
from fapilog.process import exit as process_exit
from fapilog.protocols import BatchLimits, Sink
from fapilog.record import LogRecord
from fapilog.runtime import default, wiring
from fapilog.runtime.runtime import Runtime, resolve_settings
from fapilog.severity import OFF, SHORT_NAMES, TRACE, parse_severity, to_stdlib
from fapilog.sinks.factory import SPANS
from fapilog.sinks.memory import MemorySink
from fapilog.values import snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from fapilog.engine.registry import Levels
    from fapilog.settings import Settings

    #: The condition that a value must meet, as described in :meth:`CapturedLogs.find`.
    Pattern: TypeAlias = Any

#: The largest number of records in a ``CapturedLogs`` object.  Older records are discarded.
CAPACITY: Final = 100_000
#: The longest time, in seconds, that a test waits for the logged records to be processed.
TIMEOUT: Final = 10.0

_NAME: Final = "captured"
_MAX_LINES: Final = 100
_MAX_LINE: Final = 300
_IN_RANGE: Final = 4  # severity numbers per range: ERROR is 17 to 20
_MISSING: Final = object()


class CapturedLogs:
    """The records that are logged while a capture is active.  Thread-safe.

    Before it returns records, each method waits up to 10 s until all earlier
    records of all threads and tasks are processed, so a test need not sleep.

    ``str()`` and the errors of :meth:`one` and :meth:`none` list the records.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._records: deque[LogRecord] = deque(maxlen=CAPACITY)
        self._is_active = True
        self._levels_at_end: Levels | None = None

    @property
    def records(self) -> list[LogRecord]:
        """All records, in the order in which the pipeline has processed them.

        Raises:
            TimeoutError: the pipeline did not process the records within 10 s.
        """
        __tracebackhide__ = True
        if not self._flush():
            msg = f"records are not processed after {TIMEOUT:g} s: does a processor hang?"
            raise TimeoutError(msg)
        return self._kept()

    @property
    def bodies(self) -> list[Any]:
        """The bodies of all records."""
        return [record.body for record in self.records]

    def at(self, severity: int | str) -> list[LogRecord]:
        """Return the records of a severity.

        Args:
            severity: the severity; ``"ERROR"`` means the range 17 to 20, and
                ``"ERROR2"``, a ``Severity`` or a level of :mod:`logging` means one
                severity number.

        Raises:
            ValueError: ``severity`` is not a severity.
        """
        __tracebackhide__ = True
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
        """Return the records that match all patterns, in the order of :attr:`records`.

        A pattern is one of these: a value that equals the record's value, either directly or
        after the conversion that fapilog applies to logged values; a compiled regular
        expression that matches any part of the value, which must be a str; the type of the
        value; a function that returns True for the value; or ``...`` for any value of an
        existing attribute.

        Args:
            body: the pattern of the body.
            severity: the severity, as in :meth:`at`.
            logger: the pattern of the logger's name.
            event_name: the pattern of the event's name.
            trace_id: the pattern of the trace id, as hex digits.
            span_id: the pattern of the span id, as hex digits.
            **attributes: the patterns of attributes by name; write
                ``**{"http.route": "/"}`` for names with dots.

        Raises:
            ValueError: ``severity`` is not a severity.
        """
        __tracebackhide__ = True
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
        """Return the only record that matches the patterns, as in :meth:`find`.

        Raises:
            AssertionError: no record or several records match.  The message lists all
                records, and the logger's level if it may have disabled the log call.
        """
        __tracebackhide__ = True
        found = self.find(body, **patterns)
        if len(found) != 1:
            hint = "" if found else self._disabled(**patterns)
            asked = _asked(body, patterns)
            msg = f"{len(found)} records match {asked} instead of one\n{hint}{self}"
            raise AssertionError(msg)
        return found[0]

    def none(self, body: Pattern = ..., /, **patterns: Any) -> None:
        """Check that no record matches the patterns, as in :meth:`find`.

        Raises:
            AssertionError: a record matches; the message lists all records.
        """
        __tracebackhide__ = True
        found = self.find(body, **patterns)
        if found:
            msg = f"{len(found)} records match {_asked(body, patterns)}\n{self}"
            raise AssertionError(msg)

    def clear(self) -> None:
        """Discard all records that were captured before this call."""
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
        level = _level_name(self._levels.threshold(""))
        return "\n".join([f"{len(records)} records were logged, the level is {level}:", *lines])

    def __repr__(self) -> str:
        return f"<CapturedLogs of {len(self._kept())} records>"

    def _disabled(
        self, severity: int | str | None = None, logger: Pattern = ..., **_patterns: Pattern
    ) -> str:
        """Return an explanation if the logger's level disables the expected record, else ""."""
        name = logger if isinstance(logger, str) else ""
        threshold = self._levels.threshold(name)
        wanted = TRACE if severity is None else _numbers(severity)[0]
        if wanted >= threshold:
            return ""
        what, wish = "lower severities are", "debug"
        if severity is not None:
            what, wish = f"{SHORT_NAMES[wanted]} is", SHORT_NAMES[wanted].lower()
        of, given = (f" of {name!r}", f', "{name}"') if name else ("", "")
        return (
            f"the level{of} is {_level_name(threshold)}, so {what} disabled; "
            f'fapilog.set_level("{wish}"{given}) changes that\n'
        )

    @property
    def _levels(self) -> Levels:
        return self._levels_at_end or default.state.registry.levels

    def _note_levels(self) -> None:
        self._levels_at_end = default.state.registry.levels

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
    """Passes the records, without encoding them, to a :class:`CapturedLogs`."""

    name = _NAME
    limits = BatchLimits(delay=0)

    def __init__(self, logs: CapturedLogs) -> None:
        self._logs = logs

    def encode(self, record: LogRecord) -> LogRecord:
        return record

    def send(self, batch: Sequence[LogRecord], timeout: float) -> None:  # noqa: ARG002 - does not block
        self._logs._take(batch)  # noqa: SLF001 - the two classes belong together


@contextlib.contextmanager
def capture_logs(level: int | str | None = None) -> Iterator[CapturedLogs]:
    """Capture the records that are logged in the block, instead of sending them.

    A new default runtime replaces the present default runtime.  It has the same settings
    and processors, or the settings in the environment variables if fapilog is not configured.
    A sink in memory replaces all sinks of this runtime and of every runtime that is created in
    the block, so the application under test may call :func:`fapilog.configure` and
    :func:`fapilog.shutdown`.  Redaction, processors and levels work as usual.
    The sinks' options are not read.  Records, and the spans of a ``SpanExporter``, are not sent
    or written to disk.

    At the end of the block, the default runtime, its levels, and the installations of
    ``install_stdlib``, ``install_hooks`` and ``install_celery`` are restored.  Runtimes that
    were created before the block keep their sinks.  Blocks may be nested, but two threads must
    not capture at the same time.

    Args:
        level: the lowest enabled severity, until the application configures
            another level.

    Yields:
        The captured records, which are also readable after the block.

    Raises:
        ConfigurationError: an option is wrong.
    """
    logs = CapturedLogs()
    with contextlib.ExitStack() as stack:
        stack.callback(logs._end)  # noqa: SLF001 - the two classes belong together
        stack.enter_context(_sinks_replaced(logs))
        stack.enter_context(_default_replaced(level))
        stack.callback(logs._note_levels)  # noqa: SLF001 - the two belong together
        yield logs


@contextlib.contextmanager
def shown_in_caplog(logs: CapturedLogs, caplog: Any) -> Iterator[Callable[[], None]]:
    """Let pytest's fixture ``caplog`` show captured records as well as records of ``logging``.

    :meta private:

    Args:
        logs: the captured records.
        caplog: the fixture ``caplog`` of the running test.

    Yields:
        The function that passes new records to the handlers of ``caplog`` and of pytest's
        report.  Reading ``caplog`` calls this function, so a test need not call it.
    """
    kind, handler = type(caplog), caplog.handler
    shown: dict[int, LogRecord] = {}

    def show() -> None:
        own = {(record.name, int(record.created * 1e9)) for record in handler.records}
        for record in logs.records:
            is_new = id(record) not in shown and (record.scope.name, record.timestamp) not in own
            shown[id(record)] = record  # an id is unique only while its object exists
            for one in logging.getLogger().handlers if is_new else ():
                if (
                    isinstance(one, type(handler))
                    and to_stdlib(record.severity_number) >= one.level
                ):
                    one.handle(_as_logged(record))
        handler.records.sort(key=lambda record: record.created)

    def handler_with_all(fixture: Any) -> Any:
        show()
        return original.fget(fixture)

    original: Any = vars(kind)["handler"]
    with mock.patch.object(kind, "handler", property(handler_with_all)):
        yield show


def _as_logged(record: LogRecord) -> logging.LogRecord:
    """Convert a captured record to the record that ``logging`` would have made."""
    attributes = record.attributes
    fields = {
        "name": record.scope.name or "root",
        "levelno": to_stdlib(record.severity_number),
        "pathname": str(attributes.get("code.file.path", "fapilog")),
        "lineno": attributes.get("code.line.number", 0),
        "msg": record.event_name if record.body is None else record.body,
        "exc_text": attributes.get("exception.stacktrace"),
    }
    made = logging.LogRecord("", 0, "", 0, None, (), None)
    vars(made).update(attributes, **{**vars(made), **fields})
    made.levelname = logging.getLevelName(made.levelno)
    made.filename = PurePath(made.pathname).name
    made.created = record.timestamp / 1e9
    made.msecs = record.timestamp // 1_000_000 % 1000
    return made


def _sinks_replaced(logs: CapturedLogs) -> contextlib.AbstractContextManager[object]:
    """Return a context manager that makes every new pipeline send records only to ``logs``."""

    def make_queues(settings: Settings, *_given: object) -> list[SendingQueue]:
        sink = _CaptureSink(logs)
        route = Route(sink)
        options = wiring.delivery_options(settings, _NAME, route)
        return [SendingQueue(sink, name=_NAME, options=options, route=route)]

    def make_span_queue(_settings: Settings, _taken: object = ()) -> DirectQueue:
        sink = MemorySink(capacity=1, name=SPANS)  # spans are not sent either
        return DirectQueue(sink, name=SPANS, options=DeliveryOptions())

    return mock.patch.multiple(wiring, make_queues=make_queues, make_span_queue=make_span_queue)


@contextlib.contextmanager
def _default_replaced(level: int | str | None) -> Iterator[None]:
    state = default.state
    with state.lock:
        before, made_from, levels = state.runtime, state.made_from, state.registry.levels
        floor, installed, hooked = holding.floor, stdlib.installed(), hooks.installed()
        celery = sys.modules.get("fapilog.bridges.celery_worker")
        has_celery = celery is not None and celery.installed()
        state.runtime, state.made_from = _like_default(level)
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
                state.registry.levels = levels
                state.registry.apply_levels()
        _reinstall(installed)
        if hooks.installed() != hooked:
            hooks.uninstall_hooks()
            if any(hooked.values()):
                hooks.install_hooks(**hooked)  # type: ignore[arg-type]  # loop is not among them
        if has_celery:
            default.install_celery()
        stdlib.follow_levels()


def _like_default(level: int | str | None) -> tuple[Runtime, default.Configuration]:
    """Return a new runtime with the options of the default runtime, and its configuration.

    If there is no open default runtime, the options come from the environment variables.
    ``level`` replaces the option ``level`` unless it is None.
    """
    state = default.state
    named: dict[str, Any] = {} if level is None else {"level": level}
    settings = None
    if state.runtime is not None and not state.runtime.pipeline.closed:
        settings = state.runtime.settings
    settings = resolve_settings(settings, {**named, "handle_sigterm": False})
    kept = state.in_force or default.Configuration(settings, None, (), None, {})
    kept = replace(kept, settings=settings, options={**kept.options, **named})
    runtime = Runtime(
        settings,
        processors=kept.processors,
        resource=kept.resource,
        _registry=state.registry,
    )
    return runtime, kept


def _reinstall(installed: dict[logging.Logger, int | None]) -> None:
    """Uninstall fapilog's handler from all loggers of :mod:`logging` except ``installed``.

    Then install it on the loggers in ``installed`` that lack it.  The values of the dict are
    the levels to install it with, or None.
    """
    now = stdlib.installed()
    for logger in now.keys() - installed.keys():
        stdlib.uninstall(logger)
    for logger in installed.keys() - now.keys():
        stdlib.install(default.target, installed[logger], logger)


def _level_name(threshold: int) -> str:
    return "OFF" if threshold >= OFF else SHORT_NAMES[threshold]


def _numbers(severity: int | str) -> range:
    __tracebackhide__ = True
    try:
        number = parse_severity(severity)
    except ConfigurationError as error:
        raise error.with_traceback(None) from None  # pytest then shows the line of the test
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
