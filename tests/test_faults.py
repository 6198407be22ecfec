"""A fast part of the fault suite, and checks that the suite detects wrong results.

``make faults`` runs the whole suite; see docs/faults.md.
"""

from __future__ import annotations

import os
from collections import Counter
from typing import Any

import pytest

if os.name == "nt":
    pytest.skip("the fault suite needs POSIX signals and ports", allow_module_level=True)

from tests.faults.balance import Result, balance
from tests.faults.disk import OnDisk
from tests.faults.processes import Ended
from tests.faults.rows import REMOTE, Row, Run, rows
from tests.faults.script import Books, Script, Step
from tests.faults.suite import play

FAST = [
    *(("400 for bad records, spool", sink) for sink in (*REMOTE, "spans-http")),
    *(("exit while down, spool", sink) for sink in (*REMOTE, "spans-http")),
    ("reset after reading", "loki-json"),
]


def row_of(name: str, sink: str) -> Row:
    (found,) = (row for row in rows() if row.name == name and sink in row.sinks)
    return found


@pytest.mark.parametrize(("name", "sink"), FAST)
def test_every_record_is_accounted_for_when_this_goes_wrong(name: str, sink: str) -> None:
    result = play(row_of(name, sink), sink)
    assert result.problems == [], result.stderr


def test_every_row_has_a_unique_name_per_sink() -> None:
    names = Counter((row.name, sink) for row in rows() for sink in row.sinks)
    assert [name for name, count in names.items() if count > 1] == []
    assert len(names) >= 40


# ---- the suite itself


def told(**more: Any) -> Ended:
    """An application that logged ten records and reports that all were delivered."""
    counts = {"accepted": 10, "delivered": 10, "rejected": 0, "dropped": 0, "pending": 0}
    report = {**counts, "exceptions": [], "drained": True, **more}
    return Ended(report, exit=0.1)


def books(*numbers: int) -> Books:
    return Books(accepted=Counter(numbers))


def judged(row: Row, ended: Ended, held: Books, disk: OnDisk | None = None) -> Result:
    return balance(row, "otlp-http", [ended], held, disk or OnDisk())


TEN = Row("ten", runs=(Run(records=10),))


def test_a_row_passes_if_all_records_are_in_the_right_places() -> None:
    assert judged(TEN, told(), books(*range(10))).problems == []


def test_a_record_that_is_nowhere_fails_the_row() -> None:
    result = judged(TEN, told(), books(*range(9)))
    assert result.unaccounted == 1
    assert "U = 1" in result.problems


def test_a_record_in_two_places_fails_the_row() -> None:
    result = judged(TEN, told(dropped=1), books(*range(10)))
    assert result.unaccounted == -1
    spooled = judged(TEN, told(spooled=1), books(*range(10)), OnDisk(spooled=frozenset({3})))
    assert spooled.unaccounted == -1


def test_a_record_in_the_wrong_place_fails_the_row_although_it_is_counted() -> None:
    result = judged(TEN, told(delivered=9, dropped=1), books(*range(9)))
    assert result.unaccounted == 0
    assert result.problems == ["1 good records lost, the first is 9"]


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ({"exceptions": ["OSError()"]}, "raised OSError()"),
        ({"drained": False}, "not everything was settled within 20 s"),
        ({"pending": 1}, "the ledger says 1 pending"),
        ({"delivered": 9}, "the ledger says 9 arrived, the records say 10"),
    ],
)
def test_a_report_of_the_application_can_fail_the_row(more: dict[str, Any], problem: str) -> None:
    assert judged(TEN, told(**more), books(*range(10))).problems == [problem]


def test_a_late_end_a_traceback_and_an_exit_code_fail_the_row() -> None:
    ended = told()
    ended.exit, ended.code, ended.stderr = 60.0, 1, "Traceback (most recent call last)"
    assert judged(TEN, ended, books(*range(10))).problems == [
        "a traceback on stderr",
        "exit code 1",
        "the end took 60.0 s, the deadline was 20 s",
    ]


def test_a_fault_that_no_request_met_fails_the_row() -> None:
    row = row_of("503", "otlp-http")
    problems = judged(row, told(), books(*range(10))).problems
    assert "no request met the fault 'status'" in problems


def test_a_script_hands_out_its_steps_and_then_takes_everything() -> None:
    script = Script([Step("none", 2), Step("silence"), Step("bad", seconds=60), Step("die")])
    assert [script.next().fault for _ in range(3)] == ["none", "none", "silence"]
    assert {script.next().fault for _ in range(50)} == {"bad"}
    assert not script.takes("reset writing")
    assert Script([]).next().fault == "none"
