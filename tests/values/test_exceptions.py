from __future__ import annotations

import ast
import contextlib
import sys
import traceback

import pytest

from fapilog.values.exceptions import MAX_FRAMES, MAX_TEXT, Capture, resolve
from fapilog.values.objects import type_name


class OrderError(Exception):
    pass


def caught(function):
    try:
        function()
    except BaseException as error:
        return error
    raise AssertionError


def test_the_type_is_fully_qualified_and_builtins_stay_short():
    assert Capture(OrderError("x")).type_name == f"{__name__}.OrderError"
    assert Capture(ValueError("x")).type_name == "ValueError"

    class Odd:
        pass

    Odd.__module__ = None  # type: ignore[assignment]
    assert type_name(Odd).endswith("Odd")


def test_the_text_is_what_the_interpreter_would_print():
    def fail():
        raise OrderError("no such order")

    error = caught(fail)
    text = Capture(error).attributes()["exception.stacktrace"]
    assert text.startswith("Traceback (most recent call last):")
    assert 'raise OrderError("no such order")' in text
    assert text.rstrip().endswith(f"{__name__}.OrderError: no such order")


def test_the_text_is_the_interpreters_without_the_lines_that_mark_columns():
    def lookup(orders):
        return orders["paid"]["first"]["total"]

    def fail():
        try:
            lookup({"paid": {}})
        except KeyError as error:
            raise OrderError("no total") from error

    error = caught(fail)
    printed = "".join(traceback.format_exception(error)).splitlines()
    marks = [line for line in printed if line.strip() and not line.strip(" ~^")]
    assert bool(marks) is (sys.version_info >= (3, 11))
    text = Capture(error).attributes()["exception.stacktrace"]
    assert text.splitlines() == [line for line in printed if line not in marks]


def test_no_source_is_parsed_to_lay_out_a_traceback(monkeypatch):
    """Two threads that parse at the same time can make ``compile()`` fail on Python 3.11."""
    parsed = []

    def fail():
        return {"a": [1]}["a"][1] + len([1, 2])

    capture = Capture(caught(fail))
    with monkeypatch.context() as patch:
        patch.setattr(ast, "parse", lambda source, *_: parsed.append(source))
        text = capture.attributes()["exception.stacktrace"]
    assert 'return {"a": [1]}["a"][1]' in text
    assert parsed == []


@pytest.mark.skipif(sys.version_info < (3, 11), reason="exception groups and notes came in 3.11")
def test_groups_and_notes_are_part_of_the_text():
    errors = [ValueError("one"), OrderError("two")]
    group = ExceptionGroup("several", errors)  # type: ignore[name-defined] # noqa: F821
    group.add_note("a note")
    attributes = Capture(group).attributes()
    assert attributes["exception.type"] == "ExceptionGroup"
    for words in ("ValueError: one", "OrderError: two", "a note"):
        assert words in attributes["exception.stacktrace"]


def test_changing_the_exception_afterwards_does_not_change_the_log():
    error = OrderError("before")
    capture = Capture(error)
    error.args = ("after",)
    assert capture.attributes()["exception.message"] == "before"
    assert "after" not in capture.attributes()["exception.stacktrace"]


def test_no_frame_is_kept_alive():
    import gc
    import weakref

    class Local:
        pass

    seen = []

    def fail():
        local = Local()
        seen.append(weakref.ref(local))
        raise OrderError

    capture = Capture(caught(fail))
    gc.collect()
    assert seen[0]() is None
    assert capture.attributes()["exception.type"].endswith("OrderError")


def test_a_hostile_exception_still_gives_its_type():
    class HostileError(Exception):
        def __str__(self):
            raise RuntimeError("from str")

    attributes = Capture(HostileError()).attributes()
    assert attributes["exception.type"].endswith("HostileError")
    assert "RuntimeError" in attributes["exception.message"]
    assert "HostileError" in attributes["exception.stacktrace"]


def test_endless_recursion_is_bounded():
    def recurse(n):
        return recurse(n + 1)

    text = Capture(caught(lambda: recurse(0))).attributes()["exception.stacktrace"]
    assert len(text) <= MAX_TEXT + 100
    assert "RecursionError" in text


def test_a_long_text_loses_its_middle_and_keeps_the_error():
    error = caught(lambda: (_ for _ in ()).throw(OrderError("y\n" * MAX_TEXT + "END")))
    text = Capture(error).attributes()["exception.stacktrace"]
    assert "characters left out" in text
    assert text.startswith("Traceback")
    assert text.rstrip().endswith("END")


def test_exc_info_is_understood_in_all_its_forms():
    error = ValueError()
    assert resolve(error) is error
    assert resolve((ValueError, error, None)) is error
    assert resolve((None, None, None)) is None
    assert resolve(()) is None
    assert resolve(False) is None
    assert resolve(None) is None
    try:
        raise error
    except ValueError:
        assert resolve(True) is error


def test_an_exc_info_without_a_truth_value_asks_for_the_current_exception() -> None:
    class Odd:
        def __bool__(self) -> bool:
            raise RuntimeError

    assert resolve(Odd()) is None
    error = OrderError()
    found: list[object] = []
    with contextlib.suppress(OrderError):
        try:
            raise error
        finally:
            found.append(resolve(Odd()))
    assert found == [error]


def test_a_long_message_is_bounded_where_it_is_captured() -> None:
    capture = Capture(OrderError("y" * 1_000_000))
    assert len(capture.message) <= MAX_TEXT + 100
    assert "characters left out" in capture.message


@pytest.mark.parametrize("raises", [3 * MAX_FRAMES, 6_000])
def test_a_traceback_that_grew_by_many_raises_stays_bounded(raises: int) -> None:
    error = OrderError("again")
    for _ in range(raises):
        try:
            raise error
        except OrderError:  # noqa: PERF203 - each raise adds an entry
            continue

    text = Capture(error).attributes()["exception.stacktrace"]
    assert 0 < text.count(", line ") <= MAX_FRAMES
