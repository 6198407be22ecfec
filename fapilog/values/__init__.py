"""Values: what the application passes, made safe to keep, to encode and to send.

``snapshot`` runs on the caller's thread and turns any object into a bounded
``AnyValue`` that nobody can change afterwards.  ``normalise`` runs on the
worker, on every record right before fan-out, and makes sure that processors
left nothing behind that an encoder could stumble over.
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
