"""Describes a sink's destination, so that the spool can separate the records of backends.

A description contains no secret and does not change with the credentials.  It contains a
digest of the basic authentication's user name, and of headers and query parameters such
as ``X-Scope-OrgID``, which distinguish accounts at one endpoint.
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
    """Return the description of a sink's destination.

    Args:
        protocol: the name of the protocol, such as ``"OTLP http/protobuf"``.
        options: the sink's options, of which the endpoint and the headers are used.
        tenant: the name of the account, or ""; it must not be a secret.
    """
    parts = [f"{protocol} to {_address(options.shown)}"]
    if tenant:
        parts.append(f"tenant {tenant}")
    account = _account(options)
    if account:
        parts.append(f"account {sha256(account.encode()).hexdigest()[:12]}")
    return ", ".join(parts)


def _address(url: str) -> str:
    """Return a URL with its host in lower case, or a gRPC target unchanged."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.lower()).geturl() if parts.netloc else url


def _account(options: HTTPOptions) -> str:
    """Return the headers, query parameters and user that identify an account, or ""."""
    query = parse_qsl(urlsplit(options.endpoint).query)
    given = [(name.lower(), value) for name, value in (*options.headers.items(), *query)]
    named = [
        f"{name}={value}"
        for name, value in sorted(given)
        if _ACCOUNT.search(name) and not _SECRET.search(name)
    ]
    user, password = basic_credentials(options.headers.get("authorization", ""))
    # A user name without a password is a token, so it is a secret.
    return "\n".join([*named, f"user={user}"] if user and password else named)
