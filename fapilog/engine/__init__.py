"""Loggers and the pipeline: the code that runs between a log call and the sinks' queues.

``logger`` and ``emit`` run in the thread that logs.  They append the values of a log call to a
queue, as a tuple that ``entry`` defines.  ``pipeline`` and ``prepare`` run in one background
thread, the worker, which makes a log record from each tuple and passes the record to the sinks.
``registry`` stores the state and the level of the loggers by logger name.  ``holding`` and
``hold_buffer`` implement ``hold()``, which buffers records until the application releases or
drops them.  To understand this package, read ``emit`` first, then ``pipeline``.  The package
``fapilog.runtime`` and the handlers for other logging libraries import this package, which
imports no sink.
"""
