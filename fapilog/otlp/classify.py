"""Classifies a backend's answer: delivered, rejected, retryable, or permanently failed.

The OTLP and Loki sinks use this module.  Every answer becomes an ``Outcome`` or a
``SendError``, even if it is malformed.  Source:
https://opentelemetry.io/docs/specs/otlp/#failures
"""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, TypeAlias

import orjson

from fapilog.errors import (
    AccessDeniedError,
    InvalidDataError,
    NoAnswerError,
    PermanentError,
    RetryableError,
    SendError,
    TooLargeError,
)
from fapilog.otlp.protobuf import bytes_field, fields, int64_field, messages
from fapilog.protocols import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

#: The HTTP statuses after which a request may be sent again
#: (https://opentelemetry.io/docs/specs/otlp/#retryable-response-codes).
RETRYABLE_STATUSES: Final = frozenset({429, 502, 503, 504})
#: The HTTP statuses after which a request to Loki may be sent again.  Loki responds with 500
#: when one of its components is temporarily unavailable
#: (https://grafana.com/docs/loki/latest/reference/loki-http-api/#ingest-logs).
LOKI_RETRYABLE_STATUSES: Final = frozenset({429, *range(500, 600)})
#: The gRPC codes after which a request may be sent again.  RESOURCE_EXHAUSTED is also
#: retryable, but only if the response contains a RetryInfo.
RETRYABLE_CODES: Final = frozenset(
    {"CANCELLED", "DEADLINE_EXCEEDED", "ABORTED", "OUT_OF_RANGE", "UNAVAILABLE", "DATA_LOSS"}
)
_STATUS_ERRORS: Final[Mapping[int, type[SendError]]] = {
    400: InvalidDataError,
    401: AccessDeniedError,
    403: AccessDeniedError,
    407: AccessDeniedError,
    413: TooLargeError,
    422: InvalidDataError,
}
_CODE_ERRORS: Final[Mapping[str, type[SendError]]] = {
    "INVALID_ARGUMENT": InvalidDataError,
    "PERMISSION_DENIED": AccessDeniedError,
    "UNAUTHENTICATED": AccessDeniedError,
}
#: Patterns that are searched for in the text of an HTTP 400 response, each with the error to
#: return if the pattern is found.
Refusals: TypeAlias = "Sequence[tuple[re.Pattern[str], type[SendError]]]"
#: The maximum delay in seconds before a retry, even if a backend asks for a longer delay.
MAX_RETRY_AFTER: Final = 300.0
#: The maximum number of characters of a backend's text that a message of fapilog shows.
MAX_MESSAGE: Final = 300
#: The maximum number of bytes of a backend's text that are decoded.  This limit is larger than
#: MAX_MESSAGE, because the text is searched for credentials before it is shortened.
_MAX_WORDS: Final = 1 << 16

#: The error messages of gRPC servers (C++ and Go, Rust, Java, .NET) for a request that exceeds
#: the server's size limit.  gRPC has no status code for this error.
_TOO_LARGE: Final = re.compile(
    "larger than max|message length too large|exceeds maximum size"
    "|exceeds the maximum configured message size"
)
_LIMIT: Final = re.compile(
    r"\(\d+ vs\.? (\d+)\)|the limit is: (\d+) bytes|exceeds maximum size (\d+)"
)
_TOO_LARGE_CODES: Final = frozenset({"RESOURCE_EXHAUSTED", "OUT_OF_RANGE"})
#: Matches gRPC's error messages about a connection that was lost during a call.
_LOST: Final = re.compile(
    "socket closed|connection reset|broken pipe|goaway|keepalive|stream removed|rst_stream"
    "|endpoint closing|connection closed",
    re.IGNORECASE,
)
_UNANSWERED_CODES: Final = frozenset({"DEADLINE_EXCEEDED", "CANCELLED"})
#: gRPC uses the same codes for a response that is too large and for a request that is too large.
#: If gRPC's error message contains this text, the response is too large.
_ANSWER_TOO_LARGE: Final = "CLIENT: Received"
#: gRPC's error message contains this text if a request or a response is too large after
#: decompression.  If the request was not compressed, the message is about the response.
_UNPACKED: Final = "Decompressed"

_STATUS_DETAILS: Final = 3
_JSON: Final = "application/json"
_PROTOBUF: Final = "application/x-protobuf"
#: The media type of protobuf responses from Loki's OTLP endpoint.
_BINARY: Final = "application/octet-stream"


def printable(text: str) -> str:
    """Return the first :data:`MAX_MESSAGE` characters of ``text`` for a message on one line.

    Spaces replace control characters and other characters that are not printable.
    """
    cut = text[:MAX_MESSAGE]
    return "".join(char if char.isprintable() else " " for char in cut).strip()


def retry_after(value: str | None, now: float) -> float | None:
    """Return the seconds to wait according to a ``Retry-After`` header.

    Returns None if the header is missing or invalid.  ``value`` is a number of seconds or an
    HTTP date (RFC 9110, section 10.2.3).  ``now`` is the current Unix time in seconds.
    """
    text = (value or "").strip()
    if text.isascii() and text.isdigit():
        return min(float(text), MAX_RETRY_AFTER)
    try:
        when = parsedate_to_datetime(text)
        if when.tzinfo is None:
            when = when.replace(tzinfo=timezone.utc)
        wait = (when - datetime.fromtimestamp(now, timezone.utc)).total_seconds()
    except (ValueError, TypeError, OverflowError):
        return None
    return min(max(wait, 0.0), MAX_RETRY_AFTER)


def http_error(
    status: int,
    body: bytes,
    *,
    content_type: str = "",
    wait: float | None = None,
    source: str = "",
    clean: Callable[[str], str] = printable,
    retryable: Collection[int] = RETRYABLE_STATUSES,
    refusals: Refusals = (),
) -> SendError:
    """Return the error for an HTTP response whose status is not 2xx.

    Args:
        status: the HTTP status.
        body: the response body: a ``google.rpc.Status`` encoded as ``content_type``, or text.
        content_type: the media type of the body.
        wait: the delay in seconds that :func:`retry_after` returned, or None.
        source: the backend's address, which the error's message contains.
        clean: a function that makes the backend's text safe to show in the message.
        retryable: the statuses after which the request may be sent again.
        refusals: pairs of a pattern and an error class.  If the pattern is found in the text of a
            response with status 400, this error is returned.
    """
    try:
        name = f"HTTP {status} {HTTPStatus(status).phrase}"
    except ValueError:
        name = f"HTTP {status}"
    words = _status_message(body, content_type)
    message = _join(source, name, clean(words))
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR and _TOO_LARGE.search(words):
        return TooLargeError(message)  # a gRPC server behind this HTTP server refused the request
    if status in retryable:
        # After a 504, the server behind the gateway may still have accepted the request.
        is_unanswered = status == HTTPStatus.GATEWAY_TIMEOUT
        return (NoAnswerError if is_unanswered else RetryableError)(message, wait)
    if status == HTTPStatus.BAD_REQUEST:
        for text, kind in refusals:
            if text.search(words):
                return kind(message)
    return _STATUS_ERRORS.get(status, PermanentError)(message)


def grpc_error(
    code: str,
    details: str,
    status: bytes = b"",
    *,
    is_compressed: bool = False,
    source: str = "",
    clean: Callable[[str], str] = printable,
) -> SendError:
    """Return the error for a gRPC call that ended with the status ``code``.

    Args:
        code: the name of the status code, such as ``UNAVAILABLE``.
        details: the status message.
        status: the ``grpc-status-details-bin`` trailer, a serialised ``google.rpc.Status``.
        is_compressed: whether the request was compressed.
        source: the backend's address, which the error's message contains.
        clean: a function that makes the status message safe to show.
    """
    message = _join(source, f"gRPC {code}", clean(details))
    wait = retry_info(status)
    is_ours = _ANSWER_TOO_LARGE not in details and (is_compressed or _UNPACKED not in details)
    if code in _TOO_LARGE_CODES and wait is None and _TOO_LARGE.search(details) and is_ours:
        return TooLargeError(message)
    if code in RETRYABLE_CODES or (code == "RESOURCE_EXHAUSTED" and wait is not None):
        is_lost = code == "UNAVAILABLE" and _LOST.search(details)
        is_unanswered = is_lost or code in _UNANSWERED_CODES
        return (NoAnswerError if is_unanswered else RetryableError)(message, wait)
    return _CODE_ERRORS.get(code, PermanentError)(message)


def size_limit(details: str) -> int | None:
    """Return the size limit in bytes that a gRPC server's error message contains, or None."""
    found = _LIMIT.search(details)
    limit = int(found[found.lastindex or 0]) if found else 0
    return limit or None


def _join(*parts: str) -> str:
    return ": ".join(part for part in parts if part)


def retry_info(status: bytes) -> float | None:
    """Return the delay in seconds from the ``RetryInfo`` in a ``google.rpc.Status``, or None."""
    with suppress(ValueError):
        for packed in messages(fields(status), _STATUS_DETAILS):
            if bytes_field(packed, 1).endswith(b"/google.rpc.RetryInfo"):
                delay = bytes_field(bytes_field(packed, 2), 1)
                seconds = int64_field(delay, 1) + int64_field(delay, 2) / 1e9
                return min(max(seconds, 0.0), MAX_RETRY_AFTER)
    return None


def outcome(
    body: bytes,
    count: int,
    *,
    content_type: str = _PROTOBUF,
    clean: Callable[[str], str] = printable,
) -> Outcome | None:
    """Return the ``Outcome`` of an accepted request, or None if all records were accepted.

    ``body`` is the response, an ``ExportLogsServiceResponse`` or an
    ``ExportTraceServiceResponse``, encoded as ``content_type``.  ``count`` is the number of
    records or spans in the request.  ``clean`` makes the backend's text safe to show.  If the
    response contains a message but rejects no records, the message is a warning, and an
    ``Outcome`` with the message is returned
    (https://opentelemetry.io/docs/specs/otlp/#partial-success-1).
    """
    if not body:
        return None
    # Some backends send JSON with a wrong media type.  A protobuf response never begins with a
    # brace, so a brace means JSON.
    is_json = content_type.startswith(_JSON) or body.startswith(b"{")
    try:
        if is_json:
            found = orjson.loads(body).get("partialSuccess") or {}
            rejected = int(found.get("rejectedLogRecords") or found.get("rejectedSpans") or 0)
            words = str(found.get("errorMessage") or "")
        else:
            partial = bytes_field(body, 1)
            rejected, words = int64_field(partial, 1), _text(bytes_field(partial, 2))
    except (ValueError, TypeError, AttributeError, OverflowError):
        # This is not an error: the backend accepted the request, so sending it again would cause
        # duplicates.
        return Outcome(0, "the answer is not OTLP; does the endpoint lead to an OTLP receiver?")
    if not rejected and not words:
        return None
    return Outcome(min(max(rejected, 0), count), clean(words))


def _status_message(body: bytes, content_type: str) -> str:
    """Return the message of a ``google.rpc.Status``, or ``body`` as text if it is not a status."""
    try:
        if content_type.startswith((_PROTOBUF, _BINARY)):
            return _text(bytes_field(body, 2))
        if content_type.startswith(_JSON):
            return str(orjson.loads(body)["message"])
    except (ValueError, TypeError, KeyError):
        pass  # the body is not a google.rpc.Status, so all of it is the message
    return _text(body)


def _text(raw: bytes) -> str:
    return raw[:_MAX_WORDS].decode("utf-8", "replace")
