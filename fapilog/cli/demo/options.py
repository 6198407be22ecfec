"""The demo's options, which it passes to fapilog and the SDK as environment variables."""

from __future__ import annotations

from enum import Enum
from typing import Final

_OPTIONS: Final = {
    "OTEL_EXPORTER_OTLP_ENDPOINT": "--endpoint",
    "OTEL_EXPORTER_OTLP_LOGS_PROTOCOL": "--protocol",
    "OTEL_EXPORTER_OTLP_PROTOCOL": "--protocol",
}


class Protocol(str, Enum):
    """The values of ``OTEL_EXPORTER_OTLP_PROTOCOL``."""

    HTTP_PROTOBUF = "http/protobuf"
    HTTP_JSON = "http/json"
    GRPC = "grpc"


def in_options(text: str) -> str:
    """Return ``text`` with environment variables replaced by the options that the user knows."""
    for variable, option in _OPTIONS.items():
        text = text.replace(variable, option)
    return text
