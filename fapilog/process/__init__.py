"""Functions and classes that concern the process: threads, forks, signals, files, and the exit.

``worker`` runs background threads that sleep until they are woken.  ``give_way`` pauses these
threads, so that the application's threads run first.  ``fork`` runs registered functions before
and after a fork.  ``sigterm`` defines a handler for SIGTERM.  ``uvicorn`` installs this handler
after the server uvicorn has removed its own handler.  ``exit`` delivers the remaining records at
the end of the process, and ``celery`` at the end of a child process of Celery.  ``files`` opens and
locks files that outlive the process.  Read ``worker`` first, then ``exit``.
"""
