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
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from fapilog.bridges import feeds
from fapilog.diagnostics import announce, describe
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
    from fapilog.protocols import Processor
    from fapilog.runtime.callers import Caller
    from fapilog.runtime.runtime import AnyResource, Runtime, Sinks
    from fapilog.settings import Settings


@dataclass(frozen=True)
class Configuration:
    """The arguments of the ``configure()`` calls that are in force.

    Attributes:
        settings: the settings that result from the arguments.
        sinks: the argument ``sinks``, or None if the settings name the sinks.
        processors: the argument ``processors``.
        resource: the argument ``resource``.
        options: the options that the calls set.
        caller: the code of the last call with arguments, or None if it is not known.
    """

    settings: Settings
    sinks: tuple[Any, ...] | None
    processors: tuple[Processor, ...]
    resource: AnyResource | None
    options: Mapping[str, Any] = field(compare=False)
    caller: Caller | None = field(default=None, compare=False)


class DefaultState:
    """The default runtime and the loggers that outlive it.

    Attributes:
        lock: the lock that protects changes of the other attributes.
        runtime: the runtime of the last ``configure()``, open or closed.
        made_from: the arguments from which ``runtime`` was made, or None.
        is_configuring: True while the thread that holds the lock is inside ``configure()``.
        fork_patience: the longest time, in seconds, for which a fork waits until another
            thread leaves ``configure()``.
        registry: the loggers.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.runtime: Runtime | None = None
        self.made_from: Configuration | None = None
        self.is_configuring = False
        self.fork_patience = 10.0
        self.registry = LoggerRegistry(_configure_on_first_use)

    @property
    def in_force(self) -> Configuration | None:
        """The configuration of the present runtime, or None after its shutdown."""
        is_open = self.runtime is not None and not self.runtime.pipeline.closed
        return self.made_from if is_open else None

    def before_fork(self) -> None:
        """Wait until no other thread is inside :func:`configure`.

        Otherwise the child process would inherit the import locks of that thread.  The wait
        has a limit, because the other thread may need a lock that the forking thread holds.
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
    reset: bool = False,
    sinks: Sinks | None = None,
    processors: Sequence[Processor] | None = None,
    level: int | str | None = None,
    resource: AnyResource | None = None,
    **options: Unpack[Arguments],
) -> Runtime:
    """Configure the default runtime from arguments, environment and files.

    A second call changes only what it names; everything else keeps the values of
    the earlier calls, including the levels of :func:`set_level`.  ``reset=True``
    and :func:`shutdown` forget the earlier calls.  If options change, the loggers
    move to a new runtime and the previous runtime is shut down, which blocks for at
    most its ``shutdown_timeout``.  Thread-safe.

    If an installed package and the application both configure fapilog, a line on
    stderr names the file and the line of both calls.

    Args:
        settings: the settings, which set all options.  If None, the options that no call
            sets come from the environment and files.
        reset: whether to forget the arguments of earlier calls.
        sinks: the sinks, or their names as in the option ``sinks``.
        processors: the functions ``(record) -> record or None``, in order.  None drops the
            record.
        level: the lowest enabled severity: a name, a ``Severity`` or a level of
            :mod:`logging`.
        resource: the attributes that override the detected ones and ``service_name``,
            or a complete resource.
        **options: other options of :class:`fapilog.Settings`.  An option of a group is
            written ``console={"format": "json"}``; a later call keeps the options of
            the group that it does not name.

    Returns:
        The default runtime.

    Raises:
        ConfigurationError: an option is wrong; the message names it and the
            fix.  The previous configuration stays in force.
    """
    named: dict[str, Any] = {**options} if level is None else {**options, "level": level}
    arguments = {"sinks": sinks, "processors": processors, "resource": resource}
    given = {name: value for name, value in arguments.items() if value is not None}
    with state.lock:
        state.is_configuring = True
        try:
            before = state.in_force
            wanted = _wanted(settings, named, given, None if reset else before)
            if wanted == before and not reset and state.runtime is not None:
                state.made_from = wanted
                return state.runtime
            words = [*named, *given, *(["settings"] if settings else []), *["reset"] * reset]
            if words:  # the first log call passes no arguments, so its caller does not count
                wanted = _with_caller(wanted, words, sys._getframe(1), before)  # noqa: SLF001
            keeps_levels = not reset and settings is None and not {"level", "levels"} & {*named}
            return _put_in_force(wanted, keeps_levels=keeps_levels)
        finally:
            state.is_configuring = False


def _wanted(
    settings: Settings | None,
    named: Mapping[str, Any],
    given: Mapping[str, Any],
    before: Configuration | None,
) -> Configuration:
    """Return the configuration that a call asks for.

    Args:
        settings: the argument ``settings``, which sets all options, or None.
        named: the options that the call sets.
        given: the arguments ``sinks``, ``processors`` and ``resource``, if the call has them.
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
    """Add the caller to a configuration; announce a change of another package's options."""
    from fapilog.runtime.callers import announce_change, caller_of  # noqa: PLC0415 - see configure

    caller = caller_of(frame)
    announce_change(names, caller, before.caller if before else None)
    return replace(wanted, caller=caller)


def _put_in_force(wanted: Configuration, *, keeps_levels: bool) -> Runtime:
    """Replace the default runtime, and adapt :mod:`logging` and the OTel provider to it.

    If ``keeps_levels`` is true, changes by :func:`set_level` stay in force.
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
    """Replace the present runtime with a new one.

    If that fails, the present runtime stays.  If it had to be shut down first, it is made
    again.
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

    return Runtime(
        wanted.settings,
        sinks=wanted.sinks,
        processors=wanted.processors,
        resource=wanted.resource,
        _registry=state.registry,
    )


def _shared(sinks: Iterable[object] | None, before: Configuration | None) -> bool:
    others = (before and before.sinks) or ()
    return any(not isinstance(sink, str) and sink in others for sink in sinks or ())


def get_logger(name: str = "", /, **bound: Any) -> Logger:
    """Return the logger of ``name``, whose records carry the ``bound`` fields.

    Works before ``configure()``.  Thread-safe; does not block.

    Args:
        name: the logger's name, usually ``__name__``; dotted names inherit levels.
        **bound: the attributes that every record of this logger gets.

    Raises:
        TypeError: ``name`` is passed as a keyword, or an argument is one of fapilog 0.18,
            such as ``preset``.
    """
    return Logger(state.registry.core(name), bound_fields(name, bound))


def get_async_logger(name: str = "", /, **bound: Any) -> AsyncLogger:
    """Return the logger of ``name`` for coroutines: ``await log.info(...)``."""
    return AsyncLogger(state.registry.core(name), bound_fields(name, bound))


def set_level(level: int | str | None, logger: str = "") -> None:
    """Immediately change the level of a logger and of the loggers below it.

    If nothing is configured yet, first configures fapilog from the environment.

    Args:
        level: a name, a ``Severity`` or a level of :mod:`logging`; or None to inherit the
            parent's level again.
        logger: the dotted name of the logger, or "" to change the default of all loggers.

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


def get_runtime() -> Runtime | None:
    """Return the default runtime, open or shut down, or None if nothing is configured yet.

    Configures nothing.  Thread-safe; does not block.
    """
    return state.runtime


def target() -> Runtime | None:
    """Return the default runtime to a bridge; configure fapilog if nothing did so before.

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
            ``Severity``.  If None, the runtime's levels apply, and the level of the
            :mod:`logging` logger is lowered to them.
        logger: the name of a logger of :mod:`logging`.  Only the records that it creates
            or that propagate to it are sent.  None sends the records of all loggers.

    Raises:
        ConfigurationError: ``level`` is not a severity.
    """
    from fapilog.bridges import stdlib  # noqa: PLC0415 - not every application needs it

    stdlib.install(target, level, logger)


def _follow_levels() -> None:
    """Lower the levels of the standard library's loggers to the present levels of fapilog.

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


def _configure_on_first_use(_core: LoggerCore | None = None) -> None:
    """Configure fapilog from the environment at the first log call.  Never raises.

    If an option is wrong, records go to the console.
    """
    with state.lock:
        if state.runtime is not None:
            return
        if state.is_configuring:  # a signal handler or a resource detector has logged
            announce("configuring", "a record logged during configure() was dropped")
            return
        try:
            try:
                configure()
            except Exception as error:  # noqa: BLE001 - a sink or a detector may raise anything
                state.runtime = _make(_console_alone())
                announce("configure", f"{describe(error)}; logging to the console instead")
        except Exception as error:  # noqa: BLE001 - an ending interpreter cannot import modules
            announce("configure", f"records are dropped: {describe(error)}")


def _console_alone() -> Configuration:
    """Return the valid options of the environment, with the console as the only sink."""
    from fapilog.settings import salvage  # noqa: PLC0415 - pydantic loads here

    of_others: dict[str, Any] = {"routes": {}, "overflow": "block", "sink_overflow": None}
    settings = salvage().model_copy(update=of_others)
    return Configuration(settings, ("console",), (), None, {})


state: Final = DefaultState()
feeds.default_target = target
loggers.default_core = state.registry.core
fork.register(
    "configuration",
    before=state.before_fork,
    in_parent=state.after_fork_in_parent,
    in_child=state.after_fork_in_child,
)
