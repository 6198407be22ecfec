"""Checks that the demo's log records arrived, with correct trace ids and without secrets.

The span of each HTTP request, and all log records of the request, have the attribute
``request.id``.  A record is correct if it has the trace id of the span with the same
``request.id``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from fapilog.cli.demo.app import REQUEST_ID

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fapilog.cli.receiver import ReceivedLog, ReceivedSpan
    from fapilog.delivery.ledger import Stats

# The tolerance, in nanoseconds, for the times of ``logging`` records, which are rounded floats.
_ROUNDING: Final = 1000


class Finding(NamedTuple):
    """The result of one check, and a string that describes the result."""

    passed: bool
    text: str


def verify(
    stats: Stats,
    logs: Sequence[ReceivedLog],
    spans: Sequence[ReceivedSpan],
    secrets: Sequence[str],
) -> list[Finding]:
    """Check that all records have arrived, with correct trace ids and without secrets.

    Args:
        stats: fapilog's counters of accepted and delivered records.
        logs: the received log records.
        spans: the received spans.
        secrets: the secrets that the application has logged.

    Returns:
        The results of the checks.
    """
    by_ids = {(span.trace_id, span.span_id): span for span in spans}
    traces = {str(span.attributes.get(REQUEST_ID, "")): span.trace_id for span in spans}
    within = [log for log in logs if REQUEST_ID in log.attributes]
    right = sum(_is_in_its_span(log, by_ids, traces) for log in within)
    outside = len(logs) - len(within)
    strays = sum(bool(log.trace_id) for log in logs if REQUEST_ID not in log.attributes)
    arrived = f"{len(logs)} of {stats.accepted} records of the ledger arrived"
    correlated = (
        f"{right} of {len(within)} records of requests carry the ids of their span"
        f" ({outside} outside of requests)"
    )
    shown = "".join(str(log.record) for log in logs) + "".join(str(span.span) for span in spans)
    leaked = sum(secret in shown for secret in secrets)
    return [
        Finding(len(logs) == stats.accepted == stats.delivered, arrived),
        Finding(bool(within) and right == len(within) and not strays, correlated),
        Finding(not leaked, f"{leaked} of {len(secrets)} secrets arrived"),
    ]


def _is_in_its_span(
    log: ReceivedLog,
    spans: Mapping[tuple[str, str], ReceivedSpan],
    traces: Mapping[str, str],
) -> bool:
    """Return whether ``log`` has the ids of the span in which it was logged.

    The span must have arrived, must belong to the same HTTP request, and must not begin after the
    record or end before it.
    """
    received = spans.get((log.trace_id, log.span_id))
    if received is None or traces.get(log.attributes[REQUEST_ID]) != log.trace_id:
        return False
    span = received.span
    begin, end = span.start_time_unix_nano, span.end_time_unix_nano
    return bool(begin - _ROUNDING <= log.record.time_unix_nano <= end + _ROUNDING)
