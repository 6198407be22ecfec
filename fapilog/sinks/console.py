"""Defines ``ConsoleSink``, which writes records to standard output or another stream.

The sink is for containers, whose runtime collects standard output, and for people at a
terminal.  It bypasses the buffer of ``sys.stdout``, because after a failed write the buffer
still contains the bytes, and Python would write them again when the process exits.
"""

from __future__ import annotations

import codecs
import errno
import io
import os
import select
import stat
import sys
from collections.abc import Mapping
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any, Final

from fapilog import native
from fapilog.errors import ConfigurationError, PermanentError, RetryableError, SendError
from fapilog.native import monotonic
from fapilog.protocols import BatchLimits, Sink
from fapilog.sinks.lines import Progress, ascii_line, portions, split_written
from fapilog.sinks.presets import PRESETS, line_format
from fapilog.sinks.pretty import PrettyFormatter
from fapilog.sinks.terminal import columns, is_terminal, wants_color
from fapilog.standard_streams import (
    StreamLogsError,
    is_notebook,
    is_plain,
    standard_stream,
    write_unless_it_logs,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fapilog.record import LogRecord

# After these errors, a retry cannot succeed, because the stream or its reader no longer exists.
_GONE: Final = {errno.EPIPE, errno.EBADF, errno.ECONNRESET, errno.ENXIO, errno.EIO}
# POSIX guarantees that a write of up to this many bytes to a pipe does not mix with the write
# of another process, and does not block if poll() reports that the pipe is writable.  Windows
# does not define the constant.
_PIPE_BUF: Final[int | None] = getattr(select, "PIPE_BUF", None)
_JSON_FORMATS: Final = ", ".join(f'"{preset}"' for preset in PRESETS)


class ConsoleSink(Sink[bytes]):
    """Writes records to a stream: one JSON object per line, or readable lines with colours.

    The default is standard output, where container platforms expect logs
    (https://12factor.net/logs) and where OpenTelemetry's console exporter writes.
    fapilog's diagnostic messages go to standard error.  If several processes write to the
    same pipe, lines of up to ``PIPE_BUF`` bytes (4,096 on Linux) never mix.

    Args:
        stream: ``"stdout"``, ``"stderr"``, or a file object open for writing.  None means
            ``"stdout"``.  The sink looks up ``sys.stdout`` or ``sys.stderr`` before every
            write, so redirections take effect.  If the current value of ``sys.stdout`` or
            ``sys.stderr`` logs what is written to it (Celery's worker redirects standard
            output in this way), the sink writes to the stream with which the process
            started.  The sink never closes the stream.
        format: the line format: ``"json"`` or ``"otel"`` (see
            :func:`fapilog.sinks.lines.json_line`); JSON with the field names of a
            platform: ``"ecs"``, ``"gcp"``, ``"datadog"`` or ``"lambda"``; ``"pretty"``,
            readable lines; or ``"auto"``, which means ``"pretty"`` on a terminal and in a
            notebook, and otherwise ``"json"``.
        color: whether pretty lines have ANSI colours: True, False or ``"auto"``.
            ``"auto"`` turns them off if the variable ``NO_COLOR`` (https://no-color.org)
            is not empty; else it turns them on if ``FORCE_COLOR``
            (https://force-color.org) is not empty.  If both are empty, notebooks have
            colours, and terminals have them unless ``TERM=dumb``.
        tracebacks: how pretty lines show a stack trace.  ``"short"`` folds the frames of
            installed packages into one line, and shows only the type and the message of an
            exception that was shown for the same request within the last second.
            ``"full"`` shows all frames.  JSON lines always contain the full stack trace.
        names: the fields of a JSON line to rename.  The keys are the format's names, the
            values are the new names: ``{"body": "message"}``.
        resource: whether each JSON line contains the resource attributes, such as the
            service's name, which are usually the same in all lines of a process.
        name: the sink's name in statistics and diagnostic messages.
    """

    limits = BatchLimits(delay=0.02)

    def __init__(
        self,
        stream: Any = None,
        *,
        format: str = "auto",  # noqa: A002 - the option's usual name
        color: str | bool = "auto",
        tracebacks: str = "short",
        names: Mapping[str, str] | None = None,
        resource: bool = True,
        name: str = "console",
    ) -> None:
        self.name = name
        self._stream = "stdout" if stream is None else stream
        self._format = format
        self._color = color
        self._tracebacks = tracebacks
        self._names: Any = {} if names is None else names
        self._resource = resource
        self._json_line = line_format("json")
        self._output = OutputStream(None)
        self._pretty: PrettyFormatter | None = None
        self._progress: Progress[bytes] = Progress()
        self._context: Context | None = None

    @property
    def is_interactive(self) -> bool:
        """Whether a person reads the output, in a terminal, a notebook or a debugger.

        If True, a log call waits up to 0.25 s until its record is written.  If the argument
        ``format`` is a JSON format, the result is False even on a terminal, because a
        container may have a terminal that no person reads.
        """
        if self._format in PRESETS:
            return False
        stream = self._present_stream()
        return is_terminal(stream) or is_notebook(stream) or "pydevd" in sys.modules

    def note_caller(self) -> None:
        """Store the caller's ``contextvars`` context for the next ``send``.  Does not block.

        Each log call that waits for this sink calls this method.  A notebook shows output
        below the cell in whose context the stream's method ``write`` is called.
        """
        if is_notebook(self._present_stream()):
            self._context = copy_context()

    def open(self) -> None:
        """Check the options.

        Raises:
            ConfigurationError: the value of an option is wrong.
        """
        wrong = None
        if self._stream not in ("stdout", "stderr") and not hasattr(self._stream, "write"):
            wrong = f'stream={self._stream!r}: use "stdout", "stderr" or a file object'
        elif self._format not in ("auto", "pretty", *PRESETS):
            wrong = f'format={self._format!r}: use "auto", "pretty" or {_JSON_FORMATS}'
        elif self._color not in ("auto", True, False):
            wrong = f'color={self._color!r}: use "auto", True or False'
        elif self._tracebacks not in ("short", "full"):
            wrong = f'tracebacks={self._tracebacks!r}: use "short" or "full"'
        elif self._resource not in (True, False):
            wrong = f"resource={self._resource!r}: use True or False"
        elif not isinstance(self._names, Mapping):
            wrong = f"names={self._names!r}: use new names by names, as {{'body': 'message'}}"
        if wrong:
            msg = f"sink {self.name!r}: {wrong}"
            raise ConfigurationError(msg, wrong.partition("=")[0])
        preset = self._format if self._format in PRESETS else "json"
        try:
            self._json_line = line_format(preset, self._names, resource=self._resource)
        except ConfigurationError as error:
            msg = f"sink {self.name!r}: {error}"
            raise ConfigurationError(msg, error.option) from None

    def encode(self, record: LogRecord) -> bytes:
        """Return ``record`` as one or more lines, in the text encoding of the current stream."""
        output = self._current_output()
        if self._pretty is not None:
            return self._pretty.format(record).encode(output.encoding, "backslashreplace")
        line = self._json_line(record)
        if output.encoding == "utf-8":
            return line
        return ascii_line(line).decode("ascii").encode(output.encoding, "backslashreplace")

    def send(self, batch: Sequence[bytes], timeout: float) -> None:
        """Write the encoded records in ``batch``, and flush.  Blocks up to ``timeout`` seconds.

        Some writes ignore ``timeout`` and block until the other end reads: the write of a
        line longer than ``PIPE_BUF``, and every write on Windows or to a file object without
        a descriptor.

        Raises:
            RetryableError: the stream is full, or the write failed with an error that may be
                temporary.  A retry of the batch continues after the last written byte.
            PermanentError: the stream is missing or closed, the process that reads it has
                ended, the stream is a file object that logs what is written to it, or the
                write raised an error without an ``errno``.
        """
        output = self._current_output()
        lines = self._progress.rest(batch)
        context, self._context = self._context, None
        try:
            if context is None:
                output.write_lines(lines, timeout)
            else:
                context.run(output.write_lines, lines, timeout)
        except StreamLogsError as error:
            if not isinstance(self._stream, str):
                raise self._failure(error) from error
            # This call uses the stream with which the process started, because the current
            # value of sys.stdout or sys.stderr logs what is written to it.
            self.send(batch, timeout)
            return
        except Exception as error:  # the user's file object may raise any exception
            self._progress.advance(batch, output.count_written(lines))
            raise self._failure(error) from error
        self._progress.clear()

    def close(self) -> None:
        """Forget the stream without closing it."""
        self._output = OutputStream(None)

    def after_fork(self) -> None:
        """In a forked child, forget the stream and the number of lines that the parent wrote."""
        self.close()
        self._progress.clear()

    def _present_stream(self) -> Any:
        stream = self._stream
        return standard_stream(stream) if isinstance(stream, str) else stream

    def _current_output(self) -> OutputStream:
        stream = self._present_stream()
        if self._output.stream is not stream:
            self._output = output = OutputStream(stream)
            self._pretty = None
            is_watched = is_terminal(stream) or is_notebook(stream)
            if self._format == "pretty" or (self._format == "auto" and is_watched):
                color = wants_color(stream) if self._color == "auto" else bool(self._color)
                self._pretty = PrettyFormatter(
                    color=color,
                    unicode=len("│…".encode(output.encoding, "ignore")) > 1,
                    columns=lambda: columns(stream),
                    full_tracebacks=self._tracebacks == "full",
                )
        return self._output

    def _failure(self, error: Exception) -> SendError:
        reason = f"cannot write to {self._stream}: {error}"
        code = getattr(error, "errno", None)  # None for a closed or read-only stream
        if code is not None and code not in _GONE:
            return RetryableError(reason)
        self._progress.clear()
        self._output = OutputStream(None)
        return PermanentError(reason)


class OutputStream:
    """Writes lines to a stream with a time limit, and counts the written bytes.

    Not thread-safe.

    Args:
        stream: an open file object, text or binary.  If it is None, ``write_lines`` raises
            ValueError.

    Attributes:
        stream: the argument ``stream``.
        encoding: the encoding of the stream's text.
        unfinished: the unwritten bytes of a partly written line, or ``b""``.  The next
            :meth:`write_lines` writes them first.
    """

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        try:
            self.encoding = codecs.lookup(stream.encoding).name
        except (AttributeError, TypeError, LookupError):  # a binary stream or an unknown encoding
            self.encoding = "utf-8"
        self.unfinished = b""
        # Write to the raw stream below the buffer, because only the raw stream's write() returns
        # how many bytes were written.
        buffer = getattr(stream, "buffer", stream)
        self._writer = buffer.raw if isinstance(buffer, io.BufferedWriter) else buffer
        is_binary = isinstance(self._writer, (io.RawIOBase, io.BufferedIOBase))
        self._takes_text = not is_binary and "b" not in str(getattr(self._writer, "mode", ""))
        self._may_log = not is_plain(self._writer)
        # A notebook's stream sends its text by itself, together with the text of print().  Its
        # flush() waits for the thread that sends, which takes longer than all other steps.
        self._flushes = hasattr(stream, "flush") and not is_notebook(stream)
        self._poll = _poll_of(self._writer)
        self._deadline = 0.0
        self._written = 0

    def write_lines(self, lines: Sequence[bytes], timeout: float) -> None:
        """Flush what the application has written to the stream, write ``lines``, and flush.

        Does not flush a notebook's stream, which keeps the order of all texts by itself.
        Blocks up to ``timeout`` seconds.  A line longer than ``PIPE_BUF`` bytes is written in
        one call, so that other processes are less likely to split the line; this call may
        block longer than ``timeout``.

        Raises:
            StreamLogsError: the stream's method ``write`` logs its argument.  The call was
                interrupted, and no line was written.
            ValueError: the stream is None.
            BlockingIOError: some lines could not be written within ``timeout``.
            Exception: any other error of the file object.

        After an error, :meth:`count_written` returns the number of lines written before the error.
        """
        self._deadline = monotonic() + timeout
        self._written = -len(self.unfinished)
        if self.stream is None:
            msg = "this process does not have this stream"
            raise ValueError(msg)
        self._wait()
        self._flush()
        for portion in portions([self.unfinished, *lines], _PIPE_BUF if self._poll else None):
            self._write(portion)
        self.unfinished = b""
        self._flush()

    def count_written(self, lines: Sequence[bytes]) -> int:
        """Return how many of ``lines`` a retry of the failed ``write_lines`` can skip.

        The number includes a line of which only the first bytes were written.  This method
        stores the other bytes of this line in ``unfinished``, and the retry writes them first.
        """
        if self._written < 0:
            self.unfinished = self.unfinished[self._written :]
            return 0
        whole, self.unfinished = split_written(lines, self._written)
        return whole + bool(self.unfinished)

    def _write(self, data: bytes) -> None:
        while data:
            self._wait()
            written = self._write_some(data)
            self._written += written
            data = data[written:]

    def _write_some(self, data: bytes) -> int:
        text: Any = data.decode(self.encoding) if self._takes_text else data
        if self._may_log:  # the first write shows whether the stream logs what is written
            written = write_unless_it_logs(self.stream, self._writer.write, text)
            self._may_log = False
        else:
            written = self._writer.write(text)
        if self._takes_text:
            return len(data)
        if written is None:  # a non-blocking stream returns None when it is full
            if self._poll is None or monotonic() >= self._deadline:
                raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
            return 0
        return int(written)

    def _wait(self) -> None:
        """Wait until the stream is writable, or raise BlockingIOError at the deadline."""
        if self._poll is None:
            return
        left = max(self._deadline - monotonic(), 0)
        if not self._poll.poll(left * 1000):
            raise BlockingIOError(errno.EAGAIN, "the stream's reader does not read")

    def _flush(self) -> None:
        if self._flushes:
            self.stream.flush()


def _poll_of(stream: Any) -> select.poll | None:
    """Return a poll object for a pipe, socket or terminal, or None for other streams."""
    try:
        fd = int(stream.fileno())
        if stat.S_ISREG(os.fstat(fd).st_mode):
            return None
        poll: select.poll = native.original("select", "poll")()
    except (AttributeError, OSError, ValueError, TypeError):
        # Windows has no poll(), and some streams have no file descriptor.
        return None
    poll.register(fd, select.POLLOUT)
    return poll
