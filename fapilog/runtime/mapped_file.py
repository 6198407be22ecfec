"""Stores numbers in a memory-mapped file, which other processes may read at any time.

A process changes a number in place, without a system call, so a number that was written is in the
file even if the process is killed.  A file consists of chunks, and a chunk of entries.  An entry
is the length of its key and of its body (two 32-bit integers), the key and the body.  Both are
padded to multiples of 8 bytes.  The lengths are written last, so a reader finds only complete
entries.  The body is a list of 64-bit floats in the machine's own byte order.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import secrets
import struct
from typing import TYPE_CHECKING, Final

from fapilog.process import files

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path
    from typing import TypeAlias

    Values: TypeAlias = memoryview[float]

#: The number of bytes by which a file grows.
CHUNK: Final = max(1 << 16, mmap.ALLOCATIONGRANULARITY)
#: The maximum size of a file in bytes.
MAX_SIZE: Final = 1024 * CHUNK
#: The end of the name of each file; it changes with the format.
SUFFIX: Final = ".metrics1"
_LENGTHS: Final = struct.Struct("@II")
_CELL: Final = 8
_ATTEMPTS: Final = 20


def entries(data: bytes | mmap.mmap) -> Iterator[tuple[bytes, int, int]]:
    """Yield the key, and the start and the end of the body, of each entry in ``data``."""
    for start in range(0, len(data), CHUNK):
        at, end = start, min(start + CHUNK, len(data))
        while at + _LENGTHS.size <= end:
            key_length, body_length = _LENGTHS.unpack_from(data, at)
            key_at = at + _LENGTHS.size
            body_at = key_at + _padded(key_length)
            at = body_at + body_length
            if not key_length or at > end:
                break
            yield bytes(data[key_at : key_at + key_length]), body_at, at


def values_in(data: bytes | mmap.mmap, start: int, end: int) -> list[float]:
    """Return the numbers of the body between ``start`` and ``end``.

    Each number is read with one access to memory, so a process that changes the number at the
    same time cannot make it invalid.
    """
    return list(struct.unpack_from(f"@{(end - start) // _CELL}d", data, start))


def packed(contents: Iterable[tuple[bytes, list[float]]]) -> bytes:
    """Return the content of a file with the given keys and numbers."""
    data = bytearray()
    for key, values in contents:
        entry = _LENGTHS.pack(len(key), len(values) * _CELL)
        entry += key.ljust(_padded(len(key)), b"\0") + struct.pack(f"@{len(values)}d", *values)
        if len(data) % CHUNK + len(entry) > CHUNK:
            data += bytes(-len(data) % CHUNK)
        data += entry
    return bytes(data)


def private_values(count: int) -> Values:
    """Return ``count`` numbers that only this process can read."""
    return memoryview(bytearray(count * _CELL)).cast("d")


class MappedFile:
    """The file of this process.  Not thread-safe.

    The file stays locked until the process ends, so other processes can tell whether this process
    is alive.

    Args:
        directory: the directory in which the file is created, under a random name.

    Raises:
        OSError: the file cannot be created or locked.
    """

    def __init__(self, directory: Path) -> None:
        self.path, self._fd = _create(directory)
        self._size = 0
        self._chunk: mmap.mmap | None = None
        self._used = CHUNK

    def add(self, key: bytes, count: int) -> Values:
        """Add ``count`` numbers, all 0, under ``key``, and return a view of them.

        The view stays valid as long as the object exists.

        Raises:
            OSError: the disk or the file is full.
        """
        key_at = _LENGTHS.size
        length = key_at + _padded(len(key)) + count * _CELL
        if self._used + length > CHUNK:
            self._grow(length)
        chunk, at = self._chunk, self._used
        assert chunk is not None  # noqa: S101 - _grow() has set it
        body_at = at + key_at + _padded(len(key))
        chunk[at + key_at : at + key_at + len(key)] = key
        _LENGTHS.pack_into(chunk, at, len(key), count * _CELL)
        self._used += length
        return memoryview(chunk)[body_at : body_at + count * _CELL].cast("d")

    def _grow(self, length: int) -> None:
        if length > CHUNK or self._size >= MAX_SIZE:
            msg = f"{self.path} is full"
            raise OSError(msg)
        # Written, not only reserved: a write to a mapped page without space on the disk would
        # kill the process.
        os.lseek(self._fd, self._size, os.SEEK_SET)
        files.write_whole(self._fd, [bytes(CHUNK)])
        self._chunk = mmap.mmap(self._fd, CHUNK, offset=self._size)
        self._size += CHUNK
        self._used = 0

    def abandon(self) -> None:
        """Close the file in a forked child, which must not hold the parent's lock."""
        files.close_file(self._fd)
        self._fd = -1


def _create(directory: Path) -> tuple[Path, int]:
    for _ in range(_ATTEMPTS):
        path = directory / f"{os.getpid()}-{secrets.token_hex(4)}{SUFFIX}"
        with contextlib.suppress(FileExistsError):
            fd = files.create_file(path, files.UPDATE)
            try:
                # Another process may have locked and removed the file, because nobody had
                # locked it yet.
                if files.try_lock(fd) and files.is_at(path, os.fstat(fd)):
                    return path, fd
            except BaseException:
                files.close_file(fd)
                raise
            files.close_file(fd)
    msg = f"cannot lock a new file in {directory}"
    raise OSError(msg)


def _padded(length: int) -> int:
    return -(-length // _CELL) * _CELL
