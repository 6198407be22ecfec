"""The default runtime, which the functions of ``fapilog`` use.

Its state is one object, :data:`state`.  Loggers may be created and used at any
time.  Before the first ``configure()``, a log call configures fapilog from the
environment.  After ``shutdown()``, records are counted and dropped until
``configure()`` is called again.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from fapilog.bridges import feeds
from fapilog.diagnostics import announce, describe
from fapilog.engine import holding
from fapilog.engine import logger as loggers
from fapilog.engine.logger import AsyncLogger, Logger
from fapilog.engine.registry import LoggerRegistry
from fapilog.errors import ConfigurationError
from fapilog.process import exit as _process_exit  # noqa: F401 - registers its hooks before the application does
from fapilog.process import fork
from fapilog.values import snapshot_attributes

if TYPE_CHECKING:
    from fapilog.delivery.ledger import Stats
    from fapilog.engine.emit import LoggerCore
    from fapilog.protocols import Processor
    from fapilog.runtime.runtime import AnyResource, Runtime, Sinks
    from fapilog.settings import Settings


class DefaultState:
    """The default runtime and the loggers that outlive it.

    Attributes:
        lock: the lock that protects changes of the other attributes.
        runtime: the runtime of the last ``configure()``, open or closed.
        made_from: the arguments from which ``runtime`` was made.
        is_configuring: whether the holder of the lock is inside ``configure()``.
        fork_patience: the longest wait of a fork for ``configure()``, in seconds.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.runtime: Runtime | None = None
        self.made_from: tuple[Any, ...] = ()
        self.is_configuring = False
        self.fork_patience = 10.0
        self.registry = LoggerRegistry(_configure_on_first_use)

    def before_fork(self) -> None:
        """Wait until no other thread configures, because a child would inherit its import locks.

        The wait has a limit, because the other thread may need a lock of the caller.
        """
        self.lock.acquire(timeout=self.fork_patience)

    def after_fork_in_parent(self) -> None:
        """Release the lock, so that other threads can configure."""
        with contextlib.suppress(RuntimeError):  # before_fork() did not get the lock
            self.lock.release()

    def after_fork_in_child(self) -> None:
        """Replace the lock, which may belong to a thread of the parent."""
        self.lock = threading.RLock()
        self.is_configuring = False
        self.registry.after_fork()


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

    A second call with equal options changes nothing.  With other options, the
    loggers move to a new runtime and the previous runtime is shut down, which
    blocks for at most its ``shutdown_timeout``.  Thread-safe.

    Args:
        settings: the options, or None to read them from the environment and files.
        sinks: the sinks, or their names as in the option ``sinks``.
        processors: the functions ``(record) -> record or None``, in order.
        level: the lowest enabled severity: a name, a ``Severity`` or a level of
            :mod:`logging`.
        resource: the resource attributes that replace the detected ones.
        **options: more options of :class:`fapilog.Settings`.

    Returns:
        The default runtime.

    Raises:
        ConfigurationError: an option is wrong; the message names it and the
            fix.  The previous configuration stays in force.
    """
    if level is not None:
        options["level"] = level
    if sinks is not None:
        sinks = tuple(sinks) if isinstance(sinks, Iterable) and not isinstance(sinks, str) else (
            sinks,)  # fmt: skip
    with state.lock:
        state.is_configuring = True
        try:
            return _configure(settings, sinks, processors, resource, options)
        finally:
            state.is_configuring = False


def _configure(
    settings: Settings | None,
    sinks: Any,
    processors: Sequence[Processor] | None,
    resource: AnyResource | None,
    options: dict[str, Any],
) -> Runtime:
    from fapilog.runtime import runtime as runtimes  # noqa: PLC0415 - pydantic loads here

    resolved = runtimes.resolve_settings(settings, options)
    given = runtimes.check_processors(processors)
    made_from = (resolved, sinks, given, runtimes.check_resource(resource))
    present = state.runtime
    if present is not None and not present.pipeline.closed and made_from == state.made_from:
        return present
    runtime = _change_over(made_from)
    _follow_levels()
    if resolved.otel_provider and not resolved.otel_disabled:
        from fapilog.otel.provider import install_provider  # noqa: PLC0415 - at configure only

        install_provider(target)
    return runtime


def _change_over(made_from: tuple[Any, ...]) -> Runtime:
    """Replace the present runtime with a new one, or restore it if that fails."""
    previous = state.runtime
    was_open = previous is not None and not previous.pipeline.closed
    if previous is not None and _shared(made_from[1], state.made_from):
        previous.shutdown()  # a sink cannot be open twice
    try:
        runtime = state.runtime = _make(made_from)
    except ConfigurationError:
        if was_open and previous is not None and previous.pipeline.closed:
            state.runtime = _make(state.made_from)
        raise
    state.made_from = made_from
    if previous is not None:
        previous.retire()
    return runtime


def _make(made_from: tuple[Any, ...]) -> Runtime:
    from fapilog.runtime.runtime import Runtime  # noqa: PLC0415 - at configure only

    settings, sinks, processors, resource = made_from
    return Runtime(
        settings, sinks=sinks, processors=processors, resource=resource, _registry=state.registry
    )


def _shared(sinks: Iterable[object] | None, made_from: tuple[Any, ...]) -> bool:
    before = made_from[1] if made_from else ()
    return any(not isinstance(sink, str) and sink in (before or ()) for sink in sinks or ())


def get_logger(name: str = "", /, **bound: Any) -> Logger:
    """Return the logger of ``name``, whose records carry the ``bound`` fields.

    Works before ``configure()``.  Thread-safe; does not block.

    Args:
        name: the logger's name, usually ``__name__``; dotted names inherit levels.
        **bound: the attributes that every record of this logger gets.
    """
    return Logger(state.registry.core(name), snapshot_attributes(bound))


def get_async_logger(name: str = "", /, **bound: Any) -> AsyncLogger:
    """Return the logger of ``name`` for coroutines: ``await log.info(...)``."""
    return AsyncLogger(state.registry.core(name), snapshot_attributes(bound))


def set_level(level: int | str | None, logger: str = "") -> None:
    """Change the level of a logger name and of the names below it immediately.

    If nothing is configured yet, first configures fapilog from the environment.

    Args:
        level: a name, a ``Severity`` or a level of :mod:`logging`; None to inherit the
            parent's level again.
        logger: the dotted name; "" changes the default of all loggers.

    Raises:
        ConfigurationError: ``level`` is not a severity.
    """
    (state.runtime or configure()).set_level(level, logger)
    _follow_levels()


def flush(timeout: float | None = None) -> bool:
    """Wait until every sink has settled the records that were logged before this call.

    Blocks up to ``timeout`` seconds (30 if it is None or not a number), so do not
    call it in the thread of an event loop.

    Returns:
        False if the time limit passed first.
    """
    runtime = state.runtime
    return True if runtime is None else runtime.flush(timeout)


def shutdown(timeout: float | None = None) -> None:
    """Deliver the accepted records, end all threads and undo :func:`configure`.

    Blocks up to ``timeout`` seconds (the option ``shutdown_timeout`` if None).
    The interpreter's exit does the same.  Records that are logged later are
    dropped and counted, until :func:`configure` is called again.
    """
    uninstall_stdlib()
    hooks = sys.modules.get("fapilog.bridges.hooks")
    if hooks is not None:
        hooks.uninstall_hooks()
    with state.lock:
        runtime = state.runtime
    if runtime is not None:
        runtime.shutdown(timeout)


def stats() -> Stats:
    """Return the ledger of the default runtime, which stays readable after a shutdown."""
    from fapilog.delivery.ledger import Stats  # noqa: PLC0415 - loaded only when it is needed

    runtime = state.runtime
    return Stats() if runtime is None else runtime.stats()


def current() -> Runtime | None:
    """Return the default runtime, open or shut down, or None if nothing was configured."""
    return state.runtime


def target() -> Runtime | None:
    """Return the default runtime for a bridge; the first call may configure it.

    After a shutdown, returns the closed runtime, which drops and counts records.
    Never raises.
    """
    if state.runtime is None:
        _configure_on_first_use()
    return state.runtime


def install_stdlib(level: int | str | None = None, logger: str | None = None) -> None:
    """Send records of the :mod:`logging` module to the default runtime.

    The records of all loggers, propagating or not, arrive exactly once, even if
    other code configures ``logging`` before or after this call, or if
    OpenTelemetry's instrumentation has a handler.  A second call changes only
    the level.  Other handlers stay in place.  :func:`uninstall_stdlib` and
    :func:`shutdown` undo it.

    Args:
        level: the lowest severity that is sent: a level of :mod:`logging`, a name or a
            ``Severity``.  If None, the runtime's levels
            apply, and the logger's own level is lowered to them.
        logger: the logger whose own and propagated records are sent; None means all.

    Raises:
        ConfigurationError: ``level`` is not a severity.
    """
    from fapilog.bridges import stdlib  # noqa: PLC0415 - not every application needs it

    stdlib.install(target, level, logger)


def _follow_levels() -> None:
    """Lower the levels of the standard library's loggers to the present levels."""
    installed = sys.modules.get("fapilog.bridges.stdlib")
    if installed is not None:
        installed.follow_levels()


holding.follow(_follow_levels)


def uninstall_stdlib() -> None:
    """Undo :func:`install_stdlib` for every logger, if it was called."""
    installed = sys.modules.get("fapilog.bridges.stdlib")
    if installed is not None:
        installed.uninstall_all()


def _configure_on_first_use(_core: LoggerCore | None = None) -> None:
    """Configure fapilog from the environment; a wrong option must not break a log call."""
    with state.lock:
        if state.runtime is not None:
            return
        if state.is_configuring:  # a signal handler or a resource detector has logged
            announce("configuring", "a record logged during configure() was dropped")
            return
        try:
            try:
                configure()
            except ConfigurationError as error:
                from fapilog.settings import salvage  # noqa: PLC0415 - pydantic loads here

                announce("configure", f"{error}; logging to the console instead")
                state.runtime = _make((salvage(), "console", (), None))
        except Exception as error:  # noqa: BLE001 - an ending interpreter cannot import modules
            announce("configure", f"records are dropped: {describe(error)}")


state: Final = DefaultState()
feeds.default_target = target
loggers.default_core = state.registry.core
fork.register(
    "configuration",
    before=state.before_fork,
    in_parent=state.after_fork_in_parent,
    in_child=state.after_fork_in_child,
)
