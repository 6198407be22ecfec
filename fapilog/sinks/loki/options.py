"""The options of the Loki sink, which are checked once, when the sink is made.

Loki makes a stream for each distinct set of label values, so an attribute that differs per
process or request cannot be a label.
Source: https://grafana.com/docs/loki/latest/get-started/labels/bp-labels/
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, get_args

from fapilog.errors import ConfigurationError
from fapilog.options.checks import NONE, SECONDS, Rule, check_all, names, one_of
from fapilog.sinks.http.options import (
    DEFAULT_TIMEOUT,
    FilePath,
    HTTPOptions,
    basic,
    checked_headers,
    credentials_of,
    join_url,
    pem_files,
    split_url,
    user_agent,
)
from fapilog.sinks.loki.metadata import SEVERITY, label_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

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
_RULES: Final = {
    "timeout": SECONDS,
    "tenant": NONE  # Loki refuses every push with a tenant that breaks this rule
    | Rule(
        lambda value: isinstance(value, str) and bool(_TENANT.fullmatch(value)),
        "1 to 150 letters, digits or !-_.*'()",
    ),
    "format": one_of(*get_args(Format)),
    "line": one_of(*get_args(Line)),
}
#: Names that cannot be labels, because their values would create too many streams.
_NO_LABELS: Final = frozenset(
    {"trace_id", "span_id", "service_instance_id", "log_record_uid", "process_pid"}
)


@dataclass(frozen=True, kw_only=True)
class PushOptions(HTTPOptions):
    """The checked options of a Loki sink; ``LokiSink`` explains them."""

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
    """Check the arguments of ``LokiSink``, and return them as options."""
    given = {"timeout": timeout, "tenant": tenant, "format": format, "line": line}
    check_all(_RULES, given)
    parts = split_url(url, "url", _FORM)
    given_headers = checked_headers(headers or {}, "headers")
    authorization = _authorization(username, password, token) or credentials_of(parts)
    if authorization:
        given_headers.setdefault("authorization", authorization)
    return PushOptions(
        endpoint=join_url(parts, parts.path if parts.path.strip("/") else PUSH_PATH),
        headers=given_headers,
        timeout=float(timeout),
        tenant=tenant or "",
        format=format,
        line=line,
        labels=_labels(labels),
        **pem_files(
            (certificate, "certificate"),
            (client_key, "client_key"),
            (client_certificate, "client_certificate"),
        ),
    )


def _authorization(username: str | None, password: str | None, token: str | None) -> str:
    """Return the value of ``Authorization``, or "" without credentials."""
    secrets = {"username": username, "password": password, "token": token}
    for option, value in secrets.items():
        if value is not None and not (isinstance(value, str) and value and value.isprintable()):
            msg = f"{option} must be a str of printable characters, not empty"
            raise ConfigurationError(msg, option)
    if (username is None) != (password is None):
        msg = "username and password belong together: give both, or a token alone"
        raise ConfigurationError(msg, "password" if username is None else "username")
    if token is not None and username is not None:
        msg = "token and username cannot be combined: give only one of them"
        raise ConfigurationError(msg, "token")
    if username is not None:
        return basic(username, password or "")
    if token is not None and not token.isascii():
        msg = "token must be a str of printable ASCII characters"
        raise ConfigurationError(msg, "token")
    return f"Bearer {token}" if token is not None else ""


def _labels(given: Iterable[str]) -> tuple[str, ...]:
    labels = tuple(dict.fromkeys(names("labels", given, '["service.name", "severity"]')))
    fix = ""
    for name in labels:
        if not 0 < len(name) < MAX_LABEL_NAME:
            fix = f"{name!r:.100} cannot be the name of a label"
        if label_name(name) in _NO_LABELS:
            fix = (
                f"{name!r} would make a stream for each of its values; leave it out, because "
                "the sink sends it as structured metadata"
            )
    if not 0 < len(labels) <= MAX_LABELS:
        fix = f"give 1 to {MAX_LABELS} names (Loki's limit), not {len(labels)}"
    if fix:
        msg = f"labels: {fix}"
        raise ConfigurationError(msg, "labels")
    return labels
