"""Redaction masks secrets by name and by shape anywhere in a record, and changes nothing else."""

from __future__ import annotations

import base64
import collections
import dataclasses
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fapilog import Runtime
from fapilog.errors import ConfigurationError
from fapilog.processors.redact import MASK, RedactProcessor, mask_record
from fapilog.record import LogRecord, Resource, Scope
from fapilog.sinks import MemorySink
from fapilog.values import normalise
from tests.support.redaction import JWT, redacted

# ---- names


@pytest.mark.parametrize(
    "name",
    [
        "password", "Password", "PASSWORD", "userPassword", "user_password", "db.password", "password2",
        "new-password", "passwd", "pwd", "PGPASSWORD", "dbpassword", "passphrase", "api_key", "X-Api-Key",
        "apiKey", "APIKey", "apikey", "OPENAI_API_KEY", "api key", "accessToken", "access_token", "token",
        "csrf_token", "X-CSRF-Token", "client_secret", "secret", "SECRET_KEY_BASE", "aws_secret_access_key",
        "AWS_SECRET_ACCESS_KEY", "x-amz-security-token", "authorization", "Authorization",
        "Proxy-Authorization", "http.request.header.authorization", "auth", "basic_auth", "cookie",
        "set-cookie", "Set-Cookie", "http.request.header.cookie", "private_key", "privateKey", "AccountKey",
        "SharedAccessKey", "credit_card", "creditCardNumber", "card_number", "cvv", "CVV2", "ssn",
        "session_id", "sessionId", "PHPSESSID", "JSESSIONID", "jwt", "credentials", "db_pass", "otp",
        "token_prod", "api_key_openai", "password_hash",
    ],
)  # fmt: skip
def test_the_value_of_a_secret_name_is_masked(name):
    record = redacted("done", **{name: "s3cr3t-value", "user": "ann"})
    assert record.attributes == {name: MASK, "user": "ann"}


@pytest.mark.parametrize(
    "name",
    [
        "author", "authors", "authority", "authenticated", "tokenizer", "tokens", "max_tokens",
        "total_tokens", "gen_ai.usage.input_tokens", "token_count", "token_type", "secretary", "secret_name",
        "cookie_consent", "cookie_domain", "password_reset_required", "password_policy", "password_expires_at",
        "auth_method", "auth_provider", "session.id", "session", "key", "primary_key", "keyboard", "monkey",
        "passport", "passenger", "compass", "card", "cardinality", "description", "pin", "signature", "sign",
        "oauth_scope", "broken", "spinner", "api_key_id", "private_key_path", "user_agent.original", "url.path",
        "http.route", "code.function.name", "exception.type", "db.query.text", "idempotency_key",
    ],
)  # fmt: skip
def test_a_name_that_only_looks_alike_is_left_alone(name):
    assert redacted("done", **{name: "value"}).attributes == {name: "value"}


def test_standard_attribute_names_are_left_alone():
    import importlib
    import pkgutil

    import opentelemetry.semconv.attributes as stable

    names = {
        value
        for module in pkgutil.iter_modules(stable.__path__)
        for name, value in vars(importlib.import_module(f"{stable.__name__}.{module.name}")).items()
        if name.isupper() and isinstance(value, str) and "template" not in name.lower()
    }
    assert len(names) > 50
    assert redacted(**dict.fromkeys(names, "x")).attributes == dict.fromkeys(names, "x")


def test_none_and_booleans_are_no_secrets():
    values = {"password": None, "token": True, "secret": False}
    assert redacted(**values).attributes == values


def test_numbers_and_containers_of_a_secret_name_are_masked_whole():
    record = redacted(cvv=123, credentials={"user": "u", "key": ["a"]}, cookie=[1], secret=b"x")
    assert set(record.attributes.values()) == {MASK}


def test_secret_names_are_found_at_any_depth_of_body_and_attributes():
    value = {"a": [{"b": {"password": "s3cr3t", "n": 1}}, [["x", {"token": "s3cr3t"}]]]}
    expected = {"a": [{"b": {"password": MASK, "n": 1}}, [["x", {"token": MASK}]]]}
    record = redacted(value, nested=value)
    assert record.body == expected
    assert record.attributes == {"nested": expected}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (
            [["authorization", "Token s3"], ["host", "h"]],
            [["authorization", MASK], ["host", "h"]],
        ),
        ([(b"cookie", b"a=s3"), (b"host", b"h")], [[b"cookie", MASK], [b"host", b"h"]]),
        (
            [{"name": "Authorization", "value": "s3"}, {"name": "Host", "value": "h"}],
            [{"name": "Authorization", "value": MASK}, {"name": "Host", "value": "h"}],
        ),
        ([{"Key": "api_key", "Value": "s3"}], [{"Key": "api_key", "Value": MASK}]),
        ({"header": b"set-cookie", "values": ["s3"]}, {"header": b"set-cookie", "values": MASK}),
    ],
)
def test_a_name_beside_its_value_is_seen(value, expected):
    assert redacted(headers=value).attributes["headers"] == expected


@pytest.mark.parametrize(
    "location",
    [("body", "password"), ["query", "user", "api_key", 0], "body.token.type", "response.password"],
)
def test_the_value_that_did_not_validate_is_masked_where_its_place_is_secret(location):
    error = {
        "type": "x",
        "loc": location,
        "msg": "s3cr3t",
        "input": "s3cr3t",
        "ctx": {"e": "s3cr3t"},
    }
    (told,) = redacted(errors=[error]).attributes["errors"]
    assert told["type"] == "x"
    assert "s3cr3t" not in repr(told)


@pytest.mark.parametrize(
    "mapping",
    [
        {"type": "x", "loc": ["body", "count"], "msg": "no number", "input": "many"},
        {"loc": "app/token.py", "msg": "started"},
    ],
)
def test_other_places_keep_their_values(mapping):
    assert redacted(at=[mapping]).attributes["at"] == [mapping]


@pytest.mark.parametrize(
    ("pair", "expected"),
    [
        (("authorization", "swordfish"), ["authorization", MASK]),
        ([b"password", b"hunter2"], [b"password", MASK]),
        (["otp", 123456], ["otp", MASK]),
        (["password", None], ["password", None]),
        (["host", "example"], ["host", "example"]),
    ],
)
def test_a_name_and_its_value_are_seen_if_they_are_the_whole_value(pair, expected):
    assert redacted(header=pair).attributes == {"header": expected}
    assert redacted(headers={"h": pair}).attributes == {"headers": {"h": expected}}
    assert redacted(pair).body == expected
    assert redacted([1, {"headers": [pair]}]).body == [1, {"headers": [expected]}]


def test_a_secret_in_a_list_of_names_is_masked_if_it_is_not_a_word():
    assert redacted(headers=["cookie", "a=b7"]).attributes == {"headers": ["cookie", MASK]}


def test_lists_of_names_are_left_alone():
    names = ["password", "email"]
    schema = {"required": ["password", "email"], "n": [{"missing": ["token", "user_name"]}]}
    assert redacted(schema).body == schema
    assert redacted(fields=names, other=["password", "email", "token"]).attributes == {
        "fields": names,
        "other": ["password", "email", "token"],
    }


# ---- values without a snapshot


def test_objects_that_processors_put_in_are_looked_into():
    @dataclasses.dataclass
    class Login:
        user: str
        password: str

    class Text(str):
        __slots__ = ()

    record = redacted(
        Login("ann", "s3cr3t"),
        login=Login("bob", "s3cr3t"),
        headers=collections.OrderedDict(authorization="s3cr3t"),
        pair=(("cookie", "s3cr3t"), 1),
        text=Text("password=s3cr3t"),
        data=bytearray(b"token=s3cr3t"),
        mapping={b"password": "s3cr3t", 1: "one"},
    )
    assert "s3cr3t" not in repr(record)
    assert record.body == {"user": "ann", "password": MASK}
    assert record.attributes["mapping"]["1"] == "one"


def test_the_applications_own_objects_are_not_changed():
    shared = {"password": "s3cr3t", "list": [{"token": "t"}]}
    redacted("x", config=shared)
    assert shared == {"password": "s3cr3t", "list": [{"token": "t"}]}


def test_cyclic_and_bottomless_values_are_harmless():
    loop: list[Any] = []
    loop += [loop, loop, {"password": "s3cr3t"}]
    deep: Any = {"password": "s3cr3t"}
    for _ in range(5000):
        deep = [deep]
    assert "s3cr3t" not in repr(redacted(loop, loop=loop, deep=deep))


def test_values_within_wider_limits_than_the_default_are_kept():
    value = {"numbers": list(range(5000)), "password": "s3cr3t"}
    assert redacted("x", v=value).attributes["v"] == {
        "numbers": list(range(5000)),
        "password": MASK,
    }


# ---- options


def test_fields_replace_the_default_names_and_extra_fields_add_to_them():
    only = RedactProcessor(["customer_email"])
    record = only(LogRecord(attributes={"customerEmail": "a", "password": "b"}))
    assert record.attributes == {"customerEmail": MASK, "password": "b"}
    more = RedactProcessor(extra_fields=["customer_email"])
    record = more(LogRecord(attributes={"customerEmail": "a", "password": "b"}))
    assert record.attributes == {"customerEmail": MASK, "password": MASK}
    assert (
        more(LogRecord(body="customer_email=ann@x.org, n=1")).body
        == "customer_email=[REDACTED], n=1"
    )


def test_an_allowed_name_is_left_alone_in_any_spelling():
    processor = RedactProcessor(allow=["session_id", "csrf-token"])
    attributes = {"sessionId": "1", "session.id": "2", "csrfToken": "3"}
    assert processor(LogRecord(attributes=dict(attributes))).attributes == attributes
    assert processor(LogRecord(attributes={"my_session_id": "1"})).attributes == {
        "my_session_id": MASK
    }
    assert processor(LogRecord(attributes={"session_id": "password=s3"})).attributes == {
        "session_id": "password=[REDACTED]"
    }


def test_further_patterns_mask_their_match_or_its_secret_group():
    processor = RedactProcessor(patterns=[r"\bEMP\d+", re.compile("iban (?P<secret>[A-Z0-9]+)")])
    record = processor(
        LogRecord(body="EMP123 has iban DE02 ok", attributes={"x": ["EMP9"], "EMP7": 1})
    )
    assert record.body == "[REDACTED] has iban [REDACTED] ok"
    assert record.attributes == {"x": ["[REDACTED]"], "[REDACTED]": 1}
    assert processor.counts["custom"] == 4


def test_another_mask_can_be_chosen():
    assert (
        RedactProcessor(mask="***")(LogRecord(body="pwd=x", attributes={"otp": 1})).body
        == "pwd=***"
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"fields": "password"}, "fields must be a list"),
        ({"extra_fields": ["a", 5]}, "extra_fields must be a list"),
        ({"allow": b"x"}, "allow must be a list"),
        ({"patterns": ["("]}, "patterns: .* is not a regular expression"),
        ({"patterns": [5]}, "patterns: 5 is not a regular expression"),
        ({"patterns": "abc"}, "patterns must be a list"),
        ({"patterns": [re.compile(b"x")]}, "patterns: .* is for bytes"),
        ({"mask": ""}, "mask"),
        ({"mask": "█"}, "mask"),
        ({"mask": None}, "mask"),
    ],
)
def test_a_wrong_option_is_refused_by_name(options, words):
    with pytest.raises(ConfigurationError, match=words):
        RedactProcessor(**options)


def test_masked_values_are_counted_by_rule():
    processor = RedactProcessor()
    processor(
        LogRecord(
            body=f"Bearer abcdefgh1 {JWT}", attributes={"password": "x", "note": "pwd=1 otp=2"}
        )
    )
    assert processor.redacted == 5
    counted = {rule: count for rule, count in processor.counts.items() if count}
    assert counted == {"field": 1, "pair": 2, "bearer": 1, "jwt": 1}


def test_many_names_do_not_fill_the_memory():
    processor = RedactProcessor()
    for number in range(10_000):
        processor(
            LogRecord(body="x", attributes={f"n{'x' * (number % 7)}_{number}": {f"k{number}": 1}})
        )
    assert len(processor._harmless) <= 4096
    assert processor._fields._decided.cache_info().currsize <= 4096


# ---- resource, scope, whole records


def test_a_mapping_is_redacted_into_a_copy():
    attributes = {
        "service.name": "shop",
        "db.url": "x://u:s3cr3t@h",
        "token": "s3cr3t",
        "n": (1, 2),
    }
    result = RedactProcessor().redact_mapping(attributes)
    assert result == {
        "service.name": "shop",
        "db.url": "x://u:[REDACTED]@h",
        "token": MASK,
        "n": [1, 2],
    }
    assert attributes["token"] == "s3cr3t"


def test_masking_a_record_keeps_where_it_came_from():
    scope, resource = Scope("app"), Resource({"a": 1})
    record = LogRecord(
        1, 2, 9, "INFO", {"a": "s3cr3t"}, {"b": "s3cr3t", "c": ["s3cr3t"]}, "event", "0" * 31 + "1", "0" * 15 + "1",
        1, scope, resource,
    )  # fmt: skip
    mask_record(record, "redaction failed: KeyError")
    assert record.body == MASK
    assert record.attributes == {
        "b": MASK,
        "c": MASK,
        "fapilog.masked": "redaction failed: KeyError",
    }
    assert (record.timestamp, record.observed_timestamp, record.severity_number) == (1, 2, 9)
    assert (record.severity_text, record.event_name, record.trace_flags) == ("INFO", "event", 1)
    assert (record.scope, record.resource) == (scope, resource)
    record.attributes = None  # type: ignore[assignment]
    mask_record(record, "x")
    assert record.attributes == {"fapilog.masked": "x"}


# ---- any secret anywhere

SECRET = "Zq7" + "xW9vK2mN4pR8"
safe_names = st.sampled_from(["user", "items", "author", "n", "order.id", "tokenizer"])
secret_names = st.sampled_from(
    ["password", "db.password", "X-Api-Key", "accessToken", "client_secret", "cookie"]
)
texts_with_secret = st.sampled_from(
    [
        f"Bearer {SECRET}", f"password={SECRET}", f"x://u:{SECRET}@h/p", f'{{"token": "{SECRET}"}}',
        f"{{'secret': '{SECRET}'}}", f"GET /a?api_key={SECRET}&b=1", f"--password {SECRET}",
        f"Cookie: sid={SECRET}; a=b", f"-----BEGIN PRIVATE KEY-----\n{SECRET}",
        "Basic " + base64.b64encode(f"u:{SECRET}".encode()).decode(), f"gh{'p_'}{SECRET}{SECRET}",
    ]
)  # fmt: skip
noise = st.one_of(
    st.none(), st.integers(), st.text(max_size=20), st.binary(max_size=10), st.floats()
)


@st.composite
def planted(draw: Any) -> Any:
    """A value that contains a secret."""
    around = st.text(alphabet="abc .,\n", max_size=8)
    found = draw(texts_with_secret)
    leaf = draw(
        st.sampled_from(
            [
                found,
                f"{draw(around)} {found}\n{draw(around)}",
                found.encode(),
                {
                    draw(secret_names): draw(
                        st.sampled_from([SECRET, [SECRET], {"x": SECRET}, SECRET.encode()])
                    )
                },
                {found: 1},
                [[draw(secret_names), SECRET]],
                [{"name": draw(secret_names), "value": SECRET}],
            ]
        )
    )
    for _ in range(draw(st.integers(0, 5))):
        leaf = draw(
            st.sampled_from(
                [
                    [leaf],
                    (draw(noise), leaf),
                    {draw(safe_names): leaf},
                    [draw(noise), [leaf]],
                    {"a": draw(noise), "b": leaf},
                ]
            )
        )
    return leaf


@given(
    planted(),
    safe_names,
    st.sampled_from(["body", "attribute", "exception.message", "both"]),
    noise,
)
def test_a_secret_planted_anywhere_never_comes_out(value, name, place, other):
    record = LogRecord(body="done", attributes={"other": other})
    if place in ("body", "both"):
        record.body = value
    if place != "body":
        record.attributes[name if place == "attribute" else place] = value
    RedactProcessor()(record)
    shown = f"{record.body!r}{record.attributes!r}"
    assert SECRET not in shown
    assert base64.b64encode(f"u:{SECRET}".encode()).decode() not in shown
    normalise(record)
    assert SECRET not in f"{record.body!r}{record.attributes!r}"


@given(
    st.dictionaries(
        safe_names,
        st.one_of(st.text(alphabet="abcdefg hi", max_size=30), st.integers(-9, 9)),
        max_size=5,
    )
)
def test_what_holds_no_secret_survives(attributes):
    assert redacted("done", **attributes).attributes == attributes
    assert redacted(attributes).body == attributes


@pytest.mark.parametrize(
    ("argv", "masked"),
    [
        (["--password", "hunter2"], ["--password", MASK]),
        (["run", "--api-key", "k", "-v"], ["run", "--api-key", MASK, "-v"]),
        (["--token=abc"], ["--token=" + MASK]),
        (["--password", ["a"], "b"], ["--password", ["a"], "b"]),
        (["--verbose", "yes", "password", "x"], ["--verbose", "yes", "password", "x"]),
    ],
)
def test_the_value_behind_a_command_line_option_is_masked(argv, masked):
    record = LogRecord(attributes={"argv": argv})
    assert RedactProcessor()(record).attributes == {"argv": masked}


@pytest.mark.parametrize(
    ("body", "attributes", "expected"),
    [
        ("login ada hunter2", {"password": "hunter2"}, "login ada [REDACTED]"),
        ("pin 4711 ok", {"pin_code": 4711, "password": 4711}, "pin [REDACTED] ok"),
        ("for tok-en!", {"request": {"headers": {"api_key": "tok-en!"}}}, "for [REDACTED]"),
        ("key b'abcd1'", {"password": b"abcd1"}, "key b'[REDACTED]'"),
        ("hunter22 xhunter2 hunter2_", {"password": "hunter2"}, "hunter22 xhunter2 hunter2_"),
        ("a cat", {"password": "cat"}, "a cat"),  # too short: an ordinary word
        ("is True and None", {"password": None, "secret": True}, "is True and None"),
    ],
)
def test_the_value_of_a_secret_field_is_masked_in_the_message_too(body, attributes, expected):
    assert RedactProcessor()(LogRecord(body=body, attributes=attributes)).body == expected


def test_the_value_of_a_secret_field_is_masked_in_other_attributes_too():
    record = LogRecord(
        body="failed",
        attributes={"password": "hunter2", "exception.message": "no user with hunter2"},
    )
    masked = RedactProcessor()(record)
    assert masked.attributes["exception.message"] == "no user with [REDACTED]"


def test_a_placeholder_that_names_a_secret_does_not_show_it():
    sink = MemorySink()
    with Runtime(sinks=[sink]) as runtime:
        orders = runtime.get_logger("orders")
        orders.info("login {user} {password} {}", 1, user="ada", password="hunter2")
    assert sink.records[0].body == "login ada [REDACTED] 1"
