"""What fapilog does with the process that it runs in: threads, forks, signals, the exit.

``worker`` is a thread that sleeps until it is woken, ``give_way`` shares the
interpreter with the application, ``fork_gate`` keeps forks out of foreign
calls, ``exit`` and ``signal_watch`` end the process within one deadline, and
``files`` opens, locks, writes and syncs files that outlive the process.
Nothing here knows records.  Read ``worker`` first, then ``exit``.
"""
