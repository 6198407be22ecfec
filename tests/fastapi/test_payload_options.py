from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
from fapilog_fastapi.payloads import PayloadLogging

from fapilog import ConfigurationError

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize(
    ("options", "fix"),
    [
        ({"request_headers": "x-client"}, r"request_headers=.*: use a list of names"),
        ({"request_headers": 3}, r"request_headers=.*: use a list of names"),
        ({"request_headers": ["*"]}, r"request_headers: '\*' .* name each header"),
        ({"response_headers": ["a b"]}, r"response_headers: 'a b' is not the name of a header"),
        ({"request_bodies": "/orders"}, r'request_bodies=.*: use a list .*"/orders/\{id\}"'),
        (
            {"request_bodies": ["orders"]},
            r"request_bodies: 'orders' is not a path; begin it with '/'",
        ),
        ({"response_bodies": ["/a/{x"]}, r"response_bodies: '/a/\{x' is not a route; write"),
        ({"response_bodies": ["/**/x/**"]}, r"two wildcards in one segment, or two"),
        ({"response_bodies": ["/a/{x}-{y}"]}, r"two wildcards in one segment"),
        ({"body_types": ["json"]}, r"body_types: 'json' is not a content type; write"),
        ({"body_types": ["text/plain; charset=utf-8"]}, r"without parameters"),
        ({"body_limit": 0}, r"body_limit=0: use a whole number of bytes from 1 to 65536"),
        ({"body_limit": 65_537}, r"body_limit=65537: use a whole number"),
        ({"body_limit": True}, r"body_limit=True: use a whole number"),
        ({"body_statuses": "5xx"}, r"body_statuses='5xx': use a list .*such as \[422, '5xx'\]"),
        ({"body_statuses": 500}, r"body_statuses=500: use a list"),
        ({"body_statuses": [99]}, r"body_statuses=99: use a list"),
        ({"body_statuses": ["6xx"]}, r"body_statuses='6xx': use a list"),
    ],
)
def test_a_wrong_option_is_named_with_its_fix(options, fix):
    with pytest.raises(ConfigurationError, match=fix):
        PayloadLogging(**options)


def test_options_are_frozen_and_compare_by_value():
    options = PayloadLogging(request_headers=["X-Client"], body_statuses=["5xx"])
    with pytest.raises(dataclasses.FrozenInstanceError):
        options.body_limit = 1  # type: ignore[misc]
    assert options == PayloadLogging(request_headers=("x-client",), body_statuses=("5xx",))
    assert hash(options) == hash(
        PayloadLogging(request_headers=["x-client"], body_statuses=["5xx"])
    )


@pytest.mark.parametrize(
    ("pattern", "path", "listed"),
    [
        ("/orders", "/orders", True),
        ("/orders", "/orders/1", False),
        ("/orders/{id}", "/orders/1", True),
        ("/orders/{id:int}", "/orders/1", True),
        ("/orders/{id}", "/orders/1/items", False),
        ("/orders/{id}", "/orders/", False),
        ("/orders/{id}/items", "/orders/1/items", True),
        ("/files/{path:path}", "/files/a/b", True),
        ("/api/**", "/api", True),
        ("/api/**", "/api/a/b", True),
        ("/api/**", "/apiary", False),
        ("/api/**/end", "/api/a/b/end", True),
        ("/v*/x.json", "/v1/x.json", True),
        ("/v*/x.json", "/v1/xyjson", False),
        ("/v*/x.json", "/v1/2/x.json", False),
        ("/**", "/", True),
        ("/**", "/any\nthing", True),
    ],
)
def test_paths_are_listed_as_routes_are_written(pattern, path, listed):
    options = PayloadLogging(request_bodies=[pattern])
    assert options.wants_request_body({"path": path}) is listed
    assert options.wants_response_body({"path": path}) is False


def test_a_path_is_also_found_after_the_root_path():
    options = PayloadLogging(request_bodies=["/orders"])
    assert options.wants_request_body({"path": "/shop/orders", "root_path": "/shop"})
    assert not options.wants_request_body({"path": "/shop/orders", "root_path": "/sh"})


@pytest.mark.parametrize(
    ("media_type", "wanted"),
    [
        ("application/json", True),
        ("application/problem+json", True),
        ("application/x-www-form-urlencoded", True),
        ("text/plain", True),
        ("text/html", False),
        ("image/png", False),
        ("", False),
    ],
)
def test_json_text_and_forms_are_the_default_types(media_type, wanted):
    assert PayloadLogging().wants_type(media_type) is wanted
    assert not PayloadLogging(body_types=[]).wants_type(media_type)


def test_statuses_are_numbers_and_classes_and_a_missing_response_is_a_failure():
    options = PayloadLogging(body_statuses=[422, "5XX"])
    wanted = [status for status in (200, 400, 422, 499, 500, 599) if options.wants_status(status)]
    assert wanted == [422, 500, 599]
    assert options.wants_status(None)
    assert PayloadLogging().wants_status(200)


def test_every_option_is_documented_with_its_default():
    page = (DOCS / "fastapi-payloads.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`[a-z_`, ]+`) \| ([^|]*) \|", page, re.MULTILINE)
    documented = {name: default for names, default in rows for name in re.findall(r"\w+", names)}
    options = [option for option in dataclasses.fields(PayloadLogging) if option.init]
    assert set(documented) == {option.name for option in options}
    assert documented["body_limit"] == str(PayloadLogging().body_limit)
