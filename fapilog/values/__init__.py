"""Copies and corrects the values that an application logs.

``snapshot`` runs on the thread that logs, and copies any object into a value of limited size that
the application cannot change.  ``normalise`` runs on the worker thread and corrects every record
before a sink encodes it, because a processor may have put invalid values into the record.  Read
``snapshots`` first.
"""

from fapilog.values.limits import DEFAULT_LIMITS, SCALARS, Limits
from fapilog.values.normal import normalise
from fapilog.values.snapshots import plain_name, snapshot, snapshot_attributes

__all__ = [
    "DEFAULT_LIMITS",
    "SCALARS",
    "Limits",
    "normalise",
    "plain_name",
    "snapshot",
    "snapshot_attributes",
]
