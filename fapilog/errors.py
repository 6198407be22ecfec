"""The exceptions of fapilog.

::

    FapilogError
    ├── ConfigurationError (also a ValueError)   an option is wrong
    └── SendError                                raised by a sink's send()
        ├── RetryableError                       the same batch may succeed later
        │   ├── AccessDeniedError                after the credentials are corrected
        │   └── NoAnswerError                    the backend may already have the batch
        └── PermanentError                       the batch will never succeed
            ├── TooLargeError                    smaller batches may succeed
            └── InvalidDataError                 some records of the batch may succeed

fapilog does not raise an exception in a log call.  When a sink raises a ``SendError``, fapilog
reports it on stderr, and either sends the batch of records again or counts the records as lost.
"""

from __future__ import annotations


class FapilogError(Exception):
    """Base of every error that fapilog raises."""


class ConfigurationError(FapilogError, ValueError):
    """Raised if an option is wrong, or if a package that an option needs is not installed.

    Only functions that configure fapilog raise it, never a log call.  The message names the
    option and the fix, and never contains the value of a secret option.

    Attributes:
        option: the name of the first wrong option, or None if the error is not about an
            option.  The name is the dotted name in ``Settings`` (``"file.max_bytes"``), the
            name of an argument, or the name of OpenTelemetry's environment variable for the
            option.
    """

    def __init__(self, message: str, option: str | None = None) -> None:
        super().__init__(message)
        self.option = option


class SendError(FapilogError):
    """The base of all errors that a sink raises if it cannot deliver a batch of records."""


class RetryableError(SendError):
    """Raised by a sink if the backend may accept the same batch of records later.

    Args:
        message: the description of the failure, which is written to stderr.
        retry_after: the number of seconds that the backend asked fapilog to wait, or None.
    """

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class AccessDeniedError(RetryableError):
    """Raised by a sink if the backend refuses the credentials.

    The batch of records is sent again later.
    """


class NoAnswerError(RetryableError):
    """Raised by a sink if it sent a request but did not receive an answer in time.

    The backend may have accepted the batch of records.  fapilog sends the records again, in
    smaller batches, and counts them as ``resent`` in its statistics.
    """


class PermanentError(SendError):
    """Raised by a sink if the backend will never accept this batch of records."""


class TooLargeError(PermanentError):
    """Raised by a sink if the request is too large for the backend.

    fapilog sends the records again in smaller batches.
    """


class InvalidDataError(PermanentError):
    """Raised by a sink if the backend refuses a batch because of some of its records.

    fapilog sends smaller batches to find these records.
    """
