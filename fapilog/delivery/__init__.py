"""Delivery to one sink: backlog, threads, retries, circuit, disk, and counts of all records.

``state`` owns the data that the parts of one sink's delivery share.
``intake`` accepts records, ``backlog`` keeps them in memory, ``spooling`` moves
them to disk, ``sender`` is the loop that sends a batch until each record is
settled, ``sending_queue`` runs the threads, and ``ledger`` counts.  The engine,
the runtime, the SDK exporters and ``fapilog spool`` import this package; it
imports ``fapilog.spool``, and knows sinks only through ``fapilog.protocols``.
Read ``sending_queue`` first, then ``sender``.
"""
