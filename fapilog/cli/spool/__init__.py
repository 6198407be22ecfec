"""``fapilog spool``: shows, sends, adopts and deletes the batches that wait on disk.

``command`` contains the commands that only read, and the parts that all commands
share; ``replay``, ``adopt`` and ``purge`` contain one command each.  ``resend``
sends batches for ``replay``, and ``bodies`` formats batches for ``command``.
Only ``fapilog.cli`` imports this package; it imports ``fapilog.spool``, settings
and sinks.  Read ``command`` first.
"""
