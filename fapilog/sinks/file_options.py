"""Checks the options of the file sink, and explains why a log file cannot be opened.

The sink uses this module only when it is opened, never for a record.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final

from fapilog.options.checks import NONE, SECONDS, Rule, check_all, one_of, whole
from fapilog.process.files import PlantedFileError

if TYPE_CHECKING:
    from collections.abc import Mapping

#: The length in seconds of each named period.
PERIODS: Final = {"hour": 3600.0, "day": 86400.0}

_RULES: Final[Mapping[str, Rule]] = {
    "path": Rule(
        lambda value: not str(value).endswith(".gz"),
        "a name without .gz; compress='gzip' compresses rotated files",
    ),
    "format": one_of("json", "otlp"),
    "max_bytes": whole(1, unit="bytes") | NONE,
    "rotate_every": one_of(*PERIODS) | SECONDS | NONE,
    "compress": one_of("gzip") | NONE,
    "keep_count": whole(unit="files") | NONE,
    "keep_age": SECONDS | NONE,
    "keep_bytes": whole(unit="bytes") | NONE,
    "mode": Rule(whole(0, 0o777).accepts, "permission bits from 0 to 0o777"),
}


def check_options(sink: str, options: Mapping[str, object]) -> None:
    """Check every option of the file sink named ``sink``.

    Raises:
        ConfigurationError: an option is wrong.
    """
    check_all(_RULES, options, f"sink {sink!r}")


def explain(error: Exception) -> str:
    """Return why a log file could not be opened and how to fix it."""
    if isinstance(error, PlantedFileError):
        return str(error.strerror)
    code = getattr(error, "errno", None)
    if code in {errno.ELOOP, errno.EMLINK}:  # from O_NOFOLLOW, depending on the platform
        return "it is a symbolic link; give the path of the file that it points to"
    if code == errno.EISDIR:
        return "it is a directory; give a file in it"
    if code == errno.EINVAL:
        return "it is not a regular file; write to pipes and devices with a ConsoleSink"
    return f"{error}; give a path in a directory this user may write to"
