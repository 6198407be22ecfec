"""Prevents records on disk from being sent with the credentials of another account.

Two accounts at the same endpoint may differ only in a token.  So each process stores a salted
PBKDF2 digest of its credentials next to its records; in the code, this digest is called ``mark``.
Another process sends these records only if its credentials match the digest.  The credentials
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

#: The name of the file that contains the credentials digest in a process's directory.  In the
#: quarantine directory, the digest for the file ``x.seg`` is in the file ``x.credentials``.
FILE: Final = "credentials"
_SCHEME: Final = "pbkdf2-sha256-10000"
_ROUNDS: Final = 10_000
_SALT_SIZE: Final = 16
_MAX_MARK: Final = 256
_UNREADABLE: Final = "unreadable"


class Credentials:
    """The credentials of one sink.  Thread-safe.

    ``secret`` contains the credentials as a string, or "" if the sink sends no credentials.
    """

    def __init__(self, secret: str = "") -> None:
        self._secret = secret.encode()
        self._mark = ""
        self._known: dict[str, bool] = {"": True}  # caches the result of match() for each digest

    @property
    def mark(self) -> str:
        """The salted digest of these credentials, or "" if the sink has no credentials.

        The first access takes about 10 ms.
        """
        if self._secret and not self._mark:
            salt = secrets.token_bytes(_SALT_SIZE)
            mark = f"{_SCHEME} {salt.hex()} {self._digest(salt)}"
            self._known[mark] = True
            self._mark = mark
        return self._mark

    def match(self, mark: str) -> bool:
        """Return whether the sink may send records that are stored with the digest ``mark``.

        The result is True if ``mark`` is "" or a digest of the sink's credentials.  Records
        without a digest were logged without credentials or by an earlier release, so every sink
        may send them.  The first call for each digest takes about 10 ms.
        """
        found = self._known.get(mark)
        if found is None:
            found = self._known[mark] = self._matches(mark)
        return found

    def _matches(self, mark: str) -> bool:
        with contextlib.suppress(ValueError):  # a damaged digest does not match
            scheme, salt, digest = mark.split(" ")
            if scheme == _SCHEME:
                return hmac.compare_digest(digest, self._digest(bytes.fromhex(salt)))
        return False

    def _digest(self, salt: bytes) -> str:
        return hashlib.pbkdf2_hmac("sha256", self._secret, salt, _ROUNDS).hex()


def mark_beside(path: Path) -> Path:
    """Return the path of the file with the credentials digest for the quarantine file ``path``."""
    return path.with_suffix(f".{FILE}")


def read_mark(path: Path) -> str:
    """Return the credentials digest in the file ``path``.  Never raises.

    If the file is missing, the result is "".  If the file exists but cannot be read, the result
    is "unreadable", which does not match any credentials.
    """
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
    """Write the credentials digest ``mark`` to ``path``; if ``mark`` is "", remove the file.

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
