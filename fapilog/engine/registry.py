"""The loggers of one runtime: one core per name, the levels, and the pipeline they log to.

The registry of the default runtime outlives the runtime: a logger that a module
creates at import works before, between and after ``configure()`` calls.
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
    """The lowest enabled severity of each logger name.

    Any thread may read the levels.  The caller of :meth:`set` must hold a lock.

    A dotted name without its own level inherits the level of its nearest parent.

    Args:
        default: the severity number for names without a level.
        by_name: the severity number for each logger name that has its own level.
    """

    def __init__(self, default: int = INFO, by_name: Mapping[str, int] | None = None) -> None:
        # Plain int, because every log call compares levels, and members of Severity are slower.
        self._default = int(default)
        self._by_name = {name: int(level) for name, level in (by_name or {}).items()}
        #: Whether :meth:`set` has changed a level since this object was created.
        self.is_changed = False
        self._find_extremes()

    def threshold(self, name: str) -> int:
        """Return the lowest severity number that is enabled for ``name``."""
        return inherited(name, self._by_name, self._default)

    def set(self, name: str, threshold: int | None) -> None:
        """Set the level of a name, or remove its level if ``threshold`` is None.

        The name "" sets the default level, which is INFO again if ``threshold`` is None.
        """
        if not name:
            self._default = INFO if threshold is None else threshold
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

    A core lives as long as a logger uses it, so logger names that are made per
    request do not accumulate.

    Args:
        unattached: the function that each log call calls while its core has no pipeline.
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
        """Return the core for ``name``, which may be any object and is converted to a plain str."""
        name = plain_name(name)
        core = self._cores.get(name)
        if core is None:
            with self._lock:
                core = LoggerCore(Scope(name, _version_of(name)), self._unattached)
                self._attach(core)
                # If another thread or a finaliser has made a core in the meantime, use that.
                core = self._cores.setdefault(name, core)
        return core

    def attach(self, pipeline: Pipeline, settings: Settings) -> None:
        """Attach all loggers of this registry to ``pipeline``."""
        with self._lock:
            before = self._pipeline
            if before is not None and before is not pipeline and not before.closed:
                before.successor = pipeline
            pipeline.successor = None  # was set if capture_logs() restores this pipeline
            self._pipeline, self._settings = pipeline, settings
            self.levels = Levels(settings.level, settings.levels)
            for core in list(self._cores.values()):
                self._attach(core)

    def detach(self) -> None:
        """Detach all loggers, so that their next call calls ``unattached`` again."""
        with self._lock:
            self._pipeline = self._settings = None
            for core in list(self._cores.values()):
                core.detach()

    def close(self) -> None:
        """Close all loggers, so that the pipeline refuses and counts further records."""
        with self._lock:
            for core in list(self._cores.values()):
                core.close()

    def set_level(self, name: str, threshold: int | None) -> None:
        """Change the level of a name and of all names that inherit from it.

        If ``threshold`` is None, the name inherits its level from now on.
        """
        with self._lock:
            self.levels.set(plain_name(name), threshold)
            self.apply_levels()

    def apply_levels(self) -> None:
        """Set the thresholds of all loggers again, because a level or the holds' floor changed."""
        with self._lock:
            if self._pipeline is None:  # every log call must still call ``unattached``
                return
            for core in list(self._cores.values()):
                core.set_level(self.levels.threshold(core.scope.name))

    def after_fork(self) -> None:
        """Replace the lock, and give the loggers the resource of the child process."""
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
    """Return the ``__version__`` of the logger's top-level package, or ""."""
    version = getattr(sys.modules.get(name.partition(".")[0]), "__version__", "")
    return version if isinstance(version, str) else ""
