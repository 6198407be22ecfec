"""The steps around a fork in one ordered list, and a gate for foreign libraries.

A child inherits every lock of its parent, but only the thread that forked.  A lock
that another thread held is never released in the child.  So modules that own locks,
threads or connections register functions here that restore them.  The place of a
step in :data:`STEPS` decides when its functions run.

OpenSSL, the system's resolver and gRPC have locks that a child cannot replace
(https://github.com/grpc/grpc/blob/master/doc/fork_support.md).  Each of these
libraries has a :class:`Section`.  A fork waits until no thread is inside a section,
and keeps threads from entering one until the fork is done.
"""

from __future__ import annotations

import contextlib
import os
import weakref
from functools import partial
from types import MethodType
from typing import TYPE_CHECKING, Any, Final

from fapilog import diagnostics, native
from fapilog.errors import RetryableError
from fapilog.native import monotonic

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType
    from typing import TypeAlias

    _Function: TypeAlias = Callable[[], object]

#: The steps around a fork.  Before the fork they run from top to bottom, after it from
#: bottom to top.
STEPS: Final = (
    "sigterm",  # blocks the signal until the child can handle it
    "runtimes",  # changes the resource that the child's pipelines use
    "configuration",  # takes the lock of configure(), whose owner may have to enter a section
    "gate",  # waits until no thread is inside a section
    "bridges",
    "exporters",
    "pipelines",
    "holds",
    "diagnostics",  # runs first in the child, because the other steps announce errors
)

_POLL: Final = 0.001

_functions: Final[dict[tuple[str, str], list[_Function]]] = {}
#: The methods of objects, which the registration does not keep alive.
_methods: Final[dict[tuple[str, str], weakref.WeakKeyDictionary[Any, Callable[[Any], object]]]] = {}


def register(
    step: str,
    *,
    before: _Function | None = None,
    in_parent: _Function | None = None,
    in_child: _Function | None = None,
) -> None:
    """Add functions to a step.  A method is called only while its object exists.

    Args:
        step: the step's name in :data:`STEPS`.
        before: the function that runs before a fork.
        in_parent: the function that runs in the parent after a fork.
        in_child: the function that runs in the child.
    """
    assert step in STEPS, step  # noqa: S101 - a name in fapilog's own code
    moments = (("before", before), ("in_parent", in_parent), ("in_child", in_child))
    for moment, function in moments:
        if isinstance(function, MethodType):
            methods = _methods.setdefault((moment, step), weakref.WeakKeyDictionary())
            methods[function.__self__] = function.__func__
        elif function is not None:
            _functions.setdefault((moment, step), []).append(function)


def _run(moment: str, steps: Iterable[str]) -> None:
    for step in steps:
        for owner, method in list(_methods.get((moment, step), {}).items()):
            method(owner)
        for function in _functions.get((moment, step), ()):
            function()


class Section:
    """A context manager for each call into one library.  Thread-safe; does not nest.

    A fork may copy the object at any moment.  So each change is one operation on a
    container, and threads wait without a lock.

    Args:
        library: the library's name, used in messages.
        patience: the seconds that a fork waits for running calls.
        advice: the fix if a call takes longer, used in messages.

    Attributes:
        cut_short: whether this process was forked during a call, so that the library's
            locks may stay locked.
    """

    def __init__(self, library: str, patience: float, advice: str) -> None:
        self.library = library
        self.patience = patience
        self.cut_short = False
        self._advice = advice
        self._threads: set[int] = set()

    def __enter__(self) -> None:
        """Enter the section, after the fork if another thread forks.

        Raises:
            RetryableError: a call may never return, because the section was cut short.
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
        """Wait until no other thread is inside, at most ``patience`` seconds after ``began``."""
        own = {native.get_ident()}  # a signal handler may fork during a call
        while self._threads - own and monotonic() < began + self.patience:
            native.sleep(_POLL)

    def after_fork(self) -> None:
        """Forget the parent's threads, and note whether another thread was inside."""
        self.cut_short |= bool(self._threads - {native.get_ident()})
        self._threads.clear()


#: A call of gRPC lasts until the backend has answered.
GRPC: Final = Section("gRPC", 5.0, "use http/protobuf in programs that fork")
#: A call of OpenSSL takes milliseconds, because it does not wait for the network.
TLS: Final = Section("TLS", 5.0, "fork again from a process that is less busy")
#: A call of the resolver may wait long for a name server, but usually holds no lock
#: then.  After a fork during such a call, the child first tests the resolver.
RESOLVER: Final = Section("name resolution", 1.0, "fork again when name servers answer")

SECTIONS: Final = (GRPC, TLS, RESOLVER)

_forks: Final[list[int]] = []  # the threads that are forking


def close_gate() -> None:
    """Block new calls, and wait for running calls up to the patience of each section."""
    _forks.append(native.get_ident())
    began = monotonic()
    for section in SECTIONS:
        section.wait_until_empty(began)


def open_gate() -> None:
    """Let calls through again."""
    with contextlib.suppress(ValueError):  # close_gate() was interrupted
        _forks.remove(native.get_ident())


def open_gate_in_child() -> None:
    """Let calls through again, except in sections that the fork cut short."""
    for section in SECTIONS:
        section.after_fork()
    _forks.clear()


register("gate", before=close_gate, in_parent=open_gate, in_child=open_gate_in_child)
register("diagnostics", in_child=diagnostics.reset)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=partial(_run, "before", STEPS),
        after_in_parent=partial(_run, "in_parent", STEPS[::-1]),
        after_in_child=partial(_run, "in_child", STEPS[::-1]),
    )
