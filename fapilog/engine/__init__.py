"""The code from a log call to the sinks' queues: loggers, holds, the pipeline, its worker.

``logger`` and ``emit`` run on the caller's thread.  ``pipeline`` and ``prepare`` run on the
worker, which gets the values of each log call in an entry (see ``entry``).  ``registry``
keeps one core and one level per logger name.  ``holding`` and ``hold_buffer`` keep records
until the application releases or drops them.  Read ``emit`` first, then ``pipeline``.
The runtime and the bridges import this package; it imports no sink.
"""
