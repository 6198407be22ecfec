"""``fapilog spool``: shows, sends, adopts and deletes batches on disk.

``command`` contains the commands that only read, and the functions that all commands share;
``replay``, ``adopt`` and ``purge`` each contain one command.  ``resend`` sends batches for
``replay``, and ``bodies`` formats batches for ``command``.  Read ``command`` first.
"""
