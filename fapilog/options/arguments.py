"""The options as keyword arguments, for type checkers and completion in editors.

Each class lists the options of a class in :mod:`fapilog.settings`.  The types include
every form in which users may write a value, such as ``"10MB"`` for a size.  This module is
imported only for type checking.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias, TypedDict

from pydantic import SecretStr

Path: TypeAlias = str | os.PathLike[str]
Size: TypeAlias = int | str
SecretText: TypeAlias = str | SecretStr
Level: TypeAlias = int | str
#: A list of names, or a string such as ``"a, b"``.
Names: TypeAlias = str | Sequence[str]
#: A mapping, or a string of pairs such as ``"a=1, b=2"``.
Pairs: TypeAlias = str | Mapping[str, Any]
Overflow: TypeAlias = Literal["block", "drop_newest", "drop_lowest", "spill"]


class ConsoleArguments(TypedDict, total=False):
    """The options of the sink ``console``, as in ``configure(console={"format": "json"})``."""

    stream: Literal["stdout", "stderr"]
    format: Literal["auto", "pretty", "json", "otel", "ecs", "gcp", "datadog", "lambda"]
    color: bool | Literal["auto"]
    tracebacks: Literal["short", "full"]
    names: Pairs
    resource: bool


class FileArguments(TypedDict, total=False):
    """The options of the sink ``file``."""

    path: Path | None
    format: Literal["json", "otlp"]
    max_bytes: Size | None
    rotate_every: Literal["hour", "day"] | float | None
    compress: Literal["gzip"] | None
    keep_count: int | None
    keep_age: float | None
    keep_bytes: Size | None
    mode: int | str
    fsync: bool


class LokiArguments(TypedDict, total=False):
    """The options of the sink ``loki``."""

    url: str | None
    tenant: str | None
    username: str | None
    password: SecretText | None
    token: SecretText | None
    headers: Pairs
    format: Literal["json", "protobuf"]
    line: Literal["message", "json", "logfmt"]
    labels: Names | Pairs | None
    metadata: Literal["auto", "structured", "line"]
    timeout: float
    certificate: Path | None
    client_key: Path | None
    client_certificate: Path | None
    concurrency: int


class SpoolArguments(TypedDict, total=False):
    """The options of the spool and the quarantine."""

    directory: Path | None
    mode: Literal["overflow", "always", "never"]
    max_bytes: Size
    min_free: Size
    segment_bytes: Size
    sync: Literal["interval", "always"]
    sync_interval: float
    quarantine_bytes: Size


class RouteArguments(TypedDict, total=False):
    """The options of a route, as in ``configure(routes={"otlp": {"level": "warn"}})``."""

    level: Level
    max_level: Level
    loggers: Names
    where: Pairs
    overflow: Overflow | None
    fallback: str | None
    fallback_after: float


class Arguments(TypedDict, total=False):
    """The options of ``Settings`` that ``configure()`` and ``Runtime`` accept as arguments."""

    config: Path | None
    service_name: str | None
    levels: str | Mapping[str, Level]
    severities: Pairs
    redact: bool
    redact_fields: Names
    redact_allow: Names
    code_attributes: bool
    queue_size: int
    overflow: Overflow
    protect_level: Level
    sink_overflow: Overflow | None
    block_timeout: float
    backlog_bytes: Size
    batch_size: int
    schedule_delay: float
    export_timeout: float
    retry_initial: float
    retry_maximum: float
    attribute_count_limit: int
    attribute_value_length_limit: int | None
    shutdown_timeout: float
    handle_sigterm: bool
    otel_provider: bool
    otel_metrics: bool
    otel_metrics_by_logger: bool
    otel_disabled: bool
    metrics_directory: Path | None
    console: ConsoleArguments
    file: FileArguments
    loki: LokiArguments
    spool: SpoolArguments
    routes: Mapping[str, RouteArguments]


class SettingsArguments(Arguments, total=False):
    """The keyword arguments of ``Settings``."""

    level: Level
    sinks: Names | None
