"""Makes the application's values safe to keep, encode and send.

``snapshot`` runs on the caller's thread and copies any object into a bounded
``AnyValue`` that the application cannot change.  ``normalise`` runs on the worker
and corrects every record before fan-out, because a processor may have put wrong
values into it.  Read ``snapshots`` first.
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
