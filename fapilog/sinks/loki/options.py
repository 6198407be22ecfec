"""Options of the Loki sink, checked once, when the sink is made.

Labels are an allow list: every distinct set of their values is a stream of its
own in Loki, so what is different for every process or request can be none.
Source: https://grafana.com/docs/loki/latest/get-started/labels/bp-labels/
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias, cast, get_args

from fapilog.errors import ConfigurationError
from fapilog.sinks.http.options import (
    DEFAULT_TIMEOUT,
    FilePath,
    HTTPOptions,
    basic,
    check_client_files,
    checked_headers,
    checked_timeout,
    credentials_of,
    join_url,
    readable_file,
    split_url,
    user_agent,
)
from fapilog.sinks.loki.metadata import SEVERITY, label_name

Format: TypeAlias = Literal["json", "protobuf"]
Line: TypeAlias = Literal["message", "json", "logfmt"]

USER_AGENT: Final = user_agent("loki")
PUSH_PATH: Final = "/loki/api/v1/push"
DEFAULT_LABELS: Final = (
    "service.name",
    "service.namespace",
    "deployment.environment.name",
    "deployment.environment",
    SEVERITY,
)
#: Loki's limits: https://grafana.com/docs/loki/latest/configure/#limits_config
MAX_LABELS: Final = 15
MAX_LABEL_NAME: Final = 1024

_FORM: Final = ": give it in the form http://host:3100"
_TENANT: Final = re.compile(r"(?!\.{1,2}$)[a-zA-Z0-9!_.*'()-]{1,150}")
#: A stream for each of their values would soon be more than Loki takes.
_NO_LABELS: Final = frozenset(
    {"trace_id", "span_id", "service_instance_id", "log_record_uid", "process_pid"}
)


@dataclass(frozen=True, kw_only=True)
class PushOptions(HTTPOptions):
    """Checked options of a Loki sink.

    Attributes:
        tenant: sent as ``X-Scope-OrgID``; "" for none.
        format: ``json`` or ``protobuf``.
        line: what an entry's line is: ``message``, ``json`` or ``logfmt``.
        labels: names of the resource's attributes that become labels, and
            ``severity``.
    """

    tenant: str = ""
    format: Format = "json"
    line: Line = "message"
    labels: tuple[str, ...] = DEFAULT_LABELS


def resolve(
    url: str,
    *,
    tenant: str | None = None,
    username: str | None = None,
    password: str | None = None,
    token: str | None = None,
    headers: Mapping[str, str] | None = None,
    format: Format = "json",  # noqa: A002 - the option's name
    line: Line = "message",
    labels: Iterable[str] = DEFAULT_LABELS,
    timeout: float = DEFAULT_TIMEOUT,
    certificate: FilePath | None = None,
    client_key: FilePath | None = None,
    client_certificate: FilePath | None = None,
) -> PushOptions:
    """Return the options that the arguments give; see ``LokiSink``.

    Raises:
        ConfigurationError: one is wrong; names it and the fix.
    """
    parts = split_url(url, "url", _FORM)
    given_headers = checked_headers(headers or {}, "headers")
    authorization = _authorization(username, password, token) or credentials_of(parts)
    if authorization:
        given_headers.setdefault("authorization", authorization)
    key = readable_file(client_key, "client_key")
    chain = readable_file(client_certificate, "client_certificate")
    check_client_files(key, chain)
    return PushOptions(
        endpoint=join_url(parts, parts.path if parts.path.strip("/") else PUSH_PATH),
        headers=given_headers,
        timeout=checked_timeout(timeout, "timeout"),
        certificate=readable_file(certificate, "certificate"),
        client_key=key,
        client_certificate=chain,
        tenant=_tenant(tenant),
        format=cast("Format", _one_of(format, Format, "format")),
        line=cast("Line", _one_of(line, Line, "line")),
        labels=_labels(labels),
    )


def _one_of(value: object, choices: Any, option: str) -> object:
    if value not in get_args(choices):
        msg = f"{option}={value!r}: use one of {', '.join(get_args(choices))}"
        raise ConfigurationError(msg)
    return value


def _authorization(username: str | None, password: str | None, token: str | None) -> str:
    """Return the value of the header, or "" where there are no credentials."""
    secrets = {"username": username, "password": password, "token": token}
    for option, value in secrets.items():
        if value is not None and not (isinstance(value, str) and value and value.isprintable()):
            msg = f"{option} must be a str of printable characters, not empty"
            raise ConfigurationError(msg)
    if (username is None) != (password is None):
        msg = "username and password belong together: give both, or a token alone"
        raise ConfigurationError(msg)
    if token is not None and username is not None:
        msg = "token and username exclude each other: give one of them"
        raise ConfigurationError(msg)
    if username is not None:
        return basic(username, password or "")
    if token is not None and not token.isascii():
        msg = "token must be of printable ASCII characters"
        raise ConfigurationError(msg)
    return f"Bearer {token}" if token is not None else ""


def _tenant(value: str | None) -> str:
    """Return a tenant by Loki's rule, which refuses every push of another one."""
    if value is None:
        return ""
    if not isinstance(value, str) or not _TENANT.fullmatch(value):
        msg = f"tenant={value!r}: give 1 to 150 letters, digits or !-_.*'()"
        raise ConfigurationError(msg)
    return value


def _labels(given: Iterable[str]) -> tuple[str, ...]:
    if isinstance(given, str) or not isinstance(given, Iterable):
        msg = f"labels={given!r}: give a list of names"
        raise ConfigurationError(msg)
    names = tuple(dict.fromkeys(given))
    for name in names:
        if not isinstance(name, str) or not 0 < len(name) < MAX_LABEL_NAME:
            msg = f"labels: {name!r:.100} is no name of a label"
            raise ConfigurationError(msg)
        if label_name(name) in _NO_LABELS:
            msg = (
                f"labels: {name!r} would make a stream of each of its values; leave it out, "
                "it is searched for as structured metadata"
            )
            raise ConfigurationError(msg)
    if not 0 < len(names) <= MAX_LABELS:
        msg = f"labels: give 1 to {MAX_LABELS} names, not {len(names)}; Loki takes no others"
        raise ConfigurationError(msg)
    return names
