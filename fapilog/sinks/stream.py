"""Bytes out of a stream, with a deadline and an exact account of what is out.

The console sink writes through it.  Bytes go below the stream's own buffers
where it has a file descriptor: a buffer keeps what it could not write, says
nothing of how much that is, and would write it again at exit.
"""

from __future__ import annotations

import codecs
import errno
import io
import os
import select
import stat
from typing import TYPE_CHECKING, Any, Final

from fapilog import native
from fapilog.native import monotonic
from fapilog.sinks.lines import portions, split_written

if TYPE_CHECKING:
    from collections.abc import Sequence

# POSIX: a write of up to this many bytes to a pipe is never mixed with
# another process's, and where poll() reports room there is room for it.
_PIPE_BUF: Final[int | None] = getattr(select, "PIPE_BUF", None)


class OutputStream:
    """One stream to write lines to, used by one thread.

    Args:
        stream: an open file object, text or binary, or None.

    Attributes:
        stream: the same.
        encoding: what the stream's text is encoded with.
        is_utf8: whether that is UTF-8.
        unfinished: what is missing of a line that is out in part; it goes
            first in the next ``write_lines``.
    """

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.encoding, self.is_utf8 = _encoding(stream)
        self.unfinished = b""
        self._writer = _lowest_layer(stream)
        self._takes_text = not _is_binary(self._writer)
        # Only a pipe, a socket or a terminal can be full for a while.
        self._poll = _poll_of(self._writer)
        self._deadline = 0.0
        self._written = 0

    def can_show(self, character: str) -> bool:
        """Whether the stream's encoding has ``character``."""
        try:
            return bool(character.encode(self.encoding))
        except UnicodeError:
            return False

    def write_lines(self, lines: Sequence[bytes], timeout: float) -> None:
        """Write ``lines`` after what the application has printed, and flush.

        Blocks up to ``timeout`` seconds.  A longer line than ``PIPE_BUF`` is
        written in one call as well, lest another process's come between; it,
        and every write on Windows and in file objects without a descriptor,
        blocks until the other end reads.

        Raises:
            BlockingIOError: nobody made room in time.
            Exception: whatever the file object raises, OSError and ValueError
                (closed) as a rule; :meth:`count_written` then says how many lines are out.
        """
        self._deadline = monotonic() + timeout
        self._written = -len(self.unfinished)
        if self.stream is None:
            msg = "the process has no such stream"
            raise ValueError(msg)
        self._wait()
        self._flush()
        for portion in portions([self.unfinished, *lines], _PIPE_BUF if self._poll else None):
            self._write(portion)
        self.unfinished = b""
        self._flush()

    def count_written(self, lines: Sequence[bytes]) -> int:
        """Return how many of ``lines`` the failed ``write_lines`` need not be given again.

        Those are the whole lines, and the one whose rest is now ``unfinished``.
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
        if self._takes_text:
            self._writer.write(data.decode(self.encoding))
            return len(data)
        written = self._writer.write(data)
        if written is None:  # a raw stream that has no room and does not block
            if self._poll is None or monotonic() >= self._deadline:
                raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
            return 0
        return int(written)

    def _wait(self) -> None:
        """Wait until there is room, so that writing a portion does not block."""
        if self._poll is None:
            return
        left = max(self._deadline - monotonic(), 0)
        if not self._poll.poll(left * 1000):
            raise BlockingIOError(errno.EAGAIN, "nobody reads")

    def _flush(self) -> None:
        if hasattr(self.stream, "flush"):
            self.stream.flush()


def _encoding(stream: Any) -> tuple[str, bool]:
    """Return the stream's encoding, and whether it is UTF-8."""
    try:
        name = codecs.lookup(stream.encoding).name
    except (AttributeError, TypeError, LookupError):  # binary, StringIO, or a name of its own
        name = "utf-8"
    return name, name == "utf-8"


def _lowest_layer(stream: Any) -> Any:
    """Return the layer of ``stream`` that tells how much it wrote."""
    buffer = getattr(stream, "buffer", stream)
    return buffer.raw if isinstance(buffer, io.BufferedWriter) else buffer


def _is_binary(stream: Any) -> bool:
    mode = str(getattr(stream, "mode", ""))
    return isinstance(stream, (io.RawIOBase, io.BufferedIOBase)) or "b" in mode


def _poll_of(stream: Any) -> select.poll | None:
    """Return what waits for room in a stream that may have none for a while, else None."""
    try:
        fd = int(stream.fileno())
        if stat.S_ISREG(os.fstat(fd).st_mode):
            return None
        poll: select.poll = native.original("select", "poll")()
    except (AttributeError, OSError, ValueError, TypeError):  # no poll, no descriptor, or closed
        return None
    poll.register(fd, select.POLLOUT)
    return poll
