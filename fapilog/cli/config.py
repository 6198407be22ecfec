"""Implements ``fapilog config``, which shows the value and the source of every option."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple

import typer
from pydantic import BaseModel, ByteSize

from fapilog.cli.terminal import BOLD, DIM, Terminal, Text, mask_url
from fapilog.otel.resource import detect_resource
from fapilog.processors.redact import MASK, RedactProcessor
from fapilog.settings import Settings
from fapilog.severity import OFF, SHORT_NAMES
from fapilog.sinks.factory import sink_of, wanted_sinks

DEFAULT: Final = "default"

_RESOURCE_VARIABLE: Final = "OTEL_RESOURCE_ATTRIBUTES"


class Entry(NamedTuple):
    """The name of an option, its value with secrets masked, and the source of the value."""

    name: str
    value: Any
    origin: str


def config(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show the value of every option and its source.

    Also shows the options of OTLP sinks, and the attributes of the resource.
    Secrets are masked, and nothing is sent.
    """
    settings = Settings()
    for spec in named_sinks(settings):
        sink_of(spec, settings)  # checks the options: may raise ConfigurationError
    sections = {
        "settings": list(settings_entries(settings)),
        **dict(otlp_sections(settings)),
        "resource": list(resource_entries(settings)),
    }
    if as_json:
        document = {
            title: {name: {"value": value, "from": origin} for name, value, origin in entries}
            for title, entries in sections.items()
        }
        typer.echo(json.dumps(document, indent=2, default=str))
        return
    terminal = Terminal()
    for title, entries in sections.items():
        terminal.heading(title)
        terminal.table([_row(entry) for entry in entries])


def named_sinks(settings: Settings) -> list[str]:
    """Return the sinks that ``settings`` select, such as ``["console", "otlp:URL"]``."""
    return [str(spec) for spec in wanted_sinks(settings)]


def settings_entries(settings: Settings) -> Iterator[Entry]:
    """Yield an ``Entry`` for each option of fapilog, with a name such as ``spool.directory``."""
    origins = Settings.origins()
    for option, value in _options(settings):
        source = origins.source(option)
        origin = DEFAULT if source is None else source.origin(option)
        shown = named_sinks(settings) if option == "sinks" else value
        yield Entry(option, _plain(option, shown), origin)


def _options(group: BaseModel, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted name and the value of each option, except unset options of a route."""
    for name, value in group:
        option = prefix + name
        if isinstance(value, BaseModel):
            yield from _options(value, f"{option}.")
        elif isinstance(value, Mapping) and any(isinstance(v, BaseModel) for v in value.values()):
            for key, inner in value.items():
                yield from (
                    (f"{option}.{key}.{one}", getattr(inner, one))
                    for one in type(inner).model_fields
                    if one in inner.model_fields_set
                )
        else:
            yield option, value


def otlp_sections(settings: Settings) -> Iterator[tuple[str, list[Entry]]]:
    """Yield a heading, such as ``sink otlp``, and a list of options for each OTLP sink."""
    for spec in named_sinks(settings):
        if spec.partition(":")[0].lower() == "otlp":
            yield f"sink {mask_url(spec)}", list(_otlp_entries(spec, settings))


def _otlp_entries(spec: str, settings: Settings) -> Iterator[Entry]:
    sink: Any = sink_of(spec, settings)
    in_force = vars(sink.options)
    safe = {
        "endpoint": mask_url(in_force["endpoint"]),
        "headers": dict.fromkeys(in_force["headers"], MASK),
        "timeout": None if math.isinf(in_force["timeout"]) else in_force["timeout"],
    }
    for name, value in {**in_force, **safe}.items():
        given = name == "endpoint" and ":" in spec
        yield Entry(name, value, "sinks" if given else _otlp_origin(name))


def _otlp_origin(option: str) -> str:
    for prefix in ("OTEL_EXPORTER_OTLP_LOGS_", "OTEL_EXPORTER_OTLP_"):
        if os.environ.get(prefix + option.upper(), "").strip():
            return prefix + option.upper()
    return DEFAULT


def resource_entries(settings: Settings) -> Iterator[Entry]:
    """Yield an ``Entry`` for each attribute of the OpenTelemetry resource, with secrets masked."""
    attributes = detect_resource(None, settings.service_name).attributes
    redact = RedactProcessor(extra_fields=settings.redact_fields, allow=settings.redact_allow)
    given = os.environ.get(_RESOURCE_VARIABLE, "").split(",")
    names = {pair.partition("=")[0].strip() for pair in given}
    for name, value in redact.redact_mapping(attributes).items():
        origin = _RESOURCE_VARIABLE if name in names else "detected"
        if name == "service.name" and settings.service_name:
            source = Settings.origins().source("service_name")
            origin = source.origin("service_name") if source else origin
        yield Entry(name, value, origin)


def _plain(option: str, value: Any) -> Any:
    """Return ``value`` as it is printed: a severity by its name, and a URL without credentials."""
    if isinstance(value, int) and option.endswith("level"):
        return _severity(value)
    if option == "file.mode":
        return f"{value:04o}"
    if option in ("levels", "severities"):
        return {name: _severity(number) for name, number in value.items()}
    if option == "sinks":
        return [mask_url(spec) for spec in value]
    if isinstance(value, Path) or (option == "loki.url" and value is not None):
        return mask_url(str(value))
    return list(value) if isinstance(value, tuple) else value


def _severity(number: int) -> str:
    return "OFF" if number >= OFF else SHORT_NAMES[number]


def _row(entry: Entry) -> list[Text | str]:
    changed = entry.origin not in (DEFAULT, "detected")
    return [
        entry.name,
        Text(_shown(entry.value), BOLD if changed else ""),
        Text(entry.origin, "" if changed else DIM),
    ]


def _shown(value: Any) -> str:
    if value is None or value in ("", [], {}):
        return "-"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, ByteSize):
        return value.human_readable()
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={inner}" for name, inner in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return str(value)
