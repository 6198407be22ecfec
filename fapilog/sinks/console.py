"""Writes records to standard output or another stream.

A sink at the end of the record's way, for containers, whose runtime collects
standard output, and for people at a terminal.
"""

from __future__ import annotations

import errno
import sys
from typing import TYPE_CHECKING, Any, Final

from fapilog.errors import ConfigurationError, PermanentError, RetryableError, SendError
from fapilog.protocols import BatchLimits, Sink
from fapilog.sinks.lines import Progress, ascii_line, json_line
from fapilog.sinks.pretty import PrettyFormatter, is_terminal, wants_color
from fapilog.sinks.stream import OutputStream

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fapilog.record import LogRecord

# The reader of a pipe or the terminal itself is gone and will not come back.
_GONE: Final = {errno.EPIPE, errno.EBADF, errno.ECONNRESET, errno.ENXIO, errno.EIO}


class ConsoleSink(Sink[bytes]):
    """Records on a stream, one JSON object a line or readable lines with colours.

    Standard output is the default, as container platforms expect of logs
    (https://12factor.net/logs) and as OpenTelemetry's console exporter does:
    fapilog's own announcements go to standard error and so never stand
    between JSON lines.  A program whose standard output is its product takes
    ``stream="stderr"``.

    Several processes may share one pipe: lines up to ``PIPE_BUF`` (4,096 bytes
    on Linux) are never mixed.

    Args:
        stream: ``"stdout"`` (also None), ``"stderr"``, or a file object open
            for writing.  A stream given by name is looked up in :mod:`sys` at
            every use, so redirections hold.  The sink never closes it.
        format: ``"json"`` (see :func:`fapilog.sinks.lines.json_line`),
            ``"pretty"``, or ``"auto"``: pretty on a terminal, else JSON.
        color: whether pretty lines have ANSI colours.  ``"auto"`` obeys
            ``NO_COLOR`` (https://no-color.org), then ``FORCE_COLOR``
            (https://force-color.org), each if not empty; else colours are for
            terminals other than ``TERM=dumb``.
        name: the sink's name in counts and announcements.
    """

    limits = BatchLimits(delay=0.02)

    def __init__(
        self,
        stream: Any = None,
        *,
        format: str = "auto",  # noqa: A002 - the option's usual name
        color: str | bool = "auto",
        name: str = "console",
    ) -> None:
        self.name = name
        self._stream = "stdout" if stream is None else stream
        self._format = format
        self._color = color
        self._output = OutputStream(None)
        self._pretty: PrettyFormatter | None = None
        self._progress: Progress[bytes] = Progress()

    def open(self) -> None:
        """Check the options.

        Raises:
            ConfigurationError: an option has none of its values.
        """
        wrong = None
        if self._stream not in ("stdout", "stderr") and not hasattr(self._stream, "write"):
            wrong = f'stream={self._stream!r}: use "stdout", "stderr" or a file object'
        elif self._format not in ("auto", "pretty", "json"):
            wrong = f'format={self._format!r}: use "auto", "pretty" or "json"'
        elif self._color not in ("auto", True, False):
            wrong = f'color={self._color!r}: use "auto", True or False'
        if wrong:
            msg = f"sink {self.name!r}: {wrong}"
            raise ConfigurationError(msg)

    def encode(self, record: LogRecord) -> bytes:
        """Return the lines of ``record`` as the stream of this moment takes them."""
        output = self._current_output()
        if self._pretty is not None:
            return self._pretty.format(record).encode(output.encoding, "backslashreplace")
        line = json_line(record)
        if output.is_utf8:
            return line
        return ascii_line(line).decode("ascii").encode(output.encoding, "backslashreplace")

    def send(self, batch: Sequence[bytes], timeout: float) -> None:
        """Write the lines and flush.  Blocks up to ``timeout`` seconds.

        A line longer than ``PIPE_BUF``, and on Windows and with file objects
        that have no descriptor every write, blocks until the other end reads.

        Raises:
            RetryableError: the stream takes no more for now; a retry of the
                same batch goes on where this one stopped.
            PermanentError: the stream is closed or its reader is gone.
        """
        output = self._current_output()
        lines = self._progress.rest(batch)
        try:
            output.write_lines(lines, timeout)
        except Exception as error:  # a file object may raise anything
            self._progress.advance(batch, output.count_written(lines))
            raise self._failure(error) from error
        self._progress.clear()

    def close(self) -> None:
        """Let go of the stream, which stays open."""
        self._output = OutputStream(None)

    def after_fork(self) -> None:
        """Forget how far the parent got with its last batch."""
        self._output = OutputStream(None)
        self._progress.clear()

    def _current_output(self) -> OutputStream:
        stream = self._stream
        if isinstance(stream, str):
            stream = getattr(sys, stream)
        if self._output.stream is not stream:
            self._output = output = OutputStream(stream)
            self._pretty = None
            if self._format == "pretty" or (self._format == "auto" and is_terminal(stream)):
                color = wants_color(stream) if self._color == "auto" else bool(self._color)
                self._pretty = PrettyFormatter(color=color, unicode=output.can_show("│"))
        return self._output

    def _failure(self, error: Exception) -> SendError:
        reason = f"cannot write to {self._stream}: {error}"
        code = getattr(error, "errno", None)  # None: closed, or not open for writing
        if code is not None and code not in _GONE:
            return RetryableError(reason)
        self._progress.clear()
        self._output = OutputStream(None)
        return PermanentError(reason)
