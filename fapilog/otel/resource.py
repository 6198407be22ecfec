"""Detects the resource of a runtime with the SDK's resource detectors.

A resource contains attributes of the service, the process and the host.
"""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.sdk import resources as sdk
from opentelemetry.sdk.environment_variables import OTEL_RESOURCE_ATTRIBUTES
from opentelemetry.sdk.resources import (
    OTELResourceDetector,
    ResourceDetector,
    get_aggregated_resources,
)
from opentelemetry.sdk.resources import Resource as SDKResource

from fapilog.diagnostics import announce
from fapilog.record import Resource
from fapilog.values import snapshot_attributes

if TYPE_CHECKING:
    from collections.abc import Mapping

_DETECTORS: Final = "OTEL_EXPERIMENTAL_RESOURCE_DETECTORS"
_DEFAULT_DETECTORS: Final = "process,host"
#: Attributes of the SDK's detectors that are omitted, because a command line may contain secrets.
_LEFT_OUT: Final = frozenset({"process.command", "process.command_args", "process.command_line"})
#: Maps the names of the SDK's own detectors to their classes.  This table is used if the
#: application was packaged without entry points.
_CLASSES: Final = {
    "otel": "OTELResourceDetector",
    "process": "ProcessResourceDetector",
    "host": "_HostResourceDetector",
}
_of_auto_instrumentation: Final[dict[str, Any]] = {}


def name_auto_instrumentation(version: str) -> None:
    """Add ``telemetry.auto.version`` to all resources that are detected later."""
    _of_auto_instrumentation["telemetry.auto.version"] = version


def detect_resource(
    given: Resource | SDKResource | Mapping[str, Any] | None = None, service_name: str | None = None
) -> Resource:
    """Return a resource with attributes from detectors, the environment and the arguments.

    The arguments override detected attributes.  The function reads the variables
    ``OTEL_SERVICE_NAME``, ``OTEL_RESOURCE_ATTRIBUTES`` and
    ``OTEL_EXPERIMENTAL_RESOURCE_DETECTORS``.  If the last variable is not set, the process and
    host detectors run.  Blocks for a few milliseconds.

    Args:
        given: the attributes that override detected attributes, or a complete resource, for
            which no detectors run.
        service_name: the service's name, which overrides a detected name.  ``service.name`` in
            ``given`` overrides this argument.
    """
    if isinstance(given, (Resource, SDKResource)):
        return Resource(snapshot_attributes(dict(given.attributes)), given.schema_url)
    _announce_malformed()
    named = {"service.name": service_name} if service_name else {}
    extra = snapshot_attributes({**named, **(given or {})})
    names = os.environ.get(_DETECTORS) or _DEFAULT_DETECTORS
    try:
        detected = get_aggregated_resources(_load(names), SDKResource.create())
    except RuntimeError:
        # The SDK runs detectors on threads, but an interpreter that is shutting down cannot start
        # threads.  In this case, only the environment variables are read.
        detected = OTELResourceDetector().detect()
    attributes = {
        name: value for name, value in detected.attributes.items() if name not in _LEFT_OUT
    }
    attributes.update(_of_auto_instrumentation)
    return Resource({**snapshot_attributes(attributes), **extra}, detected.schema_url)


def process_attributes() -> dict[str, Any]:
    """Return the attributes that differ between this process and its forked children."""
    found: dict[str, Any] = {"process.pid": os.getpid(), "process.parent_pid": os.getppid()}
    detector = getattr(sdk, "ServiceInstanceIdResourceDetector", None)  # missing in older SDKs
    if detector is not None:
        found.update(detector().detect().attributes)
    return found


def of_child(resource: Resource, before: Mapping[str, Any], now: Mapping[str, Any]) -> Resource:
    """Return ``resource`` with the process attributes of a forked child.

    ``before`` and ``now`` are the results of :func:`process_attributes` in the parent and in the
    child.  If an attribute of ``resource`` differs from ``before``, the user has set it, so it is
    not replaced.
    """
    changed = {
        name: value
        for name, value in now.items()
        if name in before and resource.attributes.get(name) == before[name]
    }
    return replace(resource, attributes={**resource.attributes, **changed})


def _announce_malformed() -> None:
    """Report the positions of malformed entries in ``OTEL_RESOURCE_ATTRIBUTES`` on stderr.

    The entries themselves are not shown, because they may contain secrets.
    """
    entries = os.environ.get(OTEL_RESOURCE_ATTRIBUTES, "").split(",")
    wrong = [
        str(position)
        for position, entry in enumerate(entries, start=1)
        if entry.strip() and (not entry.partition("=")[0].strip() or "=" not in entry)
    ]
    if wrong:
        announce(
            f"variable {OTEL_RESOURCE_ATTRIBUTES}",
            f"{OTEL_RESOURCE_ATTRIBUTES}: entry {', '.join(wrong)} does not have the form "
            "name=value and is ignored",
        )


def _load(names: str) -> list[ResourceDetector]:
    detectors: list[ResourceDetector] = []
    installed = entry_points(group="opentelemetry_resource_detector")
    wanted = [part.strip() for part in names.split(",")]
    if not installed:  # PyInstaller and zipapp omit the entry points
        wanted = ["otel", *wanted]
    for name in dict.fromkeys(wanted):
        makers = [point.load for point in installed if point.name == name]
        if not makers and hasattr(sdk, _CLASSES.get(name, "")):
            makers = [partial(getattr, sdk, _CLASSES[name])]
        if name not in {"", "*"} and not makers:
            announce(
                f"detector {name}", f"{_DETECTORS}: detector {name!r} is not installed; ignored"
            )
        for load in makers:
            try:
                detectors.append(load()())
            except Exception as error:  # noqa: BLE001, PERF203 - a detector must not stop the application
                announce(f"detector {name}", f"detector {name!r} failed: {error!r}; ignored")
    return detectors
