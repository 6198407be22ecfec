"""Certificates of an outgoing connection, checked before the first record is sent."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from fapilog.errors import ConfigurationError
from fapilog.fork_gate import TLS

if TYPE_CHECKING:
    from collections.abc import Callable


def client_context(
    default: Callable[[], ssl.SSLContext],
    *,
    certificate: str | None = None,
    client_certificate: str | None = None,
    client_key: str | None = None,
) -> ssl.SSLContext:
    """Return the TLS settings of a client that verifies host names and certificates.

    Reads files; connects to nothing.

    Args:
        default: makes a context with the usual authorities.
        certificate: PEM file of the authorities to trust instead.
        client_certificate: PEM file of the client's chain, for mutual TLS.
        client_key: PEM file of its key, when not in the same file.

    Raises:
        ConfigurationError: a file does not hold what it should; names the option.
    """
    try:
        with TLS:
            context = ssl.create_default_context(cafile=certificate) if certificate else default()
    except OSError as error:  # ssl.SSLError is one
        msg = f"certificate={certificate!r} holds no usable PEM certificates: {error}"
        raise ConfigurationError(msg) from None
    if client_certificate:
        try:
            # The empty password keeps OpenSSL from asking for one on the terminal.
            with TLS:
                context.load_cert_chain(client_certificate, client_key, password="")
        except OSError as error:
            msg = (
                f"client_certificate={client_certificate!r}, client_key={client_key!r}: not a "
                f"PEM certificate with its unencrypted key: {error}"
            )
            raise ConfigurationError(msg) from None
    return context


def untrusted(words: str) -> str:
    """Return what to tell of a server whose certificate was refused, with OpenSSL's ``words``."""
    return (
        "the server's certificate is not trusted, and nothing is sent before it is: renew it, or "
        f"name its authority in the option certificate ({words})"
    )
