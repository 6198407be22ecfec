"""Defines ``Settings``, which contains all options of fapilog except those of the OTLP sink.

Arguments override environment variables, which override configuration files and defaults.  For
example, the option ``queue_size`` is set by the argument ``queue_size``, by the variable
``FAPILOG_QUEUE_SIZE``, by OpenTelemetry's variable ``OTEL_BLRP_MAX_QUEUE_SIZE``, or by the key
``queue_size`` in ``fapilog.toml`` or in the table ``[tool.fapilog]`` of ``pyproject.toml``.  A
file may set only harmless options (see ``fapilog.options.found``), unless the user named the file
or it belongs to the application.  The OTLP sink reads its options from OpenTelemetry's variables.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeVar

from pydantic import ByteSize, Field, SecretStr, ValidationError

from fapilog.diagnostics import announce
from fapilog.errors import ConfigurationError
from fapilog.options.explain import closest, explain
from fapilog.options.found import HARMLESS, HARMLESS_IF_LOWER
from fapilog.options.schema import (
    containers,
    is_group,
    merged,
    nested,
    option_names,
    right_values,
)
from fapilog.options.sources import (
    ENV_PREFIX,
    ArgumentSource,
    Origins,
    Source,
    own_variable,
    readers,
)
from fapilog.options.types import (
    Bytes,
    Count,
    Level,
    Levels,
    Mode,
    Names,
    NamesOrPairs,
    OptionGroup,
    Pairs,
    Positive,
    PositiveSeconds,
    Seconds,
    SecretPairs,
    Severities,
)
from fapilog.severity import Severity

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from fapilog.options.arguments import SettingsArguments

_T = TypeVar("_T")
#: An option that a file in the working directory may always set; see HARMLESS.
Harmless = Annotated[_T, Field(json_schema_extra=HARMLESS)]
#: The largest number of records in a queue or a batch: the largest signed 32-bit integer.
MOST_RECORDS: Final = (1 << 31) - 1


class ConsoleOptions(OptionGroup):
    """Options of the sink ``console``."""

    stream: Harmless[Literal["stdout", "stderr"]] = Field("stdout", description="output stream")
    format: Harmless[
        Literal["auto", "pretty", "json", "otel", "ecs", "gcp", "datadog", "lambda"]
    ] = Field("auto", description="auto: pretty on a terminal, JSON lines elsewhere")
    color: Harmless[bool | Literal["auto"]] = Field(
        "auto", description="colours in pretty lines; auto: on a terminal, unless NO_COLOR is set"
    )
    tracebacks: Harmless[Literal["short", "full"]] = Field(
        "short", description="frames of installed packages in pretty lines: folded, or shown"
    )
    names: Pairs = Field({}, description="new field names in JSON lines: body=message")
    resource: bool = Field(default=True, description="have the resource in JSON lines")


class FileOptions(OptionGroup):
    """Options of the sink ``file``; see :class:`fapilog.sinks.FileSink`."""

    path: Path | None = Field(None, description="file of the sink `file` if its name has no path")
    format: Literal["json", "otlp"] = Field("json", description="JSON lines or OTLP JSON lines")
    max_bytes: Bytes | None = Field(None, description="size at which a file is rotated: 10MB")
    rotate_every: Literal["hour", "day"] | Positive | None = Field(
        None, description="rotate every hour, day, or this number of seconds"
    )
    compress: Literal["gzip"] | None = Field(None, description="compress rotated files")
    keep_count: Count | None = Field(None, description="number of rotated files to keep")
    keep_age: Positive | None = Field(None, description="seconds to keep a rotated file")
    keep_bytes: ByteSize | None = Field(None, description="bytes of rotated files to keep")
    mode: Mode = Field(0o600, description="permissions of new files, octal: 0640")
    fsync: bool = Field(
        default=False, description="sync each batch to the disk before it counts as delivered"
    )


class LokiOptions(OptionGroup):
    """Options of the sink ``loki``; see :class:`fapilog.sinks.LokiSink`."""

    url: str | None = Field(
        None, repr=False, description="URL of the sink `loki` if its name has no URL"
    )
    tenant: str | None = Field(None, description="tenant, sent as X-Scope-OrgID")
    username: str | None = Field(None, description="user of basic authentication")
    password: SecretStr | None = Field(None, description="password of the user")
    token: SecretStr | None = Field(None, description="token, sent as Authorization: Bearer")
    headers: SecretPairs = Field({}, description="headers of every request: a=b")
    format: Literal["json", "protobuf"] = Field("json", description="encoding of a push")
    line: Literal["message", "json", "logfmt"] = Field(
        "message", description="line of an entry: the message alone, or with attributes"
    )
    labels: NamesOrPairs | None = Field(
        None,
        description="resource attributes that become labels, severity, and fixed labels: env=prod",
    )
    metadata: Literal["auto", "structured", "line"] = Field(
        "auto",
        description="place of all other fields; auto: the line if Loki refuses structured metadata",
    )
    timeout: PositiveSeconds = Field(10.0, description="seconds that one request may take")
    certificate: Path | None = Field(None, description="PEM file of the authorities to trust")
    client_key: Path | None = Field(None, description="PEM file of the client's key")
    client_certificate: Path | None = Field(None, description="PEM file of the client's chain")
    concurrency: int = Field(1, ge=1, le=64, description="largest number of concurrent requests")


class SpoolGroup(OptionGroup):
    """Options of the spool and the quarantine of remote sinks."""

    directory: Path | None = Field(
        None, description="private directory of the spool and the quarantine; unset: neither exists"
    )
    mode: Literal["overflow", "always", "never"] = Field(
        "overflow", description="spool always, never, or when memory is full or a backend is down"
    )
    max_bytes: ByteSize = Field(ByteSize(512 << 20), ge=1 << 20, description="bytes per sink")
    min_free: ByteSize = Field(ByteSize(64 << 20), ge=0, description="disk bytes to leave free")
    segment_bytes: ByteSize = Field(ByteSize(8 << 20), ge=1 << 16, description="bytes of one file")
    sync: Literal["interval", "always"] = Field(
        "interval", description="sync to the disk every sync_interval, or after every batch"
    )
    sync_interval: Positive = Field(0.5, le=3600, description="seconds between two syncs")
    quarantine_bytes: ByteSize = Field(
        ByteSize(64 << 20), ge=0, description="bytes of refused batches to keep per sink"
    )


class RouteGroup(OptionGroup):
    """Options of a route, which selects the records for one sink; see ``fapilog.sinks.Route``."""

    level: Level = Field(Severity.TRACE, description="lowest severity that the sink gets")
    max_level: Level = Field(Severity.FATAL4, description="highest severity that the sink gets")
    loggers: Names = Field((), description="logger names and the names below them; empty: all")
    where: Pairs = Field({}, description="required attributes and their values: a=b")
    overflow: Literal["block", "drop_newest", "drop_lowest", "spill"] | None = Field(
        None, description="policy of a full backlog; unset: the option sink_overflow"
    )
    fallback: str | None = Field(None, description="sink of the records that this one refuses")
    fallback_after: Seconds = Field(
        30.0, description="seconds without an answer before the fallback is used"
    )


class Settings(OptionGroup):
    """The options of a runtime, validated and frozen.

    ``Settings(...)`` reads every option that is not an argument from the environment and from
    configuration files.  Blocks only while it reads the files.

    Args:
        **options: the fields of this class.  A group of options is a dict, such as
            ``console={"format": "json"}``.  A single option of a group may also be passed by its
            dotted name: ``**{"console.format": "json"}``.

    Raises:
        ConfigurationError: an option is wrong.  The message names the option,
            its source and the fix, and shows no secret.
    """

    config: Path | None = Field(
        None, description="file of options, instead of those in the working directory"
    )
    service_name: str | None = Field(
        None, min_length=1, description="name of the service: the attribute service.name"
    )
    level: Level = Field(
        Severity.INFO,
        description="lowest severity that is logged: a name, or a level of logging such as 20",
        json_schema_extra=HARMLESS_IF_LOWER,
    )
    levels: Levels = Field({}, description="levels by logger name: app.db=debug,uvicorn=warn")
    severities: Severities = Field({}, description="additional severity names: notice=info2")
    sinks: Names | None = Field(
        None,
        description="destinations: console, otlp[:URL], loki[:URL], file:PATH, memory, none",
    )
    redact: bool = Field(default=True, description="mask secrets before any sink sees them")
    redact_fields: Names = Field((), description="additional field names to mask")
    redact_allow: Names = Field((), description="field names that are not masked by name")
    code_attributes: Harmless[bool] = Field(
        default=False, description="add code.file.path, code.function.name, code.line.number"
    )
    queue_size: int = Field(
        32_768, ge=1, le=MOST_RECORDS, description="largest number of records in the queue"
    )
    overflow: Literal["block", "drop_newest", "drop_lowest", "spill"] = Field(
        "block",
        description="policy of a full queue: wait for room, drop the new record, drop the less "
        "severe, or wait for the spool",
    )
    protect_level: Level = Field(
        Severity.WARN,
        description="lowest severity that may use the last tenth of queue and backlogs",
    )
    sink_overflow: Literal["block", "drop_newest", "drop_lowest", "spill"] | None = Field(
        None, description="policy of a full backlog; unset: spill with a spool, or drop_lowest"
    )
    block_timeout: Seconds = Field(1.0, description="longest wait for room in the queue, seconds")
    backlog_bytes: ByteSize = Field(
        ByteSize(64 << 20), ge=65_536, description="bytes that wait for each sink"
    )
    batch_size: int = Field(
        2048, ge=1, le=MOST_RECORDS, description="largest number of records in a batch"
    )
    schedule_delay: Seconds = Field(1.0, description="longest wait until a batch is full, seconds")
    export_timeout: Seconds = Field(30.0, gt=0, description="time limit of a send, seconds")
    retry_initial: PositiveSeconds = Field(
        1.0, description="longest wait before the first retry, seconds; doubles each time"
    )
    retry_maximum: PositiveSeconds = Field(
        30.0, description="longest wait before a retry, whatever a backend asks for, seconds"
    )
    attribute_count_limit: Count = Field(128, description="largest number of attributes")
    attribute_value_length_limit: int | None = Field(
        None, ge=0, description="characters of an attribute's text; 65536 when unset"
    )
    shutdown_timeout: Seconds = Field(5.0, description="deadline of shutdown and exit, seconds")
    handle_sigterm: bool = Field(
        default=True, description="drain on SIGTERM when the application has no handler"
    )
    otel_provider: bool = Field(
        default=True, description="make fapilog OpenTelemetry's global LoggerProvider"
    )
    otel_metrics: bool = Field(
        default=True, description="report fapilog's ledger as OpenTelemetry metrics"
    )
    otel_metrics_by_logger: bool = Field(
        default=False, description="also count the records of each logger and severity"
    )
    otel_disabled: bool = Field(
        default=False, description="disable the OTLP sink and the provider unless options name them"
    )
    metrics_directory: Path | None = Field(
        None, description="directory in which worker processes add up their Prometheus metrics"
    )
    console: ConsoleOptions = ConsoleOptions()
    file: FileOptions = FileOptions()
    loki: LokiOptions = LokiOptions()
    spool: SpoolGroup = SpoolGroup()
    routes: dict[str, RouteGroup] = Field({}, description="records that a sink gets, by its name")

    def __init__(self, **options: Unpack[SettingsArguments]) -> None:
        given = nested(options)
        named = given.get("config")
        sources = (ArgumentSource(given), *(read() for read in readers(type(self), named)))
        try:
            super().__init__(**_values(sources))
        except ValidationError as error:
            raise explain(error, type(self), Origins(sources)) from None
        _announce_unknown_variables()

    @classmethod
    def origins(cls) -> Origins:
        """Return an object that finds the variable or the file that sets an option.

        Reads the configuration files.
        """
        return Origins(_sources())

    def place(self, option: str) -> str:
        """Return the first words of an error message about ``option``, which say where it is set.

        The words name the environment variable, the key and its file, or the argument.  This
        method is used for errors that are found after pydantic's validation.  Reads the files.
        """
        source = Origins(_sources(self.config)).source(option)
        found: Any = salvage()
        value: Any = self
        for part in option.split("."):
            found, value = _part(found, part), _part(value, part)
        return source.place(option) if source and found == value else f"option {option!r}"


def _part(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, Mapping) else getattr(value, name, None)


def _values(sources: Sequence[Source]) -> dict[str, Any]:
    """Merge the options of all sources.  If sources set the same option, the first source wins."""
    values: dict[str, Any] = {}
    for source in reversed(sources):
        values = merged(values, source())
    return values


def _sources(config: object = None) -> Iterator[Source]:
    """Yield a ``Source`` for the environment and for each configuration file that can be read.

    ``config`` is the file that the user named, or None.
    """
    for read in readers(Settings, config):
        with contextlib.suppress(ConfigurationError):
            yield read()


def _announce_unknown_variables() -> None:
    known = [own_variable(option) for option in option_names(Settings)]
    # Variables such as FAPILOG_CONSOLE__COLOUR are not checked here, because pydantic reports
    # unknown options of groups.
    read = [own_variable(name) for name in containers(Settings)]
    for variable in sorted(os.environ):
        name = variable.upper()
        if not name.startswith(ENV_PREFIX) or name in known or name.partition("__")[0] in read:
            continue
        near = closest(name, known, 0.75)
        hint = f"; did you mean {near}?" if near else ""
        announce(f"variable {variable}", f"{variable} is not a variable of fapilog{hint}")


def salvage() -> Settings:
    """Return settings with every valid option from the environment and the files.

    Used for the first log call of an application that did not configure fapilog:
    a wrong option must neither break that call nor disable the valid options,
    especially redaction.
    """
    right, _ = right_values(Settings, _values(list(_sources())))
    for name, field in Settings.model_fields.items():
        group: Any = field.annotation
        if name in right and is_group(group):
            right[name] = group.model_construct(**right[name])
    return Settings.model_construct(**right)
