"""The user's limits for the spool, and the check that another batch stays within them."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from fapilog.errors import FapilogError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

#: The minimum number of segments under the cap, so that settled ones free space in steps.
_SEGMENTS: Final = 4
#: The bytes written and the seconds after which the free space is read again.
_ASK_AFTER: Final = 16 << 20
_ASK_EVERY: Final = 5.0


class SpoolFullError(FapilogError):
    """The spool has no room: its cap or the free space is reached, or the batch is too large."""


@dataclass(frozen=True)
class SpoolOptions:
    """Options of the spools and quarantines in one directory.

    :class:`fapilog.settings.Settings` validates them.

    Attributes:
        directory: the directory of all spools and quarantines; created if it
            is missing, for this user only.
        max_bytes: the maximum bytes of one sink's segments, including the
            adopted ones.
        min_free: the bytes that stay free on the file system.
        segment_bytes: the size of a segment in bytes, at most a quarter of
            ``max_bytes``; only a single larger batch exceeds it.
        sync: ``"interval"`` syncs at most ``sync_interval`` seconds after the
            last sync, and at once after a batch with a severity number of 21
            or more; ``"always"`` syncs before an append returns.
        sync_interval: the seconds between two syncs.
        quarantine_bytes: the maximum bytes of one sink's quarantine.
    """

    directory: Path
    max_bytes: int = 512 << 20
    min_free: int = 64 << 20
    segment_bytes: int = 8 << 20
    sync: Literal["interval", "always"] = "interval"
    sync_interval: float = 0.5
    quarantine_bytes: int = 64 << 20

    @property
    def segment_size(self) -> int:
        """The size of a segment in bytes, limited to a quarter of the cap."""
        return min(self.segment_bytes, self.max_bytes // _SEGMENTS)


class Space:
    """Checks a cap and the free space of a file system.

    Args:
        directory: a directory on the file system.
        cap: the maximum bytes that may be used.
        option: the name of the cap's option, used in messages.
        min_free: the bytes that stay free on the file system.
        monotonic: a clock in seconds.
    """

    def __init__(
        self,
        directory: Path,
        cap: int,
        option: str,
        min_free: int,
        monotonic: Callable[[], float],
    ) -> None:
        self._directory = directory
        self._cap = cap
        self._option = option
        self._min_free = min_free
        self._monotonic = monotonic
        self._allowed = 0
        self._asked_at = -_ASK_EVERY

    def check(self, used: int, wanted: int) -> None:
        """Check that there is room for ``wanted`` bytes in addition to the ``used`` ones.

        Raises:
            SpoolFullError: there is no room.
            OSError: the free space of the file system cannot be read.
        """
        if used + wanted > self._cap:
            msg = f"the spool is full: {used} of {self._cap} bytes (spool.{self._option}) are used"
            raise SpoolFullError(msg)
        now = self._monotonic()
        if wanted > self._allowed or now - self._asked_at >= _ASK_EVERY:
            self._asked_at = now
            spare = shutil.disk_usage(self._directory).free - self._min_free
            # Only half of the spare bytes, because other programs write to the disk too.
            self._allowed = min(max(spare // 2, wanted), _ASK_AFTER) if spare >= wanted else 0
            if spare < wanted:
                msg = f"less than {self._min_free} bytes of disk space are left (spool.min_free)"
                raise SpoolFullError(msg)
        self._allowed = max(self._allowed - wanted, 0)
