"""Keeps forks and gRPC calls apart.

Below the gRPC transport.  gRPC gets ready for a fork only while no thread is
inside of it.  A child forked in the midst of a call inherits locks that nobody
releases: its first use of gRPC aborts it, or hangs with the interpreter's lock
held, so that no time limit helps.  Therefore a fork waits a moment for the
calls under way, and where they take longer the child does not touch gRPC.
See https://github.com/grpc/grpc/blob/master/doc/fork_support.md.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from typing import TYPE_CHECKING, Final

from fapilog.clock import monotonic
from fapilog.errors import RetryableError

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Seconds a fork waits for calls under way.
PATIENCE: Final = 5.0
_POLL: Final = 0.001


class ForkGate:
    """Lets calls through while nobody forks.  Thread-safe.

    By polling, which signal handlers may interrupt and forks may copy at any
    point; each change is one operation on a container.
    """

    def __init__(self) -> None:
        self._calls: set[int] = set()  # threads inside of gRPC
        self._forks: list[int] = []  # threads that fork
        self._is_broken = False

    @contextlib.contextmanager
    def call(self) -> Iterator[None]:
        """Hold forks off inside the ``with`` block; waits while somebody forks.

        Raises:
            RetryableError: this process was forked in the midst of a call.
        """
        if self._is_broken:
            msg = (
                "gRPC cannot be used in this process, which was forked while its parent waited "
                "for an answer; use http/protobuf in programs that fork"
            )
            raise RetryableError(msg)
        thread = threading.get_ident()
        self._calls.add(thread)
        while self._forks:
            self._calls.discard(thread)
            time.sleep(_POLL)
            self._calls.add(thread)
        try:
            yield
        finally:
            self._calls.discard(thread)

    def before_fork(self) -> None:
        """Hold calls off, and wait for those under way."""
        thread = threading.get_ident()  # inside a call itself where a signal handler forks
        self._forks.append(thread)
        deadline = monotonic() + PATIENCE
        while self._calls - {thread} and monotonic() < deadline:
            time.sleep(_POLL)

    def after_fork_in_parent(self) -> None:
        """Let calls through again."""
        self._forks.remove(threading.get_ident())

    def after_fork_in_child(self) -> None:
        """Begin afresh, if that is possible; once more does nothing."""
        self._is_broken = self._is_broken or bool(self._calls)
        self._calls.clear()
        self._forks.clear()


gate: Final = ForkGate()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=gate.before_fork,
        after_in_parent=gate.after_fork_in_parent,
        after_in_child=gate.after_fork_in_child,
    )
