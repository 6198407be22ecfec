"""Everything that concerns the process: threads, forks, signals, files, and the exit.

``worker`` runs a loop on threads that sleep until they are woken.  ``give_way`` lets the
application run first.  ``fork`` lists the steps before and after a fork.  ``sigterm`` handles
SIGTERM, with the help of ``uvicorn`` if that server also handles the signal.  ``exit`` delivers
at the end of the process, and ``files`` opens and locks files that outlive the process.  This
package does not handle records itself.  Read ``worker`` first, then ``exit``.
"""
