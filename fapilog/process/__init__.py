"""The process that fapilog runs in: its threads, forks, signals, files and its end.

``worker`` runs a loop on threads that sleep until they are woken.  ``give_way`` lets
the application run first.  ``fork`` lists the steps around a fork, ``sigterm``
handles the signal (with ``uvicorn``, if that server handles it too), ``exit`` delivers
at the end, and ``files`` opens and locks files that outlive the process.  Nothing here
knows records.  Read ``worker`` first, then ``exit``.
"""
