"""Formats stack traces for a person at a terminal, and emphasises the application's frames.

The input is the text that the interpreter prints for an exception.  Consecutive frames of
installed packages and of the standard library are replaced by one line that names the packages.
If the same exception was shown within the last second, its stack trace is not repeated.
"""

from __future__ import annotations

import os
import re
import sys
import sysconfig
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fapilog.sinks.terminal import Span

if TYPE_CHECKING:
    from collections.abc import Iterator

_DIM: Final = "2"
_OWN: Final = ""
_PLACE: Final = "1"
_FUNCTION: Final = "36"
_ERROR: Final = "1;31"

# Matches the lines (``|`` and ``+---``) that Python's traceback module draws at the left of the
# exceptions in an exception group.
_MARGIN: Final = re.compile(r"(?: *\+-[-+ .\d]*$| *[|+] ?)*")
_FRAME: Final = re.compile(r'  File "([^"]*)", line (\d+)(?:, in (.*))?')
_HEADINGS: Final = ("Traceback (most", "Exception Group Traceback", "During handling", "The above")
_PACKAGES: Final = re.compile(r"[/\\](?:site|dist)-packages[/\\]([^/\\]+)")
#: The maximum number of packages named in a line that replaces several frames.
_NAMED: Final = 4
#: An exception is recognised as repeated if it is among the last ``_REMEMBERED`` exceptions and
#: was shown within ``_RECENT`` nanoseconds.
_REMEMBERED: Final = 8
_RECENT: Final = 1_000_000_000


@dataclass
class Frame:
    """One frame of a stack trace, as text.

    Attributes:
        margin: the lines at the left of a frame in an exception group, or "".
        path: the source file.
        line: the line number.
        function: the function's name, or "".
        package: the installed package or standard module, or "" for the application.
        below: the lines below the frame: the source code, and Python's note about repeated
            frames.
    """

    margin: str
    path: str
    line: str
    function: str
    package: str
    below: list[str] = field(default_factory=list)


class Tracebacks:
    """Formats stack traces for one terminal.  Not thread-safe.

    Args:
        full: whether to show every frame, and repeated exceptions in full.
        directory: a directory.  The paths of files below this directory are shown as relative
            paths.  If it is "", all paths are shown unchanged.
        more: the text that replaces omitted frames and packages, such as ``…``.
    """

    def __init__(self, *, full: bool, directory: str = "", more: str = "…") -> None:
        self._full = full
        self._more = more
        self._directory = directory.rstrip(os.sep) + os.sep if directory else ""
        self._told: deque[tuple[str, int, str]] = deque(maxlen=_REMEMBERED)

    def lines(self, texts: list[str], key: str, now: int) -> Iterator[list[Span]]:
        """Yield the lines of a stack trace, with colours.

        Args:
            texts: the lines that the interpreter prints, after the caller has escaped the
                characters that could control a terminal.
            key: the id of the trace or request to which the exception belongs, or "".
            now: the record's time, in nanoseconds.
        """
        if self._full or any(text.lstrip().startswith(("|", "+")) for text in texts):
            yield from self._frames(texts)
            return
        for block in _blocks(texts):
            if block[0].startswith("Traceback (most") and self._is_told(block, key, now):
                yield from _ending(block, " (traceback above)")
            else:
                yield from self._frames(block)

    def short_path(self, path: str) -> str:
        """Return a path relative to the directory, or to the directory of installed packages.

        Returns the name of the cell, such as ``Cell In[3]``, for the code of a notebook's cell.
        """
        if cell := _cell(path):
            return cell
        installed = _PACKAGES.search(path)
        return path[installed.start(1) :] if installed else self._relative(path)

    def _relative(self, path: str) -> str:
        return path.removeprefix(self._directory) if self._directory else path

    def _is_told(self, block: list[str], key: str, now: int) -> bool:
        """Return whether the exception in ``block`` was recently shown for the same ``key``.

        If not, remember the exception.  The exception that was shown may have fewer or more
        outer frames than ``block``.
        """
        text = "\n".join(block[1:])
        for told, when, whose in self._told:
            same = text.endswith(told) or told.endswith(text)
            if same and whose == key and abs(now - when) <= _RECENT:
                return True
        self._told.append((text, now, key))
        return False

    def _frames(self, texts: list[str]) -> Iterator[list[Span]]:
        run: list[Frame] = []
        own = 0
        for one in _parse(texts):
            if isinstance(one, Frame) and one.package and not self._full:
                run.append(one)
                continue
            is_frame = isinstance(one, Frame)
            yield from self._folded(run, is_last=not is_frame and not own)
            run = []
            own = own + 1 if is_frame else 0
            yield from self._frame(one) if isinstance(one, Frame) else [_text(one)]
        yield from self._folded(run, is_last=not own)

    def _folded(self, run: list[Frame], *, is_last: bool) -> Iterator[list[Span]]:
        """Yield one line for consecutive frames of installed packages.

        ``is_last`` means that the stack trace ends with these frames and has no frames of
        the application.  In this case, the innermost frame is shown in full.
        """
        if not run:
            return
        count = len(run) - is_last
        if count:
            names = list(dict.fromkeys(frame.package for frame in run[:count]))
            rest = f", {self._more}" if len(names) > _NAMED else ""
            frames = "1 frame" if count == 1 else f"{count} frames"
            named = ", ".join(names[:_NAMED]) + rest
            yield [Span(_DIM, f"{run[0].margin}  {self._more} {frames} in {named}")]
        if is_last:
            yield from self._frame(run[-1])

    def _frame(self, frame: Frame) -> Iterator[list[Span]]:
        cell = _cell(frame.path)
        label, place = ("", cell) if cell else ("File ", f'"{self._relative(frame.path)}"')
        place += f", line {frame.line}"
        if frame.package:
            where = f", in {frame.function}" if frame.function else ""
            yield [Span(_DIM, f"{frame.margin}  {label}{place}{where}")]
        else:
            line = [Span(_DIM, f"{frame.margin}  {label}"), Span(_PLACE, place)]
            if frame.function:
                line += [Span(_DIM, ", in "), Span(_FUNCTION, frame.function)]
            yield line
        for text in frame.below:
            is_source = not frame.package and text.strip(" ^~")
            yield [Span(_DIM, frame.margin), Span(_OWN if is_source else _DIM, text)]


def _parse(texts: list[str]) -> Iterator[Frame | str]:
    """Yield each frame of a stack trace as a Frame, and each line outside frames as a str."""
    frame: Frame | None = None
    for text in texts:
        margin = _MARGIN.match(text)
        left = margin[0] if margin else ""
        rest = text[len(left) :]
        found = _FRAME.fullmatch(rest)
        if found:
            if frame is not None:
                yield frame
            path, line, function = found.groups()
            frame = Frame(left, path, line, function or "", _package(path))
        elif frame is not None and left == frame.margin and rest.startswith("  "):
            frame.below.append(rest)
        else:
            if frame is not None:
                yield frame
            frame = None
            yield text
    if frame is not None:
        yield frame


def _text(text: str) -> list[Span]:
    margin = _MARGIN.match(text)
    left = margin[0] if margin else ""
    rest = text[len(left) :]
    if rest.strip().startswith(_HEADINGS) or not rest.strip(" ^~"):
        return [Span(_DIM, text)]
    return [Span(_DIM, left), Span(_OWN if rest.startswith(" ") else _ERROR, rest)]


def _blocks(texts: list[str]) -> Iterator[list[str]]:
    """Split the text of chained exceptions into blocks, and omit the empty lines between blocks.

    A block is one exception, or the sentence between two exceptions.
    """
    block: list[str] = []
    for text in texts:
        starts = text.startswith(_HEADINGS)
        if starts and block:
            while len(block) > 1 and not block[-1].strip():
                block.pop()
            yield block
            block = []
        if block or text.strip():
            block.append(text)
    if block:
        yield block


def _ending(block: list[str], remark: str) -> Iterator[list[Span]]:
    """Yield the lines of an exception without its frames; add ``remark`` to the first line."""
    after = [text for text in _parse(block[1:]) if isinstance(text, str)] or block[-1:]
    for number, text in enumerate(after):
        line = _text(text)
        yield line if number else [*line, Span(_DIM, remark)]


def _cell(path: str) -> str:
    """Return IPython's name of the cell whose code has the file name ``path``, or "".

    An example is ``Cell In[3]``, the name in IPython's own stack traces.  IPython is asked only
    if the application has imported it.
    """
    module = sys.modules.get("IPython.core.getipython")
    if module is None:
        return ""
    try:
        found = module.get_ipython().compile.format_code_name(path)
    except Exception:  # noqa: BLE001 - no shell is running, or the version lacks the method
        return ""
    return " ".join(map(str, found)) if found else ""


def _package(path: str) -> str:
    """Return the installed package or standard module of a file, or "" for other files."""
    installed = _PACKAGES.search(path)
    if installed:
        return installed[1].removesuffix(".py")
    if path.startswith("<frozen "):
        return path[len("<frozen ") :].rstrip(">").split(".", maxsplit=1)[0]
    for root in _STANDARD:
        if path.startswith(root):
            name = path[len(root) :].split(os.sep, maxsplit=1)[0]
            return name.removesuffix(".py")
    return ""


_STANDARD: Final = tuple(
    {str(Path(sysconfig.get_path(name))) + os.sep for name in ("stdlib", "platstdlib")}
)
