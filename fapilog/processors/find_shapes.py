"""Finds secrets that have a certain shape, such as API keys, in any text.

Each ``Rule`` finds secrets of one shape, and only the secret part of a match is masked.  The
time that a search takes is linear in the length of the text, so that no text can block the
worker thread for long.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from fapilog.processors.pieces import search

if TYPE_CHECKING:
    from collections.abc import Callable

Span = tuple[int, int]


@dataclass(frozen=True)
class Rule:
    """Finds secrets of one shape, such as API keys or passwords in URLs.

    Attributes:
        name: the name of the counter for the values that this rule masks.
        triggers: strings in lower case.  Every match contains at least one of them, in upper or
            lower case, so a text that contains none of them is not searched.
        pattern: the regular expression.  It has a group ``secret`` if ``locate`` is the
            default.
        locate: the function that returns the start and end of the secret in a match, or None if
            the match is not a secret.
    """

    name: str
    triggers: tuple[str, ...]
    pattern: re.Pattern[str]
    locate: Callable[[re.Match[str]], Span | None] = lambda match: match.span("secret")

    def find(self, text: str, lowered: str) -> list[Span]:
        """Return the start and end of each secret in ``text``.

        ``lowered`` is ``text`` in lower case.
        """
        if not any(trigger in lowered for trigger in self.triggers):
            return []
        spans = map(self.locate, search(self.pattern, text))
        return [span for span in spans if span is not None]


def _bearer(match: re.Match[str]) -> Span | None:
    """Return the start and end of the token after "bearer", or None if no token follows.

    In a message such as "bearer token expired", an ordinary word follows.
    Source: https://www.rfc-editor.org/rfc/rfc6750#section-2.1
    """
    word = match["secret"].lower().rstrip(".")
    about = word.startswith(("auth", "credential", "realm", "scheme", "error")) and word.isalpha()
    return None if about or word in {"token", "tokens", "header"} else match.span("secret")


def _basic(match: re.Match[str]) -> Span | None:
    """Return the start and end of the credentials after "basic", or None if none follow.

    Credentials are encoded in base64, as in ``Basic dXNlcjpwYXNz``, so they do not look like an
    ordinary word, as in "basic training".
    Source: https://www.rfc-editor.org/rfc/rfc7617#section-2
    """
    word = match["secret"]
    ordinary = word.isalpha() and (word[1:].islower() or word.isupper())
    return None if ordinary else match.span("secret")


def _json_web_token(match: re.Match[str]) -> Span | None:
    """Return the start and end of a JSON web token, or None if ``match`` has no token.

    A token begins with ``eyJ``, because its header begins with ``{"``, encoded in base64.
    Source: https://www.rfc-editor.org/rfc/rfc7515#section-7.1
    """
    header = match["header"]
    start = header.find("eyJ")
    if start < 0 or header[start - 1 : start].isalnum() or len(header) < start + 16:
        return None
    return match.start() + start, match.end()


def _end_of_key(match: re.Match[str]) -> Span | None:
    """Return the start and end of a private key whose first lines were cut off.

    ``match`` is the start of the ``-----END`` line after the key.
    """
    text = match.string
    end = start = match.start()
    longest = 0
    while line := _line_of_key.search(text, max(start - _WIDEST_LINE, 0), start):
        size = line.end("line") - line.start("line")
        if start < end and size < _SHORTEST_LINE:
            break  # only the last line of a key may be short
        longest = max(longest, size)
        # The n of an escaped line end (\n) looks like base64, but does not belong to the key.
        start = line.start() + (text[line.start() - 1 : line.start()] == "\\")
    return (start, end) if longest >= _SHORTEST_LINE else None


_line_of_key: Final = re.compile(r"(?P<line>[A-Za-z0-9+/=]{1,78})(?:\\[rn]|[\r\n \t]){1,4}\Z")
_WIDEST_LINE: Final = 86
_SHORTEST_LINE: Final = 40


def _api_key(match: re.Match[str]) -> Span | None:
    """Return the start and end of an API key, or None if the match is not a key.

    A match that begins with "sk-" and contains no digit is not a key.  It may consist of words
    with hyphens.
    """
    secret = match["secret"]
    is_words = secret.startswith("sk-") and not any(map(str.isdecimal, secret[:_DIGIT_WITHIN]))
    return None if is_words else match.span("secret")


_DIGIT_WITHIN: Final = 83


def _path_segment(match: re.Match[str]) -> Span | None:
    """Return the start and end of a one-time token in a URL, or None for an ordinary word.

    For example, ``/verify/a8f7c2d94e`` contains a token, but ``/verify/settings`` does not.
    """
    secret = match["secret"]
    digits = sum(map(str.isdigit, secret))
    looks_random = digits >= _MANY_DIGITS or (digits and len(secret) >= _LONG_SEGMENT)
    return match.span("secret") if looks_random and digits < len(secret) else None


_MANY_DIGITS: Final = 3
_LONG_SEGMENT: Final = 16
#: If a URL path contains a one-time token, one of these strings precedes the token.
PATH_WORDS: Final = (
    "reset", "token", "invit", "magic", "verif", "confirm", "activat", "unsubscribe", "otp/",
)  # fmt: skip


# The prefixes of API keys in lower case, as documented by AWS, Google, GitHub, GitLab, Slack,
# Stripe, OpenAI, Anthropic, SendGrid, npm, PyPI and Hugging Face.
_PREFIXES: Final = (
    "akia", "asia", "aiza", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "glpat-", "xox",
    "xapp-", "k_live_", "k_test_", "whsec_", "sk-", "sg.", "npm_", "pypi-", "hf_",
)  # fmt: skip

#: The beginnings of password hashes, in lower case.
_HASHES: Final = (
    "argon2", "bcrypt", "pbkdf2", "scrypt", "$2", "$1$", "$5$", "$6$", "$y$", "$apr1$", "md5$",
    "sha1$",
)  # fmt: skip

#: All rules, in the order in which they are applied.
RULES: Final = (
    Rule(
        "private-key",
        ("private key",),
        # If the text was truncated before the line "-----END PRIVATE KEY-----", everything after
        # the line "-----BEGIN PRIVATE KEY-----" belongs to the key.
        re.compile(
            r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----(?P<secret>.+?)(?:-----END|\Z)",
            re.DOTALL,
        ),
    ),
    Rule(
        "private-key",
        ("private key",),
        re.compile(r"-----END [A-Z0-9 ]{0,40}PRIVATE KEY"),
        _end_of_key,
    ),
    Rule(
        "url",
        ("://",),
        # Matches the password in ``scheme://user:password@host``.  The password ends at the last
        # @ before the path.  It may contain @ and, by mistake, a slash; but digits before a slash
        # are a port.
        re.compile(
            r"""://[^\s/?\#:@\[\]"'<>]{0,256}:
            (?P<secret>[^\s/?\#"'<>]{1,256}|(?!\d{1,5}[/?\#])[^\s@"'<>]{1,128})@""",
            re.VERBOSE,
        ),
    ),
    Rule(
        "jwt",
        ("eyj",),
        re.compile(
            r"(?<![\w-])(?P<header>[\w-]{16,})(?:\.[\w-]{8,}|\.[\w-]*(?=\.))(?:\.[\w-]*){0,3}"
        ),
        _json_web_token,
    ),
    Rule(
        "path",
        PATH_WORDS,
        # Matches the text after a path segment such as "reset" or "verify".  The function
        # ``_path_segment`` then decides whether the text looks random.
        re.compile(
            r"""(?i)/(?:[a-z]{1,16}[-_])?
            (?:reset|token|tokens|invite|invitation|magic|magiclink|magic-link|verify
              |verification|confirm|confirmation|activate|activation|unsubscribe|otp)
            (?:[-_][a-z]{1,16})?/
            (?P<secret>[\w.~%+=-]{8,})""",
            re.VERBOSE,
        ),
        _path_segment,
    ),
    Rule(
        "bearer",
        ("bearer",),
        re.compile(r"(?i)(?<![a-z0-9])bearer(?:[ \t:+]|%20){1,8}(?P<secret>[\w.~+/=-]{6,})"),
        _bearer,
    ),
    Rule(
        "basic",
        ("basic",),
        re.compile(r"(?i)(?<![a-z0-9])basic(?:[ \t+]|%20){1,8}(?P<secret>[a-z0-9+/_-]{6,}={0,2})"),
        _basic,
    ),
    Rule(
        "api-key",
        _PREFIXES,
        re.compile(
            r"""(?<![A-Za-z0-9])(?P<secret>
            (?:AKIA|ASIA)[A-Z0-9]{16}(?![A-Za-z0-9])
            | AIza[\w-]{30,}
            | gh[pousr]_[A-Za-z0-9]{16,} | github_pat_\w{16,}
            | glpat-[\w-]{16,}
            | xox[a-z]-[\w-]{10,} | xapp-[\w-]{10,}
            | [sr]k_(?:live|test)_\w{10,} | whsec_[\w+/=]{16,}
            | sk-[\w-]{16,}
            | SG\.[\w-]{16,}\.[\w-]{16,}
            | npm_[A-Za-z0-9]{30,} | pypi-[\w-]{40,} | hf_[A-Za-z0-9]{30,}
            )""",
            re.VERBOSE,
        ),
        _api_key,
    ),
    Rule(
        "password-hash",
        ("$",),
        # Matches PHC strings and hashes of crypt(3), with their salts.  The pattern begins with
        # one character, because Python finds it much faster than a choice of words.
        # Source: https://github.com/P-H-C/phc-string-format/blob/master/phc-sf-spec.md
        re.compile(
            r"""\$(?P<secret>
            2[abxy]?\$\d\d\$[./A-Za-z0-9]{53}
            | argon2(?:id|i|d)\$(?:v=\d{1,4}\$)?
              m=\d{1,10},t=\d{1,10},p=\d{1,5}(?:,[a-z]{1,8}=[A-Za-z0-9+/]{1,64}){0,2}
              \$[A-Za-z0-9+/]{4,128}\$[A-Za-z0-9+/]{16,128}={0,2}
            | scrypt\$ln=\d{1,3},r=\d{1,4},p=\d{1,4}
              \$[A-Za-z0-9+/]{4,128}={0,2}\$[A-Za-z0-9+/]{16,128}={0,2}
            | pbkdf2(?:-sha\d{1,3})?\$\d{1,10}\$[./A-Za-z0-9]{4,128}\$[./A-Za-z0-9]{16,128}
            | [56]\$(?:rounds=\d{1,10}\$)?[./A-Za-z0-9]{1,16}\$[./A-Za-z0-9]{43,86}
            | y\$[./A-Za-z0-9]{1,16}\$[./A-Za-z0-9]{1,86}\$[./A-Za-z0-9]{43}
            | (?:1|apr1)\$[./A-Za-z0-9]{1,8}\$[./A-Za-z0-9]{22}
            )""",
            re.VERBOSE,
        ),
        lambda match: match.span(),
    ),
    Rule(
        "password-hash",
        ("pbkdf2", "scrypt", "md5", "sha1"),
        # Matches the password hashes of Django and Werkzeug that are not PHC strings.
        # Source: https://docs.djangoproject.com/en/stable/topics/auth/passwords/
        re.compile(
            r"""pbkdf2(?:_sha\d{1,3}\$|:sha\d{1,3}:)\d{1,10}
              \$[^\s$'"]{1,128}\$[A-Za-z0-9+/]{20,128}={0,2}
            | scrypt\$\d{1,10}\$[^\s$'"]{1,128}\$\d{1,4}\$\d{1,4}\$[A-Za-z0-9+/]{20,128}={0,2}
            | scrypt:\d{1,10}:\d{1,4}:\d{1,4}\$[^\s$'"]{1,128}\$[0-9a-f]{32,256}
            | md5\$[^\s$'"]{1,128}\$[0-9a-f]{32}
            | sha1\$[^\s$'"]{1,128}\$[0-9a-f]{40}""",
            re.VERBOSE,
        ),
        lambda match: match.span(),
    ),
    Rule(
        "api-key",
        (":aa",),  # in a Telegram token, ":AA" follows the bot's number
        re.compile(r"(?<!\d)\d{8,10}:(?P<secret>AA[\w-]{33})(?![\w-])"),
    ),
)


def may_hold_secret(text: str, lowered: str) -> bool:
    """Whether a rule might find a secret in ``text``; ``lowered`` is ``text`` in lower case.

    Before it searches for a word such as "eyJ", this function usually searches for one character
    of the word, such as "J", because a search for one character is very fast.
    """
    return (
        "bearer" in lowered
        or "basic" in lowered
        or ("@" in text and "://" in text)
        or ("J" in text and "eyJ" in text)
        or ("A" in text and ("AKIA" in text or "ASIA" in text or "AIza" in text or ":AA" in text))
        or ("G" in text and "SG." in text)
        or ("/" in text and _has_path_word(lowered))
        or ("-" in text and _has_dashed_prefix(lowered))
        or ("_" in text and _has_underscored_prefix(lowered))
        or ("$" in text and _has_hash(lowered))
    )


def _has_path_word(lowered: str) -> bool:
    for word in PATH_WORDS:  # noqa: SIM110 - any() with a generator takes twice as long
        if word in lowered:
            return True
    return False


def _has_hash(lowered: str) -> bool:
    if lowered.count("$") < _FEWEST_DOLLARS:
        return False
    for beginning in _HASHES:  # noqa: SIM110 - any() with a generator takes twice as long
        if beginning in lowered:
            return True
    return False


_FEWEST_DOLLARS: Final = 2  # every password hash contains at least this number of dollar signs


def _has_dashed_prefix(lowered: str) -> bool:
    return (
        "sk-" in lowered
        or "xox" in lowered
        or "xapp-" in lowered
        or "pat-" in lowered
        or "pypi-" in lowered
        or "-----" in lowered
    )


def _has_underscored_prefix(lowered: str) -> bool:
    return (
        ("gh" in lowered and _github(lowered) is not None)
        or "_pat_" in lowered
        or "k_live_" in lowered
        or "k_test_" in lowered
        or "npm_" in lowered
        or "hf_" in lowered
        or "whsec_" in lowered
    )


_github: Final = re.compile("gh[pousr]_").search
