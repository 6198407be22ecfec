"""From a log call to the sinks' queues: loggers, holds, the pipeline and its one worker.

``logger`` and ``emit`` run on the caller's thread, ``pipeline`` and ``prepare``
on the worker; entries (see ``entry``) pass between them.  ``registry`` keeps one
core and one level per logger name.  ``holding`` and ``hold_buffer`` store records
that the application may want later.  Read ``emit`` first, then ``pipeline``.
The runtime and the bridges import this package; it imports no sink.
"""
