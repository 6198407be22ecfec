"""Processors: they change or drop a record between the queue and the sinks, on the worker.

``redact`` is the redactor.  Names of secrets are in ``field_names``, shapes of
secrets in ``find_shapes``, values after names in ``find_pairs``, values in
validation errors in ``find_inputs``; ``user_patterns`` checks the user's
patterns, and ``pieces`` searches long texts.  ``level_filter`` drops records by
severity.  A processor knows only the record.  Read ``redact`` first.
"""

from fapilog.processors.level_filter import LevelFilter
from fapilog.processors.redact import RedactProcessor
from fapilog.protocols import Processor

__all__ = ["LevelFilter", "Processor", "RedactProcessor"]
