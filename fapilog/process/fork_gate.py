"""Keeps forks out of calls into libraries whose locks a fork would leave locked.

A child inherits the locks of the whole process, but only the thread that forked.
A lock that another thread held, inside a library that does not reset it, is never
released in the child.  Three libraries that delivery threads call are like that:

- OpenSSL: its locks protect the tables of algorithms, and sessions.
- The system's resolver: its locks protect the tables of its modules.
- gRPC: it gets ready for a fork only while no thread is inside a call
  (https://github.com/grpc/grpc/blob/master/doc/fork_support.md).

Each has a :class:`Section`.  A fork waits until no thread is inside a section and
holds new threads back until it is done.  ``fapilog.runtime.default`` calls the functions
below around each fork.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

from fapilog import native
from fapilog.errors import RetryableError
from fapilog.native import monotonic

if TYPE_CHECKING:
    from types import TracebackType

_POLL: Final = 0.001

_forks: Final[list[int]] = []  # the threads that fork


class Section:
    """Calls of one library: ``with section:`` around a call.  Thread-safe; does not nest.

    Threads wait by polling, which signal handlers may interrupt and forks may copy
    at any point; each change is one operation on a container.

    Args:
        library: the library's name, used in messages.
        patience: seconds a fork waits for the calls under way.
        advice: what to do if that is not enough, used in messages.

    Attributes:
        cut_short: whether this process was forked while another thread was inside,
            because the fork's patience ended; the library's locks may be locked.
    """

    def __init__(self, library: str, patience: float, advice: str) -> None:
        self.library = library
        self.patience = patience
        self.cut_short = False
        self._advice = advice
        self._threads: set[int] = set()

    def __enter__(self) -> None:
        """Hold forks off; blocks while another thread forks.

        Raises:
            RetryableError: the section was cut short, so a call may never return.
        """
        if self.cut_short:
            msg = (
                f"{self.library} cannot be used in this process, which was forked while a thread "
                f"of its parent was inside a call; {self._advice}"
            )
            raise RetryableError(msg)
        thread = native.get_ident()
        self._threads.add(thread)
        while _forks:
            self._threads.discard(thread)
            native.sleep(_POLL)
            self._threads.add(thread)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._threads.discard(native.get_ident())

    def wait_until_empty(self, began: float) -> None:
        """Wait until no other thread is inside, until ``patience`` seconds after ``began``."""
        own = {native.get_ident()}  # inside itself if a signal handler forks
        while self._threads - own and monotonic() < began + self.patience:
            native.sleep(_POLL)

    def after_fork_in_child(self) -> None:
        """Forget the parent's threads; remember that one was inside."""
        self.cut_short |= bool(self._threads - {native.get_ident()})
        self._threads.clear()


#: A call lasts until the backend has answered.
GRPC: Final = Section("gRPC", 5.0, "use http/protobuf in programs that fork")
#: A call takes milliseconds: fapilog waits for the network outside of OpenSSL.
TLS: Final = Section("TLS", 5.0, "fork again from a process that is less busy")
#: A call may wait for a name server for long, but it holds no lock meanwhile: a
#: call that lasts longer than this is safe to fork, and a child makes sure of it.
RESOLVER: Final = Section("name resolution", 1.0, "fork again when name servers answer")

SECTIONS: Final = (GRPC, TLS, RESOLVER)


def before_fork() -> None:
    """Hold new calls back and wait for those under way, each for its section's patience."""
    _forks.append(native.get_ident())
    began = monotonic()
    for section in SECTIONS:
        section.wait_until_empty(began)


def after_fork_in_parent() -> None:
    """Let calls through again."""
    with contextlib.suppress(ValueError):  # interrupted before it held them back
        _forks.remove(native.get_ident())


def after_fork_in_child() -> None:
    """Let calls through again, but for the sections that the fork cut short."""
    for section in SECTIONS:
        section.after_fork_in_child()
    _forks.clear()
