"""What the user chose about the spool, and what the spool says when it is full."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from fapilog.errors import ConfigurationError, FapilogError

_MIN_BYTES: Final = 4096
_MAX_SEGMENT: Final = 1 << 30
_MAX_INTERVAL: Final = 3600.0
#: A cap below so many segments makes them smaller, so that room comes back in steps.
_SEGMENTS: Final = 4


class SpoolFullError(FapilogError):
    """The spool takes no more: its cap, the free space, or a batch too large for a frame."""


@dataclass(frozen=True)
class SpoolOptions:
    """Options of the spools and quarantines below one directory.

    Attributes:
        directory: where they are kept; made where missing, for this user only.
        max_bytes: bytes that the segments of one sink may take, those of this
            process and those it adopted together; at least 4096.
        min_free: bytes that stay free on the file system.
        segment_bytes: bytes of a segment, 4096 to 1 GiB, but never more than a
            quarter of ``max_bytes``; only a single batch that is larger makes
            a larger one.
        sync: ``"interval"`` to sync ``sync_interval`` seconds after the last
            time at the latest, and at once after a batch that holds a severity
            number of 21 or more; ``"always"`` to sync before an append returns.
        sync_interval: seconds, above 0 up to an hour.
        quarantine_bytes: bytes that the quarantine of one sink may take.

    Raises:
        ConfigurationError: an option is out of range.
    """

    directory: Path
    max_bytes: int = 512 << 20
    min_free: int = 64 << 20
    segment_bytes: int = 8 << 20
    sync: Literal["interval", "always"] = "interval"
    sync_interval: float = 0.5
    quarantine_bytes: int = 64 << 20

    def __post_init__(self) -> None:
        _check("directory", self.directory, isinstance(self.directory, Path), "must be a Path")
        for name, least in (
            ("max_bytes", _MIN_BYTES),
            ("min_free", 0),
            ("segment_bytes", _MIN_BYTES),
            ("quarantine_bytes", 0),
        ):
            value = getattr(self, name)
            is_right = isinstance(value, int) and not isinstance(value, bool) and value >= least
            _check(name, value, is_right, f"must be a whole number of bytes, at least {least}")
        size = self.segment_bytes
        _check("segment_bytes", size, size <= _MAX_SEGMENT, "must be at most 1 GiB")
        _check("sync", self.sync, self.sync in {"interval", "always"}, "must be interval or always")
        seconds = self.sync_interval
        is_right = isinstance(seconds, (int, float)) and 0 < seconds <= _MAX_INTERVAL
        _check("sync_interval", seconds, is_right, "must be above 0 and at most 3600 seconds")

    @property
    def segment_size(self) -> int:
        """Bytes of a segment under the cap."""
        return min(self.segment_bytes, self.max_bytes // _SEGMENTS)


def _check(name: str, value: object, is_right: bool, rule: str) -> None:
    if not is_right:
        msg = f"spool.{name}={value!r}: {rule}"
        raise ConfigurationError(msg)
