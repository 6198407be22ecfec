"""The parts of a request are those that httpx would send."""

from __future__ import annotations

import httpx
import pytest

from fapilog.errors import ConfigurationError
from fapilog.sinks import LokiSink, OTLPSink
from fapilog.sinks.http.request import Request, Response, target_of

URLS = [
    "http://h",
    "http://H:80/a b?c=d e",
    "https://h:443/x",
    "https://h:80/v1/logs",
    "http://h:8080",
    "http://h?x=1",
    "http://h./",
    "http://a_b/x",
    "http://1.2.3.4:4318/",
    "http://[::1]:4318/v1/logs",
    "http://[fe80::1%25eth0]:1/",
    "http://münchen.de/ü?x=ü",
    "http://faß.de/",
    "http://日本.jp",
]


@pytest.mark.parametrize("url", URLS)
def test_host_port_path_and_headers_are_those_of_httpx(url):
    theirs = httpx.Request("POST", url, headers={"user-agent": "x"}, content=b"abc")
    target = target_of(url)
    ours = Request(target, [(b"user-agent", b"x")], b"abc", 0.0)
    assert target == (
        theirs.url.raw_scheme,
        theirs.url.raw_host,
        theirs.url.port,
        theirs.url.raw_path,
    )
    assert ours.all_headers == theirs.headers.raw


def test_only_what_a_url_cannot_contain_is_escaped():
    odd = target_of("http://h/a%20b;c=d@e:f,g$h!*()~{}|^`\\?x=[1]&y=a%zz'\"<>{}")
    path, _, query = odd.path.partition(b"?")
    assert path == b"/a%20b;c=d@e:f,g$h!*()~%7B%7D|^%60\\"
    assert query == b"x=[1]&y=a%zz'%22%3C%3E{}"


def test_a_host_header_of_the_user_replaces_the_own_one():
    request = Request(target_of("http://h"), [(b"host", b"other")], b"", 0.0)
    assert request.all_headers == [(b"host", b"other"), (b"Content-Length", b"0")]


@pytest.mark.parametrize("url", ["http://999.1.1.1", "http://[::g]", "http://xn--a\u0378.de"])
@pytest.mark.parametrize("make", [OTLPSink, LokiSink])
def test_a_host_that_cannot_exist_is_an_error_at_start(make, url):
    with pytest.raises(ConfigurationError, match=r"http://h"):
        make(url).open()


def test_a_header_that_occurs_twice_has_both_values_whatever_its_case():
    headers = [(b"Retry-After", b"1"), (b"retry-after", b"2"), (b"x", b"\xe9")]
    response = Response(307, headers, [], lambda: None)
    assert response.header("retry-after") == "1, 2"
    assert response.header("x") == "é"
    assert response.header("location") is None
    assert response.redirects_to is None
