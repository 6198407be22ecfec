"""Describes a sink's destination, so that the spool can separate the records of backends.

The description contains no secret and does not change with the credentials, which the spool
compares separately.  It contains a digest of everything that names an account of the
endpoint: headers and query parameters such as ``X-Scope-OrgID``, and the user name.
"""

from __future__ import annotations

import re
from hashlib import sha256
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl, urlsplit

from fapilog.sinks.http.options import basic_credentials

if TYPE_CHECKING:
    from fapilog.sinks.http.options import HTTPOptions

_ACCOUNT: Final = re.compile(
    "org|tenant|account|project|dataset|stream|workspace|namespace|index|bucket|database"
)
#: Headers that do not identify an account.
_NEUTRAL: Final = frozenset({"accept", "accept-encoding", "accept-language", "user-agent"})
_SECRET: Final = re.compile("token|key|secret|auth|pass|cookie|cred|sign")


def describe_destination(protocol: str, options: HTTPOptions, *, tenant: str = "") -> str:
    """Return the description of a sink's destination; ``tenant`` must not be a secret."""
    url = urlsplit(options.shown)
    address = url._replace(netloc=url.netloc.lower()).geturl() if url.netloc else options.shown
    parts = [f"{protocol} to {address}"]
    if tenant:
        parts.append(f"tenant {tenant}")
    account = _named_accounts(options)
    user, password = basic_credentials(options.headers.get("authorization", ""))
    if user and password:  # a user name without a password is a token, so it is a secret
        account.append(f"user={user}")
    if account:
        digest = sha256("\n".join(account).encode()).hexdigest()
        parts.append(f"account {digest[:12]}")
    return ", ".join(parts)


def credentials_in(options: HTTPOptions) -> str:
    """Return the secrets that may distinguish two accounts of one destination, as one text.

    The text contains all headers and query parameters that do not name the account, and the
    path of the client's certificate.  It contains no password, because the user name already
    names the account.
    """
    named = _named_accounts(options)
    found = [f"{name}={value}" for name, value in _given(options) if name not in _NEUTRAL]
    if all(basic_credentials(options.headers.get("authorization", ""))):
        found = [text for text in found if not text.startswith("authorization=")]
    if options.client_certificate:
        found.append(f"certificate {options.client_certificate}")
    return "\n".join(text for text in found if text not in named)


def _named_accounts(options: HTTPOptions) -> list[str]:
    """Return the headers and query parameters that name an account."""
    return [
        f"{name}={value}"
        for name, value in _given(options)
        if _ACCOUNT.search(name) and not _SECRET.search(name)
    ]


def _given(options: HTTPOptions) -> list[tuple[str, str]]:
    """Return the headers and query parameters, sorted, with names in lower case."""
    query = parse_qsl(urlsplit(options.endpoint).query)
    return sorted((name.lower(), value) for name, value in (*options.headers.items(), *query))
