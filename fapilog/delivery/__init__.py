"""One sink's way out: backlog, threads, retries, circuit, disk, and the count of every record.

``sending_queue`` puts the parts together for one sink.  ``intake`` takes
records in, ``backlog`` keeps them in memory, ``spooling`` moves them to disk,
``sender`` carries one batch until each record is settled, ``ledger`` counts.
The engine and the runtime import this package; it knows sinks only through
``fapilog.protocols``.  Read ``sending_queue`` first, then ``sender``.
"""
