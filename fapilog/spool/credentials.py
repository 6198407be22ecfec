"""Credentials marks: digests that show which credentials the records on disk need.

Two accounts at the same endpoint may differ only in a token.  So each process stores a mark,
which is a salted and slow digest of its credentials, next to its records.  Another process
sends these records only if its own credentials have the same digest.  The credentials
themselves are never written to disk.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import secrets
from typing import TYPE_CHECKING, Final

from fapilog.process.files import APPEND, create_file, open_file, read_at, write_whole

if TYPE_CHECKING:
    from pathlib import Path

#: The name of the mark's file in a process's directory; see also :func:`mark_beside`.
FILE: Final = "credentials"
_SCHEME: Final = "pbkdf2-sha256-10000"
_ROUNDS: Final = 10_000
_SALT_SIZE: Final = 16
_MAX_MARK: Final = 256
_UNREADABLE: Final = "unreadable"


class Credentials:
    """The credentials of one sink.  An empty secret means no credentials.  Thread-safe."""

    def __init__(self, secret: str = "") -> None:
        self._secret = secret.encode()
        self._mark = ""
        self._known: dict[str, bool] = {"": True}  # the result of match() for each mark

    @property
    def mark(self) -> str:
        """The mark of these credentials, or "" if the sink has no credentials."""
        if self._secret and not self._mark:
            salt = secrets.token_bytes(_SALT_SIZE)
            mark = f"{_SCHEME} {salt.hex()} {self._digest(salt)}"
            self._known[mark] = True
            self._mark = mark
        return self._mark

    def match(self, mark: str) -> bool:
        """Return whether records with the credentials mark ``mark`` may be sent by this sink.

        Records without a mark were logged without credentials or by an earlier release, so
        every sink may send them.  The first call with a mark takes about 10 ms.
        """
        found = self._known.get(mark)
        if found is None:
            found = self._known[mark] = self._matches(mark)
        return found

    def _matches(self, mark: str) -> bool:
        with contextlib.suppress(ValueError):  # a damaged mark, or a later release's mark
            scheme, salt, digest = mark.split(" ")
            if scheme == _SCHEME:
                return hmac.compare_digest(digest, self._digest(bytes.fromhex(salt)))
        return False

    def _digest(self, salt: bytes) -> str:
        return hashlib.pbkdf2_hmac("sha256", self._secret, salt, _ROUNDS).hex()


def mark_beside(path: Path) -> Path:
    """Return the path of the credentials mark that belongs to a quarantine file."""
    return path.with_suffix(f".{FILE}")


def read_mark(path: Path) -> str:
    """Return the mark in a file, "" if there is no file, or "unreadable" if it is damaged."""
    try:
        fd = open_file(path)
        try:
            return read_at(fd, _MAX_MARK, 0).decode("ascii").strip() or _UNREADABLE
        finally:
            os.close(fd)
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError):
        return _UNREADABLE


def write_mark(path: Path, mark: str) -> None:
    """Write ``mark``, the digest of the credentials, to ``path``.  "" removes the file.

    Raises:
        OSError: the file cannot be written.
    """
    path.unlink(missing_ok=True)
    if not mark:
        return
    fd = create_file(path, APPEND)
    try:
        write_whole(fd, [f"{mark}\n".encode()])
    finally:
        os.close(fd)
