"""The records of every logger of the ``logging`` module, exactly once.

``install`` puts a ``Handler`` on a logger; for the root logger it listens
where each logger calls its handlers as well, because loggers that do not
propagate, such as uvicorn's, never reach the root's.  ``uninstall`` undoes it.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fapilog.bridges import feeds
from fapilog.bridges.patching import Patch, SetupLock
from fapilog.bridges.stdlib import Handler
from fapilog.errors import ConfigurationError
from fapilog.severity import parse_severity, to_stdlib

if TYPE_CHECKING:
    from collections.abc import Callable

    from fapilog.protocols import RecordTarget


@dataclass
class _Installation:
    handler: Handler
    level: int  # of the logger, as it was found
    wanted: int | None = None  # None follows what the target takes
    lowered_to: int | None = None


_lock = SetupLock()
_installations: dict[logging.Logger, _Installation] = {}


class _Everywhere:
    """The wrapper around ``logging.Logger.callHandlers``, and what it feeds.

    A record goes to fapilog before it goes to the loggers' own handlers: on
    the thread that logged it, with its exception, as nobody has changed it.
    It is marked then, so that no handler on its way, nor behind a queue,
    gives it to the same runtime again.

    Attributes:
        handler: what is fed; None leaves records alone.
    """

    def __init__(self) -> None:
        self.handler: Handler | None = None
        self._made = 0
        self._patch = Patch(logging.Logger, "callHandlers", self._around)

    def make_handler(self) -> Handler:
        """Return a handler that is not among those the application has placed."""
        self._made += 1
        return Handler()

    def start(self, handler: Handler) -> None:
        """Listen, unless that is done already."""
        self.handler = handler
        self._patch.apply()

    def stop(self) -> None:
        """Listen no more."""
        self.handler = None
        self._patch.undo()

    def _around(self, found: Callable[..., None]) -> Callable[..., None]:
        passing, watch, taken = feeds.PASSING, feeds.Passing, feeds.Taken

        def callHandlers(  # noqa: N802  # pragma: no cover - see disguised()
            logger: logging.Logger, record: logging.LogRecord
        ) -> None:
            handler = self.handler
            if handler is None:
                found(logger, record)
                return
            if Handler.made != self._made:
                _ask_placed(logger, record, handler)
            if record.levelno >= handler.level:
                handler.handle(record)
            if not watch.watched or type(record.name) is not taken:
                found(logger, record)
                return
            outer, passing.taken = passing.taken, record
            try:
                found(logger, record)
            finally:
                passing.taken = outer

        return callHandlers


def _ask_placed(logger: logging.Logger, record: logging.LogRecord, instead_of: Handler) -> None:
    """Let a handler from elsewhere (a ``dictConfig``) go first: it may have options."""
    target = instead_of.feed.target()
    place: logging.Logger | None = logger
    while place is not None:
        for handler in place.handlers:
            if (
                isinstance(handler, Handler)
                and handler is not instead_of
                and record.levelno >= handler.level
                and handler.feed.target() is target
            ):
                handler.handle(record)
        place = place.parent if place.propagate else None


_everywhere = _Everywhere()


def install(
    target: Callable[[], RecordTarget | None] | None = None,
    level: int | str | None = None,
    logger: logging.Logger | str | None = None,
) -> None:
    """Feed a runtime from a logger and all below it.

    From the root logger it is fed from every logger, propagating or not.
    Doing it again changes target and level and adds nothing.  A logger that
    has a :class:`Handler` from elsewhere (a ``dictConfig``) keeps just that.
    The logger's own level is opened where it is narrower than what is
    wanted; other handlers keep theirs.  Thread-safe; does not block.

    Args:
        target: yields what is fed, None for nothing; called for each record.
            By default the default runtime.
        level: lowest level wanted: a level of ``logging``, or any name of a
            severity.  None wants what the target takes.
        logger: a logger or its name; by default the root logger.

    Raises:
        ConfigurationError: ``level`` is not a level.
    """
    found = _logger(logger)
    number = None if level is None else _level_number(level)
    # Before the lock: asking the default target may configure a runtime.
    fed = feeds.Feed(target).target()
    with _lock:
        made = _installations.get(found)
        if made is None:
            handler = _everywhere.make_handler() if found is found.root else Handler()
            made = _installations[found] = _Installation(handler, found.level)
        made.handler.feed.follow(target)
        made.handler.setLevel(number or logging.NOTSET)
        made.wanted = number
        _open_level(found, made, fed)
        if not any(isinstance(handler, Handler) for handler in found.handlers):
            found.addHandler(made.handler)
        if found is found.root:
            _everywhere.start(made.handler)


def uninstall(logger: logging.Logger | str | None = None) -> None:
    """Undo :func:`install`: handlers and level are what they were.

    A level that somebody else has set since stays.  Does nothing where
    nothing is installed.  Thread-safe; does not block.
    """
    found = _logger(logger)
    with _lock:
        made = _installations.pop(found, None)
        if made is not None:
            if found is found.root:
                _everywhere.stop()
            found.removeHandler(made.handler)
            _restore_level(found, made)


def uninstall_all() -> None:
    """Undo every :func:`install`.  Thread-safe; does not block."""
    for logger in list(_installations):
        uninstall(logger)


def installed() -> dict[logging.Logger, int | None]:
    """Return where :func:`install` is in force, and the level wanted there."""
    with _lock:
        return {logger: made.wanted for logger, made in _installations.items()}


def follow_levels() -> None:
    """Open the levels of loggers anew, after those of a runtime have changed."""
    with _lock:
        for logger, made in list(_installations.items()):
            _open_level(logger, made, made.handler.feed.target())


def _restore_level(logger: logging.Logger, made: _Installation) -> None:
    if made.lowered_to is not None and logger.level == made.lowered_to:
        logger.setLevel(made.level)
    made.lowered_to = None


def _logger(logger: logging.Logger | str | None) -> logging.Logger:
    return logger if isinstance(logger, logging.Logger) else logging.getLogger(logger)


def _open_level(logger: logging.Logger, made: _Installation, target: RecordTarget | None) -> None:
    """Open a logger's own level to what is wanted; per name, the handler decides."""
    _restore_level(logger, made)
    wanted = made.wanted
    if wanted is None and target is not None:
        wanted = to_stdlib(target.lowest_severity())
    if wanted is not None and logger.getEffectiveLevel() > wanted:
        logger.setLevel(wanted)
        made.lowered_to = wanted


def _level_number(level: int | str) -> int:
    """Return the ``logging`` level of a number, a level name or a severity name."""
    if isinstance(level, int):
        return level
    number = logging.getLevelName(level.strip().upper())
    if isinstance(number, int):
        return number
    try:
        return to_stdlib(parse_severity(level))
    except ValueError as error:
        msg = f"level: {error}"
        raise ConfigurationError(msg) from None
