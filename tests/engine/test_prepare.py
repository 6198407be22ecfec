"""A slice gives the same records as its entries one by one."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fapilog.delivery.ledger import Drops
from fapilog.engine.entry import Entry, build_logged
from fapilog.engine.prepare import Processing
from fapilog.processors import RedactProcessor
from fapilog.record import EMPTY_RESOURCE, EMPTY_SCOPE, LogRecord
from fapilog.values import DEFAULT_LIMITS, Limits, normalise
from tests.support.records import values as plain_values
from tests.support.redaction import GITHUB, JWT, PEM
from tests.support.values import SMALL

FIELDS = [name for name in LogRecord.__slots__ if name not in {"scope", "resource"}]

names = st.one_of(
    st.sampled_from(
        [
            "order_id",
            "sku",
            "password",
            "X-Api-Key",
            "author",
            "name",
            "value",
            "",
            "pwd=x",
            "n" * 300,
        ]
    ),
    st.text(max_size=5),
)
texts = st.one_of(
    st.sampled_from(
        [
            "order placed",
            "A-1",
            f"Bearer {JWT}",
            GITHUB,
            PEM,
            "pwd=1",
            "https://u:p4ss@h/",
            "é",
            "\ud800",
        ]
    ),
    st.text(max_size=60),
)
values = st.one_of(
    texts, st.integers(), st.floats(), st.booleans(), st.none(), plain_values,
    st.sampled_from([["password", "x"], {"token": "t"}, b"pwd=1", ["--password", "x"], 1 << 70]),
)  # fmt: skip
attributes = st.dictionaries(names, values, max_size=6)
bodies = st.one_of(texts, st.none(), plain_values)


def of_a_logger(body: Any, attributes: dict[str, Any]) -> Entry:
    return (
        build_logged, 9, EMPTY_SCOPE, 1, "INFO", body, attributes, {}, {}, None, "", None, None,
        EMPTY_RESOURCE,
    )  # fmt: skip


def of_a_bridge(record: LogRecord) -> Entry:
    return lambda entry, now: record, record.severity_number


def fields_of(record: LogRecord) -> dict[str, Any]:
    return {name: repr(getattr(record, name)) for name in FIELDS if name != "observed_timestamp"}


def one_by_one(entries: list[Entry], limits: Limits) -> list[dict[str, Any]]:
    expected = []
    for entry in entries:
        record = RedactProcessor()(entry[0](entry, 0))
        normalise(record, limits)
        expected.append(fields_of(record))
    return expected


@pytest.mark.parametrize("limits", [DEFAULT_LIMITS, SMALL])
@given(given=st.lists(st.tuples(bodies, attributes), max_size=6))
def test_records_of_loggers_come_out_as_they_would_alone(limits, given):
    entries = [of_a_logger(body, dict(values)) for body, values in given]
    taken = Processing([RedactProcessor()], limits).records(entries, drops := Drops())
    same = [of_a_logger(body, dict(values)) for body, values in given]
    assert [fields_of(record) for record in taken] == one_by_one(same, limits)
    assert drops.total == 0


@given(
    given=st.lists(
        st.tuples(
            bodies, attributes, st.sampled_from(["", "order.placed", 7, None]), st.integers()
        ),
        max_size=6,
    )
)
def test_records_from_elsewhere_come_out_as_they_would_alone(given):
    def entries() -> list[Entry]:
        records = [
            LogRecord(timestamp, 1, 9, "INFO", body, dict(values), name)
            for body, values, name, timestamp in given
        ]
        for record in records:
            record.size = 5  # from a pipeline that has processed it before
        return [of_a_bridge(record) for record in records]

    taken = Processing([RedactProcessor()], DEFAULT_LIMITS).records(entries(), Drops())
    assert [fields_of(record) for record in taken] == one_by_one(entries(), DEFAULT_LIMITS)


def test_a_secret_among_many_records_is_masked_and_the_others_stay():
    entries = [
        of_a_logger("x", {"n": n, "note": f"pwd={n}" if n == 50 else "y"}) for n in range(99)
    ]
    processing = Processing([redactor := RedactProcessor()], DEFAULT_LIMITS)
    for _ in range(2):  # all names are known in the second round
        taken = processing.records(entries, Drops())
        assert [r.attributes["note"] for r in taken if r.attributes["note"] != "y"] == [
            "pwd=[REDACTED]"
        ]
    assert redactor.redacted == 2


def test_what_breaks_costs_its_own_record_and_is_counted(capsys):
    def broken(entry: Entry, now: int) -> LogRecord:
        raise RecursionError

    class Breaking(RedactProcessor):
        def __call__(self, record: LogRecord) -> LogRecord:
            return object() if record.body == "b" else record  # type: ignore[return-value]

    entries = [of_a_logger("a", {}), (broken, 13), of_a_logger("b", {}), of_a_logger("c", {})]
    taken = Processing([Breaking()], DEFAULT_LIMITS).records(entries, drops := Drops())
    assert [record.body for record in taken] == ["a", "c"]
    assert drops.snapshot() == {("internal_error", "WARN"): 1, ("internal_error", "INFO"): 1}
    assert "a record was dropped" in capsys.readouterr().err
