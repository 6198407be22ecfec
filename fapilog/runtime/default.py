"""The default runtime, behind the functions of the package.

All of fapilog's global state but the process hooks is here.  Loggers may be
taken and used at any time: before the first ``configure()`` a log call
configures from the environment, after ``shutdown()`` it is counted and dropped
until ``configure()`` is called again.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from fapilog.bridges import feeds
from fapilog.delivery.ledger import Stats
from fapilog.diagnostics import announce, describe
from fapilog.engine import holding
from fapilog.engine.logger import AsyncLogger, Logger
from fapilog.engine.registry import LoggerRegistry
from fapilog.errors import ConfigurationError
from fapilog.process import exit as _process_exit  # noqa: F401 - its hooks come before the application's
from fapilog.process import fork_gate
from fapilog.values import snapshot_attributes

if TYPE_CHECKING:
    import logging

    from fapilog.engine.emit import LoggerCore
    from fapilog.protocols import Processor
    from fapilog.runtime.runtime import AnyResource, Runtime, Sinks
    from fapilog.settings import Settings


#: Seconds a fork waits for another thread that configures.
_PATIENCE: Final = 10.0

_lock = threading.RLock()
_runtime: Runtime | None = None
_made_from: tuple[Any, ...] = ()
_configuring = False  # by the thread that holds the lock


def configure(
    settings: Settings | None = None,
    *,
    sinks: Sinks | None = None,
    processors: Sequence[Processor] | None = None,
    level: int | str | None = None,
    resource: AnyResource | None = None,
    **options: Any,
) -> Runtime:
    """Configure the default runtime from arguments, environment and files.

    Calling it again with the same result changes nothing.  With another one,
    loggers change over and the previous runtime is shut down, which blocks at
    most its ``shutdown_timeout``.  Thread-safe.

    Args:
        settings: options; read from the environment and files when None.
        sinks: sinks, or names as in the option ``sinks``.
        processors: callables ``(record) -> record or None``, in order.
        level: lowest enabled severity.
        resource: resource attributes that win over the detected ones.
        **options: further options of :class:`fapilog.Settings`.

    Returns:
        The default runtime.

    Raises:
        ConfigurationError: an option is wrong; the message names it and the
            fix.  What was configured before stays in force.
    """
    if level is not None:
        options["level"] = level
    if sinks is not None:
        sinks = tuple(sinks) if isinstance(sinks, Iterable) and not isinstance(sinks, str) else (
            sinks,)  # fmt: skip
    with _lock, _while_configuring():
        from fapilog.runtime import runtime as runtimes  # noqa: PLC0415 - pydantic loads here

        resolved = runtimes.resolve_settings(settings, options)
        given = runtimes.check_processors(processors)
        made_from = (resolved, sinks, given, runtimes.check_resource(resource))
        if _runtime is not None and not _runtime.pipeline.closed and made_from == _made_from:
            return _runtime
        runtime = _change_over(made_from)
        _follow_levels()
        if resolved.otel_provider and not resolved.otel_disabled:
            from fapilog.otel.provider import install_provider  # noqa: PLC0415 - as above

            install_provider(target)
        return runtime


@contextlib.contextmanager
def _while_configuring() -> Iterator[None]:
    global _configuring  # noqa: PLW0603 - this module is where global state lives
    _configuring = True
    try:
        yield
    finally:
        _configuring = False


def _change_over(made_from: tuple[Any, ...]) -> Runtime:
    """Put a new runtime in the place of the present one, or fail and keep that."""
    global _runtime, _made_from  # noqa: PLW0603 - as above
    previous = _runtime
    was_open = previous is not None and not previous.pipeline.closed
    if previous is not None and _shared(made_from[1], _made_from):
        previous.shutdown()  # a sink cannot be open twice
    try:
        runtime = _runtime = _make(made_from)
    except ConfigurationError:
        if was_open and previous is not None and previous.pipeline.closed:
            _runtime = _make(_made_from)
        raise
    _made_from = made_from
    if previous is not None:
        previous.retire()
    return runtime


def _make(made_from: tuple[Any, ...]) -> Runtime:
    from fapilog.runtime.runtime import Runtime  # noqa: PLC0415 - as above

    settings, sinks, processors, resource = made_from
    return Runtime(
        settings, sinks=sinks, processors=processors, resource=resource, _registry=_registry
    )


def _shared(sinks: Iterable[object] | None, made_from: tuple[Any, ...]) -> bool:
    before = made_from[1] if made_from else ()
    return any(not isinstance(sink, str) and sink in (before or ()) for sink in sinks or ())


@contextlib.contextmanager
def set_aside(level: int | str | None = None) -> Iterator[None]:
    """Have another default runtime in the block, and what there was afterwards: for tests.

    The other one is like the present one, or what the environment says where
    there is none that is open.  It may be reconfigured and shut down.

    Args:
        level: its lowest enabled severity.

    Raises:
        ConfigurationError: an option is wrong.
    """
    global _runtime, _made_from
    with _lock:
        before, made_from = _runtime, _made_from
        levels, floor, installed = _registry.levels, holding.floor, _installed()
        hooks = _hooks()
        _runtime, _made_from = _like(before, level), ()
    _follow_levels()
    try:
        yield
    finally:
        with _lock:
            present, (_runtime, _made_from) = _runtime, (before, made_from)
            if present is not None and present is not before:
                present.shutdown()
            holding.reset_floor(floor)
            _registry.detach()
            if before is not None:
                _registry.attach(before.pipeline, before.settings)
                _registry.restore(levels)
        _reinstall(installed)
        _hook_again(hooks)
        _follow_levels()


def _like(runtime: Runtime | None, level: int | str | None) -> Runtime:
    """Make a runtime like the given one, if that is open, which leaves the process alone."""
    from fapilog.runtime.runtime import resolve_settings  # noqa: PLC0415 - pydantic loads here

    options: dict[str, Any] = {"handle_sigterm": False}
    if level is not None:
        options["level"] = level
    if runtime is None or runtime.pipeline.closed:
        return _make((resolve_settings(None, options), None, (), None))
    processors, resource = _made_from[2:] if _made_from else ((), None)
    return _make((resolve_settings(runtime.settings, options), None, processors, resource))


def _installed() -> dict[logging.Logger, int | None]:
    module = sys.modules.get("fapilog.bridges.stdlib")
    return {} if module is None else module.installed()


def _reinstall(installed: dict[logging.Logger, int | None]) -> None:
    """Undo what has been installed and uninstalled at loggers of the standard library."""
    module = sys.modules.get("fapilog.bridges.stdlib")
    if module is None:
        return
    now = module.installed()
    for logger in now.keys() - installed.keys():
        module.uninstall(logger)
    for logger, level in installed.items():
        if logger not in now:
            module.install(target, level, logger)


def _hooks() -> dict[str, bool]:
    module = sys.modules.get("fapilog.bridges.hooks")
    return {} if module is None else module.installed()


def _hook_again(hooks: dict[str, bool]) -> None:
    """Undo what has become of the hooks for warnings and exceptions."""
    module = sys.modules.get("fapilog.bridges.hooks")
    if module is None or module.installed() == hooks:
        return
    if any(hooks.values()):
        module.install_hooks(**hooks)
    else:
        module.uninstall_hooks()


def get_logger(name: str = "", /, **bound: Any) -> Logger:
    """Return the logger of ``name``; its records carry ``bound`` fields.

    Does not block, needs no configuration, thread-safe.

    Args:
        name: usually ``__name__``; dotted names inherit levels.
        **bound: attributes of every record of this logger.
    """
    return Logger(_registry.core(name), snapshot_attributes(bound))


def get_async_logger(name: str = "", /, **bound: Any) -> AsyncLogger:
    """Return the logger of ``name`` for coroutines: ``await log.info(...)``."""
    return AsyncLogger(_registry.core(name), snapshot_attributes(bound))


def set_level(level: int | str | None, logger: str = "") -> None:
    """Change the level of a logger name and those below it, at once.

    Configures from the environment first if nothing is configured.

    Raises:
        ConfigurationError: ``level`` is no severity.
    """
    (_runtime or configure()).set_level(level, logger)
    _follow_levels()


def flush(timeout: float | None = None) -> bool:
    """Wait until everything logged so far was settled by every sink.

    Blocks up to ``timeout`` seconds (None, or what is no number: 30): not for
    an event loop's thread.

    Returns:
        False when the time limit came first.
    """
    runtime = _runtime
    return True if runtime is None else runtime.flush(timeout)


def shutdown(timeout: float | None = None) -> None:
    """Deliver what was logged, end all threads, undo :func:`configure`.

    Blocks up to ``timeout`` seconds (None: the option ``shutdown_timeout``).
    Called at interpreter exit by itself.  What is logged later is dropped and
    counted, until :func:`configure` is called again.
    """
    uninstall_stdlib()
    hooks = sys.modules.get("fapilog.bridges.hooks")
    if hooks is not None:
        hooks.uninstall_hooks()
    with _lock:
        runtime = _runtime
    if runtime is not None:
        runtime.shutdown(timeout)


def stats() -> Stats:
    """Return the ledger of the default runtime; after a shutdown, its last one."""
    runtime = _runtime
    return Stats() if runtime is None else runtime.stats()


def current() -> Runtime | None:
    """Return the default runtime if there is one, shut down or not."""
    return _runtime


def target() -> Runtime | None:
    """Return the default runtime for a bridge, configured on first use.

    After a shutdown it is the closed one, which counts what still comes.
    Never raises.
    """
    if _runtime is None:
        _configure_on_first_use()
    return _runtime


def install_stdlib(level: int | str | None = None, logger: str | None = None) -> None:
    """Send records of the :mod:`logging` module to the default runtime.

    Those of all loggers, propagating or not, exactly once, whatever sets
    ``logging`` up before or after it; the handler of OpenTelemetry's
    instrumentation adds no second copy.  Calling it again changes nothing but
    the level.  Other handlers stay.  Undone by :func:`uninstall_stdlib` and :func:`shutdown`.

    Args:
        level: lowest severity taken; None takes what the runtime's levels
            let through, and opens the logger's own level accordingly.
        logger: name of a logger to listen at, for its records and those that
            propagate to it; None is all loggers.

    Raises:
        ConfigurationError: ``level`` is no severity.
    """
    from fapilog.bridges import stdlib  # noqa: PLC0415 - loaded only if it is used

    stdlib.install(target, level, logger)


def _follow_levels() -> None:
    """Let the loggers of the standard library pass what the levels let through now."""
    installed = sys.modules.get("fapilog.bridges.stdlib")
    if installed is not None:
        installed.follow_levels()


holding.follow(_follow_levels)


def uninstall_stdlib() -> None:
    """Undo :func:`install_stdlib`, at every logger; does nothing where it was not called."""
    installed = sys.modules.get("fapilog.bridges.stdlib")
    if installed is not None:
        installed.uninstall_all()


def _configure_on_first_use(_core: LoggerCore | None = None) -> None:
    """Configure from the environment; a wrong option must not break a log call."""
    with _lock:
        if _runtime is not None:
            return
        if _configuring:  # a signal handler, or a library that is asked for the resource
            announce("configuring", "a record logged in the midst of configure() was dropped")
            return
        try:
            try:
                configure()
            except ConfigurationError as error:
                announce("configure", f"{error}; logging to the console instead")
                _log_to_console()
        except Exception as error:  # noqa: BLE001 - a log call never raises, least of all at the
            # end of the interpreter, when nothing can be imported any more
            announce("configure", f"records are dropped: {describe(error)}")


def _log_to_console() -> None:
    global _runtime  # noqa: PLW0603 - as above
    from fapilog.settings import salvage  # noqa: PLC0415 - pydantic loads here

    _runtime = _make((salvage(), "console", (), None))


_registry = LoggerRegistry(_configure_on_first_use)
feeds.default_target = target


def _before_fork() -> None:
    # A child forked half-way through a configuration would inherit import
    # locks that nobody is left to release.  Who configures may in turn wait
    # for what this thread holds, so there is a limit.
    _lock.acquire(timeout=_PATIENCE)
    fork_gate.before_fork()  # after that: who configures enters the gate to read certificates


def _after_fork_in_parent() -> None:
    fork_gate.after_fork_in_parent()
    with contextlib.suppress(RuntimeError):  # the limit came first
        _lock.release()


def _after_fork_in_child() -> None:
    global _lock, _configuring  # noqa: PLW0603 - replaced: releasing belongs to the parent's thread
    fork_gate.after_fork_in_child()
    _lock = threading.RLock()
    _configuring = False
    _registry.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=_after_fork_in_parent,
        after_in_child=_after_fork_in_child,
    )
