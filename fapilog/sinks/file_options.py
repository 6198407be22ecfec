"""What the file sink's options may be, and what to do about it when they are not.

Read once, when the sink is opened; nothing of it is on the record's way.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any, Final

from fapilog.errors import ConfigurationError
from fapilog.process.files import PlantedFileError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

#: Names of periods, in seconds.
PERIODS: Final = {"hour": 3600.0, "day": 86400.0}
_ALL_PERMISSIONS: Final = 0o777


def check_options(sink: str, options: Mapping[str, object]) -> None:
    """Check every option of the file sink named ``sink``.

    Raises:
        ConfigurationError: one is wrong; names it and the fix.
    """
    for option, value in options.items():
        is_right, fix = _RULES[option]
        if not is_right(value):
            msg = f"{option}={value!r} of sink {sink!r}: use {fix}"
            raise ConfigurationError(msg)


def explain(error: Exception) -> str:
    """Return why a log file could not be opened, and the fix."""
    if isinstance(error, PlantedFileError):
        return str(error.strerror)
    code = getattr(error, "errno", None)
    if code in {errno.ELOOP, errno.EMLINK}:  # what O_NOFOLLOW answers, by platform
        return "it is a symbolic link; give the path of the file it leads to"
    if code == errno.EISDIR:
        return "it is a directory; give a file in it"
    if code == errno.EINVAL:
        return "it is not a regular file; write to pipes and devices with a ConsoleSink"
    return f"{error}; give a path in a directory this user may write to"


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0


def _is_whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


# Of every option: whether a value is right, and which are.
_RULES: Final[dict[str, tuple[Callable[[Any], bool], str]]] = {
    "path": (
        lambda value: not str(value).endswith(".gz"),
        "a name without .gz; compress='gzip' compresses rotated files",
    ),
    "format": (lambda value: value in ("json", "otlp"), '"json" or "otlp"'),
    "max_bytes": (
        lambda value: value is None or _is_whole(value, 1),
        "a whole number of bytes above 0, or None",
    ),
    "rotate_every": (
        lambda value: value is None or value in tuple(PERIODS) or _is_number(value),
        'seconds above 0, "hour", "day", or None',
    ),
    "compress": (lambda value: value in (None, "gzip"), '"gzip" or None'),
    "keep_count": (
        lambda value: value is None or _is_whole(value, 0),
        "a whole number of files, or None",
    ),
    "keep_age": (
        lambda value: value is None or _is_number(value),
        "seconds above 0, or None",
    ),
    "keep_bytes": (
        lambda value: value is None or _is_whole(value, 0),
        "a whole number of bytes, or None",
    ),
    "mode": (
        lambda value: _is_whole(value, 0) and value <= _ALL_PERMISSIONS,
        "permission bits from 0 to 0o777",
    ),
}
