"""What the demo claims, checked on what arrived.

Nothing here trusts the ids under test: the request's id reaches the records by
the bound context and the spans as an attribute, each on its own way, and both
have to tell the same story.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from fapilog.cli.demo.app import REQUEST_ID

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fapilog.cli.receiver import ReceivedLog, ReceivedSpan
    from fapilog.delivery.ledger import Stats

# Nanoseconds: ``logging`` keeps a record's time as a float of seconds, which
# is exact to some hundred of them.
_ROUNDING: Final = 1000


class Finding(NamedTuple):
    """One thing that was checked."""

    passed: bool
    text: str


def verify(
    stats: Stats,
    logs: Sequence[ReceivedLog],
    spans: Sequence[ReceivedSpan],
    secrets: Sequence[str],
) -> list[Finding]:
    """Return what was checked: records arrived, ids are right, no secret left.

    Args:
        stats: the ledger once everything was delivered.
        logs: what the receiver has got.
        spans: the same.
        secrets: texts the application logged that must not arrive.
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
        f" ({outside} outside of any)"
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
    """Whether the record's span exists, belongs to its request, and was open at its time."""
    received = spans.get((log.trace_id, log.span_id))
    if received is None or traces.get(log.attributes[REQUEST_ID]) != log.trace_id:
        return False
    span = received.span
    begin, end = span.start_time_unix_nano, span.end_time_unix_nano
    return bool(begin - _ROUNDING <= log.record.time_unix_nano <= end + _ROUNDING)
