"""Loads a sink's TLS certificates when the sink is opened, and again when the files have changed.

Certificates from cert-manager or Vault may be valid for only a few hours, so their files are
replaced while the application runs.
"""

from __future__ import annotations

import os
import ssl
from typing import TYPE_CHECKING, Final

from fapilog.diagnostics import announce
from fapilog.errors import ConfigurationError
from fapilog.process.fork import TLS

if TYPE_CHECKING:
    from collections.abc import Callable

    from fapilog.sinks.http.options import HTTPOptions


#: The environment variables with the path of the certificate authorities to trust, used if the
#: option ``certificate`` is not set.  The first variable that is set applies.  OpenSSL also reads
#: the first two, and the Python package ``requests`` reads the last two.
_VARIABLES: Final = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


class ClientTLS:
    """The TLS settings of a sink.  :meth:`renew` reloads changed certificate files.  Thread-safe.

    New connections use the attribute ``context``.  For the arguments and errors, see
    :func:`client_context`.
    """

    def __init__(self, options: HTTPOptions, default: Callable[[], ssl.SSLContext]) -> None:
        self._options = options
        self._default = default
        self._state: object = self._state_of_files()
        self.context = client_context(self._default, self._options)

    def renew(self) -> bool:
        """Reload the files if they have changed.  Return True if they were reloaded.

        If the new files cannot be used (for example a new certificate with the old key), the
        old settings stay in use, and the reason is reported on stderr.
        """
        # The metadata of the files is read before their contents, so that the next call notices
        # a change during this reload.
        state = self._state_of_files()
        if state == self._state:
            return False
        try:
            context = client_context(self._default, self._options)
        except ConfigurationError as error:
            shown = self._options.shown
            announce(
                f"certificates {shown}",
                f"{shown}: the certificate files have changed and cannot be used; the old "
                f"certificates stay in use until the files are read again: {error}",
            )
            return False
        self.context = context
        self._state = state
        return True

    def doubt(self) -> None:
        """Make the next :meth:`renew` reload the files even if they are unchanged.

        Called after a TLS error.
        """
        self._state = None

    def _state_of_files(self) -> tuple[object, ...]:
        """Return a value that changes when a certificate file, or a link's target, changes."""
        options = self._options
        paths = (authorities(options)[0], options.client_certificate, options.client_key)
        return tuple(_state(path) for path in paths if path)


def _state(path: str) -> tuple[int, ...] | None:
    try:
        found = os.stat(path)  # noqa: PTH116 - path is a str
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def authorities(options: HTTPOptions | None = None) -> tuple[str, str]:
    """Return the path of the certificate authorities to trust, and the source of this path.

    The source is the name of an argument or environment variable.  Both values are "" if the
    default authorities are trusted.
    """
    if options is not None and options.certificate:
        return options.certificate, options.sources.get("certificate", "certificate")
    for variable in _VARIABLES:
        path = os.environ.get(variable, "").strip()
        if path:
            return path, variable
    return "", ""


def client_context(
    default: Callable[[], ssl.SSLContext], options: HTTPOptions | None = None
) -> ssl.SSLContext:
    """Return the TLS settings of a client that verifies host names and certificates.

    If neither ``options`` nor the environment contains the path of certificate authorities, the
    function ``default`` is called.  It returns a context with the default authorities.
    ``options`` may also contain the paths of the client's certificate and key.

    Raises:
        ConfigurationError: a file cannot be read or has invalid contents.
    """
    path, source = authorities(options)
    is_directory = source == "SSL_CERT_DIR" or os.path.isdir(path)  # noqa: PTH112 - path is a str
    file, directory = (None, path) if is_directory else (path, None)
    try:
        with TLS:
            context = (
                ssl.create_default_context(cafile=file, capath=directory) if path else default()
            )
    except OSError as error:  # ssl.SSLError is a subclass of OSError
        msg = f"{source}={path!r} holds no usable PEM certificates: {error}"
        raise ConfigurationError(msg, source) from None
    # If the protocols were not set now, httpcore would set them later, while other threads may be
    # using the context.
    context.set_alpn_protocols(["http/1.1"])
    if options and options.client_certificate:
        chain, key = options.client_certificate, options.client_key
        try:
            with TLS:
                # Without the argument ``password``, OpenSSL would ask for the password of an
                # encrypted key on the terminal.
                context.load_cert_chain(chain, key, password="")
        except OSError as error:
            first, second = (
                options.sources.get(name, name) for name in ("client_certificate", "client_key")
            )
            msg = (
                f"{first}={chain!r}, {second}={key!r}: not a PEM certificate with "
                f"its unencrypted key: {error}"
            )
            raise ConfigurationError(msg, first) from None
    return context


def default_context() -> ssl.SSLContext:
    """Return a TLS context that trusts the certificate authorities of the package certifi."""
    import certifi  # noqa: PLC0415 - only for https

    return ssl.create_default_context(cafile=certifi.where())


def untrusted(words: str, options: HTTPOptions) -> str:
    """Return a message about a certificate that OpenSSL refused with the text ``words``."""
    path, source = authorities(options)
    trusted = f"; {source}={path!r} is in use" if path else ""
    return (
        "the server's certificate is not trusted, so nothing is sent: renew it, or "
        f"name its authority in the option certificate{trusted} ({words})"
    )
