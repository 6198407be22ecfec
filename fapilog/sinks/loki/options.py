"""The options of the Loki sink, which are checked once, when the sink is created.

Loki creates a stream for each distinct set of label values, so an attribute that differs per
process or request cannot be a label.  Source:
https://grafana.com/docs/loki/latest/get-started/labels/bp-labels/
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, NoReturn, TypeAlias, get_args

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
    without_newline,
)
from fapilog.sinks.loki.metadata import MAX_LABEL_VALUE, SEVERITY, label_name
from fapilog.values.text import utf8_size

if TYPE_CHECKING:
    from fapilog.record import Resource

Format: TypeAlias = Literal["json", "protobuf"]
Line: TypeAlias = Literal["message", "json", "logfmt"]
Metadata: TypeAlias = Literal["auto", "structured", "line"]
Labels: TypeAlias = "Iterable[str] | Mapping[str, str]"

USER_AGENT: Final = user_agent("loki")
PUSH_PATH: Final = "/loki/api/v1/push"
DEFAULT_LABELS: Final = (
    "service.name",
    "service.namespace",
    "deployment.environment.name",
    "deployment.environment",
    SEVERITY,
)
#: Loki's limit on the number of labels per stream.  ``MAX_LABEL_NAME`` is its limit on the length
#: of a label's name.  Source: https://grafana.com/docs/loki/latest/configure/#limits_config
MAX_LABELS: Final = 15
MAX_LABEL_NAME: Final = 1024

_FORM: Final = ": give it in the form http://host:3100"
_TENANT: Final = re.compile(r"(?!\.{1,2}$)[a-zA-Z0-9!_.*'()-]{1,150}")
_RULES: Final = {
    "timeout": SECONDS,
    "tenant": NONE  # Loki refuses every request whose tenant does not match _TENANT
    | Rule(
        lambda value: isinstance(value, str) and bool(_TENANT.fullmatch(value)),
        "1 to 150 letters, digits or !-_.*'()",
    ),
    "format": one_of(*get_args(Format)),
    "line": one_of(*get_args(Line)),
    "metadata": one_of(*get_args(Metadata)),
}
#: Names that cannot be labels, because their values would create too many streams.
_NO_LABELS: Final = frozenset(
    {"trace_id", "span_id", "service_instance_id", "log_record_uid", "process_pid"}
)


@dataclass(frozen=True, kw_only=True)
class PushOptions(HTTPOptions):
    """The checked options of a Loki sink, which are documented in :class:`LokiSink`.

    ``labels`` contains names of resource attributes and may contain ``"severity"``.
    ``static_labels`` contains the labels that have a fixed value.
    """

    tenant: str = ""
    format: Format = "json"
    line: Line = "message"
    labels: tuple[str, ...] = DEFAULT_LABELS
    static_labels: Mapping[str, str] = field(default_factory=dict)
    metadata: Metadata = "auto"

    def check_resource(self, resource: Resource) -> None:
        """Check that the resource has every attribute that is to become a label.

        Raises:
            ConfigurationError: an attribute is missing, and it is not one of the default labels.
        """
        if missing := self.missing_in(resource):
            from fapilog.options.explain import closest  # noqa: PLC0415 - only for this error

            near = closest(missing, [*resource.attributes, SEVERITY])
            hint = f"did you mean {near!r}? Or " if near else ""
            _refuse(
                f"{missing!r} is not an attribute of the resource, and attributes of records "
                f"cannot be labels; {hint}give the label a fixed value, {missing}=VALUE, or set "
                f"the attribute, such as OTEL_RESOURCE_ATTRIBUTES={missing}=VALUE; the resource "
                f"has {', '.join(sorted(resource.attributes))}"
            )

    def missing_in(self, resource: Resource) -> str:
        """Return the first name in ``labels`` that is not an attribute of ``resource``, or "".

        The default labels are ignored, because a resource need not have these attributes.
        """
        has = (*resource.attributes, *DEFAULT_LABELS)
        return next((name for name in self.labels if name not in has), "")


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
    labels: Labels = DEFAULT_LABELS,
    metadata: Metadata = "auto",
    timeout: float = DEFAULT_TIMEOUT,
    certificate: FilePath | None = None,
    client_key: FilePath | None = None,
    client_certificate: FilePath | None = None,
) -> PushOptions:
    """Check the arguments of ``LokiSink``, and return them as options."""
    given = {"timeout": timeout, "tenant": tenant, "format": format, "line": line}
    check_all(_RULES, {**given, "metadata": metadata})
    parts = split_url(url, "url", _FORM)
    given_headers = checked_headers(headers or {}, "headers")
    authorization = _authorization(username, password, token) or credentials_of(parts)
    if authorization:
        given_headers.setdefault("authorization", authorization)
    attributes, static = _labels(labels)
    return PushOptions(
        endpoint=join_url(parts, parts.path if parts.path.strip("/") else PUSH_PATH),
        headers=given_headers,
        timeout=float(timeout),
        tenant=tenant or "",
        format=format,
        line=line,
        labels=attributes,
        static_labels=static,
        metadata=metadata,
        **pem_files(
            (certificate, "certificate"),
            (client_key, "client_key"),
            (client_certificate, "client_certificate"),
        ),
    )


def _authorization(username: str | None, password: str | None, token: str | None) -> str:
    """Check the credentials, and return the value of the ``Authorization`` header.

    Return "" if no credentials are given.
    """
    username, password, token = map(without_newline, (username, password, token))
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


def _labels(given: Labels) -> tuple[tuple[str, ...], dict[str, str]]:
    """Return the names of the attributes that become labels, and the static labels.

    If ``given`` is a mapping, it contains static labels, which are added to the default labels.
    In a list, ``name=value`` is a static label.  If an attribute and a static label would have the
    same name in Loki, only the static label is sent.
    """
    attributes: tuple[str, ...]
    if isinstance(given, Mapping):
        attributes, pairs = DEFAULT_LABELS, tuple(given.items())
    else:
        listed = names("labels", given, '["service.name", "severity", "env=prod"]')
        attributes = tuple(dict.fromkeys(name for name in listed if "=" not in name))
        split = (name.partition("=") for name in listed if "=" in name)
        pairs = tuple((name.strip(), value.strip()) for name, _, value in split)
    static: dict[str, str] = {}
    for name, value in pairs:
        label = _checked_name(name)
        if label in static:
            _refuse(f"{name!r} and another name become the same label {label!r}")
        static[label] = _checked_value(name, value)
    attributes = tuple(name for name in attributes if _checked_name(name) not in static)
    count = len(attributes) + len(static)
    if not 0 < count <= MAX_LABELS:
        _refuse(f"give 1 to {MAX_LABELS} names (Loki's limit), not {count}")
    return attributes, static


def _checked_name(name: object) -> str:
    """Check that ``name`` can be a label, and return the name that the label has in Loki."""
    if not isinstance(name, str) or not 0 < len(name) < MAX_LABEL_NAME:
        _refuse(f"{name!r:.100} cannot be the name of a label")
    label = label_name(name)
    if label in _NO_LABELS:
        _refuse(
            f"{name!r} would make a stream for each of its values; leave it out, because "
            "the sink sends it as structured metadata"
        )
    return label


def _checked_value(name: str, value: object) -> str:
    if not isinstance(value, str) or not value.isprintable() or not value.strip():
        _refuse(f"the value of {name!r} must be a str of printable characters, not empty")
    if utf8_size(value) > MAX_LABEL_VALUE:
        _refuse(f"the value of {name!r} exceeds {MAX_LABEL_VALUE} bytes (Loki's limit)")
    return value


def _refuse(fix: str) -> NoReturn:
    msg = f"labels: {fix}"
    raise ConfigurationError(msg, "labels")
