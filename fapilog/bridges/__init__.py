"""Passes the log records of other libraries to fapilog.

``stdlib``, ``structlog`` and ``loguru`` each convert the records of one logging library, and
``hooks`` logs warnings and uncaught exceptions.  ``celery_worker`` logs the tasks of Celery.
``celery`` and ``uvicorn`` keep records of these libraries from being printed twice.  ``feeds``
contains the code that all these modules share, and ``patching`` replaces functions of other
libraries.  The modules do not import the package ``fapilog.runtime``; instead, that package sets
``feeds.default_target`` to a function that returns the application's default ``Runtime``.  Read
``feeds`` first.
"""
