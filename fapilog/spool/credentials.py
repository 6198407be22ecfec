"""A mark that tells with which credentials the records on disk were logged.

Two accounts of one endpoint may differ only by a token.  Each process therefore
leaves a salted, slow digest of its credentials beside its records, and another
process sends them only if its own credentials give the same digest.  The
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

#: The mark of a process's directory; :func:`mark_beside` gives that of a quarantine file.
FILE: Final = "credentials"
_SCHEME: Final = "pbkdf2-sha256-10000"
_ROUNDS: Final = 10_000
_SALT_SIZE: Final = 16
_MAX_MARK: Final = 256
_UNREADABLE: Final = "unreadable"


class Credentials:
    """The credentials of one sink, compared with those that a mark stands for.  Thread-safe.

    Args:
        secret: the credentials as a text; "" if the sink has none.
    """

    def __init__(self, secret: str = "") -> None:
        self._secret = secret.encode()
        self._mark = ""
        self._known: dict[str, bool] = {"": True}  # written without a mark

    @property
    def mark(self) -> str:
        """The mark for this process's own records; "" without credentials."""
        if self._secret and not self._mark:
            salt = secrets.token_bytes(_SALT_SIZE)
            mark = f"{_SCHEME} {salt.hex()} {self._digest(salt)}"
            self._known[mark] = True
            self._mark = mark
        return self._mark

    def match(self, mark: str) -> bool:
        """Return whether records with this mark may be sent with these credentials.

        Records without a mark may: they were logged without credentials, or by
        a release that left no marks.  Takes about 10 ms for a new mark.
        """
        found = self._known.get(mark)
        if found is None:
            found = self._known[mark] = self._matches(mark)
        return found

    def _matches(self, mark: str) -> bool:
        with contextlib.suppress(ValueError):  # another release's scheme, or damage
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
    """Return a mark; "" if there is none, and a text that nothing matches if it cannot be read."""
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
    """Write a mark in the place of an earlier one; "" removes the earlier one.

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
