"""Recognises the names of secret fields, such as ``db.password``, but not ``password_policy``.

The rules of :class:`FieldNames` apply to the names of attributes, to the keys of dicts in
values, and to names in a string such as ``name=value``.
"""

from __future__ import annotations

import re
from collections import Counter
from functools import lru_cache
from itertools import chain
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

#: The field names that are masked by default, in lower case, with a space between two words.  The
#: single words pin, key, session, signature and tokens are not listed, because their values are
#: usually not secret.
DEFAULT_FIELDS: Final = (
    "password", "passwords", "passwd", "pwd", "passphrase", "passcode", "db pass", "user pass",
    "secret", "secrets", "secret id", "credential", "credentials", "creds",
    "token", "access tokens", "refresh tokens", "auth tokens", "api tokens", "jwt", "bearer",
    "auth", "authorization", "api key", "api keys", "access key", "access keys", "account key",
    "private key", "private keys", "secret key", "shared key", "signing key", "encryption key",
    "master key", "ssh key",
    "cookie", "cookies", "session id", "session key", "sessid", "phpsessid", "jsessionid",
    "csrf", "xsrf", "otp", "totp",
    "card number", "credit card", "debit card", "cvv", "cvc",
    "security code", "ssn", "social security",
)  # fmt: skip

# A field whose name ends in one of these words describes a secret but does not contain it:
# token_count, password_reset_required, cookie_consent, secret_name.
_DESCRIPTIONS: Final = frozenset(
    """
    count counts total size length len limit max min budget usage used cost price rate index
    position type kind format algorithm alg version status state result reason error errors
    policy strength rules required enabled disabled expired expires expiry expiration ttl age
    at on date time timeout timestamp created updated changed rotated attempt attempts retries
    failures failed valid invalid verified present missing exists empty id name provider method
    mode scheme strategy backend service server host endpoint url uri path file filename dir
    directory location source manager store vault ref reference arn user username owner realm
    scope scopes issuer audience consent domain banner field fields label prompt placeholder
    column parser handler class module level ms seconds duration latency flow step event action
    """.split()  # noqa: SIM905 - a list of eighty quoted words is harder to read
)

#: Attributes of OpenTelemetry's semantic conventions that are never masked, even if they
#: match the name of a secret field such as "session id".
#: Source: https://opentelemetry.io/docs/specs/semconv/registry/attributes/session/
_STANDARD: Final = frozenset({"session.id", "session.previous_id"})

_MAX_RUN: Final = 4
_MAX_CACHED: Final = 4096
#: ``FieldNames.is_secret`` caches its result only for names up to this length, in characters.
_MAX_NAME: Final = 128
_LONG_WORD: Final = 5
_case_change: Final = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_word: Final = re.compile(r"[^\W\d_]+")


def words_of(name: str) -> list[str]:
    """Return the words of a name in lower case: "x", "api" and "key" for ``X-Api2Key``."""
    return _word.findall(_case_change.sub(" ", name).lower())


class FieldNames:
    """Decides whether the value of a field is secret, based on the field's name.

    A name is split into words, at case changes and at every character that is not a letter.
    The rules:

    - The name of a secret field contains one or more consecutive words that are listed in
      ``fields``, such as ``client_secret``, ``X-Api-Key`` and ``accessToken``.  Only complete
      words match: ``author`` does not match ``auth``.  Several words may be written together
      (``apikey``).
    - A listed word of five letters or more may also end a longer word: ``dbpassword``.
    - If the last word of the name only describes a secret, the value is not secret:
      ``token_count``, ``password_policy``, ``cookie_consent``.

    Thread-safe.  A limited number of decisions is cached.

    Args:
        fields: the names of secret fields, in any spelling that shows where each word begins.
        allow: the names of fields that are never secret; only the complete name is compared.
    """

    def __init__(self, fields: Iterable[str], allow: Iterable[str] = ()) -> None:
        listed = [words for words in map(words_of, fields) if words]
        self._runs = frozenset("".join(words) for words in listed)
        self._endings = tuple(run for run in self._runs if len(run) >= _LONG_WORD)
        self._allowed = frozenset("".join(words_of(name)) for name in allow)
        self._decided = lru_cache(_MAX_CACHED)(self._decide)
        self._distinctive = _distinctive_words(listed)

    def may_occur_in(self, lowered: str) -> bool:
        """Whether a lower-case text may contain a name from ``fields``, or "sig" or "signature".

        "sig" and "signature" are the names of secret parameters in URLs.
        """
        for word in self._distinctive:  # noqa: SIM110 - any() with a generator takes twice as long
            if word in lowered:
                return True
        return False

    def is_secret(self, name: str) -> bool:
        """Return whether the value of a field with this name is secret."""
        return self._decided(name) if len(name) <= _MAX_NAME else self._decide(name)

    def is_secret_path(self, path: str) -> bool:
        """Return whether ``path``, or one of its parts between dots, names a secret field."""
        return self.is_secret(path) or any(map(self.is_secret, path.split(".")))

    def _decide(self, name: str) -> bool:
        words = words_of(name)
        if name in _STANDARD or "".join(words) in self._allowed:
            return False
        described = bool(words) and words[-1] in _DESCRIPTIONS
        last = len(words)
        for start in range(last):
            for end in range(start + 1, min(start + _MAX_RUN, last) + 1):
                run = "".join(words[start:end])
                listed = run in self._runs or (end == start + 1 and run.endswith(self._endings))
                if listed and (end == last or not described):
                    return True
        return False


def _distinctive_words(listed: list[list[str]]) -> list[str]:
    """Return a short list of words, at least one of which occurs in each name in ``listed``.

    ``may_occur_in`` searches for these words, which is faster than a search for all names.
    """
    words = {"sig", *(name[0] for name in listed if len(name) == 1)}
    occurrences = Counter(chain.from_iterable(listed))
    for name in listed:
        if not any(word in part for part in name for word in words):
            words.add(max(name, key=lambda part: (occurrences[part], len(part))))
    return sorted(word for word in words if not any(o in word for o in words - {word}))
