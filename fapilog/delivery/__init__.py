"""Delivers records to one sink, with retries, a circuit breaker and a spool on disk.

Read ``sending_queue`` first, which runs the sink's threads, then ``sender``, which sends a
batch until each record is delivered, refused or dropped.  ``intake`` encodes new records,
``backlog`` defines the queue in memory, ``spooling`` moves records to disk, ``ledger`` counts
records, and ``state`` contains the data that these modules share.  ``direct_queue`` is a sending
queue for spans, which come from any thread and not from the pipeline's worker.
"""
