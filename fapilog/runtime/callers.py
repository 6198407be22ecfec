"""Announces that an application and an installed package both configure fapilog."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from fapilog.diagnostics import announce
from fapilog.options.found import is_installed

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

#: Packages that call configure() for the application.
_ITS_OWN: Final = frozenset({"fapilog", "fapilog_fastapi", "pytest_fapilog"})


class Caller(NamedTuple):
    """The code that called ``configure()``.

    Attributes:
        package: the name of its top-level package or module.
        place: its file and line.
        is_installed: whether it was installed into the environment.
    """

    package: str
    place: str
    is_installed: bool

    def __str__(self) -> str:
        return f"the installed package {self.package!r}" if self.is_installed else "the application"


def caller_of(frame: FrameType) -> Caller | None:
    """Return the caller that runs in ``frame``, or None for fapilog itself."""
    package = str(frame.f_globals.get("__name__")).partition(".")[0]
    if package in _ITS_OWN:
        return None
    file = frame.f_code.co_filename
    return Caller(package, f"{file}:{frame.f_lineno}", is_installed(file))


def announce_change(names: Sequence[str], now: Caller | None, before: Caller | None) -> None:
    """Announce the options that one package changes in the configuration of another one."""
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
