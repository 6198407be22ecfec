"""What a backend's answer means: delivered, rejected, try again, or never.

Sinks hand the raw answer here, so every protocol decides by the same tables
(https://opentelemetry.io/docs/specs/otlp/#failures) and the delivery around a
sink only meets ``Outcome``, ``RetryableError`` and ``PermanentError``.
Nothing here blocks, and a malformed answer never raises anything else.
"""

from __future__ import annotations

import re
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

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
from fapilog.otlp.protobuf import bytes_field, fields, int64_field
from fapilog.protocols import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

#: https://opentelemetry.io/docs/specs/otlp/#retryable-response-codes
RETRYABLE_STATUSES: Final = frozenset({429, 502, 503, 504})
#: Loki has a 500 for everything that its parts cannot do at the moment
#: (https://grafana.com/docs/loki/latest/reference/loki-http-api/#ingest-logs).
LOKI_RETRYABLE_STATUSES: Final = frozenset({429, *range(500, 600)})
#: https://opentelemetry.io/docs/specs/otlp/#failures (RESOURCE_EXHAUSTED is
#: retryable as well when it comes with RetryInfo)
RETRYABLE_CODES: Final = frozenset(
    {"CANCELLED", "DEADLINE_EXCEEDED", "ABORTED", "OUT_OF_RANGE", "UNAVAILABLE", "DATA_LOSS"}
)
#: Answers that are about the request's content, its size, or our credentials.
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
#: Seconds; a backend that asks for more is asked again after this.
MAX_RETRY_AFTER: Final = 300.0
#: Characters of a backend's own words that reach a message.
MAX_MESSAGE: Final = 300
#: Bytes of them that are read: far more, so that no credential which they echo is
#: cut before it is hidden.
_MAX_WORDS: Final = 1 << 16

#: What gRPC servers say of a message over their limit; there is no code for it:
#: C++ and Go (and what builds on them), Rust, Java, .NET.  If our own end received
#: the message, it was the answer: the server has taken the request.
_TOO_LARGE: Final = re.compile(
    "larger than max|message length too large|exceeds maximum size"
    "|exceeds the maximum configured message size"
)
_LIMIT: Final = re.compile(
    r"\(\d+ vs\.? (\d+)\)|the limit is: (\d+) bytes|exceeds maximum size (\d+)"
)
_TOO_LARGE_CODES: Final = frozenset({"RESOURCE_EXHAUSTED", "OUT_OF_RANGE"})  # Rust has the latter
#: What gRPC says of a connection that was lost while a call was under way.
_LOST: Final = re.compile(
    "socket closed|connection reset|broken pipe|goaway|keepalive|stream removed|rst_stream"
    "|endpoint closing|connection closed",
    re.IGNORECASE,
)
_UNANSWERED_CODES: Final = frozenset({"DEADLINE_EXCEEDED", "CANCELLED"})
_ANSWER_TOO_LARGE: Final = "CLIENT: Received"
_UNPACKED: Final = "Decompressed"

_STATUS_DETAILS: Final = 3
_JSON: Final = "application/json"
_PROTOBUF: Final = "application/x-protobuf"
#: What Loki's OTLP endpoint calls protobuf.
_BINARY: Final = "application/octet-stream"


def printable(text: str) -> str:
    """Return the first :data:`MAX_MESSAGE` characters, controls replaced by spaces."""
    cut = text[:MAX_MESSAGE]
    return "".join(char if char.isprintable() else " " for char in cut).strip()


def retry_after(value: str | None, now: float) -> float | None:
    """Return the seconds a ``Retry-After`` header asks for, or None.

    Args:
        value: seconds or an HTTP date (RFC 9110, section 10.2.3); anything
            else counts as absent.
        now: the current Unix time in seconds.
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
) -> SendError:
    """Return the error that an HTTP answer other than 2xx stands for.

    Args:
        status: the HTTP status.
        body: a ``google.rpc.Status`` in the encoding of ``content_type``, or
            any text.
        content_type: the answer's own.
        wait: what :func:`retry_after` made of its header.
        source: what answered, for the message.
        clean: makes the backend's words fit to be shown.
        retryable: the statuses after which the same request may succeed.
    """
    try:
        name = f"HTTP {status} {HTTPStatus(status).phrase}"
    except ValueError:
        name = f"HTTP {status}"
    words = _status_message(body, content_type)
    message = _join(source, name, clean(words))
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR and _TOO_LARGE.search(words):
        return TooLargeError(message)  # the limit of a gRPC server behind the HTTP one
    if status in retryable:
        is_late = status == HTTPStatus.GATEWAY_TIMEOUT  # the server behind may have taken it
        return (NoAnswerError if is_late else RetryableError)(message, wait)
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
    """Return the error that a gRPC status stands for.

    Args:
        code: the status code's name, ``UNAVAILABLE``.
        details: the status message.
        status: the ``grpc-status-details-bin`` trailer, a serialised
            ``google.rpc.Status`` that may hold a ``RetryInfo``.
        is_compressed: whether the request was; only then can the size of
            something unpacked be about it and not about the answer.
        source: what answered, for the message.
        clean: makes the backend's words fit to be shown.
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
    """Return the bytes of the largest request, if a gRPC server that refused one names them."""
    found = _LIMIT.search(details)
    limit = int(found[found.lastindex or 0]) if found else 0
    return limit or None


def _join(*parts: str) -> str:
    return ": ".join(part for part in parts if part)


def retry_info(status: bytes) -> float | None:
    """Return the delay in seconds of the ``RetryInfo`` in a ``google.rpc.Status``, or None."""
    try:
        details = [value for number, value in fields(status) if number == _STATUS_DETAILS]
        for detail in details:
            packed = detail if isinstance(detail, bytes) else b""  # google.protobuf.Any
            if bytes_field(packed, 1).endswith(b"/google.rpc.RetryInfo"):
                return _duration(bytes_field(bytes_field(packed, 2), 1))
    except ValueError:
        return None
    return None


def _duration(encoded: bytes) -> float:
    """Return a ``google.protobuf.Duration`` in seconds, within bounds."""
    seconds = int64_field(encoded, 1) + int64_field(encoded, 2) / 1e9
    return min(max(seconds, 0.0), MAX_RETRY_AFTER)


def outcome(
    body: bytes,
    count: int,
    *,
    content_type: str = _PROTOBUF,
    clean: Callable[[str], str] = printable,
) -> Outcome | None:
    """Return what the answer to an accepted request says, None for full success.

    A partial success must not be retried; one that rejects nothing is a
    warning (https://opentelemetry.io/docs/specs/otlp/#partial-success-1).

    Args:
        body: an ``ExportLogsServiceResponse`` in the encoding of ``content_type``.
        count: records in the request; no answer can reject more.
        content_type: the answer's own.
        clean: makes the backend's words fit to be shown.
    """
    if not body:
        return None
    # No protobuf message begins with a brace; some backends mislabel their JSON.
    is_json = content_type.startswith(_JSON) or body.startswith(b"{")
    try:
        rejected, words = _partial_success_json(body) if is_json else _partial_success(body)
    except (ValueError, TypeError, AttributeError, OverflowError):
        # Accepted all the same: sending it again could only duplicate it.
        return Outcome(0, "the answer is not OTLP; does the endpoint lead to an OTLP receiver?")
    if not rejected and not words:
        return None
    return Outcome(min(max(rejected, 0), count), clean(words))


def _partial_success(body: bytes) -> tuple[int, str]:
    partial = bytes_field(body, 1)
    return int64_field(partial, 1), _text(bytes_field(partial, 2))


def _partial_success_json(body: bytes) -> tuple[int, str]:
    partial = orjson.loads(body).get("partialSuccess") or {}
    return int(partial.get("rejectedLogRecords") or 0), str(partial.get("errorMessage") or "")


def _status_message(body: bytes, content_type: str) -> str:
    """Return the message of a ``google.rpc.Status``, or the body itself if it is text."""
    try:
        if content_type.startswith((_PROTOBUF, _BINARY)):
            return _text(bytes_field(body, 2))
        if content_type.startswith(_JSON):
            status: Any = orjson.loads(body)
            return str(status["message"])
    except (ValueError, TypeError, KeyError):
        return _text(body)
    return _text(body)


def _text(raw: bytes) -> str:
    return raw[:_MAX_WORDS].decode("utf-8", "replace")
