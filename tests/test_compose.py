"""The compose files: what they promise about images, ports, health, users and profiles."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
STACK = ROOT / "docker-compose.yml"
FILES = [STACK, ROOT / "examples" / "docker" / "compose.yaml"]
VALIDATOR = ROOT / "collector-config" / "build" / "compose-spec"
PROFILES = {"app", "full", "kafka", "victoria"}
#: The image of the collector holds nothing that could run a health check.
COLLECTORS = {"collector", "collector-development", "collector-producer"} | {
    "collector-consumer",
    "collector-victoria",
}


def read(path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return loaded


SERVICES = [
    pytest.param(path, name, service, id=f"{path.parent.name}-{name}")
    for path in FILES
    for name, service in read(path)["services"].items()
]
each_service = pytest.mark.parametrize(("path", "name", "service"), SERVICES)


def dockerfile(path: Path, service: dict[str, Any]) -> str:
    build: dict[str, str] = service["build"]
    return (path.parent / build["context"] / build["dockerfile"]).read_text(encoding="utf-8")


def dependencies(service: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = service.get("depends_on", {})
    return found


@each_service
def test_every_image_is_pinned_to_a_full_version(path: Path, name: str, service: Any) -> None:
    images = [service["image"]] if "image" in service else []
    if "build" in service:
        images += re.findall(r"^FROM (\S+)", dockerfile(path, service), re.MULTILINE)
    assert images
    assert [image for image in images if not re.search(r":v?\d+\.\d+\.\d+(-[a-z]+)?$", image)] == []


@each_service
def test_every_port_is_bound_to_loopback(path: Path, name: str, service: Any) -> None:
    assert [p for p in service.get("ports", []) if not p.startswith("127.0.0.1:")] == []


@each_service
def test_every_service_has_a_health_check_if_its_image_allows_one(
    path: Path, name: str, service: Any
) -> None:
    assert ("healthcheck" in service) == (name not in COLLECTORS)


@each_service
def test_compose_waits_only_for_health_that_is_checked(path: Path, name: str, service: Any) -> None:
    services = read(path)["services"]
    for other, dependency in dependencies(service).items():
        if dependency["condition"] == "service_healthy":
            assert "healthcheck" in services[other]


@each_service
def test_every_service_restarts_and_has_limits(path: Path, name: str, service: Any) -> None:
    assert service["restart"] == "unless-stopped"
    assert service["deploy"]["resources"]["limits"].keys() == {"cpus", "memory", "pids"}
    assert "no-new-privileges:true" in service["security_opt"]


@each_service
def test_python_services_and_collectors_change_no_file_of_their_image(
    path: Path, name: str, service: Any
) -> None:
    if "build" in service or name in COLLECTORS:
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
    if "build" in service:
        assert service["user"] == "65534:65534"
        assert "\nUSER 65534:65534\n" in dockerfile(path, service)


@each_service
def test_mounts_are_files_of_the_repository_or_named_volumes(
    path: Path, name: str, service: Any
) -> None:
    named = read(path)["volumes"].keys()
    for volume in service.get("volumes", []):
        source, _, rest = volume.partition(":")
        if source.startswith("."):
            assert (path.parent / source).exists()
            assert rest.endswith(":ro")
        else:
            assert source in named


@each_service
def test_no_secret_is_in_the_file(path: Path, name: str, service: Any) -> None:
    secret = re.compile(r"passw|secret|token|api_?key", re.IGNORECASE)
    assert [key for key in service.get("environment", {}) if secret.search(key)] == []


def enabled(profile: str) -> dict[str, Any]:
    return {n: s for n, s in read(STACK)["services"].items() if profile in s["profiles"]}


@pytest.mark.parametrize("profile", sorted(PROFILES))
def test_a_profile_has_everything_that_its_services_need(profile: str) -> None:
    services = enabled(profile)
    for service in services.values():
        for name, dependency in dependencies(service).items():
            assert name in services or dependency.get("required") is False
    # The services and their collector find each other by name.
    aliases = [
        name
        for name, service in services.items()
        if "collector" in {name, *service.get("networks", {}).get("default", {}).get("aliases", [])}
    ]
    assert len(aliases) == 1
    assert {"orders", "stock", "load"} <= services.keys()
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert len(ports) == len(set(ports))


def test_every_service_belongs_to_a_profile_and_every_profile_to_the_readme() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    used = {p for service in read(STACK)["services"].values() for p in service["profiles"]}
    assert used == PROFILES
    for profile in PROFILES:
        assert f"--profile {profile}" in text or f"`{profile}`" in text


def test_the_addresses_in_the_configurations_are_services() -> None:
    services = read(STACK)["services"].keys()
    hosts = set()
    for file in ("gateway", "victorialogs", "kafka-producer", "kafka-consumer"):
        text = (ROOT / "collector-config" / f"{file}.yaml").read_text(encoding="utf-8")
        hosts |= set(re.findall(r":-(?:http://)?([a-z][a-z-]*):\d", text))
    grafana = (ROOT / "collector-config" / "grafana").rglob("*.yaml")
    hosts |= {h for path in grafana for h in re.findall(r"url: http://(\S+):", path.read_text())}
    prometheus = read(ROOT / "collector-config" / "prometheus.yaml")["scrape_configs"]
    hosts |= {t.split(":")[0] for c in prometheus[0]["static_configs"] for t in c["targets"]}
    hosts |= {name for c in prometheus[1]["dns_sd_configs"] for name in c["names"]}
    assert {"loki", "tempo", "prometheus", "victorialogs", "kafka", "orders"} <= hosts
    assert hosts <= services


def test_victoria_has_the_data_sources_of_the_others() -> None:
    directory = ROOT / "collector-config" / "grafana"
    usual = read(directory / "provisioning" / "datasources" / "datasources.yaml")["datasources"]
    victoria = read(directory / "victoria" / "datasources.yaml")["datasources"]
    assert victoria[0]["uid"] == "victorialogs"
    for source in (usual, victoria):
        link = source[1]["jsonData"].pop("tracesToLogsV2")
        assert link["datasourceUid"] == source[0]["uid"]
        assert source[0]["jsonData"]["derivedFields"][0]["datasourceUid"] == source[1]["uid"]
    assert victoria[1:] == usual[1:]


def test_every_exemplar_has_the_label_that_the_data_source_links() -> None:
    sources = ROOT / "collector-config" / "grafana" / "provisioning" / "datasources"
    prometheus = read(sources / "datasources.yaml")["datasources"][2]
    (link,) = prometheus["jsonData"]["exemplarTraceIdDestinations"]
    assert link["name"] == "trace_id"  # the collector's label
    tempo = read(ROOT / "collector-config" / "tempo.yaml")["overrides"]["defaults"]
    assert tempo["metrics_generator"]["trace_id_label_name"] == "trace_id"


@pytest.mark.collector
@pytest.mark.skipif(not VALIDATOR.exists(), reason="no validator: run `make compose` (needs Go)")
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_the_library_of_docker_compose_accepts_the_file(path: Path) -> None:
    done = subprocess.run(
        [VALIDATOR, path],
        env={**os.environ, "COMPOSE_PROFILES": ",".join(PROFILES)},
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert set(yaml.safe_load(done.stdout)["services"]) == set(read(path)["services"])
