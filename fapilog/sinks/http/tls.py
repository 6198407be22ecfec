"""Certificates of an outgoing connection: checked at start, read again when they are renewed.

Below the sinks that use TLS.  Certificates live for hours where cert-manager or
Vault issues them, and their files are replaced while the application runs.
"""

from __future__ import annotations

import os
import ssl
from typing import TYPE_CHECKING

from fapilog.diagnostics import announce
from fapilog.errors import ConfigurationError
from fapilog.process.fork_gate import TLS

if TYPE_CHECKING:
    from collections.abc import Callable

    from fapilog.sinks.http.options import HTTPOptions


class ClientTLS:
    """The TLS settings of a sink, which follow the files they are read from.  Thread-safe.

    Args:
        options: name the files.
        default: makes a context with the usual authorities.

    Attributes:
        context: for the next connection.

    Raises:
        ConfigurationError: a file does not hold what it should; names the option.
    """

    def __init__(self, options: HTTPOptions, default: Callable[[], ssl.SSLContext]) -> None:
        self._options = options
        self._default = default
        self._state: object = self._state_of_files()
        self.context = self._load()

    def renew(self) -> bool:
        """Read the files again if they have changed, and return whether they were read.

        Never raises: while the files cannot be used, a new certificate with the old
        key for example, the settings stay as they are and the trouble is announced.
        Reads up to three files; connects to nothing.
        """
        state = self._state_of_files()  # before they are read: a later change is seen next time
        if state == self._state:
            return False
        try:
            context = self._load()
        except ConfigurationError as error:
            shown = self._options.shown
            announce(
                f"certificates {shown}",
                f"{shown}: the certificate files have changed and cannot be used; those read "
                f"before stay in use, and the files are read again at the next try: {error}",
            )
            return False
        self.context = context
        self._state = state
        return True

    def doubt(self) -> None:
        """Have the files read before the next connection, though they look the same."""
        self._state = None

    def _load(self) -> ssl.SSLContext:
        options = self._options
        return client_context(
            self._default,
            certificate=options.certificate,
            client_certificate=options.client_certificate,
            client_key=options.client_key,
        )

    def _state_of_files(self) -> tuple[object, ...]:
        """Return what differs after a file, or what a symbolic link leads to, was replaced."""
        options = self._options
        paths = (options.certificate, options.client_certificate, options.client_key)
        return tuple(_state(path) for path in paths if path)


def _state(path: str) -> tuple[int, ...] | None:
    try:
        found = os.stat(path)  # noqa: PTH116 - a str as given
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


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
        raise ConfigurationError(msg, "certificate") from None
    context.set_alpn_protocols(["http/1.1"])  # once: threads that connect read them
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
            raise ConfigurationError(msg, "client_certificate") from None
    return context


def untrusted(words: str) -> str:
    """Return what to tell of a server whose certificate was refused, with OpenSSL's ``words``."""
    return (
        "the server's certificate is not trusted, and nothing is sent before it is: renew it, or "
        f"name its authority in the option certificate ({words})"
    )
