"""Everything that concerns the process: threads, forks, signals, files, and the exit.

``worker`` runs a loop on threads that sleep until they are woken.  ``give_way`` lets the
application run first.  ``fork`` lists the steps before and after a fork, ``sigterm`` handles
SIGTERM (with ``uvicorn``, if that server handles it too), ``exit`` delivers at the end of the
process, and ``files`` opens and locks files that outlive the process.  This package does not
know records.  Read ``worker`` first, then ``exit``.
"""
