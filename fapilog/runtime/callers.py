"""Reports on stderr that an application and an installed package both configure fapilog."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from fapilog.diagnostics import announce
from fapilog.options.found import is_installed

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

#: The packages of fapilog, which call configure() on behalf of the application.
_ITS_OWN: Final = frozenset({"fapilog", "fapilog_fastapi", "pytest_fapilog"})


class Caller(NamedTuple):
    """The code that called ``configure()``.

    Attributes:
        package: the name of the code's top-level package or module.
        place: the file and the line of the call.
        is_installed: whether the file is in a directory of installed packages.
    """

    package: str
    place: str
    is_installed: bool

    def __str__(self) -> str:
        return f"the installed package {self.package!r}" if self.is_installed else "the application"


def caller_of(frame: FrameType) -> Caller | None:
    """Return the ``Caller`` for ``frame``, or None if the code belongs to a package of fapilog."""
    package = str(frame.f_globals.get("__name__")).partition(".")[0]
    if package in _ITS_OWN:
        return None
    file = frame.f_code.co_filename
    return Caller(package, f"{file}:{frame.f_lineno}", is_installed(file))


def announce_change(names: Sequence[str], now: Caller | None, before: Caller | None) -> None:
    """Report on stderr that ``now`` changes a configuration that ``before`` made.

    Does nothing if both callers belong to the same package, if neither caller is an installed
    package, or if a caller is None.

    Args:
        names: the names of the arguments of ``configure()`` that change.
        now: the code that calls ``configure()``, or None.
        before: the code that called ``configure()`` earlier, or None.
    """
    if now is None or before is None or now.package == before.package:
        return
    if now.is_installed:
        fix = "a library should leave the configuration to the application"
    elif before.is_installed:
        fix = "configure(reset=True) would forget what it set"
    else:
        return
    announce(
        f"configure {now.package}",
        f"configure() at {now.place} in {now} changes {', '.join(names)} of the configuration "
        f"that {before} made at {before.place}; {fix}",
    )
