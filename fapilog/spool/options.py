"""The user's options for the spool, and the check of its size limits before each write."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from fapilog.errors import FapilogError

if TYPE_CHECKING:
    from pathlib import Path

#: The minimum number of segment files in a full spool.  A segment file is deleted only after all
#: of its batches are delivered, so several small files free disk space earlier than a large file.
_SEGMENTS: Final = 4


class SpoolFullError(FapilogError):
    """The spool is closed, would exceed a size limit, or cannot store a batch of this size."""


@dataclass(frozen=True)
class SpoolOptions:
    """The options that all spools and quarantines in one directory share.

    :class:`fapilog.settings.Settings` validates the options.

    Attributes:
        directory: the directory of all spools and quarantines.  If it is missing, it is
            created, and only this user can access it.
        max_bytes: the maximum total size of one sink's segment files in bytes, including the
            files of dead processes.
        min_free: the number of bytes that must stay free on the file system.
        segment_bytes: the maximum size of a segment file in bytes.  If the value exceeds a quarter
            of ``max_bytes``, a quarter of ``max_bytes`` is used instead.  A file with a single
            batch may be larger.
        sync: ``"interval"`` syncs every ``sync_interval`` seconds, and immediately after a
            batch with a severity number of 21 (FATAL) or more; ``"always"`` syncs after each
            batch.
        sync_interval: the number of seconds between two syncs.
        quarantine_bytes: the maximum total size of one sink's quarantine files in bytes.
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
        """The lesser of ``segment_bytes`` and a quarter of ``max_bytes``."""
        return min(self.segment_bytes, self.max_bytes // _SEGMENTS)


class Space(NamedTuple):
    """The disk space that one sink may use in a directory.

    Attributes:
        directory: the directory.  It must exist when :meth:`check` is called.
        cap: the maximum number of bytes that the sink may use.
        option: the name of the user's option that sets ``cap``, used in error messages.
        min_free: the number of bytes that must stay free on the file system.
    """

    directory: Path
    cap: int
    option: str
    min_free: int

    def check(self, used: int, wanted: int) -> None:
        """Check that ``wanted`` more bytes may be written if ``used`` bytes are already in use.

        Raises:
            SpoolFullError: the additional bytes would exceed a limit.
            OSError: the free space of the file system cannot be read.
        """
        if used + wanted > self.cap:
            msg = f"the spool is full: {used} of {self.cap} bytes (spool.{self.option}) are used"
            raise SpoolFullError(msg)
        if shutil.disk_usage(self.directory).free < wanted + self.min_free:
            msg = f"less than {self.min_free} bytes of disk space are left (spool.min_free)"
            raise SpoolFullError(msg)
