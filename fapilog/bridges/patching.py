"""Replaces functions of other libraries with wrappers, and restores them.

Other modules of this package use a ``Patch`` where they cannot register a handler, or where a
handler does not get all records.
"""

from __future__ import annotations

import sys
import threading
from types import FunctionType
from typing import TYPE_CHECKING, Any

from fapilog.process import fork

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType


class Patch:
    """The replacement of one function of another library with a wrapper.

    Not thread-safe: callers must acquire a :class:`SetupLock`.

    Args:
        place: the class or module that has the function as an attribute.
        name: the name of the attribute.
        around: a function that takes the original function and returns the wrapper.
            After ``undo``, the wrapper must only call the original function, because
            other code that has wrapped the wrapper still calls the wrapper.

    Attributes:
        active: whether the patch is applied.
    """

    def __init__(
        self,
        place: type | ModuleType,
        name: str,
        around: Callable[[Callable[..., Any]], Callable[..., Any]],
    ) -> None:
        self.active = False
        self._place = place
        self._name = name
        self._around = around
        self._found: Callable[..., Any] | None = None
        self._wrapper: Callable[..., Any] | None = None

    def apply(self) -> None:
        """Wrap the function, unless it is wrapped already."""
        self.active = True
        found = getattr(self._place, self._name)
        if found is not self._wrapper:
            self._found, self._wrapper = found, disguised(self._around(found), self._place)
            setattr(self._place, self._name, self._wrapper)

    def undo(self) -> None:
        """Restore the original function, unless other code has replaced the wrapper."""
        self.active = False
        if self._wrapper is not None and getattr(self._place, self._name) is self._wrapper:
            setattr(self._place, self._name, self._found)
            self._found = self._wrapper = None


def disguised(wrapper: Callable[..., Any], place: type | ModuleType) -> Callable[..., Any]:
    """Return a copy of ``wrapper`` that seems to be defined in the module of ``place``.

    To find the caller of a log call, libraries skip their own stack frames, which they
    recognise by the file (logging, loguru's InterceptHandler) or by the module (structlog,
    warnings).  They skip the frame of the copy in the same way.  ``wrapper`` must not have
    default arguments, because they are not copied.
    """
    name = place.__module__ if isinstance(place, type) else place.__name__
    file = getattr(sys.modules.get(name), "__file__", None)
    if file is None or not isinstance(wrapper, FunctionType):
        return wrapper  # the module sys, for example, has no source file
    return FunctionType(
        wrapper.__code__.replace(co_filename=file),
        {**wrapper.__globals__, "__name__": name, "__file__": file},
        closure=wrapper.__closure__,
    )


class SetupLock:
    """A lock that is unlocked in a forked child, even if a thread of the parent had locked it."""

    def __init__(self) -> None:
        self.renew()
        fork.register("bridges", in_child=self.renew)

    def renew(self) -> None:
        """Replace the ``threading.Lock`` with a new lock, which is not locked."""
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()
