import asyncio
import builtins
import re
import sys
import time
import traceback
from types import SimpleNamespace

import pytest
from hypothesis import given

from fapilog.record import LogRecord, Scope
from fapilog.sinks import pretty, terminal
from fapilog.sinks.pretty import PrettyFormatter
from tests.console_picture import PICTURE, svg
from tests.support.records import DANGEROUS, SPAN, TIME, TRACE, records

COLOUR = re.compile("\x1b\\[[0-9;]*m")


@pytest.fixture
def utc(monkeypatch):
    clock = SimpleNamespace(localtime=time.gmtime, strftime=time.strftime)
    monkeypatch.setattr(pretty, "time", clock)
    pretty._local_second.cache_clear()
    yield
    pretty._local_second.cache_clear()


def record(body="order placed", severity=9, scope="shop.orders", **attributes):
    attributes = {name.replace("__", "."): value for name, value in attributes.items()}
    return LogRecord(TIME, TIME, severity, "", body, attributes, scope=Scope(scope))


def shown(*records):
    formatter = PrettyFormatter(color=False)
    return "".join(map(formatter.format, records))


def test_the_readable_format_at_a_glance(utc):
    first = record("Query", 5, "shop.db", rows=3, took_ms=1.82)
    second = record("Payment failed", 17, "shop.payments", card="4111 1111", ok=False, why=None)
    second.trace_id, second.span_id = TRACE, SPAN
    third = record({"left": 3, "raw": b"\x00"}, 13, "shop")
    third.event_name = "stock.low"
    fourth = record(None, 0, "shop")
    fourth.event_name = "tick"
    assert shown(first, second, third, fourth, record("plain", 21, scope="")) == (
        "10:15:00.123  DEBUG  Query                             rows=3 took_ms=1.82 [shop.db]\n"
        "10:15:00.123  ERROR  Payment failed                    "
        'card="4111 1111" ok=false why=null trace=4bf92f35 [shop.payments]\n'
        '10:15:00.123  WARN   {"left": 3, "raw": "AA=="}        event=stock.low [shop]\n'
        "10:15:00.123  -      tick                              [shop]\n"
        "10:15:00.123  FATAL  plain\n"
    )


def test_values_with_several_lines_stand_below_behind_a_gutter():
    text = shown(record("first\nsecond\r\n", sql="SELECT 1\n  FROM t\n", rows=1))
    head, *below = text.splitlines()
    assert head.endswith("first                             rows=1 [shop.orders]")
    assert below == [
        "    │ second",
        "    │ sql:",
        "    │   SELECT 1",
        "    │     FROM t",
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("bare-word/1.0", "x=bare-word/1.0"),
        ("", 'x=""'),
        ("two words", 'x="two words"'),
        ("a=b", 'x="a=b"'),
        ('say "hi"', 'x="say \\"hi\\""'),
        ("C:\\tmp", 'x="C:\\\\tmp"'),
        ("日本", "x=日本"),
        ("\x1b[2J", 'x="\\x1b[2J"'),
        ([1, {"a": None}], 'x=[1, {"a": null}]'),
        (b"\x00\xff", 'x="AP8="'),
    ],
)
def test_a_value_is_shown_so_that_it_can_be_told_from_its_neighbours(value, text):
    assert shown(record("m", scope="", x=value)).rstrip().endswith(text)


def failed_with_cause():
    try:
        try:
            raise ConnectionError("502 from gateway")
        except ConnectionError as error:
            raise RuntimeError("payment failed\nfor order 1234") from error
    except RuntimeError as error:
        return record(
            "failed",
            17,
            exception__type="RuntimeError",
            exception__message=str(error),
            exception__stacktrace=traceback.format_exc(),
            order=1234,
        )


def test_a_stack_trace_is_indented_and_told_once():
    text = shown(failed_with_cause())
    head, *below = text.splitlines()
    assert head.endswith("order=1234 [shop.orders]")
    assert below[0] == "    │ Traceback (most recent call last):"
    assert all(line.startswith("    │") for line in below)
    assert text.count("exception.") == 0
    assert text.count("ConnectionError: 502 from gateway") == 1
    assert below[-2:] == ["    │ RuntimeError: payment failed", "    │ for order 1234"]


def test_the_error_lines_of_a_stack_trace_are_highlighted():
    text = PrettyFormatter(color=True).format(failed_with_cause())
    red = re.findall("\x1b\\[1;31m(.*?)\x1b\\[0m", text)
    assert red == [
        "ConnectionError: 502 from gateway",
        "RuntimeError: payment failed",
        "for order 1234",
    ]
    assert "\x1b[2mThe above exception was the direct cause" in text


def test_an_exception_without_a_stack_trace_is_one_line():
    text = shown(record("failed", 17, exception__type="KeyError", exception__message="'id'"))
    assert text.endswith("    │ KeyError: 'id'\n")
    assert shown(record("failed", 17, exception__type="KeyError")).endswith("    │ KeyError\n")


def test_what_a_stack_trace_does_not_tell_is_shown_beside_it():
    text = shown(
        record(
            "failed",
            17,
            exception__type="app.Odd",
            exception__message="why",
            exception__stacktrace="  at Main.run(Main.java:3)",
        )
    )
    assert "exception.type=app.Odd exception.message=why" in text
    assert text.endswith("    │   at Main.run(Main.java:3)\n")


@pytest.mark.skipif(sys.version_info < (3, 11), reason="exception groups")
def test_the_members_of_an_exception_group_are_highlighted():
    try:
        raise builtins.ExceptionGroup("several", [ValueError("a"), KeyError("b")])  # type: ignore[attr-defined]  # 3.11
    except Exception:
        stacktrace = traceback.format_exc()
    text = PrettyFormatter(color=True).format(record("failed", exception__stacktrace=stacktrace))
    red = re.findall("\x1b\\[1;31m(.*?)\x1b\\[0m", text)
    assert red == ["ExceptionGroup: several (2 sub-exceptions)", "ValueError: a", "KeyError: 'b'"]


@given(records)
def test_no_value_can_forge_a_readable_line_or_drive_the_terminal(one):
    for color in (False, True):
        text = PrettyFormatter(color=color).format(one)
        assert text.endswith("\n")
        first, *below = COLOUR.sub("", text[:-1]).split("\n") if color else text[:-1].split("\n")
        assert re.match(r"(\d\d:\d\d:\d\d|--:--:--)\.\d{3}  ", first)
        assert all(line.startswith("    │") for line in below)
        assert not set("".join([first, *below])) & set(DANGEROUS)


def test_a_value_cannot_bring_colours_of_its_own():
    text = PrettyFormatter(color=True).format(record("\x1b[31mred\x1b[0m", x="\x9b31m"))
    assert "\\x1b[31mred\\x1b[0m" in text
    assert "\\x9b31m" in text


# -- requests -------------------------------------------------------------------


def completion(body="POST /orders 201", seconds=0.03867670099998577, **attributes):
    method, _, path = body.partition(" ")
    common = {
        "request.id": "8c1e0d1f5f1d4d1a9f0e8f4f4f6b7a11",
        "order_id": 1234,
        "url.path": path.split(" ")[0],
        "url.scheme": "http",
        "client.address": "127.0.0.1",
        "user_agent.original": "curl/8.5.0",
        "network.protocol.version": "1.1",
        "server.address": "localhost",
        "server.port": 8000,
        "http.request.method": method,
        "http.response.status_code": 201,
        "http.request.body.size": 7,
        "http.response.body.size": 11,
        "http.server.request.duration": seconds,
    }
    one = LogRecord(TIME, TIME, 9, "", body, {**common, **attributes})
    one.event_name = "http.server.request.completed"
    one.scope = Scope("fapilog_fastapi")
    return one


def test_a_request_is_one_short_line_with_what_is_special_about_it():
    assert shown(completion())[14:] == (
        "INFO   POST /orders 201 39 ms            order_id=1234 request.id=8c1e0d1f…\n"
    )


@pytest.mark.parametrize(
    ("one", "line"),
    [
        (
            completion(
                "GET /orders/{order_id} 200",
                **{"url.path": "/orders/7", "http.route": "/orders/{order_id}", "url.query": "a=b"},
            ),
            "GET /orders/7?a=b 200 39 ms",
        ),
        (completion("POST /orders disconnected"), "POST /orders disconnected 39 ms"),
        (completion("POST /orders 200 incomplete"), "POST /orders 200 incomplete 39 ms"),
        (completion("WebSocket /ws 1001"), "WebSocket /ws 1001 39 ms"),
        (completion("GET /\x1b[2J 200", **{"url.path": "/\x1b[2J"}), "GET /\\x1b[2J 200 39 ms"),
    ],
    ids=["route", "no status", "ending", "WebSocket", "hostile path"],
)
def test_the_summary_has_the_path_the_status_the_ending_and_the_duration(one, line):
    assert shown(one)[21:].startswith(line + "  ")


def test_a_status_has_the_colour_of_its_class_and_a_slow_request_is_emphasised():
    colours = {}
    for status in (200, 301, 404, 500):
        text = PrettyFormatter(color=True).format(completion(f"GET /x {status}"))
        colours[status] = re.findall(f"\x1b\\[([0-9;]*)m{status}\x1b", text)
    assert colours == {200: ["32"], 301: ["36"], 404: ["33"], 500: ["1;31"]}
    text = PrettyFormatter(color=True).format(completion(seconds=1.239))
    assert "\x1b[33m 1.24 s\x1b[0m" in text


@pytest.mark.parametrize(
    "one",
    [
        completion("something else", **{"url.path": "/orders"}),
        completion("POST /orders 201", seconds="fast"),
        completion("x", **{"url.path": None}),
    ],
    ids=["body", "duration", "path"],
)
def test_a_record_that_is_no_completion_keeps_its_message_and_attributes(one):
    assert "user_agent.original=curl/8.5.0" in shown(one)


def test_the_type_of_an_error_is_not_told_beside_the_exception_or_the_status():
    failed = completion(
        "POST /pay 500",
        **{
            "error.type": "RuntimeError",
            "exception.type": "RuntimeError",
            "exception.message": "no",
            "exception.stacktrace": "RuntimeError: no",
        },
    )
    assert "error.type" not in shown(failed)
    assert "error.type" not in shown(completion("POST /pay 500", **{"error.type": "500"}))
    assert "error.type=Odd" in shown(completion("POST /pay 500", **{"error.type": "Odd"}))


# -- what repeats ---------------------------------------------------------------


def test_an_attribute_that_has_not_changed_is_dim_and_last():
    formatter = PrettyFormatter(color=True)
    formatter.format(record("one", user="ann", step=1))
    second = formatter.format(record("two", user="ann", step=2))
    third = formatter.format(record("three", user="bob", step=2))
    assert second.endswith(
        "\x1b[36mstep\x1b[0m\x1b[2m=\x1b[0m2\x1b[2m user=ann shop.orders\x1b[0m\n"
    )
    assert "\x1b[36muser\x1b[0m\x1b[2m=\x1b[0mbob" in third


def test_an_unchanged_request_id_takes_precedence_over_other_dim_attributes():
    formatter = PrettyFormatter(color=False, columns=lambda: 72)
    fields = {"user": "a" * 12, "request__id": "r" * 12}
    formatter.format(record("one", **fields))
    assert formatter.format(record("two", step="s" * 12, **fields)).endswith(
        f"two  step={'s' * 12} request.id={'r' * 12}\n"
    )


def test_the_place_of_the_log_call_replaces_the_loggers_name():
    def origin(path, line=31):
        code = {"code.file.path": path, "code.function.name": "pay", "code.line.number": line}
        one = LogRecord(TIME, TIME, 9, "", "m", code, scope=Scope("shop"))
        return PrettyFormatter(color=False, directory="/srv/shop").format(one).split()[3:]

    assert origin("/srv/shop/app/orders.py") == ["app/orders.py:31"]
    assert origin("/srv/shop/.venv/lib/site-packages/uvicorn/server.py") == ["uvicorn/server.py:31"]
    assert origin("/opt/other.py") == ["/opt/other.py:31"]
    assert origin("/srv/shop/app/orders.py", None)[-1] == "[shop]"


def test_the_memory_of_attributes_is_bounded():
    formatter = PrettyFormatter(color=False)
    for number in range(2000):
        formatter.format(record("m", **{f"name{number}": "x" * 10_000, f"other{number}": 1}))
    assert len(formatter._last) <= 256
    assert max(map(len, formatter._last.values())) <= 256


# -- width ----------------------------------------------------------------------


def within(columns, *records):
    formatter = PrettyFormatter(color=False, columns=lambda: columns)
    return "".join(map(formatter.format, records)).splitlines()


def test_a_line_is_broken_between_attributes_and_at_spaces():
    text = "a long message of many words that has to be broken because it is longer"
    lines = within(60, record(text, path="/a/b/c", sql="SELECT * FROM orders WHERE id = 1 AND x"))
    assert lines[0].endswith("a long message of many words that has")
    assert lines[1:] == [
        "    │ to be broken because it is longer path=/a/b/c",
        '    │ sql="SELECT * FROM orders WHERE id = 1 AND x"',
    ]


def test_a_nested_value_is_broken_between_its_items_and_has_its_keys_in_a_colour():
    customer = {"name": "Ada Lovelace, Countess", "note": 'says "a: b, c"'}
    one = record("order placed", order={"id": 7, "customer": customer, "tags": ["x, y", "z"]})
    first, *more = within(60, one)
    assert first.endswith('order placed  order={"id": 7,')
    assert more == [
        '    │ "customer": {"name": "Ada Lovelace, Countess",',
        '    │ "note": "says \\"a: b, c\\""}, "tags": ["x, y", "z"]}',
    ]
    text = PrettyFormatter(color=True).format(one)
    cyan = re.findall("\x1b\\[36m *(.*?)\x1b\\[0m", text)
    assert cyan == ["order", '"id"', '"customer"', '"name"', '"note"', '"tags"']


def test_an_item_of_a_nested_value_that_is_wider_than_a_line_is_broken_at_spaces():
    lines = within(60, record("m", scope="", items=["many words " * 8]))
    assert len(lines) == 3
    assert all(len(line) <= 60 for line in lines)


def test_the_attributes_do_not_interrupt_a_message_of_several_lines():
    one = record("first of three\nsecond", account="a" * 30)
    assert within(60, one)[1:] == ["    │ second", f"    │ account={'a' * 30} [shop.orders]"]
    assert within(100, one)[1:] == ["    │ second"]


def test_a_broken_line_below_the_first_is_indented_further():
    lines = within(48, record("m\n  a line of many words that has to be broken", scope=""))
    assert lines[1:] == ["    │   a line of many words that has to be", "    │       broken"]
    fits_only_without = "x" * 42
    lines = within(50, record(f"m\n  some words {fits_only_without}", scope=""))
    assert lines[1:] == ["    │   some words", f"    │ {fits_only_without}"]


def test_a_word_that_is_longer_than_a_line_stays_whole():
    token = "x" * 100
    lines = within(60, record("m", token=token), record(token))
    assert f"    │ token={token}" in lines
    assert any(line.endswith(token) for line in lines)


def test_what_repeats_takes_no_line_of_its_own():
    first, second = (record("order placed", account="a" * 20, step=step) for step in (1, 2))
    lines = within(60, first, second)
    assert "account" in lines[0] + lines[1]
    assert len(lines) == 3
    assert lines[2].endswith("order placed  step=2 [shop.orders]")


def test_without_colours_attributes_keep_the_order_of_the_log_call():
    formatter = PrettyFormatter(color=False, columns=lambda: 100)
    for step in (1, 2):
        text = formatter.format(record(user="ann", step=step, job="j"))
        assert text.rstrip().endswith(f" user=ann step={step} job=j [shop.orders]")
    # With colours, what has not changed is dim and comes last.
    formatter = PrettyFormatter(color=True, columns=lambda: 100)
    texts = [formatter.format(record(user="ann", step=step)) for step in (1, 2)]
    assert texts[1].rstrip().endswith("\x1b[2m user=ann shop.orders\x1b[0m")


def test_wide_characters_take_two_columns():
    lines = within(60, record("日本" * 8, a="日" * 8, b="b"))
    assert len(lines[0]) < 50
    assert lines[1].startswith("    │ ")


@given(records)
def test_no_value_makes_a_line_wider_than_its_longest_word(one):
    for line in within(50, one):
        longest = max(map(len, line.split(" ")))
        assert terminal.width(line) <= 50 or longest > 20


# -- stack traces ---------------------------------------------------------------


LIBRARY = "/usr/lib/python3/site-packages"
FRAMES = f"""Traceback (most recent call last):
  File "{LIBRARY}/starlette/routing.py", line 1, in app
    await handle()
  File "{LIBRARY}/starlette/routing.py", line 2, in handle
    await call()
  File "{LIBRARY}/fastapi/routing.py", line 3, in call
    return await endpoint()
    ^^^^^^^^^^^^^^^^^^^^^^^
  File "/srv/shop/orders.py", line 4, in pay
    charge(card)
  File "{LIBRARY}/stripe.py", line 5, in charge
    raise CardError
  [Previous line repeated 7 more times]
stripe.CardError: declined
"""


def trace(text, **attributes):
    return record("failed", 17, exception__stacktrace=text, **attributes)


def below(*records, **options):
    formatter = PrettyFormatter(color=False, **options)
    text = "".join(map(formatter.format, records))
    return [line[6:] for line in text.splitlines() if line.startswith("    │")]


def test_the_frames_of_installed_packages_fold_into_one_line():
    assert below(trace(FRAMES)) == [
        "Traceback (most recent call last):",
        "  … 3 frames in starlette, fastapi",
        '  File "/srv/shop/orders.py", line 4, in pay',
        "    charge(card)",
        "  … 1 frame in stripe",
        "stripe.CardError: declined",
    ]


def test_full_tracebacks_have_every_frame():
    assert below(trace(FRAMES), full_tracebacks=True) == FRAMES.rstrip().splitlines()


def test_the_standard_library_folds_and_frames_of_the_application_are_relative():
    text = (
        "Traceback (most recent call last):\n"
        '  File "/srv/shop/app/main.py", line 4, in run\n'
        f'  File "{asyncio.__file__}", line 5, in run\n'
        '  File "<frozen runpy>", line 6, in run\n'
        "OSError\n"
    )
    assert below(trace(text), directory="/srv/shop")[1:] == [
        '  File "app/main.py", line 4, in run',
        "  … 2 frames in asyncio, runpy",
        "OSError",
    ]


CELLS = (
    "Traceback (most recent call last):\n"
    '  File "/tmp/ipykernel_7/11.py", line 3, in <module>\n'
    "    boom()\n"
    '  File "/tmp/ipykernel_7/12.py", line 2, in boom\n'
    "    return 1 / 0\n"
    "ZeroDivisionError: division by zero\n"
)


def test_a_frame_of_a_notebooks_cell_has_ipythons_name_of_the_cell(monkeypatch):
    cells = {"/tmp/ipykernel_7/11.py": ("Cell", "In[3]")}
    shell = SimpleNamespace(compile=SimpleNamespace(format_code_name=cells.get))
    module = SimpleNamespace(get_ipython=lambda: shell)
    monkeypatch.setitem(sys.modules, "IPython.core.getipython", module)
    call = record(code__file__path="/tmp/ipykernel_7/11.py", code__line__number=3)
    assert " Cell In[3]:3" in shown(call)
    assert below(trace(CELLS))[1:] == [
        "  Cell In[3], line 3, in <module>",
        "    boom()",
        '  File "/tmp/ipykernel_7/12.py", line 2, in boom',
        "    return 1 / 0",
        "ZeroDivisionError: division by zero",
    ]


@pytest.mark.parametrize("shell", [None, SimpleNamespace(compile=SimpleNamespace())])
def test_frames_keep_their_files_if_ipython_runs_no_cells_or_has_other_names(monkeypatch, shell):
    module = SimpleNamespace(get_ipython=lambda: shell)
    monkeypatch.setitem(sys.modules, "IPython.core.getipython", module)
    assert below(trace(CELLS)) == CELLS.rstrip().splitlines()


def test_a_stack_trace_of_installed_frames_alone_shows_the_innermost_one():
    text = (
        "Traceback (most recent call last):\n"
        f'  File "{LIBRARY}/sqlalchemy/base.py", line 1, in a\n'
        f'  File "{LIBRARY}/sqlalchemy/base.py", line 2, in b\n'
        "    execute()\n"
        "IntegrityError: x\n"
    )
    assert below(trace(text))[1:] == [
        "  … 1 frame in sqlalchemy",
        f'  File "{LIBRARY}/sqlalchemy/base.py", line 2, in b',
        "    execute()",
        "IntegrityError: x",
    ]


def test_an_exception_that_was_just_shown_is_one_line():
    inner = FRAMES[: FRAMES.index("  File")] + FRAMES[FRAMES.index('  File "/srv') :]
    outer = FRAMES + (
        "\nThe above exception was the direct cause of the following exception:\n\n"
        "Traceback (most recent call last):\n"
        '  File "/srv/shop/orders.py", line 9, in pay\n'
        "RuntimeError: payment failed\n"
    )
    lines = below(trace(inner), trace(outer))
    assert lines[5:] == [
        "stripe.CardError: declined (traceback above)",
        "The above exception was the direct cause of the following exception:",
        "Traceback (most recent call last):",
        '  File "/srv/shop/orders.py", line 9, in pay',
        "RuntimeError: payment failed",
    ]


def test_the_same_failure_of_another_request_is_shown_in_full():
    one = trace(FRAMES, request__id="a")
    other = trace(FRAMES, request__id="b")
    later = trace(FRAMES, request__id="a")
    later.timestamp += 2_000_000_000
    assert not any("traceback above" in line for line in below(one, other, later))
    assert any("traceback above" in line for line in below(one, one))


def test_the_picture_in_the_documentation_shows_the_present_console():
    assert PICTURE.read_text(encoding="utf-8") == svg()


def test_a_long_text_that_the_message_contains_is_not_shown_a_second_time():
    sql = 'SELECT "sku"\nFROM "orders"'
    line = shown(record(f"(0.001) {sql}; args=(); alias=default", sql=sql, alias="default", n=1))
    assert line.count("SELECT") == 1
    assert "sql" not in line
    assert "alias=default" in line.replace("args=(); alias=default", "")
    assert "n=1" in line


def test_a_text_that_the_message_contains_in_part_or_that_is_short_is_shown():
    note = "the order was refused"
    assert f'note="{note}"' in shown(record("the order was", note=note))
    assert "sku=A-1" in shown(record("A-1 is out of stock", sku="A-1"))
    assert "left=1234567890123456" in shown(
        record({"left": "1234567890123456"}, left="1234567890123456")
    )


def test_an_attribute_of_a_request_is_shown_because_its_line_replaces_the_message():
    one = completion("GET /orders/{order_id} 200", template="/orders/{order_id}")
    assert 'template="/orders/{order_id}"' in shown(one)
