"""Marks that show with which credentials the records on disk were logged.

Two accounts of one endpoint may differ only by a token.  So each process writes a
mark, a salted and slow digest of its credentials, beside its records.  Another
process sends these records only if its own credentials have the same digest.  The
credentials themselves are never written.
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

#: The name of the mark in a process's directory; see also :func:`mark_beside`.
FILE: Final = "credentials"
_SCHEME: Final = "pbkdf2-sha256-10000"
_ROUNDS: Final = 10_000
_SALT_SIZE: Final = 16
_MAX_MARK: Final = 256
_UNREADABLE: Final = "unreadable"


class Credentials:
    """The credentials of one sink, "" if it has none.  Thread-safe."""

    def __init__(self, secret: str = "") -> None:
        self._secret = secret.encode()
        self._mark = ""
        self._known: dict[str, bool] = {"": True}  # the result of match() per mark

    @property
    def mark(self) -> str:
        """The mark for the records of this process; "" without credentials."""
        if self._secret and not self._mark:
            salt = secrets.token_bytes(_SALT_SIZE)
            mark = f"{_SCHEME} {salt.hex()} {self._digest(salt)}"
            self._known[mark] = True
            self._mark = mark
        return self._mark

    def match(self, mark: str) -> bool:
        """Return whether records with this mark may be sent with these credentials.

        Returns True for "": the records were logged without credentials, or by an
        earlier release.  Takes about 10 ms for a new mark.
        """
        found = self._known.get(mark)
        if found is None:
            found = self._known[mark] = self._matches(mark)
        return found

    def _matches(self, mark: str) -> bool:
        with contextlib.suppress(ValueError):  # the mark is damaged, or of another release
            scheme, salt, digest = mark.split(" ")
            if scheme == _SCHEME:
                return hmac.compare_digest(digest, self._digest(bytes.fromhex(salt)))
        return False

    def _digest(self, salt: bytes) -> str:
        return hashlib.pbkdf2_hmac("sha256", self._secret, salt, _ROUNDS).hex()


def mark_beside(path: Path) -> Path:
    """Return the path of the mark of a quarantine file."""
    return path.with_suffix(f".{FILE}")


def read_mark(path: Path) -> str:
    """Return a mark; "" if the file is missing, a text that never matches if it is damaged."""
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
    """Write a mark, or remove the file if the mark is "".

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
