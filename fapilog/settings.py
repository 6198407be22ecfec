"""The one settings model: arguments over environment over file over defaults.

Every option has one name here.  In the environment it is ``FAPILOG_`` and the
name in capitals; where OpenTelemetry has a variable for the same thing, that
one is obeyed too (``OTEL_BLRP_MAX_QUEUE_SIZE`` is ``queue_size``).  In a file
it is a key of ``fapilog.toml`` or of ``[tool.fapilog]`` in ``pyproject.toml``.
A file that was only found in the working directory sets what is marked as
harmless, unless it belongs to the application.
Options of the OTLP sink are OpenTelemetry's own and are read by that sink.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ByteSize, Field, SecretStr, TypeAdapter, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict
from typing_extensions import override

from fapilog.diagnostics import announce
from fapilog.errors import ConfigurationError
from fapilog.options.explain import closest, explain, unknown
from fapilog.options.found import HARMLESS
from fapilog.options.schema import containers, is_group, kind_of, option_names
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
    Level,
    Levels,
    Mode,
    Names,
    OptionGroup,
    Pairs,
    Seconds,
    SecretPairs,
    Severities,
)


class ConsoleOptions(OptionGroup):
    """Options of the sink ``console``."""

    stream: Literal["stdout", "stderr"] = Field(
        "stdout", description="where lines go", json_schema_extra=HARMLESS
    )
    format: Literal["auto", "pretty", "json"] = Field(
        "auto",
        description="pretty on a terminal, JSON lines elsewhere, or always one of them",
        json_schema_extra=HARMLESS,
    )
    color: bool | Literal["auto"] = Field(
        "auto",
        description="colours in pretty lines; auto: on a terminal, unless NO_COLOR is set",
        json_schema_extra=HARMLESS,
    )


class FileOptions(OptionGroup):
    """Options of the sink ``file``; see :class:`fapilog.sinks.FileSink`."""

    path: Path | None = Field(None, description="file of the sink `file` given without a path")
    format: Literal["json", "otlp"] = Field("json", description="JSON lines or OTLP JSON lines")
    max_bytes: Bytes | None = Field(None, description="rotate before the file is larger (10MB)")
    rotate_every: Literal["hour", "day"] | Annotated[float, Field(gt=0)] | None = Field(
        None, description="rotate every hour, day, or so many seconds"
    )
    compress: Literal["gzip"] | None = Field(None, description="compress rotated files")
    keep_count: Annotated[int, Field(ge=0)] | None = Field(None, description="rotated files kept")
    keep_age: Annotated[float, Field(gt=0)] | None = Field(
        None, description="seconds a rotated file is kept"
    )
    keep_bytes: ByteSize | None = Field(None, description="bytes of rotated files kept")
    mode: Mode = Field(0o600, description="permissions of new files, octal: 0640")
    fsync: bool = Field(
        default=False, description="a batch counts as delivered once it is on the disk"
    )


class LokiOptions(OptionGroup):
    """Options of the sink ``loki``; see :class:`fapilog.sinks.LokiSink`."""

    url: str | None = Field(
        None, repr=False, description="Loki, for the sink `loki` given without a URL"
    )
    tenant: str | None = Field(None, description="sent as X-Scope-OrgID")
    username: str | None = Field(None, description="for basic authentication")
    password: SecretStr | None = Field(None, description="the user's password")
    token: SecretStr | None = Field(None, description="sent as Authorization: Bearer")
    headers: SecretPairs = Field(default_factory=dict, description="sent with every request: a=b")
    format: Literal["json", "protobuf"] = Field("json", description="form of a push")
    line: Literal["message", "json", "logfmt"] = Field(
        "message", description="an entry's line: the message alone, or with attributes"
    )
    labels: Names | None = Field(
        None, description="attributes of the resource that are labels, and severity"
    )
    timeout: Annotated[Seconds, Field(gt=0)] = Field(
        10.0, description="seconds one request may take"
    )
    certificate: Path | None = Field(None, description="PEM file of the authorities to trust")
    client_key: Path | None = Field(None, description="PEM file of the client's key")
    client_certificate: Path | None = Field(None, description="PEM file of its certificates")
    concurrency: Annotated[int, Field(ge=1, le=64)] = Field(
        1, description="requests under way at once"
    )


class SpoolGroup(OptionGroup):
    """Options of the spool and the quarantine of remote sinks."""

    directory: Path | None = Field(
        None, description="private directory for the spool and the quarantine; unset: neither"
    )
    mode: Literal["overflow", "always", "never"] = Field(
        "overflow",
        description="spool what memory cannot hold and while a backend is down, always, or never",
    )
    max_bytes: ByteSize = Field(ByteSize(512 << 20), ge=1 << 20, description="bytes on disk a sink")
    min_free: ByteSize = Field(ByteSize(64 << 20), ge=0, description="bytes to leave on the disk")
    segment_bytes: ByteSize = Field(ByteSize(8 << 20), ge=1 << 16, description="bytes of a file")
    sync: Literal["interval", "always"] = Field(
        "interval", description="fdatasync every sync_interval, or after every batch"
    )
    sync_interval: Annotated[float, Field(gt=0, le=3600)] = Field(0.5, description="seconds")
    quarantine_bytes: ByteSize = Field(
        ByteSize(64 << 20), ge=0, description="bytes of refused batches kept for each sink"
    )


class RouteGroup(OptionGroup):
    """Which records the sink of this name gets; see :class:`fapilog.sinks.Route`."""

    level: Level = Field(1, description="lowest severity the sink gets")
    max_level: Level = Field(24, description="highest severity the sink gets")
    loggers: Names = Field((), description="logger names, with those below them; empty for all")
    where: Pairs = Field(default_factory=dict, description="attributes and their values")
    overflow: Literal["block", "drop_newest", "drop_lowest", "spill"] | None = Field(
        None, description="what a full backlog does; default: the option sink_overflow"
    )
    fallback: str | None = Field(None, description="sink that gets what this one cannot take")
    fallback_after: Seconds = Field(30.0, description="seconds without an answer until it does")


class Settings(BaseSettings):
    """Options of a runtime, validated and frozen.

    ``Settings(...)`` reads the environment and the files for what is not
    given.  Does not block beyond reading two small files.

    Raises:
        ConfigurationError: an option is wrong; the message names it, where it
            came from, and the fix, and shows no secret.
    """

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_prefix=ENV_PREFIX,
        env_nested_delimiter="__",
        env_ignore_empty=True,
        hide_input_in_errors=True,
    )

    config: Path | None = Field(
        None, description="file of options, instead of those in the working directory"
    )
    level: Level = Field(
        9,
        description="lowest severity that is logged: a name or 1 to 24",
        json_schema_extra=HARMLESS,
    )
    levels: Levels = Field(
        default_factory=dict,
        description="levels by logger name: app.db=debug,uvicorn=warn",
        json_schema_extra=HARMLESS,
    )
    severities: Severities = Field(
        default_factory=dict,
        description="severity names of your own: notice=10",
        json_schema_extra=HARMLESS,
    )
    sinks: Names | None = Field(
        None,
        description="where records go: console, otlp[:URL], loki[:URL], file:PATH, memory, none",
    )
    redact: bool = Field(default=True, description="mask secrets before any sink sees them")
    redact_fields: Names = Field(
        (), description="further field names to mask", json_schema_extra=HARMLESS
    )
    redact_allow: Names = Field((), description="field names never masked by name")
    code_attributes: bool = Field(
        default=False,
        description="add code.file.path, code.function.name, code.line.number",
        json_schema_extra=HARMLESS,
    )
    queue_size: int = Field(32_768, ge=1, description="records the queue holds")
    overflow: Literal["block", "drop_newest", "drop_lowest", "spill"] = Field(
        "block",
        description="what a full queue does: wait for room, drop what is new, or the less severe, "
        "or wait for the spool",
    )
    protect_level: Level = Field(
        13, description="severity from which the last tenth of queue and backlogs may be used"
    )
    sink_overflow: Literal["block", "drop_newest", "drop_lowest", "spill"] | None = Field(
        None, description="what a full backlog does; unset: spill with a spool, else drop_lowest"
    )
    block_timeout: Seconds = Field(1.0, description="longest wait for room, seconds")
    backlog_bytes: ByteSize = Field(
        ByteSize(64 << 20), ge=65_536, description="bytes waiting for each sink"
    )
    batch_size: int = Field(2048, ge=1, description="records in a batch of a remote sink")
    schedule_delay: Seconds = Field(1.0, description="longest wait for a full batch, seconds")
    export_timeout: Seconds = Field(30.0, gt=0, description="time limit of a send, seconds")
    retry_initial: Annotated[Seconds, Field(gt=0)] = Field(
        1.0, description="longest wait before the first retry, seconds; doubles each time"
    )
    retry_maximum: Annotated[Seconds, Field(gt=0)] = Field(
        30.0, description="longest wait before any retry, a backend's wish included, seconds"
    )
    attribute_count_limit: int = Field(128, ge=0, description="attributes of a record")
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
    otel_disabled: bool = Field(
        default=False, description="no OTLP sink and no provider unless asked for by name"
    )
    console: ConsoleOptions = ConsoleOptions()
    file: FileOptions = FileOptions()
    loki: LokiOptions = LokiOptions()
    spool: SpoolGroup = SpoolGroup()
    routes: dict[str, RouteGroup] = Field(
        default_factory=dict, description="which records a sink gets, by the sink's name"
    )

    def __init__(self, **options: Any) -> None:
        for name in options:
            if name.startswith("_"):  # pydantic has arguments of its own, of such names
                msg = f"option {name!r}: {unknown(name, type(self))}"
                raise ConfigurationError(msg, name)
        try:
            super().__init__(**options)
        except ValidationError as error:
            arguments = ArgumentSource(type(self), options)
            origins = Origins([arguments, *_sources(options.get("config"))])
            raise explain(error, type(self), origins) from None
        _announce_unknown_variables()

    @classmethod
    @override
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        given = getattr(init_settings, "init_kwargs", {})
        return (init_settings, *(read() for read in readers(settings_cls, given.get("config"))))

    @classmethod
    def origins(cls) -> Origins:
        """Return where options come from, arguments aside.  Reads the files."""
        return Origins(_sources())

    def place(self, option: str) -> str:
        """Return what errors about ``option`` begin with: the variable, key or argument it is from.

        For what is found wrong only after validation.  Reads the files.
        """
        source = Origins(_sources(self.config)).source(option)
        found: Any = salvage()
        value: Any = self
        for part in option.split("."):
            found, value = _part(found, part), _part(value, part)
        return source.place(option) if source and found == value else f"option {option!r}"


def _part(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, Mapping) else getattr(value, name, None)


def _sources(config: object = None) -> Iterator[Source]:
    """Yield the sources that can be read."""
    for read in readers(Settings, config):
        with contextlib.suppress(ConfigurationError):
            yield read()


def _announce_unknown_variables() -> None:
    known = [own_variable(option) for option in option_names(Settings)]
    # What begins like a container has been read, and with it what is wrong in it.
    read = [own_variable(name) for name in containers(Settings)]
    for variable in sorted(os.environ):
        name = variable.upper()
        if not name.startswith(ENV_PREFIX) or name in known or name.partition("__")[0] in read:
            continue
        near = closest(name, known, 0.75)
        hint = f"; did you mean {near}?" if near else ""
        announce(f"variable {variable}", f"{variable} is not a variable of fapilog{hint}")


def salvage() -> Settings:
    """Return settings of every option in the environment and files that is right by itself.

    For the first log call of an application that never configured: a wrong
    option must neither break that call nor switch off what the right ones ask
    for, redaction above all.
    """
    found: dict[str, Any] = {}
    for source in reversed(list(_sources())):
        found = _merged(found, source())
    return Settings.model_construct(**_right(Settings, found))


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    both = {
        name: _merged(below[name], value)
        for name, value in above.items()
        if isinstance(value, Mapping) and isinstance(below.get(name), Mapping)
    }
    return {**below, **above, **both}


def _right(model: type[BaseModel], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of ``values`` is right by itself, validated."""
    right: dict[str, Any] = {}
    for name, value in values.items():
        field = model.model_fields.get(name)
        if field is None:
            continue
        group: Any = field.annotation
        if is_group(group) and isinstance(value, Mapping):
            right[name] = group.model_construct(**_right(group, value))
            continue
        with contextlib.suppress(ValidationError):
            right[name] = TypeAdapter(kind_of(field)).validate_python(value)
    return right
