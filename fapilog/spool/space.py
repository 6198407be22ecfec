"""How much the spool may still write: its cap, and the free space of the disk."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Final

from fapilog.spool.options import SpoolFullError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

#: Bytes written, and seconds gone, until the file system is asked again.
_ASK_AFTER: Final = 16 << 20
_ASK_EVERY: Final = 5.0


class Space:
    """Answers whether there is room.

    Args:
        directory: on the file system in question.
        max_bytes: the cap.
        min_free: bytes that stay free.
        monotonic: seconds of a clock.
    """

    def __init__(
        self, directory: Path, max_bytes: int, min_free: int, monotonic: Callable[[], float]
    ) -> None:
        self._directory = directory
        self._max_bytes = max_bytes
        self._min_free = min_free
        self._monotonic = monotonic
        self._allowed = 0
        self._asked_at = -_ASK_EVERY

    def check(self, used: int, wanted: int) -> None:
        """Check that there is room for ``wanted`` bytes beside the ``used`` ones.

        Raises:
            SpoolFullError: there is not.
            OSError: the file system cannot be asked.
        """
        if used + wanted > self._max_bytes:
            msg = f"the spool is full: {used} of {self._max_bytes} bytes (spool.max_bytes) are used"
            raise SpoolFullError(msg)
        now = self._monotonic()
        if wanted > self._allowed or now - self._asked_at >= _ASK_EVERY:
            self._asked_at = now
            spare = shutil.disk_usage(self._directory).free - self._min_free
            # Half of it: others write to the disk as well.
            self._allowed = min(max(spare // 2, wanted), _ASK_AFTER) if spare >= wanted else 0
            if spare < wanted:
                msg = f"the disk is full but for {self._min_free} bytes (spool.min_free)"
                raise SpoolFullError(msg)
        self._allowed = max(self._allowed - wanted, 0)
