"""Processors: what changes or drops a record between the queue and the sinks."""

from fapilog.processors.level_filter import LevelFilter
from fapilog.processors.redact import RedactProcessor
from fapilog.protocols import Processor

__all__ = ["LevelFilter", "Processor", "RedactProcessor"]
