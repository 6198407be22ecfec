"""If a value is cut inside a secret, redaction still recognises the rest."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

import fapilog
from fapilog import LogRecord
from fapilog.processors import RedactProcessor
from fapilog.sinks import MemorySink
from fapilog.values import DEFAULT_LIMITS
from fapilog.values.exceptions import MAX_TEXT
from fapilog.values.plain import MAX_NAME

LINE = "MIIEpAIBAAKCAQEA7vNqXw2kPz5T" * 2
KEY = "\n".join([LINE] * 40)
#: The logged text, and the part of it of which no piece of some length may be found.
SECRETS = {
    "pair": (" password=hunter2correcthorsebatterystaple ", "hunter2correcthorsebatterystaple"),
    "quoted": (' "token": "hunter2 correct horse" ', "hunter2 correct horse"),
    "url": (" postgres://shop:hunter2correct@db.internal/shop ", "hunter2correct"),
    "github": (" ghp_hunter2correcthorsebatterystaple12 ", "hunter2correcthorsebatterystaple12"),
    "openai": (" sk-hunter2correcthorsebattery ", "hunter2correcthorsebattery"),
    "aws": (" AKIAHUNTER2CORRECTHX ", "HUNTER2CORRECTHX"),
    "bearer": (" Bearer hunter2correcthorsebattery ", "hunter2correcthorsebattery"),
    "key": (f" -----BEGIN PRIVATE KEY-----\n{KEY}\n-----END PRIVATE KEY----- ", LINE),
    "pydantic": (
        """1 validation error for Login
password
  String too long [type=string_too_long, input_value='hunter2correct', input_type=str]
""",
        "hunter2correct",
    ),
}
#: Letters that a cut may leave, such as the beginning of a word.
FRAGMENT = 6


@pytest.fixture
def sink() -> Any:
    sink = MemorySink(capacity=100_000)
    fapilog.configure(sinks=[sink], handle_sigterm=False)
    yield sink
    fapilog.shutdown()


def fragments(secret: str) -> set[str]:
    return {secret[n : n + FRAGMENT] for n in range(len(secret) - FRAGMENT + 1)}


def logged(sink: MemorySink, **values: Any) -> str:
    sink.clear()
    error = values.pop("error", None)
    message = values.pop("message", "cut")
    fapilog.get_logger("cuts").error(message, exc_info=error, **values)
    assert fapilog.flush(30)
    (record,) = sink.records
    return repr((record.body, record.attributes))


def offsets(limit: int, size: int) -> list[int]:
    """Offsets of a text of ``size`` at which the cut is inside it or at its ends."""
    step = max(size // 12, 1)
    return sorted({limit - n for n in (*range(0, size + 40, step), *range(8))})


@pytest.mark.parametrize("name", SECRETS)
@pytest.mark.parametrize("place", ["message", "attribute", "nested", "bytes"])
def test_a_cut_at_the_longest_text_leaves_nothing_of_a_secret(name, place, sink):
    text, secret = SECRETS[name]
    for offset in offsets(DEFAULT_LIMITS.text, len(text)):
        whole = ("word " * (offset // 5 + 1))[:offset] + text + "word " * 2000
        values: dict[str, dict[str, Any]] = {
            "message": {"message": whole},
            "attribute": {"text": whole},
            "nested": {"value": {"list": [whole]}},
            "bytes": {"data": whole.encode()},
        }
        shown = logged(sink, **values[place])
        found = [part for part in fragments(secret) if part in shown]
        assert found == [], (offset, found)


@pytest.mark.parametrize("name", SECRETS)
@pytest.mark.parametrize("border", ["head", "tail"])
def test_a_cut_in_the_middle_of_an_exception_leaves_nothing_of_a_secret(name, border, sink):
    text, secret = SECRETS[name]
    filler = "a line of an exception's message\n"
    for offset in offsets(MAX_TEXT // 4, len(text)):
        if border == "head":
            message = (filler * (offset // len(filler) + 1))[:offset] + text + filler * 3000
        else:  # counted from the end
            after = MAX_TEXT - offset
            message = filler * 3000 + text + (filler * (after // len(filler) + 1))[:after]
        shown = logged(sink, error=ValueError(message))
        found = [part for part in fragments(secret) if part in shown]
        assert found == [], (offset, found)


@pytest.mark.parametrize("name", ["url", "github", "pair"])
def test_a_cut_name_leaves_nothing_of_a_secret(name, sink):
    text, secret = SECRETS[name]
    for offset in offsets(MAX_NAME, len(text)):
        key = ("word " * (offset // 5 + 1))[:offset] + text + "word " * 100
        shown = logged(sink, **{key: 1}, value={key: 1})
        found = [part for part in fragments(secret) if part in shown]
        assert found == [], (offset, found)


@pytest.mark.parametrize(
    "name",
    [
        "app." * 63 + "config.password",
        "app." * 3000 + "api_key",
        "word " * 70 + "api key",
        "settings" * 40 + "DbPassword2",
        "user[" + "a" * 300 + "][password]",
        "a/" * 200 + "client-secret",
        "x" * 256 + ".PASSWORD",
    ],
)
def test_the_value_of_a_secret_name_that_is_cut_is_masked(name, sink):
    other = name[:-1] + "x"  # of the same beginning, and harmless
    shown = logged(
        sink, **{name: "s3cret"}, nested=[{name: "s3cret"}], both={other: 1, name: "s3cret"}
    )
    assert "s3cret" not in shown
    twice = RedactProcessor()(LogRecord(attributes={name.encode(): "s3cret", name: "s3cret"}))
    assert "s3cret" not in repr(twice)


@pytest.mark.parametrize(
    "text",
    [
        "password=correct-horse-battery",
        '"token": "hunter2 correct horse',
        "ghp_hunter2correcthorsebatterystaple12",
        "Bearer hunter2-correct-horse:",
    ],
)
def test_the_end_of_a_name_that_is_cut_shows_no_secret(text, sink):
    shown = logged(sink, **{"word " * 70 + text: 1})
    assert not [part for part in ("correct", "horse", "staple") if part in shown]


WORDS = [f"hunter{n}" for n in range(9000)]
SPREAD = {
    "pretty JSON": '{"passwords": [\n' + ",\n".join(f'    "{word}"' for word in WORDS) + "\n]}",
    "one line": f"passwords={WORDS}",
    "lines of a quotation": "password='''\n" + "\n".join(WORDS) + "'''",
    "header": "Cookie: " + "; ".join(f"a{n}={word}" for n, word in enumerate(WORDS)),
    "dict": repr({"credentials": {word: word for word in WORDS}}),
    "one word": "password=" + ".".join(WORDS),
    "encoded": "token%3D" + "+".join(WORDS),
}


@pytest.mark.parametrize("name", SPREAD)
@pytest.mark.parametrize("before", [0, MAX_TEXT // 2], ids=["cut in head", "name left out"])
def test_a_value_that_begins_in_the_left_out_middle_of_an_exception_is_not_shown(
    name, before, sink
):
    message = "some words\n" * (before // 11) + SPREAD[name]
    shown = logged(sink, error=ValueError(message))
    assert "hunter8" not in shown
    if before:
        assert "hunter" not in shown


def test_the_frames_after_a_long_message_are_still_there(sink):
    def last() -> None:
        try:
            raise ValueError("x=1 " * MAX_TEXT)
        except ValueError as error:
            raise KeyError("the_order") from error

    with pytest.raises(KeyError) as raised:
        last()
    shown = logged(sink, error=raised.value)
    assert "the_order" in shown
    assert "in last" in shown


def test_the_ends_of_an_exception_that_is_cut_are_still_there(sink):
    lines = [f"line {n} of the message" for n in range(4000)]
    shown = logged(sink, error=ValueError("\n".join(lines)))
    assert lines[0] in shown
    assert lines[-1] in shown
    assert "characters left out" in shown
    assert sum(map(len, itertools.islice(lines, 100))) < len(shown)
