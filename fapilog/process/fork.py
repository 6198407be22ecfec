"""Runs registered functions around a fork, and delays forks while threads call some libraries.

A child process inherits every lock of its parent, but only the thread that forked.  A lock
that another thread held is never released in the child.  So the modules with locks, threads or
connections register functions that replace these objects in the child.  The tuple :data:`STEPS`
sets the order in which the functions run.

OpenSSL, the system's resolver and gRPC use locks that a child cannot replace
(https://github.com/grpc/grpc/blob/master/doc/fork_support.md).  Each of these libraries has a
:class:`Section`, a context manager that a thread enters for each call into the library.  Before
a fork, the forking thread waits until no other thread is inside a section, but only for a
limited time.  No thread can enter a section until the fork is complete.
"""

from __future__ import annotations

# Importing concurrent.futures.thread registers a function that acquires a lock before a fork, and
# one that releases it afterwards.  OpenTelemetry imports it during configure(), for which a fork
# waits, so only the second function would run.  An earlier import prevents this error.
import concurrent.futures.thread  # noqa: F401
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

#: The steps of a fork.  ``register()`` adds functions to a step.  Before the fork, the steps run
#: from first to last.  After the fork, they run from last to first.
STEPS: Final = (
    "sigterm",  # blocks SIGTERM until the child can handle it
    "runtimes",  # updates resource attributes such as process.pid in the child
    "configuration",  # waits until no thread runs configure()
    "gate",  # waits until no thread calls OpenSSL, gRPC or the resolver, and blocks new calls
    "bridges",
    "exporters",
    "pipelines",
    "holds",
    "diagnostics",  # first in the child: other steps may write messages
)

_POLL: Final = 0.001

_functions: Final[dict[tuple[str, str], list[_Function]]] = {}
#: The registered methods.  An outer key consists of a parameter name of ``register()``, such as
#: ``before``, and the name of a step.  An inner key is the object to which the method is bound.
#: The weak references do not keep these objects alive.
_methods: Final[dict[tuple[str, str], weakref.WeakKeyDictionary[Any, Callable[[Any], object]]]] = {}


def register(
    step: str,
    *,
    before: _Function | None = None,
    in_parent: _Function | None = None,
    in_child: _Function | None = None,
) -> None:
    """Register functions that run at every fork.

    If a function is a bound method, its object is referenced weakly.

    Args:
        step: the step's name in :data:`STEPS`.
        before: the function to run before a fork.
        in_parent: the function to run in the parent after a fork.
        in_child: the function to run in the child after a fork.
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
    """A context manager around every call into one library, which delays forks during the call.

    Thread-safe, but not re-entrant.  A fork may copy the object at any time, so each change is a
    single operation on a container, and the object has no lock.

    Args:
        library: the library's name, used in messages.
        patience: the longest time that a fork waits for running calls, in seconds.
        advice: the advice to users whose calls take longer, used in messages.

    Attributes:
        cut_short: whether another thread was calling the library when this process was forked, so
            that the library's locks may stay locked forever.
    """

    def __init__(self, library: str, patience: float, advice: str) -> None:
        self.library = library
        self.patience = patience
        self.cut_short = False
        self._advice = advice
        self._threads: set[int] = set()

    def __enter__(self) -> None:
        """Enter the section.  If another thread is forking, wait until the fork is complete.

        Raises:
            RetryableError: the library cannot be used, because another thread was inside the
                section when this process was forked.
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
        """Wait until no other thread is inside the section, or until the time limit.

        The limit is ``patience`` seconds after ``began``, a time read from ``monotonic()``.
        """
        own = {native.get_ident()}  # a signal handler may fork during a call of this thread
        while self._threads - own and monotonic() < began + self.patience:
            native.sleep(_POLL)

    def after_fork(self) -> None:
        """Forget the threads of the parent process.

        If another thread was inside the section during the fork, set ``cut_short``.
        """
        self.cut_short |= bool(self._threads - {native.get_ident()})
        self._threads.clear()


#: A call into gRPC lasts until the backend has answered, which may take longer than 5 seconds.
GRPC: Final = Section("gRPC", 5.0, "use http/protobuf in programs that fork")
#: A call into OpenSSL takes only milliseconds, because it does not wait for the network.
TLS: Final = Section("TLS", 5.0, "fork again from a process that is less busy")
#: A call into the resolver may have to wait for a slow name server, usually without holding a
#: lock.  After a fork during such a call, the child first checks whether the resolver works.
RESOLVER: Final = Section("name resolution", 1.0, "fork again when name servers answer")

SECTIONS: Final = (GRPC, TLS, RESOLVER)

_forks: Final[list[int]] = []  # the ids of the threads that are forking


def close_gate() -> None:
    """Block new calls into the libraries of ``SECTIONS``, and wait until running calls end.

    The wait for each library takes at most the ``patience`` of its section.
    """
    _forks.append(native.get_ident())
    began = monotonic()
    for section in SECTIONS:
        section.wait_until_empty(began)


def open_gate() -> None:
    """Allow calls into the libraries of ``SECTIONS`` again, in the parent after a fork."""
    with contextlib.suppress(ValueError):  # raised if close_gate() was interrupted before append()
        _forks.remove(native.get_ident())


def open_gate_in_child() -> None:
    """Allow calls into the libraries of ``SECTIONS`` again, in the child after a fork.

    If another thread was inside a section during the fork, set ``cut_short`` of this section.
    """
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
