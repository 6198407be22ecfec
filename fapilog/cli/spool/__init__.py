"""``fapilog spool``: shows, sends, adopts and deletes the batches that wait on disk.

``command`` contains the commands that only read, and the functions that all commands
share; ``replay``, ``adopt`` and ``purge`` contain one command each.  ``resend``
sends batches for ``replay``, and ``bodies`` formats batches for ``command``.
Read ``command`` first.
"""
