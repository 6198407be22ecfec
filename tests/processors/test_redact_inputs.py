"""Errors of pydantic and FastAPI about values that did not validate show no secret."""

from __future__ import annotations

import json
import time
from typing import Any

import pydantic
import pytest
from fastapi.exceptions import ResponseValidationError
from hypothesis import given
from hypothesis import strategies as st

from fapilog.processors.redact import RedactProcessor
from fapilog.record import LogRecord
from tests.support.redaction import redacted

SECRET = "S3CRET-7"


class Login(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")
    password: int
    count: int = 0
    inner: dict[str, int] = {}

    @pydantic.field_validator("password", mode="before")
    @classmethod
    def known(cls, value: Any) -> Any:
        if value == SECRET:
            raise ValueError(f"{value} is no number")
        return value


def told(**values: Any) -> str:
    with pytest.raises(pydantic.ValidationError) as raised:
        Login(**values)
    return str(raised.value)


def text(given_text: str) -> str:
    result: Any = redacted(given_text).body
    assert redacted(result).body == result, "redacting again changes nothing"
    return str(result)


def test_the_value_of_a_secret_field_is_masked_and_others_stay():
    shown = text(told(password="x" + SECRET, count="many")).splitlines()
    assert shown[1:3] == [
        "password",
        "  [REDACTED] [type=int_parsing, input_value='[REDACTED]', input_type=str]",
    ]
    assert "count" in shown
    assert shown[-2].endswith("[type=int_parsing, input_value='many', input_type=str]")


@pytest.mark.parametrize(
    "values",
    [
        {"password": SECRET},
        {"password": {"a": {"b": SECRET}}},
        {"password": [SECRET, "x]y"]},
        {"password": f"it's \"{SECRET}', input_type=str]"},
        {"password": "1" * 60 + SECRET},
        {"password": 1, "inner": {"api_key": SECRET}},
        {"password": 1, "token": SECRET},
        {"count": SECRET + "x", "password": {"x": SECRET}, "inner": {"a": 1}} | {"count": 1},
    ],
)
@pytest.mark.parametrize(
    "wrap",
    [
        str,
        repr,
        lambda error: json.dumps({"detail": error}),
        lambda error: "".join(f"  | {line}\n" for line in error.splitlines()),
    ],
    ids=["text", "repr", "json", "group"],
)
def test_no_secret_is_left_in_any_form_of_the_text(values, wrap):
    assert SECRET not in text(wrap(told(**values)))


@pytest.mark.parametrize("length", range(60))
def test_a_value_that_pydantic_has_cut_from_its_name_is_masked(length):
    values = {"a" * length: 1, "password": SECRET, "z": 1}
    with pytest.raises(pydantic.ValidationError) as raised:
        pydantic.TypeAdapter(int).validate_python(values)
    assert SECRET not in text(str(raised.value))


@pytest.mark.parametrize("value", [SECRET, 5730017, [SECRET], {"a": [SECRET]}, {SECRET}])
@pytest.mark.parametrize("show", [str, lambda error: str(error.errors())], ids=["text", "errors"])
def test_values_of_a_response_that_did_not_validate_are_masked(value, show):
    error = {"type": "x", "loc": ("response", "password"), "msg": "no", "input": value}
    other = {"type": "x", "loc": ("response", "count"), "msg": "no", "input": "many"}
    shown = text(show(ResponseValidationError([other, error])))
    assert SECRET not in shown
    assert "5730017" not in shown
    assert "'loc': ('response', 'password'), 'msg': '[REDACTED]'" in shown
    assert "'loc': ('response', 'count'), 'msg': 'no', 'input': 'many'}" in shown


def test_json_of_errors_is_masked_as_well():
    error = {"type": "x", "loc": ["body", "token"], "msg": SECRET, "input": SECRET, "ctx": {}}
    assert SECRET not in text("answered " + json.dumps({"detail": [error]}))


@pytest.mark.parametrize(
    "given_text",
    [
        told(password=1, count="many"),
        "token\n  File [type=x]",
        "[type=list_type]\npassword rules\n see below",
        "{'loc': ('body', 'count'), 'input': 'many'}",
    ],
)
def test_a_text_without_a_secret_place_stays_as_it_is(given_text):
    assert text(given_text) == given_text


@given(st.text(min_size=6, alphabet=st.characters(exclude_categories=["Cs"])))
def test_any_value_of_a_secret_field_is_masked(value):
    secret = f"S3C{value}RET"
    for shown in (told(password=secret), told(password=[secret]), told(password={secret: 1})):
        assert "S3C" not in text(shown)


TRIGGERS = [
    " validation error for ", "password\n  ", "[type=", "[type=a]\n", "[type=a]\npassword\n  ", ", input_type=", ", input_type=]\\n",
    ", input_value=", "input_value=...", "input_value=", "input_value='", "input_value='...", "...", "'loc': (", "'loc': ('password'), ",
    "'loc': ('token'), 'msg': '", "'loc': ('token'), 'msg': {", "'loc': ('token',), 'input': 1", ", 'ctx': ", "loc", "loc\\", "| ", "\n | ",
    " validation error for a\npassword\n  x [type=a, input_value='", " validation error for a\npassword\n  ", "password", "'loc': (','), ",
]  # fmt: skip


@pytest.mark.parametrize("trigger", TRIGGERS)
def test_hostile_text_takes_time_in_proportion_to_its_length(trigger):
    processor = RedactProcessor()
    hint = "password= input_value= 1 validation error for x\ntoken\n  y [type=a]\n"
    start = time.process_time()
    for body in (trigger * (65_536 // len(trigger)), hint + trigger * (65_536 // len(trigger))):
        processor(LogRecord(body=body))
    assert time.process_time() - start < 2
