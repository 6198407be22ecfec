"""One sink's way out: backlog, threads, retries, circuit, disk, and the count of every record.

``state`` owns what the parts of one sink's delivery share, and is passed whole.
``intake`` takes records in, ``backlog`` keeps them in memory, ``spooling`` moves
them to disk, ``sender`` is the loop that sends a batch until each record is
settled, ``sending_queue`` runs the threads, and ``ledger`` counts.  The engine,
the runtime, the SDK exporters and ``fapilog spool`` import this package; it
imports ``fapilog.spool``, and knows sinks only through ``fapilog.protocols``.
Read ``sending_queue`` first, then ``sender``.
"""
