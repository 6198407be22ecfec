"""The documentation names every option, variable, metric and command that exists."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_origin

import pytest
import yaml
from prometheus_client import generate_latest
from pydantic import BaseModel

import fapilog
from fapilog import Runtime, Settings
from fapilog.core.observability import (
    ObservabilitySettings,
    create_metrics_collector_from_settings,
)
from fapilog.options.sources import OTEL_VARIABLES
from fapilog.otel.metrics import METRICS
from fapilog.protocols import Outcome
from tests.support.metrics import Collected
from tests.support.sinks import ScriptedSink

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


COMPONENT = {"otel.component.name", "otel.component.type"}
KINDS = {"updowncounter": "up-down counter"}


class Spans(ScriptedSink):
    wire_format = "otlp-traces-protobuf"

    def pack(self, items: Sequence[Any]) -> bytes:
        return bytes(len(items))

    def unpack(self, packed: bytes) -> list[Any]:
        return [None for _ in packed]


def test_the_table_of_opentelemetrys_metrics_is_what_the_code_reports(tmp_path: Path) -> None:
    ours = page("metrics.md").partition("## Through prometheus_client")[0]
    rows = re.findall(r"^\| `([a-z_.]+)` \| ([a-z -]+) \| ([^|]*)\|([^|]*)\|", ours, re.MULTILINE)
    documented = {name: (kind, unit.strip("` ")) for name, kind, unit, _ in rows}
    assert documented == {
        metric.name: (KINDS.get(metric.kind, metric.kind), metric.unit) for metric in METRICS
    }
    sinks = [kind(Outcome(rejected=1), name=kind.__name__) for kind in (ScriptedSink, Spans)]
    with Runtime(
        sinks=sinks, spool={"directory": tmp_path}, otel_metrics_by_logger=True
    ) as runtime:
        collect = Collected(runtime)
        for _ in range(2):
            runtime.get_logger("t").info("x", password="p")
            assert runtime.flush(20)
        runtime.pipeline.refuse(9)
        found: dict[str, set[str]] = {name: set() for name in documented}
        for name, attributes in collect():
            found[name] |= {key for key, _ in attributes}
    for name, _, _, words in rows:
        listed = {word.strip("` ") for word in words.split(",")} - {""}
        assert found[name] == (listed - {"component"}) | (
            COMPONENT if "component" in listed else set()
        )


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


def test_the_first_minute_shows_what_the_program_prints(tmp_path: Path) -> None:
    section = page("getting-started.md").partition("## The first minute")[2]
    program, shown = re.findall(r"```(?:python|text)\n(.*?)```", section, re.DOTALL)[:2]
    path = tmp_path / "app.py"
    path.write_text(program, encoding="utf-8")
    own = {
        name: value for name, value in os.environ.items() if not name.startswith(("OTEL", "FAP"))
    }
    done = subprocess.run(
        [sys.executable, str(path)],
        env={**own, "FAPILOG_CONSOLE__FORMAT": "pretty", "NO_COLOR": "1"},
        cwd=tmp_path,
        capture_output=True,
        check=True,
        encoding="utf-8",
        timeout=60,
    )

    def comparable(text: str) -> list[str]:
        text = re.sub(r"\d\d:\d\d:\d\d\.\d{3}", "TIME", text)
        text = re.sub(r'File ".*app\.py"', 'File "app.py"', text)
        return [" ".join(line.split()) for line in text.splitlines() if line.strip(" │^~")]

    assert comparable(done.stdout) == comparable(shown)


@pytest.mark.parametrize("name", ["containers.md"])
def test_yaml_of_a_page_parses(name: str) -> None:
    fences = re.findall(r"```yaml\n(.*?)```", page(name), re.DOTALL)
    assert fences
    assert all(yaml.safe_load(fence) for fence in fences)


def test_the_grace_of_the_container_page_is_long_enough() -> None:
    pods = [
        yaml.safe_load(f)
        for f in re.findall(r"```yaml\n(.*?)```", page("containers.md"), re.DOTALL)
    ]
    (pod,) = [pod for pod in pods if "terminationGracePeriodSeconds" in pod]
    server = int(pod["containers"][0]["command"][-1])
    assert pod["terminationGracePeriodSeconds"] > server + Settings().shutdown_timeout


def test_every_page_is_in_one_group_of_the_first_page() -> None:
    groups = re.findall(r"```\{toctree\}\n(.*?)```", page("index.md"), re.DOTALL)
    captions = [re.findall(r":caption: (.+)", group)[0] for group in groups]
    assert captions == ["Start", "Use", "Operate", "Reference", "Project"]
    listed = [line for group in groups for line in group.splitlines() if line and line[0] != ":"]
    pages = [path.stem for path in DOCS.glob("*.md") if path.stem != "index"]
    assert sorted(listed) == sorted([*pages, "examples/index"])


def test_the_stack_page_names_every_variable_and_file_of_the_collector() -> None:
    directory = DOCS.parent / "collector-config"
    files = [*directory.glob("*.yaml"), *directory.glob("parts/*.yaml")]
    texts = {path.name: path.read_text(encoding="utf-8") for path in files}
    del texts["test.yaml"]
    used = dict(re.findall(r"\$\{env:(\w+):-([^}]*)\}", "".join(texts.values())))
    text = page("stack.md")
    rows = re.findall(r"^\| (`[A-Z_`, ]+`) \| ([^|]+) \|", text, re.MULTILINE)
    documented = {name: default for names, default in rows for name in re.findall(r"\w+", names)}
    assert documented.keys() == used.keys()
    for name, default in used.items():
        if name != "QUEUE_BYTES":  # in words
            assert f"`{default}`" in documented[name]
    assert [name for name in texts if "env:" in texts[name] and name not in text] == [
        "queue-blocking.yaml"
    ]


def test_the_performance_page_has_no_columns_of_goals() -> None:
    headings = re.findall(r"^\|(.+)\|\n\|[-| ]+\|$", page("performance.md"), re.MULTILINE)
    assert len(headings) > 4
    columns = {column.strip() for heading in headings for column in heading.split("|")}
    assert columns & {"must", "aim", "reached", "ratio", "peer", "its value"} == set()
