"""Runtimes: what ``configure()`` makes, and all global state of fapilog.

``wiring`` turns settings and sinks into sending queues, ``runtime`` joins them
with loggers and a pipeline, ``default`` keeps the one runtime behind the
functions of the package, ``metrics`` shows a ledger to Prometheus.  Faces of
fapilog (``cli``, ``testing``, ``fapilog`` itself) import it; the engine and the
sinks never do.  Read ``runtime`` first.
"""
