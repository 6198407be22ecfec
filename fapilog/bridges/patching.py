"""Replacing what belongs to other libraries, and putting it back.

The bridges that listen where no library offers a place to register use it:
an attribute is wrapped while a bridge is installed, and is afterwards exactly
what was found.
"""

from __future__ import annotations

import sys
import threading
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any, cast

from fapilog.process import fork

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType


class Patch:
    """One attribute of somebody else's object, wrapped while it is applied.

    Not thread-safe: hold a :class:`SetupLock`.

    Args:
        place: the object, class or module.
        name: of the attribute, a function.
        around: makes the wrapper of what was found.  Where somebody wraps the
            attribute in turn, the wrapper stays behind, so it has to look at
            ``active`` and call what was found.

    Attributes:
        active: whether the patch is applied.
    """

    def __init__(
        self, place: object, name: str, around: Callable[[Callable[..., Any]], Callable[..., Any]]
    ) -> None:
        self.active = False
        self._place = place
        self._name = name
        self._around = around
        self._found: Callable[..., Any] | None = None
        self._wrapper: Callable[..., Any] | None = None

    def apply(self) -> None:
        """Wrap the attribute, unless that is done already."""
        self.active = True
        found = getattr(self._place, self._name)
        if found is not self._wrapper:
            self._found, self._wrapper = found, disguised(self._around(found), self._place)
            setattr(self._place, self._name, self._wrapper)

    def undo(self) -> None:
        """Put back what was found, unless somebody has replaced the wrapper since."""
        self.active = False
        if self._wrapper is not None and getattr(self._place, self._name) is self._wrapper:
            setattr(self._place, self._name, self._found)
            self._found = self._wrapper = None


def disguised(wrapper: Callable[..., Any], place: object) -> Callable[..., Any]:
    """Return ``wrapper`` as a function of the module that owns ``place``.

    Code that looks for the caller of a log call skips the frames of the
    library that it was called through, by their file (logging, loguru's
    InterceptHandler) or by their module (structlog, warnings).  The frame of a
    wrapper must be skipped with them, or it is reported as the caller.

    Args:
        wrapper: a plain function.
        place: the module or the class whose attribute is wrapped.
    """
    name = place.__name__ if isinstance(place, ModuleType) else cast("type", place).__module__
    file = getattr(sys.modules.get(name), "__file__", None)
    if file is None or not isinstance(wrapper, FunctionType):
        return wrapper  # sys has no file, and nobody looks for its frames
    found = FunctionType(
        wrapper.__code__.replace(co_filename=file),
        {**wrapper.__globals__, "__name__": name, "__file__": file},
        wrapper.__name__,
        wrapper.__defaults__,
        wrapper.__closure__,
    )
    found.__kwdefaults__ = wrapper.__kwdefaults__
    return found


class SetupLock:
    """A lock that a forked child finds open, whichever thread of the parent held it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        fork.register("bridges", in_child=self.after_fork)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._lock.release()

    def after_fork(self) -> None:
        """Replace the lock, which another thread of the parent may have held."""
        self._lock = threading.Lock()
