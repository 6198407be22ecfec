from __future__ import annotations

import json

import pytest
from fapilog_fastapi import body_content
from fapilog_fastapi.body_content import NOTHING, codec_of, content_of
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.asgi import redacted

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=12,
)


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        ('{"user": "eve", "password": "abc', {"user": "eve"}),
        ('{"user": "eve", "passw', {"user": "eve"}),
        ('{"login": {"password": ["a", "b', {"login": {"password": ["a"]}}),
        ('{"a": 1} and more', {"a": 1}),
        ("{\"a\": 1, 'b': 2}", NOTHING),
        ("[1, 23", [1]),
        ("[[1, 2], [3", [[1, 2], []]),
        ('{"a": "x\\"y", "b": -1.5e3, "c": tru', {"a": 'x"y', "b": -1500.0}),
        ('"abc', NOTHING),
        ("123", NOTHING),
        ('{"a": 1, "b": 1.5e', {"a": 1}),
        ("", NOTHING),
        ('{"a"}}', NOTHING),
    ],
)
def test_only_complete_fields_of_a_cut_json_document_are_kept(body, shown):
    assert content_of(body.encode(), "json", "", whole=False) == (shown, False)


def test_a_document_that_is_not_json_or_too_deep_to_read_is_not_shown_as_text():
    for body in (b"{'password': 'hunter2'}", b'{"password": hunter2}', b"[" * 60_000):
        assert content_of(body, "json", "", whole=True) == (NOTHING, False)


@settings(max_examples=200, deadline=None)
@given(VALUES, st.data())
def test_every_cut_of_a_document_shows_a_part_of_it_or_nothing(value, data):
    text = json.dumps({"top": value}, ensure_ascii=False)
    raw = text.encode()
    cut = data.draw(st.integers(0, len(raw) - 1))
    shown, complete = content_of(raw[:cut], "json", "", whole=False)
    assert not complete
    assert shown is NOTHING or is_part(shown, {"top": value})
    assert content_of(raw, "json", "", whole=True) == ({"top": value}, True)


def is_part(part, whole):
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(
            name in whole and is_part(value, whole[name]) for name, value in part.items()
        )
    if isinstance(part, list):
        return len(part) <= len(whole) and all(map(is_part, part, whole))
    return part == whole


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 120))
def test_no_cut_of_a_body_lets_a_secret_past_its_name(cut):
    secret = "hunter2-hunter2-hunter2"
    document = {"a": 1, "credentials": {"list": [secret, {"x": secret}]}, "password": secret}
    for kind, raw in (
        ("json", json.dumps(document)),
        ("text", json.dumps(document)),
        ("form", json.dumps(document)),
        ("form", f"a=1&user[password]={secret}&api_key={secret}&b=2"),
    ):
        shown, _ = content_of(raw.encode()[:cut], kind, "", whole=cut >= len(raw))
        attributes = {} if shown is NOTHING else {"http.request.body.content": shown}
        assert "hunter2" not in str(processed(attributes))


def processed(attributes):
    from fapilog.processors import RedactProcessor

    return RedactProcessor().redact_mapping(attributes)


def test_a_form_is_logged_as_fields_so_that_names_protect_them():
    shown, complete = content_of(
        b"user=eve&tag=a&tag=b&user%5Bpassword%5D=hunter2&x=%E9&empty=",
        "form",
        "latin1",
        whole=True,
    )
    assert complete
    assert shown == {
        "user": "eve", "tag": ["a", "b"], "user[password]": "hunter2", "x": "é", "empty": "",
    }  # fmt: skip
    assert redacted({"form": shown})["form"]["user[password]"] == "[REDACTED]"


def test_a_cut_form_loses_its_last_field():
    assert content_of(b"a=1&b=2&token=ab", "form", "", whole=False) == (
        {"a": "1", "b": "2"},
        False,
    )
    assert content_of(b"token=ab", "form", "", whole=False) == (NOTHING, False)


def test_a_form_of_very_many_fields_is_cut():
    shown, complete = content_of(
        b"&".join(b"f%d=1" % n for n in range(300)), "form", "", whole=True
    )
    assert (len(shown), complete) == (body_content.MAX_FIELDS, False)


def test_a_form_that_is_json_after_all_is_read_as_json():
    body = b'{"password": "hunter2"}'
    assert content_of(body, "form", "", whole=True) == ({"password": "hunter2"}, True)


def test_text_is_decoded_by_its_charset_with_errors_replaced():
    assert content_of("grün".encode("cp1252"), "text", "ISO-8859-1", whole=True) == ("grün", True)
    assert content_of(b"gr\xfcn", "text", '"utf-8"', whole=True) == ("gr�n", True)
    assert content_of("﻿ok".encode(), "text", "", whole=True) == ("ok", True)
    assert content_of("grün".encode("utf-16"), "text", "utf-16", whole=True) == ("grün", True)


def test_cut_text_ends_with_a_whole_word():
    assert content_of(b"see token ghp_abcdef", "text", "", whole=False) == ("see token", False)
    assert content_of(b"see token ", "text", "", whole=False) == ("see token", False)
    assert content_of(b" ", "text", "", whole=False) == (NOTHING, False)
    assert content_of(b"x" * 100, "text", "", whole=False) == (NOTHING, False)


def test_binary_data_in_the_name_of_text_is_not_shown():
    assert content_of(b"a\0b", "text", "", whole=True) == (NOTHING, False)


@settings(max_examples=300, deadline=None)
@given(
    st.binary(max_size=30),
    st.sampled_from(["json", "form", "text"]),
    st.sampled_from(sorted(body_content._CHARSETS)),
    st.booleans(),
)
def test_any_bytes_in_any_charset_are_read(data, kind, charset, whole):
    for written in (data, data.hex("%").encode(), b"a=%" + data.hex("%").encode()):
        content_of(written, kind, charset, whole=whole)


def test_a_charset_from_the_client_never_makes_python_import_a_module():
    assert codec_of("zlib_codec") == codec_of("__main__") == codec_of("idna") == "utf-8"
    assert codec_of(" UTF-8 ") == "utf-8"
