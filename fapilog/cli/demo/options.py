"""The options of ``fapilog demo``, and the environment variables that the options set."""

from __future__ import annotations

from enum import Enum
from typing import Final

_OPTIONS: Final = {
    "OTEL_EXPORTER_OTLP_ENDPOINT": "--endpoint",
    "OTEL_EXPORTER_OTLP_LOGS_PROTOCOL": "--protocol",
    "OTEL_EXPORTER_OTLP_PROTOCOL": "--protocol",
}


class Protocol(str, Enum):
    """The values that the environment variable ``OTEL_EXPORTER_OTLP_PROTOCOL`` may have."""

    HTTP_PROTOBUF = "http/protobuf"
    HTTP_JSON = "http/json"
    GRPC = "grpc"


def in_options(text: str) -> str:
    """Replace the names of environment variables in a message with options of ``fapilog demo``."""
    for variable, option in _OPTIONS.items():
        text = text.replace(variable, option)
    return text
