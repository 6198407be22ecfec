"""The repository's promises about itself: its files parse, versions are pinned, layers hold."""

from __future__ import annotations

import ast
import configparser
import logging
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
COLLECTOR = ROOT / "collector-config" / "build" / "otelcol-fapilog"

MODULES = sorted((ROOT / "fapilog").rglob("*.py"))
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
YAML_FILES = [
    *sorted(ROOT.glob("*.y*ml")),
    *sorted(ROOT.glob(".*.y*ml")),
    *sorted((ROOT / ".github").rglob("*.y*ml")),
    *sorted((ROOT / "collector-config").rglob("*.y*ml")),
    *sorted((ROOT / "examples").rglob("*.y*ml")),
]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
#: The sets of files that a collector can be started with, from the files' first lines.
CONFIGURATIONS = sorted(
    {
        tuple(re.findall(r"--config (\S+)", command))
        for path in (ROOT / "collector-config").glob("*.yaml")
        for command in re.findall(
            r"^#   otelcol-contrib (.*)$", path.read_text("utf-8"), re.MULTILINE
        )
    }
    | {("test.yaml",), ("base.yaml", "gateway.yaml", "victorialogs.yaml", "kafka-consumer.yaml")}
)
README = (ROOT / "README.md").read_text(encoding="utf-8")
PROJECTS = [ROOT / "pyproject.toml", *sorted((ROOT / "integrations").glob("*/pyproject.toml"))]


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def load_yaml(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", YAML_FILES, ids=name_of)
def test_yaml_file_parses_to_something(path: Path) -> None:
    assert load_yaml(path)


@pytest.mark.parametrize("name", ["pyproject.toml", "uv.lock"])
def test_toml_file_parses(name: str) -> None:
    assert tomllib.loads((ROOT / name).read_text(encoding="utf-8"))


def test_collector_versions_agree_in_every_file() -> None:
    version = load_yaml(ROOT / "collector-config" / "builder.yaml")["dist"]["version"]
    compose = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    images = re.findall(r"image: otel/opentelemetry-collector\S*:(\S+)", compose)
    assert set(images) == {version}
    assert f"OCB_VERSION = v{version}\n" in (ROOT / "Makefile").read_text(encoding="utf-8")


def test_uv_version_agrees_in_every_file() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    (version,) = re.findall(r"^UV_VERSION = (\S+)$", makefile, re.MULTILINE)
    assert load_yaml(ROOT / ".github" / "workflows" / "ci.yml")["env"]["UV_VERSION"] == version
    install = load_yaml(ROOT / ".readthedocs.yaml")["build"]["jobs"]["install"]
    assert install[0].endswith(f"uv=={version}")
    dockerfile = (ROOT / "examples" / "docker" / "Dockerfile").read_text(encoding="utf-8")
    assert f"uv=={version}\n" in dockerfile


@pytest.mark.parametrize("path", WORKFLOWS, ids=name_of)
def test_workflow_actions_are_pinned_to_a_commit(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    actions = re.findall(r"uses: (.+)", text)
    assert actions
    assert [
        action for action in actions if not re.fullmatch(r"\S+@[0-9a-f]{40} # v\d\S*", action)
    ] == []


def project(path: Path = PROJECTS[0]) -> dict[str, Any]:
    values: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))["project"]
    return values


@pytest.mark.parametrize("path", PROJECTS, ids=name_of)
def test_pypi_shows_where_documentation_source_and_issues_are(path: Path) -> None:
    urls = project(path)["urls"]
    assert urls == project()["urls"]
    assert {"Documentation", "Repository", "Issues", "Changelog"} <= urls.keys()
    assert all(urls[name].startswith(urls["Repository"]) for name in ("Issues", "Changelog"))


def test_every_link_of_the_readme_works_on_pypi() -> None:
    links = re.findall(r"\]\(([^)]+)\)|^\[[\w-]+\]: (\S+)$", README, re.MULTILINE)
    addresses = [inline or reference for inline, reference in links]
    assert len(addresses) > 20
    assert [address for address in addresses if not address.startswith("https://")] == []


def test_every_link_of_the_readme_into_the_repository_leads_to_a_file() -> None:
    repository = project()["urls"]["Repository"]
    paths = re.findall(rf"{re.escape(repository)}/blob/main/([^)\s]+)", README)
    assert len(set(paths)) > 20
    assert [path for path in paths if not (ROOT / path).is_file()] == []
    others = set(re.findall(r"https://github\.com/[\w-]+/[\w-]+", README))
    assert others == {repository}


def test_every_reference_of_the_readme_is_defined() -> None:
    used = set(re.findall(r"\]\[([\w-]+)\]", README))
    assert used == set(re.findall(r"^\[([\w-]+)\]: ", README, re.MULTILINE))


def test_the_badges_say_what_is_true() -> None:
    classifiers = [name.rpartition(" ")[2] for name in project()["classifiers"]]
    versions = [version for version in classifiers if re.fullmatch(r"3\.\d+", version)]
    assert f"python-{versions[0]}_to_{versions[-1]}-blue" in README
    assert project()["requires-python"] == f">={versions[0]}"
    assert f"licence-{project()['license'].replace('-', '--')}-blue" in README
    ci = load_yaml(ROOT / ".github" / "workflows" / "ci.yml")["jobs"]
    assert ci["test"]["strategy"]["matrix"]["python"] == versions
    # The endpoint's file is what the job `badge` pushes.
    published = ci["badge"]["steps"][-1]["run"]
    assert "git switch --orphan badges" in published
    assert "git add coverage.json" in published
    assert "badges%2Fcoverage.json" in README
    assert "actions/workflows/ci.yml/badge.svg?branch=main" in README


@pytest.mark.parametrize("name", ["README.md", "docs/getting-started.md"])
def test_the_first_pip_install_of_a_document_comes_after_the_warning_about_018(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    warning = text.index("fapilog 1.0 is not on PyPI yet")
    assert warning < text.index("pip install")
    assert "0.18" in text[warning:].partition("\n\n")[0]


@pytest.mark.collector
@pytest.mark.skipif(not COLLECTOR.exists(), reason="no collector: run `make collector`")
@pytest.mark.parametrize("files", CONFIGURATIONS, ids="+".join)
def test_collector_accepts_its_configuration(files: tuple[str, ...]) -> None:
    result = subprocess.run(
        [COLLECTOR, "validate", *(f"--config={file}" for file in files)],
        cwd=COLLECTOR.parents[1],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("document", [ROOT / "CONTRIBUTING.md", *DOCUMENTS], ids=name_of)
def test_every_make_target_a_document_names_exists(document: Path) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    assert {"demo", "test"} <= targets
    # In prose a command is between backquotes; in a block it begins a line.
    named = re.findall(r"(?:`|^)make ([a-z-]+)", document.read_text(encoding="utf-8"), re.MULTILINE)
    assert set(named) <= targets


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_a_snippet_is_skipped_only_with_a_reason(document: Path) -> None:
    skips = re.findall(r"skip: (?:next|start)(.*)", document.read_text(encoding="utf-8"))
    assert [skip for skip in skips if not re.match(r' ".{10,}"', skip)] == []


@pytest.mark.parametrize("module", MODULES, ids=name_of)
def test_every_module_has_a_docstring(module: Path) -> None:
    assert ast.get_docstring(ast.parse(module.read_text(encoding="utf-8")))


def test_imports_go_down_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cli = pytest.importorskip("importlinter.cli", reason="needs the dependency group `lint`")
    monkeypatch.chdir(ROOT)
    for logger in list(logging.root.manager.loggerDict.values()):
        if isinstance(logger, logging.Logger):  # the linter disables loggers
            monkeypatch.setattr(logger, "disabled", logger.disabled)
    assert cli.lint_imports(no_cache=True) == 0, capsys.readouterr().out


def test_architecture_names_the_modules_of_every_layer() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / ".importlinter", encoding="utf-8")
    layers = config["importlinter:contract:layers"]["layers"]
    required = set(re.findall(r"(?<![\w.(])[a-z_][\w.]*(?![\w.)])", layers))
    assert {"cli", "engine", "record"} <= required
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    section = page.partition("## Layers")[2].partition("\n## ")[0]
    table = re.findall(r"^\|.*\|$", section, re.MULTILINE)
    named = {name for row in table[3:] for name in re.findall(r"`([\w.]+)`", row)}
    assert named == required


def test_license_is_the_whole_text_of_apache_2() -> None:
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Version 2.0, January 2004" in text
    assert "9. Accepting Warranty or Additional Liability." in text
