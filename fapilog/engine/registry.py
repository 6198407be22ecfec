"""The loggers of one runtime by name, attached to its pipeline together.

The default runtime's registry outlives the runtime: loggers taken at import
time work before, between and after ``configure()`` calls.
"""

from __future__ import annotations

import sys
import weakref
from typing import TYPE_CHECKING

from fapilog import native
from fapilog.engine import holding
from fapilog.engine.emit import LoggerCore
from fapilog.engine.levels import Levels
from fapilog.record import Scope
from fapilog.values import plain_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from fapilog.engine.pipeline import Pipeline
    from fapilog.settings import Settings


class LoggerRegistry:
    """Makes and keeps one :class:`LoggerCore` a name.  Thread-safe.

    A core lives as long as a logger uses it, so names made per request do not
    accumulate.

    Args:
        unattached: called by the first enabled call of a logger while no
            pipeline is attached.
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
        """Return the core of ``name``, which may be any object and becomes a plain name."""
        name = plain_name(name)
        core = self._cores.get(name)
        if core is None:
            with self._lock:
                core = LoggerCore(Scope(name, _version_of(name)), self._unattached)
                self._attach(core)
                # Another thread, or a finaliser that runs just now, may have been quicker.
                core = self._cores.setdefault(name, core)
        return core

    def attach(self, pipeline: Pipeline, settings: Settings) -> None:
        """Send what all loggers of this registry log to ``pipeline``."""
        with self._lock:
            before = self._pipeline
            if before is not None and before is not pipeline and not before.closed:
                before.successor = pipeline
            pipeline.successor = None  # it may have been set aside
            self._pipeline, self._settings = pipeline, settings
            self.levels = Levels(settings.level, settings.levels)
            for core in list(self._cores.values()):
                self._attach(core)

    def detach(self) -> None:
        """Let every logger ask ``unattached`` again."""
        with self._lock:
            self._pipeline = self._settings = None
            for core in list(self._cores.values()):
                core.detach()

    def close(self) -> None:
        """Let every logger refuse and count what is still logged."""
        with self._lock:
            for core in list(self._cores.values()):
                core.close()

    def set_level(self, name: str, threshold: int | None) -> None:
        """Change a level for a name and all that inherit from it, at once."""
        with self._lock:
            self.levels.set(plain_name(name), threshold)
            self._apply_levels()

    def restore(self, levels: Levels) -> None:
        """Have earlier levels again."""
        with self._lock:
            self.levels = levels
            self._apply_levels()

    def follow_floor(self) -> None:
        """Let loggers look at what a hold may take from now on."""
        with self._lock:
            self._apply_levels()

    def _apply_levels(self) -> None:
        if self._pipeline is None:  # every call has to ask for one
            return
        for core in list(self._cores.values()):
            core.set_level(self.levels.threshold(core.scope.name))

    def after_fork(self) -> None:
        """Replace the lock, which another thread of the parent may have held.

        The loggers take over the pipeline's resource, which has changed.
        """
        self._lock = native.RLock()
        for core in list(self._cores.values()):
            self._attach(core)

    def _attach(self, core: LoggerCore) -> None:
        if self._pipeline is None or self._settings is None:
            return
        core.attach(
            self._pipeline,
            self.levels.threshold(core.scope.name),
            code_attributes=self._settings.code_attributes,
            severities=self._settings.severities,
        )
        if self._pipeline.closed:
            core.close()


# Registries are few; copied, because a hold is made at any time.
_registries: weakref.WeakSet[LoggerRegistry] = weakref.WeakSet()


def _follow_floor() -> None:
    for registry in list(_registries):
        registry.follow_floor()


holding.follow(_follow_floor)


def _version_of(name: str) -> str:
    """Return the version that the logger's top-level package states, if it does."""
    version = getattr(sys.modules.get(name.partition(".")[0]), "__version__", "")
    return version if isinstance(version, str) else ""
