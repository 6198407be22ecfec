"""Answers of backends have the meaning that the OTLP specification gives them."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime

import pytest
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsPartialSuccess,
    ExportLogsServiceResponse,
)

from fapilog.errors import (
    AccessDeniedError,
    InvalidDataError,
    NoAnswerError,
    PermanentError,
    RetryableError,
    TooLargeError,
)
from fapilog.otlp.classify import (
    LOKI_RETRYABLE_STATUSES,
    MAX_MESSAGE,
    MAX_RETRY_AFTER,
    grpc_error,
    http_error,
    outcome,
    printable,
    retry_after,
    retry_info,
    size_limit,
)
from fapilog.protocols import Outcome

NOW = datetime(2026, 11, 23, 12, 0, 0, tzinfo=timezone.utc)
PROTOBUF = "application/x-protobuf"
JSON = "application/json; charset=utf-8"


# -- HTTP -----------------------------------------------------------------------


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_the_four_retryable_statuses_are_retried_after_the_time_asked_for(status):
    error = http_error(status, b"", wait=7.0)
    assert isinstance(error, RetryableError)
    assert error.retry_after == 7.0


@pytest.mark.parametrize("status", [301, 400, 404, 408, 413, 422, 500, 501, 505, 599])
def test_every_other_status_is_final(status):
    assert isinstance(http_error(status, b""), PermanentError)


@pytest.mark.parametrize("status", [400, 422])
def test_invalid_data_is_told_apart_because_a_part_of_the_batch_may_be_good(status):
    assert type(http_error(status, b"")) is InvalidDataError
    assert type(grpc_error("INVALID_ARGUMENT", "")) is InvalidDataError


def test_a_request_that_is_too_large_is_told_apart_because_smaller_ones_may_pass():
    assert type(http_error(413, b"")) is TooLargeError
    for words in ("Received message larger than max (9 vs. 4)", "Sent message larger than max"):
        assert type(grpc_error("RESOURCE_EXHAUSTED", words)) is TooLargeError


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("RESOURCE_EXHAUSTED", "SERVER: Received message larger than max (9 vs. 4)"),  # C++
        ("RESOURCE_EXHAUSTED", "grpc: received message larger than max (9 vs. 4)"),  # Go
        ("RESOURCE_EXHAUSTED", "gRPC message exceeds maximum size 4: 9"),  # Java
        ("RESOURCE_EXHAUSTED", "Received message exceeds the maximum configured message size."),
        (
            "OUT_OF_RANGE",  # Rust, whose code is retryable in other cases
            "Error, decoded message length too large: found 9 bytes, the limit is: 4 bytes",
        ),
    ],
)
def test_every_servers_words_for_too_large_are_known(code, words):
    assert type(grpc_error(code, words)) is TooLargeError
    assert size_limit(words) == (4 if "4" in words else None)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("DEADLINE_EXCEEDED", "Deadline Exceeded"),
        ("CANCELLED", ""),
        ("UNAVAILABLE", "Socket closed"),
        ("UNAVAILABLE", "recvmsg:Connection reset by peer"),
        ("UNAVAILABLE", "GOAWAY received"),
    ],
)
def test_a_call_without_an_answer_may_have_arrived(code, words):
    assert type(grpc_error(code, words)) is NoAnswerError


def test_a_call_that_was_refused_or_never_sent_has_not_arrived():
    for words in ("the queue is full", "failed to connect to all addresses; last error: refused"):
        assert type(grpc_error("UNAVAILABLE", words)) is RetryableError


def test_a_gateway_that_has_waited_too_long_may_have_passed_the_request_on():
    assert type(http_error(504, b"")) is NoAnswerError
    assert type(http_error(503, b"")) is RetryableError


@pytest.mark.parametrize("status", [500, 502, 503])
def test_the_limit_of_a_grpc_server_behind_the_http_one_is_a_matter_of_size(status):
    words = b"rpc error: code = ResourceExhausted desc = grpc: received message larger than max"
    assert type(http_error(status, words)) is TooLargeError
    assert type(http_error(status, words, retryable=LOKI_RETRYABLE_STATUSES)) is TooLargeError


def test_what_loki_cannot_do_at_the_moment_is_retried():
    for status in (429, 500, 502, 503, 599):
        error = http_error(status, b"", wait=3.0, retryable=LOKI_RETRYABLE_STATUSES)
        assert isinstance(error, RetryableError)
        assert error.retry_after == 3.0
    assert isinstance(http_error(404, b"", retryable=LOKI_RETRYABLE_STATUSES), PermanentError)


def test_an_answer_that_is_too_large_unpacked_is_no_reason_to_send_less():
    words = "Decompressed message larger than max (70 vs. 4)"
    assert type(grpc_error("RESOURCE_EXHAUSTED", words)) is PermanentError
    assert type(grpc_error("RESOURCE_EXHAUSTED", words, is_compressed=True)) is TooLargeError


def test_refused_credentials_keep_the_data():
    for error in (
        http_error(401, b""),
        http_error(403, b""),
        grpc_error("UNAUTHENTICATED", ""),
        grpc_error("PERMISSION_DENIED", "", status_with(retry_in(1))),
    ):
        assert type(error) is AccessDeniedError
        assert isinstance(error, RetryableError)


def test_an_error_tells_who_answered_the_status_and_the_backends_words():
    status = status_pb2.Status(code=3, message="bad attribute").SerializeToString()
    error = http_error(400, status, content_type=PROTOBUF, source="http://host/v1/logs")
    assert str(error) == "http://host/v1/logs: HTTP 400 Bad Request: bad attribute"
    error = http_error(
        400, status, content_type="application/octet-stream"
    )  # the media type of Loki
    assert str(error) == "HTTP 400 Bad Request: bad attribute"
    error = http_error(400, b'{"code": 3, "message": "bad attribute"}', content_type=JSON)
    assert str(error) == "HTTP 400 Bad Request: bad attribute"
    assert str(http_error(599, b"plain text", content_type="text/plain")) == "HTTP 599: plain text"


@pytest.mark.parametrize("content_type", [PROTOBUF, JSON, "text/html", ""])
@given(body=st.binary())
def test_no_body_makes_an_error_unreadable(content_type, body):
    message = str(http_error(400, body, content_type=content_type))
    assert message.startswith("HTTP 400 Bad Request")
    assert message.isprintable()
    assert len(message) < MAX_MESSAGE + 40


def test_words_are_bounded_and_cannot_drive_a_terminal():
    assert printable("a\x1b[31m\nb\u202e") == "a [31m b"
    assert len(printable("x" * 10_000)) == MAX_MESSAGE


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("0", 0), ("5", 5), (" 17 ", 17), ("99999999999999999999", MAX_RETRY_AFTER)],
)
def test_retry_after_in_seconds_is_honoured_up_to_a_limit(value, seconds):
    assert retry_after(value, NOW.timestamp()) == seconds


@pytest.mark.parametrize(
    ("offset", "seconds"), [(30, 30), (-30, 0), (86400 * 365, MAX_RETRY_AFTER)]
)
def test_retry_after_as_a_date_counts_from_now(offset, seconds):
    when = format_datetime(NOW + timedelta(seconds=offset), usegmt=True)
    assert retry_after(when, NOW.timestamp()) == seconds


def test_a_date_without_a_zone_is_utc():
    assert retry_after("Mon, 23 Nov 2026 12:00:09 -0000", NOW.timestamp()) == 9


@pytest.mark.parametrize(
    "value",
    [None, "", "soon", "-5", "1.5", "²", "Mon, 99 Nov 2026 12:00:00 GMT", "Mon, 1 Jan 99999"],
)
def test_a_retry_after_that_is_neither_counts_as_absent(value):
    assert retry_after(value, NOW.timestamp()) is None


# -- gRPC -----------------------------------------------------------------------


def status_with(*details: object) -> bytes:
    status = status_pb2.Status(code=8, message="slow down")
    for detail in details:
        status.details.add().Pack(detail)
    serialised: bytes = status.SerializeToString()
    return serialised


def retry_in(seconds: int, nanos: int = 0) -> error_details_pb2.RetryInfo:
    return error_details_pb2.RetryInfo(
        retry_delay=duration_pb2.Duration(seconds=seconds, nanos=nanos)
    )


@pytest.mark.parametrize(
    "code",
    ["CANCELLED", "DEADLINE_EXCEEDED", "ABORTED", "OUT_OF_RANGE", "UNAVAILABLE", "DATA_LOSS"],
)
def test_the_retryable_codes_are_retried(code):
    error = grpc_error(code, "later")
    assert isinstance(error, RetryableError)
    assert error.retry_after is None
    assert str(error) == f"gRPC {code}: later"


@pytest.mark.parametrize(
    "code",
    [
        "UNKNOWN",
        "INVALID_ARGUMENT",
        "NOT_FOUND",
        "ALREADY_EXISTS",
        "FAILED_PRECONDITION",
        "UNIMPLEMENTED",
        "INTERNAL",
    ],
)
def test_every_other_code_is_final_even_with_retry_info(code):
    assert isinstance(grpc_error(code, "", status_with(retry_in(1))), PermanentError)


def test_an_answer_that_is_too_large_is_no_reason_to_send_the_request_again():
    error = grpc_error("RESOURCE_EXHAUSTED", "CLIENT: Received message larger than max (9 vs. 4)")
    assert type(error) is PermanentError
    error = grpc_error("RESOURCE_EXHAUSTED", "CLIENT: Sent message larger than max (9 vs. 4)")
    assert type(error) is TooLargeError


def test_resource_exhausted_is_retried_only_when_the_backend_says_when():
    assert isinstance(grpc_error("RESOURCE_EXHAUSTED", "full"), PermanentError)
    other = error_details_pb2.ErrorInfo(reason="QUOTA")
    assert isinstance(grpc_error("RESOURCE_EXHAUSTED", "", status_with(other)), PermanentError)
    error = grpc_error("RESOURCE_EXHAUSTED", "full", status_with(other, retry_in(2, 500_000_000)))
    assert isinstance(error, RetryableError)
    assert error.retry_after == 2.5


@pytest.mark.parametrize(
    ("delay", "seconds"), [(retry_in(0), 0), (retry_in(-5), 0), (retry_in(10**6), MAX_RETRY_AFTER)]
)
def test_retry_info_stays_within_bounds(delay, seconds):
    assert retry_info(status_with(delay)) == seconds


@given(st.binary())
def test_broken_details_are_as_good_as_none(status):
    wait = retry_info(status)
    assert wait is None or 0 <= wait <= MAX_RETRY_AFTER
    broken = status_pb2.Status(
        details=[any_pb2.Any(type_url="x/google.rpc.RetryInfo", value=status)]
    )
    wait = retry_info(broken.SerializeToString())
    assert wait is None or 0 <= wait <= MAX_RETRY_AFTER


# -- accepted requests ----------------------------------------------------------


def partial(rejected: int, message: str = "") -> bytes:
    answer = ExportLogsServiceResponse(
        partial_success=ExportLogsPartialSuccess(
            rejected_log_records=rejected, error_message=message
        )
    )
    return answer.SerializeToString()


def partial_json(rejected: object, message: str = "") -> bytes:
    return json.dumps(
        {"partialSuccess": {"rejectedLogRecords": rejected, "errorMessage": message}}
    ).encode()


@pytest.mark.parametrize("body", [b"", ExportLogsServiceResponse().SerializeToString(), partial(0)])
def test_an_answer_without_partial_success_is_full_success(body):
    assert outcome(body, 10) is None


@pytest.mark.parametrize(
    "body", [b"", b"{}", b'{"partialSuccess": {}}', b'{"partialSuccess":null}']
)
def test_a_json_answer_without_partial_success_is_full_success(body):
    assert outcome(body, 10, content_type=JSON) is None


@given(
    st.integers(1, 10),
    st.text(st.characters(exclude_categories=["Cs"], min_codepoint=33, max_codepoint=126)),
)
def test_rejected_records_are_counted_in_both_encodings(rejected, message):
    expected = Outcome(rejected, message[:MAX_MESSAGE])
    assert outcome(partial(rejected, message), 10) == expected
    assert outcome(partial_json(str(rejected), message), 10, content_type=JSON) == expected
    assert outcome(partial_json(rejected, message), 10, content_type=JSON) == expected


def test_json_that_is_not_labelled_as_such_is_read_all_the_same():
    assert outcome(b"{}", 10, content_type="text/plain") is None
    assert outcome(partial_json(3, "old"), 10, content_type=PROTOBUF) == Outcome(3, "old")


def test_a_message_without_rejected_records_is_a_warning():
    assert outcome(partial(0, "deprecated"), 10) == Outcome(0, "deprecated")
    assert outcome(partial_json(0, "deprecated"), 10, content_type=JSON) == Outcome(0, "deprecated")


@pytest.mark.parametrize(("claimed", "counted"), [(11, 10), (2**62, 10), (-3, 0)])
def test_no_answer_rejects_more_records_than_were_sent(claimed, counted):
    assert outcome(partial(claimed, "x"), 10) == Outcome(counted, "x")


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"<html>please log in</html>", "text/html"),
        (b"\xff\xff\xff", PROTOBUF),
        (b"[1]", JSON),
        (b"{", JSON),
        (b'{"partialSuccess": {"rejectedLogRecords": "many"}}', JSON),
        (b'{"partialSuccess": {"rejectedLogRecords": [1]}}', JSON),
    ],
)
def test_an_accepted_request_with_a_strange_answer_is_a_warning_not_a_failure(body, content_type):
    result = outcome(body, 10, content_type=content_type)
    assert result is not None
    assert result.rejected == 0
    assert "not OTLP" in result.message


@pytest.mark.parametrize("content_type", [PROTOBUF, JSON, "text/html", ""])
@given(body=st.binary())
def test_no_answer_to_an_accepted_request_raises(content_type, body):
    result = outcome(body, 10, content_type=content_type)
    assert result is None or 0 <= result.rejected <= 10
