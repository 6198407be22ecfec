"""The steps around a fork in one ordered list, and a gate for foreign libraries.

A child inherits every lock of its parent, but only the thread that forked.  A
lock that another thread held is never released in the child.  Modules that own
such locks, threads or connections register here what restores them; the place
in :data:`STEPS`, not the order of imports, decides when it runs.

Three libraries that delivery threads call have locks that a child cannot
replace:

- OpenSSL: its locks protect the tables of algorithms, and sessions.
- The system's resolver: its locks protect the tables of its modules.
- gRPC: it prepares for a fork only while no thread is inside a call
  (https://github.com/grpc/grpc/blob/master/doc/fork_support.md).

Each has a :class:`Section`.  A fork waits until no thread is inside a section and
holds new threads back until the fork is done.
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

#: The steps around a fork: before it from top to bottom, after it from bottom to top.
STEPS: Final = (
    "sigterm",  # held back first and let through last, when the child can handle it
    "runtimes",  # the resource names the child; after the pipelines, which get it
    "configuration",  # the lock of configure(), whose holder enters the gate
    "gate",  # calls into the libraries above
    "bridges",
    "exporters",
    "pipelines",
    "holds",
    "hold buffers",
    "diagnostics",  # first in the child: the other steps may announce something
)

_POLL: Final = 0.001


_functions: Final[dict[tuple[str, str], list[_Function]]] = {}
#: The methods of objects that may go before the process does.
_methods: Final[dict[tuple[str, str], weakref.WeakKeyDictionary[Any, Callable[[Any], object]]]] = {}


def register(
    step: str,
    *,
    before: _Function | None = None,
    in_parent: _Function | None = None,
    in_child: _Function | None = None,
) -> None:
    """Add functions to a step.  A method is called as long as its object lives.

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
    """The calls into one library: ``with section:`` around each call.  Does not nest.

    Thread-safe.  Each change is one operation on a container and threads wait by
    polling, because a fork may copy any moment.

    Args:
        library: the library's name, used in messages.
        patience: the seconds that a fork waits for calls that are running.
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
        """Keep forks waiting; blocks while another thread forks.

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
        own = {native.get_ident()}  # a signal handler may fork inside a call
        while self._threads - own and monotonic() < began + self.patience:
            native.sleep(_POLL)

    def after_fork(self) -> None:
        """Forget the parent's threads; remember whether one was inside."""
        self.cut_short |= bool(self._threads - {native.get_ident()})
        self._threads.clear()


#: A call lasts until the backend has answered.
GRPC: Final = Section("gRPC", 5.0, "use http/protobuf in programs that fork")
#: A call takes milliseconds: fapilog waits for the network outside of OpenSSL.
TLS: Final = Section("TLS", 5.0, "fork again from a process that is less busy")
#: A call may wait for a name server for long, but holds no lock meanwhile.  It is
#: therefore safe to fork during a call that lasts longer than this; a child checks it.
RESOLVER: Final = Section("name resolution", 1.0, "fork again when name servers answer")

SECTIONS: Final = (GRPC, TLS, RESOLVER)

_forks: Final[list[int]] = []  # the threads that fork


def close_gate() -> None:
    """Hold new calls back and wait for running ones, each for its section's patience."""
    _forks.append(native.get_ident())
    began = monotonic()
    for section in SECTIONS:
        section.wait_until_empty(began)


def open_gate() -> None:
    """Let calls through again."""
    with contextlib.suppress(ValueError):  # interrupted before it closed the gate
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
