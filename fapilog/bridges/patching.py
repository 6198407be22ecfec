"""Replaces attributes of other libraries, and restores them.

Bridges use it for libraries that offer no way to register a handler: an attribute
is wrapped while a bridge is installed, and restored afterwards.
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
    """One attribute of another library's object, wrapped while the patch is applied.

    Not thread-safe: hold a :class:`SetupLock`.

    Args:
        place: the object, class or module that has the attribute.
        name: the name of the attribute, whose value must be a function.
        around: the function that makes the wrapper of the attribute's value.
            The wrapper must read ``active`` and call that value, because the
            wrapper stays in place if other code has wrapped it.

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
        """Wrap the attribute, unless it is wrapped already."""
        self.active = True
        found = getattr(self._place, self._name)
        if found is not self._wrapper:
            self._found, self._wrapper = found, disguised(self._around(found), self._place)
            setattr(self._place, self._name, self._wrapper)

    def undo(self) -> None:
        """Restore the original value, unless other code has replaced the wrapper."""
        self.active = False
        if self._wrapper is not None and getattr(self._place, self._name) is self._wrapper:
            setattr(self._place, self._name, self._found)
            self._found = self._wrapper = None


def disguised(wrapper: Callable[..., Any], place: object) -> Callable[..., Any]:
    """Return ``wrapper`` as a function of the module that owns ``place``.

    To find the caller of a log call, libraries skip their own frames, by file
    (logging, loguru's InterceptHandler) or by module (structlog, warnings).
    They must also skip the wrapper's frame, which is not the caller.

    Args:
        wrapper: the wrapper, which must be a plain function.
        place: the module or the class whose attribute is wrapped.
    """
    name = place.__name__ if isinstance(place, ModuleType) else cast("type", place).__module__
    file = getattr(sys.modules.get(name), "__file__", None)
    if file is None or not isinstance(wrapper, FunctionType):
        return wrapper  # sys has no file, and libraries do not skip its frames
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
    """A lock that is free in a forked child, even if a thread of the parent held it."""

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
