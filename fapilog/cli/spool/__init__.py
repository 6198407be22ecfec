"""``fapilog spool``: shows, sends, adopts and deletes the batches that wait on disk.

``command`` holds the commands that only read, and the parts that all commands
share; ``replay``, ``adopt`` and ``purge`` hold one command each.  ``resend``
sends the batches for ``replay``, ``bodies`` prints them.  Only ``fapilog.cli``
imports this package; it imports ``fapilog.spool``, settings and sinks.  Read
``command`` first.
"""
