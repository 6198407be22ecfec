"""The documentation names every option, variable, metric and command that exists."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_origin

import pytest
from prometheus_client import generate_latest
from pydantic import BaseModel

import fapilog
from fapilog import Runtime, Settings
from fapilog.core.observability import (
    ObservabilitySettings,
    create_metrics_collector_from_settings,
)
from fapilog.options.sources import OTEL_VARIABLES

DOCS = Path(__file__).parent.parent / "docs"


def page(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def options(model: type[BaseModel], prefix: str = "") -> list[str]:
    names: list[str] = []
    for name, field in model.model_fields.items():
        kind = field.annotation
        # In Python 3.10, isinstance() treats tuple[str, ...] as a type.
        if get_origin(kind) is None and isinstance(kind, type) and issubclass(kind, BaseModel):
            names += options(kind, f"{prefix}{name}.")
        else:
            names.append(prefix + name)
    return names


def test_the_table_of_options_lists_exactly_the_options_there_are() -> None:
    documented = re.findall(r"^\| `([a-z_.]+)` \|", page("configuration.md"), re.MULTILINE)
    assert sorted(documented) == sorted(options(Settings))


def test_the_table_of_options_names_opentelemetrys_variables_beside_them() -> None:
    rows = dict(
        re.findall(r"^\| `([a-z_]+)` \|[^|]*\|([^|]*)\|", page("configuration.md"), re.MULTILINE)
    )
    for variable, (option, _) in OTEL_VARIABLES.items():
        assert f"`{variable}`" in rows[option]


@pytest.mark.parametrize(
    "option", ["queue_size", "batch_size", "block_timeout", "shutdown_timeout", "export_timeout"]
)
def test_the_documented_default_is_the_default(option: str) -> None:
    rows = dict(
        re.findall(r"^\| `([a-z_]+)` \| ([^|]*) \|", page("configuration.md"), re.MULTILINE)
    )
    assert rows[option] == str(getattr(Settings(), option))


def test_every_metric_is_documented() -> None:
    settings = ObservabilitySettings.model_validate({"metrics": {"enabled": True}})
    with Runtime(sinks="memory") as runtime:
        metrics = create_metrics_collector_from_settings(settings, runtime)
        assert metrics.registry is not None
        text = generate_latest(metrics.registry).decode()
    names = set(re.findall(r"^# TYPE (\w+)", text, re.MULTILINE))
    assert len(names) >= 11
    assert {name for name in names if f"`{name}" not in page("metrics.md")} == set()


def test_every_public_name_is_in_the_api_page() -> None:
    text = page("api.md")
    assert "automodule:: fapilog.errors" in text
    errors = {"ConfigurationError", "FapilogError"}
    missing = [
        name
        for name in fapilog.__all__
        if name != "__version__" and name not in text and name not in errors
    ]
    assert missing == []
