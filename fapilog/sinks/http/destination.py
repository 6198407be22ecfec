"""Where a sink sends its records, in words: what the spool keeps them apart by.

The words hold no secret and stay the same when credentials change.  What tells
two accounts of one endpoint apart (the user of a basic authentication, a header
or a query parameter such as ``X-Scope-OrgID``) is there as a digest.
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
_SECRET: Final = re.compile("token|key|secret|auth|pass|cookie|cred|sign")


def describe_destination(protocol: str, options: HTTPOptions, *, tenant: str = "") -> str:
    """Return where a sink with these options sends its records.

    Args:
        protocol: what is spoken there, ``"OTLP http/protobuf"``.
        options: the sink's endpoint and headers.
        tenant: the name of an account that is not secret.
    """
    parts = [f"{protocol} to {_address(options.shown)}"]
    if tenant:
        parts.append(f"tenant {tenant}")
    account = _account(options)
    if account:
        parts.append(f"account {sha256(account.encode()).hexdigest()[:12]}")
    return ", ".join(parts)


def _address(url: str) -> str:
    """Return a URL with its host in lower case; a gRPC target as it is."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.lower()).geturl() if parts.netloc else url


def _account(options: HTTPOptions) -> str:
    """Return what names an account; "" if nothing does."""
    query = parse_qsl(urlsplit(options.endpoint).query)
    given = [(name.lower(), value) for name, value in (*options.headers.items(), *query)]
    named = [
        f"{name}={value}"
        for name, value in sorted(given)
        if _ACCOUNT.search(name) and not _SECRET.search(name)
    ]
    user, password = basic_credentials(options.headers.get("authorization", ""))
    # Without a password it is a bare token.
    return "\n".join([*named, f"user={user}"] if user and password else named)
