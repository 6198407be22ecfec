"""Manages the default runtime, which functions such as ``fapilog.flush()`` use.

The object :data:`state` stores the default runtime.  Loggers may be created and used at any
time: if fapilog is not configured yet, the first log call configures it from the environment.
After ``shutdown()``, records are dropped, and the statistics count them, until ``configure()``
is called again.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from fapilog.bridges import feeds
from fapilog.diagnostics import announce, announce_suppressed, describe
from fapilog.engine import holding
from fapilog.engine import logger as loggers
from fapilog.engine.logger import AsyncLogger, Logger, bound_fields
from fapilog.engine.registry import LoggerRegistry
from fapilog.errors import ConfigurationError
from fapilog.process import exit as _process_exit  # noqa: F401 - registers its hooks before the application does
from fapilog.process import fork

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from types import FrameType

    from typing_extensions import Unpack

    from fapilog.delivery.ledger import Stats
    from fapilog.engine.emit import LoggerCore
    from fapilog.options.arguments import Arguments
    from fapilog.otel.metrics import LedgerMetrics
    from fapilog.protocols import Processor
    from fapilog.runtime.callers import Caller
    from fapilog.runtime.runtime import AnyResource, Runtime, Sinks
    from fapilog.settings import Settings


@dataclass(frozen=True)
class Configuration:
    """The combined arguments of all ``configure()`` calls since the last reset or shutdown.

    Attributes:
        settings: the settings that result from the arguments.
        sinks: the argument ``sinks``, or None if the settings name the sinks.
        processors: the argument ``processors``.
        resource: the argument ``resource``.
        options: the options that the calls set.
        caller: the code that last called ``configure()`` with arguments, or None if this was
            a package of fapilog.
    """

    settings: Settings
    sinks: tuple[Any, ...] | None
    processors: tuple[Processor, ...]
    resource: AnyResource | None
    options: Mapping[str, Any] = field(compare=False)
    caller: Caller | None = field(default=None, compare=False)


class DefaultState:
    """The default runtime, and the loggers, which stay in use if the runtime is replaced.

    Attributes:
        lock: the lock that protects changes of the other attributes.
        runtime: the runtime that ``configure()`` created last, open or closed, or None.
        made_from: the configuration from which ``runtime`` was created, or None.
        is_configuring: True while the thread that owns the lock is inside ``configure()``.
        fork_patience: the longest time, in seconds, that a fork waits for a thread that is
            inside ``configure()``.
        registry: the registry of all loggers.
        metrics: the object that reports the default runtime to OpenTelemetry's global meter
            provider, or None before it is needed.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.runtime: Runtime | None = None
        self.made_from: Configuration | None = None
        self.is_configuring = False
        self.fork_patience = 10.0
        self.registry = LoggerRegistry(_configure_on_first_use)
        self.metrics: LedgerMetrics | None = None

    @property
    def in_force(self) -> Configuration | None:
        """The configuration of the default runtime, or None if it does not exist or is closed."""
        is_open = self.runtime is not None and not self.runtime.pipeline.closed
        return self.made_from if is_open else None

    def before_fork(self) -> None:
        """Wait until no other thread is inside :func:`configure`.

        Without this wait, the child process could inherit locked import locks.  The wait has a
        time limit, because the other thread may itself wait for a lock of the forking thread.
        """
        self.lock.acquire(timeout=self.fork_patience)

    def after_fork_in_parent(self) -> None:
        """Release the lock that :meth:`before_fork` acquired."""
        with contextlib.suppress(RuntimeError):  # before_fork() may not have got the lock
            self.lock.release()

    def after_fork_in_child(self) -> None:
        """Replace the lock, which a thread of the parent process may have acquired."""
        self.lock = threading.RLock()
        self.is_configuring = False
        self.registry.after_fork()


def configure(
    settings: Settings | None = None,
    *,
    reset: bool = False,
    sinks: Sinks | None = None,
    processors: Sequence[Processor] | None = None,
    level: int | str | None = None,
    resource: AnyResource | None = None,
    **options: Unpack[Arguments],
) -> Runtime:
    """Configure the default runtime from arguments, environment and files.

    A second call changes only the options that it passes; all other options keep the values
    of earlier calls, and loggers keep the levels that :func:`set_level` set.
    ``reset=True`` and :func:`shutdown` discard the arguments of earlier calls.  If an option
    changes, the loggers move to a new runtime, and the previous runtime is shut down, which
    blocks for at most its ``shutdown_timeout``.  Thread-safe.

    If an installed package and the application both configure fapilog, a line on
    stderr names the file and the line of both calls.

    Args:
        settings: an object with the values of all options.  If it is None, options that no
            call sets are read from the environment and from configuration files.
        reset: whether to discard the arguments of earlier calls.
        sinks: the sinks, or their names as in the option ``sinks``.
        processors: the functions that are called for each record, in this order.  A function
            returns the record, or None to drop it.
        level: the lowest enabled severity: a name, a ``Severity`` or a level of
            :mod:`logging`.
        resource: attributes, which override detected attributes and ``service_name``, or a
            complete resource.
        **options: other options of :class:`fapilog.Settings`.  A group of options is a dict,
            such as ``console={"format": "json"}``; options that are not in the dict keep the
            values of earlier calls.

    Returns:
        The default runtime.

    Raises:
        ConfigurationError: an option is wrong; the message names the option and the
            fix.  The previous configuration stays in use.
    """
    named: dict[str, Any] = {**options} if level is None else {**options, "level": level}
    arguments = {"sinks": sinks, "processors": processors, "resource": resource}
    given = {name: value for name, value in arguments.items() if value is not None}
    with state.lock:
        state.is_configuring = True
        try:
            before = state.in_force
            wanted = _wanted(settings, named, given, None if reset else before)
            keeps_levels = not reset and settings is None and not {"level", "levels"} & {*named}
            is_same = wanted == before and (keeps_levels or not state.registry.levels.is_changed)
            if is_same and not reset and state.runtime is not None:
                state.made_from = wanted
                return state.runtime
            words = [*named, *given, *(["settings"] if settings else []), *["reset"] * reset]
            if words:  # do not store the caller of configure() if it passed no arguments
                wanted = _with_caller(wanted, words, sys._getframe(1), before)  # noqa: SLF001
            return _put_in_force(wanted, keeps_levels=keeps_levels)
        finally:
            state.is_configuring = False


def _wanted(
    settings: Settings | None,
    named: Mapping[str, Any],
    given: Mapping[str, Any],
    before: Configuration | None,
) -> Configuration:
    """Return the configuration that results from a call of ``configure()``.

    Args:
        settings: the argument ``settings``, which sets all options, or None.
        named: the options that the call sets.
        given: the arguments ``sinks``, ``processors`` and ``resource`` that are not None.
        before: the configuration that the call changes, or None.
    """
    from fapilog.runtime import runtime as runtimes  # noqa: PLC0415 - pydantic loads here
    from fapilog.sinks.factory import listed  # noqa: PLC0415 - at configure only

    if before is not None:
        kept = {name: getattr(before, name) for name in ("sinks", "processors", "resource")}
        if settings is not None and settings.sinks is not None:
            del kept["sinks"]
        given = {**kept, **given}
    options = runtimes.named_options(settings, named, before.options if before else {})
    sinks = given.get("sinks")
    return Configuration(
        runtimes.resolve_settings(settings, options if settings is None else named),
        None if sinks is None else listed(sinks),
        runtimes.check_processors(given.get("processors")),
        runtimes.check_resource(given.get("resource")),
        options,
        before.caller if before else None,
    )


def _with_caller(
    wanted: Configuration, names: Sequence[str], frame: FrameType, before: Configuration | None
) -> Configuration:
    """Return ``wanted`` with the calling code as its ``caller``.

    Reports on stderr if a package changes the configuration of a different package.
    """
    from fapilog.runtime.callers import announce_change, caller_of  # noqa: PLC0415 - see configure

    caller = caller_of(frame)
    announce_change(names, caller, before.caller if before else None)
    return replace(wanted, caller=caller)


def _put_in_force(wanted: Configuration, *, keeps_levels: bool) -> Runtime:
    """Replace the default runtime with a runtime for the configuration ``wanted``.

    Also lowers the levels of :mod:`logging` loggers to the levels of fapilog, and installs
    fapilog's ``LoggerProvider`` in OpenTelemetry, unless the settings disable it.  If
    ``keeps_levels`` is True, loggers keep the levels that :func:`set_level` set.
    """
    levels = state.registry.levels
    was_open = state.in_force is not None
    runtime = _change_over(wanted)
    if was_open and keeps_levels and levels.is_changed:
        state.registry.levels = levels
        state.registry.apply_levels()
    _follow_levels()
    settings = wanted.settings
    if settings.otel_provider and not settings.otel_disabled:
        from fapilog.otel.provider import install_provider  # noqa: PLC0415 - at configure only

        install_provider(target)
    return runtime


def _change_over(wanted: Configuration) -> Runtime:
    """Replace the default runtime with a new runtime for the configuration ``wanted``.

    If the new runtime cannot be created, the previous runtime stays in use, or is created again
    if it had to be shut down first.
    """
    previous, before = state.runtime, state.in_force
    if previous is not None and _shared(wanted.sinks, state.made_from):
        previous.shutdown()  # the runtimes share a sink, which cannot be open twice
    try:
        runtime = state.runtime = _make(wanted)
    except ConfigurationError:
        if before is not None and previous is not None and previous.pipeline.closed:
            state.runtime = _make(before)
        raise
    state.made_from = wanted
    if previous is not None:
        previous.retire()
    return runtime


def _make(wanted: Configuration) -> Runtime:
    from fapilog.runtime.runtime import Runtime  # noqa: PLC0415 - at configure only

    runtime = Runtime(
        wanted.settings,
        sinks=wanted.sinks,
        processors=wanted.processors,
        resource=wanted.resource,
        _registry=state.registry,
    )
    if wanted.settings.otel_metrics and not wanted.settings.otel_disabled:
        _report(runtime)
    return runtime


def _report(runtime: Runtime) -> None:
    """Report the ledger of ``runtime`` as metrics of OpenTelemetry.  Never raises."""
    try:
        from fapilog.otel.metrics import LedgerMetrics  # noqa: PLC0415 - loads the metrics API

        if state.metrics is None:
            state.metrics = LedgerMetrics()
        state.metrics.follow(runtime)
    except Exception as error:  # noqa: BLE001 - a meter provider may raise anything
        what = "fapilog's ledger is not reported as metrics"
        announce("metrics off", f"{what}: {describe(error)}; logging is not affected")


def _shared(sinks: Iterable[object] | None, before: Configuration | None) -> bool:
    others = (before and before.sinks) or ()
    return any(not isinstance(sink, str) and sink in others for sink in sinks or ())


def get_logger(name: str = "", /, **bound: Any) -> Logger:
    """Return a logger called ``name``, which adds the attributes ``bound`` to its records.

    Works before ``configure()``.  Thread-safe; does not block.

    Args:
        name: the logger's name, usually ``__name__``.  The logger ``a.b`` inherits the level
            of the logger ``a``.
        **bound: the attributes that every record of this logger gets.

    Raises:
        TypeError: ``name`` is passed as a keyword, or an argument existed only in fapilog
            0.18, such as ``preset``.
    """
    return Logger(state.registry.core(name), bound_fields(name, bound))


def get_async_logger(name: str = "", /, **bound: Any) -> AsyncLogger:
    """Return a logger called ``name`` with async methods: ``await log.info("text")``."""
    return AsyncLogger(state.registry.core(name), bound_fields(name, bound))


def set_level(level: int | str | None, logger: str = "") -> None:
    """Change the level of a logger and of its child loggers, with immediate effect.

    If fapilog is not configured yet, this call first configures it from the environment.

    Args:
        level: the lowest enabled severity: a name, a ``Severity`` or a level of
            :mod:`logging`; or None to inherit the parent's level again.
        logger: the dotted name of the logger, or "" to change the default of all loggers.

    Raises:
        ConfigurationError: ``level`` is not a severity.
    """
    (state.runtime or configure()).set_level(level, logger)
    _follow_levels()


def flush(timeout: float | None = None) -> bool:
    """Wait until all records that were logged before this call are delivered or dropped.

    If a backend is down and its sink has a spool, this call does not wait for the delivery of
    records that are stored on disk.  Blocks up to ``timeout`` seconds (30 if it is None or not a
    number), so do not call this function in the thread of an event loop.

    Returns:
        False if the time limit was exceeded, else True.
    """
    runtime = state.runtime
    return True if runtime is None else runtime.flush(timeout)


def shutdown(timeout: float | None = None) -> None:
    """Deliver the accepted records, end all threads and undo :func:`configure`.

    Blocks up to ``timeout`` seconds.  If ``timeout`` is None, the option ``shutdown_timeout``
    is the limit.  The exit of the interpreter has the same effect.  Records that are logged later
    are dropped, and :func:`stats` counts them, until :func:`configure` is called again.
    """
    uninstall_stdlib()
    hooks = sys.modules.get("fapilog.bridges.hooks")
    if hooks is not None:
        hooks.uninstall_hooks()
    celery = sys.modules.get("fapilog.bridges.celery_worker")
    if celery is not None:
        celery.uninstall()
    with state.lock:
        runtime = state.runtime
    if runtime is not None:
        runtime.shutdown(timeout)
    announce_suppressed()


def stats() -> Stats:
    """Return the statistics of the default runtime, such as the number of dropped records.

    Also works after :func:`shutdown`.
    """
    from fapilog.delivery.ledger import Stats  # noqa: PLC0415 - loaded only when it is needed

    runtime = state.runtime
    return Stats() if runtime is None else runtime.stats()


def get_runtime() -> Runtime | None:
    """Return the default runtime, open or shut down, or None if fapilog is not configured yet.

    Does not configure fapilog.  Thread-safe; does not block.
    """
    return state.runtime


def target() -> Runtime | None:
    """Return the runtime for records of other logging libraries.

    If fapilog is not configured yet, configures it from the environment.  After a shutdown,
    returns the closed runtime, which drops all records and counts them.  Never raises.
    """
    if state.runtime is None:
        _configure_on_first_use()
    return state.runtime


def install_stdlib(level: int | str | None = None, logger: str | None = None) -> None:
    """Send records of the :mod:`logging` module to the default runtime.

    Each record of every logger, propagating or not, arrives exactly once, even if
    other code configures ``logging`` before or after this call, or if
    OpenTelemetry's instrumentation has installed a handler.  A second call changes
    only the level.  Existing handlers are not removed.  :func:`uninstall_stdlib` and
    :func:`shutdown` undo this call.

    There is one exception if ``level`` is None: if a logger does not propagate, and the levels of
    all its handlers are above a record's level, the record is not sent, unless the option
    ``levels`` sets a level for this logger.

    Args:
        level: the lowest severity that is sent: a level of :mod:`logging`, a name or a
            ``Severity``.  If None, the runtime's levels apply, and the level of the
            :mod:`logging` logger is lowered to match.
        logger: the name of a logger of :mod:`logging`.  Only the records that it creates
            or that propagate to it are sent.  None sends the records of all loggers.

    Raises:
        ConfigurationError: ``level`` is not a severity.
    """
    from fapilog.bridges import stdlib  # noqa: PLC0415 - not every application needs it

    stdlib.install(target, level, logger)


def _follow_levels() -> None:
    """Lower the levels of the standard library's loggers to the current levels of fapilog.

    Does nothing before :func:`install_stdlib`.
    """
    installed = sys.modules.get("fapilog.bridges.stdlib")
    if installed is not None:
        installed.follow_levels()


holding.follow(_follow_levels)


def uninstall_stdlib() -> None:
    """Undo :func:`install_stdlib` for every logger, if it was called."""
    installed = sys.modules.get("fapilog.bridges.stdlib")
    if installed is not None:
        installed.uninstall_all()


def install_celery() -> None:
    """Log the workers and tasks of Celery with the default runtime.

    Call it in the module of the Celery application, after :func:`configure`.  In a worker:

    - Celery does not configure logging.  The records of all loggers of :mod:`logging` are sent as
      after :func:`install_stdlib`.  If the worker has the option ``--loglevel``, it becomes the
      level of fapilog.  ``--logfile`` has no effect.
    - While a task runs, all records have its id (``messaging.message.id``), name
      (``celery.task_name``), routing key (``messaging.destination.name``) and, after a retry, the
      number of retries (``celery.retries``).  Fields that the task binds end with it.
    - Celery's record about the end of a task also has ``celery.state`` and
      ``messaging.process.duration``, in seconds.
    - Lines that tasks print are records of the logger ``celery.redirected``, unless the option
      ``worker_redirect_stdouts`` is off.

    A second call has no effect, and :func:`shutdown` undoes this call.  Thread-safe; does not
    block.

    Raises:
        ImportError: Celery is not installed.
    """
    from fapilog.bridges import celery_worker  # noqa: PLC0415 - needs Celery

    celery_worker.install(set_level)


def _configure_on_first_use(_core: LoggerCore | None = None) -> None:
    """Configure fapilog from the environment at the first log call.  Never raises.

    If an option is wrong, records are written to the console.
    """
    with state.lock:
        if state.runtime is not None:
            return
        if state.is_configuring:  # for example, a resource detector logs during configure()
            announce("configuring", "a record logged during configure() was dropped")
            return
        try:
            try:
                configure()
            except Exception as error:  # noqa: BLE001 - a sink or a detector may raise anything
                fall_back()
                announce("configure", f"{describe(error)}; logging to the console instead")
        except Exception as error:  # noqa: BLE001 - an ending interpreter cannot import modules
            announce("configure", f"records are dropped: {describe(error)}")


def fall_back() -> None:
    """Make a default runtime that logs to the console, after :func:`configure` has failed.

    The valid options of the environment apply.  Does nothing if there is a default runtime.
    """
    with state.lock:
        if state.runtime is None:
            state.runtime = _make_console_alone()


def _make_console_alone() -> Runtime:
    """Return a runtime with all valid options and the console as the only sink."""
    from fapilog.settings import salvage  # noqa: PLC0415 - pydantic loads here

    of_others: dict[str, Any] = {"routes": {}, "overflow": "block", "sink_overflow": None}
    settings = salvage().model_copy(update=of_others)
    configuration = Configuration(settings, ("console",), (), None, {})
    try:
        return _make(configuration)
    except ConfigurationError:  # the option ``console.names`` does not fit the format
        console = settings.console.model_copy(update={"names": {}})
        settings = settings.model_copy(update={"console": console})
        return _make(replace(configuration, settings=settings))


state: Final = DefaultState()
feeds.default_target = target
loggers.default_core = state.registry.core
fork.register(
    "configuration",
    before=state.before_fork,
    in_parent=state.after_fork_in_parent,
    in_child=state.after_fork_in_child,
)
