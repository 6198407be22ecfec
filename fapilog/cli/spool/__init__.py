"""``fapilog spool``: look at what waits on disk, send it, adopt it, delete it.

Each module is one command, or two that only read; ``resend`` sends batches
for ``replay`` and ``bodies`` shows what is inside them.
"""
