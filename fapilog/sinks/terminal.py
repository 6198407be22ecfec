"""Finds the width and colours of a terminal, and escapes text that is not safe to show."""

from __future__ import annotations

import os
import re
import sys
import unicodedata
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from fapilog.sinks.lines import COMMANDS_IN_TEXT
from fapilog.standard_streams import is_notebook

if TYPE_CHECKING:
    from collections.abc import Iterable

#: The smallest width in columns: a narrower terminal is treated as if it had this width.
NARROWEST: Final = 40
_WORD: Final = re.compile(r" *[^ ]+| +$")


def is_terminal(stream: Any) -> bool:
    """Return whether ``stream`` is a terminal."""
    try:
        return bool(stream.isatty())
    except (AttributeError, OSError, ValueError):  # the stream has no isatty() or is closed
        return False


def wants_color(stream: Any) -> bool:
    """Return whether to use colours, by the rules that ``ConsoleSink`` documents for ``color``."""
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR") or is_notebook(stream):
        return True
    return is_terminal(stream) and os.environ.get("TERM") != "dumb" and _obeys_ansi(stream)


def _obeys_ansi(stream: Any) -> bool:
    """Return whether the terminal shows ANSI colours.  On Windows, first try to turn them on."""
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


def columns(stream: Any) -> int | None:
    """Return the current width of a terminal, or None if the width is unknown or unlimited.

    The environment variable ``COLUMNS`` overrides the width that the terminal reports.
    """
    if not is_terminal(stream):
        return None
    given = os.environ.get("COLUMNS", "")
    try:
        found = int(given) if given.isdecimal() else os.get_terminal_size(stream.fileno()).columns
    except (AttributeError, OSError, ValueError):
        return None
    return max(found, NARROWEST) if found > 0 else None


def safe(text: str) -> str:
    """Return ``text`` with escapes for the characters that could control a terminal."""
    return text if text.isprintable() else COMMANDS_IN_TEXT.sub(_escape, text)


def safe_lines(text: str) -> list[str]:
    """Split ``text`` into one or more lines that are safe to show on a terminal."""
    text = text.replace("\r\n", "\n").rstrip("\n")
    return [safe(line.expandtabs(4)) for line in text.split("\n")]


def _escape(match: re.Match[str]) -> str:
    return ascii(match[0])[1:-1]


def width(text: str) -> int:
    """Return the number of terminal columns of ``text``; East Asian wide characters take two."""
    if text.isascii():
        return len(text)
    return sum(map(_columns_of, text))


def _columns_of(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


class Span(NamedTuple):
    """Text in one colour.  ``codes`` are its ANSI codes, or "" for the terminal's default."""

    codes: str
    text: str


def width_of(line: Iterable[Span]) -> int:
    """Return the number of terminal columns of a line."""
    return sum(width(text) for _, text in line)


def words_of(spans: Iterable[Span]) -> list[list[Span]]:
    """Split a line into words.  Each word includes its colours and the spaces before it."""
    words: list[list[Span]] = []
    for codes, text in spans:
        for part in _WORD.findall(text):
            if words and part[0] != " ":
                words[-1].append(Span(codes, part))
            else:
                words.append([Span(codes, part)])
    return words


def flow(words: Iterable[list[Span]], first: int, rest: int) -> list[list[Span]]:
    """Arrange words in lines of limited width.

    The first line has up to ``first`` columns, and each further line has up to ``rest``
    columns.  A word that is longer than a line is not split, so that a user can copy it.
    """
    lines: list[list[Span]] = [[]]
    room, used = first, 0
    for word in words:
        size = width_of(word)
        if used + size > room and (lines[-1] or room < size <= rest):
            lines.append([])
            room, used = rest, 0
            codes, text = word[0]
            lines[-1].append(Span(codes, text.lstrip(" ")))
            lines[-1] += word[1:]
            used = width_of(lines[-1])
            continue
        lines[-1] += word
        used += size
    return lines
