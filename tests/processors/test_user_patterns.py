"""Users' regular expressions: ordinary ones are accepted, exponential ones are refused."""

from __future__ import annotations

import re
import time

import pytest

from fapilog import ConfigurationError, LogRecord
from fapilog.processors import RedactProcessor

ORDINARY = [
    r"\d{3}-\d{2}-\d{4}",
    r"\b\d{16}\b",
    r"(?:\d[ -]?){13,16}",
    r"\b(?:\d[ -]*?){13,16}\b",
    r"[\w.+-]+@[\w-]+\.[\w.-]+",
    r"[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){3,7}",
    r"(?i)customer-(?P<secret>\d+)",
    r"order=(?P<secret>[^&\s]+)",
    r"(?:https?|ftp)://[^\s/]+",
    r"\bfoo_[A-Za-z0-9]{32}\b",
    r"ticket\s*[:=]\s*(?P<secret>\S+)",
    r"name:\s*\"(?P<secret>[^\"]*)\"",
    r"\"(?:[^\"\\]|\\.)*\"",
    r"(['\"]).*?\1",
    r"(?:\d{1,3}\.){3}\d{1,3}",
    r"\+?\d{1,3}[ -]?\(?\d{2,4}\)?[ -]?\d{3,4}[ -]?\d{3,4}",
    r"(?:[0-9a-f]{2}:){5}[0-9a-f]{2}",
    r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}",
    r"(?<=pin )\d{4}",
    r"(?<!\d)\d{6}(?!\d)",
    r"(?:GET|POST|PUT|PATCH|DELETE) /users/(?P<secret>\d+)",
    r"(?:foo|bar|baz)+",
    r"(?:ab)*c",
    r"(?:\w+\.)+com",
    r"(?:\w+,\s?)*end",
    r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?",
    r"-----BEGIN [A-Z ]+-----[\s\S]*?-----END [A-Z ]+-----",
    r".*password.*",
    r"^\s*secret:.*$",
    r"(?m)^key=.*$",
    r"session[_-]?id=\w+",
    r"a*",
    r"x+y+z+",
    r"\s+token\s+\S+",
    r"[^,]+,[^,]+",
    r"(?:a|b|c)*d",
    r"(?:\\u[0-9a-f]{4})+",
    r"id=(\w+)(?:;|$)",
    r"(?i)\bpatient(?:\s+no\.?)?\s*(?P<secret>\d+)",
    r"(?P<secret>\d+)\s*EUR",
    r"(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|1?\d?\d)",
    r"äöü+",
    r"(?:\w|\d)+x",
    r"(?i)(?:a|A)+b",
    r"(?a)\w+é+x",
]
ENDLESS = [
    r"(a+)+$",
    r"(a*)*b",
    r"(a+)*b",
    r"([a-z]+)*\d",
    r"(?:[a-z]+\s?)+$",
    r"(\w+\d)*x",
    r"(\d+\s?)+$",
    r"(?:a|a)*b",
    r"(?:a|ab)*c",
    r"(?:.|xy)*z",
    r"(?:\w|\d\d)+x",
    r"(?:[a-c]x|a)+b",
    r"(?i)(?:[a-c]x|A)+b",
    r"(x+x+)+y",
    r"((?:a+)+)+b",
    r"(?:(?:\w+)-?)+:",
    r"(.*)*x",
    r"(.*?)*x",
    r"(?:.+)+x",
    r"([^,]*,?)*;",
    r"(?:\w+\w+)+x",
    r"\w+\d+x",
    r".*.*x",
    r"\s*\s*x",
    r"[a-z]+[a-f0-9]+;",
    r"\S+\w*:",
    r"(?=(?:a+)+b)c",
    r"(?:(?:a|b)+c?)+d",
    r"(?P<secret>(\d+)+)x",
    r"^(?:(?:[a-z0-9]+)[-.]?)+@",
    r"(?:é+)+x",
    r"(?:z{1,64} ?){1,64}!",
    r"(?:\w{1,64}\s?){1,64}!",
    r"(a{1,60}){1,60}$",
    r"(?:(?:[a-z0-9]{1,63}\.?){1,60})@",
    r"(.*,){11}P",
    r"(?:a|aa){1,64}$",
    r"(.*a){20}",
    r"([a-z]+\d{0,1}){2,40}!",
    r"a*(?:b|)a*(?:b|)a*(?:b|)a*(?:b|)a*c",
    r"a*(?:b|)a*c",
    r"(?:a?a){30}",
    r"(?:a?){60}a{60}",
    r"\w{1,64}\w{1,64}\w{1,64}\w{1,64}!",
    r"(?:(\w+)(\d*))x",
    r"(?:(?:a|a)\.){20}!",
    r"(?:(?:x?x\d){5}-){9}",
    r".*foo.*bar.*baz",
    r"\w+\w+$",
    r"(\w+)(\d+)x",
    r"[\u0430-\u044f]+[\u0431-\u044e]+x",
]


@pytest.mark.parametrize("pattern", ORDINARY)
def test_an_ordinary_pattern_is_taken(pattern):
    RedactProcessor(patterns=[pattern])
    RedactProcessor(patterns=[re.compile(pattern)])


@pytest.mark.parametrize("pattern", ENDLESS)
def test_a_pattern_that_may_never_come_to_an_end_is_refused_with_the_fix(pattern):
    with pytest.raises(ConfigurationError) as raised:
        RedactProcessor(patterns=["ok", pattern])
    message = str(raised.value)
    assert message.startswith("patterns: ")
    assert repr(pattern) in message
    assert "in one way only" in message


@pytest.mark.parametrize("pattern", ORDINARY)
def test_an_accepted_pattern_comes_to_an_end_with_a_long_hostile_text(pattern):
    redactor = RedactProcessor(patterns=[pattern])
    began = time.process_time()
    for piece in ("a", "1", "a1 ", "x.", '"', "\\", " ", "=a", "-1"):
        redactor(LogRecord(1, 1, 9, "INFO", piece * (20_000 // len(piece)), {}))
    assert time.process_time() - began < 60  # exponential time would never end


def test_what_a_users_pattern_finds_in_a_long_text_is_masked():
    redactor = RedactProcessor(patterns=[r"customer-(?P<secret>\d+)"])
    text = "x customer-1234 " * 3000
    assert redactor(LogRecord(1, 1, 9, "INFO", text, {})).body == text.replace("1234", "[REDACTED]")


@pytest.mark.parametrize("before", [0, 1, 500, 1000, 1023, 1500])
@pytest.mark.parametrize("length", [100, 513, 1030, 4000])
@pytest.mark.parametrize("pattern", ["tok_[A-Za-z0-9]+", "tok_(?P<secret>[A-Za-z0-9]+)"])
def test_a_match_that_is_longer_than_the_piece_is_masked_whole(pattern, length, before):
    redactor = RedactProcessor(patterns=[pattern])
    token = ("a1B2" * 1000)[:length]
    text = "." * before + " tok_" + token + " and tok_abc after" + "." * 2000
    shown = str(redactor(LogRecord(1, 1, 9, "INFO", text, {})).body)
    assert "a1B2" not in shown
    assert shown.endswith("[REDACTED] after" + "." * 2000)
