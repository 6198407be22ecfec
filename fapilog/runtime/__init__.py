"""Runtimes, which ``configure()`` creates, and the default runtime of the process.

``runtime`` joins loggers, a pipeline and sinks; ``wiring`` turns settings and
sinks into sending queues; ``default`` holds the runtime that the functions of
``fapilog`` use; ``metrics`` shows a ledger to Prometheus.  ``fapilog``, ``cli``,
``core``, ``otel`` and ``testing`` import this package; the engine and the sinks
must not.  Read ``runtime`` first.
"""
