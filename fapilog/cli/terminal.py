"""Writes the output of the ``fapilog`` commands to a terminal, with colors and tables."""

from __future__ import annotations

import os
import re
import shutil
import sys
import textwrap
from typing import TYPE_CHECKING, Final, NamedTuple

from fapilog.processors.redact import MASK
from fapilog.sinks.terminal import wants_color

if TYPE_CHECKING:
    from collections.abc import Sequence

# ANSI codes of text styles.  Only colors that every terminal theme defines are used.
BOLD: Final = "1"
DIM: Final = "2"
RED: Final = "31"
GREEN: Final = "32"
YELLOW: Final = "33"
CYAN: Final = "36"

_MIN_WIDTH: Final = 80
_USUAL_WIDTH: Final = 100
_MAX_WIDTH: Final = 160
_ELLIPSIS: Final = "…"
# Matches the parts of a URL that may contain secrets: user name, password and query.
_CREDENTIALS: Final = re.compile(r"(?<=//)[^/?#\s]*@|(?<=\?).+")
# ASCII replacements for characters that the encoding of standard output may not have.
_PLAIN: Final = str.maketrans("│├┤└─·✓✗…", "|||`--+x~")


class Text(NamedTuple):
    """A piece of a line of text.  ``style`` is an ANSI code such as ``BOLD``, or ""."""

    text: str
    style: str = ""


class Terminal:
    """Writes lines to standard output.

    Attributes:
        width: the terminal's number of columns, but at least 80 and at most 160.
        is_bounded: whether lines must not be longer than ``width``, because standard output is a
            terminal, or because the variable ``COLUMNS`` is set.
    """

    def __init__(self) -> None:
        self._stream = sys.stdout
        self._color = wants_color(self._stream)
        encoding = getattr(self._stream, "encoding", None) or "utf-8"
        self._plain = "├✓…".encode(encoding, "ignore").decode(encoding) != "├✓…"
        columns = shutil.get_terminal_size((_USUAL_WIDTH, 24)).columns
        self.width = min(max(columns, _MIN_WIDTH), _MAX_WIDTH)
        self.is_bounded = self._stream.isatty() or bool(os.environ.get("COLUMNS"))

    def line(self, *pieces: Text | str) -> None:
        """Write the pieces as one line and flush standard output.  Escape control characters."""
        self._stream.write("".join(self._shown(piece) for piece in pieces).rstrip() + "\n")
        self._stream.flush()

    def cut(self, text: str, width: int) -> str:
        """Escape ``text``, and cut it as :func:`cut` does if lines are bounded."""
        return cut(text, width) if self.is_bounded else printable(text)

    def heading(self, text: str, note: str = "") -> None:
        """Write an empty line, then ``text`` and ``note``, on two lines if they are too long."""
        self.line()
        if len(text) + 2 + len(note) <= self.width:
            self.line(Text(text, BOLD), "  " if note else "", Text(note, DIM))
            return
        self.line(Text(text, BOLD))
        for piece in textwrap.wrap(note, self.width - 2):
            self.line("  ", Text(piece, DIM))

    def table(self, rows: Sequence[Sequence[Text | str]], indent: int = 2) -> None:
        """Write ``rows`` in aligned columns.  All rows must have the same number of cells."""
        cells = [[_text(cell) for cell in row] for row in rows]
        widths = [max(len(cell.text) for cell in column) for column in zip(*cells, strict=True)]
        for row in cells:
            padded = [
                Text(cell.text.ljust(width) + "  ", cell.style)
                for cell, width in zip(row[:-1], widths[:-1], strict=True)
            ]
            self.line(" " * indent, *padded, row[-1])

    def _shown(self, piece: Text | str) -> str:
        text, style = _text(piece)
        text = printable(text)
        if self._plain:
            text = text.translate(_PLAIN).encode("ascii", "backslashreplace").decode()
        return f"\x1b[{style}m{text}\x1b[0m" if self._color and style and text else text


def _text(piece: Text | str) -> Text:
    return piece if isinstance(piece, Text) else Text(piece)


def printable(text: str) -> str:
    """Escape unprintable characters in ``text``, because they could control a terminal."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def mark(*, passed: bool) -> Text:
    """Return a green check mark if ``passed`` is True, else a red cross."""
    return Text("✓", GREEN) if passed else Text("✗", RED)


def cut(text: str, width: int) -> str:
    """Escape ``text``.  If it is then longer than ``width``, cut it and append an ellipsis."""
    text = printable(text)
    if len(text) <= width:
        return text
    return text[: width - 1] + _ELLIPSIS if width > 0 else ""


def mask_url(text: str) -> str:
    """Return ``text`` with the credentials and the query of its URL masked."""
    return _CREDENTIALS.sub(lambda match: MASK + "@" * match[0].endswith("@"), text)
