"""Processors, which change or drop a record before the sinks receive it.

A processor is a function that the worker thread calls with one record.  ``level_filter`` drops
records by severity.  ``redact`` masks secrets, and is the module to read first.  It searches for
secrets with these modules: ``field_names`` recognises the names of secret fields, ``find_shapes``
finds secrets of a certain shape such as API keys, ``find_pairs`` finds values that follow the
name of a secret field in a string (``password=...``), ``find_inputs`` finds secrets in validation
errors, and ``find_encoded`` finds secrets in percent-encoded strings and JSON.  ``user_patterns``
checks the users' regular expressions, and ``pieces`` searches long strings.
"""

from fapilog.processors.level_filter import LevelFilter
from fapilog.processors.redact import RedactProcessor
from fapilog.protocols import Processor

__all__ = ["LevelFilter", "Processor", "RedactProcessor"]
