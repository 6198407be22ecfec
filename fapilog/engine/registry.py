"""The loggers of one runtime: a ``LoggerCore`` per logger name, the levels, and the pipeline.

The registry of the default runtime outlives the runtime.  So a logger that a module creates at
import time works before, between and after calls of ``configure()``.
"""

from __future__ import annotations

import sys
import weakref
from typing import TYPE_CHECKING

from fapilog import native
from fapilog.engine import holding
from fapilog.engine.emit import LoggerCore
from fapilog.record import Scope
from fapilog.severity import INFO, inherited
from fapilog.values import plain_name

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fapilog.engine.pipeline import Pipeline
    from fapilog.settings import Settings


class Levels:
    """Stores the lowest enabled severity of each logger name.

    Any thread may read the levels.  Only one thread at a time may call :meth:`set`.  A
    dotted name such as ``app.db`` without its own level inherits the level of its nearest
    parent, ``app``.

    Args:
        default: the severity number for logger names without a level.
        by_name: the severity number for each logger name that has its own level.
        has_default: whether the application has chosen ``default``.
    """

    def __init__(
        self,
        default: int = INFO,
        by_name: Mapping[str, int] | None = None,
        *,
        has_default: bool = False,
    ) -> None:
        # Converted to int, because every log call compares levels, and members of Severity are
        # slower.
        self._default = int(default)
        self._has_default = has_default
        self._by_name = {name: int(level) for name, level in (by_name or {}).items()}
        #: Whether :meth:`set` has changed a level since this object was created.
        self.is_changed = False
        self._find_extremes()

    def threshold(self, name: str) -> int:
        """Return the lowest severity number that is enabled for ``name``."""
        return inherited(name, self._by_name, self._default)

    def has(self, name: str) -> bool:
        """Return whether a level is set for ``name`` or one of its parents.

        The empty name "" means the default level of all loggers.
        """
        return inherited(name, self._by_name, -1) >= 0 if name else self._has_default

    def set(self, name: str, threshold: int | None) -> None:
        """Set the level of the logger ``name``, or remove its level if ``threshold`` is None.

        The empty name "" sets the default level; None resets the default level to INFO.
        """
        if not name:
            self._default = INFO if threshold is None else threshold
            self._has_default = threshold is not None
        elif threshold is None:
            self._by_name = {k: v for k, v in self._by_name.items() if k != name}
        else:
            self._by_name = {**self._by_name, name: threshold}
        self.is_changed = True
        self._find_extremes()

    def _find_extremes(self) -> None:
        thresholds = (self._default, *self._by_name.values())
        #: The lowest threshold: below this severity number, no logger is enabled.
        self.lowest = min(thresholds)
        #: The highest threshold: at this severity number and above, all loggers are enabled.
        self.highest = max(thresholds)


class LoggerRegistry:
    """Creates and caches one :class:`LoggerCore` per logger name.  Thread-safe.

    The cache drops a ``LoggerCore`` when no logger uses it any more.  So an application that
    creates logger names per request does not leak memory.

    Args:
        unattached: the function that every log call first calls while no pipeline is attached.
    """

    def __init__(self, unattached: Callable[[LoggerCore], None]) -> None:
        self._unattached = unattached
        self._lock = native.RLock()
        self._cores: weakref.WeakValueDictionary[str, LoggerCore] = weakref.WeakValueDictionary()
        self._pipeline: Pipeline | None = None
        self._settings: Settings | None = None
        self.levels = Levels()
        _registries.add(self)

    def core(self, name: str) -> LoggerCore:
        """Return the ``LoggerCore`` for ``name``, and create it if necessary.

        ``name`` may be any object and is converted to a plain str.
        """
        name = plain_name(name)
        core = self._cores.get(name)
        if core is None:
            with self._lock:
                core = LoggerCore(Scope(name, _version_of(name)), self._unattached)
                self._attach(core)
                # Another thread or a finaliser may already have created a core for this name.  If
                # so, use that core.
                core = self._cores.setdefault(name, core)
        return core

    def attach(self, pipeline: Pipeline, settings: Settings) -> None:
        """Make all loggers of this registry send their records to ``pipeline``."""
        with self._lock:
            before = self._pipeline
            if before is not None and before is not pipeline and not before.closed:
                before.successor = pipeline
            # capture_logs() replaces a pipeline and later attaches it again.  The pipeline then no
            # longer has a successor.
            pipeline.successor = None
            self._pipeline, self._settings = pipeline, settings
            chosen = "level" in settings.model_fields_set
            self.levels = Levels(settings.level, settings.levels, has_default=chosen)
            for core in list(self._cores.values()):
                self._attach(core)

    def detach(self) -> None:
        """Detach all loggers from the pipeline; the next log calls call ``unattached``."""
        with self._lock:
            self._pipeline = self._settings = None
            for core in list(self._cores.values()):
                core.detach()

    def close(self) -> None:
        """Close all loggers, so that the pipeline counts their later records as dropped."""
        with self._lock:
            for core in list(self._cores.values()):
                core.close()

    def set_level(self, name: str, threshold: int | None) -> None:
        """Change the level of the logger ``name`` and of all loggers that inherit its level.

        If ``threshold`` is None, the logger itself inherits its level from now on.
        """
        with self._lock:
            self.levels.set(plain_name(name), threshold)
            self.apply_levels()

    def apply_levels(self) -> None:
        """Update the thresholds of all loggers after a level or ``holding.floor`` has changed."""
        with self._lock:
            # Without a pipeline, the thresholds stay at TRACE, so that every log call calls
            # ``unattached``.
            if self._pipeline is None:
                return
            for core in list(self._cores.values()):
                core.set_level(self.levels.threshold(core.scope.name))

    def after_fork(self) -> None:
        """In a forked child, replace the lock and give the loggers the child's resource."""
        self._lock = native.RLock()
        for core in list(self._cores.values()):
            self._attach(core)

    def _attach(self, core: LoggerCore) -> None:
        if self._pipeline is None or self._settings is None:
            return
        core.attach(self._pipeline, self._settings, self.levels.threshold(core.scope.name))
        if self._pipeline.closed:
            core.close()


_registries: weakref.WeakSet[LoggerRegistry] = weakref.WeakSet()


def _follow_floor() -> None:
    for registry in list(_registries):
        registry.apply_levels()


holding.follow(_follow_floor)


def _version_of(name: str) -> str:
    """Return the ``__version__`` of the top-level package of the logger ``name``, or ""."""
    version = getattr(sys.modules.get(name.partition(".")[0]), "__version__", "")
    return version if isinstance(version, str) else ""
