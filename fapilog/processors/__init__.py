"""Processors: they change or drop a record between the queue and the sinks, on the worker.

``level_filter`` drops records by severity.  ``redact`` masks secrets, by their names
(``field_names``), by their shapes (``find_shapes``), after their names in a text
(``find_pairs``), in validation errors (``find_inputs``) and in encoded texts
(``find_encoded``).  ``user_patterns`` checks the users' patterns, and ``pieces``
searches long texts.  A processor knows only the record.  Read ``redact`` first.
"""

from fapilog.processors.level_filter import LevelFilter
from fapilog.processors.redact import RedactProcessor
from fapilog.protocols import Processor

__all__ = ["LevelFilter", "Processor", "RedactProcessor"]
