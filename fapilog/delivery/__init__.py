"""Delivery to one sink: backlog, threads, retries, circuit, disk, and counts of all records.

``state`` owns the data that the parts of one sink's delivery share.
``intake`` accepts records, ``backlog`` keeps them in memory, ``spooling`` moves
them to disk, ``sender`` sends a batch until each record is settled,
``sending_queue`` runs the threads, and ``ledger`` counts.  Read
``sending_queue`` first, then ``sender``.
"""
