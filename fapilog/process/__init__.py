"""The process that fapilog runs in: its threads, forks, signals, files and its end.

``worker`` is a thread that sleeps until it is woken, and ``give_way`` lets the
application run first.  ``fork`` is the ordered list of steps around a fork,
``sigterm`` handles that signal, ``exit`` delivers at the end, and ``files`` opens,
locks, writes and syncs files that outlive the process.  All layers above may
import this package.  It does not know records and imports ``native``, ``errors``,
``context`` and ``diagnostics``.  Read ``worker`` first, then ``exit``.
"""
