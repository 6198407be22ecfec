"""Implements ``fapilog spool``, which shows, sends, moves and deletes log records on disk.

The module ``command`` contains the commands that only read files, and functions for all
commands.  The modules ``replay``, ``adopt`` and ``purge`` contain the commands of these names.
``resend`` sends batches for ``replay``, and ``bodies`` formats batches for ``command``.  Read
``command`` first.
"""
