"""Draws a trace on a terminal: its spans as a tree with bars, and each record under its span."""

from __future__ import annotations

from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

from fapilog.cli.receiver import ReceivedSpan
from fapilog.cli.terminal import BOLD, CYAN, DIM, GREEN, RED, YELLOW, Terminal, Text
from fapilog.severity import ERROR, INFO, WARN, range_name
from fapilog.sinks.lines import json_text

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from fapilog.cli.receiver import ReceivedLog

# The widths of a line's columns, in characters.
_TIME_WIDTH: Final = 8
_NAME_WIDTH: Final = 22
# The next two widths are used only if the trace has spans of several services.
_SERVICE_WIDTH: Final = 10
_WIDE_NAME_WIDTH: Final = 30
_DURATION_WIDTH: Final = 18  # wide enough for a duration and the word ERROR
_SEVERITY_WIDTH: Final = 6
_SCOPE_WIDTH: Final = 15
_STATUS_ERROR: Final = 2  # OTLP's STATUS_CODE_ERROR
_EXCEPTION: Final = ("exception.type", "exception.message", "exception.stacktrace")
_STYLES: Final = ((ERROR, RED), (WARN, YELLOW), (INFO, GREEN))

#: The maximum depth of the tree; deeper spans are drawn as roots.
_MAX_DEPTH: Final = 32
#: Attributes with values of more characters than this are drawn last: lines are cut at the
#: terminal's width, so a long value would hide the attributes after it.
_LONG: Final = 24


class Timeline:
    """Draws the records and spans of one trace.  Omits the attributes named in ``hidden``."""

    def __init__(
        self,
        terminal: Terminal,
        logs: Sequence[ReceivedLog],
        spans: Sequence[ReceivedSpan],
        hidden: Collection[str] = (),
    ) -> None:
        self._terminal = terminal
        self._logs = sorted(logs, key=lambda log: log.record.time_unix_nano)
        self._spans = spans
        self._hidden = hidden
        begins = [span.span.start_time_unix_nano for span in spans]
        self._begin = min(begins or [log.record.time_unix_nano for log in self._logs], default=0)
        self._end = max((span.span.end_time_unix_nano for span in spans), default=0)
        #: By span id, the child spans and the records of each span, with their times.
        self._inner: dict[str, list[tuple[int, ReceivedLog | ReceivedSpan]]] = {
            span.span_id: [] for span in spans
        }
        for log in self._logs:
            if log.span_id in self._inner:
                self._inner[log.span_id].append((log.record.time_unix_nano, log))
        for span in spans:
            parent = span.span.parent_span_id.hex()
            if parent in self._inner:
                self._inner[parent].append((span.span.start_time_unix_nano, span))
        self._drawn: set[int] = set()
        several = len({_service(span) for span in spans}) > 1
        self._service_width = _SERVICE_WIDTH if several else 0
        self._name_width = _WIDE_NAME_WIDTH if several else _NAME_WIDTH

    def draw(self) -> None:
        """Draw every span once, then the records that belong to none of the spans.

        A span whose parent is missing is a root.  Spans whose parents form a cycle come last.
        """
        roots = [span for span in self._spans if span.span.parent_span_id.hex() not in self._inner]
        for span in (*roots, *self._spans):
            if id(span) not in self._drawn:
                self._draw_span(span, "", "")
        for log in self._logs:
            if log.span_id not in self._inner:
                self._draw_log(log, "", "")

    def _draw_span(self, span: ReceivedSpan, branch: str, margin: str, depth: int = 0) -> None:
        """Draw a span, then its records and child spans in the order of their times.

        ``branch`` and ``margin`` are characters that draw the tree: ``branch`` begins the line of
        the span, and ``margin`` begins the lines below it.
        """
        self._drawn.add(id(span))
        self._terminal.line(*self._bar(span, branch))
        content = sorted(self._inner[span.span_id], key=itemgetter(0))
        self._inner[span.span_id] = []  # not drawn again if another span has the same id
        for position, (_, entry) in enumerate(content, start=1):
            is_last = position == len(content)
            below = margin + ("   " if is_last else "│  ")
            if not isinstance(entry, ReceivedSpan):
                self._draw_log(entry, margin + ("└  " if is_last else "│  "), below)
            elif id(entry) not in self._drawn and depth < _MAX_DEPTH:
                self._draw_span(entry, margin + ("└─ " if is_last else "├─ "), below, depth + 1)

    def _bar(self, span: ReceivedSpan, branch: str) -> list[Text]:
        """Return a span's line: start, service, tree, name, bar, duration and status."""
        begin, end = span.span.start_time_unix_nano, span.span.end_time_unix_nano
        service = self._service_width
        room = self._terminal.width - _TIME_WIDTH - self._name_width - _DURATION_WIDTH - service
        # If the clock was set back during the trace, a span may end before it begins.  Therefore
        # min() and max() keep the bar in its column.
        scale = (room - 2) / max(self._end - self._begin, 1)
        left = min(max(int((begin - self._begin) * scale), 0), room - 2)
        bar = " " * left + "├" + "─" * min(int((end - begin) * scale), room - 2 - left)
        failed = span.span.status.code == _STATUS_ERROR
        name_width = self._name_width - len(branch)
        return [
            Text(self._time(begin), DIM),
            Text(self._terminal.cut(_service(span), service - 1).ljust(service) if service else ""),
            Text(branch, DIM),
            Text(self._terminal.cut(span.name, name_width - 1).ljust(name_width), BOLD),
            Text((bar + "┤").ljust(room), RED if failed else CYAN),
            Text(f"{(end - begin) / 1e6:8.1f} ms"),
            Text(" ERROR" if failed else "", RED),
        ]

    def _draw_log(self, log: ReceivedLog, margin: str, below: str) -> None:
        time = self._time(log.record.time_unix_nano)
        indent = " " * self._service_width
        draw_log(self._terminal, log, time, indent + margin, indent + below, hidden=self._hidden)

    def _time(self, time: int) -> str:
        """Return ``time`` as text: the milliseconds since the trace began."""
        return f"{(time - self._begin) / 1e6:{_TIME_WIDTH - 2}.1f}  "


def draw_log(
    terminal: Terminal,
    log: ReceivedLog,
    time: str,
    margin: str = "",
    below: str = "",
    *,
    hidden: Collection[str] = (),
) -> None:
    """Write a record on a line that begins with ``time`` and ``margin``.

    If the record has an exception, a second line, with the margin ``below``, shows it.
    The attributes named in ``hidden`` are omitted.
    """
    severity = range_name(log.severity_number)
    style = next((style for least, style in _STYLES if log.severity_number >= least), DIM)
    room = terminal.width - len(time) - len(margin) - _SEVERITY_WIDTH
    text = terminal.cut(str(log.event_name if log.body is None else log.body), room - _SCOPE_WIDTH)
    left = max(room - _SCOPE_WIDTH - len(text) - 2, 0)
    terminal.line(
        Text(time, DIM),
        Text(margin, DIM),
        Text(severity.ljust(_SEVERITY_WIDTH), style),
        Text(terminal.cut(log.scope.name, _SCOPE_WIDTH - 1).ljust(_SCOPE_WIDTH), CYAN),
        text,
        Text("  " + terminal.cut(_pairs(log.attributes, {*hidden, *_EXCEPTION}), left), DIM),
    )
    if "exception.type" in log.attributes:
        terminal.line(
            " " * len(time),
            Text(below, DIM),
            " " * _SEVERITY_WIDTH,
            Text(terminal.cut(_exception(log.attributes), room), RED),
        )


def _service(span: ReceivedSpan) -> str:
    return str(span.resource.get("service.name", ""))


def _exception(attributes: dict[str, Any]) -> str:
    kind, message, stacktrace = (attributes.get(name) for name in _EXCEPTION)
    return f"{kind}: {message}  (stack trace: {len(str(stacktrace).splitlines())} lines)"


def _pairs(attributes: dict[str, Any], hidden: Collection[str]) -> str:
    """Return the attributes as text, such as ``a=1 b=2``, with long values at the end."""
    shown = {
        name: value if isinstance(value, str) else json_text(value)
        for name, value in attributes.items()
        if name not in hidden
    }
    ordered = sorted(shown.items(), key=lambda pair: len(pair[1]) > _LONG)
    return " ".join(f"{name}={text}" for name, text in ordered)
