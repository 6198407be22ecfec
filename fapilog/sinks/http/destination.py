"""Describes a sink's destination, so that the spool can separate the records of backends.

The words hold no secret and stay the same when credentials change; the spool
compares the credentials apart from them, by a salted digest.  A digest stands for
the user of a basic authentication, and for headers and query parameters such as
``X-Scope-OrgID``, which distinguish two accounts of one endpoint.
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
#: Headers that tell no account.
_NEUTRAL: Final = frozenset({"accept", "accept-encoding", "accept-language", "user-agent"})
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


def credentials_in(options: HTTPOptions) -> str:
    """Return what may tell two accounts of one destination apart, as one text with secrets.

    These are the headers and query parameters that do not name the account, even
    under an unknown name, and the path of the client's certificate, which may be
    renewed.  A password is not among them, because its user names the account.
    """
    named = _named_accounts(options)
    found = [f"{name}={value}" for name, value in _given(options) if name not in _NEUTRAL]
    if all(basic_credentials(options.headers.get("authorization", ""))):
        found = [one for one in found if not one.startswith("authorization=")]
    if options.client_certificate:
        found.append(f"certificate {options.client_certificate}")
    return "\n".join(one for one in found if one not in named)


def _address(url: str) -> str:
    """Return a URL with its host in lower case, or a gRPC target unchanged."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.lower()).geturl() if parts.netloc else url


def _account(options: HTTPOptions) -> str:
    """Return the headers, query parameters and user that name an account, or ""."""
    named = _named_accounts(options)
    user, password = basic_credentials(options.headers.get("authorization", ""))
    # A user name without a password is a token, so it is a secret.
    return "\n".join([*named, f"user={user}"] if user and password else named)


def _named_accounts(options: HTTPOptions) -> list[str]:
    """Return the headers and query parameters that name an account."""
    return [
        f"{name}={value}"
        for name, value in _given(options)
        if _ACCOUNT.search(name) and not _SECRET.search(name)
    ]


def _given(options: HTTPOptions) -> list[tuple[str, str]]:
    """Return headers and query parameters, sorted, with names in lower case."""
    query = parse_qsl(urlsplit(options.endpoint).query)
    return sorted((name.lower(), value) for name, value in (*options.headers.items(), *query))
