"""Formats a record as lines for a person at a terminal.

The console sink uses this module for its format ``pretty``, the default on a terminal.  A
record starts at column 0, and each of its following lines begins with spaces and a vertical bar,
so a value with line breaks cannot look like another record.  The logger's name, and attributes
whose value has not changed since they were last shown, are dim and come last.  Without colours,
the attributes of a line that fits are in the order of the log call, and the logger's name is in
brackets.
"""

from __future__ import annotations

import functools
import time
from itertools import chain, groupby
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fapilog.severity import range_name
from fapilog.sinks.lines import json_text
from fapilog.sinks.readable import Summary, json_parts, short_trace, summary_of, value_text
from fapilog.sinks.terminal import Span, flow, safe, safe_lines, width_of, words_of
from fapilog.sinks.tracebacks import Tracebacks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fapilog.record import LogRecord

_SECOND: Final = 1_000_000_000
_MILLISECOND: Final = 1_000_000
_BODY_WIDTH: Final = 32  # the message is padded to this many columns before the attributes
_SLOW: Final = 1.0  # a duration of this many seconds or more is shown in the warning colour
#: A formatter remembers the last values of up to ``_MAX_NAMES`` attributes, to dim values that
#: have not changed.  It does not remember values of more than ``_MAX_REMEMBERED`` characters.
_MAX_NAMES: Final = 256
_MAX_REMEMBERED: Final = 256
#: An attribute is omitted if the message contains its text of at least this many characters.
_SHORTEST_REPEATED: Final = 16

# ANSI codes of text styles.  Only the basic codes are used, because every terminal theme defines
# their colours.
_DIM: Final = "2"
_BOLD: Final = "1"
_ERROR: Final = "1;31"
_NAME: Final = "36"
_SEVERITY: Final = {
    "TRACE": "2",
    "DEBUG": "34",
    "INFO": "32",
    "WARN": "33",
    "ERROR": "31",
    "FATAL": "1;7;31",
}
#: The ANSI code of an HTTP status, by the first digit of the status.
_STATUS: Final = {"2": "32", "3": "36", "4": "33", "5": "1;31"}
_STATUS_DIGITS: Final = 3
_WARNING: Final = "33"
_GUTTER_WIDTH: Final = 6
_HANGING: Final = 4  # the additional indentation of the second line of a broken line
#: A line width in columns that no line reaches, used if lines must not be broken.
_UNLIMITED: Final = 1 << 40
#: The attribute whose value is the same in all records of one HTTP request.
_REQUEST_ID: Final = "request.id"

_CODE: Final = ("code.file.path", "code.line.number", "code.function.name")
_EXCEPTION: Final = ("exception.type", "exception.message", "exception.stacktrace")


class PrettyFormatter:
    """Formats records for one terminal.

    Not thread-safe: a formatter remembers the last values of attributes and the last stack
    traces.

    Args:
        color: whether to use ANSI colours.
        unicode: whether the terminal's encoding contains the characters ``│`` and ``…``.
        columns: a function that returns the terminal's current width in columns, or None if
            lines must not be broken.
        full_tracebacks: whether to show the frames of installed packages, and to show the
            stack trace of an exception again if it was shown within the last second.
        directory: the directory to which the paths in stack traces are relative, if the files are
            below it.  None means the working directory.
    """

    def __init__(
        self,
        *,
        color: bool,
        unicode: bool = True,
        columns: Callable[[], int | None] = lambda: None,
        full_tracebacks: bool = False,
        directory: str | None = None,
    ) -> None:
        self._color = color
        self._more = "…" if unicode else ".."
        self._gutter = [Span("", "    "), Span(_DIM, "│" if unicode else "|"), Span("", " ")]
        self._columns = columns
        self._last: dict[str, str] = {}
        if directory is None:
            directory = _working_directory()
        self._tracebacks = Tracebacks(full=full_tracebacks, directory=directory, more=self._more)

    def format(self, record: LogRecord) -> str:
        """Return ``record`` as one or more lines, each ended by a newline."""
        columns = self._columns() or _UNLIMITED
        severity = range_name(record.severity_number) if record.severity_number else "-"
        summary = summary_of(record.body, record.attributes)
        below: list[str] = []
        if summary is None:
            body = record.event_name if record.body is None else record.body
            codes = _BOLD if severity in {"ERROR", "FATAL"} else ""
            if isinstance(body, str):
                first, *below = safe_lines(body)
                line = [Span(codes, first)]
            else:
                line = _json_spans(safe(json_text(body)), codes, codes)
            message = [line] if _fits(line, columns // 2) else words_of(line)
        else:
            message = _summary_words(summary)
        ordered, attributes, blocks = self._attributes(record, summary)
        left = [
            Span(_DIM, _local_time(record.timestamp or record.observed_timestamp)),
            Span("", "  "),
            Span(_SEVERITY.get(severity, _DIM), severity.ljust(5)),
            Span("", "  "),
        ]
        whole = [*left, *chain.from_iterable([*message, *ordered])]
        if not self._color and _fits(whole, columns - 1):
            attributes = [[Span("", text) for _, text in pair] for pair in ordered]  # none is dim
        more_message = [[Span("", line)] for line in below]
        lines = self._laid_out(left, message, more_message, attributes, columns)
        lines += self._below(blocks, columns)
        return "".join(f"{self._painted(line)}\n" for line in lines)

    def _below(self, lines: list[list[Span]], columns: int) -> Iterator[list[Span]]:
        """Yield lines that follow the first line of a record, broken at the terminal's width."""
        room = columns - _GUTTER_WIDTH
        for line in lines:
            parts = [line] if _fits(line, room) else _hanging(line, room)
            for part in parts:
                yield self._gutter + part

    def _painted(self, line: list[Span]) -> str:
        if not self._color:
            return "".join(text for _, text in line).rstrip()
        parts = []
        for codes, spans in groupby(line, itemgetter(0)):
            text = "".join(text for _, text in spans)
            parts.append(f"\x1b[{codes}m{text}\x1b[0m" if codes and text else text)
        return "".join(parts).rstrip()

    def _laid_out(
        self,
        left: list[Span],
        message: list[list[Span]],
        below: list[list[Span]],
        attributes: list[list[Span]],
        columns: int,
    ) -> list[list[Span]]:
        """Arrange the message and the attributes of a record in lines, and return the lines.

        ``left`` is the time and the severity, with which the first line begins; ``below`` is the
        message from its second line.  The attributes are shown after the first line of the
        message, or after its last line if the first line has no room for them.  Dim attributes
        come last.  A dim attribute that does not fit into the last line is omitted.
        """
        room = columns - _GUTTER_WIDTH
        free = columns - width_of(left)
        bright = [pair for pair in attributes if not _is_dim(pair)]
        dim = attributes[len(bright) :]  # the dim attributes follow the bright attributes
        size, rest = sum(map(width_of, message)), sum(map(width_of, attributes))
        gap = max(_BODY_WIDTH - size, 0) + 1
        if size + gap + rest > free:
            gap = 1
        if below and bright and size + gap + sum(map(width_of, bright)) > free:
            first, *more = flow(message, free, room)
            (_, *word), *words = _fitting(bright, room)  # without the space before the first word
            last = flow([word, *words], room, room)
        else:
            if attributes and size + gap < free:
                message = [*message, [Span("", " " * gap)]]
            first, *more = flow([*message, *_fitting(bright, room)], free, room)
            last = []
        end, left_over = ((last or more)[-1], room) if last or more else (first, free)
        left_over -= width_of(end)
        for pair in dim:
            size = width_of(pair)
            if size <= left_over:
                end += pair
                left_over -= size
        lines = [left + first, *(self._gutter + line for line in more)]
        return [*lines, *self._below(below, columns), *(self._gutter + line for line in last)]

    def _attributes(
        self, record: LogRecord, summary: Summary | None
    ) -> tuple[list[list[Span]], list[list[Span]], list[list[Span]]]:
        """Return the attributes to show after the message, and the lines to show below it.

        The attributes are returned twice: in the order of the log call, and with the dim ones last.
        The lines below contain the exception, and the attributes whose values have several lines.
        """
        pairs: list[list[Span]] = []
        ids: list[list[Span]] = []
        blocks: list[list[Span]] = []
        error, shown = self._exception(record)
        origin, names = self._origin(record)
        shown |= names
        message = record.body if summary is None else None
        if summary is not None:
            shown |= summary.shown
        elif record.event_name and record.body is not None:
            pairs.append(self._pair("event", record.event_name))
        for name, value in record.attributes.items():
            if name in shown or _is_repeated(value, message):
                continue
            if isinstance(value, str) and "\n" in value:
                blocks.append([Span(_NAME, safe(name)), Span(_DIM, ":")])
                blocks += [[Span("", f"  {line}")] for line in safe_lines(value)]
            else:
                (ids if name == _REQUEST_ID else pairs).append(self._pair(name, value))
        if record.trace_id:
            ids.append(self._pair("trace", short_trace(record.trace_id)))
        bright = [pair for pair in [*pairs, *ids] if not _is_dim(pair)]
        dim = [pair for pair in [*ids, *pairs] if _is_dim(pair)]
        place: list[list[Span]] = []
        if origin and summary is None:
            place = [[Span(_DIM, f" {safe(origin)}")]]
        return [*pairs, *ids, *place], [*bright, *dim, *place], blocks + error

    def _origin(self, record: LogRecord) -> tuple[str, frozenset[str]]:
        """Return the place of the log call as text, and the names of the attributes in the text.

        The text has the form ``shop/orders.py:31``, because most editors open such a place with a
        click.  If the record does not contain the file and the line, the text is the logger's
        name.
        """
        path, line = (record.attributes.get(name) for name in _CODE[:2])
        if isinstance(path, str) and isinstance(line, int):
            return f"{self._tracebacks.short_path(path)}:{line}", frozenset(_CODE)
        name = record.scope.name
        return f"[{name}]" if name and not self._color else name, frozenset()

    def _pair(self, name: str, value: Any) -> list[Span]:
        """Return an attribute, which is dim if ``name`` was last shown with the same text."""
        text = safe(value_text(name, value, self._more))
        shown = safe(name)
        is_json = not isinstance(value, str) and text.startswith(("{", "["))
        spans = _json_spans(text, "", _NAME) if is_json else [Span("", text)]
        if self._last.get(name) == text:
            return [Span(_DIM, f" {shown}={''.join(part for _, part in spans)}")]
        if len(self._last) >= _MAX_NAMES:
            self._last.clear()
        if len(text) <= _MAX_REMEMBERED:
            self._last[name] = text
        else:
            self._last.pop(name, None)
        return [Span("", " "), Span(_NAME, shown), Span(_DIM, "="), *spans]

    def _exception(self, record: LogRecord) -> tuple[list[list[Span]], frozenset[str]]:
        """Return the lines of an exception, and the names of the attributes that they contain.

        The caller does not show these attributes a second time.
        """
        attributes = record.attributes
        kind, message, stacktrace = (attributes.get(name) for name in _EXCEPTION)
        also = {"error.type"} if attributes.get("error.type") == kind else set[str]()
        if isinstance(stacktrace, str) and stacktrace.strip():
            told = str(message or "") in stacktrace and str(kind or "").split(".")[-1] in stacktrace
            key = record.trace_id or str(attributes.get(_REQUEST_ID, ""))
            lines = self._tracebacks.lines(safe_lines(stacktrace), key, record.timestamp)
            names = {*_EXCEPTION} | also if told else {"exception.stacktrace"}
            return list(lines), frozenset(names)
        if isinstance(kind, str):
            text = f"{kind}: {message}" if message else kind
            return [[Span(_ERROR, line)] for line in safe_lines(text)], frozenset(
                {*_EXCEPTION[:2]} | also
            )
        return [], frozenset()


def _summary_words(summary: Summary) -> list[list[Span]]:
    code = summary.code
    target, mark, query = summary.target.partition("?")
    words = [[Span(_BOLD, safe(target)), Span("", safe(mark + query))]]
    if code:
        codes = _STATUS.get(code[0], "") if len(code) == _STATUS_DIGITS else ""
        words.append([Span("", " "), Span(codes, code)])
    if summary.ending:
        words.append([Span(_WARNING, f" {safe(summary.ending)}")])
    slow = _WARNING if summary.seconds >= _SLOW else ""
    return [*words, [Span(slow, f" {summary.duration}")]]


def _json_spans(text: str, codes: str, key_codes: str) -> list[Span]:
    """Return compact JSON with spaces between its parts, and the keys of objects in a colour."""
    return [Span(key_codes if is_key else codes, part) for is_key, part in json_parts(text)]


def _hanging(line: list[Span], room: int) -> list[list[Span]]:
    """Break a line that is wider than ``room`` columns, and indent its second and further lines."""
    words = words_of(line)
    text = "".join(text for _, text in line)
    indent = len(text) - len(text.lstrip(" ")) + _HANGING
    if any(room - indent < width_of(word) <= room for word in words):
        indent = 0  # the line has a word that only fits without the indentation
    first, *more = flow(words, room, room - indent)
    return [first, *([Span("", " " * indent), *part] for part in more)]


def _is_repeated(value: object, message: object) -> bool:
    """Return whether ``message`` is a text that contains the long text ``value``."""
    return (
        isinstance(value, str)
        and isinstance(message, str)
        and _SHORTEST_REPEATED <= len(value) <= len(message)
        and value in message
    )


def _is_dim(pair: list[Span]) -> bool:
    return pair[0].codes == _DIM


def _fits(line: list[Span], room: int) -> bool:
    # A character has at most two columns, so the slow width_of() is only called for a line that
    # might be too long.
    return 2 * sum(len(text) for _, text in line) <= room or width_of(line) <= room


def _fitting(attributes: list[list[Span]], room: int) -> Iterator[list[Span]]:
    """Yield the attributes; split an attribute wider than ``room`` columns into words.

    Nested values are split between their items, and strings at their spaces.
    """
    for attribute in attributes:
        if _fits(attribute, room):
            yield attribute
            continue
        items: list[list[Span]] = []
        for span in attribute:
            if span.text.startswith(" "):
                items.append([])
            items[-1].append(span)
        for item in items:
            yield from [item] if _fits(item, room) else words_of(item)


def _working_directory() -> str:
    try:
        return str(Path.cwd())
    except OSError:  # the directory was deleted
        return ""


def _local_time(nanoseconds: int) -> str:
    seconds, fraction = divmod(nanoseconds, _SECOND)
    return f"{_local_second(seconds)}.{fraction // _MILLISECOND:03d}"


@functools.lru_cache(maxsize=64)
def _local_second(seconds: int) -> str:
    try:
        return time.strftime("%H:%M:%S", time.localtime(seconds))
    except (OverflowError, ValueError, OSError):  # the platform cannot represent this time
        return "--:--:--"
