"""Errors of fapilog.

::

    FapilogError
    ├── ConfigurationError (also a ValueError)   raised at start-up only
    └── SendError                                raised by a sink's send()
        ├── RetryableError                       the same batch may succeed later
        │   ├── AccessDeniedError                after the credentials are corrected
        │   └── NoAnswerError                    the backend may already have the batch
        └── PermanentError                       the batch will never succeed
            ├── TooLargeError                    smaller batches may succeed
            └── InvalidDataError                 some records of the batch may succeed

After start-up, no error of fapilog reaches the application.  When a sink raises
``SendError``, the delivery announces the failure and retries the batch or counts the loss.
"""

from __future__ import annotations


class FapilogError(Exception):
    """Base of every error that fapilog raises."""


class ConfigurationError(FapilogError, ValueError):
    """An option is wrong, or a package that it needs is not installed.

    Raised while a runtime is configured, never later.  The message names the
    option and the fix and never contains the value of a secret option.

    Attributes:
        option: the name of the wrong option: dotted as in ``Settings``
            (``"file.max_bytes"``), the argument's name, or the OpenTelemetry
            variable that sets it.  If several options are wrong, this is the
            first of them.  None if the error is not about an option.
    """

    def __init__(self, message: str, option: str | None = None) -> None:
        super().__init__(message)
        self.option = option


class SendError(FapilogError):
    """A sink could not deliver a batch."""


class RetryableError(SendError):
    """The backend may accept the same batch later.

    Args:
        message: the description of the failure, announced on stderr.
        retry_after: the number of seconds that the backend asked to wait, or None.
    """

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class AccessDeniedError(RetryableError):
    """The backend refuses the credentials; the records are kept until it accepts them."""


class NoAnswerError(RetryableError):
    """The request was sent, but no answer came in time.

    The backend may have accepted the batch.  The delivery sends it again, in
    smaller batches, and counts the records as ``resent``.
    """


class PermanentError(SendError):
    """The backend will never accept this batch; retrying is useless."""


class TooLargeError(PermanentError):
    """The request is larger than the backend's limit; the delivery splits the batch."""


class InvalidDataError(PermanentError):
    """The backend refuses some records of the batch; the delivery finds these records."""
