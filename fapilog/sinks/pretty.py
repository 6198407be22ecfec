"""Formats a record as lines for a person at a terminal.

The console sink uses this module if its stream is a terminal.  A record starts at column
0, and its other lines begin with a gutter, so no value can look like a record.
"""

from __future__ import annotations

import functools
import os
import re
import sys
import time
from typing import TYPE_CHECKING, Any, Final

from fapilog.severity import range_name
from fapilog.sinks.lines import COMMANDS_IN_TEXT, json_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fapilog.record import LogRecord

_SECOND: Final = 1_000_000_000  # nanoseconds
_MILLISECOND: Final = 1_000_000
_BODY_WIDTH: Final = 32  # the message is padded to this many columns before the attributes
_MAX_SCOPE_WIDTH: Final = 24
_SHORT_TRACE: Final = 8  # enough digits to distinguish the traces on one screen

# Every terminal theme defines these ANSI colours.
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

_EXCEPTION: Final = ("exception.type", "exception.message", "exception.stacktrace")
_BARE: Final = re.compile(r"[^\s\"'=,{}\[\]\\]+")
# The traceback module draws these lines at the left of the members of an exception group.
_GROUP_MARGIN: Final = re.compile(r"(?: *\+-[-+ .\d]*$| *[|+] ?)*")
_FRAME: Final = re.compile(r'( *File )("[^"]*", line \d+)(, in )(.*)')
_HEADINGS: Final = ("Traceback (most", "Exception Group Traceback", "During handling", "The above")


class PrettyFormatter:
    """Formats records for one terminal.

    The column of logger names grows with the longest name.  Not thread-safe.

    Args:
        color: whether to use ANSI colours.
        unicode: whether the terminal's encoding contains the gutter's character ``│``.
    """

    def __init__(self, *, color: bool, unicode: bool = True) -> None:
        self._color = color
        self._gutter = "    " + self._paint(_DIM, "│" if unicode else "|")
        self._scope_width = 0

    def format(self, record: LogRecord) -> str:
        """Return ``record`` as one or more lines, each ended by a newline."""
        severity = range_name(record.severity_number) if record.severity_number else "-"
        body = record.event_name if record.body is None else record.body
        first, *below = _lines(body if isinstance(body, str) else json_text(body))
        inline, blocks = self._attributes(record)
        if record.trace_id:
            inline.append(self._paint(_DIM, f"trace={_shown(record.trace_id[:_SHORT_TRACE])}"))
        if inline:
            first = first.ljust(_BODY_WIDTH)
        head = (
            self._paint(_DIM, _local_time(record.timestamp or record.observed_timestamp)),
            self._paint(_SEVERITY.get(severity, _DIM), severity.ljust(5)),
            self._scope(record.scope.name),
            self._paint(_BOLD, first) if severity in {"ERROR", "FATAL"} else first,
            " ".join(inline),
        )
        lines = ["  ".join(part for part in head if part)]
        lines += [f"{self._gutter} {line}".rstrip() for line in (*below, *blocks)]
        return "\n".join(lines) + "\n"

    def _paint(self, codes: str, text: str) -> str:
        return f"\x1b[{codes}m{text}\x1b[0m" if self._color and text else text

    def _scope(self, name: str) -> str:
        shown = _shown(name)
        self._scope_width = max(self._scope_width, min(len(shown), _MAX_SCOPE_WIDTH))
        return self._paint(_NAME, shown.ljust(self._scope_width)) if self._scope_width else ""

    def _attributes(self, record: LogRecord) -> tuple[list[str], list[str]]:
        """Return the attributes to show after the message, and the lines to show below."""
        inline: list[str] = []
        blocks: list[str] = []
        if record.event_name and record.body is not None:
            inline.append(self._pair("event", record.event_name))
        error, shown = self._exception(record.attributes)
        for name, value in record.attributes.items():
            if name in shown:
                continue
            if isinstance(value, str) and "\n" in value:
                blocks.append(self._paint(_NAME, _shown(name)) + self._paint(_DIM, ":"))
                blocks += [f"  {line}" for line in _lines(value)]
            else:
                inline.append(self._pair(name, value))
        return inline, blocks + error

    def _pair(self, name: str, value: Any) -> str:
        text = value if isinstance(value, str) else json_text(value)
        if isinstance(value, str) and not _BARE.fullmatch(text):
            text = '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
        return self._paint(_NAME, _shown(name)) + self._paint(_DIM, "=") + _shown(text)

    def _exception(self, attributes: dict[str, Any]) -> tuple[list[str], tuple[str, ...]]:
        """Return the lines of an exception, and the names of the attributes that they show."""
        kind, message, stacktrace = (attributes.get(name) for name in _EXCEPTION)
        if isinstance(stacktrace, str) and stacktrace.strip():
            told = str(message or "") in stacktrace and str(kind or "").split(".")[-1] in stacktrace
            return (
                list(self._stacktrace(stacktrace)),
                _EXCEPTION if told else ("exception.stacktrace",),
            )
        if isinstance(kind, str):
            text = f"{kind}: {message}" if message else kind
            return [self._paint(_ERROR, line) for line in _lines(text)], _EXCEPTION[:2]
        return [], ()

    def _stacktrace(self, text: str) -> Iterator[str]:
        for line in _lines(text):
            margin = _GROUP_MARGIN.match(line)
            left = margin.end() if margin else 0
            rest = line[left:]
            frame = _FRAME.fullmatch(rest)
            if frame:
                before, place, within, function = frame.groups()
                shown = (
                    self._paint(_DIM, before)
                    + place
                    + self._paint(_DIM, within)
                    + self._paint(_NAME, function)
                )
            elif rest.strip().startswith(_HEADINGS) or not rest.strip(" ^~"):
                shown = self._paint(_DIM, rest)
            elif rest.startswith(" "):
                shown = rest
            else:
                shown = self._paint(_ERROR, rest)
            yield self._paint(_DIM, line[:left]) + shown


def is_terminal(stream: Any) -> bool:
    """Return whether ``stream`` is a terminal."""
    try:
        return bool(stream.isatty())
    except (AttributeError, OSError, ValueError):  # the stream has no isatty() or is closed
        return False


def wants_color(stream: Any) -> bool:
    """Return whether to use colours; see ``color`` of ``ConsoleSink`` for the rules."""
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return is_terminal(stream) and os.environ.get("TERM") != "dumb" and _obeys_ansi(stream)


def _obeys_ansi(stream: Any) -> bool:
    """Return whether the terminal supports ANSI colours; on Windows, turn them on first."""
    if sys.platform == "win32":
        import ctypes  # noqa: PLC0415 - Windows only
        import msvcrt  # noqa: PLC0415 - Windows only

        virtual_terminal = 4
        console = ctypes.windll.kernel32
        handle = msvcrt.get_osfhandle(stream.fileno())
        mode = ctypes.c_ulong()
        return bool(
            console.GetConsoleMode(handle, ctypes.byref(mode))
            and console.SetConsoleMode(handle, mode.value | virtual_terminal)
        )
    return True


def _lines(text: str) -> list[str]:
    """Split ``text`` into one or more lines that are safe to show."""
    text = text.replace("\r\n", "\n").rstrip("\n")
    return [_shown(line.expandtabs(4)) for line in text.split("\n")]


def _shown(text: str) -> str:
    """Return ``text`` with escapes for the characters that a terminal may obey."""
    return text if text.isprintable() else COMMANDS_IN_TEXT.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    return ascii(match[0])[1:-1]


def _local_time(nanoseconds: int) -> str:
    seconds, fraction = divmod(nanoseconds, _SECOND)
    return f"{_local_second(seconds)}.{fraction // _MILLISECOND:03d}"


@functools.lru_cache(maxsize=64)
def _local_second(seconds: int) -> str:
    try:
        return time.strftime("%H:%M:%S", time.localtime(seconds))
    except (OverflowError, ValueError, OSError):  # the platform has no such time
        return "--:--:--"
