"""Processors: they change or drop a record between the queue and the sinks, on the worker.

``level_filter`` drops records by severity.  ``redact`` masks secrets, which it finds by
the names of fields (``field_names``), by known shapes such as tokens (``find_shapes``),
after secret names in a text (``find_pairs``), in validation errors (``find_inputs``) and
in encoded texts (``find_encoded``).  ``user_patterns`` checks the users' patterns, and
``pieces`` searches long texts.  A processor gets only the record.  Read ``redact`` first.
"""

from fapilog.processors.level_filter import LevelFilter
from fapilog.processors.redact import RedactProcessor
from fapilog.protocols import Processor

__all__ = ["LevelFilter", "Processor", "RedactProcessor"]
