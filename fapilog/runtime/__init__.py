"""Runtimes: what ``configure()`` makes, and the default runtime of the process.

``runtime`` joins loggers, a pipeline and sinks, ``wiring`` turns settings and
sinks into sending queues, ``default`` holds the runtime behind the functions of
the package, and ``metrics`` shows a ledger to Prometheus.  The packages ``cli``,
``testing``, ``core`` and ``fapilog`` itself import it; the engine and the sinks
never do.  Read ``runtime`` first.
"""
