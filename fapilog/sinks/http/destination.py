"""Describes a sink's destination, so that the spool can keep each backend's records apart.

The description contains no secret and does not change with the credentials, which the spool
compares separately.  If one endpoint serves several accounts, headers and query parameters
such as ``X-Scope-OrgID`` or the user name select the account, so the description contains a
digest of them.
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
#: Headers that never identify an account.
_NEUTRAL: Final = frozenset({"accept", "accept-encoding", "accept-language", "user-agent"})
_SECRET: Final = re.compile("token|key|secret|auth|pass|cookie|cred|sign")


def describe_destination(protocol: str, options: HTTPOptions, *, tenant: str = "") -> str:
    """Describe the place to which a sink sends records.  ``tenant`` must not be a secret."""
    url = urlsplit(options.shown)
    address = url._replace(netloc=url.netloc.lower()).geturl() if url.netloc else options.shown
    parts = [f"{protocol} to {address}"]
    if tenant:
        parts.append(f"tenant {tenant}")
    account = _named_accounts(options)
    user, password = basic_credentials(options.headers.get("authorization", ""))
    if user and password:  # without a password, a user name is usually a secret token
        account.append(f"user={user}")
    if account:
        digest = sha256("\n".join(account).encode()).hexdigest()
        parts.append(f"account {digest[:12]}")
    return ", ".join(parts)


def credentials_in(options: HTTPOptions) -> str:
    """Return the secrets that may distinguish two accounts at one destination, as one string.

    The string contains all headers and query parameters that do not name the account, and the
    path of the client certificate.  It contains no password, because the user name already
    identifies the account.
    """
    named = _named_accounts(options)
    found = [f"{name}={value}" for name, value in _given(options) if name not in _NEUTRAL]
    if all(basic_credentials(options.headers.get("authorization", ""))):
        found = [text for text in found if not text.startswith("authorization=")]
    if options.client_certificate:
        found.append(f"certificate {options.client_certificate}")
    return "\n".join(text for text in found if text not in named)


def _named_accounts(options: HTTPOptions) -> list[str]:
    """Return the headers and query parameters that name an account, as ``name=value``."""
    return [
        f"{name}={value}"
        for name, value in _given(options)
        if _ACCOUNT.search(name) and not _SECRET.search(name)
    ]


def _given(options: HTTPOptions) -> list[tuple[str, str]]:
    query = parse_qsl(urlsplit(options.endpoint).query)
    return sorted((name.lower(), value) for name, value in (*options.headers.items(), *query))
