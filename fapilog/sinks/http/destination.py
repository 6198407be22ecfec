"""Identifies a sink's backend by a string, such as ``PROTOCOL to URL, account DIGEST``.

The spool stores unsent records on disk, together with this string.  A sink sends stored records
only if their string equals the sink's string.  The string contains no secret, and does not change
when the credentials change, because the spool compares the credentials separately.  One endpoint
may serve several accounts, which a client selects by a header such as ``X-Scope-OrgID``, by a
query parameter or by the user name.  So the string contains a digest of these values.
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
#: The names of headers that never identify an account of the backend.
_NEUTRAL: Final = frozenset({"accept", "accept-encoding", "accept-language", "user-agent"})
_SECRET: Final = re.compile("token|key|secret|auth|pass|cookie|cred|sign")


def describe_destination(protocol: str, options: HTTPOptions, *, tenant: str = "") -> str:
    """Return a string with the protocol, the endpoint, the tenant and a digest of the account.

    ``tenant`` must not be a secret, because the string contains it.
    """
    url = urlsplit(options.shown)
    address = url._replace(netloc=url.netloc.lower()).geturl() if url.netloc else options.shown
    parts = [f"{protocol} to {address}"]
    if tenant:
        parts.append(f"tenant {tenant}")
    account = _named_accounts(options)
    user, password = basic_credentials(options.headers.get("authorization", ""))
    if user and password:  # a user name without a password is usually a secret token
        account.append(f"user={user}")
    if account:
        digest = sha256("\n".join(account).encode()).hexdigest()
        parts.append(f"account {digest[:12]}")
    return ", ".join(parts)


def credentials_in(options: HTTPOptions) -> str:
    """Return the credentials that may determine the account on the backend, as one string.

    The string contains the path of the client certificate, and all headers and query parameters
    that ``describe_destination`` does not use.  Headers that never identify an account, such as
    ``user-agent``, are left out.  A user name and its password are left out, too, because the
    result of ``describe_destination`` already depends on the user name.
    """
    named = _named_accounts(options)
    found = [f"{name}={value}" for name, value in _given(options) if name not in _NEUTRAL]
    if all(basic_credentials(options.headers.get("authorization", ""))):
        found = [text for text in found if not text.startswith("authorization=")]
    if options.client_certificate:
        found.append(f"certificate {options.client_certificate}")
    return "\n".join(text for text in found if text not in named)


def _named_accounts(options: HTTPOptions) -> list[str]:
    """Return ``name=value`` for each header and query parameter whose name suggests an account.

    An example is ``x-scope-orgid=7``.  Names that suggest a secret are left out.
    """
    return [
        f"{name}={value}"
        for name, value in _given(options)
        if _ACCOUNT.search(name) and not _SECRET.search(name)
    ]


def _given(options: HTTPOptions) -> list[tuple[str, str]]:
    query = parse_qsl(urlsplit(options.endpoint).query)
    return sorted((name.lower(), value) for name, value in (*options.headers.items(), *query))
