"""From a log call to the sinks' queues: loggers, holds, the pipeline and its one worker.

``logger`` and ``emit`` run on the caller's thread, ``pipeline`` and ``prepare``
on the worker; ``entry`` is what passes between them.  ``registry`` and
``levels`` keep one core per logger name, ``holding`` and ``hold_buffer`` keep
records that are not wanted yet.  Read ``emit`` first, then ``pipeline``.
The runtime and the bridges import this package; it knows no sink and no option.
"""
