"""Delivery to one sink: backlog, threads, retries, circuit, spool and ledger.

``state`` owns the data that the modules of one sink's delivery share.  ``intake``
accepts records, ``backlog`` keeps them in memory, ``spooling`` moves them to disk,
``sender`` sends a batch until each record is delivered, refused or dropped,
``sending_queue`` runs the threads, and ``ledger`` counts records.  Read
``sending_queue`` first, then ``sender``.
"""
